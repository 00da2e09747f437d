//! Fake quantization of slices: one pass forward, one pass backward.
//!
//! The scalar reference is [`Grid::forward`] and [`Grid::backward`]; these loops compute the same
//! without branches. Gradient sums are taken in lanes over chunks of fixed length and added up in
//! f64 in chunk order, so they do not depend on the number of threads.

use std::mem::MaybeUninit;
use std::sync::Arc;

use super::parallel::Cpu;
use super::simd::multiversion;
use crate::quantizer::{Family, Grid, Rules, Sums};

/// Elements per chunk: the unit of work and of summation.
pub const CHUNK: usize = 8192;
const LANES: usize = 16;

/// The grids of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub enum Grids {
    /// One for all of it.
    One(Grid),
    /// One for every index of an axis, such as a step size for each output channel of a weight.
    Along {
        /// The axis.
        axis: usize,
        /// As many as the axis is long.
        grids: Arc<[Grid]>,
    },
}

impl From<Grid> for Grids {
    fn from(grid: Grid) -> Self {
        Self::One(grid)
    }
}

impl Grids {
    /// All of them, in the order of the axis.
    pub fn all(&self) -> &[Grid] {
        match self {
            Self::One(grid) => std::slice::from_ref(grid),
            Self::Along { grids, .. } => grids,
        }
    }

    /// Elements of a tensor of this shape that lie one behind the other on one grid: its rows take the
    /// grids in turn.
    ///
    /// # Panics
    /// If there are not as many grids as the axis is long.
    pub fn row(&self, shape: &[usize]) -> usize {
        match self {
            Self::One(_) => shape.iter().product(),
            Self::Along { axis, grids } => {
                assert_eq!(shape[*axis], grids.len(), "a grid for every index");
                shape[axis + 1..].iter().product()
            }
        }
    }
}

/// Writes Q(x) for every element; rows of so many elements take the grids in turn.
///
/// # Panics
/// If the lengths differ.
pub fn forward(cpu: Cpu, grids: &[Grid], row: usize, x: &[f32], y: &mut [MaybeUninit<f32>]) {
    assert_eq!(x.len(), y.len(), "input and output have the same length");
    let rows = x.chunks(row.max(1)).zip(y.chunks_mut(row.max(1)));
    let chunks = rows.enumerate().flat_map(|(r, (x, y))| {
        let grid = &grids[r % grids.len()];
        let chunks = x.chunks(CHUNK).zip(y.chunks_mut(CHUNK));
        chunks.map(move |(x, y)| (grid, x, y))
    });
    cpu.map(chunks.collect(), |_, (grid, x, y)| {
        forward_chunk(cpu.simd, grid, x, y);
    });
}

/// Writes dL/dx for upstream gradients `g` and returns the sums behind the parameter gradients, of every
/// grid; rows of so many elements take the grids in turn.
///
/// # Panics
/// If the lengths differ.
pub fn backward(
    cpu: Cpu,
    grids: &[Grid],
    row: usize,
    x: &[f32],
    g: &[f32],
    gx: &mut [MaybeUninit<f32>],
) -> Vec<Sums> {
    assert!(
        x.len() == g.len() && x.len() == gx.len(),
        "one length for all three"
    );
    let row = row.max(1);
    let rows = x.chunks(row).zip(g.chunks(row)).zip(gx.chunks_mut(row));
    let chunks = rows.enumerate().flat_map(|(r, ((x, g), gx))| {
        let of = r % grids.len();
        let chunks = x.chunks(CHUNK).zip(g.chunks(CHUNK));
        let chunks = chunks.zip(gx.chunks_mut(CHUNK));
        chunks.map(move |((x, g), gx)| (of, x, g, gx))
    });
    let parts = cpu.map(chunks.collect(), |_, (of, x, g, gx)| {
        (of, backward_chunk(cpu.simd, &grids[of], x, g, gx))
    });
    let mut totals = vec![Sums::default(); grids.len()];
    for (of, part) in parts {
        totals[of].add(part);
    }
    totals
}

multiversion! {
    /// [`forward`] of one chunk.
    fn forward_chunk(grid: &Grid, x: &[f32], y: &mut [MaybeUninit<f32>]) = forward_body
}

multiversion! {
    /// [`backward`] of one chunk.
    fn backward_chunk(grid: &Grid, x: &[f32], g: &[f32], gx: &mut [MaybeUninit<f32>]) -> Sums
        = backward_body
}

