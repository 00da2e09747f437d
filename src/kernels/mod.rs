//! The differentiable operations that training spends its time in, each with a hand-written
//! backward pass.
//!
//! Doors:
//! - [`fake_quantize`]: Q(x) with straight-through gradients, one pass forward and one backward.
//! - [`norm_activation`]: batch norm, residual addition and activation (ReLU or quantizer) as one
//!   operation.
//! - [`convolution`]: 2-d convolution and both gradients.
//! - [`max_pool`]: the largest value of each window.
//! - [`pictures()`]: bytes become the numbers that a network is trained on.
//! - [`subsample()`]: the shortcut that takes every other pixel.
//! - [`ranks`]: processes that train one network together, and sums over them.
//! - [`integer`]: convolution in integers, for the replay of a quantized network.
//! - [`Simd`]: which instruction set the CPU kernels use, chosen at run time.
//!
//! Each engine implements [`ops::Engine`] on plain slices, in its own fast paths, or composed of
//! its tensor operations; the wiring into burn's autodiff is written once, in `ops`. Beside each
//! fast path stands a plain reference that the tests compare against. All `unsafe` of the project
//! lives in this room.

#![allow(
    unsafe_code,
    reason = "vectors, engines' memory and cards are reached by it; the only room that does"
)]

mod composed;
pub mod conv;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(any(feature = "libtorch", feature = "cuda"))]
pub(crate) mod driver;
mod flex;
pub mod integer;
#[cfg(feature = "libtorch")]
pub(crate) mod libtorch;
#[cfg(feature = "libtorch")]
mod libtorch_calls;
#[cfg(feature = "libtorch")]
mod libtorch_threads;
mod memory;
pub mod norm;
#[cfg(feature = "libtorch")]
mod nvidia;
pub mod ops;
pub mod parallel;
pub mod pictures;
pub mod pool;
pub mod quantize;
pub mod ranks;
mod simd;
mod slices;
pub mod subsample;

use std::mem::MaybeUninit;

use burn::backend::{Dispatch, DispatchTensor};
use burn::tensor::Tensor;

pub use conv::Geometry;
#[cfg(feature = "libtorch")]
pub(crate) use libtorch_calls::make_deterministic;
pub use memory::keep_blocks;
pub use norm::{Across, Activation, Moments};
#[cfg(feature = "libtorch")]
pub(crate) use nvidia::status as card_status;
pub use ops::Input;
use ops::{Kernels, NormSpec};
pub use pictures::Pictures;
pub use pool::MaxPool;
pub use quantize::Grids;
pub use simd::Simd;
pub use subsample::Subsampling;

/// Q(x) on its grids: one, or one for every index of an axis.
///
/// `sums` is a leaf of shape `[4]` (of several grids, `[4]` for each, one behind the other) whose
/// *gradient* after the backward pass holds [`crate::quantizer::Sums`] (its value is never read): the
/// parameter gradients of every parametrization are linear in them, so one kernel serves all six.
pub fn fake_quantize<const D: usize>(
    x: Tensor<D>,
    sums: Tensor<1>,
    grids: impl Into<Grids>,
) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::fake_quantize(
        x.into_dispatch(),
        sums.into_dispatch(),
        grids.into(),
    ))
}

/// What [`norm_activation`] takes besides its input.
pub struct NormInputs {
    /// Added before the activation; same shape as the input.
    pub residual: Option<Tensor<4>>,
    /// Scale per channel, `[c]`.
    pub gamma: Tensor<1>,
    /// Shift per channel, `[c]`.
    pub beta: Tensor<1>,
    /// Leaf for the quantizer's [`crate::quantizer::Sums`], `[4]`.
    pub sums: Tensor<1>,
    /// Mean and variance to use, `[2, c]`; the batch's own where `None` (training).
    pub statistics: Option<Tensor<2>>,
    /// Added to the variance.
    pub epsilon: f32,
    /// How the batch's own statistics are summed.
    pub moments: Moments,
    /// Ranks that they are taken over; this batch alone where `None`.
    pub across: Option<Across>,
}

