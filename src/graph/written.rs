//! A network that the experiment file writes down itself, layer by layer.

use std::collections::HashMap;

use super::error::GraphError;
use super::node::Shape;
use super::node::{EPSILON, MOMENTUM};
use super::node::{Function, Graph, NodeId, Operation, Window};

/// One `[[model.layers]]` of an experiment file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LayerSpec {
    /// What it is: `convolution`, `norm`, `relu`, ...
    pub kind: String,
    /// Its name; the kind and a number where absent.
    pub name: Option<String>,
    /// Names of the layers that it reads; the one before it where empty.
    pub from: Vec<String>,
    /// Output channels or features.
    pub channels: Option<usize>,
    /// Kernel extent.
    pub kernel: Option<usize>,
    /// Stride.
    pub stride: Option<usize>,
    /// Padding on every side; half the kernel where absent.
    pub padding: Option<usize>,
    /// Step between taps.
    pub dilation: Option<usize>,
    /// Groups of channels; as many as channels for `depthwise`.
    pub groups: Option<usize>,
    /// Whether a convolution has a bias.
    pub bias: Option<bool>,
    /// How often a residual block stands behind itself.
    pub repeat: Option<usize>,
}

/// Kinds of layers, with what they are.
pub const KINDS: [&str; 15] = [
    "convolution",
    "depthwise",
    "norm",
    "relu",
    "relu6",
    "hard-swish",
    "sigmoid",
    "max-pool",
    "average-pool",
    "global-average",
    "residual",
    "add",
    "concatenate",
    "flatten",
    "affine",
];

/// The graph of some layers. The last affine layer or convolution without `channels` has as many
/// outputs as there are classes.
pub(super) fn graph(
    layers: &[LayerSpec],
    input: Shape,
    classes: usize,
) -> Result<Graph, GraphError> {
    let mut writer = Writer {
        graph: Graph::new(input),
        named: HashMap::from([("input".to_owned(), 0)]),
        classes,
        last: 0,
    };
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for layer in layers {
        let count = counts.entry(layer.kind.as_str()).or_insert(0);
        *count += 1;
        let name = layer
            .name
            .clone()
            .unwrap_or_else(|| format!("{}{count}", layer.kind));
        writer.layer(&name, layer)?;
    }
    Ok(writer.graph)
}

struct Writer {
    graph: Graph,
    named: HashMap<String, NodeId>,
    classes: usize,
    last: NodeId,
}

impl Writer {
    fn layer(&mut self, name: &str, layer: &LayerSpec) -> Result<(), GraphError> {
        if self.named.contains_key(name) {
            return Err(GraphError::node(
                name,
                "a second layer of that name",
                "names of their own",
            ));
        }
        let mut inputs = Vec::with_capacity(layer.from.len());
        for from in &layer.from {
            let id = self.named.get(from).ok_or_else(|| {
                GraphError::node(
                    name,
                    format!("it reads `{from}`, which is not a layer before it"),
                    "a layer before it",
                )
            })?;
            inputs.push(*id);
        }
        if inputs.is_empty() {
            inputs.push(self.last);
        }
        if layer.kind == "average-pool" && layer.dilation.is_some_and(|d| d > 1) {
            return Err(GraphError::node(
                name,
                "an average pool with a dilation",
                "a dilation of 1; convolutions and max pools may have others",
            ));
        }
        // A residual block has layers of its own inside.
        let inside = format!("{name}.");
        let is_taken = |other: &str| other == name || other.starts_with(&inside);
        let mut parameters = self.graph.parameters.iter();
        if self.graph.nodes.iter().any(|n| is_taken(&n.name))
            || parameters.any(|p| is_taken(&p.name))
        {
            return Err(GraphError::node(
                name,
                "a second layer of that name, those inside residual blocks counted",
                "names of their own",
            ));
        }
        let id = self.node(name, layer, &inputs)?;
        self.named.insert(name.to_owned(), id);
        self.last = id;
        Ok(())
    }

