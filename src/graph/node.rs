//! Nodes, parameters and the graph that owns them.

use serde::{Deserialize, Serialize};

/// Channels, height and width of one sample; a vector is `[f, 1, 1]`.
pub type Shape = [usize; 3];

/// Index of a node, and of the value that it yields.
pub type NodeId = usize;

/// What a parameter is; weight decay and learning rates go by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Weights of a convolution `[o, i / groups, kh, kw]` or of an affine layer `[o, i]`.
    Weight,
    /// Bias of either.
    Bias,
    /// Scale of a batch norm.
    Gamma,
    /// Shift of a batch norm.
    Beta,
}

/// A learned tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Name, unique in the graph.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Its shape.
    pub shape: Vec<usize>,
}

/// A batch norm's running statistics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Norm {
    /// Name of the node.
    pub name: String,
    /// Names of the means and of the variances in files of weights.
    pub entries: [String; 2],
    /// Channels.
    pub channels: usize,
}

/// How a kernel moves over a plane; axes are height and width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Extent of the kernel.
    pub kernel: [usize; 2],
    /// Step between outputs, at least 1.
    pub stride: [usize; 2],
    /// Step between taps, at least 1.
    pub dilation: [usize; 2],
    /// Zeros before and behind, by axis.
    pub padding: [[usize; 2]; 2],
    /// Whether a last window that reaches beyond the padded input counts (pooling alone).
    pub ceil: bool,
}

impl Window {
    /// A square kernel with padding on all sides alike.
    pub fn square(kernel: usize, stride: usize, padding: usize) -> Self {
        Self {
            kernel: [kernel; 2],
            stride: [stride; 2],
            dilation: [1; 2],
            padding: [[padding; 2]; 2],
            ceil: false,
        }
    }

    /// Padding where it is the same before and behind.
    pub fn symmetric_padding(&self) -> Option<[usize; 2]> {
        let [[top, bottom], [left, right]] = self.padding;
        (top == bottom && left == right).then_some([top, left])
    }
}

/// An elementwise function that is computed in float.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Function {
    /// 1 / (1 + exp(-x)).
    Sigmoid,
    /// max(0, min(1, alpha x + beta)).
    HardSigmoid {
        /// Slope.
        alpha: f32,
        /// Value at 0.
        beta: f32,
    },
    /// x max(0, min(1, x / 6 + 1 / 2)).
    HardSwish,
    /// x where it is positive, `slope` x elsewhere.
    LeakyRelu {
        /// Slope below 0.
        slope: f32,
    },
    /// Hyperbolic tangent.
    Tanh,
}

/// What a node computes. Shapes are those of one sample, `[c, h, w]`; a vector is `[f, 1, 1]`.
#[derive(Debug, Clone, PartialEq)]
pub enum Operation {
    /// The network's input.
    Input,
    /// Cross-correlation with `weight`, plus `bias` per channel.
    Convolution {
        /// Parameter `[o, c / groups, kh, kw]`.
        weight: usize,
        /// Parameter `[o]`.
        bias: Option<usize>,
        /// Kernel, stride, dilation and padding.
        window: Window,
        /// Groups of channels that do not mix.
        groups: usize,
    },
    /// Batch norm: `gamma (x - mean) / sqrt(variance + epsilon) + beta`.
    BatchNorm {
        /// Parameter `[c]`.
        gamma: usize,
        /// Parameter `[c]`.
        beta: usize,
        /// Running statistics.
        norm: usize,
        /// Added to the variance.
        epsilon: f32,
        /// Weight of the old value in the running statistics.
        momentum: f32,
    },
    /// `weight x + bias` of a vector.
    Affine {
        /// Parameter `[o, i]`.
        weight: usize,
        /// Parameter `[o]`.
        bias: Option<usize>,
    },
    /// min(max(x, low), high): ReLU is `[0, inf]`, ReLU6 `[0, 6]`.
    Clip {
        /// Lower bound.
        low: f32,
        /// Upper bound.
        high: f32,
    },
    /// Any other elementwise function.
    Function(Function),
    /// `scale x + shift`, numbers that are not learned, per channel or one for all.
    Scale {
        /// Factors.
        scale: Vec<f32>,
        /// Summands.
        shift: Vec<f32>,
    },
    /// Sum of two values of one shape.
    Add,
    /// Product of two values; the second may have one number per channel.
    Multiply,
    /// Channels behind one another.
    Concatenate,
    /// Largest value in each window.
    MaxPool(Window),
    /// Mean of each window.
    AveragePool {
        /// Kernel, stride and padding.
        window: Window,
        /// Whether zeros of the padding count.
        count_padding: bool,
    },
    /// Mean over all pixels of a channel, `[c, 1, 1]`.
    GlobalAverage,
    /// The same numbers in another shape.
    Reshape(Shape),
    /// Every `stride`-th pixel, `extra` channels of zeros behind: shortcut A of He et al.
    Subsample {
        /// Step between pixels.
        stride: usize,
        /// Channels of zeros.
        extra: usize,
    },
    /// Channels `[groups, c / groups]` transposed.
    Shuffle {
        /// Groups.
        groups: usize,
    },
    /// Channels `start..end`.
    Slice {
        /// First channel.
        start: usize,
        /// Behind the last.
        end: usize,
    },
    /// Zeros around.
    Pad {
        /// Before and behind, by axis.
        padding: [[usize; 2]; 2],
    },
}

