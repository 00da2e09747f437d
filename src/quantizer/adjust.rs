//! Changes of a quantizer's parameters that no gradient makes: one bit less, a fit to values, a
//! conversion between parametrizations, and the margin that keeps a bitwidth from flickering.

use super::family::Family;
use super::grid::{Grid, dynamic, largest_level, round_to_power_of_two};
use super::parametrization::{Parametrization, Quantizer};
use super::project::CLAMP_MARGIN;

/// Octaves that an inferred bitwidth's range keeps from where one more bit begins: exactly there, the
/// first step of the gradient would add it. At most this share of a step, so that the top level stays.
const BELOW_NEXT_BIT: f64 = 0.1;
const BELOW_TOP: f64 = 0.25;

/// Octaves that a 1-level `d` stays below the power of two it is rounded to: at two bits (signed) the
/// range is that power itself, and the recipe wants `d <= q_max - 1e-5`.
const BELOW_RANGE: f64 = 0.25;

/// Octaves below the largest value that a fit looks for the best range in.
const FITTED_OCTAVES: i32 = 12;

/// Halvings of the interval in which a change of the grid lies.
const BISECTIONS: u32 = 40;

/// A quantizer's two parameters on one scale: `b` in bits, the others as log2, so that a step of one
/// is worth one bit of bitwidth whichever of them takes it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Coordinates(pub [f64; 2]);

impl Quantizer {
    /// The parameters as coordinates.
    pub fn coordinates(&self, parameters: [f64; 2]) -> Coordinates {
        let names = self.parametrization.parameter_names();
        Coordinates([0, 1].map(|i| match names[i] {
            "b" => parameters[i],
            _ => parameters[i].log2(),
        }))
    }

    /// The parameters at these coordinates.
    pub fn at(&self, coordinates: Coordinates) -> [f64; 2] {
        let names = self.parametrization.parameter_names();
        [0, 1].map(|i| match names[i] {
            "b" => coordinates.0[i],
            _ => coordinates.0[i].exp2(),
        })
    }

    /// Derivative of each parameter with respect to its coordinate: what turns gradients of
    /// parameters into gradients of coordinates.
    pub fn per_coordinate(&self, parameters: [f64; 2]) -> [f64; 2] {
        let names = self.parametrization.parameter_names();
        [0, 1].map(|i| match names[i] {
            "b" => 1.0,
            _ => parameters[i] * std::f64::consts::LN_2,
        })
    }

    /// Parameters whose grid has this `step` (`d` or `q_min`, a power of two), the range `q_max`, and
    /// this bitwidth; where they are inferred, away from where they change.
    ///
    /// The result is clamped to the bounds; where they cut, the grid differs.
    pub fn parameters_of(&self, step: f64, q_max: f64, bits: f64) -> [f64; 2] {
        let parameters = match self.parametrization {
            Parametrization::U1 | Parametrization::P1 => [bits, step],
            Parametrization::U2 => [bits, largest_level(self.signed, bits) * step],
            Parametrization::U3 => {
                let levels = largest_level(self.signed, bits);
                let most = (levels * (-BELOW_NEXT_BIT).exp2()).max(levels - BELOW_TOP);
                // A range shorter than that holds the same levels, but would draw `d` after it to
                // the next smaller power of two, and the bitwidth up.
                let least = step * (-BELOW_RANGE).exp2();
                let q_max = q_max.min(most * step).max(least);
                let d = if q_max <= step { least } else { step };
                [d.min(q_max - CLAMP_MARGIN), q_max]
            }
            Parametrization::P3 => [step, q_max],
            Parametrization::P2 => [bits, q_max],
        };
        self.clamped(parameters)
    }

    /// Parameters of `bits` bits whose range is the nearest to `q_max`: a power of two times the
    /// largest level.
    pub fn spanning(&self, q_max: f64, bits: f64) -> [f64; 2] {
        match self.parametrization.family() {
            Family::Uniform => {
                let levels = largest_level(self.signed, bits).max(1.0);
                let step = round_to_power_of_two(q_max / levels);
                self.parameters_of(step, levels * step, bits)
            }
            Family::PowerOfTwo => {
                let q_max = round_to_power_of_two(q_max);
                self.parameters_of(q_max / dynamic(bits), q_max, bits)
            }
        }
    }

    /// Parameters of the same levels that are away from where step or bitwidth change.
    pub fn recentred(&self, parameters: [f64; 2]) -> [f64; 2] {
        let grid = self.grid(parameters);
        self.parameters_of(f64::from(grid.step), f64::from(grid.q_max), grid.bits)
    }

