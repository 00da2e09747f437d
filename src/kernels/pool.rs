//! Max pooling, both passes on slices. Nothing is kept between them but the input: which of a window's
//! values was the largest is found again on the way back.

use std::mem::MaybeUninit;

use super::parallel::{Cpu, with_scratch};
use super::simd::multiversion;

/// Shape of a max pooling. What lies beyond the input is smaller than any value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxPool {
    /// Extent of a window.
    pub kernel: [usize; 2],
    /// Step between windows, at least 1.
    pub stride: [usize; 2],
    /// Rows and columns before the input, less than a window's.
    pub padding: [usize; 2],
    /// Step between the values of a window, at least 1.
    pub dilation: [usize; 2],
    /// Whether a last window may reach beyond the padding.
    pub ceil: bool,
    /// Height and width of the output; every window holds a value of the input.
    pub output: [usize; 2],
}

impl MaxPool {
    /// The values of a window along an axis that lie in the input.
    fn taps(&self, axis: usize, output: usize, size: usize) -> impl Iterator<Item = usize> + use<> {
        let [stride, padding, dilation] =
            [self.stride, self.padding, self.dilation].map(|by_axis| by_axis[axis]);
        let start = output * stride;
        (0..self.kernel[axis])
            .filter_map(move |k| (start + k * dilation).checked_sub(padding))
            .filter(move |at| *at < size)
    }
}

/// Writes the largest value of each window, all of them: `y` is `[planes, oh, ow]` for `x`
/// `[planes, h, w]`. A value that is not a number is the largest.
///
/// # Panics
/// If a length is not the shape's.
pub fn forward(cpu: Cpu, p: &MaxPool, size: [usize; 2], x: &[f32], y: &mut [MaybeUninit<f32>]) {
    let (input, output) = lengths(p, size, x.len(), y.len());
    let planes = y.chunks_mut(output).zip(x.chunks(input)).collect();
    cpu.map(planes, |_, (y, x)| {
        with_scratch(|[largest, ..]| {
            for (row, y) in y.chunks_mut(p.output[1]).enumerate() {
                largest.clear();
                largest.resize(size[1], f32::NEG_INFINITY);
                for at in p.taps(0, row, size[0]) {
                    larger(cpu.simd, largest, &x[at * size[1]..][..size[1]]);
                }
                across(p, largest, y);
            }
        });
    });
}

/// Writes the gradient of the input, all of it: each window's to the first, by rows, of its largest.
///
/// # Panics
/// If a length is not the shape's.
pub fn backward(
    cpu: Cpu,
    p: &MaxPool,
    size: [usize; 2],
    x: &[f32],
    g: &[f32],
    gx: &mut [MaybeUninit<f32>],
) {
    let (input, output) = lengths(p, size, x.len(), g.len());
    assert_eq!(gx.len(), x.len(), "a gradient for each value");
    let planes = gx
        .chunks_mut(input)
        .zip(x.chunks(input).zip(g.chunks(output)));
    cpu.map(
        planes.collect(),
        |_, (gx, (x, g)): (&mut [MaybeUninit<f32>], _)| {
            gx.iter_mut().for_each(|gx| _ = gx.write(0.0));
            // SAFETY: all of it was written just now.
            let gx = unsafe { gx.assume_init_mut() };
            with_scratch(|[largest, rows, ..]| {
                for (row, g) in g.chunks(p.output[1]).enumerate() {
                    largest.clear();
                    largest.resize(size[1], f32::NEG_INFINITY);
                    rows.clear();
                    rows.resize(size[1], 0.0);
                    for (i, at) in p.taps(0, row, size[0]).enumerate() {
                        // (The first row counts also where all is minus infinity.)
                        let from = &x[at * size[1]..][..size[1]];
                        larger_where(cpu.simd, largest, rows, from, at as f32, i == 0);
                    }
                    for (column, g) in g.iter().enumerate() {
                        let mut taps = p.taps(1, column, size[1]);
                        let mut best = taps.next().expect("a window holds a value of the input");
                        for at in taps {
                            let (value, most) = (largest[at], largest[best]);
                            let equal = value == most || (value.is_nan() && most.is_nan());
                            if exceeds(value, most) || (equal && rows[at] < rows[best]) {
                                best = at;
                            }
                        }
                        gx[rows[best] as usize * size[1] + best] += g;
                    }
                }
            });
        },
    );
}

/// Values of an input's and an output's plane.
fn lengths(p: &MaxPool, size: [usize; 2], x: usize, y: usize) -> (usize, usize) {
    let (input, output) = (size[0] * size[1], p.output[0] * p.output[1]);
    assert!(
        input > 0 && output > 0 && x.is_multiple_of(input) && x / input * output == y,
        "input and output have the shape's lengths"
    );
    (input, output)
}

/// Whether a value takes the place of the largest so far.
#[inline(always)]
fn exceeds(value: f32, largest: f32) -> bool {
    value > largest || (value.is_nan() && !largest.is_nan())
}

