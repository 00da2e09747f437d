use proptest::prelude::*;

use super::*;
use crate::kernels::parallel::Pool;
use crate::kernels::{Simd, written};
use crate::quantizer::Grid;
use crate::quantizer::{Family, Parametrization, Quantizer, Rules};

fn grid(p: Parametrization) -> Grid {
    let quantizer = Quantizer::learned(p, false, Rules::Paper);
    quantizer.grid(match p.family() {
        Family::Uniform => [0.25, 1.75],
        Family::PowerOfTwo => [0.125, 2.0],
    })
}

/// What goes in, and the plain reference in f64 of what comes out.
struct Case {
    extent: Extent,
    activation: Activation,
    moments: Moments,
    x: Vec<f32>,
    residual: Option<Vec<f32>>,
    gamma: Vec<f32>,
    beta: Vec<f32>,
    g: Vec<f32>,
}

impl Case {
    fn inputs(&self) -> Inputs<'_> {
        Inputs {
            x: &self.x,
            residual: self.residual.as_deref(),
            gamma: &self.gamma,
            beta: &self.beta,
            epsilon: 1e-5,
            activation: self.activation,
            moments: self.moments,
            across: None,
            extent: self.extent,
        }
    }

    /// Runs forward and backward: output, gradients of input and residual, the rest.
    fn run(&self, cpu: Cpu) -> (Vec<f32>, Vec<f32>, Vec<f32>, Gradients) {
        let inputs = self.inputs();
        // Sums in the published code's order are its own matter; here the arithmetic behind them.
        let exact = Inputs {
            moments: Moments::Exact,
            ..inputs
        };
        let s = statistics(cpu, &exact);
        let (y, ()) = written(self.x.len(), |y| forward(cpu, &inputs, &s, y));
        let length = self.residual.as_ref().map_or(0, Vec::len);
        let (gx, (gr, gradients)) = written(self.x.len(), |gx| {
            written(length, |gr| backward(cpu, &inputs, &s, &self.g, gx, gr))
        });
        (y, gx, gr, gradients)
    }

    /// Output, gradients of input and residual, of gamma and beta, and the sums.
    fn reference(&self) -> ([Vec<f64>; 5], Sums) {
        let e = self.extent;
        let n = self.x.len();
        let (mut y, mut gx, mut gz) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
        let (mut gamma, mut beta) = (Vec::new(), Vec::new());
        let mut sums = Sums::default();
        for c in 0..e.channels {
            let own: Vec<usize> = (0..n).filter(|i| i / e.pixels % e.channels == c).collect();
            let count = own.len() as f64;
            let x = |i: usize| f64::from(self.x[i]);
            let mean = own.iter().map(|i| x(*i)).sum::<f64>() / count;
            let variance = own.iter().map(|i| (x(*i) - mean).powi(2)).sum::<f64>() / count;
            let deviation = (variance + 1e-5).sqrt();
            let normal = |i: usize| (x(i) - mean) / deviation;
            let (scale, shift) = (f64::from(self.gamma[c]), f64::from(self.beta[c]));
            for i in &own {
                let added = self.residual.as_ref().map_or(0.0, |r| f64::from(r[*i]));
                let z = normal(*i) * scale + shift + added;
                let g = self.g[*i];
                (y[*i], gz[*i]) = match &self.activation {
                    Activation::Identity => (z, f64::from(g)),
                    Activation::Relu => (z.max(0.0), if z > 0.0 { g.into() } else { 0.0 }),
                    Activation::Clip { low, high } => {
                        let (low, high) = (f64::from(*low), f64::from(*high));
                        let inside = low < z && z < high;
                        (z.clamp(low, high), if inside { g.into() } else { 0.0 })
                    }
                    Activation::Quantize(grid) => (
                        f64::from(grid.forward(z as f32)),
                        f64::from(grid.backward(z as f32, g, &mut sums)),
                    ),
                };
            }
            let sum: f64 = own.iter().map(|i| gz[*i]).sum();
            let product: f64 = own.iter().map(|i| gz[*i] * normal(*i)).sum();
            for i in &own {
                gx[*i] = scale / deviation * (gz[*i] - sum / count - normal(*i) * product / count);
            }
            gamma.push(product);
            beta.push(sum);
        }
        ([y, gx, gz, gamma, beta], sums)
    }

    /// Whether some activation lies so close to a threshold that f32 may round it the other way, or
    /// some channel's values so close to each other that normalising them makes much of rounding.
    fn ambiguous(&self) -> bool {
        let e = self.extent;
        let spread = |c: usize| {
            let rows = (0..e.images).flat_map(|image| row(&self.x, e, image, c));
            let bounds = rows.fold([f32::MAX, f32::MIN], |b, x| [b[0].min(*x), b[1].max(*x)]);
            bounds[1] - bounds[0]
        };
        if (0..e.channels).any(|c| spread(c) < 0.2) {
            return true;
        }
        let plain = Case {
            activation: Activation::Identity,
            moments: self.moments,
            x: self.x.clone(),
            residual: self.residual.clone(),
            gamma: self.gamma.clone(),
            beta: self.beta.clone(),
            g: self.g.clone(),
            extent: e,
        };
        let near = |z: f64, t: f64| (z - t).abs() < 1e-4 * (1.0 + z.abs());
        plain.reference().0[0]
            .iter()
            .any(|z| match &self.activation {
                Activation::Identity => false,
                Activation::Relu => near(*z, 0.0),
                Activation::Clip { low, high } => {
                    near(*z, (*low).into()) || near(*z, (*high).into())
                }
                Activation::Quantize(grid) => match grid.family {
                    Family::Uniform => {
                        near(*z, 0.0)
                            || near(*z, grid.q_max.into())
                            || (z / f64::from(grid.step))
                                .rem_euclid(1.0)
                                .clamp(0.499, 0.501)
                                == (z / f64::from(grid.step)).rem_euclid(1.0)
                    }
                    Family::PowerOfTwo => {
                        let half = (z.abs().log2() - 0.5).rem_euclid(1.0);
                        let whole = z.abs().log2().rem_euclid(1.0);
                        near(*z, 0.0)
                            || !(1e-3..0.999).contains(&half)
                            || !(1e-3..0.999).contains(&whole)
                    }
                },
            })
    }
}

