//! Figures as PDF: lines as lines, and text as text in an embedded subset of the typeface.

use std::collections::BTreeMap;
use std::io::{self, Write};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use pdf_writer::types::{CidFontType, FontFlags, SystemInfo, UnicodeCmap};
use pdf_writer::{Content, Filter, Finish, Name, Pdf, Rect, Ref, Str, TextStr};
use plotters_backend::text_anchor::{HPos, VPos};
use plotters_backend::{
    BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingBackend, DrawingErrorKind,
    FontStyle as BackendFontStyle, FontTransform,
};
use subsetter::GlyphRemapper;
use ttf_parser::Face;

use super::Notes;

/// A typeface with the glyphs that a page uses of it.
struct Typeface {
    bytes: &'static [u8],
    face: Face<'static>,
    glyphs: GlyphRemapper,
    /// What stands behind each glyph of the subset, for who searches and copies.
    meaning: BTreeMap<u16, char>,
    /// Widths of the subset's glyphs in thousandths of an em.
    widths: BTreeMap<u16, f32>,
}

impl Typeface {
    fn new(bytes: &'static [u8]) -> Self {
        let face = Face::parse(bytes, 0)
            .unwrap_or_else(|e| unreachable!("the font crate ships valid typefaces: {e}"));
        Self {
            bytes,
            face,
            glyphs: GlyphRemapper::new(),
            meaning: BTreeMap::new(),
            widths: BTreeMap::new(),
        }
    }

    fn units(&self) -> f32 {
        f32::from(self.face.units_per_em())
    }

    /// Ems of a size as plotters means it: from the highest to the lowest point of the typeface.
    fn em(&self, size: f64) -> f32 {
        let height = f32::from(self.face.ascender()) - f32::from(self.face.descender());
        size as f32 * self.units() / height
    }

    /// Height of capitals in ems.
    fn capitals(&self) -> f32 {
        let glyph = self.face.glyph_index('H').unwrap_or_default();
        let height = self.face.glyph_bounding_box(glyph).map_or(0, |b| b.y_max);
        f32::from(height) / self.units()
    }

    /// A text as glyphs of the subset, big-endian, and its width in ems.
    fn encode(&mut self, text: &str) -> (Vec<u8>, f32) {
        let (mut codes, mut width) = (Vec::new(), 0.0);
        for c in text.chars() {
            let glyph = self.face.glyph_index(c).unwrap_or_default();
            let advance = f32::from(self.face.glyph_hor_advance(glyph).unwrap_or(0)) / self.units();
            let code = self.glyphs.remap(glyph.0);
            self.meaning.entry(code).or_insert(c);
            self.widths.insert(code, advance * 1000.0);
            codes.extend(code.to_be_bytes());
            width += advance;
        }
        (codes, width)
    }
}

/// A page while it is painted. Coordinates are pixels, the first row on top.
pub(super) struct Page {
    size: (u32, u32),
    content: Content,
    /// Regular and bold.
    typefaces: [Typeface; 2],
    /// Opacities in use, in 255ths.
    opacities: BTreeMap<u8, ()>,
}

/// Names of the typefaces on the page.
const FONTS: [&[u8]; 2] = [b"regular", b"bold"];

fn opacity_name(opacity: u8) -> String {
    format!("o{opacity}")
}

impl Page {
    /// An empty page of so many pixels, each `scale` points wide.
    pub(super) fn new(size: (u32, u32), scale: f32) -> Self {
        let mut content = Content::new();
        content.transform([scale, 0.0, 0.0, -scale, 0.0, size.1 as f32 * scale]);
        content.set_line_cap(pdf_writer::types::LineCapStyle::ButtCap);
        content.set_line_join(pdf_writer::types::LineJoinStyle::RoundJoin);
        Self {
            size,
            content,
            typefaces: [dejavu::sans::regular(), dejavu::sans::bold()].map(Typeface::new),
            opacities: BTreeMap::new(),
        }
    }

