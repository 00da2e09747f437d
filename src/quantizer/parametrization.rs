//! The six parametrizations and how gradients reach their two parameters.

use serde::{Deserialize, Serialize};
use std::f64::consts::LN_2;
use std::fmt;
use std::ops::RangeInclusive;

use super::family::{Family, Rules};
use super::grid::{self, Grid, Sums, next_power_of_two, round_half_away, round_to_power_of_two};

/// Which two of step size, range and bitwidth are the parameters; the third follows.
///
/// | name | parameters | family |
/// |---|---|---|
/// | U1 | (b, d) | uniform |
/// | U2 | (b, q_max) | uniform |
/// | U3 | (d, q_max) | uniform |
/// | P1 | (b, q_min) | power of two |
/// | P2 | (b, q_max) | power of two |
/// | P3 | (q_min, q_max) | power of two |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Parametrization {
    /// Uniform, learns (b, d).
    U1,
    /// Uniform, learns (b, q_max).
    U2,
    /// Uniform, learns (d, q_max); the bitwidth is inferred.
    U3,
    /// Power of two, learns (b, q_min).
    P1,
    /// Power of two, learns (b, q_max).
    P2,
    /// Power of two, learns (q_min, q_max); the bitwidth is inferred.
    P3,
}

impl Parametrization {
    /// All six, in the paper's order.
    pub const ALL: [Self; 6] = [Self::U1, Self::U2, Self::U3, Self::P1, Self::P2, Self::P3];

    /// The family of levels.
    pub fn family(self) -> Family {
        match self {
            Self::U1 | Self::U2 | Self::U3 => Family::Uniform,
            Self::P1 | Self::P2 | Self::P3 => Family::PowerOfTwo,
        }
    }

    /// Names of the two parameters, in storage order.
    pub fn parameter_names(self) -> [&'static str; 2] {
        match self {
            Self::U1 => ["b", "d"],
            Self::U2 | Self::P2 => ["b", "q_max"],
            Self::U3 => ["d", "q_max"],
            Self::P1 => ["b", "q_min"],
            Self::P3 => ["q_min", "q_max"],
        }
    }

    /// Whether the first parameter is the bitwidth itself (U1, U2, P1, P2).
    pub fn has_bitwidth_parameter(self) -> bool {
        self.parameter_names()[0] == "b"
    }

    /// Lower-case name, as in experiment files.
    pub fn name(self) -> &'static str {
        match self {
            Self::U1 => "u1",
            Self::U2 => "u2",
            Self::U3 => "u3",
            Self::P1 => "p1",
            Self::P2 => "p2",
            Self::P3 => "p3",
        }
    }

    /// The parametrization of that lower-case name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.name() == name)
    }
}

impl fmt::Display for Parametrization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name().to_uppercase())
    }
}

/// Which of the two parameters training may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Learn {
    /// Both: the bitwidth is learned.
    Both,
    /// The bitwidth is fixed, the other parameter (the range) is learned.
    Range,
    /// Nothing: fixed bitwidth, fixed range.
    None,
}

/// Clamps of the parameters: after each step every parameter is brought back inside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bounds {
    /// Step size.
    pub d: RangeInclusive<f64>,
    /// Largest representable magnitude.
    pub q_max: RangeInclusive<f64>,
    /// Smallest nonzero magnitude of the power-of-two quantizer.
    pub q_min: RangeInclusive<f64>,
    /// Bitwidth.
    pub b: RangeInclusive<f64>,
}

impl Bounds {
    /// The clamps of the published recipe for weights (signed).
    pub fn weights() -> Self {
        Self {
            d: (-8f64).exp2()..=1.0,
            q_max: (-8f64).exp2()..=127.0,
            q_min: (-16f64).exp2()..=127.0,
            b: 2.0..=8.0,
        }
    }

    /// The clamps of the published recipe for activations (unsigned).
    pub fn activations() -> Self {
        Self {
            d: (-8f64).exp2()..=1.0,
            q_max: (-8f64).exp2()..=255.0,
            q_min: (-14f64).exp2()..=255.0,
            b: 1.0..=8.0,
        }
    }

    /// The clamp of the parameter of that name (`b`, `d`, `q_min`, `q_max`).
    pub fn of(&self, name: &str) -> &RangeInclusive<f64> {
        match name {
            "b" => &self.b,
            "d" => &self.d,
            "q_min" => &self.q_min,
            _ => &self.q_max,
        }
    }
}

