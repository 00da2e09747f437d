//! The levels a quantizer maps to, its bitwidth, and the scalar reference of both passes.

use serde::{Deserialize, Serialize};

use super::family::{Family, Rules};

/// Rounds half away from zero (2.5 to 3, -2.5 to -3), as the paper does everywhere.
pub fn round_half_away(v: f64) -> f64 {
    v.round()
}

/// `2^round(log2 v)`: the hardware's step size nearest in the logarithm. `v` must be positive.
pub fn round_to_power_of_two(v: f64) -> f64 {
    round_half_away(v.log2()).exp2()
}

/// `2^ceil(log2 v)`: the smallest power of two that is no less. `v` must be positive.
pub fn next_power_of_two(v: f64) -> f64 {
    v.log2().ceil().exp2()
}

/// Levels of one sign, zero among them, that `b` bits tell apart on a uniform grid: `2^(b-1)` signed,
/// `2^b` unsigned. `b` need not be whole.
pub fn code_count(signed: bool, b: f64) -> f64 {
    (if signed { b - 1.0 } else { b }).exp2()
}

/// Largest level of `b` bits in steps, `q_max / d`: `2^(b-1) - 1` signed, `2^b - 1` unsigned.
pub fn largest_level(signed: bool, b: f64) -> f64 {
    code_count(signed, b) - 1.0
}

/// `q_max / q_min = 2^(2^(b-1) - 1)` of a power-of-two quantizer of `b` bits.
pub fn dynamic(b: f64) -> f64 {
    ((b - 1.0).exp2() - 1.0).exp2()
}

/// What a backward pass sums over all elements of one tensor; the parameter gradients of every
/// parametrization are linear in the first two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Sums {
    /// Uniform: `sum g (Q(x) - x) / d` inside the range. Power of two: `sum g sign(x)` below `q_min`.
    pub inner: f64,
    /// `sum g sign(x)` above the range.
    pub outer: f64,
    /// Number of elements outside the range (above `q_max` in magnitude).
    pub clipped: f64,
    /// Number of elements on the zero level.
    pub zeros: f64,
}

impl Sums {
    /// Length of the flat form that travels as a tensor.
    pub const LEN: usize = 4;

    /// As `[inner, outer, clipped, zeros]`.
    pub fn to_array(self) -> [f64; Self::LEN] {
        [self.inner, self.outer, self.clipped, self.zeros]
    }

    /// From `[inner, outer, clipped, zeros]`.
    pub fn from_array(a: [f64; Self::LEN]) -> Self {
        Self {
            inner: a[0],
            outer: a[1],
            clipped: a[2],
            zeros: a[3],
        }
    }

    /// Adds another part of the same tensor.
    pub fn add(&mut self, other: Self) {
        self.inner += other.inner;
        self.outer += other.outer;
        self.clipped += other.clipped;
        self.zeros += other.zeros;
    }
}

/// The levels in use, after hardware rounding, in the precision of the forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Grid {
    /// Uniform or power-of-two levels.
    pub family: Family,
    /// Whether negative levels exist.
    pub signed: bool,
    /// Rule set, which decides what an element exactly on a bound counts as.
    pub rules: Rules,
    /// Uniform: the step size `d` (a power of two). Power of two: `q_min`.
    pub step: f32,
    /// The range: elements beyond it in magnitude are clipped.
    pub q_max: f32,
    /// The level clipped elements get. It differs from `q_max` where that is not a multiple of `d`.
    pub top: f32,
    /// Bitwidth that this grid is stored with.
    pub bits: f64,
}

impl Grid {
    pub(super) fn uniform(signed: bool, rules: Rules, d: f64, q_max: f64) -> Self {
        let steps = round_half_away(q_max / d);
        // The paper infers b from q_max / d; the published code from the top level in steps.
        let ratio = match rules {
            Rules::Paper => q_max / d,
            Rules::PublishedCode => steps,
        };
        let bits = (ratio + 1.0).log2().ceil().max(1.0) + f64::from(signed);
        Self {
            family: Family::Uniform,
            signed,
            rules,
            step: d as f32,
            q_max: q_max as f32,
            top: (steps * d) as f32,
            bits,
        }
    }

    pub(super) fn power_of_two(signed: bool, rules: Rules, q_min: f64, q_max: f64) -> Self {
        // Eight bits span 127 octaves: more than f32 holds below q_max, so the ends give way.
        let q_max = q_max.min(127f64.exp2());
        let q_min = q_min.max(f64::from(f32::MIN_POSITIVE)).min(q_max);
        let octaves = round_half_away((q_max / q_min).log2());
        Self {
            family: Family::PowerOfTwo,
            signed,
            rules,
            step: q_min as f32,
            q_max: q_max as f32,
            top: q_max as f32,
            bits: ((octaves + 1.0).log2() + 1.0).ceil(),
        }
    }

    pub(super) fn with_bits(self, bits: f64) -> Self {
        Self { bits, ..self }
    }

    /// Number of distinct values this grid can produce.
    pub fn level_count(&self) -> u64 {
        let positive = match self.family {
            Family::Uniform => round_half_away(f64::from(self.top) / f64::from(self.step)) as u64,
            Family::PowerOfTwo => self.octaves() + 1,
        };
        match (self.family, self.signed) {
            (Family::Uniform, true) => 2 * positive + 1,
            (_, false) => positive + 1,
            (Family::PowerOfTwo, true) => 2 * positive,
        }
    }

