//! `bitscope check`: an experiment's network, layer by layer, its memory and its budgets.

use std::path::Path;

use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr;

use crate::experiment::{BudgetMethod, Experiment, Overrides, padded};
use crate::face::{CliError, outlined, print};
use crate::quantizer::memory::{FLOAT_BITS, Role, kilobytes};
use crate::training::Outline;

/// What `check` is asked for.
pub(crate) struct Check<'a> {
    /// The experiment file.
    pub path: Option<&'a Path>,
    /// Settings over it.
    pub set: &'a Overrides,
    /// One JSON object.
    pub json: bool,
    /// Missing data, and weights to start from, are an error.
    pub data: bool,
}

/// Runs it.
pub(crate) fn command(check: &Check<'_>) -> Result<u8, CliError> {
    let (loaded, outline) = outlined(check.path, check.set)?;
    let experiment = &loaded.experiment;
    if check.data {
        let missing = outline.missing.as_ref().map(ToString::to_string);
        if let Some(missing) = missing.or(outline.missing_start.clone()) {
            return Err(CliError::Usage(missing));
        }
    }
    if check.json {
        print(&format!("{}\n", as_json(experiment, &outline)))?;
    } else {
        print(&as_text(experiment, &outline))?;
    }
    Ok(0)
}

/// `bitscope data check`: every picture decoded; what cannot be is listed, and the exit code is 1.
pub(crate) fn data(path: &Path, set: &Overrides) -> Result<u8, CliError> {
    let loaded = crate::experiment::load(path, set)?;
    let experiment = &loaded.experiment;
    let failed = |e: crate::dataset::DataError| CliError::Failed(e.to_string());
    let Some(report) = crate::dataset::check_pictures(experiment).map_err(failed)? else {
        let splits = crate::dataset::open(experiment).map_err(failed)?;
        let mut out = splits.described();
        out.push('\n');
        for note in &splits.notes {
            out += &format!("{note}\n");
        }
        print(&out)?;
        return Ok(0);
    };
    let [train, test] = report.pictures;
    let mut out = format!(
        "{train} training and {test} test pictures, {} classes, {} entries skipped\n",
        report.classes.len(),
        report.skipped
    );
    for note in &report.notes {
        out += &format!("{note}\n");
    }
    for picture in &report.unreadable {
        out += &format!("{picture}\n");
    }
    print(&out)?;
    Ok(u8::from(!report.unreadable.is_empty()))
}

/// What is to be said beside the numbers.
fn warnings(outline: &Outline) -> Vec<String> {
    let missing = outline.missing.iter().map(|error| {
        let [c, h, w] = outline.data.picture;
        format!(
            "{error}; pictures of {c}x{h}x{w} and {} classes are assumed, as the experiment declares",
            outline.data.classes
        )
    });
    missing
        .chain(outline.missing_start.clone())
        .chain(outline.notes.iter().cloned())
        .collect()
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Weight => "weight",
        Role::Bias => "bias",
        Role::Activation => "activation",
    }
}

fn as_json(experiment: &Experiment, outline: &Outline) -> Value {
    let layers: Vec<Value> = outline
        .layers()
        .map(|(stored, bits)| {
            json!({
                "name": stored.name,
                "kind": stored.kind.word(),
                "role": role(stored.role),
                "elements": stored.elements,
                "bits": bits,
                "kb": kilobytes(stored.elements, bits),
            })
        })
        .collect();
    let (now, float, least) = (outline.initial(), outline.float(), outline.least());
    let total = |kb: f64, float_kb: f64| json!({ "kb": kb, "float_kb": float_kb });
    let peak = outline.account.peak(|q| outline.initial_bits(q));
    let [c, h, w] = outline.data.picture;
    json!({
        "name": experiment.name,
        "input": [c, h, w],
        "classes": outline.data.classes,
        "layers": layers,
        "totals": {
            "weights": total(now.weights, float.weights),
            "activations_sum": total(now.activation_sum, float.activation_sum),
            "activations_max": total(now.activation_max, float.activation_max),
            "peak_alive": total(peak, outline.account.peak(|_| FLOAT_BITS)),
        },
        "gbops": now.gbops,
        "least": {
            "weights": least.weights,
            "activations_sum": least.activation_sum,
            "activations_max": least.activation_max,
            "gbops": least.gbops,
        },
        "warnings": warnings(outline),
    })
}

fn as_text(experiment: &Experiment, outline: &Outline) -> String {
    let mut out = format!(
        "{}: valid\n",
        crate::experiment::printable(&experiment.name)
    );
    for warning in warnings(outline) {
        out += &format!("warning: {warning}\n");
    }
    let quantized: Vec<_> = outline
        .layers()
        .filter(|(s, _)| s.quantizer.is_some())
        .collect();
    if !quantized.is_empty() {
        let longest = quantized.iter().map(|(s, _)| s.name.width()).max();
        let width = longest.unwrap_or(0).max(20);
        out += &format!(
            "\n{:<width$} {:<13} {:<10} {:>9} {:>5} {:>9}\n",
            "quantizer", "kind", "of", "elements", "bits", "kB"
        );
        for (stored, bits) in quantized {
            let (name, elements) = (padded(&stored.name, width), stored.elements);
            let kb = kilobytes(elements, bits);
            let (kind, of) = (stored.kind.word(), role(stored.role));
            out += &format!("{name} {kind:<13} {of:<10} {elements:>9} {bits:>5} {kb:>9.2}\n");
        }
    }
    let (now, float, least) = (outline.initial(), outline.float(), outline.least());
    out += &format!(
        "\n{:<24} {:>12} {:>12} {:>12}\n",
        "", "initial", "minimum", "32 bits"
    );
    for (what, now, least, float) in [
        ("weights, kB", now.weights, least.weights, float.weights),
        (
            "activations, sum, kB",
            now.activation_sum,
            least.activation_sum,
            float.activation_sum,
        ),
        (
            "activations, max, kB",
            now.activation_max,
            least.activation_max,
            float.activation_max,
        ),
        ("bit operations, 10^9", now.gbops, least.gbops, float.gbops),
    ] {
        // A budget of what stands there is in reach; where no bit can go, it is what it is.
        let least = match least < now {
            true => (least * 100.0 - 1e-6).ceil() / 100.0,
            false => least,
        };
        out += &format!("{what:<24} {now:>12.2} {least:>12.2} {float:>12.2}\n");
    }
    let peak = outline.account.peak(|q| outline.initial_bits(q));
    let float_peak = outline.account.peak(|_| FLOAT_BITS);
    out += &format!(
        "{:<24} {peak:>12.2} {:>12} {float_peak:>12.2}\n",
        "peak of live values, kB", ""
    );
    for limit in &experiment.budgets.limits {
        let (resource, lambda) = (limit.resource, limit.lambda);
        out += &format!(
            "budget: {} <= {} {}, by {}\n",
            resource.label(),
            limit.amount,
            resource.unit(),
            match experiment.budgets.method {
                BudgetMethod::Projection => "projection".to_owned(),
                BudgetMethod::Penalty => format!("a penalty, lambda {lambda}"),
                BudgetMethod::Lagrangian => format!("an augmented Lagrangian, lambda {lambda}"),
                BudgetMethod::Controller => format!("a controller, lambda {lambda} at first"),
            }
        );
    }
    out
}
