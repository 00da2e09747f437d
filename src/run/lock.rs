//! One process owns a run at a time.
//!
//! The lock is `flock` on the file `lock` of the run folder, which the system releases however its
//! holder ends; what the file says (process, host, since when) is for people. On network disks it
//! holds between machines as far as their server forwards locks: NFS from version 3 with its lock
//! service, NFS 4, SMB, Lustre with `-o flock`. Where a disk knows no locks at all, the run goes on
//! without one and says so.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// For how long a lock without a name is waited for: those who look hold it for a moment.
const LOOKED_AT: Duration = Duration::from_secs(1);

/// Who holds a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Process.
    pub pid: u32,
    /// Machine.
    pub host: String,
    /// When it took the run, local time with zone.
    pub since: String,
}

impl Holder {
    /// This process, from now on.
    pub fn this_process() -> Self {
        let now = jiff::Zoned::now();
        Self {
            pid: std::process::id(),
            host: host(),
            since: now.strftime("%Y-%m-%d %H:%M:%S %z").to_string(),
        }
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "process {} on {} since {}",
            self.pid, self.host, self.since
        )
    }
}

/// Why a run cannot be owned.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process owns it.
    #[error("{folder}: the run belongs to {}", .holder.as_ref().map_or("another process".into(), ToString::to_string))]
    Held {
        /// The run.
        folder: PathBuf,
        /// Who, where the lock file can be read.
        holder: Option<Holder>,
    },
    /// The lock file cannot be written.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Ownership of a run, until it is dropped or the process ends.
#[derive(Debug)]
pub struct RunLock {
    file: File,
    /// Whether the disk keeps locks.
    pub is_kept: bool,
}

impl RunLock {
    /// Name of the file in a run folder.
    pub const FILE: &str = "lock";

    /// Takes a run folder.
    ///
    /// # Errors
    /// Where another process has it, or its folder cannot be written to.
    pub fn take(folder: &Path) -> Result<Self, LockError> {
        let path = path_of(folder);
        let io = |source| LockError::Io {
            path: path.clone(),
            source,
        };
        let began = Instant::now();
        loop {
            let mut options = File::options();
            let mut file = options
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(&path)
                .map_err(io)?;
            let is_kept = match file.try_lock() {
                Ok(()) => true,
                Err(std::fs::TryLockError::WouldBlock) => {
                    // Those who only look share it, for a moment; a name in it may be of someone killed.
                    if file.try_lock_shared().is_ok() && began.elapsed() < LOOKED_AT {
                        let _ = file.unlock();
                        std::thread::sleep(Duration::from_millis(10));
                        continue;
                    }
                    let holder = read(&mut file);
                    let folder = folder.to_owned();
                    return Err(LockError::Held { folder, holder });
                }
                Err(std::fs::TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => {
                    false
                }
                Err(std::fs::TryLockError::Error(e)) => return Err(io(e)),
            };
            if !is_still_there(&file, &path) {
                // It was removed with its run since it was opened: what is locked is nothing.
                continue;
            }
            let text = serde_json::to_vec(&Holder::this_process()).expect("plain data");
            // Who holds it is for people: a full disk must not keep a run from going on.
            let _ = file
                .set_len(0)
                .and_then(|()| file.seek(SeekFrom::Start(0)))
                .and_then(|_| file.write_all(&text));
            return Ok(Self { file, is_kept });
        }
    }

    /// Who holds a run now, if anyone does.
    pub fn holder(folder: &Path) -> Option<Option<Holder>> {
        let mut file = File::open(path_of(folder)).ok()?;
        match file.try_lock_shared() {
            Err(std::fs::TryLockError::WouldBlock) => Some(read(&mut file)),
            _ => None,
        }
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // The file stays: removing it would race with who takes it next.
        let _ = self.file.set_len(0);
        let _ = self.file.unlock();
    }
}

fn path_of(folder: &Path) -> PathBuf {
    folder.join(RunLock::FILE)
}

/// Whether the path still leads to an open file.
#[cfg(unix)]
fn is_still_there(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let place = |m: std::fs::Metadata| (m.dev(), m.ino());
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(there)) => place(open) == place(there),
        (_, Err(error)) => error.kind() != io::ErrorKind::NotFound,
        _ => true,
    }
}

#[cfg(not(unix))]
fn is_still_there(_: &File, _: &Path) -> bool {
    true
}

fn read(file: &mut File) -> Option<Holder> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.take(4096).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    name.map_or_else(
        |_| std::env::var("HOSTNAME").unwrap_or_else(|_| "this machine".into()),
        |n| n.trim().to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_one_owner_who_is_named_and_leaves_it() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(RunLock::holder(folder.path()), None);
        let lock = RunLock::take(folder.path()).expect("free");
        let holder = RunLock::holder(folder.path()).flatten().expect("named");
        assert_eq!(holder.pid, std::process::id());
        let refused = RunLock::take(folder.path()).expect_err("held").to_string();
        for part in [&format!("process {}", holder.pid), &holder.host] {
            assert!(refused.contains(part.as_str()), "{refused}");
        }
        drop(lock);
        assert_eq!(RunLock::holder(folder.path()), None);
        RunLock::take(folder.path()).expect("free again");
    }

    #[test]
    fn who_only_looks_is_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        drop(RunLock::take(folder.path()).expect("free"));
        // (The name is of an owner that was killed.)
        let name = serde_json::to_vec(&Holder::this_process()).expect("plain data");
        std::fs::write(path_of(folder.path()), name).expect("written");
        let looking = File::open(path_of(folder.path())).expect("a lock");
        looking.lock_shared().expect("shared");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(100));
                looking.unlock().expect("free");
            });
            RunLock::take(folder.path()).expect("free in a moment");
        });
    }
}
