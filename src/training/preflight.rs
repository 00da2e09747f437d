//! What can be said of an experiment before it runs: the budgets, resolved and in reach.

use rand::SeedableRng;

use crate::device::{Engine, burn_device};
use crate::experiment::Experiment;
use crate::network::Network;
use crate::quantizer::memory::Usage;

/// Memory of an experiment's network: now, in float, and the least that its clamps allow.
#[derive(Debug, Clone, PartialEq)]
pub struct Budgeted {
    /// At the initial bitwidths.
    pub initial: Usage,
    /// At the least bitwidths.
    pub least: Usage,
    /// Name, elements, initial bits and kB of every stored tensor that has a quantizer.
    pub layers: Vec<(String, usize, f64, f64)>,
}

/// Resolves memory per layer without data.
pub fn resolved_budgets(experiment: &Experiment) -> Budgeted {
    let network = outline(experiment);
    let layers = network
        .stored()
        .iter()
        .zip(network.stored_slots())
        .filter_map(|(stored, slot)| {
            let name = network.slots[slot?].name.clone();
            Some((name, stored.elements, stored.bits, stored.kilobytes()))
        })
        .collect();
    Budgeted {
        initial: network.usage(),
        least: network.least_usage(),
        layers,
    }
}

/// Budgets out of reach: one message per budget with the key that sets it, what is wrong and what
/// could be reached.
pub fn preflight(experiment: &Experiment) -> Vec<(&'static str, String, String)> {
    if experiment.budgets.limits.is_empty() {
        return Vec::new();
    }
    let least = outline(experiment).least_usage();
    let mut problems = Vec::new();
    for (resource, limit, _) in &experiment.budgets.limits {
        let reachable = least.amount(*resource);
        if *limit < reachable {
            use crate::quantizer::memory::Resource::*;
            let key = match resource {
                Weights => "budget.weights_kb",
                ActivationSum => "budget.activations_sum_kb",
                ActivationMax => "budget.activations_max_kb",
                Bops => "budget.gbops",
            };
            let unit = resource.unit();
            problems.push((
                key,
                format!(
                    "a budget of {limit} {unit} for {} is out of reach",
                    resource.label()
                ),
                format!("at least {reachable:.2} {unit}, what the smallest bitwidths take"),
            ));
        }
    }
    problems
}

/// The network's structure; weights are of no interest here.
fn outline(experiment: &Experiment) -> Network {
    let device = burn_device(default_engine()).autodiff();
    let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(0);
    let quantization = experiment.quantization();
    Network::build(experiment.model, 10, 32, &quantization, &device, &mut rng)
}

fn default_engine() -> Engine {
    if cfg!(feature = "flex") {
        Engine::Flex
    } else {
        Engine::LibTorchCpu
    }
}
