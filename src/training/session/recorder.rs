//! Where a run's events go.

use std::fs::File;
use std::io::BufWriter;
use std::sync::Arc;

use crate::run::{Event, LogWriter, TensorBoard};

/// Steps between two writes of TensorBoard's file.
const BOARD_EVERY: u64 = 50;

/// Whoever listens.
pub(super) type Emit = Box<dyn Fn(Arc<Event>) + Send>;

/// Passes events to the log and to whoever listens.
pub(super) struct Recorder {
    log: Option<LogWriter>,
    emit: Emit,
    /// TensorBoard event files, where they are asked for.
    board: Option<TensorBoard<BufWriter<File>>>,
    /// Of the newest event.
    step: u64,
    /// Whether the disk does not take the log.
    trouble: bool,
    /// Times that the log was put back, as far as that was said.
    restored: u64,
    /// Times that it was cut, as far as that was said.
    cut: u64,
}

impl Recorder {
    /// Into a log, where there is one.
    pub(super) fn new(log: Option<LogWriter>, emit: Emit) -> Self {
        Self {
            log,
            emit,
            board: None,
            step: 0,
            trouble: false,
            restored: 0,
            cut: 0,
        }
    }

    /// Writes TensorBoard event files too from here on.
    pub(super) fn with_board(&mut self, board: TensorBoard<BufWriter<File>>) {
        self.board = Some(board);
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
        self.board(&event);
        if last {
            // The log is complete before anyone hears that the run is over.
            self.log = None;
        }
        (self.emit)(event);
    }

    /// Waits until the log's file has all that was recorded.
    pub(super) fn settle(&self) {
        if let Some(log) = &self.log {
            log.settle();
        }
    }

    /// TensorBoard gets what is for it. A file that cannot be written costs the run nothing.
    fn board(&mut self, event: &Event) {
        let Some(board) = &mut self.board else { return };
        let rare = !matches!(event, Event::Step(r) if !r.step.is_multiple_of(BOARD_EVERY));
        let written = board
            .take(event)
            .and_then(|()| if rare { board.flush() } else { Ok(()) });
        if let Err(error) = written {
            self.board = None;
            let step = self.step;
            let message = format!("no more TensorBoard events: {error}");
            (self.emit)(Arc::new(Event::Warning { step, message }));
        }
    }

    /// Says once when the disk stops taking the log, once when it takes it again, and when someone
    /// removed it. The log itself says what it lost.
    pub(super) fn check_disk(&mut self) {
        let Some(log) = &self.log else { return };
        let (trouble, lost, restored) = (log.trouble(), log.lost(), log.restored());
        let say = |message: String| {
            let step = self.step;
            (self.emit)(Arc::new(Event::Warning { step, message }));
        };
        if restored > self.restored {
            say("the event log was removed during the run; it has been written again".into());
        }
        self.restored = restored;
        if log.cut() > self.cut {
            say(
                "the event log was cut under the run; a part of what it held before is gone".into(),
            );
        }
        self.cut = log.cut();
        if trouble.is_some() != self.trouble {
            say(if trouble.is_some() {
                "the event log is not being written (is the disk full?); training goes on".into()
            } else {
                format!("the event log is being written again; {lost} events were lost")
            });
        }
        self.trouble = trouble.is_some();
    }
}
