//! The workbench: a screen over a training thread.
//!
//! Model, messages, update, views: `app::App` holds what is known, `keymap` is the one table
//! behind dispatch and help, `view` paints, `terminal` guards the terminal's state. The only door
//! is `run`. No tensor is touched here: everything shown comes from the run's [`History`].
//!
//! [`History`]: crate::run::History

mod app;
mod bench;
mod capture;
mod detail;
mod export;
mod keymap;
mod lifeline;
mod microscope;
mod palette;
mod preview;
mod system;
mod terminal;
mod toy;
mod view;
mod workbench;

pub(crate) use self::bench::{bench_frames, bench_open};
use self::workbench::Workbench;
use crate::experiment::Loaded;
use crate::face::{Begin, CliError, Run};
use crate::run::RunFolder;
#[cfg(unix)]
use crate::run::control::Controls;

/// Opens the workbench and trains.
pub(crate) fn run(loaded: Loaded, run: &Run, begin: Begin) -> Result<u8, CliError> {
    let mut workbench = Workbench::start(loaded, run, begin)?;
    let code = workbench.on_screen()?;
    workbench.leave(code)
}

/// Opens the workbench on a run that another process trains, with its controls: leaving it leaves the
/// run to go on.
#[cfg(unix)]
pub(crate) fn attach(
    loaded: &Loaded,
    run: &Run,
    folder: &RunFolder,
    controls: Controls,
) -> Result<u8, CliError> {
    let mut workbench = Workbench::looking(loaded, run, folder);
    workbench.steer_with(controls);
    workbench.watch_file(loaded);
    workbench.look_on(folder)
}

/// Opens the workbench on a run that trains elsewhere, or ended: it looks and changes nothing.
pub(crate) fn watch(loaded: &Loaded, run: &Run, folder: &RunFolder) -> Result<u8, CliError> {
    Workbench::looking(loaded, run, folder).look_on(folder)
}
