//! Events to the screen. Training never waits for it.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::event::Event;

/// Events that wait for the screen at most; a screen that is suspended longer reads the log.
const CAPACITY: usize = 8192;

/// A bounded mailbox: pushing never blocks for longer than a swap of two vectors.
#[derive(Debug, Clone, Default)]
pub struct Feed {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<Arc<Event>>,
    lost: bool,
}

impl Feed {
    /// Adds an event; drops it (and remembers that) where the screen is too far behind.
    pub fn push(&self, event: Arc<Event>) {
        let mut state = self
            .shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if state.waiting.len() < CAPACITY || event.is_last() {
            state.waiting.push(event);
        } else {
            state.lost = true;
        }
        drop(state);
        self.shared.arrived.notify_one();
    }

    /// Whether so much waits that more should not be added in haste.
    pub fn is_half_full(&self) -> bool {
        let state = self.shared.state.lock();
        state.unwrap_or_else(PoisonError::into_inner).waiting.len() >= CAPACITY / 2
    }

    /// Takes everything that waits. `true` says that events were dropped before these: the log has
    /// them.
    pub fn take(&self) -> (Vec<Arc<Event>>, bool) {
        let mut state = self
            .shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        (
            std::mem::take(&mut state.waiting),
            std::mem::take(&mut state.lost),
        )
    }

    /// The same, after waiting for at least one event for at most `timeout`.
    pub fn wait(&self, timeout: Duration) -> Vec<Arc<Event>> {
        let state = self
            .shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (mut state, _) = self
            .shared
            .arrived
            .wait_timeout_while(state, timeout, |s| s.waiting.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut state.waiting)
    }
}
