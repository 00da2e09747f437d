//! The table of every quantizer, or of stages and kinds of them.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use unicode_width::UnicodeWidthStr;

use super::super::app::App;
use super::{bold, muted, severity_style};
use crate::figure::Window;
use crate::figure::numerals::power_of_two;
use crate::figure::terminal::{Marker, cut_apart};
use crate::figure::{Ink, Row, mean_by_elements};
use crate::quantizer::memory::{Side, kilobytes};
use crate::run::{LayerHistory, LayerQuantity, LayerRecord, Severity, VerdictKind};

/// What a cell is made of: a row's layers with their records.
struct Cell<'a> {
    app: &'a App,
    row: &'a Row,
    members: &'a [(&'a LayerHistory, LayerRecord)],
    /// kB of all layers of the row's side.
    side_kb: f64,
}

impl Cell<'_> {
    /// The only layer of the row.
    fn only(&self) -> Option<&(&LayerHistory, LayerRecord)> {
        match self.members {
            [only] => Some(only),
            _ => None,
        }
    }

    /// Mean over the row's layers, by their elements.
    fn mean(&self, value: impl Fn(&LayerRecord) -> f32) -> f64 {
        let members = self.members.iter();
        let values = members.map(|(l, r)| (l.info.elements, f64::from(value(r))));
        mean_by_elements(values).unwrap_or(f64::NAN)
    }

    fn kilobytes(&self) -> f64 {
        let sizes = self.members.iter().map(|(l, r)| size(l, r));
        let sizes = sizes.filter(|kb| kb.is_finite());
        sizes.reduce(|a, b| a + b).unwrap_or(f64::NAN)
    }
}

/// kB of a layer.
fn size(layer: &LayerHistory, record: &LayerRecord) -> f64 {
    kilobytes(layer.info.elements, record.bitwidth.into())
}

/// A column: title, width, least width of the table to show it at, and its text.
struct Column {
    title: fn(&App) -> String,
    width: u16,
    from: u16,
    text: fn(&Cell<'_>) -> String,
}

/// Columns of the sparkline.
const SPARK: u16 = 6;

const COLUMNS: &[Column] = &[
    Column {
        title: |_| "bits".into(),
        width: 5,
        from: 0,
        text: |c| match c.only() {
            Some((_, r)) => real(r.bitwidth.into(), 0),
            None => real(c.mean(|r| r.bitwidth), 1),
        },
    },
    Column {
        title: |_| "trend".into(),
        width: SPARK + 1,
        from: 78,
        text: |c| sparkline(c.app, c.row),
    },
    Column {
        title: |_| "d".into(),
        width: 8,
        from: 0,
        text: |c| c.only().map_or("-".into(), |(_, r)| real(r.d.into(), 5)),
    },
    Column {
        title: |_| "used".into(),
        width: 5,
        from: 70,
        text: |c| {
            let used = c.only().and_then(|(l, r)| l.info.used(r));
            used.map_or("-".into(), |[d, _]| power_of_two(d.log2()))
        },
    },
    Column {
        title: |_| "q_max".into(),
        width: 8,
        from: 0,
        text: |c| {
            c.only()
                .map_or("-".into(), |(_, r)| real(r.q_max.into(), 4))
        },
    },
    Column {
        title: |_| "kB".into(),
        width: 8,
        from: 0,
        text: |c| real(c.kilobytes(), 2),
    },
    Column {
        title: |_| "of all".into(),
        width: 8,
        from: 88,
        text: |c| {
            let share = 100.0 * c.kilobytes() / c.side_kb;
            if share.is_finite() {
                format!("{share:.1} %")
            } else {
                "-".into()
            }
        },
    },
    Column {
        title: |app| gradient_name(app, 0),
        width: 9,
        from: 110,
        text: |c| small(c.mean(|r| r.gradients[0].abs())),
    },
    Column {
        title: |app| gradient_name(app, 1),
        width: 9,
        from: 110,
        text: |c| small(c.mean(|r| r.gradients[1].abs())),
    },
    Column {
        title: |_| "|∂W|".into(),
        width: 9,
        from: 120,
        text: |c| small(c.mean(|r| r.grad_norm)),
    },
    Column {
        title: |_| "clip %".into(),
        width: 7,
        from: 0,
        text: |c| real(c.mean(|r| r.clipped) * 100.0, 2),
    },
    Column {
        title: |_| "zero %".into(),
        width: 7,
        from: 100,
        text: |c| real(c.mean(|r| r.zeros) * 100.0, 1),
    },
];

/// The name of the gradient of the first or second parameter, as this run's quantizers have them.
fn gradient_name(app: &App, which: usize) -> String {
    let layers = app.shown.history.layers.iter();
    let mut names: Vec<&str> = layers
        .map(|l| l.info.parametrization.parameter_names()[which])
        .collect();
    names.sort_unstable();
    names.dedup();
    match names[..] {
        [name] => format!("|∂{name}|"),
        _ => ["first", "second"][which].into(),
    }
}

fn real(v: f64, digits: usize) -> String {
    if v.is_finite() {
        format!("{v:.digits$}")
    } else {
        "-".into()
    }
}

fn small(v: f64) -> String {
    if v.is_finite() {
        format!("{v:.1e}")
    } else {
        "-".into()
    }
}

/// The trend of the bitwidths, scaled between the lowest and the highest that the row had in the
/// visible range. A row whose bitwidth did not change is a level line.
fn sparkline(app: &App, row: &Row) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let (from, to) = app.visible();
    let to = to.min(app.view.cursor.unwrap_or(app.shown.history.step() as f64));
    let at = |i: u16| {
        let step = from + (to - from) * f64::from(i + 1) / f64::from(SPARK);
        let step = step.max(0.0) as u64;
        row.mean(&app.shown.history, |l| {
            l[LayerQuantity::Bitwidth].near(step).map(f64::from)
        })
    };
    let values: Vec<Option<f64>> = (0..SPARK).map(at).collect();
    let known = values.iter().flatten().copied();
    let (low, high) = known.fold((f64::MAX, f64::MIN), |r, v| (r.0.min(v), r.1.max(v)));
    let share = |v: f64| {
        if high > low {
            (v - low) / (high - low)
        } else {
            0.5
        }
    };
    let symbol = |v: Option<f64>| match (v, app.palette.marker) {
        (None, _) => ' ',
        (Some(v), Marker::Ascii) => char::from(b"_-^"[(share(v) * 2.99) as usize]),
        (Some(v), _) => LEVELS[(share(v) * 7.99) as usize],
    };
    values.into_iter().map(symbol).collect()
}

