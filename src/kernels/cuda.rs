//! The operations on burn's own CUDA engine, composed of its tensor operations.

use burn::backend::tensor::FloatTensor;
use burn_cuda::Cuda;

use super::composed;
use super::conv::Geometry;
use super::ops::{Engine, NormGradients, NormSpec, NormTensors, kernels_of_engine};
use super::subsample::Subsampling;
use crate::quantizer::Grid;

kernels_of_engine!(Cuda);

impl Engine for Cuda {
    fn subsample_forward(x: FloatTensor<Self>, s: &Subsampling) -> FloatTensor<Self> {
        composed::subsample_forward::<Self>(x, s)
    }

    fn subsample_backward(g: FloatTensor<Self>, s: &Subsampling) -> FloatTensor<Self> {
        composed::subsample_backward::<Self>(g, s)
    }

    fn fake_quantize_forward(x: FloatTensor<Self>, grid: &Grid) -> FloatTensor<Self> {
        composed::fake_quantize_forward::<Self>(x, grid)
    }

    fn fake_quantize_backward(
        x: FloatTensor<Self>,
        g: FloatTensor<Self>,
        grid: &Grid,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        composed::fake_quantize_backward::<Self>(x, g, grid)
    }

    fn norm_activation_forward(
        inputs: &NormTensors<Self>,
        statistics: Option<FloatTensor<Self>>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        composed::norm_activation_forward(inputs, statistics)
    }

    fn norm_activation_backward(
        inputs: &NormTensors<Self>,
        statistics: FloatTensor<Self>,
        g: FloatTensor<Self>,
    ) -> NormGradients<Self> {
        composed::norm_activation_backward(inputs, statistics, g)
    }
}
