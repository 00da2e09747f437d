//! One run, step by step.

mod begin;
mod evaluate;
mod fork;
mod initial;
mod intake;
mod ranks;
mod revive;
mod saved;
mod step;

use std::sync::Arc;

use burn::tensor::Device;

use crate::dataset::{Loader, LoaderSettings, Splits};
use crate::experiment::Experiment;
use crate::integers::ExportError;
use crate::kernels::ranks::Group;
use crate::network::Network;
use crate::run::{Budget, LayerInfo, Phase, Tightening};
use crate::training::budget::{self, Constraints};
use crate::training::optimizer::Optimizer;
use crate::training::schedule::has_come;

pub use begin::network_of;
pub use ranks::{Compared, follow};
pub use revive::{ASKED, Reinitialised};

/// Samples per forward pass of an evaluation.
const EVALUATION_BATCH: usize = 250;

/// A run: network, optimizer, loader and where it stands.
pub struct Trainer {
    experiment: Arc<Experiment>,
    device: Device,
    network: Network,
    optimizer: Optimizer,
    constraints: Constraints,
    splits: Splits,
    intake: intake::Intake,
    loader: Loader,
    /// Settings the loader runs with; they may lag behind the experiment until the next epoch.
    loader_settings: LoaderSettings,
    step: u64,
    epoch: f64,
    seconds: f64,
    next_batch: u64,
    best_error: Option<f64>,
    /// Epoch of the last evaluation that was completed.
    evaluated: f64,
    /// Stored elements behind each slot (of one sample for activations).
    slot_elements: Vec<usize>,
    /// Quantizers initialised anew since someone asked.
    reinitialised: Vec<Reinitialised>,
    last_images: Option<(Vec<f32>, [usize; 4])>,
    /// Whether batches are brought to the device one step ahead, and the one that was: the batch of
    /// number `next_batch`.
    takes_ahead: bool,
    ahead: Option<intake::Taken>,
    /// Whether a phase of a step is over only when the device has computed it.
    waits: bool,
    /// What a reader should know of how the network came about.
    notes: Vec<String>,
    /// Why the last evaluation was not in integers although that was asked for.
    not_in_integers: Option<ExportError>,
    /// Pictures that any of several ranks has left out, as of the last evaluation.
    left_out_of_all: usize,
    /// The ranks that train together.
    group: Group,
    /// What a step in progress has to give back should a rank be lost.
    before: Option<ranks::Before>,
    /// What the cost of a bit is measured on, once it has been.
    measured: Option<step::Measured>,
}

impl Trainer {
    /// From here on the next batch is brought to the device while that computes a step: a card then
    /// does not wait for it.
    pub fn take_ahead(&mut self) {
        self.takes_ahead = true;
    }

    /// From here on every phase of a step is over only when the device has computed it. Without, a
    /// card still computes what a phase has launched while the next ones are timed, and the first
    /// that needs a result (telemetry) waits for all; the step as a whole is shorter.
    pub fn wait_for_phases(&mut self) {
        self.waits = true;
    }

    /// What is to be said of how the network came about, a sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The network, for someone who does not train on.
    pub fn into_network(self) -> Network {
        self.network
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// Epochs, with fraction.
    pub fn epochs(&self) -> f64 {
        self.epoch
    }

    /// The experiment in force.
    pub fn experiment(&self) -> &Arc<Experiment> {
        &self.experiment
    }

    /// Steps of one epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.loader.per_epoch()
    }

    /// Steps of the whole run at the current settings.
    pub fn total_steps(&self) -> u64 {
        let left = self.experiment.float_epochs + self.experiment.epochs - self.epoch;
        self.step
            + (left * self.steps_per_epoch() as f64 - 1e-6)
                .ceil()
                .max(0.0) as u64
    }

    /// Whether the run has come to its end.
    pub fn is_done(&self) -> bool {
        self.step >= self.total_steps()
    }

