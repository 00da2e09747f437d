//! A scene as a widget: title and legend, ticks, guides, marks, cursors.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::widgets::Widget;
use unicode_width::UnicodeWidthStr;

use super::super::Window;
use super::super::scene::{Axis, Entry, Ink, Item, Label, Place, Sample, Scene};
use super::super::ticks::ticks;
use super::canvas::{Canvas, letter};
use super::fit::{BarRows, cut_apart, cut_before_readings, cut_in_the_middle};
use super::key::Key;
use super::palette::{Marker, Palette};

/// A scene as a widget: title and legend on top, ticks at the left and below.
pub struct Plot<'a> {
    pub(super) scene: &'a Scene,
    pub(super) palette: &'a Palette,
}

impl<'a> Plot<'a> {
    /// Of this scene.
    pub fn new(scene: &'a Scene, palette: &'a Palette) -> Self {
        Self { scene, palette }
    }

    /// The cells that data is painted into, inside `area`.
    pub fn plot_area(scene: &Scene, area: Rect) -> Rect {
        let label = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or(0) as u16;
        let left = match scene.items.first() {
            Some(Item::Heat(heat)) => {
                label(&mut heat.rows.iter().map(|r| r.label.width())).min(area.width / 3) + 1
            }
            _ => label(&mut y_ticks(scene, area.height).iter().map(|t| t.1.width())) + 1,
        };
        let below = if matches!(scene.items.first(), Some(Item::Bars(_))) {
            1
        } else {
            2
        };
        let left = left.min(area.width);
        let right = side_legend(scene, area).min(area.width - left);
        Rect {
            x: area.x + left,
            y: area.y + 1.min(area.height),
            width: area.width - left - right,
            height: area.height.saturating_sub(1 + below),
        }
    }

    /// The x value in the middle of a terminal column, where the column is inside the plot.
    pub fn x_at(scene: &Scene, area: Rect, column: u16) -> Option<f64> {
        let plot = Self::plot_area(scene, area);
        let inside = column >= plot.x && column < plot.x + plot.width;
        inside.then(|| {
            scene
                .x
                .value((f64::from(column - plot.x) + 0.5) / f64::from(plot.width.max(1)))
        })
    }
}

/// Columns that a title has beside its unit at least.
const NAME: usize = 10;

/// Title with its unit, and what of a longer list is seen, in so many cells: the title is cut first, then
/// the unit goes.
fn title(scene: &Scene, plot: Rect, width: usize) -> String {
    let unit = &scene.y.label;
    let (items, of, focus, unit) = match scene.items.first() {
        Some(Item::Heat(heat)) => {
            let unit = heat.shade.unit();
            (plot.height, heat.rows.len(), heat.focus, unit)
        }
        Some(Item::Bars(bars)) => (plot.width, bars.bars.len(), bars.focus, None),
        _ if says(&scene.title, unit) => return shortened(&scene.title, width),
        _ => {
            let unit = format!(" [{unit}]");
            let room = width.saturating_sub(unit.width());
            return shortened(&(shortened(&scene.title, room) + &unit), width);
        }
    };
    let seen = Window::around(focus, of, items.into()).text();
    let seen = seen.map_or(String::new(), |seen| format!(", {seen}"));
    let room = width.saturating_sub(seen.width());
    let unit = unit.map_or(String::new(), |unit| format!(" [{unit}]"));
    let least = NAME.min(scene.title.width());
    let unit = Some(unit)
        .filter(|unit| unit.width() + least <= room)
        .unwrap_or_default();
    let name = cut_in_the_middle(&scene.title, room - unit.width()) + &unit;
    shortened(&(name + &seen), width)
}

/// Whether a title names the quantity of the y axis already.
fn says(title: &str, unit: &str) -> bool {
    let quantity = unit.split(' ').next().unwrap_or_default();
    title.contains(quantity)
}

/// Columns of a legend at the right: where the names do not fit beside the title, and there is room.
fn side_legend(scene: &Scene, area: Rect) -> u16 {
    let legend = scene.legend();
    let beside_title: usize = legend.iter().map(|e| e.label.width() + 5).sum();
    let title = scene.title.width() + scene.y.label.width() + 3;
    if legend.len() < 2
        || title + beside_title <= area.width.into()
        || area.width < 56
        || area.height < 7
        || matches!(scene.items.first(), Some(Item::Bars(_) | Item::Heat(_)))
    {
        return 0;
    }
    let longest = legend.iter().map(|e| e.label.width()).max().unwrap_or(0) as u16;
    // (Differences between two cursors need more room than names.)
    let most = match scene.second {
        Some(_) => 2 * area.width / 5,
        None => area.width / 3,
    };
    (longest + 4).min(most)
}