    /// The ways to use one bit less (the next smaller allowed bitwidth): first a coarser step over the same
    /// range, then a shorter range with the same step; where several bits go at once, also what lies in
    /// between. Empty at the least bitwidth; ways that the clamps forbid are left out.
    pub fn one_bit_less(&self, parameters: [f64; 2]) -> Vec<[f64; 2]> {
        let grid = self.grid(parameters);
        let Some(bits) = self.next_smaller(grid.bits) else {
            return Vec::new();
        };
        let (step, q_max) = (f64::from(grid.step), f64::from(grid.q_max));
        let ways: Vec<(f64, f64)> = match grid.family {
            Family::Uniform => {
                let levels = largest_level(self.signed, bits).max(1.0);
                let used = ((q_max / step + 1.0).log2() + f64::from(self.signed)).ceil();
                let octaves = (used - bits).max(1.0) as i32;
                let steps = (0..=octaves).rev().map(|k| step * f64::from(k).exp2());
                steps.map(|step| (step, q_max.min(levels * step))).collect()
            }
            Family::PowerOfTwo => {
                let ratio = dynamic(bits);
                vec![(q_max / ratio, q_max), (step, q_max.min(step * ratio))]
            }
        };
        ways.into_iter()
            .map(|(step, q_max)| self.parameters_of(step, q_max, bits))
            .filter(|p| self.grid(*p).bits <= bits)
            .collect()
    }

    /// What quantizing `values` with these parameters changes, squared and summed.
    fn squared_error(&self, parameters: [f64; 2], values: &[f32]) -> f64 {
        let grid = self.grid(parameters);
        let error = |v: &f32| f64::from(grid.forward(*v) - v).powi(2);
        values.iter().map(error).sum()
    }

    /// Parameters of `bits` bits that quantize `values` with the smallest squared error, among
    /// ranges a power of two apart; of more bits only where the clamps leave nothing else.
    pub fn fitted(&self, values: &[f32], bits: f64) -> [f64; 2] {
        let largest = values.iter().fold(0f32, |m, v| m.max(v.abs()));
        let top = round_to_power_of_two(f64::from(largest.max(f32::MIN_POSITIVE))).log2();
        let candidates = (-1..FITTED_OCTAVES)
            .map(|octave| self.spanning((top - f64::from(octave)).exp2(), bits));
        let rated = candidates.map(|p| {
            let beyond = (self.grid(p).bits - bits).max(0.0);
            (p, beyond, self.squared_error(p, values))
        });
        rated
            .reduce(|best, next| {
                let is_better = (next.1, next.2) < (best.1, best.2);
                if is_better { next } else { best }
            })
            .map(|(p, ..)| p)
            .expect("the candidates are not empty")
    }

    /// Parameters after an update that moved them from `before` to `after`, with hysteresis: where
    /// the update changed the grid, the parameter that did goes on to `octaves` beyond the place
    /// where it changes. To undo the change the gradient then has to move it back by that much.
    pub fn with_hysteresis(&self, before: [f64; 2], after: [f64; 2], octaves: f64) -> [f64; 2] {
        let (from, moved) = (self.coordinates(before), self.coordinates(after));
        let mut to = moved;
        for i in 0..2 {
            let there = |v: f64| {
                let mut at = to;
                at.0[i] = v;
                Levels::of(&self.grid(self.at(at)))
            };
            let (mut near, mut far) = (from.0[i], to.0[i]);
            let old = there(near);
            if near == far || there(far) == old {
                continue;
            }
            for _ in 0..BISECTIONS {
                let middle = (near + far) / 2.0;
                *(if there(middle) == old {
                    &mut near
                } else {
                    &mut far
                }) = middle;
            }
            let margin = octaves.copysign(to.0[i] - from.0[i]);
            let beyond = far + margin;
            let further = (beyond - to.0[i]) * margin > 0.0;
            // Not across the next change: a margin wider than that would skip a level.
            if further && there(beyond) == there(to.0[i]) {
                to.0[i] = beyond;
            }
        }
        // (The way to a coordinate and back is not exact.)
        let further = self.at(to);
        [0, 1].map(|i| match to.0[i] == moved.0[i] {
            true => after[i],
            false => further[i],
        })
    }
}

/// What tells grids apart: a range that moves between two bitwidths of a uniform grid does not
/// change it.
#[derive(PartialEq)]
struct Levels {
    step: f32,
    bits: f64,
    octaves: Option<f32>,
}

