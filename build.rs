//! Finds LibTorch, compiles what tch does not bind, and writes where it is found at run time.

fn main() {
    tell_revision();

    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "libtorch")]
    libtorch::build();
    #[cfg(feature = "mpi")]
    mpi::build();
}

#[cfg(feature = "mpi")]
mod mpi {
    use std::process::Command;

    /// Compiles what is called of MPI with the compiler that MPI brings, and links what that links.
    pub fn build() {
        const SOURCE: &str = "src/kernels/ranks/mpi.c";
        println!("cargo:rerun-if-changed={SOURCE}");
        println!("cargo:rerun-if-env-changed=MPICC");
        let compiler = std::env::var("MPICC").unwrap_or_else(|_| "mpicc".into());
        let Some(flags) = link_flags(&compiler) else {
            eprintln!(
                "MPI: `{compiler}` cannot be run, or does not say what it links.\n\
                 Install Open MPI (Debian: libopenmpi-dev; from the Python index: openmpi) or MPICH, \
                 and have its mpicc in the path, or in the variable MPICC."
            );
            std::process::exit(1);
        };
        cc::Build::new()
            .compiler(&compiler)
            .file(SOURCE)
            .compile("bitscope_mpi");
        for flag in flags {
            if let Some(folder) = flag.strip_prefix("-L") {
                println!("cargo:rustc-link-search=native={folder}");
            } else if let Some(library) = flag.strip_prefix("-l") {
                println!("cargo:rustc-link-lib={library}");
            } else if flag.starts_with("-Wl,") {
                println!("cargo:rustc-link-arg={flag}");
            }
        }
    }

    /// As Open MPI says it, or MPICH.
    fn link_flags(compiler: &str) -> Option<Vec<String>> {
        ["--showme:link", "-link_info"].iter().find_map(|how| {
            let output = Command::new(compiler).arg(how).output().ok()?;
            let text = String::from_utf8(output.stdout).ok()?;
            let flags: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            let links = flags.iter().any(|flag| flag.starts_with("-l"));
            (output.status.success() && links).then_some(flags)
        })
    }
}

#[cfg(feature = "libtorch")]
mod libtorch {
    use std::path::{Path, PathBuf};

    /// Version whose C++ interface tch 0.22 is written for.
    const VERSION: (u32, u32) = (2, 9);

    pub fn build() {
        println!("cargo:rerun-if-changed=src/kernels/libtorch.cpp");
        println!("cargo:rerun-if-changed=src/kernels/nvidia");
        println!("cargo:rerun-if-env-changed=LIBTORCH");
        println!("cargo:rerun-if-env-changed=LIBTORCH_BYPASS_VERSION_CHECK");
        let root = match find() {
            Ok(root) => root,
            Err(problem) => {
                eprintln!(
                    "LibTorch: {problem}\n\
                     Run tools/provision-libtorch once, which fetches LibTorch {}.{} into .libtorch/;\n\
                     or set LIBTORCH to the torch folder of a PyTorch {}.{} package or of an \
                     unpacked LibTorch.",
                    VERSION.0, VERSION.1, VERSION.0, VERSION.1
                );
                std::process::exit(1);
            }
        };
        let mut build = cc::Build::new();
        if cfg!(target_os = "linux") {
            // LibTorch shares work out in its headers, through OpenMP.
            build.flag("-fopenmp");
            println!("cargo:rustc-link-lib=gomp");
        }
        build
            .cpp(true)
            .std("c++17")
            .warnings(false)
            .define("_GLIBCXX_USE_CXX11_ABI", "1")
            .include(root.join("include"))
            .include(root.join("include/torch/csrc/api/include"))
            .file("src/kernels/libtorch.cpp")
            .compile("bitscope_libtorch");
        emulate_cards();
        let libraries = root.join("lib");
        println!("cargo:rustc-link-search=native={}", libraries.display());
        println!("cargo:rustc-link-lib=torch_cpu");
        println!("cargo:rustc-link-lib=c10");
        // The loader finds the libraries where they were linked, without variables.
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", libraries.display());
        // Beside a PyTorch from the package index lies NVRTC, which compiles kernels for a card.
        for place in ["../nvidia/cuda_nvrtc/lib", "../nvidia/cu13/lib"] {
            if let Ok(nvrtc) = root.join(place).canonicalize() {
                println!("cargo:rustc-link-arg=-Wl,-rpath,{}", nvrtc.display());
            }
        }
    }

    /// The card's kernels for the tests; the program itself does not call them, and the linker leaves
    /// them out.
    fn emulate_cards() {
        println!("cargo:rustc-check-cfg=cfg(emulated_card)");
        let is = |what: &str, value: &str| std::env::var(what).is_ok_and(|v| v == value);
        // Threads of a block are coroutines of glibc's.
        if !is("CARGO_CFG_TARGET_OS", "linux") || !is("CARGO_CFG_TARGET_ENV", "gnu") {
            return;
        }
        println!("cargo:rustc-cfg=emulated_card");
        cc::Build::new()
            .cpp(true)
            .std("c++17")
            .warnings(false)
            // As on a card: products are rounded before they are added.
            .flag_if_supported("-ffp-contract=off")
            .file("src/kernels/nvidia/on_cpu.cpp")
            .compile("bitscope_card_on_cpu");
    }

    /// The folder with `include` and `lib`, of a version that fits.
    fn find() -> Result<PathBuf, String> {
        let root = std::env::var_os("LIBTORCH")
            .map(PathBuf::from)
            .ok_or("the variable LIBTORCH is not set and .cargo/config.toml is not read")?;
        let root = root
            .canonicalize()
            .map_err(|e| format!("{}: {e}", root.display()))?;
        let header = root.join("include/torch/csrc/api/include/torch/version.h");
        let text =
            std::fs::read_to_string(&header).map_err(|e| format!("{}: {e}", header.display()))?;
        let number = |name: &str| -> Option<u32> {
            let line = text
                .lines()
                .find(|l| l.contains(&format!("define {name} ")))?;
            line.split_whitespace().last()?.parse().ok()
        };
        let found = (
            number("TORCH_VERSION_MAJOR").unwrap_or(0),
            number("TORCH_VERSION_MINOR").unwrap_or(0),
        );
        let bypass = std::env::var_os("LIBTORCH_BYPASS_VERSION_CHECK").is_some();
        if found != VERSION && !bypass {
            return Err(format!(
                "version {}.{} in {}, expected {}.{}",
                found.0,
                found.1,
                root.display(),
                VERSION.0,
                VERSION.1
            ));
        }
        check_library(&root)?;
        Ok(root)
    }

    fn check_library(root: &Path) -> Result<(), String> {
        let library = root.join("lib/libtorch_cpu.so");
        let mac = root.join("lib/libtorch_cpu.dylib");
        if library.exists() || mac.exists() {
            return Ok(());
        }
        Err(format!("{} is missing", library.display()))
    }
}

/// Writes the revision of the sources into the program, where they are in a repository of their own.
fn tell_revision() {
    if !std::path::Path::new(".git").exists() {
        return;
    }
    println!("cargo::rerun-if-changed=.git/HEAD");
    println!("cargo::rerun-if-changed=.git/refs/heads");
    let revision = std::process::Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .output();
    if let Ok(output) = revision
        && output.status.success()
    {
        let revision = String::from_utf8_lossy(&output.stdout);
        println!("cargo::rustc-env=BITSCOPE_REVISION={}", revision.trim());
    }
}
