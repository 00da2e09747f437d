//! Every path against a plain reference in f64.

use proptest::prelude::*;

use super::super::parallel::Pool;
use super::super::simd::Simd;
use super::super::written;
use super::*;

/// The plain reference, in f64.
fn reference(e: &Extents, x: &[f32], w: &[f32], mut visit: impl FnMut(usize, usize, usize, f64)) {
    let [oh, ow] = e.output_size();
    let (gi, go) = (e.input / e.geometry.groups, e.output / e.geometry.groups);
    for n in 0..e.images {
        for o in 0..e.output {
            for (oy, ox) in (0..oh).flat_map(|y| (0..ow).map(move |x| (y, x))) {
                for c in 0..gi {
                    for (ky, kx) in
                        (0..e.kernel[0]).flat_map(|y| (0..e.kernel[1]).map(move |x| (y, x)))
                    {
                        let g = e.geometry;
                        let tap = |axis: usize, o: usize, k: usize| {
                            (o * g.stride[axis] + k * g.dilation[axis]) as isize
                                - g.padding[axis] as isize
                        };
                        let (iy, ix) = (tap(0, oy, ky), tap(1, ox, kx));
                        let inside = iy >= 0
                            && ix >= 0
                            && (iy as usize) < e.size[0]
                            && (ix as usize) < e.size[1];
                        if inside {
                            let channel = o / go * gi + c;
                            let xi = ((n * e.input + channel) * e.size[0] + iy as usize)
                                * e.size[1]
                                + ix as usize;
                            let wi = ((o * gi + c) * e.kernel[0] + ky) * e.kernel[1] + kx;
                            let yi = ((n * e.output + o) * oh + oy) * ow + ox;
                            visit(yi, xi, wi, f64::from(x[xi]) * f64::from(w[wi]));
                        }
                    }
                }
            }
        }
    }
}

/// A sum of products, and of their magnitudes.
#[derive(Clone, Copy, Default)]
struct Sum {
    value: f64,
    magnitude: f64,
}

impl Sum {
    fn add(&mut self, product: f64) {
        self.value += product;
        self.magnitude += product.abs();
    }
}

/// Rounding errors are relative to the magnitudes of what is summed. Where a tile's sums are taken
/// together, that is also what only its other outputs are made of: in a corner, many times its own.
fn close(ours: &[f32], expected: &[Sum]) -> bool {
    let largest = expected.iter().map(|s| s.magnitude).fold(0.0, f64::max);
    let bound = |s: &Sum| 1e-6 + 5e-7 * largest + 4e-6 * s.magnitude;
    let near = |(a, b): (&f32, &Sum)| (f64::from(*a) - b.value).abs() <= bound(b);
    ours.len() == expected.len() && ours.iter().zip(expected).all(near)
}

fn values(n: usize, seed: f32) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * 0.7 + seed).sin()).collect()
}

/// All three passes on every path against the reference.
fn compare(e: Extents) -> Result<(), TestCaseError> {
    let x = values(e.images * e.image(), 0.0);
    let w = values(e.output * e.taps(), 1.0);
    let outputs = e.images * e.output_image();
    let g = values(outputs, 2.0);
    let [mut ry, mut rx, mut rw] = [outputs, x.len(), w.len()].map(|n| vec![Sum::default(); n]);
    reference(&e, &x, &w, |yi, xi, wi, product| {
        ry[yi].add(product);
        rx[xi].add(f64::from(g[yi]) * f64::from(w[wi]));
        rw[wi].add(f64::from(g[yi]) * f64::from(x[xi]));
    });
    for simd in Simd::available() {
        let cpu = Cpu {
            simd,
            pool: Pool::Rayon,
        };
        let (y, ()) = written(outputs, |y| forward(cpu, &e, &x, &w, y));
        prop_assert!(close(&y, &ry));
        let (gx, ()) = written(x.len(), |gx| input_gradient(cpu, &e, &w, &g, None, gx));
        prop_assert!(close(&gx, &rx));
        let (sum, ()) = written(x.len(), |gx| input_gradient(cpu, &e, &w, &g, Some(&x), gx));
        let expected: Vec<f32> = gx.iter().zip(&x).map(|(g, x)| g + x).collect();
        let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5 * (1.0 + b.abs());
        prop_assert!(sum.iter().zip(&expected).all(near));
        prop_assert!(close(&weight_gradient(cpu, &e, &x, &g), &rw));
    }
    Ok(())
}

