//! Steering a run that another process trains.

use std::path::Path;

use crate::experiment::Loaded;
use crate::face::{CliError, Run, Screen};
use crate::run::RunFolder;
#[cfg(unix)]
use crate::run::control::{Controls, Request};

/// What `attach --send` asks for.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Sent {
    /// Pause after the current step until resumed
    Pause,
    /// Go on
    Resume,
    /// Take one step, then pause
    Step,
    /// Write a checkpoint now
    Checkpoint,
    /// End the run with a checkpoint
    Stop,
}

/// Takes the controls of a run that another process trains: for one thing, or with the workbench.
#[cfg(unix)]
pub(crate) fn attach(
    folder: &RunFolder,
    loaded: impl FnOnce() -> Result<Loaded, CliError>,
    send: Option<Sent>,
    runs: &Path,
    screen: Screen,
) -> Result<u8, CliError> {
    let refused = |e: std::io::Error| {
        let path = folder.path().display();
        let why = match e.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
                "no process trains it; hint: `bitscope resume` goes on with it".into()
            }
            _ => e.to_string(),
        };
        CliError::Usage(format!("{path}: {why}"))
    };
    let mut controls = Controls::take(folder.path()).map_err(refused)?;
    let request = match send {
        Some(Sent::Pause) => Request::Pause,
        Some(Sent::Resume) => Request::Resume,
        Some(Sent::Step) => Request::Step(1),
        Some(Sent::Checkpoint) => Request::Checkpoint,
        Some(Sent::Stop) => Request::Stop,
        None => {
            let manifest = folder.manifest().ok();
            let (source, set) = manifest.map_or((None, Vec::new()), |m| (m.source, m.set));
            let run = Run {
                experiment: source.filter(|p| p.is_file()),
                set,
                ..Run::recorded_in(runs.to_owned(), screen)
            };
            return crate::tui::attach(&loaded()?, &run, folder, controls);
        }
    };
    controls.ask(&request).map_err(refused)?;
    Ok(0)
}

/// Without Unix sockets there are no controls to take.
#[cfg(not(unix))]
pub(crate) fn attach(
    _: &RunFolder,
    _: impl FnOnce() -> Result<Loaded, CliError>,
    _: Option<Sent>,
    _: &Path,
    _: Screen,
) -> Result<u8, CliError> {
    Err(CliError::Usage(
        "`attach` needs Unix sockets; hint: `watch` works without".into(),
    ))
}
