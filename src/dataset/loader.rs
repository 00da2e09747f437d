//! Batches, prepared on threads while the device works.
//!
//! Batch `k` of a run depends on the seed and `k` alone, not on threads or on where the run was
//! resumed: worker `i` of `n` prepares the batches `i, i + n, ...` and the consumer takes turns.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use super::{DataError, Normalisation, Pixels, Samples, Splits};
use crate::experiment::{Augment, Experiment};

/// Pictures `[n, c, h, w]` with labels, as a device takes them.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// Bytes, where the source has bytes: what waits for the device, and is copied to it, is then a
    /// quarter of the numbers.
    pub pixels: Pixels<'static>,
    /// Class of each picture.
    pub labels: Vec<u16>,
    /// Channels, height and width.
    pub shape: [usize; 3],
}

impl Prepared {
    /// Some of its pictures.
    pub fn part(self, pictures: Range<usize>) -> Self {
        let length: usize = self.shape.iter().product();
        let values = pictures.start * length..pictures.end * length;
        Self {
            pixels: match self.pixels {
                Pixels::Bytes(bytes) => Pixels::Bytes(bytes[values].to_vec().into()),
                Pixels::Values(numbers) => Pixels::Values(numbers[values].to_vec().into()),
            },
            labels: self.labels[pictures].to_vec(),
            shape: self.shape,
        }
    }

    /// The pictures as numbers.
    pub fn normalised(self, normalisation: &Normalisation) -> Batch {
        let [channels, rows, columns] = self.shape;
        let images = match self.pixels {
            Pixels::Values(values) => values.into_owned(),
            Pixels::Bytes(bytes) => {
                let planes = bytes.chunks_exact((rows * columns).max(1)).enumerate();
                let numbers = planes.flat_map(|(i, plane)| {
                    let table = normalisation.channel(i % channels);
                    plane.iter().map(|byte| table[usize::from(*byte)])
                });
                numbers.collect()
            }
        };
        Batch {
            images,
            labels: self.labels,
            shape: self.shape,
        }
    }
}

/// Normalised pictures `[n, c, h, w]` with labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// As the source's [`Normalisation`](super::Normalisation) has it, row-major.
    pub images: Vec<f32>,
    /// Class of each picture.
    pub labels: Vec<u16>,
    /// Channels, height and width.
    pub shape: [usize; 3],
}

/// What the loader needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LoaderSettings {
    /// Samples per batch.
    pub batch: usize,
    /// Augmentation.
    pub augment: Augment,
    /// Of order and augmentation.
    pub seed: u64,
    /// Worker threads.
    pub threads: usize,
    /// Take batches in the order of the data instead of shuffling.
    pub in_order: bool,
}

impl LoaderSettings {
    /// As an experiment asks for, on its data.
    pub fn of(experiment: &Experiment, splits: &Splits) -> Self {
        Self {
            batch: splits.prescribed_batch.unwrap_or(experiment.batch),
            augment: experiment.augment,
            seed: experiment.seed,
            threads: experiment.loader_threads,
            in_order: splits.prescribed_batch.is_some(),
        }
    }
}

/// Which part of the work is this process's, where several train one network: part `index` of `of`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// From 0.
    pub index: usize,
    /// How many there are.
    pub of: usize,
}

impl Share {
    /// All of it.
    pub const ALL: Self = Self { index: 0, of: 1 };

    /// The part of `count` things in a row.
    pub fn range(self, count: usize) -> Range<usize> {
        let at = |index: usize| count * index / self.of;
        at(self.index)..at(self.index + 1)
    }
}

/// Batches prepared per worker ahead of the consumer, at most.
const AHEAD: usize = 3;
/// Bytes of batches that wait, of all workers together, where each holds at least one.
const WAITING: usize = 256 << 20;

/// Batches that each of so many workers keeps ready, where they are of so many values.
fn ahead(threads: usize, values: usize) -> usize {
    (WAITING / (4 * values * threads).max(1)).clamp(1, AHEAD)
}

/// A batch, or why there is none.
type Made = Result<Prepared, DataError>;

/// Threads that prepare batches in turn: worker `i` of `n` makes `first + i`, `first + i + n`, ...
struct Workers {
    workers: Vec<Worker>,
    next: usize,
}

