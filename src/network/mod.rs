//! A graph with values: parameters on a device, quantizers, and the plan executed.
//!
//! Doors:
//! - [`Network`]: parameters, quantizers and the forward pass of a [`Graph`].
//! - [`Slot`]: one quantizer in network order, with its name, role and current parameters.
//! - [`Parameter`]: one learned tensor, flat, with its name, kind and shape.
//! - [`Snapshot`]: its numbers on the host, for replays and exporters.
//! - [`weights`]: names and layouts of other programs' weights, as safetensors.
//!
//! A network knows nothing of optimizers, budgets or screens.

mod forward;
mod parameter;
mod snapshot;
pub mod weights;

pub use forward::{Forward, Mode};
pub(crate) use parameter::read as read_tensor;
pub use parameter::{Parameter, Running, Slot};
pub use snapshot::Snapshot;

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::graph::{Account, Built, Graph, Kind, Placement, Plan, Quantization, Values, place};
use crate::kernels::{Across, Moments};
use crate::quantizer::Rules;
use crate::quantizer::memory::{Multiplication, Stored, Usage};
use parameter::leaf;

/// A network with its parameters and quantizers.
pub struct Network {
    /// Every learned tensor, in network order.
    pub parameters: Vec<Parameter>,
    /// Running statistics of every batch norm, in network order.
    pub running: Vec<Running>,
    /// Every quantizer, in network order.
    pub slots: Vec<Slot>,
    /// Whether the quantizers are in use; a float phase leaves them out.
    pub quantized: bool,
    graph: Arc<Graph>,
    placement: Placement,
    plan: Arc<Plan>,
    account: Account,
    /// How batch norms sum their statistics.
    moments: Moments,
    device: Device,
    rules: Rules,
    /// Nodes whose sums are taken in f64; of none where empty.
    exact: Vec<bool>,
    /// Ranks whose batches count as one for batch norms that take the batch's own statistics, while a
    /// pass is theirs together.
    pub(crate) across: Option<Across>,
}

impl Network {
    /// A network with the values that came with its graph; where there are none, He-normal weights
    /// drawn from `rng`.
    pub fn new(
        built: &Built,
        quantization: &Quantization,
        device: &Device,
        rng: &mut impl Rng,
    ) -> Self {
        let graph = &built.graph;
        let placement = place(graph, quantization);
        let plan = Plan::new(graph, &placement);
        let account = Account::new(graph, quantization, &placement, &plan);
        let slots = placement.quantizers.iter().map(|q| Slot::new(q, device));
        Self {
            parameters: parameters(graph, &built.values, device, rng),
            running: running(graph, &built.values, device),
            slots: slots.collect(),
            quantized: !placement.quantizers.is_empty(),
            graph: Arc::new(graph.clone()),
            placement,
            plan: Arc::new(plan),
            account,
            moments: match quantization.rules {
                Rules::Paper => Moments::Exact,
                Rules::PublishedCode => Moments::Sequential,
            },
            device: device.clone(),
            rules: quantization.rules,
            exact: Vec::new(),
            across: None,
        }
    }

    /// The device that it computes on (with autodiff).
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Its structure.
    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// The rule set that it was built for.
    pub fn rules(&self) -> Rules {
        self.rules
    }

    /// Bits of every stored tensor now.
    pub fn stored(&self) -> Vec<Stored> {
        self.account.resolve(|slot| self.bits(slot))
    }

    fn bits(&self, slot: usize) -> f64 {
        if self.quantized {
            self.slots[slot].grid().bits
        } else {
            crate::quantizer::memory::FLOAT_BITS
        }
    }

    /// The slot behind every stored tensor, in the order of [`Self::stored`].
    pub fn stored_slots(&self) -> Vec<Option<usize>> {
        let stored = self.account.stored.iter();
        stored.map(|s| s.quantizer).collect()
    }

    /// Layers' multiply-accumulates, as indices into [`Self::stored`].
    pub fn multiplications(&self) -> &[Multiplication] {
        &self.account.multiplications
    }

    /// Memory and bit operations now.
    pub fn usage(&self) -> Usage {
        self.account.usage(|slot| self.bits(slot))
    }

