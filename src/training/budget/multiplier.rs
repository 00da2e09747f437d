//! How the excess over one limit becomes a term of the loss.

use serde::{Deserialize, Serialize};

use crate::experiment::BudgetMethod;

/// Of the controller, per step and unit of the logarithm of amount over limit: how fast the
/// logarithm of its factor follows (integral), and by how much it stands above (proportional).
const INTEGRAL: f64 = 0.05;
const PROPORTIONAL: f64 = 5.0;
/// The controller hears at most this much of the logarithm of amount over limit.
const LARGEST_ERROR: f64 = 0.5;
/// The controller's factor on lambda stays within this, both ways.
const LARGEST_FACTOR: f64 = 1e9;
/// How fast the Lagrangian's multiplier follows the excess, per step.
const MULTIPLIER_RATE: f64 = 0.01;

/// What one constraint remembers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Multiplier {
    /// Of the controller: logarithm of the factor on lambda.
    log_factor: f64,
    /// Of the augmented Lagrangian, per unit of the resource.
    mu: f64,
}

impl Multiplier {
    /// Loss term and its derivative with respect to the resource; moves the multiplier.
    pub(super) fn apply(
        &mut self,
        method: BudgetMethod,
        lambda: f64,
        amount: f64,
        limit: f64,
    ) -> (f64, f64) {
        let excess = amount - limit;
        let over = excess.max(0.0);
        match method {
            BudgetMethod::Projection => (0.0, 0.0),
            BudgetMethod::Penalty => (lambda * over * over, 2.0 * lambda * over),
            BudgetMethod::Controller => {
                let error = (amount.max(f64::MIN_POSITIVE) / limit.max(f64::MIN_POSITIVE)).ln();
                let error = error.clamp(-LARGEST_ERROR, LARGEST_ERROR);
                let bound = LARGEST_FACTOR.ln();
                self.log_factor = (self.log_factor + INTEGRAL * error).clamp(-bound, bound);
                let slope = lambda * (self.log_factor + PROPORTIONAL * error).exp();
                (slope * over, slope)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Minimises the distance to 8 under the constraint "at most 4" by gradient descent; the largest
    /// amount below the limit on the way, and where it ends.
    fn settle(method: BudgetMethod, lambda: f64) -> (f64, f64) {
        let mut multiplier = Multiplier::default();
        let (mut u, mut least): (f64, f64) = (8.0, 8.0);
        for _ in 0..20_000 {
            let (_, slope) = multiplier.apply(method, lambda, u, 4.0);
            u -= 0.01 * ((u - 8.0) + slope).clamp(-10.0, 10.0);
            least = least.min(u);
        }
        (least, u)
    }

    #[test]
    fn a_constant_penalty_leaves_an_excess_and_the_others_do_not() {
        // Minimum of (u - 8)^2 / 2 + 0.1 (u - 4)^2: u = (8 + 0.8) / 1.2.
        assert!((settle(BudgetMethod::Penalty, 0.1).1 - 8.8 / 1.2).abs() < 1e-3);
        assert!((settle(BudgetMethod::Lagrangian, 0.1).1 - 4.0).abs() < 0.05);
        assert!((settle(BudgetMethod::Controller, 0.1).1 - 4.0).abs() < 0.01);
    }

    #[test]
    fn the_controller_does_not_overshoot() {
        for lambda in [1e-3, 0.1, 1.0] {
            let (least, _) = settle(BudgetMethod::Controller, lambda);
            assert!(least > 3.9, "lambda {lambda}: {least}");
        }
    }

    #[test]
    fn penalty_and_lagrangian_gradients_are_their_losses_derivatives() {
        for method in [BudgetMethod::Penalty, BudgetMethod::Lagrangian] {
            for excess in [-3.0, 0.5, 61.03] {
                let at = |e: f64| {
                    Multiplier {
                        mu: 0.3,
                        ..Multiplier::default()
                    }
                    .apply(method, 0.1, 70.0 + e, 70.0)
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
