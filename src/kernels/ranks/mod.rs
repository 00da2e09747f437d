//! Processes that train one network together: which of them this one is, and sums over all of them.
//!
//! Doors:
//! - [`Group`]: the ranks of a run, as the rest of the program uses them.
//! - [`Ranks`]: what a way of connecting them implements. [`threads()`] connects threads of one process,
//!   `mpi` (the feature of that name) processes that `mpirun` or `srun` started.
//! - [`launched`]: the group that this process was started in.
//!
//! Sums are taken in the order of the ranks, whichever arrives first, so that the same number of ranks
//! gives the same bits every time and on every rank. An all-reduce does not promise that.
//!
//! burn has a distributed context of its own, of one process, for CUDA, through NCCL; ranks of several
//! processes and machines, and those on CPUs, need something else, which is why this is a trait. NCCL
//! through `cudarc` (rank, number of ranks, an id that is broadcast) would be another implementation of
//! it, whose [`Ranks::sum_gradients`] never leaves the card.

#[cfg(feature = "mpi")]
mod mpi;
mod threads;

use std::collections::BTreeSet;
use std::fmt;
use std::ops::AddAssign;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use threads::threads;

/// A rank that others wait for has ended, or this one is told to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Lost {
    /// What happened, in words.
    pub reason: String,
    /// Whether that is a signal to this process: it is to end, and nothing is wrong.
    pub is_told: bool,
}

impl Lost {
    /// Because something is wrong.
    pub fn because(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            is_told: false,
        }
    }
}

/// How ranks reach each other. Every rank calls the same operations in the same order; each returns once
/// its own part is done, with the bytes that this rank sent.
pub trait Ranks: Send + Sync {
    /// Which rank this is, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// Which rank this is on its machine, and how many there are on it.
    fn on_machine(&self) -> [usize; 2];

    /// Adds up the values of all ranks, in their order; the same bits on every rank.
    ///
    /// # Errors
    /// Where a rank has ended.
    fn sum(&self, values: &mut [f64]) -> Result<u64, Lost>;

    /// The same for gradients, which are many.
    ///
    /// # Errors
    /// Where a rank has ended.
    fn sum_gradients(&self, values: &mut [f32]) -> Result<u64, Lost>;

    /// Gives every rank the bytes of rank 0, however many it has.
    ///
    /// # Errors
    /// Where a rank has ended.
    fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<u64, Lost>;

    /// Waits for all.
    ///
    /// # Errors
    /// Where a rank has ended.
    fn barrier(&self) -> Result<u64, Lost> {
        self.sum(&mut [])
    }

    /// Looks whether the others are there, without waiting for them.
    ///
    /// # Errors
    /// Where a rank has ended, or this one is told to.
    fn look(&self) -> Result<(), Lost> {
        Ok(())
    }

    /// Ends all of them: this one cannot go on.
    fn abort(&self) {}

    /// Parts from the others in good order.
    fn finish(&self) {}
}

/// The ordered sum itself: adds up parts of the length of `sum` that lie one after the other.
fn add_up<T: Copy + AddAssign>(sum: &mut [T], parts: &[T]) {
    if sum.is_empty() {
        return;
    }
    let (first, rest) = parts.split_at(sum.len());
    sum.copy_from_slice(first);
    for part in rest.chunks_exact(sum.len()) {
        for (sum, value) in sum.iter_mut().zip(part) {
            *sum += *value;
        }
    }
}

/// One process alone.
struct Alone;

impl Ranks for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn on_machine(&self) -> [usize; 2] {
        [0, 1]
    }

    fn sum(&self, _values: &mut [f64]) -> Result<u64, Lost> {
        Ok(0)
    }

    fn sum_gradients(&self, _values: &mut [f32]) -> Result<u64, Lost> {
        Ok(0)
    }

    fn broadcast(&self, _bytes: &mut Vec<u8>) -> Result<u64, Lost> {
        Ok(0)
    }
}

/// The ranks of a run. Where one of them is lost, its operations unwind with [`Lost`]: a step that waits
/// for a sum, deep in a backward pass, has no other way to go on. [`Group::guarded`] takes that up.
#[derive(Clone)]
pub struct Group {
    ranks: Arc<dyn Ranks>,
    traffic: Arc<Traffic>,
}