    /// Number of learned weights and biases that count as stored (without batch norm).
    pub fn stored_weights(&self) -> usize {
        let stored = self.account.stored.iter();
        let weights = stored.filter(|s| s.role != crate::quantizer::memory::Role::Activation);
        weights.map(|s| s.elements).sum()
    }

    /// Gives a batch norm (scale, shift, statistics by index) other values: scale and shift, means
    /// and variances.
    pub(crate) fn set_norm(
        &mut self,
        [gamma, beta, norm]: [usize; 3],
        [scale, shift]: [Vec<f32>; 2],
        [means, variances]: [Vec<f32>; 2],
    ) {
        let channels = means.len();
        self.parameters[gamma].value = leaf(scale, &self.device);
        self.parameters[beta].value = leaf(shift, &self.device);
        let data = TensorData::new([means, variances].concat(), [2, channels]);
        self.running[norm].statistics = Tensor::from_data(data, &self.device.clone().inner());
    }

    /// Largest magnitude of the parameter that a quantizer is initialised from; `None` for activations.
    pub fn largest_weight(&self, slot: usize) -> Option<f64> {
        let values = self.parameters[self.slots[slot].source?].to_vec();
        let largest = values.iter().fold(0f32, |m, v| m.max(v.abs()));
        Some(largest.into())
    }
}

fn parameters(
    graph: &Graph,
    values: &Values,
    device: &Device,
    rng: &mut impl Rng,
) -> Vec<Parameter> {
    let initial = |p: &crate::graph::Parameter, rng: &mut _| {
        let elements = p.shape.iter().product();
        match p.kind {
            Kind::Weight => normal(p, rng),
            Kind::Gamma => vec![1.0; elements],
            Kind::Bias | Kind::Beta => vec![0.0; elements],
        }
    };
    graph
        .parameters
        .iter()
        .map(|p| {
            let given = values.get(&p.name).cloned();
            let values = given.unwrap_or_else(|| initial(p, rng));
            Parameter {
                name: p.name.clone(),
                kind: p.kind,
                shape: p.shape.clone(),
                value: leaf(values, device),
            }
        })
        .collect()
}

/// He-normal: variance two over the number of inputs.
fn normal(parameter: &crate::graph::Parameter, rng: &mut impl Rng) -> Vec<f32> {
    let fan_in: usize = parameter.shape[1..].iter().product();
    let deviation = (2.0 / fan_in as f64).sqrt();
    let elements: usize = parameter.shape.iter().product();
    (0..elements)
        .map(|_| {
            let draw: f64 = StandardNormal.sample(rng);
            (draw * deviation) as f32
        })
        .collect()
}

fn running(graph: &Graph, values: &Values, device: &Device) -> Vec<Running> {
    let inner = device.clone().inner();
    graph
        .norms
        .iter()
        .map(|norm| {
            let row = |entry: usize, otherwise: f32| {
                let given = values.get(&norm.entries[entry]).cloned();
                given.unwrap_or_else(|| vec![otherwise; norm.channels])
            };
            let rows = [row(0, 0.0), row(1, 1.0)].concat();
            Running {
                entries: norm.entries.clone(),
                statistics: Tensor::from_data(TensorData::new(rows, [2, norm.channels]), &inner),
            }
        })
        .collect()
}

/// Networks for tests.
#[cfg(test)]
pub(crate) mod example {
    use rand::SeedableRng;
    use rand_pcg::Pcg64Mcg;

    use super::Network;
    use crate::experiment::load_embedded;

    /// The network of an experiment, as it is before training, its quantizers in use.
    pub(crate) fn network(experiment: &str) -> Network {
        let loaded = load_embedded("e.toml", experiment, &Vec::new()).expect("valid");
        let experiment = loaded.experiment;
        let (data, _) = crate::dataset::shape(&experiment);
        let built = experiment.model.graph(data.picture, data.classes);
        let device = crate::device::parse("flex").expect("compiled in");
        let device = crate::device::burn_device(device).autodiff();
        let mut rng = Pcg64Mcg::seed_from_u64(1);
        let quantization = experiment.quantization();
        let mut network = Network::new(&built.expect("builds"), &quantization, &device, &mut rng);
        network.quantized = true;
        network
    }
}
