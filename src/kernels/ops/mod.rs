//! The operations as a burn backend extension: what an engine implements, and the one place that
//! wires their backward passes into burn's autodiff.

#![cfg_attr(
    feature = "libtorch",
    allow(
        deprecated,
        reason = "burn points users of burn-tch elsewhere; here it is asked for by name"
    )
)]

mod autodiff;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, backend_extension};

use super::composed;
use super::conv::Geometry;
use super::norm::{Across, Activation, Moments};
use super::pictures::Pictures;
use super::pool::MaxPool;
use super::quantize::Grids;
use super::subsample::Subsampling;

/// What else the input of a [`convolution`](super::convolution) goes into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Nothing that this operation has to know.
    Plain,
    /// As it is, it is also the residual of a [`norm_activation`](super::norm_activation) further on in
    /// the same graph. That one's gradient comes first on the way back; the convolution's is added to it
    /// while it is in cache, instead of in a pass of its own.
    Residual,
}

/// What an engine computes; no autodiff here. Shapes as in [`super`].
///
/// By default the operations are composed of the engine's own; an engine overrides what it can do
/// in fewer passes.
pub trait Engine: Backend {
    /// Q(x), any shape.
    fn fake_quantize_forward(x: FloatTensor<Self>, grids: &Grids) -> FloatTensor<Self> {
        composed::fake_quantize_forward::<Self>(x, grids)
    }

    /// Gradient of `x` and the sums, `[4]` for every grid.
    fn fake_quantize_backward(
        x: FloatTensor<Self>,
        g: FloatTensor<Self>,
        grids: &Grids,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        composed::fake_quantize_backward::<Self>(x, g, grids)
    }

    /// Output and the statistics used, `[2, c]`.
    fn norm_activation_forward(
        inputs: &NormTensors<Self>,
        statistics: Option<FloatTensor<Self>>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        composed::norm_activation_forward(inputs, statistics)
    }

    /// Gradients of everything that went in.
    fn norm_activation_backward(
        inputs: &NormTensors<Self>,
        statistics: FloatTensor<Self>,
        g: FloatTensor<Self>,
    ) -> NormGradients<Self> {
        composed::norm_activation_backward(inputs, statistics, g)
    }

    /// Every `stride`-th pixel, zeros for the channels behind.
    fn subsample_forward(x: FloatTensor<Self>, s: &Subsampling) -> FloatTensor<Self> {
        composed::subsample_forward::<Self>(x, s)
    }

    /// Gradient of its input.
    fn subsample_backward(g: FloatTensor<Self>, s: &Subsampling) -> FloatTensor<Self> {
        composed::subsample_backward::<Self>(g, s)
    }

    /// The largest value of each window, and what the backward pass needs besides the input.
    fn max_pool_forward(
        x: FloatTensor<Self>,
        pool: &MaxPool,
    ) -> (FloatTensor<Self>, Option<IntTensor<Self>>) {
        composed::max_pool_forward::<Self>(x, pool)
    }

    /// Gradient of its input.
    fn max_pool_backward(
        x: FloatTensor<Self>,
        kept: Option<IntTensor<Self>>,
        g: FloatTensor<Self>,
        pool: &MaxPool,
    ) -> FloatTensor<Self> {
        composed::max_pool_backward::<Self>(x, kept, g, pool)
    }

    /// Bytes of pictures as numbers, on the table's device.
    fn pictures(table: FloatTensor<Self>, pictures: Pictures) -> FloatTensor<Self> {
        composed::pictures::<Self>(table, pictures)
    }

    /// Output of the convolution.
    fn convolution_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        geometry: Geometry,
    ) -> FloatTensor<Self> {
        Self::conv2d(x, weight, None, geometry.options())
    }

    /// Gradients of `x`, as it is wanted (with its base), and of `weight`.
    fn convolution_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        g: FloatTensor<Self>,
        geometry: Geometry,
        wanted: InputGradient<Self>,
    ) -> (Option<FloatTensor<Self>>, FloatTensor<Self>) {
        let gx = wanted.is_wanted().then(|| {
            let (x, weight, g) = (x.clone(), weight.clone(), g.clone());
            wanted.with_base(Self::conv2d_x_backward(x, weight, g, geometry.options()))
        });
        (
            gx,
            Self::conv2d_weight_backward(x, weight, g, geometry.options()),
        )
    }
}

/// What is wanted of a convolution's input gradient.
#[derive(Debug)]
pub enum InputGradient<B: Backend> {
    /// Nothing: the input is data.
    Unwanted,
    /// The gradient.
    Alone,
    /// The gradient plus what the input has been given from elsewhere.
    Onto(FloatTensor<B>),
}

impl<B: Backend> InputGradient<B> {
    /// Whether there is anything to compute.
    pub fn is_wanted(&self) -> bool {
        !matches!(self, Self::Unwanted)
    }

    /// What to add the gradient to.
    pub fn base(&self) -> Option<&FloatTensor<B>> {
        match self {
            Self::Onto(base) => Some(base),
            Self::Unwanted | Self::Alone => None,
        }
    }

    /// A gradient that an engine computed alone, with the base added.
    pub fn with_base(self, gradient: FloatTensor<B>) -> FloatTensor<B> {
        match self {
            Self::Onto(base) => B::float_add(gradient, base),
            Self::Unwanted | Self::Alone => gradient,
        }
    }
}