/// What was sent, and how long this rank waited.
#[derive(Default)]
struct Traffic {
    bytes: AtomicU64,
    nanoseconds: AtomicU64,
    /// Exchanges so far.
    count: AtomicU64,
    /// Nothing is exchanged any more.
    is_over: AtomicBool,
    /// The others are in the middle of something, and wait for this rank's part.
    is_busy: AtomicBool,
    is_dismissed: AtomicBool,
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} of {}", self.rank(), self.size())
    }
}

impl PartialEq for Group {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.ranks, &other.ranks)
    }
}

impl Default for Group {
    fn default() -> Self {
        Self::new(Arc::new(Alone))
    }
}

impl Group {
    /// Ranks that are connected.
    pub fn new(ranks: Arc<dyn Ranks>) -> Self {
        Self {
            ranks,
            traffic: Arc::default(),
        }
    }

    /// Which rank this is, from 0.
    pub fn rank(&self) -> usize {
        self.ranks.rank()
    }

    /// How many ranks there are.
    pub fn size(&self) -> usize {
        self.ranks.size()
    }

    /// Which rank this is on its machine, and how many there are on it.
    pub fn on_machine(&self) -> [usize; 2] {
        self.ranks.on_machine()
    }

    /// Whether there is one rank only: nothing is exchanged.
    pub fn is_alone(&self) -> bool {
        self.size() == 1
    }

    /// Whether this is the rank that records, decides and saves.
    pub fn leads(&self) -> bool {
        self.rank() == 0
    }

    /// Adds up the values of all ranks, in their order. That all of them are at the same exchange is
    /// looked at on the way.
    pub fn sum(&self, values: &mut [f64]) {
        if self.is_alone() {
            return;
        }
        let number = self.traffic.count.load(Ordering::Relaxed) as f64;
        let mut numbered = values.to_vec();
        numbered.push(number);
        self.exchange(|ranks| {
            let sent = ranks.sum(&mut numbered)?;
            match numbered.pop() {
                Some(all) if all == number * ranks.size() as f64 => Ok(sent),
                _ => Err(Lost::because("the ranks are not at the same exchange")),
            }
        });
        values.copy_from_slice(&numbered);
    }

    /// What any of the ranks has in its set, on every rank. (Indices up to 2^53.)
    pub fn union(&self, own: Vec<usize>) -> BTreeSet<usize> {
        if self.is_alone() {
            return own.into_iter().collect();
        }
        let mut counts = vec![0.0; self.size()];
        counts[self.rank()] = own.len() as f64;
        self.sum(&mut counts);
        let start: f64 = counts[..self.rank()].iter().sum();
        // Each rank has places of its own, which the others leave zero.
        let mut all = vec![0.0; counts.iter().sum::<f64>() as usize];
        for (place, index) in all[start as usize..].iter_mut().zip(own) {
            *place = index as f64;
        }
        if !all.is_empty() {
            self.sum(&mut all);
        }
        all.into_iter().map(|index| index as usize).collect()
    }

    /// [`Self::sum`] of gradients.
    pub fn sum_gradients(&self, values: &mut [f32]) {
        self.exchange(|ranks| ranks.sum_gradients(values));
    }

    /// The bytes of rank 0.
    pub fn broadcast(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        self.exchange(|ranks| ranks.broadcast(&mut bytes));
        bytes
    }

    /// Waits for all.
    pub fn barrier(&self) {
        self.exchange(|ranks| ranks.barrier());
    }

    /// Bytes that this rank has sent, and how long it waited for others.
    pub fn traffic(&self) -> (u64, Duration) {
        let nanoseconds = self.traffic.nanoseconds.load(Ordering::Relaxed);
        (
            self.traffic.bytes.load(Ordering::Relaxed),
            Duration::from_nanos(nanoseconds),
        )
    }

    fn exchange(&self, with: impl FnOnce(&dyn Ranks) -> Result<u64, Lost>) {
        if self.is_alone() {
            return;
        }
        let started = Instant::now();
        self.traffic.count.fetch_add(1, Ordering::Relaxed);
        let outcome = if self.is_over() {
            Err(Lost::because("another rank was lost before"))
        } else {
            with(&*self.ranks)
        };
        match outcome {
            Ok(bytes) => {
                self.traffic.bytes.fetch_add(bytes, Ordering::Relaxed);
            }
            Err(lost) => {
                self.traffic.is_over.store(true, Ordering::Relaxed);
                resume_unwind(Box::new(lost));
            }
        }
        let waited = started.elapsed().as_nanos() as u64;
        self.traffic
            .nanoseconds
            .fetch_add(waited, Ordering::Relaxed);
    }

