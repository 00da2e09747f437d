//! The operations' backward passes in burn's autodiff.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{AutodiffBackend, Backend};
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::CheckpointStrategy;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind};
use burn_autodiff::{Autodiff, NodeId};
use burn_backend::ops::FloatTensorOps;

use super::{Engine, InputGradient, Kernels, NormSpec, NormTensors};
use crate::kernels::Input;
use crate::kernels::conv::Geometry;
use crate::kernels::pictures::Pictures;
use crate::kernels::pool::MaxPool;
use crate::kernels::quantize::Grids;
use crate::kernels::subsample::Subsampling;

impl<B: Engine, C: CheckpointStrategy> Kernels for Autodiff<B, C> {
    fn fake_quantize(
        x: FloatTensor<Self>,
        sums: FloatTensor<Self>,
        grids: Grids,
    ) -> FloatTensor<Self> {
        let (x, x_node) = x.into_parts();
        let (_, sums_node) = sums.into_parts();
        let output = B::fake_quantize_forward(x.clone(), &grids);
        match FakeQuantize
            .prepare::<C>([x_node, sums_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish((x, grids), output),
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
        let is_given = spec.has_statistics;
        let inputs = NormTensors::new(x, residual, gamma, beta, spec);
        let given = is_given.then(|| statistics.into_primitive());
        let (output, statistics) = B::norm_activation_forward(&inputs, given);
        if is_given {
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

    fn max_pool(x: FloatTensor<Self>, pool: MaxPool) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let (output, kept) = B::max_pool_forward(x.clone(), &pool);
        match MaxPooling.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((x, kept, pool), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn pictures(table: FloatTensor<Self>, pictures: Pictures) -> FloatTensor<Self> {
        Self::from_inner(B::pictures(table.into_primitive(), pictures))
    }
}

#[derive(Debug)]
struct MaxPooling;

impl<B: Engine> Backward<B, 1> for MaxPooling {
    type State = (FloatTensor<B>, Option<IntTensor<B>>, MaxPool);

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        gradients: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let g = gradients.consume::<B>(&ops.node);
        if let [Some(node)] = ops.parents {
            let (x, kept, pool) = ops.state;
            gradients.register::<B>(node.id, B::max_pool_backward(x, kept, g, &pool));
        }
    }
}

/// The parents that are in the graph.
fn tracked<S, const N: usize>(ops: &Ops<S, N>) -> [Option<NodeId>; N] {
    (ops.parents.each_ref()).map(|parent| parent.as_ref().map(|node| node.id))
}

/// Hands each of them its gradient, where there is one.
fn register<B: Backend, const N: usize>(
    gradients: &mut Gradients,
    parents: [Option<NodeId>; N],
    computed: [Option<FloatTensor<B>>; N],
) {
    for (parent, gradient) in parents.into_iter().zip(computed) {
        if let (Some(node), Some(gradient)) = (parent, gradient) {
            gradients.register::<B>(node, gradient);
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
        if let [Some(node)] = ops.parents {
            gradients.register::<B>(node.id, B::subsample_backward(g, &ops.state));
        }
    }
}

#[derive(Debug)]
struct FakeQuantize;

impl<B: Engine> Backward<B, 2> for FakeQuantize {
    type State = (FloatTensor<B>, Grids);

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        gradients: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let g = gradients.consume::<B>(&ops.node);
        let parents = tracked(&ops);
        let (x, grids) = ops.state;
        let (gx, sums) = B::fake_quantize_backward(x, g, &grids);
        register::<B, 2>(gradients, parents, [gx, sums].map(Some));
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
        let parents = tracked(&ops);
        let (inputs, statistics) = ops.state;
        let all = B::norm_activation_backward(&inputs, statistics, g);
        let computed = [
            Some(all.x),
            Some(all.gamma),
            Some(all.beta),
            Some(all.sums),
            all.residual,
        ];
        register::<B, 5>(gradients, parents, computed);
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
        let parents = tracked(&ops);
        let ConvolutionState {
            x,
            weight,
            geometry,
            input,
        } = ops.state;
        let wanted = match &ops.parents[0] {
            None => InputGradient::Unwanted,
            // The norm that the residual goes into lies behind this convolution, so its gradient
            // is there already.
            Some(node) if input == Input::Residual => {
                InputGradient::Onto(gradients.consume::<B>(node))
            }
            Some(_) => InputGradient::Alone,
        };
        let (gx, gw) = B::convolution_backward(x, weight, g, geometry, wanted);
        register::<B, 2>(gradients, parents, [gx, Some(gw)]);
    }
}
