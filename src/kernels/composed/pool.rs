//! Max pooling by the engine's own operation.

use burn::backend::Backend;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn_backend::IntDType;

use crate::kernels::pool::MaxPool;

/// The largest value of each window, and its place.
pub(in crate::kernels) fn max_pool_forward<B: Backend>(
    x: FloatTensor<B>,
    p: &MaxPool,
) -> (FloatTensor<B>, Option<IntTensor<B>>) {
    let pooled = B::max_pool2d_with_indices(
        x,
        p.kernel,
        p.stride,
        p.padding,
        p.dilation,
        p.ceil,
        IntDType::I64,
    );
    (pooled.output, Some(pooled.indices))
}

/// The gradient of [`max_pool_forward`]'s input.
///
/// # Panics
/// Without the places that it found.
pub(in crate::kernels) fn max_pool_backward<B: Backend>(
    x: FloatTensor<B>,
    places: Option<IntTensor<B>>,
    g: FloatTensor<B>,
    p: &MaxPool,
) -> FloatTensor<B> {
    let places = places.expect("the forward pass kept them");
    B::max_pool2d_with_indices_backward(
        x, p.kernel, p.stride, p.padding, p.dilation, p.ceil, g, places,
    )
    .x_grad
}
