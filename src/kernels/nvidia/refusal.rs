//! What the kernels say where they do not compute.

/// Why the kernels did not compute something.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(in crate::kernels) enum Refusal {
    /// They are not made for it; for anything else they are.
    #[error("the kernels do not take {0}")]
    Unfit(String),
    /// The GPU or its driver failed.
    #[error("{0}")]
    Failed(String),
}
