//! What this process takes from the machine.

use std::time::{Duration, Instant};

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
        true
    }
}

/// Seconds of processor time of all threads, where the system tells (Linux).
fn processor_seconds() -> Option<f64> {
    // Hundredths of a second, whatever the kernel's own tick.
    const TICKS: f64 = 100.0;
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name, in parentheses, may hold anything.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |i: usize| fields.get(i)?.parse::<f64>().ok();
    Some((field(11)? + field(12)?) / TICKS)
}

/// Resident memory now and at its peak, MB.
fn resident() -> Option<(f64, f64)> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let of = |name: &str| -> Option<f64> {
        let line = text.lines().find(|l| l.starts_with(name))?;
        Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
    };
    Some((of("VmRSS:")?, of("VmHWM:")?))
}
