//! The operations as a burn backend extension: what an engine implements, and the one place that
//! wires their backward passes into burn's autodiff.

#![cfg_attr(
    feature = "libtorch",
    allow(
        deprecated,
        reason = "burn points users of burn-tch elsewhere; here it is asked for by name"
    )
)]

use burn::backend::tensor::FloatTensor;
use burn::backend::{AutodiffBackend, Backend, backend_extension};
use burn_autodiff::Autodiff;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::CheckpointStrategy;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind};
use burn_backend::ops::FloatTensorOps;

use super::Input;
use super::composed;
use super::conv::Geometry;
use super::norm::{Activation, Moments};
use super::subsample::Subsampling;
use crate::quantizer::Grid;

/// What an engine computes; no autodiff here. Shapes as in [`super`].
///
/// By default the operations are composed of the engine's own; an engine overrides what it can do
/// in fewer passes.
pub trait Engine: Backend {
    /// Q(x), any shape.
    fn fake_quantize_forward(x: FloatTensor<Self>, grid: &Grid) -> FloatTensor<Self> {
        composed::fake_quantize_forward::<Self>(x, grid)
    }

    /// Gradient of `x` and the sums `[4]`.
    fn fake_quantize_backward(
        x: FloatTensor<Self>,
        g: FloatTensor<Self>,
        grid: &Grid,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        composed::fake_quantize_backward::<Self>(x, g, grid)
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
}

/// The plain settings of [`Kernels::norm_activation`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormSpec {
    /// Added to the variance.
    pub epsilon: f32,
    /// What follows.
    pub activation: Activation,
    /// How the batch's statistics are summed.
    pub moments: Moments,
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
    Flex: cfg(feature = "flex"),
    LibTorch: cfg(feature = "libtorch"),
    Cube: cfg(feature = "cuda"),
    Autodiff
)]
pub trait Kernels: Backend {
    /// See [`super::fake_quantize`].
    fn fake_quantize(
        x: FloatTensor<Self>,
        sums: FloatTensor<Self>,
        grid: Grid,
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

    /// See [`super::subsample`].
    fn subsample(x: FloatTensor<Self>, s: Subsampling) -> FloatTensor<Self>;
}

/// The operations outside a graph are the engine's forward passes.
macro_rules! kernels_of_engine {
    ($backend:ty) => {
        impl $crate::kernels::ops::Kernels for $backend {
            fn fake_quantize(
                x: FloatTensor<Self>,
                _sums: FloatTensor<Self>,
                grid: Grid,
            ) -> FloatTensor<Self> {
                <Self as Engine>::fake_quantize_forward(x, &grid)
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
                let residual = spec.has_residual.then_some(residual);
                let statistics = spec.has_statistics.then_some(statistics);
                let NormSpec {
                    epsilon,
                    activation,
                    moments,
                    ..
                } = spec;
                let inputs = NormTensors {
                    x,
                    residual,
                    gamma,
                    beta,
                    epsilon,
                    activation,
                    moments,
                };
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
        }
    };
}
pub(super) use kernels_of_engine;

impl<B: Engine, C: CheckpointStrategy> Kernels for Autodiff<B, C> {
    fn fake_quantize(
        x: FloatTensor<Self>,
        sums: FloatTensor<Self>,
        grid: Grid,
    ) -> FloatTensor<Self> {
        let (x, x_node) = x.into_parts();
        let (_, sums_node) = sums.into_parts();
        let output = B::fake_quantize_forward(x.clone(), &grid);
        match FakeQuantize
            .prepare::<C>([x_node, sums_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish((x, grid), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn norm_activation(
        x: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        sums: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        spec: NormSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (x, x_node) = x.into_parts();
        let (gamma, gamma_node) = gamma.into_parts();
        let (beta, beta_node) = beta.into_parts();
        let (_, sums_node) = sums.into_parts();
        let (residual, residual_node) = residual.into_parts();
        let inputs = NormTensors {
            x,
            residual: spec.has_residual.then_some(residual),
            gamma,
            beta,
            epsilon: spec.epsilon,
            activation: spec.activation,
            moments: spec.moments,
        };
        let given = spec.has_statistics.then(|| statistics.into_primitive());
        let (output, statistics) = B::norm_activation_forward(&inputs, given);
        if spec.has_statistics {
            // Evaluation: nothing is recorded, so no graph grows behind it.
            return (Self::from_inner(output), Self::from_inner(statistics));
        }
        let nodes = [x_node, gamma_node, beta_node, sums_node, residual_node];
        let state = (inputs, statistics.clone());
        let output = match NormActivation
            .prepare::<C>(nodes)
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish(state, output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        };
        (output, Self::from_inner(statistics))
    }

    fn convolution(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        geometry: Geometry,
        input: Input,
    ) -> FloatTensor<Self> {
        // A leaf's gradient stays where it is when it is read: it would count twice.
        let input = if <Self as FloatTensorOps<Self>>::float_is_require_grad(&x) {
            Input::Plain
        } else {
            input
        };
        let (x, x_node) = x.into_parts();
        let (weight, weight_node) = weight.into_parts();
        let output = B::convolution_forward(x.clone(), weight.clone(), geometry);
        match Convolution
            .prepare::<C>([x_node, weight_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish(
                ConvolutionState {
                    x,
                    weight,
                    geometry,
                    input,
                },
                output,
            ),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn subsample(x: FloatTensor<Self>, s: Subsampling) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let output = B::subsample_forward(x, &s);
        match Subsample.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(s, output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }
}

#[derive(Debug)]
struct Subsample;

impl<B: Engine> Backward<B, 1> for Subsample {
    type State = Subsampling;

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        gradients: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let g = gradients.consume::<B>(&ops.node);
        let [parent] = ops.parents;
        if let Some(node) = parent {
            gradients.register::<B>(node.id, B::subsample_backward(g, &ops.state));
        }
    }
}

#[derive(Debug)]
struct FakeQuantize;

impl<B: Engine> Backward<B, 2> for FakeQuantize {
    type State = (FloatTensor<B>, Grid);

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        gradients: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let g = gradients.consume::<B>(&ops.node);
        let (x, grid) = ops.state;
        let (gx, sums) = B::fake_quantize_backward(x, g, &grid);
        for (parent, gradient) in ops.parents.into_iter().zip([gx, sums]) {
            if let Some(node) = parent {
                gradients.register::<B>(node.id, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct NormActivation;

impl<B: Engine> Backward<B, 5> for NormActivation {
    type State = (NormTensors<B>, FloatTensor<B>);

    fn backward(
        self,
        ops: Ops<Self::State, 5>,
        gradients: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let g = gradients.consume::<B>(&ops.node);
        let (inputs, statistics) = ops.state;
        let all = B::norm_activation_backward(&inputs, statistics, g);
        let computed = [
            Some(all.x),
            Some(all.gamma),
            Some(all.beta),
            Some(all.sums),
            all.residual,
        ];
        for (parent, gradient) in ops.parents.into_iter().zip(computed) {
            if let (Some(node), Some(gradient)) = (parent, gradient) {
                gradients.register::<B>(node.id, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct Convolution;

/// What the convolution's backward pass needs.
#[derive(Debug, Clone)]
struct ConvolutionState<B: Backend> {
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    geometry: Geometry,
    input: Input,
}

impl<B: Engine> Backward<B, 2> for Convolution {
    type State = ConvolutionState<B>;

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        gradients: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let g = gradients.consume::<B>(&ops.node);
        let ConvolutionState {
            x,
            weight,
            geometry,
            input,
        } = ops.state;
        let [x_parent, weight_parent] = ops.parents;
        let wanted = match &x_parent {
            None => InputGradient::Unwanted,
            // The norm that the residual goes into lies behind this convolution, so its gradient
            // is there already.
            Some(node) if input == Input::Residual => {
                InputGradient::Onto(gradients.consume::<B>(node))
            }
            Some(_) => InputGradient::Alone,
        };
        let (gx, gw) = B::convolution_backward(x, weight, g, geometry, wanted);
        if let (Some(node), Some(gradient)) = (x_parent, gx) {
            gradients.register::<B>(node.id, gradient);
        }
        if let Some(node) = weight_parent {
            gradients.register::<B>(node.id, gw);
        }
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::{Device, Tensor, TensorData};

    use crate::kernels::norm::{Activation, Moments};
    use crate::kernels::{Geometry, Input, NormInputs, convolution, norm_activation};

    fn wave<const D: usize>(shape: [usize; D], seed: f32) -> Tensor<D> {
        let count = shape.iter().product::<usize>();
        let values: Vec<f32> = (0..count).map(|i| (i as f32 * 0.7 + seed).sin()).collect();
        Tensor::from_data(TensorData::new(values, shape), &Device::flex().autodiff())
    }

    /// Gradients of what a residual block's input is made of, and of its convolution's weights.
    fn block(input: Input, input_is_leaf: bool) -> [Vec<f32>; 2] {
        let geometry = Geometry {
            stride: 1,
            padding: 1,
            groups: 1,
            in_order: false,
        };
        let leaf = wave([3, 8, 5, 6], 0.0).require_grad();
        let weight = wave([8, 8, 3, 3], 1.0).require_grad();
        let x = if input_is_leaf {
            leaf.clone()
        } else {
            leaf.clone() * 2.0
        };
        let inputs = NormInputs {
            residual: Some(x.clone()),
            gamma: wave([8], 2.0),
            beta: wave([8], 3.0),
            sums: wave([4], 0.0),
            statistics: None,
            epsilon: 1e-5,
            moments: Moments::Exact,
        };
        let (y, _) = norm_activation(
            convolution(x, weight.clone(), geometry, input),
            inputs,
            Activation::Relu,
        );
        let gradients = (y.clone() * wave(y.dims(), 4.0)).sum().backward();
        [leaf, weight].map(|t| {
            let gradient = t.grad(&gradients).expect("tracked");
            gradient.into_data().try_to_vec::<f32>().expect("f32")
        })
    }

    #[test]
    fn a_residual_and_its_convolution_give_their_input_one_gradient() {
        for input_is_leaf in [false, true] {
            let joined = block(Input::Residual, input_is_leaf);
            assert_eq!(joined, block(Input::Plain, input_is_leaf));
        }
    }
}