/// One quantizer: everything about it except the current values of its two parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Quantizer {
    /// Which two numbers are the parameters.
    pub parametrization: Parametrization,
    /// Signed (weights) or unsigned (after a ReLU).
    pub signed: bool,
    /// Paper or published code.
    pub rules: Rules,
    /// Which parameters training changes.
    pub learn: Learn,
    /// Clamps of the parameters.
    pub bounds: Bounds,
    /// Bitwidths that the hardware has, ascending; any whole one where empty.
    ///
    /// A bitwidth counts as the next of them, in levels where it is a parameter (U1, U2, P1, P2) and in
    /// memory and bit operations always. An inferred one (U3, P3) keeps its levels: those that the next
    /// allowed bitwidth has more stay unused. Gradients go straight through, as through the ceiling.
    /// (Logs do not hold them, checkpoints do beside the rest.)
    #[serde(skip)]
    pub allowed_bits: Vec<f64>,
}

impl Quantizer {
    /// Both parameters learned, within the clamps of the published recipe.
    pub fn learned(parametrization: Parametrization, signed: bool, rules: Rules) -> Self {
        Self {
            parametrization,
            signed,
            rules,
            learn: Learn::Both,
            bounds: if signed {
                Bounds::weights()
            } else {
                Bounds::activations()
            },
            allowed_bits: Vec::new(),
        }
    }

    /// The next bitwidth that the hardware has; the largest where it has none so large.
    fn allowed(&self, bits: f64) -> f64 {
        let next = self.allowed_bits.iter().copied().find(|b| *b >= bits);
        next.or(self.allowed_bits.last().copied()).unwrap_or(bits)
    }

    /// The next smaller bitwidth that the hardware has.
    pub fn next_smaller(&self, bits: f64) -> Option<f64> {
        let smaller = match self.allowed_bits.is_empty() {
            true => Some(bits - 1.0),
            false => self.allowed_bits.iter().copied().rfind(|b| *b < bits),
        };
        smaller.filter(|b| *b >= self.least_bits())
    }

    /// Whether parameter `index` (0 or 1) is changed by training.
    pub fn is_learned(&self, index: usize) -> bool {
        match self.learn {
            Learn::Both => true,
            Learn::Range => index == 1,
            Learn::None => false,
        }
    }

    /// The grid that the forward pass uses at these parameters.
    ///
    /// Hardware rounding applies: `b` to an integer, `d`, `q_min` (and the power-of-two `q_max`)
    /// to a power of two. The parameters are first clamped to their bounds.
    pub fn grid(&self, parameters: [f64; 2]) -> Grid {
        let [first, second] = self.clamped(parameters);
        let signed = self.signed;
        match self.parametrization {
            Parametrization::U1 => {
                let n = self.largest_level(first);
                let d = round_to_power_of_two(second);
                Grid::uniform(signed, self.rules, d, n * d).with_bits(self.whole(first))
            }
            Parametrization::U2 => {
                let n = self.largest_level(first);
                let d = round_to_power_of_two(second / n);
                // The published code clips at the raw q_max although d was rounded, which can
                // leave more levels than b allows; the paper's range is n * d.
                let q_max = match self.rules {
                    Rules::Paper => n * d,
                    Rules::PublishedCode => second,
                };
                Grid::uniform(signed, self.rules, d, q_max).with_bits(self.whole(first))
            }
            Parametrization::P1 => {
                let q_min = round_to_power_of_two(second);
                Grid::power_of_two(signed, self.rules, q_min, q_min * self.dynamic(first))
                    .with_bits(self.whole(first))
            }
            Parametrization::P2 => {
                let q_max = round_to_power_of_two(second);
                Grid::power_of_two(signed, self.rules, q_max / self.dynamic(first), q_max)
                    .with_bits(self.whole(first))
            }
            Parametrization::U3 | Parametrization::P3 => {
                let levels = self.inferred(parameters);
                self.at_least(levels.expect("both infer their bitwidth"))
            }
        }
    }

    /// The grid of U3 and P3 with the bitwidth of its levels, whatever it counts as; `None` where the
    /// bitwidth is a parameter.
    pub(super) fn inferred(&self, parameters: [f64; 2]) -> Option<Grid> {
        let [first, second] = self.clamped(parameters);
        let step = round_to_power_of_two(first);
        match self.parametrization {
            Parametrization::U3 => Some(Grid::uniform(self.signed, self.rules, step, second)),
            Parametrization::P3 => {
                let q_max = round_to_power_of_two(second);
                let q_min = step.min(q_max);
                Some(Grid::power_of_two(self.signed, self.rules, q_min, q_max))
            }
            _ => None,
        }
    }

