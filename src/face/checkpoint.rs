//! Which of a run's checkpoints is meant.

use std::path::PathBuf;

use clap::Args;

use super::CliError;
use crate::run::RunFolder;
use crate::training::{self, TrainError};

/// Which of a run's checkpoints.
#[derive(Debug, Args, Clone, Copy)]
pub(crate) struct Checkpoint {
    /// `best` (on validation, within the budget), `newest`, or a step: the newest at or before it;
    /// the best one by default, for `fork` the newest
    #[arg(
        long = "checkpoint",
        visible_alias = "step",
        value_name = "best|newest|STEP"
    )]
    pub which: Option<Which>,
}

/// Which of a run's checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// Least validation error among those that met the budget; the newest where none did.
    Best,
    /// The last one.
    Newest,
    /// The newest at or before a step.
    Step(u64),
}

impl std::str::FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "best" => Ok(Self::Best),
            "newest" => Ok(Self::Newest),
            step => step
                .parse()
                .map(Self::Step)
                .map_err(|_| format!("\"{text}\"; expected `best`, `newest` or a step")),
        }
    }
}

/// A checkpoint that was chosen.
pub(crate) struct Chosen {
    /// Its step.
    pub step: u64,
    /// Where it is.
    pub path: PathBuf,
    /// What there is to say of the choice.
    pub notes: Vec<String>,
}

impl Which {
    /// The one of a run.
    ///
    /// # Errors
    /// If there is none, or none that can be read.
    pub fn of(self, folder: &RunFolder) -> Result<Chosen, CliError> {
        let before = match (self, folder.best_checkpoint()) {
            (Self::Best, Some(path)) => {
                let read = training::Checkpoint::open(&path);
                let read = read.map_err(|e| CliError::Failed(e.to_string()))?;
                return Ok(Chosen {
                    step: read.state.step,
                    path,
                    notes: Vec::new(),
                });
            }
            (Self::Step(step), _) => Some(step),
            _ => None,
        };
        let (found, mut notes) = checkpoint_at(folder, before);
        let Some((step, path)) = found else {
            return Err(CliError::Usage(match before {
                _ if !notes.is_empty() => TrainError::AllDamaged(notes).to_string(),
                Some(step) => {
                    let path = folder.path().display();
                    format!("{path}: no checkpoint at or before step {step}")
                }
                None => TrainError::no_checkpoint(folder).to_string(),
            }));
        };
        if self == Self::Best {
            notes.push("no evaluation met the budget: this is the newest checkpoint".to_owned());
        }
        Ok(Chosen { step, path, notes })
    }
}

/// The newest sound checkpoint at or before a step, of all without one; and why it is not that of the
/// step, or not the newest, a sentence each.
pub(crate) fn checkpoint_at(
    folder: &RunFolder,
    step: Option<u64>,
) -> (Option<(u64, PathBuf)>, Vec<String>) {
    let mut damaged = Vec::new();
    for (at, path) in folder.checkpoints_by_step().into_iter().rev() {
        if step.is_some_and(|step| at > step) {
            continue;
        }
        match training::Checkpoint::open(&path) {
            Ok(_) => {
                if let Some(step) = step.filter(|step| *step != at && damaged.is_empty()) {
                    damaged.push(format!(
                        "there is no checkpoint of step {step}; that of step {at} is the newest before it"
                    ));
                }
                return (Some((at, path)), damaged);
            }
            Err(error) => damaged.push(format!("{error}; the checkpoint before it serves")),
        }
    }
    (None, damaged)
}
