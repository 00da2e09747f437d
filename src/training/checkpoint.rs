//! Checkpoints: one safetensors file that other programs can read, with the rest as metadata.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use burn::tensor::{Tensor, TensorData};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use super::budget::Constraints;
use super::optimizer::{Optimizer, QuantizerState};
use crate::network::Network;
use crate::network::weights::{Tensors, WeightsError, parse, write_file};

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
    /// Parameters of every slot.
    pub slots: Vec<[f64; 2]>,
    /// What the optimizer remembers of every quantizer.
    pub quantizers: Vec<QuantizerState>,
    /// Updates taken by the optimizer.
    pub updates: u64,
    /// Multipliers of the constraints.
    pub constraints: Constraints,
    /// Best validation error among steps that met the budget.
    pub best_error: Option<f64>,
}

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The tensors.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The state beside them.
    #[error("{path}: {reason}; expected a checkpoint of this program")]
    State {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

const STATE: &str = "bitscope.state";
const MOMENTS: [&str; 2] = ["optimizer.first/", "optimizer.second/"];
const ACTIVATIONS: &str = "activations/";

/// Writes a checkpoint under a temporary name, syncs it and renames it. `activations` are what
/// went into each activation quantizer, by its name.
pub(super) fn write(
    path: &Path,
    network: &Network,
    optimizer: &Optimizer,
    state: &State,
    activations: Tensors,
) -> std::io::Result<()> {
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
    let temporary = path.with_extension("tmp");
    write_file(
        &temporary,
        &tensors,
        HashMap::from([(STATE.to_owned(), text)]),
    )?;
    std::fs::File::open(&temporary)?.sync_all()?;
    std::fs::rename(&temporary, path)
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
    /// Reads a file.
    ///
    /// # Errors
    /// Where it cannot be read or is no checkpoint.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let bad = |reason: String| CheckpointError::State {
            path: path.to_owned(),
            reason,
        };
        let bytes = std::fs::read(path).map_err(|e| bad(e.to_string()))?;
        let state = parse_state(&bytes).map_err(bad)?;
        let all = parse(path, &bytes)?;
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

    /// Takes it over into network and optimizer; returns the rest of the state.
    pub(super) fn restore(
        self,
        path: &Path,
        network: &mut Network,
        optimizer: &mut Optimizer,
    ) -> Result<State, CheckpointError> {
        let state = self.state;
        if state.slots.len() != network.slots.len() {
            let (found, expected) = (state.slots.len(), network.slots.len());
            return Err(CheckpointError::State {
                path: path.to_owned(),
                reason: format!("{found} quantizers where the network has {expected}"),
            });
        }
        network.load_weights(path, self.weights)?;
        network.quantized = state.quantized;
        for (slot, parameters) in network.slots.iter_mut().zip(&state.slots) {
            slot.parameters = *parameters;
        }
        let device = network.device().clone().inner();
        for (parameter, kept) in network.parameters.iter().zip(&mut optimizer.tensors) {
            for (prefix, kept) in MOMENTS.iter().zip(kept) {
                *kept = self
                    .moments
                    .get(&format!("{prefix}{}", parameter.name))
                    .map(|(shape, values)| {
                        Tensor::from_data(TensorData::new(values.clone(), shape.clone()), &device)
                    });
            }
        }
        optimizer.quantizers.clone_from(&state.quantizers);
        optimizer.updates = state.updates;
        Ok(state)
    }
}

/// What a checkpoint holds besides tensors, or why it cannot be had.
fn parse_state(bytes: &[u8]) -> Result<State, String> {
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| e.to_string())?;
    let text = metadata.metadata().as_ref().and_then(|m| m.get(STATE));
    let text = text.ok_or("no state in it")?;
    let bytes: Option<Vec<u8>> = (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(text.get(i..i + 2)?, 16).ok())
        .collect();
    postcard::from_bytes(&bytes.ok_or("damaged state")?).map_err(|e| e.to_string())
}
