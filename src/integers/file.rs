//! A program as a safetensors file.
//!
//! Metadata: `bitscope.integers`, the version of the format; `program`, the steps as JSON (see
//! [`Program`]); `crc32` over everything. Tensors:
//!
//! | name | type, shape | what |
//! |---|---|---|
//! | `PARAMETER.codes` | U8 `[bytes]` | weights or bias, packed at `bits` each (see the step's `stored`) |
//! | `STEP.thresholds` | I32 or I64 `[channels, residuals or 1, k]` | the level is the number of thresholds that the sum is not below; the largest number of the type: never |
//! | `STEP.levels` | I32 `[k + 1]` | the integers that come out |
//! | `STEP.falls` | U8 `[channels]` | 1: the sum counts with its sign turned |
//! | `STEP.residuals` | I32 `[residuals]` | the residual's integers, where one joins |
//! | `STEP.table` | I32 `[channels or 1, 256]` | the input's integers, by byte |

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::ExportError;
use super::levels::Thresholds;
use super::pack::{pack, unpack};
use super::program::{After, Operation, Program, Step, Stored, signed_bits};

const MARK: &str = "bitscope.integers";
const VERSION: &str = "1";

/// A tensor on its way to a file.
struct Entry {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Entry {
    fn bytes(name: String, bytes: Vec<u8>) -> Self {
        Self {
            name,
            dtype: Dtype::U8,
            shape: vec![bytes.len()],
            bytes,
        }
    }

