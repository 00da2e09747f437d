//! Checkpoints: one safetensors file that other programs can read, with the rest as metadata.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use burn::tensor::{Tensor, TensorData};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use super::budget::Constraints;
use super::optimizer::{Optimizer, QuantizerState};
use crate::dataset::LoaderSettings;
use crate::experiment::OptimizerKind;
use crate::network::Network;
use crate::network::weights::{Tensors, WeightsError, parse, to_bytes};
use crate::quantizer::Quantizer;
use crate::quantizer::memory::Role;
use crate::run::RunFolder;

/// Everything besides tensors that a run needs to go on bit for bit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Steps taken.
    pub step: u64,
    /// Epochs, with fraction.
    pub epoch: f64,
    /// Seconds of training.
    pub seconds: f64,
    /// Next batch of the loader.
    pub next_batch: u64,
    /// Whether the quantizers are in use.
    pub quantized: bool,
    /// Every quantizer, in network order.
    pub slots: Vec<SavedQuantizer>,
    /// What the optimizer remembers of every quantizer.
    pub quantizers: Vec<QuantizerState>,
    /// Updates taken by the optimizer.
    pub updates: u64,
    /// Multipliers of the constraints.
    pub constraints: Constraints,
    /// Best validation error among steps that met the budget.
    pub best_error: Option<f64>,
    /// Settings that the loader runs with: a change waits for the next epoch.
    pub loader: LoaderSettings,
    /// Epoch of the last evaluation that was completed.
    pub evaluated: f64,
}

/// A quantizer as a checkpoint holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedQuantizer {
    /// Name of its layer.
    pub name: String,
    /// What it quantizes.
    pub role: Role,
    /// What its parameters mean.
    pub quantizer: Quantizer,
    /// The two parameters.
    pub parameters: [f64; 2],
}

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The tensors.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The state beside them.
    #[error("{path}: {reason}")]
    State {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// Why a checkpoint is not written.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// A value: such a run could not go on.
    #[error("{0} is not finite")]
    NotFinite(String),
    /// The disk.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

const STATE: &str = "bitscope.state";
const VERSION: &str = "bitscope.version";
/// CRC-32 of names, shapes, values and state.
const CHECKSUM: &str = "bitscope.crc32";
/// Version of the state's format.
const CURRENT: &str = "2";
/// Bitwidths that each quantizer's hardware has, where it has not all: a list of lists, as JSON.
const ALLOWED: &str = "bitscope.allowed_bits";
const MOMENTS: [&str; 2] = ["optimizer.first/", "optimizer.second/"];
const ACTIVATIONS: &str = "activations/";

/// A checkpoint as its file holds it. `activations` are what went into each activation quantizer, by
/// its name.
///
/// # Errors
/// Where a value is not finite: such a run could not go on.
pub(super) fn bytes(
    network: &Network,
    optimizer: &Optimizer,
    state: &State,
    activations: Tensors,
) -> Result<Vec<u8>, SaveError> {
    let mut tensors = network.weights();
    for (parameter, moments) in network.parameters.iter().zip(&optimizer.tensors) {
        for (prefix, moment) in MOMENTS.iter().zip(moments) {
            let Some(moment) = moment else { continue };
            let values = crate::network::read_tensor(moment.clone());
            tensors.insert(
                format!("{prefix}{}", parameter.name),
                (vec![values.len()], values),
            );
        }
    }
    let named = activations
        .into_iter()
        .map(|(name, tensor)| (format!("{ACTIVATIONS}{name}"), tensor));
    tensors.extend(named);
    // Numbers must come back bit for bit, which decimal text does not promise.
    let bytes = postcard::to_stdvec(state).map_err(std::io::Error::other)?;
    let text: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let broken = |v: &f32| !v.is_finite();
    if let Some((name, _)) = tensors.iter().find(|(_, (_, v))| v.iter().any(broken)) {
        return Err(SaveError::NotFinite(name.clone()));
    }
    let slots = state.slots.iter();
    let allowed: Vec<&[f64]> = slots.map(|s| &*s.quantizer.allowed_bits).collect();
    let mut metadata = HashMap::from([(VERSION.to_owned(), CURRENT.to_owned())]);
    let mut beside = text.clone();
    if allowed.iter().any(|list| !list.is_empty()) {
        let json = serde_json::to_string(&allowed).map_err(std::io::Error::other)?;
        beside += &json;
        metadata.insert(ALLOWED.to_owned(), json);
    }
    metadata.insert(CHECKSUM.to_owned(), checksum(&tensors, &beside));
    metadata.insert(STATE.to_owned(), text);
    Ok(to_bytes(&tensors, metadata)?)
}

/// Over everything that a checkpoint holds.
fn checksum(tensors: &Tensors, state: &str) -> String {
    let mut hasher = crc32fast::Hasher::new();
    for (name, (shape, values)) in tensors {
        hasher.update(name.as_bytes());
        for extent in shape {
            hasher.update(&(*extent as u64).to_le_bytes());
        }
        for value in values {
            hasher.update(&value.to_le_bytes());
        }
    }
    hasher.update(state.as_bytes());
    format!("{:08x}", hasher.finalize())
}

/// A checkpoint as its file holds it.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// Everything besides tensors.
    pub state: State,
    /// Weights and running statistics, by name.
    pub weights: Tensors,
    /// A sample of what went into each activation quantizer, by its name; empty where none was in
    /// use.
    pub activations: Tensors,
    /// Optimizer's moments, by prefix and name.
    moments: Tensors,
}

