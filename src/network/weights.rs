//! Weights by name, as safetensors: this project's names and those of the published code.
//!
//! | this project | published code (nnabla) | layout there |
//! |---|---|---|
//! | `stem.weight` | `conv1/quantized_conv/W` | o, i, h, w |
//! | `sI.bJ.convK.weight` | `resI/layerJ/basicblockK/quantized_conv/W` | o, i, h, w |
//! | `....gamma`, `beta`, `mean`, `var` | `.../bn/gamma`, `beta`, `mean`, `var` | 1, c, 1, 1 |
//! | `classifier.weight` | `fc/quantized_affine/W` | i, o (transposed) |
//! | `classifier.bias` | `fc/quantized_affine/b` | o |
//!
//! `.../Asize` entries of the published code are counts, not weights, and are passed over.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{Tensor, TensorData};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::parameter::{leaf, read};
use super::{Kind, Network};

/// Tensors by name: shape and row-major values.
pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Why weights could not be taken over.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no safetensors file, or holds another type.
    #[error("{path}: {found}; expected a safetensors file of f32 tensors")]
    Format {
        /// Which file.
        path: PathBuf,
        /// What is there.
        found: String,
    },
    /// Tensors do not fit the network.
    #[error("{path}: the tensors do not fit the network\n{report}")]
    Misfit {
        /// Which file.
        path: PathBuf,
        /// What is missing, extra or of another shape.
        report: Report,
    },
}

/// How a file's tensors fit a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Tensors taken over.
    pub loaded: usize,
    /// Names that the network has and the file has not.
    pub missing: Vec<String>,
    /// Names that the file has and the network has not.
    pub extra: Vec<String>,
    /// Names whose shapes differ, with both.
    pub reshaped: Vec<String>,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} tensors loaded", self.loaded)?;
        for (what, names) in [
            ("missing", &self.missing),
            ("extra", &self.extra),
            ("other shape", &self.reshaped),
        ] {
            if !names.is_empty() {
                write!(f, "\n{what}: {}", names.join(", "))?;
            }
        }
        Ok(())
    }
}

/// Reads every f32 tensor of a file.
///
/// # Errors
/// Where the file cannot be read or is no safetensors file.
pub fn read_file(path: &Path) -> Result<Tensors, WeightsError> {
    let bytes = std::fs::read(path).map_err(|source| WeightsError::Io {
        path: path.to_owned(),
        source,
    })?;
    parse(path, &bytes)
}

/// Every f32 tensor of a file's bytes.
///
/// # Errors
/// Where they are no safetensors file.
pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Tensors, WeightsError> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| WeightsError::Format {
        path: path.to_owned(),
        found: e.to_string(),
    })?;
    let mut tensors = Tensors::new();
    for (name, view) in file.tensors() {
        if view.dtype() == Dtype::F32 {
            tensors.insert(name, (view.shape().to_vec(), floats(view.data())));
        }
    }
    Ok(tensors)
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().expect("chunks of four")))
        .collect()
}

/// A safetensors file of f32 tensors with text metadata.
///
/// # Errors
/// Where a tensor's shape is not that of its values.
pub fn to_bytes(
    tensors: &Tensors,
    metadata: std::collections::HashMap<String, String>,
) -> std::io::Result<Vec<u8>> {
    let bytes: BTreeMap<&String, (Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, (shape, values))| {
            let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            (name, (shape.clone(), bytes))
        })
        .collect();
    let invalid =
        |e: safetensors::SafeTensorError| std::io::Error::new(std::io::ErrorKind::InvalidData, e);
    let mut views = Vec::with_capacity(bytes.len());
    for (name, (shape, bytes)) in &bytes {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(invalid)?;
        views.push((name.as_str(), view));
    }
    safetensors::serialize(views, Some(metadata)).map_err(invalid)
}

impl Network {
    /// Every weight and running statistic by name.
    pub fn weights(&self) -> Tensors {
        let mut tensors = Tensors::new();
        for p in &self.parameters {
            tensors.insert(p.name.clone(), (p.shape.clone(), p.to_vec()));
        }
        for r in &self.running {
            let values = read(r.statistics.clone());
            let (mean, variance) = values.split_at(values.len() / 2);
            tensors.insert(
                format!("{}.mean", r.name),
                (vec![mean.len()], mean.to_vec()),
            );
            tensors.insert(
                format!("{}.var", r.name),
                (vec![mean.len()], variance.to_vec()),
            );
        }
        tensors
    }

    /// Takes over weights by name; `ignored` names are passed over.
    ///
    /// # Errors
    /// Where a name is missing, extra or of another shape: all of them, and nothing is changed.
    pub fn load_weights(&mut self, path: &Path, tensors: Tensors) -> Result<Report, WeightsError> {
        let mut tensors: Tensors = tensors
            .into_iter()
            .filter(|(name, _)| !name.ends_with("/Asize"))
            .map(|(name, tensor)| translate(name, tensor))
            .collect();
        let mut report = Report::default();
        let current = self.weights();
        for (name, (shape, _)) in &current {
            match tensors.get(name) {
                None => report.missing.push(name.clone()),
                Some((found, _)) if squeezed(found) != squeezed(shape) => {
                    report
                        .reshaped
                        .push(format!("{name} {found:?}, expected {shape:?}"));
                }
                Some(_) => report.loaded += 1,
            }
        }
        report.extra = tensors
            .keys()
            .filter(|n| !current.contains_key(*n))
            .cloned()
            .collect();
        if !(report.missing.is_empty() && report.extra.is_empty() && report.reshaped.is_empty()) {
            return Err(WeightsError::Misfit {
                path: path.to_owned(),
                report,
            });
        }
        let mut take = |name: &str| tensors.remove(name).expect("checked above").1;
        for p in &mut self.parameters {
            p.value = leaf(take(&p.name), &self.device);
        }
        for r in &mut self.running {
            let values = [
                take(&format!("{}.mean", r.name)),
                take(&format!("{}.var", r.name)),
            ];
            let channels = values[0].len();
            let data = TensorData::new(values.concat(), [2, channels]);
            r.statistics = Tensor::from_data(data, &self.device.clone().inner());
        }
        Ok(report)
    }

