//! Shapes of one sample, inferred node by node.

use super::error::GraphError;
use super::node::{Graph, NodeId, Operation, Shape, Window};

/// As people write it.
pub(super) fn text(shape: Shape) -> String {
    match shape {
        [features, 1, 1] => format!("[{features}]"),
        [c, h, w] => format!("[{c}, {h}, {w}]"),
    }
}

/// Output extent of a window along an axis, where it fits at all.
fn extent(window: &Window, input: usize, axis: usize) -> Option<usize> {
    let reach = (window.kernel[axis] - 1)
        .checked_mul(window.dilation[axis])?
        .checked_add(1)?;
    let [before, behind] = window.padding[axis];
    let stride = window.stride[axis];
    let whole = input.checked_add(before)?.checked_add(behind)?;
    let room = whole.checked_sub(reach)?;
    if !window.ceil {
        return Some(room / stride + 1);
    }
    let outputs = room.div_ceil(stride) + 1;
    // A last window must begin inside the input or the padding before it.
    let starts_inside = (outputs - 1) * stride < input + before;
    Some(if starts_inside { outputs } else { outputs - 1 })
}

impl Window {
    /// Height and width of the output, where the window fits into the input at all.
    pub fn output(&self, [height, width]: [usize; 2]) -> Option<[usize; 2]> {
        Some([extent(self, height, 0)?, extent(self, width, 1)?])
    }
}

fn windowed(name: &str, window: &Window, shape: Shape) -> Result<[usize; 2], GraphError> {
    let [_, height, width] = shape;
    window.output([height, width]).ok_or_else(|| {
        let [kh, kw] = window.kernel;
        GraphError::node(
            name,
            format!("an input of {} under a {kh}x{kw} kernel", text(shape)),
            "one that the kernel fits into",
        )
    })
}

