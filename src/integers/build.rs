//! A program from a network's structure, numbers and levels.

use std::collections::HashMap;

use super::levels::{Function, Piece, Residuals, Thresholds};
use super::program::{After, Operation, Program, Step, Stored};
use crate::dataset::Normalisation;
use crate::graph::{self, NodeId, Window};
use crate::kernels::Moments;
use crate::kernels::norm::Channel;
use crate::network::Snapshot;
use crate::quantizer::{Family, Grid, Rules};

/// Levels of a quantizer at most: 16 bits and a sign.
const MOST_LEVELS: usize = (1 << 17) + 1;
/// Values of a residual at most, and thresholds of a step.
const MOST_RESIDUALS: i64 = 1 << 12;
const MOST_THRESHOLDS: usize = 1 << 25;
/// Integers have to fit into so many bits, sign included.
const MOST_BITS: u32 = 31;

/// A value in integers.
#[derive(Debug, Clone)]
struct Value {
    exponent: i32,
    range: [i64; 2],
    /// The integers that can occur, where a quantizer says so.
    codes: Option<Vec<i32>>,
}

/// What a node yields: integers, or the reason why not.
type Yields = Result<Value, Reason>;

/// Why a value is in float.
#[derive(Debug, Clone)]
struct Reason {
    text: String,
    /// What would make integers of it; nothing where the reason lies in what the step reads.
    hint: Option<&'static str>,
}

/// What would help.
const EVERYWHERE: &str =
    "`activations.at = \"everywhere\"`, which quantizes every value that a layer reads";
const INPUT: &str = "`input.bits = 8`";
const NARROWER: &str = "fewer bits, or bounds of the quantizers' ranges that lie closer together";
const PADDING: &str = "an average pool without padding, or one that counts it";
const WEIGHTS: &str = "a quantizer for the weights of every layer";
const NONLINEARITY: &str = "ReLU or another clip in the place of that function";

fn root(text: impl Into<String>, hint: &'static str) -> Reason {
    Reason {
        text: text.into(),
        hint: Some(hint),
    }
}

/// The sums of a step, before anything happens to them.
struct Sums {
    operation: Operation,
    exponent: i32,
    /// Per channel.
    ranges: Vec<[i64; 2]>,
    partial: u64,
    /// The integers that can occur, where levels are kept.
    codes: Option<Vec<i32>>,
    pieces: Vec<Piece>,
}

impl Sums {
    fn range(&self) -> [i64; 2] {
        let low = self.ranges.iter().map(|r| r[0]).min();
        let high = self.ranges.iter().map(|r| r[1]).max();
        [low.unwrap_or(0), high.unwrap_or(0)]
    }
}

impl Program {
    /// The program of a network; bytes become numbers as the normalisation says.
    pub fn of(network: &Snapshot, normalisation: &Normalisation) -> Self {
        let builder = Builder {
            network,
            normalisation,
            yields: HashMap::new(),
            step_of: HashMap::new(),
            steps: Vec::new(),
        };
        builder.build()
    }
}

struct Builder<'a> {
    network: &'a Snapshot,
    normalisation: &'a Normalisation,
    yields: HashMap<NodeId, Yields>,
    step_of: HashMap<NodeId, usize>,
    steps: Vec<Step>,
}

