//! The steps in which a graph is computed.
//!
//! Batch norm, an addition behind it, an activation behind that and its quantizer are one step where
//! nothing else reads what lies between. Values are given up after their last reader.

use super::node::{Graph, NodeId, Operation};
use super::placement::Placement;

/// A batch norm with what follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fused {
    /// The batch norm.
    pub norm: NodeId,
    /// What is added to its output.
    pub residual: Option<NodeId>,
    /// The clip behind.
    pub clip: Option<NodeId>,
}

/// One step: what is computed, and which values nobody needs any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The node whose value it yields, quantized where the node has a quantizer.
    pub output: NodeId,
    /// Where several nodes are computed at once.
    pub fused: Option<Fused>,
    /// A convolution whose input is also the residual of a fused step behind it: that gradient comes
    /// first on the way back, and the convolution adds its own in place.
    pub onto_residual: bool,
    /// Values that are read for the last time.
    pub frees: Vec<NodeId>,
}

/// A graph as an executor takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// In order.
    pub steps: Vec<Step>,
}

impl Plan {
    /// The steps of a graph whose quantizers stand as placed.
    pub fn new(graph: &Graph, placement: &Placement) -> Self {
        let uses = graph.uses();
        let chains = chains(graph, placement, &uses);
        let mut absorbed = vec![false; graph.nodes.len()];
        for (output, fused) in &chains {
            for id in members(graph, *fused, *output) {
                absorbed[id] = id != *output;
            }
        }
        let mut steps: Vec<Step> = (0..graph.nodes.len())
            .filter(|id| !absorbed[*id])
            .map(|output| Step {
                output,
                fused: chains.iter().find(|(o, _)| *o == output).map(|(_, f)| *f),
                onto_residual: false,
                frees: Vec::new(),
            })
            .collect();
        for i in 0..steps.len() {
            steps[i].onto_residual = is_onto_residual(graph, &uses, &steps, i);
        }
        let mut last = vec![None; graph.nodes.len()];
        for (i, step) in steps.iter().enumerate() {
            for input in step.inputs(graph) {
                last[input] = Some(i);
            }
        }
        for (value, last) in last.into_iter().enumerate() {
            if let Some(step) = last {
                steps[step].frees.push(value);
            }
        }
        Self { steps }
    }
}

impl Step {
    /// The values that the step reads.
    pub fn inputs(&self, graph: &Graph) -> Vec<NodeId> {
        match self.fused {
            None => graph.nodes[self.output].inputs.clone(),
            Some(fused) => {
                let mut inputs = graph.nodes[fused.norm].inputs.clone();
                inputs.extend(fused.residual);
                inputs
            }
        }
    }
}

/// The nodes of a chain.
fn members(graph: &Graph, fused: Fused, output: NodeId) -> Vec<NodeId> {
    let mut members = vec![fused.norm];
    if fused.residual.is_some() {
        let adds = |id: &NodeId| {
            let node = &graph.nodes[*id];
            node.operation == Operation::Add && node.inputs.contains(&fused.norm)
        };
        members.extend((fused.norm..=output).find(adds));
    }
    members.extend(fused.clip);
    members
}

/// Every batch norm with what it takes along, by the node whose value comes out.
fn chains(graph: &Graph, placement: &Placement, uses: &[usize]) -> Vec<(NodeId, Fused)> {
    let mut chains = Vec::new();
    let mut taken = vec![false; graph.nodes.len()];
    for (norm, node) in graph.nodes.iter().enumerate() {
        if !matches!(node.operation, Operation::BatchNorm { .. }) {
            continue;
        }
        let mut fused = Fused {
            norm,
            residual: None,
            clip: None,
        };
        let mut output = norm;
        loop {
            // A quantizer, a second reader or the end of the network ends the chain.
            if placement.of_node[output].is_some() || uses[output] != 1 {
                break;
            }
            let reader = graph.nodes.iter().position(|n| n.inputs.contains(&output));
            let Some(reader) = reader.filter(|r| !taken[*r]) else {
                break;
            };
            match graph.nodes[reader].operation {
                Operation::Add if fused.residual.is_none() && fused.clip.is_none() => {
                    let inputs = &graph.nodes[reader].inputs;
                    fused.residual = inputs.iter().copied().find(|i| *i != output);
                    if fused.residual.is_none() {
                        break;
                    }
                }
                Operation::Clip { .. } if fused.clip.is_none() => fused.clip = Some(reader),
                _ => break,
            }
            taken[reader] = true;
            output = reader;
        }
        chains.push((output, fused));
    }
    chains
}

