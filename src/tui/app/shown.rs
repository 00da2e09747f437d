//! The run on the screen: who trains it, what was recorded, what was read back from its log.

use std::path::Path;

use crate::figure::{Behind, Overlaid};
use crate::run::{History, LogError, RunFolder};
use crate::tui::detail::Closeup;

/// Who trains the run on the screen, and who steers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tui) enum Role {
    /// This process does both.
    Training,
    /// Another trains, this one steers.
    Attached,
    /// Another trains, or none does; this one looks.
    Watching,
}

/// A run as the screen knows it, and those drawn behind it.
pub(in crate::tui) struct Shown {
    /// Who trains it, and who steers it.
    pub role: Role,
    /// What was recorded.
    pub history: History,
    /// Where it lies.
    pub folder: RunFolder,
    /// Runs drawn behind it.
    pub overlays: Vec<Overlaid>,
    /// Older detail that memory does not hold.
    closeup: Closeup,
    /// What stands on the cursors' steps, where memory holds means.
    at_cursor: Closeup,
}

impl Shown {
    /// A run that this process trains, before anything was recorded.
    pub(super) fn new(folder: RunFolder) -> Self {
        Self {
            role: Role::Training,
            history: History::default(),
            folder,
            overlays: Vec::new(),
            closeup: Closeup::default(),
            at_cursor: Closeup::default(),
        }
    }

    /// Another run in its place; what lies behind stays.
    pub(super) fn adopt(&mut self, folder: RunFolder) {
        *self = Self {
            role: self.role,
            overlays: std::mem::take(&mut self.overlays),
            ..Self::new(folder)
        };
    }

    /// Reads the history back from the log.
    ///
    /// # Errors
    /// Where the log cannot be read; then the history stays as it is.
    pub(in crate::tui) fn read_back(&mut self) -> Result<(), LogError> {
        self.history = History::from_log(&self.folder.log(), None)?;
        Ok(())
    }

    /// Asks for older detail where so many buckets of these steps would show less than was recorded, and
    /// for what was recorded at the cursors, not a mean around them. `true` if some came.
    ///
    /// # Errors
    /// Where the log cannot be read, or no thread be started.
    pub(super) fn look_closely(
        &mut self,
        steps: (u64, u64),
        buckets: usize,
        cursors: impl IntoIterator<Item = u64>,
    ) -> Result<bool, String> {
        let log = self.folder.log();
        let failed = |e: &dyn std::fmt::Display| format!("no older detail: {e}");
        (self.closeup)
            .look(&self.history, &log, steps, buckets)
            .map_err(|e| failed(&e))?;
        for step in cursors {
            (self.at_cursor)
                .look_at(&self.history, &log, step)
                .map_err(|e| failed(&e))?;
        }
        let closer = self.closeup.receive().transpose();
        let closer = closer.map_err(|e| failed(&e))?.is_some();
        if closer
            && let (Some((steps, read)), Some(close)) =
                (self.at_cursor.read(), self.closeup.history_mut())
        {
            close.pin(steps, read);
        }
        let at_cursor = self.at_cursor.receive().transpose();
        let Some(()) = at_cursor.map_err(|e| failed(&e))? else {
            return Ok(closer);
        };
        if let Some((steps, read)) = self.at_cursor.read() {
            self.history.pin(steps, read);
            if let Some(close) = self.closeup.history_mut() {
                close.pin(steps, read);
            }
        }
        Ok(true)
    }

    /// The runs drawn behind it, for a figure in the run's folder of figures.
    pub(super) fn behind(&self) -> Vec<Behind> {
        let root = self.folder.path().parent();
        let overlays = self.overlays.iter().map(|other| {
            let name = other
                .folder
                .file_name()
                .filter(|_| other.folder.parent() == root);
            let absolute = || std::path::absolute(&other.folder).unwrap_or(other.folder.clone());
            Behind {
                run: name.map_or_else(absolute, |name| Path::new("../..").join(name)),
                events: other.history.events,
                label: other.label.clone(),
                colour: other.colour,
            }
        });
        overlays.collect()
    }

    /// The history with older detail of these steps, where it was read back.
    pub(super) fn close(&self, (from, to): (u64, u64)) -> Option<&History> {
        self.closeup.history(from, to)
    }
}
