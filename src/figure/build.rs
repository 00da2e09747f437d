//! Scenes from a run's history.

use clap::ValueEnum;

use super::scene::{Axis, Bar, Figure, Guide, Heat, Ink, Item, Line, Scale, Scene, VerticalMark};
use crate::quantizer::memory::{Resource, Role};
use crate::run::{Bucket, History, LayerHistory, MarkKind, Series};

/// The figures that can be drawn of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
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
}

impl Name {
    /// As on the command line and in file names.
    pub fn label(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |v| v.get_name().to_owned())
    }
}

/// Unit of the x axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum XUnit {
    /// Steps.
    #[default]
    Step,
    /// Epochs.
    Epoch,
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
    let panels = match name {
        Name::Gradients => vec![
            panel(name, 0, history, view),
            panel(name, 1, history, view),
            panel(name, 2, history, view),
        ],
        Name::Memory => vec![panel(name, 0, history, view), panel(name, 1, history, view)],
        Name::StepSize | Name::Range | Name::Bitwidth => {
            let count = if has_activations(history) { 2 } else { 1 };
            (0..count).map(|i| panel(name, i, history, view)).collect()
        }
        _ => vec![panel(name, 0, history, view)],
    };
    Figure { panels, columns: 1 }
}

fn has_activations(history: &History) -> bool {
    history
        .layers
        .iter()
        .any(|l| l.info.role == Role::Activation)
}

/// One panel of a figure: loss, error and heat have one; memory (weights, activations), step size
/// and range (weights, activations) two; gradients (weights, first and second parameter) three.
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
    }
}

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

    /// Steps to the unit of the x axis.
    fn x_factor(&self) -> f64 {
        match self.view.x_unit {
            XUnit::Step => 1.0,
            XUnit::Epoch => 1.0 / self.history.steps_per_epoch.max(1) as f64,
        }
    }

    fn x_axis(&self) -> Axis {
        let (low, high) = self.x_range();
        let factor = self.x_factor();
        let label = match self.view.x_unit {
            XUnit::Step => "step",
            XUnit::Epoch => "epoch",
        };
        Axis {
            label: label.into(),
            scale: Scale::Linear,
            range: (low * factor, high * factor),
            ticks: None,
        }
    }

    fn line(&self, drawn: &Drawn<'_>) -> Line {
        let (from, to) = self.x_range();
        let from_step = from.max(0.0) as u64;
        let to_step = to.max(0.0).ceil() as u64;
        let factor = self.x_factor();
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
            let x = (f64::from(bucket.first) + f64::from(bucket.last)) / 2.0 * factor;
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
            label: drawn.label.into(),
            ink: drawn.ink,
            dash: drawn.dash,
            segments,
            band,
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
        let factor = self.x_factor();
        let marks = self.history.marks.iter().map(|mark| VerticalMark {
            x: mark.step as f64 * factor,
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
            cursor: self.view.cursor.map(|c| c * factor),
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
            empty: "no quantizers in use yet".into(),
        }
    }

    fn heat(&self) -> Scene {
        let layers = self.visible_layers();
        let x = self.x_axis();
        let (from, to) = self.x_range();
        let columns = self.view.resolution.clamp(1, 4000);
        let factor = self.x_factor();
        let edges: Vec<f64> = (0..=columns)
            .map(|c| (from + (to - from) * c as f64 / columns as f64) * factor)
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
