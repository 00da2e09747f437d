//! Detectors that read a run as it comes and say what is wrong with it, with the evidence.
//!
//! Each has its threshold in the experiment file (`[verdicts]`). A condition has to hold for a
//! number of records before it becomes a verdict, and to be gone for as many before it ends.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::event::{Event, LayerInfo, LayerRecord, StepRecord};
use crate::experiment::{BudgetMethod, Experiment, Thresholds, resolve_text};
use crate::quantizer::memory::Role;
use crate::quantizer::{CLAMP_MARGIN, Learn, Parametrization};

/// What can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// A non-finite value stopped the run.
    NonFinite,
    /// Every weight of a layer is clipped, or lies on level zero: no gradient brings it back.
    Dead,
    /// The penalty is many times the cross entropy.
    PenaltyDrowns,
    /// A quantizer's gradient is many times its parameter.
    Exploding,
    /// Both gradients of a quantizer are next to nothing.
    Vanishing,
    /// Nearly every element lies on the zero level.
    AllZero,
    /// A large share of the elements is clipped.
    Saturated,
    /// The bitwidth goes up and down across a ceiling.
    Oscillating,
    /// `d` or `q_max` stays at its clamp.
    AtClamp,
    /// No element has reached the range for long.
    RangeUnreached,
    /// A learned bitwidth has not moved for long.
    Frozen,
}

impl Kind {
    /// Every detector, most severe first.
    pub const ALL: [Self; 11] = [
        Self::NonFinite,
        Self::Dead,
        Self::PenaltyDrowns,
        Self::Exploding,
        Self::Vanishing,
        Self::AllZero,
        Self::Saturated,
        Self::Oscillating,
        Self::AtClamp,
        Self::RangeUnreached,
        Self::Frozen,
    ];

    /// A word or two.
    pub fn name(self) -> &'static str {
        match self {
            Self::NonFinite => "non-finite",
            Self::Dead => "dead layer",
            Self::PenaltyDrowns => "penalty dominates",
            Self::Exploding => "exploding gradient",
            Self::Vanishing => "vanishing gradient",
            Self::AllZero => "all zero",
            Self::Saturated => "saturated",
            Self::Oscillating => "oscillating",
            Self::AtClamp => "at its clamp",
            Self::RangeUnreached => "range unreached",
            Self::Frozen => "frozen bitwidth",
        }
    }

    /// One word, where there is no room for more.
    pub fn short(self) -> &'static str {
        match self {
            Self::NonFinite => "NaN",
            Self::Dead => "dead",
            Self::PenaltyDrowns => "penalty",
            Self::Exploding => "explodes",
            Self::Vanishing => "vanishes",
            Self::AllZero => "zero",
            Self::Saturated => "clips",
            Self::Oscillating => "swings",
            Self::AtClamp => "clamped",
            Self::RangeUnreached => "unreached",
            Self::Frozen => "frozen",
        }
    }

    /// What it means and what usually helps.
    pub fn advice(self) -> &'static str {
        match self {
            Self::NonFinite => {
                "a value overflowed; go back to the last checkpoint with a lower learning rate, or clip the quantizers' gradients"
            }
            Self::Dead => {
                "no gradient reaches its weights, and batch norm hides their scale from the loss; the quantizer is initialised anew after `quantizers.revive_steps` steps, or now with `:reinitialise LAYER`. Slower quantizers (`quantizers.rate`) or a budget that tightens over more epochs (`budget.ramp_epochs`) avoid it"
            }
            Self::PenaltyDrowns => {
                "training optimises size rather than accuracy; lower lambda, or raise the budget and tighten it later"
            }
            Self::Exploding => {
                "steps are larger than the parameter; use a parametrization with bounded gradients (u3, p3), or `clip_quantizers = \"always\"`"
            }
            Self::Vanishing => {
                "the quantizer no longer learns; check whether its range covers the data at all"
            }
            Self::AllZero => {
                "the step size is larger than the data; lower `d`, or start from more bits"
            }
            Self::Saturated => {
                "the range is too small for the data; raise `q_max`, or its upper clamp"
            }
            Self::Oscillating => {
                "the bitwidth, and memory with it, jumps between two whole numbers; lower `quantizers.rate`, raise `quantizers.hysteresis`, or set the budget to a value that whole bitwidths reach. Weights that oscillate around a level do no such harm: batch norm's statistics are recomputed before every evaluation"
            }
            Self::AtClamp => {
                "the clamp decides, not the gradient; widen `d_bounds` or `q_max_bounds`, or accept it"
            }
            Self::RangeUnreached => "the top levels are never used; a smaller `q_max` frees a bit",
            Self::Frozen => {
                "its gradient may cancel between samples; compare with u3, whose range and step size move independently"
            }
        }
    }
}