fn y_ticks(scene: &Scene, height: u16) -> Vec<(f64, String)> {
    ticks(&scene.y, (usize::from(height) / 3).clamp(2, 8))
}

impl Widget for &Plot<'_> {
    fn render(self, area: Rect, buffer: &mut Buffer) {
        let area = area.intersection(buffer.area);
        let scene = self.scene;
        if area.width < 4 || area.height < 3 {
            return;
        }
        self.header(area, buffer);
        let plot = Plot::plot_area(scene, area);
        if plot.width < 2 || plot.height < 1 {
            return;
        }
        if scene.is_empty() {
            let width = scene.empty.width().min(usize::from(plot.width)) as u16;
            let x = plot.x + (plot.width - width) / 2;
            let style = self.palette.style(Ink::Muted);
            buffer.set_stringn(
                x,
                plot.y + plot.height / 2,
                &scene.empty,
                width.into(),
                style,
            );
            return;
        }
        self.ticks(area, plot, buffer);
        let mut canvas = Canvas::new(plot, self.palette);
        let filled = scene.items.iter().any(|i| matches!(i, Item::Area(_)));
        if !filled {
            self.guides(&mut canvas);
        }
        for item in &scene.items {
            match item {
                Item::Line(line) => self.line(line, &mut canvas),
                Item::Area(area) => self.band(area, &mut canvas),
                Item::Label(_) => {}
                Item::Bars(bars) => self.bars(bars, plot, area, buffer),
                Item::Heat(heat) => self.heat(heat, plot, area, buffer),
            }
        }
        canvas.paint(buffer);
        if filled {
            self.guides_in_front(plot, buffer);
        }
        self.guide_labels(plot, buffer);
        let mut without_room = 0;
        for item in &scene.items {
            if let Item::Label(label) = item
                && !self.word(label, plot, buffer)
                && label.ink != Ink::Muted
            {
                without_room += 1;
            }
        }
        if without_room > 0 {
            let text = format!("+{without_room} names");
            let x = plot.right().saturating_sub(text.width() as u16).max(plot.x);
            let style = self.palette.style(Ink::Muted);
            buffer.set_stringn(x, plot.bottom() - 1, text, plot.width.into(), style);
        }
        self.marks(plot, buffer);
        self.cursor(plot, buffer);
        let cursor = scene.cursor.and_then(|at| column_of(&scene.x, at, plot));
        for item in &scene.items {
            if let (Item::Heat(heat), Some(column)) = (item, cursor) {
                self.readings(heat, column, plot, buffer);
            }
        }
    }
}

