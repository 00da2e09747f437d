//! Engines and devices: parsed from one string, listed with what is missing when unusable.

use std::ffi::OsStr;
use std::fmt;
use std::path::Path;

use burn::tensor::Device;

/// Where a run computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// burn's pure-Rust CPU engine.
    Flex,
    /// LibTorch on the CPU.
    LibTorchCpu,
    /// LibTorch on CUDA device N.
    LibTorchCuda(usize),
    /// burn's own CUDA engine on device N.
    Cuda(usize),
}

impl Engine {
    /// Whether it computes on a GPU.
    pub fn is_card(self) -> bool {
        matches!(self, Self::LibTorchCuda(_) | Self::Cuda(_))
    }

    /// The engine of a rank of its machine, from 0, where this is the first one's: each takes a GPU of
    /// its own, from the named one on.
    ///
    /// # Errors
    /// Where there are fewer GPUs.
    pub fn of_rank(self, rank: usize) -> Result<Self, DeviceError> {
        match self {
            Self::Flex | Self::LibTorchCpu => Ok(self),
            Self::LibTorchCuda(first) => parse(&Self::LibTorchCuda(first + rank).to_string()),
            Self::Cuda(first) => parse(&Self::Cuda(first + rank).to_string()),
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flex => write!(f, "flex"),
            Self::LibTorchCpu => write!(f, "libtorch:cpu"),
            Self::LibTorchCuda(n) => write!(f, "libtorch:cuda:{n}"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
        }
    }
}

/// An engine with whether it can be used here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Availability {
    /// The engine and device.
    pub engine: Engine,
    /// What it is, in words.
    pub description: String,
    /// What is missing, where it cannot be used.
    pub missing: Option<String>,
}

/// A device that an experiment asks for and that is not there.
#[derive(Debug, Clone, thiserror::Error)]
#[error("device \"{asked}\" {reason}\n{}", list(.available))]
pub struct DeviceError {
    /// As the experiment says it.
    pub asked: String,
    /// Why not.
    pub reason: String,
    /// Everything there is.
    pub available: Vec<Availability>,
}

