//! Bitwidths projected onto the budgets: constraint (8) itself, where a penalty (10) asks for it.
//!
//! After an update that leaves a budget exceeded, quantizers give up bits one at a time, first the one
//! whose bit costs least for what it saves. What it costs is measured: the loss on a fixed batch of
//! training data with that quantizer one bit poorer, with a coarser step or a shorter range, whichever
//! loses less. (Only ways near the weights, with a fit among them, were tried: both the demo and
//! ResNet-20 on CIFAR-10 learned worse.) Measurements are kept, and repeated only for the
//! quantizer that seems the cheapest, until the cheapest has just been measured: a bit costs more the
//! fewer are left, so an old measurement is seldom too high.
//!
//! Once the budget is met, bits come back that the last ones made unnecessary.
//!
//! The gradients of `d` and `q_max` go on to move bitwidths either way. Where one rises beyond the
//! budget, it keeps its bit only if that is worth several times what another's costs; otherwise it
//! loses it again at once. Layers that are worth about the same would take turns.

use serde::{Deserialize, Serialize};

use super::met;
use crate::network::{Network, Slot};
use crate::quantizer::memory::{Usage, bitwidth_slopes};
use crate::run::Budget;

/// How many times what another bit costs a bit must be worth that rose beyond the budget.
const WORTH: f64 = 4.0;

/// What one bit less would cost each quantizer, as last measured; part of a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Costs {
    known: Vec<Option<Cost>>,
    /// Bitwidths after the last projection.
    bits: Vec<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Cost {
    /// Bitwidth that it was measured at.
    bits: f64,
    /// Added to the loss, nats.
    loss: f64,
    /// Parameters of one bit less.
    parameters: [f64; 2],
}

/// A bit that was taken.
#[derive(Debug, Clone, Copy)]
struct Lowered {
    slot: usize,
    /// Parameters before.
    before: [f64; 2],
    /// What it cost.
    cost: Cost,
}

fn slots(lowered: &[Lowered]) -> Vec<usize> {
    lowered.iter().map(|l| l.slot).collect()
}

impl Costs {
    /// Lowers bitwidths until every limit is met, or none can be lowered further. `loss` measures the
    /// network as it is. Returns the quantizers that were lowered.
    pub(in crate::training) fn project(
        &mut self,
        limits: &[Budget],
        network: &mut Network,
        mut loss: impl FnMut(&mut Network) -> f64,
    ) -> Vec<usize> {
        self.known.resize(network.slots.len(), None);
        let bits = |network: &Network| network.slots.iter().map(|s| s.grid().bits).collect();
        let now: Vec<f64> = bits(network);
        let before = std::mem::replace(&mut self.bits, now);
        let risen: Vec<bool> = if before.len() == self.bits.len() {
            self.bits.iter().zip(before).map(|(b, a)| *b > a).collect()
        } else {
            vec![false; self.bits.len()]
        };
        let mut lowered: Vec<Lowered> = Vec::new();
        while let Some(saved) = exceeded(limits, network) {
            let mut fresh = vec![false; network.slots.len()];
            let mut now = None;
            let chosen = loop {
                let slot = self.cheapest(network, &saved, &risen);
                if fresh[slot] {
                    break slot;
                }
                let now = *now.get_or_insert_with(|| loss(network));
                self.known[slot] = measure(network, slot, now, &mut loss);
                fresh[slot] = true;
            };
            let cost = self.known[chosen].take().expect("just measured");
            lowered.push(Lowered {
                slot: chosen,
                before: network.slots[chosen].parameters,
                cost,
            });
            network.slots[chosen].parameters = cost.parameters;
            self.bits[chosen] = network.slots[chosen].grid().bits;
        }
        self.give_back(limits, network, &mut lowered);
        slots(&lowered)
    }

