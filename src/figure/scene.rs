//! What a plot shows, in data coordinates.

use super::numerals::power;
use crate::graph::LayerKind;

/// Colour by meaning; a theme turns it into one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ink {
    /// The n-th series of a plot.
    Series(usize),
    /// A layer, or a stage of layers, by its number: colours that are told apart, in no order.
    Layer(usize),
    /// Another run drawn behind this one, by its number: colours that nothing else has.
    Overlay(usize),
    /// A magnitude between the lowest, 0, and the highest, 1.
    Level(f32),
    /// A layer by its kind.
    Kind(LayerKind),
    /// Quantizers of weights and biases.
    Weights,
    /// Quantizers of activations.
    Activations,
    /// Raw values behind a smoothed line.
    Muted,
    /// A budget.
    Budget,
    /// A bitwidth, for heat cells.
    Bits(f32),
    /// Text and axes.
    Text,
}

/// Spacing of an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Even.
    Linear,
    /// Even in the decimal logarithm.
    Log10,
    /// Even in the binary logarithm; ticks at powers of two.
    Log2,
}

impl Scale {
    /// Position on an even axis; `None` where it has none (zero or less on a logarithmic axis).
    pub fn forward(self, v: f64) -> Option<f64> {
        let mapped = match self {
            Self::Linear => v,
            Self::Log10 => v.log10(),
            Self::Log2 => v.log2(),
        };
        mapped.is_finite().then_some(mapped)
    }

    /// The value at a position.
    pub fn inverse(self, p: f64) -> f64 {
        match self {
            Self::Linear => p,
            Self::Log10 => 10f64.powf(p),
            Self::Log2 => p.exp2(),
        }
    }
}

/// An axis: label with unit, spacing, visible range.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// Label with unit.
    pub label: String,
    /// Spacing.
    pub scale: Scale,
    /// Visible range, low to high, in data units.
    pub range: (f64, f64),
    /// Ticks to show instead of computed ones: position and text.
    pub ticks: Option<Vec<(f64, String)>>,
}

impl Axis {
    /// With computed ticks.
    pub fn new(label: impl Into<String>, scale: Scale, range: (f64, f64)) -> Self {
        Self {
            label: label.into(),
            scale,
            range,
            ticks: None,
        }
    }

    /// Share of the axis at which a value stands; may lie outside 0 to 1.
    pub fn share(&self, v: f64) -> Option<f64> {
        self.mapping()?.share(v)
    }

    /// [`Axis::share`] for many values; `None` where an end of the range has no position.
    pub fn mapping(&self) -> Option<Mapping> {
        let low = self.scale.forward(self.range.0)?;
        let span = self.scale.forward(self.range.1)? - low;
        Some(Mapping {
            scale: self.scale,
            low,
            span,
        })
    }

    /// The value at a share of the axis.
    pub fn value(&self, share: f64) -> f64 {
        let low = self.scale.forward(self.range.0).unwrap_or(0.0);
        let high = self.scale.forward(self.range.1).unwrap_or(1.0);
        self.scale.inverse(low + share * (high - low))
    }
}

/// An axis with its ends computed.
#[derive(Debug, Clone, Copy)]
pub struct Mapping {
    scale: Scale,
    low: f64,
    span: f64,
}

impl Mapping {
    /// Share of the axis at which a value stands; may lie outside 0 to 1.
    pub fn share(&self, v: f64) -> Option<f64> {
        // Single precision places a dot, and its logarithm costs a third.
        let at = match self.scale {
            Scale::Linear => v,
            Scale::Log10 => f64::from((v as f32).log2()) * std::f64::consts::LOG10_2,
            Scale::Log2 => f64::from((v as f32).log2()),
        };
        if !at.is_finite() {
            return None;
        }
        Some(if self.span > 0.0 {
            (at - self.low) / self.span
        } else {
            0.5
        })
    }
}

/// A series as a line. Each segment is drawn through; between segments the line breaks.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Name in the legend.
    pub label: String,
    /// Colour.
    pub ink: Ink,
    /// Number of the dash pattern (0 is solid), so that series differ without colour.
    pub dash: usize,
    /// Unbroken runs of points.
    pub segments: Vec<Vec<(f64, f64)>>,
    /// Low and high of the data behind each point: x, low, high.
    pub band: Vec<(f64, f64, f64)>,
}

