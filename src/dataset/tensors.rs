//! A safetensors file with `images` (u8) and `labels` (whole numbers of any type).

use std::path::Path;

use safetensors::{Dtype, SafeTensors};

use super::{DataError, Dataset};

/// Images `[n, 3, h, w]`, or `[steps, batch, 3, h, w]`, then with the prescribed batch size; and what a
/// reader should know of the labels.
///
/// There is one class more than the largest label, and as many as `declared` at least.
pub(super) fn read(
    path: &Path,
    declared: Option<usize>,
) -> Result<(Dataset, Option<usize>, Vec<String>), DataError> {
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
    let values = whole_numbers(labels.dtype(), labels.data()).ok_or_else(|| {
        let found = format!("labels of type {:?}", labels.dtype());
        wrong(
            at,
            found,
            "whole numbers: U8, I8, U16, I16, U32, I32, U64 or I64",
        )
    })?;
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
    let notes = notes(&values, largest);
    let labels = values.into_iter().map(|v| v as u16).collect();
    let data = Dataset {
        images: images.data().to_vec(),
        labels,
        shape: [rest[0], rest[1], rest[2]],
        classes,
        normalisation: super::Normalisation::symmetric(),
    };
    Ok((data, batch, notes))
}

/// Little-endian whole numbers; what is beyond i64 stays beyond any label.
fn whole_numbers(kind: Dtype, bytes: &[u8]) -> Option<Vec<i64>> {
    macro_rules! numbers {
        ($number:ty) => {{
            let (chunks, _) = bytes.as_chunks::<{ size_of::<$number>() }>();
            let numbers = chunks.iter().map(|b| <$number>::from_le_bytes(*b));
            numbers
                .map(|n| i64::try_from(n).unwrap_or(i64::MAX))
                .collect()
        }};
    }
    Some(match kind {
        Dtype::U8 => numbers!(u8),
        Dtype::I8 => numbers!(i8),
        Dtype::U16 => numbers!(u16),
        Dtype::I16 => numbers!(i16),
        Dtype::U32 => numbers!(u32),
        Dtype::I32 => numbers!(i32),
        Dtype::U64 => numbers!(u64),
        Dtype::I64 => numbers!(i64),
        _ => return None,
    })
}

/// Labels that nothing has, of those below the largest.
fn notes(labels: &[i64], classes: usize) -> Vec<String> {
    let mut seen = vec![false; classes];
    for label in labels {
        seen[*label as usize] = true;
    }
    let absent: Vec<String> = (0..classes)
        .filter(|class| !seen[*class])
        .map(|class| class.to_string())
        .collect();
    match absent.as_slice() {
        [] => Vec::new(),
        [only] if only == "0" => {
            vec!["labels begin at 1: class 0 has no picture".into()]
        }
        few if few.len() <= LISTED => {
            vec![format!("no picture has the labels {}", few.join(", "))]
        }
        many => vec![format!(
            "no picture has {} of the {classes} labels, among them {}",
            many.len(),
            many[..LISTED].join(", ")
        )],
    }
}

/// Absent labels that a note lists.
const LISTED: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_any_whole_type_and_what_is_odd_about_them() {
        assert_eq!(
            whole_numbers(Dtype::I32, &[5, 0, 0, 0, 255, 255, 255, 255]),
            Some(vec![5, -1])
        );
        assert_eq!(whole_numbers(Dtype::U16, &[0, 1]), Some(vec![256]));
        assert_eq!(whole_numbers(Dtype::U64, &[255; 8]), Some(vec![i64::MAX]));
        assert_eq!(whole_numbers(Dtype::F32, &[0; 4]), None);
        assert!(notes(&[0, 1, 2], 3).is_empty());
        assert!(notes(&[1, 2, 3], 4)[0].contains("begin at 1"));
        assert_eq!(notes(&[0, 2, 4], 5), ["no picture has the labels 1, 3"]);
        assert!(notes(&[0, 20], 21)[0].contains("19 of the 21 labels"));
    }
}
