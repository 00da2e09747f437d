//! SGD with momentum and Adam over tensors, and how the quantizers' numbers move ([`quantizers`]).
//!
//! Weight decay is added to the gradient.

mod quantizers;

use burn::tensor::Tensor;

pub(super) use quantizers::Gradient;
pub use quantizers::QuantizerState;

use crate::experiment::{Decay, Experiment, OptimizerKind, OptimizerSettings};
use crate::graph::Kind;
use crate::network::Network;

const ADAM_EPSILON: f64 = 1e-8;

/// Optimizer state: of tensors on the device, of quantizers on the host.
#[derive(Clone)]
pub struct Optimizer {
    /// First and (Adam) second moment of every parameter.
    pub(super) tensors: Vec<[Option<Tensor<1>>; 2]>,
    pub(super) quantizers: Vec<QuantizerState>,
    /// Updates taken, for Adam's bias correction.
    pub(super) updates: u64,
}

impl Optimizer {
    /// Without history.
    pub fn new(network: &Network) -> Self {
        Self {
            tensors: network.parameters.iter().map(|_| [None, None]).collect(),
            quantizers: vec![QuantizerState::default(); network.slots.len()],
            updates: 0,
        }
    }

    /// Forgets the quantizers' history (they were initialised anew).
    pub fn reset_quantizers(&mut self) {
        let all = self.quantizers.iter_mut();
        all.for_each(|state| *state = QuantizerState::default());
    }

    /// One update of every parameter that has a gradient. Gradients come without decay.
    pub fn update(
        &mut self,
        network: &mut Network,
        experiment: &Experiment,
        lr: f64,
        gradients: Vec<Option<Tensor<1>>>,
    ) {
        let settings = &experiment.optimizer;
        self.updates += 1;
        let mut gradients: Vec<_> = gradients.into_iter().enumerate().collect();
        for weights in [true, false] {
            let is_member = |i: usize| (network.parameters[i].kind == Kind::Weight) == weights;
            let (members, gradients): (Vec<usize>, Vec<_>) = gradients
                .extract_if(.., |(i, _)| is_member(*i))
                .filter_map(|(i, gradient)| Some((i, gradient?)))
                .unzip();
            if members.is_empty() {
                continue;
            }
            let lr = if weights { lr } else { lr * settings.lr_norm };
            let decays = weights || settings.decay == Decay::All;
            let decay = if decays { settings.weight_decay } else { 0.0 };
            self.update_group(network, settings, [lr, decay], &members, gradients);
        }
    }

    /// One update of parameters that share learning rate and decay. They are updated as one long
    /// vector: as it is elementwise that is the same, and a card is not asked for hundreds of
    /// operations on a few numbers each.
    fn update_group(
        &mut self,
        network: &mut Network,
        settings: &OptimizerSettings,
        [lr, decay]: [f64; 2],
        members: &[usize],
        gradients: Vec<Tensor<1>>,
    ) {
        let parameters = &mut network.parameters;
        let values = members.iter().map(|i| parameters[*i].value.clone().inner());
        let value = Tensor::cat(values.collect(), 0);
        let mut gradient = Tensor::cat(gradients, 0);
        if decay > 0.0 {
            gradient = gradient + value.clone() * decay as f32;
        }
        let mut take = |moment: usize| {
            let of_each = members.iter().map(|i| {
                let zeros = || Tensor::zeros([parameters[*i].elements()], &value.device());
                self.tensors[*i][moment].take().unwrap_or_else(zeros)
            });
            Tensor::cat(of_each.collect(), 0)
        };
        let (moments, update) = match settings.kind {
            OptimizerKind::Sgd => {
                let velocity = take(0) * settings.momentum as f32 + gradient;
                (vec![velocity.clone()], velocity * lr as f32)
            }
            OptimizerKind::Adam => {
                let [first, second] = adam([take(0), take(1)], gradient, settings);
                let (c1, c2) = corrections(settings, self.updates);
                let scale = (second.clone() / c2 as f32).sqrt() + ADAM_EPSILON as f32;
                let update = first.clone() / scale * (lr / c1) as f32;
                (vec![first, second], update)
            }
        };
        let value = value - update;
        let mut start = 0;
        for i in members {
            let own = start..start + parameters[*i].elements();
            start = own.end;
            for (kept, moment) in self.tensors[*i].iter_mut().zip(&moments) {
                *kept = Some(moment.clone().slice([own.clone()]));
            }
            parameters[*i].set(value.clone().slice([own]));
        }
    }
}

/// Adam's moments after a gradient.
fn adam(
    [first, second]: [Tensor<1>; 2],
    gradient: Tensor<1>,
    settings: &OptimizerSettings,
) -> [Tensor<1>; 2] {
    let (b1, b2) = (settings.momentum as f32, settings.beta2 as f32);
    let square = gradient.clone() * gradient.clone() * (1.0 - b2);
    [first * b1 + gradient * (1.0 - b1), second * b2 + square]
}

fn corrections(settings: &OptimizerSettings, updates: u64) -> (f64, f64) {
    let power = |b: f64| 1.0 - b.powi(updates.min(i32::MAX as u64) as i32);
    (power(settings.momentum), power(settings.beta2))
}
