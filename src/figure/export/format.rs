//! Size of an exported figure and of its text.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Pixels of each panel of a figure, and of its text.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Format {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Height of the text in pixels; by the size of the panel where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<f64>,
}

/// Dots per inch in print.
const DPI: f64 = 300.0;
/// Points per inch.
const POINTS: f64 = 72.0;
const MILLIMETRES: f64 = 25.4;

impl Format {
    /// Of that many pixels; the text follows.
    pub const fn pixels(width: u32, height: u32) -> Self {
        Self {
            width,
            height,
            text: None,
        }
    }

    /// For print at 300 dpi: millimetres, and points of the text.
    fn print(width: f64, height: f64, text: f64) -> Self {
        let pixels = |mm: f64| (mm / MILLIMETRES * DPI).round() as u32;
        Self {
            width: pixels(width),
            height: pixels(height),
            text: Some(text / POINTS * DPI),
        }
    }

    /// One column of a two-column paper: 84 mm wide, text of 8 points, panels of 56 mm.
    pub fn column() -> Self {
        Self::print(84.0, 56.0, 8.0)
    }

    /// The width of a page: 174 mm, text of 8 points, panels of 70 mm.
    pub fn page() -> Self {
        Self::print(174.0, 70.0, 8.0)
    }

    /// So many panels below one another.
    pub fn panels(self, count: usize) -> Self {
        Self {
            height: self.height * count.max(1) as u32,
            ..self
        }
    }

    /// Points of a PDF for each pixel: those of print, or half a point for what is made for screens.
    pub(super) fn points_per_pixel(self) -> f32 {
        match self.text {
            Some(_) => (POINTS / DPI) as f32,
            None => 0.5,
        }
    }

    /// Width and height.
    pub(super) fn size(self) -> (u32, u32) {
        (self.width, self.height)
    }
}

impl FromStr for Format {
    type Err = String;

    /// `WIDTHxHEIGHT` in pixels, `column` or `page`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "column" => return Ok(Self::column()),
            "page" => return Ok(Self::page()),
            _ => {}
        }
        let parsed = text
            .split_once('x')
            .and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
        match parsed {
            Some((w, h)) if (200..=10_000).contains(&w) && (150..=10_000).contains(&h) => {
                Ok(Self::pixels(w, h))
            }
            _ => Err("expected column, page, or WIDTHxHEIGHT from 200x150 to 10000x10000".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_by_name_and_by_pixels() {
        assert_eq!("800x600".parse(), Ok(Format::pixels(800, 600)));
        let column: Format = "column".parse().expect("known");
        assert_eq!((column.width, column.height), (992, 661));
        assert!(column.text.is_some_and(|t| (t - 33.3).abs() < 0.1));
        assert!(column.panels(2).height == 1322);
        for wrong in ["", "x", "100x100", "20000x300", "letter"] {
            assert!(wrong.parse::<Format>().is_err(), "{wrong}");
        }
    }
}
