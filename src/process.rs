//! What this process takes from the machine, as the system counts it; and its graphics cards.

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

/// A graphics card.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Gpu {
    /// As its driver names it.
    pub name: String,
    /// Share of the last moment in which it computed, percent.
    pub busy: u32,
    /// Memory in use and in all, MB.
    pub memory: (f64, f64),
    /// Degrees Celsius.
    pub temperature: Option<u32>,
}

/// The graphics cards that NVIDIA's management library tells of; none without its driver, or in a
/// build whose engines use none.
#[cfg(any(feature = "libtorch", feature = "cuda"))]
pub(crate) fn gpus() -> Vec<Gpu> {
    use std::sync::OnceLock;

    use nvml_wrapper::Nvml;
    use nvml_wrapper::enum_wrappers::device::TemperatureSensor;

    static LIBRARY: OnceLock<Option<Nvml>> = OnceLock::new();
    let Some(nvml) = LIBRARY.get_or_init(|| Nvml::init().ok()) else {
        return Vec::new();
    };
    let megabytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let card = |index: u32| {
        let device = nvml.device_by_index(index).ok()?;
        let memory = device.memory_info().ok()?;
        Some(Gpu {
            name: device.name().ok()?,
            busy: device.utilization_rates().ok()?.gpu,
            memory: (megabytes(memory.used), megabytes(memory.total)),
            temperature: device.temperature(TemperatureSensor::Gpu).ok(),
        })
    };
    (0..nvml.device_count().unwrap_or(0))
        .filter_map(card)
        .collect()
}

/// Without engines that use them.
#[cfg(not(any(feature = "libtorch", feature = "cuda")))]
pub(crate) fn gpus() -> Vec<Gpu> {
    Vec::new()
}
