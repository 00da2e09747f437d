//! The command palette: everything that keys do by name, and values of the experiment.

use super::app::{App, EXPORT, Effect, Page, Paper, Role};
use super::keymap::{Action, KEYMAP};
use crate::experiment::{Default, KEYS};
use crate::export::Format;
use crate::figure::Theme;
use crate::figure::terminal::Marker;
use crate::run::Command;

/// A completion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// What Tab makes of the text.
    pub text: String,
    /// What it does.
    pub help: String,
}

/// Ends the run, not the workbench.
const STOP: &str = "stop run";

/// Takes a value of the experiment away.
const UNSET: &str = "unset ";

/// Gives the selected run another name.
const RENAME: &str = "rename ";

/// Markers by name.
const MARKERS: [(&str, Marker); 4] = [
    ("braille", Marker::Braille),
    ("octant", Marker::Octant),
    ("block", Marker::Block),
    ("ascii", Marker::Ascii),
];

/// Everything that fits what was typed: every word of it occurs.
pub(super) fn entries(app: &App, typed: &str) -> Vec<Entry> {
    let words: Vec<&str> = typed.split_whitespace().collect();
    let fits = |e: &Entry| {
        words
            .iter()
            .all(|w| e.text.contains(w) || e.help.contains(w))
    };
    // Once a value is being typed, the key is the one completion.
    if let Some(key) = value_of(typed) {
        return all(app)
            .into_iter()
            .filter(|e| e.text.trim() == format!("set {key}"))
            .collect();
    }
    let mut found: Vec<Entry> = all(app).into_iter().filter(fits).collect();
    // What begins with the text comes first.
    found.sort_by_key(|e| !e.text.starts_with(typed));
    found
}

/// The key in `set KEY VALUE`, where a value follows.
fn value_of(typed: &str) -> Option<&str> {
    let (key, value) = typed.strip_prefix("set ")?.split_once(' ')?;
    (!value.is_empty()).then_some(key)
}

fn all(app: &App) -> Vec<Entry> {
    let mut all = Vec::new();
    let mut done: Vec<Action> = Vec::new();
    for binding in KEYMAP {
        if binding.action == Action::Palette || done.contains(&binding.action) {
            continue;
        }
        done.push(binding.action);
        all.push(Entry {
            text: binding.action.name(),
            help: format!("{} ({})", binding.help, binding.key()),
        });
    }
    for theme in Theme::ALL {
        all.push(Entry {
            text: format!("theme {}", theme.name()),
            help: "colours".into(),
        });
    }
    for paper in Paper::ALL {
        all.push(Entry {
            text: format!("paper {}", paper.name()),
            help: "size and text of exported figures".into(),
        });
    }
    for (name, _) in MARKERS {
        all.push(Entry {
            text: format!("marker {name}"),
            help: "characters for drawing lines".into(),
        });
    }
    for format in Format::ALL {
        all.push(Entry {
            text: format!("{EXPORT}{}", format.name()),
            help: format!("{}: {}", exported(app).label(), format.help()),
        });
    }
    if app.page == Page::Runs
        && let Some((folder, _)) = app.selected_run()
    {
        all.push(Entry {
            text: RENAME.into(),
            help: format!("a new name for {}", folder.label()),
        });
    }
    all.push(Entry {
        text: STOP.into(),
        help: "end the run with a checkpoint; it can be resumed".into(),
    });
    for layer in layers(app) {
        all.push(Entry {
            text: format!("reinitialise {layer}"),
            help: "fit the layer's quantizers to its values anew, at their bitwidths".into(),
        });
    }
    for key in KEYS {
        let now = app.editing.experiment.values.get(key.path);
        let now = now.map_or("not set".into(), ToString::to_string);
        all.push(Entry {
            text: format!("set {} ", key.path),
            help: format!("{now} ({}): {}", key.class.name(), key.doc),
        });
    }
    for key in KEYS {
        if let Some(now) = app.editing.experiment.values.get(key.path)
            && key.default == Default::Absent
        {
            all.push(Entry {
                text: format!("{UNSET}{}", key.path),
                help: format!(
                    "{now} ({}): the key as if it were not set",
                    key.class.name()
                ),
            });
        }
    }
    all
}

