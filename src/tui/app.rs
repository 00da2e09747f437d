//! What the workbench knows, and how it changes.

use std::path::{Path, PathBuf};
use std::time::Instant;

use ratatui::crossterm::event::{
    KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};

use super::Current;
use super::keymap::{Action, action};
use super::microscope::Microscope;
use super::palette;
use super::system::System;
use super::toy::Toy;
use crate::experiment::{
    AutoApply, Change, Class, Diagnostics, Experiment, Key, Kind, Loaded, Saved as SavedFile,
    difference, load_embedded, resolve_text, set_in_file, strongest,
};
use crate::figure::terminal::{Colours, Marker, Palette};
use crate::figure::{Name, Overlaid, Saved, Theme, View, XUnit, panel_count};
use crate::quantizer::Parametrization;
use crate::run::{
    Command, History, LayerHistory, LayerRecord, Manifest, RunFolder, Severity, Verdict,
    VerdictKind, list_runs, read_log,
};

/// A page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Page {
    Overview,
    Layers,
    Bitwidths,
    Ranges,
    Gradients,
    Plane,
    Memory,
    Microscope,
    Verdicts,
    Runs,
    System,
    Log,
    Toy,
}

impl Page {
    pub(super) const ALL: [Self; 13] = [
        Self::Overview,
        Self::Layers,
        Self::Bitwidths,
        Self::Ranges,
        Self::Gradients,
        Self::Plane,
        Self::Memory,
        Self::Microscope,
        Self::Verdicts,
        Self::Runs,
        Self::System,
        Self::Log,
        Self::Toy,
    ];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Overview => "overview",
            Self::Layers => "layers",
            Self::Bitwidths => "bitwidths",
            Self::Ranges => "ranges",
            Self::Gradients => "gradients",
            Self::Plane => "plane",
            Self::Memory => "memory",
            Self::Microscope => "microscope",
            Self::Verdicts => "verdicts",
            Self::Runs => "runs",
            Self::System => "system",
            Self::Log => "log",
            Self::Toy => "toy",
        }
    }

    fn step(self, by: usize) -> Self {
        let at = Self::ALL.iter().position(|p| *p == self).unwrap_or(0);
        Self::ALL[(at + by) % Self::ALL.len()]
    }

    /// The plots of the page: name and panel.
    pub(super) fn plots(self) -> &'static [(Name, usize)] {
        match self {
            Self::Overview => &[
                (Name::Loss, 0),
                (Name::Error, 0),
                (Name::Memory, 0),
                (Name::Memory, 1),
            ],
            Self::Bitwidths => &[
                (Name::Bitwidth, 0),
                (Name::Bitwidth, 1),
                (Name::BitwidthHeat, 0),
            ],
            Self::Ranges => &[
                (Name::StepSize, 0),
                (Name::StepSize, 1),
                (Name::Range, 0),
                (Name::Range, 1),
            ],
            Self::Gradients => &[
                (Name::Gradients, 0),
                (Name::Gradients, 1),
                (Name::Gradients, 2),
            ],
            Self::Plane => &[(Name::Plane, 0), (Name::Plane, 1)],
            Self::Memory => &[
                (Name::Ledger, 0),
                (Name::Ledger, 1),
                (Name::Pull, 0),
                (Name::Pull, 1),
            ],
            Self::System => &[(Name::Phases, 0)],
            Self::Layers
            | Self::Microscope
            | Self::Verdicts
            | Self::Runs
            | Self::Log
            | Self::Toy => &[],
        }
    }

    /// Figures that the page shows: what `x` exports.
    pub(super) fn figures(self) -> Vec<Name> {
        let mut names: Vec<Name> = self.plots().iter().map(|p| p.0).collect();
        if self == Self::Layers {
            names.extend([Name::Bitwidth, Name::BitwidthHeat]);
        }
        names.dedup();
        names
    }
}

/// How runs are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// The newest first.
    Time,
    /// The best validation error first.
    Error,
    /// The smallest weights first.
    Kilobytes,
}

impl Order {
    fn next(self) -> Self {
        match self {
            Self::Time => Self::Error,
            Self::Error => Self::Kilobytes,
            Self::Kilobytes => Self::Time,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Time => "newest first",
            Self::Error => "best error first",
            Self::Kilobytes => "smallest weights first",
        }
    }
}

