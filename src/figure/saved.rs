//! A figure as a small TOML file that reproduces it: which run, how far, and how it is looked at.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::build::{ByLayer, Fold, Name, Overlaid, View, XUnit, build_with};
use super::export::{ExportError, Format, Notes, export};
use super::scene::Figure;
use super::theme::Theme;
use crate::run::{Detail, History, Index, LogError, RunFolder};

/// A figure's file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    /// The run's folder, relative to this file.
    pub run: PathBuf,
    /// Events of its log that the figure was drawn from.
    pub events: u64,
    /// Which figure.
    pub figure: Name,
    /// Colours.
    pub theme: Theme,
    /// Visible steps.
    pub steps: (f64, f64),
    /// Unit of the x axis.
    pub x: XUnit,
    /// Factor on the y range.
    pub y_zoom: f64,
    /// Logarithmic values.
    pub log: bool,
    /// Weight of the past in smoothing.
    pub smoothing: f64,
    /// Only layers that contain this.
    pub filter: String,
    /// How layers are folded to rows.
    #[serde(default)]
    pub fold: Fold,
    /// How quantities of layers are drawn.
    #[serde(default)]
    pub by_layer: ByLayer,
    /// Pixels.
    pub format: Format,
    /// Runs drawn behind it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub behind: Vec<Behind>,
}

/// A run drawn behind a figure's own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Behind {
    /// Its folder, relative to the figure's file, or absolute.
    pub run: PathBuf,
    /// Events of its log that it was drawn from.
    pub events: u64,
    /// Its name in the legend.
    pub label: String,
    /// Number of its colour.
    pub colour: usize,
}

/// Why a figure cannot be reproduced.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// The file.
    #[error("{path}: {reason}; expected a figure's TOML file as `x` writes it")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The run's log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The picture.
    #[error(transparent)]
    Export(#[from] ExportError),
}

impl Saved {
    /// Reads a figure's file.
    ///
    /// # Errors
    /// Where it cannot be read or says something else.
    pub fn read(path: &Path) -> Result<Self, SavedError> {
        let file = |reason: String| SavedError::File {
            path: path.to_owned(),
            reason,
        };
        let text = crate::files::read_text(path).map_err(|e| file(e.to_string()))?;
        toml::from_str(&text).map_err(|e| file(e.to_string()))
    }

    /// The figure drawn again from the run's log, to a PNG, SVG or CSV file.
    ///
    /// # Errors
    /// Where the run's log cannot be read or the picture not written.
    pub fn draw(&self, beside: &Path, output: &Path) -> Result<(), SavedError> {
        let folder = beside.parent().unwrap_or(Path::new(".")).join(&self.run);
        let folder = RunFolder::open(&folder).map_err(|e| SavedError::File {
            path: beside.to_owned(),
            reason: e.to_string(),
        })?;
        let history = History::from_log(&folder.log(), Some(self.events))?;
        let mut behind = Vec::new();
        for other in &self.behind {
            let folder = beside.parent().unwrap_or(Path::new(".")).join(&other.run);
            let log = RunFolder::at(&folder).log();
            behind.push(Overlaid {
                label: other.label.clone(),
                colour: other.colour,
                history: History::from_log(&log, Some(other.events))?,
                folder,
            });
        }
        let figure = self.figure(&history, &folder.log(), &behind)()?;
        self.export(&figure, output, &notes(&history))?;
        Ok(())
    }

    /// How to build the figure of a history: at once where memory resolves it, from the log where
    /// only that does. Either way the same events give the same figure.
    pub fn figure(
        &self,
        history: &History,
        log: &Path,
        behind: &[Overlaid],
    ) -> impl FnOnce() -> Result<Figure, LogError> + Send + use<> {
        let (name, view) = (self.figure, self.view());
        let from = self.steps.0.max(0.0) as u64;
        let to = (self.steps.1.max(0.0).ceil() as u64).min(history.step());
        let coarse = name.is_over_steps() && history.is_coarse(from, to, RESOLUTION);
        let (built, outline) = if coarse {
            (None, history.outline())
        } else {
            let built = build_with(name, history, &view, behind);
            (Some(built), History::default())
        };
        let behind = if coarse { behind.to_vec() } else { Vec::new() };
        let log = log.to_owned();
        move || match built {
            Some(figure) => Ok(figure),
            None => {
                let detail = Detail::read(&log, &mut Index::default(), outline, from, to)?;
                Ok(build_with(name, &detail.history, &view, &behind))
            }
        }
    }

    /// Writes the figure to a PNG, SVG or CSV file.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn export(&self, figure: &Figure, output: &Path, notes: &Notes) -> Result<(), ExportError> {
        export(figure, output, self.theme, self.format, notes)
    }

    fn view(&self) -> View {
        View {
            x_range: Some(self.steps),
            x_unit: self.x,
            y_zoom: self.y_zoom,
            log_y: self.log,
            smoothing: self.smoothing,
            filter: self.filter.clone(),
            fold: self.fold,
            by_layer: self.by_layer,
            resolution: RESOLUTION,
            ..View::default()
        }
    }

    /// As TOML with a comment on how to use it.
    pub fn to_toml(&self) -> String {
        let body = toml::to_string(self).unwrap_or_else(|e| unreachable!("plain values: {e}"));
        format!("# `bitscope plot` with this file draws the figure again.\n\n{body}")
    }
}

/// Points that an exported line resolves.
const RESOLUTION: usize = 1400;

/// What an exported picture says about itself: run, step and experiment.
pub fn notes(history: &History) -> Box<Notes> {
    let hash = Sha256::digest(history.experiment.as_bytes());
    let hash: String = hash.iter().take(8).map(|b| format!("{b:02x}")).collect();
    Box::new([
        (
            "Software",
            format!("bitscope {}", env!("CARGO_PKG_VERSION")),
        ),
        ("Run", history.name.clone()),
        ("Step", history.step().to_string()),
        ("Experiment-SHA256", hash),
    ])
}
