//! One run inside its thread: steps, evaluations, checkpoints, commands.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use super::recorder::Recorder;
use super::resume::{restore, resumable};
use super::setup::{Origin, Setup};
use crate::experiment::{Change, Class, Experiment, Start, difference, merged};
use crate::kernels::ranks::{Group, Lost};
use crate::quantizer::Rules;
use crate::run::{
    Best, Command, Event, Manifest, Phase, RunFolder, Split, Status, TensorBoard, Tightening,
    write_whole,
};
use crate::training::TrainError;
use crate::training::checkpoint::{Checkpoint, SaveError};
use crate::training::trainer::Trainer;

/// What the last warning of a run begins with whose last checkpoint the disk did not take.
pub(crate) const NOT_SAVED: &str = "the last checkpoint was not written";
/// Time between two manifests that say where a run is.
const TOLD_EVERY: Duration = Duration::from_secs(5);
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
    /// Whether the last step's loss was finite: what is not, is not saved.
    is_finite: bool,
    last_checkpoint: f64,
    /// Pictures that were left out, as far as that was said.
    left_out: usize,
    /// What was last said of budgets that tighten.
    tightening: Vec<Tightening>,
    /// Why the newest checkpoint is not on the disk.
    unsaved: Option<String>,
    /// Changes that the disk did not take yet: the experiment in force is to be written again.
    unwritten: Option<Vec<String>>,
    /// When the manifest last said where the run is.
    told_at: Instant,
    /// Why evaluations are not in integers although that was asked for, as it was told.
    not_in_integers: Option<String>,
    /// Step that the newest checkpoint holds.
    saved_at: Option<u64>,
    /// Where the run was when its ranks were last compared.
    compared: Told,
}

/// What had been sent at some step.
struct Told {
    step: u64,
    epoch: f64,
    bytes: u64,
    waited: Duration,
}

