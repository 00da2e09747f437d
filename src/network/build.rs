//! From a model's name to its layers.

use burn::tensor::{Device, Tensor, TensorData};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};

use super::parameter::{Kind, Parameter, Running, Slot, leaf};
use super::{Around, Block, Classifier, Module, Network, StoredTensor, Unit, UnitActivation};
use super::{LayerKind, Model, Shortcut};
use crate::kernels::{Geometry, Moments};
use crate::quantizer::memory::{Multiplication, Role};
use crate::quantizer::{Quantizer, Rules};

/// One kind of quantizer (weights or activations) as the experiment file says.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizerPlan {
    /// The quantizer.
    pub quantizer: Quantizer,
    /// Parameters before any initialisation from data.
    pub parameters: [f64; 2],
}

/// How a network is quantized; `None` leaves that side in float.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantization {
    /// Weights and biases.
    pub weights: Option<QuantizerPlan>,
    /// Outputs of nonlinearities.
    pub activations: Option<QuantizerPlan>,
    /// Under the published code's rules a bias has a quantizer of its own; in the paper it shares
    /// its weight's.
    pub rules: Rules,
}

impl Network {
    /// A network with He-normal weights drawn from `rng`, for pictures `[3, size, size]`.
    pub fn build(
        model: Model,
        classes: usize,
        size: usize,
        quantization: &Quantization,
        device: &Device,
        rng: &mut impl Rng,
    ) -> Self {
        let mut builder = Builder {
            network: Network {
                parameters: Vec::new(),
                running: Vec::new(),
                slots: Vec::new(),
                quantized: quantization.weights.is_some() || quantization.activations.is_some(),
                modules: Vec::new(),
                classifier: Classifier {
                    weight: 0,
                    shape: [0, 0],
                    weight_slot: None,
                    bias: 0,
                    bias_slot: None,
                },
                stored: Vec::new(),
                multiplications: Vec::new(),
                moments: match quantization.rules {
                    Rules::Paper => Moments::Exact,
                    Rules::PublishedCode => Moments::Sequential,
                },
                device: device.clone(),
                rules: quantization.rules,
            },
            quantization,
            rng,
            channels: 3,
            size,
            input: None,
        };
        match model {
            Model::Glyphnet => builder.glyphnet(),
            Model::ResNet { depth, shortcut } => builder.resnet(depth, shortcut),
        }
        builder.classifier(classes);
        builder.network
    }
}

struct Builder<'a, R: Rng> {
    network: Network,
    quantization: &'a Quantization,
    rng: &'a mut R,
    /// Channels and extent of what the next unit sees.
    channels: usize,
    size: usize,
    /// The stored activation that the next unit reads.
    input: Option<usize>,
}

/// One unit to be added.
struct UnitPlan {
    name: String,
    output: usize,
    kernel: usize,
    stride: usize,
    /// Name of the nonlinearity, if one follows.
    relu: Option<String>,
}

