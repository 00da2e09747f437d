//! Scenes from a run's history: which figures there are, and how a history is looked at.

mod bitwidths;
mod layers;
mod over_steps;
mod overlay;
mod plane;
mod rows;
mod stacks;
mod totals;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::scene::{Figure, Scale, Scene};
use crate::quantizer::memory::{Role, Side};
use crate::run::{History, LayerHistory, LayerQuantity};

pub use overlay::{Overlaid, panel_with};
pub use plane::boundaries as equal_bits;
pub use rows::{ByLayer, Fold, Row, mean_by_elements, rows};

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

    /// Whether it shows the visible steps. Bars are of one step, the cursor's or the newest,
    /// whatever is visible.
    pub fn is_over_steps(self) -> bool {
        self != Self::Bitwidth
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
            Self::Seconds => "seconds",
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
    /// Only layers whose name contains this, or whose role or kind begins with it.
    pub filter: String,
    /// Columns that the plot can resolve.
    pub resolution: usize,
    /// Rows that a heat map can show at once; all where `None`.
    pub rows: Option<usize>,
    /// Cursor, in steps.
    pub cursor: Option<f64>,
    /// A second cursor, in steps: readings are differences from it.
    pub second: Option<f64>,
    /// Layer drawn in front.
    pub selected: Option<usize>,
    /// How layers are folded to rows.
    pub fold: Fold,
    /// How quantities of layers are drawn.
    pub by_layer: ByLayer,
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
            rows: None,
            cursor: None,
            second: None,
            selected: None,
            fold: Fold::default(),
            by_layer: ByLayer::default(),
        }
    }
}

impl View {
    /// The filter that lets the layer of that name through, and no other whose name has it as a part.
    pub fn exactly(name: &str) -> String {
        format!("={name}")
    }

    /// Whether the filter lets a layer through.
    pub fn shows(&self, layer: &LayerHistory) -> bool {
        if let Some(name) = self.filter.strip_prefix('=') {
            return layer.info.name == name;
        }
        self.filter.is_empty()
            || layer.info.name.contains(&self.filter)
            || layer.info.role.word().starts_with(&self.filter)
            || layer.info.kind.word().starts_with(&self.filter)
    }
}

/// The whole figure of that name.
pub fn build(name: Name, history: &History, view: &View) -> Figure {
    build_with(name, history, view, &[])
}

/// The same with other runs behind it.
pub fn build_with(name: Name, history: &History, view: &View, others: &[Overlaid]) -> Figure {
    let panels = 0..panel_count(name, history);
    let panels = panels.map(|i| panel_with(name, i, history, view, others));
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
/// ledger (weights, activations) and pull (loss, gradient) two; gradients (weights, first and second
/// parameter) three.
pub fn panel(name: Name, index: usize, history: &History, view: &View) -> Scene {
    let builder = Builder { history, view };
    let side = Side::BOTH[index.min(1)];
    match name {
        Name::Loss => builder.loss(),
        Name::Error => builder.error(),
        Name::Memory => builder.memory(side),
        Name::Bitwidth => builder.bars(side),
        Name::BitwidthHeat => builder.heat(),
        Name::StepSize => builder.layers("step size d", side, Scale::Log2, LayerQuantity::StepSize),
        Name::Range => builder.layers("range q_max", side, Scale::Log2, LayerQuantity::Range),
        Name::Gradients => builder.gradients(index),
        Name::Plane => builder.plane(side),
        Name::Ledger => builder.ledger(side),
        Name::Pull => builder.pull(index),
        Name::Phases => builder.phases(),
    }
}

/// A history as seen through a view: what the scenes are made from.
struct Builder<'a> {
    history: &'a History,
    view: &'a View,
}

impl Builder<'_> {
    /// What to say where there is no quantizer to show.
    fn no_quantizers(&self) -> String {
        let layers = &self.history.layers;
        if !layers.is_empty() && !layers.iter().any(|l| self.view.shows(l)) {
            return format!("no layer matches the filter \"{}\"", self.view.filter);
        }
        "no quantizers in use yet".into()
    }

    /// Columns of cells that are filled whole: on a screen each is two dots wide.
    fn cell_columns(&self) -> usize {
        let dots = if self.view.rows.is_some() { 2 } else { 1 };
        (self.view.resolution / dots).max(1)
    }
}
