//! One layer's weights or activations under the microscope: as a checkpoint holds them, on the
//! levels that they are rounded to. Reads files, never tensors of the run.

use std::path::{Path, PathBuf};

use crate::figure::{Area, Axis, Figure, Guide, Ink, Item, Line, Scale, Scene, VerticalMark};
use crate::quantizer::memory::Role;
use crate::quantizer::{Grid, Sums};
use crate::run::{LayerInfo, RunFolder};
use crate::training::Checkpoint;

/// Columns of the histogram.
const BINS: usize = 120;
/// Levels that are marked one by one at most.
const MARKED: usize = 70;

/// What is seen.
#[derive(Debug, Default)]
pub(super) struct Microscope {
    /// Checkpoints of the run, the oldest first.
    checkpoints: Vec<PathBuf>,
    /// Distance from the newest.
    back: usize,
    /// What the figure shows: layer, checkpoint.
    shown: Option<(usize, PathBuf)>,
    /// Name of that layer, as part of a file's.
    layer: String,
    /// Histogram and transfer curve.
    pub figure: Option<Figure>,
    /// Numbers, or why there are none.
    pub lines: Vec<String>,
}

impl Microscope {
    /// Looks which checkpoints there are.
    pub(super) fn refresh(&mut self, folder: &RunFolder) {
        let before = self.current().cloned();
        self.checkpoints = folder.all_checkpoints();
        // Scrubbed back, the view stays where it is; at the newest it follows.
        if self.back > 0 {
            let at = before.and_then(|b| self.checkpoints.iter().position(|c| *c == b));
            self.back = at.map_or(0, |at| self.checkpoints.len() - 1 - at);
        }
    }

    /// Goes to an earlier (negative) or later checkpoint.
    pub(super) fn scrub(&mut self, by: isize) {
        let last = self.checkpoints.len().saturating_sub(1);
        self.back = self.back.saturating_add_signed(-by).min(last);
    }

    fn current(&self) -> Option<&PathBuf> {
        let at = self.checkpoints.len().checked_sub(1 + self.back)?;
        self.checkpoints.get(at)
    }

    /// Which checkpoint is seen, of how many.
    pub(super) fn place(&self) -> String {
        let count = self.checkpoints.len();
        self.current()
            .map_or("no checkpoint yet (c writes one)".into(), |path| {
                let name = path.file_stem().unwrap_or_default().to_string_lossy();
                format!("checkpoint {name}, {} of {count}", count - self.back)
            })
    }

    /// What a file of the figure is called: the layer and the checkpoint.
    pub(super) fn name(&self) -> String {
        let Some((_, path)) = &self.shown else {
            return "microscope".into();
        };
        let checkpoint = path.file_stem().unwrap_or_default().to_string_lossy();
        format!("microscope-{}-{checkpoint}", self.layer)
    }

    /// Makes the figure of a layer, where another is shown.
    pub(super) fn look(&mut self, index: usize, info: &LayerInfo) {
        let Some(path) = self.current().cloned() else {
            (self.figure, self.shown) = (None, None);
            self.lines = vec![self.place()];
            return;
        };
        let wanted = (index, path);
        if self.shown.as_ref() == Some(&wanted) {
            return;
        }
        self.layer = file_name(info);
        match examine(index, info, &wanted.1) {
            Ok((figure, lines)) => (self.figure, self.lines) = (Some(figure), lines),
            Err(problem) => (self.figure, self.lines) = (None, vec![problem]),
        }
        self.shown = Some(wanted);
    }
}

/// A layer's name as part of a file's.
fn file_name(info: &LayerInfo) -> String {
    let plain = |c: char| {
        if c.is_alphanumeric() || "-_.".contains(c) {
            c
        } else {
            '_'
        }
    };
    let name: String = info.name.chars().map(plain).collect();
    format!("{name}.{}", info.role.letter())
}

fn examine(index: usize, info: &LayerInfo, path: &Path) -> Result<(Figure, Vec<String>), String> {
    let checkpoint = Checkpoint::open(path).map_err(|e| e.to_string())?;
    let state = &checkpoint.state;
    if !state.quantized {
        return Err("at this checkpoint the quantizers were not in use yet".into());
    }
    let saved = state
        .slots
        .get(index)
        .ok_or("this quantizer is not in the checkpoint")?;
    let (quantizer, parameters) = (&saved.quantizer, saved.parameters);
    let grid = quantizer.grid(parameters);
    let (d, q_max) = quantizer.raw_step_and_range(parameters);
    let mut lines = vec![format!(
        "step {}   {} bits   d {d:.5} (as used {:.5})   q_max {q_max:.4}   {} levels",
        state.step,
        grid.bits,
        grid.step,
        grid.level_count()
    )];
    let (what, tensors, name) = match info.role {
        Role::Weight => (
            "weights",
            &checkpoint.weights,
            format!("{}.weight", info.name),
        ),
        Role::Bias => ("biases", &checkpoint.weights, format!("{}.bias", info.name)),
        Role::Activation => ("activations", &checkpoint.activations, info.name.clone()),
    };
    let (_, values) = tensors
        .get(&name)
        .ok_or_else(|| format!("{name} is not in {}", path.display()))?;
    lines.extend(numbers(&grid, what, values));
    let largest = values.iter().fold(0f32, |m, w| m.max(w.abs()));
    let reach = largest.max(grid.q_max) * 1.08;
    let panels = vec![
        histogram(&grid, what, values, reach),
        transfer(&grid, reach),
    ];
    Ok((Figure { panels, columns: 1 }, lines))
}

