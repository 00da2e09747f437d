//! What the workbench knows, and how it changes.

mod edit;
mod editing;
mod input;
mod layers;
mod look;
mod notices;
mod page;
mod runs;
mod shown;
mod zoom;

use std::path::PathBuf;
use std::time::Instant;

use super::keymap::Action;
use super::microscope::Microscope;
use super::system::System;
use super::toy::Toy;
use crate::experiment::Loaded;
use crate::export::Format;
use crate::figure::terminal::Palette;
use crate::figure::{Saved, View};
use crate::run::{Command, RunFolder, Severity};

pub(super) use editing::{Editing, Pending};
pub(super) use layers::{EXPORT, Layer, Layers, Typed};
pub(super) use look::Finding;
pub(super) use notices::Notices;
pub(super) use page::{Order, Page, Paper};
pub(super) use runs::{Group, Runs};
pub(super) use shown::{Role, Shown};
use zoom::Zoom;

/// What lies over the page.
#[derive(Debug, Clone)]
pub(super) enum Overlay {
    Help,
    /// What is wrong with the experiment file.
    Diagnostic,
    /// Quit while training?
    ConfirmQuit,
    /// A new run from this step's checkpoint?
    ConfirmFork {
        loaded: Box<Loaded>,
        /// `None`: where the run stops.
        step: Option<u64>,
    },
    /// Changes that need a new run, waiting for a decision.
    ConfirmNewRun(Box<Pending>),
    /// Remove a recorded run with everything in it?
    ConfirmDelete {
        folder: RunFolder,
        steps: u64,
    },
}

/// What the app asks the workbench to do.
#[derive(Debug)]
pub(super) enum Effect {
    Quit,
    Send(Command),
    NewRun {
        loaded: Box<Loaded>,
        fork: bool,
    },
    /// Leave the run to a process of its own.
    Detach,
    /// A new run with the settings in force, from the checkpoint at or before a step.
    Fork {
        loaded: Box<Loaded>,
        /// `None`: from the newest checkpoint.
        step: Option<u64>,
    },
    ExportFigure(Saved),
    /// Write the plots of a page that no log draws again: of a checkpoint, of runs, of the toy.
    ExportPicture,
    ExportScreen,
    /// Write a run's network for other programs.
    ExportNetwork(RunFolder, Format),
    /// Show a recorded run instead of the current one.
    Open(RunFolder),
    /// Show the newest exported picture.
    Preview,
    /// Paint every cell anew: pixels lay over them.
    Repaint,
    /// Take the mouse, or give it back to the terminal.
    Mouse(bool),
    Suspend,
}

/// State of the workbench.
pub(super) struct App {
    pub page: Page,
    /// The run on the screen.
    pub shown: Shown,
    pub view: View,
    pub palette: Palette,
    /// What lies over the page.
    pub layers: Layers,
    /// Whether wheel, drags and clicks come here; else the terminal selects text with them.
    pub mouse_is_taken: bool,
    /// Column where the mouse was last.
    dragged: u16,
    pub selected: usize,
    pub scroll: usize,
    pub runs_root: PathBuf,
    /// Recorded runs, as their page lists them.
    pub runs: Runs,
    pub toy: Toy,
    pub microscope: Microscope,
    pub system: System,
    /// What exported figures are made for.
    pub paper: Paper,
    /// Width of the screen, which says where tabs are.
    pub width: u16,
    /// The plot of the page that fills the screen.
    pub expanded: Option<usize>,
    /// The experiment: its file, and how it changes.
    pub editing: Editing,
    /// What the bottom line and the log page say.
    pub notices: Notices,
    /// Which steps are visible.
    zoom: Zoom,
}

impl App {
    pub(super) fn new(
        loaded: &Loaded,
        file: Option<PathBuf>,
        folder: RunFolder,
        runs_root: PathBuf,
        set: Vec<String>,
    ) -> Self {
        Self {
            page: Page::Overview,
            shown: Shown::new(folder),
            view: View::default(),
            palette: look::palette_of_terminal(),
            layers: Layers::default(),
            mouse_is_taken: true,
            dragged: 0,
            selected: 0,
            scroll: 0,
            runs_root,
            runs: Runs::default(),
            toy: Toy::default(),
            microscope: Microscope::default(),
            system: System::default(),
            paper: Paper::default(),
            width: 80,
            expanded: None,
            editing: Editing::new(loaded, file, set),
            notices: Notices::default(),
            zoom: Zoom::default(),
        }
    }

