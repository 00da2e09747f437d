//! The CPU kernels one by one on the shapes of ResNet-20, ResNet-18 and MobileNetV2's depthwise convolutions,
//! against the peak of a plain loop of fused multiply-adds on the same threads, and against the speed at
//! which they copy memory: `cargo bench --bench kernels`.
//!
//! One JSON object per line. Times are medians; work is counted as two operations per
//! multiply-accumulate of the plain sum, so that kernels which save products can exceed the peak. Bytes
//! are those of all that goes in and comes out, once.
//! Words behind `--` choose by label: `-- "weight gradient Avx512 16-16x32"`.

#![allow(
    unsafe_code,
    reason = "the peak is measured in loops for an instruction set"
)]

use std::hint::black_box;
use std::time::Instant;

use bitscope::kernels::conv::{self, Extents, Geometry};
use bitscope::kernels::norm::{self, Activation, Extent, Inputs, Moments};
use bitscope::kernels::parallel::{Cpu, Pool};
use bitscope::kernels::{Simd, quantize};
use bitscope::quantizer::{Parametrization, Quantizer, Rules};
use serde_json::json;

const IMAGES: usize = 128;
const ROUNDS: usize = 9;

fn main() {
    let limits = Limits {
        peak: peak(),
        bandwidth: bandwidth(),
    };
    let line = json!({
        "kernel": "limits", "gflops": limits.peak / 1e9, "gbytes_per_s": limits.bandwidth / 1e9,
    });
    println!("{line}");
    for (images, input, output, size, stride) in [
        (128, 3, 16, 32, 1),
        (128, 16, 16, 32, 1),
        (128, 16, 32, 32, 2),
        (128, 32, 32, 16, 1),
        (128, 32, 64, 16, 2),
        (128, 64, 64, 8, 1),
        (16, 64, 64, 56, 1),
        (16, 128, 128, 28, 1),
        (16, 256, 256, 14, 1),
        (16, 512, 512, 7, 1),
    ] {
        let geometry = Geometry::square(stride, 1);
        let e = Extents {
            images,
            input,
            size: [size, size],
            output,
            kernel: [3, 3],
            geometry,
        };
        convolution(&e, limits);
    }
    for (channels, size, kernel, stride) in [
        (32, 112, 3, 1),
        (96, 112, 3, 2),
        (144, 56, 3, 1),
        (192, 28, 3, 1),
        (384, 14, 3, 1),
        (960, 7, 3, 1),
        (144, 56, 5, 2),
        (240, 28, 5, 1),
    ] {
        let geometry = Geometry {
            groups: channels,
            ..Geometry::square(stride, kernel / 2)
        };
        let e = Extents {
            images: 16,
            input: channels,
            size: [size, size],
            output: channels,
            kernel: [kernel, kernel],
            geometry,
        };
        convolution(&e, limits);
    }
    elementwise(16, 32);
}

/// What the threads can do at most.
#[derive(Clone, Copy)]
struct Limits {
    /// Operations per second.
    peak: f64,
    /// Bytes per second that are read and written while memory is copied.
    bandwidth: f64,
}

fn median(mut work: impl FnMut()) -> f64 {
    work();
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let started = Instant::now();
            work();
            started.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[ROUNDS / 2]
}

/// The median of `work`, where the command line names no kernels or one whose label holds it.
fn measured(label: &str, work: &mut dyn FnMut()) -> Option<f64> {
    let mut names = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .peekable();
    let wanted = names.peek().is_none() || names.any(|name| label.contains(&name));
    wanted.then(|| median(work))
}

fn values(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * 0.37).sin()).collect()
}

fn convolution(e: &Extents, limits: Limits) {
    let [height, width] = e.output_size();
    let input = e.images * e.input * e.size[0] * e.size[1];
    let output = e.images * e.output * height * width;
    let taps = e.input / e.geometry.groups * e.kernel[0] * e.kernel[1];
    let (x, g, w) = (values(input), values(output), values(e.output * taps));
    let operations = 2.0 * (output * taps) as f64;
    let bytes = 4.0 * (input + output + w.len()) as f64;
    let what = match e.geometry.groups {
        1 => "",
        _ => "depthwise ",
    };
    let (channels, size) = ([e.input, e.output], e.size[0]);
    let n = input.max(output);
    let mut out = Vec::with_capacity(n);
    for simd in Simd::available() {
        let cpu = Cpu {
            simd,
            pool: Pool::Rayon,
        };
        let report = |kernel: &str, work: &mut dyn FnMut()| {
            let kernel = format!("{what}{kernel}");
            let shape = format!("{}-{}x{}", e.input, e.output, e.size[0]);
            let Some(seconds) = measured(&format!("{kernel} {simd:?} {shape}"), work) else {
                return;
            };
            let line = json!({
                "kernel": kernel, "simd": format!("{simd:?}"), "channels": channels, "size": size,
                "kernel_size": e.kernel[0], "stride": e.geometry.stride[0],
                "ms": seconds * 1e3, "gflops": operations / seconds / 1e9,
                "share_of_peak": operations / seconds / limits.peak,
                "share_of_bandwidth": bytes / seconds / limits.bandwidth,
            });
            println!("{line}");
        };
        let out = &mut out.spare_capacity_mut()[..n];
        let y = &mut out[..output];
        report("forward", &mut || conv::forward(cpu, e, &x, &w, y));
        let gx = &mut out[..input];
        report("input gradient", &mut || {
            conv::input_gradient(cpu, e, &w, &g, None, gx)
        });
        report("weight gradient", &mut || {
            drop(black_box(conv::weight_gradient(cpu, e, &x, &g)));
        });
    }
}

