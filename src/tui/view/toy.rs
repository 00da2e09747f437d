//! The toy: error against steps and against bits, for every parametrization.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::widgets::Widget;

use super::super::app::App;
use super::{bold, muted};
use crate::figure::terminal::Plot;
use crate::quantizer::Parametrization;

/// Least height of a plot.
const ROW: u16 = 9;
/// Least width at which all parametrizations stand side by side.
const WIDE: u16 = 150;

pub(super) fn draw(app: &App, area: Rect, buffer: &mut Buffer) {
    let [head, body] = Layout::vertical([Constraint::Length(2), Constraint::Min(0)]).areas(area);
    let (done, all) = app.toy.progress();
    let text = "E[(Q(x) - x)^2] / 2 over 10,000 samples of N(0, 1), SGD, three starts each";
    buffer.set_stringn(head.x, head.y, text, head.width.into(), bold(app));
    let state = if done < all {
        format!("descent {done} of {all}")
    } else {
        let spread = |i: usize| {
            let value = app.toy.spread(i).map_or("-".into(), |s| format!("{s:.1e}"));
            format!("{} {value}", Parametrization::ALL[i])
        };
        let spreads: Vec<String> = (0..Parametrization::ALL.len()).map(spread).collect();
        format!(
            "largest spread of the last 300 errors: {}",
            spreads.join("  ")
        )
    };
    buffer.set_stringn(head.x, head.y + 1, state, head.width.into(), muted(app));
    let Some(figure) = &app.toy.figure else {
        return;
    };
    let count = Parametrization::ALL.len();
    let mut paint = |index: usize, area: Rect| {
        if let Some(scene) = figure.panels.get(index) {
            (&Plot::new(scene, &app.palette)).render(area, buffer);
        }
    };
    if area.width >= WIDE {
        let rows = Layout::vertical([Constraint::Fill(1); 2]).split(body);
        for (row, area) in rows.iter().enumerate() {
            let cells = Layout::horizontal(vec![Constraint::Fill(1); count]).split(*area);
            for (i, cell) in cells.iter().enumerate() {
                paint(row * count + i, *cell);
            }
        }
        return;
    }
    // Narrow: a row per parametrization, steps beside bits; j and k scroll.
    let rows = usize::from((body.height / ROW).max(1)).min(count);
    let first = app.selected.min(count - rows);
    let areas = Layout::vertical(vec![Constraint::Fill(1); rows]).split(body);
    for (i, area) in areas.iter().enumerate() {
        let [left, right] = Layout::horizontal([Constraint::Fill(1); 2]).areas(*area);
        paint(first + i, left);
        paint(count + first + i, right);
    }
}
