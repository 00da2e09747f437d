//! What a network stores and multiplies, as a fold over its nodes: the three memory constraints, bit
//! operations, and what lives at once.

use super::kind::LayerKind;
use super::node::{Graph, NodeId, Operation};
use super::placement::{Placement, Quantization, is_site};
use super::plan::Plan;
use crate::quantizer::memory::{FLOAT_BITS, Multiplication, Role, Stored, Usage, kilobytes};

/// A stored tensor and the quantizer that decides its bitwidth.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredTensor {
    /// Name of its node.
    pub name: String,
    /// Kind of its layer.
    pub kind: LayerKind,
    /// Weight, bias or activation.
    pub role: Role,
    /// Elements (of one sample for activations).
    pub elements: usize,
    /// `None`: 32 bits.
    pub quantizer: Option<usize>,
}

/// A value that lives while a step runs: its elements and its quantizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Elements of one sample.
    pub elements: usize,
    /// `None`: 32 bits.
    pub quantizer: Option<usize>,
}

/// What a network stores and multiplies.
#[derive(Debug, Clone, PartialEq)]
pub struct Account {
    /// In network order.
    pub stored: Vec<StoredTensor>,
    /// Of every convolution and affine layer, by indices into `stored`.
    pub multiplications: Vec<Multiplication>,
    /// By step: the values that live while it runs, its output among them.
    pub held: Vec<Vec<Held>>,
}

impl Account {
    /// Of a graph whose quantizers stand as placed. Activations count where they would be
    /// quantized, at 32 bits where they are not.
    pub fn new(
        graph: &Graph,
        quantization: &Quantization,
        placement: &Placement,
        plan: &Plan,
    ) -> Self {
        let mut account = Self {
            stored: Vec::new(),
            multiplications: Vec::new(),
            held: Vec::new(),
        };
        // The stored tensor behind each node's value, where there is one.
        let mut stored_of: Vec<Option<usize>> = vec![None; graph.nodes.len()];
        let mut of_parameter: Vec<Option<usize>> = vec![None; graph.parameters.len()];
        for id in 0..graph.nodes.len() {
            let node = &graph.nodes[id];
            if let Operation::Convolution { weight, bias, .. }
            | Operation::Affine { weight, bias } = &node.operation
            {
                let known = &mut of_parameter;
                let weight = account.parameter(graph, placement, id, *weight, Role::Weight, known);
                if let Some(bias) = bias {
                    account.parameter(graph, placement, id, *bias, Role::Bias, known);
                }
                account.multiply(graph, id, weight, &stored_of);
            }
            let counts = is_site(graph, quantization, id)
                && (node.operation != Operation::Input || placement.of_node[id].is_some());
            if counts {
                stored_of[id] = Some(account.stored.len());
                account.stored.push(StoredTensor {
                    name: node.name.clone(),
                    kind: graph.kind(id),
                    role: Role::Activation,
                    elements: node.elements(),
                    quantizer: placement.of_node[id],
                });
            }
        }
        account.held = held(graph, placement, plan);
        account
    }

    fn parameter(
        &mut self,
        graph: &Graph,
        placement: &Placement,
        node: NodeId,
        parameter: usize,
        role: Role,
        of_parameter: &mut [Option<usize>],
    ) -> usize {
        // One that several layers share is stored once.
        if let Some(known) = of_parameter[parameter] {
            return known;
        }
        of_parameter[parameter] = Some(self.stored.len());
        self.stored.push(StoredTensor {
            name: graph.nodes[node].name.clone(),
            kind: graph.kind(node),
            role,
            elements: graph.parameters[parameter].shape.iter().product(),
            quantizer: placement.of_parameter[parameter],
        });
        self.stored.len() - 1
    }

