//! From the nodes of a file to those of a graph.

use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;

use rten_onnx::onnx::{GraphProto, ModelProto, NodeProto, ValueInfoProto};

use super::super::error::GraphError;
use super::super::model::{Architecture, Built, NormChoice, Values};
use super::super::node::Shape;
use super::super::node::{EPSILON, MOMENTUM};
use super::super::node::{Function, Graph, Kind, NodeId, Operation, Window};
use super::attributes::Attributes;
use super::constant::{Constant, of_tensor};
use super::evaluate::{between, evaluate};
use super::fold::pruned;

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

/// Names of the inputs that are no weights.
fn inputs(proto: &GraphProto) -> Vec<&str> {
    let weights = |name: &str| {
        proto
            .initializer
            .iter()
            .any(|t| t.name.as_deref() == Some(name))
    };
    proto
        .input
        .iter()
        .filter_map(|i| i.name.as_deref())
        .filter(|name| !weights(name))
        .collect()
}

/// Sizes that an input declares; `None` where they are dynamic.
fn sizes(info: &ValueInfoProto) -> Vec<Option<usize>> {
    let tensor = info.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
    let shape = tensor.and_then(|t| t.shape.as_ref());
    let dims = shape.map_or(&[][..], |s| &s.dim[..]);
    dims.iter()
        .map(|d| {
            d.dim_value
                .and_then(|v| usize::try_from(v).ok())
                .filter(|v| *v > 0)
        })
        .collect()
}

/// See [`super::declared`].
pub(super) fn declared_shape(proto: &GraphProto, input: Option<&str>) -> Option<Shape> {
    let names = inputs(proto);
    let name = input.or_else(|| names.first().copied())?;
    let info = proto
        .input
        .iter()
        .find(|i| i.name.as_deref() == Some(name))?;
    match sizes(info)[..] {
        [_, c, h, w] => Some([c?, h?, w?]),
        _ => None,
    }
}

