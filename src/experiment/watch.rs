//! Telling when a file of the experiment was saved, however the editor saves.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode};
use notify_debouncer_full::{DebounceEventResult, Debouncer, RecommendedCache, new_debouncer};

use super::diagnostic::Diagnostics;
use super::source::{Loaded, Overrides, load};

/// Quiet time before a change counts as complete: editors write in pieces.
const DEBOUNCE: Duration = Duration::from_millis(60);
/// Network disks send no events; a slow poll covers them.
const POLL: Duration = Duration::from_secs(2);

/// What a save led to.
#[derive(Debug, Clone)]
pub enum Saved {
    /// The files hold a valid experiment that differs in content from the last one read.
    Valid(Box<Loaded>),
    /// They do not; the run goes on as it was.
    Broken(Diagnostics),
    /// The experiment file is gone; the run goes on as it was.
    Missing(PathBuf),
}

/// Watches an experiment file and everything it extends, on a thread of its own.
pub struct Watcher {
    stop: Sender<Wake>,
    thread: Option<JoinHandle<()>>,
}

enum Wake {
    Changed,
    Stop,
}

impl Watcher {
    /// Starts watching; `report` is called on the watcher's thread for every change of content.
    ///
    /// # Errors
    /// Where the system cannot watch the folder.
    pub fn start(
        path: &Path,
        overrides: Overrides,
        files: Vec<PathBuf>,
        report: impl Fn(Saved) + Send + 'static,
    ) -> notify::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let notify = sender.clone();
        let mut debouncer = new_debouncer(DEBOUNCE, None, move |events: DebounceEventResult| {
            // Reading a file is an event too; only what may change content wakes the reader.
            let changes = match &events {
                Ok(events) => events.iter().any(|e| !e.kind.is_access()),
                Err(_) => true,
            };
            if changes {
                // A closed channel means that the watcher is being dropped.
                let _ = notify.send(Wake::Changed);
            }
        })?;
        let mut folders = Folders::default();
        folders.watch(&mut debouncer, &files)?;
        let path = path.to_owned();
        let mut state = State {
            path,
            overrides,
            files: files.clone(),
            last: contents(&files),
        };
        let thread = std::thread::Builder::new()
            .name("watcher".into())
            .spawn(move || {
                loop {
                    match receiver.recv_timeout(POLL) {
                        Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                        Ok(Wake::Changed) | Err(RecvTimeoutError::Timeout) => {}
                    }
                    if let Some(saved) = state.read() {
                        // New files in the `extends` chain; a folder that cannot be watched is polled.
                        let _ = folders.watch(&mut debouncer, &state.files);
                        report(saved);
                    }
                }
            })?;
        Ok(Self {
            stop: sender,
            thread: Some(thread),
        })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // The thread may have ended already; then nobody listens.
        let _ = self.stop.send(Wake::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The parent folders being watched: editors save by renaming over the file, which a watch on the
/// file itself would lose. A symbolic link is watched at both ends.
#[derive(Default)]
struct Folders(Vec<PathBuf>);

impl Folders {
    fn watch(
        &mut self,
        debouncer: &mut Debouncer<RecommendedWatcher, RecommendedCache>,
        files: &[PathBuf],
    ) -> notify::Result<()> {
        let real = files.iter().filter_map(|f| std::fs::canonicalize(f).ok());
        for file in files.iter().cloned().chain(real) {
            let parent = file.parent().filter(|p| !p.as_os_str().is_empty());
            let folder = parent.unwrap_or(Path::new(".")).to_owned();
            if !self.0.contains(&folder) {
                debouncer.watch(&folder, RecursiveMode::NonRecursive)?;
                self.0.push(folder);
            }
        }
        Ok(())
    }
}

/// Content by file; `None` where it cannot be read.
type Contents = BTreeMap<PathBuf, Option<Vec<u8>>>;

fn contents(files: &[PathBuf]) -> Contents {
    files
        .iter()
        .map(|f| (f.clone(), std::fs::read(f).ok()))
        .collect()
}

struct State {
    path: PathBuf,
    overrides: Overrides,
    files: Vec<PathBuf>,
    last: Contents,
}

impl State {
    /// Reads everything again where content changed.
    fn read(&mut self) -> Option<Saved> {
        let now = contents(&self.files);
        if now == self.last {
            return None;
        }
        self.last = now;
        if self.last.get(&self.path).is_none_or(Option::is_none) {
            return Some(Saved::Missing(self.path.clone()));
        }
        Some(match load(&self.path, &self.overrides) {
            Ok(loaded) => {
                if loaded.files != self.files {
                    self.files.clone_from(&loaded.files);
                    self.last = contents(&self.files);
                }
                Saved::Valid(Box::new(loaded))
            }
            Err(diagnostics) => Saved::Broken(diagnostics),
        })
    }
}
