//! The constraints (8a), (8b), (8c) and BOPs: limits that tighten, terms of the loss, and what a bit costs.
//!
//! Everything is computed on the host in f64: bitwidths depend on two numbers per quantizer, so
//! no graph is needed and the gradient is exact.

mod multiplier;
mod projection;
mod ramp;

pub use projection::Costs;

use multiplier::Multiplier;
use ramp::Ramp;
use serde::{Deserialize, Serialize};

use crate::experiment::{Budgets, Limit};
use crate::network::Network;
use crate::quantizer::memory::{Resource, Stored, Usage, bitwidth_slopes};
use crate::run::{Budget, Tightening};

/// The constraints' own state, multipliers, ramps and costs of bits; part of a checkpoint.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Constraints {
    multipliers: Vec<(Resource, Multiplier)>,
    ramps: Vec<Ramp>,
    pub(super) costs: Costs,
}

/// The constraints' share of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Terms {
    /// `max(0, g)^2` of (8a), before lambda.
    pub weight_penalty: f64,
    /// The same of (8b) and (8c), summed.
    pub activation_penalty: f64,
    /// What is added to the loss.
    pub loss: f64,
    /// Gradient of that with respect to both parameters of every slot.
    pub gradients: Vec<[f64; 2]>,
}

impl Constraints {
    /// Limits in force at this epoch, in the order of the budgets; they tighten until epoch `until`
    /// at the latest.
    pub(super) fn limits(
        &mut self,
        budgets: &Budgets,
        network: &Network,
        epoch: f64,
        until: f64,
    ) -> Vec<Budget> {
        if budgets.limits.is_empty() || !network.quantized {
            // What is asked for again begins anew.
            self.ramps.clear();
            self.multipliers.clear();
            return Vec::new();
        }
        let asked = |of: &(Resource, _)| budgets.limits.iter().any(|l| l.resource == of.0);
        self.multipliers.retain(asked);
        ramp::limits(&mut self.ramps, budgets, &network.usage(), epoch, until)
    }

    /// The network is held to what was asked for: more epochs do not loosen it again.
    pub(super) fn arrive(&mut self) {
        self.ramps.iter_mut().for_each(Ramp::arrive);
    }

    /// Budgets that began, or begin, above what was asked for.
    pub(super) fn tightening(&self, budgets: &Budgets, until: f64) -> Vec<Tightening> {
        let all = self.ramps.iter().map(|r| r.tightening(budgets, until));
        all.filter(|t| t.at(t.since) > t.to).collect()
    }

    /// Penalties and their gradients at the network's current bitwidths; moves the multipliers.
    pub(super) fn terms(
        &mut self,
        budgets: &Budgets,
        limits: &[Budget],
        network: &Network,
    ) -> Terms {
        let mut terms = Terms {
            weight_penalty: 0.0,
            activation_penalty: 0.0,
            loss: 0.0,
            gradients: vec![[0.0; 2]; network.slots.len()],
        };
        if limits.is_empty() {
            return terms;
        }
        let stored = network.stored();
        let usage = Usage::of(&stored, network.multiplications());
        let mut slopes = vec![0.0; stored.len()];
        for (Budget { resource, limit }, asked) in limits.iter().zip(&budgets.limits) {
            let amount = usage.amount(*resource);
            let excess = amount - limit;
            let square = excess.max(0.0).powi(2);
            match resource {
                Resource::Weights => terms.weight_penalty += square,
                Resource::ActivationSum | Resource::ActivationMax => {
                    terms.activation_penalty += square;
                }
                Resource::Bops => {}
            }
            let multiplier = self.multiplier(*resource);
            let (loss, slope) = multiplier.apply(budgets.method, asked.lambda, amount, *limit);
            terms.loss += loss;
            if slope > 0.0 {
                let (rules, macs) = (network.rules(), network.multiplications());
                let of = bitwidth_slopes(*resource, rules, &stored, macs);
                slopes
                    .iter_mut()
                    .zip(of)
                    .for_each(|(sum, s)| *sum += slope * s);
            }
        }
        self.pull(network, &stored, &slopes, &mut terms.gradients);
        terms
    }

    /// Chain rule from stored bitwidths to the slots' parameters.
    fn pull(
        &self,
        network: &Network,
        stored: &[Stored],
        slopes: &[f64],
        gradients: &mut [[f64; 2]],
    ) {
        debug_assert_eq!(stored.len(), slopes.len());
        for (slot, slope) in network.stored_slots().into_iter().zip(slopes) {
            let Some(slot) = slot else { continue };
            let of = &network.slots[slot];
            let bitwidth = of.quantizer.bitwidth_gradients(of.parameters);
            gradients[slot][0] += slope * bitwidth[0];
            gradients[slot][1] += slope * bitwidth[1];
        }
    }

    fn multiplier(&mut self, resource: Resource) -> &mut Multiplier {
        let position = self.multipliers.iter().position(|(r, _)| *r == resource);
        let position = position.unwrap_or_else(|| {
            self.multipliers.push((resource, Multiplier::default()));
            self.multipliers.len() - 1
        });
        &mut self.multipliers[position].1
    }
}

/// Whether the usage is within all of these.
pub(super) fn met(budgets: &[Budget], usage: &Usage) -> bool {
    budgets.iter().all(|b| b.is_met(usage))
}

/// What was asked for, as events carry it.
pub(super) fn listed(budgets: &Budgets) -> Vec<Budget> {
    let budget = |limit: &Limit| Budget {
        resource: limit.resource,
        limit: limit.amount,
    };
    budgets.limits.iter().map(budget).collect()
}
