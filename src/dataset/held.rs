//! Pictures held in memory.

use rand_pcg::Pcg64Mcg;

use super::error::DataError;
use super::normalisation::Normalisation;
use super::samples::{Pixels, Sample, Samples};

/// Pictures `[n, c, h, w]` of bytes with one label each.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// Row-major bytes.
    pub images: Vec<u8>,
    /// Class of each picture.
    pub labels: Vec<u16>,
    /// Channels, height and width.
    pub shape: [usize; 3],
    /// Number of classes.
    pub classes: usize,
    /// What becomes of a byte.
    pub normalisation: Normalisation,
}

impl Dataset {
    /// All pictures of a source, as they are evaluated.
    ///
    /// # Errors
    /// Where one cannot be decoded.
    pub fn of(samples: &dyn Samples) -> Result<Self, DataError> {
        let mut all = Self {
            images: Vec::new(),
            labels: Vec::new(),
            shape: samples.shape(),
            classes: samples.classes(),
            normalisation: samples.normalisation().clone(),
        };
        for index in 0..samples.len() {
            match samples.sample(index, None)? {
                Some((Pixels::Bytes(picture), label)) => {
                    all.images.extend_from_slice(&picture);
                    all.labels.push(label);
                }
                Some((Pixels::Values(_), _)) => return Err(DataError::NoBytes),
                None => {}
            }
        }
        Ok(all)
    }

    /// Bytes of one picture.
    pub fn picture_len(&self) -> usize {
        self.shape.iter().product()
    }

    /// One picture.
    pub fn picture(&self, index: usize) -> &[u8] {
        &self.images[index * self.picture_len()..(index + 1) * self.picture_len()]
    }

    pub(super) fn select(&self, indices: &[usize]) -> Self {
        Self {
            images: indices
                .iter()
                .flat_map(|i| self.picture(*i))
                .copied()
                .collect(),
            labels: indices.iter().map(|i| self.labels[*i]).collect(),
            shape: self.shape,
            classes: self.classes,
            normalisation: self.normalisation.clone(),
        }
    }
}

impl Samples for Dataset {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn shape(&self) -> [usize; 3] {
        self.shape
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn normalisation(&self) -> &Normalisation {
        &self.normalisation
    }

    fn sample(
        &self,
        index: usize,
        _random: Option<&mut Pcg64Mcg>,
    ) -> Result<Option<Sample<'_>>, DataError> {
        let picture = Pixels::Bytes(self.picture(index).into());
        Ok(Some((picture, self.labels[index])))
    }
}

/// Extent of a picture and number of classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataShape {
    /// Channels, height and width.
    pub picture: [usize; 3],
    /// Number of classes.
    pub classes: usize,
}
