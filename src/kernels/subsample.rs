//! Shortcut A of residual networks: every `stride`-th pixel, and zeros for the channels that a
//! block adds. Both passes on slices.

use std::mem::MaybeUninit;

use super::parallel::Cpu;

/// Shape of a subsampling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subsampling {
    /// Images.
    pub images: usize,
    /// Channels of the input.
    pub channels: usize,
    /// Height and width of the input.
    pub size: [usize; 2],
    /// Step between pixels, at least 1.
    pub stride: usize,
    /// Channels of zeros behind the input's.
    pub extra: usize,
}

impl Subsampling {
    /// Height and width of the output.
    pub fn output_size(&self) -> [usize; 2] {
        self.size.map(|n| n.div_ceil(self.stride))
    }

    fn input_image(&self) -> usize {
        self.channels * self.size[0] * self.size[1]
    }

    fn output_image(&self) -> usize {
        let [height, width] = self.output_size();
        (self.channels + self.extra) * height * width
    }
}

/// Writes the output `[n, c + extra, h', w']`, all of it.
///
/// # Panics
/// If a length is not the shape's.
pub fn forward(cpu: Cpu, s: &Subsampling, x: &[f32], y: &mut [MaybeUninit<f32>]) {
    let (input, output) = (s.input_image(), s.output_image());
    assert!(
        x.len() == s.images * input && y.len() == s.images * output,
        "input and output have the shape's lengths"
    );
    let images = y
        .chunks_mut(output.max(1))
        .zip(x.chunks(input.max(1)))
        .collect();
    let width = s.size[1];
    let [_, out_width] = s.output_size();
    cpu.map(images, |_, (y, x)| {
        let rows = x.chunks_exact(width).enumerate();
        let kept = rows.filter(|(row, _)| (row % s.size[0]).is_multiple_of(s.stride));
        let mut outputs = y.chunks_exact_mut(out_width);
        for ((_, row), y) in kept.zip(&mut outputs) {
            for (y, x) in y.iter_mut().zip(row.iter().step_by(s.stride)) {
                y.write(*x);
            }
        }
        for y in outputs {
            y.iter_mut().for_each(|y| _ = y.write(0.0));
        }
    });
}

/// Writes the gradient of the input, all of it.
///
/// # Panics
/// If a length is not the shape's.
pub fn backward(cpu: Cpu, s: &Subsampling, g: &[f32], gx: &mut [MaybeUninit<f32>]) {
    let (input, output) = (s.input_image(), s.output_image());
    assert!(
        gx.len() == s.images * input && g.len() == s.images * output,
        "input and output have the shape's lengths"
    );
    let images = gx
        .chunks_mut(input.max(1))
        .zip(g.chunks(output.max(1)))
        .collect();
    let width = s.size[1];
    let [_, out_width] = s.output_size();
    cpu.map(images, |_, (gx, g)| {
        let mut upstream = g.chunks_exact(out_width);
        for (row, gx) in gx.chunks_exact_mut(width).enumerate() {
            gx.iter_mut().for_each(|gx| _ = gx.write(0.0));
            if !(row % s.size[0]).is_multiple_of(s.stride) {
                continue;
            }
            let g = upstream.next().expect("one row per row that was kept");
            for (gx, g) in gx.iter_mut().step_by(s.stride).zip(g) {
                gx.write(*g);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::parallel::Pool;
    use super::super::written;
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn both_passes_equal_the_definition(
            images in 1usize..4, channels in 1usize..4, size in (1usize..9, 1usize..9),
            stride in 1usize..4, extra in 0usize..3,
        ) {
            let s = Subsampling { images, channels, size: [size.0, size.1], stride, extra };
            let [oh, ow] = s.output_size();
            let x: Vec<f32> = (0..images * s.input_image()).map(|i| i as f32 + 1.0).collect();
            let g: Vec<f32> = (0..images * s.output_image()).map(|i| i as f32 + 0.5).collect();
            let cpu = Cpu::current(Pool::Rayon);
            let (y, ()) = written(g.len(), |y| forward(cpu, &s, &x, y));
            let (gx, ()) = written(x.len(), |gx| backward(cpu, &s, &g, gx));
            let mut expected_gx = vec![0.0; x.len()];
            for n in 0..images {
                for c in 0..channels + extra {
                    for (i, j) in (0..oh).flat_map(|i| (0..ow).map(move |j| (i, j))) {
                        let at = ((n * (channels + extra) + c) * oh + i) * ow + j;
                        if c >= channels {
                            prop_assert_eq!(y[at], 0.0);
                            continue;
                        }
                        let from = ((n * channels + c) * size.0 + i * stride) * size.1 + j * stride;
                        prop_assert_eq!(y[at], x[from]);
                        expected_gx[from] = g[at];
                    }
                }
            }
            prop_assert_eq!(gx, expected_gx);
        }
    }
}
