//! Figures: a backend-free [`Scene`] built from a run's history, and two painters.
//!
//! Doors:
//! - [`build`]: a named [`Figure`] of a [`History`](crate::run::History) as seen through a [`View`].
//! - [`terminal::Plot`]: paints a scene into terminal cells.
//! - [`export`]: paints a figure to PNG or SVG with an embedded typeface, or lists it as CSV.
//! - [`Saved`]: a figure as a small file that reproduces it.
//!
//! Screen and file can never disagree, because they paint the same scene.

mod build;
mod clip;
mod export;
mod front;
pub(crate) mod numerals;
mod saved;
mod scene;
pub mod terminal;
mod theme;
pub mod ticks;
mod window;

pub use build::{
    ByLayer, Fold, Name, Overlaid, Row, View, XUnit, build, equal_bits, mean_by_elements, panel,
    panel_count, panel_with, rows,
};
pub use export::{ExportError, Format, Notes, csv, export, paint_svg_text, write_png};
pub use front::{around, pareto_front};
pub use saved::{Behind, Saved, SavedError, notes};
pub use scene::{
    Area, Axis, Bar, Bars, DOT, Figure, Guide, Heat, HeatRow, Ink, Item, Label, Line, Place, RING,
    Scale, Scene, Shade, VerticalMark,
};
pub use theme::Theme;
pub use window::Window;
