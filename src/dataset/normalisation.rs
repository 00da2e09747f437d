//! From bytes to the numbers that a network is trained on.

use crate::experiment::Normalise;

/// What every byte becomes, by channel.
#[derive(Clone, PartialEq)]
pub struct Normalisation(Vec<[f32; 256]>);

/// Mean and standard deviation of ImageNet's red, green and blue, of values from 0 to 1.
const IMAGENET: [[f32; 2]; 3] = [[0.485, 0.229], [0.456, 0.224], [0.406, 0.225]];

impl Normalisation {
    /// As an experiment says.
    pub fn new(normalise: &Normalise) -> Self {
        let channels: &[[f32; 2]] = match normalise {
            Normalise::Symmetric => return Self::symmetric(),
            Normalise::Imagenet => &IMAGENET,
            Normalise::Channels(channels) => channels,
        };
        let table = |[mean, deviation]: &[f32; 2]| {
            std::array::from_fn(|byte| (byte as f32 / 255.0 - mean) / deviation)
        };
        Self(channels.iter().map(table).collect())
    }

    /// `(x / 255 - 0.5) * 2`, every channel.
    pub fn symmetric() -> Self {
        let table = std::array::from_fn(|byte| (byte as f32 / 255.0 - 0.5) * 2.0);
        Self(vec![table])
    }

    /// The table of a channel.
    pub fn channel(&self, channel: usize) -> &[f32; 256] {
        &self.0[channel % self.0.len()]
    }
}

impl std::fmt::Debug for Normalisation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ends = self.0.iter().map(|table| [table[0], table[255]]);
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
        assert_eq!(Normalisation::symmetric().channel(2)[255], 1.0);
    }
}
