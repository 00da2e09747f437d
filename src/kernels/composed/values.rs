//! Tensors with arithmetic that reads like arithmetic.

use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;
use burn_backend::{
    BoolDType, FloatDType, Scalar, TensorMetadata, get_or_init_device_settings, try_read_sync,
};

/// A tensor.
pub(super) struct Values<B: Backend>(pub FloatTensor<B>);

impl<B: Backend> Clone for Values<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B: Backend> Values<B> {
    pub fn plus(self, other: &Self) -> Self {
        Self(B::float_add(self.0, other.0.clone()))
    }

    pub fn minus(self, other: &Self) -> Self {
        Self(B::float_sub(self.0, other.0.clone()))
    }

    pub fn times(self, other: &Self) -> Self {
        Self(B::float_mul(self.0, other.0.clone()))
    }

    pub fn over(self, other: &Self) -> Self {
        Self(B::float_div(self.0, other.0.clone()))
    }

    pub fn scaled(self, factor: f32) -> Self {
        Self(B::float_mul_scalar(self.0, Scalar::from(factor)))
    }

    pub fn shifted(self, by: f32) -> Self {
        Self(B::float_add_scalar(self.0, Scalar::from(by)))
    }

    pub fn clamped(self, low: f32, high: f32) -> Self {
        Self(B::float_clamp(
            self.0,
            Scalar::from(low),
            Scalar::from(high),
        ))
    }

    pub fn magnitude(&self) -> Self {
        Self(B::float_abs(self.0.clone()))
    }

    pub fn signs(&self) -> Self {
        Self(B::float_sign(self.0.clone()))
    }

    pub fn root(self) -> Self {
        Self(B::float_sqrt(self.0))
    }

    /// What a comparison on this device gives.
    fn mask_type(&self) -> BoolDType {
        get_or_init_device_settings::<B>(&self.0.device()).bool_dtype
    }

    /// 1 where the value is greater than `bound`, else 0.
    pub fn above(&self, bound: f32) -> Self {
        let mask = B::float_greater_elem(self.0.clone(), Scalar::from(bound), self.mask_type());
        Self(B::bool_into_float(mask, FloatDType::F32))
    }

    /// 1 where the value is at least `bound`, else 0.
    pub fn at_least(&self, bound: f32) -> Self {
        let mask =
            B::float_greater_equal_elem(self.0.clone(), Scalar::from(bound), self.mask_type());
        Self(B::bool_into_float(mask, FloatDType::F32))
    }

    /// 0 where `of` is at most 0. (A product with a mask would make NaN of an infinity.)
    pub fn cut_where_negative(self, of: &Self) -> Self {
        let mask = B::float_lower_equal_elem(of.0.clone(), Scalar::from(0.0f32), self.mask_type());
        Self(B::float_mask_fill(self.0, mask, Scalar::from(0.0f32)))
    }

    /// Brought between two bounds; what is not a number stays.
    pub fn between(self, low: f32, high: f32) -> Self {
        let below = B::float_lower_equal_elem(self.0.clone(), Scalar::from(low), self.mask_type());
        let raised = Self(B::float_mask_fill(self.0, below, Scalar::from(low)));
        let mask = raised.mask_type();
        let above = B::float_greater_equal_elem(raised.0.clone(), Scalar::from(high), mask);
        Self(B::float_mask_fill(raised.0, above, Scalar::from(high)))
    }

    /// 0 where `of` is at most `low` or at least `high`.
    pub fn cut_outside(self, of: &Self, low: f32, high: f32) -> Self {
        let mask = of.mask_type();
        let below = B::float_lower_equal_elem(of.0.clone(), Scalar::from(low), mask);
        let above = B::float_greater_equal_elem(of.0.clone(), Scalar::from(high), mask);
        let cut = B::float_mask_fill(self.0, below, Scalar::from(0.0f32));
        Self(B::float_mask_fill(cut, above, Scalar::from(0.0f32)))
    }

    /// 1 where this mask is 0, and the other way round.
    pub fn negated(self) -> Self {
        self.scaled(-1.0).shifted(1.0)
    }

    /// Half away from zero, exact also below one half.
    pub fn rounded(self) -> Self {
        let magnitude = self.magnitude();
        let whole = Self(B::float_trunc(magnitude.0.clone()));
        let up = magnitude.minus(&whole).at_least(0.5);
        whole.plus(&up).times(&self.signs())
    }

    /// `[1]`
    pub fn total(self) -> Self {
        let count = self.0.shape().num_elements();
        Self(B::float_sum(B::float_reshape(self.0, [count].into())))
    }

    pub fn reshaped<const D: usize>(self, shape: [usize; D]) -> Self {
        Self(B::float_reshape(self.0, shape.into()))
    }

    /// The numbers, read from the device.
    pub fn on_host(self) -> Vec<f32> {
        let data = try_read_sync(B::float_into_data(self.0));
        let data = data
            .expect("these engines answer at once")
            .expect("the device computes");
        data.try_to_vec().expect("the kernels compute in f32")
    }

    /// Sums `[n, c, p]` to `[1, c, 1]`.
    pub fn channel_sums(self) -> Self {
        Self(B::float_sum_dim(B::float_sum_dim(self.0, 2), 0))
    }
}
