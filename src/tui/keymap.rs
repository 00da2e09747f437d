//! What keys do: the one table behind dispatch, help and the key bar.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::app::Page;

/// Something a key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    GoTo(Page),
    NextPage,
    PreviousPage,
    Pause,
    SingleStep,
    Checkpoint,
    Filter,
    Down,
    Up,
    First,
    Last,
    Open,
    ZoomIn,
    ZoomOut,
    PanLeft,
    PanRight,
    ZoomInY,
    ZoomOutY,
    Fit,
    CursorLeft,
    CursorRight,
    CursorOff,
    SecondCursor,
    Expand,
    Fold,
    ByLayer,
    Severity,
    Palette,
    Overlay,
    Delete,
    NextStudy,
    Sort,
    EarlierCheckpoint,
    LaterCheckpoint,
    Logarithmic,
    Smooth,
    Unit,
    ExportFigure,
    ExportScreen,
    ExportNetwork,
    Preview,
    Mouse,
    Diagnostic,
    Undo,
    AskAgain,
    Fork,
    Detach,
    Help,
    Quit,
    Suspend,
    Back,
}

impl Action {
    /// Whether it is for who trains the run or steers it.
    pub(super) fn steers(self) -> bool {
        matches!(
            self,
            Self::Pause
                | Self::SingleStep
                | Self::Checkpoint
                | Self::Undo
                | Self::AskAgain
                | Self::Fork
        )
    }

    /// What it is called in the command palette.
    pub(super) fn name(self) -> String {
        let name = match self {
            Self::GoTo(page) => return format!("go {}", page.title()),
            Self::NextPage => "next page",
            Self::PreviousPage => "previous page",
            Self::Pause => "pause",
            Self::SingleStep => "single step",
            Self::Checkpoint => "checkpoint",
            Self::Filter => "filter",
            Self::Down => "down",
            Self::Up => "up",
            Self::First => "first",
            Self::Last => "last",
            Self::Open => "open",
            Self::ZoomIn => "zoom in",
            Self::ZoomOut => "zoom out",
            Self::PanLeft => "pan left",
            Self::PanRight => "pan right",
            Self::ZoomInY => "zoom in y",
            Self::ZoomOutY => "zoom out y",
            Self::Fit => "fit",
            Self::CursorLeft => "cursor left",
            Self::CursorRight => "cursor right",
            Self::CursorOff => "cursor off",
            Self::SecondCursor => "second cursor",
            Self::Expand => "expand",
            Self::Fold => "fold",
            Self::ByLayer => "by layer",
            Self::Severity => "severity",
            Self::Palette => "palette",
            Self::Overlay => "overlay",
            Self::Delete => "delete",
            Self::NextStudy => "next study",
            Self::Sort => "sort",
            Self::EarlierCheckpoint => "earlier checkpoint",
            Self::LaterCheckpoint => "later checkpoint",
            Self::Logarithmic => "logarithmic",
            Self::Smooth => "smooth",
            Self::Unit => "unit",
            Self::ExportFigure => "export figure",
            Self::ExportScreen => "export screen",
            Self::ExportNetwork => "export network",
            Self::Preview => "preview",
            Self::Mouse => "mouse",
            Self::Diagnostic => "diagnostic",
            Self::Undo => "undo",
            Self::AskAgain => "ask again",
            Self::Fork => "fork",
            Self::Detach => "detach",
            Self::Help => "help",
            Self::Quit => "quit",
            Self::Suspend => "suspend",
            Self::Back => "back",
        };
        name.to_owned()
    }
}

/// One binding.
#[derive(Debug, Clone, Copy)]
pub(super) struct Binding {
    pub code: KeyCode,
    pub modifiers: KeyModifiers,
    pub action: Action,
    /// Group in the help.
    pub group: &'static str,
    /// What it does.
    pub help: &'static str,
    /// Word in the key bar; empty for bindings that only the help shows.
    pub bar: &'static str,
}

const NONE: KeyModifiers = KeyModifiers::NONE;