fn the_one<'a>(
    path: &Path,
    all: &[&'a str],
    wanted: Option<&str>,
    what: &str,
) -> Result<&'a str, GraphError> {
    let list = || {
        let names: Vec<String> = all.iter().map(|n| format!("`{n}`")).collect();
        names.join(", ")
    };
    match (wanted, all) {
        (Some(wanted), _) => all.iter().copied().find(|n| *n == wanted).ok_or_else(|| {
            GraphError::file(
                path,
                format!("no {what} `{wanted}`"),
                format!("`model.{what}` one of {}", list()),
            )
        }),
        (None, [one]) => Ok(one),
        (None, []) => Err(GraphError::file(
            path,
            format!("no {what}"),
            format!("one {what}"),
        )),
        (None, _) => Err(GraphError::file(
            path,
            format!("{} {what}s: {}", all.len(), list()),
            format!("`model.{what}` to name one of them"),
        )),
    }
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

    fn input(&self, node: &NodeProto, index: usize) -> Option<&Value> {
        let name = node.input.get(index).filter(|n| !n.is_empty())?;
        self.names.get(name.as_str())
    }

    fn known(&self, node: &NodeProto, index: usize) -> Option<&Constant> {
        match self.input(node, index) {
            Some(Value::Known(constant)) => Some(constant),
            _ => None,
        }
    }

    /// Whole numbers of an input, or of an attribute where older opsets have them.
    fn ints(&self, node: &NodeProto, index: usize, attribute: &str) -> Option<Vec<i64>> {
        self.known(node, index)
            .and_then(Constant::to_ints)
            .or_else(|| Attributes::of(node).ints(attribute).map(<[i64]>::to_vec))
    }

    fn tensor(&self, node: &NodeProto, index: usize) -> Result<(NodeId, Vec<usize>), Trouble> {
        match self.input(node, index) {
            Some(Value::Tensor { node, dims }) => Ok((*node, dims.clone())),
            _ => Err(Trouble::Unknown),
        }
    }

    /// Pushes a node of one input that keeps dimensions.
    fn push(
        &mut self,
        name: String,
        operation: Operation,
        input: NodeId,
        dims: Vec<usize>,
    ) -> Converted {
        let node = self.graph.push(name, operation, &[input])?;
        Ok(vec![Value::Tensor { node, dims }])
    }

    fn node(&mut self, node: &NodeProto) -> Converted {
        let poisoned = node
            .input
            .iter()
            .any(|name| matches!(self.names.get(name.as_str()), Some(Value::Unknown)));
        if poisoned {
            return Ok(vec![Value::Unknown; node.output.len()]);
        }
        if let Some(missing) = node
            .input
            .iter()
            .find(|name| !name.is_empty() && !self.names.contains_key(name.as_str()))
        {
            return Err(Trouble::Graph(GraphError::node(
                &plain_name(node),
                format!("input `{missing}` that no node outputs"),
                "values of nodes before it",
            )));
        }
        let standard = node
            .domain
            .as_deref()
            .is_none_or(|d| d.is_empty() || d == "ai.onnx");
        if !standard {
            return Err(Trouble::Unknown);
        }
        // (What a cast is like decides its type alone.)
        let counts = match node.op_type.as_deref() {
            Some("CastLike") => 1,
            _ => node.input.len(),
        };
        let constants: Option<Vec<Option<Constant>>> = (0..counts)
            .map(|i| match self.input(node, i) {
                None => Some(None),
                Some(Value::Known(constant)) => Some(Some(constant.clone())),
                Some(_) => None,
            })
            .collect();
        match constants {
            Some(inputs) => {
                let mut value = evaluate(self.path, node, &inputs)?.ok_or(Trouble::Unknown)?;
                // Exporters keep equal tensors once and give the others' names by an identity; they
                // are parameters of their own all the same.
                if node.op_type.as_deref() == Some("Identity") && value.name.is_some() {
                    value.name = node.output.first().map(|name| Rc::from(name.as_str()));
                }
                Ok(vec![Value::Known(value)])
            }
            None => self.operation(node),
        }
    }

    fn operation(&mut self, node: &NodeProto) -> Converted {
        let name = plain_name(node);
        let attributes = Attributes::of(node);
        let unary = |operation: Operation, this: &mut Self| -> Converted {
            let (input, dims) = this.tensor(node, 0)?;
            this.push(name.clone(), operation, input, dims)
        };
        match node.op_type.as_deref().unwrap_or("") {
            "Conv" => self.convolution(node),
            "BatchNormalization" => self.batch_norm(node),
            "Gemm" | "MatMul" => self.affine(node),
            "Relu" => unary(Operation::RELU, self),
            "Clip" => {
                let bound = |index: usize, attribute: &str, otherwise: f32| {
                    let given = self.known(node, index).and_then(Constant::scalar);
                    given
                        .or_else(|| attributes.float(attribute))
                        .unwrap_or(otherwise)
                };
                let low = bound(1, "min", f32::NEG_INFINITY);
                let high = bound(2, "max", f32::INFINITY);
                unary(Operation::Clip { low, high }, self)
            }
            "Max" | "Min" => self.bound(node),
            "Sigmoid" => unary(Operation::Function(Function::Sigmoid), self),
            "Tanh" => unary(Operation::Function(Function::Tanh), self),
            "HardSwish" => unary(Operation::Function(Function::HardSwish), self),
            "HardSigmoid" => {
                let alpha = attributes.float("alpha").unwrap_or(0.2);
                let beta = attributes.float("beta").unwrap_or(0.5);
                unary(
                    Operation::Function(Function::HardSigmoid { alpha, beta }),
                    self,
                )
            }
            "LeakyRelu" => {
                let slope = attributes.float("alpha").unwrap_or(0.01);
                unary(Operation::Function(Function::LeakyRelu { slope }), self)
            }
            "Add" => self.sum(node),
            "Sub" | "Div" | "Mul" => self.product(node),
            "Concat" => self.concatenation(node),
            "Split" => self.split(node),
            "SplitToSequence" => {
                let parts = self.split(node)?;
                Ok(vec![Value::Sequence(parts)])
            }
            "SequenceAt" => {
                let at = self.known(node, 1).and_then(Constant::scalar);
                match (self.input(node, 0), at) {
                    (Some(Value::Sequence(parts)), Some(at)) => {
                        let length = parts.len() as f32;
                        let at = if at < 0.0 { at + length } else { at };
                        let part = parts.get(at as usize).cloned();
                        part.map(|part| vec![part]).ok_or(Trouble::Unknown)
                    }
                    _ => Err(Trouble::Unknown),
                }
            }
            "Gather" => self.channel(node),
            "Slice" => self.slice(node),
            "MaxPool" | "AveragePool" => self.pool(node),
            "GlobalAveragePool" | "GlobalMaxPool" | "ReduceMean" => self.global_pool(node),
            "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze" => self.reshape(node),
            "Transpose" => self.transpose(node),
            "Pad" => self.pad(node),
            // Gradients and evaluation go on as if they were not there.
            "Identity" | "Cast" | "CastLike" | "Dropout" => {
                let (input, dims) = self.tensor(node, 0)?;
                Ok(vec![Value::Tensor { node: input, dims }])
            }
            "Softmax" | "LogSoftmax"
                if node.output.first().map(String::as_str) == Some(self.output) =>
            {
                self.notes.push(format!(
                    "{} at the end is left out: training takes the logits before it",
                    node.op_type.as_deref().unwrap_or("")
                ));
                let (input, dims) = self.tensor(node, 0)?;
                Ok(vec![Value::Tensor { node: input, dims }])
            }
            "Shape" => {
                let (_, dims) = self.tensor(node, 0)?;
                let mut all = vec![self.batch.abs()];
                all.extend(dims.iter().map(|d| *d as i64));
                Ok(vec![Value::Known(Constant::ints(between(
                    &all, attributes,
                )))])
            }
            _ => Err(Trouble::Unknown),
        }
    }

    /// The name of a layer, by its weights where they have one.
    fn layer_name(&self, node: &NodeProto, weight: &Constant) -> String {
        let named = weight
            .name
            .as_deref()
            .and_then(|n| n.strip_suffix(".weight"));
        named.map_or_else(|| plain_name(node), str::to_owned)
    }

    fn store(&mut self, name: String, values: &Rc<[f32]>) -> String {
        self.values.insert(name.clone(), values.to_vec());
        name
    }

    fn convolution(&mut self, node: &NodeProto) -> Converted {
        let (input, dims) = self.tensor(node, 0)?;
        let weight = self.known(node, 1).cloned().ok_or(Trouble::Unknown)?;
        let name = self.layer_name(node, &weight);
        let (&[_, h, w], &[output, _, kh, kw]) = (&dims[..], &weight.dims[..]) else {
            return Err(Trouble::Graph(GraphError::node(
                &name,
                format!("an input of {dims:?} under weights {:?}", weight.dims),
                "a two-dimensional convolution",
            )));
        };
        let attributes = Attributes::of(node);
        let groups = attributes.int("group").unwrap_or(1);
        let groups = usize::try_from(groups).map_err(|_| Trouble::Unknown)?;
        let window = window(attributes, [kh, kw], [h, w]).ok_or(Trouble::Unknown)?;
        let bias = self.known(node, 2).cloned();
        // Exporters write the bias that a convolution does not have as zeros that they compute.
        let bias = bias.filter(|b| b.name.is_some() || b.to_floats().iter().any(|v| *v != 0.0));
        let shape = [output, weight.dims[1], kh, kw];
        let stored = self.store(format!("{name}.weight"), &weight.to_floats());
        let weight = self.graph.parameter(stored, Kind::Weight, &shape);
        if bias.is_some() {
            self.folded += 1;
        }
        let fresh = self.norm == NormChoice::Fresh;
        let kept = bias.as_ref().filter(|_| !fresh).map(|bias| {
            let stored = self.store(format!("{name}.bias"), &bias.to_floats());
            self.graph.parameter(stored, Kind::Bias, &[output])
        });
        let operation = Operation::Convolution {
            weight,
            bias: kept,
            window,
            groups,
        };
        let mut id = self.graph.push(name.clone(), operation, &[input])?;
        if let Some(bias) = bias.filter(|_| fresh) {
            id = self.fresh_norm(&name, id, &bias.to_floats())?;
        }
        let dims = self.graph.nodes[id].shape.to_vec();
        Ok(vec![Value::Tensor { node: id, dims }])
    }

    /// A batch norm that is the identity plus `bias`, to be calibrated.
    fn fresh_norm(
        &mut self,
        name: &str,
        input: NodeId,
        bias: &Rc<[f32]>,
    ) -> Result<NodeId, GraphError> {
        let name = format!("{name}.norm");
        let channels = bias.len();
        let of = |v: f32| Rc::<[f32]>::from(vec![v; channels]);
        let names = [
            self.store(format!("{name}.weight"), &of(1.0)),
            self.store(format!("{name}.bias"), bias),
            self.store(format!("{name}.running_mean"), &of(0.0)),
            self.store(format!("{name}.running_var"), &of(1.0 - EPSILON)),
        ];
        let id = self
            .graph
            .batch_norm(&name, input, names, EPSILON, MOMENTUM)?;
        self.fresh_norms.push(id);
        Ok(id)
    }

    fn batch_norm(&mut self, node: &NodeProto) -> Converted {
        let (input, dims) = self.tensor(node, 0)?;
        let attributes = Attributes::of(node);
        let all: Option<Vec<Constant>> = (1..5).map(|i| self.known(node, i).cloned()).collect();
        let all = all.ok_or(Trouble::Unknown)?;
        // Equal scales may be one tensor of the file; the statistics are the norm's own.
        let own = all[2]
            .name
            .as_deref()
            .and_then(|n| n.strip_suffix(".running_mean"));
        let name = own.map_or_else(|| self.layer_name(node, &all[0]), str::to_owned);
        let entries = ["weight", "bias", "running_mean", "running_var"];
        let mut names = Vec::with_capacity(4);
        for (constant, entry) in all.iter().zip(entries) {
            if constant.len() != dims[0] {
                return Err(Trouble::Graph(GraphError::node(
                    &name,
                    format!("{} numbers for {} channels", constant.len(), dims[0]),
                    "one per channel",
                )));
            }
            names.push(self.store(format!("{name}.{entry}"), &constant.to_floats()));
        }
        let names: [String; 4] = names.try_into().map_err(|_| Trouble::Unknown)?;
        let epsilon = attributes.float("epsilon").unwrap_or(1e-5);
        let momentum = attributes.float("momentum").unwrap_or(0.9);
        let id = self
            .graph
            .batch_norm(&name, input, names, epsilon, momentum)?;
        // Outputs of training mode follow; nothing in a classifier reads them.
        let mut values = vec![Value::Tensor { node: id, dims }];
        values.resize(node.output.len().max(1), Value::Unknown);
        Ok(values)
    }

    fn affine(&mut self, node: &NodeProto) -> Converted {
        let (input, dims) = self.tensor(node, 0)?;
        let attributes = Attributes::of(node);
        let weight = self.known(node, 1).cloned().ok_or(Trouble::Unknown)?;
        let name = self.layer_name(node, &weight);
        let &[rows, columns] = &weight.dims[..] else {
            return Err(Trouble::Unknown);
        };
        let flag = |name: &str| attributes.int(name).unwrap_or(0) != 0;
        if flag("transA") || dims.len() != 1 {
            return Err(Trouble::Graph(GraphError::node(
                &name,
                format!("an input of {dims:?} per picture"),
                "a vector",
            )));
        }
        let scale = |name: &str| attributes.float(name).unwrap_or(1.0);
        let scaled = |values: Rc<[f32]>, factor: f32| -> Rc<[f32]> {
            if factor == 1.0 {
                values
            } else {
                values.iter().map(|v| v * factor).collect()
            }
        };
        let values = scaled(weight.to_floats(), scale("alpha"));
        let (values, [output, features]) = if flag("transB") {
            (values, [rows, columns])
        } else {
            let turned = (0..columns)
                .flat_map(|c| (0..rows).map(move |r| (r, c)))
                .map(|(r, c)| values[r * columns + c]);
            (turned.collect::<Rc<[f32]>>(), [columns, rows])
        };
        let stored = self.store(format!("{name}.weight"), &values);
        let weight = self
            .graph
            .parameter(stored, Kind::Weight, &[output, features]);
        let bias = match self.known(node, 2).cloned() {
            Some(bias) if bias.len() == output => {
                let values = scaled(bias.to_floats(), scale("beta"));
                let stored = self.store(format!("{name}.bias"), &values);
                Some(self.graph.parameter(stored, Kind::Bias, &[output]))
            }
            Some(_) => return Err(Trouble::Unknown),
            None => None,
        };
        let id = self
            .graph
            .push(name, Operation::Affine { weight, bias }, &[input])?;
        Ok(vec![Value::Tensor {
            node: id,
            dims: vec![output],
        }])
    }

    /// The larger or smaller of a value and a number.
    fn bound(&mut self, node: &NodeProto) -> Converted {
        let (value, number) = self.with_number(node)?;
        let number = number.scalar().ok_or(Trouble::Unknown)?;
        let (low, high) = match node.op_type.as_deref() {
            Some("Max") => (number, f32::INFINITY),
            _ => (f32::NEG_INFINITY, number),
        };
        let (input, dims) = value;
        self.push(plain_name(node), Operation::Clip { low, high }, input, dims)
    }

    /// The two inputs of a node of which one is known.
    fn with_number(&self, node: &NodeProto) -> Result<((NodeId, Vec<usize>), Constant), Trouble> {
        let pair = |value: usize, number: usize| {
            let constant = self.known(node, number)?.clone();
            Some((self.tensor(node, value).ok()?, constant))
        };
        (node.input.len() == 2)
            .then(|| pair(0, 1).or_else(|| pair(1, 0)))
            .flatten()
            .ok_or(Trouble::Unknown)
    }

    fn sum(&mut self, node: &NodeProto) -> Converted {
        if let Ok(((input, dims), number)) = self.with_number(node) {
            if let Some(value) = self.late_bias(node, input, &dims, &number) {
                return Ok(vec![value]);
            }
            let shift = per_channel(&dims, &number).ok_or(Trouble::Unknown)?;
            let scale = vec![1.0; shift.len()];
            return self.push(
                plain_name(node),
                Operation::Scale { scale, shift },
                input,
                dims,
            );
        }
        let ((a, dims), (b, _)) = (self.tensor(node, 0)?, self.tensor(node, 1)?);
        let id = self.graph.push(plain_name(node), Operation::Add, &[a, b])?;
        Ok(vec![Value::Tensor { node: id, dims }])
    }

    /// A bias that stands behind its layer as an addition.
    fn late_bias(
        &mut self,
        node: &NodeProto,
        input: NodeId,
        dims: &[usize],
        number: &Constant,
    ) -> Option<Value> {
        let read_once = |name: &String| self.readers.get(name.as_str()) == Some(&1);
        if !node.input.iter().any(read_once) || number.len() != dims[0] {
            return None;
        }
        per_channel(dims, number)?;
        let base = self.graph.nodes[input].name.clone();
        let index = match &self.graph.nodes[input].operation {
            Operation::Affine { bias: None, .. } | Operation::Convolution { bias: None, .. } => {
                let stored = self.store(format!("{base}.bias"), &number.to_floats());
                self.graph.parameter(stored, Kind::Bias, &[dims[0]])
            }
            _ => return None,
        };
        if let Operation::Affine { bias, .. } | Operation::Convolution { bias, .. } =
            &mut self.graph.nodes[input].operation
        {
            *bias = Some(index);
        }
        Some(Value::Tensor {
            node: input,
            dims: dims.to_vec(),
        })
    }

    fn product(&mut self, node: &NodeProto) -> Converted {
        let name = plain_name(node);
        let operation = node.op_type.as_deref().unwrap_or("");
        if let Ok(((input, dims), number)) = self.with_number(node) {
            let values = per_channel(&dims, &number).ok_or(Trouble::Unknown)?;
            let number_first = self.known(node, 0).is_some();
            let each = |f: fn(f32) -> f32| values.iter().map(|v| f(*v)).collect::<Vec<f32>>();
            let constant = |v: f32| vec![v; values.len()];
            let (scale, shift) = match (operation, number_first) {
                ("Mul", _) => (values.clone(), constant(0.0)),
                ("Div", false) => (each(|v| 1.0 / v), constant(0.0)),
                ("Sub", false) => (constant(1.0), each(|v| -v)),
                ("Sub", true) => (constant(-1.0), values.clone()),
                _ => return Err(Trouble::Unknown),
            };
            if scale.iter().all(|v| *v == 1.0) && shift.iter().all(|v| *v == 0.0) {
                return Ok(vec![Value::Tensor { node: input, dims }]);
            }
            return self.push(name, Operation::Scale { scale, shift }, input, dims);
        }
        if operation != "Mul" {
            return Err(Trouble::Unknown);
        }
        let ((a, dims), (b, others)) = (self.tensor(node, 0)?, self.tensor(node, 1)?);
        let size = |dims: &[usize]| dims.iter().product::<usize>();
        let (first, second, dims) = if size(&dims) >= size(&others) {
            (a, b, dims)
        } else {
            (b, a, others)
        };
        let id = self
            .graph
            .push(name, Operation::Multiply, &[first, second])?;
        Ok(vec![Value::Tensor { node: id, dims }])
    }

    /// Whether an attribute names the axis of channels.
    fn is_channel_axis(axis: i64, rank: usize) -> bool {
        axis == 1 || axis == 1 - (rank as i64 + 1)
    }

    fn concatenation(&mut self, node: &NodeProto) -> Converted {
        let all: Result<Vec<_>, _> = (0..node.input.len())
            .map(|i| self.tensor(node, i))
            .collect();
        let all = all?;
        let rank = all[0].1.len();
        let axis = Attributes::of(node).int("axis").unwrap_or(1);
        if !Self::is_channel_axis(axis, rank) {
            return Err(Trouble::Unknown);
        }
        let inputs: Vec<NodeId> = all.iter().map(|(id, _)| *id).collect();
        let id = self
            .graph
            .push(plain_name(node), Operation::Concatenate, &inputs)?;
        let mut dims = all[0].1.clone();
        dims[0] = self.graph.nodes[id].shape[0];
        Ok(vec![Value::Tensor { node: id, dims }])
    }

    fn split(&mut self, node: &NodeProto) -> Converted {
        let (input, dims) = self.tensor(node, 0)?;
        let axis = Attributes::of(node).int("axis").unwrap_or(0);
        if !Self::is_channel_axis(axis, dims.len()) {
            return Err(Trouble::Unknown);
        }
        let in_sequence = node.op_type.as_deref() == Some("SplitToSequence");
        let given = self.ints(node, 1, "split");
        let each = match given.as_deref() {
            Some(&[each]) if in_sequence => usize::try_from(each).ok().filter(|n| *n > 0),
            None if in_sequence => Some(1),
            _ => None,
        };
        let parts = match (each, &given) {
            (Some(each), _) => dims[0].div_ceil(each),
            (None, Some(lengths)) if in_sequence => lengths.len(),
            _ => node.output.len(),
        };
        let given = given.filter(|_| each.is_none());
        let lengths: Vec<usize> = match given {
            Some(lengths) => lengths.iter().map(|l| (*l).max(0) as usize).collect(),
            None => {
                let each = each.unwrap_or(dims[0].div_ceil(parts));
                (0..parts)
                    .map(|i| each.min(dims[0].saturating_sub(i * each)))
                    .collect()
            }
        };
        let mut start = 0;
        let mut values = Vec::with_capacity(parts);
        for (i, length) in lengths.into_iter().take(parts).enumerate() {
            let end = start + length;
            let operation = Operation::Slice { start, end };
            let name = format!("{}.{i}", plain_name(node));
            let id = self.graph.push(name, operation, &[input])?;
            let mut dims = dims.clone();
            dims[0] = length;
            values.push(Value::Tensor { node: id, dims });
            start = end;
        }
        Ok(values)
    }

    /// One channel of a value, by its number.
    fn channel(&mut self, node: &NodeProto) -> Converted {
        let (input, dims) = self.tensor(node, 0)?;
        let axis = Attributes::of(node).int("axis").unwrap_or(0);
        let at = self.known(node, 1).cloned().ok_or(Trouble::Unknown)?;
        let number = at.scalar().ok_or(Trouble::Unknown)?;
        if !Self::is_channel_axis(axis, dims.len()) {
            return Err(Trouble::Unknown);
        }
        let start = if number < 0.0 {
            number + dims[0] as f32
        } else {
            number
        } as usize;
        let name = plain_name(node);
        let operation = Operation::Slice {
            start,
            end: start + 1,
        };
        let id = self.graph.push(name.clone(), operation, &[input])?;
        let left = match at.dims.is_empty() {
            true => dims[1..].to_vec(),
            false => [&[1], &dims[1..]].concat(),
        };
        self.seen_as(id, &left, &name)
    }

    fn slice(&mut self, node: &NodeProto) -> Converted {
        let (input, mut dims) = self.tensor(node, 0)?;
        let starts = self.ints(node, 1, "starts").ok_or(Trouble::Unknown)?;
        let ends = self.ints(node, 2, "ends").ok_or(Trouble::Unknown)?;
        let axes = self.ints(node, 3, "axes").unwrap_or_else(|| vec![0]);
        let steps = self.ints(node, 4, "steps").unwrap_or_else(|| vec![1]);
        let (&[start], &[end], &[axis], &[1]) = (&starts[..], &ends[..], &axes[..], &steps[..])
        else {
            return Err(Trouble::Unknown);
        };
        if !Self::is_channel_axis(axis, dims.len()) {
            return Err(Trouble::Unknown);
        }
        let channels = dims[0] as i64;
        let place = |v: i64| if v < 0 { v + channels } else { v }.clamp(0, channels) as usize;
        let (start, end) = (place(start), place(end));
        dims[0] = end.saturating_sub(start);
        self.push(
            plain_name(node),
            Operation::Slice { start, end },
            input,
            dims,
        )
    }

    fn pool(&mut self, node: &NodeProto) -> Converted {
        let (input, dims) = self.tensor(node, 0)?;
        let attributes = Attributes::of(node);
        let &[_, h, w] = &dims[..] else {
            return Err(Trouble::Unknown);
        };
        let kernel = attributes.pair("kernel_shape", 1).ok_or(Trouble::Unknown)?;
        let window = window(attributes, kernel, [h, w]).ok_or(Trouble::Unknown)?;
        let operation = if node.op_type.as_deref() == Some("MaxPool") {
            Operation::MaxPool(window)
        } else {
            if window.dilation != [1, 1] {
                return Err(Trouble::Unknown);
            }
            Operation::AveragePool {
                window,
                count_padding: attributes.int("count_include_pad").unwrap_or(0) != 0,
            }
        };
        let id = self.graph.push(plain_name(node), operation, &[input])?;
        let dims = self.graph.nodes[id].shape.to_vec();
        Ok(vec![Value::Tensor { node: id, dims }])
    }

    fn global_pool(&mut self, node: &NodeProto) -> Converted {
        let (input, dims) = self.tensor(node, 0)?;
        let attributes = Attributes::of(node);
        let name = plain_name(node);
        let shape = self.graph.nodes[input].shape;
        let operation = node.op_type.as_deref().unwrap_or("");
        let rank = dims.len() as i64 + 1;
        let keeps = operation != "ReduceMean" || attributes.int("keepdims").unwrap_or(1) != 0;
        let axes = match operation {
            "ReduceMean" => self.ints(node, 1, "axes").ok_or(Trouble::Unknown)?,
            _ => (2..rank).collect(),
        };
        let mut axes: Vec<i64> = axes
            .iter()
            .map(|a| if *a < 0 { a + rank } else { *a })
            .collect();
        axes.sort_unstable();
        let spatial: Vec<i64> = (2..rank).collect();
        let id = if operation == "GlobalMaxPool" {
            let mut window = Window::square(1, 1, 0);
            window.kernel = [shape[1], shape[2]];
            self.graph
                .push(name, Operation::MaxPool(window), &[input])?
        } else if axes == spatial {
            self.graph.push(name, Operation::GlobalAverage, &[input])?
        } else if axes == [3] || axes == [2] && rank == 4 {
            let mut window = Window::square(1, 1, 0);
            window.kernel = if axes == [3] {
                [1, shape[2]]
            } else {
                [shape[1], 1]
            };
            let operation = Operation::AveragePool {
                window,
                count_padding: true,
            };
            self.graph.push(name, operation, &[input])?
        } else {
            return Err(Trouble::Unknown);
        };
        let dims: Vec<usize> = dims
            .iter()
            .enumerate()
            .filter_map(|(i, size)| match axes.contains(&(i as i64 + 1)) {
                true => keeps.then_some(1),
                false => Some(*size),
            })
            .collect();
        self.seen_as(id, &dims, &plain_name(node))
    }

    /// A node's value in other dimensions; a reshape where the numbers lie otherwise.
    fn seen_as(&mut self, id: NodeId, dims: &[usize], name: &str) -> Converted {
        let own = self.graph.nodes[id].shape;
        let node = match shape_of(dims) {
            Some(shape) if shape != own => {
                self.graph.push(name, Operation::Reshape(shape), &[id])?
            }
            // Four dimensions and more are on their way to a transposition.
            _ => id,
        };
        Ok(vec![Value::Tensor {
            node,
            dims: dims.to_vec(),
        }])
    }

    fn reshape(&mut self, node: &NodeProto) -> Converted {
        let (input, dims) = self.tensor(node, 0)?;
        let attributes = Attributes::of(node);
        let name = plain_name(node);
        let total: usize = dims.iter().product();
        let rank = dims.len() as i64 + 1;
        let to: Vec<usize> = match node.op_type.as_deref().unwrap_or("") {
            "Flatten" => match attributes.int("axis").unwrap_or(1) {
                1 => vec![total],
                _ => return Err(Trouble::Unknown),
            },
            "Squeeze" => {
                let axes = self.ints(node, 1, "axes");
                let gone = |i: usize| match &axes {
                    None => dims[i] == 1,
                    Some(axes) => axes
                        .iter()
                        .any(|a| if *a < 0 { a + rank } else { *a } == i as i64 + 1),
                };
                (0..dims.len())
                    .filter(|i| !gone(*i))
                    .map(|i| dims[i])
                    .collect()
            }
            "Unsqueeze" => {
                let axes = self.ints(node, 1, "axes").ok_or(Trouble::Unknown)?;
                let rank = rank + axes.len() as i64;
                let axes: Vec<i64> = axes
                    .iter()
                    .map(|a| if *a < 0 { a + rank } else { *a })
                    .collect();
                if axes.contains(&0) {
                    return Err(Trouble::Unknown);
                }
                let mut rest = dims.iter().copied();
                (1..rank)
                    .filter_map(|i| {
                        if axes.contains(&i) {
                            Some(1)
                        } else {
                            rest.next()
                        }
                    })
                    .collect()
            }
            _ => {
                let target = self.known(node, 1).and_then(Constant::to_ints);
                let target = target.ok_or(Trouble::Unknown)?;
                let zero_counts = attributes.int("allowzero").unwrap_or(0) == 0;
                self.target(&target, &dims, zero_counts).ok_or_else(|| {
                    Trouble::Graph(GraphError::node(
                        &name,
                        format!("{dims:?} per picture to {target:?}"),
                        "a shape that keeps pictures apart and has as many elements; the file may have been \
                         written for pictures of another size",
                    ))
                })?
            }
        };
        self.seen_as(input, &to, &name)
    }

    /// What a reshape makes of one picture.
    fn target(&self, target: &[i64], dims: &[usize], zero_copies: bool) -> Option<Vec<usize>> {
        let total: usize = dims.iter().product();
        let (first, rest) = target.split_first()?;
        let same_batch =
            *first == -1 || (*first == 0 && zero_copies) || *first == self.batch || self.batch < 0;
        if !same_batch {
            return None;
        }
        let given: Option<Vec<Option<usize>>> = rest
            .iter()
            .enumerate()
            .map(|(i, size)| match size {
                -1 => Some(None),
                0 if zero_copies => dims.get(i).map(|d| Some(*d)),
                size => usize::try_from(*size).ok().map(Some),
            })
            .collect();
        let given = given?;
        let known: usize = given.iter().flatten().product();
        let free = given.iter().filter(|d| d.is_none()).count();
        if known == 0 || free > 1 || !total.is_multiple_of(known) || (free == 0 && known != total) {
            return None;
        }
        Some(
            given
                .into_iter()
                .map(|d| d.unwrap_or(total / known))
                .collect(),
        )
    }

    fn transpose(&mut self, node: &NodeProto) -> Converted {
        let (input, dims) = self.tensor(node, 0)?;
        let order = Attributes::of(node).ints("perm").ok_or(Trouble::Unknown)?;
        let in_place = order.iter().enumerate().all(|(i, o)| i as i64 == *o);
        if in_place {
            return Ok(vec![Value::Tensor { node: input, dims }]);
        }
        // [g, c / g, ...] with the first two exchanged: a channel shuffle.
        let swaps = order.len() == dims.len() + 1
            && order[..3.min(order.len())] == [0, 2, 1]
            && order
                .iter()
                .enumerate()
                .skip(3)
                .all(|(i, o)| i as i64 == *o);
        let plane = self.graph.nodes[input].shape;
        if !swaps || dims.len() < 2 || dims[0] * dims[1] != plane[0] {
            return Err(Trouble::Unknown);
        }
        let operation = Operation::Shuffle { groups: dims[0] };
        let id = self.graph.push(plain_name(node), operation, &[input])?;
        let mut dims = dims;
        dims.swap(0, 1);
        Ok(vec![Value::Tensor { node: id, dims }])
    }

    fn pad(&mut self, node: &NodeProto) -> Converted {
        let (input, dims) = self.tensor(node, 0)?;
        let attributes = Attributes::of(node);
        let pads = self.ints(node, 1, "pads").ok_or(Trouble::Unknown)?;
        let value = self.known(node, 2).and_then(Constant::scalar);
        let value = value.or_else(|| attributes.float("value")).unwrap_or(0.0);
        let constant = attributes.text("mode").is_none_or(|m| m == "constant");
        let (&[0, 0, top, left, 0, 0, bottom, right], true, 3) =
            (&pads[..], constant && value == 0.0, dims.len())
        else {
            return Err(Trouble::Unknown);
        };
        let size = |v: i64| usize::try_from(v).map_err(|_| Trouble::Unknown);
        let padding = [[size(top)?, size(bottom)?], [size(left)?, size(right)?]];
        if padding == [[0, 0], [0, 0]] {
            return Ok(vec![Value::Tensor { node: input, dims }]);
        }
        let id = self
            .graph
            .push(plain_name(node), Operation::Pad { padding }, &[input])?;
        let dims = self.graph.nodes[id].shape.to_vec();
        Ok(vec![Value::Tensor { node: id, dims }])
    }
}

