//! Steps and evaluations as TensorBoard event files.
//!
//! A record is its length (u64, little endian), the masked CRC-32C of those eight bytes, a protocol
//! buffer `Event`, and the masked CRC-32C of that. Of an event three fields are used: wall time (1,
//! double), step (2, varint), and either the file's version (3) or a summary (5) of values, each with a
//! tag (1) and a number (2, float).

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::event::{Event, LayerInfo};

/// What every file begins with.
const VERSION: &str = "brain.Event:2";

/// Writes one event file.
#[derive(Debug)]
pub struct TensorBoard<W: Write> {
    out: W,
    layers: Vec<LayerInfo>,
    /// Seconds since 1970 of the run's start, and of the newest step since then.
    began: f64,
    seconds: f64,
}

impl TensorBoard<BufWriter<File>> {
    /// Creates an event file in a folder, which is created where it is not there. `began` is when the
    /// run began, in seconds since 1970.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn create(folder: &Path, began: f64) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let now = jiff::Timestamp::now().as_second();
        let process = std::process::id();
        // TensorBoard takes files with this word in their name, in the order of the name.
        let name = format!("events.out.tfevents.{now:010}.bitscope.{process}");
        Self::new(BufWriter::new(File::create(folder.join(name))?), began)
    }
}

impl<W: Write> TensorBoard<W> {
    fn new(out: W, began: f64) -> io::Result<Self> {
        let mut board = Self {
            out,
            layers: Vec::new(),
            began,
            seconds: 0.0,
        };
        let mut event = Vec::new();
        field_double(&mut event, 1, began);
        field_bytes(&mut event, 3, VERSION.as_bytes());
        board.record(&event)?;
        Ok(board)
    }

    /// Takes an event of the run: steps and evaluations become scalars, the others have none.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn take(&mut self, event: &Event) -> io::Result<()> {
        event.describe(&mut self.layers);
        match event {
            Event::Step(record) => {
                self.seconds = record.seconds;
                let row = record.flat(&self.layers);
                let values = row.iter().filter(|(name, _)| *name != "step");
                let values = values.filter_map(|(name, value)| {
                    let number = match value {
                        serde_json::Value::Bool(flag) => f64::from(u8::from(*flag)),
                        other => other.as_f64()?,
                    };
                    Some((tag(name), number))
                });
                self.scalars(record.step, values)
            }
            Event::TopFive { step, split, error } => {
                let value = (format!("{}/top5_error", split.name()), *error);
                self.scalars(*step, std::iter::once(value))
            }
            Event::Evaluation {
                step,
                split,
                error,
                loss,
                ..
            } => {
                let part = split.name();
                let values = [("error", *error), ("loss", *loss)];
                let values = values.map(|(name, value)| (format!("{part}/{name}"), value));
                self.scalars(*step, values.into_iter())
            }
            _ => Ok(()),
        }
    }

    /// Hands what was written to the system.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn scalars(
        &mut self,
        step: u64,
        values: impl Iterator<Item = (String, f64)>,
    ) -> io::Result<()> {
        let mut summary = Vec::new();
        for (tag, number) in values {
            let mut value = Vec::new();
            field_bytes(&mut value, 1, tag.as_bytes());
            value.push(2 << 3 | 5);
            value.extend((number as f32).to_le_bytes());
            field_bytes(&mut summary, 1, &value);
        }
        let mut event = Vec::new();
        field_double(&mut event, 1, self.began + self.seconds);
        event.push(2 << 3);
        varint(&mut event, step);
        field_bytes(&mut event, 5, &summary);
        self.record(&event)
    }

    fn record(&mut self, event: &[u8]) -> io::Result<()> {
        let length = (event.len() as u64).to_le_bytes();
        self.out.write_all(&length)?;
        self.out.write_all(&masked(&length).to_le_bytes())?;
        self.out.write_all(event)?;
        self.out.write_all(&masked(event).to_le_bytes())
    }
}

/// `conv1.bitwidth` to `bitwidth/conv1`: TensorBoard groups by what stands first, and one wants all
/// layers of a quantity side by side.
fn tag(name: &str) -> String {
    match name.rsplit_once('.') {
        Some(("times", phase)) => format!("times/{phase}"),
        Some((layer, quantity)) => format!("{quantity}/{layer}"),
        None => format!("run/{name}"),
    }
}

/// A checksum of data that holds checksums itself, as the format wants it.
fn masked(bytes: &[u8]) -> u32 {
    let crc = crc32c::crc32c(bytes);
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn field_double(out: &mut Vec<u8>, field: u8, value: f64) {
    out.push(field << 3 | 1);
    out.extend(value.to_le_bytes());
}

fn field_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::StepRecord;

    #[test]
    fn records_are_framed_as_the_format_says() {
        // The check value of CRC-32C; (0xe3069283 >> 15 | 0xe3069283 << 17) + 0xa282ead8.
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(masked(b"123456789"), 0xc78a_b0e5_u32);
        let mut board = TensorBoard::new(Vec::new(), 1.5e9).expect("written");
        let record = StepRecord {
            step: 300,
            loss: 0.25,
            seconds: 2.0,
            ..StepRecord::default()
        };
        board.take(&Event::Step(Box::new(record))).expect("written");
        let mut rest = &board.out[..];
        let mut events = Vec::new();
        while !rest.is_empty() {
            let (length, behind) = rest.split_first_chunk::<8>().expect("a length");
            let (check, behind) = behind.split_first_chunk::<4>().expect("its check");
            assert_eq!(u32::from_le_bytes(*check), masked(length));
            let (event, behind) = behind.split_at(u64::from_le_bytes(*length) as usize);
            let (check, behind) = behind.split_first_chunk::<4>().expect("its check");
            assert_eq!(u32::from_le_bytes(*check), masked(event));
            events.push(event.to_vec());
            rest = behind;
        }
        assert_eq!(events.len(), 2);
        assert!(events[0].ends_with(b"brain.Event:2"));
        assert_eq!(&events[1][1..9], &1_500_000_002f64.to_le_bytes());
        // Step 300 as a varint.
        assert_eq!(&events[1][9..12], &[0x10, 0xac, 0x02]);
        let tag = b"\x0a\x08run/loss\x15";
        let at = events[1].windows(tag.len()).position(|w| w == tag);
        let at = at.expect("the loss") + tag.len();
        assert_eq!(&events[1][at..at + 4], &0.25f32.to_le_bytes());
    }
}
