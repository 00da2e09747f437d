//! Recorded runs and how their experiments differ from the current one.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::widgets::Widget;
use unicode_width::UnicodeWidthStr;

use super::super::app::{App, Group};
use super::{bold, muted};
use crate::experiment::padded;
use crate::figure::Window;
use crate::figure::terminal::{Plot, cut_apart, cut_in_the_middle};
use crate::figure::{
    Axis, DOT, Ink, Item, Label, Line, Overlaid, Place, Scale, Scene, around, pareto_front,
};
use crate::run::{Manifest, RunFolder, Status};
use crate::study::statistics::Sample;

pub(super) fn draw(app: &App, area: Rect, buffer: &mut Buffer) {
    let [list, below] = Layout::vertical([Constraint::Fill(1), Constraint::Fill(1)]).areas(area);
    let below = if area.width >= 100 {
        let halves = Layout::horizontal([Constraint::Fill(1); 2]);
        let [left, right] = halves.spacing(2).areas(below);
        let scene = error_against_memory(app);
        (&Plot::new(&scene, &app.palette)).render(right, buffer);
        left
    } else {
        below
    };
    let rows = usize::from(list.height.saturating_sub(2));
    let window = Window::around(app.selection(), app.runs.rows(), rows);
    let filter = match app.runs.filter.as_str() {
        "" => String::new(),
        filter => format!(", only \"{filter}\""),
    };
    let seen = window
        .text()
        .map_or(String::new(), |seen| format!(", {seen}"));
    let count = match app.runs.all.len() {
        1 => "1 run".to_owned(),
        n => format!("{n} runs"),
    };
    let of = match &app.runs.study {
        Some(study) => {
            let ended = |m: &&(RunFolder, Manifest)| m.1.status == Status::Finished;
            let finished = app.runs.all.iter().filter(ended).count();
            let planned = match app.runs.planned {
                Some(planned) if app.runs.filter.is_empty() => format!(", {planned} planned"),
                _ => String::new(),
            };
            format!("study {study}: {count}, {finished} finished{planned}")
        }
        None => count,
    };
    let order = format!("{of}, {}{filter}{seen}", app.runs.order.name());
    buffer.set_stringn(list.x, list.y, order, list.width.into(), muted(app));
    let list = Rect {
        y: list.y + 1,
        height: list.height.saturating_sub(1),
        ..list
    };
    if app.runs.grouped {
        groups(app, window, list, buffer);
    } else {
        singly(app, window, list, buffer);
    }
    compare(app, below, buffer);
}

fn percent(v: Option<f64>) -> String {
    v.map_or("-".to_owned(), |e| format!("{:.2}", e * 100.0))
}

/// Columns behind the name: what they hold, and how wide they are.
const SINGLE: [(&str, usize); 6] = [
    ("status", 11),
    ("step", 8),
    ("best val %", 11),
    ("test %", 7),
    ("best W kB", 10),
    ("A kB", 7),
];

/// A row for every run. Best is the lowest validation error among steps within the budget; kB of weights
/// and of the largest activation are of that step.
fn singly(app: &App, window: Window, list: Rect, buffer: &mut Buffer) {
    let room = usize::from(list.width);
    // Those at the right give way on a narrow screen.
    let mut columns = SINGLE.len();
    let width = |columns: usize| SINGLE[..columns].iter().map(|c| c.1).sum::<usize>();
    while columns > 3 && width(columns) + LEAST_NAME > room {
        columns -= 1;
    }
    let name = room.saturating_sub(width(columns)).min(60);
    let line = |label: &str, cells: [String; 6]| {
        let mut text = padded(label, name);
        for (cell, (_, width)) in cells.iter().zip(SINGLE).take(columns) {
            text += &format!("{cell:>width$}");
        }
        text
    };
    let titles = SINGLE.map(|c| c.0.to_owned());
    let first = heading("run", SINGLE.len() - columns);
    buffer.set_stringn(list.x, list.y, line(&first, titles), room, bold(app));
    for (i, place) in window.range().enumerate() {
        let (folder, m) = &app.runs.all[place];
        let label = folder.label();
        let branch = match app.runs.depths.get(place) {
            None | Some(0) => String::new(),
            Some(depth) => format!("{}└ ", "  ".repeat(depth - 1)),
        };
        let overlaid = app.shown.overlays.iter().find(|o| o.label == label);
        let own = match overlaid {
            _ if *folder == app.shown.folder => " *",
            Some(_) => " ┄",
            None => "",
        };
        let fits = name.saturating_sub(branch.width() + own.width() + 1);
        let label = format!("{branch}{}{own}", cut_in_the_middle(&label, fits));
        let kilobytes = |which: usize| {
            m.kilobytes()
                .map_or("-".to_owned(), |kb| format!("{:.2}", kb[which]))
        };
        let cells = [
            m.standing().to_owned(),
            m.step.to_string(),
            percent(m.best_error),
            percent(m.test_error),
            kilobytes(0),
            kilobytes(1),
        ];
        let mut style = app.palette.style(overlaid.map_or(Ink::Text, Overlaid::ink));
        if place == app.selection() {
            style = style.add_modifier(Modifier::REVERSED);
        }
        let y = list.y + 1 + i as u16;
        buffer.set_stringn(list.x, y, line(&label, cells), room, style);
    }
}

