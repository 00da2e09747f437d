//! What tch does not bind of LibTorch: `libtorch.cpp`.

use std::ffi::{CStr, c_char, c_void};

use tch::Tensor;

use super::conv::Geometry;

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

    fn bitscope_channels_last(
        x: *const c_void,
        out: *mut *mut c_void,
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

/// How the values of `[n, c, h, w]` lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Row-major.
    ChannelsFirst,
    /// The channels of a pixel side by side: what cuDNN's convolutions compute in.
    ChannelsLast,
}

impl Layout {
    /// Of a tensor; row-major where it is neither, or both.
    pub(super) fn current(x: &Tensor) -> Self {
        let size = x.size();
        let [_, channels, height, width] = size[..] else {
            return Self::ChannelsFirst;
        };
        let expected = [height * width * channels, 1, width * channels, channels];
        let is = |strides: [i64; 4]| {
            let axes = x.stride().into_iter().zip(strides).zip(&size);
            // (An axis of one value has any stride.)
            axes.into_iter()
                .all(|((own, other), n)| *n == 1 || own == other)
        };
        let first = [channels * height * width, height * width, width, 1];
        match is(expected) && !is(first) {
            true => Self::ChannelsLast,
            false => Self::ChannelsFirst,
        }
    }

    /// A tensor in this layout: itself where it is.
    pub(super) fn of(self, x: &Tensor) -> Tensor {
        match self {
            Self::ChannelsFirst => x.contiguous(),
            Self::ChannelsLast => {
                let mut out = std::ptr::null_mut();
                or_panic(|message, length| {
                    // SAFETY: a live C++ tensor goes in; the out parameter is written on success,
                    // the message (terminated, within its length) on failure.
                    unsafe {
                        let x = x.as_ptr().cast();
                        bitscope_channels_last(x, &raw mut out, message, length)
                    }
                });
                // SAFETY: on success it points to a tensor made for the caller to own.
                unsafe { Tensor::from_ptr(out.cast()) }
            }
        }
    }
}

/// Both gradients of a convolution by LibTorch's own backward pass, that of the input where it is wanted.
pub(super) fn convolution_backward(
    [x, weight, g]: [&Tensor; 3],
    geometry: &Geometry,
    wants_x: bool,
) -> (Option<Tensor>, Tensor) {
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
                g.as_ptr().cast(),
                x.as_ptr().cast(),
                weight.as_ptr().cast(),
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
    (wants_x.then(|| own(gx)), own(gw))
}

/// Bytes copied to a card, `[count]`. The card may still be copying when this returns.
pub(super) fn bytes_on_card(bytes: &[u8], card: usize) -> Tensor {
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

/// From here on a run that is continued on a GPU takes the same steps, bit for bit.
pub(crate) fn make_deterministic() {
    // SAFETY: sets a flag of LibTorch's.
    unsafe { bitscope_make_deterministic() }
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
