//! The lines around a page: status, tabs, messages and keys.

use std::ops::Range;
use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use unicode_width::UnicodeWidthStr;

use super::super::app::{App, Page, Role};
use super::super::keymap::{Action, Binding, KEYMAP};
use super::{bar_style, bold, muted, severity_style};
use crate::face::duration;
use crate::figure::terminal::shortened;
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

/// How the run stands, as much as fits, and at the right what is not as usual.
pub(super) fn status(app: &App, area: Rect, buffer: &mut Buffer) {
    buffer.set_style(area, bar_style(app));
    let notes = notes(app);
    let width = usize::from(area.width);
    let noted = notes.width().min(width);
    let mut room = width - noted;
    if noted > 0 {
        let x = area.x + area.width - noted as u16;
        let style = bar_style(app).patch(severity_style(app, Severity::Warning));
        buffer.set_stringn(x, area.y, &notes, noted, style);
        room = room.saturating_sub(2);
    }
    let mut x = area.x;
    for part in status_parts(app) {
        let needed = part.width() + if x > area.x { 2 } else { 1 };
        if usize::from(x - area.x) + needed > room {
            break;
        }
        let gap = if x > area.x { "  " } else { " " };
        let text = format!("{gap}{part}");
        (x, _) = buffer.set_stringn(x, area.y, text, needed, bar_style(app));
    }
}

/// The run's name and state first: what is left out on a narrow screen comes last.
fn status_parts(app: &App) -> Vec<String> {
    let h = &app.shown.history;
    let whose = match app.shown.role {
        Role::Training => "",
        Role::Attached => "attached ",
        Role::Watching => "watching ",
    };
    let mut parts = vec![
        "bitscope".to_owned(),
        app.editing.experiment.name.clone(),
        format!("{whose}{}", state(h)),
    ];
    if let Some(r) = &h.newest {
        let left = h.total_steps.saturating_sub(r.step) as f64 * f64::from(r.times.total());
        parts.extend([
            format!("step {}/{}", r.step, h.total_steps),
            format!("epoch {:.2}", r.epoch),
        ]);
        if h.end.is_none() {
            parts.push(format!("left {}", duration(left)));
        }
        parts.extend([
            format!("{:.0} samples/s", r.samples_per_s),
            h.device.clone(),
        ]);
    }
    parts
}

/// The key of a page, as the keymap has it.
fn page_key(page: Page) -> String {
    KEYMAP
        .iter()
        .find(|b| b.action == Action::GoTo(page))
        .map_or_else(String::new, Binding::key)
}

/// A tab: its columns from the left edge, key and name.
struct Tab {
    columns: Range<u16>,
    page: Page,
    key: String,
    name: String,
}

/// How wide tabs are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Width {
    /// Whole names.
    Long,
    /// Short names.
    Short,
    /// Short names beside their keys; a key that is a name's first letter stands in it.
    Tight,
}

/// Whole names in groups where they fit, else short ones.
fn tabs(width: u16) -> Vec<Tab> {
    let [long, short, tight] = [Width::Long, Width::Short, Width::Tight].map(lay);
    let fits = |tabs: &[Tab]| tabs.last().is_some_and(|t| t.columns.end <= width);
    match (fits(&long), fits(&short)) {
        (true, _) => long,
        (_, true) => short,
        _ => tight,
    }
}

fn lay(width: Width) -> Vec<Tab> {
    let mut x = 0;
    let mut tabs: Vec<Tab> = Vec::new();
    for page in Page::ALL {
        let mut key = page_key(page);
        let mut name = match width {
            Width::Long => page.title(),
            Width::Short | Width::Tight => page.short(),
        }
        .to_owned();
        let apart = tabs.last().is_some_and(|t| t.page.group() != page.group());
        let gap = match width {
            Width::Tight if name.starts_with(&key.to_lowercase()) => {
                name.drain(..1);
                if apart { 2 } else { 1 }
            }
            Width::Tight => match (apart, x) {
                (true, _) => 2,
                (false, 0) => 0,
                (false, _) => 1,
            },
            Width::Long | Width::Short => {
                key = format!(" {key} ");
                name.push(' ');
                if apart { 2 } else { 0 }
            }
        };
        let from = x + gap;
        x = from + (key.width() + name.width()) as u16;
        tabs.push(Tab {
            columns: from..x,
            page,
            key,
            name,
        });
    }
    tabs
}

/// The page whose tab is at a column.
pub(in crate::tui) fn tab_at(width: u16, column: u16) -> Option<Page> {
    let tabs = tabs(width);
    let hit = tabs.iter().find(|t| t.columns.contains(&column));
    hit.map(|t| t.page)
}

pub(super) fn tab_bar(app: &App, area: Rect, buffer: &mut Buffer) {
    let alarms = app.shown.history.verdicts.standing().len();
    for tab in tabs(area.width) {
        let style = if tab.page == app.page {
            bold(app).add_modifier(Modifier::REVERSED)
        } else if tab.page == Page::Verdicts && alarms > 0 {
            severity_style(app, Severity::Warning)
        } else {
            muted(app)
        };
        let key = if tab.page == app.page {
            style
        } else {
            bold(app)
        };
        let room = |x: u16| usize::from(area.width.saturating_sub(x));
        let from = tab.columns.start;
        let (x, _) = buffer.set_stringn(area.x + from, area.y, &tab.key, room(from), key);
        buffer.set_stringn(x, area.y, &tab.name, room(x - area.x), style);
    }
}

