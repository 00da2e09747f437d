//! PNG files that say where they come from.

use std::io;
use std::path::Path;

use super::error::ExportError;

/// Keyword and text, as PNG's text chunks have them.
pub type Notes = [(&'static str, String)];

/// RGB pixels as PNG, `notes` as its text chunks.
pub(super) fn encode_png(pixels: &[u8], size: (u32, u32), notes: &Notes) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, size.0, size.1);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    for (keyword, text) in notes {
        encoder
            .add_itxt_chunk((*keyword).to_owned(), text.clone())
            .map_err(io::Error::other)?;
    }
    let mut writer = encoder.write_header().map_err(io::Error::other)?;
    writer.write_image_data(pixels).map_err(io::Error::other)?;
    writer.finish().map_err(io::Error::other)?;
    Ok(bytes)
}

/// Writes RGB pixels as PNG.
///
/// # Errors
/// Where the file cannot be written.
pub fn write_png(
    path: &Path,
    pixels: &[u8],
    size: (u32, u32),
    notes: &Notes,
) -> Result<(), ExportError> {
    encode_png(pixels, size, notes)
        .and_then(|bytes| crate::run::write_whole(path, &bytes))
        .map_err(|source| ExportError::Io {
            path: path.to_owned(),
            source,
        })
}
