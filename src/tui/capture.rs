//! The screen's cells as a picture, with an embedded typeface.

use std::path::Path;

use ab_glyph::{Font, FontRef, PxScale, ScaleFont, point};
use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};

use crate::figure::{ExportError, Ink, Notes, Theme, write_png};

/// Pixels of one cell.
const CELL: (usize, usize) = (10, 20);
const TEXT: f32 = 16.5;

/// Paints every cell and writes a PNG.
pub(super) fn write(
    buffer: &Buffer,
    path: &Path,
    theme: Theme,
    notes: &Notes,
) -> Result<(), ExportError> {
    let columns = usize::from(buffer.area.width);
    let rows = usize::from(buffer.area.height);
    let size = ((columns * CELL.0) as u32, (rows * CELL.1) as u32);
    let background = theme.background();
    let fonts = [dejavu::sans_mono::regular(), dejavu::sans_mono::bold()]
        .map(|bytes| FontRef::try_from_slice(bytes).expect("the font crate ships valid typefaces"));
    let mut picture = Picture {
        pixels: vec![0; columns * CELL.0 * rows * CELL.1 * 3],
        width: columns * CELL.0,
    };
    for (i, cell) in buffer.content.iter().enumerate() {
        let at = (i % columns * CELL.0, i / columns * CELL.1);
        let (mut ink, mut paper) = (
            colour(cell.fg, theme.rgb(Ink::Text)),
            colour(cell.bg, background),
        );
        if cell.modifier.contains(Modifier::REVERSED) {
            std::mem::swap(&mut ink, &mut paper);
        }
        picture.fill(at, CELL, paper);
        let bold = usize::from(cell.modifier.contains(Modifier::BOLD));
        picture.symbol(cell, at, &fonts[bold], ink);
    }
    write_png(path, &picture.pixels, size, notes)
}

type Rgb = (u8, u8, u8);

fn colour(colour: Color, default: Rgb) -> Rgb {
    match colour {
        Color::Rgb(r, g, b) => (r, g, b),
        Color::Black => (0, 0, 0),
        Color::Red => (205, 60, 50),
        Color::Green => (60, 170, 80),
        Color::Yellow => (220, 180, 50),
        Color::Blue => (60, 110, 200),
        Color::Magenta => (180, 80, 180),
        Color::Cyan => (60, 170, 180),
        Color::Gray => (190, 190, 190),
        Color::DarkGray => (110, 110, 110),
        Color::LightRed => (240, 110, 100),
        Color::LightGreen => (120, 210, 130),
        Color::LightYellow => (245, 220, 110),
        Color::LightBlue => (120, 170, 240),
        Color::LightMagenta => (220, 140, 220),
        Color::LightCyan => (130, 215, 220),
        Color::White => (245, 245, 245),
        Color::Reset | Color::Indexed(_) => default,
    }
}

struct Picture {
    pixels: Vec<u8>,
    width: usize,
}

impl Picture {
    fn fill(&mut self, at: (usize, usize), size: (usize, usize), (r, g, b): Rgb) {
        for y in at.1..at.1 + size.1 {
            for x in at.0..at.0 + size.0 {
                let i = (y * self.width + x) * 3;
                self.pixels[i..i + 3].copy_from_slice(&[r, g, b]);
            }
        }
    }

    fn blend(&mut self, x: usize, y: usize, ink: Rgb, coverage: f32) {
        let i = (y * self.width + x) * 3;
        for (pixel, ink) in self.pixels[i..i + 3].iter_mut().zip([ink.0, ink.1, ink.2]) {
            let mixed = f32::from(*pixel) + (f32::from(ink) - f32::from(*pixel)) * coverage;
            *pixel = mixed.round() as u8;
        }
    }

    fn symbol(&mut self, cell: &Cell, at: (usize, usize), font: &FontRef<'_>, ink: Rgb) {
        let Some(c) = cell.symbol().chars().next().filter(|c| *c != ' ') else {
            return;
        };
        match c {
            '\u{2800}'..='\u{28ff}' => self.braille(c as u32 - 0x2800, at, ink),
            '▁'..='█' => {
                let eighths = c as usize - '▁' as usize + 1;
                let height = CELL.1 * eighths / 8;
                self.fill((at.0, at.1 + CELL.1 - height), (CELL.0, height), ink);
            }
            _ => self.glyph(c, at, font, ink),
        }
    }

    /// Eight dots; fonts draw them too small to read as a line.
    fn braille(&mut self, mask: u32, at: (usize, usize), ink: Rgb) {
        const DOTS: [(usize, usize, u32); 8] = [
            (0, 0, 0x01),
            (0, 1, 0x02),
            (0, 2, 0x04),
            (1, 0, 0x08),
            (1, 1, 0x10),
            (1, 2, 0x20),
            (0, 3, 0x40),
            (1, 3, 0x80),
        ];
        for (x, y, bit) in DOTS {
            if mask & bit != 0 {
                self.fill((at.0 + x * 5 + 1, at.1 + y * 5 + 1), (3, 3), ink);
            }
        }
    }

    fn glyph(&mut self, c: char, at: (usize, usize), font: &FontRef<'_>, ink: Rgb) {
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
