//! Reading files, and nothing that only looks like one: reading a pipe or a device can wait, or go on, for
//! ever.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result};
use std::path::Path;

/// Opens a file.
///
/// # Errors
/// Where it cannot be opened, or is a folder, a pipe or a device.
pub(crate) fn open(path: &Path) -> Result<File> {
    // Asked first: opening a pipe waits for whoever writes to it.
    let metadata = std::fs::metadata(path)?;
    if metadata.is_file() {
        File::open(path)
    } else if metadata.is_dir() {
        Err(Error::new(
            ErrorKind::IsADirectory,
            "it is a folder, no regular file",
        ))
    } else {
        Err(Error::other("it is no regular file"))
    }
}

/// All of a file.
///
/// # Errors
/// As [`open`], or where it cannot be read.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    let mut file = open(path)?;
    let mut bytes = Vec::with_capacity(file.metadata()?.len() as usize);
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// All of a file, as text.
///
/// # Errors
/// As [`read`], or where it is not UTF-8.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read(path)?).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let message = format!("it is not UTF-8 at byte {at}");
        Error::new(ErrorKind::InvalidData, message)
    })
}

/// Whether two paths lead to one file that is there.
pub(crate) fn is_same_file(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    real(a).is_some_and(|a| real(b) == Some(a))
}
