//! Where a picture's bytes are: in a file of its own, or inside a tar file.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

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

impl Stored {
    /// All of its bytes.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        match self {
            // Reading a pipe or a device could wait for ever.
            Self::File(path) if !std::fs::metadata(path)?.is_file() => {
                Err(io::Error::other("it is no regular file"))
            }
            Self::File(path) => std::fs::read(path),
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

    /// Whether its name ends as pictures' names do.
    pub fn is_named_like_a_picture(&self) -> bool {
        let name = match self {
            Self::File(path) => path.as_path(),
            Self::Member { name, .. } => Path::new(name),
        };
        let ending = name.extension().unwrap_or_default().to_string_lossy();
        ENDINGS.contains(&ending.to_lowercase().as_str())
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
