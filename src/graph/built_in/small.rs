//! Networks for 32x32 pictures, in this project's own names.

use super::super::error::GraphError;
use super::super::model::Shortcut;
use super::super::node::{EPSILON, MOMENTUM};
use super::super::node::{Graph, NodeId, Operation, Window};
use super::classify;

/// The demo's network.
pub(super) fn glyphnet(graph: &mut Graph, classes: usize) -> Result<NodeId, GraphError> {
    let mut x = 0;
    for (i, (output, stride)) in [(16, 2), (32, 2), (32, 1), (64, 2)].into_iter().enumerate() {
        x = unit(graph, &format!("conv{}", i + 1), x, output, 3, stride)?;
        x = graph.push(format!("relu{}", i + 1), Operation::RELU, &[x])?;
    }
    classify(graph, "classifier", x, classes)
}

/// He et al.'s residual network for small pictures.
pub(super) fn resnet(
    graph: &mut Graph,
    classes: usize,
    depth: usize,
    shortcut: Shortcut,
) -> Result<NodeId, GraphError> {
    let x = unit(graph, "stem", 0, 16, 3, 1)?;
    let mut x = graph.push("stem.relu", Operation::RELU, &[x])?;
    for (stage, output) in [16, 32, 64].into_iter().enumerate() {
        for index in 0..(depth - 2) / 6 {
            let stride = if stage > 0 && index == 0 { 2 } else { 1 };
            let name = format!("s{}.b{}", stage + 1, index + 1);
            x = block(graph, &name, x, output, stride, shortcut)?;
        }
    }
    classify(graph, "classifier", x, classes)
}

fn block(
    graph: &mut Graph,
    name: &str,
    input: NodeId,
    output: usize,
    stride: usize,
    shortcut: Shortcut,
) -> Result<NodeId, GraphError> {
    let channels = graph.nodes[input].shape[0];
    let same_shape = channels == output && stride == 1;
    let x = unit(graph, &format!("{name}.conv1"), input, output, 3, stride)?;
    let x = graph.push(format!("{name}.relu1"), Operation::RELU, &[x])?;
    let x = unit(graph, &format!("{name}.conv2"), x, output, 3, 1)?;
    let around = match (shortcut, same_shape) {
        (Shortcut::A | Shortcut::B, true) => input,
        (Shortcut::A, false) => {
            let extra = output - channels;
            let operation = Operation::Subsample { stride, extra };
            graph.push(format!("{name}.shortcut"), operation, &[input])?
        }
        (Shortcut::B, false) | (Shortcut::C, _) => {
            unit(graph, &format!("{name}.shortcut"), input, output, 1, stride)?
        }
    };
    let x = graph.push(format!("{name}.add"), Operation::Add, &[x, around])?;
    graph.push(format!("{name}.relu2"), Operation::RELU, &[x])
}

/// A convolution and its batch norm.
fn unit(
    graph: &mut Graph,
    name: &str,
    input: NodeId,
    output: usize,
    kernel: usize,
    stride: usize,
) -> Result<NodeId, GraphError> {
    let window = Window::square(kernel, stride, kernel / 2);
    let x = graph.convolution(name, input, output, window, 1, false)?;
    let names = ["gamma", "beta", "mean", "var"].map(|entry| format!("{name}.{entry}"));
    graph.batch_norm(&format!("{name}.norm"), x, names, EPSILON, MOMENTUM)
}
