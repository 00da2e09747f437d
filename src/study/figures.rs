//! A report as figures: error against kB, bits per layer, error over steps.

use std::collections::BTreeMap;

use super::outcome::{Line as Runs, Measure, Report};
use super::statistics::Sample;
use super::table::compared_by;
use crate::figure::{
    Axis, Bar, Bars, DOT, Figure, Ink, Item, Label, Line, Place, RING, Scale, Scene, around,
    pareto_front,
};
use crate::graph::LayerKind;
use crate::quantizer::memory::Side;

/// Figures by name, those that there is something to show of.
pub fn figures(report: &Report) -> Vec<(&'static str, Figure)> {
    let single = |scene| Figure {
        panels: vec![scene],
        columns: 1,
    };
    let all = [
        ("error-kb", single(error_against_kilobytes(report))),
        ("bits", bits(report)),
        ("curves", single(curves(report))),
    ];
    let shown = |f: &Figure| f.panels.iter().any(|p| !p.is_empty());
    all.into_iter().filter(|(_, f)| shown(f)).collect()
}

fn axis(label: impl Into<String>, range: (f64, f64)) -> Axis {
    Axis::new(label, Scale::Linear, range)
}

fn scene(title: impl Into<String>, x: Axis, y: Axis, items: Vec<Item>) -> Scene {
    Scene::new(title, x, y, items, "no finished run yet")
}

fn line(label: &str, ink: Ink, dash: usize, points: Vec<(f64, f64)>) -> Line {
    Line {
        label: label.into(),
        ink,
        dash,
        segments: vec![points],
        band: Vec::new(),
    }
}

/// Margin of axes around what they show, as a share of it.
const MARGIN: f64 = 0.12;

/// Error against kB of weights, with intervals; the cells that no other beats in both; and what was
/// published.
fn error_against_kilobytes(report: &Report) -> Scene {
    let by = compared_by(report);
    let cells = || report.lines.iter().zip(&report.study.cells).enumerate();
    let points: Vec<(usize, f64, Sample)> = cells()
        .filter_map(|(i, (line, _))| {
            let kilobytes = line.sample(Measure::Weights)?.mean;
            Some((i, kilobytes, line.sample(by)?))
        })
        .collect();
    let half = |s: &Sample| s.half_width().unwrap_or(0.0);
    let published = || {
        cells().filter_map(|(i, (_, cell))| {
            let paper = cell.paper?;
            Some((i, paper.weights_kb?, paper.error))
        })
    };
    let front = pareto_front(points.iter().map(|(_, kb, s)| (*kb, s.mean)));
    let mut items = Vec::new();
    if !points.is_empty() {
        items.push(Item::Line(line(
            "no cell beats these",
            Ink::Budget,
            1,
            front,
        )));
    }
    let mut words = Vec::new();
    let mut word = |at, text: &str, ink, place| {
        let text = text.to_owned();
        words.push(Item::Label(Label {
            at,
            text,
            ink,
            place,
        }));
    };
    for (i, kilobytes, sample) in &points {
        let ink = Ink::Layer(*i);
        let at = (*kilobytes, sample.mean);
        let label = &report.study.cells[*i].label;
        let band = vec![(at.0, at.1 - half(sample), at.1 + half(sample))];
        items.push(Item::Line(Line {
            band,
            ..line(label, ink, 0, vec![at])
        }));
        word(at, DOT, ink, Place::On);
        word(at, label, ink, Place::Beside);
    }
    for (_, kilobytes, error) in published() {
        let at = (kilobytes, error);
        word(at, RING, Ink::Text, Place::On);
        word(at, "published", Ink::Text, Place::Beside);
    }
    items.append(&mut words);
    let kilobytes = points.iter().map(|p| p.1).chain(published().map(|p| p.1));
    let ends = points
        .iter()
        .flat_map(|(_, _, s)| [s.mean - half(s), s.mean + half(s)]);
    let errors = ends.chain(published().map(|p| p.2));
    scene(
        format!("{} error against memory", by.name().trim_end_matches(" %")),
        axis("kB of weights", around(kilobytes, MARGIN)),
        axis(
            format!("{} error, %", by.name().trim_end_matches(" %")),
            around(errors, MARGIN),
        ),
        items,
    )
}

