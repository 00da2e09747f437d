//! `glyphs`: ten digits drawn from the typefaces of a font crate, jittered, coloured, cluttered.
//!
//! Every picture depends on the seed and its index alone, so the set is the same on any machine
//! and with any number of threads.

use ab_glyph::{Font, FontRef, PxScale, point};
use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, StandardNormal};
use rand_pcg::Pcg64Mcg;
use rayon::prelude::*;

use super::Dataset;

const SIZE: usize = 32;
const CLASSES: usize = 10;
/// Side of the masks that pictures sample from.
const MASK: usize = 64;

/// `count` pictures; `difficulty` from 0 (clean) to 1 (rotated, cluttered, noisy).
pub fn generate(count: usize, difficulty: f64, seed: u64) -> Dataset {
    let masks = masks();
    let pictures: Vec<(Vec<u8>, u8)> = (0..count)
        .into_par_iter()
        .map(|index| {
            let mut rng = Pcg64Mcg::seed_from_u64(
                seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (index as u64).rotate_left(20),
            );
            picture(&masks, difficulty as f32, &mut rng)
        })
        .collect();
    Dataset {
        images: pictures.iter().flat_map(|p| &p.0).copied().collect(),
        labels: pictures.iter().map(|p| p.1.into()).collect(),
        shape: [3, SIZE, SIZE],
        classes: CLASSES,
        normalisation: super::Normalisation::symmetric(),
    }
}

/// Coverage of one digit in one typeface, `MASK` x `MASK`, centred.
struct Mask(Vec<f32>);

impl Mask {
    /// Bilinear coverage at a point in units of the mask's side, centre at 0; 0 outside.
    fn sample(&self, x: f32, y: f32) -> f32 {
        let (x, y) = ((x + 0.5) * MASK as f32 - 0.5, (y + 0.5) * MASK as f32 - 0.5);
        let (left, top) = (x.floor(), y.floor());
        let at = |column: f32, row: f32| {
            let inside = column >= 0.0 && row >= 0.0 && column < MASK as f32 && row < MASK as f32;
            if inside {
                self.0[row as usize * MASK + column as usize]
            } else {
                0.0
            }
        };
        let (u, v) = (x - left, y - top);
        (at(left, top) * (1.0 - u) + at(left + 1.0, top) * u) * (1.0 - v)
            + (at(left, top + 1.0) * (1.0 - u) + at(left + 1.0, top + 1.0) * u) * v
    }
}

/// Masks by class, one per typeface.
fn masks() -> Vec<Vec<Mask>> {
    let faces = [
        dejavu::sans::regular(),
        dejavu::sans::bold(),
        dejavu::sans::oblique(),
        dejavu::serif::regular(),
        dejavu::serif::bold(),
        dejavu::serif::italic(),
        dejavu::sans_mono::regular(),
        dejavu::sans_mono::bold(),
    ];
    let fonts = faces
        .map(|bytes| FontRef::try_from_slice(bytes).expect("the font crate ships valid typefaces"));
    let digits = (b'0'..=b'9').map(char::from);
    digits
        .map(|digit| fonts.iter().map(|font| draw(font, digit)).collect())
        .collect()
}

fn draw(font: &FontRef<'_>, digit: char) -> Mask {
    let mut mask = vec![0.0; MASK * MASK];
    let scale = PxScale::from(MASK as f32);
    let glyph = font
        .glyph_id(digit)
        .with_scale_and_position(scale, point(0.0, 0.0));
    if let Some(outline) = font.outline_glyph(glyph) {
        let bounds = outline.px_bounds();
        let (dx, dy) = (
            (MASK as f32 - bounds.width()) / 2.0,
            (MASK as f32 - bounds.height()) / 2.0,
        );
        outline.draw(|x, y, coverage| {
            let (column, row) = (x as f32 + dx, y as f32 + dy);
            if column >= 0.0 && row >= 0.0 && (column as usize) < MASK && (row as usize) < MASK {
                mask[row as usize * MASK + column as usize] = coverage.min(1.0);
            }
        });
    }
    Mask(mask)
}

/// An affine placement of a mask in the picture.
struct Placement {
    cos: f32,
    sin: f32,
    shear: f32,
    inverse_scale: f32,
    centre: (f32, f32),
}

impl Placement {
    fn random(
        rng: &mut Pcg64Mcg,
        difficulty: f32,
        scale: std::ops::Range<f32>,
        reach: f32,
    ) -> Self {
        let angle = rng.random_range(-1.0..1.0f32) * 0.7 * difficulty;
        Self {
            cos: angle.cos(),
            sin: angle.sin(),
            shear: rng.random_range(-1.0..1.0f32) * 0.4 * difficulty,
            inverse_scale: 1.0 / rng.random_range(scale),
            centre: (
                rng.random_range(-reach..=reach),
                rng.random_range(-reach..=reach),
            ),
        }
    }

