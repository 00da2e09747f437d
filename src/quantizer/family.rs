//! Families of levels, and whose rules hold.

use serde::{Deserialize, Serialize};

/// Uniform or power-of-two levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Family {
    /// Levels at multiples of the step size `d`.
    Uniform,
    /// Levels at powers of two between `q_min` and `q_max`.
    PowerOfTwo,
}

/// The paper's definitions, or those of its published code where the two differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rules {
    /// As the paper's equations say.
    Paper,
    /// As the authors' published program computes.
    PublishedCode,
}
