//! One run, step by step.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Tensor, TensorData};
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;

use super::budget::{self, Constraints};
use super::checkpoint::{self, Checkpoint, CheckpointError, State};
use super::optimizer::Optimizer;
use super::schedule::learning_rate;
use super::session::TrainError;
use crate::dataset::{Batch, Dataset, Loader, LoaderSettings, Splits, evaluation_batches};
use crate::experiment::{Experiment, Initial, QuantizerSettings, Start};
use crate::network::weights::Tensors;
use crate::network::{Kind, Mode, Network, read_tensor};
use crate::quantizer::memory::Role;
use crate::quantizer::{InitialBits, Sums, initial_parameters};
use crate::run::{Budget, LayerInfo, LayerRecord, Phase, StepRecord, Times};

/// Samples per forward pass of an evaluation.
const EVALUATION_BATCH: usize = 250;
/// Pictures whose activations a checkpoint samples, and values of each quantizer at most.
const SAMPLED_PICTURES: usize = 8;
const SAMPLED_ACTIVATIONS: usize = 4096;

/// A run: network, optimizer, loader and where it stands.
pub struct Trainer {
    experiment: Arc<Experiment>,
    device: Device,
    network: Network,
    optimizer: Optimizer,
    constraints: Constraints,
    splits: Splits,
    loader: Loader,
    /// Settings the loader runs with; they may lag behind the experiment until the next epoch.
    loader_settings: LoaderSettings,
    step: u64,
    epoch: f64,
    seconds: f64,
    next_batch: u64,
    best_error: Option<f64>,
    /// Parameter behind each slot of weights or biases.
    slot_parameters: Vec<Option<usize>>,
    last_images: Option<(Vec<f32>, [usize; 4])>,
}