pub(super) fn draw(app: &App, area: Rect, buffer: &mut Buffer) {
    let columns: Vec<&Column> = COLUMNS.iter().filter(|c| area.width >= c.from).collect();
    let fixed: u16 = columns.iter().map(|c| c.width).sum::<u16>();
    let name_width = area.width.saturating_sub(fixed + ALARMS + 3).clamp(10, 28);
    let rows = app.listed();
    if rows.is_empty() {
        let text = if app.shown.history.layers.is_empty() {
            "no quantizers in this experiment"
        } else {
            "no layer matches the filter"
        };
        buffer.set_stringn(area.x + 2, area.y + 1, text, area.width.into(), muted(app));
        return;
    }
    // A line for the titles and one for the sums.
    let room = usize::from(area.height.saturating_sub(2));
    let selected = app.selection();
    let window = Window::around(selected, rows.len(), room);
    head(app, window, &columns, name_width, area, buffer);
    let records: Vec<Option<LayerRecord>> = (app.shown.history.layers.iter())
        .map(|l| app.layer_record(l))
        .collect();
    let total = |side: Side| -> f64 {
        let of_side = app.shown.history.layers.iter().zip(&records);
        let sizes = of_side.filter(|(l, _)| l.info.role.side() == side);
        let sizes = sizes.filter_map(|(l, r)| Some(size(l, r.as_ref()?)));
        let sizes = sizes.filter(|kb| kb.is_finite());
        sizes.reduce(|a, b| a + b).unwrap_or(f64::NAN)
    };
    let totals = Side::BOTH.map(total);
    let names = names(&rows, usize::from(name_width) - 1);
    for (i, place) in window.range().enumerate() {
        let row = &rows[place];
        let members: Vec<(&LayerHistory, LayerRecord)> = (row.members.iter())
            .filter_map(|m| Some((&app.shown.history.layers[*m], records[*m]?)))
            .collect();
        let cell = Cell {
            app,
            row,
            members: &members,
            side_kb: totals[row.side as usize],
        };
        let line = Rect {
            y: area.y + 1 + i as u16,
            height: 1,
            ..area
        };
        paint_row(
            app,
            &cell,
            &names[place],
            &columns,
            name_width,
            line,
            buffer,
        );
        if place == selected {
            buffer.set_style(line, Style::new().add_modifier(Modifier::REVERSED));
        }
    }
    let foot = Rect {
        y: area.y + 1 + window.count as u16,
        height: 1,
        ..area
    };
    buffer.set_stringn(
        foot.x + 2,
        foot.y,
        sums(app, totals),
        foot.width.saturating_sub(2).into(),
        muted(app),
    );
}

