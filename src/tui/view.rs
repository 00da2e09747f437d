//! Painting the pages.

mod bars;
mod layers;
mod memory;
mod microscope;
mod overlay;
mod overview;
mod runs;
mod system;
mod toy;
mod verdicts;

pub(super) use bars::{STAYS, tab_at};
use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect, Size};
use ratatui::style::{Color, Modifier, Style};
use ratatui::widgets::{Paragraph, Widget};
pub(super) use runs::error_against_memory;
use unicode_width::UnicodeWidthStr;

use super::app::{App, Page};
use crate::figure::numerals::power_of_two;
use crate::figure::terminal::{Colours, Plot};
use crate::figure::{Ink, Name, panel_with};
use crate::quantizer::memory::kilobytes;
use crate::run::{LayerHistory, LayerRecord, Quantity, Severity};

/// Least size that pages are laid out for.
const LEAST: (u16, u16) = (60, 16);

/// Paints a frame.
pub(super) fn draw(app: &App, frame: &mut Frame<'_>) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let text = format!(
            "terminal {}x{} is too small; enlarge to {}x{}",
            area.width, area.height, LEAST.0, LEAST.1
        );
        frame.render_widget(Paragraph::new(text).wrap(Default::default()), area);
        return;
    }
    // On a tall screen messages and keys each have a line.
    let below = if area.height >= TALL { 2 } else { 1 };
    let [top, tabs, body, bottom] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(below),
    ])
    .areas(area);
    let buffer = frame.buffer_mut();
    bars::status(app, top, buffer);
    bars::tab_bar(app, tabs, buffer);
    match (app.expanded, app.page) {
        (Some(index), page) if index < page.plots().len() => {
            let (name, panel) = page.plots()[index];
            plot(app, name, panel, body, buffer);
        }
        (_, Page::Overview) => overview::draw(app, body, buffer),
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
    bars::bottom(app, bottom, buffer);
    overlay::draw(app, body, buffer);
    if let Some(preview) = app.layers.preview() {
        overlay::preview(app, preview, body, buffer);
    }
}

/// Cells for an exported picture on a screen of that size: the page without its frame.
pub(super) fn preview_room(screen: Size) -> Size {
    Size::new(
        screen.width.saturating_sub(2),
        (screen.height).saturating_sub(BARS + 2 + u16::from(screen.height >= TALL)),
    )
}

/// Rows that are no page: status, tabs, keys.
const BARS: u16 = 3;
/// Rows from which on messages have a line of their own.
const TALL: u16 = 30;

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
        Colours::True | Colours::Many => Style::new()
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
    let step = app.view.cursor.unwrap_or(app.shown.history.step() as f64);
    if !r.bitwidth.is_finite() {
        let text = format!("{}  step {step:.0}  in float", layer.info.name);
        buffer.set_stringn(area.x, area.y, text, area.width.into(), bold(app));
        return;
    }
    let [d, q_max] = used(layer, &r);
    let bits = match r.bitwidth.round() {
        1.0 => "1 bit".into(),
        bits => format!("{bits:.0} bits"),
    };
    let text = format!(
        "{} {}  step {step:.0}  {bits}  {:.2} kB  d {d}  q_max {q_max}",
        layer.info.name,
        layer.info.kind.word(),
        kilobytes(layer.info.elements, r.bitwidth.into()),
    );
    buffer.set_stringn(area.x, area.y, text, area.width.into(), bold(app));
}

/// Step size and range with what they are used as: the bitwidth follows from these.
fn used(layer: &LayerHistory, r: &LayerRecord) -> [String; 2] {
    match layer.info.used(r) {
        None => [format!("{:.5}", r.d), format!("{:.4}", r.q_max)],
        Some([d, q_max]) => {
            let range = if (q_max / f64::from(r.q_max) - 1.0).abs() < 1e-4 {
                format!("{:.4}", r.q_max)
            } else {
                format!("{:.4} → {q_max:.4}", r.q_max)
            };
            [format!("{:.5} → {}", r.d, power_of_two(d.log2())), range]
        }
    }
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
    let view = app.view_for(area.width, area.height);
    let scene = panel_with(
        name,
        index,
        app.history_for(name),
        &view,
        &app.shown.overlays,
    );
    (&Plot::new(&scene, &app.palette)).render(area, buffer);
}

