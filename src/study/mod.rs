//! Many runs: statistics over seeds.

pub mod statistics;
