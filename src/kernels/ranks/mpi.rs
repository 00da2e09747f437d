//! Ranks that `mpirun` or `srun` started, connected by MPI.
//!
//! Large sums are taken in parts: rank k gets the k-th part of every rank, adds them up in order, and
//! gives the result to all, so each rank sends about twice what it has, however many there are. Small ones
//! go to all as they are.

#![allow(
    unsafe_code,
    reason = "a C library; buffers are alive until the operation on them is done, or for ever"
)]

use std::ffi::{c_int, c_void};
use std::ops::AddAssign;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytemuck::Pod;

use super::{Lost, Ranks, add_up};

unsafe extern "C" {
    fn bitscope_mpi_start(out: *mut c_int) -> c_int;
    fn bitscope_mpi_neighbours(own: *const c_int, all: *mut c_int) -> c_int;
    fn bitscope_mpi_gather(own: *const c_void, bytes: c_int, all: *mut c_void) -> c_int;
    fn bitscope_mpi_exchange(own: *const c_void, bytes: c_int, all: *mut c_void) -> c_int;
    fn bitscope_mpi_broadcast(values: *mut c_void, bytes: c_int) -> c_int;
    fn bitscope_mpi_is_done(done: *mut c_int) -> c_int;
    fn bitscope_mpi_abort(code: c_int);
    fn bitscope_mpi_finish() -> c_int;
}

/// Values per rank up to which a sum goes to all ranks as it is.
const SMALL: usize = 4096;
/// Values of one message at most: MPI counts bytes in an `int`.
const PIECE: usize = 1 << 24;
/// How long a rank looks again and again before it sleeps between two looks: others may want the core.
const BUSY: Duration = Duration::from_micros(200);
const ASLEEP: Duration = Duration::from_micros(50);
/// From here on the sleeps are longer: the run is paused, or rank 0 evaluates.
const LONG: Duration = Duration::from_millis(200);
/// How often signals are looked at, and how far time jumps for a process that was stopped.
const TICK: Duration = Duration::from_millis(10);
const STOPPED: Duration = Duration::from_millis(500);
/// How long what is in progress may still take once the process is told to end. A launcher that lost a
/// rank tells all others so, and kills them a moment later (Open MPI 5 a fifth of a second).
const GRACE: Duration = Duration::from_millis(10);

/// Time between two looks whether the other processes of this machine are alive.
const LOOK: Duration = Duration::from_millis(5);

/// The processes of this job.
pub(super) struct Mpi {
    rank: usize,
    size: usize,
    machine: [usize; 2],
    /// Ranks on this machine with their processes, where these can be seen from here.
    neighbours: Vec<(usize, u32)>,
    /// What asked the process to end, and when that was first seen.
    told: Arc<Told>,
    /// One operation at a time; `true` once one was given up, and nothing may be called any more.
    operation: Mutex<bool>,
}

/// Signals that ask the process to end.
#[derive(Default)]
struct Told {
    /// SIGTERM or SIGINT.
    to_end: Arc<AtomicBool>,
    /// SIGCONT. A launcher that ends its processes sends it a quarter of a second before the other two,
    /// and then leaves next to no time.
    to_go_on: Arc<AtomicBool>,
    since: Mutex<Option<Instant>>,
}

impl Told {
    /// Listens; a thread tells a launcher's SIGCONT from that of a process which was stopped before: to
    /// that one, time jumps.
    fn listen() -> Result<Arc<Self>, String> {
        use signal_hook::consts::{SIGCONT, SIGINT, SIGTERM};
        let told = Arc::new(Self::default());
        let flags = [
            (SIGINT, &told.to_end),
            (SIGTERM, &told.to_end),
            (SIGCONT, &told.to_go_on),
        ];
        for (signal, flag) in flags {
            signal_hook::flag::register(signal, flag.clone())
                .map_err(|e| format!("signals: {e}"))?;
        }
        let watched = told.clone();
        let thread = std::thread::Builder::new().name("signals".into());
        let work = move || {
            let mut last = Instant::now();
            loop {
                std::thread::sleep(TICK);
                let was_stopped = last.elapsed() > STOPPED;
                last = Instant::now();
                let goes_on = watched.to_go_on.swap(false, Ordering::Relaxed) && !was_stopped;
                if goes_on || watched.to_end.load(Ordering::Relaxed) {
                    watched.since().get_or_insert(last);
                }
            }
        };
        thread.spawn(work).map_err(|e| format!("no thread: {e}"))?;
        Ok(told)
    }