macro_rules! bind {
    ($code:expr, $action:expr, $group:literal, $help:literal, $bar:literal) => {
        Binding {
            code: $code,
            modifiers: NONE,
            action: $action,
            group: $group,
            help: $help,
            bar: $bar,
        }
    };
}

use Action::*;
use KeyCode::{BackTab, Char, Enter, Esc, Tab};

/// Every binding. Several keys may do one thing; the first is the one the help names first.
#[rustfmt::skip]
pub(super) const KEYMAP: &[Binding] = &[
    bind!(Char('1'), GoTo(Page::Overview), "pages", "overview: losses, error, memory, bitwidths", ""),
    bind!(Char('2'), GoTo(Page::Layers), "pages", "layers: every quantizer's numbers", ""),
    bind!(Char('3'), GoTo(Page::Bitwidths), "pages", "bitwidths: bars, and layers x steps", ""),
    bind!(Char('4'), GoTo(Page::Ranges), "pages", "step size and range over steps", ""),
    bind!(Char('5'), GoTo(Page::Gradients), "pages", "gradient norms over steps", ""),
    bind!(Char('6'), GoTo(Page::Plane), "pages", "plane: step size and range over the diagonals of equal bitwidth", ""),
    bind!(Char('7'), GoTo(Page::Memory), "pages", "memory: kB per layer, effect of the penalties", ""),
    bind!(Char('8'), GoTo(Page::Microscope), "pages", "microscope: one layer's weights or activations over their quantization levels", ""),
    bind!(Char('9'), GoTo(Page::Verdicts), "pages", "verdicts: what the detectors found", ""),
    bind!(Char('0'), GoTo(Page::Runs), "pages", "recorded runs: sort, compare, draw behind this one", ""),
    bind!(Char('S'), GoTo(Page::System), "pages", "system: time of a step, CPU, memory", ""),
    bind!(Char('L'), GoTo(Page::Log), "pages", "log: every message, with the time of training", ""),
    bind!(Char('T'), GoTo(Page::Toy), "pages", "toy: how the parametrizations converge", ""),
    bind!(Tab, NextPage, "pages", "next page", "page"),
    bind!(BackTab, PreviousPage, "pages", "previous page", ""),
    bind!(Char(' '), Pause, "training", "pause or resume", "pause"),
    bind!(Char('n'), SingleStep, "training", "take one step, then pause", "step"),
    bind!(Char('c'), Checkpoint, "training", "write a checkpoint now", ""),
    bind!(Char('u'), Undo, "training", "undo the last change to the experiment (also in the file)", ""),
    bind!(Char('a'), AskAgain, "training", "ask again about the change that was declined", ""),
    bind!(Char('F'), Fork, "training", "fork: a new run from the checkpoint at or before the cursor (or from here)", ""),
    bind!(Char('D'), Detach, "training", "detach: the run goes on in a process of its own and frees the terminal (attach returns to it)", ""),
    bind!(Char(':'), Palette, "training", "command palette: every action by name, `set KEY VALUE` and `unset KEY` for the experiment", "command"),
    bind!(Char('/'), Filter, "looking", "filter layers by name or role, runs by name (Esc clears)", "filter"),
    bind!(Char('j'), Down, "looking", "next row", "next"),
    bind!(KeyCode::Down, Down, "looking", "next row", ""),
    bind!(Char('k'), Up, "looking", "previous row", ""),
    bind!(KeyCode::Up, Up, "looking", "previous row", ""),
    bind!(Char('g'), First, "looking", "first row", ""),
    bind!(KeyCode::Home, First, "looking", "first row", ""),
    bind!(Char('G'), Last, "looking", "last row", ""),
    bind!(KeyCode::End, Last, "looking", "last row", ""),
    bind!(Enter, Open, "looking", "show only this layer or stage in the plots, again: all; open a verdict's evidence or another run", "open"),
    bind!(Char('+'), ZoomIn, "plots", "zoom in over steps", "zoom"),
    bind!(Char('='), ZoomIn, "plots", "zoom in over steps", ""),
    bind!(Char('-'), ZoomOut, "plots", "zoom out over steps", ""),
    bind!(KeyCode::Left, PanLeft, "plots", "pan to earlier steps", ""),
    bind!(KeyCode::Right, PanRight, "plots", "pan to later steps", ""),
    bind!(Char('}'), ZoomInY, "plots", "zoom in on values", ""),
    bind!(Char('{'), ZoomOutY, "plots", "zoom out on values", ""),
    bind!(Char('f'), Fit, "plots", "fit and follow the newest step; again: include or leave out the float phase", "fit"),
    bind!(Char(','), CursorLeft, "plots", "cursor to earlier steps (all plots)", ""),
    bind!(Char('.'), CursorRight, "plots", "cursor to later steps (all plots)", ""),
    bind!(Char('v'), SecondCursor, "plots", "second cursor here: readings become differences; again: off", ""),
    bind!(Char('o'), CursorOff, "plots", "cursors off", ""),
    bind!(Char('e'), Expand, "plots", "expand a plot to the whole page, then the next", "expand"),
    bind!(Char('z'), Fold, "looking", "fold rows: every quantizer, stages, kinds; verdicts by kind; runs by experiment", "fold"),
    bind!(Char('h'), ByLayer, "plots", "per-layer plots: automatic, always lines, always heat maps", "lines/heat"),
    bind!(Char('w'), Severity, "looking", "log page: everything, warnings and errors, errors only", "severity"),
    bind!(Char('['), EarlierCheckpoint, "looking", "microscope: an earlier checkpoint", "earlier"),
    bind!(Char(']'), LaterCheckpoint, "looking", "microscope: a later checkpoint", "later"),
    bind!(Char('m'), Overlay, "looking", "runs: draw the selected run behind this one, or remove it; as many as you like", "draw behind"),
    bind!(Char('r'), Sort, "looking", "runs: sort by time, error or kB", "sort"),
    bind!(Char('R'), NextStudy, "looking", "runs: show the next study beside the runs folder, a row for every cell", "studies"),
    bind!(KeyCode::Delete, Delete, "looking", "runs: remove the selected run, after confirmation", ""),
    bind!(Char('l'), Logarithmic, "plots", "logarithmic or linear values", "log"),
    bind!(Char('s'), Smooth, "plots", "smoothing: off, light, strong; the raw band stays", "smooth"),
    bind!(Char('t'), Unit, "plots", "x axis: steps, epochs, seconds or samples", ""),
    bind!(Char('x'), ExportFigure, "export", "export this page's plots: PNG, SVG, PDF, CSV, and TOML that draws them again", "export"),
    bind!(Char('X'), ExportScreen, "export", "export the screen as PNG and SVG", ""),
    bind!(Char('E'), ExportNetwork, "export", "export the network for other programs: this run's, or on page 0 the selected one's", ""),
    bind!(Char('p'), Preview, "export", "show the newest exported picture here; any key closes it", ""),
    bind!(Char('M'), Mouse, "messages", "give the mouse to the terminal, to select text, or take it back", ""),
    bind!(Char('d'), Diagnostic, "messages", "show what is wrong with the experiment file", ""),
    bind!(Char('?'), Help, "messages", "this help", "help"),
    bind!(Esc, Back, "messages", "close, clear the filter", ""),
    bind!(Char('q'), Quit, "messages", "quit (the run can be resumed)", "quit"),
    Binding { code: Char('z'), modifiers: KeyModifiers::CONTROL, action: Suspend, group: "messages", help: "suspend; fg comes back", bar: "" },
    Binding { code: Char('c'), modifiers: KeyModifiers::CONTROL, action: Quit, group: "messages", help: "quit", bar: "" },
];