    /// Does work that may have to wait for other ranks; the reason where one of them is lost. Other panics
    /// go on unwinding.
    ///
    /// # Errors
    /// Where a rank has ended, or all are told to.
    pub fn guarded<R>(&self, work: impl FnOnce() -> R) -> Result<R, Lost> {
        if self.is_alone() {
            return Ok(work());
        }
        catch_unwind(AssertUnwindSafe(work)).map_err(|panic| match panic.downcast::<Lost>() {
            Ok(lost) => *lost,
            Err(other) => resume_unwind(other),
        })
    }

    /// Looks whether the others are there, for a rank that waits for something else; unwinds as an exchange
    /// does.
    pub fn look(&self) {
        if let Err(lost) = self.ranks.look() {
            self.abandon();
            resume_unwind(Box::new(lost));
        }
    }

    /// Does what all ranks do together. Where that ends in the middle, the others still wait for this
    /// rank's part, and [`Self::dismiss`] ends them.
    pub fn together<R>(&self, work: impl FnOnce() -> R) -> R {
        self.traffic.is_busy.store(true, Ordering::Relaxed);
        let done = work();
        self.traffic.is_busy.store(false, Ordering::Relaxed);
        done
    }

    /// Leaves it at what was exchanged: a thread that may still wait for others is left to itself.
    pub fn abandon(&self) {
        self.traffic.is_over.store(true, Ordering::Relaxed);
    }

    /// Whether a rank was lost, or nothing is to be exchanged any more.
    pub fn is_over(&self) -> bool {
        self.traffic.is_over.load(Ordering::Relaxed)
    }

    /// Ends all ranks: this one cannot go on.
    pub fn abort(&self) {
        self.ranks.abort();
    }

    /// Whether the others wait for this rank's part of something.
    pub fn is_in_the_middle(&self) -> bool {
        self.traffic.is_busy.load(Ordering::Relaxed)
    }

    /// Whether the others were told that there is nothing more.
    pub fn is_dismissed(&self) -> bool {
        self.traffic.is_dismissed.load(Ordering::Relaxed)
    }

    /// Tells the other ranks, who wait for what to do next, that there is nothing more, and parts from them.
    /// To be called by rank 0 once nothing else of it uses the group.
    pub fn dismiss(&self) {
        if self.is_alone() || self.is_over() {
            return;
        }
        if self.is_in_the_middle() {
            // What they wait for does not come.
            self.abort();
            return;
        }
        if self.guarded(|| self.broadcast(Vec::new())).is_ok() {
            self.traffic.is_dismissed.store(true, Ordering::Relaxed);
            self.abandon();
            self.ranks.finish();
        }
    }

    /// Parts from the others, on a rank that was [dismissed](Self::dismiss).
    pub fn finish(&self) {
        self.ranks.finish();
    }
}

/// Names under which launchers tell a process how many they started to be connected.
pub(crate) const LAUNCHERS: [&str; 4] = [
    "OMPI_COMM_WORLD_SIZE",
    "PMI_SIZE",
    "MPI_LOCALNRANKS",
    BY_PMIX,
];
/// Set where `srun` connects processes by PMIx, which leaves their number to Slurm's own variable.
const BY_PMIX: &str = "PMIX_RANK";
const OF_SLURM: &str = "SLURM_STEP_NUM_TASKS";

/// Processes that a launcher says it started to be connected, this one included; 1 where there is none.
pub(crate) fn started() -> usize {
    let number = |name: &str| std::env::var(name).ok()?.trim().parse::<usize>().ok();
    let set = LAUNCHERS
        .iter()
        .find(|name| std::env::var_os(name).is_some());
    set.and_then(|name| number(if *name == BY_PMIX { OF_SLURM } else { name }))
        .unwrap_or(1)
}

