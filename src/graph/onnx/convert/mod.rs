//! From the nodes of a file to those of a graph.
//!
//! [`operation`] says which node becomes what; [`layers`] have weights, [`arithmetic`] numbers,
//! [`channels`] are put together and taken apart, [`pools`] and [`shapes`] are what they are called.
//! What a file declares is [`declared`].

mod arithmetic;
mod channels;
mod declared;
mod layers;
mod operation;
mod pools;
mod shapes;

use std::collections::HashMap;
use std::path::Path;

use rten_onnx::onnx::{GraphProto, ModelProto, NodeProto};

use super::constant::{Constant, of_tensor};
use super::fold::pruned;
use crate::graph::error::GraphError;
use crate::graph::model::{Architecture, Built, NormChoice, Values};
use crate::graph::node::{Graph, NodeId, Shape};
use declared::{inputs, sizes, the_one};

pub(super) use declared::declared_shape;

/// What a name of the file stands for.
#[derive(Debug, Clone)]
enum Value {
    /// Numbers.
    Known(Constant),
    /// What a node yields, in the dimensions that the file sees, without the batch's.
    Tensor { node: NodeId, dims: Vec<usize> },
    /// Several values in order.
    Sequence(Vec<Value>),
    /// What an operation would yield that is not known.
    Unknown,
}

/// An operation that is not known.
struct UnknownOperation {
    operation: String,
    name: String,
    feeds: Vec<String>,
}

/// Why a node cannot be converted.
enum Trouble {
    /// The operation, or what it was given, is not known.
    Unknown,
    /// It is known, and wrong.
    Graph(GraphError),
}

impl From<GraphError> for Trouble {
    fn from(error: GraphError) -> Self {
        Self::Graph(error)
    }
}

type Converted = Result<Vec<Value>, Trouble>;

struct Converter<'a> {
    path: &'a Path,
    proto: &'a GraphProto,
    graph: Graph,
    values: Values,
    /// Which tensor of the file each of them is.
    sources: HashMap<String, String>,
    names: HashMap<&'a str, Value>,
    /// How often each name is read.
    readers: HashMap<&'a str, usize>,
    /// Size of the batch as the file was written.
    batch: i64,
    norm: NormChoice,
    fresh_norms: Vec<NodeId>,
    folded: usize,
    notes: Vec<String>,
    output: &'a str,
}

/// See [`super::graph`].
pub(super) fn convert(
    path: &Path,
    model: &ModelProto,
    architecture: &Architecture,
    shape: Option<Shape>,
) -> Result<Built, GraphError> {
    let proto = model
        .graph
        .as_ref()
        .ok_or_else(|| GraphError::file(path, "a file without a graph", super::EXPECTED))?;
    let (wanted_input, wanted_output, norm) = match architecture {
        Architecture::File {
            input,
            output,
            norm,
            ..
        } => (input.as_deref(), output.as_deref(), *norm),
        _ => (None, None, NormChoice::Keep),
    };
    let mut names = HashMap::new();
    for tensor in &proto.initializer {
        let name = tensor.name.as_deref().unwrap_or("");
        names.insert(name, Value::Known(of_tensor(path, tensor)?));
    }
    let input = the_one(path, &inputs(proto), wanted_input, "input")?;
    let outputs: Vec<&str> = proto
        .output
        .iter()
        .filter_map(|o| o.name.as_deref())
        .collect();
    let output = the_one(path, &outputs, wanted_output, "output")?;
    let declared = proto
        .input
        .iter()
        .find(|i| i.name.as_deref() == Some(input));
    let batch = declared.and_then(|i| sizes(i).first().copied().flatten());
    let shape = match shape.or_else(|| declared_shape(proto, Some(input))) {
        Some(shape) => shape,
        None => {
            return Err(GraphError::file(
                path,
                format!("input {input} has no fixed channels, height and width"),
                "pictures whose size is known: the data's, or fixed in the file",
            ));
        }
    };
    let node = Value::Tensor {
        node: 0,
        dims: shape.to_vec(),
    };
    names.insert(input, node);
    let mut readers = HashMap::new();
    for name in proto.node.iter().flat_map(|n| &n.input) {
        *readers.entry(name.as_str()).or_insert(0) += 1;
    }
    *readers.entry(output).or_insert(0) += 1;
    let converter = Converter {
        path,
        proto,
        graph: Graph::new(shape),
        values: Values::new(),
        sources: HashMap::new(),
        names,
        readers,
        batch: batch.map_or(-1, |b| b as i64),
        norm,
        fresh_norms: Vec::new(),
        folded: 0,
        notes: Vec::new(),
        output,
    };
    converter.run()
}

