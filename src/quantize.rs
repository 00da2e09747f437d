//! `bitscope quantize`: quantizers on given numbers, so that any implementation can be held
//! against this one.

use std::io::{Read, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::experiment::printable;
use crate::face::{CliError, print};
use crate::figure::{self, Axis, Figure, Format, Ink, Item, Line, Scale, Scene, Theme};
use crate::quantizer::{Bounds, Grid, Learn, Parametrization, Quantizer, Rules, Sums};

/// One case, read.
#[derive(Debug, Clone)]
struct Case {
    quantizer: Quantizer,
    parameters: [f64; 2],
    /// The case's own names of the two parameters.
    names: [String; 2],
    x: Vec<f32>,
    grad_y: Option<Vec<f32>>,
}

/// Reads `{"cases": [...]}`, fills in `y, grad_x, grad_params, bitwidth, levels`, prints it.
pub(crate) fn command(
    file: Option<&Path>,
    rules: Option<&str>,
    plot: Option<&Path>,
) -> Result<u8, CliError> {
    let name = file.map_or("standard input".into(), |f| f.display().to_string());
    let text = match file {
        // A pipe is welcome here; what never ends is not.
        Some(file) => std::fs::File::open(file).and_then(|mut file| bounded(&mut file)),
        None => bounded(&mut std::io::stdin().lock()),
    };
    let text = text.map_err(|e| CliError::Usage(format!("{name}: {e}")))?;
    let rules = rules.map(rule_set).transpose().map_err(CliError::Usage)?;
    let mut document: Value =
        serde_json::from_str(&text).map_err(|e| CliError::Usage(format!("{name}: {e}")))?;
    let cases = document
        .get_mut("cases")
        .and_then(Value::as_array_mut)
        .ok_or_else(|| {
            CliError::Usage(format!("{name}: expected an object with `cases`, a list"))
        })?;
    if cases.is_empty() && plot.is_some() {
        return Err(CliError::Usage(format!(
            "{name}: no case to plot; expected at least one in `cases`"
        )));
    }
    for (index, value) in cases.iter_mut().enumerate() {
        let wrong = |e: String| CliError::Usage(format!("{name}: case {index}: {e}"));
        let case = read(value, rules).map_err(wrong)?;
        warn_of_misspelt(&name, index, value);
        if let (0, Some(plot)) = (index, plot) {
            let scenes = figure(&case);
            figure::export(&scenes, plot, Theme::Light, Format::pixels(1200, 900), &[])
                .map_err(|e| CliError::Failed(e.to_string()))?;
        }
        if let Value::Object(object) = value {
            fill(object, &case);
        }
    }
    print(&format!("{document}\n"))?;
    Ok(0)
}

/// Bytes of cases at most.
const LARGEST: u64 = 256 << 20;

fn bounded(from: &mut dyn Read) -> std::io::Result<String> {
    let mut text = String::new();
    from.take(LARGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST {
        let limit = format!("more than {LARGEST} bytes of cases");
        return Err(std::io::Error::other(limit));
    }
    Ok(text)
}

fn rule_set(word: &str) -> Result<Rules, String> {
    match word {
        "paper" => Ok(Rules::Paper),
        "published-code" => Ok(Rules::PublishedCode),
        other => Err(format!(
            "rules \"{other}\"; expected \"paper\" or \"published-code\""
        )),
    }
}

/// This project's names and the published code's.
fn parametrization(name: &str) -> Option<Parametrization> {
    Parametrization::from_name(name).or(match name {
        "uniform_d_b" => Some(Parametrization::U1),
        "uniform_b_xmax" => Some(Parametrization::U2),
        "uniform_d_xmax" => Some(Parametrization::U3),
        "pow2_b_xmin" => Some(Parametrization::P1),
        "pow2_b_xmax" => Some(Parametrization::P2),
        "pow2_xmin_xmax" => Some(Parametrization::P3),
        _ => None,
    })
}

fn alias(name: &str) -> &str {
    match name {
        "b" => "n",
        "q_min" => "xmin",
        "q_max" => "xmax",
        other => other,
    }
}

/// What a case may hold: what is read, what is filled in, so that output can be input again, and
/// what golden cases say besides.
const KNOWN: [&str; 14] = [
    "quantizer",
    "params",
    "signed",
    "with_zero",
    "rules",
    "bounds",
    "x",
    "grad_y",
    "y",
    "grad_x",
    "grad_params",
    "bitwidth",
    "levels",
    "nonfinite",
];

/// Warns of keys that are passed over and look like one that is not.
fn warn_of_misspelt(name: &str, index: usize, case: &Value) {
    let keys = case.as_object().into_iter().flat_map(Map::keys);
    for key in keys.filter(|k| !KNOWN.contains(&k.as_str())) {
        let near = |k: &&&str| strsim::damerau_levenshtein(k, key) <= 2;
        if let Some(near) = KNOWN.iter().find(near) {
            let key = printable(key);
            // Standard output is for the answer; where nobody reads the other there is none to warn.
            let _ = writeln!(
                std::io::stderr(),
                "warning: {name}: case {index}: `{key}` is passed over; did you mean `{near}`?"
            );
        }
    }
}

fn read(case: &Value, rules: Option<Rules>) -> Result<Case, String> {
    let name = case
        .get("quantizer")
        .and_then(Value::as_str)
        .ok_or("expected `quantizer`, a name")?;
    let parametrization = parametrization(name).ok_or_else(|| {
        format!(
            "unknown quantizer \"{name}\"; expected u1, u2, u3, p1, p2, p3 or uniform_d_b, \
             uniform_b_xmax, uniform_d_xmax, pow2_b_xmin, pow2_b_xmax, pow2_xmin_xmax"
        )
    })?;
    let signed = case
        .get("signed")
        .and_then(Value::as_bool)
        .ok_or("expected `signed`, a flag")?;
    let own = case
        .get("rules")
        .map(|r| rule_set(r.as_str().unwrap_or_default()))
        .transpose()?;
    // An empty list of bounds says as little as none.
    let bounded = |b: &Value| !b.is_null() && b.as_object().is_none_or(|b| !b.is_empty());
    let has_bounds = case.get("bounds").is_some_and(bounded);
    let default = if has_bounds {
        Rules::PublishedCode
    } else {
        Rules::Paper
    };
    if let Some(zero) = case.get("with_zero").and_then(Value::as_bool)
        && zero == signed
    {
        let expected = if signed {
            "false: signed levels have no zero"
        } else {
            "true: unsigned levels have zero"
        };
        return Err(format!("`with_zero` is {zero}; expected {expected}"));
    }
    let bounds = bounds(case, signed)?;
    let (names, parameters) = parameters(case, parametrization)?;
    if signed && names[0].starts_with(['b', 'n']) && parameters[0].max(*bounds.b.start()) < 1.5 {
        return Err(format!(
            "a bitwidth of {} for signed values; expected at least 2",
            parameters[0]
        ));
    }
    let x = numbers(case, "x")?.ok_or("expected `x`, a list of numbers")?;
    let grad_y = numbers(case, "grad_y")?;
    if let Some(g) = &grad_y
        && g.len() != x.len()
    {
        return Err(format!(
            "`grad_y` has {} numbers; expected {}, as `x`",
            g.len(),
            x.len()
        ));
    }
    let rules = own.or(rules).unwrap_or(default);
    let quantizer = Quantizer {
        parametrization,
        signed,
        rules,
        learn: Learn::Both,
        bounds,
        allowed_bits: Vec::new(),
    };
    Ok(Case {
        quantizer,
        parameters,
        names,
        x,
        grad_y,
    })
}

/// The clamps that a case gives, and the recipe's for what it leaves out.
fn bounds(case: &Value, signed: bool) -> Result<Bounds, String> {
    let mut bounds = if signed {
        Bounds::weights()
    } else {
        Bounds::activations()
    };
    if let Some(given) = case.get("bounds").filter(|b| !b.is_null()) {
        let expected = "expected an object of [low, high] by parameter: b, d, q_min, q_max";
        let given = given
            .as_object()
            .ok_or_else(|| format!("`bounds` is {given}; {expected}"))?;
        let known = |name: &str| {
            ["b", "d", "q_min", "q_max"]
                .into_iter()
                .any(|n| n == name || alias(n) == name)
        };
        if let Some(name) = given.keys().find(|name| !known(name)) {
            return Err(format!("bounds of `{name}`; {expected}"));
        }
    }
    for name in ["b", "d", "q_min", "q_max"] {
        let given = case
            .get("bounds")
            .and_then(|b| b.get(name).or_else(|| b.get(alias(name))));
        let Some(given) = given else { continue };
        let ends = (
            given.get(0).and_then(Value::as_f64),
            given.get(1).and_then(Value::as_f64),
        );
        let (Some(low), Some(high)) = ends else {
            return Err(format!("bounds of {name}: expected [low, high]"));
        };
        if low > high || low <= 0.0 {
            return Err(format!(
                "bounds of {name}: [{low}, {high}]; expected 0 < low <= high"
            ));
        }
        let range = low..=high;
        match name {
            "b" => bounds.b = range,
            "d" => bounds.d = range,
            "q_min" => bounds.q_min = range,
            _ => bounds.q_max = range,
        }
    }
    Ok(bounds)
}

/// Names as the case has them, and values.
fn parameters(
    case: &Value,
    parametrization: Parametrization,
) -> Result<([String; 2], [f64; 2]), String> {
    let params = case
        .get("params")
        .and_then(Value::as_object)
        .ok_or("expected `params`")?;
    let names = parametrization.parameter_names().map(|n| {
        let found = [n, alias(n)].into_iter().find(|n| params.contains_key(*n));
        found.unwrap_or(n).to_owned()
    });
    let mut parameters = [0.0; 2];
    for (value, name) in parameters.iter_mut().zip(&names) {
        let given = params.get(name).and_then(Value::as_f64);
        *value = given.ok_or_else(|| format!("expected the number `params.{name}`"))?;
        if *value <= 0.0 || !value.is_finite() {
            return Err(format!(
                "`params.{name}` is {value}; expected a positive number"
            ));
        }
    }
    Ok((names, parameters))
}

/// A list of numbers, where the case has one of that name.
fn numbers(case: &Value, key: &str) -> Result<Option<Vec<f32>>, String> {
    let Some(list) = case.get(key) else {
        return Ok(None);
    };
    let list = list
        .as_array()
        .ok_or_else(|| format!("expected `{key}`, a list of numbers"))?;
    let read = |(i, v): (usize, &Value)| {
        v.as_f64()
            .map(|v| v as f32)
            .ok_or_else(|| format!("`{key}[{i}]` is {v}; expected a number"))
    };
    list.iter()
        .enumerate()
        .map(read)
        .collect::<Result<_, _>>()
        .map(Some)
}

fn fill(object: &mut Map<String, Value>, case: &Case) {
    let grid = case.quantizer.grid(case.parameters);
    let y: Vec<f32> = case.x.iter().map(|x| grid.forward(*x)).collect();
    object.insert("y".into(), json!(y));
    if let Some(grad_y) = &case.grad_y {
        let mut sums = Sums::default();
        let pairs = case.x.iter().zip(grad_y);
        let grad_x: Vec<f32> = pairs
            .map(|(x, g)| grid.backward(*x, *g, &mut sums))
            .collect();
        let gradients = case.quantizer.parameter_gradients(case.parameters, sums);
        object.insert("grad_x".into(), json!(grad_x));
        let named = case.names.iter().cloned().zip(gradients.map(Value::from));
        object.insert("grad_params".into(), Value::Object(named.collect()));
    }
    object.insert("bitwidth".into(), json!(grid.bits));
    object.insert("levels".into(), json!(grid.level_count()));
}

/// Q(x) and the gradients of both parameters and of x, over x, as the paper's figure 1.
fn figure(case: &Case) -> Figure {
    let grid = case.quantizer.grid(case.parameters);
    let reach = f64::from(grid.top) * 1.5;
    let low = if grid.signed { -reach } else { -0.3 * reach };
    let xs: Vec<f64> = (0..=1200)
        .map(|i| low + (reach - low) * f64::from(i) / 1200.0)
        .collect();
    let gradient = |x: f64, index: usize| {
        let mut sums = Sums::default();
        grid.backward(x as f32, 1.0, &mut sums);
        case.quantizer.parameter_gradients(case.parameters, sums)[index]
    };
    let names = case.quantizer.parametrization.parameter_names();
    let through =
        |x: f64, grid: &Grid| f64::from(grid.backward(x as f32, 1.0, &mut Sums::default()));
    let name = case.quantizer.parametrization;
    Figure {
        panels: vec![
            curve(
                &format!("Q(x) of {name}, {} bits", grid.bits),
                "Q(x)",
                &xs,
                |x| f64::from(grid.forward(x as f32)),
            ),
            curve("gradient for x", "∂Q/∂x", &xs, |x| through(x, &grid)),
            curve(
                &format!("gradient for {}", names[0]),
                &format!("∂Q/∂{}", names[0]),
                &xs,
                |x| gradient(x, 0),
            ),
            curve(
                &format!("gradient for {}", names[1]),
                &format!("∂Q/∂{}", names[1]),
                &xs,
                |x| gradient(x, 1),
            ),
        ],
        columns: 2,
    }
}

fn curve(title: &str, label: &str, xs: &[f64], f: impl Fn(f64) -> f64) -> Scene {
    let points: Vec<(f64, f64)> = xs.iter().map(|x| (*x, f(*x))).collect();
    let low = points.iter().map(|p| p.1).fold(0.0, f64::min);
    let high = points.iter().map(|p| p.1).fold(f64::MIN_POSITIVE, f64::max);
    let margin = (high - low) * 0.08;
    let axis = |label: &str, range| Axis::new(label, Scale::Linear, range);
    let x = axis("x", (xs[0], xs[xs.len() - 1]));
    let y = axis(label, (low - margin, high + margin));
    let items = vec![Item::Line(Line {
        label: String::new(),
        ink: Ink::Series(0),
        dash: 0,
        segments: vec![points],
        band: Vec::new(),
    })];
    Scene::new(title, x, y, items, "")
}
