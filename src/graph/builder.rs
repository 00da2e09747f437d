//! How a graph grows: node by node, each with the shape that follows from its inputs.

use super::error::GraphError;
use super::kind::LayerKind;
use super::node::{Graph, Kind, Node, NodeId, Norm, Operation, Parameter, Shape, Window};
use super::shape::infer;

impl Graph {
    /// A graph of an input alone.
    pub fn new(input: Shape) -> Self {
        let node = Node {
            name: "input".into(),
            operation: Operation::Input,
            inputs: Vec::new(),
            shape: input,
        };
        Self {
            nodes: vec![node],
            parameters: Vec::new(),
            norms: Vec::new(),
        }
    }

    /// Adds a node behind the others.
    ///
    /// # Errors
    /// Where the inputs' shapes do not fit the operation.
    pub fn push(
        &mut self,
        name: impl Into<String>,
        operation: Operation,
        inputs: &[NodeId],
    ) -> Result<NodeId, GraphError> {
        let name = self.unique(name.into());
        let shape = infer(self, &name, &operation, inputs)?;
        self.nodes.push(Node {
            name,
            operation,
            inputs: inputs.to_vec(),
            shape,
        });
        Ok(self.nodes.len() - 1)
    }

    /// The name, with a number behind it where another node has it.
    fn unique(&self, name: String) -> String {
        let taken = |name: &str| self.nodes.iter().any(|n| n.name == name);
        if !taken(&name) {
            return name;
        }
        let numbered = (2..).map(|i| format!("{name}_{i}"));
        numbered
            .into_iter()
            .find(|name| !taken(name))
            .unwrap_or_default()
    }

    /// Adds a parameter; one of the same name is the same parameter.
    pub fn parameter(&mut self, name: impl Into<String>, kind: Kind, shape: &[usize]) -> usize {
        let parameter = Parameter {
            name: name.into(),
            kind,
            shape: shape.to_vec(),
        };
        let known = self.parameters.iter().position(|p| *p == parameter);
        known.unwrap_or_else(|| {
            self.parameters.push(parameter);
            self.parameters.len() - 1
        })
    }

    /// Adds a convolution whose weight and bias are named after it.
    ///
    /// # Errors
    /// Where the input's shape does not fit.
    pub fn convolution(
        &mut self,
        name: &str,
        input: NodeId,
        output: usize,
        window: Window,
        groups: usize,
        bias: bool,
    ) -> Result<NodeId, GraphError> {
        let channels = self.nodes[input].shape[0];
        let [height, width] = window.kernel;
        let shape = [output, channels / groups.max(1), height, width];
        let weight = self.parameter(format!("{name}.weight"), Kind::Weight, &shape);
        let bias = bias.then(|| self.parameter(format!("{name}.bias"), Kind::Bias, &[output]));
        let operation = Operation::Convolution {
            weight,
            bias,
            window,
            groups,
        };
        self.push(name, operation, &[input])
    }

    /// Adds an affine layer whose weight and bias are named after it.
    ///
    /// # Errors
    /// Where the input is no vector.
    pub fn affine(
        &mut self,
        name: &str,
        input: NodeId,
        output: usize,
    ) -> Result<NodeId, GraphError> {
        let features = self.nodes[input].shape[0];
        let shape = [output, features];
        let weight = self.parameter(format!("{name}.weight"), Kind::Weight, &shape);
        let bias = self.parameter(format!("{name}.bias"), Kind::Bias, &[output]);
        let operation = Operation::Affine {
            weight,
            bias: Some(bias),
        };
        self.push(name, operation, &[input])
    }

    /// Adds a batch norm. `names` are those of scale, shift, means and variances.
    ///
    /// # Errors
    /// None at present; as [`Self::push`].
    pub fn batch_norm(
        &mut self,
        name: &str,
        input: NodeId,
        names: [String; 4],
        epsilon: f32,
        momentum: f32,
    ) -> Result<NodeId, GraphError> {
        let channels = self.nodes[input].shape[0];
        let [gamma, beta, mean, variance] = names;
        let gamma = self.parameter(gamma, Kind::Gamma, &[channels]);
        let beta = self.parameter(beta, Kind::Beta, &[channels]);
        let norm = Norm {
            name: name.to_owned(),
            entries: [mean, variance],
            channels,
        };
        let known = self.norms.iter().position(|n| n.entries == norm.entries);
        let norm = known.unwrap_or_else(|| {
            self.norms.push(norm);
            self.norms.len() - 1
        });
        let operation = Operation::BatchNorm {
            gamma,
            beta,
            norm,
            epsilon,
            momentum,
        };
        self.push(name, operation, &[input])
    }

    /// The node that yields the logits.
    pub fn output(&self) -> NodeId {
        self.nodes.len() - 1
    }

    /// Outputs of the network.
    pub fn classes(&self) -> usize {
        self.nodes[self.output()].elements()
    }

    /// Weight and bias of the last layer that has some.
    pub fn head(&self) -> Option<[Option<usize>; 2]> {
        self.nodes.iter().rev().find_map(|n| match n.operation {
            Operation::Affine { weight, bias } | Operation::Convolution { weight, bias, .. } => {
                Some([Some(weight), bias])
            }
            _ => None,
        })
    }

    /// How often each value is read; the logits count as read once more.
    pub fn uses(&self) -> Vec<usize> {
        let mut uses = vec![0; self.nodes.len()];
        for node in &self.nodes {
            for input in &node.inputs {
                uses[*input] += 1;
            }
        }
        uses[self.output()] += 1;
        uses
    }

    /// Kind of the layer that a node is.
    pub fn kind(&self, node: NodeId) -> LayerKind {
        match &self.nodes[node].operation {
            Operation::Convolution { weight, groups, .. } => {
                let shape = &self.parameters[*weight].shape;
                LayerKind::of_convolution([shape[0], shape[1], shape[2], shape[3]], *groups)
            }
            Operation::Affine { .. } => LayerKind::Affine,
            Operation::Clip { .. } | Operation::Function(_) => LayerKind::Nonlinearity,
            Operation::Input => LayerKind::Input,
            Operation::Add | Operation::Multiply => LayerKind::Addition,
            Operation::Concatenate => LayerKind::Concatenation,
            Operation::MaxPool(_) | Operation::AveragePool { .. } | Operation::GlobalAverage => {
                LayerKind::Pooling
            }
            _ => LayerKind::Linear,
        }
    }
}