impl Operation {
    /// ReLU.
    pub const RELU: Self = Self::Clip {
        low: 0.0,
        high: f32::INFINITY,
    };

    /// ReLU6.
    pub const RELU6: Self = Self::Clip {
        low: 0.0,
        high: 6.0,
    };

    /// Whether it is a nonlinearity in the paper's sense, after which activations are quantized.
    pub fn is_nonlinearity(&self) -> bool {
        matches!(self, Self::Clip { .. } | Self::Function(_))
    }

    /// Whether a value keeps its levels: what goes in quantized comes out on the same levels.
    pub fn keeps_levels(&self) -> bool {
        matches!(
            self,
            Self::MaxPool(_)
                | Self::Reshape(_)
                | Self::Subsample { .. }
                | Self::Shuffle { .. }
                | Self::Slice { .. }
                | Self::Pad { .. }
        )
    }

    /// In one word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Convolution { .. } => "convolution",
            Self::BatchNorm { .. } => "batch norm",
            Self::Affine { .. } => "affine",
            Self::Clip { low, high } if *low == 0.0 && *high == f32::INFINITY => "ReLU",
            Self::Clip { .. } => "clip",
            Self::Function(Function::Sigmoid) => "sigmoid",
            Self::Function(Function::HardSigmoid { .. }) => "hard sigmoid",
            Self::Function(Function::HardSwish) => "hard swish",
            Self::Function(Function::LeakyRelu { .. }) => "leaky ReLU",
            Self::Function(Function::Tanh) => "tanh",
            Self::Scale { .. } => "scale",
            Self::Add => "addition",
            Self::Multiply => "multiplication",
            Self::Concatenate => "concatenation",
            Self::MaxPool(_) => "max pooling",
            Self::AveragePool { .. } => "average pooling",
            Self::GlobalAverage => "global average",
            Self::Reshape(_) => "reshape",
            Self::Subsample { .. } => "subsample",
            Self::Shuffle { .. } => "channel shuffle",
            Self::Slice { .. } => "slice",
            Self::Pad { .. } => "padding",
        }
    }
}

/// One operation in the graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Name, unique in the graph.
    pub name: String,
    /// What it computes.
    pub operation: Operation,
    /// The values that it reads: nodes before it.
    pub inputs: Vec<NodeId>,
    /// Shape of what it yields, for one sample.
    pub shape: Shape,
}

impl Node {
    /// Elements of one sample.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A network without tensors. The last node yields the logits.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    /// In an order in which they can be computed; the first is the input.
    pub nodes: Vec<Node>,
    /// In network order.
    pub parameters: Vec<Parameter>,
    /// In network order.
    pub norms: Vec<Norm>,
}

/// Weight of the old value in running statistics, and what is added to variances.
pub(super) const MOMENTUM: f32 = 0.9;
pub(super) const EPSILON: f32 = 1e-5;