    /// Phase of the next step.
    pub fn phase(&self) -> Phase {
        if self.network.quantized {
            Phase::Quantized
        } else {
            Phase::Float
        }
    }

    fn has_quantizers(&self) -> bool {
        !self.network.slots.is_empty()
    }

    /// Every quantizer, as events list them.
    pub fn layers(&self) -> Vec<LayerInfo> {
        let clamp = |r: &std::ops::RangeInclusive<f64>| [*r.start(), *r.end()];
        let slots = self.network.slots.iter().zip(&self.slot_elements);
        slots
            .map(|(slot, stored)| {
                let q = &slot.quantizer;
                let step = match q.parametrization.family() {
                    crate::quantizer::Family::Uniform => &q.bounds.d,
                    crate::quantizer::Family::PowerOfTwo => &q.bounds.q_min,
                };
                LayerInfo {
                    name: slot.name.clone(),
                    role: slot.role,
                    kind: slot.kind,
                    // With those of the bias, where it shares the quantizer: what memory counts.
                    elements: slot.elements.max(*stored),
                    parametrization: q.parametrization,
                    clamps: [clamp(step), clamp(&q.bounds.q_max)],
                    quantizer: None,
                }
            })
            .collect()
    }

    /// Memory and bit operations now.
    pub fn usage(&self) -> crate::quantizer::memory::Usage {
        self.network.usage()
    }

    /// Every quantizer, in network order.
    pub fn quantizers(&self) -> Vec<crate::quantizer::Quantizer> {
        let slots = self.network.slots.iter();
        slots.map(|slot| slot.quantizer.clone()).collect()
    }

    /// The constraints in force.
    pub fn budgets(&self) -> Vec<Budget> {
        budget::listed(&self.experiment.budgets)
    }

    /// Constraints that tighten, or have done so.
    pub fn tightening(&self) -> Vec<Tightening> {
        let (budgets, until) = (&self.experiment.budgets, self.experiment.frozen_from());
        self.constraints.tightening(budgets, until)
    }

    /// Whether every budget is met now. In the float phase none is.
    pub fn budget_met(&self) -> bool {
        budget::met(&self.budgets(), &self.network.usage())
    }

    /// Takes over settings that need no new run. Those of class epoch wait for the next epoch.
    pub fn apply(&mut self, experiment: Arc<Experiment>) {
        self.tell(|_| ranks::Order::Apply(experiment.values.to_toml()));
        self.experiment = experiment;
    }

    /// Puts the quantizers into use where the float phase is over; `true` if it just was.
    pub fn enter_phase(&mut self) -> bool {
        let over = has_come(self.experiment.float_epochs, self.epoch);
        if self.network.quantized || !self.has_quantizers() || !over {
            return false;
        }
        self.initialise_quantizers();
        self.network.quantized = true;
        self.optimizer.reset_quantizers();
        // The float phase's best does not count against the quantized network's, and its evaluation of this
        // step is not the quantized one's, which is due.
        self.best_error = None;
        self.evaluated = -1.0;
        true
    }

    /// Settings of class epoch take effect where an epoch begins.
    fn refresh_loader(&mut self) {
        let wanted = LoaderSettings::of(&self.experiment, &self.splits);
        let at_epoch = self.next_batch.is_multiple_of(self.loader.per_epoch());
        if wanted == self.loader_settings || !at_epoch {
            return;
        }
        let epoch = self.next_batch / self.loader.per_epoch();
        self.loader_settings = wanted;
        let per_epoch = crate::dataset::batches_per_epoch(self.splits.train.len(), wanted.batch);
        self.next_batch = epoch * per_epoch;
        self.restart_loader();
    }

    /// Has the loader prepare this rank's share of the batches from the next one on.
    fn restart_loader(&mut self) {
        self.ahead = None;
        let data = self.splits.train.clone();
        self.loader = Loader::shared(data, self.loader_settings, self.share(), self.next_batch);
    }
}
