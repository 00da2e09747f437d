//! The same numbers in other dimensions, in another order, or with zeros around them.

use rten_onnx::onnx::NodeProto;

use super::super::attributes::Attributes;
use super::super::constant::Constant;
use super::pools::LARGEST;
use super::{Converted, Converter, Trouble, Value, plain_name, shape_of};
use crate::graph::error::GraphError;
use crate::graph::node::{NodeId, Operation};

impl Converter<'_> {
    /// A node's value in other dimensions; a reshape where the numbers lie otherwise.
    pub(super) fn seen_as(&mut self, id: NodeId, dims: &[usize], name: &str) -> Converted {
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

    pub(super) fn reshape(&mut self, node: &NodeProto) -> Converted {
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
        let each = given.iter().flatten();
        let known = each.copied().try_fold(1usize, usize::checked_mul)?;
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

    pub(super) fn transpose(&mut self, node: &NodeProto) -> Converted {
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

    pub(super) fn pad(&mut self, node: &NodeProto) -> Converted {
        let (input, dims) = self.tensor(node, 0)?;
        let attributes = Attributes::of(node);
        let pads = self.ints(node, 1, "pads").ok_or(Trouble::Unknown)?;
        let value = self.optional(node, 2)?;
        let value = value.as_ref().and_then(Constant::scalar);
        let value = value.or_else(|| attributes.float("value")).unwrap_or(0.0);
        let pads = match self.optional(node, 3)? {
            None => pads,
            Some(axes) => {
                let axes = axes.to_ints().ok_or(Trouble::Unknown)?;
                of_axes(&pads, &axes, dims.len() + 1).ok_or(Trouble::Unknown)?
            }
        };
        let constant = attributes.text("mode").is_none_or(|m| m == "constant");
        let (&[0, 0, top, left, 0, 0, bottom, right], true, 3) =
            (&pads[..], constant && value == 0.0, dims.len())
        else {
            return Err(Trouble::Unknown);
        };
        let size = |v: i64| match usize::try_from(v) {
            Ok(v) if v <= LARGEST => Ok(v),
            _ => Err(Trouble::Unknown),
        };
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

/// Padding before and behind of some axes, as that of all `rank` of them.
fn of_axes(pads: &[i64], axes: &[i64], rank: usize) -> Option<Vec<i64>> {
    if pads.len() != 2 * axes.len() {
        return None;
    }
    let mut all = vec![0; 2 * rank];
    for (i, axis) in axes.iter().enumerate() {
        let axis = if *axis < 0 { axis + rank as i64 } else { *axis };
        let axis = usize::try_from(axis).ok().filter(|axis| *axis < rank)?;
        all[axis] = pads[i];
        all[rank + axis] = pads[axes.len() + i];
    }
    Some(all)
}
