//! What is looked at: selection, zoom, cursors; and how the look is kept.

use std::path::PathBuf;

use super::super::view::STAYS;
use super::page::Paper;
use super::{App, Effect, Page};
use crate::figure::terminal::{Colours, Marker, Palette};
use crate::figure::{ByLayer, Fold, Name, Row, Saved, Theme, View, XUnit, panel_count, rows};
use crate::quantizer::Parametrization;
use crate::run::{History, LayerHistory, LayerRecord, Message, Verdict, VerdictKind};

impl App {
    /// The layers that the filter lets through, as rows: one by one or folded.
    pub(in crate::tui) fn listed(&self) -> Vec<Row> {
        rows(&self.shown.history, &self.view)
    }

    /// Rows that the selection moves over on this page.
    pub(in crate::tui) fn rows(&self) -> usize {
        match self.page {
            Page::Runs => self.runs.rows(),
            Page::Log => self.messages().count(),
            Page::Toy => Parametrization::ALL.len(),
            Page::Verdicts => self.verdicts().len(),
            _ => self.listed().len(),
        }
    }

    /// The chosen row: the selection, as far as there are rows.
    pub(in crate::tui) fn selection(&self) -> usize {
        self.selected.min(self.rows().saturating_sub(1))
    }

    /// Messages that are severe enough to be asked for.
    pub(in crate::tui) fn messages(&self) -> impl DoubleEndedIterator<Item = &Message> {
        let messages = self.shown.history.messages.iter();
        messages.filter(|m| m.severity >= self.notices.least)
    }

    pub(super) fn move_selection(&mut self, by: isize) {
        let last = self.rows().saturating_sub(1);
        self.selected = self.selected.min(last).saturating_add_signed(by).min(last);
        if self.page == Page::Runs {
            self.compare();
        }
    }

    /// Narrows every plot to the selected layer, or widens it again.
    pub(super) fn open_layer(&mut self) {
        match self.page {
            Page::Verdicts => return self.open_verdict(),
            Page::Log | Page::Toy | Page::System | Page::Microscope | Page::Runs => return,
            _ => {}
        }
        if !self.view.filter.is_empty() {
            self.view.filter.clear();
            return;
        }
        let rows = self.listed();
        let Some(row) = rows.get(self.selection()) else {
            return;
        };
        // A stage is its names' beginning; what else begins like it is not meant.
        let inside = format!("{}.", row.label);
        let names = row
            .members
            .iter()
            .map(|m| &self.shown.history.layers[*m].info.name);
        let is_stage = names.clone().all(|n| n.starts_with(&inside));
        self.view.filter = match is_stage {
            true => inside,
            false => View::exactly(&row.label),
        };
        self.selected = 0;
        if self.view.fold == Fold::Layers && matches!(self.page, Page::Layers | Page::Bitwidths) {
            self.page = Page::Ranges;
        }
        self.view.fold = Fold::Layers;
    }

    /// Goes where the evidence of the selected verdict is seen: that layer, at that step.
    pub(super) fn open_verdict(&mut self) {
        let verdicts = self.verdicts();
        let Some(Finding { verdict, .. }) = verdicts.get(self.selection()) else {
            return;
        };
        let (kind, layer, since) = (verdict.kind, verdict.layer, verdict.since);
        let name = layer
            .and_then(|l| self.shown.history.layers.get(l))
            .map_or(String::new(), |l| View::exactly(&l.info.name));
        self.go_to(match kind {
            VerdictKind::Exploding | VerdictKind::Vanishing => Page::Gradients,
            VerdictKind::Frozen | VerdictKind::AtClamp => Page::Plane,
            VerdictKind::Oscillating => Page::Bitwidths,
            VerdictKind::PenaltyDrowns => Page::Memory,
            VerdictKind::NonFinite => Page::Overview,
            VerdictKind::AllZero
            | VerdictKind::Dead
            | VerdictKind::Saturated
            | VerdictKind::RangeUnreached => Page::Ranges,
        });
        self.view.filter = name;
        self.view.cursor = Some(since as f64);
    }