    /// Multiply-accumulates of a layer; over concatenated inputs each part counts with its own bits.
    fn multiply(
        &mut self,
        graph: &Graph,
        node: NodeId,
        weight: usize,
        stored_of: &[Option<usize>],
    ) {
        let [_, height, width] = graph.nodes[node].shape;
        let macs = (height * width * self.stored[weight].elements) as u64;
        let input = graph.nodes[node].inputs[0];
        let channels = graph.nodes[input].shape[0] as u64;
        let mut parts = Vec::new();
        sources(graph, input, stored_of, &mut parts);
        let whole: u64 = parts.iter().map(|(share, _)| *share).sum();
        let mut left = macs;
        let count = parts.len();
        for (i, (share, activation)) in parts.into_iter().enumerate() {
            let part = if i + 1 == count {
                left
            } else {
                macs * share / whole.max(channels).max(1)
            };
            left -= part;
            self.multiplications.push(Multiplication {
                macs: part,
                weight: Some(weight),
                activation,
            });
        }
    }

    /// Every stored tensor at the bitwidths that `bits` gives its quantizer.
    pub fn resolve(&self, bits: impl Fn(usize) -> f64) -> Vec<Stored> {
        self.stored
            .iter()
            .map(|s| Stored {
                role: s.role,
                elements: s.elements,
                bits: s.quantizer.map_or(FLOAT_BITS, &bits),
            })
            .collect()
    }

    /// Memory and bit operations at the bitwidths that `bits` gives.
    pub fn usage(&self, bits: impl Fn(usize) -> f64) -> Usage {
        Usage::of(&self.resolve(bits), &self.multiplications)
    }

    /// kB of one sample's activations that are alive at once while steps run one after the other:
    /// what a step reads, what it yields, and what later steps still need.
    pub fn peak(&self, bits: impl Fn(usize) -> f64) -> f64 {
        let size = |h: &Held| kilobytes(h.elements, h.quantizer.map_or(FLOAT_BITS, &bits));
        let steps = self.held.iter().map(|all| all.iter().map(size).sum());
        steps.fold(0.0, f64::max)
    }
}

/// The stored tensors that a value's numbers come from, with the channels from each.
fn sources(
    graph: &Graph,
    value: NodeId,
    stored_of: &[Option<usize>],
    parts: &mut Vec<(u64, Option<usize>)>,
) {
    let node = &graph.nodes[value];
    if stored_of[value].is_some() {
        parts.push((node.shape[0] as u64, stored_of[value]));
        return;
    }
    match &node.operation {
        Operation::Concatenate => {
            for input in &node.inputs {
                sources(graph, *input, stored_of, parts);
            }
        }
        operation
            if operation.keeps_levels()
                || matches!(
                    operation,
                    Operation::AveragePool { .. } | Operation::GlobalAverage
                ) =>
        {
            sources(graph, node.inputs[0], stored_of, parts);
        }
        _ => parts.push((node.shape[0] as u64, None)),
    }
}

/// The quantizer whose levels a value lies on.
fn levels(graph: &Graph, placement: &Placement, value: NodeId) -> Option<usize> {
    let node = &graph.nodes[value];
    placement.of_node[value].or_else(|| {
        let below = node.operation.keeps_levels().then(|| node.inputs[0])?;
        levels(graph, placement, below)
    })
}

/// What lives while each step runs. What a convolution or affine layer hands to one batch norm or
/// nonlinearity alone is part of that step, as sums in an accumulator are.
fn held(graph: &Graph, placement: &Placement, plan: &Plan) -> Vec<Vec<Held>> {
    let mut alive: Vec<NodeId> = Vec::new();
    let mut late: Vec<NodeId> = Vec::new();
    let mut steps = Vec::with_capacity(plan.steps.len());
    for (i, step) in plan.steps.iter().enumerate() {
        if is_accumulator(graph, plan, i) {
            late.extend(&step.frees);
            continue;
        }
        alive.push(step.output);
        steps.push(
            alive
                .iter()
                .map(|value| Held {
                    elements: graph.nodes[*value].elements(),
                    quantizer: levels(graph, placement, *value),
                })
                .collect(),
        );
        alive.retain(|value| !step.frees.contains(value) && !late.contains(value));
        late.clear();
    }
    steps
}

