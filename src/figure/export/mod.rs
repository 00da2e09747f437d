//! Painting figures to PNG, SVG and PDF with plotters and an embedded typeface; their numbers as CSV.

mod csv;
mod dashes;
mod error;
mod format;
mod marks;
mod painter;
mod pdf;
mod png;

use std::path::Path;

use plotters::prelude::*;

use super::scene::Figure;
use super::theme::Theme;

pub use csv::csv;
pub use error::ExportError;
pub use format::Format;
use painter::Letters;
pub use png::{Notes, write_png};

/// Writes a figure as PNG, SVG, PDF or CSV, by the file's extension. PNG and PDF carry `notes`.
///
/// # Errors
/// Where the extension is another, or the file cannot be written.
pub fn export(
    figure: &Figure,
    path: &Path,
    theme: Theme,
    format: Format,
    notes: &Notes,
) -> Result<(), ExportError> {
    let io = |source| ExportError::Io {
        path: path.to_owned(),
        source,
    };
    let bytes = match path.extension().and_then(|e| e.to_str()) {
        Some("png") => {
            let size = format.size();
            let mut pixels = vec![0; size.0 as usize * size.1 as usize * 3];
            let area = BitMapBackend::with_buffer(&mut pixels, size).into_drawing_area();
            painter::paint(figure, &area, theme, format, Letters::Raster)?;
            drop(area);
            png::encode_png(&pixels, size, notes).map_err(io)?
        }
        Some("svg") => paint_svg_text(figure, theme, format)?.into_bytes(),
        Some("pdf") => {
            let scale = format.points_per_pixel();
            let mut page = pdf::Page::new(format.size(), scale);
            let area = (&mut page).into_drawing_area();
            painter::paint(figure, &area, theme, format, Letters::Exact)?;
            drop(area);
            page.finish(scale, notes).map_err(io)?
        }
        Some("csv") => csv(figure).into_bytes(),
        _ => return Err(ExportError::Extension(path.to_owned())),
    };
    crate::run::write_whole(path, &bytes).map_err(io)
}

/// The figure as SVG text.
///
/// # Errors
/// Where it cannot be painted.
pub fn paint_svg_text(
    figure: &Figure,
    theme: Theme,
    format: Format,
) -> Result<String, ExportError> {
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, format.size()).into_drawing_area();
    painter::paint(figure, &area, theme, format, Letters::Exact)?;
    drop(area);
    Ok(text)
}
