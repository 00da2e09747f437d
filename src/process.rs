//! What this process takes from the machine, as the system counts it, and what it leaves to others.

/// Seconds of CPU time of all threads, where the system reports it (Linux).
pub(crate) fn processor_seconds() -> Option<f64> {
    // Hundredths of a second, whatever the kernel's own tick.
    const TICKS: f64 = 100.0;
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name, in parentheses, may hold anything.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |i: usize| fields.get(i)?.parse::<f64>().ok();
    Some((field(11)? + field(12)?) / TICKS)
}

/// Whether this process ignores a signal, as it does where whoever started it did (`nohup`); where
/// the system tells (Linux).
pub(crate) fn ignores(signal: i32) -> bool {
    let Ok(text) = std::fs::read_to_string("/proc/self/status") else {
        return false;
    };
    let line = text.lines().find_map(|l| l.strip_prefix("SigIgn:"));
    let mask = line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
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

/// Restarts the program, once, so that LibTorch's threads spin only briefly.
///
/// After every operation they spin for milliseconds before they sleep. If other programs want the
/// CPU too, the threads that still have work then wait for those that spin: a step takes
/// more than twenty times as long. How long they spin is read from the environment when their library is
/// loaded, which is before `main`. Whoever sets one of the variables is left alone.
#[cfg(all(feature = "libtorch", target_os = "linux"))]
pub(crate) fn spare_other_programs() {
    use std::os::unix::process::CommandExt;

    /// Some microseconds: threads that wait for the next operation of the same step do not fall
    /// asleep.
    const SPINS: (&str, &str) = ("GOMP_SPINCOUNT", "1000");
    let is_set = |name: &str| std::env::var_os(name).is_some();
    if is_set(SPINS.0) || is_set("OMP_WAIT_POLICY") {
        return;
    }
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    // The program itself, also where its file has been replaced meanwhile.
    let error = std::process::Command::new("/proc/self/exe")
        .arg0(name)
        .args(arguments)
        .env(SPINS.0, SPINS.1)
        .exec();
    tracing::warn!("LibTorch's threads will spin: {error}");
}

/// Other engines' threads do not spin for long.
#[cfg(not(all(feature = "libtorch", target_os = "linux")))]
pub(crate) fn spare_other_programs() {}

/// Asks a process to end, as a terminal does; it may save what it has.
#[cfg(unix)]
pub(crate) fn terminate(child: &mut std::process::Child) -> std::io::Result<()> {
    use rustix::process::{Pid, Signal, kill_process};
    match Pid::from_raw(child.id().cast_signed()) {
        Some(pid) => Ok(kill_process(pid, Signal::TERM)?),
        None => Ok(()),
    }
}

/// The same where there are no signals: at once.
#[cfg(not(unix))]
pub(crate) fn terminate(child: &mut std::process::Child) -> std::io::Result<()> {
    child.kill()
}
