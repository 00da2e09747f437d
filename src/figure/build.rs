//! Scenes from a run's history.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::scene::{
    Area, Axis, Bar, Figure, Guide, Heat, Ink, Item, Label, Line, Scale, Scene, VerticalMark,
};
use crate::quantizer::memory::{Resource, Role};
use crate::quantizer::{Family, Parametrization};
use crate::run::{Bucket, History, LayerHistory, LayerInfo, LayerRecord, MarkKind, Series};

/// The figures that can be drawn of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Name {
    /// Loss and cross entropy over steps.
    Loss,
    /// Training and validation error over steps.
    Error,
    /// Inferred bitwidth per layer now, weights and activations.
    Bitwidth,
    /// Inferred bitwidth, layers x steps.
    BitwidthHeat,
    /// Step size per layer over steps.
    StepSize,
    /// Range per layer over steps.
    Range,
    /// Gradient norms of weights, d and q_max per layer over steps.
    Gradients,
    /// Memory against the budget over steps.
    Memory,
    /// Trajectories in (log2 d, log2 q_max) over the diagonals of equal bitwidth.
    Plane,
    /// kB per layer, stacked, over steps.
    Ledger,
    /// What the penalties add to the loss, and their share of the quantizers' gradient.
    Pull,
    /// Milliseconds of a step by phase, stacked, over steps.
    Phases,
}

impl Name {
    /// As on the command line and in file names.
    pub fn label(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |v| v.get_name().to_owned())
    }
}

/// Unit of the x axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum XUnit {
    /// Steps.
    #[default]
    Step,
    /// Epochs.
    Epoch,
    /// Seconds of training, pauses left out.
    Seconds,
    /// Samples seen.
    Samples,
}

impl XUnit {
    /// The next one, for a key that goes through them.
    pub fn next(self) -> Self {
        match self {
            Self::Step => Self::Epoch,
            Self::Epoch => Self::Seconds,
            Self::Seconds => Self::Samples,
            Self::Samples => Self::Step,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Epoch => "epoch",
            Self::Seconds => "seconds of training",
            Self::Samples => "samples",
        }
    }
}

/// How a history is looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// Visible steps; everything where `None`.
    pub x_range: Option<(f64, f64)>,
    /// Unit of the x axis.
    pub x_unit: XUnit,
    /// Factor on the y range around its middle; 1 fits the data.
    pub y_zoom: f64,
    /// Logarithmic y axis where the plot allows the choice.
    pub log_y: bool,
    /// Weight of the past in exponential smoothing, 0 for none.
    pub smoothing: f64,
    /// Only layers whose name or role contains this.
    pub filter: String,
    /// Columns that the plot can resolve.
    pub resolution: usize,
    /// Cursor, in steps.
    pub cursor: Option<f64>,
    /// A second cursor, in steps: readings are differences from it.
    pub second: Option<f64>,
    /// Layer drawn in front.
    pub selected: Option<usize>,
}

impl Default for View {
    fn default() -> Self {
        Self {
            x_range: None,
            x_unit: XUnit::Step,
            y_zoom: 1.0,
            log_y: false,
            smoothing: 0.0,
            filter: String::new(),
            resolution: 1000,
            cursor: None,
            second: None,
            selected: None,
        }
    }
}

impl View {
    /// Whether the filter lets a layer through.
    pub fn shows(&self, layer: &LayerHistory) -> bool {
        self.filter.is_empty()
            || layer.info.name.contains(&self.filter)
            || role_word(layer.info.role).starts_with(&self.filter)
    }
}

/// The word for a role.
fn role_word(role: Role) -> &'static str {
    match role {
        Role::Weight => "weight",
        Role::Bias => "bias",
        Role::Activation => "activation",
    }
}

/// The whole figure of that name.
pub fn build(name: Name, history: &History, view: &View) -> Figure {
    let panels = (0..panel_count(name, history)).map(|i| panel(name, i, history, view));
    Figure {
        panels: panels.collect(),
        columns: 1,
    }
}

/// Panels of the figure of that name.
pub fn panel_count(name: Name, history: &History) -> usize {
    match name {
        Name::Gradients => 3,
        Name::Memory | Name::Pull => 2,
        Name::StepSize | Name::Range | Name::Bitwidth | Name::Plane | Name::Ledger => {
            1 + usize::from(has_activations(history))
        }
        Name::Loss | Name::Error | Name::BitwidthHeat | Name::Phases => 1,
    }
}

fn has_activations(history: &History) -> bool {
    history
        .layers
        .iter()
        .any(|l| l.info.role == Role::Activation)
}

