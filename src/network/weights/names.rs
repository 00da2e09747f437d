//! Names and layouts of other programs' weights.
//!
//! | this project | published code (nnabla) | layout there |
//! |---|---|---|
//! | `stem.weight` | `conv1/quantized_conv/W` | o, i, h, w |
//! | `sI.bJ.convK.weight` | `resI/layerJ/basicblockK/quantized_conv/W` | o, i, h, w |
//! | `....gamma`, `beta`, `mean`, `var` | `.../bn/gamma`, `beta`, `mean`, `var` | 1, c, 1, 1 |
//! | `classifier.weight` | `fc/quantized_affine/W` | i, o (transposed) |
//! | `classifier.bias` | `fc/quantized_affine/b` | o |
//!
//! `resnet18`, `resnet34`, `resnet50` and `mobilenet_v2` have torchvision's names; timm's residual
//! networks have the same, its MobileNetV2 is translated:
//!
//! | torchvision | timm |
//! |---|---|
//! | `features.0.0`, `features.0.1` | `conv_stem`, `bn1` |
//! | `features.1.conv.0.0`, `.0.1`, `.1`, `.2` | `blocks.0.0.conv_dw`, `bn1`, `conv_pw`, `bn2` |
//! | `features.N.conv.0.0`, `.0.1`, `.1.0`, `.1.1`, `.2`, `.3` | `blocks.I.J.conv_pw`, `bn1`, `conv_dw`, `bn2`, `conv_pwl`, `bn3` |
//! | `features.18.0`, `features.18.1` | `conv_head`, `bn2` |
//! | `classifier.1` | `classifier` |
//!
//! A prefix `module.` (of networks that were trained on several devices) is passed over.

/// A tensor: shape and row-major values.
type Tensor = (Vec<usize>, Vec<f32>);

/// A tensor under the name and in the layout that the network has, where it is known.
pub(super) fn translate(
    name: &str,
    tensor: Tensor,
    known: &impl Fn(&str) -> bool,
) -> (String, Tensor) {
    if known(name) {
        return (name.to_owned(), tensor);
    }
    let plain = name.strip_prefix("module.").unwrap_or(name);
    if known(plain) {
        return (plain.to_owned(), tensor);
    }
    match timm(plain).filter(|name| known(name)) {
        Some(name) => (name, tensor),
        None => published(name, tensor),
    }
}

/// Blocks of each stage of MobileNetV2.
const STAGES: [usize; 7] = [1, 2, 3, 4, 3, 3, 1];

/// timm's name of a tensor of MobileNetV2 to torchvision's.
fn timm(name: &str) -> Option<String> {
    let (layer, entry) = name.rsplit_once('.')?;
    let layer = match layer {
        "conv_stem" => "features.0.0".to_owned(),
        "bn1" => "features.0.1".to_owned(),
        "conv_head" => "features.18.0".to_owned(),
        "bn2" => "features.18.1".to_owned(),
        "classifier" => "classifier.1".to_owned(),
        other => {
            let mut parts = other.strip_prefix("blocks.")?.splitn(3, '.');
            let stage: usize = parts.next()?.parse().ok()?;
            let block: usize = parts.next()?.parse().ok()?;
            let part = parts.next()?;
            let number = 1 + STAGES.get(..stage)?.iter().sum::<usize>() + block;
            let place = match (stage, part) {
                (0, "conv_dw") => "0.0",
                (0, "bn1") => "0.1",
                (0, "conv_pw") => "1",
                (0, "bn2") => "2",
                (_, "conv_pw") => "0.0",
                (_, "bn1") => "0.1",
                (_, "conv_dw") => "1.0",
                (_, "bn2") => "1.1",
                (_, "conv_pwl") => "2",
                (_, "bn3") => "3",
                _ => return None,
            };
            format!("features.{number}.conv.{place}")
        }
    };
    Some(format!("{layer}.{entry}"))
}

/// The published code's names and layouts to this project's.
fn published(
    name: &str,
    (shape, values): (Vec<usize>, Vec<f32>),
) -> (String, (Vec<usize>, Vec<f32>)) {
    let Some((layer, entry)) = layer_of(name) else {
        return (name.to_owned(), (shape, values));
    };
    let entry = match entry {
        "quantized_conv/W" => "weight",
        "quantized_affine/W" => {
            let transposed = transpose(&shape, &values);
            return (format!("{layer}.weight"), transposed);
        }
        "quantized_affine/b" => "bias",
        other => other.strip_prefix("bn/").unwrap_or(other),
    };
    (format!("{layer}.{entry}"), (shape, values))
}

/// `res2/layer1/basicblock2/bn/beta` to (`s2.b1.conv2`, `bn/beta`).
fn layer_of(name: &str) -> Option<(String, &str)> {
    if let Some(entry) = name.strip_prefix("conv1/") {
        return Some(("stem".into(), entry));
    }
    if let Some(entry) = name.strip_prefix("fc/") {
        return Some(("classifier".into(), entry));
    }
    let mut parts = name.splitn(4, '/');
    let stage = parts.next()?.strip_prefix("res")?;
    let block = parts.next()?.strip_prefix("layer")?;
    let unit = parts.next()?.strip_prefix("basicblock")?;
    Some((format!("s{stage}.b{block}.conv{unit}"), parts.next()?))
}

pub(super) fn transpose(shape: &[usize], values: &[f32]) -> (Vec<usize>, Vec<f32>) {
    let [rows, columns] = shape else {
        return (shape.to_vec(), values.to_vec());
    };
    let transposed = (0..*columns)
        .flat_map(|c| (0..*rows).map(move |r| values[r * columns + c]))
        .collect();
    (vec![*columns, *rows], transposed)
}