/// A finding about a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// What.
    pub kind: Kind,
    /// Which quantizer, by its place in the run; the run as a whole where `None`.
    pub layer: Option<usize>,
    /// Step from which on it held.
    pub since: u64,
    /// Step at which it ended.
    pub until: Option<u64>,
    /// The finding with its numbers.
    pub text: String,
}

/// What the detectors remember of one quantizer.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Watch {
    bits: Option<f32>,
    /// Step of the last change of the bitwidth.
    moved: u64,
    /// Direction of that change.
    rising: Option<bool>,
    /// Steps at which the direction changed.
    turns: VecDeque<u64>,
    /// First step of an unbroken stretch without a clipped element.
    unclipped: Option<u64>,
    states: [State; Kind::ALL.len()],
}

/// How long a condition has held, or has been gone.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct State {
    hits: u32,
    misses: u32,
    since: u64,
    /// Place of the open verdict.
    open: Option<usize>,
}

/// The detectors of one run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Verdicts {
    /// Limits in force.
    pub thresholds: Thresholds,
    learn: [Option<Learn>; 2],
    /// Whether bitwidths are held at a budget: there they rest by design.
    held: bool,
    /// Epoch from which on all bitwidths stand still by design.
    frozen_from: Option<f64>,
    layers: Vec<LayerInfo>,
    watches: Vec<Watch>,
    penalty: State,
    all: Vec<Verdict>,
}

impl Verdicts {
    /// All findings so far, in the order they were made.
    pub fn all(&self) -> &[Verdict] {
        &self.all
    }

    /// Those that hold now, most severe first.
    pub fn standing(&self) -> Vec<&Verdict> {
        let mut standing: Vec<&Verdict> = self.all.iter().filter(|v| v.until.is_none()).collect();
        standing.sort_by_key(|v| (v.kind, v.since, v.layer));
        standing
    }

    /// What holds of one quantizer at a step, most severe first.
    pub fn of_layer(&self, layer: usize, step: u64) -> Vec<Kind> {
        let holds = |v: &&Verdict| {
            v.layer == Some(layer) && v.since <= step && v.until.is_none_or(|until| until > step)
        };
        let mut kinds: Vec<Kind> = self.all.iter().filter(holds).map(|v| v.kind).collect();
        kinds.sort_unstable();
        kinds
    }

    /// One entry for each kind of finding of each quantizer: the newest, and how often it was made.
    /// Standing ones first, most severe first, those of one quantizer together; then those that
    /// ended, newest first.
    pub fn grouped(&self) -> Vec<(&Verdict, usize)> {
        let mut groups: BTreeMap<(Option<usize>, Kind), (&Verdict, usize)> = BTreeMap::new();
        for verdict in &self.all {
            let entry = groups.entry((verdict.layer, verdict.kind));
            let (newest, count) = entry.or_insert((verdict, 0));
            (*newest, *count) = (verdict, *count + 1);
        }
        let mut worst: BTreeMap<Option<usize>, Kind> = BTreeMap::new();
        for ((layer, kind), (newest, _)) in &groups {
            if newest.until.is_none() {
                let entry = worst.entry(*layer).or_insert(*kind);
                *entry = (*entry).min(*kind);
            }
        }
        let mut listed: Vec<(&Verdict, usize)> = groups.into_values().collect();
        listed.sort_by_key(|(v, _)| match v.until {
            None => (
                false,
                worst.get(&v.layer).copied(),
                v.layer,
                Some(v.kind),
                0,
            ),
            Some(until) => (true, None, None, None, u64::MAX - until),
        });
        listed
    }

    /// Takes over the limits of another experiment.
    pub fn set_experiment(&mut self, experiment: &Experiment) {
        self.thresholds = experiment.verdicts.clone();
        let learn = |s: &Option<crate::graph::QuantizerPlan>| s.as_ref().map(|s| s.quantizer.learn);
        self.learn = [learn(&experiment.weights), learn(&experiment.activations)];
        let budgets = &experiment.budgets;
        self.held = !budgets.limits.is_empty() && budgets.method == BudgetMethod::Projection;
        self.frozen_from = Some(experiment.frozen_from());
    }

