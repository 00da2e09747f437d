//! A log, record by record.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::super::event::Event;
use super::{FAMILY, HEADER, LONGEST, LogError};

/// Bytes that precede a record's payload.
const HEAD: usize = 8;
/// How far behind a bad record the next good one is looked for.
const SEARCHED: u64 = 64 << 20;

/// Bytes of a log that are no sound record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// First bad byte.
    pub at: u64,
    /// How many.
    pub bytes: u64,
    /// Whether nothing sound follows: a record that was being written, or a damaged end.
    pub is_tail: bool,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { at, bytes, .. } = self;
        match self.is_tail {
            true => write!(
                f,
                "the last {bytes} bytes, from byte {at} on, are incomplete"
            ),
            false => write!(
                f,
                "{bytes} bytes from byte {at} on are damaged; they are skipped"
            ),
        }
    }
}

/// Reads a log from its start, or from any record on. Bad records are passed over and remembered:
/// reading goes on with the next good one.
#[derive(Debug)]
pub struct LogReader {
    input: BufReader<File>,
    position: u64,
    damages: Vec<Damage>,
}

impl LogReader {
    /// At the first record.
    ///
    /// # Errors
    /// Where the file cannot be read or is something else.
    pub fn open(path: &Path) -> Result<Self, LogError> {
        let mut input = BufReader::new(crate::files::open(path).map_err(LogError::io(path))?);
        let mut header = Vec::new();
        let read = (&mut input)
            .take(HEADER.len() as u64)
            .read_to_end(&mut header);
        read.map_err(LogError::io(path))?;
        if header != HEADER {
            let path = path.to_owned();
            return Err(
                if header.starts_with(FAMILY) && header.len() == HEADER.len() {
                    LogError::Version { path }
                } else {
                    LogError::Header { path }
                },
            );
        }
        Ok(Self {
            input,
            position: HEADER.len() as u64,
            damages: Vec::new(),
        })
    }

    /// Goes on in the file that the path leads to now, where that is another one, or shorter than what was
    /// read: a log that was removed or cut under its run is written anew. At the same place, or from the
    /// start.
    ///
    /// # Errors
    /// Where the new file cannot be read.
    pub(crate) fn follow(&mut self, path: &Path) -> Result<(), LogError> {
        let Ok(there) = path.metadata() else {
            return Ok(());
        };
        let is_same = self
            .input
            .get_ref()
            .metadata()
            .is_ok_and(|own| is_same(&own, &there));
        if is_same && there.len() >= self.position {
            return Ok(());
        }
        let mut again = Self::open(path)?;
        if there.len() >= self.position {
            again.seek(self.position).map_err(LogError::io(path))?;
        }
        *self = again;
        Ok(())
    }

    /// Bytes before the next record: the length of the sound part at the end.
    pub fn offset(&self) -> u64 {
        self.position
    }

    /// What was passed over so far.
    pub fn damages(&self) -> &[Damage] {
        &self.damages
    }

    /// Goes to a record that began at this position.
    ///
    /// # Errors
    /// Where the file does not allow it.
    pub(crate) fn seek(&mut self, position: u64) -> std::io::Result<()> {
        self.input.seek(SeekFrom::Start(position))?;
        self.position = position;
        Ok(())
    }

    /// Step of the next record, which is passed over unread; `None` inside for events other than
    /// steps, outside at the end.
    pub(super) fn skip(&mut self) -> Option<Option<u64>> {
        let start = self.position;
        let skipped = self.skip_here();
        if skipped.is_none() {
            // Only the record's checksum tells whether something is wrong here.
            self.seek(start).ok()?;
            let event = self.next()?;
            return Some(match event {
                Event::Step(record) => Some(record.step),
                _ => None,
            });
        }
        skipped
    }

    fn skip_here(&mut self) -> Option<Option<u64>> {
        let (length, _) = self.head()?;
        let mut start = [0; Event::STEP_PREFIX];
        let known = start.len().min(length as usize);
        self.input.read_exact(&mut start[..known]).ok()?;
        let rest = i64::from(length) - known as i64;
        self.input.seek_relative(rest).ok()?;
        let end = self.position + HEAD as u64 + u64::from(length);
        if end > self.input.get_ref().metadata().ok()?.len() {
            return None;
        }
        self.position = end;
        Some(Event::peek_step(&start[..known]))
    }

    fn head(&mut self) -> Option<(u32, u32)> {
        let mut head = [0; HEAD];
        self.input.read_exact(&mut head).ok()?;
        let [a, b, c, d, e, f, g, h] = head;
        let length = u32::from_le_bytes([a, b, c, d]);
        (length <= LONGEST).then_some((length, u32::from_le_bytes([e, f, g, h])))
    }

    /// The record at the current position, where it is sound.
    fn record(&mut self) -> Option<Event> {
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

    /// Goes to the next sound record from `from` on; `false` where none is found.
    fn resynchronise(&mut self, from: u64) -> bool {
        let mut rest = Vec::new();
        let read = self
            .seek(from)
            .and_then(|()| (&mut self.input).take(SEARCHED).read_to_end(&mut rest));
        if read.is_err() {
            return false;
        }
        let sound = |at: &usize| -> bool {
            let Some((head, behind)) = rest[*at..].split_first_chunk::<HEAD>() else {
                return false;
            };
            let [a, b, c, d, e, f, g, h] = *head;
            let length = u32::from_le_bytes([a, b, c, d]) as usize;
            // An empty payload's checksum is 0: zeros would look like records.
            (1..=behind.len()).contains(&length)
                && crc32fast::hash(&behind[..length]) == u32::from_le_bytes([e, f, g, h])
                && postcard::from_bytes::<Event>(&behind[..length]).is_ok()
        };
        match (0..rest.len()).find(sound) {
            // It was being written a moment ago.
            Some(0) => self.seek(from).is_ok(),
            Some(offset) => {
                let at = from + offset as u64;
                self.damages.push(Damage {
                    at: from,
                    bytes: offset as u64,
                    is_tail: false,
                });
                self.seek(at).is_ok()
            }
            None => false,
        }
    }
}

#[cfg(unix)]
fn is_same(a: &std::fs::Metadata, b: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// (Elsewhere an open file cannot be removed.)
#[cfg(not(unix))]
fn is_same(_: &std::fs::Metadata, _: &std::fs::Metadata) -> bool {
    true
}

impl Iterator for LogReader {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        let start = self.position;
        if let Some(event) = self.record() {
            return Some(event);
        }
        if self.resynchronise(start)
            && let Some(event) = self.record()
        {
            return Some(event);
        }
        let end = self.input.get_ref().metadata().map_or(start, |m| m.len());
        if end > start && self.damages.last().is_none_or(|d| d.at != start) {
            self.damages.push(Damage {
                at: start,
                bytes: end - start,
                is_tail: true,
            });
        }
        // Where the next record will be, should the log grow.
        let _ = self.seek(start);
        None
    }
}

/// Reads every sound record; returns them with the length of the sound part in bytes.
///
/// # Errors
/// Where the file cannot be read or is something else. Damage is not an error: see
/// [`LogReader::damages`].
pub fn read_log(path: &Path) -> Result<(Vec<Event>, u64), LogError> {
    let mut reader = LogReader::open(path)?;
    let events = reader.by_ref().collect();
    Ok((events, reader.offset()))
}
