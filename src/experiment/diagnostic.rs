//! What is wrong with an experiment file, and where.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use unicode_width::UnicodeWidthStr;

/// What stands for the file of overrides.
pub(super) const OVERRIDE: &str = "--set";

/// Where a value stands: file, its text and the bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// File, or `--set`.
    pub file: Arc<PathBuf>,
    /// Whole text of the file.
    pub text: Arc<str>,
    /// Bytes of the text.
    pub span: Range<usize>,
}

impl Place {
    /// Line and column, from 1; the column counts characters.
    pub fn line_and_column(&self) -> (usize, usize) {
        let start = self.span.start.min(self.text.len());
        let before = &self.text[..start];
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        (
            before.matches('\n').count() + 1,
            before[line_start..].chars().count() + 1,
        )
    }

    /// Whether it is an override's, not a file's.
    pub fn is_override(&self) -> bool {
        self.file.as_os_str() == OVERRIDE
    }

    /// Whether there is no text to point at, as of a file that cannot be read.
    fn is_of_nothing(&self) -> bool {
        self.text.is_empty()
    }

    /// The line it stands on.
    pub fn line(&self) -> &str {
        let start = self.span.start.min(self.text.len());
        let from = self.text[..start].rfind('\n').map_or(0, |i| i + 1);
        let to = self.text[start..]
            .find('\n')
            .map_or(self.text.len(), |i| start + i);
        &self.text[from..to]
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct Diagnostic {
    /// Where.
    pub place: Place,
    /// What is wrong.
    pub message: String,
    /// What was expected instead.
    pub expected: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.place.file.display())?;
        if !self.place.is_of_nothing() {
            let (line, column) = self.place.line_and_column();
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}; expected {}", self.message, self.expected)
    }
}

/// Everything that is wrong.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{}", .0.iter().map(Diagnostic::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Diagnostics(pub Vec<Diagnostic>);

/// Control characters as their symbols: names from files must not steer the terminal.
pub(crate) fn printable(text: &str) -> String {
    let plain = |c: char| match c {
        '\n' | '\t' => c,
        '\0'..='\x1f' => char::from_u32(0x2400 + c as u32).unwrap_or('\u{fffd}'),
        '\x7f'..='\u{9f}' => '\u{fffd}',
        other => other,
    };
    text.chars().map(plain).collect()
}

/// A text with spaces behind it to so many columns of a terminal, of which some letters take two.
pub(crate) fn padded(text: &str, columns: usize) -> String {
    let missing = columns.saturating_sub(text.width());
    format!("{text}{}", " ".repeat(missing))
}

/// The diagnostics as a compiler would print them, with the line and a mark under the place.
pub fn render(diagnostics: &Diagnostics, colour: bool) -> String {
    let renderer = if colour {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    let one = |d: &Diagnostic| {
        let title = printable(&d.message);
        let label = format!("expected {}", d.expected);
        if d.place.is_of_nothing() {
            let note = Level::NOTE.message(label.as_str());
            let title = Level::ERROR.primary_title(title.as_str());
            return renderer.render(&[title.element(note)]);
        }
        let path = printable(&d.place.file.display().to_string());
        // A mark needs at least one byte and must not leave the text.
        let end = d.place.span.end.min(d.place.text.len());
        let start = d.place.span.start.min(end);
        let snippet = Snippet::source(d.place.text.as_ref())
            .path(path.as_str())
            .annotation(
                AnnotationKind::Primary
                    .span(start..end)
                    .label(label.as_str()),
            );
        renderer.render(&[Level::ERROR.primary_title(title.as_str()).element(snippet)])
    };
    diagnostics
        .0
        .iter()
        .map(one)
        .collect::<Vec<_>>()
        .join("\n\n")
}