    /// Verdicts as the page lists them, with how often each was found and in how many layers: one row
    /// for each layer's, or for each kind where rows are folded.
    pub(in crate::tui) fn verdicts(&self) -> Vec<Finding<'_>> {
        let mut found: Vec<Finding<'_>> = Vec::new();
        for (verdict, times) in self.shown.history.verdicts.grouped() {
            let alike = |f: &&mut Finding<'_>| {
                let stands = |v: &Verdict| v.until.is_none();
                f.verdict.kind == verdict.kind && stands(f.verdict) == stands(verdict)
            };
            let same = found.iter_mut().find(alike);
            match same.filter(|_| self.view.fold != Fold::Layers) {
                Some(same) => {
                    same.times += times;
                    same.layers += 1;
                }
                None => found.push(Finding {
                    verdict,
                    times,
                    layers: 1,
                }),
            }
        }
        found
    }

    pub(super) fn move_cursor(&mut self, direction: f64) {
        let (from, to) = self.visible();
        let step = ((to - from) / 100.0).max(1.0).round();
        let to = to.min(self.shown.history.step() as f64);
        let at = self.view.cursor.unwrap_or(to) + direction * step;
        // On a step: what is read there is one record's.
        self.view.cursor = Some(at.clamp(from.min(to), to).floor());
    }

    /// Visible steps.
    pub(in crate::tui) fn visible(&self) -> (f64, f64) {
        self.zoom.visible(&self.shown.history)
    }

    /// Whole steps that are visible.
    fn visible_steps(&self) -> (u64, u64) {
        let (from, to) = self.visible();
        (from.max(0.0) as u64, to.max(0.0).ceil() as u64)
    }

    /// Asks for older detail where the plots would show less than was recorded, and for what stands on
    /// the cursors; `true` if the screen changes.
    pub(in crate::tui) fn look_closely(&mut self) -> bool {
        let steps = self.visible_steps();
        let cursors = [self.view.cursor, self.view.second].into_iter().flatten();
        let cursors = cursors.map(|c| c.max(0.0) as u64);
        match self.shown.look_closely(steps, CLOSE, cursors) {
            Ok(changed) => changed,
            Err(text) => {
                self.warn(text);
                true
            }
        }
    }

    /// Sees to it that a frame has what it shows: painting itself changes nothing.
    pub(in crate::tui) fn prepare(&mut self, width: u16) {
        self.width = width;
        if self.page == Page::Microscope
            && let Some((index, layer)) = self.selected_layer()
        {
            let info = layer.info.clone();
            self.microscope.look(index, &info);
        }
    }

    /// Whether a message has been on the bottom line for long enough: once for each.
    pub(in crate::tui) fn message_is_over(&mut self) -> bool {
        self.notices.is_over(STAYS)
    }

    /// The run as a plot should see it: with older detail where it was read back from the log.
    pub(in crate::tui) fn history_for(&self, name: Name) -> &History {
        let steps = self.visible_steps();
        (self.shown.close(steps))
            .filter(|_| name.is_over_steps())
            .unwrap_or(&self.shown.history)
    }

    /// The view for a plot with so many columns and rows.
    pub(in crate::tui) fn view_for(&self, columns: u16, rows: u16) -> View {
        View {
            rows: Some(usize::from(rows)),
            x_range: Some(self.visible()),
            resolution: usize::from(columns).max(1) * 2,
            selected: self.selected_layer().map(|(i, _)| i),
            ..self.view.clone()
        }
    }

    /// The chosen one of the layers that the filter lets through, or the first of the chosen stage, with
    /// its place among all.
    pub(in crate::tui) fn selected_layer(&self) -> Option<(usize, &LayerHistory)> {
        let rows = self.listed();
        let chosen = self.selected.min(rows.len().saturating_sub(1));
        let place = *rows.get(chosen)?.members.first()?;
        Some((place, &self.shown.history.layers[place]))
    }

    /// A quantizer at the cursor, or now.
    pub(in crate::tui) fn layer_record(&self, layer: &LayerHistory) -> Option<LayerRecord> {
        match self.view.cursor {
            Some(step) => layer.at(step.max(0.0) as u64),
            None => layer.newest,
        }
    }

    pub(super) fn export(&mut self) -> Vec<Effect> {
        let names = self.page.figures();
        if self.page.has_pictures() {
            return vec![Effect::ExportPicture];
        }
        if names.is_empty() {
            self.tell("this page has no plots".into());
        }
        let steps = self.visible();
        names
            .into_iter()
            .map(|figure| {
                let panels = panel_count(figure, &self.shown.history);
                Effect::ExportFigure(Saved {
                    // From the run's `figures` folder.
                    run: PathBuf::from(".."),
                    events: self.shown.history.events,
                    figure,
                    theme: Theme::Light,
                    steps,
                    x: self.view.x_unit,
                    y_zoom: self.view.y_zoom,
                    log: self.view.log_y,
                    smoothing: self.view.smoothing,
                    filter: self.view.filter.clone(),
                    fold: self.view.fold,
                    by_layer: self.view.by_layer,
                    format: self.paper.format(panels),
                    behind: self.shown.behind(),
                })
            })
            .collect()
    }

    /// What the next start should look like.
    pub(in crate::tui) fn layout(&self) -> Layout {
        Layout {
            page: self.page,
            filter: self.view.filter.clone(),
            x: self.view.x_unit,
            log: self.view.log_y,
            smoothing: self.view.smoothing,
            cursor: self.view.cursor,
            second: self.view.second,
            run: self.shown.folder.label(),
            theme: self.palette.theme,
            marker: self.palette.marker,
            paper: self.paper,
            mouse: self.mouse_is_taken,
            fold: self.view.fold,
            by_layer: self.view.by_layer,
        }
    }

    /// Looks as it did.
    pub(in crate::tui) fn restore(&mut self, layout: Layout) {
        self.view.filter = layout.filter;
        self.view.x_unit = layout.x;
        self.view.log_y = layout.log;
        self.view.smoothing = layout.smoothing;
        // (A step of one run says nothing of another's.)
        if layout.run == self.shown.folder.label() {
            (self.view.cursor, self.view.second) = (layout.cursor, layout.second);
        }
        self.paper = layout.paper;
        self.mouse_is_taken = layout.mouse;
        (self.view.fold, self.view.by_layer) = (layout.fold, layout.by_layer);
        self.palette.theme = layout.theme;
        // (A terminal without Unicode has no other, and one with it is not kept from it by that.)
        if self.palette.marker != Marker::Ascii && layout.marker != Marker::Ascii {
            self.palette.marker = layout.marker;
        }
        self.go_to(layout.page);
    }
}

