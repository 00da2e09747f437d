//! Sums, products and bounds, of two values or of one and a number.

use rten_onnx::onnx::NodeProto;

use super::super::constant::Constant;
use super::{Converted, Converter, Trouble, Value, plain_name, source_of};
use crate::graph::node::{Kind, NodeId, Operation};

impl Converter<'_> {
    /// The larger or smaller of a value and a number.
    pub(super) fn bound(&mut self, node: &NodeProto) -> Converted {
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

    pub(super) fn sum(&mut self, node: &NodeProto) -> Converted {
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
        let ((a, dims), (b, others)) = (self.tensor(node, 0)?, self.tensor(node, 1)?);
        // (Of fewer dimensions, the file means its last ones, not the first.)
        if dims.len() != others.len() {
            return Err(Trouble::Unknown);
        }
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
        let channels = *dims.first()?;
        if !self.is_read_once(input) || number.len() != channels {
            return None;
        }
        per_channel(dims, number)?;
        let base = self.graph.nodes[input].name.clone();
        let index = match &self.graph.nodes[input].operation {
            Operation::Affine { bias: None, .. } | Operation::Convolution { bias: None, .. } => {
                let source = source_of(node, number);
                let stored = self.store(format!("{base}.bias"), &source, &number.to_floats());
                self.graph.parameter(stored, Kind::Bias, &[channels])
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

    pub(super) fn product(&mut self, node: &NodeProto) -> Converted {
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
        if dims.len() != others.len() {
            return Err(Trouble::Unknown);
        }
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
}

/// Numbers that are one for all or one per channel of a value.
fn per_channel(dims: &[usize], number: &Constant) -> Option<Vec<f32>> {
    let values = number.to_floats();
    if values.len() == 1 {
        return Some(values.to_vec());
    }
    let (channels, rest) = dims.split_first()?;
    // Without leading ones, as a value is laid out without the batch: [c, 1, 1], or [f] of a vector.
    let trimmed: Vec<usize> = number
        .dims
        .iter()
        .copied()
        .skip_while(|d| *d == 1)
        .collect();
    let expected: Vec<usize> = std::iter::once(*channels)
        .chain(rest.iter().map(|_| 1))
        .collect();
    (trimmed == expected).then(|| values.to_vec())
}
