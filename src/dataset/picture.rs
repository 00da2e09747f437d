//! From a file's bytes to a picture of the size that is asked for.

use std::io::Cursor;

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, RgbImage};
use rand::Rng;
use rand_pcg::Pcg64Mcg;

use super::stored::Stored;
use crate::experiment::Framing;

/// Random crops that are tried before the middle is taken, as torchvision does.
const TRIES: usize = 10;

/// What a file turned out to be.
pub(super) enum Decoded {
    Picture(RgbImage),
    /// No picture, and not named like one.
    Other,
    Unreadable(String),
}

/// The extent of a picture, from its first bytes.
pub(super) fn extent(stored: &Stored) -> Option<[u32; 2]> {
    let reader = ImageReader::new(Cursor::new(stored.read().ok()?));
    let (width, height) = reader.with_guessed_format().ok()?.into_dimensions().ok()?;
    Some([width, height])
}

/// Decodes a picture by its content.
pub(super) fn decode(stored: &Stored) -> Decoded {
    let bytes = match stored.read() {
        Ok(bytes) => bytes,
        Err(error) => return Decoded::Unreadable(error.to_string()),
    };
    let reader = match ImageReader::new(Cursor::new(&bytes)).with_guessed_format() {
        Ok(reader) => reader,
        Err(error) => return Decoded::Unreadable(error.to_string()),
    };
    let Some(format) = reader.format() else {
        return if stored.is_named_like_a_picture() {
            Decoded::Unreadable("it holds no picture".into())
        } else {
            Decoded::Other
        };
    };
    if format == ImageFormat::Jpeg && !is_whole_jpeg(&bytes) {
        return Decoded::Unreadable(
            "the JPEG is truncated: no end-of-image marker after its last scan".into(),
        );
    }
    let decoded = (|| {
        let mut decoder = reader.into_decoder()?;
        let orientation = decoder.orientation()?;
        let mut picture = DynamicImage::from_decoder(decoder)?;
        picture.apply_orientation(orientation);
        Ok::<_, image::ImageError>(picture)
    })();
    match decoded {
        Ok(picture) => Decoded::Picture(over_black(picture)),
        Err(error) => Decoded::Unreadable(error.to_string()),
    }
}

/// Whether the image comes to its end: segment by segment, since thumbnails inside them and what cameras put
/// behind the end have markers of their own.
fn is_whole_jpeg(bytes: &[u8]) -> bool {
    /// End of image.
    const END: u8 = 0xd9;
    let mut at = 2;
    loop {
        let Some(marker) = bytes[at.min(bytes.len())..].iter().position(|b| *b == 0xff) else {
            return false;
        };
        at += marker;
        let Some(kind) = bytes.get(at + 1).copied() else {
            return false;
        };
        match kind {
            END => return true,
            // Bytes of a scan, restarts, fill bytes.
            0x00 | 0x01 | 0xd0..=0xd8 => at += 2,
            0xff => at += 1,
            _ => {
                let Some([high, low]) = bytes.get(at + 2..at + 4) else {
                    return false;
                };
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                at += 2 + length.max(2);
            }
        }
    }
}

/// The picture over black, as padding is: what transparency hides is not learned from.
fn over_black(picture: DynamicImage) -> RgbImage {
    if !picture.color().has_alpha() {
        return picture.into_rgb8();
    }
    let pixels = picture.into_rgba8();
    RgbImage::from_fn(pixels.width(), pixels.height(), |x, y| {
        let [r, g, b, alpha] = pixels.get_pixel(x, y).0;
        let over = |v: u8| ((u32::from(v) * u32::from(alpha) + 127) / 255) as u8;
        image::Rgb([over(r), over(g), over(b)])
    })
}

/// A part of a picture: left, top, width, height.
type Part = [u32; 4];

/// Brings a picture to `side` by `side`, `[3, side, side]`: as the framing says, or with a generator a
/// part chosen at random. Bilinear with antialiasing, as Pillow does it.
pub(super) fn frame(
    picture: &RgbImage,
    side: usize,
    framing: &Framing,
    random: Option<&mut Pcg64Mcg>,
) -> Result<Vec<u8>, String> {
    let [width, height] = [picture.width(), picture.height()];
    if width == 0 || height == 0 {
        return Err(format!("it has {width}x{height} pixels"));
    }
    let side = side as u32;
    let whole = [0, 0, width, height];
    match (random, framing.resize) {
        (Some(rng), _) => {
            let part = random_part([width, height], framing, rng);
            Ok(planes(&resized(picture, part, [side, side])?, [0, 0], side))
        }
        (None, None) => Ok(planes(
            &resized(picture, whole, [side, side])?,
            [0, 0],
            side,
        )),
        (None, Some(shorter)) => {
            // The longer side is cut down to a whole number, the middle is rounded half to even: as
            // torchvision's Resize and CenterCrop.
            let shorter = (shorter as u32).max(side);
            let long =
                |side: u32, of: u32| (u64::from(shorter) * u64::from(side) / u64::from(of)) as u32;
            let extent = if width <= height {
                [shorter, long(height, width)]
            } else {
                [long(width, height), shorter]
            };
            let corner = extent.map(|n| (f64::from(n - side) / 2.0).round_ties_even() as u32);
            Ok(planes(&resized(picture, whole, extent)?, corner, side))
        }
    }
}

