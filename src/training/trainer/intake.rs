//! Batches on their way to the device.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};

use crate::dataset::{Pixels, Prepared, Samples, Share, shared_batches};
use crate::kernels::{self, Pictures};

/// The first so many pictures, without augmentation.
pub(super) fn first_batch(data: &Arc<dyn Samples>, size: usize) -> Option<Prepared> {
    shared_batches(data.clone(), size, 1, Share::ALL).next()
}

/// A batch on the device.
pub(super) struct Taken {
    pub labels: Vec<u16>,
    /// `[n, c, h, w]`
    pub images: Tensor<4>,
}

/// Brings pictures to a device.
pub(super) struct Intake {
    device: Device,
    /// What every byte of each channel becomes, `[c * 256]`.
    table: Tensor<1>,
}

impl Intake {
    /// For all parts of this data: they are normalised alike.
    pub fn new(data: &dyn Samples, device: &Device) -> Self {
        let [channels, ..] = data.shape();
        let table = data.normalisation().tables(channels);
        Self {
            table: Tensor::from_data(&*table, device),
            device: device.clone(),
        }
    }

    /// A batch's pictures as numbers, `[n, c, h, w]`.
    pub fn images(&self, batch: Prepared) -> Tensor<4> {
        let [c, h, w] = batch.shape;
        let shape = [batch.labels.len(), c, h, w];
        match batch.pixels {
            Pixels::Bytes(bytes) => {
                let bytes = bytes.into_owned();
                kernels::pictures(Pictures { bytes, shape }, self.table.clone())
            }
            Pixels::Values(values) => {
                let values = TensorData::new(values.into_owned(), shape);
                Tensor::from_data(values, &self.device)
            }
        }
    }
}
