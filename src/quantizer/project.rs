//! What happens to the parameters after each optimizer step.

use super::family::Rules;
use super::grid::{dynamic, largest_level, next_power_of_two, round_to_power_of_two};
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

    /// Brings an inferred bitwidth within its bounds, by the step; where that is at its clamp, by the range.
    fn project_bitwidth(&self, parameters: &mut [f64; 2]) {
        let Some(levels) = self.inferred(*parameters) else {
            return;
        };
        if !self.is_learned(0) {
            return;
        }
        let (low, high) = (self.bounds.b.start().ceil(), self.bounds.b.end().floor());
        // At most `high` bits of levels, whatever they count as; at least `low` that count.
        let bits = if levels.bits > high {
            high
        } else if self.grid(*parameters).bits < low {
            low
        } else {
            return;
        };
        let step = self.step_for(parameters[1], bits);
        let clamp = |name: &str, v: f64| {
            v.clamp(*self.bounds.of(name).start(), *self.bounds.of(name).end())
        };
        parameters[0] = clamp(self.parametrization.parameter_names()[0], step);
        if parameters[0] != step {
            parameters[1] = clamp("q_max", self.range_for(parameters[0], bits));
        }
    }

    /// The step (or `q_min`) that spreads `bits` over the range: of a uniform grid the smallest power of
    /// two with at most their levels, which are more than half as many, and so no bit less.
    fn step_for(&self, q_max: f64, bits: f64) -> f64 {
        match self.parametrization {
            Parametrization::P3 => round_to_power_of_two(q_max) / dynamic(bits),
            _ => next_power_of_two(q_max / largest_level(self.signed, bits)),
        }
    }

    /// The range that `bits` span with this step (or `q_min`).
    fn range_for(&self, step: f64, bits: f64) -> f64 {
        let step = round_to_power_of_two(step);
        step * match self.parametrization {
            Parametrization::P3 => dynamic(bits),
            _ => largest_level(self.signed, bits),
        }
    }
}
