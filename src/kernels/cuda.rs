//! burn's own CUDA engine: the operations are composed of its tensor operations.

use burn::backend::tensor::FloatTensor;
use burn_cuda::Cuda;

use super::conv::Geometry;
use super::ops::{Engine, NormSpec, NormTensors, kernels_of_engine};

kernels_of_engine!(Cuda);

impl Engine for Cuda {}
