//! Many runs: which, in which order, what came of them, and statistics over seeds.

mod plan;
pub mod statistics;

pub use plan::{Cell, Published, Study, StudyError, Task, differences, seeded};
