//! From sums to levels: thresholds that replay an f32 function exactly.

use crate::kernels::Moments;
use crate::kernels::norm::Channel;
use crate::quantizer::Grid;

/// What happens to one number between a sum and its quantizer, as the kernels compute it in f32.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Piece {
    /// Batch norm of this channel.
    Norm(Channel, Moments),
    /// `scale x + shift`.
    Scale(f32, f32),
    /// `x / count`: a mean of that many.
    Divide(f32),
    /// `x + r`, with the residual's value.
    Residual,
    /// min(max(x, low), high).
    Clip(f32, f32),
}

/// The f32 function from a sum (and a residual) to what the quantizer yields. Every piece is monotone,
/// rounding included, so the function is.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Function {
    /// A sum is its integer times this.
    pub unit: f64,
    /// A residual is its integer times this.
    pub residual_unit: f64,
    /// In order.
    pub pieces: Vec<Piece>,
    /// The quantizer.
    pub grid: Grid,
}

impl Function {
    /// The value on the grid.
    pub fn value(&self, sum: i64, residual: i64) -> f32 {
        let mut x = (sum as f64 * self.unit) as f32;
        for piece in &self.pieces {
            x = match piece {
                Piece::Norm(channel, moments) => channel.output(x, *moments),
                Piece::Scale(scale, shift) => x * scale + shift,
                Piece::Divide(count) => x / count,
                Piece::Residual => x + (residual as f64 * self.residual_unit) as f32,
                Piece::Clip(low, high) => {
                    let raised = if x <= *low { *low } else { x };
                    if raised >= *high { *high } else { raised }
                }
            };
        }
        self.grid.forward(x)
    }
}

/// Residuals that a sum can meet, ascending.
pub type Residuals = Vec<i32>;

/// Thresholds per channel, and per residual where one joins.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Thresholds {
    /// The integers that come out, ascending: one more than there are thresholds.
    pub codes: Vec<i32>,
    /// The integers of the residual, ascending; empty without one.
    pub residuals: Residuals,
    /// By channel: whether the level falls as the sum grows. A sum then counts with its sign turned.
    pub falls: Vec<bool>,
    /// `[channels, residuals or 1, thresholds]`: the level is `codes[k]` with `k` the number of
    /// thresholds that the sum is not below. `i64::MAX`: never.
    pub at: Vec<i64>,
}

impl Thresholds {
    /// Thresholds of a function per channel, for sums from `sums[c][0]` to `sums[c][1]`.
    pub(super) fn of(
        functions: &[Function],
        sums: &[[i64; 2]],
        codes: Vec<i32>,
        values: &[f32],
        residuals: Residuals,
    ) -> Self {
        use rayon::prelude::*;
        let rows = functions.par_iter().zip(sums).map(|(function, sums)| {
            let only = [0];
            let joined: &[i32] = if residuals.is_empty() {
                &only
            } else {
                &residuals
            };
            let falls = joined.iter().any(|r| {
                let ends = sums.map(|sum| function.value(sum, i64::from(*r)));
                ends[1] < ends[0]
            });
            let at: Vec<i64> = joined
                .iter()
                .flat_map(|r| row(function, *sums, falls, values, i64::from(*r)))
                .collect();
            (falls, at)
        });
        let (falls, at): (Vec<bool>, Vec<Vec<i64>>) = rows.unzip();
        Self {
            codes,
            residuals,
            falls,
            at: at.concat(),
        }
    }

    /// Thresholds of a channel, and of one residual (by its place among the residuals).
    pub fn row(&self, channel: usize, residual: usize) -> &[i64] {
        let count = self.codes.len() - 1;
        let residuals = self.residuals.len().max(1);
        &self.at[(channel * residuals + residual) * count..][..count]
    }

    /// The integer that a sum of a channel becomes.
    #[inline]
    pub fn code(&self, channel: usize, residual: usize, sum: i64) -> i32 {
        let sum = if self.falls[channel] { -sum } else { sum };
        let row = self.row(channel, residual);
        self.codes[row.partition_point(|at| *at <= sum)]
    }

