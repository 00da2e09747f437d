//! The table of every quantizer.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Modifier;
use unicode_width::UnicodeWidthStr;

use super::super::app::App;
use super::{bold, muted, severity_style};
use crate::figure::Ink;
use crate::figure::terminal::cut_in_the_middle;
use crate::figure::ticks::{number, power_of_two};
use crate::quantizer::memory::{Role, kilobytes};
use crate::run::{LayerHistory, LayerRecord, Severity, VerdictKind};

/// A column: title, width, least width of the table to show it at, and its text.
struct Column {
    title: &'static str,
    width: u16,
    from: u16,
    text: fn(&LayerHistory, &LayerRecord) -> String,
}

const COLUMNS: &[Column] = &[
    Column {
        title: "bits",
        width: 5,
        from: 0,
        text: |_, r| real(r.bitwidth, 0),
    },
    Column {
        title: "d",
        width: 9,
        from: 0,
        text: |_, r| real(r.d, 5),
    },
    Column {
        title: "used",
        width: 6,
        from: 70,
        text: |l, r| {
            let used = l.info.used(r).map(|[d, _]| power_of_two(d.log2()));
            used.unwrap_or("-".into())
        },
    },
    Column {
        title: "q_max",
        width: 9,
        from: 0,
        text: |_, r| real(r.q_max, 4),
    },
    Column {
        title: "kB",
        width: 8,
        from: 0,
        text: |l, r| {
            if r.bitwidth.is_finite() {
                format!("{:.2}", kilobytes(l.info.elements, r.bitwidth.into()))
            } else {
                "-".into()
            }
        },
    },
    Column {
        title: "grad 1",
        width: 9,
        from: 100,
        text: |_, r| small(r.gradients[0]),
    },
    Column {
        title: "grad 2",
        width: 9,
        from: 100,
        text: |_, r| small(r.gradients[1]),
    },
    Column {
        title: "|gW|",
        width: 9,
        from: 90,
        text: |_, r| small(r.grad_norm),
    },
    Column {
        title: "clip %",
        width: 7,
        from: 0,
        text: |_, r| real(r.clipped * 100.0, 2),
    },
    Column {
        title: "zero %",
        width: 7,
        from: 78,
        text: |_, r| real(r.zeros * 100.0, 1),
    },
];

fn real(v: f32, digits: usize) -> String {
    if v.is_finite() {
        format!("{v:.digits$}")
    } else {
        "-".into()
    }
}

fn small(v: f32) -> String {
    if v.is_finite() {
        format!("{v:.1e}")
    } else {
        "-".into()
    }
}

pub(super) fn draw(app: &mut App, area: Rect, buffer: &mut Buffer) {
    let columns: Vec<&Column> = COLUMNS.iter().filter(|c| area.width >= c.from).collect();
    let fixed: u16 = columns.iter().map(|c| c.width).sum::<u16>() + 16;
    let name_width = area.width.saturating_sub(fixed + 3).clamp(10, 28);
    let layers: Vec<(usize, &LayerHistory)> = app
        .history
        .layers
        .iter()
        .enumerate()
        .filter(|(_, l)| app.view.shows(l))
        .collect();
    let step = app.view.cursor.map_or(app.history.step(), |c| c as u64);
    let rows = usize::from(area.height.saturating_sub(1));
    app.selected = app.selected.min(layers.len().saturating_sub(1));
    app.scroll = app
        .scroll
        .clamp((app.selected + 1).saturating_sub(rows), app.selected);
    let mut x = area.x + 2 + name_width;
    let title = match app.view.cursor {
        Some(step) => format!("layer at step {step:.0}"),
        None if layers.len() > rows => {
            let last = (app.scroll + rows).min(layers.len());
            format!("{}–{last} of {}", app.scroll + 1, layers.len())
        }
        None => "layer".into(),
    };
    buffer.set_stringn(area.x + 2, area.y, title, name_width.into(), bold(app));
    for column in &columns {
        let title = format!(
            "{:>width$}",
            column.title,
            width = usize::from(column.width)
        );
        (x, _) = buffer.set_stringn(x, area.y, title, column.width.into(), bold(app));
    }
    if layers.is_empty() {
        let text = if app.history.layers.is_empty() {
            "no quantizers in this experiment"
        } else {
            "no layer matches the filter"
        };
        buffer.set_stringn(area.x + 2, area.y + 1, text, area.width.into(), muted(app));
        return;
    }
    for (i, (place, layer)) in layers.iter().enumerate().skip(app.scroll).take(rows) {
        let y = area.y + 1 + (i - app.scroll) as u16;
        let (mark, ink) = match layer.info.role {
            Role::Weight => ("W ", Ink::Weights),
            Role::Bias => ("b ", Ink::Weights),
            Role::Activation => ("A ", Ink::Activations),
        };
        let style = app.palette.style(ink);
        buffer.set_stringn(area.x, y, mark, 2, style);
        let name = cut_in_the_middle(&layer.info.name, usize::from(name_width) - 1);
        buffer.set_stringn(area.x + 2, y, name, name_width.into(), style);
        if let Some(record) = &app.layer_record(layer) {
            let mut x = area.x + 2 + name_width;
            for column in &columns {
                let text = (column.text)(layer, record);
                let padding = usize::from(column.width).saturating_sub(text.width());
                let text = format!("{}{text}", " ".repeat(padding));
                let plain = app.palette.style(Ink::Text);
                (x, _) = buffer.set_stringn(x, y, text, column.width.into(), plain);
            }
            // The detectors' findings, as page 9 lists them: one list of conditions.
            let found = app.history.verdicts.of_layer(*place, step);
            if !found.is_empty() {
                let style = severity_style(app, Severity::Warning);
                let room = usize::from((area.x + area.width).saturating_sub(x + 1));
                let found: Vec<&str> = found.into_iter().map(VerdictKind::name).collect();
                buffer.set_stringn(x + 1, y, format!("! {}", found.join(", ")), room, style);
            }
        }
        if i == app.selected {
            let row = Rect {
                x: area.x,
                y,
                width: area.width,
                height: 1,
            };
            buffer.set_style(
                row,
                ratatui::style::Style::new().add_modifier(Modifier::REVERSED),
            );
        }
    }
    let total: usize = layers.iter().map(|(_, l)| l.info.elements).sum();
    let below = area.y + 1 + layers.len() as u16;
    if below < area.y + area.height {
        let text = format!(
            "{} quantizers, {} elements",
            layers.len(),
            number(total as f64, 0)
        );
        buffer.set_stringn(area.x + 2, below, text, area.width.into(), muted(app));
    }
}
