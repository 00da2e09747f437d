//! The loop, schedule, optimizer groups, budgets, the probe, and the session around them.
//!
//! Doors:
//! - [`Session`]: a training thread that takes commands and emits events at step boundaries.
//! - [`Trainer`]: one run, step by step, without a thread.
//! - [`preflight`]: what can be said of an experiment before it runs (budgets in reach).
//!
//! Nothing here knows the terminal.

mod budget;
mod checkpoint;
mod error;
mod optimizer;
mod preflight;
mod schedule;
mod session;
mod trainer;

pub use budget::Constraints;
pub use checkpoint::{Checkpoint, CheckpointError, SavedQuantizer, State};
pub use error::TrainError;
pub use optimizer::{Optimizer, QuantizerState};
pub use preflight::{Outline, out_of_reach, preflight};
pub use schedule::learning_rate;
pub(crate) use session::{NOT_SAVED, reason};
pub use session::{Origin, Session, Setup, resumable};
pub use trainer::{ASKED, Compared, Trainer, follow, network_of};