/// One bar.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    /// Name under it.
    pub label: String,
    /// Height.
    pub value: f64,
    /// Kind of layer: its colour.
    pub kind: LayerKind,
    /// Heights to mark on it, each in a colour: the same bar of other runs.
    pub marks: Vec<(f64, Ink)>,
}

/// Bars side by side.
#[derive(Debug, Clone, PartialEq)]
pub struct Bars {
    /// From left to right.
    pub bars: Vec<Bar>,
    /// The one to be seen where not all fit.
    pub focus: usize,
    /// The one whose name stands out.
    pub selected: Option<usize>,
    /// Other runs that are marked on the bars: name and colour.
    pub others: Vec<(String, Ink)>,
}

/// What the cells of a [`Heat`] say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shade {
    /// Bitwidths.
    Bits,
    /// Exponents of a base, from a lowest to a highest one.
    Exponent {
        /// The base: 2 or 10.
        base: u32,
        /// The lowest and the highest that occur.
        range: (f32, f32),
    },
}

impl Shade {
    /// The exponent of zero. (A cell without a value is one that was not recorded, or is not finite.)
    pub const ZERO: f32 = f32::NEG_INFINITY;

    /// The colour of a cell.
    pub fn ink(self, value: f32) -> Ink {
        match self {
            Self::Bits => Ink::Bits(value),
            Self::Exponent { .. } if value == Self::ZERO => Ink::Muted,
            Self::Exponent { .. } => Ink::Level(self.share(value)),
        }
    }

    /// Where a value lies between the lowest and the highest.
    fn share(self, value: f32) -> f32 {
        match self {
            Self::Bits => ((value - 1.0) / 8.0).clamp(0.0, 1.0),
            Self::Exponent { range, .. } if range.1 > range.0 => {
                ((value - range.0) / (range.1 - range.0)).clamp(0.0, 1.0)
            }
            Self::Exponent { .. } => 0.5,
        }
    }

    /// The number that a cell stands for.
    pub fn value(self, cell: f32) -> f64 {
        match self {
            Self::Bits => cell.into(),
            Self::Exponent { .. } if cell == Self::ZERO => 0.0,
            Self::Exponent { base, .. } => f64::from(base).powf(cell.into()),
        }
    }

    /// One character for a cell without colour: the bitwidth, or a tenth of the range of exponents.
    pub fn digit(self, value: f32) -> char {
        let digit = match self {
            Self::Bits => (value.round() as u32).min(35),
            Self::Exponent { .. } if value == Self::ZERO => return '-',
            Self::Exponent { .. } => (self.share(value) * 9.99) as u32,
        };
        char::from_digit(digit, 36).unwrap_or('?')
    }

    /// What the numbers in the cells are of the values, where they are not the values.
    pub fn unit(self) -> Option<String> {
        match self {
            Self::Bits => None,
            Self::Exponent { base, .. } => Some(format!("log{base}")),
        }
    }

    /// The value in a few characters.
    pub fn text(self, value: f32) -> String {
        match self {
            Self::Bits if (value - value.round()).abs() > 0.05 => format!("{value:.1}"),
            // (As a digit it would be an exponent.)
            Self::Exponent { .. } if value == Self::ZERO => "-".into(),
            // Within a few decades a whole exponent says too little.
            Self::Exponent { base: 10, range } if range.1 - range.0 <= 4.0 => {
                format!("{:.1}", (10.0 * value).round() / 10.0 + 0.0)
            }
            _ => format!("{:.0}", value.round() + 0.0),
        }
    }

