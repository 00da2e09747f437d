//! The first page.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use unicode_width::UnicodeWidthStr;

use super::super::app::App;
use super::{bold, grid, plot, severity_style};
use crate::figure::{Name, numerals::number};
use crate::quantizer::memory::Resource;
use crate::run::{History, LayerQuantity, Quantity, Severity, dead};

/// Plots above, a step's figures in one line, every layer's bits below.
pub(super) fn draw(app: &App, area: Rect, buffer: &mut Buffer) {
    let strip = if area.height >= 30 { 9 } else { 7 };
    let [plots, numbers, bits] = Layout::vertical([
        Constraint::Min(8),
        Constraint::Length(1),
        Constraint::Length(strip),
    ])
    .areas(area);
    grid(
        app,
        &[
            (Name::Loss, 0),
            (Name::Error, 0),
            (Name::Memory, 0),
            (Name::Memory, 1),
        ],
        plots,
        buffer,
    );
    figures(app, numbers, buffer);
    // Both kinds side by side: the strip of all bitwidths.
    let layers = &app.shown.history.layers;
    let activations = layers.iter().any(|l| {
        l[LayerQuantity::Bitwidth].newest().is_some()
            && l.info.role == crate::quantizer::memory::Role::Activation
    });
    if activations {
        let [left, right] = Layout::horizontal([Constraint::Fill(1); 2]).areas(bits);
        plot(app, Name::Bitwidth, 0, left, buffer);
        plot(app, Name::Bitwidth, 1, right, buffer);
    } else {
        plot(app, Name::Bitwidth, 0, bits, buffer);
    }
}

/// Names of layers that are dead now, or at the cursor.
fn dead_layers(app: &App) -> Vec<&str> {
    let limits = &app.shown.history.verdicts.thresholds;
    let layers = app.shown.history.layers.iter();
    let dead = layers.filter(|l| {
        app.layer_record(l)
            .is_some_and(|r| dead(&l.info, &r, limits))
    });
    dead.map(|l| l.info.name.as_str()).collect()
}

/// What is used of every resource that has a budget, beside it; else memory of weights and of the
/// largest activation.
pub(super) fn memory(h: &History, at: u64) -> String {
    let used = |resource: Resource| h.used(resource).at(at).map(f64::from);
    let value = |v: Option<f64>| v.map_or("-".into(), |v| format!("{v:.2}"));
    let short = |resource: Resource| match resource {
        Resource::Weights => "W",
        Resource::ActivationSum => "A sum",
        Resource::ActivationMax => "A max",
        Resource::Bops => "Gbop",
    };
    if h.budgets.is_empty() {
        let of = |resource| format!("{} {} kB", short(resource), value(used(resource)));
        return [Resource::Weights, Resource::ActivationMax]
            .map(of)
            .join("  ");
    }
    let all_met = h[Quantity::BudgetMet].at(at) == Some(1.0);
    let against = h.budgets.iter().map(|budget| {
        let used = used(budget.resource);
        let mark = match used {
            Some(used) if all_met || used <= budget.limit => " ✓",
            Some(_) => " ✗",
            None => "",
        };
        let name = short(budget.resource);
        format!("{name} {}/{}{mark}", value(used), number(budget.limit, 2))
    });
    against.collect::<Vec<_>>().join("  ")
}

/// The line of figures: loss, error, memory against each budget, learning rate. At the cursor where
/// there is one.
fn figures(app: &App, area: Rect, buffer: &mut Buffer) {
    let h = &app.shown.history;
    let Some(r) = &h.newest else { return };
    let at = app.view.cursor.map_or(r.step, |c| c as u64);
    let value = |quantity, digits: usize| {
        let value = h[quantity].at(at);
        value.map_or("-".into(), |v| format!("{v:.digits$}"))
    };
    let percent = |quantity, digits: usize| {
        let value = h[quantity].at(at);
        value.map_or("-".into(), |v| format!("{:.digits$}", v * 100.0))
    };
    // Budgets come before all that gives way to them on a narrow screen.
    let mut parts = vec![
        format!("step {at}"),
        memory(h, at),
        format!("loss {}", value(Quantity::Loss, 4)),
    ];
    if h[Quantity::ValidationError].at(at).is_some() {
        parts.insert(
            3,
            format!("val {} %", percent(Quantity::ValidationError, 2)),
        );
    }
    let rate = h[Quantity::Lr].at(at);
    let rate = rate.map_or("-".into(), |v| number(v.into(), 4));
    parts.extend([
        format!("lr {rate}"),
        format!("ce {}", value(Quantity::CrossEntropy, 4)),
        format!("error {} %", percent(Quantity::TrainError, 1)),
    ]);
    if let Some((step, error)) = h.best() {
        parts.push(format!("best {:.2} % at {step}", error * 100.0));
    }
    // Dead layers come first: nothing else on the line is worth as much.
    let mut x = area.x;
    let dead = dead_layers(app);
    if let [first, others @ ..] = &dead[..] {
        let text = match others.len() {
            0 => format!("DEAD: {first}  "),
            _ if area.width < 120 => format!("DEAD: {} layers  ", dead.len()),
            n => format!("DEAD: {first} and {n} more  "),
        };
        let style = severity_style(app, Severity::Error);
        (x, _) = buffer.set_stringn(x, area.y, text, area.width.into(), style);
    }
    for (i, part) in parts.iter().enumerate() {
        let gap = if i == 0 { "" } else { "  " };
        let room = usize::from((area.x + area.width).saturating_sub(x));
        let text = format!("{gap}{part}");
        // A number that is cut off would be another one.
        if text.width() > room {
            break;
        }
        (x, _) = buffer.set_stringn(x, area.y, text, room, bold(app));
    }
}