struct Worker {
    batches: Option<Receiver<Made>>,
    thread: Option<JoinHandle<()>>,
}

impl Workers {
    /// Starts them; `make` gives `None` where there are no more.
    fn start(
        threads: usize,
        first: u64,
        ahead: usize,
        make: impl Fn(u64) -> Option<Made> + Send + Sync + 'static,
    ) -> Self {
        let make = Arc::new(make);
        let threads = threads.max(1);
        let start = |i: usize| {
            let (sender, receiver) = sync_channel(ahead);
            let make = make.clone();
            let thread = std::thread::Builder::new()
                .name(format!("loader-{i}"))
                .spawn(move || work(&*make, first + i as u64, threads as u64, &sender))
                .expect("the system can start a thread");
            Worker {
                batches: Some(receiver),
                thread: Some(thread),
            }
        };
        Self {
            workers: (0..threads).map(start).collect(),
            next: 0,
        }
    }

    fn next(&mut self) -> Option<Made> {
        let worker = &self.workers[self.next % self.workers.len()];
        self.next += 1;
        worker.batches.as_ref()?.recv().ok()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            // A closed channel ends the worker's next send.
            worker.batches = None;
        }
        for worker in &mut self.workers {
            if let Some(thread) = worker.thread.take() {
                let _ = thread.join();
            }
        }
    }
}

fn work(make: &dyn Fn(u64) -> Option<Made>, first: u64, stride: u64, sender: &SyncSender<Made>) {
    let mut k = first;
    while let Some(made) = make(k) {
        let is_last = made.is_err();
        if sender.send(made).is_err() || is_last {
            return;
        }
        k += stride;
    }
}

/// A batch, where it could be made. Whoever trains has no other way to go on without it: the run fails
/// with the reason.
fn or_end(made: Made) -> Prepared {
    made.unwrap_or_else(|error| std::panic::resume_unwind(Box::new(error)))
}

/// An endless stream of training batches.
pub struct Loader {
    workers: Workers,
    per_epoch: u64,
    normalisation: Normalisation,
}

impl Loader {
    /// Starts the workers at batch `first` (counted from the start of the run).
    pub fn start(data: Arc<dyn Samples>, settings: LoaderSettings, first: u64) -> Self {
        Self::shared(data, settings, Share::ALL, first)
    }

    /// The same for one of several processes: of every batch, the pictures of this share, as the whole
    /// batch has them.
    pub fn shared(
        data: Arc<dyn Samples>,
        settings: LoaderSettings,
        share: Share,
        first: u64,
    ) -> Self {
        Self {
            per_epoch: batches_per_epoch(data.len(), settings.batch),
            normalisation: data.normalisation().clone(),
            workers: training_workers(data, settings, share, first, None),
        }
    }

    /// Batches of one epoch; a last partial batch is left out.
    pub fn per_epoch(&self) -> u64 {
        self.per_epoch
    }

    /// The next batch as numbers. Where it cannot be made, this unwinds with the reason.
    pub fn next_batch(&mut self) -> Batch {
        self.next_prepared().normalised(&self.normalisation)
    }

    /// The next batch. Where it cannot be made, this unwinds with the reason.
    pub fn next_prepared(&mut self) -> Prepared {
        let made = self.workers.next();
        or_end(made.expect("workers run until they are dropped"))
    }
}

/// Workers that prepare the batches of a run from `first` on; of `count` batches, if that is given.
fn training_workers(
    data: Arc<dyn Samples>,
    settings: LoaderSettings,
    share: Share,
    first: u64,
    count: Option<u64>,
) -> Workers {
    let per_epoch = batches_per_epoch(data.len(), settings.batch);
    let order = Order::default();
    let values = settings.batch.div_ceil(share.of) * data.shape().iter().product::<usize>();
    let ahead = ahead(settings.threads.max(1), values);
    Workers::start(settings.threads, first, ahead, move |k| {
        if count.is_some_and(|count| k >= first + count) {
            return None;
        }
        let order = order.of(data.len(), settings, k / per_epoch);
        let start = (k % per_epoch) as usize * settings.batch;
        let end = (start + settings.batch).min(order.len());
        let mut rng = Pcg64Mcg::seed_from_u64(mix(settings.seed, k.wrapping_add(1 << 40)));
        let wanted = Wanted {
            augment: settings.augment,
            rng: Some(&mut rng),
            share,
        };
        Some(assemble(&*data, &order[start..end], wanted))
    })
}

