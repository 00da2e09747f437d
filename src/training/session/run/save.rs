//! What a run leaves on the disk while it goes on: checkpoints and its manifest.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::{KEEP_CHECKPOINTS, Run};
use crate::run::{Best, Event, Status};
use crate::training::checkpoint::SaveError;
use crate::training::session::recorder::Recorder;

impl Run<'_> {
    /// Saves the state of the last step, at once: the launcher ends this process too in a moment.
    pub(super) fn rescue(&mut self, out: &mut Recorder) {
        self.trainer.undo_step();
        let step = self.trainer.steps();
        if self.is_finite && self.saved_at != Some(step) {
            out.settle();
            let path = self.setup.folder.checkpoint(step);
            let saved = self.trainer.save_at_once(&path);
            self.tell_saved(&path, saved, false, out);
        }
    }

    /// Saves the network as the best one so far.
    pub(super) fn save_best(&mut self, error: f64) -> Result<(), SaveError> {
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

    /// Forgets the best step where it is beyond budgets that are tighter now.
    pub(super) fn drop_best_beyond(&mut self) {
        if self.manifest.drop_best_beyond(&self.trainer.budgets()) {
            self.trainer.set_best_error(None);
            // A checkpoint of this step still knows it.
            self.saved_at = None;
        }
    }

    /// The same for what a checkpoint knew as best that is older than the manifest: a run that was killed
    /// may have forgotten it since.
    pub(super) fn drop_forgotten_best(&mut self) {
        let Some(error) = self.trainer.best_error() else {
            return;
        };
        let folder = &self.setup.folder;
        if self.manifest.best_error != Some(error)
            && !folder.was_best_within(error, &self.trainer.budgets())
        {
            self.trainer.set_best_error(None);
        }
    }

    fn save(&mut self, path: &Path) -> Result<(), SaveError> {
        if !self.is_finite {
            return Err(SaveError::NotFinite("the loss".into()));
        }
        self.trainer.save(path)
    }

    /// Writes a checkpoint of this step, unless there is one.
    pub(super) fn checkpoint(&mut self, out: &mut Recorder) {
        let step = self.trainer.steps();
        if self.saved_at == Some(step) {
            return;
        }
        // Who goes on from a checkpoint finds every step before it in the log, whatever ended this process.
        out.settle();
        let previous = self.setup.folder.newest_checkpoint();
        let path = self.setup.folder.checkpoint(step);
        let saved = self.save(&path);
        if saved.is_ok() {
            self.saved_at = Some(step);
            // (What was not finite was overcome.)
            self.manifest.can_go_on();
            self.thin_out(previous);
        }
        self.tell_saved(&path, saved, false, out);
    }

    /// Says what became of a checkpoint. Training on from values that are not finite leads nowhere.
    pub(super) fn tell_saved(
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
    pub(super) fn not_finite(&mut self, layer: Option<String>, out: &mut Recorder) {
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

    pub(super) fn write_manifest(&mut self, status: Status, out: &mut Recorder) {
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
}
