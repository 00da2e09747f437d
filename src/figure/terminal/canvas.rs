//! Dots in cells.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::symbols::pixel::{OCTANTS, QUADRANTS};

use super::super::scene::Ink;
use super::palette::{Marker, Palette};

pub(super) fn letter(series: usize) -> char {
    char::from(b"*o+x#@%&"[series % 8])
}

/// Dots of a plot area; the ink of a cell is that of the last line through it.
pub(super) struct Canvas<'a> {
    area: Rect,
    palette: &'a Palette,
    pub width: usize,
    pub height: usize,
    masks: Vec<u8>,
    inks: Vec<Option<(Ink, u16)>>,
    pub series: u16,
}

impl<'a> Canvas<'a> {
    pub(super) fn new(area: Rect, palette: &'a Palette) -> Self {
        let (across, down) = palette.marker.dots();
        let cells = usize::from(area.width) * usize::from(area.height);
        Self {
            area,
            palette,
            width: usize::from(area.width) * across,
            height: usize::from(area.height) * down,
            masks: vec![0; cells],
            inks: vec![None; cells],
            series: 0,
        }
    }

    pub(super) fn dot(&mut self, x: i64, y: i64, ink: Ink) {
        if x < 0 || y < 0 || x >= self.width as i64 || y >= self.height as i64 {
            return;
        }
        let (across, down) = self.palette.marker.dots();
        let (x, y) = (x as usize, y as usize);
        let cell = y / down * usize::from(self.area.width) + x / across;
        self.masks[cell] |= self.bit(x % across, y % down);
        self.inks[cell] = Some((ink, self.series));
    }

    /// A vertical line in dots, whole cells at a time.
    pub(super) fn vertical(&mut self, x: f64, y0: f64, y1: f64, ink: Ink) {
        let (across, down) = self.palette.marker.dots();
        if !(x >= 0.0 && x <= self.width as f64) || self.width == 0 || self.height == 0 {
            return;
        }
        let x = (x as usize).min(self.width - 1);
        let (top, bottom) = (y0.min(y1), y0.max(y1));
        if bottom < 0.0 || top > self.height as f64 {
            return;
        }
        let clamp = |y: f64| (y.max(0.0) as usize).min(self.height - 1);
        let (top, bottom) = (clamp(top), clamp(bottom));
        let whole = (0..down).fold(0, |mask, y| mask | self.bit(x % across, y));
        for row in top / down..=bottom / down {
            let (first, last) = (row * down, row * down + down - 1);
            let cell = row * usize::from(self.area.width) + x / across;
            self.masks[cell] |= if top <= first && bottom >= last {
                whole
            } else {
                let inside = top.max(first)..=bottom.min(last);
                inside.fold(0, |mask, y| mask | self.bit(x % across, y % down))
            };
            self.inks[cell] = Some((ink, self.series));
        }
    }

    /// The bit of a dot inside its cell.
    pub(super) fn bit(&self, x: usize, y: usize) -> u8 {
        const BRAILLE: [[u8; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];
        match self.palette.marker {
            Marker::Braille => BRAILLE[y][x],
            Marker::Octant | Marker::Block => 1 << (y * 2 + x),
            Marker::Ascii => 1,
        }
    }

    /// A line between two points in dots. `phase` carries a dash pattern on from line to line.
    pub(super) fn line(
        &mut self,
        from: (f64, f64),
        to: (f64, f64),
        ink: Ink,
        dash: usize,
        phase: Option<&mut usize>,
    ) {
        // Far outside points would take forever to walk to.
        let far = 4.0 * (self.width + self.height) as f64;
        let clamp = |v: f64| v.clamp(-far, far);
        let (x0, y0) = (clamp(from.0), clamp(from.1));
        let (x1, y1) = (clamp(to.0), clamp(to.1));
        let steps = (x1 - x0).abs().max((y1 - y0).abs()).ceil().max(1.0);
        let mut unused = 0;
        let phase = phase.unwrap_or(&mut unused);
        // A dash pattern counts dots, not cells; the last row and column belong to the plot.
        let edge = |v: f64, size: usize| if v == size as f64 { v - 0.5 } else { v };
        for i in 0..=steps as usize {
            let t = i as f64 / steps;
            let visible = match dash % 4 {
                0 => true,
                1 => *phase % 8 < 5,
                2 => *phase % 6 < 2,
                _ => !matches!(*phase % 12, 6 | 7 | 10 | 11),
            };
            *phase += 1;
            if visible {
                let x = edge(x0 + (x1 - x0) * t, self.width).floor();
                let y = edge(y0 + (y1 - y0) * t, self.height).floor();
                self.dot(x as i64, y as i64, ink);
            }
        }
    }

    pub(super) fn paint(&self, buffer: &mut Buffer) {
        let width = usize::from(self.area.width);
        for (i, (mask, ink)) in self.masks.iter().zip(&self.inks).enumerate() {
            let (Some((ink, series)), true) = (ink, *mask != 0) else {
                continue;
            };
            let symbol = match self.palette.marker {
                Marker::Braille => char::from_u32(0x2800 + u32::from(*mask)).unwrap_or(' '),
                Marker::Octant => OCTANTS[usize::from(*mask)],
                Marker::Block => QUADRANTS[usize::from(*mask)],
                Marker::Ascii => letter(usize::from(*series)),
            };
            let position = (
                self.area.x + (i % width) as u16,
                self.area.y + (i / width) as u16,
            );
            buffer[position]
                .set_char(symbol)
                .set_style(self.palette.style(*ink));
        }
    }
}
