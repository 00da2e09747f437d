//! Many runs: which, in which order, what came of them, and statistics over seeds.
//!
//! Doors: [`Study`] reads a study's file, [`StudyFolder`] knows how far it is, [`Report`] what came of
//! it, [`script`] has others run it. Nothing here schedules or trains.

mod build;
mod figures;
mod folder;
mod jobs;
mod outcome;
mod plan;
pub mod statistics;
mod table;
mod written;

pub use figures::figures;
pub use folder::{State, StudyFolder};
pub use jobs::{Scheduler, script};
pub use outcome::{Line, Measure, Missing, Outcome, Report};
pub use plan::{Cell, Published, Study, StudyError, Task, differences, moved, seeded};
pub use table::{Form, compared_by, interval};
