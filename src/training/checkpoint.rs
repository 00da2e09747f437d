//! Checkpoints: one safetensors file that other programs can read, with the rest as metadata.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use burn::tensor::{Tensor, TensorData};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use super::budget::Constraints;
use super::optimizer::{Optimizer, ScalarState};
use crate::network::Network;
use crate::network::weights::{Tensors, WeightsError, read_file, write_file};

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
    /// Optimizer's moments of every slot.
    pub slot_moments: Vec<[ScalarState; 2]>,
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

/// Writes a checkpoint under a temporary name, syncs it and renames it.
pub(super) fn write(
    path: &Path,
    network: &Network,
    optimizer: &Optimizer,
    state: &State,
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

/// Reads a checkpoint into network and optimizer.
pub(super) fn read(
    path: &Path,
    network: &mut Network,
    optimizer: &mut Optimizer,
) -> Result<State, CheckpointError> {
    let state = read_state(path)?;
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
    let (moments, weights) = split(read_file(path)?);
    network.load_weights(path, weights)?;
    network.quantized = state.quantized;
    for (slot, parameters) in network.slots.iter_mut().zip(&state.slots) {
        slot.parameters = *parameters;
    }
    let device = network.device().clone().inner();
    for (parameter, kept) in network.parameters.iter().zip(&mut optimizer.tensors) {
        for (prefix, kept) in MOMENTS.iter().zip(kept) {
            *kept = moments
                .get(&format!("{prefix}{}", parameter.name))
                .map(|(shape, values)| {
                    Tensor::from_data(TensorData::new(values.clone(), shape.clone()), &device)
                });
        }
    }
    optimizer.slots.clone_from(&state.slot_moments);
    optimizer.updates = state.updates;
    Ok(state)
}

/// What a checkpoint holds besides tensors.
///
/// # Errors
/// Where the file cannot be read or is no checkpoint.
pub fn read_state(path: &Path) -> Result<State, CheckpointError> {
    let bad = |reason: String| CheckpointError::State {
        path: path.to_owned(),
        reason,
    };
    let bytes = std::fs::read(path).map_err(|e| bad(e.to_string()))?;
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| bad(e.to_string()))?;
    let text = metadata.metadata().as_ref().and_then(|m| m.get(STATE));
    let text = text.ok_or_else(|| bad("no state in it".into()))?;
    let bytes: Option<Vec<u8>> = (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(text.get(i..i + 2)?, 16).ok())
        .collect();
    let bytes = bytes.ok_or_else(|| bad("damaged state".into()))?;
    postcard::from_bytes(&bytes).map_err(|e| bad(e.to_string()))
}

/// The weights of a checkpoint, without the optimizer's moments.
///
/// # Errors
/// Where the file cannot be read.
pub fn read_weights(path: &Path) -> Result<Tensors, CheckpointError> {
    Ok(split(read_file(path)?).1)
}

fn split(tensors: Tensors) -> (Tensors, Tensors) {
    tensors
        .into_iter()
        .partition(|(name, _)| MOMENTS.iter().any(|m| name.starts_with(m)))
}
