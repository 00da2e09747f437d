//! What came of the runs of a study.

use std::collections::BTreeMap;

use super::folder::{State, StudyFolder};
use super::plan::Study;
use super::statistics::{Sample, paired};
use crate::figure::mean_by_elements;
use crate::quantizer::memory::{Resource, Side};
use crate::run::{
    Event, History, LayerQuantity, LogError, LogReader, Phase, Quantity, RunFolder, Split,
};

/// What a finished run came to. Errors are shares of wrong answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// On the test part, read once, with the weights of the last step.
    pub test: Option<f64>,
    /// How often the test part was read.
    pub test_reads: usize,
    /// On the validation part, at the last step.
    pub last: Option<f64>,
    /// The lowest on the validation part.
    pub best: Option<f64>,
    /// The lowest on the validation part among evaluations that met every budget.
    pub within: Option<f64>,
    /// Used at the last step: kB of weights, of all activations, of the largest one.
    pub kilobytes: [Option<f64>; 3],
    /// Of every quantizer, by name: side, elements and bits at the last step.
    pub bits: Vec<(String, Side, usize, f64)>,
    /// How calmly it went under a budget, where there is one.
    pub calm: Option<Calm>,
    /// Validation errors over steps: where the quantizers come into use, the float one comes first.
    pub curve: Vec<(u64, f64)>,
    /// Seconds of training.
    pub seconds: f64,
    /// Steps taken.
    pub steps: u64,
    /// What is damaged in its log, a sentence each: numbers may be missing.
    pub damages: Vec<String>,
}

impl Outcome {
    /// Reads a run's log.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn read(run: &RunFolder) -> Result<Self, LogError> {
        let history = History::from_log(&run.log(), None)?;
        // What was measured in float, before the quantizers, is not what a quantized run came to.
        let part = |split| history.counted(split);
        let lowest = |errors: &mut dyn Iterator<Item = f64>| errors.reduce(f64::min);
        let used = |resource| history.used(resource).newest().map(f64::from);
        let layers = history.layers.iter().filter_map(|l| {
            let bits = l[LayerQuantity::Bitwidth].newest()?;
            let (side, elements) = (l.info.role.side(), l.info.elements);
            Some((l.info.label(), side, elements, f64::from(bits)))
        });
        Ok(Self {
            // (A damaged log may have lost it; the manifest has it too.)
            test: part(Split::Test)
                .next_back()
                .map(|e| e.error)
                .or_else(|| run.manifest().ok()?.test_error),
            test_reads: part(Split::Test).count(),
            last: part(Split::Validation).next_back().map(|e| e.error),
            best: lowest(&mut part(Split::Validation).map(|e| e.error)),
            within: lowest(
                &mut part(Split::Validation)
                    .filter(|e| e.budget_met)
                    .map(|e| e.error),
            ),
            kilobytes: [
                used(Resource::Weights),
                used(Resource::ActivationSum),
                used(Resource::ActivationMax),
            ],
            bits: layers.collect(),
            calm: match history.budgets.is_empty() {
                true => None,
                false => Calm::of(LogReader::open(&run.log())?),
            },
            curve: (history.evaluations.iter())
                .filter(|e| e.split == Split::Validation)
                .map(|e| (e.step, e.error))
                .collect(),
            seconds: history[Quantity::Seconds].newest().unwrap_or(0.0).into(),
            steps: history.step(),
            damages: history.damages.clone(),
        })
    }

    /// Mean bitwidth of a side, by elements.
    pub fn mean_bits(&self, side: Side) -> Option<f64> {
        let of_side = self.bits.iter().filter(|b| b.1 == side);
        mean_by_elements(of_side.map(|(_, _, elements, bits)| (*elements, *bits)))
    }
}

/// How calmly a run with quantizers went under a budget.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Calm {
    /// Share of quantized steps after which every budget was met. (While a budget tightens, the one
    /// that was asked for.)
    pub met: f64,
    /// Changes of direction of all bitwidths together, from one recorded step to the next.
    pub turns: usize,
}

