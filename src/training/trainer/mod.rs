//! One run, step by step.

mod evaluate;
mod fork;
mod ranks;
mod revive;
mod step;

use std::path::Path;
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;

use crate::dataset::{
    Loader, LoaderSettings, Pixels, Prepared, Samples, Share, Splits, shared_batches,
};
use crate::experiment::{Experiment, Start};
use crate::graph::Initial;
use crate::integers::{ExportError, Program};
use crate::kernels::ranks::Group;
use crate::kernels::{self, Pictures};
use crate::network::weights::Tensors;
use crate::network::{Mode, Network, Slot, Snapshot};
use crate::quantizer::memory::Role;
use crate::quantizer::{InitialBits, Rules, initial_parameters};
use crate::run::{Budget, LayerInfo, Phase, Tightening};
use crate::training::TrainError;
use crate::training::budget::{self, Constraints};
use crate::training::checkpoint::{
    self, Checkpoint, CheckpointError, SaveError, SavedQuantizer, State,
};
use crate::training::optimizer::Optimizer;
use crate::training::preflight::first_weights;
use crate::training::schedule::has_come;

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
    intake: Intake,
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
    ahead: Option<Taken>,
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
    /// Builds network and loader; `splits` is the experiment's data, `device` has no autodiff.
    ///
    /// # Errors
    /// Where initial weights cannot be read.
    pub fn new(
        experiment: Arc<Experiment>,
        splits: Splits,
        device: Device,
    ) -> Result<Self, TrainError> {
        let start = experiment.start.clone();
        let trainer = Self::starting_from(experiment, splits, device, &start)?;
        if trainer.experiment.evaluate_integers && trainer.has_quantizers() {
            let snapshot = Snapshot {
                quantized: true,
                ..trainer.network.snapshot()
            };
            let program = Program::of(&snapshot, trainer.splits.train.normalisation());
            program.require_exact("an evaluation in integers")?;
        }
        Ok(trainer)
    }

    /// The same for a run that takes its weights from a checkpoint: what the experiment says of its
    /// initial weights is not read, and need not be there any more. What integers cannot reproduce is said
    /// at its evaluations.
    ///
    /// # Errors
    /// Where the network cannot be built for the data's shape and classes.
    pub fn blank(
        experiment: Arc<Experiment>,
        splits: Splits,
        device: Device,
    ) -> Result<Self, TrainError> {
        Self::starting_from(experiment, splits, device, &Start::Scratch)
    }

    fn starting_from(
        experiment: Arc<Experiment>,
        splits: Splits,
        device: Device,
        start: &Start,
    ) -> Result<Self, TrainError> {
        let mut rng = Pcg64Mcg::seed_from_u64(experiment.seed);
        let autodiff = device.clone().autodiff();
        let (classes, shape) = (splits.train.classes(), splits.train.shape());
        let built = experiment.model.graph(shape, classes)?;
        let quantization = experiment.quantization();
        let mut network = Network::new(&built, &quantization, &autodiff, &mut rng);
        let mut notes = built.notes.clone();
        notes.extend(quantization.without_effect(&built.graph));
        if start == &Start::Scratch && !built.fresh_norms.is_empty() {
            let count = built.fresh_norms.len();
            let pictures = calibrate(&mut network, &built.fresh_norms, &splits, &device);
            notes.push(format!(
                "{count} new batch norms start as the identity of {pictures} training pictures"
            ));
        }
        match start {
            Start::Scratch => {}
            Start::Weights(path) => {
                let tensors = crate::network::weights::read_file(path)?;
                let report = network.load_weights(path, tensors, experiment.replace_head)?;
                notes.push(format!("{}: {report}", path.display()));
            }
            Start::Run(folder) => {
                let path = first_weights(folder)?;
                let weights = Checkpoint::open(&path)?.weights;
                network.load_weights(&path, weights, experiment.replace_head)?;
            }
        }
        let loader_settings = LoaderSettings::of(&experiment, &splits);
        let loader = Loader::start(splits.train.clone(), loader_settings, 0);
        let mut trainer = Self {
            optimizer: Optimizer::new(&network),
            constraints: Constraints::default(),
            slot_elements: slot_elements(&network),
            reinitialised: Vec::new(),
            intake: Intake::new(&*splits.train, &device),
            experiment,
            device,
            network,
            splits,
            loader,
            loader_settings,
            step: 0,
            epoch: 0.0,
            seconds: 0.0,
            next_batch: 0,
            best_error: None,
            evaluated: 0.0,
            last_images: None,
            takes_ahead: false,
            ahead: None,
            waits: false,
            notes,
            not_in_integers: None,
            left_out_of_all: 0,
            group: Group::default(),
            before: None,
            measured: None,
        };
        if trainer.experiment.float_epochs > 0.0 {
            trainer.network.quantized = false;
        } else if trainer.has_quantizers() {
            trainer.initialise_quantizers();
        }
        Ok(trainer)
    }

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

    /// Initialises quantizers from the weights, and from one batch's activations.
    fn initialise_quantizers(&mut self) {
        let from_data = |s: &Slot| s.initial == Initial::Data;
        let activations = |s: &&Slot| s.role == Role::Activation && from_data(s);
        let largest = if self.network.slots.iter().any(|s| activations(&s)) {
            self.largest_activations()
        } else {
            Vec::new()
        };
        let mut planned = Vec::with_capacity(self.network.slots.len());
        for (index, slot) in self.network.slots.iter().enumerate() {
            let largest = match slot.role {
                Role::Weight | Role::Bias => self.network.largest_weight(index),
                Role::Activation => largest.get(index).copied(),
            };
            planned.push(match largest.filter(|_| from_data(slot)) {
                Some(largest) => {
                    initial_parameters(&slot.quantizer, largest, InitialBits(slot.bits))
                }
                None => slot.parameters,
            });
        }
        let hysteresis = self.experiment.quantizers.hysteresis > 0.0;
        for (slot, parameters) in self.network.slots.iter_mut().zip(planned) {
            slot.parameters = if hysteresis {
                slot.quantizer.recentred(parameters)
            } else {
                parameters
            };
        }
    }

    /// Largest magnitude of what goes into every activation quantizer, by slot, in float on the
    /// first training pictures. Batch norms take the batch's own statistics, as the training that
    /// follows does: those of a file may belong to other data. (The published code's rules: running
    /// ones.)
    fn largest_activations(&mut self) -> Vec<f64> {
        let mut largest = vec![0.0; self.network.slots.len()];
        let Some(batch) = first_batch(&self.splits.train, EVALUATION_BATCH) else {
            return largest;
        };
        let images = self.intake.images(batch);
        let quantized = std::mem::replace(&mut self.network.quantized, false);
        let signed: Vec<bool> = self
            .network
            .slots
            .iter()
            .map(|s| s.quantizer.signed)
            .collect();
        let mode = match self.experiment.rules {
            Rules::Paper => Mode::Measure,
            Rules::PublishedCode => Mode::Evaluate,
        };
        self.network.quantizer_inputs(images, mode, |slot, input| {
            let values = if signed[slot] {
                input.clone().abs()
            } else {
                input.clone()
            };
            // (Nothing positive goes in: no range would help.)
            largest[slot] = f64::from(values.max().into_scalar::<f32>()).max(0.0);
        });
        self.network.quantized = quantized;
        largest
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

    /// Writes a checkpoint.
    ///
    /// # Errors
    /// Where the disk does not take it, or a value is not finite.
    pub fn save(&mut self, path: &Path) -> Result<(), SaveError> {
        let activations = self.activations();
        self.write(path, activations)
    }

    /// The same in a hurry: without a sample of activations, which only the microscope would show.
    ///
    /// # Errors
    /// As [`Self::save`].
    pub fn save_at_once(&mut self, path: &Path) -> Result<(), SaveError> {
        self.write(path, Tensors::new())
    }

    fn write(&mut self, path: &Path, activations: Tensors) -> Result<(), SaveError> {
        let state = self.state();
        let bytes = checkpoint::bytes(&self.network, &self.optimizer, &state, activations)?;
        Ok(crate::run::write_whole(path, &bytes)?)
    }

    /// Everything besides tensors that a checkpoint holds.
    fn state(&self) -> State {
        State {
            step: self.step,
            epoch: self.epoch,
            seconds: self.seconds,
            next_batch: self.next_batch,
            quantized: self.network.quantized,
            slots: self.network.slots.iter().map(saved).collect(),
            quantizers: self.optimizer.quantizers.clone(),
            updates: self.optimizer.updates,
            constraints: self.constraints.clone(),
            best_error: self.best_error,
            loader: self.loader_settings,
            evaluated: self.evaluated,
        }
    }

    /// Continues from a checkpoint, bit for bit on the same device.
    ///
    /// # Errors
    /// Where the file is damaged or of another network.
    pub fn restore(&mut self, path: &Path) -> Result<(), CheckpointError> {
        self.restore_from(path, Checkpoint::open(path)?)
    }

    fn restore_from(&mut self, path: &Path, checkpoint: Checkpoint) -> Result<(), CheckpointError> {
        let state = checkpoint.restore(path, &mut self.network, &mut self.optimizer)?;
        self.step = state.step;
        self.epoch = state.epoch;
        self.seconds = state.seconds;
        self.next_batch = state.next_batch;
        self.constraints = state.constraints;
        self.best_error = state.best_error;
        self.evaluated = state.evaluated;
        // As they were: a change of the batch in mid-epoch waits for the next one here too.
        self.loader_settings = state.loader;
        self.restart_loader();
        Ok(())
    }

    /// Has the loader prepare this rank's share of the batches from the next one on.
    fn restart_loader(&mut self) {
        self.ahead = None;
        let data = self.splits.train.clone();
        self.loader = Loader::shared(data, self.loader_settings, self.share(), self.next_batch);
    }
}

