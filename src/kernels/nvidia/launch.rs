//! Where the kernels run: on a GPU, or (in tests) on the CPU.

use std::sync::Arc;

use cudarc::driver::{
    CudaContext, CudaFunction, CudaStream, DriverError, LaunchConfig, PushKernelArg,
};
use tch::Tensor;

use super::compile;
use super::layout::{CardGrid, NormLayer};
use super::refusal::Refusal;
use crate::kernels::driver;

/// Threads of a block on a card, a power of two.
const THREADS: u32 = 256;
/// `threads_of_block` in `on_cpu.cpp`.
#[cfg(all(test, emulated_card))]
const EMULATED_THREADS: u32 = 16;

/// A kernel; its index is its place in [`NAMES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kernel {
    QuantizeForward,
    QuantizeBackward,
    QuantizeSums,
    NormMoments,
    NormForward,
    NormBackwardSums,
    NormBackward,
}

/// What the kernels are called in their sources.
pub(super) const NAMES: [&str; 7] = [
    "quantize_forward",
    "quantize_backward",
    "quantize_sums",
    "norm_moments",
    "norm_forward",
    "norm_backward_sums",
    "norm_backward",
];

/// One argument of a kernel, as it lies there.
#[derive(Debug, Clone, Copy)]
pub(super) enum Argument {
    /// Of the values of a tensor, or null.
    Address(u64),
    /// `unsigned long long`
    Count(u64),
    /// `unsigned int`
    Rows(u32),
    Grid(CardGrid),
    Layer(NormLayer),
}

impl From<&Tensor> for Argument {
    fn from(tensor: &Tensor) -> Self {
        Self::Address(tensor.data_ptr() as u64)
    }
}

impl From<Option<&Tensor>> for Argument {
    fn from(tensor: Option<&Tensor>) -> Self {
        tensor.map_or(Self::Address(0), Self::from)
    }
}

/// The compiled kernels where they run.
pub(super) enum Place {
    /// On LibTorch's stream of a card; a function for each of [`NAMES`].
    Card(Arc<CudaStream>, Vec<CudaFunction>),
    /// `on_cpu.cpp`.
    #[cfg(all(test, emulated_card))]
    Cpu,
}

impl Place {
    /// A card's kernels, compiled for it.
    pub(super) fn card(ordinal: usize) -> Result<Self, String> {
        driver::cards()?;
        let error = |e: DriverError| e.to_string();
        // The context that LibTorch uses too, and the stream that it uses by default.
        let context = CudaContext::new(ordinal).map_err(error)?;
        let capability = context.compute_capability().map_err(error)?;
        let module = context
            .load_module(compile::for_card(capability, THREADS)?.into())
            .map_err(|e| format!("{e} (of code by NVRTC {})", compile::version()))?;
        let functions = NAMES.map(|name| module.load_function(name).map_err(error));
        Ok(Self::Card(
            context.default_stream(),
            functions.into_iter().collect::<Result<_, _>>()?,
        ))
    }

    /// Threads of a block.
    pub(super) fn threads(&self) -> u32 {
        match self {
            Self::Card(..) => THREADS,
            #[cfg(all(test, emulated_card))]
            Self::Cpu => EMULATED_THREADS,
        }
    }

    /// Runs a kernel on `[x, y]` blocks; on a GPU it may still run when this returns.
    ///
    /// # Safety
    /// The arguments are those of the kernel. Every address is of a contiguous tensor where the
    /// kernel runs, of the kind and the size that the kernel reads or writes, and is freed in the
    /// order of the stream; what it writes overlaps nothing else of it.
    pub(super) unsafe fn launch(
        &self,
        kernel: Kernel,
        blocks: [u32; 2],
        arguments: &[Argument],
    ) -> Result<(), Refusal> {
        match self {
            Self::Card(stream, functions) => {
                let mut launch = stream.launch_builder(&functions[kernel as usize]);
                for argument in arguments {
                    match argument {
                        Argument::Address(v) | Argument::Count(v) => launch.arg(v),
                        Argument::Rows(v) => launch.arg(v),
                        Argument::Grid(v) => launch.arg(v),
                        Argument::Layer(v) => launch.arg(v),
                    };
                }
                let shape = LaunchConfig {
                    grid_dim: (blocks[0], blocks[1], 1),
                    block_dim: (THREADS, 1, 1),
                    shared_mem_bytes: 0,
                };
                // SAFETY: as this function's.
                unsafe { launch.launch(shape) }
                    .map(|_| ())
                    .map_err(|e| Refusal::Failed(e.to_string()))
            }
            #[cfg(all(test, emulated_card))]
            // SAFETY: as this function's.
            Self::Cpu => unsafe { emulated(NAMES[kernel as usize], blocks, arguments) },
        }
    }
}

/// # Safety
/// As [`Place::launch`]'s.
#[cfg(all(test, emulated_card))]
unsafe fn emulated(name: &str, blocks: [u32; 2], arguments: &[Argument]) -> Result<(), Refusal> {
    use std::ffi::{CString, c_char, c_int, c_void};

    unsafe extern "C" {
        fn bitscope_launch_on_cpu(
            name: *const c_char,
            x: u32,
            y: u32,
            arguments: *mut *const c_void,
        ) -> c_int;
    }

    let address = |argument: &Argument| -> *const c_void {
        match argument {
            Argument::Address(v) | Argument::Count(v) => (&raw const *v).cast(),
            Argument::Rows(v) => (&raw const *v).cast(),
            Argument::Grid(v) => (&raw const *v).cast(),
            Argument::Layer(v) => (&raw const *v).cast(),
        }
    };
    let mut addresses: Vec<*const c_void> = arguments.iter().map(address).collect();
    let c_name = CString::new(name).map_err(|e| Refusal::Failed(e.to_string()))?;
    let [x, y] = blocks;
    // SAFETY: one pointer to each argument, all live during the call; the rest is the caller's.
    match unsafe { bitscope_launch_on_cpu(c_name.as_ptr(), x, y, addresses.as_mut_ptr()) } {
        0 => Ok(()),
        _ => Err(Refusal::Failed(format!("no kernel {name}"))),
    }
}
