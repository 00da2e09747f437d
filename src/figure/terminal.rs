//! Painting scenes into terminal cells.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::pixel::{OCTANTS, QUADRANTS};
use ratatui::widgets::Widget;
use unicode_width::UnicodeWidthStr;

use super::scene::{Area, Axis, Bar, Heat, Ink, Item, Line, Scene};
use super::theme::Theme;
use super::ticks::ticks;
use crate::network::LayerKind;

/// Characters that lines are drawn with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Marker {
    /// 2 x 4 dots per cell.
    #[default]
    Braille,
    /// 2 x 4 filled octants per cell, for fonts that have them (Unicode 16).
    Octant,
    /// 2 x 2 quadrants per cell.
    Block,
    /// One ASCII character per cell, another for each series.
    Ascii,
}

impl Marker {
    fn dots(self) -> (usize, usize) {
        match self {
            Self::Braille | Self::Octant => (2, 4),
            Self::Block => (2, 2),
            Self::Ascii => (1, 1),
        }
    }
}

/// How many colours the terminal has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colours {
    /// 24 bit.
    True,
    /// The sixteen of the terminal's own palette.
    Sixteen,
    /// None: line styles and characters carry the meaning.
    None,
}

/// Inks as styles of this terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Palette {
    /// What the terminal can show.
    pub colours: Colours,
    /// Background.
    pub theme: Theme,
    /// Line characters.
    pub marker: Marker,
}

impl Default for Palette {
    fn default() -> Self {
        Self {
            colours: Colours::True,
            theme: Theme::Dark,
            marker: Marker::Braille,
        }
    }
}

impl Palette {
    /// The style of an ink.
    pub fn style(&self, ink: Ink) -> Style {
        match self.colour(ink) {
            Some(colour) => Style::new().fg(colour),
            None => match ink {
                Ink::Muted => Style::new().add_modifier(Modifier::DIM),
                Ink::Budget => Style::new().add_modifier(Modifier::BOLD),
                _ => Style::new(),
            },
        }
    }

    /// What marks a height on a bar.
    fn bar_mark(&self) -> &'static str {
        match self.marker {
            Marker::Ascii => "*",
            _ => "◆",
        }
    }

    /// The colour of an ink, where the terminal has colours.
    pub fn colour(&self, ink: Ink) -> Option<Color> {
        match self.colours {
            Colours::None => None,
            Colours::True => {
                let (r, g, b) = self.theme.rgb(ink);
                Some(Color::Rgb(r, g, b))
            }
            Colours::Sixteen => Some(match ink {
                Ink::Series(n) => [
                    Color::Blue,
                    Color::Yellow,
                    Color::Red,
                    Color::Green,
                    Color::Magenta,
                ][n % 5],
                Ink::Depth(t) => [
                    Color::Magenta,
                    Color::Blue,
                    Color::Cyan,
                    Color::Green,
                    Color::Yellow,
                ][((t * 4.99) as usize).min(4)],
                Ink::Kind(kind) => match kind {
                    LayerKind::Convolution => Color::Cyan,
                    LayerKind::Nonlinearity => Color::Yellow,
                    LayerKind::Affine => Color::Magenta,
                    LayerKind::Depthwise => Color::Green,
                    LayerKind::Pointwise => Color::Blue,
                },
                Ink::Weights => Color::Cyan,
                Ink::Activations => Color::Yellow,
                Ink::Muted => Color::DarkGray,
                Ink::Budget => Color::Red,
                Ink::Bits(b) => match b.round() as i32 {
                    ..=1 => Color::Magenta,
                    2 => Color::Blue,
                    3 => Color::Cyan,
                    4 => Color::Green,
                    5 => Color::LightGreen,
                    6 => Color::Yellow,
                    7 => Color::LightYellow,
                    _ => Color::White,
                },
                Ink::Text => Color::Reset,
            }),
        }
    }
}