/// The first column's title, with the number of columns that a wider screen has.
fn heading(title: &str, hidden: usize) -> String {
    match hidden {
        0 => title.to_owned(),
        _ => format!("{title} (+{hidden} hidden)"),
    }
}

/// Columns that a run's name has at least.
const LEAST_NAME: usize = 26;

/// Columns of a table of groups: what they hold, and how wide they are. The first that give way on a
/// narrow screen are the last.
const GROUPED: [(&str, usize); 7] = [
    ("seeds", 6),
    ("best val %", 15),
    ("test %", 15),
    ("W kB", 15),
    ("A kB", 14),
    ("published %", 12),
    ("against reference", 18),
];

/// A row for every experiment: means over its seeds with their 95 % confidence intervals; in a study also
/// what was published, and the paired difference from the study's reference.
fn groups(app: &App, window: Window, list: Rect, buffer: &mut Buffer) {
    let room = usize::from(list.width);
    let any = |has: fn(&Group) -> bool| app.runs.groups.iter().any(has);
    let has = [
        any(|g| g.published.is_some()),
        any(|g| g.difference.is_some()),
    ];
    let mut columns: Vec<usize> = (0..5).collect();
    columns.extend((5..7).filter(|c| has[c - 5]));
    let width = |columns: &[usize]| columns.iter().map(|c| GROUPED[*c].1).sum::<usize>();
    while columns.len() > 2 && width(&columns) + LEAST_GROUP > room {
        columns.pop();
    }
    let name = room.saturating_sub(width(&columns)).clamp(12, 60);
    let line = |label: &str, cells: [String; 7]| {
        let mut text = padded(label, name);
        for column in &columns {
            text += &format!("{:>width$}", cells[*column], width = GROUPED[*column].1);
        }
        text
    };
    let mut titles = GROUPED.map(|c| c.0.to_owned());
    // (As in the report of a study; elsewhere of the same step as the best error.)
    let of = if app.runs.study.is_some() {
        "last"
    } else {
        "best"
    };
    titles[3] = format!("{of} W kB");
    titles[4] = format!("{of} A kB");
    let wanted = 5 + has.iter().filter(|has| **has).count();
    let first = heading("experiment", wanted - columns.len());
    buffer.set_stringn(list.x, list.y, line(&first, titles), room, bold(app));
    let interval = |sample: &Option<Sample>, factor: f64, signed: bool| {
        let Some(sample) = sample else {
            return "-".to_owned();
        };
        let mean = factor * sample.mean;
        let mean = match signed {
            true => format!("{mean:+.2}"),
            false => format!("{mean:.2}"),
        };
        match sample.half_width() {
            Some(half) => format!("{mean} ± {:.2}", factor * half),
            None => mean,
        }
    };
    let labels = cut_apart(app.runs.groups.iter().map(|g| g.label.as_str()), name - 1);
    for (i, place) in window.range().enumerate() {
        let group = &app.runs.groups[place];
        let cells = [
            group.seeds.to_string(),
            interval(&group.best, 100.0, false),
            interval(&group.test, 100.0, false),
            interval(&group.kilobytes[0], 1.0, false),
            interval(&group.kilobytes[1], 1.0, false),
            (group.published).map_or("-".into(), |error| format!("{error:.2}")),
            interval(&group.difference, 100.0, true),
        ];
        let text = line(&labels[place], cells);
        let mut style = app.palette.style(Ink::Text);
        if place == app.selection() {
            style = style.add_modifier(Modifier::REVERSED);
        }
        let y = list.y + 1 + i as u16;
        buffer.set_stringn(list.x, y, text, room, style);
    }
}

