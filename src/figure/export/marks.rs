//! What a scene shows: lines, bands, bars, heat cells, guides, marks.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::super::clip;
use super::super::scene::{Area, Bars, Heat, HeatRow, Ink, Item, Line, Place, RING, Shade};
use super::dashes::{clipped, dashed, without_corners};
use super::error::ExportError;
use super::painter::{Painter, colour, failed};

impl<DB: DrawingBackend> Painter<'_, DB> {
    /// A band as rectangles, each up to the next point.
    pub(super) fn filled(&self, area: &Area) -> Result<(), ExportError> {
        let (left, top, right, bottom) = self.plot;
        let style = ShapeStyle::from(&colour(area.ink, self.theme)).filled();
        let last = area.points.len().saturating_sub(1);
        for (i, (x, low, high)) in area.points.iter().enumerate() {
            let (Some(from), Some(low), Some(high)) = (self.x(*x), self.y(*low), self.y(*high))
            else {
                continue;
            };
            let to = area.points.get(i + 1).and_then(|next| self.x(next.0));
            let to = to.unwrap_or(if i == last { from + 1 } else { from });
            let (from, to) = (from.clamp(left, right), to.clamp(left, right));
            let (high, low) = (high.clamp(top, bottom), low.clamp(top, bottom));
            if to > from && low > high {
                self.area
                    .draw(&Rectangle::new([(from, high), (to, low)], style))
                    .map_err(failed)?;
            }
        }
        Ok(())
    }

    pub(super) fn band(&self, line: &Line) -> Result<(), ExportError> {
        let ink = colour(line.ink, self.theme).mix(0.25);
        let (left, top, right, bottom) = self.plot;
        for (x, low, high) in &line.band {
            let (Some(x), Some(a), Some(b)) = (self.x(*x), self.y(*low), self.y(*high)) else {
                continue;
            };
            if (left..=right).contains(&x) {
                let (a, b) = (a.clamp(top, bottom), b.clamp(top, bottom));
                self.path(vec![(x, a), (x, b)], ShapeStyle::from(&ink).stroke_width(2))?;
            }
        }
        Ok(())
    }

    pub(super) fn line(&self, line: &Line) -> Result<(), ExportError> {
        let style = self.stroke(line.ink, 1.6);
        for segment in &line.segments {
            let shares = segment.iter().filter_map(|(x, y)| self.shares(*x, *y));
            let shares: Vec<(f64, f64)> = shares.collect();
            if let [only] = shares[..] {
                let dot = Circle::new(self.pixel(only), self.text / 5.0, style.filled());
                self.area.draw(&dot).map_err(failed)?;
            }
            let pieces = clip::line(&shares, (-1.0, -1.0), (2.0, 2.0));
            let pieces = pieces.into_iter().flat_map(|piece| {
                let pixels: Vec<(i32, i32)> = piece.into_iter().map(|at| self.pixel(at)).collect();
                clipped(&pixels, self.plot)
            });
            for piece in pieces {
                for dash in dashed(&piece, line.dash, self.text) {
                    for part in without_corners(&dash) {
                        self.path(part.to_vec(), style)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The words, each where nothing else was written: those beside a point give way, to its right, its
    /// left, above, below, or altogether.
    pub(super) fn words(&self) -> Result<(), ExportError> {
        let em = self.text as i32;
        let (left, top, right, bottom) = self.plot;
        let mut taken: Vec<(i32, i32, i32, i32)> = Vec::new();
        for item in &self.scene.items {
            let Item::Label(word) = item else { continue };
            let (Some(x), Some(y)) = (self.x(word.at.0), self.y(word.at.1)) else {
                continue;
            };
            if !self.inside(x, y) {
                continue;
            }
            if word.place == Place::On {
                // A figure as a ring is not one of ours.
                let style = match word.text.as_str() {
                    RING => self.stroke(word.ink, 2.0),
                    _ => self.stroke(word.ink, 1.0).filled(),
                };
                let dot = Circle::new((x, y), self.text / 3.0, style);
                self.area.draw(&dot).map_err(failed)?;
                taken.push((x - em / 2, y - em / 2, x + em / 2, y + em / 2));
                continue;
            }
            let width = (word.text.chars().count() as f64 * self.text * 0.58) as i32;
            let (half, gap) = (em * 3 / 5, em * 3 / 5);
            let boxes = [
                (x + gap, y - half),
                (x - gap - width, y - half),
                (x - width / 2, y - gap - 2 * half),
                (x - width / 2, y + gap),
            ];
            let boxes = boxes.map(|(x, y)| (x, y, x + width, y + 2 * half));
            let free = boxes.into_iter().find(|b| {
                let inside = b.0 >= left && b.2 <= right && b.1 >= top && b.3 <= bottom;
                let apart =
                    |t: &(i32, i32, i32, i32)| b.2 <= t.0 || b.0 >= t.2 || b.3 <= t.1 || b.1 >= t.3;
                inside && taken.iter().all(apart)
            });
            let Some(place) = free else { continue };
            taken.push(place);
            let at = (place.0, place.1 + half);
            self.label(&word.text, at, HPos::Left, VPos::Center, word.ink)?;
        }
        Ok(())
    }

    pub(super) fn bars(&self, bars: &Bars) -> Result<(), ExportError> {
        let bars = &bars.bars;
        let (left, _, right, bottom) = self.plot;
        let each = f64::from(right - left) / bars.len().max(1) as f64;
        for (i, bar) in bars.iter().enumerate() {
            let Some(y) = self.y(bar.value) else { continue };
            let from = f64::from(left) + each * (i as f64 + 0.12);
            let to = f64::from(left) + each * (i as f64 + 0.88);
            let corners = [(from as i32, y), (to as i32, bottom)];
            let fill = colour(Ink::Kind(bar.kind), self.theme).filled();
            self.area
                .draw(&Rectangle::new(corners, fill))
                .map_err(failed)?;
            let middle = ((from + to) / 2.0) as i32;
            if each > self.text * 0.9 {
                let text = Shade::Bits.text(bar.value as f32);
                self.label(
                    &text,
                    (middle, y - 2),
                    HPos::Center,
                    VPos::Bottom,
                    Ink::Text,
                )?;
            }
            for (place, (height, ink)) in bar.marks.iter().enumerate() {
                let Some(y) = self.y(*height) else { continue };
                // Runs of equal bits share the bar's width.
                let same = |m: &&(f64, Ink)| m.0 == *height;
                let of = bar.marks.iter().filter(same).count() as f64;
                let before = bar.marks[..place].iter().filter(same).count() as f64;
                let at = |share: f64| (from + (to - from) * share / of) as i32;
                let ends = vec![(at(before), y), (at(before + 1.0), y)];
                self.path(ends, self.stroke(*ink, 2.0))?;
            }
            let at = (middle, bottom + self.text as i32 / 3);
            self.turned(&bar.label, at, HPos::Right, VPos::Center)?;
        }
        Ok(())
    }

    pub(super) fn heat(&self, heat: &Heat) -> Result<(), ExportError> {
        let (left, top, right, bottom) = self.plot;
        let columns = heat.columns();
        let height = f64::from(bottom - top) / heat.rows.len().max(1) as f64;
        for (row, HeatRow { label, ink, .. }) in heat.rows.iter().enumerate() {
            let y0 = top + (row as f64 * height) as i32;
            let y1 = top + ((row + 1) as f64 * height) as i32;
            let values = heat.row(row);
            let mut column = 0;
            while column < columns {
                // One rectangle per run of equal cells.
                let value = values[column];
                let start = column;
                while column < columns && values[column] == value {
                    column += 1;
                }
                let ends = (self.x(heat.edges[start]), self.x(heat.edges[column]));
                let (Some(bits), (Some(x0), Some(x1))) = (value, ends) else {
                    continue;
                };
                let fill = colour(heat.shade.ink(bits), self.theme).filled();
                let corners = [(x0.max(left), y0), (x1.min(right), y1)];
                self.area
                    .draw(&Rectangle::new(corners, fill))
                    .map_err(failed)?;
            }
            let every = (self.text * 0.9 / height).ceil().max(1.0) as usize;
            if row % every == 0 {
                let at = (left - self.text as i32 / 3, (y0 + y1) / 2);
                self.label(label, at, HPos::Right, VPos::Center, *ink)?;
            }
        }
        self.shade_scale(heat)
    }

    /// What the shades mean, at the right edge.
    pub(super) fn shade_scale(&self, heat: &Heat) -> Result<(), ExportError> {
        let (_, top, right, _) = self.plot;
        let em = self.text as i32;
        for (i, (value, text)) in heat.shade.scale(&heat.values).into_iter().rev().enumerate() {
            let y = top + i as i32 * (em + em / 3);
            let corners = [(right + em / 2, y), (right + em / 2 + em, y + em)];
            let fill = colour(heat.shade.ink(value), self.theme).filled();
            self.area
                .draw(&Rectangle::new(corners, fill))
                .map_err(failed)?;
            let text = match heat.shade {
                Shade::Bits if value == 1.0 => format!("{text} bit"),
                Shade::Bits => format!("{text} bits"),
                Shade::Exponent { .. } => text,
            };
            let at = (right + 2 * em, y + em / 2);
            self.label(&text, at, HPos::Left, VPos::Center, Ink::Text)?;
        }
        Ok(())
    }

    pub(super) fn guides(&self) -> Result<(), ExportError> {
        let (left, top, right, bottom) = self.plot;
        for guide in &self.scene.guides {
            let Some(y) = self.y(guide.y).filter(|y| (top..=bottom).contains(y)) else {
                continue;
            };
            for dash in dashed(&[(left, y), (right, y)], 1, self.text) {
                self.path(dash, self.stroke(guide.ink, 1.2))?;
            }
            let at = (right - 4, y - 2);
            self.label(&guide.label, at, HPos::Right, VPos::Bottom, guide.ink)?;
        }
        Ok(())
    }

    pub(super) fn marks(&self) -> Result<(), ExportError> {
        let (left, top, right, bottom) = self.plot;
        for mark in self.scene.marks.iter().filter(|m| m.letter != '·') {
            let Some(x) = self.x(mark.x).filter(|x| (left..=right).contains(x)) else {
                continue;
            };
            for dash in dashed(&[(x, top), (x, bottom)], 2, self.text) {
                self.path(dash, self.stroke(Ink::Muted, 1.0))?;
            }
        }
        for event in self.event_labels() {
            let y = top - event.row * self.legend_line() - self.text as i32 / 4;
            self.label(
                event.text,
                (event.x, y),
                HPos::Left,
                VPos::Bottom,
                Ink::Text,
            )?;
        }
        Ok(())
    }
}
