//! Changes of the experiment: saved files, values set from the screen, undo.

use std::path::Path;

use super::{App, Effect, Overlay, Pending, Role};
use crate::experiment::{
    AutoApply, Change, Class, Diagnostics, EditError, Key, Kind, Loaded, Overrides,
    Saved as SavedFile, change_file, difference, load_as, load_embedded, replace_file, strongest,
};
use crate::face::reachable;
use crate::run::{Command, Severity};

impl App {
    /// A save of the experiment file.
    pub(in crate::tui) fn saved(&mut self, saved: SavedFile) -> Vec<Effect> {
        let loaded = match saved {
            SavedFile::Missing(path, why) => {
                let path = path.display();
                let text = format!("{path}: {why}; the run keeps the last valid settings");
                self.editing.unread = Some(text.clone());
                self.warn(text);
                return Vec::new();
            }
            SavedFile::Empty(path) => {
                let path = path.display();
                let text = format!("{path} is empty; the run keeps the last valid settings");
                self.editing.unread = Some(text.clone());
                self.warn(text);
                return Vec::new();
            }
            SavedFile::Broken(diagnostics) => return self.broken(diagnostics),
            SavedFile::Valid(loaded) => *loaded,
        };
        if let Err(diagnostics) = reachable(&loaded) {
            return self.broken(diagnostics);
        }
        (self.editing.diagnostics, self.editing.unread) = (None, None);
        if matches!(self.layers.overlay(), Some(Overlay::Diagnostic)) {
            self.layers.take_overlay();
        }
        self.propose(loaded)
    }

    /// Applies what changed, or asks for it.
    fn propose(&mut self, loaded: Loaded) -> Vec<Effect> {
        let changes = difference(&self.editing.experiment.values, &loaded.experiment.values);
        let Some(class) = strongest(&changes) else {
            self.layers.take_overlay();
            self.editing.refused = None;
            self.tell("experiment file saved, nothing changed".into());
            return Vec::new();
        };
        let over = self.shown.history.end.is_some();
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
        self.ask(Overlay::ConfirmNewRun(Box::new(pending)));
        Vec::new()
    }

    /// The file that a recorded run came from, as it is now: what it asks for besides is said, and waits.
    pub(in crate::tui) fn compare_with_file(&mut self, loaded: Loaded) {
        let changes = difference(&self.editing.experiment.values, &loaded.experiment.values);
        let (Some(class), Some(file)) = (strongest(&changes), &self.editing.file) else {
            return;
        };
        let listed: Vec<String> = changes.iter().map(ToString::to_string).collect();
        let text = format!(
            "{} has changed since: {}; `a` asks for it",
            file.display(),
            listed.join(", ")
        );
        self.editing.refused = Some(Box::new(Pending {
            loaded,
            changes,
            class,
        }));
        self.warn(text);
    }

    pub(super) fn broken(&mut self, diagnostics: Diagnostics) -> Vec<Effect> {
        let count = diagnostics.0.len();
        let plural = if count == 1 { "" } else { "s" };
        self.say(
            Severity::Error,
            format!(
                "experiment file: {count} error{plural}; the run keeps the last valid settings"
            ),
        );
        self.editing.diagnostics = Some(diagnostics);
        self.ask(Overlay::Diagnostic);
        Vec::new()
    }