/// A node's name without what exporters put around it.
fn plain_name(node: &NodeProto) -> String {
    let output = node.output.first().map_or("", String::as_str);
    let name = node
        .name
        .as_deref()
        .filter(|n| !n.is_empty())
        .unwrap_or(output);
    let name = name.trim_start_matches('/');
    name.strip_prefix("node_").unwrap_or(name).to_owned()
}

/// Which tensor of the file a constant is: the one of its name, or what the node that reads it makes of it.
fn source_of(node: &NodeProto, constant: &Constant) -> String {
    let reader = || node.output.first().map_or("", String::as_str);
    constant.name.as_deref().unwrap_or_else(reader).to_owned()
}

/// Dimensions of a value as a graph's shape.
fn shape_of(dims: &[usize]) -> Option<Shape> {
    match *dims {
        [] => Some([1, 1, 1]),
        [f] => Some([f, 1, 1]),
        [c, l] => Some([c, l, 1]),
        [c, h, w] => Some([c, h, w]),
        _ => None,
    }
}

impl<'a> Converter<'a> {
    fn run(mut self) -> Result<Built, GraphError> {
        let mut unknown = Vec::new();
        let proto = self.proto;
        for node in &proto.node {
            match self.node(node) {
                Ok(values) => {
                    for (name, value) in node.output.iter().zip(values) {
                        self.names.insert(name, value);
                    }
                }
                Err(Trouble::Graph(error)) => return Err(self.located(error)),
                Err(Trouble::Unknown) => {
                    unknown.push(self.unknown(node));
                    for name in &node.output {
                        self.names.insert(name, Value::Unknown);
                    }
                }
            }
        }
        if !unknown.is_empty() {
            let all: Vec<String> = unknown
                .iter()
                .map(|u| {
                    let feeds = if u.feeds.is_empty() {
                        "the output".to_owned()
                    } else {
                        u.feeds.join(", ")
                    };
                    format!("{} `{}`, which feeds {feeds}", u.operation, u.name)
                })
                .collect();
            let found = format!("unsupported operations: {}", all.join("; "));
            return Err(GraphError::file(
                self.path,
                found,
                "a convolutional network's operations",
            ));
        }
        self.finish()
    }

    fn unknown(&self, node: &NodeProto) -> UnknownOperation {
        let reads = |other: &&NodeProto| other.input.iter().any(|i| node.output.contains(i));
        let domain = node.domain.as_deref().filter(|d| !d.is_empty());
        let operation = node.op_type.as_deref().unwrap_or("");
        UnknownOperation {
            operation: domain.map_or(operation.to_owned(), |d| format!("{d}.{operation}")),
            name: node.name.clone().unwrap_or_default(),
            feeds: self
                .proto
                .node
                .iter()
                .filter(reads)
                .map(|n| {
                    let operation = n.op_type.as_deref().unwrap_or("");
                    format!("{operation} `{}`", n.name.as_deref().unwrap_or(""))
                })
                .collect(),
        }
    }

    fn located(&self, error: GraphError) -> GraphError {
        match error {
            GraphError::Node {
                node,
                found,
                expected,
            } => GraphError::file(self.path, format!("{node}: {found}"), expected),
            other => other,
        }
    }

    fn finish(mut self) -> Result<Built, GraphError> {
        let (node, dims) = match self.names.get(self.output) {
            Some(Value::Tensor { node, dims }) => (*node, dims.clone()),
            _ => {
                return Err(GraphError::file(
                    self.path,
                    format!("output {} does not depend on the input", self.output),
                    "logits",
                ));
            }
        };
        if !matches!(shape_of(&dims), Some([_, 1, 1])) {
            return Err(GraphError::file(
                self.path,
                format!("output {} of shape {dims:?} per picture", self.output),
                "logits, one number per class",
            ));
        }
        let (graph, places) = pruned(&self.graph, node);
        let kept = |name: &str| {
            graph.parameters.iter().any(|p| p.name == name)
                || graph
                    .norms
                    .iter()
                    .any(|n| n.entries.iter().any(|e| e == name))
        };
        self.values.retain(|name, _| kept(name));
        if let Some((name, _)) =
            (self.values.iter()).find(|(_, v)| v.iter().any(|v| !v.is_finite()))
        {
            return Err(GraphError::file(
                self.path,
                format!("tensor {name} holds a value that is not finite"),
                "finite weights",
            ));
        }
        let has_norms = !graph.norms.is_empty();
        if self.folded > 0 && !has_norms {
            self.notes.push(format!(
                "{} convolutions have a bias and none has a batch norm: the exporter seems to have folded them; \
                 `model.norm = \"fresh\"` gives each a new one",
                self.folded
            ));
        }
        Ok(Built {
            fresh_norms: self.fresh_norms.iter().filter_map(|n| places[*n]).collect(),
            graph,
            values: self.values,
            notes: self.notes,
        })
    }
}

#[cfg(test)]
mod tests;
