//! From checked values to the network and its exceptions.

use std::collections::BTreeMap;

use super::resolve::{Resolver, contradiction};
use super::value::Value;
use crate::graph::{
    Architecture, Initial, LayerSpec, Model, NormChoice, Override, QuantizerPlan, Shortcut, Sites,
};
use crate::quantizer::{Bounds, Learn, Parametrization, Quantizer, Rules};

/// Bits of the network's input where everything is quantized and the file does not say.
const INPUT_BITS: f64 = 8.0;

/// Fields of one table.
type Table = BTreeMap<String, Value>;

fn text<'a>(table: &'a Table, name: &str) -> Option<&'a str> {
    match table.get(name) {
        Some(Value::Text(text)) => Some(text),
        _ => None,
    }
}

fn words(table: &Table, name: &str) -> Vec<String> {
    match table.get(name) {
        Some(Value::Words(words)) => words.clone(),
        _ => Vec::new(),
    }
}

fn whole(table: &Table, name: &str) -> Option<usize> {
    match table.get(name) {
        Some(Value::Whole(v)) => usize::try_from(*v).ok(),
        _ => None,
    }
}

fn layer(table: &Table) -> LayerSpec {
    let size = |name: &str| whole(table, name);
    LayerSpec {
        kind: text(table, "kind").unwrap_or_default().to_owned(),
        name: text(table, "name").map(str::to_owned),
        from: words(table, "from"),
        channels: size("channels"),
        kernel: size("kernel"),
        stride: size("stride"),
        padding: size("padding"),
        dilation: size("dilation"),
        groups: size("groups"),
        bias: match table.get("bias") {
            Some(Value::Flag(v)) => Some(*v),
            _ => None,
        },
        repeat: size("repeat"),
    }
}

fn learn(word: &str) -> Learn {
    match word {
        "both" => Learn::Both,
        "range" => Learn::Range,
        _ => Learn::None,
    }
}

