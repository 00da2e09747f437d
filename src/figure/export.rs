//! Painting figures to PNG and SVG with plotters and an embedded typeface.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Once;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, FontTransform, register_font};

use super::scene::{Bar, Figure, Heat, Ink, Item, Line, Scene};
use super::theme::Theme;
use super::ticks::ticks;

/// Why a figure could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Neither `.png` nor `.svg` nor `.csv`.
    #[error("{0}: expected a file name that ends in .png, .svg or .csv")]
    Extension(PathBuf),
    /// The file cannot be written.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The picture could not be painted.
    #[error("the figure could not be painted: {0}")]
    Paint(String),
}

/// `WIDTHxHEIGHT` in pixels.
///
/// # Errors
/// Where it is something else.
pub fn parse_size(text: &str) -> Result<(u32, u32), String> {
    let parsed = text
        .split_once('x')
        .and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    match parsed {
        Some((w, h)) if (200..=10_000).contains(&w) && (150..=10_000).contains(&h) => Ok((w, h)),
        _ => Err("expected WIDTHxHEIGHT from 200x150 to 10000x10000".into()),
    }
}

/// Writes a figure as PNG or SVG, by the file's extension. A PNG carries `notes` as text chunks.
///
/// # Errors
/// Where the extension is another, or the file cannot be written.
pub fn export(
    figure: &Figure,
    path: &Path,
    theme: Theme,
    size: (u32, u32),
    notes: &Notes,
) -> Result<(), ExportError> {
    let io = |source| ExportError::Io {
        path: path.to_owned(),
        source,
    };
    let bytes = match path.extension().and_then(|e| e.to_str()) {
        Some("png") => {
            let mut pixels = vec![0; size.0 as usize * size.1 as usize * 3];
            let backend = BitMapBackend::with_buffer(&mut pixels, size);
            paint(figure, &backend.into_drawing_area(), theme)?;
            encode_png(&pixels, size, notes).map_err(io)?
        }
        Some("svg") => paint_svg_text(figure, theme, size)?.into_bytes(),
        Some("csv") => csv(figure).into_bytes(),
        _ => return Err(ExportError::Extension(path.to_owned())),
    };
    crate::run::write_atomically(path, &bytes).map_err(io)
}

/// Keyword and text, as PNG's text chunks have them.
pub type Notes = [(&'static str, String)];

/// The numbers behind a figure: one row per point, `panel,series,x,y,low,high`.
pub fn csv(figure: &Figure) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let mut out = String::from("panel,series,x,y,low,high\n");
    for scene in &figure.panels {
        let panel = quoted(&scene.title);
        let mut row = |series: &str, x: f64, y: Option<f64>, band: Option<(f64, f64)>| {
            let number = |v: Option<f64>| v.map_or(String::new(), |v| v.to_string());
            let (low, high) = (number(band.map(|b| b.0)), number(band.map(|b| b.1)));
            out += &format!(
                "{panel},{},{x},{},{low},{high}\n",
                quoted(series),
                number(y)
            );
        };
        for item in &scene.items {
            match item {
                Item::Line(line) => {
                    let mut bands = line.band.iter().peekable();
                    for (x, y) in line.segments.iter().flatten() {
                        let band = bands.next_if(|b| b.0 == *x).map(|b| (b.1, b.2));
                        row(&line.label, *x, Some(*y), band);
                    }
                }
                Item::Area(area) => area
                    .points
                    .iter()
                    .for_each(|(x, low, high)| row(&area.label, *x, None, Some((*low, *high)))),
                Item::Bars(bars) => bars
                    .iter()
                    .enumerate()
                    .for_each(|(i, bar)| row(&bar.label, i as f64, Some(bar.value), None)),
                Item::Heat(heat) => {
                    let columns = heat.edges.len().saturating_sub(1);
                    for (r, name) in heat.rows.iter().enumerate() {
                        for c in 0..columns {
                            if let Some(bits) = heat.values[r * columns + c] {
                                row(name, heat.edges[c], Some(bits.into()), None);
                            }
                        }
                    }
                }
                Item::Label(_) => {}
            }
        }
    }
    out
}

/// The figure as SVG text.
///
/// # Errors
/// Where it cannot be painted.
pub fn paint_svg_text(
    figure: &Figure,
    theme: Theme,
    size: (u32, u32),
) -> Result<String, ExportError> {
    let mut text = String::new();
    paint(
        figure,
        &SVGBackend::with_string(&mut text, size).into_drawing_area(),
        theme,
    )?;
    Ok(text)
}

fn encode_png(pixels: &[u8], size: (u32, u32), notes: &Notes) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, size.0, size.1);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    for (keyword, text) in notes {
        encoder
            .add_itxt_chunk((*keyword).to_owned(), text.clone())
            .map_err(io::Error::other)?;
    }
    let mut writer = encoder.write_header().map_err(io::Error::other)?;
    writer.write_image_data(pixels).map_err(io::Error::other)?;
    writer.finish().map_err(io::Error::other)?;
    Ok(bytes)
}

