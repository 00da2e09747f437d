//! Which tensors get a quantizer.

use serde::{Deserialize, Serialize};

use super::kind::LayerKind;
use super::node::{Graph, NodeId, Operation};
use crate::quantizer::memory::Role;
use crate::quantizer::{InitialBits, Quantizer, Rules, initial_parameters};

/// Where a quantizer's parameters start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Initial {
    /// From the tensor's largest magnitude.
    Data,
    /// These.
    Fixed([f64; 2]),
}

/// A quantizer and where its parameters start.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizerPlan {
    /// The quantizer with its clamps.
    pub quantizer: Quantizer,
    /// Where its parameters start.
    pub initial: Initial,
    /// Bitwidth that initialisation aims at.
    pub bits: f64,
}

impl QuantizerPlan {
    /// Parameters before any initialisation from data.
    pub fn parameters(&self) -> [f64; 2] {
        match self.initial {
            Initial::Fixed(parameters) => parameters,
            Initial::Data => initial_parameters(&self.quantizer, 1.0, InitialBits(self.bits)),
        }
    }

    /// The same with a sign, for values that can be negative: a sign takes a bit.
    fn signed(&self) -> Self {
        let mut plan = self.clone();
        let bounds = &mut plan.quantizer.bounds.b;
        *bounds = bounds.start().max(2.0)..=bounds.end().max(2.0);
        for bits in &mut plan.quantizer.allowed_bits {
            *bits = bits.max(2.0);
        }
        plan.quantizer.allowed_bits.dedup();
        plan.quantizer.signed = true;
        plan.bits = plan.bits.max(2.0);
        plan
    }
}

/// What `[[layers]]` of an experiment file says of some layers.
#[derive(Debug, Clone, PartialEq)]
pub struct Override {
    /// Names, globs, kinds, `first`, `last`.
    pub matches: Vec<String>,
    /// Of their weights and biases; the outer `None` leaves them as they are, the inner one in float.
    pub weights: Option<Option<QuantizerPlan>>,
    /// The same of their activations.
    pub activations: Option<Option<QuantizerPlan>>,
}

/// Which activations are quantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sites {
    /// Outputs of nonlinearities: the paper's choice.
    Nonlinearities,
    /// Every value that a layer reads: what an integer machine needs.
    Everywhere,
}

/// How a network is quantized; `None` leaves that side in float.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantization {
    /// Weights and biases.
    pub weights: Option<QuantizerPlan>,
    /// Activations; unsigned where values are.
    pub activations: Option<QuantizerPlan>,
    /// The network's input, where it is quantized.
    pub input: Option<QuantizerPlan>,
    /// Which activations.
    pub sites: Sites,
    /// Under the published code's rules a bias has a quantizer of its own; in the paper it shares
    /// its weight's.
    pub rules: Rules,
    /// Exceptions; later ones go over earlier ones.
    pub overrides: Vec<Override>,
}

impl Quantization {
    /// Nothing is quantized.
    pub fn none(rules: Rules) -> Self {
        Self {
            weights: None,
            activations: None,
            input: None,
            sites: Sites::Nonlinearities,
            rules,
            overrides: Vec::new(),
        }
    }
}

/// A quantizer and what it quantizes.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// Name of the node.
    pub name: String,
    /// What it quantizes.
    pub role: Role,
    /// Kind of the layer.
    pub kind: LayerKind,
    /// Elements (of one sample for activations).
    pub elements: usize,
    /// The parameter that it quantizes; `None` for activations.
    pub parameter: Option<usize>,
    /// The parameter that it is initialised from: a bias begins as its layer's weights do, as in the
    /// published code.
    pub source: Option<usize>,
    /// Quantizer, with its sign, and first parameters.
    pub plan: QuantizerPlan,
}

impl Quantization {
    /// What of its exceptions has no effect, a sentence each: patterns that match no layer, and sides
    /// that are in float.
    pub fn without_effect(&self, graph: &Graph) -> Vec<String> {
        let matched =
            |pattern: &&String| (0..graph.nodes.len()).any(|node| covers(pattern, graph, node));
        let patterns = self.overrides.iter().flat_map(|o| &o.matches);
        let unmatched = patterns.filter(|pattern| !matched(pattern));
        let said = unmatched.map(|p| format!("`[[layers]]`: `{p}` matches no layer"));
        let in_float = self.overrides.iter().filter_map(|o| {
            let side = match (&o.weights, &o.activations) {
                (Some(_), None) if self.weights.is_none() => "weights",
                (None, Some(_)) if self.activations.is_none() => "activations",
                _ => return None,
            };
            let matches = o.matches.join("`, `");
            Some(format!(
                "`[[layers]]`: `{matches}`: {side} are not quantized (`{side}.quantizer`)"
            ))
        });
        said.chain(in_float).collect()
    }
}

/// The quantizers of a network, and where they stand.
#[derive(Debug, Clone, PartialEq)]
pub struct Placement {
    /// In network order.
    pub quantizers: Vec<Placed>,
    /// The quantizer of each parameter.
    pub of_parameter: Vec<Option<usize>>,
    /// The quantizer of what each node yields.
    pub of_node: Vec<Option<usize>>,
}

/// Places quantizers, in the order of the nodes.
pub fn place(graph: &Graph, quantization: &Quantization) -> Placement {
    let mut placement = Placement {
        quantizers: Vec::new(),
        of_parameter: vec![None; graph.parameters.len()],
        of_node: vec![None; graph.nodes.len()],
    };
    for (id, nonnegative) in nonnegative(graph).into_iter().enumerate() {
        match &graph.nodes[id].operation {
            Operation::Convolution { weight, bias, .. } | Operation::Affine { weight, bias } => {
                placement.weights(graph, quantization, id, *weight, *bias);
            }
            _ => {}
        }
        if is_site(graph, quantization, id) {
            placement.activation(graph, quantization, id, nonnegative);
        }
    }
    placement
}

