//! Pictures with labels: generated, read, downloaded; and the loader that prepares batches.
//!
//! Doors:
//! - [`open`]: the [`Splits`] of an experiment's data source.
//! - [`Samples`]: pictures with labels, in memory or decoded as they are needed.
//! - [`Loader`]: prepares the next batches while the device works.
//! - [`cifar10::download`], [`idx::download`]: fetch and verify CIFAR-10 and Fashion-MNIST.

mod cached;
pub mod cifar10;
mod error;
mod fetch;
mod folder;
mod glyphs;
mod held;
pub mod idx;
mod loader;
mod normalisation;
mod picture;
mod samples;
mod shards;
mod stored;
mod tensors;

use std::sync::Arc;

pub use glyphs::generate as generate_glyphs;
pub use loader::{
    Batch, Loader, LoaderSettings, Prepared, Share, batches_per_epoch, evaluation_batches,
    sampled_batches, shared_batches, training_batches,
};

pub use error::DataError;
pub use fetch::Archive;
pub use folder::Report as FolderReport;
pub use held::{DataShape, Dataset};
pub use normalisation::Normalisation;
use samples::Selection;
pub use samples::{Pixels, Sample, Samples};

use crate::experiment::{DataSource, Experiment, Normalise};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use tensors::Tensors;

/// Training, validation and test data: three things. The test part is read once, at the end.
#[derive(Debug, Clone)]
pub struct Splits {
    /// What the network learns from.
    pub train: Arc<dyn Samples>,
    /// What decisions are made on; absent for data used step by step.
    pub validation: Option<Arc<dyn Samples>>,
    /// What the final figure is measured on.
    pub test: Option<Arc<dyn Samples>>,
    /// Where the data prescribes its batches: samples per step, used in order.
    pub prescribed_batch: Option<usize>,
    /// What a reader should know of the data, a sentence each.
    pub notes: Vec<String>,
    /// How the parts are held, where not in memory.
    pub holding: Vec<String>,
}

impl Splits {
    /// What there is, in a line.
    pub fn described(&self) -> String {
        let parts = [
            (Some(&self.train), "training"),
            (self.validation.as_ref(), "validation"),
            (self.test.as_ref(), "test"),
        ];
        let parts = parts.into_iter().filter_map(|(part, name)| {
            let part = part?;
            Some(format!("{} {name}", part.len()))
        });
        let [c, h, w] = self.train.shape();
        let mut text = format!(
            "data: {} pictures of {c}x{h}x{w}, {} classes",
            parts.collect::<Vec<_>>().join(", "),
            self.train.classes()
        );
        for holding in &self.holding {
            text += &format!("; {holding}");
        }
        text
    }
}

/// The shape of an experiment's data, without reading the pictures. Where the data is not there it
/// is what the experiment declares, and the second part says what is missing.
pub fn shape(experiment: &Experiment) -> (DataShape, Option<DataError>) {
    let declared = experiment.shape;
    let size = declared.size.unwrap_or(folder::SIZE);
    let otherwise = DataShape {
        picture: [declared.channels.unwrap_or(3), size, size],
        classes: declared.classes.unwrap_or(10),
    };
    let present = present(&experiment.data);
    let found = present.and_then(|()| match &experiment.data {
        DataSource::Glyphs { .. } => Ok(DataShape {
            picture: [3, size, size],
            classes: 10,
        }),
        DataSource::Cifar10(_) => Ok(DataShape {
            picture: [3, 32, 32],
            classes: 10,
        }),
        DataSource::Idx(folder) => idx::read(folder).map(|(train, _)| DataShape {
            picture: train.shape,
            classes: train.classes,
        }),
        DataSource::Tensors(file) => {
            tensors::read(file, declared.classes).map(|(data, ..)| data.shape())
        }
        DataSource::Folder(folder) => folder::classes(folder).map(|names| DataShape {
            picture: [3, size, size],
            classes: names.len(),
        }),
        DataSource::Shards(path) => shards::classes(path).map(|names| DataShape {
            picture: [3, size, size],
            classes: names.len(),
        }),
    });
    match found {
        Ok(shape) => (shape, None),
        Err(error) => {
            let is_cifar = matches!(experiment.data, DataSource::Cifar10(_));
            let otherwise = DataShape {
                picture: if is_cifar {
                    [3, 32, 32]
                } else {
                    otherwise.picture
                },
                ..otherwise
            };
            (otherwise, Some(error))
        }
    }
}

