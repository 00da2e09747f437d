//! From bytes to the numbers that a network is trained on.

use crate::experiment::Normalise;

/// What every byte becomes, by channel: `(byte / 255 - mean) / deviation`.
#[derive(Clone, PartialEq)]
pub struct Normalisation {
    /// Mean and deviation.
    numbers: Vec<[f32; 2]>,
    tables: Vec<[f32; 256]>,
}

/// Mean and standard deviation of ImageNet's red, green and blue, of values from 0 to 1.
const IMAGENET: [[f32; 2]; 3] = [[0.485, 0.229], [0.456, 0.224], [0.406, 0.225]];

/// `(x / 255 - 0.5) * 2`: dividing by a half is the same.
const SYMMETRIC: [[f32; 2]; 1] = [[0.5, 0.5]];

impl Normalisation {
    /// As an experiment says.
    pub fn new(normalise: &Normalise) -> Self {
        match normalise {
            Normalise::Symmetric => Self::symmetric(),
            Normalise::Imagenet => Self::of(&IMAGENET),
            Normalise::Channels(channels) => Self::of(channels),
        }
    }

    /// `(x / 255 - 0.5) * 2`, every channel.
    pub fn symmetric() -> Self {
        Self::of(&SYMMETRIC)
    }

    fn of(numbers: &[[f32; 2]]) -> Self {
        let table = |[mean, deviation]: &[f32; 2]| {
            std::array::from_fn(|byte| (byte as f32 / 255.0 - mean) / deviation)
        };
        Self {
            numbers: numbers.to_vec(),
            tables: numbers.iter().map(table).collect(),
        }
    }

    /// Mean and deviation of a channel, of values from 0 to 1.
    pub fn numbers(&self, channel: usize) -> [f32; 2] {
        self.numbers[channel % self.numbers.len()]
    }

    /// The tables of so many channels, one behind the other.
    pub fn tables(&self, channels: usize) -> Vec<f32> {
        (0..channels).flat_map(|c| *self.channel(c)).collect()
    }

    /// The table of a channel.
    pub fn channel(&self, channel: usize) -> &[f32; 256] {
        &self.tables[channel % self.tables.len()]
    }
}

impl std::fmt::Debug for Normalisation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ends = self.tables.iter().map(|table| [table[0], table[255]]);
        f.debug_list().entries(ends).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imagenets_is_torchvisions() {
        // torchvision 0.24: Normalize(mean, std) of 0, 128 and 255.
        let expected = [
            [-2.117_904, 0.074_064_63, 2.248_908_3],
            [-2.035_714_4, 0.205_182_2, 2.428_571_5],
            [-1.804_444_4, 0.426_492_4, 2.64],
        ];
        let normalisation = Normalisation::new(&Normalise::Imagenet);
        for (channel, expected) in expected.into_iter().enumerate() {
            let table = normalisation.channel(channel);
            let found = [table[0], table[128], table[255]];
            for (found, expected) in found.into_iter().zip(expected) {
                assert!((found - expected).abs() < 1e-6, "{found} {expected}");
            }
        }
        let symmetric = Normalisation::symmetric();
        for (byte, value) in symmetric.channel(2).iter().enumerate() {
            let twice = (byte as f32 / 255.0 - 0.5) * 2.0;
            assert_eq!(value.to_bits(), twice.to_bits());
        }
    }
}
