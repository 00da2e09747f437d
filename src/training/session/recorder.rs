//! Where a run's events go.

use std::sync::Arc;

use crate::run::{Event, LogWriter};

/// Passes events to the log and to whoever listens.
pub(super) struct Recorder<E: Fn(Arc<Event>)> {
    log: Option<LogWriter>,
    emit: E,
    /// Of the newest event.
    step: u64,
    /// Whether the disk does not take the log.
    trouble: bool,
}

impl<E: Fn(Arc<Event>)> Recorder<E> {
    /// Into a log, where there is one.
    pub(super) fn new(log: Option<LogWriter>, emit: E) -> Self {
        Self {
            log,
            emit,
            step: 0,
            trouble: false,
        }
    }

    /// Step of the newest event.
    pub(super) fn step(&self) -> u64 {
        self.step
    }

    /// Records an event and passes it on.
    pub(super) fn emit(&mut self, event: Event) {
        self.step = event.step();
        let last = event.is_last();
        let event = Arc::new(event);
        if let Some(log) = &self.log {
            log.push(event.clone());
        }
        if last {
            // The log is complete before anyone hears that the run is over.
            self.log = None;
        }
        (self.emit)(event);
    }

    /// Says once when the disk stops taking the log, and once when it takes it again.
    pub(super) fn check_disk(&mut self) {
        let trouble = self.log.as_ref().and_then(LogWriter::trouble);
        if trouble.is_some() == self.trouble {
            return;
        }
        self.trouble = trouble.is_some();
        let message = match trouble {
            Some(lost) => format!(
                "the event log is not being written ({lost} events lost so far; is the disk full?); \
                 training goes on"
            ),
            None => "the event log is being written again".into(),
        };
        let step = self.step;
        (self.emit)(Arc::new(Event::Warning { step, message }));
    }
}
