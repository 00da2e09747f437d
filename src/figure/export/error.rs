//! What can go wrong with an export.

use std::io;
use std::path::PathBuf;

/// Why a figure could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Neither `.png` nor `.svg`, `.pdf` or `.csv`.
    #[error("{0}: expected a file name that ends in .png, .svg, .pdf or .csv")]
    Extension(PathBuf),
    /// The file cannot be written.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The picture could not be painted.
    #[error("the figure could not be painted: {0}")]
    Paint(String),
}