/// Writes RGB pixels as PNG.
///
/// # Errors
/// Where the file cannot be written.
pub fn write_png(
    path: &Path,
    pixels: &[u8],
    size: (u32, u32),
    notes: &Notes,
) -> Result<(), ExportError> {
    encode_png(pixels, size, notes)
        .and_then(|bytes| crate::run::write_atomically(path, &bytes))
        .map_err(|source| ExportError::Io {
            path: path.to_owned(),
            source,
        })
}

fn colour(ink: Ink, theme: Theme) -> RGBColor {
    let (r, g, b) = theme.rgb(ink);
    RGBColor(r, g, b)
}

type Area<DB> = DrawingArea<DB, Shift>;

fn failed(error: impl Display) -> ExportError {
    ExportError::Paint(error.to_string())
}

fn paint<DB: DrawingBackend>(
    figure: &Figure,
    area: &Area<DB>,
    theme: Theme,
) -> Result<(), ExportError> {
    static FONT: Once = Once::new();
    FONT.call_once(|| {
        for (style, bytes) in [
            (FontStyle::Normal, dejavu::sans::regular()),
            (FontStyle::Bold, dejavu::sans::bold()),
        ] {
            if register_font("sans-serif", style, bytes).is_err() {
                unreachable!("the font crate ships valid typefaces");
            }
        }
    });
    let (r, g, b) = theme.background();
    area.fill(&RGBColor(r, g, b)).map_err(failed)?;
    let columns = figure.columns.max(1);
    let rows = figure.panels.len().div_ceil(columns).max(1);
    for (panel, scene) in area
        .split_evenly((rows, columns))
        .into_iter()
        .zip(&figure.panels)
    {
        Painter::new(&panel, scene, theme).paint()?;
    }
    area.present().map_err(failed)
}

/// Paints one scene. All coordinates are pixels of its panel.
struct Painter<'a, DB: DrawingBackend> {
    area: &'a Area<DB>,
    scene: &'a Scene,
    theme: Theme,
    /// Size of the text in pixels.
    text: f64,
    /// Plot rectangle: left, top, right, bottom.
    plot: (i32, i32, i32, i32),
}

impl<'a, DB: DrawingBackend> Painter<'a, DB> {
    fn new(area: &'a Area<DB>, scene: &'a Scene, theme: Theme) -> Self {
        let (width, height) = area.dim_in_pixel();
        let (width, height) = (width as i32, height as i32);
        let text = (f64::from(width.min(height * 2)) / 55.0).clamp(11.0, 34.0);
        let em = text as i32;
        // Names under bars and beside heat rows need room.
        let (mut left, mut bottom) = (em * 5, em * 3 + em / 2);
        let longest = |names: &mut dyn Iterator<Item = usize>| names.max().unwrap_or(0) as f64;
        for item in &scene.items {
            match item {
                Item::Bars(bars) => {
                    let length = longest(&mut bars.iter().map(|b| b.label.chars().count()));
                    bottom = (length * text * 0.55) as i32 + em * 2;
                }
                Item::Heat(heat) => {
                    let length = longest(&mut heat.rows.iter().map(|r| r.chars().count()));
                    left = (length * text * 0.5) as i32 + em * 2;
                }
                Item::Line(_) | Item::Area(_) | Item::Label(_) => {}
            }
        }
        let legend = if scene.legend().is_empty() {
            0
        } else {
            em + em / 2
        };
        let right = if scene.items.iter().any(|i| matches!(i, Item::Heat(_))) {
            em * 5
        } else {
            em
        };
        let plot = (
            left,
            em * 2 + legend,
            width - right,
            height - bottom.min(height / 2),
        );
        Self {
            area,
            scene,
            theme,
            text,
            plot,
        }
    }

