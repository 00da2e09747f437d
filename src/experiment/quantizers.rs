//! From checked values to quantizers: one for each side, the input's, and exceptions for some layers.

use super::network::{Table, text, words};
use super::resolve::Resolver;
use super::value::Value;
use crate::graph::{Initial, Override, QuantizerPlan, Sites};
use crate::quantizer::{
    Bounds, Family, Learn, Parametrization, Quantizer, Rules, dynamic, largest_level,
};

/// Bits of the network's input where everything is quantized and the file does not say.
const INPUT_BITS: f64 = 8.0;

fn learn(word: &str) -> Learn {
    match word {
        "both" => Learn::Both,
        "range" => Learn::Range,
        _ => Learn::None,
    }
}

/// Who asks for a quantizer: where errors point to, and what they call its keys.
#[derive(Clone, Copy)]
enum Asker<'a> {
    /// `[weights]` or `[activations]`.
    Side(&'a str),
    /// A table of `[[layers]]`, for a side.
    Exception(&'a str),
}

impl Asker<'_> {
    fn path(self, name: &str) -> String {
        match self {
            Self::Side(side) => format!("{side}.{name}"),
            Self::Exception(_) => "layers".into(),
        }
    }

    fn key(self, name: &str) -> String {
        match self {
            Self::Side(side) => format!("`{side}.{name}`"),
            Self::Exception(side) => format!("`{name}` of `[[layers]]` for {side}"),
        }
    }
}

