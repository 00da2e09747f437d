//! Convolution in integers: sums of products, without rounding and in any order the same.
//!
//! An image is unfolded to columns, a block of outputs at a time, and multiplied while they are in
//! cache. Sums are i32 or i64, as the caller asks; they wrap around, so a result that fits is right
//! whatever lay between.

use super::conv::{Extents, Geometry};
use super::parallel::Cpu;
use super::simd::{Simd, multiversion};

/// Outputs of a channel that are summed together: four vectors of AVX2 for each of two channels.
const PIXELS: usize = 32;

/// What products are summed in.
pub trait Sum: Copy + Default + Send + Sync + 'static {
    /// `self + a b`
    #[must_use]
    fn plus_product(self, a: i32, b: i32) -> Self;

    /// All products of a strip, with the instruction set at hand: `out` is `[channels, PIXELS]`.
    fn multiply(simd: Simd, weights: &[i32], columns: &[i32], out: &mut [Self]);
}

impl Sum for i32 {
    #[inline(always)]
    fn plus_product(self, a: i32, b: i32) -> Self {
        self.wrapping_add(a.wrapping_mul(b))
    }

    fn multiply(simd: Simd, weights: &[i32], columns: &[i32], out: &mut [Self]) {
        multiply_narrow(simd, weights, columns, out);
    }
}

impl Sum for i64 {
    #[inline(always)]
    fn plus_product(self, a: i32, b: i32) -> Self {
        self.wrapping_add(i64::from(a) * i64::from(b))
    }

    fn multiply(simd: Simd, weights: &[i32], columns: &[i32], out: &mut [Self]) {
        multiply_wide(simd, weights, columns, out);
    }
}

multiversion! {
    fn multiply_narrow(weights: &[i32], columns: &[i32], out: &mut [i32]) = multiply_body
}

multiversion! {
    fn multiply_wide(weights: &[i32], columns: &[i32], out: &mut [i64]) = multiply_body
}

/// `weights` is `[channels, taps]`, `columns` `[taps, PIXELS]`, `out` `[channels, PIXELS]`.
#[inline(always)]
fn multiply_body<S: Sum>(weights: &[i32], columns: &[i32], out: &mut [S]) {
    let taps = columns.len() / PIXELS;
    let (columns, _) = columns.as_chunks::<PIXELS>();
    let (out, _) = out.as_chunks_mut::<PIXELS>();
    for (weights, out) in weights.chunks(2 * taps).zip(out.chunks_mut(2)) {
        if let [first, second] = out {
            let (mut a, mut b) = ([S::default(); PIXELS], [S::default(); PIXELS]);
            let (ones, twos) = weights.split_at(taps);
            for ((column, one), two) in columns.iter().zip(ones).zip(twos) {
                for j in 0..PIXELS {
                    a[j] = a[j].plus_product(*one, column[j]);
                    b[j] = b[j].plus_product(*two, column[j]);
                }
            }
            (*first, *second) = (a, b);
        } else {
            for out in out {
                let mut sum = [S::default(); PIXELS];
                for (column, weight) in columns.iter().zip(weights) {
                    for j in 0..PIXELS {
                        sum[j] = sum[j].plus_product(*weight, column[j]);
                    }
                }
                *out = sum;
            }
        }
    }
}

/// Cross-correlation of images `[n, c, h, w]` with weights `[o, c / groups, kh, kw]`: `[n, o, oh, ow]`.
///
/// # Panics
/// If a length is another than the extents say.
pub fn convolution<S: Sum>(cpu: Cpu, e: &Extents, x: &[i32], weights: &[i32]) -> Vec<S> {
    e.check(x.len(), Some(weights.len()), e.images * e.output_image());
    let images: Vec<&[i32]> = x.chunks(e.image().max(1)).collect();
    cpu.map(images, |_, image| image_sums(cpu.simd, e, image, weights))
        .concat()
}

/// One image's outputs.
fn image_sums<S: Sum>(simd: Simd, e: &Extents, x: &[i32], weights: &[i32]) -> Vec<S> {
    let (pixels, taps, groups) = (e.pixels(), e.taps(), e.geometry.groups);
    let outputs = e.output / groups;
    let channels = e.input / groups;
    let mut y = vec![S::default(); e.output_image()];
    let mut columns = vec![0; taps * PIXELS];
    let mut strip = vec![S::default(); outputs * PIXELS];
    for group in 0..groups {
        let plane = e.size[0] * e.size[1];
        let x = &x[group * channels * plane..][..channels * plane];
        let weights = &weights[group * outputs * taps..][..outputs * taps];
        let y = &mut y[group * outputs * pixels..][..outputs * pixels];
        for start in (0..pixels).step_by(PIXELS) {
            unfold(e, x, start, &mut columns);
            S::multiply(simd, weights, &columns, &mut strip);
            let count = PIXELS.min(pixels - start);
            for (y, sums) in y.chunks_mut(pixels).zip(strip.chunks(PIXELS)) {
                y[start..start + count].copy_from_slice(&sums[..count]);
            }
        }
    }
    y
}