/// One panel of a figure: loss, error, heat and phases have one; memory, step size, range, plane and
/// ledger (weights, activations) and pull (loss, gradient) two; gradients (weights, first and second parameter) three.
pub fn panel(name: Name, index: usize, history: &History, view: &View) -> Scene {
    let builder = Builder { history, view };
    match name {
        Name::Loss => builder.loss(),
        Name::Error => builder.error(),
        Name::Memory => builder.memory(index),
        Name::Bitwidth => builder.bars(index),
        Name::BitwidthHeat => builder.heat(),
        Name::StepSize => builder.layers("step size d", index, Scale::Log2, |l| &l.d),
        Name::Range => builder.layers("range q_max", index, Scale::Log2, |l| &l.q_max),
        Name::Gradients => builder.gradients(index),
        Name::Plane => builder.plane(index),
        Name::Ledger => builder.ledger(index),
        Name::Pull => builder.pull(index),
        Name::Phases => builder.phases(),
    }
}

/// [`panel`] with the same quantity of other runs behind it: the first line of each, in a colour
/// that is the run's own wherever it appears.
pub fn panel_with(
    name: Name,
    index: usize,
    history: &History,
    view: &View,
    others: &[(String, History)],
) -> Scene {
    let mut scene = panel(name, index, history, view);
    if !matches!(name, Name::Loss | Name::Error | Name::Memory) {
        return scene;
    }
    let mut behind = Vec::new();
    for (i, (label, other)) in others.iter().enumerate() {
        let plain = View {
            cursor: None,
            second: None,
            ..view.clone()
        };
        let theirs = panel(name, index, other, &plain);
        // The quantity that runs are compared by: validation where there is one.
        let mut lines = theirs.items.into_iter().filter_map(|item| match item {
            Item::Line(line) if !line.segments.is_empty() => Some(line),
            _ => None,
        });
        let line = match name {
            Name::Memory => lines.next_back(),
            _ => lines.max_by_key(|l| l.label == "validation"),
        };
        if let Some(line) = line {
            let low = scene.y.range.0.min(theirs.y.range.0);
            scene.y.range = (low, scene.y.range.1.max(theirs.y.range.1));
            behind.push(Item::Line(Line {
                label: label.clone(),
                ink: Ink::Series(i + 3),
                dash: 1 + i % 3,
                ..line
            }));
        }
    }
    behind.append(&mut scene.items);
    scene.items = behind;
    scene
}

/// Unbroken runs of points.
type Segments = Vec<Vec<(f64, f64)>>;

struct Builder<'a> {
    history: &'a History,
    view: &'a View,
}

/// Merges buckets that fall into the same column of `width` steps, counted from `from`.
fn columns(
    buckets: impl Iterator<Item = Bucket>,
    from: f64,
    width: f64,
) -> impl Iterator<Item = Bucket> {
    let column = move |b: &Bucket| ((f64::from(b.last) - from) / width).floor();
    let mut buckets = buckets.peekable();
    std::iter::from_fn(move || {
        let mut merged = buckets.next()?;
        let own = column(&merged);
        while let Some(next) = buckets.next_if(|b| !b.breaks() && column(b) == own) {
            merged.absorb(&next);
        }
        Some(merged)
    })
}

/// A series to be drawn.
struct Drawn<'a> {
    label: &'a str,
    series: &'a Series,
    ink: Ink,
    dash: usize,
    smooth: bool,
    /// Factor on the values (100 for percent).
    factor: f64,
}