impl Resolver<'_> {
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

    /// Quantizers of weights and of activations, and the exceptions from them.
    pub(super) fn quantizers(
        &mut self,
        rules: Rules,
    ) -> ([Option<QuantizerPlan>; 2], Vec<Override>) {
        let sides = [("weights", true), ("activations", false)];
        let asked = sides.map(|(side, signed)| self.asked(side, signed, rules));
        let settled = [0, 1].map(|i| {
            let plan = asked[i].clone()?;
            Some(self.settled(plan, Asker::Side(sides[i].0)))
        });
        let overrides = self.overrides(&asked[0], &asked[1]);
        (settled, overrides)
    }

    /// Exceptions for some layers; `weights` and `activations` are what the sides ask for.
    fn overrides(
        &mut self,
        weights: &Option<QuantizerPlan>,
        activations: &Option<QuantizerPlan>,
    ) -> Vec<Override> {
        let tables = self.tables("layers");
        tables
            .iter()
            .map(|table| {
                let side = text(table, "side").unwrap_or("both");
                let mut of = |name: &str, asked: &Option<QuantizerPlan>| {
                    ([name, "both"].contains(&side)).then(|| self.exception(table, name, asked))
                };
                Override {
                    matches: words(table, "match"),
                    weights: of("weights", weights),
                    activations: of("activations", activations),
                }
            })
            .collect()
    }

    /// What a table asks for on one side: the side's own plan as it was asked for, with what the table
    /// changes, settled.
    fn exception(
        &mut self,
        table: &Table,
        side: &str,
        asked: &Option<QuantizerPlan>,
    ) -> Option<QuantizerPlan> {
        let mut plan = asked.clone()?;
        let quantizer = &mut plan.quantizer;
        if let Some(name) = text(table, "quantizer") {
            quantizer.parametrization = Parametrization::from_name(name)?;
            plan.initial = Initial::Data;
        }
        if let Some(word) = text(table, "learn") {
            quantizer.learn = learn(word);
        }
        let bounds = &mut quantizer.bounds;
        for (name, bound) in [
            ("bits_bounds", &mut bounds.b),
            ("d_bounds", &mut bounds.d),
            ("q_min_bounds", &mut bounds.q_min),
            ("q_max_bounds", &mut bounds.q_max),
        ] {
            if let Some(Value::Numbers(v)) = table.get(name) {
                *bound = v[0]..=v[1];
            }
        }
        if let Some(Value::Numbers(list)) = table.get("allowed_bits") {
            quantizer.allowed_bits.clone_from(list);
        }
        if let Some(Value::Number(bits)) = table.get("bits") {
            plan.bits = *bits;
            plan.initial = Initial::Data;
        }
        Some(self.settled(plan, Asker::Exception(side)))
    }

    /// What one side asks for, key by key.
    fn asked(&mut self, side: &str, signed: bool, rules: Rules) -> Option<QuantizerPlan> {
        let at = |name: &str| format!("{side}.{name}");
        let parametrization = Parametrization::from_name(self.word(&at("quantizer")))?;
        let bits = self.number(&at("bits"));
        let quantizer = Quantizer {
            parametrization,
            signed,
            rules,
            learn: learn(self.word(&at("learn"))),
            bounds: Bounds {
                d: self.range(&at("d_bounds")),
                q_max: self.range(&at("q_max_bounds")),
                q_min: self.range(&at("q_min_bounds")),
                b: self.range(&at("bits_bounds")),
            },
            allowed_bits: match self.values.get(&at("allowed_bits")) {
                Some(Value::Numbers(list)) => list.clone(),
                _ => Vec::new(),
            },
        };
        let initial = match self.word(&at("init")) {
            "data" => Initial::Data,
            _ => Initial::Fixed(self.fixed(side, &quantizer, bits)),
        };
        Some(QuantizerPlan {
            quantizer,
            initial,
            bits,
        })
    }

    /// A plan whose bounds hold whole bitwidths alone, those that the hardware has, if they are listed.
    /// What has nothing in common, or begins outside its bounds, is an error.
    fn settled(&mut self, mut plan: QuantizerPlan, asker: Asker<'_>) -> QuantizerPlan {
        let quantizer = &mut plan.quantizer;
        if quantizer.learn == Learn::Range && !quantizer.parametrization.has_bitwidth_parameter() {
            self.error(
                &asker.path("learn"),
                format!(
                    "\"range\" fixes the bitwidth, which {} infers",
                    quantizer.parametrization
                ),
                "\"both\" or \"none\", or a quantizer with b as a parameter (u1, u2, p1, p2)",
            );
        }
        let (least, kind) = match quantizer.signed {
            true => (2.0, "signed weights"),
            false => (1.0, "activations"),
        };
        let asked = quantizer.bounds.b.clone();
        if *asked.start() < least {
            self.error(
                &asker.path("bits_bounds"),
                format!("a bitwidth of {} for {kind}", asked.start()),
                &format!("at least {least} bits (sign and one level)"),
            );
            return plan;
        }
        let (low, high) = (asked.start().ceil(), asked.end().floor());
        if low > high {
            self.error(
                &asker.path("bits_bounds"),
                format!("bitwidths from {} to {}", asked.start(), asked.end()),
                "bounds with a whole number between them",
            );
            return plan;
        }
        quantizer.bounds.b = low..=high;
        let listed = std::mem::take(&mut quantizer.allowed_bits);
        let inside = listed.iter().copied().filter(|b| (low..=high).contains(b));
        quantizer.allowed_bits = inside.collect();
        match (
            quantizer.allowed_bits.first(),
            quantizer.allowed_bits.last(),
        ) {
            (Some(first), Some(last)) if listed.iter().all(|b| b.fract() == 0.0) => {
                quantizer.bounds.b = *first..=*last;
            }
            _ if listed.is_empty() => {}
            _ => {
                self.error(
                    &asker.path("allowed_bits"),
                    format!("bitwidths {listed:?}"),
                    &format!(
                        "whole bitwidths, some of them within {}, {low} to {high}",
                        asker.key("bits_bounds")
                    ),
                );
                return plan;
            }
        }
        self.within_bounds(&plan, kind, asker);
        plan
    }

    /// Whether a plan begins within its bounds, and whether those of step and range leave any bitwidth.
    fn within_bounds(&mut self, plan: &QuantizerPlan, kind: &str, asker: Asker<'_>) {
        let (quantizer, bits) = (&plan.quantizer, plan.bits);
        let (low, high) = (quantizer.bounds.b.start(), quantizer.bounds.b.end());
        if !quantizer.bounds.b.contains(&bits) {
            let mut bounding = asker.key("bits_bounds");
            if !quantizer.allowed_bits.is_empty() {
                bounding += &format!(" and {}", asker.key("allowed_bits"));
            }
            // (Where the bitwidth is a default, what leaves it out is at fault.)
            let keys = ["bits", "bits_bounds", "allowed_bits"].map(|name| asker.path(name));
            let at = keys.iter().find(|k| self.is_written(k)).unwrap_or(&keys[0]);
            self.error(
                at,
                format!("a bitwidth of {bits} for {kind}"),
                &format!("within {bounding}, {low} to {high}"),
            );
        }
        if quantizer.rules == Rules::PublishedCode {
            return;
        }
        let names = quantizer.parametrization.parameter_names();
        if let Some([least, most]) = quantizer.clamped_bits()
            && (least > *high || *low > most)
        {
            self.error(
                &asker.path("bits_bounds"),
                format!(
                    "bitwidths of {low} to {high}, where `{}_bounds` and `q_max_bounds` leave {least} to {most}",
                    names[0]
                ),
                "bounds that have a bitwidth in common",
            );
        }
        // What is learned comes within its bounds at the first step.
        if let Initial::Fixed(parameters) = plan.initial
            && !quantizer.is_learned(0)
        {
            let grid = quantizer.grid(parameters);
            if !quantizer.bounds.b.contains(&grid.bits) {
                self.error(
                    &asker.path(names[0]),
                    format!(
                        "{} {} and q_max {} take {} bits, and are not learned",
                        names[0], parameters[0], parameters[1], grid.bits
                    ),
                    &format!("{low} to {high} bits, by {}", asker.key("bits_bounds")),
                );
            }
        }
    }

    /// Fixed initial parameters; what the file leaves out follows from `bits`.
    fn fixed(&mut self, side: &str, quantizer: &Quantizer, bits: f64) -> [f64; 2] {
        let at = |name: &str| format!("{side}.{name}");
        let (signed, ratio) = (quantizer.signed, dynamic(bits));
        let d = self.number(&at("d"));
        let q_min = self.optional(&at("q_min"));
        let given = self.optional(&at("q_max"));
        let (q_min, q_max) = match quantizer.parametrization.family() {
            Family::Uniform => (0.0, given.unwrap_or(largest_level(signed, bits) * d)),
            Family::PowerOfTwo => match (q_min, given) {
                (Some(q_min), Some(q_max)) => (q_min, q_max),
                (Some(q_min), None) => (q_min, q_min * ratio),
                (None, q_max) => (q_max.unwrap_or(1.0) / ratio, q_max.unwrap_or(1.0)),
            },
        };
        let parametrization = quantizer.parametrization;
        if parametrization == Parametrization::U3 && q_max < d {
            let key = if given.is_some() {
                at("q_max")
            } else {
                at("d")
            };
            self.error(
                &key,
                format!("q_max {q_max} is smaller than d {d}"),
                "q_max >= d",
            );
        }
        if parametrization == Parametrization::P3 && q_min > q_max {
            self.error(
                &at("q_min"),
                format!("q_min {q_min} is larger than q_max {q_max}"),
                "q_min <= q_max",
            );
        }
        let parameters = match parametrization {
            Parametrization::U1 => [bits, d],
            Parametrization::U2 | Parametrization::P2 => [bits, q_max],
            Parametrization::U3 => [d, q_max],
            Parametrization::P1 => [bits, q_min],
            Parametrization::P3 => [q_min, q_max],
        };
        for (name, value) in parametrization
            .parameter_names()
            .into_iter()
            .zip(parameters)
        {
            let bound = quantizer.bounds.of(name);
            if name != "b" && !bound.contains(&value) {
                let expected = format!(
                    "within `{side}.{name}_bounds`, {} to {}",
                    bound.start(),
                    bound.end()
                );
                self.error(&at(name), format!("initial {name} {value}"), &expected);
            }
        }
        parameters
    }
}

