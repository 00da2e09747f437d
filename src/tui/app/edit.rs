//! Changes of the experiment: saved files, values set from the screen, undo.

use super::{App, Effect, Overlay, Pending};
use crate::experiment::{
    AutoApply, Class, Diagnostics, Key, Kind, Saved as SavedFile, difference, load_embedded,
    set_in_file, strongest,
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
        let changes = difference(&self.experiment.values, &loaded.experiment.values);
        let Some(class) = strongest(&changes) else {
            self.overlay = None;
            self.tell("experiment file saved, nothing changed".into());
            return Vec::new();
        };
        let over = self.history.end.is_some();
        let automatic = match loaded.experiment.auto_apply {
            AutoApply::Live => class <= Class::Epoch && !over,
            AutoApply::Fork => class <= Class::Fork,
            AutoApply::Fresh => true,
        };
        if automatic {
            return self.apply(Pending {
                loaded,
                changes,
                class,
            });
        }
        self.overlay = Some(Overlay::ConfirmNewRun(Box::new(Pending {
            loaded,
            changes,
            class,
        })));
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
        self.undo.push(self.current.clone());
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

    /// Goes back to the experiment before the last change, in the file too.
    pub(super) fn undo(&mut self) -> Vec<Effect> {
        let Some(before) = self.undo.pop() else {
            self.tell("nothing to undo".into());
            return Vec::new();
        };
        let changes = difference(&self.experiment.values, &before.experiment.values);
        let class = strongest(&changes).unwrap_or(Class::Live);
        if let Some(file) = &self.file {
            // The file is rewritten; the watcher reads it back, so file and run cannot disagree.
            for change in &changes {
                let Some(value) = &change.new else {
                    self.warn(format!(
                        "{} was not set before; edit the file to undo it",
                        change.path
                    ));
                    return Vec::new();
                };
                if let Err(error) = set_in_file(file, &change.path, &value.to_string()) {
                    self.warn(format!("not undone: {}: {error}", file.display()));
                    return Vec::new();
                }
            }
            return Vec::new();
        }
        let effects = self.apply(Pending {
            loaded: before,
            changes,
            class,
        });
        self.undo.pop();
        effects
    }

    /// Sets a value of the experiment: in the file where there is one (its comments stay; the
    /// watcher reads it back, so file and run cannot disagree), else in the embedded one.
    pub(in crate::tui) fn set(&mut self, key: &str, value: &str) -> Vec<Effect> {
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
            match set_in_file(&file, key, &value) {
                Ok(()) => self.tell(format!("{key} = {value} written to {}", file.display())),
                Err(error) => self.warn(format!("{}: {error}", file.display())),
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
                self.broken(diagnostics)
            }
        }
    }
}
