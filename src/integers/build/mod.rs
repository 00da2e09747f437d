//! A program from a network's structure, numbers and levels.
//!
//! [`sums`] says what a step adds up in integers, [`after`] what becomes of that; a step for which
//! either has a [`Reason`] not to is computed in float.

mod after;
mod grid;
mod sums;
mod value;

use std::collections::HashMap;

use super::program::{After, Operation, Program, Step};
use crate::dataset::Normalisation;
use crate::graph::{self, NodeId};
use crate::network::Snapshot;
use crate::quantizer::Grid;
use grid::levels;
use value::{Reason, Value, Yields};

impl Program {
    /// The program of a network; bytes become numbers as the normalisation says.
    pub fn of(network: &Snapshot, normalisation: &Normalisation) -> Self {
        let builder = Builder {
            network,
            normalisation,
            yields: HashMap::new(),
            step_of: HashMap::new(),
            steps: Vec::new(),
        };
        builder.build()
    }
}

struct Builder<'a> {
    network: &'a Snapshot,
    normalisation: &'a Normalisation,
    yields: HashMap<NodeId, Yields>,
    step_of: HashMap<NodeId, usize>,
    steps: Vec<Step>,
}

impl Builder<'_> {
    fn build(mut self) -> Program {
        let plan = self.network.plan.clone();
        for step in &plan.steps {
            let (mut made, yields) = self.step(step);
            made.inputs = step
                .inputs(&self.network.graph)
                .iter()
                .map(|node| self.step_of[node])
                .collect();
            self.step_of.insert(step.output, self.steps.len());
            self.yields.insert(step.output, yields);
            self.steps.push(made);
        }
        Program { steps: self.steps }
    }

    fn node(&self, id: NodeId) -> &graph::Node {
        &self.network.graph.nodes[id]
    }

    fn value(&self, id: NodeId) -> Result<&Value, Reason> {
        self.yields[&id].as_ref().map_err(|_| Reason {
            text: format!("reads {}, which is in float", self.node(id).name),
            hint: None,
        })
    }

    fn step(&self, step: &graph::Step) -> (Step, Yields) {
        let slot = self.network.placement.of_node[step.output];
        let grid = self.network.grid(slot);
        let made = self
            .sums(step)
            .and_then(|(sums, residual)| self.finish(step, sums, residual, grid));
        match made {
            Ok((step, value)) => (step, Ok(value)),
            Err(reason) => self.float(step, reason, grid),
        }
    }

    /// A step whose value comes from the float network; behind a quantizer it is on a grid again.
    fn float(&self, step: &graph::Step, reason: Reason, grid: Option<Grid>) -> (Step, Yields) {
        let levels = grid.map(|grid| levels(&grid));
        let value = match levels {
            Some(Ok(levels)) => Ok(Value {
                exponent: levels.exponent,
                range: levels.range(),
                codes: Some(levels.codes),
            }),
            Some(Err(reason)) => Err(reason),
            None => Err(reason.clone()),
        };
        let (exponent, range) = value
            .as_ref()
            .map_or((0, [0, 0]), |v| (v.exponent, v.range));
        let made = Step {
            name: self.node(step.output).name.clone(),
            inputs: Vec::new(),
            shape: self.node(step.output).shape,
            operation: Operation::Float {
                reason: reason.text,
                hint: reason.hint.map(str::to_owned),
            },
            after: After::Nothing,
            sum_exponent: exponent,
            exponent,
            sums: range,
            range,
            bits: grid.map(|g| g.bits as u32),
            partial: 0,
        };
        (made, value)
    }
}
