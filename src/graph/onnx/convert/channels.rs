//! Channels put side by side and taken apart.

use rten_onnx::onnx::NodeProto;

use super::super::attributes::Attributes;
use super::{Converted, Converter, Trouble, Value, plain_name};
use crate::graph::node::{NodeId, Operation};

impl Converter<'_> {
    /// Whether an attribute names the axis of channels.
    fn is_channel_axis(axis: i64, rank: usize) -> bool {
        axis == 1 || axis == 1 - (rank as i64 + 1)
    }

    pub(super) fn concatenation(&mut self, node: &NodeProto) -> Converted {
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

    pub(super) fn split(&mut self, node: &NodeProto) -> Converted {
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
    pub(super) fn channel(&mut self, node: &NodeProto) -> Converted {
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

    pub(super) fn slice(&mut self, node: &NodeProto) -> Converted {
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
}
