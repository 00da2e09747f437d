//! The ledger: kB per layer against the budgets, and the pull of the penalties.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use unicode_width::UnicodeWidthStr;

use super::super::app::{App, Page};
use super::overview::memory;
use super::{bold, grid};
use crate::figure::numerals::number;
use crate::run::{History, Quantity, Series};

pub(super) fn draw(app: &App, area: Rect, buffer: &mut Buffer) {
    let [text, plots] = Layout::vertical([Constraint::Length(1), Constraint::Min(4)]).areas(area);
    let mut x = text.x;
    let h = &app.shown.history;
    let whole = account(h, app.view.cursor, false);
    let width = whole.iter().map(|part| part.width() + 3).sum::<usize>();
    let parts = match width <= usize::from(text.width) + 3 {
        true => whole,
        false => account(h, app.view.cursor, true),
    };
    for part in parts {
        // A number that is cut off would be another one.
        let room = usize::from((text.x + text.width).saturating_sub(x));
        if part.width() > room {
            break;
        }
        (x, _) = buffer.set_stringn(x, text.y, part, room, bold(app));
        x += 3;
    }
    grid(app, Page::Memory.plots(), plots, buffer);
}

/// Every budget with what is used of it, the penalties, and the best error within budget; at the
/// cursor where there is one. `brief` is for narrow screens.
fn account(h: &History, cursor: Option<f64>, brief: bool) -> Vec<String> {
    let at = cursor.map_or(h.step(), |c| c.max(0.0) as u64);
    let value = |series: &Series| series.at(at).map(f64::from);
    let mut parts = vec![format!("step {at}")];
    if brief && !h.budgets.is_empty() {
        parts.push(memory(h, at));
    }
    for budget in h.budgets.iter().filter(|_| !brief) {
        let Some(used) = value(h.used(budget.resource)) else {
            continue;
        };
        let verdict = if used <= budget.limit { "met" } else { "over" };
        parts.push(format!(
            "{} {} of {} {}: {verdict}",
            budget.resource.label(),
            number(used, 2),
            number(budget.limit, 2),
            budget.resource.unit()
        ));
    }
    if h.budgets.is_empty() {
        parts.push("no budget".into());
    } else if let (Some(penalty), Some(share)) =
        (value(&h[Quantity::Penalty]), value(&h[Quantity::Pull]))
    {
        parts.push(match brief {
            true => format!("penalties {:.0} %", 100.0 * share),
            false => format!(
                "penalties {penalty:.3} nats, {:.0} % of the gradient",
                100.0 * share
            ),
        });
    }
    let within = if h.budgets.is_empty() {
        ""
    } else {
        " within budget"
    };
    match h.best() {
        Some((_, error)) if brief => parts.push(format!("best {:.2} %", 100.0 * error)),
        None if brief => parts.push("no best yet".into()),
        Some((step, error)) => {
            parts.push(format!("best{within} {:.2} % at {step}", 100.0 * error));
        }
        None => parts.push(format!("no evaluation{within} yet")),
    }
    parts
}
