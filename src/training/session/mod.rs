//! A training thread that takes commands and emits events at step boundaries.

mod recorder;
mod run;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use super::checkpoint::CheckpointError;
use crate::dataset::DataError;
use crate::device::DeviceError;
use crate::experiment::Experiment;
use crate::network::weights::WeightsError;
use crate::run::{Command, Event, LogError, LogWriter, RunFolder, Status};
use recorder::Recorder;
use run::Run;

/// Why training cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Initial weights.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The event log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The run folder.
    #[error("run folder: {0}")]
    Folder(#[from] std::io::Error),
    /// A run without a checkpoint.
    #[error("{0}: the run has no checkpoint yet")]
    NoCheckpoint(PathBuf),
}

/// What a run needs to start.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The experiment.
    pub experiment: Arc<Experiment>,
    /// Where it is recorded.
    pub folder: RunFolder,
    /// Checkpoint of the same run to continue from.
    pub resume: Option<PathBuf>,
    /// Checkpoint of another run to start from, with that run's label.
    pub fork: Option<(PathBuf, String)>,
    /// Stop after this many steps.
    pub max_steps: Option<u64>,
}

/// A running training thread.
pub struct Session {
    commands: Sender<Command>,
    thread: Option<JoinHandle<()>>,
}

impl Session {
    /// Starts the thread. `emit` is called on it for every event, the last of which
    /// [is last](Event::is_last): also after a panic, an error or out of memory.
    pub fn start(setup: Setup, emit: impl Fn(Arc<Event>) + Send + 'static) -> Self {
        let (commands, receiver) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("training".into())
            .spawn(move || run(setup, receiver, emit))
            .expect("the system can start a thread");
        Self {
            commands,
            thread: Some(thread),
        }
    }

    /// Sends a command; it is taken up between steps. A run that has ended takes none.
    pub fn send(&self, command: Command) {
        let _ = self.commands.send(command);
    }

    /// Another way to send commands, for a thread that does not own the session.
    pub fn commands(&self) -> Sender<Command> {
        self.commands.clone()
    }

    /// Whether the thread has ended.
    pub fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Asks the run to stop and waits until its last event is written.
    pub fn stop(mut self) {
        self.send(Command::Stop);
        self.join();
    }

    /// Waits for the end of the run.
    pub fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            // A panic inside became an event; one outside it has nothing left to say.
            let _ = thread.join();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.send(Command::Stop);
        self.join();
    }
}

fn run(setup: Setup, commands: Receiver<Command>, emit: impl Fn(Arc<Event>)) {
    let folder = setup.folder.clone();
    let log = match LogWriter::open(&folder.log()) {
        Ok(log) => Some(log),
        Err(error) => {
            emit(Arc::new(Event::Warning {
                step: 0,
                message: format!("not recorded: {error}"),
            }));
            None
        }
    };
    let mut recorder = Recorder::new(log, emit);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        Run::prepare(&setup, &mut recorder).map(|mut run| run.go(&commands, &mut recorder))
    }));
    let failed = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(panic) => Some(format!("panic: {}", panic_message(panic.as_ref()))),
    };
    if let Some(message) = failed {
        if let Ok(mut manifest) = folder.manifest() {
            manifest.status = Status::Failed;
            manifest.reason = Some(message.clone());
            if let Err(error) = folder.write_manifest(&manifest) {
                tracing::warn!("manifest: {error}");
            }
        }
        let step = recorder.step();
        recorder.emit(Event::Failed { step, message });
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".into())
}
