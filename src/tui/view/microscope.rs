//! One layer's weights on their levels.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::widgets::Widget;

use super::super::app::App;
use super::{bold, muted};
use crate::figure::terminal::Plot;

pub(super) fn draw(app: &App, area: Rect, buffer: &mut Buffer) {
    let Some((index, layer)) = app.selected_layer() else {
        let text = "no quantizer in this experiment matches";
        buffer.set_stringn(area.x + 1, area.y, text, area.width.into(), muted(app));
        return;
    };
    let listed = app.rows();
    let info = &app.shown.history.layers[index].info;
    let [head, body] = Layout::vertical([
        Constraint::Length(1 + app.microscope.lines.len().clamp(1, 3) as u16),
        Constraint::Min(4),
    ])
    .areas(area);
    let title = format!(
        "{} {}, {} of {listed}   {}",
        info.name,
        layer.info.role.word(),
        app.selection() + 1,
        app.microscope.place()
    );
    buffer.set_stringn(head.x + 1, head.y, title, head.width.into(), bold(app));
    for (i, line) in app.microscope.lines.iter().take(3).enumerate() {
        let (y, width) = (head.y + 1 + i as u16, head.width.saturating_sub(1).into());
        buffer.set_stringn(head.x + 1, y, line, width, muted(app));
    }
    let Some(figure) = &app.microscope.figure else {
        return;
    };
    let wide = area.width >= 120;
    let constraints = vec![Constraint::Fill(1); figure.panels.len()];
    let cells = if wide {
        Layout::horizontal(constraints).spacing(1).split(body)
    } else {
        Layout::vertical(constraints).split(body)
    };
    for (scene, cell) in figure.panels.iter().zip(cells.iter()) {
        (&Plot::new(scene, &app.palette)).render(*cell, buffer);
    }
}