/// The first `count` batches of a run, shuffled and augmented as it trains on them, at most one epoch.
/// Where one cannot be made, the iterator unwinds with the reason.
pub fn training_batches(
    data: Arc<dyn Samples>,
    settings: LoaderSettings,
    count: u64,
) -> impl Iterator<Item = Prepared> {
    let count = count.min(batches_per_epoch(data.len(), settings.batch));
    let mut workers = training_workers(data, settings, Share::ALL, 0, Some(count));
    std::iter::from_fn(move || workers.next().map(or_end))
}

/// The order of the newest epoch, which all workers go through.
#[derive(Default)]
struct Order(std::sync::Mutex<Option<(u64, Arc<Vec<usize>>)>>);

impl Order {
    fn of(&self, samples: usize, settings: LoaderSettings, epoch: u64) -> Arc<Vec<usize>> {
        let mut newest = self.0.lock().unwrap_or_else(|e| e.into_inner());
        match &*newest {
            Some((of, order)) if *of == epoch => order.clone(),
            _ => {
                let order = Arc::new(epoch_order(samples, settings, epoch));
                *newest = Some((epoch, order.clone()));
                order
            }
        }
    }
}

/// Whole batches in `samples`; a set smaller than a batch is one batch.
pub fn batches_per_epoch(samples: usize, batch: usize) -> u64 {
    (samples / batch).max(1) as u64
}

fn epoch_order(samples: usize, settings: LoaderSettings, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..samples).collect();
    if !settings.in_order {
        order.shuffle(&mut Pcg64Mcg::seed_from_u64(mix(settings.seed, epoch)));
    }
    order
}

fn mix(seed: u64, stream: u64) -> u64 {
    (seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// How the pictures of a batch are changed.
struct Wanted<'a> {
    augment: Augment,
    /// `None` for the pictures as they are.
    rng: Option<&'a mut Pcg64Mcg>,
    /// The pictures that are prepared.
    share: Share,
}

fn assemble(data: &dyn Samples, indices: &[usize], wanted: Wanted<'_>) -> Made {
    let shape = data.shape();
    let Wanted {
        augment,
        mut rng,
        share,
    } = wanted;
    let own_places = share.range(indices.len());
    let (mut bytes, mut values) = (Vec::new(), Vec::new());
    let mut labels = Vec::with_capacity(own_places.len());
    for (place, index) in indices.iter().enumerate() {
        let mut change = Change::default();
        let mut own = None;
        if let Some(rng) = rng.as_deref_mut() {
            change.flip = augment.flip && rng.random::<bool>();
            if data.crops_itself() {
                own = Some(Pcg64Mcg::seed_from_u64(rng.random()));
            } else if augment.crop > 0 {
                let reach = augment.crop as i32;
                change.shift = [0; 2].map(|_| rng.random_range(-reach..=reach) as isize);
            }
        }
        if !own_places.contains(&place) {
            // What is random of it is drawn all the same.
            continue;
        }
        let is_training = rng.is_some();
        // In training, one that is left out gives its place to the next one that is not.
        let places = if is_training { data.len() } else { 1 };
        let before = labels.len();
        for place in 0..places {
            let index = (index + place) % data.len();
            if let Some((picture, label)) = data.sample(index, own.as_mut())? {
                match &picture {
                    Pixels::Bytes(picture) => append(picture, shape, change, &mut bytes),
                    Pixels::Values(picture) => append(picture, shape, change, &mut values),
                }
                labels.push(label);
                break;
            }
        }
        if is_training && labels.len() == before {
            return Err(DataError::NoPicture(data.len()));
        }
    }
    // A source has the one or the other.
    let pixels = if values.is_empty() {
        Pixels::Bytes(bytes.into())
    } else {
        Pixels::Values(values.into())
    };
    Ok(Prepared {
        pixels,
        labels,
        shape,
    })
}

/// How one picture is changed.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Change {
    flip: bool,
    /// Rows and columns into zero padding.
    shift: [isize; 2],
}

