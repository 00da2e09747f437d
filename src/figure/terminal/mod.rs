//! Painting scenes into terminal cells.

mod canvas;
mod content;
mod palette;
mod plot;

pub use palette::{Colours, Marker, Palette};
pub use plot::Plot;
