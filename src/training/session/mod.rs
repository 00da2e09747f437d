//! A training thread that takes commands and emits events at step boundaries.

mod recorder;
mod resume;
mod run;
mod setup;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::error::TrainError;
use crate::dataset::DataError;
use crate::kernels::ranks::{Group, Lost};
#[cfg(unix)]
use crate::run::control::ControlServer;
use crate::run::{Command, Event, LogWriter, RunFolder, RunLock, Status};
use recorder::{Emit, Recorder};
pub use resume::resumable;
pub(crate) use run::NOT_SAVED;
use run::Run;
pub use setup::{Origin, Setup};

/// A running training thread.
pub struct Session {
    commands: Sender<Command>,
    thread: Option<JoinHandle<()>>,
    /// Whether data and network are there: from then on a command is heard within a step.
    prepared: Arc<AtomicBool>,
    folder: RunFolder,
}

/// How long what comes before the first step (reading data) may go on when the run is told to stop.
const PREPARING: Duration = Duration::from_secs(1);

impl Session {
    /// Starts the thread. `emit` is called on it for every event, the last of which
    /// [is last](Event::is_last): also after a panic, an error or out of memory.
    pub fn start(setup: Setup, emit: impl Fn(Arc<Event>) + Send + 'static) -> Self {
        Self::leading(setup, Group::default(), emit)
    }

    /// The same on rank 0 of several, which the others [follow](super::follow).
    pub fn leading(setup: Setup, group: Group, emit: impl Fn(Arc<Event>) + Send + 'static) -> Self {
        let (commands, receiver) = mpsc::channel();
        let (prepared, folder) = (Arc::new(AtomicBool::new(false)), setup.folder.clone());
        let emit = {
            let prepared = prepared.clone();
            move |event: Arc<Event>| {
                prepared.fetch_or(matches!(*event, Event::Started { .. }), Ordering::Relaxed);
                emit(event);
            }
        };
        let thread = std::thread::Builder::new()
            .name("training".into())
            .spawn({
                let commands = commands.clone();
                let emit: Emit = Box::new(emit);
                move || run(setup, group, commands, receiver, emit)
            })
            .expect("the system can start a thread");
        Self {
            commands,
            thread: Some(thread),
            prepared,
            folder,
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

    /// Asks the run to stop and waits until its last event is written. A run that is still reading its
    /// data has nothing to save, and is not waited for.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.send(Command::Stop);
        let told = Instant::now();
        while !self.is_over() {
            if !self.is_prepared() && told.elapsed() > PREPARING {
                self.abandon();
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.join();
    }

    /// Whether data and network are there.
    pub fn is_prepared(&self) -> bool {
        self.prepared.load(Ordering::Relaxed)
    }

    /// The same, for a thread that does not own the session.
    pub fn prepared(&self) -> Arc<AtomicBool> {
        self.prepared.clone()
    }

    /// Leaves the thread to itself: it ends at its next look at the commands, or with the process.
    pub fn forget(&mut self) {
        self.thread = None;
    }

    /// The same of a run that has not begun, whose manifest then says so.
    pub fn abandon(&mut self) {
        self.forget();
        // The manifest is the thread's own, but it will not write it in time.
        if let Ok(mut manifest) = self.folder.manifest() {
            manifest.status = Status::Stopped;
            manifest.reason = Some("stopped before its first step".into());
            if let Err(error) = self.folder.write_manifest(&manifest) {
                tracing::warn!("manifest: {error}");
            }
        }
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
        self.end();
    }
}

fn run(
    setup: Setup,
    group: Group,
    steering: Sender<Command>,
    commands: Receiver<Command>,
    emit: Emit,
) {
    let folder = setup.folder.clone();
    let owned = RunLock::take(folder.path())
        .map_err(TrainError::from)
        .and_then(|lock| {
            folder.sweep();
            let log = LogWriter::open(&folder.log())?;
            if setup.origin != Origin::Resume && log.had_records() {
                return Err(TrainError::Begun(folder.path().to_owned()));
            }
            Ok((lock, log))
        });
    let (lock, log) = match owned {
        Ok(owned) => owned,
        Err(error) => {
            // Nothing of the run is touched: it is someone else's, or not to be read.
            let message = error.to_string();
            emit(Arc::new(Event::Failed { step: 0, message }));
            return;
        }
    };
    let mut found = log.found().to_vec();
    if setup.origin == Origin::Resume && log.was_empty() {
        let log = folder.log();
        found.push(format!(
            "{} is empty: what the run recorded before is gone",
            log.display()
        ));
    }
    if !lock.is_kept {
        found.push(
            "this disk has no locks: nothing keeps a second process from training this run".into(),
        );
    }
    #[cfg(unix)]
    let _server = match ControlServer::start(folder.path(), steering) {
        Ok(server) => Some(server),
        Err(error) => {
            found.push(format!("the run cannot be steered from elsewhere: {error}"));
            None
        }
    };
    #[cfg(not(unix))]
    drop(steering);
    let mut recorder = Recorder::new(Some(log), emit);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut run = Run::prepare(&setup, group, found, &mut recorder)?;
        run.go(&commands, &mut recorder)
    }));
    let failed = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some((
            error.to_string(),
            matches!(error, TrainError::AllDamaged(_)),
        )),
        // What the loader could not read unwinds as what it is.
        Err(panic) => Some((reason(panic.as_ref()), false)),
    };
    if let Some((message, dead_end)) = failed {
        if let Ok(mut manifest) = folder.manifest() {
            manifest.status = Status::Failed;
            manifest.reason = Some(message.clone());
            manifest.dead_end |= dead_end;
            if let Err(error) = folder.write_manifest(&manifest) {
                tracing::warn!("manifest: {error}");
            }
        }
        let step = recorder.step();
        recorder.emit(Event::Failed { step, message });
    }
}

/// What a panic says: of data that could not be read and of a lost rank, which unwind as what they are,
/// and of anything else.
pub(crate) fn reason(panic: &(dyn Any + Send)) -> String {
    let data = panic.downcast_ref::<DataError>().map(ToString::to_string);
    let lost = || panic.downcast_ref::<Lost>().map(ToString::to_string);
    data.or_else(lost)
        .unwrap_or_else(|| format!("panic: {}", panic_message(panic)))
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".into())
}
