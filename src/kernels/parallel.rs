//! Work shared out over the threads of an engine.

use std::cell::RefCell;

use rayon::prelude::*;

use super::simd::Simd;

/// Whose threads do the work. Two pools that both want every core would take turns waiting for
/// each other, so each engine's kernels run on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    /// rayon's.
    Rayon,
    /// LibTorch's.
    #[cfg(feature = "libtorch")]
    LibTorch,
}

/// How the CPU kernels run: instruction set and threads.
#[derive(Debug, Clone, Copy)]
pub struct Cpu {
    /// Instruction set.
    pub simd: Simd,
    /// Threads.
    pub pool: Pool,
}

impl Cpu {
    /// The best instruction set on this pool.
    pub fn current(pool: Pool) -> Self {
        Self {
            simd: Simd::current(),
            pool,
        }
    }

    /// `f` of every item with its index, results in order.
    pub(super) fn map<T: Send, R: Send>(
        self,
        items: Vec<T>,
        f: impl Fn(usize, T) -> R + Sync,
    ) -> Vec<R> {
        match self.pool {
            Pool::Rayon => items
                .into_par_iter()
                .enumerate()
                .map(|(i, item)| f(i, item))
                .collect(),
            #[cfg(feature = "libtorch")]
            Pool::LibTorch => super::libtorch::map(items, f),
        }
    }
}

/// Buffers that a thread keeps.
pub(super) type Scratch = [Vec<f32>; 4];

thread_local! {
    static SCRATCH: RefCell<Scratch> = const { RefCell::new([Vec::new(), Vec::new(), Vec::new(), Vec::new()]) };
}

/// Lends this thread's buffers: what one item leaves there the next overwrites.
pub(super) fn with_scratch<R>(f: impl FnOnce(&mut Scratch) -> R) -> R {
    SCRATCH.with_borrow_mut(f)
}