/// # Errors
/// Where nothing is at the path of the data.
fn present(source: &DataSource) -> Result<(), DataError> {
    let path = match source {
        // Shards may be a pattern; their reader says what it finds.
        DataSource::Glyphs { .. } | DataSource::Shards(_) => return Ok(()),
        DataSource::Cifar10(folder) => folder.join(cifar10::TRAIN_FILES[0]),
        DataSource::Idx(path) | DataSource::Tensors(path) | DataSource::Folder(path) => {
            path.clone()
        }
    };
    match path.metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(DataError::Missing(path)),
        _ => Ok(()),
    }
}

/// Reads or generates the data of an experiment and splits off validation.
///
/// # Errors
/// Where a file is missing or holds something unexpected: which, where and what was expected.
pub fn open(experiment: &Experiment) -> Result<Splits, DataError> {
    present(&experiment.data)?;
    let (mut notes, mut holding) = (Vec::new(), Vec::new());
    let held = |mut data: Dataset| -> Box<dyn Samples> {
        data.normalisation = Normalisation::new(&experiment.normalise);
        Box::new(data)
    };
    let (train, test) = match &experiment.data {
        DataSource::Glyphs {
            samples,
            difficulty,
        } => {
            let all = samples + (samples / 4).max(500);
            let size = experiment.shape.size.unwrap_or(folder::SIZE);
            let generated = glyphs::generate(all, size, *difficulty, experiment.seed);
            let indices: Vec<usize> = (0..all).collect();
            let (train, test) = indices.split_at(*samples);
            (
                held(generated.select(train)),
                Some(held(generated.select(test))),
            )
        }
        DataSource::Cifar10(folder) => {
            let (train, test) = cifar10::read(folder)?;
            (held(train), Some(held(test)))
        }
        DataSource::Idx(folder) => {
            let (train, test) = idx::read(folder)?;
            (held(train), Some(held(test)))
        }
        DataSource::Tensors(file) => {
            let (data, prescribed_batch, found) = tensors::read(file, experiment.shape.classes)?;
            notes = found;
            let data: Box<dyn Samples> = match data {
                Tensors::Bytes(data) => held(data),
                Tensors::Values(data) => Box::new(data),
            };
            if prescribed_batch.is_some() {
                return Ok(Splits {
                    train: data.into(),
                    validation: None,
                    test: None,
                    prescribed_batch,
                    notes,
                    holding: Vec::new(),
                });
            }
            (data, None)
        }
        DataSource::Shards(path) => {
            let (train, test, report) = shards::read(path, &folder::Wishes::of(experiment))?;
            (notes, holding) = (report.notes, report.holding);
            (train, test)
        }
        DataSource::Folder(folder) => {
            let (train, test, report) = folder::read(folder, &folder::Wishes::of(experiment))?;
            (notes, holding) = (report.notes, report.holding);
            (train, test)
        }
    };
    if let Normalise::Channels(channels) = &experiment.normalise
        && ![1, train.shape()[0]].contains(&channels.len())
    {
        return Err(DataError::Channels {
            given: channels.len(),
            channels: train.shape()[0],
        });
    }
    let (train, validation) = split(train.into(), experiment.validation, experiment.seed);
    Ok(Splits {
        train,
        validation,
        test: test.map(Into::into),
        prescribed_batch: None,
        notes,
        holding,
    })
}

/// What a folder of pictures or tar files hold, every picture decoded: unreadable ones are listed, not
/// an error. `None` of data that is no stored pictures.
///
/// # Errors
/// Where the data is not laid out as it should be.
pub fn check_pictures(experiment: &Experiment) -> Result<Option<FolderReport>, DataError> {
    present(&experiment.data)?;
    let wishes = folder::Wishes::of(experiment);
    match &experiment.data {
        DataSource::Folder(folder) => folder::check(folder, wishes).map(Some),
        DataSource::Shards(path) => shards::check(path, wishes).map(Some),
        _ => Ok(None),
    }
}

/// Splits a share off for validation, chosen at random but always the same for a seed.
fn split(
    data: Arc<dyn Samples>,
    share: f64,
    seed: u64,
) -> (Arc<dyn Samples>, Option<Arc<dyn Samples>>) {
    let count = (data.len() as f64 * share).round() as usize;
    if count == 0 {
        return (data, None);
    }
    let mut indices: Vec<usize> = (0..data.len()).collect();
    indices.shuffle(&mut rand_pcg::Pcg64Mcg::seed_from_u64(
        seed ^ 0x5eed_0f5e_1ec7,
    ));
    let train = indices.split_off(count);
    let of = |chosen| -> Arc<dyn Samples> {
        Arc::new(Selection {
            all: data.clone(),
            chosen,
        })
    };
    (of(train), Some(of(indices)))
}
