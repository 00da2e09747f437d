//! What a study would run, before it does.

use std::path::Path;

use super::place::{Place, summary};
use crate::face::duration;
use crate::run::{History, Quantity};
use crate::study::State;

/// What would run, how long it may take by what was measured, and how much disk.
pub(super) fn dry_run(place: &Place, workers: usize, retry: bool) -> String {
    let study = &place.study;
    let states = place.states();
    let measured: Vec<Option<(f64, u64)>> = (0..states.len())
        .map(|task| (states[task] == State::Finished).then(|| measured(place, task))?)
        .collect();
    let mean = |of_cell: Option<usize>| {
        let chosen = measured.iter().enumerate().filter_map(|(task, m)| {
            let fits = of_cell.is_none_or(|cell| study.tasks[task].cell == cell);
            m.filter(|_| fits)
        });
        let chosen: Vec<(f64, u64)> = chosen.collect();
        let count = chosen.len();
        (count > 0).then(|| {
            let seconds = chosen.iter().map(|m| m.0).sum::<f64>() / count as f64;
            (
                seconds,
                chosen.iter().map(|m| m.1).sum::<u64>() / count as u64,
            )
        })
    };
    let mut out = format!("{}: {}\n", study.name, place.folder.path().display());
    let (mut seconds, mut bytes, mut unknown) = (0.0, 0, 0);
    for (task, state) in states.iter().enumerate() {
        // A cell's own time, or else that of the others.
        let expected = mean(Some(study.tasks[task].cell)).or(mean(None));
        let time = match (state, expected) {
            (State::Waiting(_), _) if is_blocked(&states, task) => {
                "starts from a run that failed".into()
            }
            (State::Finished, _) => {
                measured[task].map_or(String::new(), |m| format!("took {}", duration(m.0)))
            }
            (State::Failed { reason, .. }, _) if !retry => reason.clone(),
            (_, Some((s, b))) => {
                (seconds, bytes) = (seconds + s, bytes + b);
                format!("about {}", duration(s))
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
        out += &format!(
            "{task:>4}  {:<10} {:<48} {time}\n",
            state.name(),
            study.describe(task)
        );
    }
    out += &format!("{}\n", summary(&states));
    if unknown > 0 {
        out += "how long they take is known once the first is finished\n";
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

/// Seconds and bytes of a finished run.
fn measured(place: &Place, task: usize) -> Option<(f64, u64)> {
    let run = place.folder.run(&place.study, task);
    let history = History::from_log(&run.log(), None).ok()?;
    let seconds = history[Quantity::Seconds].newest()?;
    Some((seconds.into(), size(run.path())))
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
