//! The append-only event log.
//!
//! A header line, then records: length (u32, little endian), CRC-32 of the payload, payload
//! (postcard). Records are written whole. A record that was torn or damaged all the same costs
//! nothing but itself: reading goes on with the next sound one.

use std::io;
use std::path::{Path, PathBuf};

mod detail;
mod reader;
mod summary;
mod writer;

pub use detail::{Detail, Index};
pub use reader::{Damage, LogReader, read_log};
pub(super) use summary::Summary;
pub use writer::LogWriter;

const HEADER: &[u8] = b"bitscope events 4\n";
/// What the header of every version begins with.
const FAMILY: &[u8] = b"bitscope events ";
/// A record longer than this is no record.
const LONGEST: u32 = 1 << 26;

/// Why a log cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no event log.
    #[error(
        "{path}: its first line is damaged, or it is not an event log; expected \"bitscope events 4\""
    )]
    Header {
        /// Which file.
        path: PathBuf,
    },
    /// It is an event log of another version of this program.
    #[error("{path}: an event log of another version of bitscope; expected \"bitscope events 4\"")]
    Version {
        /// Which file.
        path: PathBuf,
    },
}

impl LogError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io {
            path: path.to_owned(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::event::Event;
    use super::*;

    fn events(n: u64) -> Vec<Event> {
        (0..n)
            .map(|step| Event::Warning {
                step,
                message: "m".repeat(step as usize % 50),
            })
            .collect()
    }

    /// A log of a hundred events: its folder, path and bytes.
    fn written() -> (tempfile::TempDir, PathBuf, Vec<u8>) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("events.log");
        let writer = LogWriter::open(&path).expect("created");
        let all = events(100);
        all.iter().for_each(|e| writer.push(Arc::new(e.clone())));
        drop(writer);
        let bytes = std::fs::read(&path).expect("written");
        assert_eq!(read_log(&path).expect("sound"), (all, bytes.len() as u64));
        (folder, path, bytes)
    }

    #[test]
    fn a_cut_at_any_byte_costs_the_torn_record_alone_and_keeps_its_bytes() {
        let (_folder, path, bytes) = written();
        let all = events(100);
        for cut in (HEADER.len()..bytes.len()).step_by(7) {
            std::fs::write(&path, &bytes[..cut]).expect("cut");
            let mut reader = LogReader::open(&path).expect("a log");
            let kept: Vec<Event> = reader.by_ref().collect();
            assert_eq!(kept, all[..kept.len()]);
            let torn = &bytes[reader.offset() as usize..cut];
            let writer = LogWriter::open(&path).expect("continued");
            assert_eq!(writer.found().is_empty(), torn.is_empty(), "{cut}");
            writer.push(Arc::new(Event::Paused { step: 7 }));
            drop(writer);
            let (again, _) = read_log(&path).expect("sound");
            assert_eq!(again[..kept.len()], kept);
            assert_eq!(again[kept.len()..], [Event::Paused { step: 7 }]);
            if !torn.is_empty() {
                let beside = path.with_extension(format!("log.damaged-{}", reader.offset()));
                assert_eq!(std::fs::read(&beside).expect("kept"), torn);
                std::fs::remove_file(beside).expect("removed");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_flipped_bit_costs_one_record(at in 0.0..1.0f64, bit in 0..8u32) {
            let (_folder, path, bytes) = written();
            let body = bytes.len() - HEADER.len();
            let at = HEADER.len() + (at * body as f64) as usize;
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            std::fs::write(&path, &damaged).expect("damaged");
            let mut reader = LogReader::open(&path).expect("a log");
            let read: Vec<Event> = reader.by_ref().collect();
            prop_assert_eq!(read.len(), 99);
            prop_assert!(read.iter().all(|e| events(100).contains(e)));
            let [damage] = reader.damages() else {
                return Err(TestCaseError::fail(format!("{:?}", reader.damages())));
            };
            prop_assert!(damage.at <= at as u64 && (at as u64) < damage.at + damage.bytes);
            // Continuing it cuts nothing that can be read.
            drop(LogWriter::open(&path).expect("continued"));
            prop_assert_eq!(read_log(&path).expect("readable").0.len(), 99);
        }
    }

    #[test]
    fn another_file_and_another_version_are_refused_and_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("events.log");
        for (text, version) in [
            ("something else", false),
            ("bitscope events 3\n\0\0\0", true),
            ("bitscope\0events 4\n", false),
        ] {
            std::fs::write(&path, text).expect("written");
            let error = LogWriter::open(&path).err().expect("refused");
            assert_eq!(
                matches!(error, LogError::Version { .. }),
                version,
                "{error}"
            );
            assert_eq!(std::fs::read_to_string(&path).expect("read"), text);
        }
    }
}
