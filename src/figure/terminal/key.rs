//! The key to a heat map: what its shades mean.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use unicode_width::UnicodeWidthStr;

use super::super::scene::{Heat, Shade};
use super::palette::{Colours, Palette, on};

/// Values of a heat map, and what is written at each.
pub(super) struct Key {
    shade: Shade,
    entries: Vec<(f32, String)>,
}

impl Key {
    pub(super) fn new(heat: &Heat, palette: &Palette) -> Self {
        let letters = palette.colours == Colours::None;
        let text = |(value, text): (f32, String)| {
            let text = match heat.shade {
                Shade::Exponent { .. } if letters => {
                    format!(" {}={text} ", heat.shade.digit(value))
                }
                _ if value == Shade::ZERO => format!(" {}={text} ", heat.shade.text(value)),
                _ => format!(" {text} "),
            };
            (value, text)
        };
        let entries = heat.shade.scale(&heat.values).into_iter();
        Self {
            shade: heat.shade,
            entries: entries.map(text).collect(),
        }
    }

    fn width(&self) -> usize {
        self.entries.iter().map(|entry| entry.1.width()).sum()
    }

    /// Columns that its ends take, and one before them.
    pub(super) fn least_width(&self) -> usize {
        let ends = match &self.entries[..] {
            [] => return 0,
            [only] => only.1.width(),
            [first, .., last] => first.1.width() + last.1.width(),
        };
        ends + 1
    }

    /// At the right end of the first line of an area, behind a title that ends at `from`.
    pub(super) fn paint(mut self, palette: &Palette, from: u16, area: Rect, buffer: &mut Buffer) {
        let right = area.x + area.width;
        let room = usize::from(right.saturating_sub(from + 1));
        // Every other entry goes where not all fit; both ends stay.
        while self.entries.len() > 2 && self.width() > room {
            let last = self.entries.len() - 1;
            let mut place = 0..;
            self.entries
                .retain(|_| place.next().is_some_and(|i| i % 2 == 0 || i == last));
            if self.entries.len() == last + 1 {
                break;
            }
        }
        if self.width() > room {
            return;
        }
        let mut x = right - self.width() as u16;
        for (value, text) in &self.entries {
            let style = match palette.colour(self.shade.ink(*value)) {
                Some(colour) => Style::new().bg(colour).fg(on(colour)),
                None => Style::new(),
            };
            (x, _) = buffer.set_stringn(x, area.y, text, text.width(), style);
        }
    }
}
