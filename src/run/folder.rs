//! A run on disk: `runs/<name>-<timestamp>/`.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// In progress, or its program was killed.
    Running,
    /// Came to its end.
    Finished,
    /// Stopped; can be resumed.
    Stopped,
    /// Ended in an error; the last checkpoint stands.
    Failed,
}

impl Status {
    /// One word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

/// Summary of a run, rewritten as it proceeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the program that wrote it.
    pub version: String,
    /// Name of the run.
    pub name: String,
    /// When it began, local time.
    pub started: String,
    /// Engine and device, in words.
    pub device: String,
    /// How it stands.
    pub status: Status,
    /// Steps taken.
    pub step: u64,
    /// Epochs.
    pub epoch: f64,
    /// Best validation error among steps that met the budget.
    pub best_error: Option<f64>,
    /// Error on the test part.
    pub test_error: Option<f64>,
    /// kB of weights.
    pub weight_kb: f64,
    /// kB of the largest activation.
    pub activation_kb: f64,
    /// Why it failed.
    pub reason: Option<String>,
    /// The run that it was forked from.
    pub parent: Option<String>,
}

/// Paths inside a run folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFolder(PathBuf);

impl RunFolder {
    /// Creates a folder for a new run under `root`.
    ///
    /// # Errors
    /// Where it cannot be created.
    pub fn create(root: &Path, name: &str) -> io::Result<Self> {
        let plain: String = name
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || "-_.".contains(c) {
                    c
                } else {
                    '-'
                }
            })
            .collect();
        let stamp = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S").to_string();
        for attempt in 0..1000 {
            let suffix = if attempt == 0 {
                String::new()
            } else {
                format!("-{attempt}")
            };
            let path = root.join(format!("{plain}-{stamp}{suffix}"));
            std::fs::create_dir_all(root)?;
            match std::fs::create_dir(&path) {
                Ok(()) => {
                    let folder = Self(path);
                    std::fs::create_dir(folder.checkpoints())?;
                    return Ok(folder);
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "a thousand runs in one second",
        ))
    }

    /// A folder that is never written to, for benchmarks and tests of the screen.
    pub(crate) fn unrecorded() -> Self {
        Self(PathBuf::from("unrecorded"))
    }

    /// An existing run folder.
    ///
    /// # Errors
    /// Where the folder holds no run.
    pub fn open(path: &Path) -> io::Result<Self> {
        let folder = Self(path.to_owned());
        if folder.log().is_file() {
            return Ok(folder);
        }
        let message = format!("{} holds no run (no events.log)", path.display());
        Err(io::Error::new(io::ErrorKind::NotFound, message))
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Its last component: how the run is called in lists.
    pub fn label(&self) -> String {
        self.0
            .file_name()
            .map_or("run".into(), |n| n.to_string_lossy().into_owned())
    }

    /// The resolved experiment.
    pub fn experiment(&self) -> PathBuf {
        self.0.join("experiment.toml")
    }

    /// The event log.
    pub fn log(&self) -> PathBuf {
        self.0.join("events.log")
    }

    /// Checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.0.join("checkpoints")
    }

    /// Exported figures.
    pub fn figures(&self) -> PathBuf {
        self.0.join("figures")
    }

    /// Text log of the program.
    pub fn trace(&self) -> PathBuf {
        self.0.join("trace.txt")
    }

    /// Writes the manifest, atomically.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write_manifest(&self, manifest: &Manifest) -> io::Result<()> {
        let text = serde_json::to_string_pretty(manifest).map_err(io::Error::other)?;
        write_atomically(&self.0.join("manifest.json"), text.as_bytes())
    }

    /// Reads the manifest.
    ///
    /// # Errors
    /// Where there is none or it is damaged.
    pub fn manifest(&self) -> io::Result<Manifest> {
        let text = std::fs::read(self.0.join("manifest.json"))?;
        serde_json::from_slice(&text).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    }

    /// The newest checkpoint.
    pub fn newest_checkpoint(&self) -> Option<PathBuf> {
        self.all_checkpoints().pop()
    }

    /// Checkpoints by step, the oldest first; the best one's copy is not among them.
    pub fn all_checkpoints(&self) -> Vec<PathBuf> {
        let step = |path: &Path| -> Option<u64> {
            path.file_name()?
                .to_str()?
                .strip_prefix("step-")?
                .strip_suffix(".safetensors")?
                .parse()
                .ok()
        };
        let entries = std::fs::read_dir(self.checkpoints());
        let paths = entries.into_iter().flatten().flatten().map(|e| e.path());
        let mut found: Vec<(u64, PathBuf)> = paths.filter_map(|p| Some((step(&p)?, p))).collect();
        found.sort();
        found.into_iter().map(|(_, path)| path).collect()
    }

    /// The best checkpoint, if one was ever best.
    pub fn best_checkpoint(&self) -> Option<PathBuf> {
        Some(self.checkpoints().join("best.safetensors")).filter(|p| p.is_file())
    }
}

/// Writes to a temporary name, syncs, renames: a reader sees the old or the new file, whole.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let result = (|| {
        let mut file = std::fs::File::create(&temporary)?;
        io::Write::write_all(&mut file, bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    })();
    if result.is_err() {
        // The half-written file is of no use to anyone; the error is what matters.
        let _ = std::fs::remove_file(&temporary);
    }
    result
}

/// All runs under `root` with their manifests, newest first. Folders without one are left out.
pub fn list_runs(root: &Path) -> Vec<(RunFolder, Manifest)> {
    let Ok(entries) = std::fs::read_dir(root) else {
        return Vec::new();
    };
    let mut runs: Vec<(RunFolder, Manifest)> = entries
        .filter_map(|e| {
            let folder = RunFolder::open(&e.ok()?.path()).ok()?;
            let manifest = folder.manifest().ok()?;
            Some((folder, manifest))
        })
        .collect();
    runs.sort_by(|a, b| b.1.started.cmp(&a.1.started).then(b.0.0.cmp(&a.0.0)));
    runs
}
