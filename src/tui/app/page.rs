//! The pages, how runs are sorted on theirs, and what exports are made for.

use crate::figure::{Format, Name};

/// A page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::tui) enum Page {
    Overview,
    Layers,
    Bitwidths,
    Ranges,
    Gradients,
    Plane,
    Memory,
    Microscope,
    Verdicts,
    Runs,
    System,
    Log,
    Toy,
}

impl Page {
    pub(in crate::tui) const ALL: [Self; 13] = [
        Self::Overview,
        Self::Layers,
        Self::Bitwidths,
        Self::Ranges,
        Self::Gradients,
        Self::Plane,
        Self::Memory,
        Self::Microscope,
        Self::Verdicts,
        Self::Runs,
        Self::System,
        Self::Log,
        Self::Toy,
    ];

    pub(in crate::tui) fn title(self) -> &'static str {
        match self {
            Self::Overview => "overview",
            Self::Layers => "layers",
            Self::Bitwidths => "bitwidths",
            Self::Ranges => "ranges",
            Self::Gradients => "gradients",
            Self::Plane => "plane",
            Self::Memory => "memory",
            Self::Microscope => "microscope",
            Self::Verdicts => "verdicts",
            Self::Runs => "runs",
            Self::System => "system",
            Self::Log => "log",
            Self::Toy => "toy",
        }
    }

    /// A name that fits thirteen of them into eighty columns.
    pub(in crate::tui) fn short(self) -> &'static str {
        match self {
            Self::Overview => "home",
            Self::Layers => "layer",
            Self::Bitwidths => "bits",
            Self::Ranges => "range",
            Self::Gradients => "grad",
            Self::Plane => "plane",
            Self::Memory => "kB",
            Self::Microscope => "micro",
            Self::Verdicts => "alarm",
            Self::Runs => "runs",
            Self::System => "sys",
            Self::Log => "log",
            Self::Toy => "toy",
        }
    }

    /// Pages that belong together: the run, its layers, findings and other runs, the program.
    pub(in crate::tui) fn group(self) -> usize {
        match self {
            Self::Overview => 0,
            Self::Layers
            | Self::Bitwidths
            | Self::Ranges
            | Self::Gradients
            | Self::Plane
            | Self::Memory
            | Self::Microscope => 1,
            Self::Verdicts | Self::Runs => 2,
            Self::System | Self::Log | Self::Toy => 3,
        }
    }

    /// Whether its plots are drawn from something else than the run's log.
    pub(in crate::tui) fn has_pictures(self) -> bool {
        matches!(self, Self::Microscope | Self::Runs | Self::Toy)
    }

    pub(in crate::tui) fn step(self, by: usize) -> Self {
        let at = Self::ALL.iter().position(|p| *p == self).unwrap_or(0);
        Self::ALL[(at + by) % Self::ALL.len()]
    }

    /// The plots of the page: name and panel.
    pub(in crate::tui) fn plots(self) -> &'static [(Name, usize)] {
        match self {
            Self::Overview => &[
                (Name::Loss, 0),
                (Name::Error, 0),
                (Name::Memory, 0),
                (Name::Memory, 1),
            ],
            Self::Bitwidths => &[
                (Name::Bitwidth, 0),
                (Name::Bitwidth, 1),
                (Name::BitwidthHeat, 0),
            ],
            Self::Ranges => &[
                (Name::StepSize, 0),
                (Name::StepSize, 1),
                (Name::Range, 0),
                (Name::Range, 1),
            ],
            Self::Gradients => &[
                (Name::Gradients, 0),
                (Name::Gradients, 1),
                (Name::Gradients, 2),
            ],
            Self::Plane => &[(Name::Plane, 0), (Name::Plane, 1)],
            Self::Memory => &[
                (Name::Ledger, 0),
                (Name::Ledger, 1),
                (Name::Pull, 0),
                (Name::Pull, 1),
            ],
            Self::System => &[(Name::Phases, 0)],
            Self::Layers
            | Self::Microscope
            | Self::Verdicts
            | Self::Runs
            | Self::Log
            | Self::Toy => &[],
        }
    }

    /// Figures that the page shows: what `x` exports.
    pub(in crate::tui) fn figures(self) -> Vec<Name> {
        let mut names: Vec<Name> = self.plots().iter().map(|p| p.0).collect();
        if self == Self::Layers {
            names.extend([Name::Bitwidth, Name::BitwidthHeat]);
        }
        names.dedup();
        names
    }
}

/// How runs are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::tui) enum Order {
    /// The newest first.
    #[default]
    Time,
    /// The best validation error first.
    Error,
    /// The smallest weights first.
    Kilobytes,
}

impl Order {
    pub(in crate::tui) fn next(self) -> Self {
        match self {
            Self::Time => Self::Error,
            Self::Error => Self::Kilobytes,
            Self::Kilobytes => Self::Time,
        }
    }

    pub(in crate::tui) fn name(self) -> &'static str {
        match self {
            Self::Time => "newest first",
            Self::Error => "best error first",
            Self::Kilobytes => "smallest weights first",
        }
    }
}

/// What exported figures are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::tui) enum Paper {
    /// Slides and screens: 1400 pixels wide.
    #[default]
    Screen,
    /// One column of a paper.
    Column,
    /// The width of a page.
    Page,
}

impl Paper {
    pub(in crate::tui) const ALL: [Self; 3] = [Self::Screen, Self::Column, Self::Page];

    pub(in crate::tui) fn name(self) -> &'static str {
        match self {
            Self::Screen => "screen",
            Self::Column => "column",
            Self::Page => "page",
        }
    }

    /// Of a figure of so many panels.
    pub(in crate::tui) fn format(self, panels: usize) -> Format {
        match self {
            Self::Screen => Format::pixels(1400, (500 * panels as u32).clamp(700, 2100)),
            Self::Column => Format::column().panels(panels),
            Self::Page => Format::page().panels(panels),
        }
    }
}