    fn since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether that was long enough ago to give up what is in progress.
    fn is_urgent(&self) -> bool {
        self.since().is_some_and(|since| since.elapsed() > GRACE)
    }
}

impl Mpi {
    /// Connects to the others.
    pub(super) fn start() -> Result<Self, String> {
        let mut out = [0; 5];
        // SAFETY: it writes five numbers; nothing of MPI was called before ([`super::launched`] is once).
        checked(unsafe { bitscope_mpi_start(out.as_mut_ptr()) })?;
        let [rank, size, own, here, threads] = out.map(|n| n as usize);
        if threads == 0 {
            return Err(
                "this MPI lets only the first thread call it; one with MPI_THREAD_SERIALIZED is needed"
                    .into(),
            );
        }
        // MPI_Init may have changed what signals do; from here on they are ours.
        let told = Told::listen()?;
        Ok(Self {
            rank,
            size,
            machine: [own, here],
            neighbours: neighbours(rank, here)?,
            told,
            operation: Mutex::new(false),
        })
    }

    /// A rank of this machine whose process has ended: its launcher takes a quarter of a second to say so,
    /// and then leaves no time to save anything.
    fn dead_neighbour(&self) -> Option<usize> {
        let dead = self
            .neighbours
            .iter()
            .find(|(_, process)| !is_alive(*process));
        dead.map(|(rank, _)| *rank)
    }

    /// Begins an operation and waits for it. `kept` are its buffers: MPI still writes to them where this
    /// gives up, so then they are never freed, and no other operation is begun.
    fn operate<K>(&self, mut kept: K, begin: impl FnOnce(&mut K) -> c_int) -> Result<K, Lost> {
        let mut is_over = self
            .operation
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if *is_over {
            return Err(Lost::because("an exchange was given up before"));
        }
        *is_over = true;
        let begun = begin(&mut kept);
        let kept = std::mem::ManuallyDrop::new(kept);
        let lost = |reason: String| Lost::because(format!("rank {}: {reason}", self.rank));
        checked(begun).map_err(lost)?;
        let started = Instant::now();
        let mut looked = started;
        loop {
            let mut done = 0;
            // SAFETY: an operation is in progress, and its buffers are alive.
            checked(unsafe { bitscope_mpi_is_done(&raw mut done) }).map_err(lost)?;
            if done != 0 {
                *is_over = false;
                return Ok(std::mem::ManuallyDrop::into_inner(kept));
            }
            if looked.elapsed() > LOOK {
                looked = Instant::now();
                self.look()?;
            }
            match started.elapsed() {
                waited if waited < BUSY => std::thread::yield_now(),
                waited if waited < LONG => std::thread::sleep(ASLEEP),
                _ => std::thread::sleep(20 * ASLEEP),
            }
        }
    }

    /// Everybody's values, one rank after the other.
    fn gather<T: Pod>(&self, own: Vec<T>) -> Result<Vec<T>, Lost> {
        let all = vec![T::zeroed(); own.len() * self.size];
        let bytes = size_of_val(own.as_slice()) as c_int;
        let kept = self.operate((own, all), |(own, all)| {
            // SAFETY: `own` has so many bytes, `all` as many for every rank, and both live on in `operate`
            // (their elements do not move with them).
            unsafe { bitscope_mpi_gather(own.as_ptr().cast(), bytes, all.as_mut_ptr().cast()) }
        })?;
        Ok(kept.1)
    }

    /// One piece of a sum. Returns the bytes sent.
    fn add<T: Pod + AddAssign>(&self, values: &mut [T]) -> Result<u64, Lost> {
        let bytes = |values: usize| (values * size_of::<T>() * (self.size - 1)) as u64;
        if values.len() <= SMALL {
            let all = self.gather(values.to_vec())?;
            add_up(values, &all);
            return Ok(bytes(values.len()));
        }
        let part = values.len().div_ceil(self.size);
        let mut own = values.to_vec();
        own.resize(part * self.size, T::zeroed());
        let parts = vec![T::zeroed(); own.len()];
        let length = (part * size_of::<T>()) as c_int;
        let (_, parts) = self.operate((own, parts), |(own, parts)| {
            // SAFETY: both have a part of so many bytes for every rank, and live on in `operate`.
            unsafe { bitscope_mpi_exchange(own.as_ptr().cast(), length, parts.as_mut_ptr().cast()) }
        })?;
        let mut sum = vec![T::zeroed(); part];
        add_up(&mut sum, &parts);
        let all = self.gather(sum)?;
        values.copy_from_slice(&all[..values.len()]);
        Ok(2 * bytes(part))
    }

