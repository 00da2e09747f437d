//! Changes of the experiment: saved files, values set from the screen, undo.

use super::{App, Effect, Overlay, Pending, Role};
use crate::experiment::{
    AutoApply, Class, Diagnostics, EditError, Key, Kind, Loaded, Saved as SavedFile, change_file,
    difference, load_embedded, strongest,
};
use crate::run::{Command, Severity};

impl App {
    /// A save of the experiment file.
    pub(in crate::tui) fn saved(&mut self, saved: SavedFile) -> Vec<Effect> {
        let loaded = match saved {
            SavedFile::Missing(path) => {
                let path = path.display();
                self.warn(format!(
                    "{path} is gone; the run goes on with what it last said"
                ));
                return Vec::new();
            }
            SavedFile::Empty(path) => {
                let path = path.display();
                self.warn(format!(
                    "{path} is empty; the run goes on with what it last said"
                ));
                return Vec::new();
            }
            SavedFile::Broken(diagnostics) => return self.broken(diagnostics),
            SavedFile::Valid(loaded) => *loaded,
        };
        if let Err(diagnostics) = crate::cli::reachable(&loaded) {
            return self.broken(diagnostics);
        }
        self.diagnostics = None;
        if matches!(self.overlay, Some(Overlay::Diagnostic)) {
            self.overlay = None;
        }
        self.propose(loaded)
    }

    /// Applies what changed, or asks for it.
    fn propose(&mut self, loaded: Loaded) -> Vec<Effect> {
        let changes = difference(&self.experiment.values, &loaded.experiment.values);
        let Some(class) = strongest(&changes) else {
            self.overlay = None;
            self.refused = None;
            self.tell("experiment file saved, nothing changed".into());
            return Vec::new();
        };
        let over = self.history.end.is_some();
        let automatic = match loaded.experiment.auto_apply {
            AutoApply::Live => class <= Class::Epoch && !over,
            AutoApply::Fork => class <= Class::Fork,
            AutoApply::Fresh => true,
        };
        let pending = Pending {
            loaded,
            changes,
            class,
        };
        if automatic {
            return self.apply(pending);
        }
        self.overlay = Some(Overlay::ConfirmNewRun(Box::new(pending)));
        Vec::new()
    }

    pub(super) fn broken(&mut self, diagnostics: Diagnostics) -> Vec<Effect> {
        let count = diagnostics.0.len();
        let plural = if count == 1 { "" } else { "s" };
        self.say(
            Severity::Error,
            format!("experiment file: {count} error{plural}; the run goes on as it was"),
        );
        self.diagnostics = Some(diagnostics);
        self.overlay = Some(Overlay::Diagnostic);
        Vec::new()
    }

    /// Takes a changed experiment over: live at once, otherwise as a new run.
    pub(super) fn apply(&mut self, pending: Pending) -> Vec<Effect> {
        let Pending {
            loaded,
            changes,
            class,
        } = pending;
        // Going back is no step forward: the step that it undoes is taken off instead.
        let undoes = self.undoing.take() == Some(loaded.experiment.values.clone());
        if undoes {
            self.undo.pop();
        } else {
            self.undo.push(self.current.clone());
        }
        self.refused = None;
        let text: Vec<String> = changes.iter().map(ToString::to_string).collect();
        self.tell(format!("{}: {}", class.name(), text.join(", ")));
        self.overlay = None;
        if class <= Class::Epoch && self.history.end.is_none() {
            self.experiment = loaded.experiment.clone();
            self.history.verdicts.set_experiment(&loaded.experiment);
            self.current = loaded.clone();
            return vec![Effect::Send(Command::Apply(loaded.experiment))];
        }
        vec![Effect::NewRun {
            loaded: Box::new(loaded),
            fork: class <= Class::Fork,
        }]
    }

    /// Goes back to the experiment before the last change, step by step, in the file too; it asks like
    /// any other change. A change that is asked for and not applied yet is taken back first.
    pub(super) fn undo(&mut self) -> Vec<Effect> {
        let back = if self.refused.take().is_some() {
            Some(self.current.clone())
        } else {
            self.undo.last().cloned()
        };
        let Some(before) = back else {
            self.tell("nothing to undo".into());
            return Vec::new();
        };
        self.undoing = Some(before.experiment.values.clone());
        let Some(file) = self.file.clone() else {
            return self.propose(before);
        };
        // The file is rewritten; the watcher reads it back, so file and run cannot disagree.
        let now = match crate::experiment::load(&file, &self.set) {
            Ok(now) => now.experiment.values.clone(),
            Err(_) => self.experiment.values.clone(),
        };
        let changes = difference(&now, &before.experiment.values);
        let texts: Vec<(String, Option<String>)> = changes
            .iter()
            .map(|c| (c.path.clone(), c.new.as_ref().map(ToString::to_string)))
            .collect();
        let changes: Vec<(&str, Option<&str>)> = texts
            .iter()
            .map(|(path, value)| (path.as_str(), value.as_deref()))
            .collect();
        match change_file(&file, &changes, &self.set) {
            Ok(_) => self.tell(format!("{} is as it was before", file.display())),
            Err(error) => {
                self.undoing = None;
                self.warn(format!("not undone: {error}"));
            }
        }
        Vec::new()
    }

    /// Asks again for the change that was refused last.
    pub(in crate::tui) fn ask_again(&mut self) -> Vec<Effect> {
        match self.refused.take() {
            Some(pending) => self.overlay = Some(Overlay::ConfirmNewRun(pending)),
            None => self.tell("no change waits for an answer".into()),
        }
        Vec::new()
    }

    /// Sets a value of the experiment: in the file where there is one (its comments stay; the
    /// watcher reads it back, so file and run cannot disagree), else in the embedded one.
    pub(in crate::tui) fn set(&mut self, key: &str, value: &str) -> Vec<Effect> {
        if self.role == Role::Watching {
            self.warn("this run belongs to another process: it is looked at, not steered".into());
            return Vec::new();
        }
        let Some(known) = Key::find(key) else {
            self.warn(format!("no key \"{key}\"; Tab completes"));
            return Vec::new();
        };
        // A word needs no quotes here; everything else is TOML already.
        let quoted = toml::Value::String(value.to_owned()).to_string();
        let text = matches!(known.kind, Kind::Text | Kind::Path | Kind::Choice(_));
        let value = if text && !value.starts_with('"') {
            quoted
        } else {
            value.to_owned()
        };
        if let Some(file) = self.file.clone() {
            match change_file(&file, &[(key, Some(&value))], &self.set) {
                Ok(_) => self.tell(format!("{key} = {value} written to {}", file.display())),
                Err(EditError::Invalid(diagnostics)) => return self.refuse(&diagnostics),
                Err(error) => self.warn(error.to_string()),
            }
            return Vec::new();
        }
        self.overrides
            .retain(|o| !o.starts_with(&format!("{key}=")));
        self.overrides.push(format!("{key}={value}"));
        let (name, text) = crate::cli::DEMO;
        match load_embedded(name, text, &self.overrides) {
            Ok(loaded) => self.saved(SavedFile::Valid(Box::new(loaded))),
            Err(diagnostics) => {
                self.overrides.pop();
                self.refuse(&diagnostics)
            }
        }
    }

    /// Says what is wrong with a value that was not taken.
    fn refuse(&mut self, diagnostics: &Diagnostics) -> Vec<Effect> {
        let first = diagnostics.0.first();
        let text = first.map_or(String::new(), |d| {
            format!("{}; expected {}", d.message, d.expected)
        });
        self.warn(format!("not set: {text}"));
        Vec::new()
    }
}
