//! The allocator between steps.

/// Tells the allocator to keep freed blocks instead of returning them to the system: a training
/// step frees and takes the same large blocks again, and each page handed back costs a fault and
/// a clear. Memory in use is bounded by the largest step.
///
/// Call once, at the start of the program.
pub fn keep_blocks() {
    #[cfg(all(feature = "libtorch", target_os = "linux", target_env = "gnu"))]
    keep_blocks_of_the_system();

    // SAFETY: sets a process-wide option of the allocator; it takes any value at any time.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) };
}

/// `mi_option_purge_delay` (the binding names its neighbours 14 and 16 only): milliseconds before freed
/// pages are returned; -1 never.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// LibTorch takes its tensors from the system's allocator, not from the program's.
#[cfg(all(feature = "libtorch", target_os = "linux", target_env = "gnu"))]
fn keep_blocks_of_the_system() {
    const LARGE: i32 = 1 << 30;
    // SAFETY: each sets a process-wide limit of the allocator; it refuses what it cannot take and
    // then stays as it was.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, LARGE);
        libc::mallopt(libc::M_TOP_PAD, LARGE / 16);
    }
}