/// The run whose network is exported: on the page of runs the selected one.
fn exported(app: &App) -> &crate::run::RunFolder {
    let selected = app.selected_run().map(|run| &run.0);
    selected
        .filter(|_| app.page == Page::Runs)
        .unwrap_or(&app.shown.folder)
}

/// Names of the layers with quantizers, each once.
fn layers(app: &App) -> Vec<&str> {
    let mut names = Vec::new();
    for layer in &app.shown.history.layers {
        if !names.contains(&layer.info.name.as_str()) {
            names.push(&layer.info.name);
        }
    }
    names
}

/// Carries a command out.
pub(super) fn execute(app: &mut App, text: &str) -> Vec<Effect> {
    let text = text.trim();
    if let Some(rest) = text.strip_prefix("set ") {
        return match rest.trim().split_once(char::is_whitespace) {
            Some((key, value)) => app.set(key, value.trim()),
            None => {
                let key = rest.trim();
                app.warn(format!(
                    "set {key}: expected a value after the key; `{UNSET}{key}` takes its value away"
                ));
                Vec::new()
            }
        };
    }
    if let Some(key) = text.strip_prefix(UNSET) {
        return app.unset(key.trim());
    }
    if let Some(name) = text.strip_prefix("theme ") {
        match Theme::from_name(name.trim()) {
            Some(theme) => app.palette.theme = theme,
            None => app.warn(format!("no theme \"{name}\"")),
        }
        return Vec::new();
    }
    if let Some(name) = text.strip_prefix("marker ") {
        match MARKERS.iter().find(|m| m.0 == name.trim()) {
            Some((_, marker)) => app.palette.marker = *marker,
            None => app.warn(format!("no marker \"{name}\"")),
        }
        return Vec::new();
    }
    if let Some(name) = text.strip_prefix("paper ") {
        match Paper::ALL.into_iter().find(|p| p.name() == name.trim()) {
            Some(paper) => app.paper = paper,
            None => app.warn(format!("no paper \"{name}\"")),
        }
        return Vec::new();
    }
    if let Some(name) = text.strip_prefix(EXPORT) {
        let format = Format::ALL.into_iter().find(|f| f.name() == name.trim());
        return match format {
            Some(format) => vec![Effect::ExportNetwork(exported(app).clone(), format)],
            None => {
                app.warn(format!("no format \"{name}\"; Tab completes"));
                Vec::new()
            }
        };
    }
    if let Some(name) = text.strip_prefix(RENAME) {
        app.rename_run(name.trim());
        return Vec::new();
    }
    if text == STOP {
        if app.shown.role == Role::Watching {
            app.warn(
                "this run belongs to another process: it can be watched here, not controlled"
                    .into(),
            );
            return Vec::new();
        }
        return vec![Effect::Send(Command::Stop)];
    }
    if let Some(layer) = text.strip_prefix("reinitialise ") {
        let layer = layer.trim();
        if app.shown.role == Role::Watching {
            app.warn(
                "this run belongs to another process: it can be watched here, not controlled"
                    .into(),
            );
            return Vec::new();
        }
        if !layers(app).contains(&layer) {
            app.warn(format!("no layer \"{layer}\" with a quantizer"));
            return Vec::new();
        }
        return vec![Effect::Send(Command::Reinitialise(layer.to_owned()))];
    }
    if let Some(filter) = text.strip_prefix("filter ") {
        app.view.filter = filter.trim().to_owned();
        return Vec::new();
    }
    if let Some(page) = Page::ALL.into_iter().find(|p| p.title() == text) {
        app.go_to(page);
        return Vec::new();
    }
    let action = KEYMAP.iter().map(|b| b.action).find(|a| a.name() == text);
    match action {
        Some(action) => app.perform(action),
        None => {
            app.warn(format!("no command \"{text}\"; Tab completes"));
            Vec::new()
        }
    }
}
