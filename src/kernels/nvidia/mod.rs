//! The quantizer on NVIDIA cards under LibTorch: two kernels of our own, so that it costs one pass
//! over memory forward and one backward where tensor operations take many.
//!
//! NVRTC compiles them when a card first meets a quantizer; driver and NVRTC are found at run time.
//! What they compute is held against the composed operations once, before it is used: where
//! anything is missing or differs, the log says so and the composed operations stay.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

use cudarc::driver::{CudaContext, CudaFunction, CudaStream, DeviceRepr, LaunchConfig};
use cudarc::driver::{PushKernelArg, sys};
use cudarc::nvrtc::{CompileError, CompileOptions, Ptx, compile_ptx_with_opts};
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

/// The kernels on a tensor's card, where they can be had and agree with `reference`: `Q(x)`, the
/// gradient of `x` and the sums, for `x`, `g` and a grid, by other means.
pub(super) fn card(
    device: Device,
    reference: impl Fn(&Tensor, &Tensor, &Grid) -> [Tensor; 3],
) -> Option<Arc<Card>> {
    static CARDS: OnceLock<Mutex<HashMap<usize, Option<Arc<Card>>>>> = OnceLock::new();
    let Device::Cuda(ordinal) = device else {
        return None;
    };
    let cards = CARDS.get_or_init(Mutex::default);
    let mut cards = cards.lock().unwrap_or_else(|e| e.into_inner());
    let card = cards.entry(ordinal).or_insert_with(|| {
        let card = Card::new(ordinal).and_then(|card| {
            card.agrees(device, reference)?;
            Ok(Arc::new(card))
        });
        match card {
            Ok(card) => Some(card),
            Err(reason) => {
                tracing::warn!("cuda:{ordinal} quantizes by tensor operations: {reason}");
                None
            }
        }
    });
    card.clone()
}

impl Card {
    fn new(ordinal: usize) -> Result<Self, String> {
        // SAFETY: only asks whether the libraries can be opened.
        let there = unsafe {
            (
                sys::is_culib_present(),
                cudarc::nvrtc::sys::is_culib_present(),
            )
        };
        match there {
            (true, true) => {}
            (false, _) => return Err("the driver's library was not found".into()),
            (_, false) => return Err("NVRTC, which compiles kernels, was not found".into()),
        }
        let error = |e: cudarc::driver::DriverError| e.to_string();
        // The context that LibTorch uses too, and the stream that it uses by default.
        let context = CudaContext::new(ordinal).map_err(error)?;
        let (major, minor) = context.compute_capability().map_err(error)?;
        let module = context
            .load_module(compile(Some((major, minor)))?)
            .map_err(error)?;
        Ok(Self {
            stream: context.default_stream(),
            forward: module.load_function("quantize_forward").map_err(error)?,
            backward: module.load_function("quantize_backward").map_err(error)?,
        })
    }

    /// Q(x).
    pub(super) fn forward(&self, x: &Tensor, grid: &Grid) -> Result<Tensor, String> {
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
        let (x, g) = (x.contiguous(), g.contiguous());
        let gx = Tensor::empty_like(&x);
        let (count, grid) = (x.numel() as u64, CardGrid::from(grid));
        let blocks = blocks(count);
        let parts = Tensor::zeros(
            [i64::from(blocks), Sums::LEN as i64],
            (Kind::Double, x.device()),
        );
        if count > 0 {
            let [x, g, gx, sums] = [&x, &g, &gx, &parts].map(address);
            let mut launch = self.stream.launch_builder(&self.backward);
            launch
                .arg(&x)
                .arg(&g)
                .arg(&gx)
                .arg(&sums)
                .arg(&count)
                .arg(&grid);
            // SAFETY: as above; each of the blocks writes its own row of the sums.
            unsafe { launch.launch(shape(blocks)) }.map_err(|e| e.to_string())?;
        }
        let sums = parts.sum_dim_intlist([0i64].as_slice(), false, Kind::Float);
        Ok([gx, sums])
    }

    /// Whether the kernels compute what `reference` does, on every kind of grid.
    fn agrees(
        &self,
        device: Device,
        reference: impl Fn(&Tensor, &Tensor, &Grid) -> [Tensor; 3],
    ) -> Result<(), String> {
        for (parametrization, signed) in [
            (Parametrization::U3, true),
            (Parametrization::U3, false),
            (Parametrization::P3, true),
            (Parametrization::P3, false),
        ] {
            let grid = Quantizer::learned(parametrization, signed, Rules::Paper).grid([0.125, 1.0]);
            let x = Tensor::linspace(-1.7, 1.7, 100_003, (Kind::Float, device));
            let g = x.sin();
            let [gx, sums] = self.backward(&x, &g, &grid)?;
            let ours = [self.forward(&x, &grid)?, gx, sums];
            for (ours, theirs) in ours.iter().zip(reference(&x, &g, &grid)) {
                if !ours.allclose(&theirs, 1e-4, 1e-3, false) {
                    return Err(format!("{parametrization:?} gave other numbers"));
                }
            }
        }
        Ok(())
    }
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

/// The kernels for a card of this compute capability, or for any that NVRTC knows.
fn compile(capability: Option<(i32, i32)>) -> Result<Ptx, String> {
    let source = format!(
        "#define ELEMENT static __device__ __forceinline__\n#define THREADS {THREADS}\n{}\n{}",
        include_str!("element.cuh"),
        include_str!("quantize.cu")
    );
    let mut options = CompileOptions {
        // Products are rounded before they are subtracted, as everywhere.
        fmad: Some(false),
        name: Some("quantize.cu".into()),
        ..CompileOptions::default()
    };
    if let Some((major, minor)) = capability {
        options
            .options
            .push(format!("--gpu-architecture=compute_{major}{minor}"));
    }
    compile_ptx_with_opts(source, options).map_err(|error| match error {
        CompileError::CompileError { log, .. } => log.to_string_lossy().into_owned(),
        other => other.to_string(),
    })
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
            x in prop_oneof![-3.0..3.0f32, Just(0.9f32), Just(-0.9f32), Just(0.0f32), -0.2..0.2f32],
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
                prop_assert!((ours - expected).abs() <= 1e-6 * (1.0 + expected.abs()), "{ours} {expected}");
            }
        }
    }

    #[test]
    fn nvrtc_compiles_the_kernels_where_it_is_installed() {
        // SAFETY: only asks whether the library can be opened.
        if !unsafe { cudarc::nvrtc::sys::is_culib_present() } {
            eprintln!("NVRTC is not installed here: nothing to compile with");
            return;
        }
        let ptx = compile(None).expect("the kernels compile").to_src();
        for kernel in ["quantize_forward", "quantize_backward"] {
            assert!(ptx.contains(&format!(".entry {kernel}")), "{ptx}");
        }
    }

    #[test]
    fn a_cpu_has_no_card() {
        assert!(card(Device::Cpu, |_, _, _| unreachable!("nothing to compare")).is_none());
    }
}
