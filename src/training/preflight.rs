//! What can be said of an experiment before it runs: its network's layers, memory and bit operations,
//! and whether its budgets are in reach. No weight is allocated.

use std::path::{Path, PathBuf};

use super::error::TrainError;
use crate::dataset::{DataError, DataShape};
use crate::experiment::{Experiment, Start};
use crate::graph::{Account, Graph, GraphError, Placement, Plan, StoredTensor, place};
use crate::quantizer::memory::{FLOAT_BITS, Usage};
use crate::run::RunFolder;

/// The checkpoint of another run that training starts from.
///
/// # Errors
/// Where there is no such run, or it has no checkpoint.
pub(in crate::training) fn first_weights(run: &Path) -> Result<PathBuf, TrainError> {
    let run = RunFolder::open(run)?;
    run.start().ok_or_else(|| TrainError::no_checkpoint(&run))
}

fn missing_start(start: &Start) -> Option<String> {
    match start {
        Start::Scratch => None,
        Start::Weights(file) => {
            let read = crate::files::open(file);
            read.err()
                .map(|e| format!("`init.weights`: {}: {e}", file.display()))
        }
        Start::Run(run) => first_weights(run).err().map(|e| format!("`init.run`: {e}")),
    }
}

/// An experiment's network without its values.
#[derive(Debug)]
pub struct Outline {
    /// The network.
    pub graph: Graph,
    /// Its quantizers.
    pub placement: Placement,
    /// What it stores and multiplies.
    pub account: Account,
    /// Shape of the data.
    pub data: DataShape,
    /// Where the data is not there: the shape is what the experiment declares.
    pub missing: Option<DataError>,
    /// Where what training is to start from is not there: why.
    pub missing_start: Option<String>,
    /// What a reader should know of the network.
    pub notes: Vec<String>,
}

impl Outline {
    /// Of an experiment; of its data, the shape alone is read.
    ///
    /// # Errors
    /// Where the network cannot be built.
    pub fn of(experiment: &Experiment) -> Result<Self, GraphError> {
        let (data, missing) = crate::dataset::shape(experiment);
        let built = experiment.model.graph(data.picture, data.classes)?;
        let quantization = experiment.quantization();
        let placement = place(&built.graph, &quantization);
        let plan = Plan::new(&built.graph, &placement);
        let account = Account::new(&built.graph, &quantization, &placement, &plan);
        let mut notes = built.notes;
        notes.extend(quantization.without_effect(&built.graph));
        Ok(Self {
            graph: built.graph,
            placement,
            account,
            data,
            missing,
            missing_start: missing_start(&experiment.start),
            notes,
        })
    }

    /// Bits of a quantizer at its initial parameters.
    pub fn initial_bits(&self, quantizer: usize) -> f64 {
        let plan = &self.placement.quantizers[quantizer].plan;
        plan.quantizer.grid(plan.parameters()).bits
    }

    /// Memory and bit operations at the initial bitwidths.
    pub fn initial(&self) -> Usage {
        self.account.usage(|q| self.initial_bits(q))
    }

    /// The least that the clamps allow.
    pub fn least(&self) -> Usage {
        self.account.usage(|q| {
            let plan = &self.placement.quantizers[q].plan;
            if plan.quantizer.is_learned(0) {
                plan.quantizer.least_reachable_bits()
            } else {
                self.initial_bits(q)
            }
        })
    }

    /// The same in float.
    pub fn float(&self) -> Usage {
        self.account.usage(|_| FLOAT_BITS)
    }

    /// Every stored tensor with its initial bits.
    pub fn layers(&self) -> impl Iterator<Item = (&StoredTensor, f64)> {
        let bits = |s: &StoredTensor| s.quantizer.map_or(FLOAT_BITS, |q| self.initial_bits(q));
        self.account.stored.iter().map(move |s| (s, bits(s)))
    }
}

/// Budgets out of reach: one message per budget with the key that sets it, what is wrong and what
/// could be reached.
pub fn preflight(experiment: &Experiment) -> Vec<(&'static str, String, String)> {
    if experiment.budgets.limits.is_empty() {
        return Vec::new();
    }
    // What is wrong with the network is said where it is built.
    Outline::of(experiment)
        .map_or_else(|_| Vec::new(), |outline| out_of_reach(experiment, &outline))
}

/// The same for a network that has been outlined.
pub fn out_of_reach(
    experiment: &Experiment,
    outline: &Outline,
) -> Vec<(&'static str, String, String)> {
    let least = outline.least();
    let mut problems = Vec::new();
    for limit in &experiment.budgets.limits {
        let (resource, amount) = (limit.resource, limit.amount);
        let reachable = least.amount(resource);
        if amount < reachable {
            let unit = resource.unit();
            // To the digits that tell it from the budget, rounded up: what is named has to be accepted.
            let least = match (reachable * 100.0).round() / 100.0 {
                rounded if amount < rounded => format!("{rounded:.2}"),
                _ => format!("{:.4}", (reachable * 1e4 - 1e-6).ceil() / 1e4),
            };
            problems.push((
                limit.key(),
                format!(
                    "a budget of {amount} {unit} for {} is out of reach",
                    resource.label()
                ),
                format!("at least {least} {unit}, what the smallest bitwidths take"),
            ));
        }
    }
    problems
}
