//! Weights by name, as safetensors: this project's names, and those of other programs (`names`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{Tensor, TensorData};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

mod names;

use super::Network;
use super::parameter::{leaf, read};

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
    #[error("{path}: {found}; expected a safetensors file")]
    Format {
        /// Which file.
        path: PathBuf,
        /// What is there.
        found: String,
    },
    /// A tensor holds a value that is not finite.
    #[error("{path}: tensor {tensor} holds a value that is not finite; expected finite weights")]
    NonFinite {
        /// Which file.
        path: PathBuf,
        /// Which tensor.
        tensor: String,
    },
    /// Tensors do not fit the network.
    #[error("{path}: the tensors do not fit the network\n{report}")]
    Misfit {
        /// Which file.
        path: PathBuf,
        /// What is missing, extra or of another shape.
        report: Box<Report>,
    },
}

/// How a file's tensors fit a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Tensors taken over.
    pub loaded: usize,
    /// Those that have another name in the file: there, and here.
    pub renamed: Vec<(String, String)>,
    /// Names that the network has and the file has not.
    pub missing: Vec<String>,
    /// Names that the file has and the network has not.
    pub extra: Vec<String>,
    /// Names whose shapes differ, with both.
    pub reshaped: Vec<String>,
    /// Names of a last layer of another size, which begins anew.
    pub replaced: Vec<String>,
}

impl Report {
    fn fits(&self) -> bool {
        self.missing.is_empty() && self.extra.is_empty() && self.reshaped.is_empty()
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} tensors loaded", self.loaded)?;
        for (what, names) in [
            ("new", &self.replaced),
            ("missing", &self.missing),
            ("extra", &self.extra),
            ("other shape", &self.reshaped),
        ] {
            if !names.is_empty() {
                write!(f, "\n{what}: {}", names.join(", "))?;
            }
        }
        for (from, to) in &self.renamed {
            write!(f, "\n{from} -> {to}")?;
        }
        Ok(())
    }
}

/// Reads every float tensor of a file (F32, F16, BF16, F64) as f32.
///
/// # Errors
/// Where the file cannot be read, is no safetensors file, or holds a value that is not finite.
pub fn read_file(path: &Path) -> Result<Tensors, WeightsError> {
    let bytes = crate::files::read(path).map_err(|source| WeightsError::Io {
        path: path.to_owned(),
        source,
    })?;
    let tensors = parse(path, &bytes)?;
    let broken = |values: &[f32]| values.iter().any(|v| !v.is_finite());
    match tensors.iter().find(|(_, (_, values))| broken(values)) {
        Some((name, _)) => Err(WeightsError::NonFinite {
            path: path.to_owned(),
            tensor: name.clone(),
        }),
        None => Ok(tensors),
    }
}

/// Every float tensor of a file's bytes, as f32.
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
        if let Some(values) = floats(view.dtype(), view.data()) {
            tensors.insert(name, (view.shape().to_vec(), values));
        }
    }
    Ok(tensors)
}

