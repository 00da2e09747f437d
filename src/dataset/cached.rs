//! Decoded pictures in a file beside the data, so that each is decoded once.
//!
//! The file is a list of records of one length, the k-th for the k-th picture of a part: 8 bytes length
//! of the stored picture, 8 bytes time of its last change (nanoseconds since 1970), 4 bytes CRC-32 of its
//! name, 4 bytes CRC-32 of what follows, then the planes; numbers little-endian. A record that is not
//! there, of another picture, or torn is made anew: several programs may share the file, and one that is
//! killed leaves nothing that is believed.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes of a record before the planes.
const HEAD: usize = 24;

/// What a picture's record has to agree with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    /// Bytes of the picture as it is stored.
    pub length: u64,
    /// When it was last changed, nanoseconds since 1970.
    pub changed: u64,
    /// CRC-32 of its name.
    pub name: u32,
}

/// A file of decoded pictures.
#[derive(Debug)]
pub(super) struct Cached {
    path: PathBuf,
    /// Bytes of a picture's planes.
    planes: usize,
    /// Whether the disk did not take a record: then no more are written.
    full: AtomicBool,
}

impl Cached {
    /// Makes the file where it is not there.
    ///
    /// # Errors
    /// Where it cannot be written to.
    pub fn open(path: PathBuf, planes: usize) -> io::Result<Self> {
        File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)?;
        Ok(Self {
            path,
            planes,
            full: AtomicBool::new(false),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file when so many pictures are in it.
    pub fn length(&self, pictures: usize) -> u64 {
        pictures as u64 * self.record() as u64
    }

    fn record(&self) -> usize {
        HEAD + self.planes
    }

    /// The planes of a picture, where they are there.
    pub fn get(&self, index: usize, of: Identity) -> Option<Vec<u8>> {
        let mut file = File::open(&self.path).ok()?;
        file.seek(SeekFrom::Start(self.length(index))).ok()?;
        let mut head = [0; HEAD];
        file.read_exact(&mut head).ok()?;
        let (stored, sum) = head.split_at(HEAD - 4);
        if stored != of.bytes() {
            return None;
        }
        let mut planes = vec![0; self.planes];
        file.read_exact(&mut planes).ok()?;
        (crc32fast::hash(&planes).to_le_bytes() == sum).then_some(planes)
    }

    /// Keeps the planes of a picture.
    pub fn put(&self, index: usize, of: Identity, planes: &[u8]) {
        if self.full.load(Ordering::Relaxed) {
            return;
        }
        let mut record = Vec::with_capacity(self.record());
        record.extend(of.bytes());
        record.extend(crc32fast::hash(planes).to_le_bytes());
        record.extend(planes);
        let written = File::options()
            .write(true)
            .open(&self.path)
            .and_then(|mut file| {
                file.seek(SeekFrom::Start(self.length(index)))?;
                file.write_all(&record)
            });
        if let Err(error) = written
            && !self.full.swap(true, Ordering::Relaxed)
        {
            tracing::warn!("{}: {error}; no more is kept there", self.path.display());
        }
    }
}

impl Identity {
    fn bytes(self) -> [u8; HEAD - 4] {
        let mut bytes = [0; HEAD - 4];
        bytes[..8].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.changed.to_le_bytes());
        bytes[16..].copy_from_slice(&self.name.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_kept_of_the_same_picture_is_given_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("cache");
        let cached = Cached::open(path.clone(), 5).expect("written");
        let of = Identity {
            length: 9,
            changed: 7,
            name: 3,
        };
        assert_eq!(cached.get(2, of), None);
        cached.put(2, of, b"abcde");
        cached.put(0, of, b"fghij");
        assert_eq!(cached.get(2, of).as_deref(), Some(&b"abcde"[..]));
        // The one between was never written.
        assert_eq!(cached.get(1, of), None);
        let touched = Identity { changed: 8, ..of };
        assert_eq!(cached.get(2, touched), None);
        let mut bytes = std::fs::read(&path).expect("read");
        assert_eq!(bytes.len() as u64, cached.length(3));
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(&path, &bytes).expect("written");
        assert_eq!(cached.get(2, of), None);
        std::fs::write(&path, &bytes[..last]).expect("cut");
        assert_eq!(cached.get(2, of), None);
        assert_eq!(cached.get(0, of).as_deref(), Some(&b"fghij"[..]));
    }
}
