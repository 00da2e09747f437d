//! bitscope: a terminal workbench for learned mixed-precision quantization.
pub mod quantizer;