/// Messages, the newest last, each in as many lines as it needs, with the time of training at which the
/// run said it.
fn log(app: &App, area: Rect, buffer: &mut Buffer) {
    let [head, list] = Layout::vertical([Constraint::Length(1), Constraint::Min(1)]).areas(area);
    let what = match app.notices.least {
        Severity::Info => "every message",
        Severity::Warning => "warnings and errors",
        Severity::Error => "errors only",
    };
    let title = format!("{:>8} {:>9}  {what}", "time", "step");
    buffer.set_stringn(head.x, head.y, title, head.width.into(), bold(app));
    let width = usize::from(list.width.saturating_sub(LOG_MARGIN)).max(8);
    // The selection is the distance from the newest message, so that the page follows.
    let mut bottom = list.y + list.height;
    for message in app.messages().rev().skip(app.selection()) {
        let lines = wrapped(&message.text, width);
        let style = severity_style(app, message.severity);
        for (i, line) in lines.iter().enumerate().rev() {
            if bottom == list.y {
                return;
            }
            bottom -= 1;
            buffer.set_stringn(list.x + LOG_MARGIN, bottom, line, width, style);
            if i == 0 {
                let seconds = app.shown.history[Quantity::Seconds].near(message.step);
                let time = seconds.map_or(String::new(), |s| clock(s.into()));
                let place = format!("{time:>8} {:>9}", message.step);
                buffer.set_stringn(list.x, bottom, place, LOG_MARGIN.into(), muted(app));
            }
        }
    }
}

/// Columns of time and step on the log page.
const LOG_MARGIN: u16 = 20;

/// Seconds as hours, minutes and seconds.
fn clock(seconds: f64) -> String {
    let s = seconds.max(0.0) as u64;
    format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
}

/// A text in lines of at most so many columns, broken between words where it can be.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_inclusive([' ', '\n']) {
        let mut rest = word;
        let used = |lines: &[String]| lines.last().map_or(0, |l| l.width());
        if used(&lines) > 0 && used(&lines) + rest.trim_end().width() > width {
            lines.push(String::new());
        }
        while used(&lines) + rest.trim_end().width() > width {
            let room = width - used(&lines);
            let cut = rest.char_indices().nth(room).map_or(rest.len(), |c| c.0);
            if let Some(line) = lines.last_mut() {
                line.push_str(&rest[..cut]);
            }
            rest = &rest[cut..];
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            line.push_str(rest.trim_end_matches('\n'));
        }
    }
    lines
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
    fn long_messages_are_wrapped_whole() {
        let text = "the run diverged: a value is not finite, first in layer1.0.conv1.weight.of.a.long.name";
        for width in [8, 20, 40, 200] {
            let lines = wrapped(text, width);
            assert!(
                lines.iter().all(|l| l.trim_end().width() <= width),
                "{lines:?}"
            );
            assert_eq!(lines.concat(), text);
        }
    }

    /// As many quantizers as ResNet-50 has, on a small terminal: what is seen of how many is said, every
    /// row keeps its name, and both ends are reached.
    #[test]
    fn a_network_of_139_quantizers_is_readable() {
        let mut app = synthetic(139, 400);
        let mut look = |page, selected| {
            (app.page, app.selected) = (page, selected);
            text(&paint(&mut app, 80, 24))
        };
        let top = look(Page::Layers, 0);
        assert!(top.contains("1–19 of 139"), "{top}");
        let end = look(Page::Layers, 138);
        assert!(end.contains("121–139 of 139"), "{end}");
        assert!(look(Page::Bitwidths, 70).contains(" of 139"));
        let ranges = look(Page::Ranges, 0);
        assert!(
            ranges.contains(" of 70") && ranges.contains(" of 69"),
            "{ranges}"
        );
        for page in Page::ALL {
            let screen = look(page, 0);
            let tabs = screen.lines().nth(1).unwrap_or_default();
            for short in [
                "home", "layer", "bits", "range", "kB", "alarm", "runs", "Toy",
            ] {
                assert!(tabs.contains(short), "{tabs}");
            }
            let keys = screen.lines().last().unwrap_or_default();
            assert!(keys.contains("? help  q quit"), "{}: {keys}", page.title());
        }
    }

    /// Folded to stages, every quantizer is in one row, and what the rows say adds up.
    #[test]
    fn stages_add_up_to_the_network() {
        let mut app = synthetic(40, 400);
        app.page = Page::Layers;
        let singly = app.listed();
        app.view.fold = crate::figure::Fold::Stages;
        let folded = app.listed();
        assert!(folded.len() < singly.len() && !folded.is_empty());
        let members: usize = folded.iter().map(|r| r.members.len()).sum();
        assert_eq!(members, singly.len());
        let screen = text(&paint(&mut app, 120, 40));
        assert!(
            screen.contains("s0 (") || screen.contains("s1 ("),
            "{screen}"
        );
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
        app.layers.put(super::super::app::Layer::Palette(
            super::super::app::Typed {
                text: "weights_kb".into(),
                chosen: 0,
            },
        ));
        let screen = text(&paint(&mut app, 120, 40));
        assert!(screen.contains("set budget.weights_kb"), "{screen}");
        assert!(screen.contains("11 (live)"), "{screen}");
    }
}