    /// The distinct values, ascending, or `None` where there are more than `limit` (nobody can draw them).
    pub fn levels(&self, limit: usize) -> Option<Vec<f32>> {
        if self.level_count() > limit as u64 {
            return None;
        }
        let positive: Vec<f32> = match self.family {
            Family::Uniform => {
                let steps = round_half_away(f64::from(self.top) / f64::from(self.step)) as u64;
                (1..=steps).map(|k| k as f32 * self.step).collect()
            }
            Family::PowerOfTwo => (0..=self.octaves())
                .map(|k| self.step * (k as f32).exp2())
                .collect(),
        };
        let mut all = Vec::with_capacity(2 * positive.len() + 1);
        if self.signed {
            all.extend(positive.iter().rev().map(|v| -v));
        }
        if self.has_zero() {
            all.push(0.0);
        }
        all.extend(positive);
        Some(all)
    }

    /// Whether 0 is a level. Power-of-two weights have none.
    pub fn has_zero(&self) -> bool {
        self.family == Family::Uniform || !self.signed
    }

    fn octaves(&self) -> u64 {
        round_half_away((f64::from(self.q_max) / f64::from(self.step)).log2()) as u64
    }

    /// The least value of a uniform quantizer's range: `-q_max`, or 0 where it is unsigned.
    pub fn low(&self) -> f32 {
        if self.signed { -self.q_max } else { 0.0 }
    }

    /// Below this magnitude an unsigned power-of-two quantizer prunes to zero: `q_min / sqrt 2`.
    pub fn zero_threshold(&self) -> f32 {
        self.step * std::f32::consts::FRAC_1_SQRT_2
    }

    /// Q(x) of one element: the scalar reference of every kernel's forward pass.
    pub fn forward(&self, x: f32) -> f32 {
        match self.family {
            Family::Uniform => {
                let clipped = x.clamp(self.low(), self.q_max);
                // `f32::round` is half away from zero; dividing by a power of two is exact.
                (clipped / self.step).round() * self.step
            }
            Family::PowerOfTwo if x.is_nan() => x,
            Family::PowerOfTwo => {
                let magnitude = x.abs();
                if !self.signed && (x < 0.0 || magnitude < self.zero_threshold()) {
                    return 0.0;
                }
                let level = nearest_octave(magnitude.clamp(self.step, self.q_max));
                if x < 0.0 { -level } else { level }
            }
        }
    }

    /// Straight-through gradient of one element: returns dL/dx for upstream gradient `g` and adds
    /// the element's share to `sums`. The scalar reference of every kernel's backward pass.
    pub fn backward(&self, x: f32, g: f32, sums: &mut Sums) -> f32 {
        match self.family {
            Family::Uniform => self.backward_uniform(x, g, sums),
            Family::PowerOfTwo => self.backward_power_of_two(x, g, sums),
        }
    }

    fn backward_uniform(&self, x: f32, g: f32, sums: &mut Sums) -> f32 {
        let published = self.rules == Rules::PublishedCode;
        let low = self.low();
        // An element exactly on a bound is inside in the paper, outside in the published code.
        let (above, below) = if published {
            (x >= self.q_max, x <= low)
        } else {
            (x > self.q_max, x < low)
        };
        let clipped = x.clamp(low, self.q_max);
        let scaled = clipped / self.step;
        let rounded = scaled.round();
        sums.zeros += f64::from(rounded == 0.0);
        sums.clipped += f64::from(x.abs() > self.q_max && (self.signed || x > 0.0));
        if above || below {
            if published {
                // The published code differentiates d * round(c / d) at the clipped value too.
                sums.inner += f64::from(g * rounded - g * scaled);
            }
            if above {
                sums.outer += f64::from(g);
            } else if self.signed {
                sums.outer -= f64::from(g);
            }
            return 0.0;
        }
        sums.inner += f64::from(g * rounded - g * scaled);
        g
    }

    fn backward_power_of_two(&self, x: f32, g: f32, sums: &mut Sums) -> f32 {
        let magnitude = x.abs();
        if !self.signed && (x < 0.0 || magnitude < self.zero_threshold()) {
            sums.zeros += 1.0;
            return 0.0;
        }
        let signed_g = f64::from(if x < 0.0 { -g } else { g });
        // At q_max the published code counts as outside; at q_min both count as inside the
        // straight-through part only in the published code.
        let (above, below) = if self.rules == Rules::PublishedCode {
            (magnitude >= self.q_max, magnitude < self.step)
        } else {
            (magnitude > self.q_max, magnitude <= self.step)
        };
        sums.clipped += f64::from(magnitude > self.q_max);
        if above {
            sums.outer += signed_g;
            0.0
        } else if below {
            sums.inner += signed_g;
            0.0
        } else {
            g * (nearest_octave(magnitude) / magnitude)
        }
    }
}

/// `2^floor(1/2 + log2 v)` for positive `v`, decided on the mantissa: no logarithm, and exact
/// at powers of two.
pub(crate) fn nearest_octave(v: f32) -> f32 {
    let bits = v.to_bits();
    let mantissa = bits & 0x007f_ffff;
    // f32's sqrt(2) lies just below the real one, so equality still rounds down.
    const SQRT_2_MANTISSA: u32 = std::f32::consts::SQRT_2.to_bits() & 0x007f_ffff;
    let exponent = (bits >> 23) + u32::from(mantissa > SQRT_2_MANTISSA);
    f32::from_bits(exponent << 23)
}
