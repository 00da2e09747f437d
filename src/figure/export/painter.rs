//! One scene on a plotters drawing area: frame, axes, title, legend.

use std::fmt::Display;
use std::sync::Once;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, FontTransform, register_font};

use super::super::scene::{Entry, Figure, Ink, Item, Sample, Scene};
use super::super::theme::Theme;
use super::super::ticks::ticks;
use super::dashes::dashed;
use super::error::ExportError;
use super::format::Format;

pub(super) fn colour(ink: Ink, theme: Theme) -> RGBColor {
    let (r, g, b) = theme.rgb(ink);
    RGBColor(r, g, b)
}

pub(super) type Area<DB> = DrawingArea<DB, Shift>;

pub(super) fn failed(error: impl Display) -> ExportError {
    ExportError::Paint(error.to_string())
}

/// Makes the embedded typefaces known to plotters, once.
fn register_typefaces() {
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
}

pub(super) fn paint<DB: DrawingBackend>(
    figure: &Figure,
    area: &Area<DB>,
    theme: Theme,
    format: Format,
    letters: Letters,
) -> Result<(), ExportError> {
    register_typefaces();
    let (r, g, b) = theme.background();
    area.fill(&RGBColor(r, g, b)).map_err(failed)?;
    let columns = figure.columns.max(1);
    let rows = figure.panels.len().div_ceil(columns).max(1);
    let places = area.split_evenly((rows, columns));
    for (i, (place, scene)) in places.into_iter().zip(&figure.panels).enumerate() {
        let letter = u8::try_from(i)
            .ok()
            .filter(|i| *i < 26)
            .map(|i| char::from(b'a' + i));
        let letter = letter.filter(|_| figure.panels.len() > 1);
        Painter::new(&place, scene, theme, format, letters, letter).paint()?;
    }
    area.present().map_err(failed)
}

/// Ticks of an axis at most.
const MOST_TICKS: usize = 12;

/// Paints one scene. All coordinates are pixels of its panel.
pub(super) struct Painter<'a, DB: DrawingBackend> {
    pub(super) area: &'a Area<DB>,
    pub(super) scene: &'a Scene,
    pub(super) theme: Theme,
    /// Size of the text in pixels.
    pub(super) text: f64,
    /// Plot rectangle: left, top, right, bottom.
    pub(super) plot: (i32, i32, i32, i32),
    /// Where letters come to stand.
    letters: Letters,
    /// What the panel is referred to as, where there are several.
    letter: Option<char>,
}

/// Who puts letters where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Letters {
    /// They stand where they are asked for.
    Exact,
    /// plotters rasterises them: their base line is half a size below the anchor's upper edge, whatever
    /// the typeface is.
    Raster,
}

impl Letters {
    /// Pixels that a text has to be lowered by for its capitals to be at its anchor.
    fn lowered(self, size: f64, v: VPos) -> i32 {
        /// Height of DejaVu's capitals in sizes: 0.729 em, of which 1.164 make a size.
        const CAPITALS: f64 = 0.626;
        /// Height of a line as plotters lays it out.
        const LINE: f64 = 1.0 / 1.24;
        let share = match (self, v) {
            (Self::Exact, _) => 0.0,
            (_, VPos::Top) => CAPITALS - 0.5,
            (_, VPos::Center) => CAPITALS / 2.0 + LINE / 2.0 - 0.5,
            (_, VPos::Bottom) => LINE - 0.5,
        };
        (share * size).round() as i32
    }
}

/// A word above the plot that says what happened at a step.
pub(super) struct EventLabel<'a> {
    pub x: i32,
    pub row: i32,
    pub text: &'a str,
}

impl<'a, DB: DrawingBackend> Painter<'a, DB> {
    pub(super) fn new(
        area: &'a Area<DB>,
        scene: &'a Scene,
        theme: Theme,
        format: Format,
        letters: Letters,
        letter: Option<char>,
    ) -> Self {
        let (width, height) = area.dim_in_pixel();
        let (width, height) = (width as i32, height as i32);
        let fitting = (f64::from(width.min(height * 2)) / 55.0).clamp(11.0, 34.0);
        let text = format.text.unwrap_or(fitting);
        let em = text as i32;
        // Names under bars and beside heat rows need room.
        let longest = |names: &mut dyn Iterator<Item = usize>| names.max().unwrap_or(0) as f64;
        let numbers = ticks(&scene.y, MOST_TICKS);
        let digits = longest(&mut numbers.iter().map(|t| t.1.chars().count()));
        let (mut left, mut bottom) = ((digits * text * 0.62) as i32 + em * 2, em * 3 + em / 2);
        for item in &scene.items {
            match item {
                Item::Bars(bars) => {
                    let length = longest(&mut bars.bars.iter().map(|b| b.label.chars().count()));
                    bottom = (length * text * 0.55) as i32 + em * 2;
                }
                Item::Heat(heat) => {
                    let length = longest(&mut heat.rows.iter().map(|r| r.label.chars().count()));
                    left = (length * text * 0.5) as i32 + em * 2;
                }
                Item::Line(_) | Item::Area(_) | Item::Label(_) => {}
            }
        }
        let right = if scene.items.iter().any(|i| matches!(i, Item::Heat(_))) {
            em * 5
        } else {
            em
        };
        let mut painter = Self {
            area,
            scene,
            theme,
            text,
            plot: (left, 0, width - right, height - bottom.min(height / 2)),
            letters,
            letter,
        };
        let lines = painter.legend_places().last().map_or(0, |p| p.1 + 1);
        let events = painter.event_labels().iter().map(|e| e.row + 1).max();
        painter.plot.1 = em * 2 + (lines + events.unwrap_or(0)) * painter.legend_line();
        painter
    }

