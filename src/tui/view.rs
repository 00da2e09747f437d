//! Painting the pages.

mod layers;
mod memory;
mod microscope;
mod overlay;
mod runs;
mod system;
mod toy;
mod verdicts;

use std::time::Duration;

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect, Size};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Widget};

use super::app::{App, Page};
use super::keymap::KEYMAP;
use crate::figure::terminal::{Colours, Plot};
use crate::figure::{Ink, Name, panel_with, ticks::number};
use crate::headless::duration;
use crate::quantizer::memory::kilobytes;
use crate::run::{Event, History, Phase, Severity};

/// Least size that pages are laid out for.
const LEAST: (u16, u16) = (60, 16);

/// Paints a frame.
pub(super) fn draw(app: &mut App, frame: &mut Frame<'_>) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let text = format!(
            "terminal {}x{} is too small; enlarge to {}x{}",
            area.width, area.height, LEAST.0, LEAST.1
        );
        frame.render_widget(Paragraph::new(text).wrap(Default::default()), area);
        return;
    }
    let [top, tabs, body, bottom] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(area);
    let buffer = frame.buffer_mut();
    status(app, top, buffer);
    tab_bar(app, tabs, buffer);
    match (app.expanded, app.page) {
        (Some(index), page) if index < page.plots().len() => {
            let (name, panel) = page.plots()[index];
            plot(app, name, panel, body, buffer);
        }
        (_, Page::Overview) => overview(app, body, buffer),
        (_, Page::Layers) => layers::draw(app, body, buffer),
        (_, Page::Bitwidths) => bitwidths(app, body, buffer),
        (_, Page::Memory) => memory::draw(app, body, buffer),
        (_, page @ (Page::Ranges | Page::Gradients | Page::Plane)) => {
            grid(app, page.plots(), body, buffer);
        }
        (_, Page::Microscope) => microscope::draw(app, body, buffer),
        (_, Page::Verdicts) => verdicts::draw(app, body, buffer),
        (_, Page::Runs) => runs::draw(app, body, buffer),
        (_, Page::System) => system::draw(app, body, buffer),
        (_, Page::Log) => log(app, body, buffer),
        (_, Page::Toy) => toy::draw(app, body, buffer),
    }
    bottom_line(app, bottom, buffer);
    overlay::draw(app, body, buffer);
    if let Some(preview) = &app.preview {
        overlay::preview(app, preview, body, buffer);
    }
}

/// Cells for an exported picture on a screen of that size: the page without its frame.
pub(super) fn preview_room(screen: Size) -> Size {
    Size::new(
        screen.width.saturating_sub(2),
        screen.height.saturating_sub(BARS + 2),
    )
}

/// Rows that are no page: status, tabs, keys.
const BARS: u16 = 3;

fn bold(app: &App) -> Style {
    app.palette.style(Ink::Text).add_modifier(Modifier::BOLD)
}

fn muted(app: &App) -> Style {
    app.palette.style(Ink::Muted)
}

/// Background for bars and overlays: reversed where there is no colour.
fn bar_style(app: &App) -> Style {
    match app.palette.colours {
        Colours::None => Style::new().add_modifier(Modifier::REVERSED),
        Colours::Sixteen => Style::new().bg(Color::Blue).fg(Color::White),
        Colours::True => Style::new()
            .bg(Color::Rgb(38, 44, 60))
            .fg(Color::Rgb(220, 224, 235)),
    }
}

/// Style of a message by how serious it is.
fn severity_style(app: &App, severity: Severity) -> Style {
    let coloured = app.palette.colours != Colours::None;
    match severity {
        Severity::Info => app.palette.style(Ink::Text),
        Severity::Warning if coloured => Style::new().fg(Color::Yellow),
        Severity::Warning => Style::new().add_modifier(Modifier::BOLD),
        Severity::Error if coloured => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
        Severity::Error => Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED),
    }
}

/// One word for how the run stands.
fn state(history: &History) -> &'static str {
    match (&history.end, history.phase) {
        (Some(Event::Finished { .. }), _) => "finished",
        (Some(Event::Failed { .. }), _) => "FAILED",
        (Some(_), _) => "stopped",
        (None, None) => "starting",
        (None, _) if history.paused => "PAUSED",
        (None, Some(Phase::Float)) => "float phase",
        (None, Some(Phase::Quantized)) => "quantized",
    }
}

fn status(app: &App, area: Rect, buffer: &mut Buffer) {
    buffer.set_style(area, bar_style(app));
    let h = &app.history;
    let mut text = format!(" bitscope  {}  {}", app.experiment.name, state(h));
    if let Some(r) = &h.newest {
        let left = h.total_steps.saturating_sub(r.step) as f64 * f64::from(r.times.total());
        text += &format!("  step {}/{}  epoch {:.2}", r.step, h.total_steps, r.epoch);
        text += &format!(
            "  {:.0} samples/s  left {}  {}",
            r.samples_per_s,
            duration(left),
            h.device
        );
    }
    buffer.set_stringn(area.x, area.y, text, area.width.into(), bar_style(app));
}

