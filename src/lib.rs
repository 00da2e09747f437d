//! bitscope: a terminal workbench for learned mixed-precision quantization.
//!
//! A training thread learns, for every layer, a step size `d` and a dynamic range `q_max`; the
//! bitwidth follows. The terminal shows it live, an experiment file steers it.
//!
//! The rooms of the house, ground floor first (a room uses only rooms above it in
//! this list; the faces share small parts):
//!
//! - [`quantizer`]: the paper in plain numbers. One place owns "levels and bits".
//! - [`graph`]: a network without tensors, and passes over it.
//! - [`kernels`]: fused differentiable operations, one implementation per engine.
//! - [`device`]: which engine, which device.
//! - [`network`]: a graph with values on a device.
//! - [`integers`]: the same network in integers: replay, proof, exporters.
//! - [`experiment`]: the experiment file: schema, diagnostics, difference, watcher.
//! - [`dataset`]: pictures, and the loader that prepares batches.
//! - [`run`]: events, the log, checkpoints' folder, the history.
//! - [`training`]: loop, optimizer, budgets, session.
//! - [`study`]: many runs: statistics over seeds.
//! - [`figure`]: scenes and their two painters.
//! - [`tui`]: the workbench.
//! - [`cli`]: the other faces.

#![deny(unsafe_code)]

mod attached;
mod bench;
mod check;
pub mod cli;
pub mod dataset;
mod detached;
pub mod device;
pub mod experiment;
mod export;
mod face;
pub mod figure;
mod files;
pub mod graph;
mod headless;
pub mod integers;
pub mod kernels;
pub mod network;
mod predict;
mod process;
mod quantize;
pub mod quantizer;
mod recorded;
mod replay;
pub mod run;
mod studies;
pub mod study;
pub mod toy;
mod trace;
pub mod training;
pub mod tui;
mod verify;
