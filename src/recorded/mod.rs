//! Recorded runs on the command line: listed, followed, compared, taken apart.

mod compare;
mod log;
mod watch;

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

pub(crate) use compare::compare;
pub(crate) use log::{Extract, log};
pub(crate) use watch::{follow_into, watch};

use crate::experiment::{padded, printable};
use crate::face::{CliError, print};
use crate::run::{LogError, Manifest, RunFolder, RunLock, family, without_log};

impl From<LogError> for CliError {
    fn from(error: LogError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Recorded runs, a line each below their titles; a run is indented below the one that it was forked from.
pub(crate) fn table(runs: &[(RunFolder, Manifest)]) -> String {
    let mut out = format!(
        "{:<40} {:<11} {:>8} {:>7} {:>10} {:>7} {:>9} {:>9}\n",
        "run", "status", "step", "epoch", "best val %", "test %", "best W kB", "A kB"
    );
    let kb = |v: Option<f64>| v.map_or("-".to_owned(), |kb| format!("{kb:.2}"));
    let percent = |v: Option<f64>| v.map_or("-".to_owned(), |e| format!("{:.2}", e * 100.0));
    for (depth, at) in family(runs) {
        let (folder, m) = &runs[at];
        let indent = "  ".repeat(depth.saturating_sub(1));
        let branch = if depth > 0 { "└ " } else { "" };
        let name = printable(&format!("{indent}{branch}{}", folder.label()));
        let name = padded(&name, 40);
        out += &format!(
            "{name} {:<11} {:>8} {:>7.2} {:>10} {:>7} {:>9} {:>9}",
            m.standing(),
            m.step,
            m.epoch,
            percent(m.best_error),
            percent(m.test_error),
            kb(m.kilobytes().map(|kb| kb[0])),
            kb(m.kilobytes().map(|kb| kb[1]))
        );
        if let Some(note) = &m.note {
            out += &format!("  {}", printable(note));
        }
        out.push('\n');
    }
    out
}

/// Says on standard error which folders were runs whose log is gone: they are not in the list.
pub(crate) fn tell_without_log(root: &Path) {
    for folder in without_log(root) {
        let path = printable(&folder.path().display().to_string());
        // Where nobody reads standard error there is nobody to tell.
        let _ = writeln!(
            std::io::stderr(),
            "warning: {path}: its events.log is gone; not listed"
        );
    }
}

/// Runs as a JSON list.
pub(crate) fn list_json(runs: &[(RunFolder, Manifest)]) -> Result<String, CliError> {
    let all: Result<Vec<Value>, _> = runs
        .iter()
        .map(|(folder, manifest)| {
            let mut value = serde_json::to_value(manifest)?;
            value["run"] = folder.label().into();
            value["path"] = folder.path().display().to_string().into();
            value["status"] = manifest.status.name().into();
            Ok::<_, serde_json::Error>(value)
        })
        .collect();
    let all = all.map_err(|e| CliError::Failed(e.to_string()))?;
    Ok(format!("{}\n", Value::from(all)))
}

/// Changes what a person says of a run: its name or a note. A run that trains is its process's own.
pub(crate) fn change(
    folder: &RunFolder,
    change: impl FnOnce(&mut Manifest),
) -> Result<(), CliError> {
    let _lock = RunLock::take(folder.path()).map_err(|e| CliError::Usage(e.to_string()))?;
    let mut manifest = folder.manifest_or_rebuilt()?;
    change(&mut manifest);
    folder
        .write_manifest(&manifest)
        .map_err(|e| CliError::Failed(format!("{}: {e}", folder.path().display())))
}

/// `bitscope runs --rename`.
pub(crate) fn rename(folder: &RunFolder, name: &str) -> Result<u8, CliError> {
    let target = move_to(folder, name)?;
    print(&format!("{}\n", printable(&target.display().to_string())))?;
    Ok(0)
}

/// Gives a run's folder another name; returns its new place.
pub(crate) fn move_to(folder: &RunFolder, name: &str) -> Result<PathBuf, CliError> {
    let bad = name.is_empty()
        || name.starts_with('.')
        || name.contains(['/', '\\'])
        || name.chars().any(char::is_control);
    if bad {
        return Err(CliError::Usage(format!(
            "`{}` is not a valid name for a run; expected a plain file name",
            printable(name)
        )));
    }
    let target = folder.path().with_file_name(name);
    if target.exists() {
        return Err(CliError::Usage(format!("{} exists", target.display())));
    }
    let lock = RunLock::take(folder.path()).map_err(|e| CliError::Usage(e.to_string()))?;
    std::fs::rename(folder.path(), &target)
        .map_err(|e| CliError::Failed(format!("{}: {e}", target.display())))?;
    drop(lock);
    Ok(target)
}

/// `bitscope runs --delete`: removes a run with everything in it.
pub(crate) fn delete(folder: &RunFolder, sure: bool) -> Result<u8, CliError> {
    let path = folder.path().display();
    if !sure {
        let manifest = folder.manifest_or_rebuilt()?;
        return Err(CliError::Usage(format!(
            "{path}: this would permanently delete a run of {} steps; hint: `--yes` confirms it",
            manifest.step
        )));
    }
    remove(folder)?;
    print(&format!("{path} is gone\n"))?;
    Ok(0)
}

/// The same without a question; not of a run that another process trains.
pub(crate) fn remove(folder: &RunFolder) -> Result<(), CliError> {
    let lock = RunLock::take(folder.path()).map_err(|e| CliError::Usage(e.to_string()))?;
    let path = folder.path();
    let failed = |e: std::io::Error| CliError::Failed(format!("{}: {e}", path.display()));
    // The lock goes last: a file that is open keeps its folder on a network disk.
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            std::fs::remove_dir_all(entry.path()).map_err(failed)?;
        } else if entry.file_name() != RunLock::FILE {
            std::fs::remove_file(entry.path()).map_err(failed)?;
        }
    }
    drop(lock);
    std::fs::remove_dir_all(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_steer_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\u{9b}c\n"), "a␛[2Jb\u{fffd}c\n");
    }
}
