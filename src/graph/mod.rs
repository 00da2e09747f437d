//! A network without tensors: nodes in the order in which they can be computed, the parameters that
//! they read, and passes over them.
//!
//! Doors:
//! - [`Graph`]: nodes, parameters and batch norms by name; built by [`Graph::push`], which infers
//!   every shape.
//! - [`Architecture`]: what an experiment asks for, and [`Architecture::graph`], which builds it.
//! - [`place`]: which tensors get a quantizer.
//! - [`Account`]: stored tensors, multiply-accumulates and what lives at once.
//! - [`Plan`]: the steps that an executor takes, with batch norm, residual, activation and quantizer
//!   joined where only one reader would see what lies between.
//! - [`onnx`]: networks that other programs wrote.

mod account;
mod build;
mod builder;
mod built_in;
mod error;
mod kind;
mod model;
mod node;
pub mod onnx;
mod placement;
mod plan;
mod shape;
mod written;

pub use account::{Account, Held, StoredTensor};
pub use error::GraphError;
pub use kind::LayerKind;
pub use model::{Architecture, Built, Model, NormChoice, Shortcut, Values};
pub use node::{Function, Graph, Kind, Node, NodeId, Norm, Operation, Parameter, Shape, Window};
pub use placement::{
    Initial, Override, Placed, Placement, Quantization, QuantizerPlan, Sites, place,
};
pub use plan::{Fused, Plan, Step};
pub use written::{KINDS as LAYER_KINDS, LayerSpec};