/// Bits per layer: means over seeds as bars, the lowest and the highest as marks; a panel for each cell
/// whose bits differ between layers or seeds.
fn bits(report: &Report) -> Figure {
    let cells = report.lines.iter().zip(&report.study.cells);
    let panels = cells.filter_map(|(runs, cell)| {
        let bars = bars_of(runs);
        let same = |b: &Bar| b.value == bars[0].value && b.marks.is_empty();
        if bars.is_empty() || bars.iter().all(same) {
            return None;
        }
        let marks = |b: &Bar| b.marks.iter().map(|m| m.0).fold(b.value, f64::max);
        let highest = bars.iter().map(|b| marks(b).ceil()).fold(4.0, f64::max);
        let count = bars.len() as f64;
        let mut x = axis("layer, input to output", (0.0, count));
        x.ticks = Some(Vec::new());
        let items = vec![Item::Bars(Bars {
            bars,
            focus: 0,
            selected: None,
            others: Vec::new(),
        })];
        let title = format!(
            "bits of weights, mean over seeds (marks: lowest and highest): {}",
            cell.label
        );
        Some(scene(title, x, axis("bits", (0.0, highest + 0.5)), items))
    });
    Figure {
        panels: panels.collect(),
        columns: 1,
    }
}

fn bars_of(runs: &Runs) -> Vec<Bar> {
    let mut order: Vec<&str> = Vec::new();
    let mut values: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (name, side, _, bits) in runs.runs.values().flatten().flat_map(|o| &o.bits) {
        if *side == Side::Weights && !name.ends_with(".bias") {
            if !values.contains_key(name.as_str()) {
                order.push(name);
            }
            values.entry(name).or_default().push(*bits);
        }
    }
    let bar = |name: &&str| {
        let sample = Sample::of(values[name].iter().copied())?;
        let (low, high) = sample.range;
        let ends = if low < high {
            vec![low, high]
        } else {
            Vec::new()
        };
        Some(Bar {
            label: (*name).to_owned(),
            value: sample.mean,
            kind: LayerKind::Convolution,
            marks: ends.into_iter().map(|v| (v, Ink::Text)).collect(),
        })
    };
    order.iter().filter_map(bar).collect()
}

/// Validation errors over steps: means over seeds, with the lowest and the highest as a band.
fn curves(report: &Report) -> Scene {
    let mut items = Vec::new();
    for (i, (runs, cell)) in report.lines.iter().zip(&report.study.cells).enumerate() {
        // By step, and by place where one is evaluated in float and quantized.
        let mut at: BTreeMap<(u64, usize), Vec<f64>> = BTreeMap::new();
        let finished = runs.runs.values().flatten();
        let count = finished.clone().count();
        for outcome in finished {
            let mut before = None;
            for (step, error) in &outcome.curve {
                let place = match before {
                    Some((of, place)) if of == *step => place + 1,
                    _ => 0,
                };
                before = Some((*step, place));
                at.entry((*step, place)).or_default().push(100.0 * error);
            }
        }
        // Where not all seeds were evaluated, a mean would jump.
        at.retain(|_, errors| errors.len() == count);
        let points = at.iter().map(|((step, _), errors)| {
            let mean = errors.iter().sum::<f64>() / errors.len() as f64;
            (*step as f64, mean)
        });
        let points: Vec<(f64, f64)> = points.collect();
        if points.is_empty() {
            continue;
        }
        let band = at.iter().filter(|_| count > 1).map(|((step, _), errors)| {
            let low = errors.iter().copied().fold(f64::MAX, f64::min);
            let high = errors.iter().copied().fold(f64::MIN, f64::max);
            (*step as f64, low, high)
        });
        let band = band.collect();
        items.push(Item::Line(Line {
            band,
            ..line(&cell.label, Ink::Layer(i), i / 8, points)
        }));
    }
    let lines = || {
        items.iter().filter_map(|i| match i {
            Item::Line(line) => Some(line),
            _ => None,
        })
    };
    let points = || lines().flat_map(|l| l.segments.concat());
    let last = points().map(|p| p.0).fold(1.0, f64::max);
    let bands = lines().flat_map(|l| l.band.iter().flat_map(|b| [b.1, b.2]));
    let y = around(points().map(|p| p.1).chain(bands), MARGIN);
    scene(
        "validation error over steps",
        axis("step", (0.0, last)),
        axis("validation error, %", y),
        items,
    )
}