    fn colour(&mut self, colour: BackendColor) {
        let (r, g, b) = colour.rgb;
        let [r, g, b] = [r, g, b].map(|v| f32::from(v) / 255.0);
        let opacity = (colour.alpha * 255.0).round() as u8;
        self.opacities.insert(opacity, ());
        self.content
            .set_parameters(Name(opacity_name(opacity).as_bytes()));
        self.content.set_fill_rgb(r, g, b);
        self.content.set_stroke_rgb(r, g, b);
    }

    fn outline(&mut self, points: &[BackendCoord]) {
        for (i, (x, y)) in points.iter().enumerate() {
            // The middle of the pixel.
            let (x, y) = (*x as f32 + 0.5, *y as f32 + 0.5);
            if i == 0 {
                self.content.move_to(x, y);
            } else {
                self.content.line_to(x, y);
            }
        }
    }

    /// Colour and width of the shape that comes next: between its outline and its painting nothing may
    /// be set.
    fn pen<S: BackendStyle>(&mut self, style: &S, fill: bool) {
        self.colour(style.color());
        if !fill {
            self.content.set_line_width(style.stroke_width() as f32);
        }
    }

    /// Fills the shape that was laid out, or draws along it.
    fn paint(&mut self, fill: bool) {
        if fill {
            self.content.fill_nonzero();
        } else {
            self.content.stroke();
        }
    }

    /// The file.
    pub(super) fn finish(self, scale: f32, notes: &Notes) -> io::Result<Vec<u8>> {
        let mut pdf = Pdf::new();
        let mut next = 1..;
        let mut id = move || Ref::new(next.next().unwrap_or(1));
        let (catalog, pages, page, content) = (id(), id(), id(), id());
        let fonts = FONTS.map(|_| id());
        pdf.catalog(catalog).pages(pages);
        pdf.pages(pages).kids([page]).count(1);
        let (width, height) = (self.size.0 as f32 * scale, self.size.1 as f32 * scale);
        let mut entry = pdf.page(page);
        entry
            .parent(pages)
            .media_box(Rect::new(0.0, 0.0, width, height))
            .contents(content);
        let mut resources = entry.resources();
        let mut named = resources.fonts();
        for (name, font) in FONTS.iter().zip(fonts) {
            named.pair(Name(name), font);
        }
        named.finish();
        let mut states = resources.ext_g_states();
        for opacity in self.opacities.keys() {
            let share = f32::from(*opacity) / 255.0;
            states
                .insert(Name(opacity_name(*opacity).as_bytes()))
                .start::<pdf_writer::writers::ExtGraphicsState<'_>>()
                .non_stroking_alpha(share)
                .stroking_alpha(share);
        }
        states.finish();
        resources.finish();
        entry.finish();
        let packed = deflated(&self.content.finish())?;
        pdf.stream(content, &packed).filter(Filter::FlateDecode);
        for ((typeface, font), name) in self.typefaces.iter().zip(fonts).zip(FONTS) {
            embed(&mut pdf, typeface, font, name, &mut id)?;
        }
        let mut info = pdf.document_info(id());
        for (key, value) in notes.iter() {
            match *key {
                "Software" => info.producer(TextStr(value)),
                "Run" => info.title(TextStr(value)),
                key => {
                    info.insert(Name(key.as_bytes())).primitive(TextStr(value));
                    &mut info
                }
            };
        }
        info.finish();
        Ok(pdf.finish())
    }
}

