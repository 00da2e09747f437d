//! Painting scenes into terminal cells.

mod canvas;
mod content;
mod fit;
mod key;
mod palette;
mod plot;

pub(crate) use fit::{cut_apart, cut_in_the_middle};
pub use palette::{Colours, Marker, Palette};
pub use plot::Plot;
pub(crate) use plot::shortened;
