//! What this process takes from the machine, as the system counts it.

/// Seconds of processor time of all threads, where the system tells (Linux).
pub(crate) fn processor_seconds() -> Option<f64> {
    // Hundredths of a second, whatever the kernel's own tick.
    const TICKS: f64 = 100.0;
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name, in parentheses, may hold anything.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |i: usize| fields.get(i)?.parse::<f64>().ok();
    Some((field(11)? + field(12)?) / TICKS)
}

/// Resident memory now and at its peak, MB, where the system tells (Linux).
pub(crate) fn resident() -> Option<(f64, f64)> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let of = |name: &str| -> Option<f64> {
        let line = text.lines().find(|l| l.starts_with(name))?;
        Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
    };
    Some((of("VmRSS:")?, of("VmHWM:")?))
}
