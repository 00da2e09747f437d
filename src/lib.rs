//! bitscope: a terminal workbench for learned mixed-precision quantization.
pub mod dataset;
pub mod experiment;
pub mod kernels;
pub mod network;
pub mod quantizer;
pub mod run;
