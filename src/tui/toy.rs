//! The toy's page: descents computed beside the screen, as they come.

use std::io;
use std::sync::mpsc::{self, Receiver};

use crate::figure::Figure;
use crate::quantizer::Parametrization;
use crate::toy::{DESCENTS, Descent, descents, scenes};

/// Steps of every descent.
const STEPS: usize = 3000;

/// The descents so far and their figure.
#[derive(Default)]
pub(super) struct Toy {
    coming: Option<Receiver<Descent>>,
    descents: Vec<Descent>,
    /// Three views of every parametrization: over steps, over bits, the plane.
    pub figure: Option<Figure>,
}

impl Toy {
    /// Starts computing, the first time.
    pub(super) fn start(&mut self) -> io::Result<()> {
        if self.coming.is_some() {
            return Ok(());
        }
        let (sender, receiver) = mpsc::channel();
        std::thread::Builder::new()
            .name("toy".into())
            .spawn(move || {
                // Whoever closed the workbench ends this with the next descent.
                let _ = descents(STEPS).try_for_each(|d| sender.send(d));
            })?;
        self.coming = Some(receiver);
        Ok(())
    }

    /// Takes in what was computed; `true` if there was something.
    pub(super) fn receive(&mut self) -> bool {
        let Some(coming) = &self.coming else {
            return false;
        };
        let before = self.descents.len();
        self.descents.extend(coming.try_iter());
        let changed = self.descents.len() > before;
        if changed {
            self.figure = Some(scenes(&self.descents));
        }
        changed
    }

    /// Descents computed and in all.
    pub(super) fn progress(&self) -> (usize, usize) {
        (self.descents.len(), DESCENTS)
    }

    /// Largest spread of the last errors of each parametrization, as far as known.
    pub(super) fn spread(&self, index: usize) -> Option<f64> {
        let own = self.of(Parametrization::ALL[index]);
        own.map(Descent::spread).reduce(f64::max)
    }

    /// The descents of a parametrization so far.
    pub(super) fn of(&self, parametrization: Parametrization) -> impl Iterator<Item = &Descent> {
        let descents = self.descents.iter();
        descents.filter(move |d| d.parametrization == parametrization)
    }
}
