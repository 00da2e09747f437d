//! Which steps plots show: all that matters, a span that follows the newest step, or one that stays.

use crate::run::{History, Mark, MarkKind};

/// Steps behind the start of the quantizers from which on plots begin there.
const LEAST: u64 = 8;

/// What of a run's steps is visible.
#[derive(Debug, Default)]
pub(super) struct Zoom {
    /// Visible span in steps where zoomed in; `None` shows everything that matters.
    span: Option<f64>,
    /// Whether that is the float phase too.
    whole: bool,
    /// Last visible step where panned away; `None` follows the newest.
    anchor: Option<f64>,
}

impl Zoom {
    /// Zooms in (below 1) or out.
    pub(super) fn by(&mut self, factor: f64, history: &History) {
        let all = history.step().max(1) as f64 - self.beginning(history);
        let span = self.span.unwrap_or(all) * factor;
        self.span = (span < all).then(|| span.max(4.0));
        match self.span {
            None => self.anchor = None,
            // (What begins before the first step would only seem to be shown.)
            Some(span) => self.anchor = self.anchor.map(|end| end.max(span)),
        }
    }

    /// Moves by a share of the span, to earlier steps or later ones.
    pub(super) fn pan(&mut self, share: f64, history: &History) {
        let all = history.step().max(1) as f64;
        let Some(span) = self.span else { return };
        let end = self.anchor.unwrap_or(all) + share * span;
        self.anchor = (end < all).then(|| end.max(span));
    }

    /// Shows everything that matters, and follows the newest step.
    pub(super) fn follow(&mut self) {
        (self.span, self.anchor) = (None, None);
    }

    /// Whether a part is shown only.
    pub(super) fn is_zoomed(&self) -> bool {
        self.span.is_some()
    }

    /// Takes the float phase in, or leaves it out.
    pub(super) fn turn_whole(&mut self) {
        self.whole = !self.whole;
    }

    /// Where what matters begins: with the quantizers, once they are there. Beside the float phase's memory
    /// and bits the rest of a run would be a line at the bottom.
    fn beginning(&self, history: &History) -> f64 {
        let quantized = |m: &&Mark| m.kind == MarkKind::Quantized;
        match history.marks.iter().rev().find(quantized) {
            Some(mark) if !self.whole && history.step() >= mark.step + LEAST => {
                mark.step as f64 + 1.0
            }
            _ => 0.0,
        }
    }

    /// Visible steps. The end runs a little ahead of the newest step and moves in lots: between
    /// two moves a frame only adds to the last, which is calm to look at and little to send.
    pub(super) fn visible(&self, history: &History) -> (f64, f64) {
        let all = history.step().max(1) as f64;
        match self.span {
            None => (self.beginning(history), ahead(all, all)),
            Some(span) => {
                let end = self.anchor.unwrap_or_else(|| ahead(all, span));
                ((end - span).max(0.0), end)
            }
        }
    }
}

/// The newest step rounded up to a sixteenth to a thirty-second of the span.
fn ahead(newest: f64, span: f64) -> f64 {
    let lot = (span.max(1.0).log2().floor() - 4.0).max(0.0).exp2();
    (newest / lot).ceil() * lot
}