/// The group that this process was started in, once and for all: by `mpirun` or `srun`, or alone.
///
/// # Errors
/// Where a launcher started several of these programs that cannot reach each other: each would train
/// a run of its own.
pub fn launched() -> Result<Group, String> {
    static GROUP: Mutex<Option<Group>> = Mutex::new(None);
    let mut kept = GROUP.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(group) = &*kept {
        return Ok(group.clone());
    }
    let group = connect()?;
    *kept = Some(group.clone());
    Ok(group)
}

#[cfg(feature = "mpi")]
fn connect() -> Result<Group, String> {
    let number = started();
    if number == 1 {
        return Ok(Group::default());
    }
    let ranks = mpi::Mpi::start()?;
    if ranks.size() == 1 {
        return Err(format!(
            "{number} processes were started, and MPI connects none of them; hint: `mpirun` has to belong to \
             the MPI that this program was built with, and `srun` needs `--mpi=pmix`"
        ));
    }
    Ok(Group::new(Arc::new(ranks)))
}

#[cfg(not(feature = "mpi"))]
fn connect() -> Result<Group, String> {
    match started() {
        1 => Ok(Group::default()),
        number => Err(format!(
            "{number} processes were started, and this program was built without MPI: each would train \
             a run of its own; hint: `cargo build --release --features mpi`"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each of so many ranks makes of the same work.
    fn on_each<R: Send>(size: usize, work: impl Fn(Group) -> R + Sync) -> Vec<R> {
        std::thread::scope(|scope| {
            let ranks: Vec<_> = threads(size)
                .into_iter()
                .map(|group| scope.spawn(|| work(group)))
                .collect();
            ranks.into_iter().map(|r| r.join().expect("done")).collect()
        })
    }

    #[test]
    fn sums_are_in_the_order_of_the_ranks_on_every_rank() {
        // An order shows: 1e16 + 1 - 1e16 is 0 from left to right.
        let own = [1e16, 1.0, -1e16, 0.5];
        for _ in 0..20 {
            let sums = on_each(4, |group| {
                let mut value = [own[group.rank()], group.rank() as f64];
                group.sum(&mut value);
                value
            });
            assert_eq!(sums, [[0.5, 6.0]; 4]);
        }
        let gradients = on_each(3, |group| {
            let mut values = [group.rank() as f32; 5];
            group.sum_gradients(&mut values);
            group.barrier();
            values
        });
        assert_eq!(gradients, [[3.0; 5]; 3]);
    }

    #[test]
    fn a_union_has_what_any_rank_has_once() {
        let own = [vec![7, 2], vec![], vec![2, 1 << 40, 0]];
        let all = BTreeSet::from([0, 2, 7, 1 << 40]);
        let unions = on_each(3, |group| group.union(own[group.rank()].clone()));
        assert_eq!(unions, vec![all; 3]);
        assert!(
            on_each(2, |group| group.union(Vec::new()))
                .iter()
                .all(BTreeSet::is_empty)
        );
        assert_eq!(Group::default().union(vec![3, 3]), BTreeSet::from([3]));
    }

    #[test]
    fn every_rank_hears_the_first() {
        let heard = on_each(3, |group| group.broadcast(vec![group.rank() as u8; 2]));
        assert_eq!(heard, vec![vec![0, 0]; 3]);
        assert_eq!(Group::default().broadcast(vec![7]), [7]);
    }

    #[test]
    fn a_rank_that_ends_lets_no_other_wait() {
        let outcomes = on_each(3, |group| {
            group.barrier();
            if group.rank() == 1 {
                return Ok(());
            }
            let outcome = group.guarded(|| group.sum(&mut [1.0]));
            assert!(group.is_over());
            assert!(group.guarded(|| group.barrier()).is_err());
            outcome
        });
        assert!(outcomes[0].is_err() && outcomes[2].is_err());
        // A panic of another kind is none of a rank's loss.
        let other = on_each(2, |group| {
            catch_unwind(AssertUnwindSafe(|| group.guarded(|| panic!("another")))).is_err()
        });
        assert_eq!(other, [true; 2]);
    }

    #[test]
    fn ranks_at_different_exchanges_are_noticed() {
        let outcomes = on_each(2, |group| {
            group.guarded(|| {
                group.barrier();
                if group.rank() == 1 {
                    group.sum_gradients(&mut [0.0; 2]);
                }
                group.sum(&mut [1.0]);
            })
        });
        assert!(outcomes.iter().any(Result::is_err));
    }
}
