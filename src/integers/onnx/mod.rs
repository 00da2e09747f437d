//! A network as ONNX, in standard operations, or as QONNX, with `Quant` nodes.
//!
//! Input `images`: u8 `[N, C, H, W]` where the network's input is quantized (f32 for readers that take no
//! bytes, see [`Input`]), else f32 as the experiment normalises pictures. Output `logits`: f32 `[N, classes]`.
//!
//! In standard operations a quantizer is arithmetic that rounds half away from zero on every tie:
//! `floor((floor(2 x / d) + 1) / 2) d`, with the sign taken out and put back where there is one. (ONNX's
//! QuantizeLinear rounds half to even, and on grids of powers of two ties are common.) Batch norm is by
//! default the very subtraction, product and sum that the kernels compute, so that a runtime that rounds
//! as IEEE 754 says gives the same levels; see [`NormForm`] for the others.

mod model;

use std::collections::HashMap;

use self::model::{Attribute, Model};
use super::ExportError;
use crate::dataset::Normalisation;
use crate::graph::{Function, Graph, NodeId, Operation, Window};
use crate::kernels::norm::Channel;
use crate::network::Snapshot;
use crate::quantizer::{Family, Grid, Rules};

/// How batch norm is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum NormForm {
    /// The kernels' own operations, in their order: the same levels by construction.
    Exact,
    /// `x scale + shift`: one operation less. A value next to a threshold may fall on the other side.
    Folded,
    /// `BatchNormalization`, which other tools know; the same holds.
    Kept,
}

/// How ties are rounded in `Quant` nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Rounding {
    /// As in training (`HALF_UP`, which QONNX takes away from zero).
    HalfAway,
    /// `ROUND`, for readers that know no other: values on ties differ.
    HalfEven,
}

/// What a file takes where the network's input is quantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Input {
    /// Pictures as bytes; the file normalises them.
    Bytes,
    /// f32 as the experiment normalises pictures: for readers that take no bytes.
    Numbers,
}

/// Which operations a file may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// ONNX's own.
    Standard,
    /// `Quant` besides.
    Qonnx(Rounding),
}

/// The file's bytes.
///
/// # Errors
/// Quantizers that the dialect has no node for.
pub fn to_bytes(
    network: &Snapshot,
    normalisation: &Normalisation,
    dialect: Dialect,
    norm: NormForm,
    input: Input,
) -> Result<Vec<u8>, ExportError> {
    let writer = Writer {
        network,
        normalisation,
        dialect,
        norm,
        input,
        model: Model::new(),
        values: HashMap::new(),
    };
    let model = writer.write()?;
    model
        .to_bytes()
        .map_err(|e| ExportError::Unsupported(format!("the model's encoding: {e}")))
}

/// A node's value in the model.
#[derive(Debug, Clone)]
struct Value {
    name: String,
    /// `[N, F]` and not `[N, C, H, W]`.
    is_flat: bool,
}

struct Writer<'a> {
    network: &'a Snapshot,
    normalisation: &'a Normalisation,
    dialect: Dialect,
    norm: NormForm,
    input: Input,
    model: Model,
    values: HashMap<NodeId, Value>,
}

