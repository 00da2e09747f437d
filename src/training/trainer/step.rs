//! One training step, and what it reads from the device.

use std::sync::Arc;
use std::time::Instant;

use burn::tensor::activation::log_softmax;
use burn::tensor::{Tensor, TensorData};

use super::Trainer;
use super::evaluate::score;
use super::intake::{Intake, Taken};
use super::ranks::{self, Order, Read, across, share_of};
use crate::dataset::{Samples, sampled_batches};
use crate::experiment::BudgetMethod;
use crate::kernels::ranks::Group;
use crate::network::{Mode, Network, read_tensor};
use crate::quantizer::memory::Role;
use crate::quantizer::{Rules, Sums};
use crate::run::{Budget, LayerRecord, StepRecord, Times};
use crate::training::budget::{self, Terms};
use crate::training::optimizer::Gradient;
use crate::training::schedule::{has_come, learning_rate};

/// Pictures that the cost of a bit is measured on: as many as ResNet-20 would take this number of
/// multiply-accumulates for, within bounds. Every quantizer is measured at least once, which a large
/// network would otherwise spend minutes on.
const MEASURED_PICTURES: [usize; 2] = [32, 256];
const MEASURED_MACS: f64 = 256.0 * 41e6;

/// Gradients of this rank's images.
struct Gradients {
    /// By parameter.
    weights: Vec<Option<Tensor<1>>>,
    /// What the backward pass gathered for each quantizer.
    sums: Vec<Option<Tensor<1>>>,
}

/// What came of an update.
struct Updated {
    terms: Terms,
    /// Norms of the data's and the penalties' gradients over all quantizers.
    pulls: [f64; 2],
    /// The quantizers' gradients as the optimizer saw them.
    seen: Vec<[f64; 2]>,
}

impl Trainer {
    /// One training step, with all ranks. `probe` records every layer.
    pub fn step(&mut self, probe: bool) -> StepRecord {
        let group = self.group.clone();
        group.together(|| {
            self.tell(Order::Step);
            self.take_step(probe)
        })
    }