impl<'a> Run<'a> {
    /// Everything that comes before the first step. `found` is what there is to say of the run's
    /// files.
    pub(super) fn prepare(
        setup: &'a Setup,
        group: Group,
        mut found: Vec<String>,
        recorder: &mut Recorder,
    ) -> Result<Self, TrainError> {
        let folder = &setup.folder;
        let experiment = &match &setup.origin {
            Origin::New => setup.experiment.clone(),
            Origin::Resume => folder.with_own_model(&setup.experiment),
            Origin::Fork { checkpoint, .. } => {
                let parent = RunFolder::of_checkpoint(checkpoint);
                parent.map_or_else(
                    || setup.experiment.clone(),
                    |parent| parent.with_own_model(&setup.experiment),
                )
            }
        };
        let engine = crate::device::parse(&experiment.device)?;
        let device = crate::device::burn_device(engine);
        let toml = experiment.values.to_toml();
        let parent = match &setup.origin {
            Origin::Fork { parent, .. } => Some(parent.clone()),
            Origin::New | Origin::Resume => None,
        };
        let inherited = match &setup.origin {
            Origin::Fork { checkpoint, .. } => {
                let parent = RunFolder::of_checkpoint(checkpoint);
                let manifest = parent.and_then(|parent| parent.manifest().ok());
                manifest.map_or(Vec::new(), |m| m.set)
            }
            Origin::New | Origin::Resume => Vec::new(),
        };
        let mut changes = Vec::new();
        let manifest = if setup.origin == Origin::Resume {
            changes = resumable(folder, experiment)?;
            let manifest = folder.manifest_or_rebuilt()?;
            // What is said of a rebuilt manifest is no note of the user's.
            let rebuilt = folder.manifest().is_err();
            let (said, note) = if rebuilt {
                (manifest.note.clone(), None)
            } else {
                (None, manifest.note.clone())
            };
            found.extend(said);
            Manifest {
                status: Status::Running,
                reason: None,
                dead_end: false,
                set: merged(&manifest.set, &setup.set),
                note,
                ..manifest
            }
        } else {
            write_whole(&folder.experiment(), toml.as_bytes())?;
            folder.keep_model(experiment)?;
            if let Some(source) = &setup.source {
                // As it was written, comments and all: it may be gone since it was read.
                let written = crate::files::read(source);
                written.map_or(Ok(()), |text| write_whole(&folder.source(), &text))?;
            }
            Manifest {
                parent: parent.clone(),
                source: setup.source.clone(),
                set: merged(&inherited, &setup.set),
                ..Manifest::begin(experiment.name.clone(), engine.to_string())
            }
        };
        folder.write_manifest(&manifest)?;
        let splits = crate::dataset::open(experiment)?;
        let described = splits.described();
        if setup.origin == Origin::New {
            found.extend(splits.notes.iter().cloned());
        }
        let mut trainer = match &setup.origin {
            Origin::New => Trainer::new(experiment.clone(), splits, device)?,
            Origin::Resume => {
                let mut trainer = Trainer::blank(experiment.clone(), splits, device)?;
                found.extend(restore(&mut trainer, folder)?);
                trainer
            }
            Origin::Fork { checkpoint, .. } => {
                let mut trainer = Trainer::blank(experiment.clone(), splits, device)?;
                let lost = trainer.fork_from(checkpoint)?;
                found.extend(lost.into_iter().map(|note| format!("not kept: {note}")));
                trainer
            }
        };
        let mut manifest = manifest;
        if setup.origin == Origin::New {
            found.extend(trainer.notes().iter().cloned());
            if let Start::Run(start) = &experiment.start {
                manifest.start = Checkpoint::fingerprint_of(&RunFolder::at(start));
                folder.write_manifest(&manifest)?;
            }
        }
        trainer.lead(group)?;
        if engine.is_card() {
            trainer.take_ahead();
        }
        if experiment.log.tensorboard {
            let began = manifest.started_unix as f64;
            match TensorBoard::create(&folder.tensorboard(), began) {
                Ok(board) => recorder.with_board(board),
                Err(error) => found.push(format!("no TensorBoard events: {error}")),
            }
        }
        let step = trainer.steps();
        if manifest.drop_best_beyond(&trainer.budgets()) {
            trainer.set_best_error(None);
        }
        manifest.task = Some(Manifest::task_of(experiment));
        recorder.emit(Event::Started {
            name: folder.label(),
            device: engine.to_string(),
            experiment: toml.clone(),
            layers: trainer.layers(),
            budgets: trainer.budgets(),
            steps_per_epoch: trainer.steps_per_epoch(),
            total_steps: trainer.total_steps(),
            step,
            parent: manifest.parent.clone(),
        });
        recorder.emit(Event::Quantizers {
            step,
            quantizers: trainer.quantizers(),
        });
        recorder.emit(Event::Phase {
            step,
            phase: trainer.phase(),
        });
        recorder.emit(Event::Note {
            step,
            message: described,
        });
        for message in found {
            recorder.emit(Event::Warning { step, message });
        }
        if !changes.is_empty() {
            write_whole(&folder.experiment(), toml.as_bytes())?;
            recorder.emit(Event::Applied {
                step,
                changes: changes.iter().map(Change::told).collect(),
                experiment: toml,
                budgets: trainer.budgets(),
                total_steps: trainer.total_steps(),
            });
        }
        if experiment.rules == Rules::PublishedCode && engine.is_card() {
            recorder.emit(Event::Warning {
                step,
                message: format!(
                    "{engine} sums in its own order; the published code's numbers are reproduced on a \
                     CPU only"
                ),
            });
        }
        Ok(Self {
            setup,
            manifest,
            paused: setup.paused,
            allowed: None,
            stopping: false,
            is_finite: true,
            last_checkpoint: trainer.epochs(),
            left_out: 0,
            tightening: Vec::new(),
            unsaved: None,
            unwritten: None,
            told_at: Instant::now(),
            not_in_integers: None,
            saved_at: None,
            compared: Told {
                step,
                epoch: trainer.epochs(),
                bytes: 0,
                waited: Duration::ZERO,
            },
            trainer,
        })
    }

