//! The `bitscope` program: everything is in the library.

use std::process::ExitCode;

// glibc returns the large blocks of every step to the kernel; mimalloc keeps them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    bitscope::kernels::keep_blocks();
    bitscope::cli::main()
}
