//! A node of the network as nodes of the file.

use super::model::{Attribute, Model};
use super::pools::windowed;
use super::{Dialect, Input, NormForm, Value, Writer};
use crate::graph::{Function, Graph, NodeId, Operation};
use crate::integers::ExportError;
use crate::kernels::norm::Channel;
use crate::quantizer::Rules;

impl Writer<'_> {
    fn input(&self, graph: &Graph, id: NodeId, index: usize) -> Value {
        self.values[&graph.nodes[id].inputs[index]].clone()
    }

    pub(super) fn operation(&mut self, graph: &Graph, id: NodeId) -> Result<Value, ExportError> {
        let node = &graph.nodes[id];
        let name = node.name.as_str();
        let [channels, height, width] = node.shape;
        if let Operation::Input = node.operation {
            return Ok(self.images(id, node.shape));
        }
        let mut x = self.input(graph, id, 0);
        let takes_planes = matches!(
            node.operation,
            Operation::Convolution { .. }
                | Operation::MaxPool(_)
                | Operation::AveragePool { .. }
                | Operation::GlobalAverage
                | Operation::Subsample { .. }
                | Operation::Shuffle { .. }
                | Operation::Pad { .. }
        );
        if takes_planes && x.is_flat {
            let shape = graph.nodes[node.inputs[0]].shape;
            x.name = self.shaped(&format!("{name}/planes"), &x.name, shape);
            x.is_flat = false;
        }
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

    pub(super) fn clip(&mut self, name: &str, x: &str, low: f32, high: f32) -> String {
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
