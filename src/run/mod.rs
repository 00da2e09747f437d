//! A run as data: events and commands, the log on disk, checkpoints, and the history in memory.
//!
//! Doors:
//! - [`Event`], [`Command`]: what passes between training and everyone else.
//! - [`RunFolder`], [`LogWriter`], [`read_log`]: a run on disk.
//! - [`History`], [`Series`]: a run in memory, with several levels of detail.
//! - [`Feed`]: events to the screen, without ever making training wait.

mod event;
mod feed;
mod folder;
mod history;
mod log;
mod series;

pub use event::{Budget, Command, Event, LayerInfo, LayerRecord, Phase, Split, StepRecord, Times};
pub use feed::Feed;
pub(crate) use folder::write_atomically;
pub use folder::{Manifest, RunFolder, Status, list_runs};
pub use history::{Evaluation, History, LayerHistory, Mark, MarkKind, Message, Severity};
pub use log::{LogError, LogWriter, read_log};
pub use series::{Bucket, Series};
