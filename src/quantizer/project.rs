//! What happens to the parameters after each optimizer step.

use super::family::Rules;
use super::grid::{dynamic, largest_level, round_to_power_of_two};
use super::parametrization::{Parametrization, Quantizer};

/// Distance that the recipe keeps: `d <= q_max - margin`, and from either end of a clamp.
pub const CLAMP_MARGIN: f64 = 1e-5;

impl Quantizer {
    /// Brings the parameters back to where the recipe allows them after an update.
    ///
    /// First `d <= q_max - 1e-5` (or `q_min <= q_max - 1e-5`), then the clamp. Under the paper's
    /// rules one bound on b holds for every parametrization, so the step (or `q_min`) of U3 and P3
    /// is raised or lowered until the inferred bitwidth lies within it; the published code bounds
    /// only the b of the others. Parameters that are not learned stay as they are.
    pub fn project(&self, parameters: [f64; 2]) -> [f64; 2] {
        let mut projected = parameters;
        if matches!(
            self.parametrization,
            Parametrization::U3 | Parametrization::P3
        ) {
            projected[0] = projected[0].min(projected[1] - CLAMP_MARGIN);
        }
        let names = self.parametrization.parameter_names();
        for i in 0..2 {
            let bound = self.bounds.of(names[i]);
            let (low, high) = (*bound.start(), *bound.end());
            if self.rules == Rules::PublishedCode && high - low > 2.0 * CLAMP_MARGIN {
                projected[i] = projected[i]
                    .max(low + CLAMP_MARGIN)
                    .min(high - CLAMP_MARGIN);
            } else {
                projected[i] = projected[i].clamp(low, high);
            }
        }
        if self.rules == Rules::Paper {
            self.project_bitwidth(&mut projected);
        }
        for i in 0..2 {
            if !self.is_learned(i) {
                projected[i] = parameters[i];
            }
        }
        projected
    }

    fn project_bitwidth(&self, parameters: &mut [f64; 2]) {
        let infers = matches!(
            self.parametrization,
            Parametrization::U3 | Parametrization::P3
        );
        if !infers || self.is_pinned() {
            return;
        }
        let bits = self.grid(*parameters).bits;
        let (low, high) = (*self.bounds.b.start(), *self.bounds.b.end());
        if bits > high.floor() {
            parameters[0] = self.step_for(parameters[1], high.floor(), f64::ceil);
        } else if bits < low.ceil() {
            parameters[0] = self.step_for(parameters[1], low.ceil(), f64::floor);
        }
    }

    fn is_pinned(&self) -> bool {
        !self.is_learned(0)
    }

    /// The step (or `q_min`) that spreads `bits` over the range, with its exponent rounded so
    /// that the inferred bitwidth is at most (ceil) or at least (floor) `bits`.
    fn step_for(&self, q_max: f64, bits: f64, round: fn(f64) -> f64) -> f64 {
        match self.parametrization {
            Parametrization::P3 => round_to_power_of_two(q_max) / dynamic(bits),
            _ => round((q_max / largest_level(self.signed, bits)).log2()).exp2(),
        }
    }
}
