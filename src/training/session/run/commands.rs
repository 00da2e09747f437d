//! What a run is told while it goes on.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use super::Run;
use crate::experiment::{Change, Class, Experiment, difference};
use crate::run::{Command, Event, write_whole};
use crate::training::session::recorder::Recorder;

impl Run<'_> {
    pub(super) fn take_commands(&mut self, commands: &Receiver<Command>, out: &mut Recorder) {
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

    pub(super) fn take(&mut self, command: Command, out: &mut Recorder) {
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
                let is_known = self.trainer.reinitialise(&layer);
                let message = match (is_known, self.tell_reinitialised(out)) {
                    (false, _) => format!("no quantizer in use has the name {layer}"),
                    (true, 0) => {
                        format!("{layer}: nothing above zero comes in; no range would help")
                    }
                    (true, _) => {
                        // A checkpoint of this step has it as it was.
                        self.saved_at = None;
                        return;
                    }
                };
                out.emit(Event::Warning { step, message });
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
        self.drop_best_beyond();
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

    pub(super) fn tell_applied(
        &self,
        changes: Vec<String>,
        experiment: String,
        out: &mut Recorder,
    ) {
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
    pub(super) fn write_again(&mut self, out: &mut Recorder) {
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
