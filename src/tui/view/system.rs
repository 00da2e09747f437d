//! Time of a step by phase, CPU and memory.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};

use super::super::app::App;
use super::{bold, plot};
use crate::device::Gpu;
use crate::figure::Name;
use crate::figure::terminal::shortened;
use crate::run::PHASES;

pub(super) fn draw(app: &App, area: Rect, buffer: &mut Buffer) {
    let lines = lines(app);
    let rows = lines.len() as u16 + 1;
    let [text, below] =
        Layout::vertical([Constraint::Length(rows.max(4)), Constraint::Min(4)]).areas(area);
    for (i, line) in lines.into_iter().enumerate() {
        let width = text.width.saturating_sub(2).into();
        let line = shortened(&line, width);
        buffer.set_stringn(text.x + 1, text.y + i as u16, line, width, bold(app));
    }
    plot(app, Name::Phases, 0, below, buffer);
}

fn lines(app: &App) -> Vec<String> {
    let h = &app.shown.history;
    let Some(r) = &h.newest else {
        return vec!["no step yet".into()];
    };
    let total = f64::from(r.times.total());
    let phases = PHASES.iter().map(|(name, quantity)| {
        let seconds = f64::from(h[*quantity].newest().unwrap_or(0.0));
        format!(
            "{name} {:.1} ms ({:.0} %)",
            seconds * 1e3,
            100.0 * seconds / total.max(1e-9)
        )
    });
    let cores = app
        .system
        .cores
        .map_or("-".into(), |c| format!("{c:.2} cores"));
    let memory = app.system.memory.map_or("-".into(), |(now, peak)| {
        format!("{now:.0} MB resident, {peak:.0} MB peak")
    });
    let mut lines = vec![
        format!(
            "{:.2} steps/s   {:.0} samples/s   {:.1} ms a step   batch {}",
            1.0 / total.max(1e-9),
            r.samples_per_s,
            total * 1e3,
            h.batch
        ),
        phases.collect::<Vec<_>>().join("   "),
        format!("CPU {cores}   memory {memory}   device {}", h.device),
    ];
    lines.extend(app.system.gpus.iter().map(card));
    lines
}

/// A GPU in one line.
fn card(gpu: &Gpu) -> String {
    let parts = [
        gpu.busy.map(|busy| format!("{busy} % busy")),
        (gpu.memory).map(|(used, all)| format!("{used:.0} of {all:.0} MB")),
        gpu.temperature.map(|t| format!("{t} °C")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    format!("{}: {}", gpu.name, parts.join("   "))
}