/// What a key does.
pub(super) fn action(key: KeyEvent) -> Option<Action> {
    let modifiers = key.modifiers - KeyModifiers::SHIFT;
    KEYMAP
        .iter()
        .find(|b| b.code == key.code && b.modifiers == modifiers)
        .map(|b| b.action)
}

impl Binding {
    /// The key as people write it.
    pub(super) fn key(&self) -> String {
        let name = match self.code {
            Char(' ') => "Space".into(),
            Char(c) => c.to_string(),
            KeyCode::Left => "←".into(),
            KeyCode::Right => "→".into(),
            KeyCode::Up => "↑".into(),
            KeyCode::Down => "↓".into(),
            BackTab => "Shift-Tab".into(),
            other => other.to_string(),
        };
        if self.modifiers == KeyModifiers::CONTROL {
            format!("Ctrl-{}", name.to_uppercase())
        } else {
            name
        }
    }
}

/// The keys as Markdown, for the README; a test compares them.
impl Page {
    /// Whether an action does something on this page.
    pub(super) fn takes(self, action: Action) -> bool {
        match action {
            Action::Fold => matches!(
                self,
                Self::Overview
                    | Self::Layers
                    | Self::Bitwidths
                    | Self::Ranges
                    | Self::Gradients
                    | Self::Memory
                    | Self::Verdicts
                    | Self::Runs
            ),
            Action::ByLayer => matches!(self, Self::Ranges | Self::Gradients),
            Action::Severity => self == Self::Log,
            Action::Sort | Action::Overlay | Action::NextStudy => self == Self::Runs,
            Action::EarlierCheckpoint | Action::LaterCheckpoint => self == Self::Microscope,
            Action::Down => !matches!(self, Self::Overview | Self::System | Self::Memory),
            Action::Open => !matches!(
                self,
                Self::Overview | Self::System | Self::Log | Self::Toy | Self::Microscope
            ),
            Action::ExportFigure => !self.figures().is_empty() || self.has_pictures(),
            Action::Logarithmic | Action::Smooth => matches!(
                self,
                Self::Overview | Self::Ranges | Self::Gradients | Self::Memory
            ),
            Action::Expand => !self.plots().is_empty(),
            Action::ZoomIn | Action::Fit => self.plots().iter().any(|p| p.0.is_over_steps()),
            Action::Filter => {
                !matches!(self, Self::Verdicts | Self::System | Self::Log | Self::Toy)
            }
            _ => true,
        }
    }

