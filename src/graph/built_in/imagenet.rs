//! Networks for 224x224 pictures, in torchvision's structure and names: its state dictionaries fit.

use super::super::error::GraphError;
use super::super::node::{EPSILON, MOMENTUM};
use super::super::node::{Graph, NodeId, Operation, Window};
use super::classify;

/// A convolution and its batch norm.
fn unit(
    graph: &mut Graph,
    [convolution, norm]: [&str; 2],
    input: NodeId,
    output: usize,
    window: Window,
    groups: usize,
) -> Result<NodeId, GraphError> {
    let x = graph.convolution(convolution, input, output, window, groups, false)?;
    let names =
        ["weight", "bias", "running_mean", "running_var"].map(|entry| format!("{norm}.{entry}"));
    graph.batch_norm(norm, x, names, EPSILON, MOMENTUM)
}

/// ResNet-18, -34 or -50.
pub(super) fn resnet(
    graph: &mut Graph,
    classes: usize,
    depth: usize,
) -> Result<NodeId, GraphError> {
    let blocks = match depth {
        18 => [2, 2, 2, 2],
        _ => [3, 4, 6, 3],
    };
    let x = unit(graph, ["conv1", "bn1"], 0, 64, Window::square(7, 2, 3), 1)?;
    let x = graph.push("relu", Operation::RELU, &[x])?;
    let mut x = graph.push("maxpool", Operation::MaxPool(Window::square(3, 2, 1)), &[x])?;
    for (stage, count) in blocks.into_iter().enumerate() {
        for index in 0..count {
            let stride = if stage > 0 && index == 0 { 2 } else { 1 };
            let name = format!("layer{}.{index}", stage + 1);
            let width = 64 << stage;
            x = if depth < 50 {
                basic(graph, &name, x, width, stride)?
            } else {
                bottleneck(graph, &name, x, width, stride)?
            };
        }
    }
    classify(graph, "fc", x, classes)
}

fn basic(
    graph: &mut Graph,
    name: &str,
    input: NodeId,
    width: usize,
    stride: usize,
) -> Result<NodeId, GraphError> {
    let at = |entry: &str| format!("{name}.{entry}");
    let names = [at("conv1"), at("bn1")];
    let window = Window::square(3, stride, 1);
    let x = unit(graph, [&names[0], &names[1]], input, width, window, 1)?;
    let x = graph.push(at("relu1"), Operation::RELU, &[x])?;
    let names = [at("conv2"), at("bn2")];
    let window = Window::square(3, 1, 1);
    let x = unit(graph, [&names[0], &names[1]], x, width, window, 1)?;
    join(graph, name, input, x, stride, "relu2")
}

fn bottleneck(
    graph: &mut Graph,
    name: &str,
    input: NodeId,
    width: usize,
    stride: usize,
) -> Result<NodeId, GraphError> {
    let at = |entry: &str| format!("{name}.{entry}");
    let layers = [
        (width, Window::square(1, 1, 0)),
        (width, Window::square(3, stride, 1)),
        (4 * width, Window::square(1, 1, 0)),
    ];
    let mut x = input;
    for (i, (output, window)) in layers.into_iter().enumerate() {
        let names = [at(&format!("conv{}", i + 1)), at(&format!("bn{}", i + 1))];
        x = unit(graph, [&names[0], &names[1]], x, output, window, 1)?;
        if i < 2 {
            x = graph.push(at(&format!("relu{}", i + 1)), Operation::RELU, &[x])?;
        }
    }
    join(graph, name, input, x, stride, "relu3")
}

/// The sum with the block's input, projected where shapes differ, and a ReLU.
fn join(
    graph: &mut Graph,
    name: &str,
    input: NodeId,
    x: NodeId,
    stride: usize,
    relu: &str,
) -> Result<NodeId, GraphError> {
    let output = graph.nodes[x].shape[0];
    let around = if graph.nodes[input].shape == graph.nodes[x].shape {
        input
    } else {
        let names = [0, 1].map(|i| format!("{name}.downsample.{i}"));
        let window = Window::square(1, stride, 0);
        unit(graph, [&names[0], &names[1]], input, output, window, 1)?
    };
    let x = graph.push(format!("{name}.add"), Operation::Add, &[x, around])?;
    graph.push(format!("{name}.{relu}"), Operation::RELU, &[x])
}

/// Channels as torchvision rounds them: to a multiple of eight, at most a tenth less.
fn divisible(channels: f64) -> usize {
    let rounded = ((channels + 4.0) as usize / 8 * 8).max(8);
    if (rounded as f64) < 0.9 * channels {
        rounded + 8
    } else {
        rounded
    }
}

/// MobileNetV2 with `width` times the channels.
pub(super) fn mobilenet_v2(
    graph: &mut Graph,
    classes: usize,
    width: f64,
) -> Result<NodeId, GraphError> {
    let mut x = rectified(
        graph,
        "features.0",
        0,
        divisible(32.0 * width),
        Window::square(3, 2, 1),
        1,
    )?;
    let mut index = 1;
    for (expansion, channels, repeats, stride) in [
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ] {
        let output = divisible(f64::from(channels) * width);
        for repeat in 0..repeats {
            let stride = if repeat == 0 { stride } else { 1 };
            x = inverted(graph, index, x, output, stride, expansion)?;
            index += 1;
        }
    }
    let last = divisible(1280.0 * width.max(1.0));
    let name = format!("features.{index}");
    x = rectified(graph, &name, x, last, Window::square(1, 1, 0), 1)?;
    classify(graph, "classifier.1", x, classes)
}

/// Convolution, batch norm, ReLU6: `name.0`, `name.1`, `name.2`.
fn rectified(
    graph: &mut Graph,
    name: &str,
    input: NodeId,
    output: usize,
    window: Window,
    groups: usize,
) -> Result<NodeId, GraphError> {
    let names = [format!("{name}.0"), format!("{name}.1")];
    let x = unit(graph, [&names[0], &names[1]], input, output, window, groups)?;
    graph.push(format!("{name}.2"), Operation::RELU6, &[x])
}

/// An inverted residual block.
fn inverted(
    graph: &mut Graph,
    index: usize,
    input: NodeId,
    output: usize,
    stride: usize,
    expansion: usize,
) -> Result<NodeId, GraphError> {
    let name = format!("features.{index}.conv");
    let channels = graph.nodes[input].shape[0];
    let hidden = channels * expansion;
    let mut x = input;
    let mut part = 0;
    if expansion != 1 {
        x = rectified(
            graph,
            &format!("{name}.0"),
            x,
            hidden,
            Window::square(1, 1, 0),
            1,
        )?;
        part = 1;
    }
    let depthwise = Window::square(3, stride, 1);
    x = rectified(
        graph,
        &format!("{name}.{part}"),
        x,
        hidden,
        depthwise,
        hidden,
    )?;
    let names = [
        format!("{name}.{}", part + 1),
        format!("{name}.{}", part + 2),
    ];
    x = unit(
        graph,
        [&names[0], &names[1]],
        x,
        output,
        Window::square(1, 1, 0),
        1,
    )?;
    if stride == 1 && channels == output {
        x = graph.push(format!("features.{index}.add"), Operation::Add, &[input, x])?;
    }
    Ok(x)
}