fn elementwise(channels: usize, size: usize) {
    let n = IMAGES * channels * size * size;
    let (x, g) = (values(n), values(n));
    let (gamma, beta) = (vec![1.0; channels], vec![0.0; channels]);
    let quantizer = Quantizer::learned(Parametrization::U3, false, Rules::Paper);
    let grid = quantizer.grid([0.125, 1.0]);
    let mut out = Vec::with_capacity(n);
    let mut other = Vec::with_capacity(n);
    for simd in Simd::available() {
        let cpu = Cpu {
            simd,
            pool: Pool::Rayon,
        };
        let report = |kernel: &str, bytes: usize, work: &mut dyn FnMut()| {
            let shape = format!("{channels}x{size}");
            let Some(seconds) = measured(&format!("{kernel} {simd:?} {shape}"), work) else {
                return;
            };
            let line = json!({
                "kernel": kernel, "simd": format!("{simd:?}"), "channels": channels, "size": size,
                "ms": seconds * 1e3, "gbytes_per_s": bytes as f64 / seconds / 1e9,
            });
            println!("{line}");
        };
        let y = &mut out.spare_capacity_mut()[..n];
        let z = &mut other.spare_capacity_mut()[..n];
        report("quantize", 8 * n, &mut || {
            quantize::forward(cpu, &[grid], x.len(), &x, y)
        });
        report("quantize backward", 12 * n, &mut || {
            _ = black_box(quantize::backward(cpu, &[grid], x.len(), &x, &g, y));
        });
        for (name, activation) in [
            ("quantizer", Activation::Quantize(grid)),
            ("relu", Activation::Relu),
        ] {
            let inputs = Inputs {
                x: &x,
                residual: Some(&g),
                gamma: &gamma,
                beta: &beta,
                epsilon: 1e-5,
                activation,
                moments: Moments::Exact,
                across: None,
                extent: Extent {
                    images: IMAGES,
                    channels,
                    pixels: size * size,
                },
            };
            let statistics = norm::statistics(cpu, &inputs);
            report("norm statistics", 4 * n, &mut || {
                _ = black_box(norm::statistics(cpu, &inputs));
            });
            report(&format!("norm and {name} forward"), 12 * n, &mut || {
                norm::forward(cpu, &inputs, &statistics, y)
            });
            report(&format!("norm and {name} backward"), 20 * n, &mut || {
                _ = black_box(norm::backward(cpu, &inputs, &statistics, &g, y, z));
            });
        }
    }
}

/// Bytes per second, read and written, of all threads that copy more than any cache holds.
fn bandwidth() -> f64 {
    const FLOATS: usize = 1 << 25;
    let (from, mut to) = (values(FLOATS), vec![0f32; FLOATS]);
    let share = FLOATS.div_ceil(rayon::current_num_threads());
    let seconds = median(|| {
        rayon::scope(|scope| {
            for (to, from) in to.chunks_mut(share).zip(from.chunks(share)) {
                scope.spawn(move |_| to.copy_from_slice(black_box(from)));
            }
        });
    });
    (8 * FLOATS) as f64 / seconds
}

/// Operations per second of all threads in a loop of fused multiply-adds on registers.
fn peak() -> f64 {
    const STEPS: usize = 20_000_000;
    let threads = rayon::current_num_threads();
    let seconds = median(|| {
        rayon::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|_| {
                    black_box(multiply_adds(STEPS));
                });
            }
        });
    });
    let lanes = match Simd::current() {
        Simd::Avx512 { .. } => 16,
        Simd::Avx2 { .. } => 8,
        Simd::Portable => 4,
    };
    (threads * STEPS * CHAINS * lanes * 2) as f64 / seconds
}

/// Independent chains: enough to hide the latency of both units.
const CHAINS: usize = 12;

fn multiply_adds(steps: usize) -> f32 {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma")]
        fn avx2(steps: usize) -> f32 {
            chains::<8>(steps)
        }
        #[target_feature(enable = "avx512f,avx2,fma")]
        fn avx512(steps: usize) -> f32 {
            chains::<16>(steps)
        }
        match Simd::current() {
            // SAFETY: `Simd::current` detected these features on this processor.
            Simd::Avx512 { .. } => return unsafe { avx512(steps) },
            // SAFETY: as above.
            Simd::Avx2 { .. } => return unsafe { avx2(steps) },
            Simd::Portable => {}
        }
    }
    plain(steps)
}

#[inline(always)]
fn chains<const L: usize>(steps: usize) -> f32 {
    let (a, b) = (black_box([1.000_000_1f32; L]), black_box([1e-9f32; L]));
    macro_rules! run {
        ($($c:ident),*) => {{
            $(let mut $c = black_box([1f32; L]);)*
            for _ in 0..steps {
                $(for l in 0..L { $c[l] = $c[l].mul_add(a[l], b[l]); })*
            }
            let mut sum = 0.0;
            $(sum += $c.iter().sum::<f32>();)*
            sum
        }};
    }
    run!(c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11)
}

fn plain(steps: usize) -> f32 {
    let (a, b) = (black_box([1.000_000_1f32; 4]), black_box([1e-9f32; 4]));
    let mut c = black_box([[1f32; 4]; CHAINS]);
    for _ in 0..steps {
        for c in &mut c {
            for l in 0..4 {
                c[l] = c[l] * a[l] + b[l];
            }
        }
    }
    c.iter().flatten().sum()
}