    /// Takes a changed experiment over: live at once, otherwise as a new run.
    pub(super) fn apply(&mut self, pending: Pending) -> Vec<Effect> {
        let Pending {
            loaded,
            changes,
            class,
        } = pending;
        self.editing.remember(&loaded);
        let text: Vec<String> = changes.iter().map(ToString::to_string).collect();
        self.tell(format!("{}: {}", class.name(), text.join(", ")));
        self.layers.take_overlay();
        if class <= Class::Epoch && self.shown.history.end.is_none() {
            self.shown
                .history
                .verdicts
                .set_experiment(&loaded.experiment);
            self.editing.adopt(&loaded);
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
        let back = if self.editing.refused.take().is_some() {
            Some((self.editing.current.clone(), self.editing.text.clone()))
        } else {
            self.editing.undo.last().cloned()
        };
        let Some((before, text)) = back else {
            self.tell("nothing to undo".into());
            return Vec::new();
        };
        self.editing.undoing = Some(before.experiment.values.clone());
        let Some(file) = self.editing.file.clone() else {
            self.editing.overrides = overrides_of(&before);
            return self.propose(before);
        };
        // The file is rewritten; the watcher reads it back, so file and run cannot disagree. Word for word
        // where that gives the experiment from before (a file that it extends may have changed), else
        // value by value.
        let same = |text: &str| {
            let loaded = load_as(&file, text, &self.editing.set);
            loaded.is_ok_and(|l| l.experiment.values == before.experiment.values)
        };
        if let Some(text) = text.filter(|text| same(text)) {
            self.tell_undone(
                &file,
                replace_file(&file, &text, &self.editing.set, reachable),
            );
            return Vec::new();
        }
        let now = match crate::experiment::load(&file, &self.editing.set) {
            Ok(now) => now.experiment.values.clone(),
            Err(_) => self.editing.experiment.values.clone(),
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
        let done = change_file(&file, &changes, &self.editing.set, reachable);
        self.tell_undone(&file, done);
        Vec::new()
    }

    fn tell_undone(&mut self, file: &Path, done: Result<Loaded, EditError>) {
        match done {
            Ok(_) => self.tell(format!("{} is as it was before", file.display())),
            Err(error) => {
                self.editing.undoing = None;
                self.warn(format!("not undone: {error}"));
            }
        }
    }

    /// Asks again for the change that was refused last.
    pub(in crate::tui) fn ask_again(&mut self) -> Vec<Effect> {
        match self.editing.refused.take() {
            // Nothing that needs a new run: whoever asks has answered.
            Some(pending) if pending.class <= Class::Epoch && self.shown.history.end.is_none() => {
                return self.apply(*pending);
            }
            Some(pending) => self.ask(Overlay::ConfirmNewRun(pending)),
            None => self.tell("no change waits for an answer".into()),
        }
        Vec::new()
    }

    /// Sets a value of the experiment: in the file where there is one (its comments stay; the
    /// watcher reads it back, so file and run cannot disagree), else in the embedded one.
    pub(in crate::tui) fn set(&mut self, key: &str, value: &str) -> Vec<Effect> {
        let Some(known) = self.steered(key) else {
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
        if value.parse::<toml_edit::Value>().is_err() {
            let expected = known.kind.expected();
            self.warn(format!(
                "not set: {value} is not a valid value of {key}; expected {expected}"
            ));
            return Vec::new();
        }
        self.change(key, Some(&value))
    }

    /// Takes a value of the experiment away: the default holds again.
    pub(in crate::tui) fn unset(&mut self, key: &str) -> Vec<Effect> {
        match self.steered(key) {
            Some(_) => self.change(key, None),
            None => Vec::new(),
        }
    }

    /// The key of that name, where this run can be steered; else it is said why not.
    fn steered(&mut self, key: &str) -> Option<&'static Key> {
        if self.shown.role == Role::Watching {
            self.warn(
                "this run belongs to another process: it can be watched here, not controlled"
                    .into(),
            );
            return None;
        }
        let fixed = self.editing.file.is_some()
            && (self.editing.set.iter()).any(|set| set.split('=').next() == Some(key));
        if fixed {
            self.warn(format!(
                "not set: `--set {key}=...` on the command line overrides the file"
            ));
            return None;
        }
        let known = Key::find(key);
        if known.is_none() {
            self.warn(format!("no key \"{key}\"; Tab completes"));
        }
        known
    }

    fn change(&mut self, key: &str, value: Option<&str>) -> Vec<Effect> {
        let Some(file) = self.editing.file.clone() else {
            return self.change_embedded(key, value);
        };
        let done = value.map_or("taken out of".into(), |v| format!("= {v} written to"));
        match change_file(&file, &[(key, value)], &self.editing.set, reachable) {
            Ok(_) => self.tell(format!("{key} {done} {}", file.display())),
            Err(EditError::Invalid(diagnostics)) => return self.refuse(&diagnostics),
            Err(error) => self.warn(error.to_string()),
        }
        Vec::new()
    }

    fn change_embedded(&mut self, key: &str, value: Option<&str>) -> Vec<Effect> {
        let mut overrides = self.editing.overrides.clone();
        overrides.retain(|o| !o.starts_with(&format!("{key}=")));
        overrides.push(format!("{key}={}", value.unwrap_or_default()));
        let (name, text) = crate::face::DEMO;
        let loaded = load_embedded(name, text, &overrides);
        match loaded.and_then(|loaded| reachable(&loaded).map(|()| loaded)) {
            Ok(loaded) => {
                self.editing.overrides = overrides;
                self.saved(SavedFile::Valid(Box::new(loaded)))
            }
            Err(diagnostics) => self.refuse(&diagnostics),
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

/// What is set over the embedded experiment in one that was made from it.
fn overrides_of(loaded: &Loaded) -> Overrides {
    let (name, text) = crate::face::DEMO;
    let Ok(base) = load_embedded(name, text, &Vec::new()) else {
        unreachable!("the embedded experiment is valid");
    };
    let changes = difference(&base.experiment.values, &loaded.experiment.values);
    let set = |c: &Change| {
        let value = c.new.as_ref().map_or(String::new(), ToString::to_string);
        format!("{}={value}", c.path)
    };
    changes.iter().map(set).collect()
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

    use super::*;
    use crate::experiment::load;
    use crate::quantizer::memory::Resource;
    use crate::run::RunFolder;

    fn demo(set: &[&str]) -> App {
        let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
        let (name, text) = crate::face::DEMO;
        let loaded = load_embedded(name, text, &set).expect("valid");
        App::new(&loaded, None, RunFolder::unrecorded(), PathBuf::new(), set)
    }

    fn on_file(file: &Path) -> App {
        let loaded = load(file, &Vec::new()).expect("valid");
        let file = Some(file.to_owned());
        App::new(
            &loaded,
            file,
            RunFolder::unrecorded(),
            PathBuf::new(),
            Vec::new(),
        )
    }

    /// What the watcher reports after the file was written.
    fn watched(app: &mut App) -> Vec<Effect> {
        let file = app.editing.file.clone().expect("a file");
        let loaded = load(&file, &Vec::new()).expect("valid");
        app.saved(SavedFile::Valid(Box::new(loaded)))
    }

    fn press(app: &mut App, c: char) -> Vec<Effect> {
        app.key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::NONE))
    }

    fn control(app: &mut App, c: char) -> Vec<Effect> {
        app.key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL))
    }

    #[test]
    fn undo_goes_back_step_by_step_through_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("e.toml");
        std::fs::write(&file, "# why\n[optimizer]\nlr = 0.1\n").expect("written");
        let mut app = on_file(&file);
        for lr in ["0.2", "0.3", "0.4"] {
            app.set("optimizer.lr", lr);
            assert!(matches!(
                watched(&mut app)[..],
                [Effect::Send(Command::Apply(_))]
            ));
        }
        for lr in [0.3, 0.2, 0.1] {
            assert!(press(&mut app, 'u').is_empty());
            watched(&mut app);
            assert_eq!(app.editing.experiment.optimizer.lr, lr);
        }
        press(&mut app, 'u');
        assert_eq!(
            app.notices.message.as_ref().expect("said").2,
            "nothing to undo"
        );
        let text = std::fs::read_to_string(&file).expect("read");
        assert_eq!(text, "# why\n[optimizer]\nlr = 0.1\n");
    }