/// The key of a page, as the keymap has it.
fn page_key(page: Page) -> String {
    KEYMAP
        .iter()
        .find(|b| b.action == super::keymap::Action::GoTo(page))
        .map_or_else(String::new, super::keymap::Binding::key)
}

fn tab_bar(app: &mut App, area: Rect, buffer: &mut Buffer) {
    let notes = notes(app);
    let room = area.width.saturating_sub(notes.chars().count() as u16 + 1);
    // Whole names where they fit, else their first letters, else the keys alone.
    let fits = |letters: usize| {
        let width = |p: &Page| p.title().len().min(letters) + 4;
        Page::ALL.iter().map(width).sum::<usize>() + 8 <= usize::from(room)
    };
    let letters = [usize::MAX, 4, 3]
        .into_iter()
        .find(|l| fits(*l))
        .unwrap_or(0);
    let mut x = area.x;
    app.tabs.clear();
    for page in Page::ALL {
        let current = page == app.page;
        let title = page.title();
        let text = match (letters, current) {
            (0, false) => format!(" {} ", page_key(page)),
            (_, true) => format!(" {} {title} ", page_key(page)),
            (letters, false) => format!(
                " {} {} ",
                page_key(page),
                &title[..title.len().min(letters)]
            ),
        };
        let alarmed = page == Page::Verdicts && !app.history.verdicts.standing().is_empty();
        let style = if current {
            bold(app).add_modifier(Modifier::REVERSED)
        } else if alarmed {
            severity_style(app, Severity::Warning)
        } else {
            muted(app)
        };
        let from = x;
        (x, _) = buffer.set_stringn(
            x,
            area.y,
            text,
            (area.x + area.width).saturating_sub(x).into(),
            style,
        );
        app.tabs.push((from..x, page));
    }
    let width = notes.chars().count() as u16;
    if width > 0 && x + width < area.x + area.width {
        let style = severity_style(app, Severity::Warning);
        buffer.set_string(area.x + area.width - width, area.y, notes, style);
    }
}

/// What is not as usual: at the right end of the tabs.
fn notes(app: &App) -> String {
    let mut notes = Vec::new();
    if !app.view.filter.is_empty() {
        notes.push(format!("filter: {}", app.view.filter));
    }
    if app.diagnostics.is_some() {
        notes.push("experiment file broken (d)".into());
    }
    match app.history.verdicts.standing().len() {
        0 => {}
        1 => notes.push("1 verdict (9)".into()),
        n => notes.push(format!("{n} verdicts (9)")),
    }
    notes.join("  ")
}

fn bottom_line(app: &App, area: Rect, buffer: &mut Buffer) {
    if let Some(typing) = &app.typing {
        let text = format!("filter layers: {typing}▏ (Enter keeps, Esc clears)");
        buffer.set_stringn(area.x, area.y, text, area.width.into(), bold(app));
        return;
    }
    if let Some((severity, text)) = newest_message(app) {
        let style = severity_style(app, severity);
        let (x, _) = buffer.set_stringn(area.x, area.y, text, area.width.into(), style);
        if x + 12 < area.x + area.width {
            key_bar(
                app,
                Rect {
                    x: x + 2,
                    width: area.x + area.width - x - 2,
                    ..area
                },
                buffer,
            );
        }
        return;
    }
    key_bar(app, area, buffer);
}

/// How long a message of the program itself stays.
const STAYS: Duration = Duration::from_secs(6);

/// What the program said a moment ago, or else the newest thing that the run said.
fn newest_message(app: &App) -> Option<(Severity, &str)> {
    if let Some((when, severity, text)) = &app.message
        && when.elapsed() < STAYS
    {
        return Some((*severity, text));
    }
    let message = app.history.messages.back()?;
    Some((message.severity, message.text.as_str()))
}

/// Keys at the right edge, as many as fit.
fn key_bar(app: &App, area: Rect, buffer: &mut Buffer) {
    let mut spans = Vec::new();
    let mut width = 0;
    for binding in KEYMAP.iter().filter(|b| !b.bar.is_empty()).rev() {
        let key = binding.key();
        let needed = key.chars().count() + binding.bar.len() + 3;
        if width + needed > usize::from(area.width) {
            break;
        }
        width += needed;
        spans.insert(0, Span::styled(format!("{}  ", binding.bar), muted(app)));
        spans.insert(0, Span::styled(format!("{key} "), bold(app)));
    }
    let x = area.x + area.width - width as u16;
    buffer.set_line(x, area.y, &Line::from(spans), width as u16);
}