/// A row of the verdicts page.
#[derive(Debug, Clone, Copy)]
pub(in crate::tui) struct Finding<'a> {
    /// The newest of them.
    pub verdict: &'a Verdict,
    /// How often it was found.
    pub times: usize,
    /// In how many layers.
    pub layers: usize,
}

/// How the workbench looked when it was left; in the runs folder.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::tui) struct Layout {
    page: Page,
    filter: String,
    x: XUnit,
    log: bool,
    smoothing: f64,
    cursor: Option<f64>,
    second: Option<f64>,
    /// The run that the cursors are of.
    #[serde(default)]
    run: String,
    theme: Theme,
    marker: Marker,
    #[serde(default)]
    paper: Paper,
    /// Whether wheel, drags and clicks come here.
    #[serde(default = "taken")]
    mouse: bool,
    #[serde(default)]
    fold: Fold,
    #[serde(default)]
    by_layer: ByLayer,
}

fn taken() -> bool {
    true
}

/// Buckets that a plot of the usual width can tell apart.
const CLOSE: usize = 400;

/// What the terminal can show, by its environment.
pub(super) fn palette_of_terminal() -> Palette {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let term = variable("TERM");
    let bare = matches!(term.as_str(), "dumb" | "vt100" | "vt220");
    let no_colour = !variable("NO_COLOR").is_empty() || bare;
    let true_colour = matches!(variable("COLORTERM").as_str(), "truecolor" | "24bit");
    let colours = match (no_colour, true_colour) {
        (true, _) => Colours::None,
        (_, true) => Colours::True,
        _ if term.contains("256color") || term.contains("kitty") => Colours::Many,
        _ => Colours::Sixteen,
    };
    let utf8 = ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .map(|n| variable(n))
        .find(|v| !v.is_empty());
    // (The fonts of a bare console have neither braille nor quadrants.)
    let ascii = bare || term == "linux" || matches!(utf8.as_deref(), Some("C" | "POSIX"));
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