/// Names of rows, of stages with how many layers they have, cut so that they stay different.
fn names(rows: &[Row], width: usize) -> Vec<String> {
    let counts = rows.iter().map(|row| match row.members.len() {
        1 => String::new(),
        n => format!(" ({n})"),
    });
    let counts: Vec<String> = counts.collect();
    let widest = counts.iter().map(|c| c.width()).max().unwrap_or(0);
    let cut = cut_apart(
        rows.iter().map(|r| r.label.as_str()),
        width - widest.min(width),
    );
    cut.into_iter()
        .zip(counts)
        .map(|(name, count)| name + &count)
        .collect()
}

/// Columns kept for alarms.
const ALARMS: u16 = 12;

fn head(
    app: &App,
    window: Window,
    columns: &[&Column],
    name_width: u16,
    area: Rect,
    buffer: &mut Buffer,
) {
    let title = match (window.text(), app.view.cursor) {
        (Some(seen), _) => seen,
        (None, Some(step)) => format!("at step {step:.0}"),
        (None, None) => "layer".into(),
    };
    buffer.set_stringn(area.x + 2, area.y, title, name_width.into(), bold(app));
    let mut x = area.x + 2 + name_width;
    for column in columns {
        let width = usize::from(column.width);
        let title = format!("{:>width$}", (column.title)(app));
        (x, _) = buffer.set_stringn(x, area.y, title, width, bold(app));
    }
    let room = usize::from((area.x + area.width).saturating_sub(x + 1));
    buffer.set_stringn(x + 1, area.y, "alarms", room, bold(app));
}

fn paint_row(
    app: &App,
    cell: &Cell<'_>,
    name: &str,
    columns: &[&Column],
    name_width: u16,
    line: Rect,
    buffer: &mut Buffer,
) {
    let ink = match cell.row.side {
        Side::Weights => Ink::Weights,
        Side::Activations => Ink::Activations,
    };
    let style = app.palette.style(ink);
    let role = app.shown.history.layers[cell.row.members[0]].info.role;
    buffer.set_stringn(line.x, line.y, format!("{} ", role.letter()), 2, style);
    buffer.set_stringn(line.x + 2, line.y, name, name_width.into(), style);
    if cell.members.is_empty() {
        return;
    }
    let mut x = line.x + 2 + name_width;
    for column in columns {
        let text = (column.text)(cell);
        let padding = usize::from(column.width).saturating_sub(text.width());
        let text = format!("{}{text}", " ".repeat(padding));
        let plain = app.palette.style(Ink::Text);
        (x, _) = buffer.set_stringn(x, line.y, text, column.width.into(), plain);
    }
    let room = usize::from((line.x + line.width).saturating_sub(x + 1));
    let text = alarms(app, cell.row, room);
    let style = severity_style(app, Severity::Warning);
    buffer.set_stringn(x + 1, line.y, text, room, style);
}

/// The detectors' findings, as page 9 lists them: in full where there is room, else in short, else the
/// most severe and how many more.
fn alarms(app: &App, row: &Row, room: usize) -> String {
    let step = app
        .view
        .cursor
        .map_or(app.shown.history.step(), |c| c as u64);
    let mut found: Vec<VerdictKind> = (row.members.iter())
        .flat_map(|m| app.shown.history.verdicts.of_layer(*m, step))
        .collect();
    found.sort_unstable();
    found.dedup();
    let Some(first) = found.first() else {
        return String::new();
    };
    let join = |name: fn(VerdictKind) -> &'static str| {
        let names: Vec<&str> = found.iter().map(|k| name(*k)).collect();
        names.join(", ")
    };
    let most = match found.len() {
        1 => first.short().to_owned(),
        n => format!("{} +{}", first.short(), n - 1),
    };
    let texts = [join(VerdictKind::name), join(VerdictKind::short), most];
    let fits = texts.iter().find(|t| t.width() <= room);
    fits.unwrap_or(&texts[2]).clone()
}

/// Weights and activations counted apart: they are bounded by budgets of their own.
fn sums(app: &App, kilobytes: [f64; 2]) -> String {
    let of = |side: Side| {
        let layers = app.shown.history.layers.iter();
        layers.filter(move |l| l.info.role.side() == side)
    };
    let count = |side: Side| of(side).count();
    let largest = of(Side::Activations)
        .filter_map(|l| Some(size(l, &app.layer_record(l)?)))
        .filter(|kb| kb.is_finite())
        .reduce(f64::max);
    let largest = real(largest.unwrap_or(f64::NAN), 2);
    let [weights, activations] = kilobytes.map(|kb| real(kb, 2));
    let (w, a) = (count(Side::Weights), count(Side::Activations));
    format!("{w} weights {weights} kB   {a} activations: sum {activations} kB, max {largest} kB")
}
