//! Other runs behind a plot.

use std::path::PathBuf;

use super::super::scene::{Bar, Heat, HeatRow, Ink, Item, Line, Scene};
use super::{Builder, Name, View, panel};
use crate::quantizer::memory::Side;
use crate::run::{History, LayerHistory, Parent};

/// A run drawn behind another.
#[derive(Debug, Clone)]
pub struct Overlaid {
    /// Name of the run.
    pub label: String,
    /// Number of its colour, its own as long as it is drawn.
    pub colour: usize,
    /// Where it lies.
    pub folder: PathBuf,
    /// What was recorded.
    pub history: History,
}

impl Overlaid {
    /// Its colour wherever it appears.
    pub fn ink(&self) -> Ink {
        Ink::Overlay(self.colour)
    }

    /// Its line style wherever it appears.
    fn dash(&self) -> usize {
        1 + self.colour % 3
    }

    fn line(&self, label: &str, segments: Vec<Vec<(f64, f64)>>) -> Line {
        Line {
            label: label.into(),
            ink: self.ink(),
            dash: self.dash(),
            segments,
            band: Vec::new(),
        }
    }
}

/// [`panel`] with the same quantity of other runs behind it; in a heat strip, below each row that
/// they have too.
pub fn panel_with(
    name: Name,
    index: usize,
    history: &History,
    view: &View,
    others: &[Overlaid],
) -> Scene {
    let mut scene = panel(name, index, history, view);
    let plain = View {
        cursor: None,
        second: None,
        selected: None,
        ..view.clone()
    };
    let over_steps = !matches!(name, Name::Plane | Name::Bitwidth);
    let theirs: Vec<(&Overlaid, Scene)> = others
        .iter()
        .map(|other| {
            let beside = View {
                x_range: visible_of(history, other, &plain),
                // The rows that are looked up are those around the chosen layer.
                selected: view.selected.and_then(|at| same_layer(history, at, other)),
                ..plain.clone()
            };
            let mut theirs = panel(name, index, &other.history, &beside);
            if name == Name::Plane {
                let (history, view) = (&other.history, &beside);
                theirs.items = Builder { history, view }.paths(Side::BOTH[index.min(1)]);
            }
            if over_steps {
                let by = fork_distance(history, other, view);
                let least = (theirs.x.range.0 + by).min(0.0);
                shift(&mut theirs, by, least);
            }
            (other, theirs)
        })
        .filter(|(_, theirs)| !theirs.is_empty())
        .collect();
    match scene.items.first_mut() {
        Some(Item::Bars(bars)) => {
            let mut highest = 0.0f64;
            for (other, theirs) in &theirs {
                mark_bars(&mut bars.bars, theirs, other.ink());
                bars.others.push((other.label.clone(), other.ink()));
                highest = highest.max(theirs.y.range.1);
            }
            scene.y.range.1 = scene.y.range.1.max(highest);
            if let Some(ticks) = &mut scene.y.ticks {
                let from = ticks.len() as u32;
                let more = from..=(scene.y.range.1.floor() as u32);
                ticks.extend(more.map(|b| (b.into(), b.to_string())));
            }
        }
        Some(Item::Heat(heat)) => add_rows(heat, &mut scene.x.range, &theirs),
        _ => draw_behind(name, view, &mut scene, &theirs),
    }
    scene
}

/// The place of a layer in another run.
fn same_layer(history: &History, at: usize, other: &Overlaid) -> Option<usize> {
    let own = &history.layers.get(at)?.info;
    let same = |l: &LayerHistory| l.info.name == own.name && l.info.role == own.role;
    other.history.layers.iter().position(same)
}

/// Which of two runs was forked from the other, and at which of its steps.
enum Forked {
    FromOther(u64),
    FromThis(u64),
    Apart,
}

fn forked(history: &History, other: &Overlaid) -> Forked {
    let of = |parent: &Option<Parent>, run: &str| {
        parent.as_ref().filter(|p| p.run == run).map(|p| p.step)
    };
    if let Some(step) = of(&history.parent, &other.history.name) {
        return Forked::FromOther(step);
    }
    of(&other.history.parent, &history.name).map_or(Forked::Apart, Forked::FromThis)
}

