//! The operations on CPU tensors of any engine that lends its elements as plain slices.

use std::mem::MaybeUninit;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};

use super::conv::{self, Extents, Geometry};
use super::norm::{self, Across, Activation, Extent, Inputs, Moments};
use super::ops::{InputGradient, NormGradients, NormTensors};
use super::parallel::Cpu;
use super::pictures::{self, Pictures};
use super::pool::{self, MaxPool};
use super::quantize::{self, Grids};
use super::subsample::{self, Subsampling};
use crate::quantizer::Sums;

/// An engine whose CPU tensors are memory.
pub(super) trait Slices: Backend {
    /// A tensor in row-major order, held while its elements are lent out.
    type Held: AsRef<[f32]> + Sync;

    /// How the kernels run on this engine.
    fn cpu() -> Cpu;

    /// Row-major; copies only what is strided.
    fn hold(tensor: &FloatTensor<Self>) -> Self::Held;

    /// A new tensor whose elements `write` initialises.
    ///
    /// # Safety
    /// `write` writes every element.
    unsafe fn written<R>(
        shape: &[usize],
        write: impl FnOnce(&mut [MaybeUninit<f32>]) -> R,
    ) -> (FloatTensor<Self>, R);
}

fn from_values<B: Slices>(values: &[f32], shape: &[usize]) -> FloatTensor<B> {
    // SAFETY: the loop writes every element.
    unsafe {
        B::written(shape, |out| {
            for (out, value) in out.iter_mut().zip(values) {
                out.write(*value);
            }
        })
    }
    .0
}

/// `[4]` for each.
fn sums_tensor<B: Slices>(sums: &[Sums]) -> FloatTensor<B> {
    let values = sums.iter().flat_map(|sums| sums.to_array());
    let values: Vec<f32> = values.map(|v| v as f32).collect();
    from_values::<B>(&values, &[values.len()])
}

fn shape<B: Backend>(tensor: &FloatTensor<B>) -> Vec<usize> {
    tensor.shape().to_vec()
}

