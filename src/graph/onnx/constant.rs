//! Numbers that are known while a file is read: weights, and shapes that are computed.

use std::path::Path;
use std::rc::Rc;

use half::{bf16, f16};
use rten_onnx::onnx::{DataLocation, DataType, TensorProto};

use super::super::error::GraphError;

/// Values of a known tensor.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Numbers {
    Floats(Rc<[f32]>),
    Ints(Rc<[i64]>),
}

/// A known tensor.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Constant {
    pub dims: Vec<usize>,
    pub numbers: Numbers,
    /// Name in the file, where it is one of its weights.
    pub name: Option<Rc<str>>,
}

impl Constant {
    pub(super) fn ints(values: Vec<i64>) -> Self {
        Self {
            dims: vec![values.len()],
            numbers: Numbers::Ints(values.into()),
            name: None,
        }
    }

    pub(super) fn floats(dims: Vec<usize>, values: Vec<f32>) -> Self {
        Self {
            dims,
            numbers: Numbers::Floats(values.into()),
            name: None,
        }
    }

    pub(super) fn len(&self) -> usize {
        match &self.numbers {
            Numbers::Floats(v) => v.len(),
            Numbers::Ints(v) => v.len(),
        }
    }

    /// As whole numbers, where they are.
    pub(super) fn to_ints(&self) -> Option<Vec<i64>> {
        match &self.numbers {
            Numbers::Ints(v) => Some(v.to_vec()),
            Numbers::Floats(v) => v
                .iter()
                .map(|v| (v.fract() == 0.0).then_some(*v as i64))
                .collect(),
        }
    }

    /// As floats.
    pub(super) fn to_floats(&self) -> Rc<[f32]> {
        match &self.numbers {
            Numbers::Floats(v) => v.clone(),
            Numbers::Ints(v) => v.iter().map(|v| *v as f32).collect(),
        }
    }

    /// The only number, where there is one.
    pub(super) fn scalar(&self) -> Option<f32> {
        let values = self.to_floats();
        (values.len() == 1).then(|| values[0])
    }
}

/// A tensor of the file, or of a file beside it.
pub(super) fn of_tensor(path: &Path, tensor: &TensorProto) -> Result<Constant, GraphError> {
    let name = tensor.name.clone().unwrap_or_default();
    let wrong = |found: String, expected: &str| {
        GraphError::file(path, format!("tensor {name}: {found}"), expected)
    };
    let dims: Option<Vec<usize>> = tensor
        .dims
        .iter()
        .map(|d| usize::try_from(*d).ok())
        .collect();
    let dims = dims.ok_or_else(|| wrong(format!("shape {:?}", tensor.dims), "no negative size"))?;
    let count = dims
        .iter()
        .try_fold(1usize, |a, d| a.checked_mul(*d))
        .ok_or_else(|| wrong(format!("shape {dims:?}"), "a tensor that fits into memory"))?;
    let external = tensor.data_location == Some(DataLocation::EXTERNAL);
    let raw = if external {
        Some(external_data(path, tensor)?)
    } else {
        tensor.raw_data.as_ref().map(|raw| raw.borrow().clone())
    };
    let kind = tensor.data_type.unwrap_or(DataType::FLOAT);
    let numbers = numbers(kind, raw.as_deref(), tensor)
        .ok_or_else(|| wrong(format!("of type {kind}"), "numbers"))?;
    let constant = Constant {
        dims,
        numbers,
        name: tensor
            .name
            .as_deref()
            .filter(|n| !n.is_empty())
            .map(Rc::from),
    };
    if constant.len() != count {
        let found = format!("{} numbers for shape {:?}", constant.len(), constant.dims);
        return Err(wrong(found, "as many as the shape says"));
    }
    Ok(constant)
}