fn overview(app: &App, area: Rect, buffer: &mut Buffer) {
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
    let layers = &app.history.layers;
    let activations = layers.iter().any(|l| {
        l.bitwidth.newest().is_some() && l.info.role == crate::quantizer::memory::Role::Activation
    });
    if activations {
        let [left, right] = Layout::horizontal([Constraint::Fill(1); 2]).areas(bits);
        plot(app, Name::Bitwidth, 0, left, buffer);
        plot(app, Name::Bitwidth, 1, right, buffer);
    } else {
        plot(app, Name::Bitwidth, 0, bits, buffer);
    }
}

/// The line of figures: loss, error, memory against each budget, learning rate. At the cursor where
/// there is one.
fn figures(app: &App, area: Rect, buffer: &mut Buffer) {
    let h = &app.history;
    let Some(r) = &h.newest else { return };
    let at = app.view.cursor.map_or(r.step, |c| c as u64);
    let value = |s: &crate::run::Series, digits: usize| {
        s.at(at).map_or("-".into(), |v| format!("{v:.digits$}"))
    };
    let mut parts = vec![
        format!("step {at}"),
        format!("loss {}", value(&h.loss, 4)),
        format!("ce {}", value(&h.cross_entropy, 4)),
        format!(
            "error {} %",
            h.train_error
                .at(at)
                .map_or("-".into(), |v| format!("{:.1}", v * 100.0))
        ),
        format!(
            "val {} %",
            h.validation_error
                .at(at)
                .map_or("-".into(), |v| format!("{:.2}", v * 100.0))
        ),
        format!("W {} kB", value(&h.weight_kb, 2)),
        format!("A {} kB", value(&h.activation_max_kb, 2)),
        format!(
            "lr {}",
            h.lr.at(at).map_or("-".into(), |v| number(v.into(), 4))
        ),
    ];
    if !h.budgets.is_empty() {
        parts.push(if r.budget_met {
            "budget met".into()
        } else {
            "over budget".into()
        });
    }
    if let Some((step, error)) = h.best() {
        parts.push(format!("best {:.2} % at {step}", error * 100.0));
    }
    let text = parts.join("  ");
    buffer.set_stringn(area.x, area.y, text, area.width.into(), bold(app));
}

fn bitwidths(app: &App, area: Rect, buffer: &mut Buffer) {
    let bars = (area.height / 3).clamp(6, 14);
    let [top, reading, heat] = Layout::vertical([
        Constraint::Length(bars),
        Constraint::Length(1),
        Constraint::Min(4),
    ])
    .areas(area);
    let [left, right] = Layout::horizontal([Constraint::Fill(1); 2])
        .spacing(1)
        .areas(top);
    plot(app, Name::Bitwidth, 0, left, buffer);
    plot(app, Name::Bitwidth, 1, right, buffer);
    layer_reading(app, reading, buffer);
    plot(app, Name::BitwidthHeat, 0, heat, buffer);
}

/// The selected layer's numbers at the cursor, or now.
fn layer_reading(app: &App, area: Rect, buffer: &mut Buffer) {
    let selected = app.selected_layer();
    let Some((layer, r)) = selected.and_then(|(_, l)| Some((l, app.layer_record(l)?))) else {
        return;
    };
    let step = app.view.cursor.unwrap_or(app.history.step() as f64);
    let text = format!(
        "{} {}  step {step:.0}  d {:.5}  q_max {:.4}  {:.0} bits  {:.2} kB   (j, k choose; Enter opens)",
        layer.info.name,
        layer.info.kind.word(),
        r.d,
        r.q_max,
        r.bitwidth,
        kilobytes(layer.info.elements, r.bitwidth.into()),
    );
    buffer.set_stringn(area.x, area.y, text, area.width.into(), bold(app));
}

/// Plots in a grid: two columns where there is room, else one.
fn grid(app: &App, plots: &[(Name, usize)], area: Rect, buffer: &mut Buffer) {
    let columns = if area.width >= 70 && plots.len() > 1 {
        2
    } else {
        1
    };
    let rows = plots.len().div_ceil(columns);
    let rows = Layout::vertical(vec![Constraint::Fill(1); rows]).split(area);
    for (row, plots) in rows.iter().zip(plots.chunks(columns)) {
        let cells = Layout::horizontal(vec![Constraint::Fill(1); plots.len()])
            .spacing(1)
            .split(*row);
        for (cell, (name, index)) in cells.iter().zip(plots) {
            plot(app, *name, *index, *cell, buffer);
        }
    }
}

fn plot(app: &App, name: Name, index: usize, area: Rect, buffer: &mut Buffer) {
    let view = app.view_for(area.width);
    let scene = panel_with(name, index, app.history_for(name), &view, &app.overlays);
    (&Plot::new(&scene, &app.palette)).render(area, buffer);
}