/// The steps of another run that stand beside those that are visible of this one, in the unit of the x
/// axis. Of a parent that did not go on behind the fork, as many before it: where the child comes from.
fn visible_of(history: &History, other: &Overlaid, view: &View) -> Option<(f64, f64)> {
    let forked = forked(history, other);
    if matches!(forked, Forked::Apart) && view.x_range.is_none() {
        return None;
    }
    let own = Builder { history, view };
    let theirs = Builder {
        history: &other.history,
        view,
    };
    let (from, to) = own.x_range();
    let by = fork_distance(history, other, view);
    let (from, to) = (own.x(from) - by, own.x(to) - by);
    let (before, least) = match forked {
        Forked::FromOther(step) if other.history.step() <= step => (to - from, 0.0),
        // The first step behind the fork: the one before it may be of the float phase.
        Forked::FromOther(step) => (0.0, step as f64 + 1.0),
        _ => (0.0, 0.0),
    };
    let [_, from] = theirs.steps_around(from - before);
    let [to, _] = theirs.steps_around(to);
    let from = from.max(least);
    Some((from, to.max(from)))
}

/// How far another run's axis has to move for parent and child to meet at the fork, in the unit of the
/// x axis.
fn fork_distance(history: &History, other: &Overlaid, view: &View) -> f64 {
    let x = |history: &History, step: u64| Builder { history, view }.x(step as f64);
    match forked(history, other) {
        // Ours began at the step of theirs.
        Forked::FromOther(step) => x(history, 0) - x(&other.history, step),
        Forked::FromThis(step) => x(history, step) - x(&other.history, 0),
        Forked::Apart => 0.0,
    }
}

/// Moves what a scene draws along the x axis; of lines and areas, what comes before the least is left out.
fn shift(scene: &mut Scene, by: f64, least: f64) {
    if by == 0.0 {
        return;
    }
    for item in &mut scene.items {
        match item {
            Item::Line(line) => {
                for segment in &mut line.segments {
                    segment.iter_mut().for_each(|p| p.0 += by);
                    segment.retain(|p| p.0 >= least);
                }
                line.segments.retain(|s| !s.is_empty());
            }
            Item::Area(area) => {
                area.points.iter_mut().for_each(|p| p.0 += by);
                area.points.retain(|p| p.0 >= least);
            }
            Item::Heat(heat) => heat.edges.iter_mut().for_each(|edge| *edge += by),
            _ => {}
        }
    }
    scene.x.range.0 = (scene.x.range.0 + by).max(least);
    scene.x.range.1 = (scene.x.range.1 + by).max(scene.x.range.0);
}

/// Puts the other runs' lines before the scene's own items, on axes that hold all.
fn draw_behind(name: Name, view: &View, scene: &mut Scene, theirs: &[(&Overlaid, Scene)]) {
    let mut behind = Vec::new();
    for (other, theirs) in theirs {
        let lines = lines(name, theirs, other);
        if lines.is_empty() {
            continue;
        }
        let united = |own: (f64, f64), range: (f64, f64)| (own.0.min(range.0), own.1.max(range.1));
        scene.x.range = united(scene.x.range, theirs.x.range);
        // (Whoever zooms in wants to see less than all of every run.)
        if view.y_zoom >= 1.0 {
            scene.y.range = united(scene.y.range, theirs.y.range);
        }
        behind.extend(lines.into_iter().map(Item::Line));
    }
    behind.append(&mut scene.items);
    scene.items = behind;
}

/// The other run's lines; the first carries its name.
fn lines(name: Name, theirs: &Scene, other: &Overlaid) -> Vec<Line> {
    let mut drawn = theirs.items.iter().filter_map(|item| match item {
        Item::Line(line) if !line.segments.is_empty() => Some(line),
        _ => None,
    });
    let lines: Vec<Vec<Vec<(f64, f64)>>> = match name {
        // The quantity that runs are compared by: validation where there is one.
        Name::Loss | Name::Error => drawn
            .max_by_key(|l| l.label == "validation")
            .map(|l| l.segments.clone())
            .into_iter()
            .collect(),
        Name::Memory | Name::Pull => drawn
            .next_back()
            .map(|l| l.segments.clone())
            .into_iter()
            .collect(),
        Name::StepSize | Name::Range | Name::Gradients | Name::Plane => {
            drawn.map(|l| l.segments.clone()).collect()
        }
        Name::Ledger | Name::Phases => vec![vec![heights(theirs)]],
        Name::Bitwidth | Name::BitwidthHeat => Vec::new(),
    };
    let labels = std::iter::once(other.label.as_str()).chain(std::iter::repeat(""));
    labels
        .zip(lines)
        .map(|(label, segments)| other.line(label, segments))
        .collect()
}