/// Inputs of the fused norm, kept for its backward pass.
#[derive(Debug, Clone)]
pub struct NormTensors<B: Backend> {
    /// `[n, c, h, w]`.
    pub x: FloatTensor<B>,
    /// Same shape, or nothing.
    pub residual: Option<FloatTensor<B>>,
    /// `[c]`.
    pub gamma: FloatTensor<B>,
    /// `[c]`.
    pub beta: FloatTensor<B>,
    /// Added to the variance.
    pub epsilon: f32,
    /// What follows.
    pub activation: Activation,
    /// How the batch's statistics are summed.
    pub moments: Moments,
    /// Ranks that they are taken over.
    pub across: Option<Across>,
}

impl<B: Backend> NormTensors<B> {
    /// As [`Kernels::norm_activation`] is given them.
    pub(super) fn new(
        x: FloatTensor<B>,
        residual: FloatTensor<B>,
        gamma: FloatTensor<B>,
        beta: FloatTensor<B>,
        spec: NormSpec,
    ) -> Self {
        Self {
            x,
            residual: spec.has_residual.then_some(residual),
            gamma,
            beta,
            epsilon: spec.epsilon,
            activation: spec.activation,
            moments: spec.moments,
            across: spec.across,
        }
    }
}

/// The plain settings of [`Kernels::norm_activation`].
#[derive(Debug, Clone, PartialEq)]
pub struct NormSpec {
    /// Added to the variance.
    pub epsilon: f32,
    /// What follows.
    pub activation: Activation,
    /// How the batch's statistics are summed.
    pub moments: Moments,
    /// Ranks that they are taken over.
    pub across: Option<Across>,
    /// Whether the residual argument counts.
    pub has_residual: bool,
    /// Whether the statistics argument counts (evaluation).
    pub has_statistics: bool,
}

/// Gradients of the fused norm.
pub struct NormGradients<B: Backend> {
    /// `[n, c, h, w]`.
    pub x: FloatTensor<B>,
    /// Same shape; present where a residual went in.
    pub residual: Option<FloatTensor<B>>,
    /// `[c]`.
    pub gamma: FloatTensor<B>,
    /// `[c]`.
    pub beta: FloatTensor<B>,
    /// `[4]`.
    pub sums: FloatTensor<B>,
}

/// The same operations as they enter a graph. Called through burn's run-time dispatch.
#[backend_extension(
    Flex,
    LibTorch: cfg(feature = "libtorch"),
    Cube: cfg(feature = "cuda"),
    Autodiff
)]
pub trait Kernels: Backend {
    /// See [`super::fake_quantize`].
    fn fake_quantize(
        x: FloatTensor<Self>,
        sums: FloatTensor<Self>,
        grids: Grids,
    ) -> FloatTensor<Self>;

    /// See [`super::norm_activation`]. The dispatch macro has no optional tensors: where `spec`
    /// says that there is no residual or no statistics, that argument is any untracked tensor.
    fn norm_activation(
        x: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        sums: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        spec: NormSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// See [`super::convolution`].
    fn convolution(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        geometry: Geometry,
        input: Input,
    ) -> FloatTensor<Self>;

    /// See [`super::subsample()`].
    fn subsample(x: FloatTensor<Self>, s: Subsampling) -> FloatTensor<Self>;

    /// See [`super::max_pool`].
    fn max_pool(x: FloatTensor<Self>, pool: MaxPool) -> FloatTensor<Self>;

    /// See [`super::pictures()`]; no gradient passes.
    fn pictures(table: FloatTensor<Self>, pictures: Pictures) -> FloatTensor<Self>;
}

/// The operations outside a graph are the engine's forward passes.
macro_rules! kernels_of_engine {
    ($backend:ty) => {
        impl $crate::kernels::ops::Kernels for $backend {
            fn fake_quantize(
                x: FloatTensor<Self>,
                _sums: FloatTensor<Self>,
                grids: $crate::kernels::Grids,
            ) -> FloatTensor<Self> {
                <Self as Engine>::fake_quantize_forward(x, &grids)
            }

            fn norm_activation(
                x: FloatTensor<Self>,
                residual: FloatTensor<Self>,
                gamma: FloatTensor<Self>,
                beta: FloatTensor<Self>,
                _sums: FloatTensor<Self>,
                statistics: FloatTensor<Self>,
                spec: NormSpec,
            ) -> (FloatTensor<Self>, FloatTensor<Self>) {
                let statistics = spec.has_statistics.then_some(statistics);
                let inputs = NormTensors::new(x, residual, gamma, beta, spec);
                <Self as Engine>::norm_activation_forward(&inputs, statistics)
            }

            fn convolution(
                x: FloatTensor<Self>,
                weight: FloatTensor<Self>,
                geometry: Geometry,
                _input: $crate::kernels::Input,
            ) -> FloatTensor<Self> {
                <Self as Engine>::convolution_forward(x, weight, geometry)
            }

            fn subsample(
                x: FloatTensor<Self>,
                s: $crate::kernels::Subsampling,
            ) -> FloatTensor<Self> {
                <Self as Engine>::subsample_forward(x, &s)
            }

            fn max_pool(x: FloatTensor<Self>, pool: $crate::kernels::MaxPool) -> FloatTensor<Self> {
                <Self as Engine>::max_pool_forward(x, &pool).0
            }

            fn pictures(
                table: FloatTensor<Self>,
                pictures: $crate::kernels::Pictures,
            ) -> FloatTensor<Self> {
                <Self as Engine>::pictures(table, pictures)
            }
        }
    };
}
pub(super) use kernels_of_engine;

#[cfg(test)]
mod tests;
