//! Ranks that are threads of one process: what tests train with.

use std::ops::AddAssign;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytemuck::Pod;

use super::{Group, Lost, Ranks, add_up};

/// What the threads share: a board on which each hangs its part, and which is read once all hang there.
struct Board {
    state: Mutex<State>,
    turned: Condvar,
}

#[derive(Default)]
struct State {
    /// Parts of the round in progress, by rank.
    parts: Vec<Option<Vec<u8>>>,
    /// Rounds completed.
    rounds: u64,
    /// Parts of the last round.
    complete: Arc<Vec<Vec<u8>>>,
    /// The rank that has gone.
    gone: Option<usize>,
}

/// One of them. A rank that is dropped is lost to the others.
struct Thread {
    board: Arc<Board>,
    rank: usize,
    size: usize,
}

/// So many ranks, each to be used by one thread.
pub fn threads(size: usize) -> Vec<Group> {
    let board = Arc::new(Board {
        state: Mutex::new(State {
            parts: vec![None; size],
            ..State::default()
        }),
        turned: Condvar::new(),
    });
    let one = |rank| {
        let board = board.clone();
        Group::new(Arc::new(Thread { board, rank, size }))
    };
    (0..size).map(one).collect()
}

impl Thread {
    fn state(&self) -> MutexGuard<'_, State> {
        let state = self.board.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }

    /// The parts of all ranks.
    fn gather(&self, own: Vec<u8>) -> Result<Arc<Vec<Vec<u8>>>, Lost> {
        let mut state = self.state();
        let round = state.rounds;
        state.parts[self.rank] = Some(own);
        if state.parts.iter().all(Option::is_some) {
            let parts = state.parts.iter_mut().map(|part| part.take());
            let complete = parts.flatten().collect();
            state.complete = Arc::new(complete);
            state.rounds += 1;
            self.board.turned.notify_all();
        }
        while state.rounds == round {
            if let Some(gone) = state.gone {
                return Err(Lost::because(format!("rank {gone} has ended")));
            }
            let waited = self.board.turned.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        Ok(state.complete.clone())
    }

    fn add<T: Pod + AddAssign>(&self, values: &mut [T]) -> Result<u64, Lost> {
        let own = bytemuck::cast_slice::<T, u8>(values).to_vec();
        let sent = own.len() as u64;
        let parts = self.gather(own)?;
        add_up(
            values,
            &bytemuck::pod_collect_to_vec::<u8, T>(&parts.concat()),
        );
        Ok(sent)
    }
}

impl Ranks for Thread {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn on_machine(&self) -> [usize; 2] {
        [self.rank, self.size]
    }

    fn sum(&self, values: &mut [f64]) -> Result<u64, Lost> {
        self.add(values)
    }

    fn sum_gradients(&self, values: &mut [f32]) -> Result<u64, Lost> {
        self.add(values)
    }

    fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<u64, Lost> {
        let own = if self.rank == 0 {
            std::mem::take(bytes)
        } else {
            Vec::new()
        };
        let sent = own.len() as u64;
        bytes.clone_from(&self.gather(own)?[0]);
        Ok(sent)
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        let rank = self.rank;
        self.state().gone.get_or_insert(rank);
        self.board.turned.notify_all();
    }
}