    /// Values for a scale beside the cells, with what stands at each.
    pub fn scale(self, values: &[Option<f32>]) -> Vec<(f32, String)> {
        match self {
            Self::Bits => {
                let bits = values.iter().flatten().map(|b| b.round() as i32);
                let bits: std::collections::BTreeSet<i32> = bits.collect();
                let named = bits.into_iter().map(|b| (b as f32, b.to_string()));
                named.collect()
            }
            Self::Exponent { base, range } => {
                // Whole exponents, evenly: as many steps as divide the range.
                let span = (range.1 - range.0).round().max(0.0) as u32;
                let steps = (1..=4).rev().find(|n| span.is_multiple_of(*n)).unwrap_or(1);
                let steps = steps.min(span);
                let at = |i: u32| range.0 + (span * i / steps.max(1)) as f32;
                let zero = values.contains(&Some(Self::ZERO));
                let zero = zero.then(|| (Self::ZERO, "0".to_owned()));
                let finite = || values.iter().copied().flatten().filter(|v| v.is_finite());
                // What lies beyond has the colour of the end.
                let beyond = |v: f32, i: u32| match i {
                    0 if finite().any(|other| other < v - 0.5) => "≤",
                    i if i == steps && finite().any(|other| other > v + 0.5) => "≥",
                    _ => "",
                };
                let powers = (0..=steps).map(|i| {
                    let v = at(i);
                    let text = power(base, f64::from(v.round() + 0.0));
                    (v, format!("{}{text}", beyond(v, i)))
                });
                zero.into_iter().chain(powers).collect()
            }
        }
    }
}

/// A matrix over steps: bitwidths or magnitudes.
#[derive(Debug, Clone, PartialEq)]
pub struct Heat {
    /// What a cell says.
    pub shade: Shade,
    /// The rows, top first.
    pub rows: Vec<HeatRow>,
    /// Edges of the columns on the x axis, ascending: one more than columns.
    pub edges: Vec<f64>,
    /// Row-major values; `None` where there is no data.
    pub values: Vec<Option<f32>>,
    /// The row to be seen where not all fit.
    pub focus: usize,
    /// The row whose name stands out.
    pub selected: Option<usize>,
}

impl Heat {
    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.edges.len().saturating_sub(1)
    }

    /// The values of one row.
    pub fn row(&self, row: usize) -> &[Option<f32>] {
        &self.values[row * self.columns()..][..self.columns()]
    }

    /// The column that `x` falls into.
    pub fn column(&self, x: f64) -> Option<usize> {
        let behind = self.edges.partition_point(|edge| *edge <= x);
        behind
            .checked_sub(1)
            .filter(|column| *column < self.columns())
    }

    /// One row in other columns: what it holds in the middle of each.
    pub fn row_in(&self, row: usize, edges: &[f64]) -> Vec<Option<f32>> {
        let values = self.row(row);
        edges
            .windows(2)
            .map(|ends| values[self.column(ends[0].midpoint(ends[1]))?])
            .collect()
    }
}

/// What stands beside a row of a [`Heat`].
#[derive(Debug, Clone, PartialEq)]
pub struct HeatRow {
    /// Its name.
    pub label: String,
    /// Its value where the cursor is, if that is known.
    pub reading: Option<String>,
    /// Colour of the name.
    pub ink: Ink,
}

/// A filled band.
#[derive(Debug, Clone, PartialEq)]
pub struct Area {
    /// Name in the legend.
    pub label: String,
    /// Colour.
    pub ink: Ink,
    /// x, low and high, by ascending x; each holds up to the next.
    pub points: Vec<(f64, f64, f64)>,
}

/// A word in the plot.
#[derive(Debug, Clone, PartialEq)]
pub struct Label {
    /// Where it begins.
    pub at: (f64, f64),
    /// What it says.
    pub text: String,
    /// Colour.
    pub ink: Ink,
    /// What may give way to it, and how.
    pub place: Place,
}

/// A label that stands on a point of ours.
pub const DOT: &str = "●";
/// A label that stands on a point of somebody else's.
pub const RING: &str = "○";

/// How a [`Label`] stands to its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On it, over whatever is there.
    On,
    /// Beside it, where room is free; left out where there is none.
    Beside,
}

/// What is drawn.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// A line.
    Line(Line),
    /// A filled band.
    Area(Area),
    /// A word.
    Label(Label),
    /// Bars side by side, filling the x axis.
    Bars(Bars),
    /// Heat cells, filling the plot.
    Heat(Heat),
}

/// A vertical mark: something happened at that x.
#[derive(Debug, Clone, PartialEq)]
pub struct VerticalMark {
    /// Where.
    pub x: f64,
    /// One letter that stands for it on the screen.
    pub letter: char,
    /// What happened.
    pub label: String,
}

/// A horizontal guide, such as a budget.
#[derive(Debug, Clone, PartialEq)]
pub struct Guide {
    /// Where.
    pub y: f64,
    /// What it is.
    pub label: String,
    /// Colour.
    pub ink: Ink,
}

