//! Files that the workbench exports.

use std::path::Path;

use ratatui::buffer::Buffer;

use super::capture;
use crate::figure::{Figure, Format, Notes, Saved, Theme};

/// The screen's cells as PNG and SVG.
pub(super) fn write_screen(
    cells: &Buffer,
    path: &Path,
    theme: Theme,
    notes: &Notes,
) -> Result<(), String> {
    let text = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|e| text(&e))?;
    }
    let (pixels, size) = capture::png(cells, theme);
    crate::figure::write_png(path, &pixels, size, notes).map_err(|e| e.to_string())?;
    let vectors = capture::svg(cells, theme);
    let beside = path.with_extension("svg");
    crate::run::write_whole(&beside, vectors.as_bytes()).map_err(|e| text(&e))
}

/// Kinds of files that a figure is exported as: three pictures, and the numbers.
const KINDS: [&str; 4] = ["png", "svg", "pdf", "csv"];

/// The files of a figure that no log draws again.
pub(super) fn write_picture(
    figure: &Figure,
    (theme, format): (Theme, Format),
    notes: &Notes,
    folder: &Path,
    name: &str,
) -> Result<(), String> {
    std::fs::create_dir_all(folder).map_err(|e| e.to_string())?;
    KINDS.iter().try_for_each(|extension| {
        let path = folder.join(format!("{name}.{extension}"));
        crate::figure::export(figure, &path, theme, format, notes).map_err(|e| e.to_string())
    })
}

/// The files of an exported figure, with what draws it again.
pub(super) fn write_figure(
    saved: &Saved,
    figure: &Figure,
    notes: &Notes,
    folder: &Path,
    name: &str,
) -> Result<(), String> {
    write_picture(figure, (saved.theme, saved.format), notes, folder, name)?;
    let path = folder.join(format!("{name}.toml"));
    crate::run::write_whole(&path, saved.to_toml().as_bytes()).map_err(|e| e.to_string())
}
