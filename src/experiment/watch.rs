//! Telling when a file of the experiment was saved, however the editor saves.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use notify::{RecommendedWatcher, RecursiveMode};
use notify_debouncer_full::{DebounceEventResult, Debouncer, RecommendedCache, new_debouncer};

use super::diagnostic::Diagnostics;
use super::source::{Loaded, Overrides, load_and_list};

/// Quiet time before a change counts as complete: editors write in pieces.
const DEBOUNCE: Duration = Duration::from_millis(60);
/// Network disks send no events, and a system may have no watch left; a slow poll covers both.
const POLL: Duration = Duration::from_secs(2);
/// How long a file must rest that looks as if only a part of it had been saved: shorter than before,
/// or without an end of line.
const HALF_SAVED: Duration = Duration::from_millis(1200);

/// What a save led to.
#[derive(Debug, Clone)]
pub enum Saved {
    /// The files hold a valid experiment that differs in content from the last one read.
    Valid(Box<Loaded>),
    /// They do not; the run goes on as it was.
    Broken(Diagnostics),
    /// The experiment file cannot be read any more, and why; the run goes on as it was.
    Missing(PathBuf, String),
    /// It is empty; the run goes on as it was.
    Empty(PathBuf),
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
    /// Starts watching; `report` is called on the watcher's thread for every change of content. Where
    /// the system cannot watch the folder, the files are read every two seconds.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn start(
        path: &Path,
        overrides: Overrides,
        files: Vec<PathBuf>,
        report: impl Fn(Saved) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let notify = sender.clone();
        let debouncer = new_debouncer(DEBOUNCE, None, move |events: DebounceEventResult| {
            // Reading a file is an event too; only what may change content wakes the reader.
            let changes = match &events {
                Ok(events) => events.iter().any(|e| !e.kind.is_access()),
                Err(_) => true,
            };
            if changes {
                // A closed channel means that the watcher is being dropped.
                let _ = notify.send(Wake::Changed);
            }
        });
        let mut folders = Folders::default();
        let mut debouncer = debouncer.ok();
        folders.watch(debouncer.as_mut(), &files);
        let path = path.to_owned();
        let mut state = State {
            path,
            overrides,
            files: files.clone(),
            last: contents(&files),
            pending: None,
        };
        let thread = std::thread::Builder::new()
            .name("watcher".into())
            .spawn(move || {
                let mut wait = POLL;
                loop {
                    match receiver.recv_timeout(wait) {
                        Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                        Ok(Wake::Changed) | Err(RecvTimeoutError::Timeout) => {}
                    }
                    let saved = state.read();
                    wait = if state.pending.is_some() {
                        DEBOUNCE
                    } else {
                        POLL
                    };
                    if let Some(saved) = saved {
                        // New files in the `extends` chain.
                        folders.watch(debouncer.as_mut(), &state.files);
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
        debouncer: Option<&mut Debouncer<RecommendedWatcher, RecommendedCache>>,
        files: &[PathBuf],
    ) {
        let Some(debouncer) = debouncer else { return };
        let real = files.iter().filter_map(|f| std::fs::canonicalize(f).ok());
        for file in files.iter().cloned().chain(real) {
            let parent = file.parent().filter(|p| !p.as_os_str().is_empty());
            let folder = parent.unwrap_or(Path::new(".")).to_owned();
            if !self.0.contains(&folder) {
                if let Err(error) = debouncer.watch(&folder, RecursiveMode::NonRecursive) {
                    tracing::warn!("{}: {error}; it is polled", folder.display());
                }
                self.0.push(folder);
            }
        }
    }
}

/// Content by file; `None` where it cannot be read.
type Contents = BTreeMap<PathBuf, Option<Vec<u8>>>;

fn contents(files: &[PathBuf]) -> Contents {
    files
        .iter()
        .map(|f| (f.clone(), super::source::read(f).ok()))
        .collect()
}

/// Whether a file that changed may not be whole yet.
fn half_saved(before: &Contents, now: &Contents) -> bool {
    now.iter().any(|(file, text)| {
        let (Some(text), Some(Some(old))) = (text, before.get(file)) else {
            return false;
        };
        text != old && (text.len() < old.len() || !text.ends_with(b"\n"))
    })
}

struct State {
    path: PathBuf,
    overrides: Overrides,
    files: Vec<PathBuf>,
    last: Contents,
    /// Content that looks half saved, and since when it is so.
    pending: Option<(Contents, Instant)>,
}

impl State {
    /// Reads everything again where content changed.
    fn read(&mut self) -> Option<Saved> {
        let now = contents(&self.files);
        if now == self.last {
            self.pending = None;
            return None;
        }
        if half_saved(&self.last, &now) {
            match &self.pending {
                Some((before, since)) if *before == now => {
                    if since.elapsed() < HALF_SAVED {
                        return None;
                    }
                }
                _ => {
                    self.pending = Some((now, Instant::now()));
                    return None;
                }
            }
        }
        self.pending = None;
        self.last = now;
        if let Some(Some(text)) = self.last.get(&self.path)
            && text.trim_ascii().is_empty()
        {
            return Some(Saved::Empty(self.path.clone()));
        }
        if self.last.get(&self.path).is_none_or(Option::is_none)
            && let Err(error) = super::source::read(&self.path)
        {
            let why = match error.kind() {
                std::io::ErrorKind::NotFound => "it is gone".into(),
                _ => error.to_string(),
            };
            return Some(Saved::Missing(self.path.clone(), why));
        }
        // What is wrong may be in a file that was not among them before.
        let (files, loaded) = load_and_list(&self.path, &self.overrides);
        if files != self.files {
            self.last = contents(&files);
            self.files = files;
        }
        Some(match loaded {
            Ok(loaded) => Saved::Valid(Box::new(loaded)),
            Err(diagnostics) => Saved::Broken(diagnostics),
        })
    }
}
