//! Colours of figures and screen, from the files in `assets/themes`.

use std::sync::OnceLock;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::scene::Ink;
use crate::graph::LayerKind;

/// A set of colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Theme {
    /// Dark ink on white, for paper.
    #[default]
    Light,
    /// Light ink on dark.
    Dark,
    /// White on black.
    HighContrast,
    /// Safe for eyes that do not tell red from green.
    RedGreenSafe,
    /// Safe for eyes that do not tell blue from yellow.
    BlueYellowSafe,
}

/// Red, green and blue.
pub type Rgb = (u8, u8, u8);

impl Theme {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Light,
        Self::Dark,
        Self::HighContrast,
        Self::RedGreenSafe,
        Self::BlueYellowSafe,
    ];

    /// As on the command line.
    pub fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |v| v.get_name().to_owned())
    }

    /// The theme of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.name() == name)
    }

    fn colours(self) -> &'static Colours {
        static ALL: [OnceLock<Colours>; Theme::ALL.len()] = [const { OnceLock::new() }; 5];
        let text = match self {
            Self::Light => include_str!("../../assets/themes/light.toml"),
            Self::Dark => include_str!("../../assets/themes/dark.toml"),
            Self::HighContrast => include_str!("../../assets/themes/high-contrast.toml"),
            Self::RedGreenSafe => include_str!("../../assets/themes/red-green-safe.toml"),
            Self::BlueYellowSafe => include_str!("../../assets/themes/blue-yellow-safe.toml"),
        };
        ALL[self as usize].get_or_init(|| {
            // A test reads all five: what is embedded is valid.
            toml::from_str(text).unwrap_or_else(|e| unreachable!("{}: {e}", self.name()))
        })
    }

    /// What everything is painted on.
    pub fn background(self) -> Rgb {
        self.colours().background.0
    }

    /// An ink as a colour.
    pub fn rgb(self, ink: Ink) -> Rgb {
        let c = self.colours();
        match ink {
            Ink::Series(n) => c.series[n % c.series.len()].0,
            Ink::Layer(n) => c.layers[n % c.layers.len()].0,
            Ink::Overlay(n) => c.overlays[n % c.overlays.len()].0,
            Ink::Level(t) => ramp(&c.ramp, t),
            Ink::Kind(kind) if kind.is_activation() => c.activations.0,
            Ink::Kind(LayerKind::Affine) => c.layers[4].0,
            Ink::Kind(LayerKind::Depthwise) => c.layers[2].0,
            Ink::Kind(LayerKind::Pointwise) => c.layers[5].0,
            Ink::Kind(_) => c.weights.0,
            Ink::Weights => c.weights.0,
            Ink::Activations => c.activations.0,
            Ink::Muted => c.muted.0,
            Ink::Budget => c.budget.0,
            Ink::Bits(b) => ramp(&c.ramp, (b - 1.0) / 8.0),
            Ink::Text => c.text.0,
        }
    }

    /// An ink of the ramp as one of xterm's 256 colours: the nearest ones of its ends would be alike.
    pub fn indexed(self, ink: Ink) -> Option<u8> {
        let ramp = &self.colours().ramp_256;
        let last = (ramp.len() - 1) as f32;
        let place = match ink {
            Ink::Level(t) => t * last,
            Ink::Bits(b) => b - 1.0,
            _ => return None,
        };
        Some(ramp[place.clamp(0.0, last).round() as usize])
    }
}

/// A theme's file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Colours {
    background: Hex,
    text: Hex,
    muted: Hex,
    budget: Hex,
    weights: Hex,
    activations: Hex,
    series: [Hex; 4],
    layers: [Hex; 8],
    overlays: [Hex; 4],
    ramp: [Hex; 5],
    ramp_256: [u8; 9],
}

/// `#rrggbb`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
struct Hex(Rgb);

impl TryFrom<String> for Hex {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let number = text
            .strip_prefix('#')
            .filter(|digits| digits.len() == 6)
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .ok_or_else(|| format!("\"{text}\" is not a colour; expected \"#rrggbb\""))?;
        let [_, r, g, b] = number.to_be_bytes();
        Ok(Self((r, g, b)))
    }
}