impl Builder<'_> {
    /// Visible steps.
    fn x_range(&self) -> (f64, f64) {
        let last = self.history.step().max(1) as f64;
        self.view.x_range.unwrap_or((0.0, last))
    }

    /// A step in the unit of the x axis.
    fn x(&self, step: f64) -> f64 {
        let h = self.history;
        match self.view.x_unit {
            XUnit::Step => step,
            XUnit::Epoch => step / h.steps_per_epoch.max(1) as f64,
            XUnit::Samples => step * h.batch.max(1) as f64,
            XUnit::Seconds => {
                let Some((first, last)) = h.seconds.extent() else {
                    return step;
                };
                // Before the first record and behind the last the pace of the run goes on.
                let at = |s: u64| h.seconds.at(s).map_or(0.0, f64::from);
                let (first, last) = (first as f64, last as f64);
                let pace = at(last as u64) / last.max(1.0);
                if step > last {
                    at(last as u64) + (step - last) * pace
                } else if step < first {
                    at(first as u64) * step / first.max(1.0)
                } else {
                    at(step as u64)
                }
            }
        }
    }

    fn x_axis(&self) -> Axis {
        let (low, high) = self.x_range();
        Axis {
            label: self.view.x_unit.label().into(),
            scale: Scale::Linear,
            range: (self.x(low), self.x(high)),
            ticks: None,
        }
    }

    fn line(&self, drawn: &Drawn<'_>) -> Line {
        let (from, to) = self.x_range();
        let from_step = from.max(0.0) as u64;
        let to_step = to.max(0.0).ceil() as u64;
        // Two buckets per column resolve what the plot can show.
        let most = (self.view.resolution * 2).max(16);
        let beta = if drawn.smooth {
            self.view.smoothing
        } else {
            0.0
        };
        let mut segments: Vec<Vec<(f64, f64)>> = vec![Vec::new()];
        let mut band = Vec::new();
        let (mut average, mut weight) = (0.0, 0.0);
        let buckets = drawn.series.range(from_step, to_step, most).copied();
        // Half a column of the terminal: finer detail would be painted over itself.
        let width = (to - from) / self.view.resolution.max(1) as f64;
        for bucket in columns(buckets, from, width) {
            if bucket.breaks() {
                segments.push(Vec::new());
                (average, weight) = (0.0, 0.0);
            }
            let x = self.x((f64::from(bucket.first) + f64::from(bucket.last)) / 2.0);
            let mean = f64::from(bucket.mean) * drawn.factor;
            let y = if beta > 0.0 {
                // Debiased: divided by the weight collected so far, a start does not lean to zero.
                let keep = beta.powi(bucket.count().min(1 << 20) as i32);
                average = average * keep + mean * (1.0 - keep);
                weight = weight * keep + (1.0 - keep);
                if weight > 0.0 { average / weight } else { mean }
            } else {
                mean
            };
            if let Some(segment) = segments.last_mut() {
                segment.push((x, y));
            }
            let (low, high) = (f64::from(bucket.min), f64::from(bucket.max));
            if beta > 0.0 || bucket.count() > 1 {
                band.push((x, low * drawn.factor, high * drawn.factor));
            }
        }
        segments.retain(|s| !s.is_empty());
        Line {
            label: self.reading(drawn),
            ink: drawn.ink,
            dash: drawn.dash,
            segments,
            band,
        }
    }

    /// The label, with the value at the cursor and its difference from the second one.
    fn reading(&self, drawn: &Drawn<'_>) -> String {
        let at = |cursor: f64| {
            let value = drawn.series.at(cursor.max(0.0) as u64)?;
            Some(f64::from(value) * drawn.factor)
        };
        let Some(value) = self
            .view
            .cursor
            .and_then(at)
            .filter(|_| !drawn.label.is_empty())
        else {
            return drawn.label.into();
        };
        match self.view.second.and_then(at) {
            Some(from) => format!("{} {value:.4} (Δ {:+.4})", drawn.label, value - from),
            None => format!("{} {value:.4}", drawn.label),
        }
    }

    /// A scene of lines over steps.
    fn scene(
        &self,
        title: String,
        y_label: &str,
        scale: Scale,
        lines: Vec<Line>,
        guides: Vec<Guide>,
    ) -> Scene {
        let y = self.y_axis(y_label, scale, &lines, &guides);
        let marks = self.history.marks.iter().map(|mark| VerticalMark {
            x: self.x(mark.step as f64),
            letter: match mark.kind {
                MarkKind::Applied => '▲',
                MarkKind::Checkpoint => '·',
                MarkKind::Quantized => 'Q',
                MarkKind::NonFinite => '!',
            },
            label: mark.label.clone(),
        });
        Scene {
            title,
            x: self.x_axis(),
            y,
            items: lines.into_iter().map(Item::Line).collect(),
            marks: marks.collect(),
            guides,
            cursor: self.view.cursor.map(|c| self.x(c)),
            second: self.view.second.map(|c| self.x(c)),
            empty: "no data yet".into(),
        }
    }

    fn y_axis(&self, label: &str, scale: Scale, lines: &[Line], guides: &[Guide]) -> Axis {
        let positive = scale != Scale::Linear;
        let inside = self.x_axis().range;
        let mut range = (f64::INFINITY, f64::NEG_INFINITY);
        let mut take = |v: f64| {
            if v.is_finite() && (!positive || v > 0.0) {
                range = (range.0.min(v), range.1.max(v));
            }
        };
        for line in lines {
            let visible = |x: f64| x >= inside.0 && x <= inside.1;
            line.segments
                .iter()
                .flatten()
                .filter(|p| visible(p.0))
                .for_each(|p| take(p.1));
            if self.view.smoothing == 0.0 {
                for (_, low, high) in line.band.iter().filter(|b| visible(b.0)) {
                    take(*low);
                    take(*high);
                }
            }
        }
        guides.iter().for_each(|g| take(g.y));
        if range.0 > range.1 {
            range = if positive { (0.1, 1.0) } else { (0.0, 1.0) };
        }
        let forward = |v: f64| scale.forward(v).unwrap_or(0.0);
        let (low, high) = (forward(range.0), forward(range.1));
        let span = if high > low {
            high - low
        } else {
            low.abs().max(1.0) * 0.2
        };
        let half = span * 0.52 * self.view.y_zoom;
        let middle = (low + high) / 2.0;
        // Outwards to a grid of about a twentieth of the span: the axis moves rarely, not with
        // every new extreme.
        let lot = (span * self.view.y_zoom).log2().floor().exp2() / 16.0;
        let (bottom, top) = (
            ((middle - half) / lot).floor() * lot,
            ((middle + half) / lot).ceil() * lot,
        );
        let mut range = (scale.inverse(bottom), scale.inverse(top));
        // Quantities that cannot be negative do not show negative ground.
        if !positive && low >= 0.0 && range.0 < 0.0 {
            range.0 = 0.0;
        }
        Axis {
            label: label.into(),
            scale,
            range,
            ticks: None,
        }
    }

    fn linear_or_log(&self) -> Scale {
        if self.view.log_y {
            Scale::Log10
        } else {
            Scale::Linear
        }
    }

    fn loss(&self) -> Scene {
        let h = self.history;
        let mut lines = Vec::new();
        let penalised = h.weight_penalty.newest().unwrap_or(0.0) > 0.0
            || h.activation_penalty.newest().unwrap_or(0.0) > 0.0
            || !h.budgets.is_empty();
        let series = [
            ("loss", &h.loss, 1, penalised),
            ("cross entropy", &h.cross_entropy, 0, true),
            ("validation", &h.validation_loss, 2, true),
        ];
        for (i, (label, series, dash, shown)) in series.into_iter().enumerate() {
            if shown && !series.is_empty() {
                let smooth = label != "validation";
                let ink = Ink::Series(i);
                lines.push(self.line(&Drawn {
                    label,
                    series,
                    ink,
                    dash,
                    smooth,
                    factor: 1.0,
                }));
            }
        }
        self.scene(
            "loss".into(),
            "nats",
            self.linear_or_log(),
            lines,
            Vec::new(),
        )
    }

    fn error(&self) -> Scene {
        let h = self.history;
        let series = [
            ("training batch", &h.train_error, 0),
            ("validation", &h.validation_error, 2),
        ];
        let mut lines = Vec::new();
        for (i, (label, series, dash)) in series.into_iter().enumerate() {
            if !series.is_empty() {
                let (ink, smooth) = (Ink::Series(2 * i), i == 0);
                lines.push(self.line(&Drawn {
                    label,
                    series,
                    ink,
                    dash,
                    smooth,
                    factor: 100.0,
                }));
            }
        }
        self.scene("error".into(), "%", self.linear_or_log(), lines, Vec::new())
    }

    fn memory(&self, index: usize) -> Scene {
        let h = self.history;
        let (title, series): (&str, Vec<(&str, &Series, Resource)>) = if index == 0 {
            (
                "memory of weights",
                vec![("weights", &h.weight_kb, Resource::Weights)],
            )
        } else {
            let all = [
                ("sum", &h.activation_sum_kb, Resource::ActivationSum),
                ("max", &h.activation_max_kb, Resource::ActivationMax),
            ];
            ("memory of activations, one sample", all.to_vec())
        };
        // With a budget on one of them, the other would only squeeze the scale.
        let limits: Vec<Resource> = h.budgets.iter().map(|b| b.resource).collect();
        let any = series.iter().any(|s| limits.contains(&s.2));
        let mut lines = Vec::new();
        let mut guides = Vec::new();
        for (i, (label, series, resource)) in series.into_iter().enumerate() {
            if any && !limits.contains(&resource) {
                continue;
            }
            let ink = if index == 0 {
                Ink::Weights
            } else {
                Ink::Activations
            };
            lines.push(self.line(&Drawn {
                label,
                series,
                ink,
                dash: i,
                smooth: false,
                factor: 1.0,
            }));
            for budget in h.budgets.iter().filter(|b| b.resource == resource) {
                guides.push(Guide {
                    y: budget.limit,
                    label: format!("budget {}", super::ticks::number(budget.limit, 1)),
                    ink: Ink::Budget,
                });
            }
        }
        self.scene(title.into(), "kB", self.linear_or_log(), lines, guides)
    }

    fn visible_layers(&self) -> Vec<(usize, &LayerHistory)> {
        let layers = self.history.layers.iter().enumerate();
        layers.filter(|(_, l)| self.view.shows(l)).collect()
    }

    fn depth(&self, index: usize) -> Ink {
        let last = self.history.layers.len().saturating_sub(1).max(1);
        Ink::Depth(index as f32 / last as f32)
    }

    /// One line per layer; panel 0 shows weights and biases, panel 1 activations.
    fn layers(
        &self,
        title: &str,
        index: usize,
        scale: Scale,
        series: impl Fn(&LayerHistory) -> &Series,
    ) -> Scene {
        let side = if index == 0 { "weights" } else { "activations" };
        let lines = self.layer_lines(
            |l| (l.info.role == Role::Activation) == (index == 1),
            series,
        );
        self.scene(format!("{title}, {side}"), title, scale, lines, Vec::new())
    }

    fn layer_lines(
        &self,
        keep: impl Fn(&LayerHistory) -> bool,
        series: impl Fn(&LayerHistory) -> &Series,
    ) -> Vec<Line> {
        let mut layers = self.visible_layers();
        layers.retain(|(_, l)| keep(l));
        // The selected layer is painted last, over the others.
        layers.sort_by_key(|(i, _)| Some(*i) == self.view.selected);
        layers
            .into_iter()
            .map(|(i, layer)| {
                let ink = self.depth(i);
                let label = layer.info.name.as_str();
                let series = series(layer);
                self.line(&Drawn {
                    label,
                    series,
                    ink,
                    dash: i % 4,
                    smooth: true,
                    factor: 1.0,
                })
            })
            .filter(|line| !line.segments.is_empty())
            .collect()
    }

    fn gradients(&self, index: usize) -> Scene {
        let first = |l: &LayerHistory| l.info.parametrization.parameter_names();
        let name = |i: usize| {
            let mut names: Vec<&str> = self.history.layers.iter().map(|l| first(l)[i]).collect();
            names.sort_unstable();
            names.dedup();
            names.join("/")
        };
        let (title, lines) = match index {
            0 => (
                "gradient norm of W".to_owned(),
                self.layer_lines(|l| l.info.role != Role::Activation, |l| &l.grad_norm),
            ),
            1 => (
                format!("|gradient| of {}", name(0)),
                self.layer_lines(|_| true, |l| &l.grad_first),
            ),
            _ => (
                format!("|gradient| of {}", name(1)),
                self.layer_lines(|_| true, |l| &l.grad_second),
            ),
        };
        self.scene(title, "magnitude", Scale::Log10, lines, Vec::new())
    }

    /// Bitwidth per layer at the cursor (or now) as bars: panel 0 weights, panel 1 activations.
    fn bars(&self, index: usize) -> Scene {
        let at = self.view.cursor.unwrap_or(self.history.step() as f64) as u64;
        let layers = self.visible_layers();
        let bars: Vec<Bar> = layers
            .iter()
            .filter(|(_, l)| (l.info.role == Role::Activation) == (index == 1))
            .filter_map(|(_, l)| {
                let value = f64::from(l.bitwidth.at(at)?);
                let ink = if index == 0 {
                    Ink::Weights
                } else {
                    Ink::Activations
                };
                let suffix = if l.info.role == Role::Bias {
                    ".bias"
                } else {
                    ""
                };
                Some(Bar {
                    label: format!("{}{suffix}", l.info.name),
                    value,
                    ink,
                })
            })
            .collect();
        let highest = bars.iter().map(|b| b.value).fold(4.0, f64::max);
        let side = if index == 0 { "weights" } else { "activations" };
        Scene {
            title: format!("bitwidth per layer, {side}, step {at}"),
            x: Axis {
                label: "layer, input to output".into(),
                scale: Scale::Linear,
                range: (0.0, bars.len().max(1) as f64),
                ticks: Some(Vec::new()),
            },
            y: Axis {
                label: "bits".into(),
                scale: Scale::Linear,
                range: (0.0, highest + 0.5),
                ticks: Some(
                    (0..=highest as u32)
                        .map(|b| (b.into(), b.to_string()))
                        .collect(),
                ),
            },
            items: vec![Item::Bars(bars)],
            marks: Vec::new(),
            guides: Vec::new(),
            cursor: None,
            second: None,
            empty: "no quantizers in use yet".into(),
        }
    }

    fn heat(&self) -> Scene {
        let layers = self.visible_layers();
        let x = self.x_axis();
        let (from, to) = self.x_range();
        let columns = self.view.resolution.clamp(1, 4000);
        let edges: Vec<f64> = (0..=columns)
            .map(|c| self.x(from + (to - from) * c as f64 / columns as f64))
            .collect();
        let mut values = vec![None; layers.len() * columns];
        for (row, (_, layer)) in layers.iter().enumerate() {
            self.heat_row(
                &layer.bitwidth,
                &mut values[row * columns..(row + 1) * columns],
            );
        }
        let mark = |l: &LayerHistory| match l.info.role {
            Role::Weight => "W",
            Role::Bias => "b",
            Role::Activation => "A",
        };
        let rows = layers
            .iter()
            .map(|(_, l)| format!("{} {}", mark(l), l.info.name))
            .collect();
        let lines_scene = self.scene(
            "bitwidth, layers x steps".into(),
            "layer",
            Scale::Linear,
            vec![],
            vec![],
        );
        Scene {
            y: Axis {
                label: "layer".into(),
                scale: Scale::Linear,
                range: (0.0, layers.len().max(1) as f64),
                ticks: Some(Vec::new()),
            },
            x,
            items: vec![Item::Heat(Heat {
                rows,
                edges,
                values,
            })],
            empty: "no quantizers in use yet".into(),
            ..lines_scene
        }
    }

    /// Steps of the columns that a stack is drawn in.
    fn stack_steps(&self) -> Vec<u64> {
        let (from, to) = self.x_range();
        let columns = self.view.resolution.clamp(1, 1000);
        let last = self.history.step() as f64;
        let at = |c: usize| from + (to - from) * c as f64 / columns as f64;
        let mut steps: Vec<u64> = (0..=columns)
            .map(at)
            .filter(|s| *s <= last)
            .map(|s| s as u64)
            .collect();
        steps.dedup();
        steps
    }

    /// A scene of bands on top of one another; `value` is NaN where a series has none yet.
    fn stack(
        &self,
        title: String,
        unit: &str,
        bands: Vec<(String, Ink)>,
        value: impl Fn(usize, u64) -> f64,
        guides: Vec<Guide>,
    ) -> Scene {
        let steps = self.stack_steps();
        let mut heights = vec![0.0; steps.len()];
        let mut areas = Vec::with_capacity(bands.len());
        for (band, (label, ink)) in bands.into_iter().enumerate() {
            let mut points = Vec::with_capacity(steps.len());
            for (height, step) in heights.iter_mut().zip(&steps) {
                let amount = value(band, *step);
                if amount.is_finite() && amount > 0.0 {
                    points.push((self.x(*step as f64), *height, *height + amount));
                    *height += amount;
                }
            }
            areas.push(Area { label, ink, points });
        }
        let highest = guides
            .iter()
            .map(|g| g.y)
            .chain(heights)
            .fold(0.0, f64::max);
        let base = self.scene(title, unit, Scale::Linear, Vec::new(), guides);
        Scene {
            y: Axis {
                range: (0.0, if highest > 0.0 { highest * 1.05 } else { 1.0 }),
                ..base.y.clone()
            },
            items: areas.into_iter().map(Item::Area).collect(),
            empty: "no quantizers in use yet".into(),
            ..base
        }
    }

    /// kB per layer, stacked: panel 0 weights and biases, panel 1 activations.
    fn ledger(&self, index: usize) -> Scene {
        let mut layers = self.visible_layers();
        layers.retain(|(_, l)| (l.info.role == Role::Activation) == (index == 1));
        let (side, resource) = if index == 0 {
            ("weights", Resource::Weights)
        } else {
            ("activations, one sample", Resource::ActivationSum)
        };
        // With a filter the stack is a part, which the whole's budget says nothing about.
        let budgets = self.history.budgets.iter();
        let guides = budgets
            .filter(|b| b.resource == resource && self.view.filter.is_empty())
            .map(|b| Guide {
                y: b.limit,
                label: format!("budget {}", super::ticks::number(b.limit, 1)),
                ink: Ink::Budget,
            });
        let bands = layers
            .iter()
            .map(|(i, l)| (l.info.name.clone(), self.depth(*i)))
            .collect();
        let value = |band: usize, step: u64| {
            let layer = layers[band].1;
            layer.bitwidth.at(step).map_or(f64::NAN, |bits| {
                crate::quantizer::memory::kilobytes(layer.info.elements, bits.into())
            })
        };
        self.stack(
            format!("kB per layer, {side}"),
            "kB",
            bands,
            value,
            guides.collect(),
        )
    }

    /// Milliseconds of a step by phase, stacked.
    fn phases(&self) -> Scene {
        let bands = crate::run::PHASES
            .iter()
            .enumerate()
            .map(|(i, name)| ((*name).to_owned(), Ink::Series(i)))
            .collect();
        let value = |band: usize, step: u64| {
            let seconds = self.history.times[band].at(step);
            seconds.map_or(f64::NAN, |s| f64::from(s) * 1e3)
        };
        let scene = self.stack("time of a step".into(), "ms", bands, value, Vec::new());
        Scene {
            empty: "no data yet".into(),
            ..scene
        }
    }

    /// Panel 0: cross entropy and what the penalties add; panel 1: their share of the gradient.
    fn pull(&self, index: usize) -> Scene {
        let h = self.history;
        let line = |label, series, ink, dash, factor| {
            self.line(&Drawn {
                label,
                series,
                ink,
                dash,
                smooth: true,
                factor,
            })
        };
        let (title, unit, lines) = if index == 0 {
            let lines = vec![
                line("cross entropy", &h.cross_entropy, Ink::Series(0), 0, 1.0),
                line("penalties", &h.penalty, Ink::Budget, 1, 1.0),
            ];
            ("what the loss is made of", "nats", lines)
        } else {
            let lines = vec![line("penalties", &h.pull, Ink::Budget, 0, 100.0)];
            ("penalties' share of the quantizers' gradient", "%", lines)
        };
        let lines = lines.into_iter().filter(|l| !l.segments.is_empty());
        let scale = if index == 0 {
            self.linear_or_log()
        } else {
            Scale::Linear
        };
        self.scene(title.into(), unit, scale, lines.collect(), Vec::new())
    }

    /// Trajectories of (step size, range): panel 0 weights and biases, panel 1 activations.
    fn plane(&self, index: usize) -> Scene {
        let mut layers = self.visible_layers();
        layers.retain(|(_, l)| (l.info.role == Role::Activation) == (index == 1));
        layers.sort_by_key(|(i, _)| Some(*i) == self.view.selected);
        let uniform = layers
            .first()
            .is_none_or(|(_, l)| l.info.parametrization.family() == Family::Uniform);
        let paths: Vec<(usize, Segments)> = layers
            .iter()
            .map(|(i, layer)| (*i, self.trajectory(layer)))
            .collect();
        let points = || paths.iter().flat_map(|p| p.1.iter().flatten());
        let range = |of: fn(&(f64, f64)) -> f64| {
            let (low, high) = points()
                .map(of)
                .fold((f64::MAX, 0.0f64), |r, v| (r.0.min(v), r.1.max(v)));
            if low > high {
                (0.125, 1.0)
            } else {
                // An octave of ground on either side, whole octaves.
                (
                    (low.log2().floor() - 1.0).exp2(),
                    (high.log2().ceil() + 1.0).exp2(),
                )
            }
        };
        let (x, y) = (range(|p| p.0), range(|p| p.1));
        let mut items = Vec::new();
        if !paths.iter().all(|p| p.1.is_empty()) {
            items.extend(diagonals(uniform, index == 0, x, y));
            if let [(_, layer)] = layers[..] {
                items.push(Item::Line(clamp_box(layer.info.clamps)));
            }
        }
        for (i, segments) in paths {
            let layer = &self.history.layers[i];
            let now = segments.last().and_then(|s| s.last()).copied();
            let ink = self.depth(i);
            if segments.is_empty() {
                continue;
            }
            items.push(Item::Line(Line {
                label: layer.info.name.clone(),
                ink,
                dash: 0,
                segments,
                band: Vec::new(),
            }));
            let Some(at) = now else { continue };
            if let Some(arrow) = self.arrow(layer, at, x, y) {
                items.push(Item::Line(Line {
                    label: String::new(),
                    ink: Ink::Text,
                    dash: 0,
                    segments: arrow,
                    band: Vec::new(),
                }));
            }
            items.push(Item::Label(Label {
                at,
                text: "●".into(),
                ink,
            }));
        }
        let side = if index == 0 { "weights" } else { "activations" };
        let axis = |label: &str, range| Axis {
            label: label.into(),
            scale: Scale::Log2,
            range,
            ticks: None,
        };
        let step = if uniform { "step size d" } else { "q_min" };
        Scene {
            title: format!("plane of {step} and range, {side}"),
            x: axis(step, x),
            y: axis("range q_max", y),
            items,
            marks: Vec::new(),
            guides: Vec::new(),
            cursor: None,
            second: None,
            empty: "no quantizers in use yet".into(),
        }
    }

    /// Where a quantizer has been: up to the cursor, or up to now.
    fn trajectory(&self, layer: &LayerHistory) -> Segments {
        let (from, to) = self.x_range();
        let to = self.view.cursor.unwrap_or(to).max(0.0) as u64;
        let most = (self.view.resolution * 2).max(64);
        let steps = layer.d.range(from.max(0.0) as u64, to, most);
        let ranges = layer.q_max.range(from.max(0.0) as u64, to, most);
        let mut segments = Segments::new();
        // Both are recorded at the same steps, so their buckets match.
        for (d, q) in steps.zip(ranges).filter(|(d, _)| u64::from(d.first) <= to) {
            if segments.is_empty() || d.breaks() {
                segments.push(Vec::new());
            }
            if let Some(segment) = segments.last_mut() {
                segment.push((d.end.into(), q.end.into()));
            }
        }
        segments
    }

    /// The negative gradient at the newest record, as seen in the plane: an arrow a tenth of it long.
    fn arrow(
        &self,
        layer: &LayerHistory,
        at: (f64, f64),
        x: (f64, f64),
        y: (f64, f64),
    ) -> Option<Segments> {
        let newest = layer
            .newest
            .as_ref()
            .filter(|_| self.view.cursor.is_none())?;
        let signed = layer.info.role != Role::Activation;
        let (u, v) = log_descent(&layer.info, newest, signed)?;
        let spans = ((x.1 / x.0).log2(), (y.1 / y.0).log2());
        // Lengths as seen: each axis has its own scale.
        let length = ((u / spans.0).powi(2) + (v / spans.1).powi(2)).sqrt();
        if !(length.is_finite() && length > 0.0) {
            return None;
        }
        let (u, v) = (u / length * 0.1, v / length * 0.1);
        let to = |along: f64, aside: f64| {
            let (dx, dy) = (
                u * along - v * spans.0 / spans.1 * aside,
                v * along + u * spans.1 / spans.0 * aside,
            );
            (at.0 * dx.exp2(), at.1 * dy.exp2())
        };
        let tip = to(1.0, 0.0);
        Some(vec![vec![at, tip], vec![to(0.7, 0.2), tip, to(0.7, -0.2)]])
    }

    /// The newest bitwidth of each column; columns between two records hold the earlier one.
    fn heat_row(&self, series: &Series, out: &mut [Option<f32>]) {
        let (from, to) = self.x_range();
        let columns = out.len() as f64;
        let Some((first, last)) = series.extent() else {
            return;
        };
        for bucket in series.range(from.max(0.0) as u64, to.max(0.0) as u64, out.len() * 4) {
            let column = |step: u32| (f64::from(step) - from) / (to - from).max(1e-9) * columns;
            let start = column(bucket.first).floor().clamp(0.0, columns) as usize;
            let end = (column(bucket.last).floor() + 1.0).clamp(0.0, columns) as usize;
            let value = if bucket.min == bucket.max {
                bucket.end
            } else {
                bucket.mean.round()
            };
            for cell in &mut out[start.min(end)..end] {
                *cell = Some(value);
            }
        }
        let step_of = |column: usize| from + (to - from) * (column as f64 + 0.5) / columns;
        let mut previous = None;
        for (column, cell) in out.iter_mut().enumerate() {
            let inside = step_of(column) >= first as f64 && step_of(column) <= last as f64;
            match cell {
                Some(v) => previous = Some(*v),
                None if inside => *cell = previous,
                None => {}
            }
        }
    }
}

