//! Fetching files: resumable, and held against their checksums.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};

use super::DataError;

/// Where a file comes from, and what it must be.
#[derive(Debug, Clone)]
pub struct Archive {
    /// Its address.
    pub url: String,
    /// SHA-256, lower-case hexadecimal.
    pub sha256: String,
}

/// Fetches a file; goes on with a part of it that is there, where the server allows that. `progress` is
/// called with (bytes so far, total if known).
pub(super) fn fetch(
    url: &str,
    partial: &Path,
    progress: &mut impl FnMut(u64, Option<u64>),
) -> Result<(), DataError> {
    let failed = |reason: String| DataError::Download {
        url: url.to_owned(),
        reason,
    };
    let have = fs::metadata(partial).map_or(0, |m| m.len());
    let mut request = ureq::get(url);
    if have > 0 {
        request = request.header("Range", format!("bytes={have}-"));
    }
    let response = match request.call() {
        Ok(response) => response,
        // Nothing left to fetch: the checksum decides whether it is complete.
        Err(ureq::Error::StatusCode(416)) => return Ok(()),
        Err(error) => {
            return Err(failed(format!(
                "{error}; run the command again to continue from {have} bytes"
            )));
        }
    };
    let resumed = response.status() == 206;
    let length = response
        .headers()
        .get("content-length")
        .and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    let start = if resumed { have } else { 0 };
    let mut options = File::options();
    let mut file = options
        .create(true)
        .truncate(false)
        .write(true)
        .open(partial)
        .map_err(DataError::io(partial))?;
    file.set_len(start).map_err(DataError::io(partial))?;
    file.seek(SeekFrom::End(0))
        .map_err(DataError::io(partial))?;
    let total = length.map(|l| start + l);
    let mut done = start;
    let mut body = response.into_body();
    let mut reader = body.as_reader();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let n = reader.read(&mut buffer).map_err(|e| {
            failed(format!(
                "the connection broke after {done} bytes ({e}); run the command again to continue"
            ))
        })?;
        if n == 0 {
            break;
        }
        file.write_all(&buffer[..n])
            .map_err(DataError::io(partial))?;
        done += n as u64;
        progress(done, total);
    }
    match total {
        Some(total) if done < total => Err(failed(format!(
            "truncated at {done} of {total} bytes; run the command again to continue"
        ))),
        _ => Ok(()),
    }
}

/// SHA-256 of a file, or of what is packed in it, in hexadecimal, and how many bytes that is.
pub(super) fn digest(path: &Path, is_packed: bool) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let length = if is_packed {
        io::copy(&mut GzDecoder::new(file), &mut hasher)?
    } else {
        io::copy(&mut file, &mut hasher)?
    };
    let digest = hasher.finalize();
    Ok((length, digest.iter().map(|b| format!("{b:02x}")).collect()))
}

/// Holds what was fetched, or what is packed in it, against its checksum; one that differs is removed,
/// since it must not be resumed.
pub(super) fn verify(partial: &Path, expected: &str, is_packed: bool) -> Result<(), DataError> {
    let no_gzip = [
        io::ErrorKind::InvalidInput,
        io::ErrorKind::InvalidData,
        io::ErrorKind::UnexpectedEof,
    ];
    let (at, found, expected) = match digest(partial, is_packed) {
        Ok((_, found)) if found == expected => return Ok(()),
        Ok((length, found)) => (
            length,
            format!("SHA-256 {found}"),
            format!("SHA-256 {expected}"),
        ),
        Err(error) if is_packed && no_gzip.contains(&error.kind()) => {
            (0, error.to_string(), "a gzip file".to_owned())
        }
        Err(error) => return Err(DataError::io(partial)(error)),
    };
    fs::remove_file(partial).map_err(DataError::io(partial))?;
    let expected = format!("{expected} (the file was removed; run the command again)");
    Err(DataError::content(partial, at, found, expected))
}
