//! The operations on burn's pure-Rust CPU engine: plain slices in, plain slices out.

use burn::backend::tensor::FloatTensor;
use burn::backend::{DType, Flex, TensorMetadata};
use burn::tensor::{Shape, TensorData};
use burn_flex::FlexTensor;

use super::conv::{self, Extents, Geometry};
use super::norm::{self, Activation, Extent, Inputs};
use super::ops::{Engine, NormGradients, NormSpec, NormTensors, kernels_of_engine};
use super::parallel::{Cpu, Pool};
use super::{quantize, written};
use crate::quantizer::Grid;

kernels_of_engine!(Flex);

/// A tensor's elements in row-major order; copies only what is strided.
struct Contiguous(FlexTensor);

impl Contiguous {
    fn new(tensor: &FlexTensor) -> Self {
        assert_eq!(tensor.dtype(), DType::F32, "the kernels compute in f32");
        Self(tensor.to_contiguous())
    }

    fn slice(&self) -> &[f32] {
        let start = self.0.layout().start_offset();
        &self.0.storage::<f32>()[start..start + self.0.layout().num_elements()]
    }
}

fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape.into()))
}

/// rayon's pool: burn's own operations on this engine run there too.
fn cpu() -> Cpu {
    Cpu::current(Pool::Rayon)
}

impl Engine for Flex {
    fn convolution_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        geometry: Geometry,
    ) -> FloatTensor<Self> {
        let e = extents(&x, &weight, geometry);
        let [height, width] = e.output_size();
        let y = conv::forward(
            cpu(),
            &e,
            Contiguous::new(&x).slice(),
            Contiguous::new(&weight).slice(),
        );
        tensor(y, [e.images, e.output, height, width])
    }

    fn convolution_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        g: FloatTensor<Self>,
        geometry: Geometry,
        wants_x: bool,
    ) -> (Option<FloatTensor<Self>>, FloatTensor<Self>) {
        let e = extents(&x, &weight, geometry);
        let upstream = Contiguous::new(&g);
        let gx = wants_x.then(|| {
            let weight = Contiguous::new(&weight);
            let gx = conv::input_gradient(cpu(), &e, weight.slice(), upstream.slice());
            tensor(gx, x.shape())
        });
        let gw = conv::weight_gradient(cpu(), &e, Contiguous::new(&x).slice(), upstream.slice());
        (gx, tensor(gw, weight.shape()))
    }

    fn fake_quantize_forward(x: FloatTensor<Self>, grid: &Grid) -> FloatTensor<Self> {
        let input = Contiguous::new(&x);
        let x_slice = input.slice();
        let (y, ()) = written(x_slice.len(), |y| {
            quantize::forward(cpu(), grid, x_slice, y);
        });
        tensor(y, x.shape())
    }

    fn fake_quantize_backward(
        x: FloatTensor<Self>,
        g: FloatTensor<Self>,
        grid: &Grid,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (input, upstream) = (Contiguous::new(&x), Contiguous::new(&g));
        let (gx, sums) = written(input.slice().len(), |gx| {
            quantize::backward(cpu(), grid, input.slice(), upstream.slice(), gx)
        });
        (tensor(gx, x.shape()), sums_tensor(sums))
    }

    fn norm_activation_forward(
        inputs: &NormTensors<Self>,
        statistics: Option<FloatTensor<Self>>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let cpu = cpu();
        let slices = NormSlices::new(inputs);
        let slices = slices.inputs();
        let statistics = match statistics {
            Some(s) => Contiguous::new(&s).slice().to_vec(),
            None => norm::statistics(cpu, slices.x, slices.extent, inputs.moments),
        };
        let (y, ()) = written(slices.x.len(), |y| {
            norm::forward(cpu, &slices, &statistics, y);
        });
        let channels = slices.extent.channels;
        (
            tensor(y, inputs.x.shape()),
            tensor(statistics, [2, channels]),
        )
    }

    fn norm_activation_backward(
        inputs: &NormTensors<Self>,
        statistics: FloatTensor<Self>,
        g: FloatTensor<Self>,
    ) -> NormGradients<Self> {
        let all = NormSlices::new(inputs);
        let slices = all.inputs();
        let (statistics, upstream) = (Contiguous::new(&statistics), Contiguous::new(&g));
        let length = slices.x.len();
        let residual = slices.residual.map_or(0, <[f32]>::len);
        let (gx, (gr, gradients)) = written(length, |gx| {
            written(residual, |gr| {
                norm::backward(cpu(), &slices, statistics.slice(), upstream.slice(), gx, gr)
            })
        });
        let shape = inputs.x.shape();
        let channels = slices.extent.channels;
        NormGradients {
            x: tensor(gx, shape.clone()),
            residual: inputs.residual.is_some().then(|| tensor(gr, shape)),
            gamma: tensor(gradients.gamma, [channels]),
            beta: tensor(gradients.beta, [channels]),
            sums: sums_tensor(gradients.sums),
        }
    }
}

/// Extents of a convolution of these shapes.
fn extents(x: &FlexTensor, weight: &FlexTensor, geometry: Geometry) -> Extents {
    let [images, input, height, width] = x.shape().dims();
    let [output, _, kernel_height, kernel_width] = weight.shape().dims();
    Extents {
        images,
        input,
        size: [height, width],
        output,
        kernel: [kernel_height, kernel_width],
        geometry,
    }
}

fn sums_tensor(sums: crate::quantizer::Sums) -> FlexTensor {
    tensor(
        sums.to_array().map(|v| v as f32).to_vec(),
        [crate::quantizer::Sums::LEN],
    )
}

/// The fused norm's inputs, contiguous.
struct NormSlices {
    x: Contiguous,
    residual: Option<Contiguous>,
    gamma: Contiguous,
    beta: Contiguous,
    epsilon: f32,
    activation: Activation,
    extent: Extent,
}

impl NormSlices {
    fn new(inputs: &NormTensors<Flex>) -> Self {
        let shape = inputs.x.shape();
        let [images, channels, height, width] = shape.dims();
        Self {
            x: Contiguous::new(&inputs.x),
            residual: inputs.residual.as_ref().map(Contiguous::new),
            gamma: Contiguous::new(&inputs.gamma),
            beta: Contiguous::new(&inputs.beta),
            epsilon: inputs.epsilon,
            activation: inputs.activation,
            extent: Extent {
                images,
                channels,
                pixels: height * width,
            },
        }
    }

    fn inputs(&self) -> Inputs<'_> {
        Inputs {
            x: self.x.slice(),
            residual: self.residual.as_ref().map(Contiguous::slice),
            gamma: self.gamma.slice(),
            beta: self.beta.slice(),
            epsilon: self.epsilon,
            activation: self.activation,
            extent: self.extent,
        }
    }
}