impl Checkpoint {
    /// Of the weights that a run takes from another one: equal weights have equal fingerprints. `None`
    /// where that run has no checkpoint that can be read.
    pub fn fingerprint_of(run: &RunFolder) -> Option<String> {
        let checkpoint = Self::open(&run.start()?).ok()?;
        Some(checksum(&checkpoint.weights, ""))
    }

    /// Reads a file.
    ///
    /// # Errors
    /// Where it cannot be read or is no checkpoint.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let bad = |reason: String| CheckpointError::State {
            path: path.to_owned(),
            reason,
        };
        Self::parse(
            path,
            &crate::files::read(path).map_err(|e| bad(e.to_string()))?,
        )
    }

    /// The same of a file's bytes; `path` is what errors call it.
    ///
    /// # Errors
    /// Where they are no checkpoint.
    pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Self, CheckpointError> {
        let bad = |reason: String| CheckpointError::State {
            path: path.to_owned(),
            reason,
        };
        let metadata = parse_metadata(bytes).map_err(bad)?;
        let all = parse(path, bytes)?;
        let state = metadata.state(&all).map_err(bad)?;
        let (moments, rest): (Tensors, Tensors) = all
            .into_iter()
            .partition(|(name, _)| MOMENTS.iter().any(|m| name.starts_with(m)));
        let (activations, weights): (Tensors, Tensors) = rest
            .into_iter()
            .partition(|(name, _)| name.starts_with(ACTIVATIONS));
        let own = |name: String| name.trim_start_matches(ACTIVATIONS).to_owned();
        Ok(Self {
            state,
            weights,
            activations: activations.into_iter().map(|(n, t)| (own(n), t)).collect(),
            moments,
        })
    }

    /// Kind of the optimizer whose moments it holds; `None` where it holds none.
    pub(super) fn optimizer(&self) -> Option<OptimizerKind> {
        let has = |prefix: &str| self.moments.keys().any(|name| name.starts_with(prefix));
        match (has(MOMENTS[0]), has(MOMENTS[1])) {
            (_, true) => Some(OptimizerKind::Adam),
            (true, false) => Some(OptimizerKind::Sgd),
            (false, false) => None,
        }
    }

    /// Takes the tensors' moments over.
    pub(super) fn take_moments(&self, network: &Network, optimizer: &mut Optimizer) {
        let device = network.device().clone().inner();
        for (parameter, kept) in network.parameters.iter().zip(&mut optimizer.tensors) {
            for (prefix, kept) in MOMENTS.iter().zip(kept) {
                let name = format!("{prefix}{}", parameter.name);
                *kept = self.moments.get(&name).map(|(shape, values)| {
                    Tensor::from_data(TensorData::new(values.clone(), shape.clone()), &device)
                });
            }
        }
        optimizer.updates = self.state.updates;
    }

    /// Takes it over into network and optimizer; returns the rest of the state.
    pub(super) fn restore(
        self,
        path: &Path,
        network: &mut Network,
        optimizer: &mut Optimizer,
    ) -> Result<State, CheckpointError> {
        let state = self.state.clone();
        let bad = |reason: String| CheckpointError::State {
            path: path.to_owned(),
            reason,
        };
        if state.slots.len() != network.slots.len() {
            let (found, expected) = (state.slots.len(), network.slots.len());
            return Err(bad(format!(
                "{found} quantizers where the network has {expected}"
            )));
        }
        for (saved, slot) in state.slots.iter().zip(&network.slots) {
            let (saved, own) = (&saved.quantizer, &slot.quantizer);
            if saved.parametrization != own.parametrization || saved.signed != own.signed {
                let (found, expected) = (saved.parametrization, own.parametrization);
                return Err(bad(format!(
                    "{} is quantized with {found} in the checkpoint and with {expected} in the experiment",
                    slot.name
                )));
            }
        }
        self.take_moments(network, optimizer);
        network.load_weights(path, self.weights, false)?;
        network.quantized = state.quantized;
        for (slot, parameters) in network.slots.iter_mut().zip(&state.slots) {
            slot.parameters = parameters.parameters;
        }
        optimizer.quantizers.clone_from(&state.quantizers);
        Ok(state)
    }
}