/// A scene as a widget: title and legend on top, ticks at the left and below.
pub struct Plot<'a> {
    scene: &'a Scene,
    palette: &'a Palette,
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
                label(&mut heat.rows.iter().map(|r| r.width())).min(area.width / 3) + 1
            }
            _ => label(&mut y_ticks(scene, area.height).iter().map(|t| t.1.width())) + 1,
        };
        let below = if matches!(scene.items.first(), Some(Item::Bars(_))) {
            1
        } else {
            2
        };
        let left = left.min(area.width);
        Rect {
            x: area.x + left,
            y: area.y + 1.min(area.height),
            width: area.width - left,
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
        // Over bands, behind lines.
        if filled {
            self.guides(&mut canvas);
        }
        canvas.paint(buffer);
        self.guide_labels(plot, buffer);
        for item in &scene.items {
            if let Item::Label(label) = item {
                let column = column_of(&scene.x, label.at.0, plot);
                if let (Some(x), Some(y)) = (column, row_of(&scene.y, label.at.1, plot)) {
                    let room = usize::from(plot.right() - x);
                    buffer.set_stringn(x, y, &label.text, room, self.palette.style(label.ink));
                }
            }
        }
        self.marks(plot, buffer);
        self.cursor(plot, buffer);
    }
}

impl Plot<'_> {
    fn header(&self, area: Rect, buffer: &mut Buffer) {
        let bold = self.palette.style(Ink::Text).add_modifier(Modifier::BOLD);
        let unit = &self.scene.y.label;
        let title = if matches!(self.scene.items.first(), Some(Item::Heat(_)))
            || self.scene.title.contains(unit.as_str())
        {
            self.scene.title.clone()
        } else {
            format!("{} [{unit}]", self.scene.title)
        };
        let (mut x, _) = buffer.set_stringn(area.x, area.y, &title, area.width.into(), bold);
        let right = area.x + area.width;
        for (i, (label, ink, dash)) in self.scene.legend().into_iter().enumerate() {
            let needed = label.width() as u16 + 5;
            if x + needed >= right {
                break;
            }
            let sample = match (self.palette.marker, dash) {
                (Marker::Ascii, _) => [letter(i), letter(i)].iter().collect::<String>(),
                (_, 0) => "──".into(),
                (_, 1) => "╌╌".into(),
                (_, 2) => "┄┄".into(),
                _ => "─┄".into(),
            };
            let style = self.palette.style(ink);
            let (next, _) = buffer.set_stringn(x + 2, area.y, &sample, 2, style);
            (x, _) = buffer.set_stringn(next + 1, area.y, label, needed.into(), style);
        }
    }

    fn ticks(&self, area: Rect, plot: Rect, buffer: &mut Buffer) {
        let style = self.palette.style(Ink::Muted);
        if !matches!(self.scene.items.first(), Some(Item::Heat(_))) {
            for (v, text) in y_ticks(self.scene, area.height) {
                let Some(row) = row_of(&self.scene.y, v, plot) else {
                    continue;
                };
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
        let mut free_from = area.x;
        for (v, text) in ticks(&self.scene.x, wanted) {
            let Some(column) = column_of(&self.scene.x, v, plot) else {
                continue;
            };
            buffer[(column, axis)].set_char('┴').set_style(style);
            let width = text.width() as u16;
            let start = column.saturating_sub(width / 2).max(area.x);
            let end = area.x + area.width;
            let start = start.min(end.saturating_sub(width));
            if start >= free_from && start + width <= end {
                buffer.set_stringn(start, axis + 1, &text, width.into(), style);
                free_from = start + width + 1;
            }
        }
        let label = &self.scene.x.label;
        let width = label.width() as u16;
        let start = (area.x + area.width).saturating_sub(width);
        if start > free_from {
            buffer.set_stringn(start, axis + 1, label, width.into(), style);
        }
    }

    fn line(&self, line: &Line, canvas: &mut Canvas<'_>) {
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

    fn band(&self, area: &Area, canvas: &mut Canvas<'_>) {
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

    fn bars(&self, bars: &[Bar], plot: Rect, area: Rect, buffer: &mut Buffer) {
        const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let each = (f64::from(plot.width) / bars.len().max(1) as f64).min(9.0);
        let width = (each.floor() as u16)
            .saturating_sub(u16::from(each >= 3.0))
            .max(1);
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
            if top > plot.y && value.len() <= usize::from(width.max(2)) {
                let middle = x + width.saturating_sub(value.len() as u16) / 2;
                buffer.set_stringn(middle, top - 1, &value, width.max(2).into(), style);
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
                let short = shorten(&bar.label, width.into());
                let muted = self.palette.style(Ink::Muted);
                buffer.set_stringn(x, below, short, width.into(), muted);
            }
        }
    }

    fn heat(&self, heat: &Heat, plot: Rect, area: Rect, buffer: &mut Buffer) {
        let columns = heat.edges.len().saturating_sub(1);
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
        for r in 0..shown {
            let own = r * rows / shown..(r + 1) * rows / shown;
            let row = heat
                .selected
                .filter(|s| own.contains(s))
                .unwrap_or(own.start);
            let values = &heat.values[row * columns..(row + 1) * columns];
            for t in 0..tall {
                let y = plot.y + (r * tall + t) as u16;
                for c in 0..plot.width {
                    let column = usize::from(c) * columns / usize::from(plot.width);
                    let Some(bits) = values[column] else { continue };
                    self.heat_cell(bits, t == tall / 2, &mut buffer[(plot.x + c, y)], c);
                }
            }
            let y = plot.y + (r * tall + tall / 2) as u16;
            let width = usize::from(plot.x - area.x).saturating_sub(1);
            let mut style = self.palette.style(Ink::Text);
            if heat.selected == Some(row) {
                style = style.add_modifier(Modifier::REVERSED);
            }
            buffer.set_stringn(area.x, y, shorten(&heat.rows[row], width), width, style);
        }
    }

    /// The bitwidth as colour, and as a digit every few cells: readable without colour too.
    fn heat_cell(&self, bits: f32, middle: bool, cell: &mut ratatui::buffer::Cell, column: u16) {
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

/// The end of a name that fits: ends differ more than beginnings.
fn shorten(name: &str, width: usize) -> &str {
    let count = name.chars().count();
    if count <= width {
        return name;
    }
    name.char_indices()
        .nth(count - width)
        .map_or("", |(i, _)| &name[i..])
}

fn letter(series: usize) -> char {
    char::from(b"*o+x#@%&"[series % 8])
}

fn row_of(axis: &Axis, v: f64, plot: Rect) -> Option<u16> {
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

/// Dots of a plot area; the ink of a cell is that of the last line through it.
struct Canvas<'a> {
    area: Rect,
    palette: &'a Palette,
    width: usize,
    height: usize,
    masks: Vec<u8>,
    inks: Vec<Option<(Ink, u16)>>,
    series: u16,
}

impl<'a> Canvas<'a> {
    fn new(area: Rect, palette: &'a Palette) -> Self {
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

    fn dot(&mut self, x: i64, y: i64, ink: Ink) {
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
    fn vertical(&mut self, x: f64, y0: f64, y1: f64, ink: Ink) {
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
    fn bit(&self, x: usize, y: usize) -> u8 {
        const BRAILLE: [[u8; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];
        match self.palette.marker {
            Marker::Braille => BRAILLE[y][x],
            Marker::Octant | Marker::Block => 1 << (y * 2 + x),
            Marker::Ascii => 1,
        }
    }

    /// A line between two points in dots. `phase` carries a dash pattern on from line to line.
    fn line(
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

    fn paint(&self, buffer: &mut Buffer) {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::scene::Scale;
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