fn saved(slot: &Slot) -> SavedQuantizer {
    SavedQuantizer {
        name: slot.name.clone(),
        role: slot.role,
        quantizer: slot.quantizer.clone(),
        parameters: slot.parameters,
    }
}

/// The network of an experiment as a checkpoint has it, for pictures of this shape; no data is read.
///
/// # Errors
/// Where the network cannot be built, or the checkpoint is damaged or of another one.
pub fn network_of(
    experiment: &Experiment,
    checkpoint: &Path,
    shape: [usize; 3],
    device: &Device,
) -> Result<Network, TrainError> {
    let saved = Checkpoint::open(checkpoint)?;
    let (data, missing) = crate::dataset::shape(experiment);
    let mut built = experiment.model.graph(shape, data.classes);
    if let (Some(_), Ok(first)) = (missing, &built) {
        // The data is not there: the checkpoint knows how many outputs there are.
        let head = first.graph.head().map(|[weight, _]| weight);
        let name = head
            .flatten()
            .map(|p| first.graph.parameters[p].name.clone());
        let outputs = name.and_then(|name| saved.weights.get(&name)?.0.first().copied());
        if let Some(outputs) = outputs.filter(|n| *n != data.classes) {
            built = experiment.model.graph(shape, outputs);
        }
    }
    let built = built?;
    let mut rng = Pcg64Mcg::seed_from_u64(experiment.seed);
    let autodiff = device.clone().autodiff();
    let mut network = Network::new(&built, &experiment.quantization(), &autodiff, &mut rng);
    let mut optimizer = Optimizer::new(&network);
    saved.restore(checkpoint, &mut network, &mut optimizer)?;
    Ok(network)
}

