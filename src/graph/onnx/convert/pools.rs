//! Pools, and the window that they and convolutions slide.

use rten_onnx::onnx::NodeProto;

use super::super::attributes::Attributes;
use super::{Converted, Converter, Trouble, Value, plain_name};
use crate::graph::node::{Operation, Window};

impl Converter<'_> {
    pub(super) fn pool(&mut self, node: &NodeProto) -> Converted {
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

    pub(super) fn global_pool(&mut self, node: &NodeProto) -> Converted {
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
}

/// Kernels, strides, dilations and paddings are no larger: their products then fit into any number.
pub(super) const LARGEST: usize = 1 << 16;

/// Kernel, stride, dilation and padding as the attributes say.
pub(super) fn window(
    attributes: Attributes<'_>,
    kernel: [usize; 2],
    size: [usize; 2],
) -> Option<Window> {
    let stride = attributes.pair("strides", 1)?;
    let dilation = attributes.pair("dilations", 1)?;
    let bounded = |pair: [usize; 2]| pair.iter().all(|v| (1..=LARGEST).contains(v));
    if ![stride, dilation, kernel].into_iter().all(bounded) {
        return None;
    }
    let padding = match attributes.text("auto_pad") {
        None | Some("NOTSET" | "") => match attributes.ints("pads") {
            None => [[0; 2]; 2],
            Some(&[top, left, bottom, right]) => {
                let of = |v: i64| usize::try_from(v).ok().filter(|v| *v <= LARGEST);
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
