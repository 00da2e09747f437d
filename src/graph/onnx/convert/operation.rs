//! Which node of a file becomes what.

use std::rc::Rc;

use rten_onnx::onnx::NodeProto;

use super::super::attributes::Attributes;
use super::super::constant::Constant;
use super::super::evaluate::{between, evaluate};
use super::{Converted, Converter, Trouble, Value, plain_name};
use crate::graph::error::GraphError;
use crate::graph::node::{Function, NodeId, Operation};

impl Converter<'_> {
    pub(super) fn input(&self, node: &NodeProto, index: usize) -> Option<&Value> {
        let name = node.input.get(index).filter(|n| !n.is_empty())?;
        self.names.get(name.as_str())
    }

    pub(super) fn known(&self, node: &NodeProto, index: usize) -> Option<&Constant> {
        match self.input(node, index) {
            Some(Value::Known(constant)) => Some(constant),
            _ => None,
        }
    }

    /// Whole numbers of an input, or of an attribute where older opsets have them.
    pub(super) fn ints(&self, node: &NodeProto, index: usize, attribute: &str) -> Option<Vec<i64>> {
        self.known(node, index)
            .and_then(Constant::to_ints)
            .or_else(|| Attributes::of(node).ints(attribute).map(<[i64]>::to_vec))
    }

    pub(super) fn tensor(
        &self,
        node: &NodeProto,
        index: usize,
    ) -> Result<(NodeId, Vec<usize>), Trouble> {
        match self.input(node, index) {
            Some(Value::Tensor { node, dims }) => Ok((*node, dims.clone())),
            _ => Err(Trouble::Unknown),
        }
    }

    /// Pushes a node of one input that keeps dimensions.
    pub(super) fn push(
        &mut self,
        name: String,
        operation: Operation,
        input: NodeId,
        dims: Vec<usize>,
    ) -> Converted {
        let node = self.graph.push(name, operation, &[input])?;
        Ok(vec![Value::Tensor { node, dims }])
    }

    pub(super) fn node(&mut self, node: &NodeProto) -> Converted {
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

    pub(super) fn operation(&mut self, node: &NodeProto) -> Converted {
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
                    let given = self.optional(node, index)?;
                    let given = given.as_ref().and_then(Constant::scalar);
                    let given = given.or_else(|| attributes.float(attribute));
                    Ok::<f32, Trouble>(given.unwrap_or(otherwise))
                };
                let low = bound(1, "min", f32::NEG_INFINITY)?;
                let high = bound(2, "max", f32::INFINITY)?;
                // (Crossed bounds give the upper one.)
                let low = low.min(high);
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
            // Another type than a floating one cuts values off.
            "Cast" if !matches!(attributes.int("to"), Some(1 | 10 | 11 | 16)) => {
                Err(Trouble::Unknown)
            }
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
}
