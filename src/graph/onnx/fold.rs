//! What remains of a graph when everything that the logits do not need is gone.

use super::super::node::{Graph, NodeId, Operation};

/// The graph with the nodes that `output` depends on alone, which is the last of them. Returns the
/// new index of every node that is left.
pub(super) fn pruned(graph: &Graph, output: NodeId) -> (Graph, Vec<Option<NodeId>>) {
    let mut needed = vec![false; graph.nodes.len()];
    needed[0] = true;
    needed[output] = true;
    for id in (0..=output).rev() {
        if needed[id] {
            for input in &graph.nodes[id].inputs {
                needed[*input] = true;
            }
        }
    }
    let mut left = Graph {
        nodes: Vec::new(),
        parameters: Vec::new(),
        norms: Vec::new(),
    };
    let mut places = vec![None; graph.nodes.len()];
    let (mut parameters, mut norms) = (
        vec![None; graph.parameters.len()],
        vec![None; graph.norms.len()],
    );
    for id in (0..graph.nodes.len()).filter(|id| needed[*id]) {
        let mut node = graph.nodes[id].clone();
        for input in &mut node.inputs {
            *input = places[*input].unwrap_or(*input);
        }
        let mut parameter = |index: &mut usize| {
            let place = *parameters[*index].get_or_insert_with(|| {
                left.parameters.push(graph.parameters[*index].clone());
                left.parameters.len() - 1
            });
            *index = place;
        };
        match &mut node.operation {
            Operation::Convolution { weight, bias, .. } | Operation::Affine { weight, bias } => {
                parameter(weight);
                bias.as_mut().map(parameter);
            }
            Operation::BatchNorm {
                gamma, beta, norm, ..
            } => {
                parameter(gamma);
                parameter(beta);
                *norm = *norms[*norm].get_or_insert_with(|| {
                    left.norms.push(graph.norms[*norm].clone());
                    left.norms.len() - 1
                });
            }
            _ => {}
        }
        places[id] = Some(left.nodes.len());
        left.nodes.push(node);
    }
    (left, places)
}
