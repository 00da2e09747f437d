//! Pictures of shapes and text.

use std::fmt::Write;

use ratatui::buffer::Buffer;

use super::{CELL, Place, Rgb, Surface, TEXT, paint};
use crate::figure::Theme;

/// The screen as SVG text. Runs of one style become one element.
pub(in crate::tui) fn svg(buffer: &Buffer, theme: Theme) -> String {
    let width = usize::from(buffer.area.width) * CELL.0;
    let height = usize::from(buffer.area.height) * CELL.1;
    let mut shapes = Shapes::default();
    paint(buffer, theme, &mut shapes);
    shapes.end_text();
    shapes.papers.end();
    shapes.fills.end();
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"DejaVu Sans Mono, monospace\" \
         font-size=\"{TEXT}\" xml:space=\"preserve\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"{}\"/>\n{}{}{}</svg>\n",
        hex(theme.background()),
        shapes.papers.done,
        shapes.fills.done,
        shapes.texts
    )
}

fn hex((r, g, b): Rgb) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

#[derive(Default)]
struct Shapes {
    papers: Rectangles,
    fills: Rectangles,
    texts: String,
    text: Option<Text>,
}

/// Rectangles of which neighbours of one colour become one.
#[derive(Default)]
struct Rectangles {
    done: String,
    last: Option<(Place, Rgb)>,
}

impl Rectangles {
    fn add(&mut self, place: Place, ink: Rgb) {
        if let Some((last, same)) = &mut self.last
            && *same == ink
            && (last.y, last.height) == (place.y, place.height)
            && last.x + last.width == place.x
        {
            last.width += place.width;
            return;
        }
        self.end();
        self.last = Some((place, ink));
    }

    fn end(&mut self) {
        let Some((place, ink)) = self.last.take() else {
            return;
        };
        let Place {
            x,
            y,
            width,
            height,
        } = place;
        // Writing to a string cannot fail.
        let _ = writeln!(
            self.done,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" fill=\"{}\"/>",
            hex(ink)
        );
    }
}

/// Neighbouring characters of one style.
struct Text {
    at: (usize, usize),
    characters: String,
    bold: bool,
    ink: Rgb,
}

impl Shapes {
    fn end_text(&mut self) {
        let Some(text) = self.text.take() else { return };
        let count = text.characters.chars().count();
        let escaped: String = text
            .characters
            .chars()
            .map(|c| match c {
                '<' => "&lt;".into(),
                '>' => "&gt;".into(),
                '&' => "&amp;".into(),
                other => other.to_string(),
            })
            .collect();
        let weight = if text.bold {
            " font-weight=\"bold\""
        } else {
            ""
        };
        // Whatever typeface is there: each character keeps to its cell.
        let _ = writeln!(
            self.texts,
            "<text x=\"{}\" y=\"{}\" textLength=\"{}\" fill=\"{}\"{weight}>{escaped}</text>",
            text.at.0,
            text.at.1 + CELL.1 * 3 / 4,
            count * CELL.0,
            hex(text.ink)
        );
    }
}

impl Surface for Shapes {
    fn paper(&mut self, (x, y): (usize, usize), ink: Rgb) {
        let (width, height) = CELL;
        self.papers.add(
            Place {
                x,
                y,
                width,
                height,
            },
            ink,
        );
    }

    fn fill(&mut self, place: Place, ink: Rgb) {
        self.fills.add(place, ink);
    }

    fn glyph(&mut self, c: char, at: (usize, usize), bold: bool, ink: Rgb) {
        if let Some(text) = &mut self.text {
            let next = text.at.0 + text.characters.chars().count() * CELL.0;
            let same = (text.at.1, text.bold, text.ink) == (at.1, bold, ink);
            if same && next == at.0 {
                text.characters.push(c);
                return;
            }
        }
        self.end_text();
        self.text = Some(Text {
            at,
            characters: c.to_string(),
            bold,
            ink,
        });
    }
}
