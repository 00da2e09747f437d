//! What can go wrong on the command line, the exit codes, and the one place that renders errors.

use std::io::{IsTerminal, Write};

use crate::experiment::{Diagnostics, printable, render};

/// Exit codes, as the README documents them.
pub(crate) mod exit {
    /// The run failed.
    pub const FAILED: u8 = 1;
    /// Wrong usage or experiment file.
    pub const USAGE: u8 = 2;
    /// Interrupted.
    pub const INTERRUPTED: u8 = 130;
}

/// What can go wrong on the command line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The experiment file.
    #[error(transparent)]
    Experiment(#[from] Diagnostics),
    /// Wrong usage.
    #[error("{0}")]
    Usage(String),
    /// Something failed.
    #[error("{0}")]
    Failed(String),
    /// Standard output went away.
    #[error("standard output: {0}")]
    Output(#[from] std::io::Error),
}

impl CliError {
    pub fn code(&self) -> u8 {
        match self {
            Self::Experiment(_) | Self::Usage(_) => exit::USAGE,
            Self::Failed(_) => exit::FAILED,
            Self::Output(e) if e.kind() == std::io::ErrorKind::BrokenPipe => 0,
            Self::Output(_) => exit::FAILED,
        }
    }
}

/// The one place that renders errors to people.
pub(crate) fn report(error: &CliError) {
    let mut stderr = std::io::stderr();
    let colour = stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let text = match error {
        CliError::Experiment(diagnostics) => render(diagnostics, colour),
        CliError::Output(e) if e.kind() == std::io::ErrorKind::BrokenPipe => return,
        other => format!("error: {}", printable(&other.to_string())),
    };
    // Nobody is left to tell where standard error is closed too.
    let _ = writeln!(stderr, "{text}");
}

pub(crate) fn print(text: &str) -> Result<(), CliError> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(())
}