impl Levels {
    fn of(grid: &Grid) -> Self {
        Self {
            step: grid.step,
            bits: grid.bits,
            octaves: (grid.family == Family::PowerOfTwo).then_some(grid.q_max),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::quantizer::{InitialBits, Rules, initial_parameters};

    fn quantizers() -> impl Iterator<Item = Quantizer> {
        Parametrization::ALL
            .into_iter()
            .flat_map(|p| [true, false].map(|signed| Quantizer::learned(p, signed, Rules::Paper)))
    }

    fn start(q: &Quantizer, bits: f64) -> [f64; 2] {
        initial_parameters(q, 0.7, InitialBits(bits))
    }

    #[test]
    fn a_bit_less_is_one_bit_less_down_to_the_least() {
        for q in quantizers() {
            let mut at = start(&q, 5.0);
            for bits in (q.least_bits() as u32..5).rev() {
                let ways = q.one_bit_less(at);
                assert!(!ways.is_empty(), "{q:?} at {bits}");
                for way in &ways {
                    assert_eq!(q.grid(*way).bits, f64::from(bits), "{q:?} {way:?}");
                    assert_eq!(q.grid(q.project(*way)), q.grid(*way), "{q:?} {way:?}");
                }
                at = ways[0];
            }
            assert!(q.one_bit_less(at).is_empty(), "{q:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// What a projection onto a budget takes away does not come back by itself: otherwise the
        /// quantizer loses the same bit at every step and learns nothing.
        #[test]
        fn a_bit_less_stays_away(
            index in 0..12usize, moves in [-3.0..3.0f64, -3.0..3.0f64], bits in 2..8u32,
        ) {
            let q = quantizers().nth(index).expect("twelve");
            let Coordinates(c) = q.coordinates(start(&q, f64::from(bits)));
            let at = q.project(q.at(Coordinates([c[0] + moves[0], c[1] + moves[1]])));
            for way in q.one_bit_less(at) {
                prop_assert_eq!(q.grid(q.project(way)), q.grid(way), "{:?} {:?}", at, way);
                prop_assert!(q.grid(way).bits < q.grid(at).bits, "{:?} {:?}", at, way);
            }
        }
    }

    #[test]
    fn a_coarser_step_keeps_the_range_and_a_shorter_range_keeps_the_step() {
        for q in quantizers() {
            let at = start(&q, 4.0);
            let (before, ways) = (q.grid(at), q.one_bit_less(at));
            let [coarser, shorter] = [0, 1].map(|i| q.grid(ways[i]));
            assert!(coarser.q_max >= 0.75 * before.q_max, "{q:?} {coarser:?}");
            assert_eq!(shorter.step, before.step, "{q:?}");
        }
    }

    #[test]
    fn a_fit_beats_its_neighbours_and_the_largest_value() {
        // A wide bell: its largest value says little about where two bits should lie.
        let values: Vec<f32> = (0..999)
            .map(|i| {
                let u = (f64::from(i) + 0.5) / 999.0;
                ((u / (1.0 - u)).ln() * 0.05) as f32
            })
            .collect();
        for q in quantizers().filter(|q| q.signed) {
            for bits in [2.0, 3.0, 4.0] {
                let fit = q.fitted(&values, bits);
                let grid = q.grid(fit);
                assert_eq!(grid.bits, bits, "{q:?}");
                let error = |p: [f64; 2]| -> f64 {
                    let g = q.grid(p);
                    values
                        .iter()
                        .map(|v| f64::from(g.forward(*v) - v).powi(2))
                        .sum()
                };
                let largest = initial_parameters(&q, 0.38, InitialBits(bits));
                assert!(error(fit) <= error(largest), "{q:?} {bits}");
            }
        }
    }

    /// Where the clamps cut a candidate, it has other levels than were asked for, and may fit better.
    #[test]
    fn a_fit_takes_no_more_bits_than_it_is_given() {
        let q = Quantizer::learned(Parametrization::U3, true, Rules::Paper);
        let values: Vec<f32> = (-8..=8).map(|i| i as f32 * 0.5).collect();
        for bits in [2.0, 3.0] {
            assert_eq!(q.grid(q.fitted(&values, bits)).bits, bits);
        }
    }

    #[test]
    fn a_change_goes_on_beyond_its_place_and_nothing_else_moves() {
        let q = Quantizer::learned(Parametrization::U3, true, Rules::Paper);
        // log2 d crosses -3.5 upwards.
        let [d, q_max] = q.with_hysteresis([0.0880, 0.7], [0.0885, 0.7], 0.1);
        assert!((d.log2() - -3.4).abs() < 1e-6, "{}", d.log2());
        assert!((q_max - 0.7).abs() < 1e-12);
        // q_max crosses 7 d downwards: four bits become... three.
        let [_, q_max] = q.with_hysteresis([0.125, 0.376], [0.125, 0.374], 0.1);
        assert!((q_max / 0.375 - (-0.1f64).exp2()).abs() < 1e-6, "{q_max}");
        // No change of the grid: the update stands.
        let still = q.with_hysteresis([0.100, 0.7], [0.101, 0.71], 0.1);
        assert_eq!(still, [0.101, 0.71]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn hysteresis_keeps_the_grid_of_the_update(
            index in 0..12usize, bits in 2.0..7.0f64, moves in [-0.4..0.4f64, -0.4..0.4f64],
        ) {
            let q = quantizers().nth(index).expect("twelve");
            let before = q.project(start(&q, bits.round()));
            let Coordinates(c) = q.coordinates(before);
            let after = q.project(q.at(Coordinates([c[0] + moves[0], c[1] + moves[1]])));
            let with = q.with_hysteresis(before, after, 0.1);
            prop_assert_eq!(q.grid(with).bits, q.grid(after).bits);
            prop_assert_eq!(q.grid(with).step, q.grid(after).step);
        }

        #[test]
        fn coordinates_return(index in 0..12usize, bits in 2.0..8.0f64) {
            let q = quantizers().nth(index).expect("twelve");
            let p = start(&q, bits);
            let back = q.at(q.coordinates(p));
            for i in 0..2 {
                prop_assert!((back[i] / p[i] - 1.0).abs() < 1e-12);
            }
        }
    }
}