    /// Switches to a new run.
    pub(super) fn adopt(&mut self, loaded: &Loaded, folder: RunFolder) {
        self.shown.adopt(folder);
        self.editing.adopt(loaded);
        self.zoom.follow();
        (self.view.cursor, self.view.second) = (None, None);
        self.microscope = Microscope::default();
    }

    /// Reads the history back from the log.
    pub(super) fn load_history(&mut self) {
        if let Err(error) = self.shown.read_back() {
            self.warn(error.to_string());
        }
    }

    /// Lays a question, or something to read, over the page.
    fn ask(&mut self, overlay: Overlay) {
        self.layers.put(Layer::Overlay(overlay));
    }

    pub(super) fn tell(&mut self, text: String) {
        self.say(Severity::Info, text);
    }

    pub(super) fn warn(&mut self, text: String) {
        self.say(Severity::Warning, text);
    }

    fn say(&mut self, severity: Severity, text: String) {
        self.shown
            .history
            .say(self.shown.history.step(), severity, text.clone());
        self.notices.message = Some((Instant::now(), severity, text));
    }

    /// What `F` does: a question, since it ends the run on the screen.
    fn fork_here(&mut self) -> Vec<Effect> {
        if self.shown.role != Role::Training {
            let run = self.shown.folder.path().display();
            let text = format!(
                "another process trains this run: `bitscope fork {run}` starts one from it"
            );
            self.warn(text);
            return Vec::new();
        }
        let loaded = Box::new(self.editing.current.clone());
        if self.view.cursor.is_none() && self.shown.history.end.is_none() {
            // The run is stopped first, which leaves a checkpoint there.
            self.ask(Overlay::ConfirmFork { loaded, step: None });
            return Vec::new();
        }
        let step = self
            .view
            .cursor
            .map_or(self.shown.history.step(), |c| c as u64);
        match crate::face::checkpoint::checkpoint_at(&self.shown.folder, Some(step)).0 {
            Some((at, _)) => {
                let step = Some(at);
                self.ask(Overlay::ConfirmFork { loaded, step });
            }
            None => self.warn(format!("no checkpoint at or before step {step}")),
        }
        Vec::new()
    }