impl Writer<'_> {
    fn write(mut self) -> Result<Model, ExportError> {
        let graph = self.network.graph.clone();
        for id in 0..graph.nodes.len() {
            let mut value = self.operation(&graph, id)?;
            if let Some(grid) = self.network.grid(self.network.placement.of_node[id]) {
                value.name = self.quantizer(&graph.nodes[id].name, &value.name, &grid)?;
            }
            self.values.insert(id, value);
        }
        let output = self.values[&graph.output()].clone();
        if output.is_flat {
            self.model.rename(&output.name, "logits");
        } else {
            let axis = vec![("axis", Attribute::Int(1))];
            self.model
                .node_with("Flatten", &[&output.name], "logits", axis);
        }
        self.model.output("logits", &[graph.classes()]);
        for (key, text) in self.notes() {
            self.model.note(&key, text);
        }
        Ok(self.model)
    }

    /// Bits of every quantizer, for whoever opens the file.
    fn notes(&self) -> Vec<(String, String)> {
        let quantizers = self.network.placement.quantizers.iter();
        let bits: Vec<String> = quantizers
            .zip(&self.network.grids)
            .map(|(placed, grid)| format!("{} {:?} {}", placed.name, placed.role, grid.bits))
            .collect();
        let mut notes = vec![(
            "bitscope.rounding".to_owned(),
            "half away from zero".to_owned(),
        )];
        if self.dialect == Dialect::Qonnx(Rounding::HalfEven) {
            notes[0].1 = "half to even: values on ties differ from training".to_owned();
        }
        if self.network.quantized {
            notes.push(("bitscope.bits".to_owned(), bits.join("\n")));
        }
        notes
    }

    fn input(&self, graph: &Graph, id: NodeId, index: usize) -> Value {
        self.values[&graph.nodes[id].inputs[index]].clone()
    }

    fn operation(&mut self, graph: &Graph, id: NodeId) -> Result<Value, ExportError> {
        let node = &graph.nodes[id];
        let name = node.name.as_str();
        let [channels, height, width] = node.shape;
        if let Operation::Input = node.operation {
            return Ok(self.images(id, node.shape));
        }
        let x = self.input(graph, id, 0);
        let m = &mut self.model;
        let spatial = |name: String| Value {
            name,
            is_flat: false,
        };
        let alike = |name: String| Value {
            name,
            is_flat: x.is_flat,
        };
        Ok(match &node.operation {
            Operation::Input => unreachable!("written above"),
            Operation::Convolution {
                weight,
                bias,
                window,
                groups,
            } => {
                let weight = self.parameter(*weight)?;
                let bias = bias.map(|b| self.parameter(b)).transpose()?;
                let mut inputs = vec![x.name.as_str(), &weight];
                inputs.extend(bias.as_deref());
                let mut attributes = windowed(window);
                attributes.push(("group", Attribute::Int(*groups as i64)));
                spatial(self.model.node_with("Conv", &inputs, name, attributes))
            }
            Operation::Affine { weight, bias } => {
                let flat = if x.is_flat {
                    x.name.clone()
                } else {
                    let axis = vec![("axis", Attribute::Int(1))];
                    m.node_with("Flatten", &[&x.name], &format!("{name}/flat"), axis)
                };
                let weight = self.parameter(*weight)?;
                let bias = bias.map(|b| self.parameter(b)).transpose()?;
                let mut inputs = vec![flat.as_str(), &weight];
                inputs.extend(bias.as_deref());
                let turned = vec![("transB", Attribute::Int(1))];
                Value {
                    name: self.model.node_with("Gemm", &inputs, name, turned),
                    is_flat: true,
                }
            }
            Operation::BatchNorm { .. } => alike(self.batch_norm(graph, id, &x)),
            Operation::Clip { low, high } => alike(self.clip(name, &x.name, *low, *high)),
            Operation::Function(function) => alike(self.function(name, &x.name, *function)),
            Operation::Scale { scale, shift } => {
                let scale = per_channel(m, &format!("{name}/scale"), scale, x.is_flat);
                let shift = per_channel(m, &format!("{name}/shift"), shift, x.is_flat);
                let scaled = m.node("Mul", &[&x.name, &scale], &format!("{name}/scaled"));
                alike(m.node("Add", &[&scaled, &shift], name))
            }
            Operation::Add | Operation::Multiply => {
                let y = self.input(graph, id, 1);
                let other = &graph.nodes[node.inputs[1]];
                let y_name = if y.is_flat == x.is_flat {
                    y.name
                } else {
                    self.shaped(&format!("{name}/shaped"), &y.name, other.shape)
                };
                let x_name = if x.is_flat && !y.is_flat {
                    self.shaped(&format!("{name}/shaped_x"), &x.name, node.shape)
                } else {
                    x.name.clone()
                };
                let op = if node.operation == Operation::Add {
                    "Add"
                } else {
                    "Mul"
                };
                Value {
                    name: self.model.node(op, &[&x_name, &y_name], name),
                    is_flat: x.is_flat && y.is_flat,
                }
            }
            Operation::Concatenate => {
                let inputs: Vec<Value> = (0..node.inputs.len())
                    .map(|i| self.input(graph, id, i))
                    .collect();
                let all_flat = inputs.iter().all(|v| v.is_flat);
                let names: Vec<String> = inputs
                    .iter()
                    .zip(&node.inputs)
                    .enumerate()
                    .map(|(i, (value, of))| {
                        if value.is_flat && !all_flat {
                            let shape = graph.nodes[*of].shape;
                            self.shaped(&format!("{name}/part{i}"), &value.name, shape)
                        } else {
                            value.name.clone()
                        }
                    })
                    .collect();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                let axis = vec![("axis", Attribute::Int(1))];
                Value {
                    name: self.model.node_with("Concat", &names, name, axis),
                    is_flat: all_flat,
                }
            }
            Operation::MaxPool(window) => {
                let mut attributes = windowed(window);
                attributes.push(("ceil_mode", Attribute::Int(window.ceil.into())));
                spatial(m.node_with("MaxPool", &[&x.name], name, attributes))
            }
            Operation::AveragePool {
                window,
                count_padding,
            } => {
                let [_, h, w] = graph.nodes[node.inputs[0]].shape;
                spatial(self.average(name, &x.name, window, *count_padding, channels, [h, w]))
            }
            Operation::GlobalAverage => {
                let [_, h, w] = graph.nodes[node.inputs[0]].shape;
                spatial(self.global_average(name, &x.name, h * w))
            }
            Operation::Reshape([c, 1, 1]) if *c == node.elements() => {
                let axis = vec![("axis", Attribute::Int(1))];
                Value {
                    name: m.node_with("Flatten", &[&x.name], name, axis),
                    is_flat: true,
                }
            }
            Operation::Reshape(shape) => spatial(self.shaped(name, &x.name, *shape)),
            Operation::Subsample { stride, extra } => {
                spatial(self.subsample(name, &x.name, *stride, *extra))
            }
            Operation::Shuffle { groups } => {
                let (g, per) = (*groups as i64, (channels / groups) as i64);
                let (h, w) = (height as i64, width as i64);
                let apart = m.longs(&format!("{name}/apart"), &[0, g, per, h, w]);
                let apart = m.node("Reshape", &[&x.name, &apart], &format!("{name}/groups"));
                let turn = vec![("perm", Attribute::Ints(vec![0, 2, 1, 3, 4]))];
                let turned = m.node_with("Transpose", &[&apart], &format!("{name}/turned"), turn);
                spatial(self.shaped(name, &turned, node.shape))
            }
            Operation::Slice { start, end } => {
                let starts = m.longs(&format!("{name}/starts"), &[*start as i64]);
                let ends = m.longs(&format!("{name}/ends"), &[*end as i64]);
                let axes = m.longs(&format!("{name}/axes"), &[1]);
                alike(m.node("Slice", &[&x.name, &starts, &ends, &axes], name))
            }
            Operation::Pad { padding } => {
                let [[top, bottom], [left, right]] = padding.map(|p| p.map(|v| v as i64));
                let pads = [0, 0, top, left, 0, 0, bottom, right];
                let pads = m.longs(&format!("{name}/pads"), &pads);
                spatial(m.node("Pad", &[&x.name, &pads], name))
            }
        })
    }

    /// The input: bytes, normalised as in training, where it is quantized.
    fn images(&mut self, id: NodeId, shape: [usize; 3]) -> Value {
        let grid = self.network.grid(self.network.placement.of_node[id]);
        let takes_bytes = grid.is_some() && self.input == Input::Bytes;
        self.model.input("images", takes_bytes, &shape);
        let name = if takes_bytes {
            self.normalised(shape[0])
        } else {
            "images".to_owned()
        };
        Value {
            name,
            is_flat: false,
        }
    }

    /// `(byte / 255 - mean) / deviation`, in that order, as the table of training was made.
    fn normalised(&mut self, channels: usize) -> String {
        let numbers: Vec<[f32; 2]> = (0..channels)
            .map(|c| self.normalisation.numbers(c))
            .collect();
        let m = &mut self.model;
        let to_float = vec![("to", Attribute::Int(1))];
        let x = m.node_with("Cast", &["images"], "images/float", to_float);
        let most = m.scalar(255.0);
        let x = m.node("Div", &[&x, &most], "images/share");
        let row = |of: usize| numbers.iter().map(|n| n[of]).collect::<Vec<f32>>();
        let mean = per_channel(m, "images/mean", &row(0), false);
        let x = m.node("Sub", &[&x, &mean], "images/centred");
        let deviation = per_channel(m, "images/deviation", &row(1), false);
        m.node("Div", &[&x, &deviation], "images/normalised")
    }

    /// A learned tensor as the forward pass sees it.
    fn parameter(&mut self, parameter: usize) -> Result<String, ExportError> {
        let network = self.network;
        let of = &network.graph.parameters[parameter];
        let name = of.name.as_str();
        let used = network.used(parameter);
        let Some(grid) = network.grid(network.placement.of_parameter[parameter]) else {
            return Ok(self.model.floats(name, &of.shape, &used));
        };
        let written = format!("{name}/quantized");
        if let Dialect::Qonnx(_) = self.dialect {
            let values = self.model.floats(name, &of.shape, &used);
            return self.quant(name, &values, &grid, &written);
        }
        let m = &mut self.model;
        if grid.family == Family::Uniform {
            let codes: Vec<i32> = used.iter().map(|v| (v / grid.step) as i32).collect();
            let bits = (grid.top / grid.step).log2().floor() as u32 + 1 + u32::from(grid.signed);
            // (onnx's own evaluator knows DequantizeLinear from there on.)
            m.needs(19);
            let codes = m.integers(name, &of.shape, bits, &codes);
            let scale = m.scalar(grid.step);
            return Ok(m.node("DequantizeLinear", &[&codes, &scale], &written));
        }
        // Powers of two: a place in the table of levels.
        let levels = grid.levels(1 << 16).ok_or_else(|| {
            ExportError::Unsupported(format!(
                "{name}: {} levels; expected at most 65536",
                grid.level_count()
            ))
        })?;
        let place = |v: &f32| levels.partition_point(|level| level < v);
        let places: Vec<usize> = used.iter().map(place).collect();
        let table = m.floats(&format!("{name}/levels"), &[levels.len()], &levels);
        let places = m.places(name, &of.shape, levels.len() - 1, &places);
        let to_int = vec![("to", Attribute::Int(6))];
        let places = m.node_with("Cast", &[&places], &format!("{name}/places"), to_int);
        Ok(m.node("Gather", &[&table, &places], &written))
    }

    fn batch_norm(&mut self, graph: &Graph, id: NodeId, x: &Value) -> String {
        let node = &graph.nodes[id];
        let Operation::BatchNorm {
            gamma,
            beta,
            norm,
            epsilon,
            ..
        } = node.operation
        else {
            unreachable!("asked of a batch norm")
        };
        let name = node.name.as_str();
        let [gamma, beta] = [gamma, beta].map(|p| &self.network.parameters[p]);
        let [means, variances] = &self.network.norms[norm];
        let m = &mut self.model;
        if self.norm == NormForm::Kept {
            let channels = [gamma.len()];
            let inputs = [
                ("scale", gamma),
                ("bias", beta),
                ("mean", means),
                ("var", variances),
            ]
            .map(|(entry, values)| m.floats(&format!("{name}/{entry}"), &channels, values));
            let [a, b, c, d] = &inputs;
            if self.dialect == Dialect::Standard {
                // Before that, it could train.
                m.needs(15);
            }
            let attributes = vec![("epsilon", Attribute::Float(epsilon))];
            return m.node_with(
                "BatchNormalization",
                &[&x.name, a, b, c, d],
                name,
                attributes,
            );
        }
        let channel =
            |c: usize| Channel::new([gamma[c], beta[c]], [means[c], variances[c]], epsilon);
        let channels: Vec<Channel> = (0..gamma.len()).map(channel).collect();
        let mut row = |entry: &str, of: &dyn Fn(&Channel, usize) -> f32| {
            let values: Vec<f32> = channels
                .iter()
                .enumerate()
                .map(|(c, ch)| of(ch, c))
                .collect();
            per_channel(m, &format!("{name}/{entry}"), &values, x.is_flat)
        };
        if self.norm == NormForm::Folded {
            let scale = row("scale", &|ch, _| ch.numbers()[1]);
            // In f64, so that only the last rounding is its own.
            let shift = row("shift", &|ch, _| {
                let [mean, scale, beta] = ch.numbers().map(f64::from);
                (beta - mean * scale) as f32
            });
            let scaled = m.node("Mul", &[&x.name, &scale], &format!("{name}/scaled"));
            return m.node("Add", &[&scaled, &shift], name);
        }
        let mean = row("mean", &|ch, _| ch.numbers()[0]);
        let shift = row("shift", &|ch, _| ch.numbers()[2]);
        let factors = match self.network.rules {
            Rules::Paper => vec![("Mul", row("scale", &|ch, _| ch.numbers()[1]))],
            Rules::PublishedCode => vec![
                ("Mul", row("gamma", &|_, c| gamma[c])),
                ("Div", row("deviation", &|ch, _| ch.deviation())),
            ],
        };
        let mut y = m.node("Sub", &[&x.name, &mean], &format!("{name}/centred"));
        for (op, factor) in factors {
            y = m.node(op, &[&y, &factor], &format!("{name}/{op}"));
        }
        m.node("Add", &[&y, &shift], name)
    }

    fn clip(&mut self, name: &str, x: &str, low: f32, high: f32) -> String {
        let m = &mut self.model;
        if low == 0.0 && high == f32::INFINITY {
            return m.node("Relu", &[x], name);
        }
        let mut bound = |v: f32| {
            if v.is_finite() {
                m.scalar(v)
            } else {
                String::new()
            }
        };
        let (low, high) = (bound(low), bound(high));
        m.node("Clip", &[x, &low, &high], name)
    }

    fn function(&mut self, name: &str, x: &str, function: Function) -> String {
        let m = &mut self.model;
        match function {
            Function::Sigmoid => m.node("Sigmoid", &[x], name),
            Function::Tanh => m.node("Tanh", &[x], name),
            Function::LeakyRelu { slope } => {
                let alpha = vec![("alpha", Attribute::Float(slope))];
                m.node_with("LeakyRelu", &[x], name, alpha)
            }
            Function::HardSigmoid { alpha, beta } => {
                let [alpha, beta] = [alpha, beta].map(|v| m.scalar(v));
                let x = m.node("Mul", &[x, &alpha], &format!("{name}/scaled"));
                let x = m.node("Add", &[&x, &beta], &format!("{name}/shifted"));
                self.clip(name, &x, 0.0, 1.0)
            }
            Function::HardSwish => {
                let [six, half] = [6.0, 0.5].map(|v| m.scalar(v));
                let gate = m.node("Div", &[x, &six], &format!("{name}/sixth"));
                let gate = m.node("Add", &[&gate, &half], &format!("{name}/shifted"));
                let gate = self.clip(&format!("{name}/gate"), &gate, 0.0, 1.0);
                self.model.node("Mul", &[x, &gate], name)
            }
        }
    }

    /// Another shape for each picture.
    fn shaped(&mut self, name: &str, x: &str, [c, h, w]: [usize; 3]) -> String {
        let shape = [0, c as i64, h as i64, w as i64];
        let shape = self.model.longs(&format!("{name}/shape"), &shape);
        self.model.node("Reshape", &[x, &shape], name)
    }

    /// A mean that is a sum, which integers keep exact, and one division.
    fn global_average(&mut self, name: &str, x: &str, count: usize) -> String {
        if let Dialect::Qonnx(_) = self.dialect {
            return self.model.node("GlobalAveragePool", &[x], name);
        }
        let m = &mut self.model;
        let axes = m.longs("const/planes", &[2, 3]);
        let sum = m.node("ReduceSum", &[x, &axes], &format!("{name}/sum"));
        let count = m.scalar(count as f32);
        m.node("Div", &[&sum, &count], name)
    }

    fn average(
        &mut self,
        name: &str,
        x: &str,
        window: &Window,
        count_padding: bool,
        channels: usize,
        plane: [usize; 2],
    ) -> String {
        let m = &mut self.model;
        if self.dialect == Dialect::Standard && !window.ceil {
            let [kh, kw] = window.kernel;
            let ones = vec![1.0; channels * kh * kw];
            let ones = m.floats(&format!("{name}/ones"), &[channels, 1, kh, kw], &ones);
            let mut attributes = windowed(window);
            attributes.push(("group", Attribute::Int(channels as i64)));
            let sum = m.node_with("Conv", &[x, &ones], &format!("{name}/sum"), attributes);
            let whole = m.scalar((kh * kw) as f32);
            if count_padding || window.padding == [[0; 2]; 2] {
                return m.node("Div", &[&sum, &whole], name);
            }
            let (extent, mut counts) = counts(window, plane);
            let mut of_all = sum;
            if window.symmetric_padding().is_none() {
                // As burn does it: a mean over the whole window, over the share that is input.
                counts
                    .iter_mut()
                    .for_each(|count| *count /= (kh * kw) as f32);
                of_all = m.node("Div", &[&of_all, &whole], &format!("{name}/mean"));
            }
            let counts = m.floats(&format!("{name}/counts"), &extent, &counts);
            return m.node("Div", &[&of_all, &counts], name);
        }
        let mut attributes = windowed(window);
        attributes.retain(|(key, _)| *key != "dilations");
        attributes.push(("ceil_mode", Attribute::Int(window.ceil.into())));
        attributes.push(("count_include_pad", Attribute::Int(count_padding.into())));
        m.node_with("AveragePool", &[x], name, attributes)
    }

    fn subsample(&mut self, name: &str, x: &str, stride: usize, extra: usize) -> String {
        let m = &mut self.model;
        let starts = m.longs("const/starts", &[0, 0]);
        let ends = m.longs("const/ends", &[i64::from(i32::MAX); 2]);
        let axes = m.longs("const/planes", &[2, 3]);
        let steps = m.longs(&format!("const/steps{stride}"), &[stride as i64; 2]);
        let last = extra == 0;
        let picked = if last {
            name.to_owned()
        } else {
            format!("{name}/picked")
        };
        let picked = m.node("Slice", &[x, &starts, &ends, &axes, &steps], &picked);
        if last {
            return picked;
        }
        let pads = m.longs(
            &format!("{name}/pads"),
            &[0, 0, 0, 0, 0, extra as i64, 0, 0],
        );
        m.node("Pad", &[&picked, &pads], name)
    }

    /// A value's quantizer.
    fn quantizer(&mut self, name: &str, x: &str, grid: &Grid) -> Result<String, ExportError> {
        let out = format!("{name}/level");
        match (self.dialect, grid.family) {
            (Dialect::Qonnx(_), _) => {
                let clipped = self.clip_to_top(name, x, grid);
                self.quant(name, &clipped, grid, &out)
            }
            (Dialect::Standard, Family::Uniform) => Ok(self.uniform(name, x, grid, &out)),
            (Dialect::Standard, Family::PowerOfTwo) => Ok(self.power_of_two(name, x, grid, &out)),
        }
    }

    /// `Quant` clips at `2^b - 1` levels: a range that ends below that is clipped before.
    fn clip_to_top(&mut self, name: &str, x: &str, grid: &Grid) -> String {
        let levels = grid.top / grid.step;
        let bits = grid.bits as i32 - i32::from(grid.signed);
        if levels == (1u64 << bits) as f32 - 1.0 {
            return x.to_owned();
        }
        self.clip(&format!("{name}/clipped"), x, grid.low(), grid.q_max)
    }

    fn quant(
        &mut self,
        name: &str,
        x: &str,
        grid: &Grid,
        out: &str,
    ) -> Result<String, ExportError> {
        if grid.family == Family::PowerOfTwo {
            return Err(ExportError::Unsupported(format!(
                "{name}: `Quant` has no power-of-two levels; hint: `--format onnx` writes them in \
                 standard operations, and U1 to U3 can be written as QONNX"
            )));
        }
        let m = &mut self.model;
        let scale = m.scalar(grid.step);
        let zero = m.scalar(0.0);
        let bits = m.scalar(grid.bits as f32);
        let mode = match self.dialect {
            Dialect::Qonnx(Rounding::HalfEven) => "ROUND",
            _ => "HALF_UP",
        };
        let attributes = vec![
            ("signed", Attribute::Int(grid.signed.into())),
            ("narrow", Attribute::Int(grid.signed.into())),
            ("rounding_mode", Attribute::Text(mode)),
        ];
        Ok(m.node_with("Quant", &[x, &scale, &zero, &bits], out, attributes))
    }

    fn uniform(&mut self, name: &str, x: &str, grid: &Grid, out: &str) -> String {
        let clipped = self.clip(&format!("{name}/clipped"), x, grid.low(), grid.q_max);
        let m = &mut self.model;
        let [twice, one, half, step] = [2.0 / grid.step, 1.0, 0.5, grid.step].map(|v| m.scalar(v));
        let at = |entry: &str| format!("{name}/{entry}");
        let magnitude = if grid.signed {
            m.node("Abs", &[&clipped], &at("magnitude"))
        } else {
            clipped.clone()
        };
        let y = m.node("Mul", &[&magnitude, &twice], &at("halves"));
        let y = m.node("Floor", &[&y], &at("whole_halves"));
        let y = m.node("Add", &[&y, &one], &at("halves_up"));
        let y = m.node("Mul", &[&y, &half], &at("steps"));
        let y = m.node("Floor", &[&y], &at("code"));
        if !grid.signed {
            return m.node("Mul", &[&y, &step], out);
        }
        let y = m.node("Mul", &[&y, &step], &at("rounded"));
        let sign = m.node("Sign", &[&clipped], &at("sign"));
        m.node("Mul", &[&y, &sign], out)
    }

    /// A chain of comparisons: an octave begins above `sqrt(2)` times the one below.
    fn power_of_two(&mut self, name: &str, x: &str, grid: &Grid, out: &str) -> String {
        let m = &mut self.model;
        let at = |entry: &str| format!("{name}/{entry}");
        let magnitude = if grid.signed {
            m.node("Abs", &[x], &at("magnitude"))
        } else {
            x.to_owned()
        };
        let octaves = (grid.top / grid.step).log2().round() as i32;
        let first = m.scalar(grid.step);
        let mut y = if grid.signed {
            first
        } else {
            let threshold = m.scalar(grid.zero_threshold());
            let kept = m.node("GreaterOrEqual", &[x, &threshold], &at("kept"));
            let zero = m.scalar(0.0);
            m.node("Where", &[&kept, &first, &zero], &at("octave0"))
        };
        for k in 1..=octaves {
            let below = grid.step * ((k - 1) as f32).exp2();
            let threshold = m.scalar(below * std::f32::consts::SQRT_2);
            let level = m.scalar(below * 2.0);
            let above = m.node(
                "Greater",
                &[&magnitude, &threshold],
                &at(&format!("above{k}")),
            );
            let name = if k == octaves && !grid.signed {
                out.to_owned()
            } else {
                at(&format!("octave{k}"))
            };
            y = m.node("Where", &[&above, &level, &y], &name);
        }
        if !grid.signed {
            return if y == out {
                y
            } else {
                m.node("Identity", &[&y], out)
            };
        }
        let [zero, minus, plus] = [0.0, -1.0, 1.0].map(|v| m.scalar(v));
        let negative = m.node("Less", &[x, &zero], &at("negative"));
        let sign = m.node("Where", &[&negative, &minus, &plus], &at("sign"));
        m.node("Mul", &[&y, &sign], out)
    }
}