    /// What happened, above the plot: each at its step, in as many rows as they need, at most three.
    pub(super) fn event_labels(&self) -> Vec<EventLabel<'_>> {
        const ROWS: usize = 3;
        let (left, _, right, _) = self.plot;
        let mut ends = [i32::MIN; ROWS];
        let marks = self.scene.marks.iter().filter(|m| m.letter != '·');
        let mut labels = Vec::new();
        for mark in marks.filter(|m| !m.label.is_empty()) {
            let Some(x) = self.x(mark.x).filter(|x| (left..=right).contains(x)) else {
                continue;
            };
            let width = (mark.label.chars().count() as f64 * self.text * 0.55) as i32;
            // What would reach over the right edge ends there.
            let from = x.min(right - width).max(left);
            let Some(row) = ends.iter().position(|end| *end < from) else {
                continue;
            };
            ends[row] = from + width + self.text as i32;
            let (row, text) = (row as i32, mark.label.as_str());
            labels.push(EventLabel { x: from, row, text });
        }
        labels
    }

    pub(super) fn paint(&self) -> Result<(), ExportError> {
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
            if let Item::Line(line) = item {
                self.line(line)?;
            }
        }
        self.words()?;
        self.guides()?;
        self.marks()?;
        self.legend()
    }

    pub(super) fn inside(&self, x: i32, y: i32) -> bool {
        let (left, top, right, bottom) = self.plot;
        (left..=right).contains(&x) && (top..=bottom).contains(&y)
    }

    /// Where a point lies, as shares of the plot's width and height.
    pub(super) fn shares(&self, x: f64, y: f64) -> Option<(f64, f64)> {
        Some((self.scene.x.share(x)?, self.scene.y.share(y)?))
    }

    /// The pixel at such shares, of a point that is not far outside.
    pub(super) fn pixel(&self, (across, up): (f64, f64)) -> (i32, i32) {
        let (left, top, right, bottom) = self.plot;
        let along =
            |share: f64, extent: i32| (share.clamp(-1.0, 2.0) * f64::from(extent)).round() as i32;
        (
            left + along(across, right - left),
            bottom - along(up, bottom - top),
        )
    }

    pub(super) fn x(&self, v: f64) -> Option<i32> {
        let share = self.scene.x.share(v)?.clamp(-1.0, 2.0);
        Some(self.plot.0 + (share * f64::from(self.plot.2 - self.plot.0)).round() as i32)
    }

    pub(super) fn y(&self, v: f64) -> Option<i32> {
        let share = self.scene.y.share(v)?.clamp(-1.0, 2.0);
        Some(self.plot.3 - (share * f64::from(self.plot.3 - self.plot.1)).round() as i32)
    }

    pub(super) fn stroke(&self, ink: Ink, width: f64) -> ShapeStyle {
        let width = (self.text / 12.0 * width).max(1.0).round() as u32;
        ShapeStyle::from(&colour(ink, self.theme)).stroke_width(width)
    }

    pub(super) fn label(
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
        let at = (at.0, at.1 + self.letters.lowered(self.text, v));
        let style = style.pos(Pos::new(h, v));
        self.area
            .draw(&Text::new(text.to_owned(), at, style))
            .map_err(failed)
    }

    pub(super) fn turned(
        &self,
        text: &str,
        at: (i32, i32),
        h: HPos,
        v: VPos,
    ) -> Result<(), ExportError> {
        let font = ("sans-serif", self.text * 0.9)
            .into_font()
            .transform(FontTransform::Rotate270);
        let style = font
            .color(&colour(Ink::Text, self.theme))
            .pos(Pos::new(h, v));
        // Turned to the left, what is below lies at the right.
        let at = (at.0 + self.letters.lowered(self.text * 0.9, v), at.1);
        self.area
            .draw(&Text::new(text.to_owned(), at, style))
            .map_err(failed)
    }

    pub(super) fn path(
        &self,
        points: Vec<(i32, i32)>,
        style: ShapeStyle,
    ) -> Result<(), ExportError> {
        self.area
            .draw(&PathElement::new(points, style))
            .map_err(failed)
    }

    pub(super) fn title(&self) -> Result<(), ExportError> {
        let style = ("sans-serif", self.text * 1.15, FontStyle::Bold)
            .into_font()
            .color(&colour(Ink::Text, self.theme))
            .pos(Pos::new(HPos::Left, VPos::Top));
        let lowered = self.letters.lowered(self.text * 1.15, VPos::Top);
        let at = (self.plot.0, (self.text * 0.4) as i32 + lowered);
        let title = match self.letter {
            Some(letter) => format!("({letter}) {}", self.scene.title),
            None => self.scene.title.clone(),
        };
        self.area.draw(&Text::new(title, at, style)).map_err(failed)
    }

    pub(super) fn axes(&self) -> Result<(), ExportError> {
        let (left, top, right, bottom) = self.plot;
        let em = self.text as i32;
        let grid = ShapeStyle::from(&colour(Ink::Muted, self.theme).mix(0.4));
        let wanted = |pixels: i32, each: f64| (f64::from(pixels) / (self.text * each)) as usize;
        for (v, text) in ticks(&self.scene.x, wanted(right - left, 5.0).max(2)) {
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
        let rows = wanted(bottom - top, 2.6).clamp(2, MOST_TICKS);
        for (v, text) in ticks(&self.scene.y, rows) {
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

    pub(super) fn legend_line(&self) -> i32 {
        (self.text * 1.4) as i32
    }

    /// Left edge and line of every entry of the legend: a line breaks where the next would not fit.
    fn legend_places(&self) -> Vec<(i32, i32)> {
        let em = self.text as i32;
        let (mut x, mut line) = (self.plot.0, 0);
        let place = |entry: Entry<'_>| {
            let width = 4 * em + (entry.label.chars().count() as f64 * self.text * 0.62) as i32;
            if x > self.plot.0 && x + width - em > self.plot.2 {
                (x, line) = (self.plot.0, line + 1);
            }
            let at = (x, line);
            x += width;
            at
        };
        self.scene.legend().into_iter().map(place).collect()
    }

    fn legend(&self) -> Result<(), ExportError> {
        let em = self.text as i32;
        let top = em * 2 + em / 4;
        let places = self.legend_places();
        for (entry, (x, line)) in self.scene.legend().into_iter().zip(places) {
            let y = top + line * self.legend_line();
            let (dash, stroke) = match entry.sample {
                Sample::Line(dash) => (dash, 1.8),
                Sample::Mark => (0, 2.0),
                Sample::Filled => (0, 8.0),
            };
            for piece in dashed(&[(x, y), (x + 2 * em, y)], dash, self.text) {
                self.path(piece, self.stroke(entry.ink, stroke))?;
            }
            let at = (x + 2 * em + em / 2, y);
            self.label(entry.label, at, HPos::Left, VPos::Center, Ink::Text)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of a picture that an H takes, drawn at row 50 with an anchor.
    fn rows(v: VPos) -> (i32, i32) {
        const SIZE: f64 = 24.0;
        register_typefaces();
        let mut pixels = vec![255; 100 * 100 * 3];
        let area = BitMapBackend::with_buffer(&mut pixels, (100, 100)).into_drawing_area();
        let style = ("sans-serif", SIZE).into_font().color(&BLACK);
        let style = style.pos(Pos::new(HPos::Center, v));
        let at = (50, 50 + Letters::Raster.lowered(SIZE, v));
        area.draw(&Text::new("H".to_owned(), at, style))
            .expect("painted");
        drop(area);
        let dark = |row: &usize| pixels[row * 300..(row + 1) * 300].iter().any(|p| *p < 128);
        let rows: Vec<usize> = (0..100).filter(dark).collect();
        (rows[0] as i32, rows[rows.len() - 1] as i32)
    }

    #[test]
    fn letters_stand_where_they_are_asked_for() {
        let (top, bottom) = rows(VPos::Center);
        assert!((top + bottom - 100).abs() <= 3, "{top} to {bottom}");
        assert!((rows(VPos::Top).0 - 50).abs() <= 2, "{:?}", rows(VPos::Top));
        assert!(
            (rows(VPos::Bottom).1 - 50).abs() <= 2,
            "{:?}",
            rows(VPos::Bottom)
        );
    }
}
