//! From checked values to the typed experiment, with the checks that need several keys.

use std::path::PathBuf;

use super::diagnostic::{Diagnostic, Diagnostics, Place};
use super::keys::KEYS;
use super::settings::{
    Augment, AutoApply, BudgetMethod, Budgets, Cache, Clip, DataSource, Decay, DeclaredShape,
    Experiment, Framing, Limit, LogSettings, Normalise, OnTrouble, OptimizerKind,
    OptimizerSettings, QuantizerDynamics, QuantizerSteps, ScheduleKind, ScheduleSettings, Start,
    Thresholds,
};
use super::value::{Found, Value, Values};
use crate::graph::{Override, QuantizerPlan, Sites};
use crate::quantizer::memory::Resource;
use crate::quantizer::{Learn, Rules};

/// Of quantizers under a budget, where the file does not say: octaves or bits.
const HYSTERESIS: f64 = 0.1;
/// The same: share of the epochs at whose end they stand still.
const FROZEN_SHARE: f64 = 0.1;
/// Steps after which a dead layer's quantizer is initialised anew, where the file does not say.
const REVIVE_STEPS: i64 = 50;
/// Batches that running statistics are computed anew from, of a network under a budget.
const NORM_BATCHES: i64 = 32;
/// Heights and widths that `glyphs` can be drawn at.
const GLYPH_SIZES: std::ops::RangeInclusive<i64> = 16..=256;

/// Builds the experiment; `found` says where values stand, `origin` stands for those that do not.
pub(super) fn resolve(
    values: Values,
    found: &Found,
    origin: &Place,
) -> Result<Experiment, Diagnostics> {
    let mut resolver = Resolver {
        values: &values,
        found,
        origin,
        errors: Vec::new(),
    };
    let experiment = resolver.experiment();
    if resolver.errors.is_empty() {
        Ok(Experiment {
            values: values.clone(),
            ..experiment
        })
    } else {
        Err(Diagnostics(resolver.errors))
    }
}

pub(super) struct Resolver<'a> {
    pub(super) values: &'a Values,
    found: &'a Found,
    origin: &'a Place,
    errors: Vec<Diagnostic>,
}

