//! The workbench.
use crate::cli::{CliError, Run};
use crate::experiment::Loaded;
use crate::run::RunFolder;
pub(crate) fn run(_l: Loaded, _r: &Run, _x: Option<(RunFolder, std::path::PathBuf)>) -> Result<u8, CliError> { Ok(0) }
