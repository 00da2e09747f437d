//! What a study would run, before it does.

use std::path::Path;

use super::place::{Place, summary};
use crate::experiment::padded;
use crate::face::duration;
use crate::run::{History, Quantity};
use crate::study::State;

/// What a finished run took.
#[derive(Clone, Copy)]
struct Cost {
    seconds: f64,
    bytes: u64,
    steps: u64,
}

impl Cost {
    /// Of a finished run.
    fn measured(place: &Place, task: usize) -> Option<Self> {
        let run = place.folder.run(&place.study, task);
        let history = History::from_log(&run.log(), None).ok()?;
        Some(Self {
            seconds: history[Quantity::Seconds].newest()?.into(),
            bytes: size(run.path()),
            steps: run.manifest().ok()?.step,
        })
    }

    /// The mean of some, if there are any.
    fn mean(some: impl Iterator<Item = Self>) -> Option<Self> {
        let all: Vec<Self> = some.collect();
        let count = all.len() as u64;
        (count > 0).then(|| Self {
            seconds: all.iter().map(|c| c.seconds).sum::<f64>() / count as f64,
            bytes: all.iter().map(|c| c.bytes).sum::<u64>() / count,
            steps: all.iter().map(|c| c.steps).sum::<u64>() / count,
        })
    }

    /// What is left of it behind a step.
    fn behind(self, step: u64) -> Self {
        let left = self.steps.saturating_sub(step);
        let share = left as f64 / self.steps.max(1) as f64;
        Self {
            seconds: share * self.seconds,
            bytes: (share * self.bytes as f64) as u64,
            steps: left,
        }
    }
}

/// What would run, how long it may take by what was measured, and how much disk.
pub(super) fn dry_run(place: &Place, workers: usize, retry: bool) -> String {
    let study = &place.study;
    let states = place.states();
    let measured: Vec<Option<Cost>> = (0..states.len())
        .map(|task| (states[task] == State::Finished).then(|| Cost::measured(place, task))?)
        .collect();
    let of_cell = |cell: usize| {
        let own = (0..states.len()).filter(|task| study.tasks[*task].cell == cell);
        Cost::mean(own.filter_map(|task| measured[task]))
    };
    let of_any = Cost::mean(measured.iter().flatten().copied());
    let mut out = format!("{}: {}\n", study.name, place.folder.path().display());
    let (mut seconds, mut bytes, mut unknown) = (0.0, 0, 0);
    for (task, state) in states.iter().enumerate() {
        // A cell's own cost, or else that of the others, behind what is done of it.
        let step = match state {
            State::Half { step } if place.goes_on(task, state) => *step,
            State::Running(_) => {
                let manifest = place.folder.run(study, task).manifest();
                manifest.map_or(0, |m| m.step)
            }
            _ => 0,
        };
        let expected = of_cell(study.tasks[task].cell).or(of_any);
        let expected = expected.map(|cost| cost.behind(step));
        let time = match (state, expected) {
            (State::Waiting(_), _) if is_blocked(&states, task) => {
                "starts from a run that failed".into()
            }
            (State::Finished, _) => {
                measured[task].map_or(String::new(), |m| format!("took {}", duration(m.seconds)))
            }
            (State::Failed { reason, .. }, _) if !retry => reason.clone(),
            (_, Some(cost)) => {
                (seconds, bytes) = (seconds + cost.seconds, bytes + cost.bytes);
                format!("about {}", duration(cost.seconds))
            }
            (_, None) => {
                unknown += 1;
                String::new()
            }
        };
        let other = match *state == State::Finished || place.goes_on(task, state) {
            true => place.other_settings(task).unwrap_or_default(),
            // (What begins anew takes the settings of now.)
            false => Vec::new(),
        };
        let time = match other.is_empty() {
            true => time,
            false => format!(
                "REFUSED: recorded with other settings: {}",
                other.join(", ")
            ),
        };
        let described = padded(&study.describe(task), 48);
        out += &format!("{task:>4}  {:<10} {described} {time}\n", state.name());
    }
    out += &format!("{}\n", summary(&states));
    if unknown > 0 {
        out += "time and disk can be estimated once a run is finished\n";
    } else if seconds > 0.0 {
        out += &format!(
            "left: about {} with {workers} {}, {:.1} MB of disk\n",
            duration(seconds / workers as f64),
            if workers == 1 { "worker" } else { "workers" },
            bytes as f64 / 1e6
        );
    }
    out
}

/// Whether a task waits for one that failed, or for one that does.
fn is_blocked(states: &[State], mut task: usize) -> bool {
    while let State::Waiting(before) = &states[task] {
        task = *before;
    }
    matches!(states[task], State::Failed { .. })
}

/// Bytes of a folder with all that is in it.
fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(data) if data.is_dir() => size(&entry.path()),
        Ok(data) => data.len(),
        Err(_) => 0,
    });
    sizes.sum()
}