/// What stands beside the tensors.
struct Metadata {
    state: String,
    /// Bitwidths of the hardware, as JSON; empty where every quantizer may have any.
    allowed: String,
    checksum: String,
}

impl Metadata {
    /// The state, where the checksum over everything is right.
    fn state(&self, tensors: &Tensors) -> Result<State, String> {
        let beside = format!("{}{}", self.state, self.allowed);
        if checksum(tensors, &beside) != self.checksum {
            return Err("damaged: its checksum is wrong".into());
        }
        let text = &self.state;
        let bytes: Option<Vec<u8>> = (0..text.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(text.get(i..i + 2)?, 16).ok())
            .collect();
        let bytes = bytes.ok_or("damaged state")?;
        let mut state: State = postcard::from_bytes(&bytes).map_err(|e| e.to_string())?;
        if !self.allowed.is_empty() {
            let allowed: Vec<Vec<f64>> =
                serde_json::from_str(&self.allowed).map_err(|e| e.to_string())?;
            for (slot, allowed) in state.slots.iter_mut().zip(allowed) {
                slot.quantizer.allowed_bits = allowed;
            }
        }
        Ok(state)
    }
}

fn parse_metadata(bytes: &[u8]) -> Result<Metadata, String> {
    let (_, metadata) = SafeTensors::read_metadata(bytes)
        .map_err(|e| format!("damaged, or not a checkpoint of this program: {e}"))?;
    let metadata = metadata.metadata().as_ref();
    let find = |name: &str| metadata.and_then(|m| m.get(name)).cloned();
    let state = find(STATE).ok_or("no state in it; expected a checkpoint of this program")?;
    match find(VERSION).as_deref() {
        Some(CURRENT) => {}
        Some(other) => {
            return Err(format!(
                "a checkpoint of version {other}; this program reads version {CURRENT}"
            ));
        }
        None => {
            return Err(format!(
                "a checkpoint of an older version; this program reads version {CURRENT}"
            ));
        }
    }
    let checksum = find(CHECKSUM).ok_or("damaged: no checksum in it")?;
    let allowed = find(ALLOWED).unwrap_or_default();
    Ok(Metadata {
        state,
        allowed,
        checksum,
    })
}