/// The upper edge of a stack.
fn heights(scene: &Scene) -> Vec<(f64, f64)> {
    let mut tops: Vec<(f64, f64)> = Vec::new();
    for item in &scene.items {
        let Item::Area(area) = item else { continue };
        for (x, _, high) in &area.points {
            match tops.binary_search_by(|top| top.0.total_cmp(x)) {
                Ok(at) => tops[at].1 = tops[at].1.max(*high),
                Err(at) => tops.insert(at, (*x, *high)),
            }
        }
    }
    tops
}

/// Adds the other runs' rows to a heat strip, below the row of the same name, on an x axis that
/// holds all.
fn add_rows(heat: &mut Heat, range: &mut (f64, f64), theirs: &[(&Overlaid, Scene)]) {
    let mut others = Vec::new();
    for (other, theirs) in theirs {
        if let Some(Item::Heat(heat)) = theirs.items.first() {
            *range = (range.0.min(theirs.x.range.0), range.1.max(theirs.x.range.1));
            others.push((other, heat));
        }
    }
    if others.is_empty() {
        return;
    }
    let columns = heat.columns().max(1);
    let edge = |c: usize| range.0 + (range.1 - range.0) * c as f64 / columns as f64;
    let edges: Vec<f64> = (0..=columns).map(edge).collect();
    let (mut rows, mut values, mut selected) = (Vec::new(), Vec::new(), None);
    let mut focus = 0;
    for (r, row) in heat.rows.iter().enumerate() {
        if heat.focus == r {
            focus = rows.len();
        }
        if heat.selected == Some(r) {
            selected = Some(rows.len());
        }
        rows.push(row.clone());
        values.extend(heat.row_in(r, &edges));
        for (other, heat) in &others {
            let Some(same) = heat.rows.iter().position(|o| o.label == row.label) else {
                continue;
            };
            rows.push(HeatRow {
                label: format!("· {}", other.label),
                reading: None,
                ink: other.ink(),
            });
            values.extend(heat.row_in(same, &edges));
        }
    }
    *heat = Heat {
        shade: heat.shade,
        rows,
        edges,
        values,
        focus,
        selected,
    };
}

