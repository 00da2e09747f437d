//! One run on several ranks.
//!
//! Rank 0 decides, records and saves. Before each thing that all do together it sends the others an
//! [`Order`], with the quantizers as they are now: it alone moves them, keeps them within budgets and
//! brings dead ones back. Every rank computes the gradients of its share of the batch, and updates its
//! own copy of the weights with the sum over all, so that they stay equal; [`Trainer::compare`] says
//! whether they did.

use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::Trainer;
use crate::dataset::{LoaderSettings, Share, Splits};
use crate::experiment::{Experiment, resolve_text};
use crate::graph::Architecture;
use crate::kernels::Across;
use crate::kernels::ranks::Group;
use crate::network::{Network, read_tensor};
use crate::quantizer::memory::Role;
use crate::quantizer::{Rules, Sums};
use crate::run::Split;
use crate::training::TrainError;
use crate::training::budget::Constraints;
use crate::training::checkpoint::{self, Checkpoint};
use crate::training::optimizer::Optimizer;

/// What rank 0 tells the others to do with it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// Begin: with the experiment as TOML, the file of its network where that is another one than the
    /// experiment says, and the state as a checkpoint.
    Begin {
        experiment: String,
        model: Option<std::path::PathBuf>,
        state: Vec<u8>,
    },
    /// Take a step.
    Step(Quantizers),
    /// Evaluate.
    Evaluate(Split, Quantizers),
    /// Take part in measuring the loss with the quantizers like this.
    Measure(Quantizers),
    /// Say whether the parameters are the same.
    Compare(Quantizers),
    /// Take over other settings.
    Apply(String),
}

/// The quantizers of rank 0.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Quantizers {
    in_use: bool,
    parameters: Vec<[f64; 2]>,
}

/// What a step reads from the device.
pub(super) struct Read {
    pub logits: Vec<f32>,
    pub sums: Vec<Option<Sums>>,
    /// Norms of gradient and value, by parameter; NaN where not probed.
    pub norms: Vec<[f64; 2]>,
}

/// What a step that was cut short has to give back: all that it may have changed.
pub(super) struct Before {
    parameters: Vec<Tensor<1>>,
    running: Vec<Tensor<2>>,
    quantizers: Vec<[f64; 2]>,
    optimizer: Optimizer,
    constraints: Constraints,
    next_batch: u64,
}

/// What ranks agree on after a comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    /// CRC-32 of rank 0's parameters, running statistics and quantizers.
    pub fingerprint: u32,
    /// Ranks whose own differ.
    pub others: Vec<usize>,
}

impl Trainer {
    /// Trains with other ranks from here on: rank 0, before its first step. The others
    /// [follow](follow).
    ///
    /// # Errors
    /// Where a batch has fewer pictures than there are ranks.
    pub fn lead(&mut self, group: Group) -> Result<(), TrainError> {
        if group.is_alone() {
            return Ok(());
        }
        self.check_shares(&group, &self.experiment)?;
        let activations = crate::network::weights::Tensors::new();
        let state = checkpoint::bytes(&self.network, &self.optimizer, &self.state(), activations)
            .map_err(|error| TrainError::Ranks(error.to_string()))?;
        let model = match &self.experiment.model {
            Architecture::File { path, .. } => Some(path.clone()),
            Architecture::BuiltIn(_) | Architecture::Written(_) => None,
        };
        self.join(group);
        self.tell(|_| Order::Begin {
            experiment: self.experiment.values.to_toml(),
            model,
            state,
        });
        Ok(())
    }

    /// Whether the ranks can train with these settings.
    ///
    /// # Errors
    /// Where a batch has fewer pictures than there are ranks, or the rules are those of one process.
    pub fn can_share(&self, experiment: &Experiment) -> Result<(), TrainError> {
        self.check_shares(&self.group, experiment)
    }

    fn check_shares(&self, group: &Group, experiment: &Experiment) -> Result<(), TrainError> {
        let ranks = group.size();
        if group.is_alone() {
            return Ok(());
        }
        if experiment.rules == Rules::PublishedCode {
            return Err(TrainError::Ranks(format!(
                "`rules = \"published-code\"` sums in the order of one process, which {ranks} ranks do not have"
            )));
        }
        // The batch in use, and the one that the next epoch begins with.
        let wanted = LoaderSettings::of(experiment, &self.splits).batch;
        let batch = wanted.min(self.loader_settings.batch);
        let pictures = batch.min(self.splits.train.len());
        if pictures < ranks {
            return Err(TrainError::Ranks(format!(
                "a batch has {pictures} pictures, which {ranks} ranks cannot share; hint: fewer ranks, or a \
                 larger `train.batch`"
            )));
        }
        Ok(())
    }

    fn join(&mut self, group: Group) {
        self.group = group;
        self.restart_loader();
    }

    /// The ranks that train together.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// This rank's part of the pictures.
    pub(super) fn share(&self) -> Share {
        share_of(&self.group)
    }

    /// Pictures of a batch, those of all ranks.
    pub(super) fn pictures_of_all(&self) -> usize {
        self.loader_settings.batch.min(self.splits.train.len())
    }