/// Columns that the name of a group has at least.
const LEAST_GROUP: usize = 24;

/// The selected run's experiment against the current one, key by key.
fn compare(app: &App, area: Rect, buffer: &mut Buffer) {
    let Some((folder, _)) = app.selected_run() else {
        let text = match app.runs.filter.as_str() {
            "" if app.runs.grouped && !app.runs.all.is_empty() => "no run of this cell yet".into(),
            "" => format!("no runs in {} yet", app.runs_root.display()),
            filter => format!("no run's name contains \"{filter}\"; Esc shows all"),
        };
        buffer.set_stringn(area.x, area.y, text, area.width.into(), muted(app));
        return;
    };
    let title = format!(
        "{} against the current experiment (current → that run)",
        folder.label()
    );
    buffer.set_stringn(area.x, area.y, title, area.width.into(), bold(app));
    let room = usize::from(area.height.saturating_sub(1));
    for (i, line) in app.runs.compared.iter().take(room).enumerate() {
        let y = area.y + 1 + i as u16;
        let width = area.width.saturating_sub(2).into();
        buffer.set_stringn(area.x + 2, y, line, width, Style::new());
    }
}

/// The plot beside the list: the runs that can be compared with the selected one.
pub(in crate::tui) fn error_against_memory(app: &App) -> Scene {
    let runs: Vec<&Manifest> = app.runs.all.iter().map(|r| &r.1).collect();
    trade_off(&comparable(&runs, app.selected_run().map(|r| &r.1)))
}

/// The runs on the same data with the same network as the selected one: an error on other pictures is
/// another number.
fn comparable<'a>(runs: &[&'a Manifest], selected: Option<&Manifest>) -> Vec<&'a Manifest> {
    let task = selected.and_then(|m| m.task.as_ref());
    let same = |m: &&&Manifest| m.task.as_ref() == task;
    runs.iter().filter(same).copied().collect()
}

/// Validation error against kB of weights of the same step, with the runs that no other beats in both.
fn trade_off(runs: &[&Manifest]) -> Scene {
    let points = runs
        .iter()
        .filter_map(|m| Some((m.kilobytes()?[0], 100.0 * m.best_error?)));
    let points: Vec<(f64, f64)> = points.collect();
    let axis = |label: &str, of: fn(&(f64, f64)) -> f64| {
        Axis::new(label, Scale::Linear, around(points.iter().map(of), 0.1))
    };
    let (x, y) = (
        axis("kB of weights", |p| p.0),
        axis("validation error, %", |p| p.1),
    );
    let mut items = Vec::new();
    if !points.is_empty() {
        items.push(Item::Line(Line {
            label: "Pareto front".into(),
            ink: Ink::Budget,
            dash: 1,
            segments: vec![pareto_front(points.iter().copied())],
            band: Vec::new(),
        }));
    }
    items.extend(points.iter().map(|at| {
        Item::Label(Label {
            at: *at,
            text: DOT.into(),
            ink: Ink::Series(0),
            place: Place::On,
        })
    }));
    let empty = "no run with a validation error within its budget yet";
    Scene::new("error against memory", x, y, items, empty)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Best;

    fn run(error: Option<f64>, best_kb: f64, now_kb: f64, task: &str) -> Manifest {
        Manifest {
            best_error: error,
            best: error.map(|_| Best {
                step: 7,
                weight_kb: best_kb,
                activation_kb: 2.0,
                usage: None,
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
        let same = comparable(&runs, Some(&all[0]));
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
        assert_eq!(comparable(&runs, Some(&all[3])).len(), 1);
        assert_eq!(run(None, 0.0, 3.0, "").kilobytes(), Some([3.0, 0.0]));
    }
}
