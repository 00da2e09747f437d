//! How a quantizer's two parameters move.
//!
//! *Plain* steps are the optimizer's own, SGD or Adam, on the parameters as they are: the paper's
//! recipe, with its gradients clipped to plus and minus `d` under a budget.
//!
//! *Relative* steps move every parameter on one scale, octaves of `d`, `q_min` and `q_max` and whole
//! bits of `b`, by at most `quantizers.rate`:
//!
//! ```text
//! step = -rate * clamp((momentum of the data's gradient + the penalties' gradient)
//!                      / root mean square of the data's gradient, -1, 1)
//! ```
//!
//! The division makes layers comparable whatever their number of elements, so that a penalty reaches
//! first those whose cross entropy asks for their bits the least. The penalties have no momentum:
//! what they pull ends when they do.

use serde::{Deserialize, Serialize};

use super::{ADAM_EPSILON, Optimizer, corrections};
use crate::experiment::{Decay, Experiment, OptimizerKind, OptimizerSettings, QuantizerSteps};
use crate::network::{Network, Slot};
use crate::quantizer::memory::Role;
use crate::quantizer::{Coordinates, Rules};

/// What an optimizer remembers of one quantizer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct QuantizerState {
    moments: [Moments; 2],
    /// Updates that the moments have seen.
    updates: u64,
    /// Steps in a row that the quantizer has been dead.
    dead: u64,
}

/// Moments of one number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Moments {
    first: f64,
    second: f64,
    /// Whether a penalty pulled at the last step.
    pulled: bool,
}

/// Gradients of a quantizer's two parameters.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(in crate::training) struct Gradient {
    /// Of the cross entropy.
    pub data: [f64; 2],
    /// Of the penalties.
    pub penalty: [f64; 2],
}

impl Gradient {
    /// Both terms of the loss together.
    pub(in crate::training) fn sum(&self) -> [f64; 2] {
        [0, 1].map(|i| self.data[i] + self.penalty[i])
    }
}

impl QuantizerState {
    /// Counts a step on which the quantizer was dead or alive; how many in a row it has been dead.
    pub(in crate::training) fn count_dead(&mut self, dead: bool) -> u64 {
        self.dead = if dead { self.dead + 1 } else { 0 };
        self.dead
    }

    /// Forgets where the parameters were going: they were set anew.
    pub(in crate::training) fn stop(&mut self) {
        *self = Self::default();
    }
}

impl Optimizer {
    /// Updates the quantizers, then projects them back to where the recipe allows. Returns their
    /// gradients: of plain steps as the optimizer saw them, after decay and clipping.
    pub(in crate::training) fn update_quantizers(
        &mut self,
        network: &mut Network,
        experiment: &Experiment,
        lr: f64,
        gradients: &[Gradient],
    ) -> Vec<[f64; 2]> {
        let all = network.slots.iter_mut().zip(&mut self.quantizers);
        all.zip(gradients)
            .map(|((slot, state), gradient)| {
                state.updates += 1;
                let before = slot.parameters;
                let seen = match experiment.quantizers.steps {
                    QuantizerSteps::Plain => plain(slot, state, experiment, lr, gradient),
                    QuantizerSteps::Relative => relative(slot, state, experiment, lr, gradient),
                };
                slot.parameters = slot.quantizer.project(slot.parameters);
                let hysteresis = experiment.quantizers.hysteresis;
                if hysteresis > 0.0 {
                    let q = &slot.quantizer;
                    let further = q.with_hysteresis(before, slot.parameters, hysteresis);
                    slot.parameters = q.project(further);
                }
                seen
            })
            .collect()
    }
}

/// Factor on the learning rate, or on the rate of relative steps.
fn factor(slot: &Slot, settings: &OptimizerSettings) -> f64 {
    match slot.role {
        Role::Weight | Role::Bias => settings.lr_weight_quantizers,
        Role::Activation => settings.lr_activation_quantizers,
    }
}

/// One step on the parameters as they are.
fn plain(
    slot: &mut Slot,
    state: &mut QuantizerState,
    experiment: &Experiment,
    lr: f64,
    gradient: &Gradient,
) -> [f64; 2] {
    let settings = &experiment.optimizer;
    let lr = lr * factor(slot, settings);
    let step = slot.quantizer.raw_step_and_range(slot.parameters).0;
    [0, 1].map(|i| {
        let mut g = gradient.data[i] + gradient.penalty[i];
        if settings.decay == Decay::All {
            g += settings.weight_decay * slot.parameters[i];
        }
        if experiment.clips() {
            g = g.clamp(-step, step);
        }
        if slot.quantizer.is_learned(i) {
            let moments = &mut state.moments[i];
            let pulls = gradient.penalty[i] != 0.0;
            if experiment.rules == Rules::Paper && moments.pulled && !pulls {
                // What the penalty has set going ends with it.
                moments.first = 0.0;
            }
            moments.pulled = pulls;
            slot.parameters[i] -= moments.update(g, settings, state.updates, lr);
        }
        g
    })
}

/// One step on the common scale; see the top of this file.
fn relative(
    slot: &mut Slot,
    state: &mut QuantizerState,
    experiment: &Experiment,
    lr: f64,
    gradient: &Gradient,
) -> [f64; 2] {
    let settings = &experiment.optimizer;
    // The schedule's share of the learning rate, without the rate itself.
    let schedule = if settings.lr > 0.0 {
        lr / settings.lr
    } else {
        0.0
    };
    let rate = experiment.quantizers.rate * schedule * factor(slot, settings);
    let (b1, b2) = (settings.momentum, settings.beta2);
    let (c1, c2) = corrections(settings, state.updates);
    let scale = slot.quantizer.per_coordinate(slot.parameters);
    let before = slot.quantizer.coordinates(slot.parameters);
    let Coordinates(mut at) = before;
    let mut seen = [0.0; 2];
    for i in 0..2 {
        let mut data = gradient.data[i];
        if settings.decay == Decay::All {
            data += settings.weight_decay * slot.parameters[i];
        }
        seen[i] = data + gradient.penalty[i];
        if !slot.quantizer.is_learned(i) {
            continue;
        }
        let (data, penalty) = (data * scale[i], gradient.penalty[i] * scale[i]);
        let moments = &mut state.moments[i];
        moments.first = b1 * moments.first + (1.0 - b1) * data;
        moments.second = b2 * moments.second + (1.0 - b2) * data * data;
        let spread = (moments.second / c2).sqrt() + f64::MIN_POSITIVE;
        at[i] -= rate * ((moments.first / c1 + penalty) / spread).clamp(-1.0, 1.0);
    }
    let moved = slot.quantizer.at(Coordinates(at));
    for i in 0..2 {
        // (There and back again is not always the same number, and one that stands exactly where a
        // bitwidth begins would gain a bit without a step.)
        if at[i] != before.0[i] {
            slot.parameters[i] = moved[i];
        }
    }
    seen
}

impl Moments {
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