/// Appends one picture, changed. Padding is zero, in bytes as a padded picture file would be.
fn append<T: Copy + Default>(
    picture: &[T],
    [_, rows, columns]: [usize; 3],
    change: Change,
    out: &mut Vec<T>,
) {
    if change == Change::default() {
        out.extend_from_slice(picture);
        return;
    }
    let [down, across] = change.shift;
    for plane in picture.chunks_exact(rows * columns) {
        for row in 0..rows as isize {
            let source = row + down;
            for column in 0..columns as isize {
                let column = if change.flip {
                    columns as isize - 1 - column
                } else {
                    column
                };
                let at = [source, column + across];
                let inside =
                    (0..rows as isize).contains(&at[0]) && (0..columns as isize).contains(&at[1]);
                out.push(if inside {
                    plane[at[0] as usize * columns + at[1] as usize]
                } else {
                    T::default()
                });
            }
        }
    }
}

/// All samples in order, without augmentation, in batches of at most `batch`, prepared by so many
/// threads. Where one cannot be made, the iterator unwinds with the reason.
pub fn evaluation_batches(
    data: Arc<dyn Samples>,
    batch: usize,
    threads: usize,
) -> impl Iterator<Item = Batch> {
    let normalisation = data.normalisation().clone();
    shared_batches(data, batch, threads, Share::ALL).map(move |b| b.normalised(&normalisation))
}

/// Of these batches every `share.of`-th, from the one of this index on.
pub fn shared_batches(
    data: Arc<dyn Samples>,
    batch: usize,
    threads: usize,
    share: Share,
) -> impl Iterator<Item = Prepared> {
    let (count, batch) = (data.len(), batch.max(1));
    plain(data, batch, threads, move |k| {
        let start = (k as usize * share.of + share.index) * batch;
        (start..(start + batch).min(count)).collect()
    })
}

/// At most `count` samples, evenly over the data and without augmentation, in batches of at most
/// `batch`. Data often lies sorted by class, so each batch is spread over all of it.
pub fn sampled_batches(
    data: Arc<dyn Samples>,
    count: usize,
    batch: usize,
    threads: usize,
) -> impl Iterator<Item = Prepared> {
    let all = data.len();
    let count = count.min(all);
    let batches = count.div_ceil(batch.max(1));
    plain(data, batch, threads, move |first| {
        let own = (first as usize..count).step_by(batches.max(1));
        let own = own.take(if (first as usize) < batches {
            usize::MAX
        } else {
            0
        });
        own.map(|i| i * all / count).collect()
    })
}

