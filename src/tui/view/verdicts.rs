//! What the detectors found, and what usually helps.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Widget, Wrap};
use unicode_width::UnicodeWidthStr;

use super::super::app::{App, Finding};
use super::{bold, muted, severity_style};
use crate::figure::Window;
use crate::figure::terminal::{cut_in_the_middle, shortened};
use crate::run::{Severity, VerdictKind};

pub(super) fn draw(app: &App, area: Rect, buffer: &mut Buffer) {
    let [list, below] = Layout::vertical([Constraint::Min(4), Constraint::Length(6)]).areas(area);
    let title = format!(
        "{:>8} {:>8} {:>5}  {:<20} {:<20} finding",
        "since", "until", "times", "layer", "verdict"
    );
    let verdicts = app.verdicts();
    let rows = usize::from(list.height.saturating_sub(1));
    let selected = app.selection();
    if verdicts.is_empty() {
        buffer.set_stringn(list.x, list.y, title, list.width.into(), bold(app));
        let text = format!(
            "nothing found by {} detectors; their limits are in [verdicts] of the experiment file",
            VerdictKind::ALL.len()
        );
        buffer.set_stringn(list.x + 2, list.y + 2, text, list.width.into(), muted(app));
        return;
    }
    let window = Window::around(selected, verdicts.len(), rows);
    let seen = window.text();
    let taken = seen.as_ref().map_or(0, |seen| seen.width() + 2);
    let room = usize::from(list.width).saturating_sub(taken);
    let title = match title.width() <= room {
        true => title.as_str(),
        false => title.trim_end_matches("finding"),
    };
    buffer.set_stringn(list.x, list.y, title, room, bold(app));
    if let Some(seen) = seen {
        let x = (list.x + list.width).saturating_sub(seen.width() as u16 + 1);
        buffer.set_stringn(x, list.y, &seen, seen.width(), muted(app));
    }
    for (i, place) in window.range().enumerate() {
        let Finding {
            verdict,
            times,
            layers,
        } = verdicts[place];
        let y = list.y + 1 + i as u16;
        let layer = verdict.layer.and_then(|l| app.shown.history.layers.get(l));
        let name = match layer {
            _ if layers > 1 => format!("{layers} layers"),
            Some(layer) => cut_in_the_middle(&layer.info.name, 20),
            None => "the run".into(),
        };
        let text = format!(
            "{:>8} {:>8} {times:>5}  {name:<20} {:<20} {}",
            verdict.since,
            verdict.until.map_or("-".into(), |u| u.to_string()),
            verdict.kind.name(),
            verdict.text
        );
        let mut style = if verdict.until.is_some() {
            muted(app)
        } else {
            severity_style(app, Severity::Warning)
        };
        if place == selected {
            style = style.add_modifier(Modifier::REVERSED);
        }
        let text = shortened(&text, list.width.into());
        buffer.set_stringn(list.x, y, text, list.width.into(), style);
    }
    let chosen = verdicts[selected].verdict;
    let layer = chosen.layer.and_then(|l| app.shown.history.layers.get(l));
    let of = layer.map_or("the run", |l| l.info.name.as_str());
    let title = format!("{}, {of}: {}", chosen.kind.name(), chosen.text);
    let advice = format!("{}. Enter shows the evidence.", chosen.kind.advice());
    Paragraph::new(vec![Line::styled(title, bold(app)), Line::raw(advice)])
        .style(Style::new())
        .wrap(Wrap { trim: true })
        .render(below, buffer);
}
