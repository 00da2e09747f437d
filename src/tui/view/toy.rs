//! The toy: error against steps and against bits, for every parametrization.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::widgets::Widget;

use super::super::app::App;
use super::{bold, muted};
use crate::figure::Window;
use crate::figure::terminal::Plot;
use crate::quantizer::Parametrization;
use crate::toy::VIEWS;

/// Least height of a plot.
const ROW: u16 = 9;
/// Least width at which all parametrizations stand side by side.
const WIDE: u16 = 150;
/// Least width for all three views of a parametrization beside one another.
const THREE: u16 = 110;

pub(super) fn draw(app: &App, area: Rect, buffer: &mut Buffer) {
    let count = Parametrization::ALL.len();
    let table = count as u16 + 2;
    let [head, body] =
        Layout::vertical([Constraint::Length(table), Constraint::Min(0)]).areas(area);
    let text = "E[(Q(x) - x)^2] / 2 over 10,000 samples of N(0, 1), SGD, three starts each";
    buffer.set_stringn(head.x, head.y, text, head.width.into(), bold(app));
    let (done, all) = app.toy.progress();
    let state = if done < all {
        format!("descent {done} of {all}")
    } else {
        "last error and bits of each start; spread: of the last 300 errors, the largest".into()
    };
    buffer.set_stringn(head.x, head.y + 1, state, head.width.into(), muted(app));
    for i in 0..count {
        let style = if i == app.selection() {
            bold(app)
        } else {
            muted(app)
        };
        let y = head.y + 2 + i as u16;
        buffer.set_stringn(head.x, y, row(app, i), head.width.into(), style);
    }
    let Some(figure) = &app.toy.figure else {
        return;
    };
    let mut paint = |index: usize, area: Rect| {
        if let Some(scene) = figure.panels.get(index) {
            (&Plot::new(scene, &app.palette)).render(area, buffer);
        }
    };
    if area.width >= WIDE && body.height >= 3 * ROW {
        let rows = Layout::vertical([Constraint::Fill(1); VIEWS]).split(body);
        for (row, area) in rows.iter().enumerate() {
            let cells = Layout::horizontal(vec![Constraint::Fill(1); count]).split(*area);
            for (i, cell) in cells.iter().enumerate() {
                paint(i * VIEWS + row, *cell);
            }
        }
        return;
    }
    // Narrow: a row per parametrization, its views side by side; j and k scroll.
    let rows = usize::from((body.height / ROW).max(1)).min(count);
    let window = Window::around(app.selection(), count, rows);
    let areas = Layout::vertical(vec![Constraint::Fill(1); rows]).split(body);
    let views = if area.width >= THREE { VIEWS } else { 2 };
    for (i, area) in window.range().zip(areas.iter()) {
        let cells = Layout::horizontal(vec![Constraint::Fill(1); views]).split(*area);
        for (view, cell) in cells.iter().enumerate() {
            // Where two fit, error over steps and the plane say most.
            let view = if views == 2 { 2 * view } else { view };
            paint(i * VIEWS + view, *cell);
        }
    }
}

/// A parametrization in one line: from each start to which error at how many bits.
fn row(app: &App, index: usize) -> String {
    let p = Parametrization::ALL[index];
    let ends: Vec<String> = (app.toy.of(p))
        .map(|d| {
            let error = d.errors.last().copied().unwrap_or(f64::NAN);
            let bits = d.bits.last().copied().unwrap_or(f64::NAN);
            format!("{error:.1e} at {bits:.0} bits")
        })
        .collect();
    let spread = app.toy.spread(index);
    let spread = spread.map_or(String::new(), |s| format!("   spread {s:.1e}"));
    format!("{:<4} {}{spread}", p.to_string(), ends.join("   "))
}