    /// Whether an action is what the page is for: named first in the key bar.
    pub(super) fn is_own(self, action: Action) -> bool {
        match action {
            Action::Fold
            | Action::ByLayer
            | Action::Severity
            | Action::Sort
            | Action::Overlay
            | Action::NextStudy
            | Action::EarlierCheckpoint
            | Action::LaterCheckpoint => true,
            Action::Down | Action::Open => {
                !matches!(self, Self::Ranges | Self::Gradients | Self::Plane)
            }
            Action::ZoomIn | Action::Fit | Action::Expand => self == Self::Overview,
            _ => false,
        }
    }
}

#[cfg(test)]
pub(super) fn markdown() -> String {
    let mut out = String::from("| key | does |\n|---|---|\n");
    let mut done: Vec<Action> = Vec::new();
    for binding in KEYMAP {
        if done.contains(&binding.action) {
            continue;
        }
        done.push(binding.action);
        let same = KEYMAP.iter().filter(|b| b.action == binding.action);
        let keys: Vec<String> = same.map(|b| format!("`{}`", b.key())).collect();
        out += &format!("| {} | {} |\n", keys.join(" "), binding.help);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_means_two_things() {
        for (i, a) in KEYMAP.iter().enumerate() {
            for b in &KEYMAP[i + 1..] {
                assert!(
                    a.code != b.code || a.modifiers != b.modifiers,
                    "{}",
                    a.key()
                );
            }
        }
    }

    #[test]
    fn the_readme_lists_the_keys() {
        let readme = include_str!("../../README.md");
        assert!(
            readme.contains(&markdown()),
            "README.md should contain:\n{}",
            markdown()
        );
    }
}