    /// Takes an event in; returns what was found through it.
    pub fn push(&mut self, event: &Event) -> Vec<Verdict> {
        let before = self.all.len();
        match event {
            Event::Started {
                experiment, layers, ..
            } => {
                // (What is known of a quantizer besides comes with an event of its own.)
                let same = |(a, b): (&LayerInfo, &LayerInfo)| a.name == b.name && a.role == b.role;
                let resumed =
                    self.layers.len() == layers.len() && self.layers.iter().zip(layers).all(same);
                self.layers.clone_from(layers);
                if !resumed {
                    self.watches = vec![Watch::default(); layers.len()];
                    self.all.clear();
                    self.penalty = State::default();
                }
                if let Ok(experiment) = resolve_text("experiment.toml", experiment) {
                    self.set_experiment(&experiment);
                }
                return Vec::new();
            }
            Event::Applied { experiment, .. } => {
                // Limits in force are the log's: a replay finds what the screen found.
                if let Ok(experiment) = resolve_text("experiment.toml", experiment) {
                    self.set_experiment(&experiment);
                }
                return Vec::new();
            }
            Event::Quantizers { quantizers, .. } => {
                for (layer, quantizer) in self.layers.iter_mut().zip(quantizers) {
                    layer.quantizer = Some(quantizer.clone());
                }
            }
            Event::Step(record) => self.step(record),
            Event::NonFinite { step, layer } => {
                let index = layer
                    .as_ref()
                    .and_then(|name| self.layers.iter().position(|l| l.name == *name));
                let place = layer.as_deref().unwrap_or("an unidentified layer");
                self.all.push(Verdict {
                    kind: Kind::NonFinite,
                    layer: index,
                    since: *step,
                    until: None,
                    text: format!("the first non-finite value is in {place}"),
                });
            }
            Event::Resumed { step } => {
                let open = self.all.iter_mut();
                open.filter(|v| v.kind == Kind::NonFinite && v.until.is_none())
                    .for_each(|v| v.until = Some(*step));
            }
            _ => {}
        }
        self.all[before.min(self.all.len())..].to_vec()
    }

    fn step(&mut self, r: &StepRecord) {
        let penalty = r.loss - r.cross_entropy;
        let limit = self.thresholds.drowning;
        let holds = penalty > limit * r.cross_entropy;
        let text = || {
            format!(
                "the penalty is {:.3}, the cross entropy {:.3} (limit: {limit} times the cross entropy)",
                penalty, r.cross_entropy
            )
        };
        let at = (Kind::PenaltyDrowns, None);
        settle(
            &mut self.penalty,
            &mut self.all,
            at,
            r.step,
            self.thresholds.hold,
            holds,
            text,
        );
        let Some(records) = &r.layers else { return };
        let held = self.held || self.frozen_from.is_some_and(|from| r.epoch >= from);
        for (index, record) in records.iter().enumerate().take(self.layers.len()) {
            if record.d.is_finite() && record.bitwidth.is_finite() {
                self.layer(index, r.step, record, held);
            }
        }
    }

    fn layer(&mut self, index: usize, step: u64, r: &LayerRecord, held: bool) {
        let info = &self.layers[index];
        let side = usize::from(info.role == Role::Activation);
        // (A single quantizer may be fixed where its side learns.)
        let own = info.quantizer.as_ref().map(|q| q.learn);
        let learn = own.or(self.learn[side]).unwrap_or(Learn::Both);
        let watch = &mut self.watches[index];
        let t = &self.thresholds;
        watch.follow(step, r, t.window);
        for (place, kind) in Kind::ALL.into_iter().enumerate() {
            let found = match kind {
                Kind::Frozen if held => None,
                _ => finding(kind, info, learn, watch, step, r, t),
            };
            // These know since when they hold; the others count records.
            let hold = match kind {
                Kind::Frozen | Kind::RangeUnreached | Kind::Oscillating => 1,
                _ => t.hold,
            };
            let holds = found.is_some();
            settle(
                &mut watch.states[place],
                &mut self.all,
                (kind, Some(index)),
                step,
                hold,
                holds,
                || found.unwrap_or_default(),
            );
        }
    }
}

impl Watch {
    fn follow(&mut self, step: u64, r: &LayerRecord, window: u64) {
        match self.bits {
            None => self.moved = step,
            Some(before) if before != r.bitwidth => {
                let rising = r.bitwidth > before;
                if self.rising.is_some_and(|was| was != rising) {
                    self.turns.push_back(step);
                }
                self.rising = Some(rising);
                self.moved = step;
            }
            Some(_) => {}
        }
        self.bits = Some(r.bitwidth);
        while self.turns.front().is_some_and(|t| t + window < step) {
            self.turns.pop_front();
        }
        if r.clipped > 0.0 {
            self.unclipped = None;
        } else {
            self.unclipped.get_or_insert(step);
        }
    }
}