/// A part whose share of the picture and ratio of width to height are chosen at random.
fn random_part([width, height]: [u32; 2], framing: &Framing, rng: &mut Pcg64Mcg) -> Part {
    let area = f64::from(width) * f64::from(height);
    let (low, high) = (*framing.ratio.start(), *framing.ratio.end());
    for _ in 0..TRIES {
        let share = rng.random_range(framing.scale.clone()) * area;
        let ratio = rng.random_range(low.ln()..=high.ln()).exp();
        let w = (share * ratio).sqrt().round() as u32;
        let h = (share / ratio).sqrt().round() as u32;
        if (1..=width).contains(&w) && (1..=height).contains(&h) {
            let left = rng.random_range(0..=width - w);
            let top = rng.random_range(0..=height - h);
            return [left, top, w, h];
        }
    }
    // The middle, as much of it as the ratio allows.
    let ratio = f64::from(width) / f64::from(height);
    let (w, h) = if ratio < low {
        (width, (f64::from(width) / low).round() as u32)
    } else if ratio > high {
        ((f64::from(height) * high).round() as u32, height)
    } else {
        (width, height)
    };
    let (w, h) = (w.clamp(1, width), h.clamp(1, height));
    [(width - w) / 2, (height - h) / 2, w, h]
}

/// A part of a picture at another extent.
fn resized(picture: &RgbImage, part: Part, [width, height]: [u32; 2]) -> Result<RgbImage, String> {
    let [left, top, w, h] = part;
    if part == [0, 0, width, height] && picture.dimensions() == (width, height) {
        return Ok(picture.clone());
    }
    // Of one type of pixel: the way that asks for the type compiles all of them.
    let source =
        TypedImageRef::<U8x3>::from_buffer(picture.width(), picture.height(), picture.as_raw());
    let mut target = RgbImage::new(width, height);
    let pixels = TypedImage::<U8x3>::from_buffer(width, height, &mut target);
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(FilterType::Bilinear))
        .crop(left.into(), top.into(), w.into(), h.into());
    let source = source.map_err(|e| e.to_string())?;
    let mut pixels = pixels.map_err(|e| e.to_string())?;
    Resizer::new()
        .resize_typed(&source, &mut pixels, &options)
        .map_err(|e| e.to_string())?;
    Ok(target)
}

/// Channels one behind the other, of a square out of a picture.
fn planes(picture: &RgbImage, [left, top]: [u32; 2], side: u32) -> Vec<u8> {
    let row = 3 * picture.width() as usize;
    let (left, top, side) = (left as usize, top as usize, side as usize);
    let mut planes = Vec::with_capacity(3 * side * side);
    for channel in 0..3 {
        for pixels in picture.as_raw().chunks_exact(row).skip(top).take(side) {
            let pixels = &pixels[3 * left..3 * (left + side)];
            planes.extend(pixels.iter().skip(channel).step_by(3));
        }
    }
    planes
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn random_parts_are_inside_and_of_the_shares_asked_for() {
        let framing = Framing {
            resize: None,
            scale: 0.08..=1.0,
            ratio: 0.75..=4.0 / 3.0,
        };
        let mut rng = Pcg64Mcg::seed_from_u64(3);
        let mut shares = Vec::new();
        for extent in [[640, 427], [200, 31], [1, 50]] {
            for _ in 0..500 {
                let [left, top, w, h] = random_part(extent, &framing, &mut rng);
                assert!(w >= 1 && h >= 1 && left + w <= extent[0] && top + h <= extent[1]);
                if extent == [640, 427] {
                    shares.push(f64::from(w * h) / (640.0 * 427.0));
                }
            }
        }
        // Uniform, but of large ones fewer fit.
        let mean = shares.iter().sum::<f64>() / shares.len() as f64;
        assert!((0.35..0.6).contains(&mean), "{mean}");
        assert!(shares.iter().all(|s| (0.07..=1.0).contains(s)));
    }
}