/// Marks each bar at the height of the other run's bar of that name.
fn mark_bars(bars: &mut [Bar], theirs: &Scene, ink: Ink) {
    let Some(Item::Bars(others)) = theirs.items.first() else {
        return;
    };
    for bar in bars {
        let same = others.bars.iter().find(|other| other.label == bar.label);
        bar.marks.extend(same.map(|other| (other.value, ink)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::{XUnit, panel_count};
    use super::*;
    use crate::graph::LayerKind;
    use crate::quantizer::Parametrization;
    use crate::quantizer::memory::Role;
    use crate::run::{Event, LayerInfo, LayerRecord, StepRecord, Times};

    /// Twenty steps of one layer at so many bits, a second each.
    fn run(bits: f32) -> History {
        run_of(bits, 1.0)
    }

    /// The same with so many seconds a step.
    fn run_of(bits: f32, pace: f64) -> History {
        let mut history = History::default();
        history.push(&Event::Started {
            name: "r".into(),
            device: "flex".into(),
            experiment: String::new(),
            layers: vec![LayerInfo {
                name: "conv".into(),
                role: Role::Weight,
                kind: LayerKind::Convolution,
                elements: 1024,
                parametrization: Parametrization::U3,
                clamps: [[1e-3, 1.0], [1e-3, 100.0]],
                quantizer: None,
            }],
            budgets: Vec::new(),
            steps_per_epoch: 10,
            total_steps: 20,
            step: 0,
            parent: None,
        });
        for step in 1..=20 {
            history.push(&Event::Step(Box::new(StepRecord {
                step,
                seconds: step as f64 * pace,
                loss: 2.0 / step as f64,
                cross_entropy: 1.0 / step as f64,
                pulls: [1.0, 0.5],
                times: Times {
                    forward: 0.1,
                    ..Times::default()
                },
                layers: Some(vec![LayerRecord {
                    d: 0.1,
                    q_max: 0.1 * bits,
                    bitwidth: bits,
                    gradients: [0.1, 0.2],
                    grad_norm: 1.0,
                    ..LayerRecord::default()
                }]),
                ..StepRecord::default()
            })));
        }
        history
    }

    /// A child is seen to go on from where its parent ended.
    #[test]
    fn a_parent_that_ended_at_the_fork_lies_before_it() {
        let (mut own, mut parent) = (run(4.0), run(7.0));
        parent.name = "parent".into();
        own.parent = Some(Parent {
            run: "parent".into(),
            step: 20,
        });
        let others = [Overlaid {
            label: "parent".into(),
            colour: 0,
            folder: PathBuf::new(),
            history: parent,
        }];
        let of = |view: &View| {
            let scene = panel_with(Name::Loss, 0, &own, view, &others);
            let Some(Item::Line(line)) = scene.items.first() else {
                panic!("no line behind");
            };
            let steps = line.segments.concat();
            let ends = (steps[0].0, steps[steps.len() - 1].0);
            (scene.x.range, ends)
        };
        assert_eq!(of(&View::default()), ((-20.0, 20.0), (-19.0, 0.0)));
        let close = View {
            x_range: Some((0.0, 5.0)),
            ..View::default()
        };
        let (range, (from, to)) = of(&close);
        assert_eq!(range, (-5.0, 5.0));
        assert!(from >= -6.0 && to == 0.0, "{from} to {to}");
    }

    /// Ten seconds of one run stand beside ten seconds of another, however many steps those are.
    #[test]
    fn on_an_axis_of_seconds_other_runs_are_cut_by_seconds() {
        let own = run(4.0);
        let view = View {
            x_range: Some((0.0, 10.0)),
            x_unit: XUnit::Seconds,
            ..View::default()
        };
        for pace in [0.5, 1.0, 4.0] {
            let others = [Overlaid {
                label: "other".into(),
                colour: 0,
                folder: PathBuf::new(),
                history: run_of(7.0, pace),
            }];
            let scene = panel_with(Name::Loss, 0, &own, &view, &others);
            let Some(Item::Line(line)) = scene.items.first() else {
                panic!("no line behind");
            };
            let last = line.segments.concat().last().map_or(0.0, |p| p.0);
            // (A line goes on to the first point that is not seen.)
            assert!(
                (8.0..=10.0 + pace).contains(&last),
                "{pace} s a step: {last}"
            );
            assert_eq!(scene.x.range, (0.0, 10.0), "{pace} s a step");
        }
    }

    #[test]
    fn another_run_lies_behind_every_plot_in_its_own_colour() {
        let (own, other) = (run(4.0), run(7.0));
        let others = [Overlaid {
            label: "other".into(),
            colour: 2,
            folder: PathBuf::new(),
            history: other,
        }];
        for name in [
            Name::Loss,
            Name::Error,
            Name::StepSize,
            Name::Range,
            Name::Gradients,
            Name::Memory,
            Name::Plane,
            Name::Ledger,
            Name::Pull,
            Name::Phases,
        ] {
            for index in 0..panel_count(name, &own) {
                let scene = panel_with(name, index, &own, &View::default(), &others);
                let first = scene.items.first();
                let behind = matches!(first, Some(Item::Line(l)) if l.ink == Ink::Overlay(2));
                assert!(behind, "{name:?} {index}: {first:?}");
                let named = scene.legend().iter().any(|entry| entry.label == "other");
                assert!(named, "{name:?} {index}");
            }
        }
        let bars = panel_with(Name::Bitwidth, 0, &own, &View::default(), &others);
        let Some(Item::Bars(bars)) = bars.items.first() else {
            panic!("no bars");
        };
        assert_eq!(bars.bars[0].value, 4.0);
        assert_eq!(bars.bars[0].marks, [(7.0, Ink::Overlay(2))]);
        let twice = [
            others[0].clone(),
            Overlaid {
                label: "third".into(),
                colour: 0,
                ..others[0].clone()
            },
        ];
        let heat = panel_with(Name::BitwidthHeat, 0, &own, &View::default(), &twice);
        let Some(Item::Heat(heat)) = heat.items.first() else {
            panic!("no heat strip");
        };
        let labels: Vec<&str> = heat.rows.iter().map(|r| r.label.as_str()).collect();
        assert_eq!(labels, ["W conv", "· other", "· third"]);
        for (row, bits) in [4.0, 7.0, 7.0].into_iter().enumerate() {
            assert!(heat.row(row).iter().flatten().all(|v| *v == bits));
            assert!(heat.row(row).iter().flatten().count() > 10);
        }
    }
}