impl Resolver<'_> {
    fn experiment(&mut self) -> Experiment {
        let rules = match self.word("rules") {
            "paper" => Rules::Paper,
            _ => Rules::PublishedCode,
        };
        let model = self.model();
        let (cache, framing, random_resized) = self.pictures();
        let normalise = self.normalise();
        let sites = match self.word("activations.at") {
            "everywhere" => Sites::Everywhere,
            _ => Sites::Nonlinearities,
        };
        let input = self.input(sites, rules);
        let ([weights, activations], overrides) = self.quantizers(rules);
        let budgets = self.budgets([&weights, &activations], &overrides, rules);
        let guided = !budgets.limits.is_empty() && rules == Rules::Paper;
        let quantizers = self.dynamics(rules, guided);
        let norm_batches = self.optional_whole("evaluate.norm_batches");
        let norm_batches = norm_batches.unwrap_or(if guided { NORM_BATCHES } else { 0 }) as usize;
        Experiment {
            values: Values::default(),
            name: self.word("name").to_owned(),
            rules,
            seed: self.whole("seed") as u64,
            device: self.word("device").to_owned(),
            auto_apply: match self.word("auto_apply") {
                "live" => AutoApply::Live,
                "fork" => AutoApply::Fork,
                _ => AutoApply::Fresh,
            },
            model,
            input,
            sites,
            overrides,
            shape: DeclaredShape {
                size: self.optional_whole("data.size").map(|v| v as usize),
                channels: self.optional_whole("data.channels").map(|v| v as usize),
                classes: self.optional_whole("data.classes").map(|v| v as usize),
            },
            replace_head: self.word("init.head") == "replace",
            data: self.data(),
            unreadable: self.on_trouble("data.unreadable"),
            unknown_classes: self.on_trouble("data.unknown_classes"),
            validation: self.number("data.validation"),
            augment: self.augment(),
            normalise,
            cache,
            framing,
            random_resized,
            loader_threads: self.whole("data.loader_threads") as usize,
            start: self.start(),
            epochs: self.number("train.epochs"),
            float_epochs: self.number("train.float_epochs"),
            label_smoothing: self.number("train.label_smoothing"),
            sync_norm: self.flag("train.sync_norm"),
            batch: self.whole("train.batch") as usize,
            weights,
            activations,
            budgets,
            optimizer: self.optimizer(),
            quantizers,
            evaluate_integers: self.flag("evaluate.integers"),
            norm_batches,
            schedule: self.schedule(),
            log: LogSettings {
                probe_every: self.whole("log.probe_every") as u64,
                evaluate_every: self.number("log.evaluate_every"),
                checkpoint_every: self.number("log.checkpoint_every"),
                tensorboard: self.flag("log.tensorboard"),
            },
            verdicts: Thresholds {
                hold: self.whole("verdicts.hold") as u32,
                frozen_steps: self.whole("verdicts.frozen_steps") as u64,
                clamp_margin: self.number("verdicts.clamp_margin"),
                clipped: self.number("verdicts.clipped"),
                unreached_steps: self.whole("verdicts.unreached_steps") as u64,
                zeros: self.number("verdicts.zeros"),
                dead: self.number("verdicts.dead"),
                oscillations: self.whole("verdicts.oscillations") as u64,
                window: self.whole("verdicts.window") as u64,
                vanishing: self.number("verdicts.vanishing"),
                exploding: self.number("verdicts.exploding"),
                drowning: self.number("verdicts.drowning"),
            },
        }
    }

    fn data(&mut self) -> DataSource {
        let path = self.path("data.path");
        let source = self.word("data.source").to_owned();
        if path.is_none() && source != "glyphs" {
            self.error(
                "data.source",
                format!("data source \"{source}\" without a path"),
                "`data.path`, the folder or file of the data",
            );
        }
        let path = path.unwrap_or_default();
        if source == "glyphs"
            && let Some(size) = self.optional_whole("data.size")
            && !GLYPH_SIZES.contains(&size)
        {
            self.error(
                "data.size",
                format!("glyphs of {size}x{size}"),
                &format!("{} to {}", GLYPH_SIZES.start(), GLYPH_SIZES.end()),
            );
        }
        match source.as_str() {
            "glyphs" => DataSource::Glyphs {
                samples: self.whole("data.samples") as usize,
                difficulty: self.number("data.difficulty"),
            },
            "cifar10" => DataSource::Cifar10(path),
            "idx" => DataSource::Idx(path),
            "tensors" => DataSource::Tensors(path),
            "tar" => DataSource::Shards(path),
            _ => DataSource::Folder(path),
        }
    }

    fn on_trouble(&self, path: &str) -> OnTrouble {
        match self.word(path) {
            "skip" => OnTrouble::Skip,
            _ => OnTrouble::Stop,
        }
    }

    fn normalise(&mut self) -> Normalise {
        let numbers = |path: &str| match self.values.get(path) {
            Some(Value::Numbers(v)) => Some(v.clone()),
            _ => None,
        };
        match (numbers("data.mean"), numbers("data.std")) {
            (None, None) => match self.word("data.normalise") {
                "imagenet" => Normalise::Imagenet,
                _ => Normalise::Symmetric,
            },
            (Some(means), Some(deviations)) if means.len() == deviations.len() => {
                let pairs = means.into_iter().zip(deviations);
                Normalise::Channels(pairs.map(|(m, s)| [m as f32, s as f32]).collect())
            }
            (means, deviations) => {
                let count = |list: Option<Vec<f64>>| list.map_or(0, |l| l.len());
                self.error(
                    "data.mean",
                    format!(
                        "{} numbers in `data.mean` and {} in `data.std`",
                        count(means),
                        count(deviations)
                    ),
                    "the same number in both",
                );
                Normalise::Symmetric
            }
        }
    }

    /// How a folder's pictures are held and framed, and whether training takes random parts of them.
    fn pictures(&mut self) -> (Cache, Framing, bool) {
        let cache = match self.word("data.cache") {
            "memory" => Cache::Memory,
            "none" => Cache::None,
            "file" => Cache::File,
            _ => Cache::Auto,
        };
        let framing = Framing {
            resize: self.optional_whole("data.resize").map(|v| v as usize),
            scale: self.range("data.crop_scale"),
            ratio: self.range("data.crop_ratio"),
        };
        let is_folder = matches!(self.word("data.source"), "folder" | "tar");
        let resized = self.word("data.crop") == "resized";
        let random = resized && self.word("data.augment").contains("crop");
        if !is_folder {
            // (What a resolved experiment says of the defaults is no wish.)
            let wished = [
                ("data.resize", framing.resize.is_some()),
                ("data.crop", resized),
                ("data.cache", cache != Cache::Auto),
            ];
            for (key, _) in wished.into_iter().filter(|(_, is_wished)| *is_wished) {
                let source = self.word("data.source").to_owned();
                self.error(
                    key,
                    format!("`{key}` with the source `{source}`"),
                    "`data.source = \"folder\"` or `\"tar\"`, the only sources that it applies to",
                );
            }
        }
        if is_folder && resized && !random {
            self.error(
                "data.crop",
                format!(
                    "random parts of pictures, while `data.augment` is \"{}\"",
                    self.word("data.augment")
                ),
                "`data.augment = \"crop\"` or `\"crop-flip\"`, or `data.crop = \"padded\"`",
            );
        }
        if random && cache == Cache::Memory {
            self.error(
                "data.cache",
                "decoded pictures held in memory, of which random parts are taken".into(),
                "`none` or `auto`: random crops are taken from the stored images",
            );
        }
        let size = self.optional_whole("data.size").unwrap_or(32);
        if let Some(resize) = framing.resize
            && (resize as i64) < size
        {
            self.error(
                "data.resize",
                format!("a shorter side of {resize} pixels"),
                &format!("at least `data.size`, {size}, which is cut out of it"),
            );
        }
        (cache, framing, random)
    }

    fn augment(&self) -> Augment {
        let word = self.word("data.augment");
        let padded = self.word("data.crop") != "resized";
        let crop = if word.contains("crop") && padded {
            self.whole("data.crop_padding") as usize
        } else {
            0
        };
        Augment {
            crop,
            flip: word.contains("flip"),
        }
    }

    fn start(&mut self) -> Start {
        match (self.path("init.weights"), self.path("init.run")) {
            (Some(_), Some(_)) => {
                self.error(
                    "init.run",
                    "both `init.weights` and `init.run`".into(),
                    "one of the two",
                );
                Start::Scratch
            }
            (Some(weights), None) => Start::Weights(weights),
            (None, Some(run)) => Start::Run(run),
            (None, None) => Start::Scratch,
        }
    }

    fn budgets(
        &mut self,
        sides: [&Option<QuantizerPlan>; 2],
        overrides: &[Override],
        rules: Rules,
    ) -> Budgets {
        let learns = |plan: &QuantizerPlan| plan.quantizer.learn == Learn::Both;
        let mut excepted = overrides.iter();
        let of = |of: &Option<Option<QuantizerPlan>>| of.iter().flatten().any(learns);
        let [weights, activations] = sides.map(|plan| plan.as_ref().is_some_and(learns));
        let weights = weights || excepted.clone().any(|o| of(&o.weights));
        let activations = activations || excepted.any(|o| of(&o.activations));
        let mut limits = Vec::new();
        for (resource, key, lambda) in Limit::KEYS {
            let Some(amount) = self.optional(key) else {
                continue;
            };
            let (learned, side) = match resource {
                Resource::Weights => (weights, "weights"),
                Resource::ActivationSum | Resource::ActivationMax => (activations, "activations"),
                Resource::Bops => (weights || activations, "weights"),
            };
            if !learned {
                self.error(
                    key,
                    format!(
                        "a budget for {} whose bitwidths are not learned",
                        resource.label()
                    ),
                    &format!(
                        "`{side}.quantizer` other than \"none\" with `{side}.learn = \"both\"`"
                    ),
                );
            }
            limits.push(Limit {
                resource,
                amount,
                lambda: self.number(lambda),
            });
        }
        let method = match self.word("budget.method") {
            "penalty" => BudgetMethod::Penalty,
            "lagrangian" => BudgetMethod::Lagrangian,
            "controller" => BudgetMethod::Controller,
            "auto" if rules == Rules::PublishedCode => BudgetMethod::Penalty,
            _ => BudgetMethod::Projection,
        };
        let ramp = match rules {
            Rules::Paper => self.number("train.epochs") / 4.0,
            Rules::PublishedCode => 0.0,
        };
        Budgets {
            limits,
            method,
            ramp_epochs: self.optional("budget.ramp_epochs").unwrap_or(ramp),
        }
    }

    fn dynamics(&self, rules: Rules, guided: bool) -> QuantizerDynamics {
        let where_guided = |v: f64| if guided { v } else { 0.0 };
        let or = |path: &str, default: f64| self.optional(path).unwrap_or(default);
        let revive = self.optional_whole("quantizers.revive_steps");
        let revive = revive.unwrap_or(match rules {
            Rules::Paper => REVIVE_STEPS,
            Rules::PublishedCode => 0,
        }) as u64;
        QuantizerDynamics {
            steps: match self.word("quantizers.steps") {
                "auto" if guided => QuantizerSteps::Relative,
                "relative" => QuantizerSteps::Relative,
                _ => QuantizerSteps::Plain,
            },
            rate: self.number("quantizers.rate"),
            hysteresis: or("quantizers.hysteresis", where_guided(HYSTERESIS)),
            freeze_epochs: or(
                "quantizers.freeze_epochs",
                where_guided(self.number("train.epochs") * FROZEN_SHARE),
            ),
            revive_steps: (revive > 0).then_some(revive),
        }
    }

    fn optimizer(&self) -> OptimizerSettings {
        OptimizerSettings {
            kind: match self.word("optimizer.kind") {
                "sgd" => OptimizerKind::Sgd,
                _ => OptimizerKind::Adam,
            },
            lr: self.number("optimizer.lr"),
            momentum: self.number("optimizer.momentum"),
            beta2: self.number("optimizer.beta2"),
            weight_decay: self.number("optimizer.weight_decay"),
            decay: match self.word("optimizer.decay") {
                "weights" => Decay::Weights,
                _ => Decay::All,
            },
            lr_norm: self.number("optimizer.lr_norm"),
            lr_weight_quantizers: self.number("optimizer.lr_weight_quantizers"),
            lr_activation_quantizers: self.number("optimizer.lr_activation_quantizers"),
            clip: match self.word("optimizer.clip_quantizers") {
                "with-budget" => Clip::WithBudget,
                "always" => Clip::Always,
                _ => Clip::Never,
            },
        }
    }

    fn schedule(&self) -> ScheduleSettings {
        ScheduleSettings {
            kind: match self.word("schedule.kind") {
                "step" => ScheduleKind::Step,
                "cosine" => ScheduleKind::Cosine,
                _ => ScheduleKind::Constant,
            },
            milestones: self.numbers("schedule.milestones").to_vec(),
            factor: self.number("schedule.factor"),
            warmup: self.number("schedule.warmup_epochs"),
            float_lr: self.optional("schedule.float_lr"),
        }
    }

    pub(super) fn error(&mut self, path: &str, message: String, expected: &str) {
        let place = self
            .found
            .get(path)
            .map_or(self.origin, |p| &p.place)
            .clone();
        self.errors.push(Diagnostic {
            place,
            message,
            expected: expected.into(),
        });
    }

    /// Whether a file, or the command line, says it.
    pub(super) fn is_written(&self, path: &str) -> bool {
        self.found.contains_key(path)
    }

    pub(super) fn word(&self, path: &str) -> &str {
        match self.values.get(path) {
            Some(Value::Text(word)) => word,
            other => unreachable!("the schema makes `{path}` a text with a default, not {other:?}"),
        }
    }

    pub(super) fn path(&self, path: &str) -> Option<PathBuf> {
        match self.values.get(path) {
            Some(Value::Text(text)) => Some(PathBuf::from(text)),
            _ => None,
        }
    }

    fn whole(&self, path: &str) -> i64 {
        match self.values.get(path) {
            Some(Value::Whole(v)) => *v,
            other => unreachable!("the schema makes `{path}` whole with a default, not {other:?}"),
        }
    }

    fn flag(&self, path: &str) -> bool {
        matches!(self.values.get(path), Some(Value::Flag(true)))
    }

    fn optional_whole(&self, path: &str) -> Option<i64> {
        match self.values.get(path) {
            Some(Value::Whole(v)) => Some(*v),
            _ => None,
        }
    }

    pub(super) fn number(&self, path: &str) -> f64 {
        self.optional(path).unwrap_or_else(|| {
            unreachable!(
                "the schema gives `{path}` a default: {:?}",
                KEYS.iter().find(|k| k.path == path)
            )
        })
    }

    pub(super) fn optional(&self, path: &str) -> Option<f64> {
        match self.values.get(path) {
            Some(Value::Number(v)) => Some(*v),
            _ => None,
        }
    }

    fn numbers(&self, path: &str) -> &[f64] {
        match self.values.get(path) {
            Some(Value::Numbers(v)) => v,
            other => unreachable!("the schema makes `{path}` a list with a default, not {other:?}"),
        }
    }

    pub(super) fn range(&self, path: &str) -> std::ops::RangeInclusive<f64> {
        let bounds = self.numbers(path);
        bounds[0]..=bounds[1]
    }
}