impl Resolver<'_> {
    pub(super) fn model(&mut self) -> Architecture {
        let shortcut = match self.word("model.shortcut") {
            "a" => Shortcut::A,
            "b" => Shortcut::B,
            _ => Shortcut::C,
        };
        let layers = self.tables("model.layers");
        let file = self.path("model.file");
        if !layers.is_empty() && file.is_some() {
            self.error(
                "model.layers",
                "both `model.file` and `model.layers`".into(),
                "one of the two",
            );
        }
        if !layers.is_empty() {
            return Architecture::Written(layers.iter().map(layer).collect());
        }
        if let Some(path) = file {
            let named = |path: &str| match self.values.get(path) {
                Some(Value::Text(name)) => Some(name.clone()),
                _ => None,
            };
            return Architecture::File {
                path,
                input: named("model.input"),
                output: named("model.output"),
                norm: match self.word("model.norm") {
                    "fresh" => NormChoice::Fresh,
                    _ => NormChoice::Keep,
                },
                replace_head: self.word("init.head") == "replace",
            };
        }
        let model = Model::from_name(
            self.word("model.name"),
            shortcut,
            self.number("model.width"),
        );
        Architecture::BuiltIn(model.expect("the schema lists only names that exist"))
    }

    fn tables(&self, path: &str) -> Vec<Table> {
        match self.values.get(path) {
            Some(Value::Tables(tables)) => tables.clone(),
            _ => Vec::new(),
        }
    }

    /// The input's quantizer: uniform, signed, and fixed, over [-1, 1] in steps of a power of two.
    pub(super) fn input(&mut self, sites: Sites, rules: Rules) -> Option<QuantizerPlan> {
        let otherwise = match sites {
            Sites::Everywhere => INPUT_BITS,
            Sites::Nonlinearities => 0.0,
        };
        let bits = self.optional("input.bits").unwrap_or(otherwise);
        if bits == 0.0 {
            return None;
        }
        if bits < 2.0 || bits.fract() != 0.0 {
            self.error(
                "input.bits",
                format!("{bits} bits"),
                "0, or a whole number from 2 to 16",
            );
            return None;
        }
        let quantizer = Quantizer {
            parametrization: Parametrization::U1,
            signed: true,
            rules,
            learn: Learn::None,
            bounds: Bounds {
                b: bits..=bits,
                ..Bounds::weights()
            },
            allowed_bits: Vec::new(),
        };
        Some(QuantizerPlan {
            quantizer,
            initial: Initial::Data,
            bits,
        })
    }

    pub(super) fn overrides(
        &mut self,
        weights: &Option<QuantizerPlan>,
        activations: &Option<QuantizerPlan>,
    ) -> Vec<Override> {
        let tables = self.tables("layers");
        tables
            .iter()
            .map(|table| {
                let side = text(table, "side").unwrap_or("both");
                let mut of = |name: &str, base: &Option<QuantizerPlan>| {
                    ([name, "both"].contains(&side)).then(|| self.exception(table, name, base))
                };
                Override {
                    matches: words(table, "match"),
                    weights: of("weights", weights),
                    activations: of("activations", activations),
                }
            })
            .collect()
    }

    /// One side's plan with what a table changes.
    fn exception(
        &mut self,
        table: &Table,
        side: &str,
        base: &Option<QuantizerPlan>,
    ) -> Option<QuantizerPlan> {
        let mut plan = base.clone()?;
        let quantizer = &mut plan.quantizer;
        if let Some(name) = text(table, "quantizer") {
            quantizer.parametrization = Parametrization::from_name(name)?;
            plan.initial = Initial::Data;
        }
        if let Some(word) = text(table, "learn") {
            quantizer.learn = learn(word);
        }
        if quantizer.learn == Learn::Range && !quantizer.parametrization.has_bitwidth_parameter() {
            let found = format!(
                "`learn` of `[[layers]]` is \"range\" for {side}, which fixes the bitwidth that {} infers",
                quantizer.parametrization
            );
            self.error(
                "layers",
                found,
                "\"both\" or \"none\", or a quantizer with b as a parameter (u1, u2, p1, p2)",
            );
        }
        let range = |name: &str| match table.get(name) {
            Some(Value::Numbers(v)) => Some(v[0]..=v[1]),
            _ => None,
        };
        let bounds = &mut quantizer.bounds;
        for (name, bound) in [
            ("bits_bounds", &mut bounds.b),
            ("d_bounds", &mut bounds.d),
            ("q_min_bounds", &mut bounds.q_min),
            ("q_max_bounds", &mut bounds.q_max),
        ] {
            if let Some(range) = range(name) {
                *bound = range;
            }
        }
        if let Some(Value::Number(bits)) = table.get("bits") {
            plan.bits = *bits;
            plan.initial = Initial::Data;
        }
        if let Some(Value::Numbers(list)) = table.get("allowed_bits") {
            plan.quantizer.allowed_bits.clone_from(list);
        }
        let allowed = plan.quantizer.allowed_bits.clone();
        let bounds = plan.quantizer.bounds.clone();
        plan.quantizer.bounds = self.within("layers", bounds, &allowed);
        if let Some((found, expected)) = contradiction(&plan.quantizer) {
            self.error(
                "layers",
                format!("`[[layers]]` for {side}: {found}"),
                &expected,
            );
        }
        let least = if plan.quantizer.signed { 2.0 } else { 1.0 };
        let bounds = plan.quantizer.bounds.b.clone();
        if *bounds.start() < least {
            let found = format!(
                "`bits_bounds` of `[[layers]]` begin at {} for {side}",
                bounds.start()
            );
            self.error("layers", found, &format!("at least {least} bits"));
        } else if !bounds.contains(&plan.bits) {
            let found = format!("`bits` of `[[layers]]` are {} for {side}", plan.bits);
            let expected = format!("within the bounds, {} to {}", bounds.start(), bounds.end());
            self.error("layers", found, &expected);
        }
        Some(plan)
    }
}
