//! The operations on LibTorch: our slices' kernels on the CPU, on LibTorch's own threads; its own
//! convolution; on CUDA the kernels of [`super::nvidia`], or tensor operations.

#![allow(
    deprecated,
    reason = "burn points users of burn-tch elsewhere; here it is asked for by name"
)]

use std::mem::MaybeUninit;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn_tch::{LibTorch, TchTensor};
use tch::{Device, Kind, Tensor};

use super::composed;
use super::conv::{self, Extents, Geometry};
use super::libtorch_calls::{Layout, bytes_on_card, convolution_backward};
use super::nvidia::by_card;
use super::ops::{Engine, InputGradient, NormGradients, NormSpec, NormTensors, kernels_of_engine};
use super::parallel::{Cpu, Pool};
use super::pictures::{BYTES, Pictures};
use super::pool::MaxPool;
use super::quantize::Grids;
use super::slices::{self, Slices};
use super::subsample::Subsampling;

kernels_of_engine!(LibTorch);

/// A CPU tensor whose layout is row-major.
pub(super) struct Contiguous(Tensor);

// SAFETY: the tensor is only read, through a pointer that stays where it is; LibTorch's reference
// counts are atomic.
unsafe impl Sync for Contiguous {}

impl AsRef<[f32]> for Contiguous {
    fn as_ref(&self) -> &[f32] {
        let length = self.0.numel();
        if length == 0 {
            return &[];
        }
        // SAFETY: a contiguous CPU tensor of kind Float holds `numel` floats at `data_ptr`, which
        // live as long as the tensor that `self` holds; the operations here never write to a
        // tensor that went in.
        unsafe { std::slice::from_raw_parts(self.0.data_ptr().cast::<f32>(), length) }
    }
}

impl Slices for LibTorch {
    type Held = Contiguous;

    fn cpu() -> Cpu {
        Cpu::current(Pool::LibTorch)
    }

    fn hold(tensor: &TchTensor) -> Contiguous {
        let tensor = &tensor.tensor;
        assert_eq!(tensor.kind(), Kind::Float, "the kernels compute in f32");
        assert_eq!(tensor.device(), Device::Cpu, "slices are of CPU memory");
        Contiguous(tensor.contiguous())
    }

    unsafe fn written<R>(
        shape: &[usize],
        write: impl FnOnce(&mut [MaybeUninit<f32>]) -> R,
    ) -> (TchTensor, R) {
        let shape: Vec<i64> = shape.iter().map(|n| *n as i64).collect();
        let tensor = Tensor::empty(&shape, (Kind::Float, Device::Cpu));
        let length = tensor.numel();
        let result = if length == 0 {
            write(&mut [])
        } else {
            // SAFETY: the tensor was made above, is contiguous, and nobody else holds it yet; `write`
            // writes all of it.
            write(unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), length) })
        };
        (TchTensor::new(tensor), result)
    }
}

fn on_cpu(tensor: &TchTensor) -> bool {
    tensor.tensor.device() == Device::Cpu
}

/// Whether our kernels take this convolution: where they are the faster, and where sums have to
/// be in order.
fn is_ours(x: &TchTensor, e: &Extents) -> bool {
    on_cpu(x) && (e.geometry.in_order || conv::is_direct(e))
}

