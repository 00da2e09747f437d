//! Recorded runs: listed, compared, drawn behind the current one.

use super::{App, Order};
use crate::experiment::{Experiment, difference, resolve_text};
use crate::figure::Overlaid;
use crate::run::{History, Manifest, RunFolder, family, list_runs};

impl App {
    /// Reads the runs folder: filtered and sorted as asked.
    pub(super) fn list_runs(&mut self) {
        self.runs = list_runs(&self.runs_root);
        self.runs
            .retain(|(folder, _)| folder.label().contains(&self.runs_filter));
        let least = |v: Option<f64>| v.unwrap_or(f64::INFINITY);
        // Runs that came to nothing are last, whatever they are sorted by.
        let kilobytes = |m: &Manifest| match m.best_error {
            Some(_) => least(m.kilobytes().map(|kb| kb[0])),
            None => f64::INFINITY,
        };
        match self.order {
            Order::Time => self
                .runs
                .sort_by_key(|run| std::cmp::Reverse(run.1.started_unix)),
            Order::Error => self
                .runs
                .sort_by(|a, b| least(a.1.best_error).total_cmp(&least(b.1.best_error))),
            Order::Kilobytes => self
                .runs
                .sort_by(|a, b| kilobytes(&a.1).total_cmp(&kilobytes(&b.1))),
        }
        self.depths = vec![0; self.runs.len()];
        if self.order == Order::Time {
            let family = family(&self.runs);
            self.depths = family.iter().map(|(depth, _)| *depth).collect();
            self.runs = family
                .iter()
                .map(|(_, at)| self.runs[*at].clone())
                .collect();
        }
        self.compare();
    }

    /// Draws the selected run behind the current one, or no longer.
    pub(super) fn toggle_overlay(&mut self) {
        let Some((folder, _)) = self.runs.get(self.selected) else {
            return;
        };
        let label = folder.label();
        if let Some(at) = self.overlays.iter().position(|o| o.label == label) {
            self.overlays.remove(at);
            self.tell(format!("{label} no longer drawn"));
            return;
        }
        if *folder == self.folder {
            self.tell("this is the run on the screen".into());
            return;
        }
        match History::from_log(&folder.log(), None) {
            Ok(history) => {
                // The first colour that none of the others has: theirs stay as they are.
                let taken = |c: &usize| self.overlays.iter().any(|o| o.colour == *c);
                let colour = (0..).find(|c| !taken(c)).unwrap_or(0);
                self.overlays.push(Overlaid {
                    label: label.clone(),
                    colour,
                    history,
                });
                self.tell(format!("{label} is drawn behind this run's plots"));
            }
            Err(error) => self.warn(error.to_string()),
        }
    }

    /// Reads how the selected run's experiment differs: once per selection, not per frame.
    pub(super) fn compare(&mut self) {
        self.compared = self
            .runs
            .get(self.selected)
            .map_or_else(Vec::new, |(folder, manifest)| {
                comparison(&self.experiment, folder, manifest)
            });
    }
}

/// The selected run's experiment against the current one, key by key.
fn comparison(current: &Experiment, folder: &RunFolder, manifest: &Manifest) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(note) = &manifest.note {
        lines.push(note.clone());
    }
    if let Some(reason) = &manifest.reason {
        lines.push(format!("failed: {reason}"));
    }
    if let Some(parent) = &manifest.parent {
        lines.push(format!(
            "forked from {} at step {}",
            parent.run, parent.step
        ));
    }
    let text = match crate::files::read_text(&folder.experiment()) {
        Ok(text) => text,
        Err(error) => {
            lines.push(format!("its experiment cannot be read: {error}"));
            return lines;
        }
    };
    match resolve_text("experiment.toml", &text) {
        Ok(other) => {
            let changes = difference(&current.values, &other.values);
            if changes.is_empty() {
                lines.push("the same experiment as the current one".into());
            }
            lines.extend(changes.iter().map(|c| format!("{c}  ({})", c.class.name())));
        }
        Err(error) => lines.push(format!("its experiment cannot be read: {error}")),
    }
    lines
}
