//! Older detail for the plots, read beside the main loop.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};

use crate::run::{Detail, History, Index, LogError};

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
        if self.worker.as_ref().is_none_or(|w| w.log != log) {
            self.worker = Some(Worker::start(log)?);
            self.detail = None;
        }
        // As much again on either side: to pan is not to wait.
        let margin = (to - from) / 2;
        let (from, to) = (
            from.saturating_sub(margin),
            (to + margin).min(history.step()),
        );
        if let Some(worker) = &self.worker {
            let outline = history.outline();
            // A worker that has gone answers nothing; memory's coarse buckets stay.
            let _ = worker.asks.send(Ask { outline, from, to });
            self.asked = Some((from, to));
        }
        Ok(())
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
