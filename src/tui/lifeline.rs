//! The way out that is left where the main thread takes none.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use super::terminal;
use crate::cli::exit;
use crate::run::Command;

/// Ends the program when it was told to and the main thread does not: reading keys from a terminal
/// that is gone can go on for ever inside the terminal library.
#[derive(Default)]
pub(super) struct Lifeline {
    /// Whether the main thread is on its way out.
    pub leaving: Arc<AtomicBool>,
    run: Arc<Mutex<Option<Held>>>,
}

/// A run: how to stop it, and whether it is over.
type Held = (mpsc::Sender<Command>, Arc<AtomicBool>);

/// How long the main thread has to leave by itself.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a run has for its last checkpoint.
const LAST_CHECKPOINT: Duration = Duration::from_secs(60);

impl Lifeline {
    /// The run that is to be stopped.
    pub(super) fn hold(&self, commands: mpsc::Sender<Command>, over: Arc<AtomicBool>) {
        *self.run.lock().unwrap_or_else(|e| e.into_inner()) = Some((commands, over));
    }

    /// Starts to wait for a termination signal, whose number is then in `termination`.
    pub(super) fn watch(&self, termination: Arc<AtomicUsize>) {
        let (leaving, run) = (self.leaving.clone(), self.run.clone());
        let work = move || {
            let pause = || std::thread::sleep(Duration::from_millis(100));
            while termination.load(Ordering::Relaxed) == 0 {
                pause();
            }
            let told = Instant::now();
            while told.elapsed() < PATIENCE {
                if leaving.load(Ordering::Relaxed) {
                    return;
                }
                pause();
            }
            let current = run.lock().unwrap_or_else(|e| e.into_inner()).take();
            if let Some((commands, over)) = current
                && commands.send(Command::Stop).is_ok()
            {
                while !over.load(Ordering::Relaxed) && told.elapsed() < LAST_CHECKPOINT {
                    pause();
                }
            }
            terminal::restore();
            std::process::exit(exit::INTERRUPTED.into());
        };
        let thread = std::thread::Builder::new().name("lifeline".into());
        if let Err(error) = thread.spawn(work) {
            tracing::warn!("no lifeline: {error}");
        }
    }
}
