//! Other runs behind a plot.

use super::super::scene::{Bar, Ink, Item, Line, Scene};
use super::{Name, View, panel};
use crate::run::History;

/// A run drawn behind another.
#[derive(Debug, Clone)]
pub struct Overlaid {
    /// Name of the run.
    pub label: String,
    /// Number of its colour, its own as long as it is drawn.
    pub colour: usize,
    /// What was recorded.
    pub history: History,
}

impl Overlaid {
    /// Its colour wherever it appears. The first three are what a plot's own lines take.
    pub fn ink(&self) -> Ink {
        Ink::Series(self.colour + 3)
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

/// [`panel`] with the same quantity of other runs behind it. A heat strip takes the whole plot and
/// stays alone.
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
    let mut behind = Vec::new();
    for other in others {
        let theirs = panel(name, index, &other.history, &plain);
        if theirs.is_empty() {
            continue;
        }
        if let Some(Item::Bars(bars)) = scene.items.first_mut() {
            mark_bars(bars, &theirs, other.ink());
            continue;
        }
        let lines = lines(name, &theirs, other);
        if lines.is_empty() {
            continue;
        }
        for (own, range) in [
            (&mut scene.x.range, theirs.x.range),
            (&mut scene.y.range, theirs.y.range),
        ] {
            *own = (own.0.min(range.0), own.1.max(range.1));
        }
        behind.extend(lines.into_iter().map(Item::Line));
    }
    if !behind.is_empty() {
        behind.append(&mut scene.items);
        scene.items = behind;
    }
    scene
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
        Name::StepSize | Name::Range | Name::Gradients => {
            drawn.map(|l| l.segments.clone()).collect()
        }
        // Paths alone: diagonals, arrows and clamps are the plane's own.
        Name::Plane => drawn
            .filter(|l| matches!(l.ink, Ink::Depth(_)))
            .map(|l| l.segments.clone())
            .collect(),
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

/// Marks each bar at the height of the other run's bar of that name.
fn mark_bars(bars: &mut [Bar], theirs: &Scene, ink: Ink) {
    let Some(Item::Bars(others)) = theirs.items.first() else {
        return;
    };
    for bar in bars {
        let same = others.iter().find(|other| other.label == bar.label);
        bar.marks.extend(same.map(|other| (other.value, ink)));
    }
}