    fn paint(&self) -> Result<(), ExportError> {
        let (left, top, right, bottom) = self.plot;
        if right - left < 20 || bottom - top < 20 {
            return Ok(());
        }
        self.title()?;
        if self.scene.is_empty() {
            let middle = ((left + right) / 2, (top + bottom) / 2);
            return self.label(
                &self.scene.empty,
                middle,
                HPos::Center,
                VPos::Center,
                Ink::Muted,
            );
        }
        self.axes()?;
        for item in &self.scene.items {
            match item {
                Item::Line(line) => self.band(line)?,
                Item::Area(area) => self.filled(area)?,
                Item::Label(_) => {}
                Item::Bars(bars) => self.bars(bars)?,
                Item::Heat(heat) => self.heat(heat)?,
            }
        }
        for item in &self.scene.items {
            match item {
                Item::Line(line) => self.line(line)?,
                Item::Label(label) => {
                    let (x, y) = (self.x(label.at.0), self.y(label.at.1));
                    if let (Some(x), Some(y)) = (x, y)
                        && self.inside(x, y)
                    {
                        self.label(&label.text, (x, y), HPos::Left, VPos::Center, label.ink)?;
                    }
                }
                _ => {}
            }
        }
        self.guides()?;
        self.marks()?;
        self.legend()
    }

    fn inside(&self, x: i32, y: i32) -> bool {
        let (left, top, right, bottom) = self.plot;
        (left..=right).contains(&x) && (top..=bottom).contains(&y)
    }

    /// A band as rectangles, each up to the next point.
    fn filled(&self, area: &super::scene::Area) -> Result<(), ExportError> {
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

    fn x(&self, v: f64) -> Option<i32> {
        let share = self.scene.x.share(v)?.clamp(-1.0, 2.0);
        Some(self.plot.0 + (share * f64::from(self.plot.2 - self.plot.0)).round() as i32)
    }

    fn y(&self, v: f64) -> Option<i32> {
        let share = self.scene.y.share(v)?.clamp(-1.0, 2.0);
        Some(self.plot.3 - (share * f64::from(self.plot.3 - self.plot.1)).round() as i32)
    }

    fn stroke(&self, ink: Ink, width: f64) -> ShapeStyle {
        let width = (self.text / 12.0 * width).max(1.0).round() as u32;
        ShapeStyle::from(&colour(ink, self.theme)).stroke_width(width)
    }

    fn label(
        &self,
        text: &str,
        at: (i32, i32),
        h: HPos,
        v: VPos,
        ink: Ink,
    ) -> Result<(), ExportError> {
        let style = ("sans-serif", self.text)
            .into_font()
            .color(&colour(ink, self.theme));
        let style = style.pos(Pos::new(h, v));
        self.area
            .draw(&Text::new(text.to_owned(), at, style))
            .map_err(failed)
    }

    fn turned(&self, text: &str, at: (i32, i32), h: HPos, v: VPos) -> Result<(), ExportError> {
        let font = ("sans-serif", self.text * 0.9)
            .into_font()
            .transform(FontTransform::Rotate270);
        let style = font
            .color(&colour(Ink::Text, self.theme))
            .pos(Pos::new(h, v));
        self.area
            .draw(&Text::new(text.to_owned(), at, style))
            .map_err(failed)
    }

    fn path(&self, points: Vec<(i32, i32)>, style: ShapeStyle) -> Result<(), ExportError> {
        self.area
            .draw(&PathElement::new(points, style))
            .map_err(failed)
    }

    fn title(&self) -> Result<(), ExportError> {
        let style = ("sans-serif", self.text * 1.15, FontStyle::Bold)
            .into_font()
            .color(&colour(Ink::Text, self.theme))
            .pos(Pos::new(HPos::Left, VPos::Top));
        let at = (self.plot.0, (self.text * 0.4) as i32);
        self.area
            .draw(&Text::new(self.scene.title.clone(), at, style))
            .map_err(failed)
    }

    fn axes(&self) -> Result<(), ExportError> {
        let (left, top, right, bottom) = self.plot;
        let em = self.text as i32;
        let grid = ShapeStyle::from(&colour(Ink::Muted, self.theme).mix(0.4));
        let wanted = |pixels: i32, each: f64| (f64::from(pixels) / (self.text * each)) as usize;
        for (v, text) in ticks(&self.scene.x, wanted(right - left, 7.0).max(2)) {
            let Some(x) = self.x(v).filter(|x| (left..=right).contains(x)) else {
                continue;
            };
            self.path(vec![(x, top), (x, bottom)], grid)?;
            self.label(
                &text,
                (x, bottom + em / 3),
                HPos::Center,
                VPos::Top,
                Ink::Text,
            )?;
        }
        for (v, text) in ticks(&self.scene.y, wanted(bottom - top, 2.6).max(2)) {
            let Some(y) = self.y(v).filter(|y| (top..=bottom).contains(y)) else {
                continue;
            };
            self.path(vec![(left, y), (right, y)], grid)?;
            self.label(
                &text,
                (left - em / 3, y),
                HPos::Right,
                VPos::Center,
                Ink::Text,
            )?;
        }
        let frame = vec![(left, top), (left, bottom), (right, bottom)];
        self.path(frame, self.stroke(Ink::Text, 1.0))?;
        let (_, height) = self.area.dim_in_pixel();
        let below = ((left + right) / 2, height as i32 - em / 4);
        self.label(
            &self.scene.x.label,
            below,
            HPos::Center,
            VPos::Bottom,
            Ink::Text,
        )?;
        self.turned(
            &self.scene.y.label,
            (em / 4, (top + bottom) / 2),
            HPos::Center,
            VPos::Top,
        )
    }

    fn band(&self, line: &Line) -> Result<(), ExportError> {
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

    fn line(&self, line: &Line) -> Result<(), ExportError> {
        let style = self.stroke(line.ink, 1.6);
        for segment in &line.segments {
            let points: Vec<(i32, i32)> = segment
                .iter()
                .filter_map(|(x, y)| Some((self.x(*x)?, self.y(*y)?)))
                .collect();
            if let [only] = points[..] {
                let dot = Circle::new(only, self.text / 5.0, style.filled());
                self.area.draw(&dot).map_err(failed)?;
            }
            for piece in clipped(&points, self.plot) {
                for dash in dashed(&piece, line.dash, self.text) {
                    self.path(dash, style)?;
                }
            }
        }
        Ok(())
    }

    fn bars(&self, bars: &[Bar]) -> Result<(), ExportError> {
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
                let text = format!("{:.0}", bar.value);
                self.label(
                    &text,
                    (middle, y - 2),
                    HPos::Center,
                    VPos::Bottom,
                    Ink::Text,
                )?;
            }
            for (height, ink) in &bar.marks {
                let Some(y) = self.y(*height) else { continue };
                let ends = vec![(from as i32, y), (to as i32, y)];
                self.path(ends, self.stroke(*ink, 2.0))?;
            }
            let at = (middle, bottom + self.text as i32 / 3);
            self.turned(&bar.label, at, HPos::Right, VPos::Center)?;
        }
        Ok(())
    }

