//! Why a network cannot be built.

use std::path::{Path, PathBuf};

/// What is wrong with a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// A node's inputs do not fit its operation.
    #[error("{node}: {found}; expected {expected}")]
    Node {
        /// Name of the node.
        node: String,
        /// What it was given.
        found: String,
        /// What it takes.
        expected: String,
    },
    /// A file that holds no network that can be read.
    #[error("{path}: {found}; expected {expected}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What is there.
        found: String,
        /// What should be.
        expected: String,
    },
    /// The network has another number of outputs than the data has classes.
    #[error(
        "the network has {outputs} outputs and the data {classes} classes; hint: `init.head = \"replace\"` gives \
         it a new last layer"
    )]
    Classes {
        /// Outputs of the network.
        outputs: usize,
        /// Classes of the data.
        classes: usize,
    },
}

impl GraphError {
    /// What was found, and what was expected.
    pub fn parts(&self) -> (String, String) {
        match self {
            Self::Node {
                node,
                found,
                expected,
            } => (format!("{node}: {found}"), expected.clone()),
            Self::File {
                path,
                found,
                expected,
            } => (format!("{}: {found}", path.display()), expected.clone()),
            Self::Classes { outputs, classes } => (
                format!("the network has {outputs} outputs and the data {classes} classes"),
                "as many outputs as classes; `init.head = \"replace\"` gives it a new last layer"
                    .into(),
            ),
        }
    }

    pub(super) fn node(node: &str, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::Node {
            node: node.to_owned(),
            found: found.into(),
            expected: expected.into(),
        }
    }

    pub(super) fn file(path: &Path, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::File {
            path: path.to_owned(),
            found: found.into(),
            expected: expected.into(),
        }
    }
}