    /// Gives bits back that what was taken after them made unnecessary, first the one that cost most: a small
    /// layer whose bit is the cheapest goes first, and is in vain where a large one has to follow.
    fn give_back(&mut self, limits: &[Budget], network: &mut Network, lowered: &mut Vec<Lowered>) {
        loop {
            // (Of a quantizer that was lowered twice, the last comes back first.)
            let is_last = |at: usize| lowered[at + 1..].iter().all(|l| l.slot != lowered[at].slot);
            let mut newest: Vec<usize> = (0..lowered.len()).filter(|at| is_last(*at)).collect();
            newest.sort_by(|a, b| lowered[*b].cost.loss.total_cmp(&lowered[*a].cost.loss));
            let fits = newest.into_iter().find(|at| {
                let Lowered { slot, before, .. } = lowered[*at];
                let now = std::mem::replace(&mut network.slots[slot].parameters, before);
                let fits = met(limits, &network.usage());
                if !fits {
                    network.slots[slot].parameters = now;
                }
                fits
            });
            let Some(at) = fits else { return };
            let Lowered { slot, cost, .. } = lowered.remove(at);
            self.bits[slot] = cost.bits;
            self.known[slot] = Some(cost);
        }
    }

    /// The quantizer whose next bit costs least for what it saves: one that has not been measured at
    /// its bitwidth comes first.
    fn cheapest(&self, network: &Network, saved: &[f64], risen: &[bool]) -> usize {
        let slots = network.slots.iter().enumerate();
        slots
            .filter(|(i, _)| saved[*i] > 0.0)
            .map(|(i, slot)| {
                let known = self.known[i].filter(|cost| cost.bits == slot.grid().bits);
                let ratio = |cost: Cost| worth(cost.loss, risen[i]) / saved[i];
                (i, known.map_or(f64::NEG_INFINITY, ratio))
            })
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .map(|(i, _)| i)
            .expect("what is exceeded is what some quantizer can save of")
    }
}

/// What a bit counts for where it is compared with others: one that rose beyond the budget is given up
/// sooner, whether that costs something or helps.
fn worth(loss: f64, has_risen: bool) -> f64 {
    match has_risen {
        true if loss > 0.0 => loss / WORTH,
        true => loss * WORTH,
        false => loss,
    }
}

/// What each quantizer saves with its next smaller bitwidth, of the first resource that is exceeded and
/// that any of them saves something of.
fn exceeded(limits: &[Budget], network: &Network) -> Option<Vec<f64>> {
    let stored = network.stored();
    let usage = Usage::of(&stored, network.multiplications());
    let exceeded = limits.iter().filter(|l| !l.is_met(&usage));
    exceeded
        .map(|limit| {
            let slopes = bitwidth_slopes(
                limit.resource,
                network.rules(),
                &stored,
                network.multiplications(),
            );
            let mut saved = vec![0.0; network.slots.len()];
            for (slot, slope) in network.stored_slots().into_iter().zip(slopes) {
                if let Some(slot) = slot {
                    saved[slot] += slope;
                }
            }
            for (saved, slot) in saved.iter_mut().zip(&network.slots) {
                *saved *= bits_less(slot);
            }
            saved
        })
        .find(|saved| saved.iter().any(|s| *s > 0.0))
}

/// How many bits less the next smaller bitwidth of a quantizer is; 0 where there is none.
fn bits_less(slot: &Slot) -> f64 {
    let (q, bits) = (&slot.quantizer, slot.grid().bits);
    if !q.is_learned(0) || q.one_bit_less(slot.parameters).is_empty() {
        return 0.0;
    }
    q.next_smaller(bits).map_or(0.0, |smaller| bits - smaller)
}