/// Lines of equal bitwidth with their numbers: below each, that many bits suffice.
fn diagonals(uniform: bool, signed: bool, x: (f64, f64), y: (f64, f64)) -> Vec<Item> {
    let mut items = Vec::new();
    for bits in 1..=8 {
        let bits = f64::from(bits);
        let ratio = match (uniform, signed) {
            (true, true) => (bits - 1.0).exp2() - 1.0,
            (true, false) => bits.exp2() - 1.0,
            (false, _) => ((bits - 1.0).exp2() - 1.0).exp2(),
        };
        if ratio <= 0.0 || !ratio.is_finite() {
            continue;
        }
        let (left, right) = (x.0.max(y.0 / ratio), x.1.min(y.1 / ratio));
        if left >= right {
            continue;
        }
        items.push(Item::Line(Line {
            label: String::new(),
            ink: Ink::Muted,
            dash: 2,
            segments: vec![vec![(left, left * ratio), (right, right * ratio)]],
            band: Vec::new(),
        }));
        // Inside, near the upper end: numbers at the very edge would fall off.
        let place = (left.log2() * 0.12 + right.log2() * 0.88).exp2();
        items.push(Item::Label(Label {
            at: (place, place * ratio),
            text: format!("{bits} bit"),
            ink: Ink::Muted,
        }));
    }
    items
}

