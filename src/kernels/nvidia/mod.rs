//! Our own kernels for NVIDIA GPUs under LibTorch: the quantizer, and batch norm with residual
//! and activation, in as few passes over memory as they need, where tensor operations take many.
//!
//! NVRTC compiles them when a GPU first needs one of the operations; driver and NVRTC are found at
//! run time. What they compute is checked against the composed operations once, before it is used:
//! where anything is missing, fails or differs, the log says so and the composed operations stay.
//! (A fault inside a kernel would end the run: a GPU accepts nothing more after one.)
//!
//! The tests run the same sources on the CPU (`on_cpu.cpp`).

mod check;
mod compile;
mod launch;
mod layout;
mod norm;
mod quantizer;
mod refusal;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use tch::{Device, Kind, Tensor};

use launch::Place;
use refusal::Refusal;

use crate::kernels::libtorch_calls::Layout;

/// The kernels on one GPU.
pub(super) struct Card {
    place: Place,
    device: Device,
}

type Cards = HashMap<usize, Result<Arc<Card>, String>>;

fn cards() -> MutexGuard<'static, Cards> {
    static CARDS: OnceLock<Mutex<Cards>> = OnceLock::new();
    let cards = CARDS.get_or_init(Mutex::default);
    cards.lock().unwrap_or_else(|e| e.into_inner())
}

/// The result of the kernels on a tensor's GPU, if they are available, agree with the composed
/// operations and accept the arguments. A launch that fails is the last one on its GPU.
pub(super) fn by_card<T>(
    x: &Tensor,
    launch: impl FnOnce(&Card) -> Result<T, Refusal>,
) -> Option<T> {
    let Device::Cuda(ordinal) = x.device() else {
        return None;
    };
    let card = (cards().entry(ordinal))
        .or_insert_with(|| checked(ordinal))
        .clone()
        .ok()?;
    launch(&card)
        .inspect_err(|refusal| {
            if let Refusal::Failed(reason) = refusal {
                let from_here = "computes by tensor operations from here on";
                tracing::warn!("cuda:{ordinal} {from_here}: {reason}");
                cards().insert(ordinal, Err(reason.clone()));
            }
        })
        .ok()
}

fn checked(ordinal: usize) -> Result<Arc<Card>, String> {
    // LibTorch's calls panic where it cannot do them, and so does a library without a function.
    let made = catch_unwind(AssertUnwindSafe(|| {
        let card = Card {
            place: Place::card(ordinal)?,
            device: Device::Cuda(ordinal),
        };
        card.agrees().map_err(|refusal| refusal.to_string())?;
        Ok(Arc::new(card))
    }));
    let card = made.unwrap_or_else(|_| Err("making the kernels panicked".into()));
    if let Err(reason) = &card {
        tracing::warn!("cuda:{ordinal} computes by tensor operations: {reason}");
    }
    card
}

/// How a GPU that has needed one of the operations computes it: by our kernels, or why by tensor
/// operations.
pub(crate) fn status(ordinal: usize) -> Option<Result<(), String>> {
    let cards = cards();
    let card = cards.get(&ordinal)?;
    Some(card.as_ref().map(|_| ()).map_err(Clone::clone))
}

impl Card {
    /// The same kernels on the CPU.
    #[cfg(all(test, emulated_card))]
    fn on_cpu() -> Self {
        Self {
            place: Place::Cpu,
            device: Device::Cpu,
        }
    }

    /// A tensor as the kernels read it: of f32, on this GPU, row-major.
    fn contiguous(&self, tensor: &Tensor) -> Result<Tensor, Refusal> {
        self.laid_out(tensor, Layout::ChannelsFirst)
    }

    /// The same in a layout.
    fn laid_out(&self, tensor: &Tensor, layout: Layout) -> Result<Tensor, Refusal> {
        if tensor.kind() != Kind::Float || tensor.device() != self.device {
            return Err(Refusal::Unfit(format!("{tensor:?}")));
        }
        Ok(layout.of(tensor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_has_no_card() {
        let x = Tensor::zeros([3], (Kind::Float, Device::Cpu));
        assert!(by_card(&x, |_| Ok(())).is_none());
    }
}
