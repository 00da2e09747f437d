//! A safetensors file with `images` (u8) and `labels` (u8 or i64).

use std::path::Path;

use safetensors::{Dtype, SafeTensors};

use super::{DataError, Dataset};

/// Images `[n, 3, h, w]`, or `[steps, batch, 3, h, w]`, then with the prescribed batch size.
///
/// There is one class more than the largest label, and as many as `declared` at least.
pub(super) fn read(
    path: &Path,
    declared: Option<usize>,
) -> Result<(Dataset, Option<usize>), DataError> {
    let bytes = std::fs::read(path).map_err(DataError::io(path))?;
    let wrong = |offset: usize, found: String, expected: &str| {
        DataError::content(path, offset as u64, found, expected)
    };
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|e| wrong(0, format!("{e}"), "a safetensors file"))?;
    let find = |name: &str| {
        file.tensor(name).map_err(|_| {
            wrong(
                8,
                format!("tensors {:?}", file.names()),
                "a tensor of that name: images, labels",
            )
        })
    };
    let (images, labels) = (find("images")?, find("labels")?);
    // Offset of a tensor's bytes in the file, for messages.
    let offset_of = |data: &[u8]| data.as_ptr() as usize - bytes.as_ptr() as usize;
    let at = offset_of(images.data());
    if images.dtype() != Dtype::U8 {
        return Err(wrong(
            at,
            format!("images of type {:?}", images.dtype()),
            "U8",
        ));
    }
    let shape = images.shape();
    let (count, batch, rest) = match shape {
        [n, rest @ ..] if rest.len() == 3 => (*n, None, rest),
        [steps, batch, rest @ ..] if rest.len() == 3 => (steps * batch, Some(*batch), rest),
        _ => {
            let expected = "[n, 3, h, w] or [steps, batch, 3, h, w]";
            return Err(wrong(at, format!("images of shape {shape:?}"), expected));
        }
    };
    if rest.contains(&0) {
        let found = format!("images of shape {shape:?}");
        return Err(wrong(at, found, "channels, rows and columns"));
    }
    let at = offset_of(labels.data());
    let values: Vec<i64> = match labels.dtype() {
        Dtype::U8 => labels.data().iter().map(|v| i64::from(*v)).collect(),
        Dtype::I64 => labels
            .data()
            .chunks_exact(8)
            .map(|b| i64::from_le_bytes(b.try_into().expect("chunks of eight")))
            .collect(),
        other => return Err(wrong(at, format!("labels of type {other:?}"), "U8 or I64")),
    };
    if values.len() != count {
        let expected = format!("{count} labels, one per image");
        return Err(wrong(at, format!("{} labels", values.len()), &expected));
    }
    if let Some(i) = values.iter().position(|v| !(0..65_536).contains(v)) {
        return Err(wrong(
            at,
            format!("label {} at index {i}", values[i]),
            "0 to 65535",
        ));
    }
    let largest = values.iter().max().map_or(0, |m| *m as usize + 1);
    let classes = largest.max(declared.unwrap_or(2));
    let labels = values.into_iter().map(|v| v as u16).collect();
    let data = Dataset {
        images: images.data().to_vec(),
        labels,
        shape: [rest[0], rest[1], rest[2]],
        classes,
        normalisation: super::Normalisation::symmetric(),
    };
    Ok((data, batch))
}
