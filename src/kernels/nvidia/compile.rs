//! Compiles the kernels with NVRTC.

use std::ffi::{CString, c_char};

use cudarc::nvrtc::{Ptx, result, sys};

/// What a driver loads.
pub(super) enum Code {
    /// For one architecture.
    Machine(Vec<u8>),
    /// For the driver to translate.
    Ptx(String),
}

impl From<Code> for Ptx {
    fn from(code: Code) -> Self {
        match code {
            Code::Machine(code) => Self::from_binary(code),
            Code::Ptx(text) => Self::from_src(text),
        }
    }
}

/// The kernels for a card of this compute capability: as machine code, which any driver of the same
/// major version loads; where this NVRTC does not know the card, as PTX for the driver to translate.
pub(super) fn for_card((major, minor): (i32, i32), threads: u32) -> Result<Code, String> {
    if !is_present() {
        return Err("NVRTC, which compiles kernels, was not found".into());
    }
    let architecture = format!("sm_{major}{minor}");
    compile(Some(&architecture), threads)
        .or_else(|unknown| compile(None, threads).map_err(|reason| format!("{unknown}; {reason}")))
}

/// Whether NVRTC can be opened.
fn is_present() -> bool {
    static BESIDE_LIBTORCH: std::sync::Once = std::sync::Once::new();
    BESIDE_LIBTORCH.call_once(|| {
        // LibTorch's own way to NVRTC lies beside it and knows where that is. Once open, NVRTC is
        // found by its name. (Without a driver it does not open, which does no harm.)
        // SAFETY: opens a library of LibTorch, whose initialisers LibTorch itself would run.
        unsafe { libc::dlopen(c"libcaffe2_nvrtc.so".as_ptr(), libc::RTLD_LAZY) };
    });
    // SAFETY: only asks whether the library can be opened.
    unsafe { sys::is_culib_present() }
}

/// Of the NVRTC that was found, as `major.minor`.
pub(super) fn version() -> String {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both pointers are valid for the call; whoever compiled has opened the library.
    unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) };
    format!("{major}.{minor}")
}

fn compile(architecture: Option<&str>, threads: u32) -> Result<Code, String> {
    let source = format!(
        "#define ELEMENT static __device__ __forceinline__\n#define DEVICE static __device__\n\
         #define THREADS {threads}\n{}\n{}\n{}\n{}",
        include_str!("element.cuh"),
        include_str!("total.cuh"),
        include_str!("quantize.cu"),
        include_str!("norm.cu")
    );
    let source = CString::new(source).map_err(|e| e.to_string())?;
    // Products are rounded before they are subtracted, as everywhere.
    let mut options = vec!["--fmad=false".to_owned()];
    options.extend(architecture.map(|name| format!("--gpu-architecture={name}")));
    let program =
        Program(result::create_program(&source, Some(c"bitscope.cu")).map_err(|e| e.to_string())?);
    // SAFETY: the program is live until it is dropped.
    let compiled = unsafe { result::compile_program(program.0, &options) };
    compiled.map_err(|error| format!("{error} {}", program.log()))?;
    match architecture {
        Some(_) => program.machine_code(),
        None => program.ptx(),
    }
}

/// A program of NVRTC's, destroyed with this.
struct Program(sys::nvrtcProgram);

impl Program {
    /// What the compiler said.
    fn log(&self) -> String {
        // SAFETY: the program is live.
        let log = unsafe { result::get_program_log(self.0) };
        text(log.unwrap_or_default()).trim().to_owned()
    }

    fn machine_code(&self) -> Result<Code, String> {
        let mut length = 0;
        // SAFETY: the program is live and was compiled for a real architecture.
        unsafe { sys::nvrtcGetCUBINSize(self.0, &raw mut length) }
            .result()
            .map_err(|e| e.to_string())?;
        let mut code = vec![0u8; length];
        // SAFETY: the buffer has the length that NVRTC asked for.
        unsafe { sys::nvrtcGetCUBIN(self.0, code.as_mut_ptr().cast()) }
            .result()
            .map_err(|e| e.to_string())?;
        Ok(Code::Machine(code))
    }

    fn ptx(&self) -> Result<Code, String> {
        // SAFETY: the program is live and was compiled.
        let ptx = unsafe { result::get_ptx(self.0) }.map_err(|e| e.to_string())?;
        Ok(Code::Ptx(text(ptx)))
    }
}

/// What NVRTC wrote, up to its end mark.
fn text(characters: Vec<c_char>) -> String {
    let bytes = characters.into_iter().map(|c| c as u8);
    let bytes: Vec<u8> = bytes.take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: made by NVRTC, and destroyed once.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_compile_for_every_card_where_nvrtc_is_installed() {
        if !is_present() {
            eprintln!("NVRTC is not installed here: nothing to compile with");
            return;
        }
        let Ok(Code::Ptx(ptx)) = compile(None, 256) else {
            panic!("no PTX");
        };
        for kernel in super::super::launch::NAMES {
            assert!(ptx.contains(&format!(".entry {kernel}")), "{ptx}");
        }
        for capability in [(7, 5), (8, 0), (8, 6), (8, 9), (9, 0)] {
            let code = for_card(capability, 256);
            let elf = matches!(&code, Ok(Code::Machine(code)) if code.starts_with(b"\x7fELF"));
            assert!(elf, "{capability:?}");
        }
        // A card that no NVRTC knows gets what its driver can translate.
        assert!(matches!(for_card((99, 0), 256), Ok(Code::Ptx(_))));
    }
}