/// Outcome of an evaluation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluated {
    /// Share of wrong answers.
    pub error: f64,
    /// Mean cross entropy, nats.
    pub loss: f64,
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
        let mut rng = Pcg64Mcg::seed_from_u64(experiment.seed);
        let autodiff = device.clone().autodiff();
        let (classes, size) = (splits.train.classes, splits.train.size);
        let quantization = experiment.quantization();
        let mut network = Network::build(
            experiment.model,
            classes,
            size,
            &quantization,
            &autodiff,
            &mut rng,
        );
        match &experiment.start {
            Start::Scratch => {}
            Start::Weights(path) => {
                let tensors = crate::network::weights::read_file(path)?;
                let report = network.load_weights(path, tensors)?;
                tracing::info!("{}: {report}", path.display());
            }
            Start::Run(folder) => {
                let folder = crate::run::RunFolder::open(folder)?;
                let path = folder
                    .best_checkpoint()
                    .or_else(|| folder.newest_checkpoint());
                let path =
                    path.ok_or_else(|| TrainError::NoCheckpoint(folder.path().to_owned()))?;
                network.load_weights(&path, Checkpoint::open(&path)?.weights)?;
            }
        }
        let loader_settings = loader_settings(&experiment, &splits);
        let loader = Loader::start(splits.train.clone(), loader_settings, 0);
        let mut trainer = Self {
            optimizer: Optimizer::new(&network),
            constraints: Constraints::new(),
            slot_parameters: slot_parameters(&network),
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
            last_images: None,
        };
        if trainer.experiment.float_epochs > 0.0 {
            trainer.network.quantized = false;
        } else if trainer.has_quantizers() {
            trainer.initialise_quantizers();
        }
        Ok(trainer)
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
        let slots = self.network.slots.iter();
        slots
            .map(|slot| {
                let q = &slot.quantizer;
                let step = match q.parametrization.family() {
                    crate::quantizer::Family::Uniform => &q.bounds.d,
                    crate::quantizer::Family::PowerOfTwo => &q.bounds.q_min,
                };
                LayerInfo {
                    name: slot.name.clone(),
                    role: slot.role,
                    kind: slot.kind,
                    elements: slot.elements,
                    parametrization: q.parametrization,
                    clamps: [clamp(step), clamp(&q.bounds.q_max)],
                }
            })
            .collect()
    }

    /// The constraints in force.
    pub fn budgets(&self) -> Vec<Budget> {
        budget::listed(&self.experiment.budgets)
    }

    /// Whether every budget is met now. In the float phase none is.
    pub fn budget_met(&self) -> bool {
        budget::met(&self.experiment.budgets, &self.network.usage())
    }

    /// Takes over settings that need no new run. Those of class epoch wait for the next epoch.
    pub fn apply(&mut self, experiment: Arc<Experiment>) {
        self.experiment = experiment;
    }

    /// Puts the quantizers into use where the float phase is over; `true` if it just was.
    pub fn enter_phase(&mut self) -> bool {
        let over = self.epoch + 1e-9 >= self.experiment.float_epochs;
        if self.network.quantized || !self.has_quantizers() || !over {
            return false;
        }
        self.initialise_quantizers();
        self.network.quantized = true;
        self.optimizer.reset_slots();
        // The float phase's best does not count against the quantized network's.
        self.best_error = None;
        true
    }

    /// Initialises quantizers from the weights, and from one batch's activations.
    fn initialise_quantizers(&mut self) {
        let experiment = self.experiment.clone();
        let settings = |role: Role| match role {
            Role::Weight | Role::Bias => experiment.weights.as_ref(),
            Role::Activation => experiment.activations.as_ref(),
        };
        let from_data = |s: &QuantizerSettings| s.initial == Initial::Data;
        let activations = if settings(Role::Activation).is_some_and(from_data) {
            self.largest_activations()
        } else {
            Vec::new()
        };
        let mut planned = Vec::with_capacity(self.network.slots.len());
        let mut activation = activations.into_iter();
        for slot in &self.network.slots {
            let plan = settings(slot.role).filter(|s| from_data(s));
            let largest = match slot.role {
                Role::Weight | Role::Bias => self.network.largest_weight(&slot.name),
                Role::Activation => activation.next(),
            };
            planned.push(match (plan, largest) {
                (Some(plan), Some(largest)) => {
                    initial_parameters(&slot.quantizer, largest, InitialBits(plan.bits))
                }
                _ => slot.parameters,
            });
        }
        for (slot, parameters) in self.network.slots.iter_mut().zip(planned) {
            slot.parameters = parameters;
        }
    }

    /// Largest output of every nonlinearity in float on the first training pictures.
    fn largest_activations(&mut self) -> Vec<f64> {
        let Some(batch) = evaluation_batches(&self.splits.train, EVALUATION_BATCH).next() else {
            return Vec::new();
        };
        let images = self.images(&batch, &self.device);
        let quantized = std::mem::replace(&mut self.network.quantized, false);
        let mut largest = Vec::new();
        // Projections have no nonlinearity and no activation slot.
        self.network.watched(images, |name, output| {
            if !name.ends_with(".shortcut") {
                largest.push(f64::from(output.clone().max().into_scalar::<f32>()));
            }
        });
        self.network.quantized = quantized;
        largest
    }

    fn images(&self, batch: &Batch, device: &Device) -> Tensor<4> {
        let shape = [batch.labels.len(), 3, batch.size, batch.size];
        Tensor::from_data(TensorData::new(batch.images.clone(), shape), device)
    }

    /// One training step. `probe` records every layer.
    pub fn step(&mut self, probe: bool) -> StepRecord {
        let started = Instant::now();
        let lr = learning_rate(&self.experiment, self.epoch);
        self.refresh_loader();
        let batch = self.loader.next_batch();
        self.next_batch += 1;
        let autodiff = self.network.device().clone();
        let count = batch.labels.len();
        let shape = [count, 3, batch.size, batch.size];
        let labels = batch.labels;
        let classes = self.splits.train.classes;
        let images = Tensor::<4>::from_data(TensorData::new(batch.images, shape), &autodiff);
        let targets = Tensor::<2>::from_data(one_hot(&labels, classes), &autodiff);
        let data_done = Instant::now();

        let logits = self.network.forward(images.clone(), Mode::Train);
        let loss = (log_softmax(logits.clone(), 1) * targets).sum() / -(count as f32);
        let forward_done = Instant::now();

        let mut gradients = loss.backward();
        let weight_gradients: Vec<Option<Tensor<1>>> = self
            .network
            .parameters
            .iter()
            .map(|p| p.value.grad_remove(&mut gradients))
            .collect();
        let slot_sums: Vec<Option<Tensor<1>>> = self
            .network
            .slots
            .iter()
            .map(|s| s.sums.grad_remove(&mut gradients))
            .collect();
        let backward_done = Instant::now();

        let read = self.read(logits.inner(), &slot_sums, &weight_gradients, probe);
        let (cross_entropy, train_error) = score(&read.logits, &labels, classes);
        let telemetry_done = Instant::now();

        let before: Vec<_> = self.network.slots.iter().map(|s| s.parameters).collect();
        let terms = self
            .constraints
            .terms(&self.experiment.budgets, &self.network);
        let mut pulls = [0.0; 2];
        let slot_gradients = self
            .network
            .slots
            .iter()
            .zip(&read.sums)
            .zip(&terms.gradients)
            .map(|((slot, sums), penalty)| {
                let sums = sums.unwrap_or_default();
                let data = slot.quantizer.parameter_gradients(slot.parameters, sums);
                let square = |g: &[f64; 2]| g[0] * g[0] + g[1] * g[1];
                pulls[0] += square(&data);
                pulls[1] += square(penalty);
                [data[0] + penalty[0], data[1] + penalty[1]]
            })
            .collect();
        let finite = cross_entropy.is_finite();
        let mut seen = vec![[0.0; 2]; before.len()];
        if finite {
            self.optimizer
                .update(&mut self.network, &self.experiment, lr, weight_gradients);
            if self.network.quantized {
                seen = self.optimizer.update_slots(
                    &mut self.network,
                    &self.experiment,
                    lr,
                    slot_gradients,
                );
            }
        } else {
            let values = read_tensor(images.inner());
            self.last_images = Some((values, shape));
        }
        self.step += 1;
        self.epoch += 1.0 / self.loader.per_epoch() as f64;
        let layers = probe.then(|| self.records(&read, &seen, count));
        let usage = self.network.usage();
        let end = Instant::now();
        let elapsed = (end - started).as_secs_f64();
        self.seconds += elapsed;
        StepRecord {
            step: self.step,
            epoch: self.epoch,
            seconds: self.seconds,
            loss: cross_entropy + terms.loss,
            cross_entropy,
            weight_penalty: terms.weight_penalty,
            activation_penalty: terms.activation_penalty,
            pulls: pulls.map(f64::sqrt),
            train_error,
            lr,
            usage,
            budget_met: budget::met(&self.experiment.budgets, &usage),
            samples_per_s: count as f64 / elapsed,
            times: Times {
                data: (data_done - started).as_secs_f32(),
                forward: (forward_done - data_done).as_secs_f32(),
                backward: (backward_done - forward_done).as_secs_f32(),
                telemetry: (telemetry_done - backward_done).as_secs_f32(),
                update: (end - telemetry_done).as_secs_f32(),
            },
            layers,
        }
    }

    /// Everything that a step reads from the device, in one transfer.
    fn read(
        &self,
        logits: Tensor<2>,
        slot_sums: &[Option<Tensor<1>>],
        weight_gradients: &[Option<Tensor<1>>],
        probe: bool,
    ) -> Read {
        let count = logits.dims().iter().product();
        let mut parts: Vec<Tensor<1>> = vec![logits.reshape([count])];
        parts.extend(slot_sums.iter().flatten().cloned());
        let square = |t: Tensor<1>| (t.clone() * t).sum();
        let weights: Vec<usize> = if probe {
            self.slot_parameters.iter().flatten().copied().collect()
        } else {
            Vec::new()
        };
        for parameter in &weights {
            let value = self.network.parameters[*parameter].value.clone().inner();
            let zeros = || Tensor::zeros([1], &self.device);
            parts.push(
                weight_gradients[*parameter]
                    .clone()
                    .map_or_else(zeros, square),
            );
            parts.push(square(value));
        }
        let values = read_tensor(Tensor::cat(parts, 0));
        let (logits, rest) = values.split_at(count);
        let mut rest = rest.iter().map(|v| f64::from(*v));
        let mut take = || rest.next().expect("one number per part that was sent");
        let sums = slot_sums
            .iter()
            .map(|s| {
                s.as_ref()
                    .map(|_| Sums::from_array([(); Sums::LEN].map(|()| take())))
            })
            .collect();
        let mut norms = vec![[f64::NAN; 2]; self.network.parameters.len()];
        for parameter in &weights {
            norms[*parameter] = [take().sqrt(), take().sqrt()];
        }
        Read {
            logits: logits.to_vec(),
            sums,
            norms,
        }
    }

    fn records(&self, read: &Read, gradients: &[[f64; 2]], count: usize) -> Vec<LayerRecord> {
        let slots = self.network.slots.iter().enumerate();
        slots
            .map(|(i, slot)| {
                let norms = self.slot_parameters[i].map_or([f64::NAN; 2], |p| read.norms[p]);
                let norms = norms.map(|v| v as f32);
                if !self.network.quantized {
                    return LayerRecord {
                        d: f32::NAN,
                        q_max: f32::NAN,
                        bitwidth: f32::NAN,
                        gradients: [f32::NAN; 2],
                        clipped: f32::NAN,
                        zeros: f32::NAN,
                        grad_norm: norms[0],
                        weight_norm: norms[1],
                    };
                }
                let (d, q_max) = slot.quantizer.raw_step_and_range(slot.parameters);
                let samples = if slot.role == Role::Activation {
                    count
                } else {
                    1
                };
                let elements = (slot.elements * samples) as f64;
                let sums = read.sums[i].unwrap_or_default();
                LayerRecord {
                    d: d as f32,
                    q_max: q_max as f32,
                    bitwidth: slot.grid().bits as f32,
                    gradients: gradients[i].map(|g| g as f32),
                    clipped: (sums.clipped / elements) as f32,
                    zeros: (sums.zeros / elements) as f32,
                    grad_norm: norms[0],
                    weight_norm: norms[1],
                }
            })
            .collect()
    }

    /// Settings of class epoch take effect where an epoch begins.
    fn refresh_loader(&mut self) {
        let wanted = loader_settings(&self.experiment, &self.splits);
        let at_epoch = self.next_batch.is_multiple_of(self.loader.per_epoch());
        if wanted == self.loader_settings || !at_epoch {
            return;
        }
        let epoch = self.next_batch / self.loader.per_epoch();
        self.loader_settings = wanted;
        let per_epoch = crate::dataset::batches_per_epoch(self.splits.train.len(), wanted.batch);
        self.next_batch = epoch * per_epoch;
        self.loader = Loader::start(self.splits.train.clone(), wanted, self.next_batch);
    }

    /// Evaluates on validation (or `None` without one). `go_on` is asked between batches.
    pub fn validate(&mut self, go_on: impl FnMut() -> bool) -> Option<Evaluated> {
        let data = self.splits.validation.clone()?;
        self.evaluate(&data, go_on)
    }

    /// Evaluates on the test part: once, at the end.
    pub fn test(&mut self, go_on: impl FnMut() -> bool) -> Option<Evaluated> {
        let data = self.splits.test.clone()?;
        self.evaluate(&data, go_on)
    }

    fn evaluate(&mut self, data: &Dataset, mut go_on: impl FnMut() -> bool) -> Option<Evaluated> {
        let (mut loss, mut error) = (0.0, 0.0);
        for batch in evaluation_batches(data, EVALUATION_BATCH) {
            if !go_on() {
                return None;
            }
            let images = self.images(&batch, &self.device);
            let logits = read_tensor(self.network.forward(images, Mode::Evaluate));
            let n = batch.labels.len() as f64;
            let (l, e) = score(&logits, &batch.labels, data.classes);
            loss += l * n;
            error += e * n;
        }
        let n = data.len() as f64;
        Some(Evaluated {
            error: error / n,
            loss: loss / n,
        })
    }

    /// Records a validation error; `true` if it is the best among steps that met the budget.
    pub fn is_best(&mut self, error: f64) -> bool {
        let better = self.best_error.is_none_or(|best| error < best);
        if !(better && self.budget_met()) {
            return false;
        }
        self.best_error = Some(error);
        true
    }

    /// Best validation error among steps that met the budget.
    pub fn best_error(&self) -> Option<f64> {
        self.best_error
    }

    /// The layer where a non-finite value first stands, after a step whose loss was one.
    pub fn find_non_finite(&mut self) -> Option<String> {
        let (values, shape) = self.last_images.take()?;
        let images = Tensor::from_data(TensorData::new(values, shape), &self.device);
        self.network.first_non_finite(images)
    }

    /// Writes a checkpoint.
    ///
    /// # Errors
    /// Where the disk does not take it.
    pub fn save(&mut self, path: &Path) -> std::io::Result<()> {
        let state = State {
            step: self.step,
            epoch: self.epoch,
            seconds: self.seconds,
            next_batch: self.next_batch,
            quantized: self.network.quantized,
            slots: self.network.slots.iter().map(|s| s.parameters).collect(),
            slot_moments: self.optimizer.slots.clone(),
            updates: self.optimizer.updates,
            constraints: self.constraints.clone(),
            best_error: self.best_error,
        };
        let activations = self.activations();
        checkpoint::write(path, &self.network, &self.optimizer, &state, activations)
    }

    /// A sample of what goes into each activation quantizer, from the first training pictures:
    /// evenly over pictures, channels and pixels. Empty where none is in use.
    fn activations(&mut self) -> Tensors {
        let mut samples = Tensors::new();
        if !self.network.quantized || self.experiment.activations.is_none() {
            return samples;
        }
        let batch = evaluation_batches(&self.splits.train, SAMPLED_PICTURES).next();
        if let Some(batch) = batch {
            let images = self.images(&batch, &self.device);
            self.network.quantizer_inputs(images, |name, input| {
                let values = read_tensor(input.clone());
                let step = values.len().div_ceil(SAMPLED_ACTIVATIONS).max(1);
                let sample: Vec<f32> = values.into_iter().step_by(step).collect();
                samples.insert(name.to_owned(), (vec![sample.len()], sample));
            });
        }
        samples
    }

    /// Continues from a checkpoint, bit for bit on the same device.
    ///
    /// # Errors
    /// Where the file is damaged or of another network.
    pub fn restore(&mut self, path: &Path) -> Result<(), CheckpointError> {
        let checkpoint = Checkpoint::open(path)?;
        let state = checkpoint.restore(path, &mut self.network, &mut self.optimizer)?;
        self.step = state.step;
        self.epoch = state.epoch;
        self.seconds = state.seconds;
        self.next_batch = state.next_batch;
        self.constraints = state.constraints;
        self.best_error = state.best_error;
        self.loader = Loader::start(
            self.splits.train.clone(),
            self.loader_settings,
            self.next_batch,
        );
        Ok(())
    }

    /// Starts from a checkpoint's weights as a new run (a fork): weights and running statistics,
    /// and the quantizers' parameters where their parametrization is the same.
    ///
    /// # Errors
    /// Where the file is damaged or of another network.
    pub fn fork_from(&mut self, path: &Path) -> Result<(), CheckpointError> {
        self.network
            .load_weights(path, Checkpoint::open(path)?.weights)?;
        if self.has_quantizers() {
            // Weights were trained: a float phase has happened already.
            self.initialise_quantizers();
            self.network.quantized = true;
        }
        self.epoch = self.experiment.float_epochs;
        Ok(())
    }
}