    /// The place of a residual's integer.
    #[inline]
    pub fn place(&self, residual: i64) -> usize {
        self.residuals
            .binary_search_by(|r| i64::from(*r).cmp(&residual))
            .unwrap_or_else(|at| at.min(self.residuals.len().saturating_sub(1)))
    }

    /// Channels.
    pub fn channels(&self) -> usize {
        self.falls.len()
    }
}

/// Where the function reaches each level but the first, in sums with their sign turned where it falls.
fn row(
    function: &Function,
    [least, largest]: [i64; 2],
    falls: bool,
    values: &[f32],
    residual: i64,
) -> Vec<i64> {
    let value = |turned: i64| function.value(if falls { -turned } else { turned }, residual);
    let (low, high) = if falls {
        (-largest, -least)
    } else {
        (least, largest)
    };
    let mut from = low;
    let levels = values[1..].iter().map(|level| {
        // The first sum from `from` on that reaches the level: levels ascend, so do thresholds.
        let (mut below, mut reached) = (from, high + 1);
        while below < reached {
            let middle = below + (reached - below) / 2;
            if value(middle) >= *level {
                reached = middle;
            } else {
                below = middle + 1;
            }
        }
        from = reached;
        if reached > high { i64::MAX } else { reached }
    });
    levels.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantizer::{Bounds, Learn, Parametrization, Quantizer, Rules};
    use proptest::prelude::*;

    fn grid(name: &str, signed: bool, parameters: [f64; 2], rules: Rules) -> Grid {
        let quantizer = Quantizer {
            parametrization: Parametrization::from_name(name).expect("a name"),
            signed,
            rules,
            learn: Learn::Both,
            bounds: Bounds::activations(),
            allowed_bits: Vec::new(),
        };
        quantizer.grid(parameters)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        /// Over every sum that can occur, for norms of either sign and of none, thresholds give what the
        /// f32 function gives.
        #[test]
        fn every_sum_lands_on_the_level_of_the_f32_function(
            gamma in prop_oneof![Just(0f32), -2f32..2.0], beta in -2f32..2.0, mean in -3f32..3.0,
            variance in 1e-4f32..4.0, exponent in -9i32..-2, residual_exponent in -5i32..0,
            uniform in any::<bool>(), signed in any::<bool>(), published in any::<bool>(),
            joined in any::<bool>(), range in 0.3f64..4.0,
        ) {
            let rules = if published { Rules::PublishedCode } else { Rules::Paper };
            let grid = if uniform {
                grid("u3", signed, [0.125, range], rules)
            } else {
                grid("p3", signed, [0.0625, range], rules)
            };
            let moments = if published { Moments::Sequential } else { Moments::Exact };
            let mut pieces = vec![Piece::Norm(Channel::new([gamma, beta], [mean, variance], 1e-5), moments)];
            let residuals: Vec<i32> = if joined { vec![0, 1, 2, 3, 8] } else { Vec::new() };
            if joined {
                pieces.push(Piece::Residual);
            }
            let function = Function {
                unit: f64::from(exponent).exp2(),
                residual_unit: f64::from(residual_exponent).exp2(),
                pieces,
                grid,
            };
            let values = grid.levels(1 << 16).expect("few");
            let codes: Vec<i32> = values.iter().map(|v| (v / grid.step) as i32).collect();
            let sums = [-3000, 2500];
            let thresholds = Thresholds::of(
                std::slice::from_ref(&function), &[sums], codes, &values, residuals.clone(),
            );
            let joined = if residuals.is_empty() { vec![0] } else { residuals };
            for r in joined {
                let place = thresholds.place(i64::from(r));
                for sum in sums[0]..=sums[1] {
                    let expected = (function.value(sum, i64::from(r)) / grid.step) as i32;
                    prop_assert_eq!(thresholds.code(0, place, sum), expected, "{} {}", sum, r);
                }
            }
        }
    }
}
