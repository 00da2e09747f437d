//! What this process takes from the machine, and what its GPUs do.

use std::time::{Duration, Instant};

use crate::device::{Gpu, gpus};
use crate::process::{processor_seconds, resident};

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// Processor and memory of this process, as the system counts them.
#[derive(Debug, Default)]
pub(super) struct System {
    looked: Option<(Instant, f64)>,
    /// Cores in use, on average since the last look.
    pub cores: Option<f64>,
    /// Resident memory, MB, and its peak.
    pub memory: Option<(f64, f64)>,
    /// GPUs, if there are any.
    pub gpus: Vec<Gpu>,
}

impl System {
    /// Looks again where it is time; `true` if something may have changed.
    pub(super) fn sample(&mut self) -> bool {
        if self.looked.is_some_and(|(when, _)| when.elapsed() < EVERY) {
            return false;
        }
        let now = Instant::now();
        let spent = processor_seconds();
        if let (Some(spent), Some((when, before))) = (spent, self.looked) {
            self.cores = Some((spent - before) / (now - when).as_secs_f64());
        }
        self.looked = Some((now, spent.unwrap_or(0.0)));
        self.memory = resident();
        self.gpus = gpus();
        true
    }
}