/// One plot.
#[derive(Debug, Clone, PartialEq)]
pub struct Scene {
    /// Title.
    pub title: String,
    /// Horizontal axis.
    pub x: Axis,
    /// Vertical axis.
    pub y: Axis,
    /// Painted in this order; later ones over earlier ones.
    pub items: Vec<Item>,
    /// Vertical marks.
    pub marks: Vec<VerticalMark>,
    /// Horizontal guides.
    pub guides: Vec<Guide>,
    /// Position of the cursor on the x axis.
    pub cursor: Option<f64>,
    /// Position of the second cursor.
    pub second: Option<f64>,
    /// What to say where there is nothing to show.
    pub empty: String,
}

impl Scene {
    /// Without marks, guides and cursors; `empty` is what to say where there is nothing to show.
    pub fn new(
        title: impl Into<String>,
        x: Axis,
        y: Axis,
        items: Vec<Item>,
        empty: impl Into<String>,
    ) -> Self {
        Self {
            title: title.into(),
            x,
            y,
            items,
            marks: Vec::new(),
            guides: Vec::new(),
            cursor: None,
            second: None,
            empty: empty.into(),
        }
    }

    /// Whether there is anything to show.
    pub fn is_empty(&self) -> bool {
        self.items.iter().all(|item| match item {
            Item::Line(line) => line.segments.iter().all(Vec::is_empty),
            Item::Area(area) => area.points.is_empty(),
            Item::Label(_) => true,
            Item::Bars(bars) => bars.bars.is_empty(),
            Item::Heat(heat) => heat.values.iter().all(Option::is_none),
        })
    }

    /// Entries of the legend: the scene's own first, other runs behind them.
    pub fn legend(&self) -> Vec<Entry<'_>> {
        let entry = |series, (label, ink, sample)| Entry {
            label,
            ink,
            sample,
            series,
        };
        if let Some(Item::Bars(Bars { bars, others, .. })) = self.items.first() {
            let mut kinds: Vec<LayerKind> = bars.iter().map(|b| b.kind).collect();
            kinds.sort_unstable();
            kinds.dedup();
            // Activations of all kinds have one colour.
            let activations = kinds.iter().filter(|k| k.is_activation()).count();
            let word = |kind: LayerKind| match kind.is_activation() && activations > 1 {
                true => "activations",
                false => kind.word(),
            };
            let mut named: Vec<(&str, LayerKind)> = kinds.iter().map(|k| (word(*k), *k)).collect();
            named.dedup_by_key(|n| n.0);
            let named = named.into_iter().filter(|_| kinds.len() > 1);
            let named = named.map(|(word, kind)| (word, Ink::Kind(kind), Sample::Filled));
            let others = others
                .iter()
                .map(|(label, ink)| (label.as_str(), *ink, Sample::Mark));
            let named = named.chain(others);
            return named.enumerate().map(|(i, e)| entry(i, e)).collect();
        }
        let drawn = self.items.iter().filter_map(|item| match item {
            Item::Line(l) => Some((l.label.as_str(), l.ink, Sample::Line(l.dash))),
            Item::Area(a) => Some((a.label.as_str(), a.ink, Sample::Filled)),
            _ => None,
        });
        let entries = drawn.enumerate().map(|(i, e)| entry(i, e));
        let mut entries: Vec<_> = entries.filter(|e| !e.label.is_empty()).collect();
        entries.sort_by_key(Entry::is_of_another_run);
        entries
    }
}

/// An entry of a legend.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Entry<'a> {
    /// Its name.
    pub label: &'a str,
    /// Colour.
    pub ink: Ink,
    /// What it names.
    pub sample: Sample,
    /// Number of its line or area among all that are drawn.
    pub series: usize,
}

impl Entry<'_> {
    /// Whether it names another run, drawn behind.
    pub fn is_of_another_run(&self) -> bool {
        matches!(self.ink, Ink::Overlay(_))
    }
}

/// What an entry of a legend names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// A line of this style.
    Line(usize),
    /// Bars or an area.
    Filled,
    /// Marks on bars.
    Mark,
}

/// Plots that belong together, laid out in columns.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// The plots, row by row.
    pub panels: Vec<Scene>,
    /// Plots side by side.
    pub columns: usize,
}