/// The values of a float type as f32; `None` for others.
pub(crate) fn floats(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    fn each<const N: usize>(bytes: &[u8], of: impl Fn([u8; N]) -> f32) -> Vec<f32> {
        bytes.as_chunks::<N>().0.iter().map(|b| of(*b)).collect()
    }
    Some(match dtype {
        Dtype::F32 => each(bytes, f32::from_le_bytes),
        Dtype::F64 => each(bytes, |b| f64::from_le_bytes(b) as f32),
        Dtype::F16 => each(bytes, |b| half::f16::from_le_bytes(b).to_f32()),
        Dtype::BF16 => each(bytes, |b| half::bf16::from_le_bytes(b).to_f32()),
        _ => return None,
    })
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
            let rows = values.chunks_exact(values.len() / 2);
            for (entry, row) in r.entries.iter().zip(rows) {
                tensors.insert(entry.clone(), (vec![row.len()], row.to_vec()));
            }
        }
        tensors
    }

    /// Takes over weights by name: this project's, those of the published code, torchvision's and
    /// timm's. With `replace_head`, a last layer of another size keeps the values it has.
    ///
    /// # Errors
    /// Where a name is missing, extra or of another shape: all of them, and nothing is changed.
    pub fn load_weights(
        &mut self,
        path: &Path,
        tensors: Tensors,
        replace_head: bool,
    ) -> Result<Report, WeightsError> {
        let mut report = Report::default();
        let current = self.weights();
        let known = |name: &str| current.contains_key(name);
        let mut found = Tensors::new();
        for (name, tensor) in tensors {
            if is_no_weight(&name) {
                continue;
            }
            let (to, tensor) = names::translate(&name, tensor, &known);
            if to != name {
                report.renamed.push((name, to.clone()));
            }
            found.insert(to, tensor);
        }
        let head = if replace_head {
            self.head()
        } else {
            Vec::new()
        };
        for (name, (shape, _)) in &current {
            match found.get(name) {
                None => report.missing.push(name.clone()),
                Some((there, _)) if squeezed(there) == squeezed(shape) => report.loaded += 1,
                Some((there, _)) if head.contains(name) && there[1..] == shape[1..] => {
                    report.replaced.push(name.clone());
                }
                Some((there, _)) => {
                    let text = format!("{name} {there:?}, expected {shape:?}");
                    report.reshaped.push(text);
                }
            }
        }
        report.extra = found.keys().filter(|n| !known(n)).cloned().collect();
        if !report.fits() {
            return Err(WeightsError::Misfit {
                path: path.to_owned(),
                report: Box::new(report),
            });
        }
        for name in &report.replaced {
            found.insert(name.clone(), current[name].clone());
        }
        let mut take = |name: &str| found.remove(name).expect("checked above").1;
        for p in &mut self.parameters {
            p.value = leaf(take(&p.name), &self.device);
        }
        for r in &mut self.running {
            let values = r.entries.each_ref().map(|entry| take(entry));
            let channels = values[0].len();
            let data = TensorData::new(values.concat(), [2, channels]);
            r.statistics = Tensor::from_data(data, &self.device.clone().inner());
        }
        Ok(report)
    }

    /// Names of the parameters of the last layer with weights.
    fn head(&self) -> Vec<String> {
        let last = self.graph.head().unwrap_or_default();
        let names = last.into_iter().flatten();
        names.map(|p| self.parameters[p].name.clone()).collect()
    }
}

/// Entries of other programs' files that are counts.
fn is_no_weight(name: &str) -> bool {
    name.ends_with("/Asize") || name.ends_with("num_batches_tracked")
}

fn squeezed(shape: &[usize]) -> Vec<usize> {
    shape.iter().copied().filter(|n| *n != 1).collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::names::transpose;
    use super::*;
    use crate::experiment::load_embedded;
    use crate::graph::{Architecture, Model, Shortcut};

    fn network() -> Network {
        let text = "[weights]\nquantizer = \"u3\"\n";
        let loaded = load_embedded("e.toml", text, &Vec::new()).expect("valid");
        let quantization = loaded.experiment.quantization();
        let engine = crate::device::parse("flex").expect("compiled in");
        let device = crate::device::burn_device(engine).autodiff();
        let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(1);
        let model = Model::ResNet {
            depth: 20,
            shortcut: Shortcut::A,
        };
        let built = Architecture::BuiltIn(model).graph([3, 32, 32], 10);
        Network::new(&built.expect("builds"), &quantization, &device, &mut rng)
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
            .load_weights(Path::new("w.safetensors"), tensors, false)
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
            .load_weights(Path::new("published.safetensors"), published, false)
            .expect("fits");
        assert_eq!(report.loaded, own.len());
        for (name, (_, values)) in network.weights() {
            let doubled: Vec<f32> = own[&name].1.iter().map(|v| 2.0 * v).collect();
            assert_eq!(values, doubled, "{name}");
        }
    }
}