/// How many values of the input each window holds, and the shape to go over channels with.
fn counts(window: &Window, plane: [usize; 2]) -> ([usize; 4], Vec<f32>) {
    let outputs = window.output(plane).unwrap_or([0; 2]);
    let along = |axis: usize| -> Vec<usize> {
        let inside = |output: &usize| {
            let taps = (0..window.kernel[axis]).map(|k| {
                (output * window.stride[axis] + k * window.dilation[axis])
                    .wrapping_sub(window.padding[axis][0])
            });
            taps.filter(|at| *at < plane[axis]).count()
        };
        (0..outputs[axis]).map(|o| inside(&o)).collect()
    };
    let columns = along(1);
    let all = along(0).into_iter().flat_map(|rows| {
        columns
            .iter()
            .map(move |columns| (rows * columns).max(1) as f32)
    });
    ([1, 1, outputs[0], outputs[1]], all.collect())
}

/// Numbers that go over channels.
fn per_channel(m: &mut Model, name: &str, values: &[f32], is_flat: bool) -> String {
    let dims: &[usize] = if is_flat {
        &[1, values.len()]
    } else {
        &[1, values.len(), 1, 1]
    };
    m.floats(name, dims, values)
}

fn windowed(window: &Window) -> Vec<(&'static str, Attribute)> {
    let longs = |v: [usize; 2]| Attribute::Ints(v.map(|v| v as i64).to_vec());
    let [[top, bottom], [left, right]] = window.padding.map(|p| p.map(|v| v as i64));
    vec![
        ("kernel_shape", longs(window.kernel)),
        ("strides", longs(window.stride)),
        ("dilations", longs(window.dilation)),
        ("pads", Attribute::Ints(vec![top, left, bottom, right])),
    ]
}