impl<R: Rng> Builder<'_, R> {
    fn glyphnet(&mut self) {
        for (i, (output, stride)) in [(16, 2), (32, 2), (32, 1), (64, 2)].into_iter().enumerate() {
            let unit = self.unit(UnitPlan {
                name: format!("conv{}", i + 1),
                output,
                kernel: 3,
                stride,
                relu: Some(format!("relu{}", i + 1)),
            });
            self.network.modules.push(Module::Unit(unit));
        }
    }

    fn resnet(&mut self, depth: usize, shortcut: Shortcut) {
        let stem = self.unit(UnitPlan {
            name: "stem".into(),
            output: 16,
            kernel: 3,
            stride: 1,
            relu: Some("stem.relu".into()),
        });
        self.network.modules.push(Module::Unit(stem));
        for (stage, output) in [16, 32, 64].into_iter().enumerate() {
            for index in 0..(depth - 2) / 6 {
                let stride = if stage > 0 && index == 0 { 2 } else { 1 };
                let name = format!("s{}.b{}", stage + 1, index + 1);
                self.block(&name, output, stride, shortcut);
            }
        }
    }

    fn block(&mut self, name: &str, output: usize, stride: usize, shortcut: Shortcut) {
        let (channels, size, input) = (self.channels, self.size, self.input);
        let same_shape = channels == output && stride == 1;
        let first = self.unit(UnitPlan {
            name: format!("{name}.conv1"),
            output,
            kernel: 3,
            stride,
            relu: Some(format!("{name}.relu1")),
        });
        let second = self.unit(UnitPlan {
            name: format!("{name}.conv2"),
            output,
            kernel: 3,
            stride: 1,
            relu: Some(format!("{name}.relu2")),
        });
        let after = (self.channels, self.size, self.input);
        let around = match (shortcut, same_shape) {
            (Shortcut::A | Shortcut::B, true) => Around::Identity,
            (Shortcut::A, false) => Around::Subsample {
                stride,
                extra: output - channels,
            },
            (Shortcut::B, false) | (Shortcut::C, _) => {
                (self.channels, self.size, self.input) = (channels, size, input);
                Around::Projection(Box::new(self.unit(UnitPlan {
                    name: format!("{name}.shortcut"),
                    output,
                    kernel: 1,
                    stride,
                    relu: None,
                })))
            }
        };
        (self.channels, self.size, self.input) = after;
        self.network.modules.push(Module::Block(Box::new(Block {
            first,
            second,
            around,
        })));
    }

    fn unit(&mut self, plan: UnitPlan) -> Unit {
        let UnitPlan {
            name,
            output,
            kernel,
            stride,
            relu,
        } = plan;
        let geometry = Geometry {
            stride,
            padding: kernel / 2,
            groups: 1,
            in_order: self.quantization.rules == Rules::PublishedCode,
        };
        let weight_shape = [output, self.channels, kernel, kernel];
        let kind = LayerKind::of_convolution(weight_shape, geometry.groups);
        let elements: usize = weight_shape.iter().product();
        let fan_in = self.channels * kernel * kernel;
        let weight = self.normal(format!("{name}.weight"), &weight_shape, fan_in);
        let weight_slot = self.slot(&name, Role::Weight, kind, elements);
        let stored_weight = self.store(Role::Weight, elements, weight_slot);
        let gamma = self.constant(format!("{name}.gamma"), Kind::Gamma, output, 1.0);
        let beta = self.constant(format!("{name}.beta"), Kind::Beta, output, 0.0);
        let running = self.running(&name, output);
        let side = geometry.output(self.size, kernel);
        self.network.multiplications.push(Multiplication {
            macs: (side * side * elements) as u64,
            weight: Some(stored_weight),
            activation: self.input,
        });
        self.channels = output;
        self.size = side;
        let activation = match relu {
            None => UnitActivation::Identity,
            Some(relu) => {
                let elements = output * side * side;
                let slot = self.slot(&relu, Role::Activation, LayerKind::Nonlinearity, elements);
                self.input = Some(self.store(Role::Activation, elements, slot));
                UnitActivation::Relu(slot)
            }
        };
        Unit {
            weight,
            weight_shape,
            weight_slot,
            geometry,
            gamma,
            beta,
            running,
            activation,
        }
    }

    fn classifier(&mut self, classes: usize) {
        let shape = [classes, self.channels];
        let weight = self.normal("classifier.weight".into(), &shape, self.channels);
        let bias = self.constant("classifier.bias".into(), Kind::Bias, classes, 0.0);
        let weight_slot = self.slot(
            "classifier",
            Role::Weight,
            LayerKind::Affine,
            classes * self.channels,
        );
        let bias_slot = match self.quantization.rules {
            Rules::Paper => weight_slot,
            Rules::PublishedCode => self.slot("classifier", Role::Bias, LayerKind::Affine, classes),
        };
        let stored = self.store(Role::Weight, classes * self.channels, weight_slot);
        self.store(Role::Bias, classes, bias_slot);
        self.network.multiplications.push(Multiplication {
            macs: (classes * self.channels) as u64,
            weight: Some(stored),
            activation: self.input,
        });
        self.network.classifier = Classifier {
            weight,
            shape,
            weight_slot,
            bias,
            bias_slot,
        };
    }

    fn normal(&mut self, name: String, shape: &[usize], fan_in: usize) -> usize {
        let deviation = (2.0 / fan_in as f64).sqrt();
        let elements: usize = shape.iter().product();
        let draw = |rng: &mut R| -> f64 { StandardNormal.sample(rng) };
        let values = (0..elements)
            .map(|_| (draw(self.rng) * deviation) as f32)
            .collect();
        self.parameter(name, Kind::Weight, shape.to_vec(), values)
    }

    fn constant(&mut self, name: String, kind: Kind, elements: usize, value: f32) -> usize {
        self.parameter(name, kind, vec![elements], vec![value; elements])
    }

    fn parameter(
        &mut self,
        name: String,
        kind: Kind,
        shape: Vec<usize>,
        values: Vec<f32>,
    ) -> usize {
        let value = leaf(values, &self.network.device);
        self.network.parameters.push(Parameter {
            name,
            kind,
            shape,
            value,
        });
        self.network.parameters.len() - 1
    }

    fn running(&mut self, name: &str, channels: usize) -> usize {
        let values = [vec![0f32; channels], vec![1f32; channels]].concat();
        let data = TensorData::new(values, [2, channels]);
        let statistics = Tensor::<2>::from_data(data, &self.network.device.clone().inner());
        self.network.running.push(Running {
            name: name.to_owned(),
            statistics,
        });
        self.network.running.len() - 1
    }

    fn slot(&mut self, name: &str, role: Role, kind: LayerKind, elements: usize) -> Option<usize> {
        let plan = match role {
            Role::Weight | Role::Bias => self.quantization.weights.as_ref(),
            Role::Activation => self.quantization.activations.as_ref(),
        }?;
        self.network.slots.push(Slot::new(
            name.to_owned(),
            role,
            kind,
            elements,
            plan.quantizer.clone(),
            plan.parameters,
            &self.network.device,
        ));
        Some(self.network.slots.len() - 1)
    }

    fn store(&mut self, role: Role, elements: usize, slot: Option<usize>) -> usize {
        self.network.stored.push(StoredTensor {
            role,
            elements,
            slot,
        });
        self.network.stored.len() - 1
    }
}