fn log(app: &mut App, area: Rect, buffer: &mut Buffer) {
    let height = usize::from(area.height);
    let count = app.history.messages.len();
    // The selection is the distance from the newest line, so that the page follows.
    let bottom = count.saturating_sub(app.selected.min(count.saturating_sub(height)));
    let start = bottom.saturating_sub(height);
    for (row, message) in app
        .history
        .messages
        .iter()
        .skip(start)
        .take(bottom - start)
        .enumerate()
    {
        let y = area.y + row as u16;
        let (x, _) = buffer.set_stringn(area.x, y, format!("{:>8} ", message.step), 9, muted(app));
        let style = severity_style(app, message.severity);
        let width = usize::from(area.width).saturating_sub(9);
        buffer.set_stringn(x, y, &message.text, width, style);
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::bench::synthetic;
    use super::*;
    use crate::figure::Theme;
    use crate::figure::terminal::{Marker, Palette};

    fn app(colours: Colours, marker: Marker) -> App {
        let mut app = synthetic(10, 400);
        app.palette = Palette {
            colours,
            theme: Theme::Dark,
            marker,
        };
        app.view.cursor = Some(200.0);
        app
    }

    fn paint(app: &mut App, width: u16, height: u16) -> Buffer {
        let mut terminal =
            Terminal::new(TestBackend::new(width, height)).expect("a buffer cannot fail");
        terminal
            .draw(|frame| draw(app, frame))
            .expect("a buffer cannot fail");
        terminal.backend().buffer().clone()
    }

    fn text(buffer: &Buffer) -> String {
        let area = buffer.area;
        let row = |y| {
            let cells = (0..area.width).map(|x| buffer[(x, y)].symbol());
            cells.collect::<String>().trim_end().to_owned() + "\n"
        };
        (0..area.height).map(row).collect()
    }

    /// Runs of equal style, a line per row: `columns:foreground/background+modifiers`.
    fn styles(buffer: &Buffer) -> String {
        let area = buffer.area;
        let mut out = String::new();
        for y in 0..area.height {
            let mut runs: Vec<(String, u16)> = Vec::new();
            for x in 0..area.width {
                let cell = &buffer[(x, y)];
                let style = format!("{}/{}+{:?}", cell.fg, cell.bg, cell.modifier);
                match runs.last_mut() {
                    Some((last, count)) if *last == style => *count += 1,
                    _ => runs.push((style, 1)),
                }
            }
            let runs: Vec<String> = runs.iter().map(|(s, n)| format!("{n}:{s}")).collect();
            out += &(runs.join(" ") + "\n");
        }
        out
    }

    /// Every page in one text, with a rule between.
    fn pages(app: &mut App, width: u16, height: u16, of: fn(&Buffer) -> String) -> String {
        Page::ALL
            .into_iter()
            .map(|page| {
                app.page = page;
                app.selected = 0;
                let painted = paint(app, width, height);
                format!("=== {}\n{}", page.title(), of(&painted))
            })
            .collect()
    }

    #[test]
    fn every_page_at_every_size() {
        for (width, height) in [(80, 24), (120, 40), (200, 60)] {
            let mut coloured = app(Colours::True, Marker::Braille);
            insta::assert_snapshot!(
                format!("pages-{width}x{height}"),
                pages(&mut coloured, width, height, text)
            );
        }
    }

    #[test]
    fn every_page_in_sixteen_colours_and_without_any() {
        for (name, colours) in [("sixteen", Colours::Sixteen), ("none", Colours::None)] {
            let mut app = app(colours, Marker::Ascii);
            insta::assert_snapshot!(
                format!("styles-{name}-80x24"),
                pages(&mut app, 80, 24, styles)
            );
            insta::assert_snapshot!(format!("text-{name}-80x24"), pages(&mut app, 80, 24, text));
        }
    }

    #[test]
    fn no_size_panics_on_any_page() {
        let mut app = app(Colours::True, Marker::Octant);
        for page in Page::ALL {
            app.page = page;
            for (width, height) in [
                (0, 0),
                (1, 1),
                (59, 16),
                (60, 16),
                (61, 17),
                (300, 80),
                (500, 9),
            ] {
                paint(&mut app, width, height);
            }
        }
    }

    #[test]
    fn the_palette_offers_keys_and_values_of_the_experiment() {
        let mut app = app(Colours::True, Marker::Braille);
        app.command = Some(super::super::palette::Palette {
            text: "weights_kb".into(),
            chosen: 0,
        });
        let screen = text(&paint(&mut app, 120, 40));
        assert!(screen.contains("set budget.weights_kb"), "{screen}");
        assert!(screen.contains("11 (live)"), "{screen}");
    }
}
