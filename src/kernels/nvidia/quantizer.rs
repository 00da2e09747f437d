//! The quantizer on a GPU.

use tch::{Kind, Tensor};

use super::Card;
use super::launch::{Argument, Kernel};
use super::refusal::Refusal;
use crate::kernels::libtorch_calls::Layout;
use crate::quantizer::{Grid, Sums};

/// Blocks at most: enough to fill a card, few enough that their sums are small.
pub(super) const BLOCKS: u64 = 2048;

impl Card {
    /// Q(x).
    pub(in crate::kernels) fn quantize(&self, x: &Tensor, grid: &Grid) -> Result<Tensor, Refusal> {
        let x = self.laid_out(x, Layout::current(x))?;
        let y = Tensor::empty_like(&x);
        let count = x.numel() as u64;
        if count == 0 {
            return Ok(y);
        }
        let blocks = [self.blocks(count), 1];
        let arguments = [
            (&x).into(),
            (&y).into(),
            Argument::Count(count),
            Argument::Grid(grid.into()),
        ];
        // SAFETY: both tensors hold `count` values; the rest is what `contiguous` checks.
        unsafe { (self.place).launch(Kernel::QuantizeForward, blocks, &arguments) }?;
        Ok(y)
    }

    /// The gradient of `x` and [`Sums`], `[4]`.
    pub(in crate::kernels) fn quantize_backward(
        &self,
        x: &Tensor,
        g: &Tensor,
        grid: &Grid,
    ) -> Result<[Tensor; 2], Refusal> {
        // Value by value, in whatever order.
        let layout = Layout::current(x);
        let (x, g) = (self.laid_out(x, layout)?, self.laid_out(g, layout)?);
        if x.size() != g.size() {
            return Err(Refusal::Unfit(format!("no gradient {g:?} of {x:?}")));
        }
        let gx = Tensor::empty_like(&x);
        let count = x.numel() as u64;
        let sums = [Sums::LEN as i64];
        if count == 0 {
            return Ok([gx, Tensor::zeros(sums, (Kind::Float, x.device()))]);
        }
        let blocks = self.blocks(count);
        let parts = Tensor::empty([i64::from(blocks), sums[0]], (Kind::Double, x.device()));
        let sums = Tensor::empty(sums, (Kind::Float, x.device()));
        let arguments = [
            (&x).into(),
            (&g).into(),
            (&gx).into(),
            (&parts).into(),
            Argument::Count(count),
            Argument::Grid(grid.into()),
        ];
        // SAFETY: three tensors of `count` values, and a row of sums for each of the blocks; the
        // rest is what `contiguous` checks.
        unsafe { (self.place).launch(Kernel::QuantizeBackward, [blocks, 1], &arguments) }?;
        let arguments = [(&parts).into(), (&sums).into(), Argument::Rows(blocks)];
        // SAFETY: `blocks` rows, and one row for their sums.
        unsafe { (self.place).launch(Kernel::QuantizeSums, [1, 1], &arguments) }?;
        Ok([gx, sums])
    }

    fn blocks(&self, count: u64) -> u32 {
        let threads = u64::from(self.place.threads());
        count.div_ceil(threads).clamp(1, BLOCKS) as u32
    }
}

#[cfg(all(test, emulated_card))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::nvidia::layout::CardGrid;
    use crate::quantizer::{Parametrization, Quantizer, Rules};

    unsafe extern "C" {
        /// One element by `element.cuh`, compiled for the CPU: Q(x), then gradient, inner, outer,
        /// clipped and zero.
        fn bitscope_quantize_element(grid: *const CardGrid, x: f32, g: f32, out: *mut [f32; 6]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn an_element_equals_the_scalar_reference(
            p in prop::sample::select(&Parametrization::ALL[..]),
            signed in any::<bool>(),
            published in any::<bool>(),
            x in prop_oneof![
                8 => -3.0..3.0f32,
                4 => -0.2..0.2f32,
                4 => prop::sample::select(&[0.9, -0.9, 0.1, -0.1, 0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY][..]),
            ],
            g in -2.0..2.0f32,
        ) {
            let rules = if published { Rules::PublishedCode } else { Rules::Paper };
            let grid = Quantizer::learned(p, signed, rules).grid(match p {
                Parametrization::U3 | Parametrization::P3 => [0.1, 0.9],
                _ => [3.0, 0.3],
            });
            let mut out = [f32::NAN; 6];
            // SAFETY: both pointers are valid for the call.
            unsafe { bitscope_quantize_element(&CardGrid::from(&grid), x, g, &mut out) };
            let mut sums = Sums::default();
            let gradient = grid.backward(x, g, &mut sums);
            let expected = [grid.forward(x), gradient]
                .into_iter()
                .chain(sums.to_array().map(|v| v as f32));
            for (ours, expected) in out.into_iter().zip(expected) {
                let near = (ours - expected).abs() <= 1e-6 * (1.0 + expected.abs());
                let same = ours == expected || ours.is_nan() && expected.is_nan();
                prop_assert!(near || same, "{ours} {expected}");
            }
        }
    }
}