impl Engine for LibTorch {
    fn convolution_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        geometry: Geometry,
    ) -> FloatTensor<Self> {
        let e = slices::extents::<Self>(&x, &weight, geometry);
        if is_ours(&x, &e) {
            return slices::convolution_forward::<Self>(&x, &weight, &e);
        }
        let layout = layout_of_convolution(&x, &geometry);
        let axes = [geometry.stride, geometry.padding, geometry.dilation];
        let [stride, padding, dilation] = axes.map(|axes| axes.map(|n| n as i64));
        let groups = geometry.groups as i64;
        let [x, weight] = [&x, &weight].map(|t| layout.of(&t.tensor));
        let y = x.conv2d(&weight, None::<Tensor>, stride, padding, dilation, groups);
        TchTensor::new(layout.of(&y))
    }

    fn convolution_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        g: FloatTensor<Self>,
        geometry: Geometry,
        wanted: InputGradient<Self>,
    ) -> (Option<FloatTensor<Self>>, FloatTensor<Self>) {
        let e = slices::extents::<Self>(&x, &weight, geometry);
        if is_ours(&x, &e) {
            return slices::convolution_backward::<Self>(&x, &weight, &g, &e, wanted);
        }
        let layout = layout_of_convolution(&x, &geometry);
        let tensors = [&x, &weight, &g].map(|t| layout.of(&t.tensor));
        let (gx, gw) = convolution_backward(tensors.each_ref(), &geometry, wanted.is_wanted());
        let gx = gx.map(|gx| wanted.with_base(TchTensor::new(layout.of(&gx))));
        // The weight's gradient is added up beside others, as one long row of numbers.
        (gx, TchTensor::new(gw.contiguous()))
    }

    fn subsample_forward(x: FloatTensor<Self>, s: &Subsampling) -> FloatTensor<Self> {
        if on_cpu(&x) {
            slices::subsample_forward::<Self>(&x, s)
        } else {
            composed::subsample_forward::<Self>(x, s)
        }
    }

    fn subsample_backward(g: FloatTensor<Self>, s: &Subsampling) -> FloatTensor<Self> {
        if on_cpu(&g) {
            slices::subsample_backward::<Self>(&g, s)
        } else {
            composed::subsample_backward::<Self>(g, s)
        }
    }

    fn pictures(table: FloatTensor<Self>, pictures: Pictures) -> FloatTensor<Self> {
        if on_cpu(&table) {
            return slices::pictures::<Self>(&table, &pictures);
        }
        let Device::Cuda(card) = table.tensor.device() else {
            unreachable!("LibTorch computes on CPUs and on cards")
        };
        let bytes = bytes_on_card(&pictures.bytes, card);
        TchTensor::new(looked_up(&table.tensor, &bytes, pictures.shape))
    }

    fn max_pool_forward(
        x: FloatTensor<Self>,
        pool: &MaxPool,
    ) -> (FloatTensor<Self>, Option<IntTensor<Self>>) {
        if on_cpu(&x) {
            (slices::max_pool_forward::<Self>(&x, pool), None)
        } else {
            composed::max_pool_forward::<Self>(x, pool)
        }
    }

    fn max_pool_backward(
        x: FloatTensor<Self>,
        kept: Option<IntTensor<Self>>,
        g: FloatTensor<Self>,
        pool: &MaxPool,
    ) -> FloatTensor<Self> {
        if on_cpu(&x) {
            slices::max_pool_backward::<Self>(&x, &g, pool)
        } else {
            composed::max_pool_backward::<Self>(x, kept, g, pool)
        }
    }

    fn fake_quantize_forward(x: FloatTensor<Self>, grids: &Grids) -> FloatTensor<Self> {
        if on_cpu(&x) {
            return slices::fake_quantize_forward::<Self>(&x, grids);
        }
        let y = match grids {
            Grids::One(grid) => by_card(&x.tensor, |card| card.quantize(&x.tensor, grid)),
            Grids::Along { .. } => None,
        };
        match y {
            Some(y) => TchTensor::new(y),
            None => composed::fake_quantize_forward::<Self>(x, grids),
        }
    }

    fn fake_quantize_backward(
        x: FloatTensor<Self>,
        g: FloatTensor<Self>,
        grids: &Grids,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        if on_cpu(&x) {
            return slices::fake_quantize_backward::<Self>(&x, &g, grids);
        }
        let gradients = match grids {
            Grids::One(grid) => by_card(&x.tensor, |card| {
                card.quantize_backward(&x.tensor, &g.tensor, grid)
            }),
            Grids::Along { .. } => None,
        };
        match gradients {
            Some([gx, sums]) => (TchTensor::new(gx), TchTensor::new(sums)),
            None => composed::fake_quantize_backward::<Self>(x, g, grids),
        }
    }

    fn norm_activation_forward(
        inputs: &NormTensors<Self>,
        statistics: Option<FloatTensor<Self>>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        if on_cpu(&inputs.x) {
            return slices::norm_activation_forward(inputs, statistics);
        }
        if inputs.across.is_some() {
            return composed::norm_activation_forward(inputs, statistics);
        }
        let x = &inputs.x.tensor;
        match by_card(x, |card| card.norm_activation(inputs, statistics.as_ref())) {
            Some([y, statistics]) => (y, statistics),
            None => composed::norm_activation_forward(inputs, statistics),
        }
    }

    fn norm_activation_backward(
        inputs: &NormTensors<Self>,
        statistics: FloatTensor<Self>,
        g: FloatTensor<Self>,
    ) -> NormGradients<Self> {
        if on_cpu(&inputs.x) {
            return slices::norm_activation_backward(inputs, &statistics, &g);
        }
        if inputs.across.is_some() {
            return composed::norm_activation_backward(inputs, statistics, g);
        }
        let x = &inputs.x.tensor;
        by_card(x, |card| {
            card.norm_activation_backward(inputs, &statistics, &g)
        })
        .unwrap_or_else(|| composed::norm_activation_backward(inputs, statistics, g))
    }
}

/// On a card as cuDNN wants it; but convolutions of groups of channels are LibTorch's own there, which
/// are row-major.
fn layout_of_convolution(x: &TchTensor, geometry: &Geometry) -> Layout {
    match !on_cpu(x) && geometry.groups == 1 {
        true => Layout::ChannelsLast,
        false => Layout::ChannelsFirst,
    }
}

/// What each byte of pictures `[n, c, h, w]` becomes, by a table `[c * 256]` on the same device.
fn looked_up(table: &Tensor, bytes: &Tensor, shape: [usize; 4]) -> Tensor {
    let shape = shape.map(|n| n as i64);
    let channels = Tensor::arange(shape[1], (Kind::Int, table.device()));
    let starts = (channels * BYTES as i64).reshape([1, shape[1], 1, 1]);
    let places = bytes.reshape(shape).to_kind(Kind::Int) + starts;
    table.index_select(0, &places.reshape([-1])).reshape(shape)
}

/// Whether a CUDA device answers to LibTorch, and how many.
pub(crate) fn cuda_devices() -> usize {
    usize::try_from(tch::Cuda::device_count()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_looks_pictures_up_as_the_cpu_does() {
        let shape = [3, 2, 4, 5];
        let count: usize = shape.iter().product();
        let bytes: Vec<u8> = (0..count).map(|i| (i * 37) as u8).collect();
        let table = Tensor::arange(2 * BYTES as i64, (Kind::Float, Device::Cpu)).sin();
        let ours = looked_up(&table, &Tensor::from_slice(&bytes), shape);
        let expected = LibTorch::pictures(TchTensor::new(table), Pictures { bytes, shape });
        assert_eq!(ours, expected.tensor);
    }
}