/// What lies over the page.
#[derive(Debug, Clone)]
pub(super) enum Overlay {
    Help,
    /// What is wrong with the experiment file.
    Diagnostic,
    /// Quit while training?
    ConfirmQuit,
    /// Changes that need a new run, waiting for a decision.
    ConfirmNewRun(Box<Pending>),
}

/// A valid file whose changes need a new run.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub loaded: Loaded,
    pub changes: Vec<Change>,
    pub class: Class,
}

/// What the app asks the workbench to do.
#[derive(Debug)]
pub(super) enum Effect {
    Quit,
    Send(Command),
    NewRun { loaded: Box<Loaded>, fork: bool },
    ExportFigure(Saved),
    ExportScreen,
    Suspend,
}

/// State of the workbench.
pub(super) struct App {
    pub page: Page,
    pub history: History,
    pub view: View,
    pub palette: Palette,
    pub overlay: Option<Overlay>,
    /// Filter being typed.
    pub typing: Option<String>,
    /// The command palette, while it is open.
    pub command: Option<palette::Palette>,
    /// Values set from the screen where no file takes them.
    overrides: Vec<String>,
    /// Column where the mouse was last.
    dragged: u16,
    pub selected: usize,
    pub scroll: usize,
    pub folder: RunFolder,
    pub runs_root: PathBuf,
    pub runs: Vec<(RunFolder, Manifest)>,
    /// How the selected run differs from the current one, line by line.
    pub compared: Vec<String>,
    pub toy: Toy,
    pub microscope: Microscope,
    pub system: System,
    /// Columns of the tabs, for the mouse.
    pub tabs: Vec<(std::ops::Range<u16>, Page)>,
    /// The plot of the page that fills the screen.
    pub expanded: Option<usize>,
    /// Runs drawn behind the current one.
    pub overlays: Vec<Overlaid>,
    /// How the runs page is sorted.
    pub order: Order,
    /// Only runs whose label contains this.
    pub runs_filter: String,
    pub file: Option<PathBuf>,
    /// What the file asks for now, where it can be read.
    pub diagnostics: Option<Diagnostics>,
    pub experiment: Current,
    /// Newest message of the program itself and when it came: it stays on the bottom line for a
    /// while, whatever the run says.
    pub message: Option<(Instant, Severity, String)>,
    /// Experiments before each applied change, for undo.
    undo: Vec<Loaded>,
    current: Loaded,
    /// Visible span in steps where zoomed in; `None` shows everything.
    span: Option<f64>,
    /// Last visible step where panned away; `None` follows the newest.
    anchor: Option<f64>,
}

impl App {
    pub(super) fn new(
        loaded: &Loaded,
        file: Option<PathBuf>,
        folder: RunFolder,
        runs_root: PathBuf,
    ) -> Self {
        Self {
            page: Page::Overview,
            history: History::default(),
            view: View::default(),
            palette: palette_of_terminal(),
            overlay: None,
            typing: None,
            command: None,
            overrides: Vec::new(),
            dragged: 0,
            selected: 0,
            scroll: 0,
            folder,
            runs_root,
            runs: Vec::new(),
            compared: Vec::new(),
            toy: Toy::default(),
            microscope: Microscope::default(),
            system: System::default(),
            tabs: Vec::new(),
            expanded: None,
            overlays: Vec::new(),
            order: Order::Time,
            runs_filter: String::new(),
            file,
            diagnostics: None,
            experiment: loaded.experiment.clone(),
            message: None,
            undo: Vec::new(),
            current: loaded.clone(),
            span: None,
            anchor: None,
        }
    }

    /// Switches to a new run.
    pub(super) fn adopt(&mut self, loaded: &Loaded, folder: RunFolder) {
        self.history = History::default();
        self.experiment = loaded.experiment.clone();
        self.current = loaded.clone();
        self.folder = folder;
        self.span = None;
        self.anchor = None;
        (self.view.cursor, self.view.second) = (None, None);
        self.microscope = Microscope::default();
    }

    /// Reads the history back from the log.
    pub(super) fn load_history(&mut self, log: &Path) {
        match read_log(log) {
            Ok((events, _)) => self.history = History::from_events(&events),
            Err(error) => self.warn(error.to_string()),
        }
    }

