//! What a terminal can show: characters of lines, colours.

use ratatui::style::{Color, Modifier, Style};

use super::super::scene::Ink;
use super::super::theme::Theme;
use crate::graph::LayerKind;

/// Characters that lines are drawn with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Marker {
    /// 2 x 4 dots per cell.
    #[default]
    Braille,
    /// 2 x 4 filled octants per cell, for fonts that have them (Unicode 16).
    Octant,
    /// 2 x 2 quadrants per cell.
    Block,
    /// One ASCII character per cell, another for each series.
    Ascii,
}

impl Marker {
    pub(super) fn dots(self) -> (usize, usize) {
        match self {
            Self::Braille | Self::Octant => (2, 4),
            Self::Block => (2, 2),
            Self::Ascii => (1, 1),
        }
    }
}

/// How many colours the terminal has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colours {
    /// 24 bit.
    True,
    /// The sixteen of the terminal's own palette.
    Sixteen,
    /// None: line styles and characters carry the meaning.
    None,
}

/// Inks as styles of this terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Palette {
    /// What the terminal can show.
    pub colours: Colours,
    /// Background.
    pub theme: Theme,
    /// Line characters.
    pub marker: Marker,
}

impl Default for Palette {
    fn default() -> Self {
        Self {
            colours: Colours::True,
            theme: Theme::Dark,
            marker: Marker::Braille,
        }
    }
}

impl Palette {
    /// The style of an ink.
    pub fn style(&self, ink: Ink) -> Style {
        match self.colour(ink) {
            Some(colour) => Style::new().fg(colour),
            None => match ink {
                Ink::Muted => Style::new().add_modifier(Modifier::DIM),
                Ink::Budget => Style::new().add_modifier(Modifier::BOLD),
                _ => Style::new(),
            },
        }
    }

    /// What marks a height on a bar.
    pub(super) fn bar_mark(&self) -> &'static str {
        match self.marker {
            Marker::Ascii => "*",
            _ => "◆",
        }
    }

    /// The colour of an ink, where the terminal has colours.
    pub fn colour(&self, ink: Ink) -> Option<Color> {
        match self.colours {
            Colours::None => None,
            Colours::True => {
                let (r, g, b) = self.theme.rgb(ink);
                Some(Color::Rgb(r, g, b))
            }
            Colours::Sixteen => Some(match ink {
                Ink::Series(n) => [
                    Color::Blue,
                    Color::Yellow,
                    Color::Red,
                    Color::Green,
                    Color::Magenta,
                ][n % 5],
                Ink::Depth(t) => [
                    Color::Magenta,
                    Color::Blue,
                    Color::Cyan,
                    Color::Green,
                    Color::Yellow,
                ][((t * 4.99) as usize).min(4)],
                Ink::Kind(kind) => match kind {
                    LayerKind::Convolution => Color::Cyan,
                    LayerKind::Nonlinearity
                    | LayerKind::Input
                    | LayerKind::Addition
                    | LayerKind::Pooling
                    | LayerKind::Concatenation
                    | LayerKind::Linear => Color::Yellow,
                    LayerKind::Affine => Color::Magenta,
                    LayerKind::Depthwise => Color::Green,
                    LayerKind::Pointwise => Color::Blue,
                },
                Ink::Weights => Color::Cyan,
                Ink::Activations => Color::Yellow,
                Ink::Muted => Color::DarkGray,
                Ink::Budget => Color::Red,
                Ink::Bits(b) => match b.round() as i32 {
                    ..=1 => Color::Magenta,
                    2 => Color::Blue,
                    3 => Color::Cyan,
                    4 => Color::Green,
                    5 => Color::LightGreen,
                    6 => Color::Yellow,
                    7 => Color::LightYellow,
                    _ => Color::White,
                },
                Ink::Text => Color::Reset,
            }),
        }
    }
}
