//! The constraints (8a), (8b), (8c) and BOPs as terms of the loss.
//!
//! Everything is computed on the host in f64: bitwidths depend on two numbers per quantizer, so
//! no graph is needed and the gradient is exact.

use serde::{Deserialize, Serialize};

use crate::experiment::{BudgetMethod, Budgets};
use crate::network::Network;
use crate::quantizer::memory::{Resource, Stored, Usage, bitwidth_slopes};
use crate::run::Budget;

/// Growth of lambda per step while the controller finds its budget exceeded.
const RAISE: f64 = 1.01;
/// Decay of lambda per step towards its base once the budget is met. Half as fast as it rises:
/// bitwidths move in whole bits, so a run at its budget crosses the line again and again, and
/// where the two rates balance it spends a third of its steps beyond it.
const LET_GO: f64 = 0.995;
/// The controller never exceeds its base lambda by more than this factor.
const CEILING: f64 = 1e4;

/// Multipliers of the constraints; part of a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Constraints {
    multipliers: Vec<(Resource, Multiplier)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Multiplier {
    /// Of the controller: factor on lambda.
    factor: f64,
    /// Of the augmented Lagrangian, per unit of the resource.
    mu: f64,
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
    /// At the start of a run.
    pub fn new() -> Self {
        Self {
            multipliers: Vec::new(),
        }
    }

    /// Penalties and their gradients at the network's current bitwidths; moves the multipliers.
    pub fn terms(&mut self, budgets: &Budgets, network: &Network) -> Terms {
        let mut terms = Terms {
            weight_penalty: 0.0,
            activation_penalty: 0.0,
            loss: 0.0,
            gradients: vec![[0.0; 2]; network.slots.len()],
        };
        if budgets.limits.is_empty() || !network.quantized {
            return terms;
        }
        let stored = network.stored();
        let usage = Usage::of(&stored, network.multiplications());
        let mut slopes = vec![0.0; stored.len()];
        for (resource, limit, lambda) in &budgets.limits {
            let excess = usage.amount(*resource) - limit;
            let square = excess.max(0.0).powi(2);
            match resource {
                Resource::Weights => terms.weight_penalty += square,
                Resource::ActivationSum | Resource::ActivationMax => {
                    terms.activation_penalty += square;
                }
                Resource::Bops => {}
            }
            let multiplier = self.multiplier(*resource);
            let (loss, slope) = multiplier.apply(budgets.method, *lambda, excess);
            terms.loss += loss;
            if slope > 0.0 {
                let of = bitwidth_slopes(*resource, &stored, network.multiplications());
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
            self.multipliers.push((
                resource,
                Multiplier {
                    factor: 1.0,
                    mu: 0.0,
                },
            ));
            self.multipliers.len() - 1
        });
        &mut self.multipliers[position].1
    }
}

impl Default for Constraints {
    fn default() -> Self {
        Self::new()
    }
}

impl Multiplier {
    /// Loss term and its derivative with respect to the resource, for this excess.
    fn apply(&mut self, method: BudgetMethod, lambda: f64, excess: f64) -> (f64, f64) {
        let over = excess.max(0.0);
        match method {
            BudgetMethod::Penalty => (lambda * over * over, 2.0 * lambda * over),
            BudgetMethod::Controller => {
                self.factor = if over > 0.0 {
                    (self.factor * RAISE).min(CEILING)
                } else {
                    (self.factor * LET_GO).max(1.0)
                };
                let lambda = lambda * self.factor;
                (lambda * over * over, 2.0 * lambda * over)
            }
            BudgetMethod::Lagrangian => {
                // (max(0, mu + rho g)^2 - mu^2) / (2 rho), with rho = 2 lambda; then mu follows.
                let rho = 2.0 * lambda;
                if rho == 0.0 {
                    return (0.0, 0.0);
                }
                let pull = (self.mu + rho * excess).max(0.0);
                let loss = (pull * pull - self.mu * self.mu) / (2.0 * rho);
                self.mu = (self.mu + MULTIPLIER_RATE * rho * excess).max(0.0);
                (loss, pull)
            }
        }
    }
}

/// How fast the Lagrangian's multiplier follows the excess, per step.
const MULTIPLIER_RATE: f64 = 0.01;

/// Whether every budget is met.
pub(super) fn met(budgets: &Budgets, usage: &Usage) -> bool {
    // kB are sums of exact multiples of 1/8192; the margin covers their summation.
    budgets
        .limits
        .iter()
        .all(|(resource, limit, _)| usage.amount(*resource) <= limit + 1e-9)
}

/// The constraints as events carry them.
pub(super) fn listed(budgets: &Budgets) -> Vec<Budget> {
    let limits = budgets.limits.iter();
    limits
        .map(|(resource, limit, _)| Budget {
            resource: *resource,
            limit: *limit,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Minimises distance-to-8 cost plus constraint over a scalar resource by gradient descent.
    fn settle(method: BudgetMethod, lambda: f64) -> f64 {
        let mut multiplier = Multiplier {
            factor: 1.0,
            mu: 0.0,
        };
        let mut u: f64 = 8.0;
        for _ in 0..20_000 {
            let (_, slope) = multiplier.apply(method, lambda, u - 4.0);
            u -= 0.01 * ((u - 8.0) + slope).clamp(-10.0, 10.0);
        }
        u
    }

    #[test]
    fn a_constant_penalty_leaves_an_excess_and_the_others_do_not() {
        // Minimum of (u - 8)^2 / 2 + 0.1 (u - 4)^2: u = (8 + 0.8) / 1.2.
        assert!((settle(BudgetMethod::Penalty, 0.1) - 8.8 / 1.2).abs() < 1e-3);
        assert!((settle(BudgetMethod::Lagrangian, 0.1) - 4.0).abs() < 0.05);
        let controlled = settle(BudgetMethod::Controller, 0.1);
        assert!(controlled < 4.3, "{controlled}");
    }

    #[test]
    fn penalty_and_lagrangian_gradients_are_their_losses_derivatives() {
        for method in [BudgetMethod::Penalty, BudgetMethod::Lagrangian] {
            for excess in [-3.0, 0.5, 61.03] {
                let at = |e: f64| {
                    Multiplier {
                        factor: 1.0,
                        mu: 0.3,
                    }
                    .apply(method, 0.1, e)
                };
                let h = 1e-5;
                let difference = (at(excess + h).0 - at(excess - h).0) / (2.0 * h);
                assert!(
                    (difference - at(excess).1).abs() < 1e-5,
                    "{method:?} {excess}"
                );
            }
        }
    }
}