/// Whether the value that this step's convolution reads is read once more, as the residual of a
/// fused step that depends on the convolution.
fn is_onto_residual(graph: &Graph, uses: &[usize], steps: &[Step], at: usize) -> bool {
    let convolution = steps[at].output;
    let node = &graph.nodes[convolution];
    if !matches!(node.operation, Operation::Convolution { .. }) {
        return false;
    }
    let [input] = node.inputs[..] else {
        return false;
    };
    if uses[input] != 2 {
        return false;
    }
    let joins = |s: &&Step| s.fused.is_some_and(|f| f.residual == Some(input));
    let Some(join) = steps[at..].iter().find(joins) else {
        return false;
    };
    let norm = join.fused.map_or(join.output, |f| f.norm);
    // (Without a way from there to the logits no gradient would come first.)
    depends(graph, norm, convolution) && depends(graph, graph.output(), join.output)
}

/// Whether a node is computed from another.
fn depends(graph: &Graph, node: NodeId, on: NodeId) -> bool {
    let mut reached = vec![false; node + 1];
    reached[node] = true;
    for id in (on..=node).rev() {
        if reached[id] {
            for input in &graph.nodes[id].inputs {
                reached[*input] = true;
            }
        }
    }
    reached[on]
}

#[cfg(test)]
mod tests {
    use super::super::model::{Architecture, Model, Shortcut};
    use super::super::placement::{Quantization, place};
    use super::*;
    use crate::quantizer::Rules;

    fn plan(model: Model, shape: [usize; 3]) -> (Graph, Plan) {
        let built = Architecture::BuiltIn(model).graph(shape, 10);
        let graph = built.expect("builds").graph;
        let placement = place(&graph, &Quantization::none(Rules::Paper));
        let plan = Plan::new(&graph, &placement);
        (graph, plan)
    }

    fn named<'a>(graph: &'a Graph, step: &Step) -> &'a str {
        &graph.nodes[step.output].name
    }

    #[test]
    fn a_residual_block_is_four_steps() {
        let model = Model::ResNet {
            depth: 20,
            shortcut: Shortcut::A,
        };
        let (graph, plan) = plan(model, [3, 32, 32]);
        let names: Vec<&str> = plan.steps.iter().map(|s| named(&graph, s)).collect();
        let block = &names[3..7];
        assert_eq!(
            block,
            ["s1.b1.conv1", "s1.b1.relu1", "s1.b1.conv2", "s1.b1.relu2"]
        );
        // The block's input is residual and input of its first convolution alone.
        assert!(plan.steps[3].onto_residual && !plan.steps[5].onto_residual);
        let join = plan.steps[6].fused.expect("norm, addition and ReLU");
        assert_eq!(join.residual, Some(plan.steps[2].output));
        assert!(plan.steps[6].frees.contains(&plan.steps[2].output));
        // Where shapes change, the shortcut stands between and the input has other readers.
        let at = names
            .iter()
            .position(|n| *n == "s2.b1.conv1")
            .expect("there");
        assert!(!plan.steps[at].onto_residual);
    }

    #[test]
    fn what_several_read_is_not_joined() {
        let mut graph = Graph::new([4, 8, 8]);
        let names = || ["g", "b", "m", "v"].map(str::to_owned);
        let norm = graph
            .batch_norm("norm", 0, names(), 1e-5, 0.9)
            .expect("fits");
        let relu = graph.push("relu", Operation::RELU, &[norm]).expect("fits");
        let sum = graph
            .push("sum", Operation::Add, &[norm, relu])
            .expect("fits");
        graph
            .push("pool", Operation::GlobalAverage, &[sum])
            .expect("fits");
        let placement = place(&graph, &Quantization::none(Rules::Paper));
        let plan = Plan::new(&graph, &placement);
        let fused: Vec<_> = plan.steps.iter().filter_map(|s| s.fused).collect();
        let alone = Fused {
            norm,
            residual: None,
            clip: None,
        };
        assert_eq!(fused, [alone]);
        assert_eq!(plan.steps.len(), 5);
        // Every value is given up once, after its last reader; the logits are not.
        let mut freed: Vec<NodeId> = plan.steps.iter().flat_map(|s| s.frees.clone()).collect();
        freed.sort_unstable();
        assert_eq!(freed, [0, norm, relu, sum]);
    }
}
