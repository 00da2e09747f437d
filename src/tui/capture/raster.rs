//! Pictures of pixels.

use ab_glyph::{Font, FontRef, PxScale, ScaleFont, point};
use ratatui::buffer::Buffer;

use super::{CELL, Place, Rgb, Surface, TEXT, paint};
use crate::figure::Theme;

/// The screen as RGB pixels, with their width and height.
pub(in crate::tui) fn png(buffer: &Buffer, theme: Theme) -> (Vec<u8>, (u32, u32)) {
    let width = usize::from(buffer.area.width) * CELL.0;
    let height = usize::from(buffer.area.height) * CELL.1;
    let (r, g, b) = theme.background();
    let fonts = [dejavu::sans_mono::regular(), dejavu::sans_mono::bold()]
        .map(|bytes| FontRef::try_from_slice(bytes).expect("the font crate ships valid typefaces"));
    let mut pixels = Pixels {
        values: [r, g, b].repeat(width * height),
        width,
        fonts,
    };
    paint(buffer, theme, &mut pixels);
    (pixels.values, (width as u32, height as u32))
}

struct Pixels {
    values: Vec<u8>,
    width: usize,
    /// Regular and bold.
    fonts: [FontRef<'static>; 2],
}

impl Pixels {
    fn blend(&mut self, x: usize, y: usize, ink: Rgb, coverage: f32) {
        let i = (y * self.width + x) * 3;
        for (pixel, ink) in self.values[i..i + 3].iter_mut().zip([ink.0, ink.1, ink.2]) {
            let mixed = f32::from(*pixel) + (f32::from(ink) - f32::from(*pixel)) * coverage;
            *pixel = mixed.round() as u8;
        }
    }
}

impl Surface for Pixels {
    fn paper(&mut self, (x, y): (usize, usize), ink: Rgb) {
        let (width, height) = CELL;
        self.fill(
            Place {
                x,
                y,
                width,
                height,
            },
            ink,
        );
    }

    fn fill(&mut self, place: Place, (r, g, b): Rgb) {
        for y in place.y..place.y + place.height {
            let start = (y * self.width + place.x) * 3;
            let row = &mut self.values[start..start + place.width * 3];
            for pixel in row.as_chunks_mut::<3>().0 {
                *pixel = [r, g, b];
            }
        }
    }

    fn glyph(&mut self, c: char, at: (usize, usize), bold: bool, ink: Rgb) {
        let font = self.fonts[usize::from(bold)].clone();
        let scaled = font.as_scaled(PxScale::from(TEXT));
        let baseline = scaled.ascent() + (CELL.1 as f32 - scaled.height()) / 2.0;
        let glyph = font
            .glyph_id(c)
            .with_scale_and_position(TEXT, point(0.0, baseline));
        let Some(outline) = font.outline_glyph(glyph) else {
            return;
        };
        let bounds = outline.px_bounds();
        outline.draw(|x, y, coverage| {
            let x = bounds.min.x + x as f32;
            let y = bounds.min.y + y as f32;
            let inside = x >= 0.0 && y >= 0.0 && x < CELL.0 as f32 && y < CELL.1 as f32;
            if inside {
                self.blend(at.0 + x as usize, at.1 + y as usize, ink, coverage.min(1.0));
            }
        });
    }
}
