//! SGD with momentum and Adam, over tensors and over the quantizers' numbers alike.
//!
//! Weight decay is added to the gradient. Quantizer parameters live on the host, so their update
//! is plain arithmetic; both follow the same rules.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::experiment::{Decay, Experiment, OptimizerKind, OptimizerSettings};
use crate::network::{Kind, Network};
use crate::quantizer::memory::Role;

const ADAM_EPSILON: f64 = 1e-8;

/// Optimizer state: of tensors on the device, of quantizers on the host.
pub struct Optimizer {
    /// First and (Adam) second moment of every parameter.
    pub(super) tensors: Vec<[Option<Tensor<1>>; 2]>,
    pub(super) slots: Vec<[ScalarState; 2]>,
    /// Updates taken, for Adam's bias correction.
    pub(super) updates: u64,
}

/// Moments of one host number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct ScalarState {
    first: f64,
    second: f64,
}

impl Optimizer {
    /// Without history.
    pub fn new(network: &Network) -> Self {
        Self {
            tensors: network.parameters.iter().map(|_| [None, None]).collect(),
            slots: vec![[ScalarState::default(); 2]; network.slots.len()],
            updates: 0,
        }
    }

    /// Forgets the quantizers' history (they were initialised anew).
    pub fn reset_slots(&mut self) {
        self.slots.iter_mut().for_each(|s| *s = Default::default());
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

    /// Updates the quantizers from the gradients that reached them, then projects them back to
    /// where the recipe allows. Returns the gradients as the optimizer saw them: after decay and
    /// clipping.
    pub fn update_slots(
        &mut self,
        network: &mut Network,
        experiment: &Experiment,
        lr: f64,
        mut gradients: Vec<[f64; 2]>,
    ) -> Vec<[f64; 2]> {
        let settings = &experiment.optimizer;
        let all = network
            .slots
            .iter_mut()
            .zip(&mut self.slots)
            .zip(&mut gradients);
        for ((slot, state), gradient) in all {
            let lr = lr
                * match slot.role {
                    Role::Weight | Role::Bias => settings.lr_weight_quantizers,
                    Role::Activation => settings.lr_activation_quantizers,
                };
            let step = slot.quantizer.raw_step_and_range(slot.parameters).0;
            for i in 0..2 {
                if settings.decay == Decay::All {
                    gradient[i] += settings.weight_decay * slot.parameters[i];
                }
                if experiment.clips() {
                    gradient[i] = gradient[i].clamp(-step, step);
                }
                if slot.quantizer.is_learned(i) {
                    let update = state[i].update(gradient[i], settings, self.updates, lr);
                    slot.parameters[i] -= update;
                }
            }
            slot.parameters = slot.quantizer.project(slot.parameters);
        }
        gradients
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

impl ScalarState {
    fn update(&mut self, g: f64, settings: &OptimizerSettings, updates: u64, lr: f64) -> f64 {
        match settings.kind {
            OptimizerKind::Sgd => {
                self.first = settings.momentum * self.first + g;
                lr * self.first
            }
            OptimizerKind::Adam => {
                let (b1, b2) = (settings.momentum, settings.beta2);
                self.first = b1 * self.first + (1.0 - b1) * g;
                self.second = b2 * self.second + (1.0 - b2) * g * g;
                let (c1, c2) = corrections(settings, updates);
                lr * self.first / c1 / ((self.second / c2).sqrt() + ADAM_EPSILON)
            }
        }
    }
}
