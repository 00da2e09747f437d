//! A study on disk: its file, a folder for every run, and how far each is.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::plan::{Study, StudyError};
use crate::run::{Holder, RunFolder, RunLock, Status, write_whole};

/// A study's folder: `study.json`, a copy of its file, and `runs/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StudyFolder(PathBuf);

/// What the folder says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Manifest {
    /// Version of the program that wrote it.
    version: String,
    /// The study's file, absolute.
    file: PathBuf,
}

/// How far a task is.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// It can begin.
    Ready,
    /// It starts from another one that is not finished.
    Waiting(usize),
    /// A process has it.
    Running(Option<Holder>),
    /// It was begun and stopped or killed: it can be resumed, or has to begin anew where it has no
    /// checkpoint yet.
    Half {
        /// Steps taken.
        step: u64,
    },
    /// Done.
    Finished,
    /// Ended in an error.
    Failed {
        /// Which.
        reason: String,
        /// Whether training cannot go on from its checkpoints.
        dead_end: bool,
    },
}

impl State {
    /// One word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ready => "to do",
            Self::Waiting(_) => "waiting",
            Self::Running(_) => "running",
            Self::Half { .. } => "half done",
            Self::Finished => "finished",
            Self::Failed { .. } => "failed",
        }
    }

    /// Whether training can go on from a checkpoint.
    pub fn may_go_on(&self) -> bool {
        matches!(
            self,
            Self::Half { .. }
                | Self::Failed {
                    dead_end: false,
                    ..
                }
        )
    }
}

impl StudyFolder {
    /// The folder of that path, whether it is there or not.
    pub fn at(path: &Path) -> Self {
        Self(std::path::absolute(path).unwrap_or(path.to_owned()))
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where its runs are.
    pub fn runs(&self) -> PathBuf {
        self.0.join("runs")
    }

    /// What a task's process said.
    pub fn said(&self, study: &Study, task: usize) -> PathBuf {
        self.0
            .join("said")
            .join(format!("{}.txt", study.label(task)))
    }

    fn copy(&self) -> PathBuf {
        self.0.join("study.toml")
    }

    fn manifest(&self) -> PathBuf {
        self.0.join("study.json")
    }

    /// Whether it was written down which study it is of.
    pub fn is_kept(&self) -> bool {
        self.manifest().is_file()
    }

    /// Writes down which study it is of.
    ///
    /// # Errors
    /// Where that cannot be written.
    pub fn keep(&self, study: &Study) -> io::Result<()> {
        for folder in ["runs", "said"] {
            std::fs::create_dir_all(self.0.join(folder))?;
        }
        if study.file.is_file() {
            let text = crate::files::read_text(&study.file)?;
            write_changed(&self.copy(), text.as_bytes())?;
        }
        let manifest = Manifest {
            version: env!("CARGO_PKG_VERSION").into(),
            file: std::path::absolute(&study.file)?,
        };
        let json = serde_json::to_vec_pretty(&manifest)?;
        write_changed(&self.manifest(), &json)
    }

    /// What another process is to be given to find the study: its file, or the folder where that is gone.
    pub fn source<'a>(&'a self, study: &'a Study) -> &'a Path {
        match study.file.is_file() {
            true => &study.file,
            false => self.path(),
        }
    }

    /// The study that a folder is of: its file as it is now, or the copy where that is gone.
    ///
    /// # Errors
    /// Where the folder is none of a study's, or its file cannot be understood.
    pub fn study(&self) -> Result<Study, StudyError> {
        let path = self.manifest();
        let io = |source: io::Error| StudyError::Io {
            path: path.clone(),
            source,
        };
        let text = crate::files::read_text(&path).map_err(io)?;
        let manifest: Manifest =
            serde_json::from_str(&text).map_err(|e| io(io::Error::other(e)))?;
        if manifest.file.is_file() {
            return Study::read(&manifest.file);
        }
        let copy = crate::files::read_text(&self.copy()).map_err(io)?;
        Study::parse(&manifest.file, &copy)
    }

    /// A task's run.
    pub fn run(&self, study: &Study, task: usize) -> RunFolder {
        RunFolder::at(&self.runs().join(study.label(task)))
    }

    /// How far a task is.
    pub fn state(&self, study: &Study, task: usize) -> State {
        let run = self.run(study, task);
        if let Some(holder) = RunLock::holder(run.path()) {
            return State::Running(holder);
        }
        if !run.log().is_file() {
            let before = study.needs(task);
            return match before.filter(|b| self.state(study, *b) != State::Finished) {
                Some(before) => State::Waiting(before),
                None => State::Ready,
            };
        }
        let Ok(manifest) = run.manifest_or_rebuilt() else {
            return State::Half { step: 0 };
        };
        let dead_end = manifest.dead_end;
        match manifest.status {
            Status::Finished => State::Finished,
            // A run that waits beside a value that is not finite waits for someone who looks.
            status if status == Status::Failed || dead_end => State::Failed {
                reason: manifest
                    .reason
                    .unwrap_or_else(|| "no reason recorded".into()),
                dead_end,
            },
            _ => State::Half {
                step: manifest.step,
            },
        }
    }
}

/// Writes a file that does not say so already: many tasks begin at once.
fn write_changed(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match crate::files::read(path) {
        Ok(there) if there == bytes => Ok(()),
        _ => write_whole(path, bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Manifest as RunManifest;

    #[test]
    fn a_task_is_as_far_as_its_folder_says() {
        let place = tempfile::tempdir().expect("a folder");
        let file = place.path().join("s.toml");
        let text = "[[row]]\nname = \"a\"\n[[row]]\nname = \"b\"\nfrom = \"a\"\n";
        std::fs::write(&file, text).expect("written");
        let study = Study::read(&file).expect("a study");
        let folder = StudyFolder::at(&place.path().join("out"));
        folder.keep(&study).expect("kept");
        assert_eq!(folder.state(&study, 0), State::Ready);
        assert_eq!(folder.state(&study, 1), State::Waiting(0));
        let run = folder.run(&study, 0);
        std::fs::create_dir_all(run.path()).expect("made");
        std::fs::write(run.log(), b"").expect("written");
        let failed = |reason: &str, dead_end| State::Failed {
            reason: reason.into(),
            dead_end,
        };
        for (status, reason, dead_end, expected) in [
            (Status::Stopped, None, false, State::Half { step: 0 }),
            (Status::Running, None, false, State::Half { step: 0 }),
            (Status::Failed, Some("full"), false, failed("full", false)),
            (Status::Stopped, Some("NaN"), true, failed("NaN", true)),
            (Status::Running, Some("NaN"), true, failed("NaN", true)),
            (Status::Finished, None, false, State::Finished),
        ] {
            let manifest = RunManifest {
                status,
                reason: reason.map(str::to_owned),
                dead_end,
                ..RunManifest::begin("r".into(), "flex".into())
            };
            run.write_manifest(&manifest).expect("written");
            let state = folder.state(&study, 0);
            assert_eq!(state, expected);
            let unfinished = status != Status::Finished;
            assert_eq!(state.may_go_on(), unfinished && !dead_end);
        }
        assert_eq!(folder.state(&study, 1), State::Ready);
        // The folder knows its study, also when the file is gone.
        assert_eq!(folder.study().expect("known"), study);
        std::fs::remove_file(&file).expect("removed");
        assert_eq!(folder.study().expect("from the copy").tasks, study.tasks);
    }
}
