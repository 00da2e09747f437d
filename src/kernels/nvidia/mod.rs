//! The quantizer on NVIDIA cards under LibTorch: two kernels of our own, so that it costs one pass
//! over memory forward and one backward where tensor operations take many.
//!
//! NVRTC compiles them when a card first meets a quantizer; driver and NVRTC are found at run time.
//! What they compute is held against the composed operations once, before it is used: where
//! anything is missing, fails or differs, the log says so and the composed operations stay.

mod compile;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use cudarc::driver::{
    CudaContext, CudaFunction, CudaStream, DeviceRepr, DriverError, LaunchConfig, PushKernelArg,
    sys,
};
use tch::{Device, Kind, Tensor};

use crate::quantizer::{Family, Grid, Parametrization, Quantizer, Rules, Sums};

/// Threads of a block, a power of two: what the sums of a block are halved down from.
const THREADS: u32 = 256;
/// Blocks at most: enough to fill a card, few enough that their sums are small.
const BLOCKS: u64 = 2048;

/// `QuantizerGrid` of `element.cuh`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct CardGrid {
    low: f32,
    high: f32,
    step: f32,
    inverse: f32,
    zero_threshold: f32,
    is_signed: i32,
    published: i32,
    power_of_two: i32,
}

// SAFETY: plain numbers in the order and with the alignment of the structure on the card.
unsafe impl DeviceRepr for CardGrid {}

impl From<&Grid> for CardGrid {
    fn from(grid: &Grid) -> Self {
        Self {
            low: if grid.signed { -grid.q_max } else { 0.0 },
            high: grid.q_max,
            step: grid.step,
            inverse: 1.0 / grid.step,
            zero_threshold: grid.zero_threshold(),
            is_signed: grid.signed.into(),
            published: (grid.rules == Rules::PublishedCode).into(),
            power_of_two: (grid.family == Family::PowerOfTwo).into(),
        }
    }
}

/// The kernels on one card.
pub(super) struct Card {
    stream: Arc<CudaStream>,
    forward: CudaFunction,
    backward: CudaFunction,
}

type Cards = HashMap<usize, Result<Arc<Card>, String>>;

fn cards() -> MutexGuard<'static, Cards> {
    static CARDS: OnceLock<Mutex<Cards>> = OnceLock::new();
    let cards = CARDS.get_or_init(Mutex::default);
    cards.lock().unwrap_or_else(|e| e.into_inner())
}

/// The kernels on a tensor's card, where they can be had and agree with `reference`: `Q(x)`, the
/// gradient of `x` and the sums, for `x`, `g` and a grid, by other means.
pub(super) fn card(
    device: Device,
    reference: impl Fn(&Tensor, &Tensor, &Grid) -> [Tensor; 3],
) -> Option<Arc<Card>> {
    let Device::Cuda(ordinal) = device else {
        return None;
    };
    let mut cards = cards();
    let card = cards.entry(ordinal).or_insert_with(|| {
        // LibTorch's calls panic where it cannot do them, and so does a library without a function.
        let made = catch_unwind(AssertUnwindSafe(|| {
            let card = Card::new(ordinal)?;
            card.agrees(device, reference)?;
            Ok(Arc::new(card))
        }));
        let card = made.unwrap_or_else(|_| Err("making the kernels panicked".into()));
        if let Err(reason) = &card {
            tracing::warn!("cuda:{ordinal} quantizes by tensor operations: {reason}");
        }
        card
    });
    card.as_ref().ok().cloned()
}

/// From here on the card quantizes by tensor operations.
pub(super) fn give_up(device: Device, reason: String) {
    if let Device::Cuda(ordinal) = device {
        tracing::warn!("cuda:{ordinal} quantizes by tensor operations from here on: {reason}");
        cards().insert(ordinal, Err(reason));
    }
}

/// How a card that has met a quantizer does it: by our kernels, or why by tensor operations.
pub(crate) fn status(ordinal: usize) -> Option<Result<(), String>> {
    let cards = cards();
    let card = cards.get(&ordinal)?;
    Some(card.as_ref().map(|_| ()).map_err(Clone::clone))
}

impl Card {
    fn new(ordinal: usize) -> Result<Self, String> {
        // SAFETY: only asks whether the library can be opened.
        if !unsafe { sys::is_culib_present() } {
            return Err("the driver's library was not found".into());
        }
        let error = |e: DriverError| e.to_string();
        // The context that LibTorch uses too, and the stream that it uses by default.
        let context = CudaContext::new(ordinal).map_err(error)?;
        let capability = context.compute_capability().map_err(error)?;
        let module = context
            .load_module(compile::for_card(capability, THREADS)?.into())
            .map_err(error)?;
        Ok(Self {
            stream: context.default_stream(),
            forward: module.load_function("quantize_forward").map_err(error)?,
            backward: module.load_function("quantize_backward").map_err(error)?,
        })
    }