#[inline(always)]
fn larger_body(largest: &mut [f32], row: &[f32]) {
    for (largest, value) in largest.iter_mut().zip(row) {
        *largest = if exceeds(*value, *largest) {
            *value
        } else {
            *largest
        };
    }
}

multiversion! {
    /// The larger of two rows, value by value.
    fn larger(largest: &mut [f32], row: &[f32]) = larger_body
}

#[inline(always)]
fn larger_where_body(largest: &mut [f32], rows: &mut [f32], row: &[f32], at: f32, is_first: bool) {
    for ((largest, place), value) in largest.iter_mut().zip(rows).zip(row) {
        let takes = is_first | exceeds(*value, *largest);
        *largest = if takes { *value } else { *largest };
        *place = if takes { at } else { *place };
    }
}

multiversion! {
    /// The same, and from which row it came (a number below 2^24, exact).
    fn larger_where(largest: &mut [f32], rows: &mut [f32], row: &[f32], at: f32, is_first: bool)
        = larger_where_body
}

/// The largest of each window of a row.
fn across(p: &MaxPool, row: &[f32], y: &mut [MaybeUninit<f32>]) {
    let [stride, padding] = [p.stride[1], p.padding[1]];
    for (column, y) in y.iter_mut().enumerate() {
        let start = column * stride;
        let largest = if p.kernel[1] == 3 && p.dilation[1] == 1 && start >= padding {
            // The usual window, where it lies inside.
            match row.get(start - padding..start - padding + 3) {
                Some([a, b, c]) => Some([a, b, c].into_iter().fold(f32::NEG_INFINITY, of_two)),
                _ => None,
            }
        } else {
            None
        };
        let any = || {
            let taps = p.taps(1, column, row.len());
            taps.fold(f32::NEG_INFINITY, |largest, at| of_two(largest, &row[at]))
        };
        y.write(largest.unwrap_or_else(any));
    }
}

#[inline(always)]
fn of_two(largest: f32, value: &f32) -> f32 {
    if exceeds(*value, largest) {
        *value
    } else {
        largest
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::parallel::Pool;
    use super::super::simd::Simd;
    use super::super::written;
    use super::*;

    /// By the definition: the first of the largest of each window.
    fn reference(p: &MaxPool, size: [usize; 2], x: &[f32], g: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let (input, output) = (size[0] * size[1], p.output[0] * p.output[1]);
        let (mut y, mut gx) = (vec![0.0; g.len()], vec![0.0; x.len()]);
        for at in 0..g.len() {
            let (plane, place) = (at / output, at % output);
            let mut best = None;
            for row in p.taps(0, place / p.output[1], size[0]) {
                for column in p.taps(1, place % p.output[1], size[1]) {
                    let from = plane * input + row * size[1] + column;
                    if best.is_none_or(|best: usize| exceeds(x[from], x[best])) {
                        best = Some(from);
                    }
                }
            }
            let best = best.expect("a value");
            y[at] = x[best];
            gx[best] += g[at];
        }
        (y, gx)
    }

    fn extent(size: usize, kernel: usize, stride: usize, padding: usize, dilation: usize) -> usize {
        let reach = (kernel - 1) * dilation + 1;
        (size + 2 * padding).saturating_sub(reach) / stride
            + usize::from(size + 2 * padding >= reach)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn both_passes_equal_the_definition(
            planes in 1usize..4, size in prop::array::uniform2(1usize..24),
            kernel in prop::array::uniform2(1usize..5), stride in prop::array::uniform2(1usize..4),
            padded in prop::array::uniform2(0usize..3), dilation in prop::array::uniform2(1usize..3),
            // Few values, so that many are equal, and some that are none.
            values in prop::collection::vec(prop_oneof![
                8 => (-3i8..3).prop_map(f32::from), 1 => Just(f32::NEG_INFINITY), 1 => Just(f32::NAN),
            ], 4 * 24 * 24),
        ) {
            let padding = [0, 1].map(|i| padded[i].min(kernel[i] / 2));
            let output = [0, 1].map(|i| extent(size[i], kernel[i], stride[i], padding[i], dilation[i]));
            let p = MaxPool { kernel, stride, padding, dilation, ceil: false, output };
            let holds = |axis: usize| (0..output[axis]).all(|o| p.taps(axis, o, size[axis]).next().is_some());
            prop_assume!(output[0] > 0 && output[1] > 0 && holds(0) && holds(1));
            let x = &values[..planes * size[0] * size[1]];
            let g: Vec<f32> = (0..planes * output[0] * output[1]).map(|i| i as f32 + 0.5).collect();
            let (expected_y, expected_gx) = reference(&p, size, x, &g);
            for simd in Simd::available() {
                let cpu = Cpu { simd, pool: Pool::Rayon };
                let (y, ()) = written(g.len(), |y| forward(cpu, &p, size, x, y));
                let (gx, ()) = written(x.len(), |gx| backward(cpu, &p, size, x, &g, gx));
                let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                prop_assert_eq!(bits(&y), bits(&expected_y));
                prop_assert_eq!(bits(&gx), bits(&expected_gx));
            }
        }
    }
}
