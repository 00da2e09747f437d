//! The way out that is left where the main thread takes none.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use super::terminal;
use crate::face::exit;
use crate::run::Command;

/// Ends the program when it was told to and the main thread does not: reading keys from a terminal
/// that is gone can go on for ever inside the terminal library, and so can writing to one that does
/// not read.
#[derive(Default)]
pub(super) struct Lifeline {
    run: Arc<Mutex<Option<Held>>>,
}

/// A run: how to stop it, and where it stands.
pub(super) struct Held {
    pub commands: mpsc::Sender<Command>,
    /// Whether there is anything to save: data and network are there.
    pub prepared: Arc<AtomicBool>,
    pub over: Arc<AtomicBool>,
}

/// How long the main thread has to leave by itself once its run is over.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a run has for its last checkpoint.
const LAST_CHECKPOINT: Duration = Duration::from_secs(60);

impl Lifeline {
    /// The run that is to be stopped.
    pub(super) fn hold(&self, run: Held) {
        *self.run.lock().unwrap_or_else(|e| e.into_inner()) = Some(run);
    }

    /// Starts to wait for a termination signal, whose number is then in `termination`.
    pub(super) fn watch(&self, termination: Arc<AtomicUsize>) {
        let run = self.run.clone();
        let work = move || {
            let pause = || std::thread::sleep(Duration::from_millis(50));
            while termination.load(Ordering::Relaxed) == 0 {
                pause();
            }
            let told = Instant::now();
            let current = run.lock().unwrap_or_else(|e| e.into_inner()).take();
            if let Some(run) = current
                && run.commands.send(Command::Stop).is_ok()
            {
                let saves =
                    || run.prepared.load(Ordering::Relaxed) && !run.over.load(Ordering::Relaxed);
                while saves() && told.elapsed() < LAST_CHECKPOINT {
                    pause();
                }
            }
            // Whoever is on the way out ends the process, and this thread with it.
            std::thread::sleep(PATIENCE);
            terminal::restore_at_once();
            std::process::exit(exit::INTERRUPTED.into());
        };
        let thread = std::thread::Builder::new().name("lifeline".into());
        if let Err(error) = thread.spawn(work) {
            tracing::warn!("no lifeline: {error}");
        }
    }
}
