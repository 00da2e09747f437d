//! What a scene shows: lines, bands, bars, heat cells.

use std::collections::BTreeSet;

use ratatui::buffer::{Buffer, Cell};
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier};

use super::super::scene::{Area, Bar, Heat, HeatRow, Ink, Line};
use super::canvas::Canvas;
use super::palette::{Colours, Marker};
use super::plot::{Plot, row_of};

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
                canvas.vertical(a.0, a.1, b.1, faded);
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

    pub(super) fn bars(&self, bars: &[Bar], plot: Rect, area: Rect, buffer: &mut Buffer) {
        const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let each = (f64::from(plot.width) / bars.len().max(1) as f64).min(9.0);
        let width = (each.floor() as u16)
            .saturating_sub(u16::from(each >= 3.0))
            .max(1);
        // (Of a letter or two nothing can be told.)
        let labels = match width {
            0..3 => vec![String::new(); bars.len()],
            _ => cut_apart(bars.iter().map(|b| b.label.as_str()), width.into()),
        };
        for (i, bar) in bars.iter().enumerate() {
            let x = plot.x + (i as f64 * each) as u16;
            if x + width > plot.x + plot.width {
                break;
            }
            let share = self.scene.y.share(bar.value).unwrap_or(0.0).clamp(0.0, 1.0);
            let eighths = (share * f64::from(plot.height) * 8.0).round() as usize;
            let style = self.palette.style(Ink::Kind(bar.kind));
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
            let top = plot.y + plot.height - (eighths as u16).div_ceil(8).min(plot.height);
            let value = format!("{:.0}", bar.value);
            if value.len() <= usize::from(width.max(2)) {
                let middle = x + width.saturating_sub(value.len() as u16) / 2;
                // A bar up to the top carries its number inside.
                let (y, style) = if top > plot.y {
                    (top - 1, style)
                } else {
                    (plot.y, style.add_modifier(Modifier::REVERSED))
                };
                buffer.set_stringn(middle, y, &value, width.max(2).into(), style);
            }
            for (height, ink) in &bar.marks {
                let Some(y) = row_of(&self.scene.y, *height, plot) else {
                    continue;
                };
                let (mark, style) = (self.palette.bar_mark(), self.palette.style(*ink));
                buffer.set_stringn(x + width / 2, y, mark, 1, style);
            }
            let below = plot.y + plot.height;
            if below < area.y + area.height {
                let muted = self.palette.style(Ink::Muted);
                buffer.set_stringn(x, below, &labels[i], width.into(), muted);
            }
        }
    }

    pub(super) fn heat(&self, heat: &Heat, plot: Rect, area: Rect, buffer: &mut Buffer) {
        let columns = heat.columns();
        let rows = heat.rows.len();
        if rows == 0 || columns == 0 {
            return;
        }
        // More layers than rows: each row shows the selected one of its layers, or the first.
        let shown = rows.min(plot.height.into());
        let tall = if rows <= plot.height.into() {
            usize::from(plot.height) / rows
        } else {
            1
        };
        let tall = tall.clamp(1, 3);
        let room = usize::from(plot.x - area.x).saturating_sub(1);
        let labels = cut_apart(heat.rows.iter().map(|r| r.label.as_str()), room);
        for r in 0..shown {
            let own = r * rows / shown..(r + 1) * rows / shown;
            let row = heat
                .selected
                .filter(|s| own.contains(s))
                .unwrap_or(own.start);
            let values = heat.row(row);
            for t in 0..tall {
                let y = plot.y + (r * tall + t) as u16;
                for c in 0..plot.width {
                    let column = usize::from(c) * columns / usize::from(plot.width);
                    let Some(bits) = values[column] else { continue };
                    self.heat_cell(bits, t == tall / 2, &mut buffer[(plot.x + c, y)], c);
                }
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

    /// The bitwidth as colour, and as a digit every few cells: readable without colour too.
    pub(super) fn heat_cell(&self, bits: f32, middle: bool, cell: &mut Cell, column: u16) {
        let digit = char::from_digit((bits.round() as u32).min(35), 36).unwrap_or('?');
        match self.palette.colour(Ink::Bits(bits)) {
            Some(colour) => {
                let dark = bits < 4.5;
                let ink = if dark { Color::White } else { Color::Black };
                cell.set_bg(colour).set_fg(ink);
                cell.set_char(if middle && column % 8 == 3 {
                    digit
                } else {
                    ' '
                });
            }
            None => {
                cell.set_char(digit);
            }
        }
    }
}

/// Names with a part of their middle left out where they are too long: the part without which most of
/// them are still told apart.
fn cut_apart<'a>(names: impl Iterator<Item = &'a str> + Clone, width: usize) -> Vec<String> {
    let kept = width.saturating_sub(1);
    let half = kept / 2;
    let cut = |front: usize| -> Vec<String> {
        let cut = names.clone().map(|name| cut_behind(name, width, front));
        cut.collect()
    };
    let distinct = |labels: &Vec<String>| labels.iter().collect::<BTreeSet<_>>().len();
    let mut fronts: Vec<usize> = (0..=kept).collect();
    fronts.sort_by_key(|front| front.abs_diff(half));
    let mut best = cut(half);
    for labels in fronts.into_iter().skip(1).map(cut) {
        if distinct(&labels) > distinct(&best) {
            best = labels;
        }
    }
    best
}

/// A name with its middle left out where it is too long: both ends tell layers apart.
pub(crate) fn cut_in_the_middle(name: &str, width: usize) -> String {
    cut_behind(name, width, width.saturating_sub(1) / 2)
}

/// The same with so many letters in front of the gap.
fn cut_behind(name: &str, width: usize, front: usize) -> String {
    let letters: Vec<char> = name.chars().collect();
    if letters.len() <= width {
        return name.to_owned();
    }
    let back = width.saturating_sub(1) - front;
    let middle: &[char] = if width > 0 { &['…'] } else { &[] };
    let ends = [&letters[..front], middle, &letters[letters.len() - back..]];
    ends.concat().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beside_one_another_stay_different() {
        let names = ["s0.b0.conv0", "s0.b1.conv0", "s0.b2.conv0"];
        let cut = cut_apart(names.into_iter(), 8);
        assert_eq!(cut, ["s0.b0…v0", "s0.b1…v0", "s0.b2…v0"]);
        assert_eq!(
            cut_apart(["a", "classifier"].into_iter(), 8),
            ["a", "cla…fier"]
        );
    }

    #[test]
    fn long_names_keep_both_ends() {
        assert_eq!(cut_in_the_middle("conv1", 9), "conv1");
        assert_eq!(
            cut_in_the_middle("features.13.conv.1.0", 13),
            "featur…nv.1.0"
        );
        assert_eq!(
            cut_in_the_middle("features.13.conv.1.0", 13)
                .chars()
                .count(),
            13
        );
    }
}