/// The finding in words, where the condition holds at this record.
fn finding(
    kind: Kind,
    info: &LayerInfo,
    learn: Learn,
    watch: &Watch,
    step: u64,
    r: &LayerRecord,
    t: &Thresholds,
) -> Option<String> {
    let names = info.parametrization.parameter_names();
    let percent = |share: f32| f64::from(share) * 100.0;
    match kind {
        Kind::NonFinite | Kind::PenaltyDrowns => None,
        Kind::Dead => dead(info, r, t).then(|| {
            let (share, what) = if r.clipped > r.zeros {
                (r.clipped, "clipped")
            } else {
                (r.zeros, "on level zero")
            };
            format!("{:.1} % of the weights are {what}", percent(share))
        }),
        // A dead layer says it all.
        Kind::AtClamp | Kind::Saturated | Kind::AllZero | Kind::Vanishing if dead(info, r, t) => {
            None
        }
        Kind::Frozen => {
            let still = step.saturating_sub(watch.moved);
            (learn == Learn::Both && still >= t.frozen_steps)
                .then(|| format!("{} bits, unmoved for {still} steps", r.bitwidth))
        }
        Kind::AtClamp => {
            let [d, q_max] = info.clamps;
            let first = match info.parametrization {
                Parametrization::P1 | Parametrization::P2 | Parametrization::P3 => "q_min",
                _ => "d",
            };
            // The published code keeps a margin from either end.
            let near = |v: f32, bound: f64| {
                let v = f64::from(v);
                (v / bound - 1.0).abs() <= t.clamp_margin
                    || (v - bound).abs() <= 1.01 * CLAMP_MARGIN
            };
            let pinned = |name: &str, v: f32, clamp: [f64; 2]| {
                let at = clamp.into_iter().find(|bound| near(v, *bound))?;
                names
                    .contains(&name)
                    .then(|| format!("{name} = {v:.5} is at its limit {at:.5}"))
            };
            if learn == Learn::None {
                return None;
            }
            pinned(first, r.d, d).or_else(|| pinned("q_max", r.q_max, q_max))
        }
        Kind::Saturated => (f64::from(r.clipped) > t.clipped)
            .then(|| format!("{:.1} % of the elements are clipped", percent(r.clipped))),
        Kind::RangeUnreached => {
            let length = step.saturating_sub(watch.unclipped?);
            (length >= t.unreached_steps).then(|| {
                format!(
                    "no element has reached q_max = {:.4} for {length} steps",
                    r.q_max
                )
            })
        }
        Kind::AllZero => (f64::from(r.zeros) > t.zeros).then(|| {
            format!(
                "{:.2} % of the elements are on level zero",
                percent(r.zeros)
            )
        }),
        Kind::Oscillating => (watch.turns.len() as u64 >= t.oscillations).then(|| {
            format!(
                "the bitwidth changed direction {} times in {} steps",
                watch.turns.len(),
                t.window
            )
        }),
        Kind::Vanishing => {
            let small =
                |i: usize| f64::from(r.gradients[i].abs()) <= t.vanishing * parameter(info, r, i);
            (learn == Learn::Both && small(0) && small(1)).then(|| {
                let [a, b] = r.gradients;
                format!(
                    "gradients of {} and {}: {a:.1e} and {b:.1e}",
                    names[0], names[1]
                )
            })
        }
        Kind::Exploding => (0..2)
            .filter(|i| learn == Learn::Both || (learn == Learn::Range && *i == 1))
            .find(|i| f64::from(r.gradients[*i].abs()) > t.exploding * parameter(info, r, *i))
            .map(|i| {
                let (g, p) = (r.gradients[i], parameter(info, r, i));
                format!(
                    "the gradient of {} is {g:.2e}, the parameter is {p:.2e}",
                    names[i]
                )
            }),
    }
}

/// Whether no gradient can bring a layer's weights back.
pub(crate) fn dead(info: &LayerInfo, r: &LayerRecord, t: &Thresholds) -> bool {
    let limit = t.dead as f32;
    info.role != Role::Activation && (r.clipped >= limit || r.zeros >= limit)
}

/// Magnitude of a parameter, from what the record holds.
fn parameter(info: &LayerInfo, r: &LayerRecord, index: usize) -> f64 {
    f64::from(match info.parametrization.parameter_names()[index] {
        "b" => r.bitwidth,
        "q_max" => r.q_max,
        _ => r.d,
    })
}

/// Opens or closes a verdict once its condition has held, or been gone, long enough.
fn settle(
    state: &mut State,
    all: &mut Vec<Verdict>,
    (kind, layer): (Kind, Option<usize>),
    step: u64,
    hold: u32,
    holds: bool,
    text: impl FnOnce() -> String,
) {
    if !holds {
        state.hits = 0;
        state.misses += 1;
        if let Some(open) = state.open.filter(|_| state.misses >= hold) {
            all[open].until = Some(step);
            state.open = None;
        }
        return;
    }
    state.misses = 0;
    if state.hits == 0 {
        state.since = step;
    }
    state.hits = state.hits.saturating_add(1);
    match state.open {
        Some(open) => all[open].text = text(),
        None if state.hits >= hold => {
            state.open = Some(all.len());
            all.push(Verdict {
                kind,
                layer,
                since: state.since,
                until: None,
                text: text(),
            });
        }
        None => {}
    }
}

#[cfg(test)]
mod tests;