impl Calm {
    /// From a run's events; `None` without a quantized step.
    fn of(events: impl Iterator<Item = Event>) -> Option<Self> {
        let mut quantized = false;
        // Every quantized step, and whether it met every budget.
        let mut met: Vec<(u64, bool)> = Vec::new();
        // Changes of bitwidths: at which step, of which quantizer, to what.
        let mut changes: Vec<(u64, usize, f32)> = Vec::new();
        let mut bits: Vec<f32> = Vec::new();
        for event in events {
            let record = match event {
                Event::Phase { phase, .. } => {
                    quantized = phase == Phase::Quantized;
                    continue;
                }
                Event::Started { step, .. } => {
                    // What came behind the checkpoint that a run goes on from is not part of it.
                    met.retain(|(of, _)| *of <= step);
                    changes.retain(|(of, ..)| *of <= step);
                    bits.clear();
                    for (_, quantizer, value) in &changes {
                        bits.resize(bits.len().max(quantizer + 1), f32::NAN);
                        bits[*quantizer] = *value;
                    }
                    continue;
                }
                Event::Step(record) if quantized => record,
                _ => continue,
            };
            met.push((record.step, record.budget_met));
            for (quantizer, layer) in record.layers.iter().flatten().enumerate() {
                bits.resize(bits.len().max(quantizer + 1), f32::NAN);
                if bits[quantizer] != layer.bitwidth {
                    bits[quantizer] = layer.bitwidth;
                    changes.push((record.step, quantizer, layer.bitwidth));
                }
            }
        }
        let turns = (0..bits.len()).map(|own| {
            let of_own = changes.iter().filter(|(_, quantizer, _)| *quantizer == own);
            let values: Vec<f32> = of_own.map(|(.., value)| *value).collect();
            let turns = |w: &&[f32]| (w[1] - w[0]) * (w[2] - w[1]) < 0.0;
            values.windows(3).filter(turns).count()
        });
        let within = met.iter().filter(|(_, met)| *met).count();
        (!met.is_empty()).then(|| Self {
            met: within as f64 / met.len() as f64,
            turns: turns.sum(),
        })
    }
}

/// A number that a report has a column for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Test error in percent.
    Test,
    /// Last validation error in percent.
    Last,
    /// Lowest validation error in percent.
    Best,
    /// Lowest validation error within the budget in percent.
    Within,
    /// kB of weights.
    Weights,
    /// kB of all activations.
    ActivationSum,
    /// kB of the largest activation.
    ActivationMax,
    /// Mean bitwidth of weights.
    WeightBits,
    /// Mean bitwidth of activations.
    ActivationBits,
    /// Share of quantized steps that met every budget, in percent.
    Met,
    /// Changes of direction of all bitwidths.
    Turns,
}

impl Measure {
    /// All, in the order of columns.
    pub const ALL: [Self; 11] = [
        Self::Test,
        Self::Last,
        Self::Best,
        Self::Within,
        Self::Weights,
        Self::ActivationSum,
        Self::ActivationMax,
        Self::WeightBits,
        Self::ActivationBits,
        Self::Met,
        Self::Turns,
    ];

    /// As columns and keys name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Test => "test %",
            Self::Last => "last val %",
            Self::Best => "best val %",
            Self::Within => "best val in budget %",
            Self::Weights => "W kB",
            Self::ActivationSum => "A sum kB",
            Self::ActivationMax => "A max kB",
            Self::WeightBits => "W bits",
            Self::ActivationBits => "A bits",
            Self::Met => "steps met %",
            Self::Turns => "turns",
        }
    }

    /// Of a run.
    pub fn of(self, outcome: &Outcome) -> Option<f64> {
        let percent = |v: Option<f64>| v.map(|v| 100.0 * v);
        match self {
            Self::Test => percent(outcome.test),
            Self::Last => percent(outcome.last),
            Self::Best => percent(outcome.best),
            Self::Within => percent(outcome.within),
            Self::Weights => outcome.kilobytes[0],
            Self::ActivationSum => outcome.kilobytes[1],
            Self::ActivationMax => outcome.kilobytes[2],
            Self::WeightBits => outcome.mean_bits(Side::Weights),
            Self::ActivationBits => outcome.mean_bits(Side::Activations),
            Self::Met => percent(outcome.calm.map(|c| c.met)),
            Self::Turns => outcome.calm.map(|c| c.turns as f64),
        }
    }
}

/// Why a run is not counted.
#[derive(Debug, Clone, PartialEq)]
pub enum Missing {
    /// How far it is.
    State(State),
    /// It was recorded with other settings than the study asks for: which.
    Refused(String),
}

impl Missing {
    /// One word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::State(state) => state.name(),
            Self::Refused(_) => "refused",
        }
    }

    /// What there is to say besides.
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::State(State::Failed { reason, .. }) | Self::Refused(reason) => {
                Some(reason.clone())
            }
            Self::State(State::Half { step }) => Some(format!("{step} steps")),
            Self::State(_) => None,
        }
    }
}

/// The runs of a cell.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Seed by seed: what came of it, or why it is not counted.
    pub runs: BTreeMap<i64, Result<Outcome, Missing>>,
}

impl Line {
    /// A measure over the finished runs.
    pub fn sample(&self, measure: Measure) -> Option<Sample> {
        let finished = self.runs.values().flatten();
        Sample::of(finished.filter_map(|o| measure.of(o)))
    }