/// Shape of what a node would yield.
pub(super) fn infer(
    graph: &Graph,
    name: &str,
    operation: &Operation,
    inputs: &[NodeId],
) -> Result<Shape, GraphError> {
    let shape = |i: usize| graph.nodes[inputs[i]].shape;
    let two = || -> Result<[Shape; 2], GraphError> {
        match inputs {
            [a, b] => Ok([graph.nodes[*a].shape, graph.nodes[*b].shape]),
            _ => Err(GraphError::node(
                name,
                format!("{} inputs", inputs.len()),
                "two",
            )),
        }
    };
    let [c, h, w] = match inputs {
        [] => return Ok([0; 3]),
        _ => shape(0),
    };
    Ok(match operation {
        Operation::Input | Operation::Clip { .. } | Operation::Function(_) => [c, h, w],
        Operation::BatchNorm { gamma, .. } => {
            let channels = graph.parameters[*gamma].shape[0];
            if channels != c {
                let found = format!("an input of {}", text([c, h, w]));
                return Err(GraphError::node(
                    name,
                    found,
                    format!("{channels} channels"),
                ));
            }
            [c, h, w]
        }
        Operation::Scale { scale, .. } => {
            if scale.len() != 1 && scale.len() != c {
                let found = format!("{} factors for {c} channels", scale.len());
                return Err(GraphError::node(
                    name,
                    found,
                    "one per channel or one for all",
                ));
            }
            [c, h, w]
        }
        Operation::Convolution {
            weight,
            window,
            groups,
            ..
        } => {
            let weight = &graph.parameters[*weight].shape;
            if *groups == 0 || weight[1] * groups != c || !weight[0].is_multiple_of(*groups) {
                return Err(GraphError::node(
                    name,
                    format!("an input of {}", text([c, h, w])),
                    format!(
                        "{} channels, for weights {weight:?} in {groups} groups",
                        weight[1] * groups
                    ),
                ));
            }
            let [height, width] = windowed(name, window, [c, h, w])?;
            [weight[0], height, width]
        }
        Operation::Affine { weight, .. } => {
            let weight = &graph.parameters[*weight].shape;
            if [weight[1], 1, 1] != [c, h, w] {
                return Err(GraphError::node(
                    name,
                    format!("an input of {}", text([c, h, w])),
                    format!("{} features, for weights {weight:?}", weight[1]),
                ));
            }
            [weight[0], 1, 1]
        }
        Operation::Add => {
            let [a, b] = two()?;
            if a != b {
                let names: Vec<&str> = inputs
                    .iter()
                    .map(|i| graph.nodes[*i].name.as_str())
                    .collect();
                return Err(GraphError::node(
                    name,
                    format!(
                        "{} of {} plus {} of {}",
                        names[0],
                        text(a),
                        names[1],
                        text(b)
                    ),
                    "two values of one shape",
                ));
            }
            a
        }
        Operation::Multiply => {
            let [a, b] = two()?;
            if b != a && b != [a[0], 1, 1] {
                return Err(GraphError::node(
                    name,
                    format!("{} times {}", text(a), text(b)),
                    "one shape, or one number per channel",
                ));
            }
            a
        }
        Operation::Concatenate => {
            let mut channels = 0;
            for input in inputs {
                let other = graph.nodes[*input].shape;
                if other[1..] != [h, w] {
                    return Err(GraphError::node(
                        name,
                        format!("{} beside {}", text([c, h, w]), text(other)),
                        "planes of one size",
                    ));
                }
                channels += other[0];
            }
            [channels, h, w]
        }
        Operation::MaxPool(window) | Operation::AveragePool { window, .. } => {
            let [height, width] = windowed(name, window, [c, h, w])?;
            [c, height, width]
        }
        Operation::GlobalAverage => [c, 1, 1],
        Operation::Reshape(to) => {
            if to.iter().product::<usize>() != c * h * w {
                let found = format!("an input of {}", text([c, h, w]));
                return Err(GraphError::node(
                    name,
                    found,
                    format!("as many elements as {}", text(*to)),
                ));
            }
            *to
        }
        Operation::Subsample { stride, extra } => {
            [c + extra, h.div_ceil(*stride), w.div_ceil(*stride)]
        }
        Operation::Shuffle { groups } => {
            if *groups == 0 || !c.is_multiple_of(*groups) {
                let found = format!("{c} channels in {groups} groups");
                return Err(GraphError::node(name, found, "groups of one size"));
            }
            [c, h, w]
        }
        Operation::Slice { start, end } => {
            if start >= end || *end > c {
                let found = format!("channels {start} to {end} of {c}");
                return Err(GraphError::node(name, found, "channels that exist"));
            }
            [end - start, h, w]
        }
        Operation::Pad { padding } => {
            let [[top, bottom], [left, right]] = padding;
            [c, h + top + bottom, w + left + right]
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_count_as_pytorch_counts_them() {
        // PyTorch 2.9: kernel, stride, padding, dilation, ceil, input, output.
        for (kernel, stride, padding, dilation, ceil, input, output) in [
            (3, 2, 0, 1, true, 31, 15),
            (3, 2, 0, 1, true, 32, 16),
            (3, 2, 1, 1, false, 112, 56),
            (7, 2, 3, 1, false, 224, 112),
            (2, 2, 0, 1, true, 7, 4),
            (2, 2, 1, 1, true, 3, 2),
            (3, 1, 2, 2, false, 14, 14),
        ] {
            let window = Window {
                dilation: [dilation; 2],
                ceil,
                ..Window::square(kernel, stride, padding)
            };
            assert_eq!(extent(&window, input, 0), Some(output), "{window:?}");
        }
        assert_eq!(extent(&Window::square(5, 1, 0), 4, 0), None);
    }

    #[test]
    fn shapes_that_do_not_fit_name_both_sides() {
        let mut graph = Graph::new([3, 8, 8]);
        let a = graph
            .convolution("a", 0, 4, Window::square(3, 1, 1), 1, false)
            .expect("fits");
        let b = graph
            .convolution("b", 0, 4, Window::square(3, 2, 1), 1, false)
            .expect("fits");
        let error = graph
            .push("sum", Operation::Add, &[a, b])
            .expect_err("shapes differ");
        assert_eq!(
            error.to_string(),
            "sum: a of [4, 8, 8] plus b of [4, 4, 4]; expected two values of one shape"
        );
        let error = graph
            .push(
                "deep",
                Operation::Affine {
                    weight: 0,
                    bias: None,
                },
                &[a],
            )
            .expect_err("no vector");
        assert!(
            error.to_string().starts_with("deep: an input of [4, 8, 8]"),
            "{error}"
        );
    }
}
