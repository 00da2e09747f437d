//! One run inside its thread: steps, evaluations, checkpoints, commands.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};

use super::recorder::Recorder;
use super::{Setup, TrainError};
use crate::experiment::{Experiment, difference};
use crate::quantizer::Rules;
use crate::run::{Command, Event, Manifest, Phase, Split, Status};
use crate::training::trainer::Trainer;

/// Checkpoints kept before the older half is thinned out.
const KEEP_CHECKPOINTS: usize = 32;

/// A run and where it stands.
pub(super) struct Run<'a> {
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
    /// Everything that comes before the first step.
    pub(super) fn prepare<E: Fn(Arc<Event>)>(
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
        if experiment.rules == Rules::PublishedCode && engine.is_card() {
            recorder.emit(Event::Warning {
                step: trainer.steps(),
                message: format!(
                    "{engine} sums in an order of its own; the published code's numbers come on a \
                     processor only"
                ),
            });
        }
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

    /// Step after step, until the run is over or told to stop.
    pub(super) fn go<E: Fn(Arc<Event>)>(
        &mut self,
        commands: &Receiver<Command>,
        out: &mut Recorder<E>,
    ) {
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
                if self.finish(commands, out) {
                    return;
                }
                continue;
            }
            if self.trainer.enter_phase() {
                out.emit(Event::Phase {
                    step: self.trainer.steps(),
                    phase: Phase::Quantized,
                });
                // What quantizing alone costs, before anything is learned.
                self.evaluate(Split::Validation, commands, out);
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
        self.tell_reinitialised(out);
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

    fn tell_reinitialised<E: Fn(Arc<Event>)>(&mut self, out: &mut Recorder<E>) {
        let step = self.trainer.steps();
        for of in self.trainer.take_reinitialised() {
            out.emit(Event::Reinitialised {
                step,
                layer: of.layer,
                role: of.role,
                reason: of.reason,
                before: of.before,
                after: of.after,
            });
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
            self.evaluate(Split::Validation, commands, out);
        }
        if due(self.last_checkpoint, log.checkpoint_every, epoch) {
            self.last_checkpoint = epoch;
            self.checkpoint(out, false);
            self.write_manifest(Status::Running, out);
        }
    }

    /// Evaluates on a part of the data. A stop is heard between batches; other commands wait until
    /// it is over.
    fn evaluate<E: Fn(Arc<Event>)>(
        &mut self,
        split: Split,
        commands: &Receiver<Command>,
        out: &mut Recorder<E>,
    ) {
        let mut waiting = Vec::new();
        let go_on = || {
            waiting.extend(commands.try_iter());
            !waiting.iter().any(|c| matches!(c, Command::Stop))
        };
        let evaluated = match split {
            Split::Validation => self.trainer.validate(go_on),
            Split::Test => self.trainer.test(go_on),
        };
        if let Some(e) = evaluated {
            let best = split == Split::Validation && self.trainer.is_best(e.error);
            out.emit(Event::Evaluation {
                step: self.trainer.steps(),
                split,
                error: e.error,
                loss: e.loss,
                budget_met: self.trainer.budget_met(),
                best,
            });
            if split == Split::Test {
                self.manifest.test_error = Some(e.error);
            }
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
        let previous = self.setup.folder.newest_checkpoint();
        let path = self.setup.folder.checkpoints().join(&name);
        match self.trainer.save(&path) {
            Ok(()) => {
                if !best {
                    self.saved_at = Some(step);
                    self.thin_out(previous);
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

    /// Drops every second checkpoint of the older half, once there are many: one can still go back
    /// anywhere, in ever longer strides, while a long run does not fill the disk. The one before the
    /// newest stays: should the newest be torn, that is the one to go on from.
    fn thin_out(&self, previous: Option<PathBuf>) {
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
        let half = steps.len() / 2;
        for (_, path) in steps[..half].iter().skip(1).step_by(2) {
            if Some(path) != previous.as_ref() {
                // A checkpoint that cannot be removed takes space and does no other harm.
                let _ = std::fs::remove_file(path);
            }
        }
    }

    /// The last evaluations. `false` where training goes on after all: more epochs were asked for
    /// meanwhile.
    fn finish<E: Fn(Arc<Event>)>(
        &mut self,
        commands: &Receiver<Command>,
        out: &mut Recorder<E>,
    ) -> bool {
        let step = self.trainer.steps();
        self.checkpoint(out, false);
        let complete = self.trainer.is_done();
        if complete && self.trainer.epochs() > self.last_evaluation + 1e-9 {
            self.evaluate(Split::Validation, commands, out);
        }
        if complete && !self.stopping {
            self.evaluate(Split::Test, commands, out);
        }
        if complete && !self.stopping && !self.trainer.is_done() {
            return false;
        }
        if complete && !self.stopping {
            self.write_manifest(Status::Finished, out);
            let test_error = self.manifest.test_error;
            out.emit(Event::Finished { step, test_error });
        } else {
            self.write_manifest(Status::Stopped, out);
            out.emit(Event::Stopped { step });
        }
        true
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
            Command::Reinitialise(layer) => {
                if !self.trainer.reinitialise(&layer) {
                    let message = format!("no quantizer in use has the name {layer}");
                    out.emit(Event::Warning { step, message });
                }
                self.tell_reinitialised(out);
            }
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
