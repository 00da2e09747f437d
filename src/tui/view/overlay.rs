//! What lies over a page: help, questions, diagnostics.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Widget, Wrap};

use super::super::app::{App, Overlay};
use super::super::keymap::{Action, KEYMAP};
use super::super::palette;
use super::super::preview::Preview;
use super::{bold, muted};
use ratatui_image::Image;

use crate::experiment::{Class, render};

/// An exported picture over the whole page.
pub(super) fn preview(app: &App, preview: &Preview, body: Rect, buffer: &mut Buffer) {
    Clear.render(body, buffer);
    let title = format!(" {} (any key closes) ", preview.path.display());
    let frame = Block::bordered().title(title).border_style(muted(app));
    let inside = frame.inner(body);
    frame.render(body, buffer);
    let picture = preview.picture.area();
    if picture.width > inside.width || picture.height > inside.height {
        let text = "the terminal is smaller now than when the picture was opened: open it again";
        let text = Paragraph::new(text).wrap(Wrap::default());
        return text.style(muted(app)).render(inside, buffer);
    }
    Image::new(&preview.picture).render(inside, buffer);
}

pub(super) fn draw(app: &App, body: Rect, buffer: &mut Buffer) {
    commands(app, body, buffer);
    let Some(overlay) = app.layers.overlay() else {
        return;
    };
    let (title, lines) = match overlay {
        Overlay::Help => (
            " keys (j and k scroll, any other key closes) ",
            help(app, body),
        ),
        Overlay::Diagnostic => (
            " experiment file (j and k scroll, any other key closes; the run goes on) ",
            diagnostic(app, body),
        ),
        Overlay::ConfirmQuit => (
            " quit? ",
            vec![
                Line::raw("Training is running. It stops with a checkpoint and can be resumed:"),
                Line::raw(format!(
                    "  bitscope resume {}",
                    app.shown.folder.path().display()
                )),
                Line::raw(""),
                Line::raw("y quit    n go on"),
            ],
        ),
        Overlay::ConfirmFork { step, .. } => (
            " fork? ",
            vec![
                Line::raw(match step {
                    Some(step) => format!(
                        "A new run starts from the checkpoint of step {step}, with the settings in force."
                    ),
                    None => {
                        "A new run starts where this one stops, with the settings in force.".into()
                    }
                }),
                Line::raw("The current run stops with a checkpoint."),
                Line::raw(""),
                Line::raw("y fork    n keep the run"),
            ],
        ),
        Overlay::ConfirmDelete { folder, steps } => (
            " remove? ",
            vec![
                Line::raw(format!(
                    "{} and everything it recorded",
                    folder.path().display()
                )),
                Line::raw(format!(
                    "will be deleted permanently, including {steps} steps of training."
                )),
                Line::raw(""),
                Line::raw("y remove    n keep"),
            ],
        ),
        Overlay::ConfirmNewRun(pending) => {
            let start = match pending.class {
                Class::Fresh => "a new run from scratch",
                Class::Fork => "a new run from the newest checkpoint",
                _ => "a new run, since this one has ended",
            };
            let mut lines = vec![
                Line::raw(format!("The saved experiment needs {start}:")),
                Line::raw(""),
            ];
            for change in &pending.changes {
                lines.push(Line::raw(format!("  {change}  ({})", change.class.name())));
            }
            lines.push(Line::raw(""));
            lines.push(Line::raw(
                "The current run stops with a checkpoint. y start it    n keep the run",
            ));
            (" experiment changed ", lines)
        }
    };
    let widest = lines.iter().map(Line::width).max().unwrap_or(0) as u16;
    let width = (widest + 4).clamp(30, body.width);
    let height = (lines.len() as u16 + 2).min(body.height);
    let area = Rect {
        x: body.x + (body.width - width) / 2,
        y: body.y + (body.height - height) / 2,
        width,
        height,
    };
    Clear.render(area, buffer);
    let block = Block::bordered()
        .title(Span::styled(title, bold(app)))
        .border_style(muted(app));
    let mut paragraph = Paragraph::new(lines).block(block);
    // (What scrolls has a row for each line.)
    if !matches!(overlay, Overlay::Help | Overlay::Diagnostic) {
        paragraph = paragraph.wrap(Wrap { trim: false });
    }
    paragraph.render(area, buffer);
}

