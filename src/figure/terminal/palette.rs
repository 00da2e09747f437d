//! What a terminal can show: characters of lines, colours.

use ratatui::style::{Color, Modifier, Style};

use super::super::scene::Ink;
use super::super::theme::Theme;
use crate::graph::LayerKind;

/// Characters that lines are drawn with.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    serde::Serialize,
    serde::Deserialize,
    clap::ValueEnum,
)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Colours {
    /// 24 bits.
    True,
    /// xterm's 256: a cube of six shades of each primary, and 24 greys.
    #[value(name = "256")]
    Many,
    /// The sixteen of the terminal's own palette.
    #[value(name = "16")]
    Sixteen,
    /// No colour: line styles and characters carry the meaning.
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
            Colours::Many => {
                let (r, g, b) = self.theme.rgb(ink);
                let of_ramp = self.theme.indexed(ink);
                Some(Color::Indexed(
                    of_ramp.unwrap_or_else(|| nearest([r, g, b])),
                ))
            }
            Colours::Sixteen => Some(match ink {
                Ink::Series(n) => [Color::Cyan, Color::Yellow, Color::Green, Color::White][n % 4],
                Ink::Layer(n) => [
                    Color::Cyan,
                    Color::Yellow,
                    Color::Green,
                    Color::Magenta,
                    Color::Blue,
                    Color::White,
                ][n % 6],
                Ink::Overlay(n) => [
                    Color::LightMagenta,
                    Color::LightBlue,
                    Color::LightGreen,
                    Color::LightCyan,
                ][n % 4],
                Ink::Level(t) => [
                    Color::Magenta,
                    Color::Blue,
                    Color::Cyan,
                    Color::Green,
                    Color::Yellow,
                ][((t * 4.99) as usize).min(4)],
                Ink::Kind(kind) if kind.is_activation() => Color::Yellow,
                Ink::Kind(LayerKind::Affine) => Color::Magenta,
                Ink::Kind(LayerKind::Depthwise) => Color::Green,
                Ink::Kind(LayerKind::Pointwise) => Color::Blue,
                Ink::Kind(_) => Color::Cyan,
                Ink::Weights => Color::Cyan,
                Ink::Activations => Color::Yellow,
                Ink::Muted => Color::DarkGray,
                Ink::Budget => Color::Magenta,
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

/// Black or white, whichever is read on a colour.
pub(super) fn on(colour: Color) -> Color {
    let light = match colour {
        Color::Rgb(r, g, b) => {
            u32::from(r) * 2126 + u32::from(g) * 7152 + u32::from(b) * 722 > 1_150_000
        }
        Color::Indexed(i @ 16..232) => {
            let cube = u32::from(i - 16);
            let (r, g, b) = (cube / 36, cube / 6 % 6, cube % 6);
            r * 2126 + g * 7152 + b * 722 > 22_000
        }
        Color::Indexed(i) => i >= 244,
        Color::Magenta | Color::Blue | Color::DarkGray | Color::Black => false,
        _ => true,
    };
    if light { Color::Black } else { Color::White }
}

/// The nearest of xterm's 240 fixed colours, by the sum of squared differences.
fn nearest(rgb: [u8; 3]) -> u8 {
    /// Shades of the cube.
    const SHADES: [u8; 6] = [0, 95, 135, 175, 215, 255];
    let distance = |other: [u8; 3]| -> i32 {
        let pairs = rgb.iter().zip(other);
        pairs
            .map(|(a, b)| (i32::from(*a) - i32::from(b)).pow(2))
            .sum()
    };
    let closest = |v: u8| (0..6).min_by_key(|i| (i32::from(SHADES[*i]) - i32::from(v)).abs());
    let cube = rgb.map(|v| closest(v).unwrap_or(0));
    let mean = rgb.iter().map(|v| i32::from(*v)).sum::<i32>() / 3;
    let grey = ((mean - 3) / 10).clamp(0, 23);
    let shade = (8 + 10 * grey) as u8;
    if distance([shade; 3]) < distance(cube.map(|i| SHADES[i])) {
        return 232 + grey as u8;
    }
    let [r, g, b] = cube.map(|i| i as u8);
    16 + 36 * r + 6 * g + b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fixed_colour_is_nearest_to_itself() {
        for (rgb, index) in [
            ([0, 0, 0], 16),
            ([255, 255, 255], 231),
            ([255, 0, 0], 196),
            ([95, 135, 175], 67),
            ([8, 8, 8], 232),
            ([118, 118, 118], 243),
            ([238, 238, 238], 255),
            ([90, 140, 170], 67),
        ] {
            assert_eq!(nearest(rgb), index, "{rgb:?}");
        }
    }
}
