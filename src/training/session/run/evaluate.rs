//! Evaluations: when one is due, and what it says.

use std::sync::mpsc::Receiver;

use super::{Run, is_due};
use crate::run::{Command, Event, Split};
use crate::training::session::recorder::Recorder;

impl Run<'_> {
    pub(super) fn evaluate_if_due(&mut self, commands: &Receiver<Command>, out: &mut Recorder) {
        let every = self.trainer.experiment().log.evaluate_every;
        if is_due(self.trainer.evaluated(), every, self.trainer.epochs()) {
            self.evaluate(Split::Validation, commands, out);
        }
    }

    /// Evaluates on a part of the data. A stop is heard between batches; other commands wait until
    /// it is over.
    pub(super) fn evaluate(
        &mut self,
        split: Split,
        commands: &Receiver<Command>,
        out: &mut Recorder,
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
            let step = self.trainer.steps();
            // What is called the best is what can be gone back to.
            let better = split == Split::Validation && self.trainer.is_best(e.error);
            if better {
                out.settle();
            }
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
}