#[inline(always)]
fn forward_body(grid: &Grid, x: &[f32], y: &mut [MaybeUninit<f32>]) {
    if grid.family == Family::PowerOfTwo {
        for (y, x) in y.iter_mut().zip(x) {
            y.write(grid.forward(*x));
        }
        return;
    }
    let lane = UniformLane::new(grid);
    for (y, x) in y.iter_mut().zip(x) {
        y.write(lane.quantize(*x));
    }
}

#[inline(always)]
fn backward_body(grid: &Grid, x: &[f32], g: &[f32], gx: &mut [MaybeUninit<f32>]) -> Sums {
    if grid.family == Family::PowerOfTwo {
        let mut sums = Sums::default();
        for ((gx, x), g) in gx.iter_mut().zip(x).zip(g) {
            gx.write(grid.backward(*x, *g, &mut sums));
        }
        return sums;
    }
    let lane = UniformLane::new(grid);
    let mut sums = LaneSums::default();
    let mut gx_lanes = gx.chunks_exact_mut(LANES);
    let (mut x_lanes, mut g_lanes) = (x.chunks_exact(LANES), g.chunks_exact(LANES));
    for ((gx, x), g) in (&mut gx_lanes).zip(&mut x_lanes).zip(&mut g_lanes) {
        for j in 0..LANES {
            gx[j].write(lane.backward(x[j], g[j], &mut sums, j));
        }
    }
    let rest = gx_lanes.into_remainder().iter_mut();
    for (j, ((gx, x), g)) in rest
        .zip(x_lanes.remainder())
        .zip(g_lanes.remainder())
        .enumerate()
    {
        gx.write(lane.backward(*x, *g, &mut sums, j));
    }
    sums.total()
}

/// The uniform grid's numbers as the inner loops need them.
#[derive(Clone, Copy)]
pub(super) struct UniformLane {
    low: f32,
    high: f32,
    step: f32,
    inverse: f32,
    /// 1 in the published code, whose step gradient includes clipped elements.
    clipped_share: f32,
    /// -1 signed, 0 unsigned: what an element below the range adds to the outer sum.
    below_sign: f32,
    inclusive: bool,
}

impl UniformLane {
    #[inline(always)]
    pub(super) fn new(grid: &Grid) -> Self {
        let published = grid.rules == Rules::PublishedCode;
        Self {
            low: grid.low(),
            high: grid.q_max,
            step: grid.step,
            // Exact: the step is a power of two.
            inverse: 1.0 / grid.step,
            clipped_share: f32::from(u8::from(published)),
            below_sign: if grid.signed { -1.0 } else { 0.0 },
            inclusive: published,
        }
    }

    /// Not `max` and `min`, which would make a level of what is not a number.
    #[inline(always)]
    fn clipped(&self, x: f32) -> f32 {
        let x = if x < self.low { self.low } else { x };
        if x > self.high { self.high } else { x }
    }

    #[inline(always)]
    pub(super) fn quantize(&self, x: f32) -> f32 {
        round_half_away(self.clipped(x) * self.inverse) * self.step
    }

    /// Gradient to `x`; adds to lane `j` of the sums. Comparisons become masks.
    #[inline(always)]
    pub(super) fn backward(&self, x: f32, g: f32, sums: &mut LaneSums, j: usize) -> f32 {
        let (above, below) = if self.inclusive {
            (x >= self.high, x <= self.low)
        } else {
            (x > self.high, x < self.low)
        };
        let scaled = self.clipped(x) * self.inverse;
        let rounded = round_half_away(scaled);
        let error = g * rounded - g * scaled;
        let outside = above | below;
        sums.inner[j] += if outside {
            error * self.clipped_share
        } else {
            error
        };
        sums.outer[j] += if above { g } else { 0.0 };
        sums.outer[j] += if below { g * self.below_sign } else { 0.0 };
        let beyond = (x > self.high) | ((x < self.low) & (self.below_sign != 0.0));
        sums.clipped[j] += if beyond { 1.0 } else { 0.0 };
        sums.zeros[j] += if rounded == 0.0 { 1.0 } else { 0.0 };
        if outside { 0.0 } else { g }
    }
}

/// `sign(v) floor(|v| + 1/2)` without the error of adding 1/2 (wrong at 0.49999997).
#[inline(always)]
fn round_half_away(v: f32) -> f32 {
    let magnitude = v.abs();
    let whole = magnitude.trunc();
    let up = if magnitude - whole >= 0.5 { 1.0 } else { 0.0 };
    (whole + up).copysign(v)
}

