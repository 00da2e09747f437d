//! What a run needs to go on: settings that it may go on with, and a sound checkpoint.

use super::super::error::TrainError;
use crate::experiment::{Change, Class, Experiment, difference, resolve_text};
use crate::run::RunFolder;
use crate::training::trainer::Trainer;

/// The changes between a run's experiment and the one that it is to go on with.
///
/// # Errors
/// Where one of them needs a new run, or the run's experiment cannot be read.
pub fn resumable(folder: &RunFolder, experiment: &Experiment) -> Result<Vec<Change>, TrainError> {
    let text = crate::files::read_text(&folder.experiment());
    let text = text.or_else(|error| folder.experiment_in_log().ok_or(error))?;
    let before = match resolve_text("experiment.toml", &text) {
        Ok(before) => before,
        // Cut short on a full disk, or by hand: the log has it too.
        Err(error) => folder
            .experiment_in_log()
            .and_then(|text| resolve_text("experiment.toml", &text).ok())
            .ok_or_else(|| {
                std::io::Error::new(std::io::ErrorKind::InvalidData, error.to_string())
            })?,
    };
    let changes = difference(&before.values, &experiment.values);
    let moved = |c: &Change| MOVABLE.contains(&c.path.as_str());
    let refused: Vec<&Change> = changes
        .iter()
        .filter(|c| c.class >= Class::Fork && !moved(c))
        .collect();
    let Some(strongest) = refused.iter().map(|c| c.class).max() else {
        return Ok(changes);
    };
    let listed: Vec<String> = refused.iter().map(ToString::to_string).collect();
    let set: Vec<String> = refused
        .iter()
        .map(|c| {
            // (Nothing behind the sign takes a value away.)
            let value = c.new.as_ref().map_or(String::new(), ToString::to_string);
            format!("--set {}", quoted(&format!("{}={value}", c.path)))
        })
        .collect();
    let command = match strongest {
        Class::Fork => format!(
            "fork {} {}",
            quoted(&folder.path().display().to_string()),
            set.join(" ")
        ),
        _ => format!(
            "train {} {}",
            quoted(&folder.experiment().display().to_string()),
            set.join(" ")
        ),
    };
    Err(TrainError::NeedsNewRun {
        changes: listed.join(", "),
        command,
    })
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "_-./=,:@%+".contains(c);
    if word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Keys that say where something is rather than what it is: data may move, and another device gives
/// the same run up to rounding.
const MOVABLE: [&str; 4] = ["data.path", "device", "init.run", "init.weights"];

/// Continues from the newest intact checkpoint; returns what is wrong with newer ones, a sentence each.
pub(super) fn restore(
    trainer: &mut Trainer,
    folder: &RunFolder,
) -> Result<Vec<String>, TrainError> {
    let mut damaged = Vec::new();
    let newest_first = folder.all_checkpoints().into_iter().rev();
    for path in newest_first.chain(Some(folder.best()).filter(|p| p.is_file())) {
        match trainer.restore(&path) {
            Ok(()) => {
                let passed = |error| format!("{error}; going on from the checkpoint before it");
                return Ok(damaged.into_iter().map(passed).collect());
            }
            Err(error) => damaged.push(error.to_string()),
        }
    }
    Err(if damaged.is_empty() {
        TrainError::no_checkpoint(folder)
    } else {
        TrainError::AllDamaged(damaged)
    })
}
