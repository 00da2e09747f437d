//! The shortcut that takes every other pixel.

use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;
use burn_backend::{FloatDType, Slice, TensorMetadata};

use crate::kernels::subsample::Subsampling;

/// Every `stride`-th pixel and zeros behind the channels. The first of every block of pixels is
/// taken, in plain slices; rows and columns that fill no block are padded first.
pub(in crate::kernels) fn subsample_forward<B: Backend>(
    x: FloatTensor<B>,
    s: &Subsampling,
) -> FloatTensor<B> {
    let [height, width] = s.output_size();
    let device = x.device();
    let zeros = |shape: [usize; 4]| B::float_zeros(shape.into(), &device, FloatDType::F32);
    let (images, channels, stride) = (s.images, s.channels, s.stride);
    let mut x = x;
    if height * stride > s.size[0] {
        let missing = [images, channels, height * stride - s.size[0], s.size[1]];
        x = B::float_cat(vec![x, zeros(missing)], 2);
    }
    if width * stride > s.size[1] {
        let missing = [
            images,
            channels,
            height * stride,
            width * stride - s.size[1],
        ];
        x = B::float_cat(vec![x, zeros(missing)], 3);
    }
    let x = B::float_reshape(
        x,
        [images * channels * height, stride, width, stride].into(),
    );
    let slices = [
        Slice::from(0..images * channels * height),
        Slice::from(0..1),
        Slice::from(0..width),
        Slice::from(0..1),
    ];
    let x = B::float_slice(x, &slices);
    let x = B::float_reshape(x, [images, channels, height, width].into());
    if s.extra == 0 {
        return x;
    }
    B::float_cat(vec![x, zeros([images, s.extra, height, width])], 1)
}

/// The gradient of [`subsample_forward`]'s input.
pub(in crate::kernels) fn subsample_backward<B: Backend>(
    g: FloatTensor<B>,
    s: &Subsampling,
) -> FloatTensor<B> {
    let [height, width] = s.output_size();
    let device = g.device();
    let zeros = |shape: [usize; 4]| B::float_zeros(shape.into(), &device, FloatDType::F32);
    let (images, channels, stride) = (s.images, s.channels, s.stride);
    let own = [
        Slice::from(0..images),
        Slice::from(0..channels),
        Slice::from(0..height),
        Slice::from(0..width),
    ];
    let g = B::float_slice(g, &own);
    let rows = images * channels * height;
    let g = B::float_reshape(g, [rows, 1, width, 1].into());
    let g = if stride > 1 {
        let across = B::float_cat(vec![g, zeros([rows, 1, width, stride - 1])], 3);
        B::float_cat(vec![across, zeros([rows, stride - 1, width, stride])], 1)
    } else {
        g
    };
    let g = B::float_reshape(
        g,
        [images, channels, height * stride, width * stride].into(),
    );
    let inside = [
        Slice::from(0..images),
        Slice::from(0..channels),
        Slice::from(0..s.size[0]),
        Slice::from(0..s.size[1]),
    ];
    B::float_slice(g, &inside)
}
