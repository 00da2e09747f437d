//! What the faces share: what is to be run and how it begins, experiments loaded and checked, recorded
//! runs found, and errors with their exit codes. A face uses this floor and the rooms below it.

pub(crate) mod checkpoint;
mod error;
mod load;
mod signals;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

pub(crate) use error::{CliError, exit, print, report};
pub(crate) use load::{DEMO, load, load_recorded, outline, outlined, parse, reachable};
pub(crate) use signals::{end_when_told, interrupt_flag};

use crate::experiment::{self, Loaded, printable};
use crate::run::{Parent, RunFolder};
use crate::training::{Origin, Setup};

/// How long a reader has for the lines that are left when the program is to end.
pub(crate) const LAST_LINES: Duration = Duration::from_secs(2);

/// Which experiment is to be trained, and how.
#[derive(Debug, Args, Clone)]
pub(crate) struct Run {
    /// Experiment file (default: the embedded demo)
    pub experiment: Option<PathBuf>,
    /// Override a key of the experiment file; repeatable
    #[arg(long = "set", value_name = "KEY.PATH=VALUE")]
    pub set: Vec<String>,
    /// Stop after this many steps
    #[arg(long, value_name = "N")]
    pub steps: Option<u64>,
    /// Where runs are recorded
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub runs: PathBuf,
    /// Wait for a command before the first step
    #[arg(skip)]
    pub paused: bool,
    /// Record in this folder, which is there and empty: for a run that is detached
    #[arg(long, value_name = "DIR", hide = true)]
    pub into: Option<PathBuf>,
    #[command(flatten)]
    pub screen: Screen,
}

/// How the workbench is drawn.
#[derive(Debug, Args, Clone, Copy)]
pub(crate) struct Screen {
    /// Maximum frames per second (10 suits slow connections)
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u8).range(1..=120))]
    pub fps: u8,
    /// Colours of the terminal (default: what TERM, COLORTERM and NO_COLOR say)
    #[arg(long, value_enum, value_name = "COLOURS")]
    pub color: Option<crate::figure::terminal::Colours>,
    /// Characters for drawing lines
    #[arg(long, value_enum)]
    pub marker: Option<crate::figure::terminal::Marker>,
}

/// What a command without a screen writes.
#[derive(Debug, Args, Clone, Copy)]
pub(crate) struct Output {
    /// One JSON object per event and line
    #[arg(long, conflicts_with = "plain")]
    pub json: bool,
    /// Readable lines
    #[arg(long)]
    pub plain: bool,
}

/// How a run begins.
#[derive(Debug)]
pub(crate) enum Begin {
    /// In a folder of its own.
    New,
    /// Where it was.
    Resume(RunFolder),
    /// In a folder of its own, from a checkpoint of another.
    Fork {
        /// The checkpoint.
        checkpoint: PathBuf,
        /// Whose it is.
        parent: Parent,
    },
}

impl Run {
    /// Recorded in that folder, and all else as it is where nothing is said.
    pub(crate) fn recorded_in(runs: PathBuf, screen: Screen) -> Self {
        Self {
            experiment: None,
            set: Vec::new(),
            steps: None,
            runs,
            paused: false,
            into: None,
            screen,
        }
    }

    /// What a run needs to start: in a new folder, or the resumed run's own. Traces go there from
    /// here on.
    pub(crate) fn setup(&self, loaded: &Loaded, begin: Begin) -> Result<Setup, CliError> {
        let (folder, origin) = match begin {
            Begin::Resume(folder) => (folder, Origin::Resume),
            Begin::New => (self.new_folder(loaded)?, Origin::New),
            Begin::Fork { checkpoint, parent } => (
                self.new_folder(loaded)?,
                Origin::Fork { checkpoint, parent },
            ),
        };
        crate::trace::to_file(&folder.trace());
        let source = self.experiment.as_ref();
        Ok(Setup {
            experiment: loaded.experiment.clone(),
            folder,
            origin,
            source: source.map(|p| std::path::absolute(p).unwrap_or(p.clone())),
            set: experiment::absolute(&self.set),
            max_steps: self.steps,
            paused: self.paused,
        })
    }

    pub(crate) fn new_folder(&self, loaded: &Loaded) -> Result<RunFolder, CliError> {
        if let Some(folder) = &self.into {
            return Ok(RunFolder::at(folder));
        }
        RunFolder::create(&self.runs, &loaded.experiment.name)
            .map_err(|e| CliError::Failed(format!("{}: {e}", self.runs.display())))
    }
}

/// A recorded run, by its folder or its name.
pub(crate) fn find_run(run: &Path, runs: &Path) -> Result<RunFolder, CliError> {
    // A bare name is that of a recorded run, also where a folder of the same name lies here: `./NAME`
    // means that one.
    let is_name = run.components().count() == 1 && run.file_name() == Some(run.as_os_str());
    let recorded = runs.join(run);
    let path = if (is_name && recorded.is_dir()) || !run.is_dir() {
        recorded
    } else if run.file_name().is_none() {
        // (`.` has no name; the folder that it is has one.)
        std::fs::canonicalize(run).unwrap_or(run.to_owned())
    } else {
        run.to_owned()
    };
    RunFolder::open(&path).map_err(|e| CliError::Usage(e.to_string()))
}

/// Says what whoever asked should know; standard error may be closed, and nothing depends on it.
pub(crate) fn warn(warnings: &[String]) {
    for warning in warnings {
        let _ = writeln!(std::io::stderr(), "warning: {}", printable(warning));
    }
}

/// Seconds as h:mm:ss or m:ss.
pub(crate) fn duration(seconds: f64) -> String {
    let s = seconds.max(0.0) as u64;
    let (h, m, s) = (s / 3600, s / 60 % 60, s % 60);
    if h > 0 {
        format!("{h}:{m:02}:{s:02}")
    } else {
        format!("{m}:{s:02}")
    }
}