    /// The smallest bitwidth that its clamp allows.
    pub fn least_bits(&self) -> f64 {
        self.allowed(self.bounds.b.start().ceil())
    }

    /// The smallest bitwidth that all clamps allow: an inferred one is also bounded by those of the step and
    /// the range.
    pub fn least_reachable_bits(&self) -> f64 {
        let least = self.least_bits();
        self.clamped_bits()
            .map_or(least, |[clamped, _]| self.allowed(clamped.max(least)))
    }

    /// The least and the most bits that the clamps of step and range leave, where the bitwidth is inferred
    /// from the two.
    pub fn clamped_bits(&self) -> Option<[f64; 2]> {
        let names = self.parametrization.parameter_names();
        let (step, range) = (self.bounds.of(names[0]), self.bounds.of(names[1]));
        let bits = |step: f64, range: f64| Some(self.inferred([step, range])?.bits);
        // The fewest levels: the shortest range, in steps as coarse as it, or as they may be.
        let coarsest = step.end().min(next_power_of_two(*range.start()));
        let least = bits(coarsest, *range.start())?;
        Some([least, bits(*step.start(), *range.end())?])
    }

    /// A bitwidth that is a parameter, as it is used.
    fn whole(&self, b: f64) -> f64 {
        self.allowed(round_half_away(b))
    }

    /// An inferred bitwidth counts as the next allowed one, and at least as its minimum. Only under the
    /// published code's rules can it lie below: there the projection leaves `d` and `q_max` alone.
    fn at_least(&self, grid: Grid) -> Grid {
        let bits = match self.rules {
            Rules::Paper => grid.bits,
            Rules::PublishedCode => grid.bits.max(self.least_bits()),
        };
        // (More levels than the hardware has bits for are not counted as fewer.)
        grid.with_bits(self.allowed(bits).max(bits))
    }

    /// Gradients of both parameters from the sums a kernel's backward pass gathered on
    /// `grid(parameters)`.
    ///
    /// Linear in the sums, so every parametrization shares one kernel. A parameter that training
    /// does not change still gets its gradient; the optimizer leaves it out.
    pub fn parameter_gradients(&self, parameters: [f64; 2], sums: Sums) -> [f64; 2] {
        let [first, second] = self.clamped(parameters);
        let (inner, outer) = (sums.inner, sums.outer);
        let mut gradients = match self.parametrization {
            Parametrization::U1 => {
                let n = self.largest_level(first);
                let d = round_to_power_of_two(second);
                let db = outer * self.code_count(first) * LN_2 * d;
                [db, (inner + outer * n) * self.through_rounding(second)]
            }
            Parametrization::U2 => {
                let n = self.largest_level(first);
                let d = second / n;
                let dd = inner * self.through_rounding(d);
                let db = -dd * d / n * self.code_count(first) * LN_2;
                [db, outer + dd / n]
            }
            Parametrization::U3 => [inner * self.through_rounding(first), outer],
            Parametrization::P1 => {
                let ratio = self.dynamic(first);
                let q_max = round_to_power_of_two(second) * ratio;
                let db = outer * q_max * self.dynamic_slope(first);
                [db, (inner + outer * ratio) * self.through_rounding(second)]
            }
            Parametrization::P2 => {
                let ratio = self.dynamic(first);
                let q_min = round_to_power_of_two(second) / ratio;
                let db = -inner * q_min * self.dynamic_slope(first);
                [db, (outer + inner / ratio) * self.through_rounding(second)]
            }
            Parametrization::P3 => [
                inner * self.through_rounding(first),
                outer * self.through_rounding(second),
            ],
        };
        if self.rules == Rules::PublishedCode {
            self.drop_clamped(parameters, &mut gradients);
        }
        gradients
    }

