//! A training thread that takes commands and emits events at step boundaries.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread::JoinHandle;

use super::checkpoint::CheckpointError;
use super::trainer::Trainer;
use crate::dataset::DataError;
use crate::device::DeviceError;
use crate::experiment::{Experiment, difference};
use crate::network::weights::WeightsError;
use crate::run::{Command, Event, LogError, LogWriter, Manifest, Phase, RunFolder, Split, Status};

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
    let mut recorder = Recorder {
        log,
        emit,
        step: 0,
        trouble: false,
    };
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
        let step = recorder.step;
        recorder.emit(Event::Failed { step, message });
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".into())
}

/// Passes events to the log and to whoever listens.
struct Recorder<E: Fn(Arc<Event>)> {
    log: Option<LogWriter>,
    emit: E,
    step: u64,
    trouble: bool,
}

impl<E: Fn(Arc<Event>)> Recorder<E> {
    fn emit(&mut self, event: Event) {
        self.step = event.step();
        let last = event.is_last();
        let event = Arc::new(event);
        if let Some(log) = &self.log {
            log.push(event.clone());
        }
        if last {
            // The log is complete before anyone hears that the run is over.
            self.log = None;
        }
        (self.emit)(event);
    }

    /// Says once when the disk stops taking the log, and once when it takes it again.
    fn check_disk(&mut self) {
        let trouble = self.log.as_ref().and_then(LogWriter::trouble);
        if trouble.is_some() == self.trouble {
            return;
        }
        self.trouble = trouble.is_some();
        let message = match trouble {
            Some(lost) => format!(
                "the event log is not being written ({lost} events lost so far; is the disk full?); \
                 training goes on"
            ),
            None => "the event log is being written again".into(),
        };
        let step = self.step;
        (self.emit)(Arc::new(Event::Warning { step, message }));
    }
}

struct Run<'a> {
    setup: &'a Setup,
    trainer: Trainer,
    manifest: Manifest,
    paused: bool,
    /// Steps left before pausing again.
    allowed: Option<u64>,
    stopping: bool,
    last_evaluation: f64,
    last_checkpoint: f64,
    /// Step that the newest checkpoint holds.
    saved_at: Option<u64>,
}

impl<'a> Run<'a> {
    fn prepare<E: Fn(Arc<Event>)>(
        setup: &'a Setup,
        recorder: &mut Recorder<E>,
    ) -> Result<Self, TrainError> {
        let experiment = &setup.experiment;
        let engine = crate::device::parse(&experiment.device)?;
        let device = crate::device::burn_device(engine);
        let resumed = setup
            .folder
            .manifest()
            .ok()
            .filter(|_| setup.resume.is_some());
        let manifest = resumed.unwrap_or_else(|| Manifest {
            version: env!("CARGO_PKG_VERSION").into(),
            name: experiment.name.clone(),
            started: jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S").to_string(),
            device: engine.to_string(),
            status: Status::Running,
            step: 0,
            epoch: 0.0,
            best_error: None,
            test_error: None,
            weight_kb: 0.0,
            activation_kb: 0.0,
            reason: None,
            parent: setup.fork.as_ref().map(|(_, label)| label.clone()),
        });
        let manifest = Manifest {
            status: Status::Running,
            reason: None,
            ..manifest
        };
        let toml = experiment.values.to_toml();
        if setup.resume.is_none() {
            std::fs::write(setup.folder.experiment(), &toml)?;
        }
        setup.folder.write_manifest(&manifest)?;
        let splits = crate::dataset::open(experiment)?;
        let mut trainer = Trainer::new(experiment.clone(), splits, device)?;
        if let Some(checkpoint) = &setup.resume {
            trainer.restore(checkpoint)?;
        } else if let Some((checkpoint, _)) = &setup.fork {
            trainer.fork_from(checkpoint)?;
        }
        recorder.emit(Event::Started {
            name: setup.folder.label(),
            device: engine.to_string(),
            experiment: toml,
            layers: trainer.layers(),
            budgets: trainer.budgets(),
            steps_per_epoch: trainer.steps_per_epoch(),
            total_steps: trainer.total_steps(),
            step: trainer.steps(),
        });
        recorder.emit(Event::Phase {
            step: trainer.steps(),
            phase: trainer.phase(),
        });
        Ok(Self {
            setup,
            manifest,
            paused: false,
            allowed: None,
            stopping: false,
            last_evaluation: trainer.epochs(),
            last_checkpoint: trainer.epochs(),
            saved_at: None,
            trainer,
        })
    }