/// Batches of these indices, without augmentation, until there are none.
fn plain(
    data: Arc<dyn Samples>,
    batch: usize,
    threads: usize,
    indices: impl Fn(u64) -> Vec<usize> + Send + Sync + 'static,
) -> impl Iterator<Item = Prepared> {
    let none = Augment {
        crop: 0,
        flip: false,
    };
    let values = batch.min(data.len()) * data.shape().iter().product::<usize>();
    let ahead = ahead(threads.max(1), values);
    let make = move |k| {
        let indices = indices(k);
        let wanted = Wanted {
            augment: none,
            rng: None,
            share: Share::ALL,
        };
        (!indices.is_empty()).then(|| assemble(&*data, &indices, wanted))
    };
    let mut workers = Workers::start(threads, 0, ahead, make);
    std::iter::from_fn(move || workers.next().map(or_end)).filter(|batch| !batch.labels.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::Dataset;
    use super::*;

    fn stream(threads: usize, first: u64, count: usize) -> Vec<Batch> {
        shared(threads, Share::ALL, first, count)
    }

    fn shared(threads: usize, share: Share, first: u64, count: usize) -> Vec<Batch> {
        let data = Arc::new(super::super::generate_glyphs(100, 32, 0.5, 1));
        let augment = Augment {
            crop: 4,
            flip: true,
        };
        let settings = LoaderSettings {
            batch: 16,
            augment,
            seed: 7,
            threads,
            in_order: false,
        };
        let mut loader = Loader::shared(data, settings, share, first);
        (0..count).map(|_| loader.next_batch()).collect()
    }

    #[test]
    fn shares_of_a_batch_make_up_the_batch() {
        let whole = stream(2, 0, 8);
        let parts = [0, 1, 2].map(|index| shared(1, Share { index, of: 3 }, 0, 8));
        for (k, whole) in whole.iter().enumerate() {
            let images = parts.iter().flat_map(|part| part[k].images.clone());
            assert_eq!(images.collect::<Vec<f32>>(), whole.images);
            let labels = parts.iter().flat_map(|part| part[k].labels.clone());
            assert_eq!(labels.collect::<Vec<u16>>(), whole.labels);
            assert!(parts.iter().all(|part| part[k].labels.len() >= 5));
        }
    }

    #[test]
    fn evaluations_are_shared_out_by_batches() {
        let data: Arc<dyn Samples> = Arc::new(super::super::generate_glyphs(100, 32, 0.5, 1));
        let of = |index, of| shared_batches(data.clone(), 16, 1, Share { index, of });
        let [whole, even, odd]: [Vec<Prepared>; 3] =
            [of(0, 1), of(0, 2), of(1, 2)].map(Iterator::collect);
        assert_eq!([even.len(), odd.len()], [4, 3]);
        assert!(even.iter().eq(whole.iter().step_by(2)));
        assert!(odd.iter().eq(whole.iter().skip(1).step_by(2)));
    }

    #[test]
    fn batches_depend_on_seed_and_position_alone() {
        let all = stream(1, 0, 20);
        assert_eq!(stream(3, 0, 20), all);
        assert_eq!(stream(2, 9, 11), all[9..]);
        assert_ne!(all[0], all[6]);
    }

    #[test]
    fn training_batches_are_those_that_a_run_begins_with() {
        let data: Arc<dyn Samples> = Arc::new(super::super::generate_glyphs(100, 32, 0.5, 1));
        let settings = LoaderSettings {
            batch: 16,
            augment: Augment {
                crop: 4,
                flip: true,
            },
            seed: 3,
            threads: 2,
            in_order: false,
        };
        let mut run = Loader::start(data.clone(), settings, 0);
        let first: Vec<Prepared> = (0..6).map(|_| run.next_prepared()).collect();
        let of = |count| training_batches(data.clone(), settings, count).collect::<Vec<_>>();
        assert_eq!(of(4), first[..4]);
        assert!(of(0).is_empty());
        // At most an epoch.
        assert_eq!(of(1000), first);
    }

    #[test]
    fn samples_are_spread_over_the_data() {
        let data = Dataset {
            images: (0..90).flat_map(|i| [i; 3]).collect(),
            labels: (0..90).collect(),
            shape: [3, 1, 1],
            classes: 90,
            normalisation: Normalisation::symmetric(),
        };
        let data: Arc<dyn Samples> = Arc::new(data);
        let labels = |count, batch| -> Vec<Vec<u16>> {
            let batches = sampled_batches(data.clone(), count, batch, 2);
            batches.map(|b| b.labels).collect()
        };
        assert_eq!(labels(6, 3), [[0, 30, 60], [15, 45, 75]]);
        assert_eq!(labels(1000, 1000), [(0..90).collect::<Vec<u16>>()]);
        assert!(labels(0, 5).is_empty());
    }

    #[test]
    fn an_epoch_shows_every_sample_once() {
        let data = Dataset {
            images: (0..=254).collect(),
            labels: vec![0; 85],
            shape: [3, 1, 1],
            classes: 1,
            normalisation: Normalisation::symmetric(),
        };
        let settings = LoaderSettings {
            batch: 17,
            augment: Augment {
                crop: 0,
                flip: false,
            },
            seed: 1,
            threads: 2,
            in_order: false,
        };
        let mut loader = Loader::start(Arc::new(data), settings, 0);
        assert_eq!(loader.per_epoch(), 5);
        let mut seen: Vec<f32> = (0..5).flat_map(|_| loader.next_batch().images).collect();
        seen.sort_by(f32::total_cmp);
        let normalisation = Normalisation::symmetric();
        let expected = normalisation.channel(0)[..255].to_vec();
        assert_eq!(seen, expected);
    }
}
