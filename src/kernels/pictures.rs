//! Pictures become numbers where they are computed with: what goes to a device is their bytes, a
//! quarter of the numbers.

use std::mem::MaybeUninit;

use super::parallel::Cpu;

/// Values that a byte can have.
pub const BYTES: usize = 256;

/// Bytes of pictures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pictures {
    /// Row-major.
    pub bytes: Vec<u8>,
    /// `[n, c, h, w]`
    pub shape: [usize; 4],
}

impl Pictures {
    fn plane(&self) -> usize {
        (self.shape[2] * self.shape[3]).max(1)
    }
}

/// Writes what every byte becomes: `table` has a value for each byte of each channel, `[c * 256]`.
///
/// # Panics
/// If a length is not the shape's.
pub fn forward(cpu: Cpu, pictures: &Pictures, table: &[f32], y: &mut [MaybeUninit<f32>]) {
    let values: usize = pictures.shape.iter().product();
    let channels = pictures.shape[1];
    assert!(
        pictures.bytes.len() == values && y.len() == values && table.len() == channels * BYTES,
        "pictures, table and output have the shape's lengths"
    );
    let (tables, _) = table.as_chunks::<BYTES>();
    let plane = pictures.plane();
    let planes = y.chunks_mut(plane).zip(pictures.bytes.chunks(plane));
    cpu.map(planes.collect(), |i, (y, bytes)| {
        let table = &tables[i % channels];
        for (y, byte) in y.iter_mut().zip(bytes) {
            y.write(table[usize::from(*byte)]);
        }
    });
}