    /// Sends an order, where this rank is the first of several.
    pub(super) fn tell(&self, order: impl FnOnce(Quantizers) -> Order) {
        tell(&self.group, &self.network, order);
    }

    /// Does what rank 0 says until there is nothing more.
    fn obey(&mut self) -> Result<(), TrainError> {
        while let Some(order) = heard(&self.group)? {
            match order {
                Order::Begin { .. } => return Err(TrainError::Ranks("begun twice".into())),
                Order::Step(quantizers) => {
                    self.take(quantizers);
                    self.take_step(false);
                }
                Order::Evaluate(split, quantizers) => {
                    self.take(quantizers);
                    match split {
                        Split::Validation => self.validate(|| true),
                        Split::Test => self.test(|| true),
                    };
                }
                Order::Measure(quantizers) => {
                    self.take(quantizers);
                    self.measure();
                }
                Order::Compare(quantizers) => {
                    self.take(quantizers);
                    self.compare_own();
                }
                Order::Apply(text) => self.apply(settings(&text)?),
            }
        }
        Ok(())
    }

    fn take(&mut self, quantizers: Quantizers) {
        self.network.quantized = quantizers.in_use;
        for (slot, parameters) in self.network.slots.iter_mut().zip(quantizers.parameters) {
            slot.parameters = parameters;
        }
    }

    /// Keeps what a step that is cut short has to give back, on the rank that saves.
    pub(super) fn remember(&mut self) {
        if self.group.is_alone() || !self.group.leads() {
            return;
        }
        let network = &self.network;
        let running = network.running.iter().map(|r| r.statistics.clone());
        self.before = Some(Before {
            parameters: network.parameters.iter().map(|p| p.value.clone()).collect(),
            running: running.collect(),
            quantizers: network.slots.iter().map(|s| s.parameters).collect(),
            optimizer: self.optimizer.clone(),
            constraints: self.constraints.clone(),
            next_batch: self.next_batch,
        });
    }

    /// Brings what was computed from this rank's share to what the whole batch gives: sums of the
    /// quantizers, gradients of the weights, and mean cross entropy and error, which it returns.
    pub(super) fn exchange(
        &mut self,
        read: &mut Read,
        gradients: &mut [Option<Tensor<1>>],
        [cross_entropy, error]: [f64; 2],
        count: usize,
    ) -> [f64; 2] {
        let n = count as f64;
        let mut values = vec![cross_entropy * n, error * n];
        let sums = read.sums.iter().flatten();
        values.extend(sums.flat_map(|s| s.to_array()));
        let running = if self.experiment.sync_norm {
            Vec::new()
        } else {
            self.running_values()
        };
        values.extend(running.iter().map(|v| f64::from(*v)));
        self.group.sum(&mut values);
        let mut rest = values.into_iter();
        let mut take = || rest.next().expect("one number for each that was sent");
        let all = self.pictures_of_all() as f64;
        let score = [take() / all, take() / all];
        for (slot, sums) in self.network.slots.iter().zip(&mut read.sums) {
            let Some(own) = sums else { continue };
            let common = Sums::from_array([(); Sums::LEN].map(|()| take()));
            *own = match slot.role {
                Role::Activation => common,
                // Every rank counts the same weights.
                Role::Weight | Role::Bias => Sums {
                    clipped: own.clipped,
                    zeros: own.zeros,
                    ..common
                },
            };
        }
        if !running.is_empty() {
            let size = self.group.size() as f64;
            let means = rest.map(|sum| (sum / size) as f32).collect();
            self.set_running(means);
        }
        self.sum_gradients(gradients);
        score
    }

    fn sum_gradients(&self, gradients: &mut [Option<Tensor<1>>]) {
        let own: Vec<Tensor<1>> = gradients.iter().flatten().cloned().collect();
        if own.is_empty() {
            return;
        }
        let lengths: Vec<usize> = own.iter().map(|g| g.dims()[0]).collect();
        let mut values = read_tensor(Tensor::cat(own, 0));
        self.group.sum_gradients(&mut values);
        let length = values.len();
        let common = Tensor::<1>::from_data(TensorData::new(values, [length]), &self.device);
        let mut start = 0;
        for (gradient, length) in gradients.iter_mut().flatten().zip(lengths) {
            let own = start..start + length;
            start = own.end;
            *gradient = common.clone().slice([own]);
        }
    }

    fn running_values(&self) -> Vec<f32> {
        let running = self.network.running.iter();
        let values = running.flat_map(|r| read_tensor(r.statistics.clone()));
        values.collect()
    }

    fn set_running(&mut self, values: Vec<f32>) {
        let mut start = 0;
        for running in &mut self.network.running {
            let shape = running.statistics.dims();
            let end = start + shape[0] * shape[1];
            let own = TensorData::new(values[start..end].to_vec(), shape);
            running.statistics = Tensor::from_data(own, &self.device);
            start = end;
        }
    }

    /// Gives every rank the running statistics of rank 0.
    pub(super) fn share_running(&mut self) {
        if self.group.is_alone() {
            return;
        }
        let own = self.running_values();
        let bytes = bytemuck::cast_slice(&own).to_vec();
        let bytes = self.group.broadcast(bytes);
        if !self.group.leads() {
            self.set_running(bytemuck::pod_collect_to_vec(&bytes));
        }
    }