/// Per-lane sums of one chunk. A lane adds at most `CHUNK / LANES` terms in f32.
#[derive(Clone, Copy, Default)]
pub(super) struct LaneSums {
    inner: [f32; LANES],
    outer: [f32; LANES],
    clipped: [f32; LANES],
    zeros: [f32; LANES],
}

impl LaneSums {
    pub(super) const LANES: usize = LANES;

    #[inline(always)]
    pub(super) fn total(&self) -> Sums {
        let sum = |lanes: &[f32; LANES]| lanes.iter().map(|v| f64::from(*v)).sum();
        Sums {
            inner: sum(&self.inner),
            outer: sum(&self.outer),
            clipped: sum(&self.clipped),
            zeros: sum(&self.zeros),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Simd;
    use super::super::parallel::Pool;
    use super::*;
    use crate::quantizer::{Parametrization, Quantizer};

    fn run(cpu: Cpu, grid: &Grid, x: &[f32], g: &[f32]) -> (Vec<f32>, Vec<f32>, Sums) {
        let mut y = vec![MaybeUninit::new(f32::NAN); x.len()];
        let (grids, row) = (std::slice::from_ref(grid), x.len());
        forward(cpu, grids, row, x, &mut y);
        let mut gx = vec![MaybeUninit::new(f32::NAN); x.len()];
        let sums = backward(cpu, grids, row, x, g, &mut gx)[0];
        // SAFETY: both buffers were created initialised.
        let read =
            |v: Vec<MaybeUninit<f32>>| v.iter().map(|v| unsafe { v.assume_init() }).collect();
        (read(y), read(gx), sums)
    }

    fn same(a: f32, b: f32) -> bool {
        a == b || a.is_nan() && b.is_nan()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn fast_paths_equal_the_scalar_reference(
            p in prop::sample::select(&Parametrization::ALL[..]),
            signed in any::<bool>(),
            published in any::<bool>(),
            values in prop::collection::vec((-3.0..3.0f32, -2.0..2.0f32), 1..300),
            scale in prop::sample::select(&[0.01f32, 1.0, 40.0][..]),
        ) {
            let q = Quantizer::learned(p, signed, if published { Rules::PublishedCode } else { Rules::Paper });
            let parameters = match p {
                Parametrization::U3 | Parametrization::P3 => [0.1, 0.9],
                _ => [3.0, 0.3],
            };
            let grid = q.grid(parameters);
            let mut x: Vec<f32> = values.iter().map(|v| v.0 * scale).collect();
            x[0] = grid.q_max;
            x.extend([f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
            let mut g: Vec<f32> = values.iter().map(|v| v.1).collect();
            g.extend([0.5; 3]);
            let mut expected = Sums::default();
            for simd in Simd::available() {
                let cpu = Cpu { simd, pool: Pool::Rayon };
                let (y, gx, sums) = run(cpu, &grid, &x, &g);
                expected = Sums::default();
                for i in 0..x.len() {
                    prop_assert!(same(y[i], grid.forward(x[i])), "Q({})", x[i]);
                    let gradient = grid.backward(x[i], g[i], &mut expected);
                    prop_assert!(same(gx[i], gradient), "gradient at {}", x[i]);
                }
                for (ours, reference) in sums.to_array().into_iter().zip(expected.to_array()) {
                    let near = (ours - reference).abs() <= 1e-4 * (1.0 + reference.abs());
                    prop_assert!(near || ours.is_nan() && reference.is_nan(), "{ours} {reference}");
                }
            }
            prop_assert!(expected.zeros <= x.len() as f64);
        }
    }

    #[test]
    fn sums_do_not_depend_on_the_number_of_threads() {
        let grid = Quantizer::learned(Parametrization::U3, true, Rules::Paper).grid([0.01, 0.5]);
        let x: Vec<f32> = (0..100_003).map(|i| (i as f32 * 0.37).sin()).collect();
        let g: Vec<f32> = (0..100_003).map(|i| (i as f32 * 0.11).cos()).collect();
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.expect("a pool")
                .install(|| run(Cpu::current(Pool::Rayon), &grid, &x, &g))
        };
        let one = with(1);
        for threads in [2, 4] {
            assert_eq!(with(threads), one);
        }
    }
}