    /// Q(x).
    pub(super) fn forward(&self, x: &Tensor, grid: &Grid) -> Result<Tensor, String> {
        if x.kind() != Kind::Float {
            return Err(format!("the kernels compute in f32, not {:?}", x.kind()));
        }
        let x = x.contiguous();
        let y = Tensor::empty_like(&x);
        let (count, grid) = (x.numel() as u64, CardGrid::from(grid));
        if count == 0 {
            return Ok(y);
        }
        let [from, to] = [&x, &y].map(address);
        let mut launch = self.stream.launch_builder(&self.forward);
        launch.arg(&from).arg(&to).arg(&count).arg(&grid);
        // SAFETY: both tensors are contiguous, of kind f32, on this card, and hold `count` values;
        // they are freed in the order of the stream that the kernel runs on. The arguments are
        // those of the kernel.
        unsafe { launch.launch(shape(blocks(count))) }.map_err(|e| e.to_string())?;
        Ok(y)
    }

    /// The gradient of `x` and [`Sums`], `[4]`.
    pub(super) fn backward(
        &self,
        x: &Tensor,
        g: &Tensor,
        grid: &Grid,
    ) -> Result<[Tensor; 2], String> {
        let fits = |t: &Tensor| t.kind() == Kind::Float && t.device() == x.device();
        if !fits(x) || !fits(g) || x.size() != g.size() {
            return Err(format!("no gradient {g:?} of {x:?}"));
        }
        let (x, g) = (x.contiguous(), g.contiguous());
        let gx = Tensor::empty_like(&x);
        let (count, grid) = (x.numel() as u64, CardGrid::from(grid));
        let sums = [Sums::LEN as i64];
        if count == 0 {
            return Ok([gx, Tensor::zeros(sums, (Kind::Float, x.device()))]);
        }
        let blocks = blocks(count);
        let rows = [i64::from(blocks), sums[0]];
        let parts = Tensor::empty(rows, (Kind::Double, x.device()));
        let [from, upstream, to, rows] = [&x, &g, &gx, &parts].map(address);
        let mut launch = self.stream.launch_builder(&self.backward);
        launch
            .arg(&from)
            .arg(&upstream)
            .arg(&to)
            .arg(&rows)
            .arg(&count)
            .arg(&grid);
        // SAFETY: as above; each of the blocks writes its own row of the sums.
        unsafe { launch.launch(shape(blocks)) }.map_err(|e| e.to_string())?;
        let sums = parts.sum_dim_intlist([0i64].as_slice(), false, Kind::Double);
        Ok([gx, sums.to_kind(Kind::Float)])
    }

    /// Whether the kernels compute what `reference` does, on every kind of grid.
    fn agrees(
        &self,
        device: Device,
        reference: impl Fn(&Tensor, &Tensor, &Grid) -> [Tensor; 3],
    ) -> Result<(), String> {
        for parametrization in [Parametrization::U3, Parametrization::P3] {
            for signed in [true, false] {
                for rules in [Rules::Paper, Rules::PublishedCode] {
                    let quantizer = Quantizer::learned(parametrization, signed, rules);
                    let grid = quantizer.grid([0.125, 1.0]);
                    let x = trial(&grid, device);
                    let g = x.sin();
                    let [gx, sums] = self.backward(&x, &g, &grid)?;
                    let ours = [self.forward(&x, &grid)?, gx, sums];
                    let theirs = reference(&x, &g, &grid);
                    // Values are the same to the bit; sums differ by the order of additions.
                    let tolerances = [[0.0, 0.0], [1e-6, 1e-6], [1e-5, 0.1]];
                    for ((ours, theirs), [relative, absolute]) in
                        ours.iter().zip(&theirs).zip(tolerances)
                    {
                        if !ours.allclose(theirs, relative, absolute, false) {
                            return Err(format!("other numbers than expected on {grid:?}"));
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// Values all over a grid and beyond, and its bounds.
pub(super) fn trial(grid: &Grid, device: Device) -> Tensor {
    let bounds = [grid.q_max, grid.step, grid.zero_threshold(), 0.0];
    let bounds = [bounds, bounds.map(|v| -v)].concat();
    let over = Tensor::linspace(-1.7, 1.7, 10_007, (Kind::Float, device));
    Tensor::cat(&[over, Tensor::from_slice(&bounds).to_device(device)], 0)
}

fn address(tensor: &Tensor) -> u64 {
    tensor.data_ptr() as u64
}

fn blocks(count: u64) -> u32 {
    count.div_ceil(u64::from(THREADS)).clamp(1, BLOCKS) as u32
}

fn shape(blocks: u32) -> LaunchConfig {
    LaunchConfig {
        grid_dim: (blocks, 1, 1),
        block_dim: (THREADS, 1, 1),
        shared_mem_bytes: 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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

    #[test]
    fn a_cpu_has_no_card() {
        assert!(card(Device::Cpu, |_, _, _| unreachable!("nothing to compare")).is_none());
    }
}
