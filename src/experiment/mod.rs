//! The experiment file: one schema, parsed with line and column, compared key by key, watched.
//!
//! Doors:
//! - [`load`]: a file (with `extends` and overrides) to an [`Experiment`], or every [`Diagnostic`].
//! - [`KEYS`]: the schema. Type, range, default, class and documentation of each key; validation,
//!   difference, reference documentation and screen all read this one table.
//! - [`difference`]: what changed between two experiments and what that asks for ([`Class`]).
//! - [`Watcher`]: tells when a file of the experiment was saved, however the editor saves.

mod diagnostic;
mod diff;
mod edit;
mod keys;
mod listing;
mod network;
mod quantizers;
mod resolve;
mod schema;
mod settings;
mod source;
mod template;
mod value;
mod watch;

pub use diagnostic::{Diagnostic, Diagnostics, Place, render};
pub(crate) use diagnostic::{padded, printable};
pub use diff::{Change, difference, strongest};
pub use edit::{EditError, change_file, replace_file, set_in_text};
pub use keys::KEYS;
pub use listing::reference_markdown;
pub use schema::{Class, Default, Key, Kind};
pub use settings::{
    Augment, AutoApply, BudgetMethod, Budgets, Cache, Clip, DataSource, Decay, DeclaredShape,
    Experiment, Framing, Limit, LogSettings, Normalise, OnTrouble, OptimizerKind,
    OptimizerSettings, QuantizerDynamics, QuantizerSteps, ScheduleKind, ScheduleSettings, Start,
    Thresholds,
};
pub use source::{Loaded, Overrides, load, load_as, load_embedded, resolve_text};
pub(crate) use source::{absolute, key_of, merged};
pub use template::template;
pub use value::{Value, Values};
pub use watch::{Saved, Watcher};
