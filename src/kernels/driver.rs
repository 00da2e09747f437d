//! What NVIDIA's driver reports of its GPUs, before anything is computed on one.

use std::sync::OnceLock;

use cudarc::driver::{result, sys};

/// Names of the GPUs, in the order of their numbers. The driver is asked once.
///
/// # Errors
/// Where there is no driver, or it does not answer.
pub(crate) fn cards() -> Result<&'static [String], &'static str> {
    static CARDS: OnceLock<Result<Vec<String>, String>> = OnceLock::new();
    let cards = CARDS.get_or_init(ask).as_deref();
    cards.map_err(String::as_str)
}

fn ask() -> Result<Vec<String>, String> {
    // SAFETY: only asks whether the library can be opened.
    if !unsafe { sys::is_culib_present() } {
        return Err("no NVIDIA driver was found (libcuda)".into());
    }
    let failed = |e: result::DriverError| format!("the NVIDIA driver reports: {e}");
    result::init().map_err(failed)?;
    let count = result::device::get_count().map_err(failed)?;
    if count == 0 {
        return Err("the NVIDIA driver lists no GPU (is CUDA_VISIBLE_DEVICES empty?)".into());
    }
    (0..count)
        .map(|i| result::device::get_name(result::device::get(i)?))
        .collect::<Result<_, _>>()
        .map_err(failed)
}
