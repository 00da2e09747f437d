//! Networks that are built in.

mod imagenet;
mod small;

use super::error::GraphError;
use super::model::Model;
use super::node::Shape;
use super::node::{Graph, NodeId};

/// A built-in network for pictures of this shape.
pub(super) fn graph(model: Model, input: Shape, classes: usize) -> Result<Graph, GraphError> {
    let mut graph = Graph::new(input);
    match model {
        Model::Glyphnet => small::glyphnet(&mut graph, classes)?,
        Model::ResNet { depth, shortcut } => small::resnet(&mut graph, classes, depth, shortcut)?,
        Model::ImageNetResNet { depth } => imagenet::resnet(&mut graph, classes, depth)?,
        Model::MobileNetV2 { width } => imagenet::mobilenet_v2(&mut graph, classes, width)?,
    };
    Ok(graph)
}

/// Mean over pixels, and an affine layer.
fn classify(
    graph: &mut Graph,
    name: &str,
    input: NodeId,
    classes: usize,
) -> Result<NodeId, GraphError> {
    let pooled = graph.push("pool", super::Operation::GlobalAverage, &[input])?;
    graph.affine(name, pooled, classes)
}

#[cfg(test)]
mod tests {
    use super::super::model::Shortcut;
    use super::*;

    fn elements(graph: &Graph) -> usize {
        let of = |p: &super::super::Parameter| p.shape.iter().product::<usize>();
        graph.parameters.iter().map(of).sum()
    }

    /// Parameters as torchvision 0.24 counts them.
    #[test]
    fn networks_have_as_many_parameters_as_torchvisions() {
        for (name, count) in [
            ("resnet18", 11_689_512),
            ("resnet34", 21_797_672),
            ("resnet50", 25_557_032),
            ("mobilenet_v2", 3_504_872),
        ] {
            let model = Model::from_name(name, Shortcut::A, 1.0).expect("a name");
            let graph = graph(model, [3, 224, 224], 1000).expect("builds");
            assert_eq!(elements(&graph), count, "{name}");
            assert_eq!(graph.classes(), 1000);
        }
    }
}