impl Placement {
    fn weights(
        &mut self,
        graph: &Graph,
        quantization: &Quantization,
        node: NodeId,
        weight: usize,
        bias: Option<usize>,
    ) {
        let mut plan = quantization.weights.clone();
        for other in &quantization.overrides {
            if let Some(instead) = &other.weights
                && other.covers(graph, node)
            {
                plan.clone_from(instead);
            }
        }
        let Some(plan) = plan else {
            return;
        };
        let mut placed = |parameter: usize, role: Role| {
            if self.of_parameter[parameter].is_none() {
                self.of_parameter[parameter] = Some(self.quantizers.len());
                self.quantizers.push(Placed {
                    name: graph.nodes[node].name.clone(),
                    role,
                    kind: graph.kind(node),
                    elements: graph.parameters[parameter].shape.iter().product(),
                    parameter: Some(parameter),
                    source: Some(weight),
                    plan: plan.clone(),
                });
            }
        };
        placed(weight, Role::Weight);
        let Some(bias) = bias else {
            return;
        };
        match quantization.rules {
            Rules::Paper => self.of_parameter[bias] = self.of_parameter[weight],
            Rules::PublishedCode => placed(bias, Role::Bias),
        }
    }

    fn activation(
        &mut self,
        graph: &Graph,
        quantization: &Quantization,
        node: NodeId,
        nonnegative: bool,
    ) {
        let is_input = graph.nodes[node].operation == Operation::Input;
        let mut plan = if is_input {
            quantization.input.clone()
        } else {
            quantization.activations.clone()
        };
        for other in &quantization.overrides {
            if let Some(instead) = &other.activations
                && other.covers(graph, node)
            {
                plan.clone_from(instead);
            }
        }
        let Some(mut plan) = plan else {
            return;
        };
        if !nonnegative && !plan.quantizer.signed {
            plan = plan.signed();
        }
        self.of_node[node] = Some(self.quantizers.len());
        self.quantizers.push(Placed {
            name: graph.nodes[node].name.clone(),
            role: Role::Activation,
            kind: graph.kind(node),
            elements: graph.nodes[node].elements(),
            parameter: None,
            source: None,
            plan,
        });
    }
}

impl Override {
    /// Whether it speaks of a node.
    pub fn covers(&self, graph: &Graph, node: NodeId) -> bool {
        self.matches.iter().any(|m| covers(m, graph, node))
    }
}

/// Whether one word of `match` speaks of a node.
fn covers(pattern: &str, graph: &Graph, node: NodeId) -> bool {
    let has_weights = |n: &NodeId| {
        let operation = &graph.nodes[*n].operation;
        matches!(
            operation,
            Operation::Convolution { .. } | Operation::Affine { .. }
        )
    };
    match pattern {
        "first" => (0..graph.nodes.len()).find(has_weights) == Some(node),
        "last" => (0..graph.nodes.len()).rev().find(has_weights) == Some(node),
        pattern if pattern == graph.kind(node).word() => true,
        pattern => glob(pattern.as_bytes(), graph.nodes[node].name.as_bytes()),
    }
}

/// Whether a name fits a pattern in which `*` stands for any text and `?` for one byte.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            glob(rest, name)
                || name
                    .split_first()
                    .is_some_and(|(_, name)| glob(pattern, name))
        }
        (Some((b'?', rest)), Some((_, name))) => glob(rest, name),
        (Some((a, rest)), Some((b, name))) => a == b && glob(rest, name),
        _ => false,
    }
}

/// Whether what a node yields is to be quantized.
pub(super) fn is_site(graph: &Graph, quantization: &Quantization, id: NodeId) -> bool {
    let node = &graph.nodes[id];
    if id == graph.output() {
        return false;
    }
    if node.operation.is_nonlinearity() {
        return true;
    }
    // Whoever asks for the input's bits gets them, wherever else quantizers stand.
    if node.operation == Operation::Input && quantization.input.is_some() {
        return true;
    }
    match quantization.sites {
        Sites::Nonlinearities => false,
        Sites::Everywhere => {
            if node.operation.keeps_levels() {
                return false;
            }
            let mut readers = graph.nodes.iter().filter(|n| n.inputs.contains(&id));
            let (first, second) = (readers.next(), readers.next());
            // What one nonlinearity alone reads is quantized behind it, and what one batch norm
            // alone reads is part of it.
            let joins = |reader: &super::Node| match reader.operation {
                Operation::BatchNorm { .. } => {
                    matches!(
                        node.operation,
                        Operation::Convolution { .. } | Operation::Affine { .. }
                    )
                }
                _ => reader.operation.is_nonlinearity(),
            };
            !(second.is_none() && first.is_some_and(joins))
        }
    }
}

/// Which nodes can yield no negative value.
fn nonnegative(graph: &Graph) -> Vec<bool> {
    use super::node::Function;
    let mut all: Vec<bool> = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let inputs = || !node.inputs.is_empty() && node.inputs.iter().all(|i| all[*i]);
        all.push(match &node.operation {
            Operation::Clip { low, .. } => *low >= 0.0 || inputs(),
            Operation::Function(Function::Sigmoid | Function::HardSigmoid { .. }) => true,
            Operation::Add
            | Operation::Multiply
            | Operation::Concatenate
            | Operation::MaxPool(_)
            | Operation::AveragePool { .. }
            | Operation::GlobalAverage
            | Operation::Function(_) => inputs(),
            other => other.keeps_levels() && inputs(),
        });
    }
    all
}
