//! What a scene shows: lines, bands, bars, heat cells.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use unicode_width::UnicodeWidthStr;

use super::super::Window;
use super::super::scene::{Area, Bars, Heat, HeatRow, Ink, Line, Shade};
use super::canvas::Canvas;
use super::fit::{BarRows, cut_apart};
use super::palette::{Colours, Marker, on};
use super::plot::Plot;

impl Plot<'_> {
    pub(super) fn line(&self, line: &Line, canvas: &mut Canvas<'_>) {
        let (Some(across), Some(up)) = (self.scene.x.mapping(), self.scene.y.mapping()) else {
            return;
        };
        let to_dot = |canvas: &Canvas<'_>, x: f64, y: f64| -> Option<(f64, f64)> {
            let u = across.share(x)? * canvas.width as f64;
            let v = (1.0 - up.share(y)?) * canvas.height as f64;
            Some((u, v))
        };
        let faded = if line.segments.iter().any(|s| s.len() > 1) {
            Ink::Muted
        } else {
            line.ink
        };
        for (x, low, high) in &line.band {
            let ends = (to_dot(canvas, *x, *low), to_dot(canvas, *x, *high));
            if let (Some(a), Some(b)) = ends {
                canvas.shade(a.0, a.1, b.1, faded);
            }
        }
        for segment in &line.segments {
            let mut phase = 0;
            let points: Vec<(f64, f64)> = segment
                .iter()
                .filter_map(|(x, y)| to_dot(canvas, *x, *y))
                .collect();
            if let [only] = points[..] {
                canvas.line(only, only, line.ink, 0, None);
            }
            for pair in points.windows(2) {
                // Colour tells series apart; without it the dash does.
                let dash = if self.palette.colours == Colours::None {
                    line.dash
                } else {
                    0
                };
                canvas.line(pair[0], pair[1], line.ink, dash, Some(&mut phase));
            }
        }
        canvas.series += 1;
    }

    pub(super) fn band(&self, area: &Area, canvas: &mut Canvas<'_>) {
        let (Some(across), Some(up)) = (self.scene.x.mapping(), self.scene.y.mapping()) else {
            return;
        };
        let column = |x: f64| Some(across.share(x)? * canvas.width as f64);
        // Behind the last point a band holds to the end of its own width.
        let ends = area.points.iter().skip(1).map(|p| column(p.0));
        let ends: Vec<_> = ends.chain([None]).collect();
        for ((x, low, high), end) in area.points.iter().zip(ends) {
            let (Some(from), Some(low), Some(high)) =
                (across.share(*x), up.share(*low), up.share(*high))
            else {
                continue;
            };
            let from = from * canvas.width as f64;
            let to = end.unwrap_or(from + 1.0);
            let dots = |share: f64| (1.0 - share) * canvas.height as f64;
            // A dot less at the top: neighbours in a stack do not share one.
            let (top, bottom) = (dots(high), dots(low) - 1.0);
            if bottom < top {
                continue;
            }
            let mut dot = from.floor().max(0.0);
            while dot < to.ceil().min(canvas.width as f64) {
                canvas.vertical(dot, top, bottom, area.ink);
                dot += 1.0;
            }
        }
        canvas.series += 1;
    }

    pub(super) fn bars(&self, bars: &Bars, plot: Rect, area: Rect, buffer: &mut Buffer) {
        const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        // A column for a bar at least: what does not fit is scrolled to. Whole columns for each, or gaps
        // would differ.
        let shown = Window::around(bars.focus, bars.bars.len(), plot.width.into());
        let each = (plot.width / shown.count.max(1) as u16).clamp(1, 9);
        let width = each - u16::from(each >= 3);
        let visible = &bars.bars[shown.range()];
        // (Of a letter or two nothing can be told.)
        let labels = match width {
            0..3 => vec![String::new(); visible.len()],
            _ => cut_apart(visible.iter().map(|b| b.label.as_str()), width.into()),
        };
        let rows = BarRows::new(&self.scene.y, plot.height);
        for (i, bar) in visible.iter().enumerate() {
            let x = plot.x + i as u16 * each;
            let eighths = (rows.height(bar.value) * 8.0).round() as usize;
            let style = self.palette.style(Ink::Kind(bar.kind));
            let selected = bars.selected == Some(shown.first + i);
            for row in 0..plot.height {
                let fill = eighths.saturating_sub(usize::from(row) * 8).min(8);
                let y = plot.y + plot.height - 1 - row;
                for column in x..x + width {
                    let cell = &mut buffer[(column, y)];
                    let symbol = match self.palette.marker {
                        Marker::Ascii if fill >= 4 => '#',
                        Marker::Ascii => ' ',
                        _ => EIGHTHS[fill],
                    };
                    if fill > 0 {
                        cell.set_char(symbol).set_style(style);
                    }
                }
            }
            // The number stands on the bar: in its top row.
            let top = (eighths as u16).div_ceil(8).clamp(1, plot.height.max(1));
            let y = plot.y + plot.height - top;
            let value = Shade::Bits.text(bar.value as f32);
            let short = format!("{:.0}", bar.value);
            let value = [value, short].into_iter().find(|v| v.len() <= width.into());
            if let Some(value) = &value {
                let middle = x + width.saturating_sub(value.len() as u16) / 2;
                let inside = style.add_modifier(Modifier::REVERSED);
                buffer.set_stringn(middle, y, value, width.into(), inside);
            }
            for (place, (height, ink)) in bar.marks.iter().enumerate() {
                let row = |height: f64| {
                    let above = rows.height(height).ceil().max(1.0) as u16;
                    plot.y + plot.height - above.min(plot.height)
                };
                let at = row(*height);
                let style = self.palette.style(*ink);
                // Runs of equal bits stand beside one another.
                let before = bar.marks[..place].iter();
                let beside = before.filter(|m| row(m.0) == at).count() as u16;
                let column = x + width.saturating_sub(1 + beside);
                if at == y && width == 1 && value.is_some() {
                    // The number stays, in the other's colour.
                    buffer[(x, y)].set_style(style.add_modifier(Modifier::REVERSED));
                } else {
                    buffer.set_stringn(column, at, self.palette.bar_mark(), 1, style);
                }
            }
            let below = plot.y + plot.height;
            if below < area.y + area.height {
                let muted = self.palette.style(Ink::Muted);
                buffer.set_stringn(x, below, &labels[i], width.into(), muted);
                if selected {
                    let marker = if width < 3 { "▲" } else { "" };
                    buffer.set_stringn(x, below, marker, 1, self.palette.style(Ink::Text));
                    let under = Rect::new(x, below, width, 1);
                    buffer.set_style(under, Style::new().add_modifier(Modifier::REVERSED));
                }
            }
        }
    }

    pub(super) fn heat(&self, heat: &Heat, plot: Rect, area: Rect, buffer: &mut Buffer) {
        let columns = heat.columns();
        let rows = heat.rows.len();
        if rows == 0 || columns == 0 || plot.height == 0 {
            return;
        }
        let (shown, tall) = shown_rows(heat, plot);
        let room = usize::from(plot.x - area.x).saturating_sub(1);
        let labels = cut_apart(heat.rows.iter().map(|r| r.label.as_str()), room);
        for (r, row) in shown.range().enumerate() {
            let values = heat.row(row);
            for t in 0..tall {
                let y = plot.y + (r * tall + t) as u16;
                self.heat_row(heat, values, t == tall / 2, plot, y, buffer);
            }
            let y = plot.y + (r * tall + tall / 2) as u16;
            let HeatRow { ink, .. } = &heat.rows[row];
            let mut style = self.palette.style(*ink);
            if heat.selected == Some(row) {
                style = style.add_modifier(Modifier::REVERSED);
            }
            buffer.set_stringn(area.x, y, &labels[row], room, style);
        }
    }

    /// What every row holds at the cursor, beside its line.
    pub(super) fn readings(&self, heat: &Heat, cursor: u16, plot: Rect, buffer: &mut Buffer) {
        let (shown, tall) = shown_rows(heat, plot);
        let widths = heat.rows.iter().filter_map(|r| r.reading.as_ref());
        let width = widths.map(|r| r.width()).max().unwrap_or(0) as u16;
        let right = plot.x + plot.width;
        let x = if cursor + 1 + width <= right {
            cursor + 1
        } else if cursor >= plot.x + width {
            cursor - width
        } else {
            return;
        };
        let style = Style::reset().patch(self.palette.style(Ink::Text));
        for (r, row) in shown.range().enumerate() {
            let Some(reading) = &heat.rows[row].reading else {
                continue;
            };
            let y = plot.y + (r * tall + tall / 2) as u16;
            let text = format!("{reading:<width$}", width = usize::from(width));
            buffer.set_string(x, y, text, style);
            buffer[(cursor, y)].set_char('│').set_style(style);
            if self.palette.colours == Colours::None {
                // There every cell is a figure of its own.
                if x > cursor && x + width < right {
                    buffer[(x + width, y)].set_char(' ');
                }
                continue;
            }
            // What is left of a number beside it would be read as a part of it.
            let left = (plot.x..x).rev().filter(|c| *c != cursor);
            let behind = x + width..right;
            for side in [left.collect::<Vec<u16>>(), behind.collect()] {
                for column in side {
                    let cell = &mut buffer[(column, y)];
                    if cell.symbol() == " " {
                        break;
                    }
                    cell.set_char(' ');
                }
            }
        }
    }

    /// A row of cells: the value as colour, and in figures every few cells, so that it is read without
    /// colour too.
    fn heat_row(
        &self,
        heat: &Heat,
        values: &[Option<f32>],
        middle: bool,
        plot: Rect,
        y: u16,
        buffer: &mut Buffer,
    ) {
        const EVERY: u16 = 8;
        // (Columns of equal steps are no columns of equal seconds.)
        let value = |c: u16| {
            let share = (f64::from(c) + 0.5) / f64::from(plot.width);
            values[heat.column(self.scene.x.value(share))?]
        };
        let mut text = String::new().into_bytes().into_iter();
        for c in 0..plot.width {
            let Some(v) = value(c) else {
                text = Vec::new().into_iter();
                continue;
            };
            let cell = &mut buffer[(plot.x + c, y)];
            let Some(colour) = self.palette.colour(heat.shade.ink(v)) else {
                cell.set_char(heat.shade.digit(v));
                continue;
            };
            if middle && c % EVERY == 3 {
                // A number that is cut off would be another one.
                let whole = heat.shade.text(v);
                let end = c + whole.len() as u16;
                let fits = end <= plot.width && (c..end).all(|c| value(c).is_some());
                text = if fits { whole } else { String::new() }
                    .into_bytes()
                    .into_iter();
            }
            let symbol = text.next().map_or(' ', char::from);
            cell.set_bg(colour).set_fg(on(colour)).set_char(symbol);
        }
    }
}

/// Which rows of a heat map a plot shows, and how many lines it has for each.
fn shown_rows(heat: &Heat, plot: Rect) -> (Window, usize) {
    let shown = Window::around(heat.focus, heat.rows.len(), plot.height.into());
    let tall = (usize::from(plot.height) / shown.count.max(1)).clamp(1, 3);
    (shown, tall)
}
