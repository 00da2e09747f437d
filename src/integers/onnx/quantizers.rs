//! Quantizers as nodes: arithmetic of standard operations, or `Quant`.

use super::model::Attribute;
use super::{Dialect, Rounding, Writer};
use crate::integers::ExportError;
use crate::quantizer::{Family, Grid};

impl Writer<'_> {
    /// A learned tensor as the forward pass sees it.
    pub(super) fn parameter(&mut self, parameter: usize) -> Result<String, ExportError> {
        let network = self.network;
        let of = &network.graph.parameters[parameter];
        let name = of.name.as_str();
        let used = network.used(parameter);
        let Some(grid) = network.grid(network.placement.of_parameter[parameter]) else {
            return Ok(self.model.floats(name, &of.shape, &used));
        };
        let written = format!("{name}/quantized");
        if let Dialect::Qonnx(_) = self.dialect {
            let values = self.model.floats(name, &of.shape, &used);
            return self.quant(name, &values, &grid, &written);
        }
        let m = &mut self.model;
        if grid.family == Family::Uniform {
            let codes: Vec<i32> = used.iter().map(|v| (v / grid.step) as i32).collect();
            let bits = (grid.top / grid.step).log2().floor() as u32 + 1 + u32::from(grid.signed);
            // (onnx's own evaluator knows DequantizeLinear from there on.)
            m.needs(19);
            let codes = m.integers(name, &of.shape, bits, &codes);
            let scale = m.scalar(grid.step);
            return Ok(m.node("DequantizeLinear", &[&codes, &scale], &written));
        }
        // Powers of two: a place in the table of levels.
        let levels = grid.levels(1 << 16).ok_or_else(|| {
            ExportError::Unsupported(format!(
                "{name}: {} levels; expected at most 65536",
                grid.level_count()
            ))
        })?;
        let place = |v: &f32| levels.partition_point(|level| level < v);
        let places: Vec<usize> = used.iter().map(place).collect();
        let table = m.floats(&format!("{name}/levels"), &[levels.len()], &levels);
        let places = m.places(name, &of.shape, levels.len() - 1, &places);
        let to_int = vec![("to", Attribute::Int(6))];
        let places = m.node_with("Cast", &[&places], &format!("{name}/places"), to_int);
        Ok(m.node("Gather", &[&table, &places], &written))
    }

    /// A value's quantizer.
    pub(super) fn quantizer(
        &mut self,
        name: &str,
        x: &str,
        grid: &Grid,
    ) -> Result<String, ExportError> {
        let out = format!("{name}/level");
        match (self.dialect, grid.family) {
            (Dialect::Qonnx(_), _) => {
                let clipped = self.clip_to_top(name, x, grid);
                self.quant(name, &clipped, grid, &out)
            }
            (Dialect::Standard, Family::Uniform) => Ok(self.uniform(name, x, grid, &out)),
            (Dialect::Standard, Family::PowerOfTwo) => Ok(self.power_of_two(name, x, grid, &out)),
        }
    }

    /// `Quant` clips at `2^b - 1` levels: a range that ends below that is clipped before.
    fn clip_to_top(&mut self, name: &str, x: &str, grid: &Grid) -> String {
        let levels = grid.top / grid.step;
        let bits = grid.bits as i32 - i32::from(grid.signed);
        if levels == (1u64 << bits) as f32 - 1.0 {
            return x.to_owned();
        }
        self.clip(&format!("{name}/clipped"), x, grid.low(), grid.q_max)
    }

    fn quant(
        &mut self,
        name: &str,
        x: &str,
        grid: &Grid,
        out: &str,
    ) -> Result<String, ExportError> {
        if grid.family == Family::PowerOfTwo {
            return Err(ExportError::Unsupported(format!(
                "{name}: `Quant` has no power-of-two levels; hint: `--format onnx` writes them in \
                 standard operations, and U1 to U3 can be written as QONNX"
            )));
        }
        let m = &mut self.model;
        let scale = m.scalar(grid.step);
        let zero = m.scalar(0.0);
        let bits = m.scalar(grid.bits as f32);
        let mode = match self.dialect {
            Dialect::Qonnx(Rounding::HalfEven) => "ROUND",
            _ => "HALF_UP",
        };
        let attributes = vec![
            ("signed", Attribute::Int(grid.signed.into())),
            ("narrow", Attribute::Int(grid.signed.into())),
            ("rounding_mode", Attribute::Text(mode)),
        ];
        Ok(m.node_with("Quant", &[x, &scale, &zero, &bits], out, attributes))
    }

    fn uniform(&mut self, name: &str, x: &str, grid: &Grid, out: &str) -> String {
        let clipped = self.clip(&format!("{name}/clipped"), x, grid.low(), grid.q_max);
        let m = &mut self.model;
        let [twice, one, half, step] = [2.0 / grid.step, 1.0, 0.5, grid.step].map(|v| m.scalar(v));
        let at = |entry: &str| format!("{name}/{entry}");
        let magnitude = if grid.signed {
            m.node("Abs", &[&clipped], &at("magnitude"))
        } else {
            clipped.clone()
        };
        let y = m.node("Mul", &[&magnitude, &twice], &at("halves"));
        let y = m.node("Floor", &[&y], &at("whole_halves"));
        let y = m.node("Add", &[&y, &one], &at("halves_up"));
        let y = m.node("Mul", &[&y, &half], &at("steps"));
        let y = m.node("Floor", &[&y], &at("code"));
        if !grid.signed {
            return m.node("Mul", &[&y, &step], out);
        }
        let y = m.node("Mul", &[&y, &step], &at("rounded"));
        let sign = m.node("Sign", &[&clipped], &at("sign"));
        m.node("Mul", &[&y, &sign], out)
    }

    /// A chain of comparisons: an octave begins above `sqrt(2)` times the one below.
    fn power_of_two(&mut self, name: &str, x: &str, grid: &Grid, out: &str) -> String {
        let m = &mut self.model;
        let at = |entry: &str| format!("{name}/{entry}");
        let magnitude = if grid.signed {
            m.node("Abs", &[x], &at("magnitude"))
        } else {
            x.to_owned()
        };
        let octaves = (grid.top / grid.step).log2().round() as i32;
        let first = m.scalar(grid.step);
        let mut y = if grid.signed {
            first
        } else {
            let threshold = m.scalar(grid.zero_threshold());
            let kept = m.node("GreaterOrEqual", &[x, &threshold], &at("kept"));
            let zero = m.scalar(0.0);
            m.node("Where", &[&kept, &first, &zero], &at("octave0"))
        };
        for k in 1..=octaves {
            let below = grid.step * ((k - 1) as f32).exp2();
            let threshold = m.scalar(below * std::f32::consts::SQRT_2);
            let level = m.scalar(below * 2.0);
            let above = m.node(
                "Greater",
                &[&magnitude, &threshold],
                &at(&format!("above{k}")),
            );
            let name = if k == octaves && !grid.signed {
                out.to_owned()
            } else {
                at(&format!("octave{k}"))
            };
            y = m.node("Where", &[&above, &level, &y], &name);
        }
        if !grid.signed {
            return if y == out {
                y
            } else {
                m.node("Identity", &[&y], out)
            };
        }
        let [zero, minus, plus] = [0.0, -1.0, 1.0].map(|v| m.scalar(v));
        let negative = m.node("Less", &[x, &zero], &at("negative"));
        let sign = m.node("Where", &[&negative, &minus, &plus], &at("sign"));
        m.node("Mul", &[&y, &sign], out)
    }
}