#[cfg(test)]
mod tests {
    use super::super::load_embedded;
    use super::*;

    /// The quantizers of weights, of the side and of the first exception, or what is wrong.
    fn quantizers(text: &str) -> Result<[Option<Quantizer>; 2], String> {
        let loaded = load_embedded("e.toml", text, &Vec::new()).map_err(|e| e.to_string())?;
        let experiment = &loaded.experiment;
        let side = experiment.weights.clone().map(|plan| plan.quantizer);
        let first = experiment.overrides.first();
        let exception = first.and_then(|o| o.weights.clone()).flatten();
        Ok([side, exception.map(|plan| plan.quantizer)])
    }

    #[test]
    fn bounds_hold_the_whole_bitwidths_that_the_hardware_has() {
        let of = |text: &str| {
            let [side, exception] = quantizers(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            [side, exception].map(|q| q.map(|q| (q.bounds.b, q.allowed_bits)))
        };
        let listed = |bits: &[f64]| Some((bits[0]..=bits[bits.len() - 1], bits.to_vec()));
        let u3 = "[weights]\nquantizer = \"u3\"\n";
        // An exception brings its own list, of what the side declares.
        let first = "[[layers]]\nmatch = \"first\"\nside = \"weights\"\n";
        let text = format!("{u3}allowed_bits = [2, 4]\n{first}allowed_bits = [8]\nbits = 8\n");
        assert_eq!(of(&text), [listed(&[2.0, 4.0]), listed(&[8.0])]);
        let text = format!("{u3}allowed_bits = [2, 4]\n{first}allowed_bits = [2, 8]\n");
        assert_eq!(of(&text)[1], listed(&[2.0, 8.0]));
        // What lies outside the bounds is not among them.
        let text = format!("{u3}bits_bounds = [3, 7]\nallowed_bits = [2, 4, 8]\n");
        assert_eq!(of(&text)[0], listed(&[4.0]));
        let text = "[weights]\nquantizer = \"u1\"\nbits_bounds = [2.3, 7.9]\n";
        assert_eq!(of(text)[0], Some((3.0..=7.0, Vec::new())));
    }

    #[test]
    fn what_has_no_bitwidth_in_common_is_an_error() {
        for (text, expected) in [
            (
                "quantizer = \"u1\"\nbits_bounds = [3, 5]\nallowed_bits = [2, 8]",
                "whole bitwidths, some of them within `weights.bits_bounds`, 3 to 5",
            ),
            (
                "quantizer = \"u3\"\nbits = 4.5\nbits_bounds = [4.2, 4.8]",
                "bounds with a whole number between them",
            ),
            (
                "quantizer = \"u3\"\nallowed_bits = [2]",
                "within `weights.bits_bounds` and `weights.allowed_bits`, 2 to 2",
            ),
            (
                "quantizer = \"u3\"\ninit = \"fixed\"\nd = 0.125\nq_max = 16\nlearn = \"none\"\n\
                 bits_bounds = [2, 4]",
                "d 0.125 and q_max 16 take 9 bits, and are not learned",
            ),
        ] {
            let error = quantizers(&format!("[weights]\n{text}\n")).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_budget_may_be_for_exceptions_alone() {
        let text = "[weights]\nquantizer = \"u3\"\nlearn = \"none\"\n[budget]\nweights_kb = 10\n";
        assert!(quantizers(text).is_err());
        let exception = "[[layers]]\nmatch = \"*\"\nside = \"weights\"\nlearn = \"both\"\n";
        assert!(quantizers(&format!("{text}{exception}")).is_ok());
    }
}