    /// Whether all ranks have the same parameters, running statistics and quantizers.
    pub fn compare(&mut self) -> Compared {
        let group = self.group.clone();
        group.together(|| {
            self.tell(Order::Compare);
            self.compare_own()
        })
    }

    fn compare_own(&self) -> Compared {
        let own = fingerprint(&self.network);
        let first = self.group.broadcast(own.to_le_bytes().to_vec());
        let first = first.try_into().map_or(own, u32::from_le_bytes);
        let mut differs = vec![0.0; self.group.size()];
        differs[self.group.rank()] = f64::from(u8::from(own != first));
        self.group.sum(&mut differs);
        let others = differs.iter().enumerate().filter(|(_, d)| **d > 0.0);
        Compared {
            fingerprint: first,
            others: others.map(|(rank, _)| rank).collect(),
        }
    }

    /// Gives back what a step has changed that a lost rank cut short: the state is that of the last
    /// step.
    pub fn undo_step(&mut self) {
        let Some(before) = self.before.take() else {
            return;
        };
        let network = &mut self.network;
        for (parameter, value) in network.parameters.iter_mut().zip(before.parameters) {
            parameter.value = value;
        }
        for (running, statistics) in network.running.iter_mut().zip(before.running) {
            running.statistics = statistics;
        }
        for (slot, parameters) in network.slots.iter_mut().zip(before.quantizers) {
            slot.parameters = parameters;
        }
        self.optimizer = before.optimizer;
        self.constraints = before.constraints;
        self.next_batch = before.next_batch;
    }
}

/// Sends an order with the quantizers of this network, where this rank is the first of several.
pub(super) fn tell(group: &Group, network: &Network, order: impl FnOnce(Quantizers) -> Order) {
    if group.is_alone() || !group.leads() {
        return;
    }
    let quantizers = Quantizers {
        in_use: network.quantized,
        parameters: network.slots.iter().map(|s| s.parameters).collect(),
    };
    let order = postcard::to_stdvec(&order(quantizers));
    group.broadcast(order.expect("an order is plain data"));
}

/// This rank's part of what is shared out.
pub(super) fn share_of(group: &Group) -> Share {
    Share {
        index: group.rank(),
        of: group.size(),
    }
}

/// The ranks whose `images` pictures batch norms take as one batch, where they do.
pub(super) fn across(group: &Group, sync: bool, images: usize) -> Option<Across> {
    (sync && !group.is_alone()).then(|| Across {
        group: group.clone(),
        images,
    })
}

/// CRC-32 of all that ranks have in common.
fn fingerprint(network: &Network) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    let parameters = network.parameters.iter().map(|p| p.to_vec());
    let running = network
        .running
        .iter()
        .map(|r| read_tensor(r.statistics.clone()));
    for values in parameters.chain(running) {
        hasher.update(bytemuck::cast_slice(&values));
    }
    for slot in &network.slots {
        hasher.update(bytemuck::cast_slice(&slot.parameters));
    }
    hasher.finalize()
}

/// The next order of rank 0; `None` where there is nothing more to do.
fn heard(group: &Group) -> Result<Option<Order>, TrainError> {
    let bytes = group.broadcast(Vec::new());
    if bytes.is_empty() {
        return Ok(None);
    }
    let order = postcard::from_bytes(&bytes);
    let order = order.map_err(|_| {
        TrainError::Ranks("it is a different version of the program from rank 0's".into())
    })?;
    Ok(Some(order))
}

fn settings(text: &str) -> Result<Arc<Experiment>, TrainError> {
    let experiment = resolve_text("the experiment of rank 0", text);
    Ok(Arc::new(
        experiment.map_err(|e| TrainError::Ranks(e.to_string()))?,
    ))
}

/// Trains with the others as rank 0 says, on any rank but that, until there is nothing more to do.
///
/// # Errors
/// Where the data is not to be read here, or the device is not there.
pub fn follow(group: &Group) -> Result<(), TrainError> {
    let Some(order) = heard(group)? else {
        return Ok(());
    };
    let Order::Begin {
        experiment,
        model,
        state,
    } = order
    else {
        return Err(TrainError::Ranks("nothing was begun".into()));
    };
    let mut experiment = settings(&experiment)?;
    if let (Some(own), Architecture::File { path, .. }) =
        (model, &mut Arc::make_mut(&mut experiment).model)
    {
        *path = own;
    }
    let engine = crate::device::parse(&experiment.device)?.of_rank(group.on_machine()[0])?;
    let splits: Splits = crate::dataset::open(&experiment)?;
    let device = crate::device::burn_device(engine);
    let mut trainer = Trainer::blank(experiment, splits, device)?;
    let place = std::path::Path::new("the state of rank 0");
    trainer.restore_from(place, Checkpoint::parse(place, &state)?)?;
    trainer.join(group.clone());
    if engine.is_card() {
        trainer.take_ahead();
    }
    trainer.obey()
}
