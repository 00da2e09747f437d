//! What several tests need: a small, fast experiment.

#![allow(dead_code, reason = "each test uses a part")]

use std::path::{Path, PathBuf};

/// A run of a few hundred short steps on generated data.
pub const SMALL: &str = r#"
name = "small"
device = "flex"

[data]
samples = 640
difficulty = 0.3

[train]
batch = 16
epochs = 1000

[weights]
quantizer = "u3"

[activations]
quantizer = "u3"

[optimizer]
lr = 0.01

[log]
evaluate_every = 1
checkpoint_every = 1
"#;

/// Writes a text to a file of a folder.
pub fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("written");
    path
}

/// The program under test.
pub fn program() -> &'static str {
    env!("CARGO_BIN_EXE_bitscope")
}
