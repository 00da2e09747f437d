//! One quantizer's part of a history.

use std::ops::Index;

use serde::{Deserialize, Serialize};

use crate::quantizer::Quantizer;
use crate::quantizer::memory::Role;
use crate::run::event::{LayerInfo, LayerRecord};
use crate::run::quantity::{LayerQuantity, LayerSeries, OF_LAYER, Table};
use crate::run::series::Series;

/// Everything recorded of one quantizer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LayerHistory {
    /// Name, role, size, parametrization.
    pub info: LayerInfo,
    /// That of the info, which is not written with it.
    pub(super) quantizer: Option<Quantizer>,
    pub(super) series: Table<LayerSeries>,
    /// Newest record.
    pub newest: Option<LayerRecord>,
}

impl LayerHistory {
    pub(crate) fn new(info: LayerInfo) -> Self {
        Self {
            quantizer: info.quantizer.clone(),
            info,
            series: Table::default(),
            newest: None,
        }
    }

    pub(super) fn push(&mut self, step: u64, r: &LayerRecord) {
        for (quantity, of) in OF_LAYER {
            // The norm of an activation's gradient is not measured.
            if quantity != LayerQuantity::GradientNorm || self.info.role != Role::Activation {
                self.series[quantity].push(step, of(r) as f32);
            }
        }
        self.newest = Some(*r);
    }

    /// What was recorded at the newest record up to `step`. Gradients are magnitudes there.
    pub fn at(&self, step: u64) -> Option<LayerRecord> {
        let at = |quantity| self.series[quantity].at(step);
        let value = |quantity| at(quantity).unwrap_or(f32::NAN);
        Some(LayerRecord {
            d: at(LayerQuantity::StepSize)?,
            q_max: value(LayerQuantity::Range),
            bitwidth: value(LayerQuantity::Bitwidth),
            gradients: [
                value(LayerQuantity::FirstGradient),
                value(LayerQuantity::SecondGradient),
            ],
            clipped: value(LayerQuantity::Clipped),
            zeros: value(LayerQuantity::Zeros),
            grad_norm: value(LayerQuantity::GradientNorm),
            weight_norm: f32::NAN,
        })
    }

    /// All series.
    pub fn series(&self) -> &[Series] {
        &self.series.0
    }
}

impl Index<LayerQuantity> for LayerHistory {
    type Output = Series;

    fn index(&self, quantity: LayerQuantity) -> &Series {
        &self.series[quantity]
    }
}
