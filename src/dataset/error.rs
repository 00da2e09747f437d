//! What can be wrong with data.

use std::path::{Path, PathBuf};

/// What can be wrong with data.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file holds something else than it should.
    #[error("{path}: at byte {offset}: {found}; expected {expected}")]
    Content {
        /// Which file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is there.
        found: String,
        /// What should be.
        expected: String,
    },
    /// A folder is not laid out as it should be, or some of its files cannot be read.
    #[error("{path}: {found}; expected {expected}")]
    Folder {
        /// Which folder.
        path: PathBuf,
        /// What is there.
        found: String,
        /// What should be.
        expected: String,
    },
    /// Nothing is where the data should be.
    #[error(
        "{0} does not exist; hint: `data.path` says where the data is (`--set data.path=PATH` for one run)"
    )]
    Missing(PathBuf),
    /// Means and deviations of other channels than the pictures have.
    #[error(
        "`data.mean` has {given} numbers; expected 1, or {channels}, as many as the pictures have channels"
    )]
    Channels {
        /// Numbers.
        given: usize,
        /// Channels.
        channels: usize,
    },
    /// Pictures of numbers, where bytes are needed.
    #[error("the pictures are numbers; expected bytes")]
    NoBytes,
    /// All are left out.
    #[error("none of the {0} training pictures can be decoded; expected at least one")]
    NoPicture(usize),
    /// A download failed.
    #[error("{url}: {reason}")]
    Download {
        /// What was fetched.
        url: String,
        /// What went wrong, with the remedy.
        reason: String,
    },
}

impl DataError {
    pub(super) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io {
            path: path.to_owned(),
            source,
        }
    }

    pub(super) fn folder(
        path: &Path,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Self::Folder {
            path: path.to_owned(),
            found: found.into(),
            expected: expected.into(),
        }
    }

    pub(super) fn content(
        path: &Path,
        offset: u64,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Self::Content {
            path: path.to_owned(),
            offset,
            found: found.into(),
            expected: expected.into(),
        }
    }
}