impl Plot<'_> {
    fn header(&self, area: Rect, buffer: &mut Buffer) {
        let bold = self.palette.style(Ink::Text).add_modifier(Modifier::BOLD);
        let plot = Plot::plot_area(self.scene, area);
        let width = usize::from(area.width);
        if let Some(Item::Heat(heat)) = self.scene.items.first() {
            let key = Key::new(heat, self.palette);
            // Both ends of the key stay.
            let least = key.least_width();
            let room = if 2 * least < width {
                width - least
            } else {
                width
            };
            let title = title(self.scene, plot, room);
            let (x, _) = buffer.set_stringn(area.x, area.y, title, width, bold);
            return key.paint(self.palette, x, area, buffer);
        }
        let legend = self.scene.legend();
        let at_side = side_legend(self.scene, area) > 0;
        let whole = title(self.scene, plot, width);
        let entries: usize = legend.iter().map(|e| e.label.width() + 5).sum();
        let room = if at_side || legend.is_empty() || whole.width() + entries <= width {
            width
        } else if legend.iter().any(Entry::is_of_another_run) {
            // Of a title that is too long a part gives way to another run's name, and to a count.
            width.saturating_sub(OTHER + 5 + 6).max(width / 2)
        } else {
            width.saturating_sub(6)
        };
        let text = title(self.scene, plot, room);
        let (x, _) = buffer.set_stringn(area.x, area.y, text, width, bold);
        if at_side {
            self.legend_at_side(&legend, plot, area, buffer);
        } else {
            self.legend_beside_title(&legend, x, area, buffer);
        }
    }

    /// A piece of what an entry names, two columns wide.
    fn sample(&self, entry: &Entry<'_>) -> String {
        let bars = matches!(self.scene.items.first(), Some(Item::Bars(_)));
        match (entry.sample, self.palette.marker) {
            (Sample::Mark, _) => format!("{} ", self.palette.bar_mark()),
            (Sample::Filled, Marker::Ascii) if bars => "##".into(),
            (_, Marker::Ascii) => String::from_iter([letter(entry.ink, entry.series); 2]),
            (Sample::Filled, _) => "██".into(),
            (Sample::Line(0), _) => "──".into(),
            (Sample::Line(1), _) => "╌╌".into(),
            (Sample::Line(2), _) => "┄┄".into(),
            (Sample::Line(_), _) => "─┄".into(),
        }
    }

    /// As many entries as fit, and how many more there are.
    fn legend_beside_title(
        &self,
        legend: &[Entry<'_>],
        from: u16,
        area: Rect,
        buffer: &mut Buffer,
    ) {
        let room = usize::from((area.x + area.width).saturating_sub(from));
        let width = |entry: &Entry<'_>| entry.label.width() + 5;
        let fits = |entries: &[Entry<'_>]| {
            // Room for the count of those that do not fit.
            let rest = if entries.len() < legend.len() { 6 } else { 0 };
            entries.iter().map(width).sum::<usize>() + rest <= room
        };
        let others = legend.iter().filter(|e| e.is_of_another_run());
        let cut = cut_apart(others.map(|e| e.label), OTHER);
        let mut shown = kept(legend, fits);
        if shown.len() < legend.len() {
            // Other runs' names are long; a part tells them apart.
            let mut names = cut.iter();
            let mut short = legend.to_vec();
            for entry in short.iter_mut().filter(|e| e.is_of_another_run()) {
                entry.label = names.next().map_or(entry.label, String::as_str);
            }
            shown = kept(&short, fits);
        }
        let mut x = from;
        for entry in &shown {
            let style = self.palette.style(entry.ink);
            let (next, _) = buffer.set_stringn(x + 2, area.y, self.sample(entry), 2, style);
            (x, _) = buffer.set_stringn(next + 1, area.y, entry.label, width(entry), style);
        }
        if shown.len() < legend.len() {
            let more = format!(" (+{})", legend.len() - shown.len());
            let room = usize::from((area.x + area.width).saturating_sub(x));
            if more.width() <= room {
                buffer.set_stringn(x, area.y, more, room, self.palette.style(Ink::Muted));
            }
        }
    }

    /// Entries under one another at the right, those of a stack from its top down.
    fn legend_at_side(&self, legend: &[Entry<'_>], plot: Rect, area: Rect, buffer: &mut Buffer) {
        let stacked = self.scene.items.iter().any(|i| matches!(i, Item::Area(_)));
        let rows = usize::from(plot.height);
        let mut entries = kept(legend, |entries| {
            entries.len() + usize::from(entries.len() < legend.len()) <= rows
        });
        if stacked {
            entries.reverse();
        }
        let x = plot.x + plot.width + 1;
        let width = usize::from((area.x + area.width).saturating_sub(x + 3));
        let labels: Vec<&str> = entries.iter().map(|entry| entry.label).collect();
        let labels = cut_before_readings(&labels, width);
        for (row, entry) in entries.iter().enumerate() {
            let (y, style) = (plot.y + row as u16, self.palette.style(entry.ink));
            buffer.set_stringn(x, y, self.sample(entry), 2, style);
            buffer.set_stringn(x + 3, y, &labels[row], width, style);
        }
        if entries.len() < legend.len() && rows > 0 {
            let more = format!("+{} more", legend.len() - entries.len());
            let y = plot.y + plot.height - 1;
            buffer.set_stringn(x, y, more, width + 3, self.palette.style(Ink::Muted));
        }
    }

    fn ticks(&self, area: Rect, plot: Rect, buffer: &mut Buffer) {
        let style = self.palette.style(Ink::Muted);
        if matches!(self.scene.items.first(), Some(Item::Bars(_))) {
            self.bar_ticks(plot, style, buffer);
        } else if !matches!(self.scene.items.first(), Some(Item::Heat(_))) {
            let ticks = y_ticks(self.scene, area.height).into_iter();
            let ticks = ticks.filter_map(|(v, text)| Some((row_of(&self.scene.y, v, plot)?, text)));
            let ticks: Vec<(u16, String)> = ticks.collect();
            // Every other one where two would share a row.
            let shared = ticks.windows(2).any(|pair| pair[0].0 == pair[1].0);
            for (row, text) in ticks.into_iter().step_by(1 + usize::from(shared)) {
                let width = text.width() as u16;
                let x = (plot.x - 1).saturating_sub(width).max(area.x);
                buffer.set_stringn(x, row, &text, width.into(), style);
            }
        }
        let axis = plot.y + plot.height;
        let bars = matches!(self.scene.items.first(), Some(Item::Bars(_)));
        if bars || axis + 1 >= area.y + area.height {
            return;
        }
        for x in plot.x..plot.x + plot.width {
            buffer[(x, axis)].set_char('─').set_style(style);
        }
        let wanted = (usize::from(plot.width) / 14).clamp(2, 12);
        let end = area.x + area.width;
        // What is free between the texts: columns from and to.
        let (mut free_from, mut gaps) = (area.x, Vec::new());
        for (v, text) in ticks(&self.scene.x, wanted) {
            let Some(column) = column_of(&self.scene.x, v, plot) else {
                continue;
            };
            buffer[(column, axis)].set_char('┴').set_style(style);
            let width = text.width() as u16;
            let start = column.saturating_sub(width / 2).max(area.x);
            let start = start.min(end.saturating_sub(width));
            if start >= free_from && start + width <= end {
                buffer.set_stringn(start, axis + 1, &text, width.into(), style);
                gaps.push((free_from, start.saturating_sub(1)));
                free_from = start + width + 1;
            }
        }
        // The unit stands at the end, or else where there is most room.
        let label = &self.scene.x.label;
        let width = label.width() as u16;
        let last = end.saturating_sub(width);
        let start = if last > free_from {
            Some(last)
        } else {
            let widest = gaps
                .into_iter()
                .rev()
                .max_by_key(|g| g.1.saturating_sub(g.0));
            let room = widest.filter(|g| g.1.saturating_sub(g.0) >= width);
            room.map(|g| (g.0 + g.1 - width).div_ceil(2))
        };
        if let Some(start) = start {
            buffer.set_stringn(start, axis + 1, label, width.into(), style);
        }
    }

    /// Whole bits, at the tops of bars that have them; with few rows every second or fourth.
    fn bar_ticks(&self, plot: Rect, style: Style, buffer: &mut Buffer) {
        let rows = BarRows::new(&self.scene.y, plot.height);
        let most = self.scene.y.range.1.floor() as u32;
        let each = rows.height(1.0);
        let stride = if each > 0.0 {
            (1.0 / each).ceil() as usize
        } else {
            1
        };
        for bits in (1..=most).step_by(stride.max(1)) {
            let above = rows.height(bits.into()).round().max(1.0) as u16;
            let text = bits.to_string();
            let width = text.width() as u16;
            let x = plot.x.saturating_sub(1 + width);
            let y = plot.y + plot.height.saturating_sub(above);
            buffer.set_stringn(x, y, &text, width.into(), style);
        }
    }

    fn guides(&self, canvas: &mut Canvas<'_>) {
        for guide in &self.scene.guides {
            let Some(share) = self.scene.y.share(guide.y) else {
                continue;
            };
            if !(0.0..=1.0).contains(&share) {
                continue;
            }
            let v = (1.0 - share) * canvas.height as f64;
            let to = (canvas.width as f64, v);
            canvas.line((0.0, v), to, guide.ink, 1, Some(&mut 0));
        }
    }

    /// Guides over filled bands, which would swallow their dots.
    fn guides_in_front(&self, plot: Rect, buffer: &mut Buffer) {
        let symbol = match self.palette.marker {
            Marker::Ascii => '-',
            _ => '╌',
        };
        for guide in &self.scene.guides {
            if let Some(y) = row_of(&self.scene.y, guide.y, plot) {
                for x in plot.x..plot.x + plot.width {
                    let style = self.palette.style(guide.ink);
                    buffer[(x, y)].set_char(symbol).set_style(style);
                }
            }
        }
    }

    fn guide_labels(&self, plot: Rect, buffer: &mut Buffer) {
        for guide in &self.scene.guides {
            let Some(row) = row_of(&self.scene.y, guide.y, plot) else {
                continue;
            };
            let width = guide.label.width() as u16;
            let above = if row > plot.y { row - 1 } else { row + 1 };
            if width < plot.width && above < plot.y + plot.height {
                let x = plot.x + plot.width - width;
                let style = self.palette.style(guide.ink);
                buffer.set_stringn(x, above, &guide.label, width.into(), style);
            }
        }
    }

    /// Writes a word; whether there was room for it, or no need.
    fn word(&self, label: &Label, plot: Rect, buffer: &mut Buffer) -> bool {
        let column = column_of(&self.scene.x, label.at.0, plot);
        let (Some(x), Some(y)) = (column, row_of(&self.scene.y, label.at.1, plot)) else {
            return true;
        };
        let style = self.palette.style(label.ink);
        if label.place == Place::On {
            let room = usize::from(plot.right() - x);
            buffer.set_stringn(x, y, &label.text, room, style);
            return true;
        }
        let width = label.text.width() as u16;
        let before = x.checked_sub(width + 1);
        let centred = x.saturating_sub(width / 2);
        let places = [
            Some((x + 2, y)),
            before.map(|x| (x, y)),
            y.checked_sub(1).map(|y| (centred, y)),
            Some((centred, y + 1)),
            y.checked_sub(1).map(|y| (x + 1, y)),
            Some((x + 1, y + 1)),
        ];
        let quiet = self.palette.style(Ink::Muted).fg;
        let free = |(x, y): &(u16, u16)| {
            let inside =
                *x >= plot.x && x + width <= plot.right() && (plot.y..plot.bottom()).contains(y);
            inside
                && (*x..x + width).all(|x| {
                    let cell = &buffer[(x, *y)];
                    // Guide lines give way; what was written before does not.
                    let line = cell.symbol() == "┊" || !cell.symbol().is_ascii();
                    cell.symbol() == " " || (line && Some(cell.fg) == quiet)
                })
        };
        let place = places.into_iter().flatten().find(free);
        if let Some((x, y)) = place {
            buffer.set_stringn(x, y, &label.text, width.into(), style);
        }
        place.is_some()
    }

    fn marks(&self, plot: Rect, buffer: &mut Buffer) {
        // Checkpoints that would fill the axis say nothing.
        let small = self.scene.marks.iter().filter(|m| m.letter == '·').count();
        let crowded = small > usize::from(plot.width) / 4;
        for mark in self
            .scene
            .marks
            .iter()
            .filter(|m| !(crowded && m.letter == '·'))
        {
            let Some(column) = column_of(&self.scene.x, mark.x, plot) else {
                continue;
            };
            let style = self.palette.style(Ink::Text);
            let axis = plot.y + plot.height;
            if axis < buffer.area.bottom() {
                buffer[(column, axis)]
                    .set_char(mark.letter)
                    .set_style(style);
            }
            if mark.letter == '·' {
                continue;
            }
            for row in plot.y..axis {
                let cell = &mut buffer[(column, row)];
                if cell.symbol() == " " {
                    cell.set_char('┊').set_style(self.palette.style(Ink::Muted));
                }
            }
        }
    }

    fn cursor(&self, plot: Rect, buffer: &mut Buffer) {
        for (at, line) in [(self.scene.second, '╎'), (self.scene.cursor, '│')] {
            if let Some(column) = at.and_then(|at| column_of(&self.scene.x, at, plot)) {
                self.cursor_line(column, line, plot, buffer);
            }
        }
    }

    fn cursor_line(&self, column: u16, line: char, plot: Rect, buffer: &mut Buffer) {
        for row in plot.y..plot.y + plot.height {
            let cell = &mut buffer[(column, row)];
            if cell.symbol() == " " || cell.symbol() == "┊" {
                cell.set_char(line).set_style(self.palette.style(Ink::Text));
            } else {
                cell.set_style(Style::new().add_modifier(Modifier::REVERSED));
            }
        }
    }
}

/// Columns that the name of another run has at least.
const OTHER: usize = 8;

/// The entries of a legend that fit: a run's own go before other runs' names, the last ones first.
fn kept<'a>(legend: &[Entry<'a>], fits: impl Fn(&[Entry<'a>]) -> bool) -> Vec<Entry<'a>> {
    let mut entries = legend.to_vec();
    while !entries.is_empty() && !fits(&entries) {
        let own = entries.iter().rposition(|e| !e.is_of_another_run());
        entries.remove(own.unwrap_or(entries.len() - 1));
    }
    entries
}

/// The beginning of a text that is too long, with a mark that it goes on.
pub(crate) fn shortened(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    kept + "…"
}

pub(super) fn row_of(axis: &Axis, v: f64, plot: Rect) -> Option<u16> {
    let share = axis.share(v)?;
    if !(-0.001..=1.001).contains(&share) {
        return None;
    }
    let row = ((1.0 - share) * f64::from(plot.height)) as u16;
    Some(plot.y + row.min(plot.height.saturating_sub(1)))
}

fn column_of(axis: &Axis, v: f64, plot: Rect) -> Option<u16> {
    let share = axis.share(v)?;
    if !(-0.001..=1.001).contains(&share) {
        return None;
    }
    let column = (share.max(0.0) * f64::from(plot.width)) as u16;
    Some(plot.x + column.min(plot.width.saturating_sub(1)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::scene::{Line, Scale};
    use super::*;

    fn scene(points: Vec<(f64, f64)>, x: (f64, f64), y: (f64, f64)) -> Scene {
        let axis = |range| Axis {
            label: "u".into(),
            scale: Scale::Linear,
            range,
            ticks: None,
        };
        Scene {
            title: "t".into(),
            x: axis(x),
            y: axis(y),
            items: vec![Item::Line(Line {
                label: "l".into(),
                ink: Ink::Series(0),
                dash: 0,
                segments: vec![points],
                band: Vec::new(),
            })],
            marks: Vec::new(),
            guides: Vec::new(),
            cursor: Some(0.5),
            second: None,
            empty: "nothing".into(),
        }
    }

    fn text(scene: &Scene, width: u16, height: u16) -> String {
        let area = Rect::new(0, 0, width, height);
        let mut buffer = Buffer::empty(area);
        (&Plot::new(scene, &Palette::default())).render(area, &mut buffer);
        let row = |y| {
            (0..width)
                .map(|x| buffer[(x, y)].symbol())
                .collect::<String>()
                + "\n"
        };
        (0..height).map(row).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_panics(
            points in prop::collection::vec((any::<f64>(), any::<f64>()), 0..8),
            x in (any::<f64>(), any::<f64>()), y in (any::<f64>(), any::<f64>()),
            width in 0u16..60, height in 0u16..20,
        ) {
            text(&scene(points, x, y), width, height);
        }

        #[test]
        fn both_ends_of_a_line_are_painted(a in 0.0..1.0f64, b in 0.0..1.0f64) {
            let scene = scene(vec![(0.0, a), (1.0, b)], (0.0, 1.0), (0.0, 1.0));
            let area = Rect::new(0, 0, 40, 12);
            let mut buffer = Buffer::empty(area);
            (&Plot::new(&scene, &Palette::default())).render(area, &mut buffer);
            let plot = Plot::plot_area(&scene, area);
            for (column, share) in [(plot.x, a), (plot.right() - 1, b)] {
                let row = plot.y + (((1.0 - share) * f64::from(plot.height)) as u16).min(plot.height - 1);
                // Rounding to dots may land one row off.
                let near = [row.saturating_sub(1), row, row + 1];
                let painted = near.iter().any(|r| {
                    let symbol = buffer[(column, (*r).min(plot.bottom() - 1))].symbol();
                    symbol.chars().next().is_some_and(|c| ('\u{2801}'..='\u{28ff}').contains(&c))
                });
                prop_assert!(painted, "column {} share {}", column, share);
            }
        }
    }

    #[test]
    fn a_diagonal_looks_like_one() {
        let scene = Scene {
            cursor: None,
            second: None,
            ..scene(vec![(0.0, 0.0), (10.0, 1.0)], (0.0, 10.0), (0.0, 1.0))
        };
        insta::assert_snapshot!(text(&scene, 30, 8));
    }
}
