//! A log, record by record.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::super::event::Event;
use super::{HEADER, LONGEST, LogError};

/// Bytes that precede a record's payload.
const HEAD: usize = 8;

/// Reads a log from its start, or from any record on. It ends at the first that is not complete.
#[derive(Debug)]
pub struct LogReader {
    input: BufReader<File>,
    position: u64,
}

impl LogReader {
    /// At the first record.
    ///
    /// # Errors
    /// Where the file cannot be read or is something else.
    pub fn open(path: &Path) -> Result<Self, LogError> {
        let mut input = BufReader::new(File::open(path).map_err(LogError::io(path))?);
        let mut header = [0; HEADER.len()];
        if input.read_exact(&mut header).is_err() || header != HEADER {
            return Err(LogError::Header {
                path: path.to_owned(),
            });
        }
        Ok(Self {
            input,
            position: HEADER.len() as u64,
        })
    }

    /// Bytes before the next record: the length of the sound part at the end.
    pub fn offset(&self) -> u64 {
        self.position
    }

    /// Bytes of the log up to its first record that is not complete. Reads all, and keeps nothing:
    /// a long run's log is larger than memory should be.
    ///
    /// # Errors
    /// Where the file cannot be read or is something else.
    pub(super) fn sound_length(path: &Path) -> Result<u64, LogError> {
        let mut reader = Self::open(path)?;
        reader.by_ref().for_each(drop);
        Ok(reader.offset())
    }

    /// Goes to a record that began at this position.
    ///
    /// # Errors
    /// Where the file does not allow it.
    pub(super) fn seek(&mut self, position: u64) -> std::io::Result<()> {
        self.input.seek(SeekFrom::Start(position))?;
        self.position = position;
        Ok(())
    }

    /// Step of the next record, which is passed over unread; `None` inside for events other than
    /// steps, outside at the end.
    pub(super) fn skip(&mut self) -> Option<Option<u64>> {
        let (length, _) = self.head()?;
        let mut start = [0; Event::STEP_PREFIX];
        let known = start.len().min(length as usize);
        self.input.read_exact(&mut start[..known]).ok()?;
        let rest = i64::from(length) - known as i64;
        self.input.seek_relative(rest).ok()?;
        self.position += HEAD as u64 + u64::from(length);
        Some(Event::peek_step(&start[..known]))
    }

    fn head(&mut self) -> Option<(u32, u32)> {
        let mut head = [0; HEAD];
        self.input.read_exact(&mut head).ok()?;
        let [a, b, c, d, e, f, g, h] = head;
        let length = u32::from_le_bytes([a, b, c, d]);
        (length <= LONGEST).then_some((length, u32::from_le_bytes([e, f, g, h])))
    }
}

impl Iterator for LogReader {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        let (length, checksum) = self.head()?;
        let mut payload = Vec::new();
        // Not allocated at once: a damaged length must not ask for memory.
        let read = (&mut self.input)
            .take(length.into())
            .read_to_end(&mut payload)
            .ok()?;
        if read != length as usize || crc32fast::hash(&payload) != checksum {
            return None;
        }
        let event = postcard::from_bytes(&payload).ok()?;
        self.position += (HEAD + payload.len()) as u64;
        Some(event)
    }
}

/// Reads every complete record; returns them with the length of the sound part in bytes.
///
/// # Errors
/// Where the file cannot be read or is something else. A torn or damaged tail is not an error.
pub fn read_log(path: &Path) -> Result<(Vec<Event>, u64), LogError> {
    let mut reader = LogReader::open(path)?;
    let events = reader.by_ref().collect();
    Ok((events, reader.offset()))
}