    fn node(
        &mut self,
        name: &str,
        layer: &LayerSpec,
        inputs: &[NodeId],
    ) -> Result<NodeId, GraphError> {
        let input = inputs[0];
        let operation = match layer.kind.as_str() {
            "convolution" | "depthwise" => {
                let channels = self.graph.nodes[input].shape[0];
                let depthwise = layer.kind == "depthwise";
                let output =
                    layer
                        .channels
                        .unwrap_or(if depthwise { channels } else { self.classes });
                let groups = layer.groups.unwrap_or(if depthwise { channels } else { 1 });
                let bias = layer.bias.unwrap_or(false);
                let window = window(layer, 3, 1);
                return self
                    .graph
                    .convolution(name, input, output, window, groups, bias);
            }
            "norm" => return self.norm(name, input),
            "residual" => return self.residual(name, layer, input),
            "affine" => {
                let flat = self.flat(name, input)?;
                let output = layer.channels.unwrap_or(self.classes);
                return self.graph.affine(name, flat, output);
            }
            "flatten" => return self.flat(name, input),
            "relu" => Operation::RELU,
            "relu6" => Operation::RELU6,
            "hard-swish" => Operation::Function(Function::HardSwish),
            "sigmoid" => Operation::Function(Function::Sigmoid),
            "max-pool" => Operation::MaxPool(Window {
                padding: [[layer.padding.unwrap_or(0); 2]; 2],
                ..window(layer, 2, layer.kernel.unwrap_or(2))
            }),
            "average-pool" => Operation::AveragePool {
                window: Window {
                    padding: [[layer.padding.unwrap_or(0); 2]; 2],
                    ..window(layer, 2, layer.kernel.unwrap_or(2))
                },
                count_padding: true,
            },
            "global-average" => Operation::GlobalAverage,
            "add" => Operation::Add,
            "concatenate" => Operation::Concatenate,
            other => {
                return Err(GraphError::node(
                    name,
                    format!("a layer of kind `{other}`"),
                    format!("one of {}", KINDS.join(", ")),
                ));
            }
        };
        self.graph.push(name, operation, inputs)
    }

    fn norm(&mut self, name: &str, input: NodeId) -> Result<NodeId, GraphError> {
        let names = ["gamma", "beta", "mean", "var"].map(|entry| format!("{name}.{entry}"));
        self.graph.batch_norm(name, input, names, EPSILON, MOMENTUM)
    }

    fn flat(&mut self, name: &str, input: NodeId) -> Result<NodeId, GraphError> {
        match self.graph.nodes[input].shape {
            [_, 1, 1] => Ok(input),
            shape => {
                let to = [shape.iter().product(), 1, 1];
                self.graph
                    .push(format!("{name}.flat"), Operation::Reshape(to), &[input])
            }
        }
    }

    /// Two 3x3 convolutions with batch norm around which the input goes, projected where shapes
    /// differ.
    fn residual(
        &mut self,
        name: &str,
        layer: &LayerSpec,
        input: NodeId,
    ) -> Result<NodeId, GraphError> {
        let mut x = input;
        let repeat = layer.repeat.unwrap_or(1);
        for index in 0..repeat {
            let at = |entry: &str| match repeat {
                1 => format!("{name}.{entry}"),
                _ => format!("{name}.{}.{entry}", index + 1),
            };
            let stride = if index == 0 {
                layer.stride.unwrap_or(1)
            } else {
                1
            };
            let channels = self.graph.nodes[x].shape[0];
            let output = layer.channels.unwrap_or(channels);
            let kernel = layer.kernel.unwrap_or(3);
            let square = |kernel: usize, stride: usize| Window::square(kernel, stride, kernel / 2);
            let from = x;
            x = self.graph.convolution(
                &at("conv1"),
                x,
                output,
                square(kernel, stride),
                1,
                false,
            )?;
            x = self.norm(&at("norm1"), x)?;
            x = self.graph.push(at("relu1"), Operation::RELU, &[x])?;
            x = self
                .graph
                .convolution(&at("conv2"), x, output, square(kernel, 1), 1, false)?;
            x = self.norm(&at("norm2"), x)?;
            let around = if self.graph.nodes[from].shape == self.graph.nodes[x].shape {
                from
            } else {
                let id = self.graph.convolution(
                    &at("shortcut"),
                    from,
                    output,
                    square(1, stride),
                    1,
                    false,
                )?;
                self.norm(&at("shortcut.norm"), id)?
            };
            x = self.graph.push(at("add"), Operation::Add, &[x, around])?;
            x = self.graph.push(at("relu2"), Operation::RELU, &[x])?;
        }
        Ok(x)
    }
}

fn window(layer: &LayerSpec, kernel: usize, stride: usize) -> Window {
    let kernel = layer.kernel.unwrap_or(kernel);
    let stride = layer.stride.unwrap_or(stride).max(1);
    Window {
        dilation: [layer.dilation.unwrap_or(1).max(1); 2],
        ..Window::square(kernel, stride, layer.padding.unwrap_or(kernel / 2))
    }
}
