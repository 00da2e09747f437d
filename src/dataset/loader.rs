//! Batches, prepared on threads while the device works.
//!
//! Batch `k` of a run depends on the seed and `k` alone, not on threads or on where the run was
//! resumed: worker `i` of `n` prepares the batches `i, i + n, ...` and the consumer takes turns.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use super::Dataset;
use crate::experiment::Augment;

/// Normalised pictures `[n, c, h, w]` with labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// `(x / 255 - 0.5) * 2`, row-major.
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

/// Batches prepared per worker ahead of the consumer.
const AHEAD: usize = 3;

/// An endless stream of training batches.
pub struct Loader {
    workers: Vec<Worker>,
    next: u64,
    per_epoch: u64,
    /// Seconds that [`Self::next_batch`] waited in total: what the device lost to the loader.
    pub waited_s: f64,
}

struct Worker {
    batches: Option<Receiver<Batch>>,
    thread: Option<JoinHandle<()>>,
}

impl Loader {
    /// Starts the workers at batch `first` (counted from the start of the run).
    pub fn start(data: Arc<Dataset>, settings: LoaderSettings, first: u64) -> Self {
        let per_epoch = batches_per_epoch(data.len(), settings.batch);
        let threads = settings.threads.max(1);
        let workers = (0..threads)
            .map(|i| {
                let (sender, receiver) = sync_channel(AHEAD);
                let data = data.clone();
                let thread = std::thread::Builder::new()
                    .name(format!("loader-{i}"))
                    .spawn(move || {
                        work(&data, settings, first + i as u64, threads as u64, &sender);
                    })
                    .expect("the system can start a thread");
                Worker {
                    batches: Some(receiver),
                    thread: Some(thread),
                }
            })
            .collect();
        Self {
            workers,
            next: 0,
            per_epoch,
            waited_s: 0.0,
        }
    }

    /// Batches of one epoch; a last partial batch is left out.
    pub fn per_epoch(&self) -> u64 {
        self.per_epoch
    }

    /// The next batch.
    pub fn next_batch(&mut self) -> Batch {
        let worker = &self.workers[(self.next % self.workers.len() as u64) as usize];
        let receiver = worker.batches.as_ref().expect("present until dropped");
        let started = std::time::Instant::now();
        let batch = receiver
            .recv()
            .expect("workers run until the receiver is dropped");
        self.waited_s += started.elapsed().as_secs_f64();
        self.next += 1;
        batch
    }
}

impl Drop for Loader {
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

/// Whole batches in `samples`; a set smaller than a batch is one batch.
pub fn batches_per_epoch(samples: usize, batch: usize) -> u64 {
    (samples / batch).max(1) as u64
}

fn work(
    data: &Dataset,
    settings: LoaderSettings,
    first: u64,
    stride: u64,
    sender: &SyncSender<Batch>,
) {
    let per_epoch = batches_per_epoch(data.len(), settings.batch);
    let mut order = (u64::MAX, Vec::new());
    let mut k = first;
    loop {
        let epoch = k / per_epoch;
        if order.0 != epoch {
            order = (epoch, epoch_order(data.len(), settings, epoch));
        }
        let start = (k % per_epoch) as usize * settings.batch;
        let end = (start + settings.batch).min(order.1.len());
        let mut rng = Pcg64Mcg::seed_from_u64(mix(settings.seed, k.wrapping_add(1 << 40)));
        let batch = assemble(data, &order.1[start..end], settings.augment, &mut rng);
        if sender.send(batch).is_err() {
            return;
        }
        k += stride;
    }
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

fn assemble(data: &Dataset, indices: &[usize], augment: Augment, rng: &mut Pcg64Mcg) -> Batch {
    let mut images = Vec::with_capacity(indices.len() * data.picture_len());
    for index in indices {
        let flip = augment.flip && rng.random::<bool>();
        let reach = augment.crop as i32;
        let mut shift = || {
            if reach > 0 {
                rng.random_range(-reach..=reach) as isize
            } else {
                0
            }
        };
        let shift = (shift(), shift());
        append(data, *index, flip, shift, &mut images);
    }
    let labels = indices.iter().map(|i| data.labels[*i]).collect();
    Batch {
        images,
        labels,
        shape: data.shape,
    }
}

/// Appends one picture, moved by `shift` (rows, columns) into zero padding and perhaps flipped.
/// Padding is zero in bytes, as a padded picture file would be.
fn append(data: &Dataset, index: usize, flip: bool, shift: (isize, isize), out: &mut Vec<f32>) {
    let picture = data.picture(index);
    let [channels, rows, columns] = data.shape.map(|n| n as isize);
    if !flip && shift == (0, 0) {
        out.extend(picture.iter().map(|v| normalise(*v)));
        return;
    }
    for channel in 0..channels {
        for row in 0..rows {
            for column in 0..columns {
                let source_column = if flip { columns - 1 - column } else { column } + shift.1;
                let source_row = row + shift.0;
                let inside =
                    (0..rows).contains(&source_row) && (0..columns).contains(&source_column);
                let at = (channel * rows + source_row) * columns + source_column;
                out.push(normalise(if inside { picture[at as usize] } else { 0 }));
            }
        }
    }
}

/// A byte as training sees it: `(x / 255 - 0.5) * 2`.
pub(crate) fn normalise(byte: u8) -> f32 {
    (f32::from(byte) / 255.0 - 0.5) * 2.0
}

/// All samples in order, without augmentation, in batches of at most `batch`.
pub fn evaluation_batches(data: &Dataset, batch: usize) -> impl Iterator<Item = Batch> + '_ {
    (0..data.len()).step_by(batch.max(1)).map(move |start| {
        let indices: Vec<usize> = (start..(start + batch).min(data.len())).collect();
        plain(data, &indices)
    })
}

/// At most `count` samples, evenly over the data and without augmentation, in batches of at most
/// `batch`. Data often lies sorted by class, so each batch is spread over all of it.
pub fn sampled_batches(
    data: &Dataset,
    count: usize,
    batch: usize,
) -> impl Iterator<Item = Batch> + '_ {
    let count = count.min(data.len());
    let batches = count.div_ceil(batch.max(1));
    (0..batches).map(move |first| {
        let indices: Vec<usize> = (first..count)
            .step_by(batches)
            .map(|i| i * data.len() / count)
            .collect();
        plain(data, &indices)
    })
}

fn plain(data: &Dataset, indices: &[usize]) -> Batch {
    let none = Augment {
        crop: 0,
        flip: false,
    };
    assemble(data, indices, none, &mut Pcg64Mcg::seed_from_u64(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(threads: usize, first: u64, count: usize) -> Vec<Batch> {
        let data = Arc::new(super::super::generate_glyphs(100, 0.5, 1));
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
        let mut loader = Loader::start(data, settings, first);
        (0..count).map(|_| loader.next_batch()).collect()
    }

    #[test]
    fn batches_depend_on_seed_and_position_alone() {
        let all = stream(1, 0, 20);
        assert_eq!(stream(3, 0, 20), all);
        assert_eq!(stream(2, 9, 11), all[9..]);
        assert_ne!(all[0], all[6]);
    }

    #[test]
    fn samples_are_spread_over_the_data() {
        let data = Dataset {
            images: (0..90).flat_map(|i| [i; 3]).collect(),
            labels: (0..90).collect(),
            shape: [3, 1, 1],
            classes: 90,
        };
        let labels = |count, batch| -> Vec<Vec<u16>> {
            let batches = sampled_batches(&data, count, batch);
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
        let expected: Vec<f32> = (0..=254).map(normalise).collect();
        assert_eq!(seen, expected);
    }
}
