//! What lies over the page, one upon the other. The top one takes the keys.

use super::super::preview::Preview;
use super::Overlay;

/// What is being typed, and which completion is chosen.
#[derive(Debug, Clone, Default)]
pub(in crate::tui) struct Typed {
    pub text: String,
    pub chosen: usize,
}

/// Begins the commands that write a network for other programs.
pub(in crate::tui) const EXPORT: &str = "export network ";

/// One of them.
pub(in crate::tui) enum Layer {
    /// Help, what is wrong with the experiment file, or a question.
    Overlay(Overlay),
    /// A filter that is being typed.
    Filter(String),
    /// The command palette.
    Palette(Typed),
    /// An exported picture.
    Preview(Preview),
}

impl Layer {
    /// Its height. A line that is being typed stays above a question that comes meanwhile: no letter of it
    /// shall be the answer.
    fn height(&self) -> u8 {
        match self {
            Self::Overlay(_) => 0,
            Self::Filter(_) => 1,
            Self::Palette(_) => 2,
            Self::Preview(_) => 3,
        }
    }
}

/// All of them, the lowest first: at most one of each kind.
#[derive(Default)]
pub(in crate::tui) struct Layers(Vec<Layer>);

/// Access to the layer of one kind.
macro_rules! layer {
    ($kind:ident, $type:ty, $get:ident, $take:ident) => {
        pub(in crate::tui) fn $get(&self) -> Option<&$type> {
            self.0.iter().find_map(|layer| match layer {
                Layer::$kind(value) => Some(value),
                _ => None,
            })
        }

        /// Takes it away.
        pub(super) fn $take(&mut self) -> Option<$type> {
            let at = self.0.iter().position(|l| matches!(l, Layer::$kind(_)))?;
            match self.0.remove(at) {
                Layer::$kind(value) => Some(value),
                _ => None,
            }
        }
    };
}

impl Layers {
    layer!(Overlay, Overlay, overlay, take_overlay);
    layer!(Filter, String, filter, take_filter);
    layer!(Palette, Typed, palette, take_palette);
    layer!(Preview, Preview, preview, take_preview);

    pub(super) fn filter_mut(&mut self) -> Option<&mut String> {
        self.0.iter_mut().find_map(|layer| match layer {
            Layer::Filter(text) => Some(text),
            _ => None,
        })
    }

    pub(super) fn palette_mut(&mut self) -> Option<&mut Typed> {
        self.0.iter_mut().find_map(|layer| match layer {
            Layer::Palette(palette) => Some(palette),
            _ => None,
        })
    }

    /// Puts one where it belongs, in place of one of its kind.
    pub(in crate::tui) fn put(&mut self, layer: Layer) {
        self.0.retain(|l| l.height() != layer.height());
        let at = self.0.partition_point(|l| l.height() < layer.height());
        self.0.insert(at, layer);
    }

    /// The one that takes the keys.
    pub(super) fn top(&self) -> Option<&Layer> {
        self.0.last()
    }
}