/// The command palette: what is typed, and completions below.
fn commands(app: &App, body: Rect, buffer: &mut Buffer) {
    let Some(command) = app.layers.palette() else {
        return;
    };
    let entries = palette::entries(app, &command.text);
    let rows = entries.len().clamp(1, 12) as u16;
    let area = Rect {
        x: body.x + body.width / 10,
        y: body.y + 1,
        width: body.width - body.width / 5,
        height: (rows + 3).min(body.height.saturating_sub(1)),
    };
    Clear.render(area, buffer);
    let title = Span::styled(
        " command (Tab completes, Enter runs, Esc closes) ",
        bold(app),
    );
    let block = Block::bordered().title(title).border_style(muted(app));
    let inner = block.inner(area);
    block.render(area, buffer);
    let width = usize::from(inner.width);
    let prompt = format!(":{}▏", command.text);
    buffer.set_stringn(inner.x, inner.y, prompt, width, bold(app));
    let chosen = command.chosen.min(entries.len().saturating_sub(1));
    let room = usize::from(inner.height.saturating_sub(1));
    let first = (chosen + 1).saturating_sub(room);
    for (i, entry) in entries.iter().enumerate().skip(first).take(room) {
        let y = inner.y + 1 + (i - first) as u16;
        let text = format!("{:<36} {}", entry.text, entry.help);
        let mut style = if i == chosen { bold(app) } else { muted(app) };
        if i == chosen {
            style = style.add_modifier(Modifier::REVERSED);
        }
        buffer.set_stringn(inner.x, y, text, width, style);
    }
}

/// Generated from the keymap, in as many columns as fit.
fn help(app: &App, body: Rect) -> Vec<Line<'static>> {
    let mut entries: Vec<(String, &str, &str)> = Vec::new();
    let mut done: Vec<Action> = Vec::new();
    for binding in KEYMAP {
        if done.contains(&binding.action) {
            continue;
        }
        done.push(binding.action);
        let keys: Vec<String> = KEYMAP
            .iter()
            .filter(|b| b.action == binding.action)
            .map(|b| b.key())
            .collect();
        entries.push((keys.join(" "), binding.help, binding.group));
    }
    let columns = if body.width >= 150 { 2 } else { 1 };
    let rows = entries.len().div_ceil(columns);
    let span = |entry: &(String, &str, &str)| {
        vec![
            Span::styled(format!("{:>12}  ", entry.0), bold(app)),
            Span::styled(format!("{:<58}", entry.1), Style::new()),
        ]
    };
    let room = usize::from(body.height.saturating_sub(2)).max(1);
    let first = app.scroll.min(rows.saturating_sub(room));
    (first..rows)
        .map(|row| {
            let mut spans = span(&entries[row]);
            if let Some(entry) = entries.get(row + rows) {
                spans.extend(span(entry));
            }
            Line::from(spans)
        })
        .collect()
}

fn diagnostic(app: &App, body: Rect) -> Vec<Line<'static>> {
    let Some(diagnostics) = &app.editing.diagnostics else {
        return vec![Line::raw("the experiment file is valid")];
    };
    let text = render(diagnostics, false);
    let width = usize::from(body.width.saturating_sub(4)).max(1);
    let parts = |line: &str| -> Vec<String> {
        let letters: Vec<char> = line.chars().collect();
        let parts = letters.chunks(width).map(|part| part.iter().collect());
        if letters.is_empty() {
            vec![String::new()]
        } else {
            parts.collect()
        }
    };
    let lines: Vec<String> = text.lines().flat_map(parts).collect();
    let room = usize::from(body.height.saturating_sub(2)).max(1);
    let first = app.scroll.min(lines.len().saturating_sub(room));
    let shown = lines[first..].iter();
    shown.map(|l| Line::raw(l.clone())).collect()
}