    /// Largest magnitude of each weight, by parameter index of weights.
    pub fn largest_weight(&self, name: &str) -> Option<f64> {
        let of_layer = |p: &&super::Parameter| {
            p.kind == Kind::Weight && p.name.strip_suffix(".weight") == Some(name)
        };
        let values = self.parameters.iter().find(of_layer)?.to_vec();
        Some(
            values
                .iter()
                .fold(0.0, |m: f64, v| m.max(f64::from(v.abs()))),
        )
    }
}

fn squeezed(shape: &[usize]) -> Vec<usize> {
    shape.iter().copied().filter(|n| *n != 1).collect()
}

/// The published code's names and layouts to this project's.
fn translate(
    name: String,
    (shape, values): (Vec<usize>, Vec<f32>),
) -> (String, (Vec<usize>, Vec<f32>)) {
    let Some((layer, entry)) = layer_of(&name) else {
        return (name, (shape, values));
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

fn transpose(shape: &[usize], values: &[f32]) -> (Vec<usize>, Vec<f32>) {
    let [rows, columns] = shape else {
        return (shape.to_vec(), values.to_vec());
    };
    let transposed = (0..*columns)
        .flat_map(|c| (0..*rows).map(move |r| values[r * columns + c]))
        .collect();
    (vec![*columns, *rows], transposed)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::experiment::load_embedded;
    use crate::network::Model;

    fn network() -> Network {
        let text = "[weights]\nquantizer = \"u3\"\n";
        let loaded = load_embedded("e.toml", text, &Vec::new()).expect("valid");
        let quantization = loaded.experiment.quantization();
        let engine = crate::device::parse("flex").expect("compiled in");
        let device = crate::device::burn_device(engine).autodiff();
        let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(1);
        let model = Model::ResNet {
            depth: 20,
            shortcut: crate::network::Shortcut::A,
        };
        Network::build(model, 10, 32, &quantization, &device, &mut rng)
    }

    #[test]
    fn what_does_not_fit_is_named_and_nothing_is_changed() {
        let mut network = network();
        let before = network.weights();
        let mut tensors = before.clone();
        let stem = tensors.remove("stem.weight").expect("there");
        tensors.insert("conv2/quantized_conv/W".into(), stem);
        tensors.insert("classifier.bias".into(), (vec![12], vec![0.5; 12]));
        tensors.insert("fc/bn/Asize".into(), (vec![1], vec![1.0]));
        let error = network
            .load_weights(Path::new("w.safetensors"), tensors)
            .expect_err("does not fit");
        let count = before.len() - 2;
        assert_eq!(
            error.to_string(),
            format!(
                "w.safetensors: the tensors do not fit the network\n{count} tensors loaded\n\
                 missing: stem.weight\nextra: conv2/quantized_conv/W\n\
                 other shape: classifier.bias [12], expected [10]"
            )
        );
        assert_eq!(network.weights(), before);
    }

    #[test]
    fn the_published_codes_names_and_layouts_are_understood() {
        let mut network = network();
        let own = network.weights();
        let mut published = Tensors::new();
        for (name, (shape, values)) in &own {
            let (layer, entry) = name.rsplit_once('.').expect("layer and entry");
            let prefix = match layer.split('.').collect::<Vec<_>>()[..] {
                ["stem"] => "conv1".to_owned(),
                ["classifier"] => "fc".to_owned(),
                [s, b, c] => format!("res{}/layer{}/basicblock{}", &s[1..], &b[1..], &c[4..]),
                _ => panic!("{layer}"),
            };
            let double = |v: &[f32]| v.iter().map(|v| 2.0 * v).collect::<Vec<f32>>();
            let (entry, tensor) = match (layer, entry) {
                ("classifier", "weight") => {
                    let (shape, values) = transpose(shape, values);
                    ("quantized_affine/W".to_owned(), (shape, double(&values)))
                }
                ("classifier", "bias") => (
                    "quantized_affine/b".to_owned(),
                    (shape.clone(), double(values)),
                ),
                (_, "weight") => (
                    "quantized_conv/W".to_owned(),
                    (shape.clone(), double(values)),
                ),
                (_, norm) => (
                    format!("bn/{norm}"),
                    (vec![1, values.len(), 1, 1], double(values)),
                ),
            };
            published.insert(format!("{prefix}/{entry}"), tensor);
        }
        let report = network
            .load_weights(Path::new("published.safetensors"), published)
            .expect("fits");
        assert_eq!(report.loaded, own.len());
        for (name, (_, values)) in network.weights() {
            let doubled: Vec<f32> = own[&name].1.iter().map(|v| 2.0 * v).collect();
            assert_eq!(values, doubled, "{name}");
        }
    }
}
