//! How a trainer comes about: the network with its first weights, and the loader.

use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;

use super::intake::{Intake, first_batch};
use super::{EVALUATION_BATCH, Trainer};
use crate::dataset::{Loader, LoaderSettings, Splits};
use crate::experiment::{Experiment, Start};
use crate::integers::Program;
use crate::kernels::ranks::Group;
use crate::network::{Network, Snapshot};
use crate::training::TrainError;
use crate::training::budget::Constraints;
use crate::training::checkpoint::Checkpoint;
use crate::training::optimizer::Optimizer;
use crate::training::preflight::first_weights;

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