    /// What it differs by from another cell, over the seeds that both have finished.
    pub fn against(&self, other: &Self, measure: Measure) -> Option<Sample> {
        let pairs = self.runs.iter().filter_map(|(seed, own)| {
            let own = measure.of(own.as_ref().ok()?)?;
            let other = other.runs.get(seed)?.as_ref().ok()?;
            Some((own, measure.of(other)?))
        });
        let (own, others): (Vec<f64>, Vec<f64>) = pairs.unzip();
        paired(&own, &others)
    }
}

/// What came of a study so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Of which.
    pub study: Study,
    /// What to know before any number: damaged logs, runs whose settings cannot be compared.
    pub warnings: Vec<String>,
    /// A line for each of its cells.
    pub lines: Vec<Line>,
}

impl Report {
    /// Reads every run. A finished one whose log cannot be read counts as failed; what is `refused`, task by
    /// task, does not count.
    pub fn read(study: Study, folder: &StudyFolder, mut refused: BTreeMap<usize, String>) -> Self {
        let empty = Line {
            runs: BTreeMap::new(),
        };
        let mut lines = vec![empty; study.cells.len()];
        let mut warnings = Vec::new();
        for (at, task) in study.tasks.iter().enumerate() {
            let outcome = match (folder.state(&study, at), refused.remove(&at)) {
                (State::Finished | State::Half { .. }, Some(why)) => Err(Missing::Refused(why)),
                (State::Finished, None) => {
                    let read = Outcome::read(&folder.run(&study, at));
                    read.map_err(|error| {
                        Missing::State(State::Failed {
                            reason: format!("finished, and its log cannot be read: {error}"),
                            dead_end: true,
                        })
                    })
                }
                (state, _) => Err(Missing::State(state)),
            };
            if let Ok(Outcome { damages, .. }) = &outcome
                && !damages.is_empty()
            {
                let (task, damages) = (study.describe(at), damages.join("; "));
                warnings.push(format!("{task}: numbers may be missing: {damages}"));
            }
            lines[task.cell].runs.insert(task.seed, outcome);
        }
        Self {
            study,
            warnings,
            lines,
        }
    }

    /// Runs that are finished, of how many.
    pub fn progress(&self) -> (usize, usize) {
        let all = || self.lines.iter().flat_map(|l| l.runs.values());
        (all().filter(|r| r.is_ok()).count(), all().count())
    }

    /// What is not counted: the task in words, and why.
    pub fn missing(&self) -> impl Iterator<Item = (String, &Missing)> {
        self.lines
            .iter()
            .zip(&self.study.cells)
            .flat_map(|(line, cell)| {
                let runs = line.runs.iter();
                runs.filter_map(|(seed, run)| {
                    let missing = run.as_ref().err()?;
                    Some((format!("{}, seed {seed}", cell.label), missing))
                })
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{LayerRecord, StepRecord};

    fn step(step: u64, bits: &[f32], budget_met: bool) -> Event {
        let layer = |bitwidth: &f32| LayerRecord {
            d: 0.1,
            q_max: 1.0,
            bitwidth: *bitwidth,
            gradients: [0.0; 2],
            clipped: 0.0,
            zeros: 0.0,
            grad_norm: 0.0,
            weight_norm: 0.0,
        };
        Event::Step(Box::new(StepRecord {
            step,
            budget_met,
            layers: (!bits.is_empty()).then(|| bits.iter().map(layer).collect()),
            ..StepRecord::default()
        }))
    }

    /// By hand: the first quantizer goes 4 5 5 4 3 4, which turns twice, the second 4 3 3 3 3 4, which
    /// turns once; four of seven quantized steps met the budget.
    #[test]
    fn turns_and_steps_within_budget_are_counted_from_the_quantizers_start() {
        let phase = |phase| Event::Phase { step: 0, phase };
        let start = |step| Event::Started {
            name: "r".into(),
            device: "flex".into(),
            experiment: String::new(),
            layers: Vec::new(),
            budgets: Vec::new(),
            steps_per_epoch: 1,
            total_steps: 8,
            step,
            parent: None,
        };
        let events = [
            start(0),
            phase(Phase::Float),
            step(1, &[9.0, 9.0], true),
            phase(Phase::Quantized),
            step(2, &[4.0, 4.0], false),
            step(3, &[5.0, 3.0], false),
            step(4, &[5.0, 3.0], true),
            // Killed behind the checkpoint of step 4: these steps are taken again.
            step(5, &[2.0, 8.0], false),
            step(6, &[6.0, 2.0], false),
            start(4),
            phase(Phase::Quantized),
            step(5, &[], true),
            step(6, &[4.0, 3.0], true),
            step(7, &[3.0, 3.0], false),
            step(8, &[4.0, 4.0], true),
        ];
        let calm = Calm::of(events.into_iter());
        let expected = Calm {
            met: 4.0 / 7.0,
            turns: 3,
        };
        assert_eq!(calm, Some(expected));
        assert_eq!(Calm::of([step(1, &[4.0], true)].into_iter()), None);
    }
}
