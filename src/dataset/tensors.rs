//! A safetensors file with `images` (u8, or f32 as they are) and `labels` (whole numbers of any type).

use std::path::Path;

use rand_pcg::Pcg64Mcg;
use safetensors::{Dtype, SafeTensors};

use super::{DataError, DataShape, Dataset, Normalisation, Pixels, Sample, Samples};

/// Images `[n, 3, h, w]`, or `[steps, batch, 3, h, w]`, then with the prescribed batch size; and what a
/// reader should know of the labels.
///
/// There is one class more than the largest label, and as many as `declared` at least.
pub(super) fn read(
    path: &Path,
    declared: Option<usize>,
) -> Result<(Tensors, Option<usize>, Vec<String>), DataError> {
    let bytes = crate::files::read(path).map_err(DataError::io(path))?;
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
    if !matches!(images.dtype(), Dtype::U8 | Dtype::F32) {
        let found = format!("images of type {:?}", images.dtype());
        return Err(wrong(at, found, "U8, or F32"));
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
    if shape.contains(&0) {
        let found = format!("images of shape {shape:?}");
        return Err(wrong(at, found, "images, channels, rows and columns"));
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
    let labels: Vec<u16> = values.into_iter().map(|v| v as u16).collect();
    let shape = [rest[0], rest[1], rest[2]];
    let data = if images.dtype() == Dtype::U8 {
        Tensors::Bytes(Dataset {
            images: images.data().to_vec(),
            labels,
            shape,
            classes,
            normalisation: Normalisation::symmetric(),
        })
    } else {
        let (numbers, _) = images.data().as_chunks();
        let images: Vec<f32> = numbers.iter().map(|b| f32::from_le_bytes(*b)).collect();
        if let Some(i) = images.iter().position(|v| !v.is_finite()) {
            let (picture, place) = (
                i / rest.iter().product::<usize>(),
                i % rest.iter().product::<usize>(),
            );
            let [channel, row, column] = [
                place / (rest[1] * rest[2]),
                place / rest[2] % rest[1],
                place % rest[2],
            ];
            let found = format!(
                "{} in picture {picture}, channel {channel}, row {row}, column {column}",
                images[i]
            );
            return Err(wrong(at + 4 * i, found, "finite numbers"));
        }
        Tensors::Values(Values {
            images,
            labels,
            shape,
            classes,
            normalisation: Normalisation::symmetric(),
        })
    };
    Ok((data, batch, notes))
}

/// What a file holds.
pub(super) enum Tensors {
    /// Bytes, to be normalised.
    Bytes(Dataset),
    /// Numbers that are taken as they are.
    Values(Values),
}

impl Tensors {
    /// Extent of a picture and number of classes.
    pub fn shape(&self) -> DataShape {
        let (picture, classes) = match self {
            Self::Bytes(data) => (data.shape, data.classes),
            Self::Values(data) => (data.shape, data.classes),
        };
        DataShape { picture, classes }
    }
}

/// Pictures `[n, c, h, w]` of numbers that are taken as they are, with one label each.
#[derive(Debug)]
pub(super) struct Values {
    images: Vec<f32>,
    labels: Vec<u16>,
    shape: [usize; 3],
    classes: usize,
    /// Asked for by nobody: there are no bytes.
    normalisation: Normalisation,
}

impl Samples for Values {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn shape(&self) -> [usize; 3] {
        self.shape
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn normalisation(&self) -> &Normalisation {
        &self.normalisation
    }

    fn sample(
        &self,
        index: usize,
        _random: Option<&mut Pcg64Mcg>,
    ) -> Result<Option<Sample<'_>>, DataError> {
        let length: usize = self.shape.iter().product();
        let picture = &self.images[index * length..][..length];
        Ok(Some((Pixels::Values(picture.into()), self.labels[index])))
    }
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

    #[test]
    fn numbers_are_taken_as_they_are_and_must_be_finite() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("d.safetensors");
        let write = |numbers: &[f32]| {
            let images: Vec<u8> = numbers.iter().flat_map(|v| v.to_le_bytes()).collect();
            let labels = [1u8, 0];
            let view = |kind, shape: &[usize], data| {
                safetensors::tensor::TensorView::new(kind, shape.to_vec(), data).expect("whole")
            };
            let tensors = [
                ("images", view(Dtype::F32, &[2, 1, 2, 2], &images)),
                ("labels", view(Dtype::U8, &[2], &labels)),
            ];
            safetensors::serialize_to_file(tensors, None, &path).expect("written");
        };
        let mut numbers: Vec<f32> = (0..8).map(|i| i as f32 - 3.5).collect();
        write(&numbers);
        let (data, _, notes) = read(&path, None).expect("readable");
        assert!(notes.is_empty());
        let Tensors::Values(data) = data else {
            panic!("bytes");
        };
        let second = data.sample(1, None).expect("there");
        let expected = Pixels::Values(numbers[4..].into());
        assert_eq!(second, Some((expected, 0)));
        numbers[7] = f32::NAN;
        write(&numbers);
        let error = read(&path, None).err().expect("refused").to_string();
        assert!(
            error.contains("NaN in picture 1, channel 0, row 1, column 1"),
            "{error}"
        );
    }
}
