//! The experiment on the screen: its file, what is in force, what is on its way.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::experiment::{Change, Class, Diagnostics, Experiment, Loaded, Values};

/// A valid file whose changes need a new run.
#[derive(Debug, Clone)]
pub(in crate::tui) struct Pending {
    pub loaded: Loaded,
    pub changes: Vec<Change>,
    pub class: Class,
}

/// The experiment that the run has, the file that it comes from, and changes on their way.
pub(in crate::tui) struct Editing {
    pub file: Option<PathBuf>,
    /// What is wrong with the file now.
    pub diagnostics: Option<Diagnostics>,
    /// Why the file says nothing now: it is gone, or empty.
    pub(super) unread: Option<String>,
    /// What is in force.
    pub experiment: Arc<Experiment>,
    /// The same, with the places that set its values.
    pub(super) current: Loaded,
    /// Experiments before each applied change, for undo, with what the file said then.
    pub(super) undo: Vec<(Loaded, Option<String>)>,
    /// What the file said when its last change was applied.
    pub(super) text: Option<String>,
    /// What the file is to hold once an undo has gone through it.
    pub(super) undoing: Option<Values>,
    /// A change that was asked for and not accepted.
    pub(super) refused: Option<Box<Pending>>,
    /// What the command line sets over the file.
    pub(super) set: Vec<String>,
    /// The same, and values set from the screen where no file takes them.
    pub(super) overrides: Vec<String>,
}

impl Editing {
    pub(super) fn new(loaded: &Loaded, file: Option<PathBuf>, set: Vec<String>) -> Self {
        let read = |file: &Path| crate::files::read_text(file).ok();
        Self {
            text: file.as_deref().and_then(read),
            file,
            diagnostics: None,
            unread: None,
            experiment: loaded.experiment.clone(),
            current: loaded.clone(),
            undo: Vec::new(),
            undoing: None,
            refused: None,
            overrides: set.clone(),
            set,
        }
    }

    /// Another experiment is in force.
    pub(super) fn adopt(&mut self, loaded: &Loaded) {
        self.experiment = loaded.experiment.clone();
        self.current = loaded.clone();
    }

    /// Keeps what was in force until now for undo, unless the change that is applied is one.
    pub(super) fn remember(&mut self, loaded: &Loaded) {
        // Going back is no step forward: the step that it undoes is taken off instead.
        if self.undoing.take() == Some(loaded.experiment.values.clone()) {
            self.undo.pop();
        } else {
            self.undo.push((self.current.clone(), self.text.clone()));
        }
        let file = self.file.as_deref();
        self.text = file.and_then(|file| crate::files::read_text(file).ok());
        self.refused = None;
    }
}
