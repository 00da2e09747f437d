//! Why a run cannot be trained.

use std::path::PathBuf;

use super::checkpoint::CheckpointError;
use crate::dataset::DataError;
use crate::device::DeviceError;
use crate::graph::GraphError;
use crate::integers::ExportError;
use crate::kernels::ranks::Lost;
use crate::network::weights::WeightsError;
use crate::run::{LockError, LogError, RunFolder};

/// Why training cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The network.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// Initial weights.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The event log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The run folder.
    #[error("run folder: {0}")]
    Folder(#[from] std::io::Error),
    /// A new run in a folder that holds one.
    #[error("{0}: another process has begun this run")]
    Begun(PathBuf),
    /// A run without a checkpoint.
    #[error("{folder}: the run has no checkpoint{}", .reason.as_ref().map_or(" yet".into(), |r| format!(": {r}")))]
    NoCheckpoint {
        /// The run.
        folder: PathBuf,
        /// Why it ended, where it says.
        reason: Option<String>,
    },
    /// A run none of whose checkpoints can be read.
    #[error("no checkpoint of the run is intact: {}", .0.join("; "))]
    AllDamaged(Vec<String>),
    /// Another process has the run.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A network that is to be evaluated in integers, and that they do not give in full.
    #[error("`evaluate.integers`: {0}")]
    Integers(#[from] ExportError),
    /// Ranks that cannot train together.
    #[error("{0}")]
    Ranks(String),
    /// A rank that has ended.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// Settings that a run cannot change while it goes on.
    #[error("{changes}: needs a new run; hint: `bitscope {command}`")]
    NeedsNewRun {
        /// The changes.
        changes: String,
        /// The command that makes one.
        command: String,
    },
}

impl TrainError {
    /// Of a run that has none, with what its manifest says of why.
    pub fn no_checkpoint(folder: &RunFolder) -> Self {
        Self::NoCheckpoint {
            folder: folder.path().to_owned(),
            reason: folder.manifest().ok().and_then(|m| m.reason),
        }
    }
}
