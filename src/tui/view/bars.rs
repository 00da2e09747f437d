//! The lines around a page: status, tabs, messages and keys.

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Modifier;
use ratatui::text::{Line, Span};

use super::super::app::{App, Page, Role};
use super::super::keymap::{Action, Binding, KEYMAP};
use super::{bar_style, bold, muted, severity_style};
use crate::headless::duration;
use crate::run::{Event, History, Phase, Severity};

/// One word for how the run stands.
fn state(history: &History) -> &'static str {
    match (&history.end, history.phase) {
        (Some(Event::Finished { .. }), _) => "finished",
        (Some(Event::Failed { .. }), _) => "FAILED",
        (Some(_), _) => "stopped",
        (None, None) => "starting",
        (None, _) if history.paused => "PAUSED",
        (None, Some(Phase::Float)) => "float phase",
        (None, Some(Phase::Quantized)) => "quantized",
    }
}

pub(super) fn status(app: &App, area: Rect, buffer: &mut Buffer) {
    buffer.set_style(area, bar_style(app));
    let h = &app.history;
    let watching = match app.role {
        Role::Training => "",
        Role::Attached => "attached ",
        Role::Watching => "watching ",
    };
    let mut text = format!(" bitscope  {}  {watching}{}", app.experiment.name, state(h));
    if let Some(r) = &h.newest {
        let left = h.total_steps.saturating_sub(r.step) as f64 * f64::from(r.times.total());
        text += &format!("  step {}/{}  epoch {:.2}", r.step, h.total_steps, r.epoch);
        text += &format!(
            "  {:.0} samples/s  left {}  {}",
            r.samples_per_s,
            duration(left),
            h.device
        );
    }
    buffer.set_stringn(area.x, area.y, text, area.width.into(), bar_style(app));
}

/// The key of a page, as the keymap has it.
fn page_key(page: Page) -> String {
    KEYMAP
        .iter()
        .find(|b| b.action == Action::GoTo(page))
        .map_or_else(String::new, Binding::key)
}

pub(super) fn tab_bar(app: &mut App, area: Rect, buffer: &mut Buffer) {
    let notes = notes(app);
    let room = area.width.saturating_sub(notes.chars().count() as u16 + 1);
    // Whole names where they fit, else their first letters, else the keys alone.
    let fits = |letters: usize| {
        let width = |p: &Page| p.title().len().min(letters) + 4;
        Page::ALL.iter().map(width).sum::<usize>() + 8 <= usize::from(room)
    };
    let letters = [usize::MAX, 4, 3]
        .into_iter()
        .find(|l| fits(*l))
        .unwrap_or(0);
    let mut x = area.x;
    app.tabs.clear();
    for page in Page::ALL {
        let current = page == app.page;
        let title = page.title();
        let text = match (letters, current) {
            (0, false) => format!(" {} ", page_key(page)),
            (_, true) => format!(" {} {title} ", page_key(page)),
            (letters, false) => format!(
                " {} {} ",
                page_key(page),
                &title[..title.len().min(letters)]
            ),
        };
        let alarmed = page == Page::Verdicts && !app.history.verdicts.standing().is_empty();
        let style = if current {
            bold(app).add_modifier(Modifier::REVERSED)
        } else if alarmed {
            severity_style(app, Severity::Warning)
        } else {
            muted(app)
        };
        let from = x;
        (x, _) = buffer.set_stringn(
            x,
            area.y,
            text,
            (area.x + area.width).saturating_sub(x).into(),
            style,
        );
        app.tabs.push((from..x, page));
    }
    let width = notes.chars().count() as u16;
    if width > 0 && x + width < area.x + area.width {
        let style = severity_style(app, Severity::Warning);
        buffer.set_string(area.x + area.width - width, area.y, notes, style);
    }
}

/// What is not as usual: at the right end of the tabs.
fn notes(app: &App) -> String {
    let mut notes = Vec::new();
    if !app.view.filter.is_empty() {
        notes.push(format!("filter: {}", app.view.filter));
    }
    if app.diagnostics.is_some() {
        notes.push("experiment file broken (d)".into());
    }
    match app.history.verdicts.standing().len() {
        0 => {}
        1 => notes.push("1 verdict (9)".into()),
        n => notes.push(format!("{n} verdicts (9)")),
    }
    notes.join("  ")
}

pub(super) fn bottom_line(app: &App, area: Rect, buffer: &mut Buffer) {
    if let Some(typing) = &app.typing {
        let text = format!("filter layers: {typing}▏ (Enter keeps, Esc clears)");
        buffer.set_stringn(area.x, area.y, text, area.width.into(), bold(app));
        return;
    }
    if let Some((severity, text)) = newest_message(app) {
        let style = severity_style(app, severity);
        let (x, _) = buffer.set_stringn(area.x, area.y, text, area.width.into(), style);
        if x + 12 < area.x + area.width {
            key_bar(
                app,
                Rect {
                    x: x + 2,
                    width: area.x + area.width - x - 2,
                    ..area
                },
                buffer,
            );
        }
        return;
    }
    key_bar(app, area, buffer);
}

/// How long a message of the program itself stays.
const STAYS: Duration = Duration::from_secs(6);

/// What the program said a moment ago, or else the newest thing that the run said.
fn newest_message(app: &App) -> Option<(Severity, &str)> {
    if let Some((when, severity, text)) = &app.message
        && when.elapsed() < STAYS
    {
        return Some((*severity, text));
    }
    let message = app.history.messages.back()?;
    Some((message.severity, message.text.as_str()))
}

/// Keys at the right edge, as many as fit.
fn key_bar(app: &App, area: Rect, buffer: &mut Buffer) {
    let mut spans = Vec::new();
    let mut width = 0;
    for binding in KEYMAP.iter().filter(|b| !b.bar.is_empty()).rev() {
        let key = binding.key();
        let needed = key.chars().count() + binding.bar.len() + 3;
        if width + needed > usize::from(area.width) {
            break;
        }
        width += needed;
        spans.insert(0, Span::styled(format!("{}  ", binding.bar), muted(app)));
        spans.insert(0, Span::styled(format!("{key} "), bold(app)));
    }
    let x = area.x + area.width - width as u16;
    buffer.set_line(x, area.y, &Line::from(spans), width as u16);
}
