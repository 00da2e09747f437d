//! A network's numbers on the host: what replays and exporters work on.

use std::sync::Arc;

use super::{Network, read_tensor};
use crate::graph::{Graph, Placement, Plan};
use crate::quantizer::memory::Stored;
use crate::quantizer::{Grid, Rules};

/// Structure, numbers and levels of a network at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Structure.
    pub graph: Arc<Graph>,
    /// Where quantizers stand.
    pub placement: Placement,
    /// The steps of a forward pass.
    pub plan: Arc<Plan>,
    /// Every learned tensor in float, in network order.
    pub parameters: Vec<Vec<f32>>,
    /// Means and variances of every batch norm.
    pub norms: Vec<[Vec<f32>; 2]>,
    /// Levels of every quantizer; none are in use where [`Self::quantized`] is false.
    pub grids: Vec<Grid>,
    /// The two parameters of every quantizer.
    pub quantizers: Vec<[f64; 2]>,
    /// Whether quantizers are in use.
    pub quantized: bool,
    /// The rule set.
    pub rules: Rules,
    /// Every stored tensor, for its memory.
    pub stored: Vec<Stored>,
}

impl Snapshot {
    /// The levels of a quantizer in use.
    pub fn grid(&self, slot: Option<usize>) -> Option<Grid> {
        slot.filter(|_| self.quantized).map(|slot| self.grids[slot])
    }

    /// A parameter as the forward pass sees it: quantized where it has a quantizer in use.
    pub fn used(&self, parameter: usize) -> Vec<f32> {
        let values = &self.parameters[parameter];
        match self.grid(self.placement.of_parameter[parameter]) {
            Some(grid) => values.iter().map(|v| grid.forward(*v)).collect(),
            None => values.clone(),
        }
    }
}

impl Network {
    /// Its numbers now.
    pub fn snapshot(&self) -> Snapshot {
        let rows = |statistics: Vec<f32>| {
            let (means, variances) = statistics.split_at(statistics.len() / 2);
            [means.to_vec(), variances.to_vec()]
        };
        let running = self.running.iter();
        Snapshot {
            graph: self.graph.clone(),
            placement: self.placement.clone(),
            plan: self.plan.clone(),
            parameters: self.parameters.iter().map(|p| p.to_vec()).collect(),
            norms: running
                .map(|r| rows(read_tensor(r.statistics.clone())))
                .collect(),
            grids: self.slots.iter().map(|s| s.grid()).collect(),
            quantizers: self.slots.iter().map(|s| s.parameters).collect(),
            quantized: self.quantized,
            rules: self.rules,
            stored: self.stored(),
        }
    }

    /// The sums of these steps of the plan are taken in f64 from here on and rounded once: f32 would round
    /// on the way. For comparisons alone, without gradients.
    pub fn add_exactly(&mut self, steps: impl IntoIterator<Item = usize>) {
        self.exact = vec![false; self.graph.nodes.len()];
        for step in steps {
            self.exact[self.plan.steps[step].output] = true;
        }
    }
}
