//! Signals that ask the program to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{CliError, LAST_LINES, exit};

/// Ends the program a moment after a termination signal, for commands that have nothing to save and may
/// wait in a write to someone who does not read.
pub(crate) fn end_when_told(interrupted: Arc<AtomicBool>) {
    let work = move || {
        while !interrupted.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(50));
        }
        std::thread::sleep(LAST_LINES);
        std::process::exit(exit::INTERRUPTED.into());
    };
    let thread = std::thread::Builder::new().name("lifeline".into());
    if let Err(error) = thread.spawn(work) {
        tracing::warn!("no lifeline: {error}");
    }
}

/// Set by SIGINT, SIGTERM and SIGHUP; one that whoever started the program had ignored stays so, as
/// `nohup` wants it.
pub(crate) fn interrupt_flag() -> Result<Arc<AtomicBool>, CliError> {
    let flag = Arc::new(AtomicBool::new(false));
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        if crate::process::ignores(signal) {
            continue;
        }
        signal_hook::flag::register(signal, flag.clone())
            .map_err(|e| CliError::Failed(format!("signals: {e}")))?;
    }
    Ok(flag)
}
