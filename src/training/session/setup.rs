//! What a run is started with.

use std::path::PathBuf;
use std::sync::Arc;

use crate::experiment::Experiment;
use crate::run::{Parent, RunFolder};

/// What a run needs to start.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The experiment.
    pub experiment: Arc<Experiment>,
    /// Where it is recorded.
    pub folder: RunFolder,
    /// Where it starts.
    pub origin: Origin,
    /// The experiment file that it comes from, absolute; `None` for the embedded default.
    pub source: Option<PathBuf>,
    /// What the command line sets over it, `key=value` each, paths absolute.
    pub set: Vec<String>,
    /// Stop after this many steps.
    pub max_steps: Option<u64>,
    /// Wait for a command before the first step.
    pub paused: bool,
}

/// Where a run starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// At its beginning.
    New,
    /// At its own newest checkpoint that is sound.
    Resume,
    /// At a checkpoint of another run.
    Fork {
        /// The checkpoint.
        checkpoint: PathBuf,
        /// Whose it is.
        parent: Parent,
    },
}