    /// Step after step, until the run is over or told to stop.
    ///
    /// # Errors
    /// Where another rank has ended: the state of the last step is saved.
    pub(super) fn go(
        &mut self,
        commands: &Receiver<Command>,
        out: &mut Recorder,
    ) -> Result<(), TrainError> {
        let group = self.trainer.group().clone();
        match group.guarded(|| self.train(commands, out)) {
            Ok(()) => Ok(()),
            Err(lost) => {
                self.rescue(out);
                if lost.is_told {
                    self.end(Status::Stopped, out);
                    return Ok(());
                }
                self.write_manifest(Status::Running, out);
                Err(TrainError::Lost(lost))
            }
        }
    }

    /// Saves the state of the last step, at once: the launcher ends this process too in a moment.
    fn rescue(&mut self, out: &mut Recorder) {
        self.trainer.undo_step();
        let step = self.trainer.steps();
        if self.is_finite && self.saved_at != Some(step) {
            let path = self.setup.folder.checkpoint(step);
            let saved = self.trainer.save_at_once(&path);
            self.tell_saved(&path, saved, false, out);
        }
    }

    fn train(&mut self, commands: &Receiver<Command>, out: &mut Recorder) {
        let began = self.trainer.steps();
        if self.paused {
            out.emit(Event::Paused { step: began });
        }
        if self.setup.origin == Origin::Resume {
            // What a signal cut short is caught up.
            self.evaluate_if_due(commands, out);
        }
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
                // The float network's best is none of the quantized one's.
                (self.manifest.best_error, self.manifest.best) = (None, None);
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
        self.checkpoint(out);
        self.end(Status::Stopped, out);
    }

    /// The last word. Where the disk did not take the last checkpoint, that is said behind all else.
    fn end(&mut self, status: Status, out: &mut Recorder) {
        let step = self.trainer.steps();
        if let Some(why) = self.unsaved.take() {
            let message = format!("{NOT_SAVED}: {why}");
            self.manifest.reason = Some(message.clone());
            out.emit(Event::Warning { step, message });
        }
        if status == Status::Finished
            && let Some(message) = self.above_budget()
        {
            out.emit(Event::Warning { step, message });
        }
        self.write_manifest(status, out);
        let test_error = self.manifest.test_error;
        out.emit(match status {
            Status::Finished => Event::Finished { step, test_error },
            _ => Event::Stopped { step },
        });
    }

    /// What the network takes more of than it should, at its end.
    fn above_budget(&self) -> Option<String> {
        let usage = self.trainer.usage();
        let budgets = self.trainer.budgets().into_iter();
        let above = budgets.filter(|budget| !budget.is_met(&usage)).map(|b| {
            let (amount, unit) = (usage.amount(b.resource), b.resource.unit());
            let what = b.resource.label();
            format!("{what} take {amount:.2} {unit} of {} {unit}", b.limit)
        });
        let above: Vec<String> = above.collect();
        (!above.is_empty()).then(|| {
            format!(
                "this run ends above its budget: {}; hint: more epochs (`bitscope resume RUN --set \
                 train.epochs=N`) let it get there",
                above.join(", ")
            )
        })
    }

