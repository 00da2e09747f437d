//! What a source of pictures is to everyone else.

use std::borrow::Cow;
use std::fmt::Debug;
use std::sync::Arc;

use rand_pcg::Pcg64Mcg;

use super::error::DataError;
use super::normalisation::Normalisation;

/// A decoded picture, `[c, h, w]`, and its class.
pub type Sample<'a> = (Pixels<'a>, u16);

/// What a picture consists of.
#[derive(Debug, Clone, PartialEq)]
pub enum Pixels<'a> {
    /// Bytes, which [`Normalisation`] makes numbers of.
    Bytes(Cow<'a, [u8]>),
    /// Numbers that are taken as they are.
    Values(Cow<'a, [f32]>),
}

/// Pictures with labels, in memory or not.
pub trait Samples: Debug + Send + Sync {
    /// Number of pictures.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Channels, height and width of every picture.
    fn shape(&self) -> [usize; 3];

    /// Number of classes.
    fn classes(&self) -> usize;

    /// What becomes of a byte.
    fn normalisation(&self) -> &Normalisation;

    /// Indices of the pictures that were left out so far because they cannot be decoded, ascending.
    fn which_left_out(&self) -> Vec<usize> {
        Vec::new()
    }

    /// How many these are.
    fn left_out(&self) -> usize {
        self.which_left_out().len()
    }

    /// Whether a random crop is taken out of the picture as it was stored, by [`Self::sample`].
    fn crops_itself(&self) -> bool {
        false
    }

    /// The picture of that index; with a generator, one that [crops itself](Self::crops_itself) a part
    /// of it chosen at random. `None` where it cannot be decoded and the experiment leaves such
    /// pictures out.
    ///
    /// # Errors
    /// Where it cannot be decoded.
    fn sample(
        &self,
        index: usize,
        random: Option<&mut Pcg64Mcg>,
    ) -> Result<Option<Sample<'_>>, DataError>;
}

/// Some of the pictures of another source.
#[derive(Debug)]
pub(super) struct Selection {
    pub all: Arc<dyn Samples>,
    pub chosen: Vec<usize>,
}

impl Samples for Selection {
    fn len(&self) -> usize {
        self.chosen.len()
    }

    fn shape(&self) -> [usize; 3] {
        self.all.shape()
    }

    fn classes(&self) -> usize {
        self.all.classes()
    }

    fn normalisation(&self) -> &Normalisation {
        self.all.normalisation()
    }

    fn which_left_out(&self) -> Vec<usize> {
        self.all.which_left_out()
    }

    fn crops_itself(&self) -> bool {
        self.all.crops_itself()
    }

    fn sample(
        &self,
        index: usize,
        random: Option<&mut Pcg64Mcg>,
    ) -> Result<Option<Sample<'_>>, DataError> {
        self.all.sample(self.chosen[index], random)
    }
}
