//! Older detail, read back from the log where one zooms into it: in memory a long run keeps its far
//! past in coarse buckets.

use std::path::Path;

use super::super::event::Event;
use super::super::history::History;
use super::{LogError, LogReader};

/// Records of one entry of the index.
const ENTRY: usize = 256;

/// Where the steps of a log lie. It grows with the log.
#[derive(Debug, Default)]
pub struct Index {
    entries: Vec<Entry>,
    /// Bytes that are indexed.
    end: Option<u64>,
}

/// Some records behind one another, and the steps among them.
#[derive(Debug, Clone, Copy)]
struct Entry {
    position: u64,
    records: usize,
    /// Least and greatest step. A resumed run goes back: entries may overlap.
    steps: Option<(u64, u64)>,
}

impl Index {
    /// Takes in what the log holds beyond the indexed part.
    fn extend(&mut self, reader: &mut LogReader) -> std::io::Result<()> {
        if let Some(end) = self.end {
            reader.seek(end)?;
        }
        let mut position = reader.offset();
        while let Some(step) = reader.skip() {
            match self.entries.last_mut() {
                Some(entry) if entry.records < ENTRY => entry.take(step),
                _ => {
                    let mut entry = Entry {
                        position,
                        records: 0,
                        steps: None,
                    };
                    entry.take(step);
                    self.entries.push(entry);
                }
            }
            position = reader.offset();
        }
        self.end = Some(position);
        Ok(())
    }
}

impl Entry {
    fn take(&mut self, step: Option<u64>) {
        self.records += 1;
        if let Some(step) = step {
            let (low, high) = self.steps.unwrap_or((step, step));
            self.steps = Some((low.min(step), high.max(step)));
        }
    }

    fn overlaps(&self, from: u64, to: u64) -> bool {
        self.steps
            .is_some_and(|(low, high)| low <= to && from <= high)
    }
}

/// A part of a run with every recorded step.
#[derive(Debug, Clone)]
pub struct Detail {
    /// First step.
    pub from: u64,
    /// Last step.
    pub to: u64,
    /// The run with these steps alone in its series; all else as in the whole.
    pub history: History,
}

impl Detail {
    /// Reads steps `from` to `to` from the log; `outline` is [`History::outline`] of the run.
    ///
    /// # Errors
    /// Where the log cannot be read.
    pub fn read(
        log: &Path,
        index: &mut Index,
        outline: History,
        from: u64,
        to: u64,
    ) -> Result<Self, LogError> {
        let mut reader = LogReader::open(log)?;
        index.extend(&mut reader).map_err(LogError::io(log))?;
        let mut history = outline;
        for entry in index.entries.iter().filter(|e| e.overlaps(from, to)) {
            reader.seek(entry.position).map_err(LogError::io(log))?;
            for event in reader.by_ref().take(entry.records) {
                match event {
                    Event::Step(record) if (from..=to).contains(&record.step) => {
                        history.fill(&record);
                    }
                    Event::Started { .. } => history.break_lines(),
                    _ => {}
                }
            }
        }
        Ok(Self { from, to, history })
    }

    /// Whether it holds all of these steps.
    pub fn covers(&self, from: u64, to: u64) -> bool {
        self.from <= from && to <= self.to
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::super::event::StepRecord;
    use super::super::super::quantity::Quantity;
    use super::super::{LogWriter, read_log};
    use super::*;

    fn step(step: u64) -> Event {
        Event::Step(Box::new(StepRecord {
            step,
            loss: (step as f64 * 0.37).sin(),
            ..StepRecord::default()
        }))
    }

    #[test]
    fn a_summary_saves_reading_and_changes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("events.log");
        let long = |message: u64| Event::Warning {
            step: message,
            message: "m".repeat(20_000),
        };
        let writer = LogWriter::open(&log).expect("created");
        (1..=30_000).for_each(|i| writer.push(Arc::new(step(i))));
        (1..=600).for_each(|i| writer.push(Arc::new(long(i))));
        drop(writer);
        let summary = log.with_extension("summary");
        assert!(summary.exists(), "a long log that is closed has one");
        let same = |a: &History, b: &History| {
            assert_eq!(a.events, b.events);
            assert_eq!(a[Quantity::Loss].extent(), b[Quantity::Loss].extent());
            for at in [1, 500, 29_999] {
                assert_eq!(a[Quantity::Loss].at(at), b[Quantity::Loss].at(at));
            }
            assert_eq!(a.messages, b.messages);
        };
        let read = || History::from_log(&log, None).expect("readable");
        let all = History::from_log(&log, Some(u64::MAX)).expect("readable");
        same(&read(), &all);
        // What follows is read behind it.
        let writer = LogWriter::open(&log).expect("continued");
        (30_001..=30_010).for_each(|i| writer.push(Arc::new(step(i))));
        drop(writer);
        let all = History::from_log(&log, Some(u64::MAX)).expect("readable");
        assert_eq!(all[Quantity::Loss].extent(), Some((1, 30_010)));
        same(&read(), &all);
        // Damaged, of another log, or gone: all is read.
        let good = std::fs::read(&summary).expect("there");
        let mut bad = good.clone();
        bad[good.len() / 2] ^= 1;
        std::fs::write(&summary, bad).expect("damaged");
        same(&read(), &all);
        std::fs::write(&summary, good).expect("again");
        let writer = LogWriter::open(&folder.path().join("other.log")).expect("created");
        (1..=40_000).for_each(|i| writer.push(Arc::new(step(2 * i))));
        drop(writer);
        std::fs::rename(folder.path().join("other.log"), &log).expect("replaced");
        assert_eq!(read()[Quantity::Loss].extent(), Some((2, 80_000)));
    }

    #[test]
    fn what_memory_merged_the_log_gives_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("events.log");
        let writer = LogWriter::open(&log).expect("created");
        let mut history = History::default();
        let mut write = |event: Event| {
            history.push(&event);
            writer.push(Arc::new(event));
        };
        (1..=20_000).map(step).for_each(&mut write);
        // The run was resumed: what came after the checkpoint was taken again.
        (19_000..=30_000).map(step).for_each(&mut write);
        drop(writer);
        let exact = |h: &History, at: u64| h[Quantity::Loss].at(at).map(f64::from);
        let truth = |at: u64| (at as f64 * 0.37).sin();
        let close = |a: Option<f64>, b: f64| a.is_some_and(|a| (a - b).abs() < 1e-6);
        assert!(history.is_coarse(1_000, 1_100, 400));
        assert!(!history.is_coarse(29_900, 30_000, 400));
        let mut index = Index::default();
        for (from, to) in [(1_000, 1_100), (19_500, 20_200), (29_000, 30_000)] {
            let detail = Detail::read(&log, &mut index, history.outline(), from, to).expect("read");
            assert!(detail.covers(from, to) && !detail.covers(from, to + 1));
            assert!(!detail.history.is_coarse(from, to, 400));
            for at in [from, (from + to) / 2, to] {
                assert!(close(exact(&detail.history, at), truth(at)), "step {at}");
            }
            assert_eq!(detail.history[Quantity::Loss].extent(), Some((from, to)));
            assert_eq!(detail.history.step(), history.step());
        }
        let (events, _) = read_log(&log).expect("readable");
        assert_eq!(events.len(), 20_000 + 11_001);
    }
}