fn wave(n: usize, seed: f32) -> Vec<f32> {
    (0..n)
        .map(|i| (i as f32 * 0.713 + seed).sin() * 1.5)
        .collect()
}

fn close(ours: &[f32], expected: &[f64]) -> bool {
    ours.len() == expected.len()
        && ours
            .iter()
            .zip(expected)
            .all(|(a, b)| (f64::from(*a) - b).abs() < 1e-4 * (1.0 + b.abs()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_passes_equal_the_reference(
        images in 1usize..5, channels in 1usize..5, pixels in 2usize..40, kind in 0usize..5,
        with_residual in any::<bool>(), in_order in any::<bool>(), seed in 0.0f32..6.0,
    ) {
        let n = images * channels * pixels;
        let case = Case {
            moments: if in_order { Moments::Sequential } else { Moments::Exact },
            extent: Extent { images, channels, pixels },
            activation: [
                Activation::Identity,
                Activation::Relu,
                Activation::Clip { low: -0.1, high: 0.6 },
                Activation::Quantize(grid(Parametrization::U3)),
                Activation::Quantize(grid(Parametrization::P3)),
            ][kind],
            x: wave(n, seed),
            residual: with_residual.then(|| wave(n, seed + 1.0)),
            gamma: (0..channels).map(|c| 0.7 + 0.2 * c as f32).collect(),
            beta: (0..channels).map(|c| 0.3 - 0.1 * c as f32).collect(),
            g: wave(n, seed + 2.0),
        };
        prop_assume!(!case.ambiguous());
        let ([y, gx, gz, gamma, beta], sums) = case.reference();
        for simd in Simd::available() {
            let (our_y, our_gx, our_gr, ours) = case.run(Cpu { simd, pool: Pool::Rayon });
            prop_assert!(close(&our_y, &y));
            prop_assert!(close(&our_gx, &gx));
            prop_assert!(case.residual.is_none() || close(&our_gr, &gz));
            prop_assert!(close(&ours.gamma, &gamma) && close(&ours.beta, &beta));
            for (a, b) in ours.sums.to_array().into_iter().zip(sums.to_array()) {
                prop_assert!((a - b).abs() < 1e-3 * (1.0 + b.abs()), "{} and {}", a, b);
            }
        }
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let extent = Extent {
        images: 9,
        channels: 7,
        pixels: 45,
    };
    let n = extent.images * extent.channels * extent.pixels;
    let case = Case {
        extent,
        activation: Activation::Quantize(grid(Parametrization::U3)),
        moments: Moments::Exact,
        x: wave(n, 0.0),
        residual: Some(wave(n, 1.0)),
        gamma: vec![0.9; 7],
        beta: vec![0.1; 7],
        g: wave(n, 2.0),
    };
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.expect("a pool")
            .install(|| case.run(Cpu::current(Pool::Rayon)))
    };
    let one = with(1);
    for threads in [2, 4] {
        assert_eq!(with(threads), one);
    }
}

#[test]
fn what_is_not_a_number_stays_so_through_every_activation() {
    let extent = Extent {
        images: 2,
        channels: 1,
        pixels: 19,
    };
    let mut x = wave(38, 0.0);
    x[7] = f32::NAN;
    let activations = [
        Activation::Identity,
        Activation::Relu,
        Activation::Quantize(grid(Parametrization::U3)),
        Activation::Quantize(grid(Parametrization::P3)),
    ];
    for simd in Simd::available() {
        let cpu = Cpu {
            simd,
            ..Cpu::current(Pool::Rayon)
        };
        for activation in activations {
            let inputs = Inputs {
                x: &x,
                residual: None,
                gamma: &[1.0],
                beta: &[0.0],
                epsilon: 1e-5,
                activation,
                moments: Moments::Exact,
                across: None,
                extent,
            };
            let statistics = statistics(cpu, &inputs);
            let (y, ()) = written(38, |y| forward(cpu, &inputs, &statistics, y));
            assert!(y.iter().all(|y| y.is_nan()), "{simd:?} {activation:?}");
        }
    }
}

/// What a rank came to: statistics, gradients of input and residual, the rest.
type Part = (Vec<f32>, Vec<f32>, Vec<f32>, Gradients);

/// The images of a rank's share of a case.
fn share(case: &Case, images: std::ops::Range<usize>) -> Case {
    let e = case.extent;
    let row = e.channels * e.pixels;
    let of = |values: &[f32]| values[images.start * row..images.end * row].to_vec();
    Case {
        extent: Extent {
            images: images.len(),
            ..e
        },
        activation: case.activation,
        moments: case.moments,
        x: of(&case.x),
        residual: case.residual.as_deref().map(of),
        gamma: case.gamma.clone(),
        beta: case.beta.clone(),
        g: of(&case.g),
    }
}

#[test]
fn ranks_normalise_as_one_batch_does() {
    let extent = Extent {
        images: 7,
        channels: 3,
        pixels: 45,
    };
    let n = extent.images * extent.channels * extent.pixels;
    let cpu = Cpu::current(Pool::Rayon);
    for residual in [None, Some(wave(n, 1.0))] {
        let case = Case {
            extent,
            activation: Activation::Quantize(grid(Parametrization::U3)),
            moments: Moments::Exact,
            // Far from zero, and each image elsewhere.
            x: wave(n, 0.0)
                .iter()
                .enumerate()
                .map(|(i, v)| v + 50.0 + (i / 135) as f32)
                .collect(),
            residual,
            gamma: vec![0.9, 1.1, 0.4],
            beta: vec![0.1, 0.0, 0.3],
            g: wave(n, 2.0),
        };
        let alone = super::statistics(cpu, &case.inputs());
        let (_, gx, gr, gradients) = case.run(cpu);
        for size in [2, 3] {
            let parts: Vec<Part> = std::thread::scope(|scope| {
                let ranks = crate::kernels::ranks::threads(size)
                    .into_iter()
                    .map(|group| {
                        let of = crate::dataset::Share {
                            index: group.rank(),
                            of: size,
                        };
                        let own = share(&case, of.range(extent.images));
                        scope.spawn(move || {
                            let across = Across { group, images: 7 };
                            let inputs = Inputs {
                                across: Some(&across),
                                ..own.inputs()
                            };
                            let statistics = super::statistics(cpu, &inputs);
                            let count = own.x.len();
                            let residual = own.residual.as_ref().map_or(0, Vec::len);
                            let (gx, (gr, gradients)) = written(count, |gx| {
                                written(residual, |gr| {
                                    backward(cpu, &inputs, &statistics, &own.g, gx, gr)
                                })
                            });
                            (statistics, gx, gr, gradients)
                        })
                    });
                let ranks: Vec<_> = ranks.collect();
                ranks.into_iter().map(|r| r.join().expect("done")).collect()
            });
            let exact = |values: &[f32]| values.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
            assert!(parts.iter().all(|p| close(&p.0, &exact(&alone))));
            let joined = |of: fn(&Part) -> &Vec<f32>| {
                parts
                    .iter()
                    .flat_map(|p| of(p).clone())
                    .collect::<Vec<f32>>()
            };
            assert!(close(&joined(|p| &p.1), &exact(&gx)));
            assert!(close(&joined(|p| &p.2), &exact(&gr)));
            let gamma = (0..3).map(|c| parts.iter().map(|p| p.3.gamma[c]).sum());
            assert!(close(
                &gamma.collect::<Vec<f32>>(),
                &exact(&gradients.gamma)
            ));
        }
    }
}
