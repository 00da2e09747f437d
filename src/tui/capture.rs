//! The screen's cells as a picture, with an embedded typeface: PNG and SVG.

mod raster;
mod vector;

use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};

use crate::figure::{Ink, Theme};

pub(super) use raster::png;
pub(super) use vector::svg;

type Rgb = (u8, u8, u8);

/// Pixels of one cell.
const CELL: (usize, usize) = (10, 20);
/// Height of the text in pixels.
const TEXT: f32 = 16.5;

/// A rectangle in pixels.
#[derive(Debug, Clone, Copy)]
struct Place {
    x: usize,
    y: usize,
    width: usize,
    height: usize,
}

/// What pictures of a screen are painted on.
trait Surface {
    /// Colours the cell whose upper left corner this is, below everything else.
    fn paper(&mut self, at: (usize, usize), ink: Rgb);

    /// Fills a rectangle.
    fn fill(&mut self, place: Place, ink: Rgb);

    /// Writes one character into the cell whose upper left corner this is.
    fn glyph(&mut self, c: char, at: (usize, usize), bold: bool, ink: Rgb);
}

/// Paints every cell.
fn paint(buffer: &Buffer, theme: Theme, surface: &mut impl Surface) {
    let columns = usize::from(buffer.area.width);
    for (i, cell) in buffer.content.iter().enumerate() {
        let at = (i % columns * CELL.0, i / columns * CELL.1);
        let (mut ink, mut paper) = (
            colour(cell.fg, theme.rgb(Ink::Text)),
            colour(cell.bg, theme.background()),
        );
        if cell.modifier.contains(Modifier::REVERSED) {
            std::mem::swap(&mut ink, &mut paper);
        }
        if paper != theme.background() {
            surface.paper(at, paper);
        }
        symbol(cell, at, ink, surface);
    }
}

/// Braille and blocks as rectangles, since fonts draw the dots too small to read as a line.
fn symbol(cell: &Cell, (x, y): (usize, usize), ink: Rgb, surface: &mut impl Surface) {
    let Some(c) = cell.symbol().chars().next().filter(|c| *c != ' ') else {
        return;
    };
    match c {
        '\u{2800}'..='\u{28ff}' => {
            for (column, row, bit) in DOTS {
                if (c as u32 - 0x2800) & bit != 0 {
                    let (x, y) = (x + column * 5 + 1, y + row * 5 + 1);
                    let dot = Place {
                        x,
                        y,
                        width: 3,
                        height: 3,
                    };
                    surface.fill(dot, ink);
                }
            }
        }
        '▁'..='█' => {
            let eighths = c as usize - '▁' as usize + 1;
            let height = CELL.1 * eighths / 8;
            let block = Place {
                x,
                y: y + CELL.1 - height,
                width: CELL.0,
                height,
            };
            surface.fill(block, ink);
        }
        _ => {
            let bold = cell.modifier.contains(Modifier::BOLD);
            surface.glyph(c, (x, y), bold, ink);
        }
    }
}

/// Column, row and bit of braille's eight dots.
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
        Color::Indexed(index @ 16..) => of_256(index),
        Color::Reset | Color::Indexed(_) => default,
    }
}

/// What a terminal of 256 colours shows for one of its cube of six shades or of its 24 greys.
fn of_256(index: u8) -> Rgb {
    if index >= 232 {
        let grey = 8 + 10 * (index - 232);
        return (grey, grey, grey);
    }
    let shade = |part: u8| if part == 0 { 0 } else { 55 + 40 * part };
    let cube = index.saturating_sub(16);
    (shade(cube / 36), shade(cube / 6 % 6), shade(cube % 6))
}

#[cfg(test)]
mod tests {
    use ratatui::layout::Rect;
    use ratatui::style::Style;

    use super::*;

    #[test]
    fn shades_of_256_colours_are_those_of_terminals() {
        let white = colour(Color::Indexed(231), (1, 1, 1));
        assert_eq!(
            (white, of_256(16), of_256(196)),
            ((255, 255, 255), (0, 0, 0), (255, 0, 0))
        );
        assert_eq!((of_256(67), of_256(244)), ((95, 135, 175), (128, 128, 128)));
    }

    fn screen() -> Buffer {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 8, 2));
        buffer.set_string(0, 0, "a<b&c⣿█", Style::new());
        buffer.set_string(0, 1, "x", Style::new().bg(Color::Rgb(1, 2, 3)));
        buffer
    }

    #[test]
    fn a_picture_has_the_pixels_of_its_cells() {
        let (pixels, size) = png(&screen(), Theme::Dark);
        assert_eq!(size, (80, 40));
        let at = |x: usize, y: usize| &pixels[(y * 80 + x) * 3..][..3];
        // Paper of the styled cell, a full block, and ground where nothing was written.
        assert_eq!(at(0, 20 + 19), [1, 2, 3]);
        let (r, g, b) = Theme::Dark.rgb(Ink::Text);
        assert_eq!(at(6 * 10 + 5, 10), [r, g, b]);
        let (r, g, b) = Theme::Dark.background();
        assert_eq!(at(75, 35), [r, g, b]);
    }

    #[test]
    fn the_same_screen_as_vectors() {
        insta::assert_snapshot!("capture-svg", svg(&screen(), Theme::Dark));
    }
}