/// What a step reads from the device.
struct Read {
    logits: Vec<f32>,
    sums: Vec<Option<Sums>>,
    /// Norms of gradient and value, by parameter; NaN where not probed.
    norms: Vec<[f64; 2]>,
}

fn loader_settings(experiment: &Experiment, splits: &Splits) -> LoaderSettings {
    LoaderSettings {
        batch: splits.prescribed_batch.unwrap_or(experiment.batch),
        augment: experiment.augment,
        seed: experiment.seed,
        threads: experiment.loader_threads,
        in_order: splits.prescribed_batch.is_some(),
    }
}

fn slot_parameters(network: &Network) -> Vec<Option<usize>> {
    let find = |name: &str, kind: Kind, suffix: &str| {
        network
            .parameters
            .iter()
            .position(|p| p.kind == kind && p.name.strip_suffix(suffix) == Some(name))
    };
    let slots = network.slots.iter();
    slots
        .map(|slot| match slot.role {
            Role::Weight => find(&slot.name, Kind::Weight, ".weight"),
            Role::Bias => find(&slot.name, Kind::Bias, ".bias"),
            Role::Activation => None,
        })
        .collect()
}

fn one_hot(labels: &[u8], classes: usize) -> TensorData {
    let mut values = vec![0f32; labels.len() * classes];
    for (row, label) in labels.iter().enumerate() {
        values[row * classes + usize::from(*label)] = 1.0;
    }
    TensorData::new(values, [labels.len(), classes])
}

/// Mean cross entropy (nats) and share of wrong answers, from logits on the host in f64.
fn score(logits: &[f32], labels: &[u8], classes: usize) -> (f64, f64) {
    let (mut loss, mut wrong) = (0.0, 0.0);
    for (row, label) in logits.chunks_exact(classes).zip(labels) {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|v| f64::from(v - largest).exp()).sum();
        let own = f64::from(row[usize::from(*label)] - largest);
        loss += sum.ln() - own;
        let best = row.iter().position(|v| *v == largest);
        wrong += f64::from(best != Some(usize::from(*label)));
    }
    let n = labels.len() as f64;
    (loss / n, wrong / n)
}
