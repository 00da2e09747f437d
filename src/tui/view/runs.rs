//! Recorded runs and how their experiments differ from the current one.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};

use super::super::app::App;
use super::{bold, muted};
use crate::figure::Ink;

pub(super) fn draw(app: &mut App, area: Rect, buffer: &mut Buffer) {
    let [list, below] = Layout::vertical([Constraint::Fill(2), Constraint::Fill(1)]).areas(area);
    let title = format!(
        "{:<38} {:<9} {:>8} {:>7} {:>7} {:>9}",
        "run", "status", "step", "val %", "test %", "weight kB"
    );
    buffer.set_stringn(list.x, list.y, title, list.width.into(), bold(app));
    let rows = usize::from(list.height.saturating_sub(1));
    app.selected = app.selected.min(app.runs.len().saturating_sub(1));
    app.scroll = app
        .scroll
        .clamp((app.selected + 1).saturating_sub(rows), app.selected);
    let percent = |v: Option<f64>| v.map_or("-".to_owned(), |e| format!("{:.2}", e * 100.0));
    for (i, (folder, m)) in app.runs.iter().enumerate().skip(app.scroll).take(rows) {
        let y = list.y + 1 + (i - app.scroll) as u16;
        let own = if *folder == app.folder { "*" } else { "" };
        let text = format!(
            "{:<38} {:<9} {:>8} {:>7} {:>7} {:>9.2}",
            folder.label() + own,
            m.status.name(),
            m.step,
            percent(m.best_error),
            percent(m.test_error),
            m.weight_kb
        );
        let mut style = app.palette.style(Ink::Text);
        if i == app.selected {
            style = style.add_modifier(Modifier::REVERSED);
        }
        buffer.set_stringn(list.x, y, text, list.width.into(), style);
    }
    compare(app, below, buffer);
}

/// The selected run's experiment against the current one, key by key.
fn compare(app: &App, area: Rect, buffer: &mut Buffer) {
    let Some((folder, _)) = app.runs.get(app.selected) else {
        let text = format!("no runs in {} yet", app.runs_root.display());
        buffer.set_stringn(area.x, area.y, text, area.width.into(), muted(app));
        return;
    };
    let title = format!(
        "{} against the current experiment (current → that run)",
        folder.label()
    );
    buffer.set_stringn(area.x, area.y, title, area.width.into(), bold(app));
    let room = usize::from(area.height.saturating_sub(1));
    for (i, line) in app.compared.iter().take(room).enumerate() {
        let y = area.y + 1 + i as u16;
        let width = area.width.saturating_sub(2).into();
        buffer.set_stringn(area.x + 2, y, line, width, Style::new());
    }
}
