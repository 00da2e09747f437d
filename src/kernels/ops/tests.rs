use burn::tensor::{Device, Tensor, TensorData};

use crate::kernels::norm::{Activation, Moments};
use crate::kernels::{Geometry, Input, NormInputs, convolution, norm_activation};

fn wave<const D: usize>(shape: [usize; D], seed: f32) -> Tensor<D> {
    let count = shape.iter().product::<usize>();
    let values: Vec<f32> = (0..count).map(|i| (i as f32 * 0.7 + seed).sin()).collect();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex().autodiff())
}

/// Gradients of what a residual block's input is made of, and of its convolution's weights.
fn block(input: Input, input_is_leaf: bool) -> [Vec<f32>; 2] {
    let geometry = Geometry::square(1, 1);
    let leaf = wave([3, 8, 5, 6], 0.0).require_grad();
    let weight = wave([8, 8, 3, 3], 1.0).require_grad();
    let x = if input_is_leaf {
        leaf.clone()
    } else {
        leaf.clone() * 2.0
    };
    let inputs = NormInputs {
        residual: Some(x.clone()),
        gamma: wave([8], 2.0),
        beta: wave([8], 3.0),
        sums: wave([4], 0.0),
        statistics: None,
        epsilon: 1e-5,
        moments: Moments::Exact,
        across: None,
    };
    let (y, _) = norm_activation(
        convolution(x, weight.clone(), geometry, input),
        inputs,
        Activation::Relu,
    );
    let gradients = (y.clone() * wave(y.dims(), 4.0)).sum().backward();
    [leaf, weight].map(|t| {
        let gradient = t.grad(&gradients).expect("tracked");
        gradient.into_data().try_to_vec::<f32>().expect("f32")
    })
}

#[test]
fn a_residual_and_its_convolution_give_their_input_one_gradient() {
    for input_is_leaf in [false, true] {
        let joined = block(Input::Residual, input_is_leaf);
        assert_eq!(joined, block(Input::Plain, input_is_leaf));
    }
}
