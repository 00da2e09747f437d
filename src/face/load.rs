//! Experiments loaded, with what a file alone cannot show: network, budgets, device.

use std::path::Path;

use super::CliError;
use crate::device;
use crate::experiment::{self, Diagnostic, Diagnostics, Loaded, Overrides};
use crate::graph::{Architecture, GraphError};
use crate::run::RunFolder;
use crate::training::{Outline, out_of_reach, preflight};

/// Name and text of the embedded default experiment.
pub(crate) const DEMO: (&str, &str) = ("demo.toml", include_str!("../../experiments/demo.toml"));

/// Loads an experiment and checks what a file alone cannot show: network, budgets and device.
pub(crate) fn load(path: Option<&Path>, set: &Overrides) -> Result<Loaded, CliError> {
    outlined(path, set).map(|(loaded, _)| loaded)
}

/// The same, with the network's outline.
pub(crate) fn outlined(
    path: Option<&Path>,
    set: &Overrides,
) -> Result<(Loaded, Outline), CliError> {
    let loaded = parse(path, set)?;
    known_device(&loaded)?;
    let outline = outline(&loaded)?;
    Ok((loaded, outline))
}

/// The network of an experiment, with its budgets in reach.
pub(crate) fn outline(loaded: &Loaded) -> Result<Outline, Diagnostics> {
    let outline = Outline::of(&loaded.experiment).map_err(|error| unbuildable(loaded, &error))?;
    in_reach(loaded, out_of_reach(&loaded.experiment, &outline))?;
    Ok(outline)
}

/// The same without building the network: a recorded run has a copy of its file.
fn load_any(path: Option<&Path>, set: &Overrides) -> Result<Loaded, CliError> {
    let loaded = parse(path, set)?;
    reachable(&loaded)?;
    known_device(&loaded)?;
    Ok(loaded)
}

/// An experiment file, or the embedded default.
pub(crate) fn parse(path: Option<&Path>, set: &Overrides) -> Result<Loaded, Diagnostics> {
    match path {
        Some(path) => experiment::load(path, set),
        None => experiment::load_embedded(DEMO.0, DEMO.1, set),
    }
}

fn known_device(loaded: &Loaded) -> Result<(), CliError> {
    let parsed = device::parse(&loaded.experiment.device);
    parsed.map(drop).map_err(|e| CliError::Usage(e.to_string()))
}

/// What is wrong with the network, as a diagnostic at the key that asks for it.
fn unbuildable(loaded: &Loaded, error: &GraphError) -> Diagnostics {
    let key = match (&loaded.experiment.model, error) {
        (_, GraphError::Classes { .. }) => "model.file",
        (Architecture::BuiltIn(_), _) => "model.name",
        (Architecture::File { .. }, _) => "model.file",
        (Architecture::Written(_), _) => "model.layers",
    };
    let (message, expected) = error.parts();
    Diagnostics(vec![Diagnostic {
        place: loaded.place(key),
        message,
        expected,
    }])
}

/// Budgets out of reach as diagnostics at the keys that set them.
pub(crate) fn reachable(loaded: &Loaded) -> Result<(), Diagnostics> {
    in_reach(loaded, preflight(&loaded.experiment))
}

fn in_reach(
    loaded: &Loaded,
    problems: Vec<(&'static str, String, String)>,
) -> Result<(), Diagnostics> {
    if problems.is_empty() {
        return Ok(());
    }
    let diagnostics = problems
        .into_iter()
        .map(|(key, message, expected)| Diagnostic {
            place: loaded.place(key),
            message,
            expected,
        });
    Err(Diagnostics(diagnostics.collect()))
}

/// The experiment of a run: its file, or what the log says where that is gone or damaged.
pub(crate) fn load_recorded(folder: &RunFolder, set: &Overrides) -> Result<Loaded, CliError> {
    let file = folder.experiment();
    // (A resolved file has every key: what is cut short may still be a valid experiment.)
    if experiment::load(&file, &Vec::new()).is_ok_and(|loaded| loaded.is_resolved()) {
        return load_any(Some(&file), set);
    }
    let Some(text) = folder.experiment_in_log() else {
        return load_any(Some(&file), set);
    };
    crate::run::write_whole(&file, text.as_bytes())
        .map_err(|e| CliError::Failed(format!("{}: {e}", file.display())))?;
    load_any(Some(&file), set)
}
