//! Messages: what the bottom line says, and which of them the log page lists.

use std::time::{Duration, Instant};

use crate::run::Severity;

/// What was said, and for how long it stands.
#[derive(Debug, Clone)]
pub(in crate::tui) struct Notices {
    /// Newest message of the program itself and when it came: it stays on the bottom line for a
    /// while, whatever the run says.
    pub message: Option<(Instant, Severity, String)>,
    /// When the run said its newest message, as far as it was seen here.
    pub said: Option<Instant>,
    /// Least severity of messages on the log page.
    pub least: Severity,
}

impl Default for Notices {
    fn default() -> Self {
        Self {
            message: None,
            said: None,
            least: Severity::Info,
        }
    }
}

impl Notices {
    /// The next least severity, and after the highest the lowest again.
    pub(super) fn raise(&mut self) {
        self.least = match self.least {
            Severity::Info => Severity::Warning,
            Severity::Warning => Severity::Error,
            Severity::Error => Severity::Info,
        };
    }

    /// Whether a message has stood on the bottom line for so long: once for each.
    pub(in crate::tui) fn is_over(&mut self, stays: Duration) -> bool {
        let over = |when: Instant| when.elapsed() >= stays;
        let said = self.said.take_if(|when| over(*when)).is_some();
        let told = self.message.take_if(|m| over(m.0)).is_some();
        said | told
    }
}
