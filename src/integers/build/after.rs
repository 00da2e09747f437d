//! What becomes of a step's sums: levels by thresholds, or numbers as they are.

use super::Builder;
use super::grid::levels;
use super::value::{
    EVERYWHERE, MOST_BITS, MOST_RESIDUALS, MOST_THRESHOLDS, NARROWER, Reason, Sums, Value,
    magnitude, root,
};
use crate::graph::{self, NodeId};
use crate::integers::compare::EXACT_IN_F32;
use crate::integers::levels::{Function, Piece, Residuals, Thresholds};
use crate::integers::program::{After, Operation, Step, signed_bits};
use crate::kernels::Moments;
use crate::kernels::norm::Channel;
use crate::quantizer::{Family, Grid, Rules};

impl Builder<'_> {
    /// What becomes of the sums.
    pub(super) fn finish(
        &self,
        step: &graph::Step,
        mut sums: Sums,
        residual: Option<Value>,
        grid: Option<Grid>,
    ) -> Result<(Step, Value), Reason> {
        // A mean over 2^k values is a sum of another unit.
        if let [Piece::Divide(count), ..] = sums.pieces[..]
            && (count as u64).is_power_of_two()
        {
            sums.exponent -= (count as u64).trailing_zeros() as i32;
            sums.pieces.remove(0);
        }
        let is_input = matches!(sums.operation, Operation::Input { .. });
        let (after, value) = match grid {
            _ if is_input => (
                After::Nothing,
                Value {
                    exponent: sums.exponent,
                    range: sums.range(),
                    codes: sums.codes.clone(),
                },
            ),
            Some(grid) => self.quantized(step, &sums, residual, &grid)?,
            None => self.plain(step, &sums)?,
        };
        if signed_bits(value.range) > MOST_BITS && grid.is_some() {
            let text = format!("its levels need more than {MOST_BITS} bits as integers");
            return Err(root(text, NARROWER));
        }
        let made = Step {
            name: self.node(step.output).name.clone(),
            inputs: Vec::new(),
            shape: self.node(step.output).shape,
            sums: sums.range(),
            range: value.range,
            bits: grid.map(|g| g.bits as u32),
            partial: sums.partial,
            operation: sums.operation,
            after,
            sum_exponent: sums.exponent,
            exponent: value.exponent,
        };
        Ok((made, value))
    }

    /// Sums that no quantizer follows.
    fn plain(&self, step: &graph::Step, sums: &Sums) -> Result<(After, Value), Reason> {
        let range = sums.range();
        let as_it_is = Value {
            exponent: sums.exponent,
            range,
            codes: sums.codes.clone(),
        };
        if step.fused.is_some() {
            // Where only functions read it, they are the reason.
            let nodes = &self.network.graph.nodes;
            let mut readers = nodes.iter().filter(|n| n.inputs.contains(&step.output));
            let into_function =
                readers.all(|n| matches!(n.operation, graph::Operation::Function(_)));
            let reason = root("batch norm without a quantizer behind it", EVERYWHERE);
            return Err(Reason {
                hint: reason.hint.filter(|_| !into_function),
                ..reason
            });
        }
        if matches!(
            self.node(step.output).operation,
            graph::Operation::Scale { .. }
        ) {
            return Err(root("a factor without a quantizer behind it", EVERYWHERE));
        }
        match sums.pieces[..] {
            [] => Ok((After::Nothing, as_it_is)),
            [Piece::Clip(low, high)] => {
                let unit = f64::from(sums.exponent).exp2();
                let bound = |v: f32, otherwise: i64| {
                    let number = f64::from(v) / unit;
                    if v.is_infinite() {
                        Some(otherwise)
                    } else {
                        (number.fract() == 0.0 && number.abs() < 2f64.powi(62))
                            .then_some(number as i64)
                    }
                };
                let (Some(low), Some(high)) = (bound(low, range[0]), bound(high, range[1])) else {
                    return Err(root("its bounds are no integers here", EVERYWHERE));
                };
                let range = range.map(|v| v.clamp(low, high.max(low)));
                Ok((
                    After::Clip { low, high },
                    Value {
                        range,
                        codes: None,
                        ..as_it_is
                    },
                ))
            }
            [Piece::Divide(count), ..] => Err(root(
                format!("a mean over {count} values without a quantizer behind it"),
                EVERYWHERE,
            )),
            _ => Err(root(
                "computed in float without a quantizer behind it",
                EVERYWHERE,
            )),
        }
    }

    /// Sums with a quantizer behind them.
    fn quantized(
        &self,
        step: &graph::Step,
        sums: &Sums,
        residual: Option<Value>,
        grid: &Grid,
    ) -> Result<(After, Value), Reason> {
        let levels = levels(grid)?;
        let value = Value {
            exponent: levels.exponent,
            range: levels.range(),
            codes: Some(levels.codes.clone()),
        };
        let is_scale = matches!(
            self.node(step.output).operation,
            graph::Operation::Scale { .. }
        );
        let only_clips = sums.pieces.iter().all(|p| matches!(p, Piece::Clip(..)));
        // (Larger sums are rounded to f32 before they are quantized.)
        let is_exact = magnitude(sums.range()) <= EXACT_IN_F32;
        let between_grids = step.fused.is_none() && only_clips && !is_scale && is_exact;
        if grid.family == Family::Uniform && between_grids {
            let mut bounds = levels.range();
            for piece in &sums.pieces {
                if let Piece::Clip(low, high) = piece {
                    let ends = [*low, *high].map(|v| (grid.forward(v) / levels.unit) as i64);
                    bounds = [bounds[0].max(ends[0]), bounds[1].min(ends[1])];
                }
            }
            let right = levels.exponent - sums.exponent;
            if right.abs() <= 40 {
                let after = After::Shift {
                    right,
                    low: bounds[0],
                    high: bounds[1],
                };
                return Ok((after, value));
            }
        }
        let residuals: Residuals = match &residual {
            None => Vec::new(),
            Some(value) => match &value.codes {
                Some(codes) if codes.len() as i64 <= MOST_RESIDUALS => codes.clone(),
                _ if value.range[1] - value.range[0] < MOST_RESIDUALS => {
                    (value.range[0] as i32..=value.range[1] as i32).collect()
                }
                _ => {
                    return Err(root(
                        "a residual with more values than thresholds are possible for",
                        EVERYWHERE,
                    ));
                }
            },
        };
        let count = levels.codes.len() * residuals.len().max(1) * sums.ranges.len();
        if count > MOST_THRESHOLDS {
            return Err(root(
                format!("{count} thresholds, one for each residual"),
                EVERYWHERE,
            ));
        }
        let unit = f64::from(sums.exponent).exp2();
        let residual_unit = residual.map_or(1.0, |v| f64::from(v.exponent).exp2());
        let functions: Vec<Function> = (0..sums.ranges.len())
            .map(|channel| Function {
                unit,
                residual_unit,
                pieces: self.pieces(step, sums, channel),
                grid: *grid,
            })
            .collect();
        let table = Thresholds::of(
            &functions,
            &sums.ranges,
            levels.codes,
            &levels.values,
            residuals,
        );
        Ok((After::Thresholds { table }, value))
    }

    /// What happens to one channel's sums.
    fn pieces(&self, step: &graph::Step, sums: &Sums, channel: usize) -> Vec<Piece> {
        let first = match step.fused {
            Some(fused) => self.norm(fused.norm, channel),
            None => match &self.node(step.output).operation {
                graph::Operation::Scale { scale, shift } => {
                    let of = |numbers: &[f32]| numbers[channel % numbers.len()];
                    return vec![Piece::Scale(of(scale), of(shift))];
                }
                _ => None,
            },
        };
        first.into_iter().chain(sums.pieces.clone()).collect()
    }

    fn norm(&self, node: NodeId, channel: usize) -> Option<Piece> {
        let graph::Operation::BatchNorm {
            gamma,
            beta,
            norm,
            epsilon,
            ..
        } = self.node(node).operation
        else {
            return None;
        };
        let of = |parameter: usize| self.network.parameters[parameter][channel];
        let [means, variances] = &self.network.norms[norm];
        let moments = match self.network.rules {
            Rules::Paper => Moments::Exact,
            Rules::PublishedCode => Moments::Sequential,
        };
        let statistics = [means[channel], variances[channel]];
        Some(Piece::Norm(
            Channel::new([of(gamma), of(beta)], statistics, epsilon),
            moments,
        ))
    }
}