    #[test]
    fn what_the_command_line_sets_is_not_written_to_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("e.toml");
        std::fs::write(&file, "[optimizer]\nlr = 0.1\n").expect("written");
        let set = vec!["optimizer.lr=0.2".to_owned()];
        let loaded = load(&file, &set).expect("valid");
        let unrecorded = RunFolder::unrecorded();
        let mut app = App::new(&loaded, Some(file.clone()), unrecorded, PathBuf::new(), set);
        app.set("optimizer.lr", "0.3");
        let said = app.notices.message.as_ref().expect("said").2.clone();
        assert!(said.contains("overrides the file"), "{said}");
        let text = std::fs::read_to_string(&file).expect("read");
        assert_eq!(text, "[optimizer]\nlr = 0.1\n");
    }

    #[test]
    fn what_was_undone_in_the_embedded_experiment_stays_undone() {
        let mut app = demo(&["optimizer.momentum=0.8"]);
        let before = app.editing.experiment.values.clone();
        app.set("budget.weights_kb", "10");
        assert_ne!(app.editing.experiment.values, before);
        press(&mut app, 'u');
        assert_eq!(app.editing.experiment.values, before);
        app.set("optimizer.lr", "0.04");
        let changes = difference(&before, &app.editing.experiment.values);
        let paths: Vec<&str> = changes.iter().map(|c| c.path.as_str()).collect();
        assert_eq!(paths, ["optimizer.lr"]);
    }

    #[test]
    fn budgets_out_of_reach_are_not_set_and_one_can_be_taken_away() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("e.toml");
        let text = "[weights]\nquantizer = \"u3\"\n[budget]\nweights_kb = 12\n";
        std::fs::write(&file, text).expect("written");
        for mut app in [on_file(&file), demo(&["budget.weights_kb=12"])] {
            assert!(app.set("budget.weights_kb", "0.1").is_empty());
            let said = app.notices.message.as_ref().expect("said").2.clone();
            assert!(said.contains("not set: a budget of 0.1"), "{said}");
            let limit = |app: &App| {
                app.editing
                    .experiment
                    .budgets
                    .limits
                    .first()
                    .map(|l| l.amount)
            };
            assert_eq!(limit(&app), Some(12.0));
            assert!(app.editing.diagnostics.is_none());
            app.unset("budget.weights_kb");
            if app.editing.file.is_some() {
                assert_eq!(limit(&app), Some(12.0), "until it is read back");
                watched(&mut app);
            }
            let limits = &app.editing.experiment.budgets.limits;
            assert!(
                limits.iter().all(|l| l.resource != Resource::Weights),
                "{limits:?}"
            );
        }
        let text = std::fs::read_to_string(&file).expect("read");
        assert!(!text.contains("weights_kb"), "{text}");
    }

    #[test]
    fn a_key_that_was_not_in_the_file_is_taken_out_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("e.toml");
        std::fs::write(&file, "[weights]\nquantizer = \"u3\"\n").expect("written");
        let mut app = on_file(&file);
        app.set("budget.weights_kb", "12");
        watched(&mut app);
        press(&mut app, 'u');
        watched(&mut app);
        let text = std::fs::read_to_string(&file).expect("read");
        assert!(!text.contains("weights_kb"), "{text}");
        assert!(app.editing.experiment.budgets.limits.is_empty());
    }

    #[test]
    fn undo_of_a_change_that_needs_a_new_run_asks_too() {
        let mut app = demo(&[]);
        assert!(app.set("seed", "5").is_empty());
        assert!(matches!(press(&mut app, 'y')[..], [Effect::NewRun { .. }]));
        let loaded = load_embedded("demo.toml", crate::face::DEMO.1, &vec!["seed=5".into()]);
        app.adopt(&loaded.expect("valid"), RunFolder::unrecorded());
        assert!(press(&mut app, 'u').is_empty());
        assert!(matches!(
            app.layers.overlay(),
            Some(Overlay::ConfirmNewRun(_))
        ));
    }

    #[test]
    fn a_change_answered_with_no_is_asked_for_again_or_taken_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("e.toml");
        std::fs::write(&file, "seed = 1\n").expect("written");
        let mut app = on_file(&file);
        app.set("seed", "5");
        watched(&mut app);
        press(&mut app, 'n');
        assert!(app.layers.overlay().is_none());
        press(&mut app, 'a');
        assert!(matches!(
            app.layers.overlay(),
            Some(Overlay::ConfirmNewRun(_))
        ));
        press(&mut app, 'n');
        press(&mut app, 'u');
        assert_eq!(std::fs::read_to_string(&file).expect("read"), "seed = 1\n");
        assert!(watched(&mut app).is_empty() && app.layers.overlay().is_none());
    }

    #[test]
    fn values_that_are_not_valid_are_not_written_and_the_command_line_stays() {
        let mut app = demo(&["optimizer.lr=0.02"]);
        for (key, value) in [
            ("weights.bits", "99"),
            ("optimizer.lr", "nan"),
            ("budget.weights_kb", "none"),
        ] {
            assert!(app.set(key, value).is_empty());
            let said = &app.notices.message.as_ref().expect("said").2;
            assert!(said.starts_with("not set: "), "{said}");
        }
        app.set("train.epochs", "30");
        assert_eq!(app.editing.experiment.optimizer.lr, 0.02);
        assert_eq!(app.editing.experiment.epochs, 30.0);
    }

    #[test]
    fn lines_are_typed_as_in_a_shell() {
        let mut app = demo(&[]);
        press(&mut app, ':');
        "set optimizer.lr 0.5"
            .chars()
            .for_each(|c| drop(press(&mut app, c)));
        let text = |app: &App| app.layers.palette().map(|c| c.text.clone());
        control(&mut app, 'w');
        assert_eq!(text(&app).as_deref(), Some("set optimizer.lr "));
        app.paste("0.\n7");
        assert_eq!(text(&app).as_deref(), Some("set optimizer.lr 0.7"));
        control(&mut app, 'u');
        assert_eq!(text(&app).as_deref(), Some(""));
        control(&mut app, 'c');
        assert_eq!(text(&app), None);
        // Asked twice is meant.
        assert!(control(&mut app, 'c').is_empty());
        assert!(matches!(control(&mut app, 'c')[..], [Effect::Quit]));
    }
}