/// Shares and errors of all values, in two lines that fit eighty columns. The rounding error is of what
/// is inside the range of a ReLU too: below zero there is nothing to round.
fn numbers(grid: &Grid, what: &str, weights: &[f32]) -> [String; 2] {
    let mut sums = Sums::default();
    let (mut error, mut power) = (0.0, 0.0);
    let mut used = std::collections::BTreeSet::new();
    for w in weights {
        grid.backward(*w, 0.0, &mut sums);
        let w = if grid.signed { *w } else { w.max(0.0) };
        let level = grid.forward(w);
        // Minus zero is no level of its own.
        used.insert((level + 0.0).to_bits());
        error += f64::from(level - w).powi(2);
        power += f64::from(w).powi(2);
    }
    let count = weights.len().max(1) as f64;
    [
        format!(
            "{} {what}   clipped {:.2} %   at zero {:.1} %   levels in use {}",
            weights.len(),
            100.0 * sums.clipped / count,
            100.0 * sums.zeros / count,
            used.len()
        ),
        format!(
            "rounding error (rms) {:.2e}   signal to noise {:.1} dB",
            (error / count).sqrt(),
            10.0 * (power / error.max(1e-30)).log10()
        ),
    ]
}

fn axis(label: &str, range: (f64, f64)) -> Axis {
    Axis::new(label, Scale::Linear, range)
}

fn scene(title: impl Into<String>, x: Axis, y: Axis, items: Vec<Item>) -> Scene {
    Scene::new(title, x, y, items, "nothing here")
}

/// The levels as marks; only the ends where they are too many to tell apart.
fn level_marks(grid: &Grid) -> Vec<VerticalMark> {
    let low = if grid.signed { -grid.top } else { 0.0 };
    let levels = grid.levels(MARKED).unwrap_or_else(|| vec![low, grid.top]);
    let marks = levels.into_iter().map(|level| VerticalMark {
        x: level.into(),
        letter: '┴',
        label: String::new(),
    });
    marks.collect()
}

fn histogram(grid: &Grid, what: &str, weights: &[f32], reach: f32) -> Scene {
    let mut counts = [0usize; BINS];
    let width = 2.0 * reach / BINS as f32;
    for w in weights {
        let bin = ((w + reach) / width) as usize;
        counts[bin.min(BINS - 1)] += 1;
    }
    let total = weights.len().max(1) as f64;
    let share = |count: usize| 100.0 * count as f64 / total;
    let highest = share(counts.iter().copied().max().unwrap_or(0));
    let at = |bin: usize| f64::from(-reach + width * bin as f32);
    let points = counts.iter().enumerate();
    let area = Area {
        label: String::new(),
        ink: Ink::Weights,
        points: points.map(|(i, c)| (at(i), 0.0, share(*c))).collect(),
    };
    let reach = f64::from(reach);
    Scene {
        marks: level_marks(grid),
        ..scene(
            format!("{what}, with quantization levels"),
            axis("value", (-reach, reach)),
            axis(&format!("% of the {what}"), (0.0, highest.max(1e-9) * 1.05)),
            vec![Item::Area(area)],
        )
    }
}

/// Q(x) beside the identity.
fn transfer(grid: &Grid, reach: f32) -> Scene {
    const POINTS: usize = 800;
    let low = if grid.signed { -reach } else { -0.1 * reach };
    let at = |i: usize| low + (reach - low) * i as f32 / (POINTS - 1) as f32;
    let curve = (0..POINTS).map(|i| (f64::from(at(i)), f64::from(grid.forward(at(i)))));
    let line = |label: &str, ink, dash, points| {
        Item::Line(Line {
            label: label.into(),
            ink,
            dash,
            segments: vec![points],
            band: Vec::new(),
        })
    };
    let (from, to) = (f64::from(low), f64::from(reach));
    let items = vec![
        line("x", Ink::Muted, 2, vec![(from, from), (to, to)]),
        line("Q(x)", Ink::Series(0), 0, curve.collect()),
    ];
    Scene {
        guides: vec![Guide {
            y: f64::from(grid.top),
            label: "top level".into(),
            ink: Ink::Budget,
        }],
        ..scene(
            "transfer curve",
            axis("x", (from, to)),
            axis("Q(x)", (from, to)),
            items,
        )
    }
}
