//! `glyphs`: ten digits drawn from the typefaces of a font crate, jittered, coloured, cluttered.
//!
//! Every picture depends on its size, the seed and its index alone, so the set is the same on any
//! machine and with any number of threads.

use ab_glyph::{Font, FontRef, PxScale, point};
use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, StandardNormal};
use rand_pcg::Pcg64Mcg;
use rayon::prelude::*;

use super::Dataset;

const CLASSES: usize = 10;
/// Side of the masks that pictures sample from; larger pictures have masks of their own size.
const MASK: usize = 64;

/// `count` pictures, `[3, size, size]` each; `difficulty` from 0 (clean) to 1 (rotated, cluttered,
/// noisy).
pub fn generate(count: usize, size: usize, difficulty: f64, seed: u64) -> Dataset {
    let masks = masks(size.max(MASK));
    let pictures: Vec<(Vec<u8>, u8)> = (0..count)
        .into_par_iter()
        .map(|index| {
            let mut rng = Pcg64Mcg::seed_from_u64(
                seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (index as u64).rotate_left(20),
            );
            picture(&masks, size, difficulty as f32, &mut rng)
        })
        .collect();
    Dataset {
        images: pictures.iter().flat_map(|p| &p.0).copied().collect(),
        labels: pictures.iter().map(|p| p.1.into()).collect(),
        shape: [3, size, size],
        classes: CLASSES,
        normalisation: super::Normalisation::symmetric(),
    }
}

/// Coverage of one digit in one typeface, `side` x `side`, centred.
struct Mask {
    side: usize,
    coverage: Vec<f32>,
}

impl Mask {
    /// Bilinear coverage at a point in units of the mask's side, centre at 0; 0 outside.
    fn sample(&self, x: f32, y: f32) -> f32 {
        let side = self.side as f32;
        let (x, y) = ((x + 0.5) * side - 0.5, (y + 0.5) * side - 0.5);
        let (left, top) = (x.floor(), y.floor());
        let at = |column: f32, row: f32| {
            let inside = column >= 0.0 && row >= 0.0 && column < side && row < side;
            if inside {
                self.coverage[row as usize * self.side + column as usize]
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
fn masks(side: usize) -> Vec<Vec<Mask>> {
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
        .map(|digit| fonts.iter().map(|font| draw(font, digit, side)).collect())
        .collect()
}

fn draw(font: &FontRef<'_>, digit: char, side: usize) -> Mask {
    let mut mask = vec![0.0; side * side];
    let scale = PxScale::from(side as f32);
    let glyph = font
        .glyph_id(digit)
        .with_scale_and_position(scale, point(0.0, 0.0));
    if let Some(outline) = font.outline_glyph(glyph) {
        let bounds = outline.px_bounds();
        let (dx, dy) = (
            (side as f32 - bounds.width()) / 2.0,
            (side as f32 - bounds.height()) / 2.0,
        );
        outline.draw(|x, y, coverage| {
            let (column, row) = (x as f32 + dx, y as f32 + dy);
            if column >= 0.0 && row >= 0.0 && (column as usize) < side && (row as usize) < side {
                mask[row as usize * side + column as usize] = coverage.min(1.0);
            }
        });
    }
    Mask {
        side,
        coverage: mask,
    }
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

fn picture(masks: &[Vec<Mask>], size: usize, difficulty: f32, rng: &mut Pcg64Mcg) -> (Vec<u8>, u8) {
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
    let mut bytes = vec![0; 3 * size * size];
    for row in 0..size {
        for column in 0..size {
            let x = (column as f32 + 0.5) / size as f32 - 0.5;
            let y = (row as f32 + 0.5) / size as f32 - 0.5;
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
                bytes[(c * size + row) * size + column] = (value.clamp(0.0, 1.0) * 255.0) as u8;
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
            pool.expect("a pool").install(|| generate(200, 32, 0.7, 3))
        };
        let one = pool(1);
        assert_eq!(pool(3), one);
        assert_ne!(generate(200, 32, 0.7, 4), one);
        let mut seen = [0; CLASSES];
        one.labels.iter().for_each(|l| seen[*l as usize] += 1);
        assert!(seen.iter().all(|n| *n > 5), "{seen:?}");
    }

    #[test]
    fn another_size_draws_the_same_pictures_finer() {
        let [small, large] = [32, 64].map(|size| generate(20, size, 0.0, 3));
        assert_eq!(small.labels, large.labels);
        assert_eq!(large.shape, [3, 64, 64]);
        let pixels = |data: &Dataset, picture: usize, size: usize| -> Vec<f64> {
            let bytes = &data.images[picture * 3 * size * size..][..3 * size * size];
            bytes.iter().map(|b| f64::from(*b)).collect()
        };
        for picture in 0..20 {
            let (coarse, fine) = (pixels(&small, picture, 32), pixels(&large, picture, 64));
            let apart: f64 = (0..3 * 32 * 32)
                .map(|i| {
                    let (c, row, column) = (i / 1024, i / 32 % 32, i % 32);
                    let at =
                        |y: usize, x: usize| fine[(c * 64 + 2 * row + y) * 64 + 2 * column + x];
                    let mean = (at(0, 0) + at(0, 1) + at(1, 0) + at(1, 1)) / 4.0;
                    (mean - coarse[i]).abs()
                })
                .sum::<f64>()
                / (3.0 * 32.0 * 32.0);
            // Grain of 0.02 is 5 of 255; edges are sharper where pixels are smaller.
            assert!(apart < 8.0, "picture {picture}: {apart}");
        }
    }
}
