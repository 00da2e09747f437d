//! What the detectors found, and what usually helps.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::widgets::{Paragraph, Widget, Wrap};

use super::super::app::App;
use super::{bold, muted, severity_style};
use crate::figure::terminal::cut_in_the_middle;
use crate::run::{Severity, VerdictKind};

pub(super) fn draw(app: &mut App, area: Rect, buffer: &mut Buffer) {
    let [list, below] = Layout::vertical([Constraint::Min(4), Constraint::Length(5)]).areas(area);
    let title = format!(
        "{:>8} {:>8} {:>5}  {:<20} {:<20} finding",
        "since", "until", "times", "layer", "verdict"
    );
    buffer.set_stringn(list.x, list.y, title, list.width.into(), bold(app));
    let verdicts = app.verdicts();
    let rows = usize::from(list.height.saturating_sub(1));
    let selected = app.selected.min(verdicts.len().saturating_sub(1));
    let first = (selected + 1).saturating_sub(rows);
    if verdicts.is_empty() {
        let text = format!(
            "nothing found by {} detectors; their limits are in [verdicts] of the experiment file",
            VerdictKind::ALL.len()
        );
        buffer.set_stringn(list.x + 2, list.y + 2, text, list.width.into(), muted(app));
        return;
    }
    for (i, (verdict, times)) in verdicts.iter().enumerate().skip(first).take(rows) {
        let y = list.y + 1 + (i - first) as u16;
        let layer = verdict.layer.and_then(|l| app.history.layers.get(l));
        let text = format!(
            "{:>8} {:>8} {times:>5}  {:<20} {:<20} {}",
            verdict.since,
            verdict.until.map_or("-".into(), |u| u.to_string()),
            layer.map_or("the run".into(), |l| cut_in_the_middle(&l.info.name, 20)),
            verdict.kind.name(),
            verdict.text
        );
        let mut style = if verdict.until.is_some() {
            muted(app)
        } else {
            severity_style(app, Severity::Warning)
        };
        if i == selected {
            style = style.add_modifier(Modifier::REVERSED);
        }
        buffer.set_stringn(list.x, y, text, list.width.into(), style);
    }
    let kind = verdicts[selected].0.kind;
    buffer.set_stringn(below.x, below.y, kind.name(), below.width.into(), bold(app));
    let text = Rect {
        y: below.y + 1,
        height: below.height.saturating_sub(1),
        ..below
    };
    Paragraph::new(format!("{}. Enter shows the evidence.", kind.advice()))
        .style(Style::new())
        .wrap(Wrap { trim: true })
        .render(text, buffer);
}