    fn one_step(&mut self, out: &mut Recorder) {
        let probe =
            (self.trainer.steps() + 1).is_multiple_of(self.trainer.experiment().log.probe_every);
        let before = self.trainer.steps();
        let record = self.trainer.step(probe);
        self.tell_tightening(before, out);
        let broken = self.trainer.non_finite_norm(&record);
        let finite = record.cross_entropy.is_finite() && broken.is_none();
        self.is_finite = finite;
        let step = record.step;
        self.manifest.weight_kb = record.usage.weights;
        self.manifest.activation_kb = record.usage.activation_max;
        out.emit(Event::Step(Box::new(record)));
        self.tell_reinitialised(out);
        out.check_disk();
        if !finite {
            let layer = broken.or_else(|| self.trainer.find_non_finite());
            self.not_finite(layer, out);
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

    /// Says of budgets that begin to tighten, or no longer do so as was said, what they are step by step.
    fn tell_tightening(&mut self, step: u64, out: &mut Recorder) {
        let now = self.trainer.tightening();
        if now != self.tightening {
            self.tightening.clone_from(&now);
            out.emit(Event::Tightens { step, budgets: now });
        }
    }

    fn tell_reinitialised(&mut self, out: &mut Recorder) {
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
    fn periodic(&mut self, commands: &Receiver<Command>, out: &mut Recorder) {
        self.compare_if_due(out);
        self.evaluate_if_due(commands, out);
        if self.told_at.elapsed() > TOLD_EVERY {
            self.write_manifest(Status::Running, out);
        }
        let every = self.trainer.experiment().log.checkpoint_every;
        let epoch = self.trainer.epochs();
        if is_due(self.last_checkpoint, every, epoch) {
            self.last_checkpoint = epoch;
            self.checkpoint(out);
            self.write_manifest(Status::Running, out);
        }
    }

    /// Once an epoch, whether all ranks still have the same parameters. If not, what they train is no
    /// network, and the run ends.
    fn compare_if_due(&mut self, out: &mut Recorder) {
        let ranks = self.trainer.group().size();
        let epoch = self.trainer.epochs();
        if ranks == 1 || !is_due(self.compared.epoch, 1.0, epoch) {
            return;
        }
        let (bytes, waited) = self.trainer.group().traffic();
        let compared = self.trainer.compare();
        if !compared.others.is_empty() {
            let message = format!(
                "ranks {:?} no longer have the parameters of rank 0; hint: on machines of different kinds, set \
                 BITSCOPE_SIMD to an instruction set that all of them have",
                compared.others
            );
            std::panic::resume_unwind(Box::new(Lost::because(message)));
        }
        let step = self.trainer.steps();
        let steps = (step - self.compared.step).max(1) as f64;
        out.emit(Event::Ranks {
            step,
            ranks,
            fingerprint: compared.fingerprint,
            bytes_per_step: (bytes - self.compared.bytes) as f64 / steps,
            seconds_per_step: (waited - self.compared.waited).as_secs_f64() / steps,
        });
        let (bytes, waited) = self.trainer.group().traffic();
        self.compared = Told {
            step,
            epoch,
            bytes,
            waited,
        };
    }

    fn evaluate_if_due(&mut self, commands: &Receiver<Command>, out: &mut Recorder) {
        let every = self.trainer.experiment().log.evaluate_every;
        if is_due(self.trainer.evaluated(), every, self.trainer.epochs()) {
            self.evaluate(Split::Validation, commands, out);
        }
    }

    /// Evaluates on a part of the data. A stop is heard between batches; other commands wait until
    /// it is over.
    fn evaluate(&mut self, split: Split, commands: &Receiver<Command>, out: &mut Recorder) {
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
            let step = self.trainer.steps();
            // What is called the best is what can be gone back to.
            let better = split == Split::Validation && self.trainer.is_best(e.error);
            let saved = better.then(|| self.save_best(e.error));
            let best = matches!(saved, Some(Ok(())));
            out.emit(Event::Evaluation {
                step,
                split,
                error: e.error,
                loss: e.loss,
                budget_met: self.trainer.budget_met(),
                best,
            });
            if let Some(error) = e.top_five {
                out.emit(Event::TopFive { step, split, error });
            }
            if split == Split::Test {
                self.manifest.test_error = Some(e.error);
            }
            if let Some(saved) = saved {
                let path = self.setup.folder.best();
                self.tell_saved(&path, saved, true, out);
            }
        }
        if let Some(error) = self.trainer.not_in_integers() {
            let (step, message) = (self.trainer.steps(), error.to_string());
            if self.not_in_integers.as_ref() != Some(&message) {
                self.not_in_integers = Some(message.clone());
                out.emit(Event::Warning { step, message });
            }
        }
        self.tell_left_out(out);
        for command in waiting {
            self.take(command, out);
        }
    }

    /// Says how many pictures could not be decoded, where more could not than before.
    fn tell_left_out(&mut self, out: &mut Recorder) {
        let left_out = self.trainer.left_out();
        if left_out > self.left_out {
            self.left_out = left_out;
            let step = self.trainer.steps();
            let message =
                format!("{left_out} pictures that cannot be decoded have been left out so far");
            out.emit(Event::Warning { step, message });
        }
    }

    /// Saves the network as the best one so far.
    fn save_best(&mut self, error: f64) -> Result<(), SaveError> {
        let before = self.trainer.best_error();
        self.trainer.set_best_error(Some(error));
        let saved = self.save(&self.setup.folder.best());
        if saved.is_ok() {
            self.manifest.best_error = Some(error);
            let usage = self.trainer.usage();
            self.manifest.best = Some(Best::at(self.trainer.steps(), usage));
        } else {
            self.trainer.set_best_error(before);
        }
        saved
    }

    fn save(&mut self, path: &Path) -> Result<(), SaveError> {
        if !self.is_finite {
            return Err(SaveError::NotFinite("the loss".into()));
        }
        self.trainer.save(path)
    }

    /// Writes a checkpoint of this step, unless there is one.
    fn checkpoint(&mut self, out: &mut Recorder) {
        let step = self.trainer.steps();
        if self.saved_at == Some(step) {
            return;
        }
        let previous = self.setup.folder.newest_checkpoint();
        let path = self.setup.folder.checkpoint(step);
        let saved = self.save(&path);
        if saved.is_ok() {
            self.saved_at = Some(step);
            self.thin_out(previous);
        }
        self.tell_saved(&path, saved, false, out);
    }

    /// Says what became of a checkpoint. Training on from values that are not finite leads nowhere.
    fn tell_saved(
        &mut self,
        path: &Path,
        saved: Result<(), SaveError>,
        best: bool,
        out: &mut Recorder,
    ) {
        let step = self.trainer.steps();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match saved {
            Ok(()) => {
                self.unsaved = self.unsaved.take().filter(|_| best);
                let file = format!("checkpoints/{name}");
                out.emit(Event::Checkpoint { step, file, best });
            }
            Err(error) => {
                if let (SaveError::Io(error), false) = (&error, best) {
                    self.unsaved = Some(error.to_string());
                }
                let message = format!("no checkpoint written: {name}: {error}");
                out.emit(Event::Warning { step, message });
                if let SaveError::NotFinite(what) = error
                    && std::mem::replace(&mut self.is_finite, false)
                {
                    self.not_finite(Some(what), out);
                }
            }
        }
    }

    /// A value is not finite: the run waits for someone who looks.
    fn not_finite(&mut self, layer: Option<String>, out: &mut Recorder) {
        let step = self.trainer.steps();
        self.paused = true;
        self.allowed = None;
        self.manifest.not_finite(step, layer.as_deref());
        out.emit(Event::NonFinite { step, layer });
    }

    /// Drops every second checkpoint of the older half, once there are many: one can still go back
    /// anywhere, in ever longer strides, while a long run does not fill the disk. The one before the
    /// newest stays: should the newest be torn, that is the one to go on from.
    fn thin_out(&self, previous: Option<PathBuf>) {
        let steps = self.setup.folder.checkpoints_by_step();
        if steps.len() <= KEEP_CHECKPOINTS {
            return;
        }
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
    fn finish(&mut self, commands: &Receiver<Command>, out: &mut Recorder) -> bool {
        self.checkpoint(out);
        let complete = self.trainer.is_done();
        if complete && self.trainer.epochs() > self.trainer.evaluated() + 1e-9 {
            self.evaluate(Split::Validation, commands, out);
            if self.trainer.estimates_norms() {
                // What was evaluated, with its running statistics, is what a run ends with.
                self.saved_at = None;
                self.checkpoint(out);
            }
        }
        if complete && !self.stopping {
            self.evaluate(Split::Test, commands, out);
        }
        if complete && !self.stopping && !self.trainer.is_done() {
            return false;
        }
        let finished = complete && !self.stopping;
        self.end(
            if finished {
                Status::Finished
            } else {
                Status::Stopped
            },
            out,
        );
        true
    }

    fn write_manifest(&mut self, status: Status, out: &mut Recorder) {
        self.write_again(out);
        self.told_at = Instant::now();
        self.manifest.status = status;
        self.manifest.step = self.trainer.steps();
        self.manifest.epoch = self.trainer.epochs();
        if let Err(error) = self.setup.folder.write_manifest(&self.manifest) {
            let step = self.trainer.steps();
            let message = format!("the manifest is not being written: {error}");
            out.emit(Event::Warning { step, message });
        }
    }

    fn take_commands(&mut self, commands: &Receiver<Command>, out: &mut Recorder) {
        loop {
            let command = if self.paused && self.allowed.is_none() && !self.stopping {
                self.wait_for_command(commands)
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

    /// The next command, however long it takes. Other ranks are looked after meanwhile.
    fn wait_for_command(&self, commands: &Receiver<Command>) -> Command {
        let group = self.trainer.group();
        if group.is_alone() {
            // A dropped sender is the signal to stop.
            return commands.recv().unwrap_or(Command::Stop);
        }
        loop {
            match commands.recv_timeout(Duration::from_millis(50)) {
                Ok(command) => return command,
                Err(RecvTimeoutError::Disconnected) => return Command::Stop,
                Err(RecvTimeoutError::Timeout) => group.look(),
            }
        }
    }

    fn take(&mut self, command: Command, out: &mut Recorder) {
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
                self.checkpoint(out);
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

    fn apply(&mut self, experiment: Arc<Experiment>, out: &mut Recorder) {
        let changes = difference(&self.trainer.experiment().values, &experiment.values);
        if let Some(change) = changes.iter().find(|c| c.class >= Class::Fork) {
            let step = self.trainer.steps();
            let message = format!("not applied: {change}: that needs a new run");
            out.emit(Event::Warning { step, message });
            return;
        }
        if let Err(error) = self.trainer.can_share(&experiment) {
            let step = self.trainer.steps();
            let message = format!("not applied: {error}");
            out.emit(Event::Warning { step, message });
            return;
        }
        self.trainer.apply(experiment.clone());
        if self.manifest.drop_best_beyond(&self.trainer.budgets()) {
            self.trainer.set_best_error(None);
        }
        let changes: Vec<String> = changes.iter().map(Change::told).collect();
        let toml = experiment.values.to_toml();
        if let Err(error) = write_whole(&self.setup.folder.experiment(), toml.as_bytes()) {
            let message = format!("the resolved experiment is not being written: {error}");
            out.emit(Event::Warning {
                step: self.trainer.steps(),
                message,
            });
            self.unwritten
                .get_or_insert_default()
                .extend(changes.clone());
        }
        self.tell_applied(changes, toml, out);
    }

    fn tell_applied(&self, changes: Vec<String>, experiment: String, out: &mut Recorder) {
        out.emit(Event::Applied {
            step: self.trainer.steps(),
            changes,
            experiment,
            budgets: self.trainer.budgets(),
            total_steps: self.trainer.total_steps(),
        });
    }

    /// Writes the experiment in force where the disk did not take it before; the log, which the same disk
    /// may have refused, is told again.
    fn write_again(&mut self, out: &mut Recorder) {
        let Some(changes) = self.unwritten.take() else {
            return;
        };
        let toml = self.trainer.experiment().values.to_toml();
        match write_whole(&self.setup.folder.experiment(), toml.as_bytes()) {
            Ok(()) => self.tell_applied(changes, toml, out),
            Err(_) => self.unwritten = Some(changes),
        }
    }
}

/// Whether something that happens every so many epochs has come due since it last did.
fn is_due(last: f64, every: f64, now: f64) -> bool {
    ((now + 1e-9) / every).floor() > ((last + 1e-9) / every).floor()
}