    /// This rank's part of a step.
    pub(super) fn take_step(&mut self, probe: bool) -> StepRecord {
        let started = Instant::now();
        let lr = learning_rate(&self.experiment, self.epoch);
        self.refresh_loader();
        self.remember();
        let Taken { labels, images } = match self.ahead.take() {
            Some(taken) => taken,
            None => self.take_batch(),
        };
        self.next_batch += 1;
        let count = match self.group.is_alone() {
            true => labels.len(),
            false => self.pictures_of_all(),
        };
        let images = Tensor::from_inner(images);
        let targets = self.targets(&labels);
        let data_done = self.now();
        let (logits, loss) = self.pass_forward(images.clone(), targets, count);
        let forward_done = self.now();
        let mut gradients = self.pass_back(loss);
        let backward_done = self.now();
        let (read, [cross_entropy, train_error]) =
            self.gather(logits, &mut gradients, &labels, probe);
        let telemetry_done = self.now();
        let finite = cross_entropy.is_finite();
        let Updated { terms, pulls, seen } =
            self.update(lr, &read, gradients.weights, count, finite);
        if !finite {
            let shape = images.dims();
            self.last_images = Some((read_tensor(images.inner()), shape));
        }
        self.step += 1;
        self.epoch += 1.0 / self.loader.per_epoch() as f64;
        self.before = None;
        let layers = probe.then(|| self.records(&read, &seen, count));
        let usage = self.network.usage();
        let end = self.now();
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
            pulls,
            train_error,
            lr,
            usage,
            budget_met: budget::met(&self.budgets(), &usage),
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

    /// What a batch is trained towards, on the device.
    fn targets(&self, labels: &[u16]) -> Tensor<2> {
        let (classes, smoothing) = (self.splits.train.classes(), self.experiment.label_smoothing);
        Tensor::from_data(targets(labels, classes, smoothing), self.network.device())
    }

    /// Logits of this rank's images, and their share of the mean cross entropy over `count` images.
    fn pass_forward(
        &mut self,
        images: Tensor<4>,
        targets: Tensor<2>,
        count: usize,
    ) -> (Tensor<2>, Tensor<1>) {
        self.network.across = across(&self.group, self.experiment.sync_norm, count);
        let logits = self.network.forward(images, Mode::Train);
        self.network.across = None;
        let loss = (log_softmax(logits.clone(), 1) * targets).sum() / -(count as f32);
        (logits.inner(), loss)
    }

    fn pass_back(&mut self, loss: Tensor<1>) -> Gradients {
        let mut gradients = loss.backward();
        let parameters = self.network.parameters.iter();
        let weights = parameters.map(|p| p.value.grad_remove(&mut gradients));
        let weights = weights.collect();
        let slots = self.network.slots.iter();
        let sums = slots.map(|s| s.sums.grad_remove(&mut gradients)).collect();
        // What a card was told to do so far it still does while the next batch is fetched.
        if self.takes_ahead && self.step + 1 < self.total_steps() {
            self.ahead = Some(self.take_batch());
        }
        Gradients { weights, sums }
    }

    /// What a step reads from the device, of all ranks, and the score: cross entropy and error.
    fn gather(
        &mut self,
        logits: Tensor<2>,
        gradients: &mut Gradients,
        labels: &[u16],
        probe: bool,
    ) -> (Read, [f64; 2]) {
        let classes = self.splits.train.classes();
        let Gradients { weights, sums } = gradients;
        if self.group.is_alone() {
            let read = self.read(logits, sums, probe.then_some(&**weights));
            let score = score(&read.logits, labels, classes);
            return (read, score.into());
        }
        let mut read = self.read(logits, sums, None);
        let own_score = score(&read.logits, labels, classes).into();
        let score = self.exchange(&mut read, weights, own_score, labels.len());
        if probe {
            let none = Tensor::empty([0, classes], &self.device);
            read.norms = self.read(none, &[], Some(weights)).norms;
        }
        (read, score)
    }

    /// Moves weights and quantizers, where the loss is finite, and keeps the budgets.
    fn update(
        &mut self,
        lr: f64,
        read: &Read,
        weights: Vec<Option<Tensor<1>>>,
        count: usize,
        finite: bool,
    ) -> Updated {
        let experiment = self.experiment.clone();
        let budgets = &experiment.budgets;
        let until = experiment.frozen_from();
        let constraints = &mut self.constraints;
        let limits = constraints.limits(budgets, &self.network, self.epoch, until);
        let terms = constraints.terms(budgets, &limits, &self.network);
        let (gradients, pulls) = self.slot_gradients(read, &terms);
        let mut seen = vec![[0.0; 2]; gradients.len()];
        if finite {
            let network = &mut self.network;
            self.optimizer.update(network, &experiment, lr, weights);
            // (The others are sent what becomes of the quantizers.)
            if self.network.quantized && self.group.leads() {
                seen = self.move_quantizers(lr, &gradients);
                self.revive(&read.sums, count);
                self.meet_limits(&limits);
            }
        }
        Updated { terms, pulls, seen }
    }

    /// The next batch of the loader, on the device.
    fn take_batch(&mut self) -> Taken {
        let batch = self.loader.next_prepared();
        Taken {
            labels: batch.labels.clone(),
            images: self.intake.images(batch),
        }
    }

    /// The end of a phase.
    fn now(&self) -> Instant {
        if self.waits {
            // A device that failed says so with the next result that is read.
            let _ = self.device.sync();
        }
        Instant::now()
    }

    /// Whether the quantizers stand still at this step.
    fn is_frozen(&self) -> bool {
        has_come(self.experiment.frozen_from(), self.epoch)
    }

    /// Updates the quantizers, unless they stand still. Returns their gradients as the optimizer saw them.
    fn move_quantizers(&mut self, lr: f64, gradients: &[Gradient]) -> Vec<[f64; 2]> {
        if self.is_frozen() {
            return gradients.iter().map(Gradient::sum).collect();
        }
        let experiment = self.experiment.clone();
        self.optimizer
            .update_quantizers(&mut self.network, &experiment, lr, gradients)
    }

    /// Keeps the quantizers within the limits in force, at the last step within what was asked for.
    fn meet_limits(&mut self, limits: &[Budget]) {
        let experiment = self.experiment.clone();
        // Whatever brought them near, the last thing that bitwidths do is to meet the budget.
        let ends = self.step + 1 >= self.total_steps();
        let last = self.is_frozen() || ends;
        let paper = experiment.rules == Rules::Paper;
        let held = experiment.budgets.method == BudgetMethod::Projection || last && paper;
        if held && ends && paper {
            // A ramp that reaches to the very end is one step short of it.
            self.hold_budgets(&self.budgets());
            self.constraints.arrive();
        } else if held {
            self.hold_budgets(limits);
        }
    }

    /// Lowers bitwidths until the limits are met.
    fn hold_budgets(&mut self, limits: &[Budget]) {
        if limits.is_empty() {
            return;
        }
        let group = self.group.clone();
        let sync = self.experiment.sync_norm;
        // Prepared when a budget is first exceeded.
        let mut measured = self.measured.take();
        let (data, intake) = (self.splits.train.clone(), &self.intake);
        let loss = |network: &mut Network| {
            let measured = measured
                .get_or_insert_with(|| Measured::new(network, data.clone(), &group, intake));
            ranks::tell(&group, network, Order::Measure);
            measured.loss(network, &group, sync)
        };
        let costs = &mut self.constraints.costs;
        for slot in costs.project(limits, &mut self.network, loss) {
            self.optimizer.quantizers[slot].stop();
        }
        self.measured = measured;
    }

    /// Takes part in a measurement of rank 0.
    pub(super) fn measure(&mut self) {
        let (group, data) = (self.group.clone(), self.splits.train.clone());
        let measured = self
            .measured
            .get_or_insert_with(|| Measured::new(&self.network, data, &group, &self.intake));
        measured.loss(&mut self.network, &group, self.experiment.sync_norm);
    }

    /// Gradients of every quantizer's parameters; and the norms of the data's and the penalties'
    /// over all quantizers.
    fn slot_gradients(&self, read: &Read, terms: &Terms) -> (Vec<Gradient>, [f64; 2]) {
        let mut pulls = [0.0; 2];
        let slots = self.network.slots.iter();
        let gradients = slots
            .zip(&read.sums)
            .zip(&terms.gradients)
            .map(|((slot, sums), penalty)| {
                let sums = sums.unwrap_or_default();
                let data = slot.quantizer.parameter_gradients(slot.parameters, sums);
                let square = |g: &[f64; 2]| g[0] * g[0] + g[1] * g[1];
                pulls[0] += square(&data);
                pulls[1] += square(penalty);
                Gradient {
                    data,
                    penalty: *penalty,
                }
            })
            .collect();
        (gradients, pulls.map(f64::sqrt))
    }

    /// Everything that a step reads from the device, in one transfer; norms where there are gradients to
    /// probe.
    fn read(
        &self,
        logits: Tensor<2>,
        slot_sums: &[Option<Tensor<1>>],
        probed: Option<&[Option<Tensor<1>>]>,
    ) -> Read {
        let count = logits.dims().iter().product();
        let mut parts: Vec<Tensor<1>> = vec![logits.reshape([count])];
        parts.extend(slot_sums.iter().flatten().cloned());
        let square = |t: Tensor<1>| (t.clone() * t).sum();
        let weight_gradients = probed.unwrap_or_default();
        let weights: Vec<usize> = match probed {
            Some(_) => {
                let slots = self.network.slots.iter();
                slots.filter_map(|s| s.parameter).collect()
            }
            None => Vec::new(),
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
            // Squares overflow long before values do.
            let [gradient, value] = &mut norms[*parameter];
            if !gradient.is_finite()
                && let Some(of) = &weight_gradients[*parameter]
            {
                *gradient = norm(of.clone());
            }
            if !value.is_finite() {
                *value = norm(self.network.parameters[*parameter].value.clone().inner());
            }
        }
        Read {
            logits: logits.to_vec(),
            sums,
            norms,
        }
    }

    /// Shares of a quantizer's elements that are clipped, and on level zero, in a batch of `count`.
    pub(super) fn shares(&self, slot: usize, sums: Option<Sums>, count: usize) -> [f64; 2] {
        let samples = match self.network.slots[slot].role {
            Role::Activation => count,
            Role::Weight | Role::Bias => 1,
        };
        let elements = (self.slot_elements[slot] * samples) as f64;
        let sums = sums.unwrap_or_default();
        [sums.clipped / elements, sums.zeros / elements]
    }

    /// The first layer whose weights, or their gradient, a record of this network says are not finite.
    pub fn non_finite_norm(&self, record: &StepRecord) -> Option<String> {
        let records = record.layers.iter().flatten();
        let weights = self.network.slots.iter().zip(records);
        weights
            .filter(|(slot, _)| slot.parameter.is_some())
            .find(|(_, r)| !(r.grad_norm.is_finite() && r.weight_norm.is_finite()))
            .map(|(slot, _)| slot.name.clone())
    }

    fn records(&self, read: &Read, gradients: &[[f64; 2]], count: usize) -> Vec<LayerRecord> {
        let slots = self.network.slots.iter().enumerate();
        slots
            .map(|(i, slot)| {
                let norms = slot.parameter.map_or([f64::NAN; 2], |p| read.norms[p]);
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
                let [clipped, zeros] = self.shares(i, read.sums[i], count);
                LayerRecord {
                    d: d as f32,
                    q_max: q_max as f32,
                    bitwidth: slot.grid().bits as f32,
                    gradients: gradients[i].map(|g| g as f32),
                    clipped: clipped as f32,
                    zeros: zeros as f32,
                    grad_norm: norms[0],
                    weight_norm: norms[1],
                }
            })
            .collect()
    }
}

/// Pictures that the cost of a bit is measured on: this rank's share of them.
pub(super) struct Measured {
    images: Tensor<4>,
    labels: Vec<u16>,
    classes: usize,
    /// Those of all ranks.
    count: usize,
}

impl Measured {
    fn new(network: &Network, data: Arc<dyn Samples>, group: &Group, intake: &Intake) -> Self {
        let macs: u64 = network.multiplications().iter().map(|m| m.macs).sum();
        let [least, most] = MEASURED_PICTURES;
        let count = ((MEASURED_MACS / macs.max(1) as f64) as usize).clamp(least, most);
        let count = count.max(2 * group.size());
        let classes = data.classes();
        let batch = sampled_batches(data, count, count, 1).next();
        let batch = batch.expect("a run has training data");
        let count = batch.labels.len();
        let batch = batch.part(share_of(group).range(count));
        Self {
            labels: batch.labels.clone(),
            images: intake.images(batch),
            classes,
            count,
        }
    }

    /// Mean cross entropy of the network as it is.
    fn loss(&self, network: &mut Network, group: &Group, sync: bool) -> f64 {
        network.across = across(group, sync, self.count);
        let logits = network.forward(self.images.clone(), Mode::Measure);
        network.across = None;
        let own = score(&read_tensor(logits), &self.labels, self.classes).0;
        if group.is_alone() {
            return own;
        }
        let mut sum = [own * self.labels.len() as f64];
        group.sum(&mut sum);
        sum[0] / self.count as f64
    }
}

/// Euclidean norm, in f64 on the host: of values whose squares overflow.
fn norm(of: Tensor<1>) -> f64 {
    let squares = read_tensor(of).into_iter().map(|v| f64::from(v).powi(2));
    squares.sum::<f64>().sqrt()
}

/// What the logits are trained towards: `1 - smoothing` on the label, the rest even over all classes.
fn targets(labels: &[u16], classes: usize, smoothing: f64) -> TensorData {
    let mut values = vec![(smoothing / classes as f64) as f32; labels.len() * classes];
    for (row, label) in labels.iter().enumerate() {
        values[row * classes + usize::from(*label)] += (1.0 - smoothing) as f32;
    }
    TensorData::new(values, [labels.len(), classes])
}
