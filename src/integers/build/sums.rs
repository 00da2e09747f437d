//! What a step sums: products, copies, differences, pools.

use super::Builder;
use super::grid::levels;
use super::value::{
    INPUT, NARROWER, NONLINEARITY, PADDING, Reason, Sums, Value, WEIGHTS, magnitude, root,
    shift_all, shifted,
};
use crate::graph::{self, NodeId, Window};
use crate::integers::levels::Piece;
use crate::integers::program::{Operation, Stored};
use crate::quantizer::Family;

impl Builder<'_> {
    /// What a step sums, the function behind that, and the residual that joins it.
    pub(super) fn sums(&self, step: &graph::Step) -> Result<(Sums, Option<Value>), Reason> {
        match step.fused {
            Some(fused) => self.fused(fused),
            None => Ok((self.single(step.output)?, None)),
        }
    }

    fn fused(&self, fused: graph::Fused) -> Result<(Sums, Option<Value>), Reason> {
        let input = self.node(fused.norm).inputs[0];
        let mut sums = self.same(input)?;
        let residual = fused.residual.map(|node| self.value(node).cloned());
        let residual = residual.transpose()?;
        // (The norm's own numbers differ by channel: they go in behind, see `pieces`.)
        if residual.is_some() {
            sums.pieces.push(Piece::Residual);
        }
        if let Some(clip) = fused.clip
            && let graph::Operation::Clip { low, high } = self.node(clip).operation
        {
            sums.pieces.push(Piece::Clip(low, high));
        }
        Ok((sums, residual))
    }

    /// The same integers as a value's.
    fn same(&self, input: NodeId) -> Result<Sums, Reason> {
        let value = self.value(input)?;
        let channels = self.node(input).shape[0];
        Ok(Sums {
            operation: Operation::Same,
            exponent: value.exponent,
            ranges: vec![value.range; channels],
            partial: magnitude(value.range),
            codes: value.codes.clone(),
            pieces: Vec::new(),
        })
    }

    fn single(&self, id: NodeId) -> Result<Sums, Reason> {
        let node = self.node(id);
        let first = || self.same(*node.inputs.first().unwrap_or(&0));
        match &node.operation {
            graph::Operation::Input => self.input(id),
            graph::Operation::Convolution {
                weight,
                bias,
                window,
                groups,
            } => self.convolution(id, *weight, *bias, *window, *groups),
            graph::Operation::Affine { weight, bias } => {
                self.convolution(id, *weight, *bias, Window::square(1, 1, 0), 1)
            }
            graph::Operation::BatchNorm { .. } => unreachable!("a batch norm is a fused step"),
            graph::Operation::Clip { low, high } => {
                let mut sums = first()?;
                sums.pieces.push(Piece::Clip(*low, *high));
                Ok(sums)
            }
            graph::Operation::Function(_) => Err(root(
                format!("a {}, which is computed in float", node.operation.word()),
                NONLINEARITY,
            )),
            // (Its numbers differ by channel: they go in behind, see `pieces`.)
            graph::Operation::Scale { .. } => first(),
            graph::Operation::Add => self.add(node),
            graph::Operation::Multiply => self.multiply(node),
            graph::Operation::Concatenate => self.concatenate(node),
            graph::Operation::MaxPool(window) => {
                self.moved(node, Operation::MaxPool { window: *window })
            }
            graph::Operation::AveragePool {
                window,
                count_padding,
            } => {
                let is_padded = window.padding != [[0; 2]; 2] && !count_padding;
                if is_padded || window.ceil {
                    return Err(root(
                        "windows at the border are means of fewer values",
                        PADDING,
                    ));
                }
                self.pool(node, *window)
            }
            graph::Operation::GlobalAverage => {
                let [_, height, width] = self.node(node.inputs[0]).shape;
                let window = Window {
                    kernel: [height, width],
                    ..Window::square(1, 1, 0)
                };
                self.pool(node, window)
            }
            graph::Operation::Reshape(_) => self.moved(node, Operation::Reshape),
            graph::Operation::Subsample { stride, extra } => self.moved(
                node,
                Operation::Subsample {
                    stride: *stride,
                    extra: *extra,
                },
            ),
            graph::Operation::Shuffle { groups } => {
                self.moved(node, Operation::Shuffle { groups: *groups })
            }
            graph::Operation::Slice { start, end } => self.moved(
                node,
                Operation::Slice {
                    start: *start,
                    end: *end,
                },
            ),
            graph::Operation::Pad { padding } => {
                self.moved(node, Operation::Pad { padding: *padding })
            }
        }
    }

    fn input(&self, id: NodeId) -> Result<Sums, Reason> {
        let slot = self.network.placement.of_node[id];
        let grid = self
            .network
            .grid(slot)
            .ok_or_else(|| root("pictures come in float", INPUT))?;
        let levels = levels(&grid)?;
        let channels = self.node(id).shape[0];
        let table = |channel: usize| -> Vec<i32> {
            let bytes = self.normalisation.channel(channel).iter();
            bytes
                .map(|v| (grid.forward(*v) / levels.unit) as i32)
                .collect()
        };
        let mut codes: Vec<Vec<i32>> = (0..channels).map(table).collect();
        if codes.iter().all(|c| *c == codes[0]) {
            codes.truncate(1);
        }
        Ok(Sums {
            operation: Operation::Input { codes },
            exponent: levels.exponent,
            ranges: vec![levels.range(); channels],
            partial: magnitude(levels.range()),
            codes: Some(levels.codes),
            pieces: Vec::new(),
        })
    }

    fn convolution(
        &self,
        id: NodeId,
        weight: usize,
        bias: Option<usize>,
        window: Window,
        groups: usize,
    ) -> Result<Sums, Reason> {
        let input = self.value(self.node(id).inputs[0])?.clone();
        let (mut weights, mut stored) = self.parameter(weight, "weights")?;
        let bias = bias.map(|bias| self.parameter(bias, "bias")).transpose()?;
        // Sums are in units of the finest of products and bias.
        let products = stored.exponent + input.exponent;
        let exponent = bias
            .as_ref()
            .map_or(products, |(_, bias)| products.min(bias.exponent));
        stored.shift = (products - exponent) as u32;
        shift_all(&mut weights, stored.shift)?;
        let outputs = self.node(id).shape[0];
        let (bias, stored_bias) = match bias {
            None => (vec![0; outputs], None),
            Some((codes, mut stored)) => {
                stored.shift = (stored.exponent - exponent) as u32;
                if stored.shift > 40 {
                    return Err(root(
                        "its bias and its products are too far apart",
                        NARROWER,
                    ));
                }
                let wide = codes.iter().map(|c| i64::from(*c) << stored.shift);
                (wide.collect(), Some(stored))
            }
        };
        // Padding is zero.
        let range = [input.range[0].min(0), input.range[1].max(0)];
        let largest = magnitude(range);
        let taps = weights.len() / outputs.max(1);
        let zeros = weights
            .iter()
            .map(|w| i64::from(*w))
            .chain(bias.iter().copied())
            .map(|v| v.trailing_zeros())
            .min()
            .unwrap_or(0)
            .min(40);
        let mut partial = 0u64;
        let mut ranges = Vec::with_capacity(outputs);
        for (row, bias) in weights.chunks(taps.max(1)).zip(&bias) {
            let mut ends = [i128::from(*bias); 2];
            let mut sum = bias.unsigned_abs();
            for w in row {
                let products = range.map(|x| i128::from(x) * i128::from(*w));
                ends[0] += products[0].min(products[1]);
                ends[1] += products[0].max(products[1]);
                sum = sum.saturating_add(u64::from(w.unsigned_abs()).saturating_mul(largest));
            }
            partial = partial.max(sum >> zeros);
            let ends = ends.map(i64::try_from);
            let [Ok(low), Ok(high)] = ends else {
                return Err(root("its sums need more than 64 bits", NARROWER));
            };
            ranges.push([low, high]);
        }
        let stored_bias_values = if stored_bias.is_some() {
            bias
        } else {
            Vec::new()
        };
        Ok(Sums {
            operation: Operation::Convolution {
                weights,
                bias: stored_bias_values,
                window,
                groups,
                stored,
                stored_bias,
            },
            exponent,
            ranges,
            partial,
            codes: None,
            pieces: Vec::new(),
        })
    }

    /// A parameter's integers, and how they are stored.
    fn parameter(&self, parameter: usize, what: &str) -> Result<(Vec<i32>, Stored), Reason> {
        let slot = self.network.placement.of_parameter[parameter];
        let grid = self
            .network
            .grid(slot)
            .ok_or_else(|| root(format!("its {what} are in float"), WEIGHTS))?;
        let levels = levels(&grid)?;
        let used = self.network.used(parameter);
        let codes = used.iter().map(|v| (v / levels.unit) as i32).collect();
        let stored = Stored {
            name: self.network.graph.parameters[parameter].name.clone(),
            shape: self.network.graph.parameters[parameter].shape.clone(),
            bits: grid.bits as u32,
            octaves: grid.family == Family::PowerOfTwo,
            exponent: levels.exponent,
            shift: 0,
        };
        Ok((codes, stored))
    }

    fn add(&self, node: &graph::Node) -> Result<Sums, Reason> {
        let [a, b] = [self.value(node.inputs[0])?, self.value(node.inputs[1])?];
        let exponent = a.exponent.min(b.exponent);
        let shifts = [a, b].map(|v| (v.exponent - exponent) as u32);
        let ranges = [shifted(a.range, shifts[0])?, shifted(b.range, shifts[1])?];
        let range = [ranges[0][0] + ranges[1][0], ranges[0][1] + ranges[1][1]];
        Ok(Sums {
            operation: Operation::Add { shifts },
            exponent,
            ranges: vec![range; node.shape[0]],
            partial: magnitude(ranges[0]) + magnitude(ranges[1]),
            codes: None,
            pieces: Vec::new(),
        })
    }

    fn multiply(&self, node: &graph::Node) -> Result<Sums, Reason> {
        let [a, b] = [self.value(node.inputs[0])?, self.value(node.inputs[1])?];
        let products = a.range.map(|x| b.range.map(|y| x.checked_mul(y)));
        let products: Option<Vec<i64>> = products.into_iter().flatten().collect();
        let products =
            products.ok_or_else(|| root("its products need more than 64 bits", NARROWER))?;
        let range = [
            products.iter().copied().min().unwrap_or(0),
            products.iter().copied().max().unwrap_or(0),
        ];
        Ok(Sums {
            operation: Operation::Multiply,
            exponent: a.exponent + b.exponent,
            ranges: vec![range; node.shape[0]],
            partial: magnitude(range),
            codes: None,
            pieces: Vec::new(),
        })
    }

    fn concatenate(&self, node: &graph::Node) -> Result<Sums, Reason> {
        let values: Result<Vec<&Value>, Reason> =
            node.inputs.iter().map(|i| self.value(*i)).collect();
        let values = values?;
        let exponent = values.iter().map(|v| v.exponent).min().unwrap_or(0);
        let shifts: Vec<u32> = values
            .iter()
            .map(|v| (v.exponent - exponent) as u32)
            .collect();
        let mut ranges = Vec::new();
        for ((value, shift), input) in values.iter().zip(&shifts).zip(&node.inputs) {
            let range = shifted(value.range, *shift)?;
            ranges.extend(vec![range; self.node(*input).shape[0]]);
        }
        let partial = ranges.iter().map(|r| magnitude(*r)).max().unwrap_or(0);
        Ok(Sums {
            operation: Operation::Concatenate { shifts },
            exponent,
            ranges,
            partial,
            codes: None,
            pieces: Vec::new(),
        })
    }

    /// A value whose numbers are moved about, with zeros where there were none.
    fn moved(&self, node: &graph::Node, operation: Operation) -> Result<Sums, Reason> {
        let mut sums = self.same(node.inputs[0])?;
        let adds_zeros = match &operation {
            Operation::Subsample { extra, .. } => *extra > 0,
            Operation::Pad { padding } => *padding != [[0; 2]; 2],
            _ => false,
        };
        let mut range = sums.range();
        if adds_zeros {
            range = [range[0].min(0), range[1].max(0)];
            if let Some(codes) = &mut sums.codes
                && let Err(at) = codes.binary_search(&0)
            {
                codes.insert(at, 0);
            }
        }
        sums.operation = operation;
        sums.ranges = vec![range; node.shape[0]];
        Ok(sums)
    }

    fn pool(&self, node: &graph::Node, window: Window) -> Result<Sums, Reason> {
        let value = self.value(node.inputs[0])?;
        let count = window.kernel.iter().product::<usize>() as i64;
        let padded = window.padding != [[0; 2]; 2];
        let ends = if padded {
            [value.range[0].min(0), value.range[1].max(0)]
        } else {
            value.range
        };
        let range = ends.map(|v| v.saturating_mul(count));
        Ok(Sums {
            operation: Operation::SumPool { window },
            exponent: value.exponent,
            ranges: vec![range; node.shape[0]],
            partial: magnitude(range),
            codes: None,
            pieces: vec![Piece::Divide(count as f32)],
        })
    }
}