/// `activation(gamma * (x - mean) / sqrt(var + eps) + beta + residual)` for `x` of shape
/// `[n, c, h, w]`; returns it with the mean and (biased) variance used, `[2, c]`.
///
/// Only the form with the batch's own statistics is differentiable.
pub fn norm_activation(
    x: Tensor<4>,
    inputs: NormInputs,
    activation: Activation,
) -> (Tensor<4>, Tensor<2>) {
    let spec = NormSpec {
        epsilon: inputs.epsilon,
        activation,
        moments: inputs.moments,
        across: inputs.across,
        has_residual: inputs.residual.is_some(),
        has_statistics: inputs.statistics.is_some(),
    };
    let unused = inputs.gamma.clone().detach();
    let or_unused = |t: Option<DispatchTensor>| t.unwrap_or_else(|| unused.into_dispatch());
    let (y, statistics) = Dispatch::norm_activation(
        x.into_dispatch(),
        or_unused.clone()(inputs.residual.map(Tensor::into_dispatch)),
        inputs.gamma.into_dispatch(),
        inputs.beta.into_dispatch(),
        inputs.sums.into_dispatch(),
        or_unused(inputs.statistics.map(Tensor::into_dispatch)),
        spec,
    );
    (Tensor::from_dispatch(y), Tensor::from_dispatch(statistics))
}

/// Cross-correlation of `x` `[n, c, h, w]` with `weight` `[o, c / groups, kh, kw]`.
///
/// # Panics
/// In the backward pass, if `x` was said to be a residual and nothing further on gave it a
/// gradient.
pub fn convolution(x: Tensor<4>, weight: Tensor<4>, geometry: Geometry, input: Input) -> Tensor<4> {
    Tensor::from_dispatch(Dispatch::convolution(
        x.into_dispatch(),
        weight.into_dispatch(),
        geometry,
        input,
    ))
}

/// Shortcut A: every `stride`-th pixel of `x` `[n, c, h, w]`, and `extra` channels of zeros behind;
/// `[n, c + extra, ceil(h / stride), ceil(w / stride)]`.
pub fn subsample(x: Tensor<4>, stride: usize, extra: usize) -> Tensor<4> {
    let [images, channels, height, width] = x.dims();
    let shape = Subsampling {
        images,
        channels,
        size: [height, width],
        stride,
        extra,
    };
    Tensor::from_dispatch(Dispatch::subsample(x.into_dispatch(), shape))
}

/// The largest value of each window of `x` `[n, c, h, w]`; `[n, c, oh, ow]` as the shape says.
pub fn max_pool(x: Tensor<4>, pool: MaxPool) -> Tensor<4> {
    Tensor::from_dispatch(Dispatch::max_pool(x.into_dispatch(), pool))
}

/// What `table` `[c * 256]` has for every byte of pictures `[n, c, h, w]`, on the table's device.
pub fn pictures(pictures: Pictures, table: Tensor<1>) -> Tensor<4> {
    Tensor::from_dispatch(Dispatch::pictures(table.into_dispatch(), pictures))
}

/// A vector whose elements `write` initialises.
///
/// # Safety
/// `write` writes every element, as every kernel in this room writes each element of its output (their
/// tests begin with NaN and compare all of them with a reference).
unsafe fn written_by<R>(
    length: usize,
    write: impl FnOnce(&mut [MaybeUninit<f32>]) -> R,
) -> (Vec<f32>, R) {
    let mut values = Vec::with_capacity(length);
    let result = write(&mut values.spare_capacity_mut()[..length]);
    // SAFETY: capacity is at least `length`, and the caller's `write` wrote all of it.
    unsafe { values.set_len(length) };
    (values, result)
}

/// The same for tests, beginning with NaN: what is not written shows.
#[cfg(test)]
fn written<R>(length: usize, write: impl FnOnce(&mut [MaybeUninit<f32>]) -> R) -> (Vec<f32>, R) {
    let mut values = vec![MaybeUninit::new(f32::NAN); length];
    let result = write(&mut values);
    // SAFETY: every element began as a number.
    let values = values.into_iter().map(|v| unsafe { v.assume_init() });
    (values.collect(), result)
}
