//! Bytes of pictures as numbers.

use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;
use burn::tensor::TensorData;
use burn_backend::{IntDType, TensorMetadata};

use crate::kernels::pictures::{BYTES, Pictures};

/// The bytes are copied to the table's device and looked up there. (LibTorch has a way of its own: burn
/// knows no whole numbers of 32 bits there.)
pub(in crate::kernels) fn pictures<B: Backend>(
    table: FloatTensor<B>,
    pictures: Pictures,
) -> FloatTensor<B> {
    let Pictures { bytes, shape } = pictures;
    let [_, channels, ..] = shape;
    let bytes = B::int_from_data(TensorData::new(bytes, shape), &table.device());
    let starts: Vec<i32> = (0..channels).map(|c| (c * BYTES) as i32).collect();
    let starts = TensorData::new(starts, [1, channels, 1, 1]);
    let starts = B::int_from_data(starts, &table.device());
    let places = B::int_add(B::int_cast(bytes, IntDType::I32), starts);
    let places = B::int_reshape(places, [shape.iter().product::<usize>()].into());
    B::float_reshape(B::float_select(table, 0, places), shape.into())
}