    fn heat(&self, heat: &Heat) -> Result<(), ExportError> {
        let (left, top, right, bottom) = self.plot;
        let columns = heat.edges.len().saturating_sub(1);
        let height = f64::from(bottom - top) / heat.rows.len().max(1) as f64;
        for (row, name) in heat.rows.iter().enumerate() {
            let y0 = top + (row as f64 * height) as i32;
            let y1 = top + ((row + 1) as f64 * height) as i32;
            let mut column = 0;
            while column < columns {
                // One rectangle per run of equal cells.
                let value = heat.values[row * columns + column];
                let start = column;
                while column < columns && heat.values[row * columns + column] == value {
                    column += 1;
                }
                let ends = (self.x(heat.edges[start]), self.x(heat.edges[column]));
                let (Some(bits), (Some(x0), Some(x1))) = (value, ends) else {
                    continue;
                };
                let fill = colour(Ink::Bits(bits), self.theme).filled();
                let corners = [(x0.max(left), y0), (x1.min(right), y1)];
                self.area
                    .draw(&Rectangle::new(corners, fill))
                    .map_err(failed)?;
            }
            let every = (self.text * 0.9 / height).ceil().max(1.0) as usize;
            if row % every == 0 {
                let at = (left - self.text as i32 / 3, (y0 + y1) / 2);
                self.label(name, at, HPos::Right, VPos::Center, Ink::Text)?;
            }
        }
        self.bits_scale(heat)
    }

    /// The colours of the bitwidths that occur, at the right edge.
    fn bits_scale(&self, heat: &Heat) -> Result<(), ExportError> {
        let (_, top, right, _) = self.plot;
        let em = self.text as i32;
        let mut bits: Vec<i32> = heat
            .values
            .iter()
            .flatten()
            .map(|b| b.round() as i32)
            .collect();
        bits.sort_unstable();
        bits.dedup();
        for (i, b) in bits.iter().enumerate() {
            let y = top + i as i32 * (em + em / 3);
            let corners = [(right + em / 2, y), (right + em / 2 + em, y + em)];
            let fill = colour(Ink::Bits(*b as f32), self.theme).filled();
            self.area
                .draw(&Rectangle::new(corners, fill))
                .map_err(failed)?;
            let at = (right + 2 * em, y + em / 2);
            self.label(&format!("{b} bit"), at, HPos::Left, VPos::Center, Ink::Text)?;
        }
        Ok(())
    }