/// What the outputs from `start` on read, tap by tap; zeros beyond the image and behind the last.
fn unfold(e: &Extents, x: &[i32], start: usize, columns: &mut [i32]) {
    let Geometry {
        stride,
        padding,
        dilation,
        ..
    } = e.geometry;
    let [height, width] = e.size;
    let [_, across] = e.output_size();
    let count = PIXELS.min(e.pixels() - start);
    let mut rows = columns.chunks_exact_mut(PIXELS);
    for plane in x.chunks(height * width) {
        for ky in 0..e.kernel[0] {
            for kx in 0..e.kernel[1] {
                let Some(row) = rows.next() else { return };
                row.fill(0);
                let (mut oy, mut ox) = (start / across, start % across);
                for value in &mut row[..count] {
                    // (Wrapped around where it lies before the image: beyond every extent.)
                    let iy = (oy * stride[0] + ky * dilation[0]).wrapping_sub(padding[0]);
                    let ix = (ox * stride[1] + kx * dilation[1]).wrapping_sub(padding[1]);
                    if iy < height && ix < width {
                        *value = plane[iy * width + ix];
                    }
                    ox += 1;
                    if ox == across {
                        (oy, ox) = (oy + 1, 0);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::parallel::Pool;
    use super::*;
    use proptest::prelude::*;

    fn plain(e: &Extents, x: &[i32], weights: &[i32]) -> Vec<i64> {
        let g = e.geometry;
        let [height, width] = e.size;
        let [oh, ow] = e.output_size();
        let (channels, outputs) = (e.input / g.groups, e.output / g.groups);
        let mut y = Vec::new();
        for n in 0..e.images {
            for o in 0..e.output {
                for (oy, ox) in (0..oh).flat_map(|y| (0..ow).map(move |x| (y, x))) {
                    let mut sum = 0i64;
                    for c in 0..channels {
                        for (ky, kx) in
                            (0..e.kernel[0]).flat_map(|y| (0..e.kernel[1]).map(move |x| (y, x)))
                        {
                            let iy = (oy * g.stride[0] + ky * g.dilation[0]) as i64
                                - g.padding[0] as i64;
                            let ix = (ox * g.stride[1] + kx * g.dilation[1]) as i64
                                - g.padding[1] as i64;
                            if iy < 0 || ix < 0 || iy >= height as i64 || ix >= width as i64 {
                                continue;
                            }
                            let channel = o / outputs * channels + c;
                            let at = ((n * e.input + channel) * height + iy as usize) * width
                                + ix as usize;
                            let weight = ((o * channels + c) * e.kernel[0] + ky) * e.kernel[1] + kx;
                            sum += i64::from(x[at]) * i64::from(weights[weight]);
                        }
                    }
                    y.push(sum);
                }
            }
        }
        y
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_instruction_set_sums_as_the_plain_loops(
            images in 1usize..3, groups in 1usize..3, input in 1usize..4, output in 1usize..5,
            size in (3usize..11, 3usize..11), kernel in (1usize..4, 1usize..4),
            stride in (1usize..3, 1usize..3), padding in (0usize..3, 0usize..3), seed in any::<u32>(),
        ) {
            let e = Extents {
                images,
                input: input * groups,
                size: [size.0, size.1],
                output: output * groups,
                kernel: [kernel.0, kernel.1],
                geometry: Geometry {
                    stride: [stride.0, stride.1],
                    padding: [padding.0, padding.1],
                    dilation: [1, 1],
                    groups,
                    in_order: false,
                },
            };
            let numbers = |count: usize, salt: u32| -> Vec<i32> {
                let mut state = seed ^ salt;
                (0..count).map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as i32 - 128
                }).collect()
            };
            let x = numbers(e.images * e.image(), 1);
            let weights = numbers(e.output * e.taps(), 2);
            let expected = plain(&e, &x, &weights);
            for simd in Simd::available() {
                let cpu = Cpu { simd, pool: Pool::Rayon };
                prop_assert_eq!(&convolution::<i64>(cpu, &e, &x, &weights), &expected);
                let narrow = convolution::<i32>(cpu, &e, &x, &weights);
                prop_assert!(narrow.iter().map(|v| i64::from(*v)).eq(expected.iter().copied()));
            }
        }
    }
}