/// What is not as usual: at the right end of the status line.
fn notes(app: &App) -> String {
    let mut notes = Vec::new();
    if !app.view.filter.is_empty() {
        notes.push(format!("filter: {}", app.view.filter));
    }
    if app.editing.diagnostics.is_some() {
        notes.push("experiment file broken (d)".into());
    }
    match app.shown.history.verdicts.standing().len() {
        0 => {}
        1 => notes.push("1 verdict (9)".into()),
        n => notes.push(format!("{n} verdicts (9)")),
    }
    notes.iter().map(|note| format!(" {note} ")).collect()
}

/// What was typed, or said, and keys. With two lines each has its own.
pub(super) fn bottom(app: &App, area: Rect, buffer: &mut Buffer) {
    let line = Rect { height: 1, ..area };
    if let Some(typing) = app.layers.filter() {
        let what = if app.page == Page::Runs {
            "runs"
        } else {
            "layers"
        };
        let text = format!("filter {what}: {typing}▏ (Enter keeps, Esc clears)");
        buffer.set_stringn(line.x, line.y, text, line.width.into(), bold(app));
        return;
    }
    if area.height >= 2 {
        if let Some((severity, text)) = newest_message(app, None) {
            let style = severity_style(app, severity);
            let text = shortened(text, line.width.into());
            buffer.set_stringn(line.x, line.y, text, line.width.into(), style);
        }
        let below = Rect {
            y: line.y + 1,
            ..line
        };
        key_bar(app, below, buffer);
        return;
    }
    let mut keys = line;
    if let Some((severity, text)) = newest_message(app, Some(STAYS)) {
        // The keys that lead on keep their place.
        let most = usize::from(line.width).saturating_sub(LEAST_KEYS);
        let text = shortened(text, most);
        let style = severity_style(app, severity);
        let (x, _) = buffer.set_stringn(line.x, line.y, text, most, style);
        keys = Rect {
            x: x + 2,
            width: (line.x + line.width).saturating_sub(x + 2),
            ..line
        };
    }
    key_bar(app, keys, buffer);
}

/// Columns that are left to the keys beside a message.
const LEAST_KEYS: usize = 20;

/// How long a message stays where keys share its line.
pub(in crate::tui) const STAYS: Duration = Duration::from_secs(6);

/// What the program said a moment ago, or else the newest thing that the run said; where it may not
/// stay for ever, only while it is new.
fn newest_message(app: &App, stays: Option<Duration>) -> Option<(Severity, &str)> {
    if let Some((when, severity, text)) = &app.notices.message
        && when.elapsed() < STAYS
    {
        return Some((*severity, text));
    }
    if stays.is_some_and(|stays| app.notices.said.is_none_or(|when| when.elapsed() >= stays)) {
        return None;
    }
    let message = app.shown.history.messages.back()?;
    Some((message.severity, message.text.as_str()))
}

/// Keys from the left: the page's own first, as many as fit; help and quit always.
fn key_bar(app: &App, area: Rect, buffer: &mut Buffer) {
    let named = KEYMAP.iter().filter(|b| !b.bar.is_empty());
    let width = |b: &Binding| b.key().width() + b.bar.width() + 3;
    let (last, rest): (Vec<&Binding>, Vec<&Binding>) =
        named.partition(|b| matches!(b.action, Action::Help | Action::Quit));
    let mut rest: Vec<&Binding> = rest
        .into_iter()
        .filter(|b| {
            app.page.takes(b.action) && (app.shown.role != Role::Watching || !b.action.steers())
        })
        .collect();
    rest.sort_by_key(|b| !app.page.is_own(b.action));
    let mut left = usize::from(area.width).saturating_sub(
        last.iter()
            .map(|b| width(b))
            .sum::<usize>()
            .saturating_sub(2),
    );
    let mut shown = Vec::new();
    for binding in rest {
        let needed = width(binding);
        if needed <= left {
            left -= needed;
            shown.push(binding);
        }
    }
    let mut x = area.x;
    let right = area.x + area.width;
    let mut put = |text: String, style: Style| {
        let room = usize::from(right.saturating_sub(x));
        (x, _) = buffer.set_stringn(x, area.y, text, room, style);
    };
    for binding in shown.into_iter().chain(last) {
        put(format!("{} ", binding.key()), bold(app));
        put(format!("{}  ", binding.bar), muted(app));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every page has a tab that can be read and clicked, at 80 columns too.
    #[test]
    fn tabs_fit_and_are_hit_where_they_are_painted() {
        for width in [80, 120, 200] {
            let tabs = tabs(width);
            assert_eq!(tabs.len(), Page::ALL.len());
            let mut end = 0;
            for tab in &tabs {
                assert!(tab.columns.start >= end && tab.columns.end <= width);
                end = tab.columns.end;
                for column in tab.columns.clone() {
                    assert_eq!(tab_at(width, column), Some(tab.page));
                }
            }
        }
    }
}