fn numbers(kind: DataType, raw: Option<&[u8]>, tensor: &TensorProto) -> Option<Numbers> {
    fn each<const N: usize, T>(raw: &[u8], of: impl Fn([u8; N]) -> T) -> Vec<T> {
        raw.as_chunks::<N>().0.iter().map(|b| of(*b)).collect()
    }
    let floats = |values: Vec<f32>| Some(Numbers::Floats(values.into()));
    let ints = |values: Vec<i64>| Some(Numbers::Ints(values.into()));
    let narrow = || tensor.int32_data.iter().map(|v| i64::from(*v)).collect();
    let halves = || tensor.int32_data.iter().map(|v| *v as u16);
    match (kind, raw) {
        (DataType::FLOAT, Some(raw)) => floats(each(raw, f32::from_le_bytes)),
        (DataType::FLOAT, None) => floats(tensor.float_data.clone()),
        (DataType::DOUBLE, Some(raw)) => floats(each(raw, |b| f64::from_le_bytes(b) as f32)),
        (DataType::DOUBLE, None) => floats(tensor.double_data.iter().map(|v| *v as f32).collect()),
        (DataType::FLOAT16, Some(raw)) => floats(each(raw, |b| f16::from_le_bytes(b).to_f32())),
        (DataType::FLOAT16, None) => floats(halves().map(|v| f16::from_bits(v).to_f32()).collect()),
        (DataType::BFLOAT16, Some(raw)) => floats(each(raw, |b| bf16::from_le_bytes(b).to_f32())),
        (DataType::BFLOAT16, None) => {
            floats(halves().map(|v| bf16::from_bits(v).to_f32()).collect())
        }
        (DataType::INT64, Some(raw)) => ints(each(raw, i64::from_le_bytes)),
        (DataType::INT64, None) => ints(tensor.int64_data.clone()),
        (DataType::INT32, Some(raw)) => ints(each(raw, |b| i32::from_le_bytes(b).into())),
        (DataType::INT8, Some(raw)) => ints(each(raw, |b| i8::from_le_bytes(b).into())),
        (DataType::UINT8 | DataType::BOOL, Some(raw)) => ints(each(raw, |[b]| b.into())),
        (DataType::INT32 | DataType::INT8 | DataType::UINT8 | DataType::BOOL, None) => {
            ints(narrow())
        }
        _ => None,
    }
}

/// Bytes of a tensor that lie in a file beside the model.
fn external_data(path: &Path, tensor: &TensorProto) -> Result<Vec<u8>, GraphError> {
    use std::io::{Read, Seek, SeekFrom};
    let name = tensor.name.clone().unwrap_or_default();
    let entry = |key: &str| {
        let found = tensor
            .external_data
            .iter()
            .find(|e| e.key.as_deref() == Some(key));
        found.and_then(|e| e.value.clone())
    };
    let wrong = |found: String, expected: &str| {
        GraphError::file(path, format!("tensor {name}: {found}"), expected)
    };
    let location = entry("location").unwrap_or_default();
    let inside = Path::new(&location)
        .components()
        .all(|c| matches!(c, std::path::Component::Normal(_)));
    if location.is_empty() || !inside {
        return Err(wrong(
            format!("its data lies in {location:?}"),
            "a file in the model's folder",
        ));
    }
    let file = path.with_file_name("").join(&location);
    let missing = |e: std::io::Error| {
        wrong(
            format!("its data lies in {}: {e}", file.display()),
            "the file of external data beside the model",
        )
    };
    let mut opened = crate::files::open(&file).map_err(missing)?;
    let length = opened.metadata().map_err(missing)?.len();
    let number = |key: &str, default: u64| match entry(key) {
        None => Some(default),
        Some(text) => text.parse::<u64>().ok(),
    };
    let offset = number("offset", 0);
    let bytes = offset.and_then(|offset| number("length", length.checked_sub(offset)?));
    let (Some(offset), Some(bytes)) = (offset, bytes) else {
        return Err(wrong("offset and length are not numbers".into(), "bytes"));
    };
    if offset.checked_add(bytes).is_none_or(|end| end > length) {
        let found = format!(
            "bytes {offset} to {} of {}, which has {length}",
            offset + bytes,
            file.display()
        );
        return Err(wrong(found, "complete data"));
    }
    let mut data = vec![0; bytes as usize];
    opened.seek(SeekFrom::Start(offset)).map_err(missing)?;
    opened.read_exact(&mut data).map_err(missing)?;
    Ok(data)
}
