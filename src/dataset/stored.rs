//! Where a picture's bytes are: in a file of its own, or inside a tar file.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use super::cached::Identity;

/// Names of pictures' files; one that holds no picture is damaged.
const ENDINGS: [&str; 7] = ["png", "jpg", "jpeg", "jpe", "webp", "bmp", "gif"];

/// A picture as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Stored {
    /// A file.
    File(PathBuf),
    /// A member of a tar file.
    Member {
        /// The tar file.
        shard: Arc<Path>,
        /// Its name in there.
        name: String,
        /// Where its bytes begin.
        at: u64,
        /// How many there are.
        length: u64,
    },
}

/// Whether files of pictures end so.
pub(super) fn is_picture_ending(ending: &str) -> bool {
    ENDINGS.contains(&ending.to_lowercase().as_str())
}

impl Stored {
    /// All of its bytes.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        match self {
            Self::File(path) => crate::files::read(path),
            Self::Member {
                shard, at, length, ..
            } => {
                let mut file = File::open(shard)?;
                file.seek(SeekFrom::Start(*at))?;
                let mut bytes = Vec::new();
                file.take(*length).read_to_end(&mut bytes)?;
                if bytes.len() as u64 == *length {
                    Ok(bytes)
                } else {
                    let message =
                        format!("the tar file ends after {} of {length} bytes", bytes.len());
                    Err(io::Error::new(io::ErrorKind::UnexpectedEof, message))
                }
            }
        }
    }

    /// What a copy of the decoded picture has to agree with.
    pub fn identity(&self) -> io::Result<Identity> {
        // (Of a file its part, its class and its name: folders move as a whole.)
        let (file, name) = match self {
            Self::File(path) => {
                let last = path.iter().rev().take(3);
                let parts: Vec<&[u8]> = last.map(|part| part.as_encoded_bytes()).collect();
                (path.as_path(), parts.join(&b'/'))
            }
            Self::Member { shard, name, .. } => (&**shard, name.as_bytes().to_vec()),
        };
        let metadata = file.metadata()?;
        let since = metadata.modified()?.duration_since(UNIX_EPOCH);
        Ok(Identity {
            length: match self {
                Self::File(_) => metadata.len(),
                Self::Member { length, .. } => *length,
            },
            // (Of a file from before 1970 the length has to do.)
            changed: since.map_or(0, |since| since.as_nanos() as u64),
            name: crc32fast::hash(&name),
        })
    }

    /// Whether its name ends as pictures' names do.
    pub fn is_named_like_a_picture(&self) -> bool {
        let name = match self {
            Self::File(path) => path.as_path(),
            Self::Member { name, .. } => Path::new(name),
        };
        is_picture_ending(&name.extension().unwrap_or_default().to_string_lossy())
    }
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Member { shard, name, .. } => write!(f, "{}: {name}", shard.display()),
        }
    }
}