#[test]
fn a_corner_of_few_products_is_as_exact_as_its_tile() {
    let geometry = Geometry::square(1, 2);
    let e = Extents {
        images: 3,
        input: 18,
        size: [11, 9],
        output: 10,
        kernel: [3, 3],
        geometry,
    };
    compare(e).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn three_by_three_equals_the_reference(
        images in 1usize..11, input in 1usize..20, output in 1usize..20,
        size in (1usize..20, 1usize..20), stride in 1usize..4, padding in 0usize..3,
    ) {
        let geometry = Geometry::square(stride, padding);
        let size = [size.0, size.1].map(|s| s.max(3 - 2 * padding.min(1)));
        compare(Extents { images, input, size, output, kernel: [3, 3], geometry })?;
    }

    #[test]
    fn every_shape_equals_the_reference(
        images in 1usize..11, groups in 1usize..4, input in 1usize..4, output in 1usize..4,
        size in (1usize..9, 1usize..9), kernel in (1usize..6, 1usize..6),
        stride in (1usize..4, 1usize..4), padding in (0usize..3, 0usize..3),
        dilation in (1usize..3, 1usize..3), in_order in any::<bool>(),
    ) {
        let least = |kernel: usize, dilation: usize, padding: usize| {
            ((kernel - 1) * dilation + 1).saturating_sub(2 * padding).max(1)
        };
        let size = [
            size.0.max(least(kernel.0, dilation.0, padding.0)),
            size.1.max(least(kernel.1, dilation.1, padding.1)),
        ];
        let e = Extents {
            images, input: input * groups, size, output: output * groups,
            kernel: [kernel.0, kernel.1],
            geometry: Geometry {
                stride: stride.into(), padding: padding.into(), dilation: dilation.into(), groups,
                in_order,
            },
        };
        compare(e)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pointwise_equals_the_reference(
        images in 1usize..10, groups in 1usize..3, input in 1usize..7, output in 1usize..7,
        size in (8usize..20, 8usize..20),
    ) {
        let e = Extents {
            images, input: input * groups, size: [size.0, size.1], output: output * groups,
            kernel: [1; 2],
            geometry: Geometry { groups, ..Geometry::square(1, 0) },
        };
        compare(e)?;
    }

    #[test]
    fn depthwise_equals_the_reference(
        images in 1usize..4, channels in 2usize..6, size in (1usize..40, 1usize..40),
        kernel in 0usize..3, stride in 1usize..3, padding in 0usize..16,
    ) {
        let kernel: usize = [3, 5, 7][kernel];
        let least = kernel.saturating_sub(2 * padding).max(1);
        let e = Extents {
            images, input: channels, size: [size.0.max(least), size.1.max(least)], output: channels,
            kernel: [kernel; 2],
            geometry: Geometry { groups: channels, ..Geometry::square(stride, padding) },
        };
        prop_assert!(depthwise::fits(&e));
        compare(e)?;
    }
}

#[test]
fn sums_on_the_grids_of_a_quantizer_are_exact() {
    let geometry = Geometry::square(1, 1);
    let e = Extents {
        images: 3,
        input: 20,
        size: [9, 12],
        output: 16,
        kernel: [3, 3],
        geometry,
    };
    assert!(winograd::fits(&e), "the kernel that takes sums apart");
    let levels = |count: usize, levels: usize, least: f32, step: f32| -> Vec<f32> {
        (0..count)
            .map(|i| least + (i * 7919 % levels) as f32 * step)
            .collect()
    };
    let x = levels(e.images * e.image(), 16, 0.0, 0.25);
    let w = levels(e.output * e.taps(), 15, -7.0 / 32.0, 1.0 / 32.0);
    let mut expected = vec![0f64; e.images * e.output * e.pixels()];
    reference(&e, &x, &w, |y, _, _, product| expected[y] += product);
    for simd in Simd::available() {
        let cpu = Cpu {
            simd,
            pool: Pool::Rayon,
        };
        let (y, ()) = written(expected.len(), |y| forward(cpu, &e, &x, &w, y));
        let equal = y.iter().zip(&expected).all(|(y, e)| f64::from(*y) == *e);
        assert!(equal, "{simd:?}");
    }
}

#[test]
fn sums_do_not_depend_on_the_number_of_threads() {
    // By outer products, by tiles, by columns, depthwise.
    for (input, output, groups) in [(3, 5, 1), (16, 8, 1), (6, 4, 2), (6, 6, 6)] {
        let geometry = Geometry {
            groups,
            ..Geometry::square(1, 1)
        };
        let e = Extents {
            images: 37,
            input,
            size: [9, 9],
            output,
            kernel: [3, 3],
            geometry,
        };
        let x = values(e.images * e.image(), 0.0);
        let w = values(e.output * e.taps(), 1.0);
        let g = values(e.images * e.output_image(), 2.0);
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            let cpu = Cpu::current(Pool::Rayon);
            pool.expect("a pool").install(|| {
                let (y, ()) = written(g.len(), |y| forward(cpu, &e, &x, &w, y));
                let (gx, ()) = written(x.len(), |gx| input_gradient(cpu, &e, &w, &g, None, gx));
                [y, gx, weight_gradient(cpu, &e, &x, &g)]
            })
        };
        let one = with(1);
        for threads in [2, 4] {
            assert_eq!(with(threads), one);
        }
    }
}

#[test]
fn what_an_earlier_shape_left_behind_is_not_read() {
    let extents = |images, size, [input, output]: [usize; 2], stride| Extents {
        images,
        input,
        size,
        output,
        kernel: [3, 3],
        geometry: Geometry::square(stride, 1),
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    pool.expect("a pool").install(|| {
        for simd in Simd::available() {
            let cpu = Cpu {
                simd,
                pool: Pool::Rayon,
            };
            for (stride, channels) in [(1, [19, 9]), (2, [19, 9]), (1, [5, 3])] {
                let e = extents(9, [33, 31], [40, 40], stride);
                let n = e.images * e.image().max(e.output_image());
                let (nan, w) = (vec![f32::NAN; n], vec![f32::NAN; e.output * e.taps()]);
                let (x, g) = (
                    &nan[..e.images * e.image()],
                    &nan[..e.images * e.output_image()],
                );
                written(g.len(), |y| forward(cpu, &e, x, &w, y));
                written(x.len(), |gx| input_gradient(cpu, &e, &w, g, None, gx));
                weight_gradient(cpu, &e, x, g);
                let small = compare(extents(3, [7, 5], channels, stride));
                small.expect("finite and right");
            }
        }
    });
}