    fn go<E: Fn(Arc<Event>)>(&mut self, commands: &Receiver<Command>, out: &mut Recorder<E>) {
        let began = self.trainer.steps();
        while !self.stopping {
            self.take_commands(commands, out);
            if self.stopping {
                break;
            }
            let limit = self
                .setup
                .max_steps
                .is_some_and(|m| self.trainer.steps() - began >= m);
            if self.trainer.is_done() || limit {
                return self.finish(commands, out);
            }
            if self.trainer.enter_phase() {
                out.emit(Event::Phase {
                    step: self.trainer.steps(),
                    phase: Phase::Quantized,
                });
                // What quantizing alone costs, before anything is learned.
                self.evaluate(commands, out);
                if self.stopping {
                    break;
                }
            }
            self.one_step(out);
            self.periodic(commands, out);
        }
        self.checkpoint(out, false);
        self.write_manifest(Status::Stopped, out);
        out.emit(Event::Stopped {
            step: self.trainer.steps(),
        });
    }

    fn one_step<E: Fn(Arc<Event>)>(&mut self, out: &mut Recorder<E>) {
        let probe =
            (self.trainer.steps() + 1).is_multiple_of(self.trainer.experiment().log.probe_every);
        let record = self.trainer.step(probe);
        if panic_step() == Some(record.step) {
            panic!("asked to by BITSCOPE_PANIC_AT_STEP");
        }
        let finite = record.cross_entropy.is_finite();
        let step = record.step;
        self.manifest.weight_kb = record.usage.weights;
        self.manifest.activation_kb = record.usage.activation_max;
        out.emit(Event::Step(Box::new(record)));
        out.check_disk();
        if !finite {
            let layer = self.trainer.find_non_finite();
            self.paused = true;
            self.allowed = None;
            out.emit(Event::NonFinite { step, layer });
        }
        if let Some(left) = &mut self.allowed {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.allowed = None;
                self.paused = true;
                out.emit(Event::Paused { step });
            }
        }
    }

    /// Evaluations and checkpoints at their cadence.
    fn periodic<E: Fn(Arc<Event>)>(&mut self, commands: &Receiver<Command>, out: &mut Recorder<E>) {
        let log = self.trainer.experiment().log.clone();
        let due = |last: f64, every: f64, now: f64| {
            ((now + 1e-9) / every).floor() > ((last + 1e-9) / every).floor()
        };
        let epoch = self.trainer.epochs();
        if due(self.last_evaluation, log.evaluate_every, epoch) {
            self.last_evaluation = epoch;
            self.evaluate(commands, out);
        }
        if due(self.last_checkpoint, log.checkpoint_every, epoch) {
            self.last_checkpoint = epoch;
            self.checkpoint(out, false);
            self.write_manifest(Status::Running, out);
        }
    }

    fn evaluate<E: Fn(Arc<Event>)>(&mut self, commands: &Receiver<Command>, out: &mut Recorder<E>) {
        // A stop is heard between batches; other commands wait for the end of the evaluation.
        let mut waiting = Vec::new();
        let mut stop = false;
        let evaluated = self.trainer.validate(|| {
            waiting.extend(commands.try_iter());
            stop = waiting.iter().any(|c| matches!(c, Command::Stop));
            !stop
        });
        let step = self.trainer.steps();
        if let Some(e) = evaluated {
            let best = self.trainer.is_best(e.error);
            out.emit(Event::Evaluation {
                step,
                split: Split::Validation,
                error: e.error,
                loss: e.loss,
                budget_met: self.trainer.budget_met(),
                best,
            });
            if best {
                self.manifest.best_error = Some(e.error);
                self.checkpoint(out, true);
            }
        }
        for command in waiting {
            self.take(command, out);
        }
    }

    fn checkpoint<E: Fn(Arc<Event>)>(&mut self, out: &mut Recorder<E>, best: bool) {
        let step = self.trainer.steps();
        if !best && self.saved_at == Some(step) {
            return;
        }
        let name = if best {
            "best.safetensors".into()
        } else {
            format!("step-{step}.safetensors")
        };
        let older = self.setup.folder.newest_checkpoint();
        let path = self.setup.folder.checkpoints().join(&name);
        match self.trainer.save(&path) {
            Ok(()) => {
                if !best {
                    self.saved_at = Some(step);
                    self.thin_out(older);
                }
                out.emit(Event::Checkpoint {
                    step,
                    file: format!("checkpoints/{name}"),
                    best,
                });
            }
            Err(error) => {
                let message = format!("no checkpoint written: {}: {error}", path.display());
                out.emit(Event::Warning { step, message });
            }
        }
    }

    /// Keeps checkpoints at powers of two of their number apart: scrubbing back stays possible
    /// while a long run does not fill the disk. The newest always stays.
    fn thin_out(&self, older: Option<PathBuf>) {
        let Ok(entries) = std::fs::read_dir(self.setup.folder.checkpoints()) else {
            return;
        };
        let steps = entries.filter_map(|e| {
            let path = e.ok()?.path();
            let name = path.file_name()?.to_str()?;
            let step: u64 = name
                .strip_prefix("step-")?
                .strip_suffix(".safetensors")?
                .parse()
                .ok()?;
            Some((step, path))
        });
        let mut steps: Vec<_> = steps.collect();
        if steps.len() <= KEEP_CHECKPOINTS {
            return;
        }
        steps.sort();
        // Drop every second of the older half.
        let half = steps.len() / 2;
        for (_, path) in steps[..half].iter().skip(1).step_by(2) {
            if Some(path) != older.as_ref() {
                // A checkpoint that cannot be removed takes space and does no other harm.
                let _ = std::fs::remove_file(path);
            }
        }
    }

    fn finish<E: Fn(Arc<Event>)>(&mut self, commands: &Receiver<Command>, out: &mut Recorder<E>) {
        let step = self.trainer.steps();
        self.checkpoint(out, false);
        let complete = self.trainer.is_done();
        let mut test_error = None;
        if complete {
            if self.trainer.epochs() > self.last_evaluation + 1e-9 {
                self.evaluate(commands, out);
            }
            let heard = || !commands.try_iter().any(|c| matches!(c, Command::Stop));
            if let Some(e) = self.trainer.test(heard) {
                test_error = Some(e.error);
                out.emit(Event::Evaluation {
                    step,
                    split: Split::Test,
                    error: e.error,
                    loss: e.loss,
                    budget_met: self.trainer.budget_met(),
                    best: false,
                });
            }
        }
        self.manifest.test_error = test_error;
        if complete {
            self.write_manifest(Status::Finished, out);
            out.emit(Event::Finished { step, test_error });
        } else {
            self.write_manifest(Status::Stopped, out);
            out.emit(Event::Stopped { step });
        }
    }

    fn write_manifest<E: Fn(Arc<Event>)>(&mut self, status: Status, out: &mut Recorder<E>) {
        self.manifest.status = status;
        self.manifest.step = self.trainer.steps();
        self.manifest.epoch = self.trainer.epochs();
        if let Err(error) = self.setup.folder.write_manifest(&self.manifest) {
            let step = self.trainer.steps();
            let message = format!("the manifest is not being written: {error}");
            out.emit(Event::Warning { step, message });
        }
    }

    fn take_commands<E: Fn(Arc<Event>)>(
        &mut self,
        commands: &Receiver<Command>,
        out: &mut Recorder<E>,
    ) {
        loop {
            let command = if self.paused && self.allowed.is_none() && !self.stopping {
                // A dropped sender is the signal to stop.
                commands.recv().unwrap_or(Command::Stop)
            } else {
                match commands.try_recv() {
                    Ok(command) => command,
                    Err(TryRecvError::Empty) => return,
                    Err(TryRecvError::Disconnected) => Command::Stop,
                }
            };
            self.take(command, out);
            if self.stopping {
                return;
            }
        }
    }

    fn take<E: Fn(Arc<Event>)>(&mut self, command: Command, out: &mut Recorder<E>) {
        let step = self.trainer.steps();
        match command {
            Command::Pause => {
                self.paused = true;
                self.allowed = None;
                out.emit(Event::Paused { step });
            }
            Command::Resume => {
                self.paused = false;
                self.allowed = None;
                out.emit(Event::Resumed { step });
            }
            Command::Step(n) => {
                self.paused = false;
                self.allowed = Some(n.max(1));
                out.emit(Event::Resumed { step });
            }
            Command::CheckpointNow => {
                self.saved_at = None;
                self.checkpoint(out, false);
            }
            Command::Stop => self.stopping = true,
            Command::Apply(experiment) => self.apply(experiment, out),
        }
    }

    fn apply<E: Fn(Arc<Event>)>(&mut self, experiment: Arc<Experiment>, out: &mut Recorder<E>) {
        let changes = difference(&self.trainer.experiment().values, &experiment.values);
        self.trainer.apply(experiment.clone());
        let toml = experiment.values.to_toml();
        if let Err(error) = std::fs::write(self.setup.folder.experiment(), toml) {
            let message = format!("the resolved experiment is not being written: {error}");
            out.emit(Event::Warning {
                step: self.trainer.steps(),
                message,
            });
        }
        out.emit(Event::Applied {
            step: self.trainer.steps(),
            changes: changes.iter().map(ToString::to_string).collect(),
            budgets: self.trainer.budgets(),
            total_steps: self.trainer.total_steps(),
        });
    }
}

/// The step at which a test wants to see the training thread panic.
fn panic_step() -> Option<u64> {
    std::env::var("BITSCOPE_PANIC_AT_STEP").ok()?.parse().ok()
}

/// Checkpoints kept before the older half is thinned out.
const KEEP_CHECKPOINTS: usize = 32;