    fn coverage(&self, mask: &Mask, x: f32, y: f32) -> f32 {
        let (x, y) = (x - self.centre.0, y - self.centre.1);
        let (x, y) = (x * self.cos + y * self.sin, y * self.cos - x * self.sin);
        mask.sample(
            (x + self.shear * y) * self.inverse_scale,
            y * self.inverse_scale,
        )
    }
}

fn picture(masks: &[Vec<Mask>], difficulty: f32, rng: &mut Pcg64Mcg) -> (Vec<u8>, u8) {
    let label = rng.random_range(0..CLASSES);
    let any = |rng: &mut Pcg64Mcg| -> usize { rng.random_range(0..masks[0].len()) };
    let mask = &masks[label][any(rng)];
    let place = Placement::random(rng, difficulty, 0.75..1.05, 0.04 + 0.12 * difficulty);
    // Clutter: parts of other digits that reach in from the edges, in colours of their own.
    let clutter: Vec<(&Mask, Placement, [f32; 3])> = (0..(difficulty * 4.0).round() as usize)
        .map(|_| {
            let mask = &masks[rng.random_range(0..CLASSES)][any(rng)];
            let mut place = Placement::random(rng, 1.0, 0.5..0.9, 0.0);
            let angle = rng.random_range(0.0..std::f32::consts::TAU);
            let distance = rng.random_range(0.45..0.65f32);
            place.centre = (angle.cos() * distance, angle.sin() * distance);
            (mask, place, colour(rng))
        })
        .collect();
    let background = [colour(rng), colour(rng)];
    let ink = contrasting(rng, background, 0.55 - 0.35 * difficulty);
    let direction = rng.random_range(0.0..std::f32::consts::TAU);
    let noise = 0.02 + 0.1 * difficulty;
    let mut bytes = vec![0; 3 * SIZE * SIZE];
    for row in 0..SIZE {
        for column in 0..SIZE {
            let x = (column as f32 + 0.5) / SIZE as f32 - 0.5;
            let y = (row as f32 + 0.5) / SIZE as f32 - 0.5;
            // Background: a gradient between two colours.
            let t = (x * direction.cos() + y * direction.sin() + 0.7) / 1.4;
            let mut pixel = [0, 1, 2].map(|c| background[0][c] * (1.0 - t) + background[1][c] * t);
            for (mask, place, colour) in &clutter {
                let coverage = place.coverage(mask, x, y) * 0.8;
                for c in 0..3 {
                    pixel[c] += (colour[c] - pixel[c]) * coverage;
                }
            }
            let coverage = place.coverage(mask, x, y);
            for c in 0..3 {
                let grain: f32 = StandardNormal.sample(rng);
                let value = pixel[c] + (ink[c] - pixel[c]) * coverage + grain * noise;
                bytes[(c * SIZE + row) * SIZE + column] = (value.clamp(0.0, 1.0) * 255.0) as u8;
            }
        }
    }
    (bytes, label as u8)
}

fn colour(rng: &mut Pcg64Mcg) -> [f32; 3] {
    [rng.random(), rng.random(), rng.random()]
}

/// A colour whose brightness differs from both ends of the background by at least `least`.
fn contrasting(rng: &mut Pcg64Mcg, background: [[f32; 3]; 2], least: f32) -> [f32; 3] {
    let brightness = |c: [f32; 3]| 0.3 * c[0] + 0.59 * c[1] + 0.11 * c[2];
    let mut best = (f32::MIN, [0.0; 3]);
    for _ in 0..24 {
        let candidate = colour(rng);
        let distance = background
            .iter()
            .map(|b| (brightness(*b) - brightness(candidate)).abs())
            .fold(f32::MAX, f32::min);
        if distance >= least {
            return candidate;
        }
        if distance > best.0 {
            best = (distance, candidate);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_pictures_whatever_the_threads() {
        let pool = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.expect("a pool").install(|| generate(200, 0.7, 3))
        };
        let one = pool(1);
        assert_eq!(pool(3), one);
        assert_ne!(generate(200, 0.7, 4), one);
        let mut seen = [0; CLASSES];
        one.labels.iter().for_each(|l| seen[*l as usize] += 1);
        assert!(seen.iter().all(|n| *n > 5), "{seen:?}");
    }
}