/// The first so many pictures, without augmentation.
fn first_batch(data: &Arc<dyn Samples>, size: usize) -> Option<Prepared> {
    shared_batches(data.clone(), size, 1, Share::ALL).next()
}

/// A batch on the device.
struct Taken {
    labels: Vec<u16>,
    /// `[n, c, h, w]`
    images: Tensor<4>,
}

/// Brings pictures to a device.
struct Intake {
    device: Device,
    /// What every byte of each channel becomes, `[c * 256]`.
    table: Tensor<1>,
}

impl Intake {
    /// For all parts of this data: they are normalised alike.
    fn new(data: &dyn Samples, device: &Device) -> Self {
        let [channels, ..] = data.shape();
        let table = data.normalisation().tables(channels);
        Self {
            table: Tensor::from_data(&*table, device),
            device: device.clone(),
        }
    }

    /// A batch's pictures as numbers, `[n, c, h, w]`.
    fn images(&self, batch: Prepared) -> Tensor<4> {
        let [c, h, w] = batch.shape;
        let shape = [batch.labels.len(), c, h, w];
        match batch.pixels {
            Pixels::Bytes(bytes) => {
                let bytes = bytes.into_owned();
                kernels::pictures(Pictures { bytes, shape }, self.table.clone())
            }
            Pixels::Values(values) => {
                let values = TensorData::new(values.into_owned(), shape);
                Tensor::from_data(values, &self.device)
            }
        }
    }
}