    /// Gradient of the bitwidth with respect to both parameters, straight through the ceiling:
    /// what the memory penalties (8a) to (8c) act on.
    ///
    /// Zero at the least bitwidth. There nothing is left to save, and a pull that went on would take
    /// `q_max`, and `d` with it, down to their lower clamps, where every weight is clipped. The
    /// published code has the same: bitwidths enter the memory through a maximum with their minimum.
    pub fn bitwidth_gradients(&self, parameters: [f64; 2]) -> [f64; 2] {
        if self.grid(parameters).bits <= self.least_bits() {
            return [0.0; 2];
        }
        let [first, second] = self.clamped(parameters);
        let mut gradients = match self.parametrization {
            Parametrization::U1
            | Parametrization::U2
            | Parametrization::P1
            | Parametrization::P2 => [1.0, 0.0],
            Parametrization::U3 => {
                let d = round_to_power_of_two(first);
                let ratio = second / d;
                let slope = 1.0 / ((ratio + 1.0) * LN_2);
                [-slope * ratio / d * self.through_rounding(first), slope / d]
            }
            Parametrization::P3 => {
                let (low, high) = (round_to_power_of_two(first), round_to_power_of_two(second));
                let octaves = (high / low).log2().max(0.0);
                let slope = 1.0 / ((octaves + 1.0) * LN_2 * LN_2);
                [
                    -slope / low * self.through_rounding(first),
                    slope / high * self.through_rounding(second),
                ]
            }
        };
        if self.rules == Rules::PublishedCode {
            self.drop_clamped(parameters, &mut gradients);
        }
        gradients
    }

    /// `(d or q_min, q_max)` as the raw (unrounded) parameters say; the telemetry pair.
    pub fn raw_step_and_range(&self, parameters: [f64; 2]) -> (f64, f64) {
        let [first, second] = self.clamped(parameters);
        match self.parametrization {
            Parametrization::U1 => (second, second * self.largest_level(first)),
            Parametrization::U2 => (second / self.largest_level(first), second),
            Parametrization::U3 | Parametrization::P3 => (first, second),
            Parametrization::P1 => (second, second * self.dynamic(first)),
            Parametrization::P2 => (second / self.dynamic(first), second),
        }
    }

    /// Step size (or `q_min`) and range as they are used, from [those before
    /// rounding](Self::raw_step_and_range): hardware has powers of two.
    pub fn used_step_and_range(&self, (step, range): (f64, f64)) -> (f64, f64) {
        let round = round_to_power_of_two;
        let within = |(q_min, q_max): (f64, f64)| {
            let q_max = q_max.min(127f64.exp2());
            (q_min.max(f64::from(f32::MIN_POSITIVE)).min(q_max), q_max)
        };
        match (self.parametrization, self.rules) {
            (Parametrization::U2, Rules::PublishedCode) | (Parametrization::U3, _) => {
                (round(step), range)
            }
            (Parametrization::U1 | Parametrization::U2, _) => {
                (round(step), range / step * round(step))
            }
            (Parametrization::P1, _) => within((round(step), range / step * round(step))),
            (Parametrization::P2, _) => within((round(range) * (step / range), round(range))),
            (Parametrization::P3, _) => within((round(step), round(range))),
        }
    }

    pub(super) fn clamped(&self, parameters: [f64; 2]) -> [f64; 2] {
        let names = self.parametrization.parameter_names();
        [0, 1].map(|i| {
            let bound = self.bounds.of(names[i]);
            parameters[i].clamp(*bound.start(), *bound.end())
        })
    }

    /// The published code's gradient is zero where a parameter lies outside its clamp.
    fn drop_clamped(&self, parameters: [f64; 2], gradients: &mut [f64; 2]) {
        let names = self.parametrization.parameter_names();
        for i in 0..2 {
            let bound = self.bounds.of(names[i]);
            if parameters[i] <= *bound.start() || parameters[i] >= *bound.end() {
                gradients[i] = 0.0;
            }
        }
    }

    /// `2^(b-1) - 1` signed, `2^b - 1` unsigned, with b rounded: the largest level in steps.
    fn largest_level(&self, b: f64) -> f64 {
        (self.code_count(b) - 1.0).max(1.0)
    }

    /// `2^(b-1)` signed, `2^b` unsigned, with b rounded.
    fn code_count(&self, b: f64) -> f64 {
        grid::code_count(self.signed, self.whole(b))
    }

    /// `q_max / q_min = 2^(2^(b-1) - 1)` of the power-of-two quantizer.
    fn dynamic(&self, b: f64) -> f64 {
        grid::dynamic(self.whole(b))
    }

    /// Derivative of the natural logarithm of [`Self::dynamic`] with respect to b.
    fn dynamic_slope(&self, b: f64) -> f64 {
        LN_2 * LN_2 * (self.whole(b) - 1.0).exp2()
    }

    /// Derivative of `2^round(log2 v)`: 1 straight through (paper), `rounded / v` by the chain
    /// rule (published code).
    fn through_rounding(&self, v: f64) -> f64 {
        match self.rules {
            Rules::Paper => 1.0,
            Rules::PublishedCode => round_to_power_of_two(v) / v,
        }
    }
}