/// Tries the ways to one bit less; the network is left as it was.
fn measure(
    network: &mut Network,
    slot: usize,
    now: f64,
    loss: &mut impl FnMut(&mut Network) -> f64,
) -> Option<Cost> {
    let of = &network.slots[slot];
    let (before, bits) = (of.parameters, of.grid().bits);
    let ways = of.quantizer.one_bit_less(before);
    let costs = ways.into_iter().map(|parameters| {
        network.slots[slot].parameters = parameters;
        Cost {
            bits,
            loss: loss(network) - now,
            parameters,
        }
    });
    let best = costs.reduce(|best, next| if next.loss < best.loss { next } else { best });
    network.slots[slot].parameters = before;
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::example;
    use crate::quantizer::memory::Resource;

    fn network() -> Network {
        example::network(
            "[model]\nname = \"glyphnet\"\n[data]\nsource = \"glyphs\"\n\
             [weights]\nquantizer = \"u3\"\nbits = 4\n",
        )
    }

    /// A bit that rose beyond the budget stays only if it is worth several times what another's costs.
    #[test]
    fn a_bit_that_rises_beyond_the_budget_has_to_be_worth_it() {
        for (costs_more, stays) in [(3.0, false), (8.0, true)] {
            let mut network = network();
            let (risen, other) = (1, 2);
            let start: Vec<[f64; 2]> = network.slots.iter().map(|s| s.parameters).collect();
            // All elements count alike, so that what a bit costs decides.
            let elements = |slot: usize, network: &Network| -> f64 {
                let of = network.slots[slot].parameter.expect("weights");
                network.graph().parameters[of]
                    .shape
                    .iter()
                    .product::<usize>() as f64
            };
            let per_bit = [risen, other].map(|slot| elements(slot, &network));
            let loss = |network: &mut Network| -> f64 {
                let slots = network.slots.iter().enumerate();
                let cost = |(i, slot): (usize, &Slot)| {
                    let missing = 9.0 - slot.grid().bits;
                    match i {
                        _ if i == risen => costs_more * per_bit[0] * missing,
                        _ if i == other => per_bit[1] * missing,
                        _ => 1e9 * missing,
                    }
                };
                slots.map(cost).sum()
            };
            let limits = [Budget {
                resource: Resource::Weights,
                limit: network.usage().weights,
            }];
            let mut costs = Costs::default();
            assert!(costs.project(&limits, &mut network, loss).is_empty());
            // An update raises one of them by a bit.
            let slot = &mut network.slots[risen];
            slot.parameters = slot.quantizer.spanning(0.7, slot.grid().bits + 1.0);
            costs.project(&limits, &mut network, loss);
            assert!(met(&limits, &network.usage()));
            let bits = |slot: usize, network: &Network| network.slots[slot].grid().bits;
            assert_eq!(bits(risen, &network) == 5.0, stays, "at {costs_more}");
            let was = network.slots[other].quantizer.grid(start[other]).bits;
            assert_eq!(bits(other, &network) < was, stays, "at {costs_more}");
        }
    }

    /// A small layer's bit is free and goes first; the large one's that has to follow saves enough alone.
    #[test]
    fn bits_that_others_made_unnecessary_come_back() {
        let mut network = network();
        let bits = |network: &Network| -> Vec<f64> {
            network.slots.iter().map(|s| s.grid().bits).collect()
        };
        let before = bits(&network);
        let kilobytes = |slot: usize| {
            let elements = network.graph().parameters
                [network.slots[slot].parameter.expect("weights")]
            .shape
            .iter()
            .product::<usize>();
            elements as f64 / 8192.0
        };
        let small = (0..before.len()).min_by(|a, b| kilobytes(*a).total_cmp(&kilobytes(*b)));
        let small = small.expect("layers");
        let (saves, now) = (kilobytes(small), network.usage().weights);
        // Nothing is lost with the small one's bits, and something with any other's.
        let loss = |network: &mut Network| {
            let others = bits(network).into_iter().enumerate();
            others
                .filter(|(i, _)| *i != small)
                .map(|(_, b)| 20.0 - b)
                .sum()
        };
        let limits = [Budget {
            resource: Resource::Weights,
            limit: now - 2.5 * saves,
        }];
        let mut costs = Costs::default();
        let lowered = costs.project(&limits, &mut network, loss);
        assert!(met(&limits, &network.usage()));
        assert_eq!(lowered.len(), 1, "{lowered:?}");
        assert!(lowered[0] != small, "{before:?} {:?}", bits(&network));
        let changed = before.iter().zip(bits(&network)).filter(|(a, b)| **a != *b);
        assert_eq!(changed.count(), 1);
        assert_eq!(costs.bits, bits(&network));
    }
}
