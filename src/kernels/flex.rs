//! The operations on burn's pure-Rust CPU engine: our kernels, on rayon's threads as burn's own
//! operations there.

use std::mem::MaybeUninit;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{DType, Flex};
use burn::tensor::TensorData;
use burn_flex::FlexTensor;

use super::conv::Geometry;
use super::ops::{Engine, InputGradient, NormGradients, NormSpec, NormTensors, kernels_of_engine};
use super::parallel::{Cpu, Pool};
use super::pictures::Pictures;
use super::pool::MaxPool;
use super::quantize::Grids;
use super::slices::{self, Slices};
use super::subsample::Subsampling;

kernels_of_engine!(Flex);

/// A tensor whose layout is row-major.
pub(super) struct Contiguous(FlexTensor);

impl AsRef<[f32]> for Contiguous {
    fn as_ref(&self) -> &[f32] {
        let start = self.0.layout().start_offset();
        &self.0.storage::<f32>()[start..start + self.0.layout().num_elements()]
    }
}

impl Slices for Flex {
    type Held = Contiguous;

    fn cpu() -> Cpu {
        Cpu::current(Pool::Rayon)
    }

    fn hold(tensor: &FloatTensor<Self>) -> Contiguous {
        assert_eq!(tensor.dtype(), DType::F32, "the kernels compute in f32");
        Contiguous(tensor.to_contiguous())
    }

    unsafe fn written<R>(
        shape: &[usize],
        write: impl FnOnce(&mut [MaybeUninit<f32>]) -> R,
    ) -> (FloatTensor<Self>, R) {
        // SAFETY: the caller's.
        let (values, result) = unsafe { super::written_by(shape.iter().product(), write) };
        let data = TensorData::new(values, shape.to_vec());
        (FlexTensor::from_data(data), result)
    }
}

impl Engine for Flex {
    fn convolution_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        geometry: Geometry,
    ) -> FloatTensor<Self> {
        let e = slices::extents::<Self>(&x, &weight, geometry);
        slices::convolution_forward::<Self>(&x, &weight, &e)
    }

    fn convolution_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        g: FloatTensor<Self>,
        geometry: Geometry,
        wanted: InputGradient<Self>,
    ) -> (Option<FloatTensor<Self>>, FloatTensor<Self>) {
        let e = slices::extents::<Self>(&x, &weight, geometry);
        slices::convolution_backward::<Self>(&x, &weight, &g, &e, wanted)
    }

    fn subsample_forward(x: FloatTensor<Self>, s: &Subsampling) -> FloatTensor<Self> {
        slices::subsample_forward::<Self>(&x, s)
    }

    fn subsample_backward(g: FloatTensor<Self>, s: &Subsampling) -> FloatTensor<Self> {
        slices::subsample_backward::<Self>(&g, s)
    }

    fn pictures(table: FloatTensor<Self>, pictures: Pictures) -> FloatTensor<Self> {
        slices::pictures::<Self>(&table, &pictures)
    }

    fn max_pool_forward(
        x: FloatTensor<Self>,
        pool: &MaxPool,
    ) -> (FloatTensor<Self>, Option<IntTensor<Self>>) {
        (slices::max_pool_forward::<Self>(&x, pool), None)
    }

    fn max_pool_backward(
        x: FloatTensor<Self>,
        _kept: Option<IntTensor<Self>>,
        g: FloatTensor<Self>,
        pool: &MaxPool,
    ) -> FloatTensor<Self> {
        slices::max_pool_backward::<Self>(&x, &g, pool)
    }

    fn fake_quantize_forward(x: FloatTensor<Self>, grids: &Grids) -> FloatTensor<Self> {
        slices::fake_quantize_forward::<Self>(&x, grids)
    }

    fn fake_quantize_backward(
        x: FloatTensor<Self>,
        g: FloatTensor<Self>,
        grids: &Grids,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        slices::fake_quantize_backward::<Self>(&x, &g, grids)
    }

    fn norm_activation_forward(
        inputs: &NormTensors<Self>,
        statistics: Option<FloatTensor<Self>>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        slices::norm_activation_forward(inputs, statistics)
    }

    fn norm_activation_backward(
        inputs: &NormTensors<Self>,
        statistics: FloatTensor<Self>,
        g: FloatTensor<Self>,
    ) -> NormGradients<Self> {
        slices::norm_activation_backward(inputs, &statistics, &g)
    }
}
