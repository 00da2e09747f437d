//! The one way that files of a run are written: whole or not at all.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Ending of files that are not complete yet.
const TEMPORARY: &str = "tmp";

/// Writes a file whole or not at all: to a temporary name in the same folder, synced, renamed, and
/// the folder synced, so that the name survives a power cut too. A reader sees the old or the new
/// content.
///
/// # Errors
/// Where any of that fails; then the old file is as it was.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary(path);
    let result = write_and_rename(&temporary, path, bytes);
    if result.is_err() {
        // The half-written file is of no use to anyone; the error is what matters.
        let _ = std::fs::remove_file(&temporary);
    }
    result
}

fn write_and_rename(temporary: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    std::fs::rename(temporary, path)?;
    sync_folder(path)
}

/// Makes the names in a file's folder durable.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    match File::open(folder.unwrap_or(Path::new("."))).and_then(|f| f.sync_all()) {
        // Some network disks do not sync folders; the file itself is safe.
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => Ok(()),
        other => other,
    }
}

/// Two writers never share a temporary file: in its name are a number of this process alone (process numbers
/// are, but on one machine, and not in containers) and one of the file.
fn temporary(path: &Path) -> PathBuf {
    static PROCESS: LazyLock<u64> =
        LazyLock::new(|| RandomState::new().hash_one(std::process::id()));
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (process, file) = (*PROCESS, WRITTEN.fetch_add(1, Ordering::Relaxed));
    path.with_file_name(format!(".{name}.{process:016x}-{file}.{TEMPORARY}"))
}

/// Removes what writers that were killed left behind in a folder. Only its owner may: another
/// writer's temporary file looks the same.
pub(super) fn sweep(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|e| e == TEMPORARY) {
            // A file that cannot be removed takes space and does no other harm.
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_stays_behind() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.json");
        write_whole(&path, b"one").expect("written");
        write_whole(&path, b"two").expect("written");
        assert_eq!(std::fs::read(&path).expect("read"), b"two");
        assert_eq!(std::fs::read_dir(folder.path()).expect("read").count(), 1);
        let nowhere = folder.path().join("no/such/folder/a.json");
        assert!(write_whole(&nowhere, b"x").is_err());
    }

    #[test]
    fn what_a_killed_writer_left_is_swept() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["step-7.tmp", ".manifest.json.99.tmp", "kept.json"] {
            std::fs::write(folder.path().join(name), "x").expect("written");
        }
        sweep(folder.path());
        let left: Vec<_> = std::fs::read_dir(folder.path())
            .expect("read")
            .map(|e| e.expect("an entry").file_name())
            .collect();
        assert_eq!(left, ["kept.json"]);
    }
}