fn deflated(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// Writes a typeface with the glyphs that were used: a composite font whose codes are the places of the
/// glyphs, and a table of what they mean.
fn embed(
    pdf: &mut Pdf,
    typeface: &Typeface,
    font: Ref,
    name: &[u8],
    id: &mut impl FnMut() -> Ref,
) -> io::Result<()> {
    let (descendant, descriptor, file, meaning) = (id(), id(), id(), id());
    let subset = subsetter::subset(typeface.bytes, 0, &typeface.glyphs)
        .map_err(|e| io::Error::other(format!("typeface: {e}")))?;
    let name = [b"BSCOPE+DejaVuSans-", name].concat();
    let system = SystemInfo {
        registry: Str(b"Adobe"),
        ordering: Str(b"Identity"),
        supplement: 0,
    };
    pdf.type0_font(font)
        .base_font(Name(&name))
        .encoding_predefined(Name(b"Identity-H"))
        .descendant_font(descendant)
        .to_unicode(meaning);
    let mut cid = pdf.cid_font(descendant);
    cid.subtype(CidFontType::Type2)
        .base_font(Name(&name))
        .system_info(system)
        .font_descriptor(descriptor)
        .default_width(0.0)
        .cid_to_gid_map_predefined(Name(b"Identity"));
    let mut widths = cid.widths();
    for (code, width) in &typeface.widths {
        widths.consecutive(*code, [*width]);
    }
    widths.finish();
    cid.finish();
    let face = &typeface.face;
    let thousandths = |v: i16| f32::from(v) * 1000.0 / typeface.units();
    let b = face.global_bounding_box();
    pdf.font_descriptor(descriptor)
        .name(Name(&name))
        .flags(FontFlags::SYMBOLIC)
        .bbox(Rect::new(
            thousandths(b.x_min),
            thousandths(b.y_min),
            thousandths(b.x_max),
            thousandths(b.y_max),
        ))
        .italic_angle(0.0)
        .ascent(thousandths(face.ascender()))
        .descent(thousandths(face.descender()))
        .cap_height(1000.0 * typeface.capitals())
        .stem_v(80.0)
        .font_file2(file);
    let packed = deflated(&subset)?;
    pdf.stream(file, &packed)
        .filter(Filter::FlateDecode)
        .pair(Name(b"Length1"), subset.len() as i32);
    let mut table = UnicodeCmap::new(Name(b"Custom"), system);
    for (code, c) in &typeface.meaning {
        table.pair(*code, *c);
    }
    pdf.cmap(meaning, &table.finish());
    Ok(())
}

type Painted = Result<(), DrawingErrorKind<io::Error>>;

impl DrawingBackend for &mut Page {
    type ErrorType = io::Error;

    fn get_size(&self) -> (u32, u32) {
        self.size
    }

    fn ensure_prepared(&mut self) -> Painted {
        Ok(())
    }

    fn present(&mut self) -> Painted {
        Ok(())
    }

    fn draw_pixel(&mut self, (x, y): BackendCoord, colour: BackendColor) -> Painted {
        self.colour(colour);
        self.content
            .rect(x as f32, y as f32, 1.0, 1.0)
            .fill_nonzero();
        Ok(())
    }

    fn draw_line<S: BackendStyle>(&mut self, a: BackendCoord, b: BackendCoord, s: &S) -> Painted {
        self.draw_path([a, b], s)
    }

    fn draw_path<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        path: I,
        style: &S,
    ) -> Painted {
        let points: Vec<BackendCoord> = path.into_iter().collect();
        if points.len() < 2 || style.color().alpha == 0.0 {
            return Ok(());
        }
        self.pen(style, false);
        self.outline(&points);
        self.paint(false);
        Ok(())
    }

    fn draw_rect<S: BackendStyle>(
        &mut self,
        (left, top): BackendCoord,
        (right, bottom): BackendCoord,
        style: &S,
        fill: bool,
    ) -> Painted {
        self.pen(style, fill);
        let (w, h) = ((right - left) as f32, (bottom - top) as f32);
        if fill {
            // Both corners are pixels of it, so that neighbours leave no gap.
            self.content.rect(left as f32, top as f32, w + 1.0, h + 1.0);
        } else {
            self.content.rect(left as f32 + 0.5, top as f32 + 0.5, w, h);
        }
        self.paint(fill);
        Ok(())
    }

    fn draw_circle<S: BackendStyle>(
        &mut self,
        (x, y): BackendCoord,
        radius: u32,
        style: &S,
        fill: bool,
    ) -> Painted {
        /// Handles of four cubic curves that together are nearly a circle.
        const HANDLE: f32 = 0.552_284_8;
        self.pen(style, fill);
        let (x, y, r) = (x as f32 + 0.5, y as f32 + 0.5, radius as f32);
        let k = HANDLE * r;
        self.content
            .move_to(x + r, y)
            .cubic_to(x + r, y + k, x + k, y + r, x, y + r)
            .cubic_to(x - k, y + r, x - r, y + k, x - r, y)
            .cubic_to(x - r, y - k, x - k, y - r, x, y - r)
            .cubic_to(x + k, y - r, x + r, y - k, x + r, y)
            .close_path();
        self.paint(fill);
        Ok(())
    }

    fn fill_polygon<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        corners: I,
        style: &S,
    ) -> Painted {
        let points: Vec<BackendCoord> = corners.into_iter().collect();
        self.colour(style.color());
        self.outline(&points);
        self.content.close_path().fill_nonzero();
        Ok(())
    }

    fn draw_text<T: BackendTextStyle>(
        &mut self,
        text: &str,
        style: &T,
        (x, y): BackendCoord,
    ) -> Painted {
        let bold = matches!(style.style(), BackendFontStyle::Bold);
        let typeface = &mut self.typefaces[usize::from(bold)];
        let em = typeface.em(style.size());
        let (codes, width) = typeface.encode(text);
        let capital = typeface.capitals();
        let along = match style.anchor().h_pos {
            HPos::Left => 0.0,
            HPos::Center => -width * em / 2.0,
            HPos::Right => -width * em,
        };
        // From the anchor down to the base line, by the height of capitals.
        let down = match style.anchor().v_pos {
            VPos::Top => capital * em,
            VPos::Center => capital * em / 2.0,
            VPos::Bottom => 0.0,
        };
        // Directions of the text and of its lines, in pixels.
        let (t, d) = match style.transform() {
            FontTransform::None => ((1.0, 0.0), (0.0, 1.0)),
            FontTransform::Rotate90 => ((0.0, 1.0), (-1.0, 0.0)),
            FontTransform::Rotate180 => ((-1.0, 0.0), (0.0, -1.0)),
            FontTransform::Rotate270 => ((0.0, -1.0), (1.0, 0.0)),
        };
        let at = (
            x as f32 + along * t.0 + down * d.0,
            y as f32 + along * t.1 + down * d.1,
        );
        self.colour(style.color());
        self.content
            .begin_text()
            .set_font(Name(FONTS[usize::from(bold)]), em)
            .set_text_matrix([t.0, t.1, -d.0, -d.1, at.0, at.1])
            .show(Str(&codes))
            .end_text();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use plotters::prelude::*;

    use super::*;

    /// A page with a turned text, a line and a bar.
    fn page(text: &str) -> Vec<u8> {
        let mut page = Page::new((400, 300), 0.5);
        {
            let area = (&mut page).into_drawing_area();
            let style = ("sans-serif", 20.0).into_font().color(&BLACK);
            let label = Text::new(text.to_owned(), (20, 20), style);
            area.draw(&label).expect("painted");
            let line = PathElement::new(
                vec![(0, 0), (100, 50)],
                ShapeStyle::from(&RED.mix(0.5)).stroke_width(2),
            );
            area.draw(&line).expect("painted");
            area.draw(&Rectangle::new([(10, 10), (30, 40)], BLUE.filled()))
                .expect("painted");
        }
        let notes = [("Run", "a run".to_owned()), ("Step", "7".to_owned())];
        page.finish(0.5, &notes).expect("written")
    }

    fn has(bytes: &[u8], part: &str) -> bool {
        bytes.windows(part.len()).any(|w| w == part.as_bytes())
    }

    #[test]
    fn text_stays_text_and_the_typeface_is_a_subset() {
        let pdf = page("2⁻⁴ ∂q_max");
        assert!(pdf.starts_with(b"%PDF-") && has(&pdf, "%%EOF"));
        // 400x300 pixels of half a point.
        assert!(has(&pdf, "/MediaBox [0 0 200 150]"));
        for part in ["/Identity-H", "/ToUnicode", "/FontFile2", "/Title", "/CA"] {
            assert!(has(&pdf, part), "{part}");
        }
        // What is searched and copied: every letter, by its code point in hexadecimal.
        for c in "2⁻⁴∂q_max".chars() {
            let code = format!("<{:04X}>", c as u32);
            assert!(has(&pdf, &code), "{c} {code}");
        }
        assert!(pdf.len() < 40_000, "{}", pdf.len());
        assert_eq!(pdf, page("2⁻⁴ ∂q_max"), "the same again");
    }
}
