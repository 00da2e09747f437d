//! A run as data: events and commands, the log on disk, checkpoints, and the history in memory.
//!
//! Doors:
//! - [`Event`], [`Command`]: what passes between training and everyone else.
//! - [`RunFolder`], [`LogWriter`], [`LogReader`]: a run on disk.
//! - [`Detail`]: older steps, read back from the log where they are looked at closely.
//! - [`History`], [`Series`]: a run in memory, with several levels of detail.
//! - [`Verdicts`]: detectors that say what is wrong with a run.
//! - [`Feed`]: events to the screen, without ever making training wait.

#[cfg(unix)]
pub mod control;
mod disk;
mod event;
mod feed;
mod folder;
mod history;
mod lock;
mod log;
mod quantity;
mod series;
mod tensorboard;
mod verdict;

pub use disk::write_whole;
pub use event::{
    Budget, Command, Event, LayerInfo, LayerRecord, Parent, Phase, Phases, Split, StepRecord,
    Tightening, Times,
};
pub use feed::Feed;
pub use folder::{Best, Manifest, RunFolder, Status, family, list_runs, without_log};
pub use history::{Evaluation, History, LayerHistory, Mark, MarkKind, Message, Severity};
pub use lock::{Holder, LockError, RunLock};
pub use log::{Damage, Detail, Index, LogError, LogReader, LogWriter, read_log};
pub use quantity::{LayerQuantity, PHASES, Quantity};
pub use series::{Bucket, Series};
pub use tensorboard::TensorBoard;
pub(crate) use verdict::dead;
pub use verdict::{Kind as VerdictKind, Verdict, Verdicts};