/// One line per engine: usable or what is missing.
pub fn list(available: &[Availability]) -> String {
    let line = |a: &Availability| {
        let state = a
            .missing
            .as_deref()
            .map_or("usable".into(), |m| format!("not usable: {m}"));
        format!("  {:<16} {} ({state})", a.engine.to_string(), a.description)
    };
    available.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Every engine that the program knows.
pub fn available() -> Vec<Availability> {
    let mut all = vec![Availability {
        engine: Engine::Flex,
        description: format!(
            "CPU, pure Rust, {:?} kernels",
            crate::kernels::Simd::current()
        ),
        missing: None,
    }];
    all.push(Availability {
        engine: Engine::LibTorchCpu,
        description: "CPU, LibTorch".into(),
        missing: not_compiled(cfg!(feature = "libtorch"), "libtorch"),
    });
    let cards = cards();
    let names = cards.unwrap_or_default();
    let described = |what: &str, index: usize| {
        let name = names.get(index).map(|name| format!(", {name}"));
        format!("CUDA, {what}{}", name.unwrap_or_default())
    };
    for index in 0..libtorch_cuda_devices().max(1) {
        all.push(Availability {
            engine: Engine::LibTorchCuda(index),
            description: described("LibTorch", index),
            missing: missing_libtorch_cuda(),
        });
    }
    for index in 0..names.len().max(1) {
        all.push(Availability {
            engine: Engine::Cuda(index),
            description: described("CubeCL", index),
            missing: missing_cuda(cards.err()),
        });
    }
    all
}

/// Names of the GPUs, or why there are none.
#[cfg(any(feature = "libtorch", feature = "cuda"))]
fn cards() -> Result<&'static [String], &'static str> {
    crate::kernels::driver::cards()
}

#[cfg(not(any(feature = "libtorch", feature = "cuda")))]
fn cards() -> Result<&'static [String], &'static str> {
    Ok(&[])
}

#[cfg(feature = "libtorch")]
fn libtorch_cuda_devices() -> usize {
    crate::kernels::libtorch::cuda_devices()
}

#[cfg(not(feature = "libtorch"))]
fn libtorch_cuda_devices() -> usize {
    0
}

fn missing_libtorch_cuda() -> Option<String> {
    not_compiled(cfg!(feature = "libtorch"), "libtorch").or_else(|| {
        (libtorch_cuda_devices() == 0).then(|| {
            "LibTorch finds no CUDA device (no GPU, no driver, or a CPU-only LibTorch)".into()
        })
    })
}

/// What burn-cuda needs: the driver, and the mathematical functions of the CUDA toolkit.
fn missing_cuda(no_cards: Option<&str>) -> Option<String> {
    not_compiled(cfg!(feature = "cuda"), "cuda")
        .or_else(|| no_cards.map(str::to_owned))
        .or_else(|| missing_toolkit(std::env::var_os("CUDA_PATH").as_deref()))
}

/// Where burn's compiler looks for the CUDA toolkit, unless it is told.
const TOOLKITS: [&str; 4] = ["/usr/local/cuda", "/opt/cuda", "/usr/lib/cuda", "/usr"];

fn missing_toolkit(told: Option<&OsStr>) -> Option<String> {
    const FUNCTIONS: &str = "nvvm/libdevice/libdevice.10.bc";
    let is_in = |root: &Path| root.join(FUNCTIONS).is_file();
    match told {
        Some(root) => (!is_in(Path::new(root))).then(|| {
            let root = Path::new(root).display();
            format!("CUDA_PATH is {root}, which has no {FUNCTIONS}")
        }),
        None => (!TOOLKITS.iter().any(|root| is_in(Path::new(root)))).then(|| {
            format!(
                "the CUDA toolkit was not found (no {FUNCTIONS} in {}); set CUDA_PATH to its folder",
                TOOLKITS.join(", ")
            )
        }),
    }
}

fn not_compiled(compiled: bool, feature: &str) -> Option<String> {
    (!compiled).then(|| format!("not compiled in; build with --features {feature}"))
}

/// The engine of that name.
///
/// `auto` takes the best that is compiled in and present: CUDA before LibTorch on the CPU before
/// Flex.
///
/// # Errors
/// Where it is unknown or cannot be used, with everything that can.
pub fn parse(text: &str) -> Result<Engine, DeviceError> {
    let all = available();
    let error = |reason: String| DeviceError {
        asked: text.into(),
        reason,
        available: all.clone(),
    };
    if text == "auto" {
        let order = |e: Engine| match e {
            Engine::LibTorchCuda(_) => 3,
            Engine::Cuda(_) => 2,
            Engine::LibTorchCpu => 1,
            Engine::Flex => 0,
        };
        let usable = all.iter().filter(|a| a.missing.is_none());
        // Of several GPUs the first: reversed, the last of equals is taken.
        return usable
            .rev()
            .max_by_key(|a| order(a.engine))
            .map(|a| a.engine)
            .ok_or_else(|| error("finds no engine compiled in".into()));
    }
    let number = |n: &str| n.parse::<usize>().ok();
    let engine = match text.split(':').collect::<Vec<_>>()[..] {
        ["flex"] => Some(Engine::Flex),
        ["libtorch", "cpu"] => Some(Engine::LibTorchCpu),
        ["libtorch", "cuda"] => Some(Engine::LibTorchCuda(0)),
        ["libtorch", "cuda", n] => number(n).map(Engine::LibTorchCuda),
        ["cuda"] => Some(Engine::Cuda(0)),
        ["cuda", n] => number(n).map(Engine::Cuda),
        _ => None,
    };
    let engine = engine.ok_or_else(|| {
        error("is unknown; expected auto, flex, libtorch:cpu, libtorch:cuda:N or cuda:N".into())
    })?;
    let same_kind =
        |a: &&Availability| std::mem::discriminant(&a.engine) == std::mem::discriminant(&engine);
    let listed = all.iter().find(|a| a.engine == engine);
    match listed
        .or_else(|| all.iter().find(same_kind))
        .map(|a| a.missing.clone())
    {
        Some(None) if listed.is_none() => {
            Err(error("does not exist: there are fewer devices".into()))
        }
        Some(None) => Ok(engine),
        Some(Some(missing)) => Err(error(format!("cannot be used: {missing}"))),
        None => Err(error("is not supported by this build".into())),
    }
}

/// burn's device for an engine, without autodiff.
///
/// # Panics
/// For an engine that is not compiled in; [`parse`] does not return those.
#[cfg_attr(
    feature = "libtorch",
    allow(
        deprecated,
        reason = "burn points users of burn-tch elsewhere; here it is asked for by name"
    )
)]
pub fn burn_device(engine: Engine) -> Device {
    match engine {
        Engine::Flex => Device::flex(),
        #[cfg(feature = "libtorch")]
        Engine::LibTorchCpu => Device::libtorch(),
        #[cfg(feature = "libtorch")]
        Engine::LibTorchCuda(index) => {
            crate::kernels::make_deterministic();
            Device::libtorch_cuda(index)
        }
        #[cfg(feature = "cuda")]
        Engine::Cuda(index) => Device::cuda(index),
        #[allow(unreachable_patterns, reason = "depends on the features")]
        other => panic!("{other} is not compiled in"),
    }
}

/// How quantizers and norms run on an engine that has met one: in kernels of our `own`, or `composed`
/// of tensor operations, with the reason where it is not the engine's nature.
pub fn operations(engine: Engine) -> String {
    match engine {
        Engine::Flex | Engine::LibTorchCpu => "own".into(),
        Engine::Cuda(_) => "composed".into(),
        #[cfg(feature = "libtorch")]
        Engine::LibTorchCuda(ordinal) => match crate::kernels::card_status(ordinal) {
            Some(Ok(())) => "own".into(),
            Some(Err(reason)) => format!("composed: {reason}"),
            None => "not used yet".into(),
        },
        #[cfg(not(feature = "libtorch"))]
        Engine::LibTorchCuda(_) => "composed".into(),
    }
}

/// A GPU.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Gpu {
    /// As its driver names it.
    pub name: String,
    /// Share of the last moment in which it computed, percent.
    pub busy: Option<u32>,
    /// Memory in use and in all, MB.
    pub memory: Option<(f64, f64)>,
    /// Degrees Celsius.
    pub temperature: Option<u32>,
}

/// The GPUs that NVIDIA's management library reports; none without its driver, or in a
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
        let memory = device.memory_info().ok();
        Some(Gpu {
            name: device.name().ok()?,
            // A part of a GPU (MIG) does not report how busy it is.
            busy: device.utilization_rates().ok().map(|rates| rates.gpu),
            memory: memory.map(|m| (megabytes(m.used), megabytes(m.total))),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toolkit_without_its_functions_is_told() {
        let root = tempfile::tempdir().unwrap();
        let missing = missing_toolkit(Some(root.path().as_os_str())).unwrap();
        assert!(missing.contains(&root.path().display().to_string()));
        let folder = root.path().join("nvvm/libdevice");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("libdevice.10.bc"), "").unwrap();
        assert_eq!(missing_toolkit(Some(root.path().as_os_str())), None);
    }
}