/// Between the stops, evenly.
fn ramp(stops: &[Hex; 5], t: f32) -> Rgb {
    let position = t.clamp(0.0, 1.0) * (stops.len() - 1) as f32;
    let index = (position as usize).min(stops.len() - 2);
    let (a, b, u) = (stops[index].0, stops[index + 1].0, position - index as f32);
    let mix = |a: u8, b: u8| (f32::from(a) + (f32::from(b) - f32::from(a)) * u) as u8;
    (mix(a.0, b.0), mix(a.1, b.1), mix(a.2, b.2))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative luminance (ITU-R BT.709, without gamma: enough to order).
    fn lightness((r, g, b): Rgb) -> f32 {
        0.2126 * f32::from(r) + 0.7152 * f32::from(g) + 0.0722 * f32::from(b)
    }

    #[test]
    fn every_theme_is_read_and_its_text_stands_out() {
        for theme in Theme::ALL {
            let contrast = lightness(theme.rgb(Ink::Text)) - lightness(theme.background());
            assert!(contrast.abs() > 150.0, "{}: {contrast}", theme.name());
            assert_eq!(Theme::from_name(&theme.name()), Some(theme));
        }
    }

    /// Red says that something is wrong: no line, layer, budget or run has it.
    #[test]
    fn red_belongs_to_alarms_alone() {
        for theme in Theme::ALL {
            let layers = (0..8).map(Ink::Layer).chain((0..4).map(Ink::Series));
            let rest = (0..4).map(Ink::Overlay).chain([Ink::Budget, Ink::Weights]);
            for ink in layers.chain(rest) {
                let (r, g, b) = theme.rgb(ink);
                let red = r > 180 && g < 100 && b < 100;
                assert!(!red, "{} {ink:?}", theme.name());
            }
        }
    }

    /// A run drawn behind has a colour that nothing else has.
    #[test]
    fn overlays_have_colours_of_their_own() {
        for theme in Theme::ALL {
            for overlay in (0..4).map(Ink::Overlay) {
                for other in (0..8).map(Ink::Layer).chain((0..4).map(Ink::Series)) {
                    assert_ne!(theme.rgb(overlay), theme.rgb(other), "{}", theme.name());
                }
            }
        }
    }

    /// Of the cube of xterm's 256 colours and its greys.
    fn indexed(index: u8) -> Rgb {
        const LEVELS: [u8; 6] = [0, 95, 135, 175, 215, 255];
        match index.checked_sub(232) {
            Some(grey) => (8 + 10 * grey, 8 + 10 * grey, 8 + 10 * grey),
            None => {
                let at = usize::from(index - 16);
                (LEVELS[at / 36], LEVELS[at / 6 % 6], LEVELS[at % 6])
            }
        }
    }

    #[test]
    fn ramps_of_256_colours_rise_too_and_no_two_are_alike() {
        for theme in Theme::ALL {
            let indices = (1..=9).map(|b| theme.indexed(Ink::Bits(b as f32)));
            let indices: Vec<u8> = indices.flatten().collect();
            assert_eq!(indices.len(), 9);
            for (at, index) in indices.iter().enumerate() {
                let level = Ink::Level(at as f32 / 8.0);
                assert_eq!(theme.indexed(level), Some(*index));
            }
            let light = indices.iter().map(|i| indexed(*i));
            let light: Vec<f32> = light.map(lightness).collect();
            let rises = light.windows(2).all(|w| w[1] > w[0]);
            assert!(rises, "{}: {indices:?} {light:?}", theme.name());
        }
    }

    #[test]
    fn ramps_rise_in_lightness_so_that_bitwidths_are_told_apart_without_hue() {
        for theme in Theme::ALL {
            let steps: Vec<f32> = (0..5)
                .map(|i| lightness(theme.rgb(Ink::Level(i as f32 / 4.0))))
                .collect();
            assert!(
                steps.windows(2).all(|w| w[1] > w[0]),
                "{}: {steps:?}",
                theme.name()
            );
        }
    }
}