/// Extents of a convolution of these shapes.
pub(super) fn extents<B: Backend>(
    x: &FloatTensor<B>,
    weight: &FloatTensor<B>,
    geometry: Geometry,
) -> Extents {
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

pub(super) fn convolution_forward<B: Slices>(
    x: &FloatTensor<B>,
    weight: &FloatTensor<B>,
    e: &Extents,
) -> FloatTensor<B> {
    let [height, width] = e.output_size();
    let (x, weight) = (B::hold(x), B::hold(weight));
    // SAFETY: the kernel writes every element of its output.
    unsafe {
        B::written(&[e.images, e.output, height, width], |y| {
            conv::forward(B::cpu(), e, x.as_ref(), weight.as_ref(), y);
        })
    }
    .0
}

pub(super) fn convolution_backward<B: Slices>(
    x: &FloatTensor<B>,
    weight: &FloatTensor<B>,
    g: &FloatTensor<B>,
    e: &Extents,
    wanted: InputGradient<B>,
) -> (Option<FloatTensor<B>>, FloatTensor<B>) {
    let upstream = B::hold(g);
    let gx = wanted.is_wanted().then(|| {
        let weight = B::hold(weight);
        let base = wanted.base().map(B::hold);
        let base = base.as_ref().map(AsRef::as_ref);
        // SAFETY: the kernel writes every element of its output.
        unsafe {
            B::written(&shape::<B>(x), |gx| {
                conv::input_gradient(B::cpu(), e, weight.as_ref(), upstream.as_ref(), base, gx);
            })
        }
        .0
    });
    let gw = conv::weight_gradient(B::cpu(), e, B::hold(x).as_ref(), upstream.as_ref());
    (gx, from_values::<B>(&gw, &shape::<B>(weight)))
}

pub(super) fn subsample_forward<B: Slices>(x: &FloatTensor<B>, s: &Subsampling) -> FloatTensor<B> {
    let [height, width] = s.output_size();
    let x = B::hold(x);
    // SAFETY: the kernel writes every element of its output.
    unsafe {
        B::written(&[s.images, s.channels + s.extra, height, width], |y| {
            subsample::forward(B::cpu(), s, x.as_ref(), y);
        })
    }
    .0
}

pub(super) fn subsample_backward<B: Slices>(g: &FloatTensor<B>, s: &Subsampling) -> FloatTensor<B> {
    let g = B::hold(g);
    // SAFETY: the kernel writes every element of its output.
    unsafe {
        B::written(&[s.images, s.channels, s.size[0], s.size[1]], |gx| {
            subsample::backward(B::cpu(), s, g.as_ref(), gx);
        })
    }
    .0
}

pub(super) fn pictures<B: Slices>(table: &FloatTensor<B>, pictures: &Pictures) -> FloatTensor<B> {
    let table = B::hold(table);
    // SAFETY: the kernel writes every element of its output.
    unsafe {
        B::written(&pictures.shape, |y| {
            pictures::forward(B::cpu(), pictures, table.as_ref(), y);
        })
    }
    .0
}

pub(super) fn max_pool_forward<B: Slices>(x: &FloatTensor<B>, pool: &MaxPool) -> FloatTensor<B> {
    let [images, channels, height, width] = x.shape().dims();
    let x = B::hold(x);
    let [oh, ow] = pool.output;
    // SAFETY: the kernel writes every element of its output.
    unsafe {
        B::written(&[images, channels, oh, ow], |y| {
            pool::forward(B::cpu(), pool, [height, width], x.as_ref(), y);
        })
    }
    .0
}

pub(super) fn max_pool_backward<B: Slices>(
    x: &FloatTensor<B>,
    g: &FloatTensor<B>,
    pool: &MaxPool,
) -> FloatTensor<B> {
    let shape = shape::<B>(x);
    let size = [shape[2], shape[3]];
    let (x, g) = (B::hold(x), B::hold(g));
    // SAFETY: the kernel writes every element of its output.
    unsafe {
        B::written(&shape, |gx| {
            pool::backward(B::cpu(), pool, size, x.as_ref(), g.as_ref(), gx);
        })
    }
    .0
}

pub(super) fn fake_quantize_forward<B: Slices>(
    x: &FloatTensor<B>,
    grids: &Grids,
) -> FloatTensor<B> {
    let (input, shape) = (B::hold(x), shape::<B>(x));
    let row = grids.row(&shape);
    // SAFETY: the kernel writes every element of its output.
    unsafe {
        B::written(&shape, |y| {
            quantize::forward(B::cpu(), grids.all(), row, input.as_ref(), y);
        })
    }
    .0
}

pub(super) fn fake_quantize_backward<B: Slices>(
    x: &FloatTensor<B>,
    g: &FloatTensor<B>,
    grids: &Grids,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let (input, upstream, shape) = (B::hold(x), B::hold(g), shape::<B>(x));
    let row = grids.row(&shape);
    // SAFETY: the kernel writes every element of its output.
    let (gx, sums) = unsafe {
        B::written(&shape, |gx| {
            let (input, upstream) = (input.as_ref(), upstream.as_ref());
            quantize::backward(B::cpu(), grids.all(), row, input, upstream, gx)
        })
    };
    (gx, sums_tensor::<B>(&sums))
}

pub(super) fn norm_activation_forward<B: Slices>(
    inputs: &NormTensors<B>,
    statistics: Option<FloatTensor<B>>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let held = NormHeld::new(inputs);
    let slices = held.inputs();
    let statistics = match statistics {
        Some(s) => B::hold(&s).as_ref().to_vec(),
        None => norm::statistics(B::cpu(), &slices),
    };
    // SAFETY: the kernel writes every element of its output.
    let (y, ()) = unsafe {
        B::written(&shape::<B>(&inputs.x), |y| {
            norm::forward(B::cpu(), &slices, &statistics, y);
        })
    };
    (
        y,
        from_values::<B>(&statistics, &[2, slices.extent.channels]),
    )
}

pub(super) fn norm_activation_backward<B: Slices>(
    inputs: &NormTensors<B>,
    statistics: &FloatTensor<B>,
    g: &FloatTensor<B>,
) -> NormGradients<B> {
    let held = NormHeld::new(inputs);
    let slices = held.inputs();
    let (statistics, upstream) = (B::hold(statistics), B::hold(g));
    let own = shape::<B>(&inputs.x);
    let none = vec![0];
    let residual = if slices.residual.is_some() {
        &own
    } else {
        &none
    };
    // SAFETY: the kernel writes every element of its output.
    let (gx, (gr, gradients)) = unsafe {
        B::written(&own, |gx| {
            B::written(residual, |gr| {
                let (statistics, upstream) = (statistics.as_ref(), upstream.as_ref());
                norm::backward(B::cpu(), &slices, statistics, upstream, gx, gr)
            })
        })
    };
    let channels = [slices.extent.channels];
    NormGradients {
        x: gx,
        residual: slices.residual.is_some().then_some(gr),
        gamma: from_values::<B>(&gradients.gamma, &channels),
        beta: from_values::<B>(&gradients.beta, &channels),
        sums: sums_tensor::<B>(&[gradients.sums]),
    }
}

/// The fused norm's inputs while their elements are lent out.
struct NormHeld<'a, B: Slices> {
    x: B::Held,
    residual: Option<B::Held>,
    gamma: B::Held,
    beta: B::Held,
    epsilon: f32,
    activation: Activation,
    moments: Moments,
    across: Option<&'a Across>,
    extent: Extent,
}

impl<'a, B: Slices> NormHeld<'a, B> {
    fn new(inputs: &'a NormTensors<B>) -> Self {
        let [images, channels, height, width] = inputs.x.shape().dims();
        Self {
            x: B::hold(&inputs.x),
            residual: inputs.residual.as_ref().map(B::hold),
            gamma: B::hold(&inputs.gamma),
            beta: B::hold(&inputs.beta),
            epsilon: inputs.epsilon,
            activation: inputs.activation,
            moments: inputs.moments,
            across: inputs.across.as_ref(),
            extent: Extent {
                images,
                channels,
                pixels: height * width,
            },
        }
    }

    fn inputs(&self) -> Inputs<'_> {
        Inputs {
            x: self.x.as_ref(),
            residual: self.residual.as_ref().map(AsRef::as_ref),
            gamma: self.gamma.as_ref(),
            beta: self.beta.as_ref(),
            epsilon: self.epsilon,
            activation: self.activation,
            moments: self.moments,
            across: self.across,
            extent: self.extent,
        }
    }
}
