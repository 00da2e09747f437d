//! A summary beside a long log: the history up to some record, so that a run of a million steps opens at
//! once. It can be thrown away; whoever reads the log writes it anew.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::disk::write_whole;
use super::super::history::{History, Severity};
use super::LogError;
use super::reader::{Damage, LogReader};

/// What the file begins with.
const HEADER: &[u8] = b"bitscope summary 6\n";
/// Bytes of the log beyond a summary from which on it pays to write it anew.
const WORTH: u64 = 8 << 20;
/// Bytes of the log before a summary's end that tell whether it is still the same log.
const COMPARED: u64 = 4096;

/// The history of a log's first bytes.
#[derive(Serialize, Deserialize)]
pub(in crate::run) struct Summary {
    /// Bytes of the log that it covers.
    position: u64,
    /// Checksum of the last of them.
    check: u32,
    /// This program's version: another one may remember other things.
    version: String,
    history: History,
}

fn place(log: &Path) -> PathBuf {
    log.with_extension("summary")
}

/// Checksum of the bytes of a log before a position.
fn check(log: &Path, position: u64) -> std::io::Result<u32> {
    let mut file = crate::files::open(log)?;
    let start = position.saturating_sub(COMPARED);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = vec![0; (position - start) as usize];
    file.read_exact(&mut bytes)?;
    Ok(crc32fast::hash(&bytes))
}

impl History {
    /// A run from its log on disk, the first `events` of it. Of a long log, what its summary holds is
    /// not read again.
    ///
    /// # Errors
    /// Where the log cannot be read.
    pub fn from_log(path: &Path, events: Option<u64>) -> Result<Self, LogError> {
        let mut reader = LogReader::open(path)?;
        let mut history = match events {
            None => Summary::resume(path, &mut reader),
            Some(_) => Self::default(),
        };
        let known = reader.offset();
        let count = events.map_or(usize::MAX, |n| n as usize);
        for event in reader.by_ref().take(count) {
            history.push(&event);
        }
        if events.is_none() {
            Summary::keep(path, &reader, known, &history);
        }
        for damage in reader.damages() {
            let text = format!("{}: {damage}", path.display());
            history.say(history.step(), Severity::Warning, text.clone());
            history.damages.push(text);
        }
        Ok(history)
    }

    /// What the summary of a log holds, and how many bytes of the log that covers: a reader goes on
    /// there. Nothing, and none, where there is no summary.
    pub fn from_summary(path: &Path) -> (Self, Option<u64>) {
        let Ok(mut reader) = LogReader::open(path) else {
            return (Self::default(), None);
        };
        let start = reader.offset();
        let history = Summary::resume(path, &mut reader);
        (history, Some(reader.offset()).filter(|at| *at > start))
    }
}

impl LogReader {
    /// Bytes of the log up to the end of its last sound record, and what is damaged. Reads all, and
    /// keeps nothing: a long run's log is larger than memory should be.
    ///
    /// # Errors
    /// Where the file cannot be read or is something else.
    pub(super) fn sound_length(path: &Path) -> Result<(u64, Vec<Damage>), LogError> {
        let mut reader = Self::open(path)?;
        // (What a summary covers was sound when it was read.)
        Summary::resume(path, &mut reader);
        reader.by_ref().for_each(drop);
        Ok((reader.offset(), reader.damages().to_vec()))
    }
}

impl Summary {
    fn read(log: &Path) -> Option<Self> {
        let bytes = crate::files::read(&place(log)).ok()?;
        let rest = bytes.strip_prefix(HEADER)?;
        let (_, rest) = rest.split_first_chunk::<8>()?;
        let (sum, body) = rest.split_first_chunk::<4>()?;
        if crc32fast::hash(body) != u32::from_le_bytes(*sum) {
            return None;
        }
        let summary: Self = postcard::from_bytes(body).ok()?;
        let same = summary.version == env!("CARGO_PKG_VERSION")
            && check(log, summary.position).ok()? == summary.check;
        same.then_some(summary)
    }

    /// The history that a log's summary holds, with the reader behind what it covers; an empty one,
    /// with the reader where it is, where there is none that fits.
    pub(in crate::run) fn resume(log: &Path, reader: &mut LogReader) -> History {
        match Self::read(log) {
            Some(summary) if reader.seek(summary.position).is_ok() => {
                let mut history = summary.history;
                history.describe_layers();
                history
            }
            _ => History::default(),
        }
    }

    /// Writes the summary of what a reader has read, where that is much more than the `known` bytes that it
    /// took from the one there. Of a damaged log none is written: its damage is found by reading all of it.
    pub(in crate::run) fn keep(log: &Path, reader: &LogReader, known: u64, history: &History) {
        let position = reader.offset();
        let sound = reader.damages().iter().all(|d| d.is_tail);
        if !sound || position < WORTH || position < known + WORTH {
            return;
        }
        let Ok(check) = check(log, position) else {
            return;
        };
        let summary = Self {
            position,
            check,
            version: env!("CARGO_PKG_VERSION").into(),
            history: history.clone(),
        };
        if let Ok(body) = postcard::to_stdvec(&summary) {
            let sum = crc32fast::hash(&body).to_le_bytes();
            // (A folder that may only be read has none, and is read slowly.)
            let at = position.to_le_bytes();
            let _ = write_whole(
                &place(log),
                &[HEADER, &at[..], &sum[..], &body[..]].concat(),
            );
        }
    }

    /// Bytes of the log that the summary on disk says it covers.
    pub(in crate::run) fn covered(log: &Path) -> u64 {
        let mut head = [0; HEADER.len() + 8];
        let read = crate::files::open(&place(log)).and_then(|mut file| file.read_exact(&mut head));
        match (read, head.split_last_chunk::<8>()) {
            (Ok(()), Some((header, at))) if header == HEADER => u64::from_le_bytes(*at),
            _ => 0,
        }
    }

    /// Brings the summary of a log up to date.
    pub(in crate::run) fn update(log: &Path) -> Result<(), LogError> {
        History::from_log(log, None).map(drop)
    }
}