/// Whether the next step alone reads what this one yields, and normalises or clips it.
fn is_accumulator(graph: &Graph, plan: &Plan, at: usize) -> bool {
    let node = |id: NodeId| &graph.nodes[id].operation;
    let output = plan.steps[at].output;
    let has_weights = matches!(
        node(output),
        Operation::Convolution { .. } | Operation::Affine { .. }
    );
    let Some(next) = plan.steps.get(at + 1).filter(|_| has_weights) else {
        return false;
    };
    let joins = next.fused.is_some() || node(next.output).is_nonlinearity();
    joins && next.inputs(graph).first() == Some(&output) && next.frees.contains(&output)
}

#[cfg(test)]
mod tests {
    use super::super::node::Window;
    use super::super::placement::place;
    use super::*;
    use crate::quantizer::Rules;

    /// Two branches that meet, a pooling and a classifier.
    fn account() -> Account {
        let mut graph = Graph::new([3, 8, 8]);
        let window = Window::square(3, 1, 1);
        let relu = |graph: &mut Graph, name: &str, input| {
            graph.push(name, Operation::RELU, &[input]).expect("fits")
        };
        let a = graph
            .convolution("a", 0, 4, window, 1, false)
            .expect("fits");
        let a = relu(&mut graph, "a.relu", a);
        let b = graph
            .convolution("b", a, 12, window, 1, true)
            .expect("fits");
        let b = relu(&mut graph, "b.relu", b);
        let both = graph
            .push("both", Operation::Concatenate, &[a, b])
            .expect("fits");
        let c = graph
            .convolution("c", both, 2, Window::square(1, 1, 0), 1, false)
            .expect("fits");
        let c = relu(&mut graph, "c.relu", c);
        let pool = Operation::MaxPool(Window::square(2, 2, 0));
        let pooled = graph.push("pool", pool, &[c]).expect("fits");
        let flat = graph
            .push("flat", Operation::Reshape([32, 1, 1]), &[pooled])
            .expect("fits");
        graph.affine("classifier", flat, 5).expect("fits");
        let quantization = Quantization::none(Rules::Paper);
        let placement = place(&graph, &quantization);
        let plan = Plan::new(&graph, &placement);
        Account::new(&graph, &quantization, &placement, &plan)
    }

    #[test]
    fn each_part_of_a_concatenation_counts_with_its_own_bits() {
        let account = account();
        let of = |name: &str| {
            let stored = account.stored.iter();
            let mut places = stored.enumerate().filter(|(_, s)| s.name == name);
            places.next().expect("stored").0
        };
        let weight = of("c");
        let parts: Vec<_> = account
            .multiplications
            .iter()
            .filter(|m| m.weight == Some(weight))
            .map(|m| (m.macs, m.activation))
            .collect();
        // 8x8 outputs of 2 channels over 4 and 12 input channels.
        assert_eq!(
            parts,
            [(512, Some(of("a.relu"))), (1536, Some(of("b.relu")))]
        );
        // Through pooling and reshape the classifier reads what the last ReLU yielded; the first
        // convolution reads the float input.
        let reads = |name: &str| {
            let multiplication = account
                .multiplications
                .iter()
                .find(|m| m.weight == Some(of(name)));
            multiplication.expect("multiplies").activation
        };
        assert_eq!(reads("classifier"), Some(of("c.relu")));
        assert_eq!(reads("a"), None);
    }

    #[test]
    fn the_peak_counts_what_lives_at_once() {
        let account = account();
        // While the branches are joined: 4, 12 and 16 channels of 64 pixels, 32 bits.
        let expected = kilobytes(32 * 64, FLOAT_BITS);
        assert_eq!(
            account.peak(|_| unreachable!("nothing is quantized")),
            expected
        );
        let usage = account.usage(|_| unreachable!("nothing is quantized"));
        assert_eq!(usage.activation_max, kilobytes(12 * 64, FLOAT_BITS));
        assert_eq!(usage.activation_sum, kilobytes(18 * 64, FLOAT_BITS));
        let weights = 4 * 27 + 12 * 36 + 12 + 2 * 16 + 5 * 32 + 5;
        assert_eq!(usage.weights, kilobytes(weights, FLOAT_BITS));
    }
}