    pub(super) fn tell(&mut self, text: String) {
        self.say(Severity::Info, text);
    }

    pub(super) fn warn(&mut self, text: String) {
        self.say(Severity::Warning, text);
    }

    fn say(&mut self, severity: Severity, text: String) {
        self.history
            .say(self.history.step(), severity, text.clone());
        self.message = Some((Instant::now(), severity, text));
    }

    /// A save of the experiment file.
    pub(super) fn saved(&mut self, saved: SavedFile) -> Vec<Effect> {
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

    fn broken(&mut self, diagnostics: Diagnostics) -> Vec<Effect> {
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
    fn apply(&mut self, pending: Pending) -> Vec<Effect> {
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
    fn undo(&mut self) -> Vec<Effect> {
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

    /// A key.
    pub(super) fn key(&mut self, key: KeyEvent) -> Vec<Effect> {
        if self.command.is_some() {
            return self.command_key(key);
        }
        if self.typing.is_some() {
            self.type_filter(key);
            return Vec::new();
        }
        let Some(action) = action(key) else {
            return self.answer(key.code);
        };
        match &self.overlay {
            Some(Overlay::ConfirmQuit | Overlay::ConfirmNewRun(_)) => self.answer(key.code),
            Some(Overlay::Help) if matches!(action, Action::Down | Action::Up) => {
                let down = action == Action::Down;
                self.scroll = if down {
                    self.scroll + 1
                } else {
                    self.scroll.saturating_sub(1)
                };
                Vec::new()
            }
            Some(Overlay::Help | Overlay::Diagnostic) if action != Action::Quit => {
                self.overlay = None;
                Vec::new()
            }
            _ => self.perform(action),
        }
    }

    /// Answers a question: y or n.
    fn answer(&mut self, code: KeyCode) -> Vec<Effect> {
        let yes = matches!(code, KeyCode::Char('y' | 'Y') | KeyCode::Enter);
        let no = matches!(code, KeyCode::Char('n' | 'N' | 'q') | KeyCode::Esc);
        match self.overlay.take() {
            Some(Overlay::ConfirmQuit) if yes => vec![Effect::Quit],
            Some(Overlay::ConfirmNewRun(pending)) if yes => self.apply(*pending),
            Some(Overlay::ConfirmNewRun(_)) if no => {
                self.tell("kept the run; the file asks for a new one".into());
                Vec::new()
            }
            Some(overlay) if !no => {
                self.overlay = Some(overlay);
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn type_filter(&mut self, key: KeyEvent) {
        let Some(text) = &mut self.typing else { return };
        match key.code {
            KeyCode::Char(c) => text.push(c),
            KeyCode::Backspace => {
                text.pop();
            }
            KeyCode::Enter => {
                self.typing = None;
                return;
            }
            KeyCode::Esc => {
                text.clear();
                self.typing = None;
                if self.page == Page::Runs {
                    self.runs_filter.clear();
                    self.list_runs();
                } else {
                    self.view.filter.clear();
                }
                return;
            }
            _ => return,
        }
        self.selected = 0;
        if self.page == Page::Runs {
            self.runs_filter.clone_from(text);
            self.list_runs();
        } else {
            self.view.filter.clone_from(text);
        }
    }

    pub(super) fn perform(&mut self, action: Action) -> Vec<Effect> {
        match action {
            Action::GoTo(page) => self.go_to(page),
            Action::NextPage => self.go_to(self.page.step(1)),
            Action::PreviousPage => self.go_to(self.page.step(Page::ALL.len() - 1)),
            Action::Pause if self.history.paused => return vec![Effect::Send(Command::Resume)],
            Action::Pause => return vec![Effect::Send(Command::Pause)],
            Action::SingleStep => return vec![Effect::Send(Command::Step(1))],
            Action::Checkpoint => return vec![Effect::Send(Command::CheckpointNow)],
            Action::Undo => return self.undo(),
            Action::Filter if self.page == Page::Runs => {
                self.typing = Some(self.runs_filter.clone());
            }
            Action::Filter => self.typing = Some(self.view.filter.clone()),
            Action::Palette => self.command = Some(palette::Palette::default()),
            Action::Sort => {
                self.order = self.order.next();
                self.tell(format!("runs: {}", self.order.name()));
                self.list_runs();
            }
            Action::Overlay => self.toggle_overlay(),
            Action::Expand => {
                let count = self.page.plots().len();
                let next = self.expanded.map_or(0, |e| e + 1);
                self.expanded = (next < count).then_some(next);
            }
            Action::EarlierCheckpoint => self.microscope.scrub(-1),
            Action::LaterCheckpoint => self.microscope.scrub(1),
            Action::SecondCursor => {
                self.view.second = match (self.view.second, self.view.cursor) {
                    (Some(_), _) => None,
                    (None, cursor) => cursor.or(Some(self.history.step() as f64)),
                };
            }
            Action::Down => self.move_selection(1),
            Action::Up => self.move_selection(-1),
            Action::First => self.move_selection(isize::MIN / 2),
            Action::Last => self.move_selection(isize::MAX / 2),
            Action::Open => self.open_layer(),
            Action::ZoomIn => self.zoom(0.5),
            Action::ZoomOut => self.zoom(2.0),
            Action::PanLeft => self.pan(-0.25),
            Action::PanRight => self.pan(0.25),
            Action::ZoomInY => self.view.y_zoom = (self.view.y_zoom / 1.5).max(1e-3),
            Action::ZoomOutY => self.view.y_zoom = (self.view.y_zoom * 1.5).min(100.0),
            Action::Fit => {
                (self.span, self.anchor) = (None, None);
                self.view.y_zoom = 1.0;
            }
            Action::CursorLeft => self.move_cursor(-1.0),
            Action::CursorRight => self.move_cursor(1.0),
            Action::CursorOff => (self.view.cursor, self.view.second) = (None, None),
            Action::Logarithmic => self.view.log_y = !self.view.log_y,
            Action::Smooth => {
                self.view.smoothing = match self.view.smoothing {
                    0.0 => 0.9,
                    s if s < 0.95 => 0.99,
                    _ => 0.0,
                };
            }
            Action::Unit => {
                self.view.x_unit = self.view.x_unit.next();
            }
            Action::ExportFigure => return self.export(),
            Action::ExportScreen => return vec![Effect::ExportScreen],
            Action::Diagnostic => {
                if self.diagnostics.is_some() {
                    self.overlay = Some(Overlay::Diagnostic);
                } else {
                    self.tell("the experiment file is valid".into());
                }
            }
            Action::Help => {
                self.scroll = 0;
                self.overlay = Some(Overlay::Help);
            }
            Action::Back if self.expanded.is_some() => self.expanded = None,
            Action::Back => {
                self.view.filter.clear();
                self.overlay = None;
            }
            Action::Suspend => return vec![Effect::Suspend],
            Action::Quit if self.history.end.is_some() => return vec![Effect::Quit],
            Action::Quit => self.overlay = Some(Overlay::ConfirmQuit),
        }
        Vec::new()
    }

    pub(super) fn go_to(&mut self, page: Page) {
        self.page = page;
        self.expanded = None;
        self.selected = 0;
        self.scroll = 0;
        match page {
            Page::Runs => self.list_runs(),
            Page::Microscope => self.microscope.refresh(&self.folder),
            Page::Toy => {
                if let Err(error) = self.toy.start() {
                    self.warn(format!("the toy cannot be computed: {error}"));
                }
            }
            _ => {}
        }
    }

    /// Reads the runs folder: filtered and sorted as asked.
    fn list_runs(&mut self) {
        self.runs = list_runs(&self.runs_root);
        self.runs
            .retain(|(folder, _)| folder.label().contains(&self.runs_filter));
        let least = |v: Option<f64>| v.unwrap_or(f64::INFINITY);
        match self.order {
            Order::Time => self.runs.sort_by(|a, b| b.1.started.cmp(&a.1.started)),
            Order::Error => self
                .runs
                .sort_by(|a, b| least(a.1.best_error).total_cmp(&least(b.1.best_error))),
            Order::Kilobytes => self
                .runs
                .sort_by(|a, b| a.1.weight_kb.total_cmp(&b.1.weight_kb)),
        }
        self.compare();
    }

    /// Draws the selected run behind the current one, or no longer.
    fn toggle_overlay(&mut self) {
        let Some((folder, _)) = self.runs.get(self.selected) else {
            return;
        };
        let label = folder.label();
        if let Some(at) = self.overlays.iter().position(|o| o.label == label) {
            self.overlays.remove(at);
            self.tell(format!("{label} no longer drawn"));
            return;
        }
        if *folder == self.folder {
            self.tell("this is the run on the screen".into());
            return;
        }
        match read_log(&folder.log()) {
            Ok((events, _)) => {
                // The first colour that none of the others has: theirs stay as they are.
                let taken = |c: &usize| self.overlays.iter().any(|o| o.colour == *c);
                let colour = (0..).find(|c| !taken(c)).unwrap_or(0);
                self.overlays.push(Overlaid {
                    label: label.clone(),
                    colour,
                    history: History::from_events(&events),
                });
                self.tell(format!("{label} is drawn behind this run's plots"));
            }
            Err(error) => self.warn(error.to_string()),
        }
    }

    /// Reads how the selected run's experiment differs: once per selection, not per frame.
    fn compare(&mut self) {
        self.compared = self
            .runs
            .get(self.selected)
            .map_or_else(Vec::new, |(folder, manifest)| {
                comparison(&self.experiment, folder, manifest)
            });
    }

    /// Rows that the selection moves over on this page.
    pub(super) fn rows(&self) -> usize {
        match self.page {
            Page::Runs => self.runs.len(),
            Page::Log => self.history.messages.len(),
            Page::Toy => Parametrization::ALL.len(),
            Page::Verdicts => self.verdicts().len(),
            _ => self
                .history
                .layers
                .iter()
                .filter(|l| self.view.shows(l))
                .count(),
        }
    }

    fn move_selection(&mut self, by: isize) {
        let last = self.rows().saturating_sub(1);
        self.selected = self.selected.min(last).saturating_add_signed(by).min(last);
        if self.page == Page::Runs {
            self.compare();
        }
    }

    /// Narrows every plot to the selected layer, or widens it again.
    fn open_layer(&mut self) {
        match self.page {
            Page::Verdicts => return self.open_verdict(),
            Page::Runs | Page::Log | Page::Toy | Page::System | Page::Microscope => return,
            _ => {}
        }
        if !self.view.filter.is_empty() {
            self.view.filter.clear();
            return;
        }
        let layer = self
            .history
            .layers
            .iter()
            .filter(|l| self.view.shows(l))
            .nth(self.selected);
        if let Some(layer) = layer {
            self.view.filter = layer.info.name.clone();
            self.selected = 0;
            if self.page == Page::Layers {
                self.page = Page::Ranges;
            }
        }
    }

    /// Goes where the evidence of the selected verdict is seen: that layer, at that step.
    fn open_verdict(&mut self) {
        let verdicts = self.verdicts();
        let Some(verdict) = verdicts.get(self.selected) else {
            return;
        };
        let (kind, layer, since) = (verdict.kind, verdict.layer, verdict.since);
        let name = layer
            .and_then(|l| self.history.layers.get(l))
            .map_or(String::new(), |l| l.info.name.clone());
        self.go_to(match kind {
            VerdictKind::Exploding | VerdictKind::Vanishing => Page::Gradients,
            VerdictKind::Frozen | VerdictKind::AtClamp => Page::Plane,
            VerdictKind::Oscillating => Page::Bitwidths,
            VerdictKind::PenaltyDrowns => Page::Memory,
            VerdictKind::NonFinite => Page::Overview,
            VerdictKind::AllZero | VerdictKind::Saturated | VerdictKind::RangeUnreached => {
                Page::Ranges
            }
        });
        self.view.filter = name;
        self.view.cursor = Some(since as f64);
    }

    /// Verdicts as the page lists them: standing ones, the gravest first, then those that ended,
    /// the newest first.
    pub(super) fn verdicts(&self) -> Vec<&Verdict> {
        let all = &self.history.verdicts;
        let mut listed = all.standing();
        let mut ended: Vec<_> = all.all().iter().filter(|v| v.until.is_some()).collect();
        ended.sort_by_key(|v| std::cmp::Reverse(v.until));
        listed.extend(ended);
        listed
    }

    fn zoom(&mut self, factor: f64) {
        let all = self.history.step().max(1) as f64;
        let span = self.span.unwrap_or(all) * factor;
        self.span = if span >= all {
            None
        } else {
            Some(span.max(4.0))
        };
        if self.span.is_none() {
            self.anchor = None;
        }
    }

    fn pan(&mut self, share: f64) {
        let all = self.history.step().max(1) as f64;
        let Some(span) = self.span else { return };
        let end = self.anchor.unwrap_or(all) + share * span;
        self.anchor = if end >= all {
            None
        } else {
            Some(end.max(span))
        };
    }

    fn move_cursor(&mut self, direction: f64) {
        let (from, to) = self.visible();
        let step = ((to - from) / 100.0).max(1.0).round();
        let at = self.view.cursor.unwrap_or(to) + direction * step;
        self.view.cursor = Some(at.clamp(from, to));
    }

    /// Visible steps. The end runs a little ahead of the newest step and moves in lots: between
    /// two moves a frame only adds to the last, which is calm to look at and little to send.
    pub(super) fn visible(&self) -> (f64, f64) {
        let all = self.history.step().max(1) as f64;
        match self.span {
            None => (0.0, ahead(all, all)),
            Some(span) => {
                let end = self.anchor.unwrap_or_else(|| ahead(all, span));
                ((end - span).max(0.0), end)
            }
        }
    }

    /// The view for a plot with so many columns.
    pub(super) fn view_for(&self, columns: u16) -> View {
        let layers = self
            .history
            .layers
            .iter()
            .enumerate()
            .filter(|(_, l)| self.view.shows(l));
        let selected = layers.map(|(i, _)| i).nth(self.selected);
        View {
            x_range: Some(self.visible()),
            resolution: usize::from(columns).max(1) * 2,
            selected,
            ..self.view.clone()
        }
    }

    /// A quantizer at the cursor, or now.
    pub(super) fn layer_record(&self, layer: &LayerHistory) -> Option<LayerRecord> {
        match self.view.cursor {
            Some(step) => layer.at(step.max(0.0) as u64),
            None => layer.newest,
        }
    }

    fn export(&mut self) -> Vec<Effect> {
        let names = self.page.figures();
        if names.is_empty() {
            self.tell("this page has no plots".into());
        }
        let steps = self.visible();
        names
            .into_iter()
            .map(|figure| {
                let panels = panel_count(figure, &self.history) as u32;
                Effect::ExportFigure(Saved {
                    // From the run's `figures` folder.
                    run: PathBuf::from(".."),
                    events: self.history.events,
                    figure,
                    theme: Theme::Light,
                    size: (1400, (500 * panels).clamp(700, 2100)),
                    steps,
                    x: self.view.x_unit,
                    y_zoom: self.view.y_zoom,
                    log: self.view.log_y,
                    smoothing: self.view.smoothing,
                    filter: self.view.filter.clone(),
                })
            })
            .collect()
    }

    /// Sets a value of the experiment: in the file where there is one (its comments stay; the
    /// watcher reads it back, so file and run cannot disagree), else in the embedded one.
    pub(super) fn set(&mut self, key: &str, value: &str) -> Vec<Effect> {
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

    /// A key while the palette is open.
    fn command_key(&mut self, key: KeyEvent) -> Vec<Effect> {
        let Some(command) = &mut self.command else {
            return Vec::new();
        };
        match key.code {
            KeyCode::Esc => self.command = None,
            KeyCode::Char(c) => {
                command.text.push(c);
                command.chosen = 0;
            }
            KeyCode::Backspace => {
                command.text.pop();
                command.chosen = 0;
            }
            KeyCode::Down => command.chosen += 1,
            KeyCode::Up => command.chosen = command.chosen.saturating_sub(1),
            KeyCode::Tab | KeyCode::Enter => {
                let (text, chosen) = (command.text.clone(), command.chosen);
                let entries = palette::entries(self, &text);
                let entry = entries.get(chosen.min(entries.len().saturating_sub(1)));
                let completed = entry.map_or(text.clone(), |e| e.text.clone());
                // A value behind `set KEY` is the user's own.
                let own = text.strip_prefix("set ").is_some_and(|t| t.contains(' '))
                    && !text.ends_with(' ');
                if key.code == KeyCode::Tab || (completed.ends_with(' ') && !own) {
                    if !own {
                        self.command = Some(palette::Palette {
                            text: completed,
                            chosen: 0,
                        });
                    }
                    return Vec::new();
                }
                self.command = None;
                let text = if own { text } else { completed };
                return palette::execute(self, &text);
            }
            _ => {}
        }
        Vec::new()
    }

    /// A wheel, a drag or a click.
    pub(super) fn mouse(&mut self, event: MouseEvent) -> Vec<Effect> {
        let shift = event.modifiers.contains(KeyModifiers::SHIFT);
        match event.kind {
            MouseEventKind::ScrollUp if shift => self.pan(-0.1),
            MouseEventKind::ScrollDown if shift => self.pan(0.1),
            MouseEventKind::ScrollUp => self.zoom(0.8),
            MouseEventKind::ScrollDown => self.zoom(1.25),
            MouseEventKind::Down(MouseButton::Left) => {
                self.dragged = event.column;
                let tab = self.tabs.iter().find(|t| t.0.contains(&event.column));
                if let Some((_, page)) = tab.filter(|_| event.row == 1) {
                    self.go_to(*page);
                }
            }
            MouseEventKind::Drag(MouseButton::Left) => {
                let moved = f64::from(self.dragged) - f64::from(event.column);
                self.dragged = event.column;
                self.pan(moved / 80.0);
            }
            _ => {}
        }
        Vec::new()
    }

    /// What the next start should look like.
    pub(super) fn layout(&self) -> Layout {
        Layout {
            page: self.page,
            filter: self.view.filter.clone(),
            x: self.view.x_unit,
            log: self.view.log_y,
            smoothing: self.view.smoothing,
            cursor: self.view.cursor,
            second: self.view.second,
            theme: self.palette.theme,
            marker: self.palette.marker,
        }
    }

    /// Looks as it did.
    pub(super) fn restore(&mut self, layout: Layout) {
        self.view.filter = layout.filter;
        self.view.x_unit = layout.x;
        self.view.log_y = layout.log;
        self.view.smoothing = layout.smoothing;
        (self.view.cursor, self.view.second) = (layout.cursor, layout.second);
        self.palette.theme = layout.theme;
        if self.palette.marker != Marker::Ascii {
            self.palette.marker = layout.marker;
        }
        self.go_to(layout.page);
    }
}

/// How the workbench looked when it was left; in the runs folder.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Layout {
    page: Page,
    filter: String,
    x: XUnit,
    log: bool,
    smoothing: f64,
    cursor: Option<f64>,
    second: Option<f64>,
    theme: Theme,
    marker: Marker,
}

/// The newest step rounded up to a sixteenth to a thirty-second of the span.
fn ahead(newest: f64, span: f64) -> f64 {
    let lot = (span.max(1.0).log2().floor() - 4.0).max(0.0).exp2();
    (newest / lot).ceil() * lot
}

/// The selected run's experiment against the current one, key by key.
fn comparison(current: &Experiment, folder: &RunFolder, manifest: &Manifest) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(reason) = &manifest.reason {
        lines.push(format!("failed: {reason}"));
    }
    if let Some(parent) = &manifest.parent {
        lines.push(format!("forked from {parent}"));
    }
    let text = match std::fs::read_to_string(folder.experiment()) {
        Ok(text) => text,
        Err(error) => {
            lines.push(format!("its experiment cannot be read: {error}"));
            return lines;
        }
    };
    match resolve_text("experiment.toml", &text) {
        Ok(other) => {
            let changes = difference(&current.values, &other.values);
            if changes.is_empty() {
                lines.push("the same experiment as the current one".into());
            }
            lines.extend(changes.iter().map(|c| format!("{c}  ({})", c.class.name())));
        }
        Err(error) => lines.push(format!("its experiment cannot be read: {error}")),
    }
    lines
}

/// What the terminal can show, by its environment.
fn palette_of_terminal() -> Palette {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let no_colour = !variable("NO_COLOR").is_empty() || variable("TERM") == "dumb";
    let true_colour = matches!(variable("COLORTERM").as_str(), "truecolor" | "24bit");
    let colours = match (no_colour, true_colour) {
        (true, _) => Colours::None,
        (_, true) => Colours::True,
        _ => Colours::Sixteen,
    };
    let utf8 = ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .map(|n| variable(n))
        .find(|v| !v.is_empty());
    let ascii = matches!(utf8.as_deref(), Some("C" | "POSIX"));
    let marker = if ascii {
        Marker::Ascii
    } else {
        Marker::Braille
    };
    Palette {
        colours,
        theme: Theme::Dark,
        marker,
    }
}