/// Numbers that are one for all or one per channel of a value.
fn per_channel(dims: &[usize], number: &Constant) -> Option<Vec<f32>> {
    let values = number.to_floats();
    if values.len() == 1 {
        return Some(values.to_vec());
    }
    // Without leading ones, as a value is laid out without the batch: [c, 1, 1], or [f] of a vector.
    let trimmed: Vec<usize> = number
        .dims
        .iter()
        .copied()
        .skip_while(|d| *d == 1)
        .collect();
    let expected: Vec<usize> = std::iter::once(dims[0])
        .chain(dims[1..].iter().map(|_| 1))
        .collect();
    (trimmed == expected).then(|| values.to_vec())
}

/// Kernel, stride, dilation and padding as the attributes say.
fn window(attributes: Attributes<'_>, kernel: [usize; 2], size: [usize; 2]) -> Option<Window> {
    let stride = attributes.pair("strides", 1)?;
    let dilation = attributes.pair("dilations", 1)?;
    if stride.contains(&0) || dilation.contains(&0) || kernel.contains(&0) {
        return None;
    }
    let padding = match attributes.text("auto_pad") {
        None | Some("NOTSET" | "") => match attributes.ints("pads") {
            None => [[0; 2]; 2],
            Some(&[top, left, bottom, right]) => {
                let of = |v: i64| usize::try_from(v).ok();
                [[of(top)?, of(bottom)?], [of(left)?, of(right)?]]
            }
            Some(_) => return None,
        },
        Some("VALID") => [[0; 2]; 2],
        Some(mode @ ("SAME_UPPER" | "SAME_LOWER")) => [0, 1].map(|axis| {
            let outputs = size[axis].div_ceil(stride[axis]);
            let reach = (kernel[axis] - 1) * dilation[axis] + 1;
            let total = ((outputs - 1) * stride[axis] + reach).saturating_sub(size[axis]);
            let less = total / 2;
            if mode == "SAME_UPPER" {
                [less, total - less]
            } else {
                [total - less, less]
            }
        }),
        Some(_) => return None,
    };
    Some(Window {
        kernel,
        stride,
        dilation,
        padding,
        ceil: attributes.int("ceil_mode").unwrap_or(0) != 0,
    })
}
