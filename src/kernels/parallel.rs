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

    /// How many threads share the work.
    pub(super) fn threads(self) -> usize {
        let threads = match self.pool {
            Pool::Rayon => rayon::current_num_threads(),
            #[cfg(feature = "libtorch")]
            Pool::LibTorch => tch::get_num_threads() as usize,
        };
        threads.max(1)
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
            Pool::LibTorch => super::libtorch_threads::map(items, f),
        }
    }
}

/// Leaves the cores of this machine to so many processes like this one: each takes its part, or those
/// that it is bound to where they are fewer. Whoever set `RAYON_NUM_THREADS` is left alone. To be called
/// before anything is computed.
pub(crate) fn share_cores(processes: usize) {
    const CORES: &str = "/sys/devices/system/cpu/online";
    if std::env::var_os("RAYON_NUM_THREADS").is_some() {
        return;
    }
    let bound = std::thread::available_parallelism().map_or(1, usize::from);
    let online = std::fs::read_to_string(CORES).ok();
    let online = online.and_then(|list| count(&list)).unwrap_or(bound);
    let threads = (online / processes.max(1)).clamp(1, bound);
    // A pool that is there already has computed something; then it stays.
    if let Err(error) = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
    {
        tracing::warn!("threads: {error}");
    }
    #[cfg(feature = "libtorch")]
    tch::set_num_threads(threads as i32);
}

/// Numbers in a list such as `0-3,8`.
fn count(list: &str) -> Option<usize> {
    let of = |part: &str| -> Option<usize> {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(last.parse::<usize>().ok()? - first.parse::<usize>().ok()? + 1)
    };
    list.trim().split(',').map(of).sum()
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

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn cores_are_counted() {
        assert_eq!(count("0-3,8\n"), Some(5));
        assert_eq!(count("0"), Some(1));
        assert_eq!(count("none"), None);
    }
}