    fn add_in_pieces<T: Pod + AddAssign>(&self, values: &mut [T]) -> Result<u64, Lost> {
        if values.is_empty() {
            return self.add(values);
        }
        values
            .chunks_mut(PIECE)
            .try_fold(0, |sent, piece| Ok(sent + self.add(piece)?))
    }

    fn send(&self, values: Vec<u8>) -> Result<Vec<u8>, Lost> {
        let bytes = values.len() as c_int;
        self.operate(values, |values| {
            // SAFETY: so many bytes, which live on in `operate`.
            unsafe { bitscope_mpi_broadcast(values.as_mut_ptr().cast(), bytes) }
        })
    }
}

/// The other ranks of this machine and their processes; none where one cannot be seen from here (another
/// container, another system).
fn neighbours(rank: usize, here: usize) -> Result<Vec<(usize, u32)>, String> {
    let own = [rank as c_int, std::process::id() as c_int];
    let mut all = vec![0; 2 * here];
    // SAFETY: two numbers go in, two of each rank of this machine come out.
    checked(unsafe { bitscope_mpi_neighbours(own.as_ptr(), all.as_mut_ptr()) })?;
    let pairs = all
        .chunks_exact(2)
        .map(|pair| (pair[0] as usize, pair[1] as u32));
    let others: Vec<(usize, u32)> = pairs.filter(|(other, _)| *other != rank).collect();
    let visible = others.iter().all(|(_, process)| is_alive(*process));
    Ok(if visible { others } else { Vec::new() })
}

/// Whether a process computes, as Linux tells it: one that has ended may still be listed.
fn is_alive(process: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{process}/stat"));
    let state = state.ok().and_then(|text| {
        let (_, rest) = text.rsplit_once(')')?;
        rest.trim_start().chars().next()
    });
    state.is_some_and(|state| !"ZX".contains(state))
}

fn checked(error: c_int) -> Result<(), String> {
    match error {
        0 => Ok(()),
        code => Err(format!("MPI's error {code}")),
    }
}

impl Ranks for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn on_machine(&self) -> [usize; 2] {
        self.machine
    }

    fn sum(&self, values: &mut [f64]) -> Result<u64, Lost> {
        self.add_in_pieces(values)
    }

    fn sum_gradients(&self, values: &mut [f32]) -> Result<u64, Lost> {
        self.add_in_pieces(values)
    }

    fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<u64, Lost> {
        let length = self.send((bytes.len() as u64).to_le_bytes().to_vec())?;
        let length = length.try_into().map_or(0, u64::from_le_bytes) as usize;
        let mut whole = std::mem::take(bytes);
        whole.resize(length, 0);
        for piece in whole.chunks_mut(PIECE) {
            let sent = self.send(piece.to_vec())?;
            piece.copy_from_slice(&sent);
        }
        *bytes = whole;
        Ok(if self.rank == 0 { length as u64 } else { 0 })
    }

    fn look(&self) -> Result<(), Lost> {
        if let Some(dead) = self.dead_neighbour() {
            return Err(Lost::because(format!("rank {dead} has ended")));
        }
        if self.told.is_urgent() {
            return Err(Lost {
                reason: format!("rank {} was told to end", self.rank),
                is_told: true,
            });
        }
        Ok(())
    }

    fn abort(&self) {
        // SAFETY: it may be called at any time; it ends the process.
        unsafe { bitscope_mpi_abort(1) };
    }

    fn finish(&self) {
        let mut is_over = self
            .operation
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut *is_over, true) {
            // SAFETY: nothing is in progress, and nothing is begun afterwards. (An error has no remedy.)
            let _ = unsafe { bitscope_mpi_finish() };
        }
    }
}