    fn guides(&self) -> Result<(), ExportError> {
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

    fn marks(&self) -> Result<(), ExportError> {
        let (left, top, right, bottom) = self.plot;
        for mark in self.scene.marks.iter().filter(|m| m.letter != '·') {
            let Some(x) = self.x(mark.x).filter(|x| (left..=right).contains(x)) else {
                continue;
            };
            for dash in dashed(&[(x, top), (x, bottom)], 2, self.text) {
                self.path(dash, self.stroke(Ink::Muted, 1.0))?;
            }
            self.turned(&mark.label, (x + 2, top + 4), HPos::Right, VPos::Top)?;
        }
        Ok(())
    }

    fn legend(&self) -> Result<(), ExportError> {
        let em = self.text as i32;
        let y = self.plot.1 - em;
        let mut x = self.plot.0;
        for (label, ink, dash) in self.scene.legend() {
            for piece in dashed(&[(x, y), (x + 2 * em, y)], dash, self.text) {
                self.path(piece, self.stroke(ink, 1.8))?;
            }
            self.label(
                label,
                (x + 2 * em + em / 2, y),
                HPos::Left,
                VPos::Center,
                Ink::Text,
            )?;
            x += 3 * em + (label.chars().count() as f64 * self.text * 0.62) as i32 + em;
        }
        Ok(())
    }
}

/// The parts of a polyline inside the rectangle.
fn clipped(points: &[(i32, i32)], plot: (i32, i32, i32, i32)) -> Vec<Vec<(i32, i32)>> {
    let mut pieces: Vec<Vec<(i32, i32)>> = Vec::new();
    for pair in points.windows(2) {
        let Some((a, b)) = clip_segment(pair[0], pair[1], plot) else {
            continue;
        };
        match pieces.last_mut() {
            Some(piece) if piece.last() == Some(&a) => piece.push(b),
            _ => pieces.push(vec![a, b]),
        }
    }
    pieces
}

/// Liang and Barsky's clipping of a segment to a rectangle.
fn clip_segment(
    a: (i32, i32),
    b: (i32, i32),
    (left, top, right, bottom): (i32, i32, i32, i32),
) -> Option<((i32, i32), (i32, i32))> {
    let (ax, ay) = (f64::from(a.0), f64::from(a.1));
    let (dx, dy) = (f64::from(b.0) - ax, f64::from(b.1) - ay);
    let (mut enter, mut leave) = (0.0f64, 1.0f64);
    for (p, q) in [
        (-dx, ax - f64::from(left)),
        (dx, f64::from(right) - ax),
        (-dy, ay - f64::from(top)),
        (dy, f64::from(bottom) - ay),
    ] {
        if p == 0.0 {
            if q < 0.0 {
                return None;
            }
        } else if p < 0.0 {
            enter = enter.max(q / p);
        } else {
            leave = leave.min(q / p);
        }
    }
    if enter > leave {
        return None;
    }
    let at = |t: f64| ((ax + t * dx).round() as i32, (ay + t * dy).round() as i32);
    Some((at(enter), at(leave)))
}

/// Cuts a polyline into dashes: pattern 0 is solid.
fn dashed(points: &[(i32, i32)], pattern: usize, em: f64) -> Vec<Vec<(i32, i32)>> {
    let lengths: &[f64] = match pattern % 4 {
        0 => return vec![points.to_vec()],
        1 => &[0.6, 0.35],
        2 => &[0.15, 0.3],
        _ => &[0.7, 0.25, 0.15, 0.25],
    };
    let mut out: Vec<Vec<(i32, i32)>> = Vec::new();
    let (mut index, mut left) = (0, lengths[0] * em);
    let mut current = points.first().map(|p| vec![*p]).unwrap_or_default();
    for pair in points.windows(2) {
        let (ax, ay) = (f64::from(pair[0].0), f64::from(pair[0].1));
        let (dx, dy) = (f64::from(pair[1].0) - ax, f64::from(pair[1].1) - ay);
        let length = dx.hypot(dy);
        let mut done = 0.0;
        while done < length {
            let take = left.min(length - done);
            done += take;
            left -= take;
            let at = (
                (ax + dx * done / length) as i32,
                (ay + dy * done / length) as i32,
            );
            if index % 2 == 0 {
                current.push(at);
            }
            if left <= 0.0 {
                if index % 2 == 0 {
                    out.push(std::mem::take(&mut current));
                } else {
                    current = vec![at];
                }
                index = (index + 1) % lengths.len();
                left = lengths[index] * em;
            }
        }
    }
    if index % 2 == 0 && current.len() > 1 {
        out.push(current);
    }
    out
}
