//! Dots in cells.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::symbols::pixel::{OCTANTS, QUADRANTS};

use super::super::clip;
use super::super::scene::Ink;
use super::palette::{Marker, Palette};

/// What a series is drawn with where there is one character for a cell: other runs have letters, and what
/// stands for no series of its own has dots and dashes.
pub(super) fn letter(ink: Ink, series: usize) -> char {
    match ink {
        Ink::Overlay(n) => char::from(b"ABCD"[n % 4]),
        Ink::Muted => '.',
        Ink::Budget => '-',
        _ => char::from(b"*o+x#@%&"[series % 8]),
    }
}

/// Dots of a plot area; the ink of a cell is that of the last line through it.
pub(super) struct Canvas<'a> {
    area: Rect,
    palette: &'a Palette,
    pub width: usize,
    pub height: usize,
    cell: CellDots,
    masks: Vec<u8>,
    inks: Vec<Option<(Ink, u16)>>,
    /// Dots of bands, which show only in cells that no line passes.
    behind: Vec<u8>,
    behind_inks: Vec<Option<(Ink, u16)>>,
    pub series: u16,
}

/// Where the dots of a cell lie and which bits they are: looked up, since a frame sets a million.
struct CellDots {
    /// Binary logarithms of dots across and down.
    across: u32,
    down: u32,
    /// By row and column.
    bits: [[u8; 2]; 4],
    /// All of a column.
    columns: [u8; 2],
}

impl CellDots {
    fn new(marker: Marker) -> Self {
        let (across, down) = marker.dots();
        let bits = match marker {
            Marker::Braille => [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]],
            Marker::Octant | Marker::Block => {
                [[0x01, 0x02], [0x04, 0x08], [0x10, 0x20], [0x40, 0x80]]
            }
            Marker::Ascii => [[1; 2]; 4],
        };
        Self {
            across: across.ilog2(),
            down: down.ilog2(),
            bits,
            columns: [0, 1].map(|x| bits[..down].iter().fold(0, |mask, row| mask | row[x])),
        }
    }

    fn bit(&self, x: usize, y: usize) -> u8 {
        self.bits[y & ((1 << self.down) - 1)][x & ((1 << self.across) - 1)]
    }

    fn column(&self, x: usize) -> u8 {
        self.columns[x & ((1 << self.across) - 1)]
    }
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
            cell: CellDots::new(palette.marker),
            masks: vec![0; cells],
            inks: vec![None; cells],
            behind: vec![0; cells],
            behind_inks: vec![None; cells],
            series: 0,
        }
    }

    fn dot(&mut self, x: usize, y: usize, ink: Ink) {
        if x >= self.width || y >= self.height {
            return;
        }
        let at = (y >> self.cell.down) * usize::from(self.area.width) + (x >> self.cell.across);
        self.masks[at] |= self.cell.bit(x, y);
        self.inks[at] = Some((ink, self.series));
    }

    /// A column of a band, every other dot of it: it stays behind the lines.
    pub(super) fn shade(&mut self, x: f64, y0: f64, y1: f64, ink: Ink) {
        let Some((x, top, bottom)) = self.column(x, y0, y1) else {
            return;
        };
        let (down, across) = (self.cell.down, self.cell.across);
        for y in (top..=bottom).filter(|y| (x + y) % 2 == 0) {
            let at = (y >> down) * usize::from(self.area.width) + (x >> across);
            self.behind[at] |= self.cell.bit(x, y);
            self.behind_inks[at] = Some((ink, self.series));
        }
    }

    /// A column of dots inside the area: its place, top and bottom.
    fn column(&self, x: f64, y0: f64, y1: f64) -> Option<(usize, usize, usize)> {
        if !(x >= 0.0 && x <= self.width as f64) || self.width == 0 || self.height == 0 {
            return None;
        }
        let x = (x as usize).min(self.width - 1);
        let (top, bottom) = (y0.min(y1), y0.max(y1));
        if bottom < 0.0 || top > self.height as f64 {
            return None;
        }
        let clamp = |y: f64| (y.max(0.0) as usize).min(self.height - 1);
        Some((x, clamp(top), clamp(bottom)))
    }

    /// A vertical line in dots, whole cells at a time.
    pub(super) fn vertical(&mut self, x: f64, y0: f64, y1: f64, ink: Ink) {
        let Some((x, top, bottom)) = self.column(x, y0, y1) else {
            return;
        };
        let (down, across) = (self.cell.down, self.cell.across);
        for row in top >> down..=bottom >> down {
            let (first, last) = (row << down, (row << down) + (1 << down) - 1);
            let at = row * usize::from(self.area.width) + (x >> across);
            self.masks[at] |= if top <= first && bottom >= last {
                self.cell.column(x)
            } else {
                let inside = top.max(first)..=bottom.min(last);
                inside.fold(0, |mask, y| mask | self.cell.bit(x, y))
            };
            self.inks[at] = Some((ink, self.series));
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
        // (Points far outside would take forever to walk to.)
        const MARGIN: f64 = 2.0;
        let corner = (self.width as f64 + MARGIN, self.height as f64 + MARGIN);
        let Some([(x0, y0), (x1, y1)]) = clip::segment(from, to, (-MARGIN, -MARGIN), corner) else {
            return;
        };
        let steps = (x1 - x0).abs().max((y1 - y0).abs()).ceil().max(1.0);
        let mut unused = 0;
        let phase = phase.unwrap_or(&mut unused);
        // A dash pattern counts dots, not cells; the last row and column belong to the plot.
        let edge = |v: f64, size: usize| if v == size as f64 { v - 0.5 } else { v };
        let part = 1.0 / steps;
        for i in 0..=steps as usize {
            let t = (i as f64 * part).min(1.0);
            let visible = match dash % 4 {
                0 => true,
                1 => *phase % 8 < 5,
                2 => *phase % 6 < 2,
                _ => !matches!(*phase % 12, 6 | 7 | 10 | 11),
            };
            *phase += 1;
            let x = edge(x0 + (x1 - x0) * t, self.width);
            let y = edge(y0 + (y1 - y0) * t, self.height);
            if visible && x >= 0.0 && y >= 0.0 {
                self.dot(x as usize, y as usize, ink);
            }
        }
    }

    pub(super) fn paint(&self, buffer: &mut Buffer) {
        let width = usize::from(self.area.width);
        let fronts = self.masks.iter().zip(&self.inks);
        let backs = self.behind.iter().zip(&self.behind_inks);
        for (i, (front, back)) in fronts.zip(backs).enumerate() {
            let (mask, ink) = if *front.0 != 0 { front } else { back };
            let (Some((ink, series)), true) = (ink, *mask != 0) else {
                continue;
            };
            let symbol = match self.palette.marker {
                Marker::Braille => char::from_u32(0x2800 + u32::from(*mask)).unwrap_or(' '),
                Marker::Octant => OCTANTS[usize::from(*mask)],
                Marker::Block => QUADRANTS[usize::from(*mask)],
                Marker::Ascii => letter(*ink, usize::from(*series)),
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
