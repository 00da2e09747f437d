//! Older detail for the plots, read beside the main loop.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};

use crate::run::{Detail, History, Index, LogError};

/// Steps on either side of one that is looked at: quantizers are recorded at a cadence.
const AROUND: u64 = 400;

/// What is zoomed into, where memory holds it too coarse.
#[derive(Default)]
pub(super) struct Closeup {
    worker: Option<Worker>,
    /// Steps that were asked for and have not come yet.
    asked: Option<(u64, u64)>,
    detail: Option<Detail>,
}

struct Worker {
    log: PathBuf,
    asks: Sender<Ask>,
    answers: Receiver<Result<Detail, LogError>>,
}

struct Ask {
    outline: History,
    from: u64,
    to: u64,
}

impl Closeup {
    /// Sees to it that steps `from` to `to` of a run will be there in `columns` columns.
    pub(super) fn look(
        &mut self,
        history: &History,
        log: &Path,
        (from, to): (u64, u64),
        columns: usize,
    ) -> Result<(), std::io::Error> {
        let to = to.min(history.step());
        let there = self.detail.as_ref().is_some_and(|d| d.covers(from, to));
        let coming = self.asked.is_some_and(|(f, t)| f <= from && to <= t);
        if there || coming || from >= to || !history.is_coarse(from, to, columns) {
            return Ok(());
        }
        // As much again on either side: to pan is not to wait.
        self.ask(history, log, (from, to), (to - from) / 2)
    }

    /// Sees to it that what was recorded at a step can be pinned.
    pub(super) fn look_at(
        &mut self,
        history: &History,
        log: &Path,
        step: u64,
    ) -> Result<(), std::io::Error> {
        let coming = self.asked.is_some_and(|(f, t)| f <= step && step <= t);
        if coming || step > history.step() || history.knows(step) {
            return Ok(());
        }
        self.ask(history, log, (step, step), AROUND)
    }

    /// Asks the log for steps with so many more on either side.
    fn ask(
        &mut self,
        history: &History,
        log: &Path,
        (from, to): (u64, u64),
        margin: u64,
    ) -> Result<(), std::io::Error> {
        let worker = match self.worker.take().filter(|w| w.log == log) {
            Some(worker) => worker,
            None => {
                self.detail = None;
                Worker::start(log)?
            }
        };
        let (from, to) = (
            from.saturating_sub(margin),
            (to + margin).min(history.step()),
        );
        let outline = history.outline();
        // A worker that has gone answers nothing; what memory holds stays.
        let _ = worker.asks.send(Ask { outline, from, to });
        self.asked = Some((from, to));
        self.worker = Some(worker);
        Ok(())
    }

    /// What was read around a step, and which steps these are.
    pub(super) fn read(&self) -> Option<((u64, u64), &History)> {
        let detail = self.detail.as_ref()?;
        Some(((detail.from, detail.to), &detail.history))
    }

    /// What the plots are drawn from where it is zoomed in.
    pub(super) fn history_mut(&mut self) -> Option<&mut History> {
        self.detail.as_mut().map(|d| &mut d.history)
    }

    /// Takes in what came; what cannot be read is said.
    pub(super) fn receive(&mut self) -> Option<Result<(), LogError>> {
        let answer = self.worker.as_ref()?.answers.try_recv().ok()?;
        Some(answer.map(|detail| {
            self.asked = self.asked.filter(|a| *a != (detail.from, detail.to));
            self.detail = Some(detail);
        }))
    }

    /// The run as the plots should see steps `from` to `to`.
    pub(super) fn history(&self, from: u64, to: u64) -> Option<&History> {
        let detail = self.detail.as_ref()?;
        let to = to.min(detail.history.step());
        detail.covers(from, to).then_some(&detail.history)
    }
}

impl Worker {
    fn start(log: &Path) -> std::io::Result<Self> {
        let (asks, asked) = mpsc::channel::<Ask>();
        let (answer, answers) = mpsc::channel();
        let file = log.to_owned();
        let work = move || {
            let mut index = Index::default();
            while let Ok(mut ask) = asked.recv() {
                // Only the newest question counts.
                while let Ok(newer) = asked.try_recv() {
                    ask = newer;
                }
                let detail = Detail::read(&file, &mut index, ask.outline, ask.from, ask.to);
                if answer.send(detail).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new()
            .name("detail".into())
            .spawn(work)?;
        Ok(Self {
            log: log.to_owned(),
            asks,
            answers,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::run::{Event, LayerQuantity, LayerRecord, LogWriter, Quantity, StepRecord};

    /// What stands on a cursor is the record of its step, however far back: loss, bits and budget.
    #[test]
    fn a_cursor_stands_on_one_recorded_step() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("events.log");
        let record = |step: u64| {
            let layer = LayerRecord {
                d: 0.25,
                bitwidth: if step.is_multiple_of(3) { 2.0 } else { 3.0 },
                ..LayerRecord::default()
            };
            StepRecord {
                step,
                loss: (step as f64).sin(),
                budget_met: step.is_multiple_of(3),
                layers: Some(vec![layer]),
                ..StepRecord::default()
            }
        };
        let writer = LogWriter::open(&log).expect("created");
        writer.push(Arc::new(crate::tui::bench::started(1, 30_000)));
        for step in 1..=30_000 {
            writer.push(Arc::new(Event::Step(Box::new(record(step)))));
        }
        drop(writer);
        let mut history = History::from_log(&log, None).expect("readable");
        let mut closeup = Closeup::default();
        for step in [1181, 7, 12_345, 29_999] {
            let known = |h: &History| h.knows(step) && h.layers[0].at(step).is_some();
            let began = Instant::now();
            while !known(&history) {
                closeup.look_at(&history, &log, step).expect("a thread");
                if let Some(answer) = closeup.receive() {
                    answer.expect("readable");
                    let (steps, read) = closeup.read().expect("read");
                    history.pin(steps, read);
                }
                assert!(began.elapsed() < Duration::from_secs(20), "step {step}");
                std::thread::yield_now();
            }
            let truth = record(step);
            assert_eq!(history[Quantity::Loss].at(step), Some(truth.loss as f32));
            let met = history[Quantity::BudgetMet].at(step);
            assert_eq!(met, Some(f32::from(u8::from(truth.budget_met))));
            let bits = history.layers[0][LayerQuantity::Bitwidth].at(step);
            assert_eq!(bits, Some(truth.layers.expect("probed")[0].bitwidth));
        }
        // Without a look at the log a mean is no reading.
        let coarse = History::from_log(&log, None).expect("readable");
        assert!(coarse[Quantity::Loss].at(1181).is_none());
        assert!(coarse[Quantity::Loss].near(1181).is_some());
    }
}