    fn narrow(name: String, shape: Vec<usize>, values: &[i32]) -> Self {
        Self {
            name,
            dtype: Dtype::I32,
            shape,
            bytes: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    }

    fn wide(name: String, shape: Vec<usize>, values: &[i64]) -> Self {
        Self {
            name,
            dtype: Dtype::I64,
            shape,
            bytes: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    }
}

/// The file's bytes.
///
/// # Errors
/// Where a step is in float, or a level does not fit into its bits.
pub fn to_bytes(program: &Program) -> Result<Vec<u8>, ExportError> {
    program.require_exact("an `integers` file")?;
    let mut entries = Vec::new();
    for step in &program.steps {
        entries.extend(operation(step)?);
        entries.extend(after(step));
    }
    let text = serde_json::to_string(program)
        .map_err(|e| ExportError::Unsupported(format!("the program as JSON: {e}")))?;
    let metadata = HashMap::from([
        (MARK.to_owned(), VERSION.to_owned()),
        ("crc32".to_owned(), checksum(&text, &entries)),
        ("program".to_owned(), text),
    ]);
    let views: Result<Vec<(&str, TensorView<'_>)>, _> = entries
        .iter()
        .map(|e| {
            TensorView::new(e.dtype, e.shape.clone(), &e.bytes).map(|view| (e.name.as_str(), view))
        })
        .collect();
    views
        .and_then(|views| safetensors::serialize(views, Some(metadata)))
        .map_err(|e| ExportError::Unsupported(e.to_string()))
}

fn checksum(program: &str, entries: &[Entry]) -> String {
    let mut sorted: Vec<&Entry> = entries.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(program.as_bytes());
    for entry in sorted {
        hasher.update(entry.name.as_bytes());
        hasher.update(&entry.bytes);
    }
    format!("{:08x}", hasher.finalize())
}

/// A step's packed tensors, and the input's table.
fn operation(step: &Step) -> Result<Vec<Entry>, ExportError> {
    match &step.operation {
        Operation::Convolution {
            weights,
            bias,
            stored,
            stored_bias,
            ..
        } => {
            let weights: Vec<i64> = weights.iter().map(|w| i64::from(*w)).collect();
            let mut entries = vec![packed(stored, &weights)?];
            if let Some(stored) = stored_bias {
                entries.push(packed(stored, bias)?);
            }
            Ok(entries)
        }
        Operation::Input { codes } => {
            let shape = vec![codes.len(), 256];
            let name = format!("{}.table", step.name);
            Ok(vec![Entry::narrow(name, shape, &codes.concat())])
        }
        _ => Ok(Vec::new()),
    }
}

fn packed(stored: &Stored, integers: &[i64]) -> Result<Entry, ExportError> {
    let levels: Vec<i64> = integers.iter().map(|v| v >> stored.shift).collect();
    let bytes = pack(stored, &levels).ok_or_else(|| {
        ExportError::Unsupported(format!(
            "{}: a level that does not fit into its {} bits",
            stored.name, stored.bits
        ))
    })?;
    Ok(Entry::bytes(format!("{}.codes", stored.name), bytes))
}

fn after(step: &Step) -> Vec<Entry> {
    let After::Thresholds { table } = &step.after else {
        return Vec::new();
    };
    let named = |what: &str| format!("{}.{what}", step.name);
    let per_row = table.codes.len() - 1;
    let shape = vec![table.channels(), table.residuals.len().max(1), per_row];
    let reached = table.at.iter().filter(|t| **t != i64::MAX);
    let ends = [reached.clone().min(), reached.max()].map(|v| v.copied().unwrap_or(0));
    let thresholds = if signed_bits(ends) <= 32 && ends[1] < i64::from(i32::MAX) {
        let narrow: Vec<i32> = table
            .at
            .iter()
            .map(|t| i32::try_from(*t).unwrap_or(i32::MAX))
            .collect();
        Entry::narrow(named("thresholds"), shape, &narrow)
    } else {
        Entry::wide(named("thresholds"), shape, &table.at)
    };
    let falls = table.falls.iter().map(|f| u8::from(*f)).collect();
    let mut entries = vec![
        thresholds,
        Entry::narrow(named("levels"), vec![per_row + 1], &table.codes),
        Entry::bytes(named("falls"), falls),
    ];
    if !table.residuals.is_empty() {
        let shape = vec![table.residuals.len()];
        entries.push(Entry::narrow(named("residuals"), shape, &table.residuals));
    }
    entries
}

/// Whether a file says that it is of this kind, whatever its name.
pub fn is_program(path: &Path) -> bool {
    use std::io::Read;
    /// Bytes of the header that are looked at.
    const LOOKED_AT: u64 = 1 << 20;
    let Ok(file) = crate::files::open(path) else {
        return false;
    };
    let mut bytes = Vec::new();
    let read = file.take(LOOKED_AT).read_to_end(&mut bytes);
    let mark = MARK.as_bytes();
    read.is_ok() && bytes.windows(mark.len()).any(|w| w == mark)
}

/// Reads a program.
///
/// # Errors
/// Where the bytes are of another kind or version, or damaged.
pub fn read(path: &Path, bytes: &[u8]) -> Result<Program, ExportError> {
    parse(bytes).map_err(|reason| ExportError::Unsupported(format!("{}: {reason}", path.display())))
}

fn parse(bytes: &[u8]) -> Result<Program, String> {
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| e.to_string())?;
    let metadata = metadata.metadata().clone().unwrap_or_default();
    match metadata.get(MARK).map(String::as_str) {
        Some(VERSION) => {}
        Some(other) => {
            return Err(format!(
                "a program of version {other}; this bitscope reads version {VERSION}"
            ));
        }
        None => return Err("no `integers` file of bitscope".into()),
    }
    let text = metadata.get("program").ok_or("no program in it")?;
    let file = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
    let entries: Vec<Entry> = file
        .tensors()
        .into_iter()
        .map(|(name, view)| Entry {
            name,
            dtype: view.dtype(),
            shape: view.shape().to_vec(),
            bytes: view.data().to_vec(),
        })
        .collect();
    if metadata.get("crc32") != Some(&checksum(text, &entries)) {
        return Err("damaged: its checksum is wrong".into());
    }
    let mut program: Program = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let tensors: HashMap<&str, &Entry> = entries.iter().map(|e| (e.name.as_str(), e)).collect();
    let find = |name: String| {
        let entry = tensors.get(name.as_str()).copied();
        entry.ok_or_else(|| format!("no tensor `{name}`"))
    };
    for step in &mut program.steps {
        fill(step, &find)?;
    }
    program.validate()?;
    Ok(program)
}

/// Gives a step its numbers.
fn fill<'a>(
    step: &mut Step,
    find: &impl Fn(String) -> Result<&'a Entry, String>,
) -> Result<(), String> {
    let integers = |stored: &Stored| -> Result<Vec<i64>, String> {
        let entry = find(format!("{}.codes", stored.name))?;
        let elements = stored
            .shape
            .iter()
            .try_fold(1usize, |n, e| n.checked_mul(*e));
        let levels = elements.and_then(|count| unpack(stored, count, &entry.bytes));
        let levels = levels
            .filter(|_| stored.shift <= 40)
            .ok_or_else(|| format!("{}: not as many codes as it has elements", stored.name))?;
        Ok(levels.into_iter().map(|v| v << stored.shift).collect())
    };
    let name = step.name.clone();
    match &mut step.operation {
        Operation::Convolution {
            weights,
            bias,
            stored,
            stored_bias,
            ..
        } => {
            *weights = integers(stored)?.into_iter().map(|v| v as i32).collect();
            *bias = match stored_bias {
                Some(stored) => integers(stored)?,
                None => Vec::new(),
            };
        }
        Operation::Input { codes } => {
            let entry = find(format!("{name}.table"))?;
            *codes = narrow(entry)?.chunks(256).map(<[i32]>::to_vec).collect();
        }
        _ => {}
    }
    if let After::Thresholds { table } = &mut step.after {
        let thresholds = find(format!("{name}.thresholds"))?;
        let at = match thresholds.dtype {
            Dtype::I64 => {
                let (chunks, _) = thresholds.bytes.as_chunks::<8>();
                chunks.iter().map(|b| i64::from_le_bytes(*b)).collect()
            }
            _ => narrow(thresholds)?
                .into_iter()
                .map(|t| if t == i32::MAX { i64::MAX } else { t.into() })
                .collect(),
        };
        let falls = find(format!("{name}.falls"))?.bytes.iter();
        *table = Thresholds {
            codes: narrow(find(format!("{name}.levels"))?)?,
            residuals: find(format!("{name}.residuals")).map_or(Ok(Vec::new()), narrow)?,
            falls: falls.map(|f| *f != 0).collect(),
            at,
        };
        let rows = table.channels() * table.residuals.len().max(1);
        if table.codes.is_empty()
            || table.at.len() != rows * (table.codes.len() - 1)
            || table.channels() != step.shape[0]
        {
            return Err(format!("{name}: thresholds of another shape"));
        }
    }
    Ok(())
}

fn narrow(entry: &Entry) -> Result<Vec<i32>, String> {
    if entry.dtype != Dtype::I32 {
        return Err(format!("{}: {:?}; expected I32", entry.name, entry.dtype));
    }
    let (chunks, _) = entry.bytes.as_chunks::<4>();
    Ok(chunks.iter().map(|b| i32::from_le_bytes(*b)).collect())
}
