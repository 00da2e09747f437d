//! The operations on LibTorch: our slices' kernels on the CPU, on LibTorch's own threads; its own
//! convolution; on CUDA the kernels of [`super::nvidia`], or tensor operations.

#![allow(
    deprecated,
    reason = "burn points users of burn-tch elsewhere; here it is asked for by name"
)]

use std::ffi::{CStr, c_char, c_void};
use std::mem::MaybeUninit;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn_tch::{LibTorch, TchTensor};
use tch::{Device, Kind, Tensor};

use super::composed;
use super::conv::{self, Extents, Geometry};
use super::nvidia::by_card;
use super::ops::{Engine, InputGradient, NormGradients, NormSpec, NormTensors, kernels_of_engine};
use super::parallel::{Cpu, Pool};
use super::pictures::{BYTES, Pictures};
use super::pool::MaxPool;
use super::quantize::Grids;
use super::slices::{self, Slices};
use super::subsample::Subsampling;

kernels_of_engine!(LibTorch);

unsafe extern "C" {
    fn bitscope_convolution_backward(
        g: *const c_void,
        x: *const c_void,
        weight: *const c_void,
        axes: *const i64,
        groups: i64,
        wants_x: bool,
        gx: *mut *mut c_void,
        gw: *mut *mut c_void,
        message: *mut c_char,
        length: usize,
    ) -> i32;

    fn bitscope_bytes_on_card(
        bytes: *const u8,
        count: i64,
        card: i64,
        out: *mut *mut c_void,
        message: *mut c_char,
        length: usize,
    ) -> i32;

    fn bitscope_make_deterministic();
}

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
        let axes = [geometry.stride, geometry.padding, geometry.dilation];
        let [stride, padding, dilation] = axes.map(|axes| axes.map(|n| n as i64));
        let groups = geometry.groups as i64;
        let none = None::<Tensor>;
        let y = (x.tensor).conv2d(&weight.tensor, none, stride, padding, dilation, groups);
        TchTensor::new(y.contiguous())
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
        let (gx, gw) = own_convolution_backward(&x, &weight, &g, geometry, wanted.is_wanted());
        (gx.map(|gx| wanted.with_base(gx)), gw)
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

/// Bytes copied to a card, `[count]`.
fn bytes_on_card(bytes: &[u8], card: usize) -> Tensor {
    let mut out = std::ptr::null_mut();
    or_panic(|message, length| {
        // SAFETY: `bytes` are read during the call; the out parameter is written on success, the
        // message (terminated, within its length) on failure.
        unsafe {
            bitscope_bytes_on_card(
                bytes.as_ptr(),
                bytes.len() as i64,
                card as i64,
                &raw mut out,
                message,
                length,
            )
        }
    });
    // SAFETY: on success it points to a tensor made for the caller to own.
    unsafe { Tensor::from_ptr(out.cast()) }
}

/// What each byte of pictures `[n, c, h, w]` becomes, by a table `[c * 256]` on the same device.
fn looked_up(table: &Tensor, bytes: &Tensor, shape: [usize; 4]) -> Tensor {
    let shape = shape.map(|n| n as i64);
    let channels = Tensor::arange(shape[1], (Kind::Int, table.device()));
    let starts = (channels * BYTES as i64).reshape([1, shape[1], 1, 1]);
    let places = bytes.reshape(shape).to_kind(Kind::Int) + starts;
    table.index_select(0, &places.reshape([-1])).reshape(shape)
}

/// Calls C++ that returns 0, or another number with the reason in the message it was given.
///
/// # Panics
/// With that reason.
fn or_panic(call: impl FnOnce(*mut c_char, usize) -> i32) {
    let mut message = [0 as c_char; 1024];
    if call(message.as_mut_ptr(), message.len()) != 0 {
        // SAFETY: the message is terminated.
        let reason = unsafe { CStr::from_ptr(message.as_ptr()) };
        panic!("LibTorch: {}", reason.to_string_lossy());
    }
}

/// Both gradients by LibTorch's own backward pass.
fn own_convolution_backward(
    x: &TchTensor,
    weight: &TchTensor,
    g: &TchTensor,
    geometry: Geometry,
    wants_x: bool,
) -> (Option<TchTensor>, TchTensor) {
    let (mut gx, mut gw) = (std::ptr::null_mut(), std::ptr::null_mut());
    let [a, b, c] = [geometry.stride, geometry.padding, geometry.dilation];
    let axes = [a, b, c]
        .as_flattened()
        .iter()
        .map(|n| *n as i64)
        .collect::<Vec<i64>>();
    or_panic(|message, length| {
        // SAFETY: six numbers at `axes`; the three pointers are of live C++ tensors; the out
        // parameters are written on success, the message (terminated, within its length) on failure.
        unsafe {
            bitscope_convolution_backward(
                g.tensor.as_ptr().cast(),
                x.tensor.as_ptr().cast(),
                weight.tensor.as_ptr().cast(),
                axes.as_ptr(),
                geometry.groups as i64,
                wants_x,
                &raw mut gx,
                &raw mut gw,
                message,
                length,
            )
        }
    });
    // SAFETY: on success both point to tensors made for the caller to own (`gx` null unless
    // wanted).
    let own = |tensor: *mut c_void| unsafe { Tensor::from_ptr(tensor.cast()) };
    // burn views gradients in other shapes, which only row-major ones allow.
    let own = |tensor| TchTensor::new(own(tensor).contiguous());
    (wants_x.then(|| own(gx)), own(gw))
}

/// From here on a run that is continued on a GPU takes the same steps, bit for bit.
pub(crate) fn make_deterministic() {
    // SAFETY: sets a flag of LibTorch's.
    unsafe { bitscope_make_deterministic() }
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