fn slot_elements(network: &Network) -> Vec<usize> {
    let mut elements = vec![0; network.slots.len()];
    for (slot, stored) in network.stored_slots().into_iter().zip(network.stored()) {
        if let Some(slot) = slot {
            elements[slot] += stored.elements;
        }
    }
    elements
}

/// Gives batch norms that begin as the identity the statistics of what goes through them on the
/// first training pictures, with the scale and shift that keep them the identity. Returns the number
/// of pictures.
fn calibrate(network: &mut Network, norms: &[usize], splits: &Splits, device: &Device) -> usize {
    use crate::graph::Operation;
    let Some(batch) = first_batch(&splits.train, EVALUATION_BATCH) else {
        return 0;
    };
    let pictures = batch.labels.len();
    let graph = network.graph().clone();
    let mut seen: Vec<Vec<[f64; 2]>> = vec![Vec::new(); norms.len()];
    let images = Intake::new(&*splits.train, device).images(batch);
    network.norm_outputs(images, |node, output| {
        let Some(place) = norms.iter().position(|n| *n == node) else {
            return;
        };
        let [n, c, h, w] = output.dims();
        let values = crate::network::read_tensor(output.clone());
        seen[place] = (0..c)
            .map(|channel| {
                let rows = (0..n).map(|i| (i * c + channel) * h * w);
                let all = || rows.clone().flat_map(|start| &values[start..start + h * w]);
                let count = (n * h * w) as f64;
                let mean = all().map(|v| f64::from(*v)).sum::<f64>() / count;
                let squares = all().map(|v| (f64::from(*v) - mean).powi(2));
                [mean, squares.sum::<f64>() / count]
            })
            .collect();
    });
    for (node, moments) in norms.iter().zip(seen) {
        let Operation::BatchNorm {
            gamma,
            beta,
            norm,
            epsilon,
            ..
        } = graph.nodes[*node].operation
        else {
            continue;
        };
        let shift = network.parameters[beta].to_vec();
        let scale = |[_, variance]: &[f64; 2]| (variance + f64::from(epsilon)).sqrt() as f32;
        network.set_norm(
            [gamma, beta, norm],
            [
                moments.iter().map(scale).collect(),
                moments.iter().map(|[mean, _]| *mean as f32).collect(),
            ],
            [
                moments
                    .iter()
                    .zip(&shift)
                    .map(|([mean, _], b)| *mean as f32 - b)
                    .collect(),
                moments
                    .iter()
                    .map(|[_, variance]| *variance as f32)
                    .collect(),
            ],
        );
    }
    pictures
}