    pub(super) fn perform(&mut self, action: Action) -> Vec<Effect> {
        if self.shown.role == Role::Watching && action.steers() {
            self.warn(
                "this run is only looked at here; `bitscope attach` steers one that trains".into(),
            );
            return Vec::new();
        }
        match action {
            Action::Fork => return self.fork_here(),
            Action::GoTo(page) => self.go_to(page),
            Action::NextPage => self.go_to(self.page.step(1)),
            Action::PreviousPage => self.go_to(self.page.step(Page::ALL.len() - 1)),
            Action::Pause if self.shown.history.paused => {
                return vec![Effect::Send(Command::Resume)];
            }
            Action::Pause => return vec![Effect::Send(Command::Pause)],
            Action::SingleStep => return vec![Effect::Send(Command::Step(1))],
            Action::Checkpoint => return vec![Effect::Send(Command::CheckpointNow)],
            Action::Undo => return self.undo(),
            Action::AskAgain => return self.ask_again(),
            Action::Filter if self.page == Page::Runs => {
                self.layers.put(Layer::Filter(self.runs.filter.clone()));
            }
            Action::Filter => self.layers.put(Layer::Filter(self.view.filter.clone())),
            Action::Palette => self.layers.put(Layer::Palette(Typed::default())),
            Action::Sort => {
                self.runs.order = self.runs.order.next();
                self.tell(format!("runs: {}", self.runs.order.name()));
                self.keep_selected_run(Self::list_runs);
            }
            Action::Overlay if self.page == Page::Runs => self.toggle_overlay(),
            Action::Delete if self.page == Page::Runs => self.ask_to_delete(),
            Action::NextStudy => {
                if self.page != Page::Runs {
                    self.go_to(Page::Runs);
                }
                self.next_study();
            }
            Action::Overlay | Action::Delete => {
                self.tell("that works only on page 0, the runs".into())
            }
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
                    (None, cursor) => cursor.or(Some(self.shown.history.step() as f64)),
                };
            }
            Action::Down => self.move_selection(1),
            Action::Up => self.move_selection(-1),
            Action::First => self.move_selection(isize::MIN / 2),
            Action::Last => self.move_selection(isize::MAX / 2),
            Action::Open if self.page == Page::Runs => return self.open_run(),
            Action::Open => self.open_layer(),
            Action::ZoomIn => self.zoom.by(0.5, &self.shown.history),
            Action::ZoomOut => self.zoom.by(2.0, &self.shown.history),
            Action::PanLeft => self.zoom.pan(-0.25, &self.shown.history),
            Action::PanRight => self.zoom.pan(0.25, &self.shown.history),
            Action::ZoomInY => self.view.y_zoom = (self.view.y_zoom / 1.5).max(1e-3),
            Action::ZoomOutY => self.view.y_zoom = (self.view.y_zoom * 1.5).min(100.0),
            Action::Fit => {
                // Where all that matters is shown already, the rest is asked for.
                if !self.zoom.is_zoomed() && self.view.y_zoom == 1.0 {
                    self.zoom.turn_whole();
                }
                self.zoom.follow();
                self.view.y_zoom = 1.0;
            }
            Action::CursorLeft => self.move_cursor(-1.0),
            Action::CursorRight => self.move_cursor(1.0),
            Action::CursorOff => (self.view.cursor, self.view.second) = (None, None),
            Action::Logarithmic => self.view.log_y = !self.view.log_y,
            Action::Fold if self.page == Page::Runs => self.group_runs(),
            Action::Fold => {
                let chosen = self.selected_layer().map(|(i, _)| i);
                self.view.fold = self.view.fold.next();
                self.selected = chosen
                    .and_then(|i| self.listed().iter().position(|r| r.members.contains(&i)))
                    .unwrap_or(0);
                self.tell(self.view.fold.words().into());
            }
            Action::ByLayer => {
                self.view.by_layer = self.view.by_layer.next();
                self.tell(self.view.by_layer.words().into());
            }
            Action::Severity => {
                self.notices.raise();
                self.selected = 0;
            }
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
            Action::Mouse => {
                self.mouse_is_taken = !self.mouse_is_taken;
                self.tell(if self.mouse_is_taken {
                    "the mouse zooms, pans and chooses pages".into()
                } else {
                    "the mouse selects text, as the terminal does; M takes it again".into()
                });
                return vec![Effect::Mouse(self.mouse_is_taken)];
            }
            Action::ExportScreen => return vec![Effect::ExportScreen],
            Action::ExportNetwork => {
                self.layers.put(Layer::Palette(Typed {
                    text: EXPORT.into(),
                    chosen: 0,
                }));
            }
            Action::Preview => return vec![Effect::Preview],
            Action::Diagnostic => {
                if self.editing.diagnostics.is_some() {
                    self.ask(Overlay::Diagnostic);
                } else {
                    let text = self.editing.unread.clone();
                    self.tell(text.unwrap_or("the experiment file is valid".into()));
                }
            }
            Action::Help => {
                self.scroll = 0;
                self.ask(Overlay::Help);
            }
            Action::Back if self.expanded.is_some() => self.expanded = None,
            Action::Back => {
                if self.page == Page::Runs && !self.runs.filter.is_empty() {
                    self.runs.filter.clear();
                    self.list_runs();
                } else {
                    self.view.filter.clear();
                }
                self.layers.take_overlay();
            }
            Action::Suspend => return vec![Effect::Suspend],
            Action::Detach
                if self.shown.role == Role::Training && self.shown.history.end.is_none() =>
            {
                return vec![Effect::Detach];
            }
            Action::Detach if self.shown.role == Role::Training => {
                self.warn("the run has ended".into());
            }
            Action::Detach if self.shown.role == Role::Watching => {
                self.warn("this run is only looked at; `q` quits".into());
            }
            Action::Detach => return vec![Effect::Quit],
            Action::Quit
                if self.shown.role != Role::Training || self.shown.history.end.is_some() =>
            {
                return vec![Effect::Quit];
            }
            Action::Quit => self.ask(Overlay::ConfirmQuit),
        }
        Vec::new()
    }

    pub(super) fn go_to(&mut self, page: Page) {
        self.page = page;
        self.expanded = None;
        self.selected = 0;
        match page {
            Page::Runs => self.list_runs(),
            Page::Microscope => self.microscope.refresh(&self.shown.folder),
            Page::Toy => {
                if let Err(error) = self.toy.start() {
                    self.warn(format!("the toy cannot be computed: {error}"));
                }
            }
            _ => {}
        }
    }
}