fn clamp_box([d, q_max]: [[f64; 2]; 2]) -> Line {
    let corners = vec![
        (d[0], q_max[0]),
        (d[1], q_max[0]),
        (d[1], q_max[1]),
        (d[0], q_max[1]),
        (d[0], q_max[0]),
    ];
    Line {
        label: "clamps".into(),
        ink: Ink::Budget,
        dash: 1,
        segments: vec![corners],
        band: Vec::new(),
    }
}

/// Direction of the negative gradient in (log2 d or q_min, log2 q_max), straight through rounding.
fn log_descent(info: &LayerInfo, r: &LayerRecord, signed: bool) -> Option<(f64, f64)> {
    let [first, second] = r.gradients.map(|g| -f64::from(g));
    let (d, q, b) = (f64::from(r.d), f64::from(r.q_max), f64::from(r.bitwidth));
    let codes = (if signed { b - 1.0 } else { b }).exp2();
    // d(log2 n)/db with n = codes - 1, and d(log2 ratio)/db with ratio = 2^(2^(b-1) - 1).
    let uniform = codes / (codes - 1.0).max(1.0);
    let octaves = (b - 1.0).exp2() * std::f64::consts::LN_2;
    let log = |change: f64, of: f64| change / (of * std::f64::consts::LN_2);
    let (u, v) = match info.parametrization {
        Parametrization::U3 | Parametrization::P3 => (log(first, d), log(second, q)),
        Parametrization::U1 => (log(second, d), log(second, d) + uniform * first),
        Parametrization::U2 => (log(second, q) - uniform * first, log(second, q)),
        Parametrization::P1 => (log(second, d), log(second, d) + octaves * first),
        Parametrization::P2 => (log(second, q) - octaves * first, log(second, q)),
    };
    (u.is_finite() && v.is_finite()).then_some((u, v))
}
