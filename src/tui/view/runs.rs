//! Recorded runs and how their experiments differ from the current one.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::widgets::Widget;

use super::super::app::App;
use super::{bold, muted};
use crate::figure::terminal::Plot;
use crate::figure::{Axis, Ink, Item, Label, Line, Overlaid, Scale, Scene};
use crate::run::Manifest;

pub(super) fn draw(app: &mut App, area: Rect, buffer: &mut Buffer) {
    let [list, below] = Layout::vertical([Constraint::Fill(1), Constraint::Fill(1)]).areas(area);
    let below = if area.width >= 100 {
        let [left, right] = Layout::horizontal([Constraint::Fill(1); 2]).areas(below);
        let runs: Vec<&Manifest> = app.runs.iter().map(|r| &r.1).collect();
        let scene = trade_off(&comparable(&runs, app.selected));
        (&Plot::new(&scene, &app.palette)).render(right, buffer);
        left
    } else {
        below
    };
    let filter = if app.runs_filter.is_empty() {
        String::new()
    } else {
        format!(", only \"{}\"", app.runs_filter)
    };
    let order = format!(
        "{} runs, {}{filter} (r sorts, / filters, m draws behind)",
        app.runs.len(),
        app.order.name()
    );
    buffer.set_stringn(list.x, list.y, order, list.width.into(), muted(app));
    let list = Rect {
        y: list.y + 1,
        height: list.height.saturating_sub(1),
        ..list
    };
    let title = format!(
        "{:<38} {:<11} {:>8} {:>10} {:>7} {:>9}",
        "run", "status", "step", "best val %", "test %", "weight kB"
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
        let label = folder.label();
        let branch = match app.depths.get(i) {
            None | Some(0) => String::new(),
            Some(depth) => format!("{}└ ", "  ".repeat(depth - 1)),
        };
        let overlaid = app.overlays.iter().find(|o| o.label == label);
        let own = match overlaid {
            _ if *folder == app.folder => " *".to_owned(),
            Some(_) => " ┄".to_owned(),
            None => String::new(),
        };
        let text = format!(
            "{:<38} {:<11} {:>8} {:>10} {:>7} {:>9}",
            format!("{branch}{label}{own}"),
            m.status.name(),
            m.step,
            percent(m.best_error),
            percent(m.test_error),
            m.kilobytes()
                .map_or("-".to_owned(), |kb| format!("{:.2}", kb[0]))
        );
        let mut style = app.palette.style(overlaid.map_or(Ink::Text, Overlaid::ink));
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

/// The runs on the same data with the same network as the selected one: an error on other pictures is
/// another number.
fn comparable<'a>(runs: &[&'a Manifest], selected: usize) -> Vec<&'a Manifest> {
    let task = runs.get(selected).and_then(|m| m.task.as_ref());
    let same = |m: &&&Manifest| m.task.as_ref() == task;
    runs.iter().filter(same).copied().collect()
}

/// Validation error against kB of weights of the same step, with the runs that no other beats in both.
fn trade_off(runs: &[&Manifest]) -> Scene {
    let points = runs
        .iter()
        .filter_map(|m| Some((m.kilobytes()?[0], 100.0 * m.best_error?)));
    let mut points: Vec<(f64, f64)> = points.collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let mut front: Vec<(f64, f64)> = Vec::new();
    for point in &points {
        if front.last().is_none_or(|last| point.1 < last.1) {
            // Down to the better error at the same size: a staircase, not a promise in between.
            if let Some(last) = front.last().copied() {
                front.push((point.0, last.1));
            }
            front.push(*point);
        }
    }
    let range = |of: fn(&(f64, f64)) -> f64| {
        let (low, high) = points
            .iter()
            .map(of)
            .fold((f64::MAX, f64::MIN), |r, v| (r.0.min(v), r.1.max(v)));
        if low > high {
            return (0.0, 1.0);
        }
        let margin = ((high - low) * 0.1).max(0.05 * high.abs()).max(1e-3);
        ((low - margin).max(0.0), high + margin)
    };
    let axis = |label: &str, range| Axis {
        label: label.into(),
        scale: Scale::Linear,
        range,
        ticks: None,
    };
    let (x, y) = (
        axis("kB of weights", range(|p| p.0)),
        axis("validation error, %", range(|p| p.1)),
    );
    let mut items = Vec::new();
    if !points.is_empty() {
        items.push(Item::Line(Line {
            label: "Pareto front".into(),
            ink: Ink::Budget,
            dash: 1,
            segments: vec![front],
            band: Vec::new(),
        }));
    }
    items.extend(points.iter().map(|at| {
        Item::Label(Label {
            at: *at,
            text: "●".into(),
            ink: Ink::Series(0),
        })
    }));
    Scene {
        title: "error against memory".into(),
        x,
        y,
        items,
        marks: Vec::new(),
        guides: Vec::new(),
        cursor: None,
        second: None,
        empty: "no run with a validation error within its budget yet".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{Best, Status};

    fn run(error: Option<f64>, best_kb: f64, now_kb: f64, task: &str) -> Manifest {
        Manifest {
            best_error: error,
            best: error.map(|_| Best {
                step: 7,
                weight_kb: best_kb,
                activation_kb: 2.0,
            }),
            weight_kb: now_kb,
            step: 9,
            status: Status::Stopped,
            task: Some(task.into()),
            ..Manifest::begin("r".into(), "flex".into())
        }
    }

    /// A point is an error and the memory of the same step, and a front is of one task.
    #[test]
    fn a_front_is_of_runs_that_can_be_compared() {
        let all = [
            run(Some(0.1), 20.0, 5.0, "glyphs"),
            run(None, 0.0, 0.0, "glyphs"),
            run(Some(0.2), 10.0, 40.0, "glyphs"),
            run(Some(0.05), 1.0, 1.0, "cifar10"),
        ];
        let runs: Vec<&Manifest> = all.iter().collect();
        let same = comparable(&runs, 0);
        assert_eq!(same.len(), 3);
        let scene = trade_off(&same);
        let points: Vec<(f64, f64)> = scene
            .items
            .iter()
            .flat_map(|item| match item {
                Item::Line(line) => line.segments.concat(),
                _ => Vec::new(),
            })
            .collect();
        for point in [(20.0, 10.0), (10.0, 20.0)] {
            let close = |p: &(f64, f64)| (p.0 - point.0).abs() + (p.1 - point.1).abs() < 1e-9;
            assert!(points.iter().any(close), "{point:?}: {points:?}");
        }
        assert!(points.iter().all(|p| p.0 >= 10.0), "{points:?}");
        assert_eq!(comparable(&runs, 3).len(), 1);
        assert_eq!(run(None, 0.0, 3.0, "").kilobytes(), Some([3.0, 0.0]));
    }
}