impl Builder<'_> {
    fn build(mut self) -> Program {
        let plan = self.network.plan.clone();
        for step in &plan.steps {
            let (mut made, yields) = self.step(step);
            made.inputs = step
                .inputs(&self.network.graph)
                .iter()
                .map(|node| self.step_of[node])
                .collect();
            self.step_of.insert(step.output, self.steps.len());
            self.yields.insert(step.output, yields);
            self.steps.push(made);
        }
        Program { steps: self.steps }
    }

    fn node(&self, id: NodeId) -> &graph::Node {
        &self.network.graph.nodes[id]
    }

    fn value(&self, id: NodeId) -> Result<&Value, Reason> {
        self.yields[&id].as_ref().map_err(|_| Reason {
            text: format!("reads {}, which is in float", self.node(id).name),
            hint: None,
        })
    }

    fn step(&self, step: &graph::Step) -> (Step, Yields) {
        let slot = self.network.placement.of_node[step.output];
        let grid = self.network.grid(slot);
        let made = self
            .sums(step)
            .and_then(|(sums, residual)| self.finish(step, sums, residual, grid));
        match made {
            Ok((step, value)) => (step, Ok(value)),
            Err(reason) => self.float(step, reason, grid),
        }
    }

    /// A step whose value comes from the float network; behind a quantizer it is on a grid again.
    fn float(&self, step: &graph::Step, reason: Reason, grid: Option<Grid>) -> (Step, Yields) {
        let levels = grid.map(|grid| levels(&grid));
        let value = match levels {
            Some(Ok(levels)) => Ok(Value {
                exponent: levels.exponent,
                range: levels.range(),
                codes: Some(levels.codes),
            }),
            Some(Err(reason)) => Err(reason),
            None => Err(reason.clone()),
        };
        let (exponent, range) = value
            .as_ref()
            .map_or((0, [0, 0]), |v| (v.exponent, v.range));
        let made = Step {
            name: self.node(step.output).name.clone(),
            inputs: Vec::new(),
            shape: self.node(step.output).shape,
            operation: Operation::Float {
                reason: reason.text,
                hint: reason.hint.map(str::to_owned),
            },
            after: After::Nothing,
            sum_exponent: exponent,
            exponent,
            sums: range,
            range,
            bits: grid.map(|g| g.bits as u32),
            partial: 0,
        };
        (made, value)
    }

    /// What a step sums, the function behind that, and the residual that joins it.
    fn sums(&self, step: &graph::Step) -> Result<(Sums, Option<Value>), Reason> {
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

    /// What becomes of the sums.
    fn finish(
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
        if super::program::signed_bits(value.range) > MOST_BITS && grid.is_some() {
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
        let is_exact = magnitude(sums.range()) <= super::compare::EXACT_IN_F32;
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

/// A grid's levels as integers of a power of two.
struct Levels {
    unit: f32,
    exponent: i32,
    codes: Vec<i32>,
    values: Vec<f32>,
}

impl Levels {
    fn range(&self) -> [i64; 2] {
        let ends = [self.codes.first(), self.codes.last()];
        ends.map(|code| code.map_or(0, |c| i64::from(*c)))
    }
}

fn levels(grid: &Grid) -> Result<Levels, Reason> {
    let unit = grid.step;
    let exponent = exponent(unit).ok_or_else(|| {
        root(
            format!("its step size {unit:e} is not a power of two"),
            NARROWER,
        )
    })?;
    let values = grid
        .levels(MOST_LEVELS)
        .ok_or_else(|| root(format!("{} levels", grid.level_count()), NARROWER))?;
    let largest = values.iter().fold(0f32, |m, v| m.max(v.abs())) / unit;
    if f64::from(largest) >= f64::from(MOST_BITS - 1).exp2() {
        let text = format!("its levels span more than {} octaves", MOST_BITS - 1);
        return Err(root(text, NARROWER));
    }
    let codes = values.iter().map(|v| (v / unit) as i32).collect();
    Ok(Levels {
        unit,
        exponent,
        codes,
        values,
    })
}

/// The exponent of a power of two.
fn exponent(v: f32) -> Option<i32> {
    let bits = v.to_bits();
    let is_power = v > 0.0 && v.is_normal() && bits & 0x007f_ffff == 0;
    is_power.then(|| (bits >> 23) as i32 - 127)
}

fn magnitude([low, high]: [i64; 2]) -> u64 {
    low.unsigned_abs().max(high.unsigned_abs())
}

fn shifted(range: [i64; 2], shift: u32) -> Result<[i64; 2], Reason> {
    let too_far = || root("its inputs' grids are too far apart", NARROWER);
    if shift > 40 || magnitude(range) >= 1 << (62 - shift) {
        return Err(too_far());
    }
    Ok(range.map(|v| v << shift))
}

fn shift_all(codes: &mut [i32], shift: u32) -> Result<(), Reason> {
    let largest = codes.iter().map(|c| c.unsigned_abs()).max().unwrap_or(0);
    if shift > 30 || u64::from(largest) << shift >= 1 << (MOST_BITS - 1) {
        return Err(root(
            "its bias and its products are too far apart",
            NARROWER,
        ));
    }
    for code in codes {
        *code <<= shift;
    }
    Ok(())
}
