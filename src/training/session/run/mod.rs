//! One run inside its thread: steps, evaluations, checkpoints, commands.

use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use super::recorder::Recorder;
use super::setup::{Origin, Setup};
use crate::kernels::ranks::Lost;
use crate::run::{Command, Event, Manifest, Phase, Split, Status, Tightening};
use crate::training::TrainError;
use crate::training::schedule::has_come;
use crate::training::trainer::Trainer;

mod commands;
mod evaluate;
mod prepare;
mod save;

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
        let before = self.trainer.steps();
        let every = self.trainer.experiment().log.probe_every;
        // (What a run ends with is recorded in full.)
        let is_last = before + 1 >= self.trainer.total_steps();
        let probe = is_last || (before + 1).is_multiple_of(every);
        let record = self.trainer.step(probe);
        self.tell_tightening(before, out);
        let broken = self.trainer.non_finite_norm(&record);
        let finite = record.cross_entropy.is_finite() && broken.is_none();
        self.is_finite = finite;
        let step = record.step;
        // (That of a run that goes on is of other weights.)
        self.manifest.test_error = None;
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

    /// Says which quantizers were initialised anew; how many.
    fn tell_reinitialised(&mut self, out: &mut Recorder) -> usize {
        let step = self.trainer.steps();
        let all = self.trainer.take_reinitialised();
        let count = all.len();
        for of in all {
            out.emit(Event::Reinitialised {
                step,
                layer: of.layer,
                role: of.role,
                reason: of.reason,
                before: of.before,
                after: of.after,
            });
        }
        count
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

    /// The last evaluations. `false` where training goes on after all: more epochs were asked for
    /// meanwhile.
    fn finish(&mut self, commands: &Receiver<Command>, out: &mut Recorder) -> bool {
        self.checkpoint(out);
        let complete = self.trainer.is_done();
        if complete && !has_come(self.trainer.epochs(), self.trainer.evaluated()) {
            self.evaluate_last(Split::Validation, commands, out);
        }
        // (Meanwhile more epochs may have been asked for.)
        if complete && !self.stopping && self.trainer.is_done() {
            self.evaluate_last(Split::Test, commands, out);
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

    /// An evaluation behind the last step: what was evaluated, with its running statistics, is what the run
    /// ends with.
    fn evaluate_last(&mut self, split: Split, commands: &Receiver<Command>, out: &mut Recorder) {
        self.evaluate(split, commands, out);
        if self.trainer.estimates_norms() {
            self.saved_at = None;
            self.checkpoint(out);
        }
    }
}

/// Whether something that happens every so many epochs has come due since it last did.
fn is_due(last: f64, every: f64, now: f64) -> bool {
    ((now + 1e-9) / every).floor() > ((last + 1e-9) / every).floor()
}
