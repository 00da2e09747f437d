//! IDX files, as MNIST and Fashion-MNIST come: `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`,
//! `t10k-images-idx3-ubyte`, `t10k-labels-idx1-ubyte`, gzipped or not.
//!
//! A file is two zero bytes, the type (8: unsigned bytes), the number of dimensions, their sizes (u32,
//! big endian), and the numbers.

use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use super::fetch::{self, Archive};
use super::{DataError, Dataset};

/// Bytes of an unpacked file at most.
const LARGEST: u64 = 4 << 30;

/// A file's numbers with their shape.
struct Numbers {
    path: PathBuf,
    dims: Vec<usize>,
    values: Vec<u8>,
}

/// Where the authors of Fashion-MNIST keep its files.
const FASHION_MNIST: &str = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com";
/// The files, with the SHA-256 of what is packed in them.
const FILES: [(&str, &str); 4] = [
    (
        "train-images-idx3-ubyte.gz",
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    (
        "train-labels-idx1-ubyte.gz",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    (
        "t10k-images-idx3-ubyte.gz",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    (
        "t10k-labels-idx1-ubyte.gz",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
];

/// The files of Fashion-MNIST at its authors' address, or at another one.
pub fn fashion_mnist(base: Option<&str>) -> Vec<Archive> {
    let base = base.unwrap_or(FASHION_MNIST).trim_end_matches('/');
    let archive = |(name, sha256): (&str, &str)| Archive {
        url: format!("{base}/{name}"),
        sha256: sha256.into(),
    };
    FILES.map(archive).to_vec()
}

/// Fetches gzipped IDX files into `folder` under the last part of their addresses, each held against the
/// SHA-256 of its content. What is there is not fetched again; a file that broke off is gone on with.
///
/// # Errors
/// Network, disk or checksum failures, with what to do about them.
pub fn download(
    files: &[Archive],
    folder: &Path,
    mut progress: impl FnMut(u64, Option<u64>),
) -> Result<(), DataError> {
    std::fs::create_dir_all(folder).map_err(DataError::io(folder))?;
    for archive in files {
        let name = archive.url.rsplit('/').next().unwrap_or_default();
        let path = folder.join(name);
        if path.exists() {
            // Whatever it is, it is not ours to remove.
            let found = fetch::digest(&path, true).map_err(DataError::io(&path))?.1;
            if found == archive.sha256 {
                continue;
            }
            let expected = format!("SHA-256 {}, or no such file", archive.sha256);
            return Err(DataError::content(
                &path,
                0,
                format!("SHA-256 {found}"),
                expected,
            ));
        }
        let partial = folder.join(format!("{name}.part"));
        fetch::fetch(&archive.url, &partial, &mut progress)?;
        fetch::verify(&partial, &archive.sha256, true)?;
        std::fs::rename(&partial, &path).map_err(DataError::io(&path))?;
    }
    read(folder).map(drop)
}

/// The file of that name, with a dot or a dash before its kind, gzipped or not.
fn find(folder: &Path, stem: &str, kind: &str) -> Result<PathBuf, DataError> {
    let names: Vec<String> = ["-", "."]
        .iter()
        .flat_map(|joint| ["", ".gz"].map(|end| format!("{stem}{joint}{kind}{end}")))
        .collect();
    let found = names
        .iter()
        .map(|name| folder.join(name))
        .find(|path| path.is_file());
    found.ok_or_else(|| {
        DataError::folder(
            folder,
            format!("no {}", names[0]),
            format!("one of {}", names.join(", ")),
        )
    })
}

fn read_file(path: PathBuf) -> Result<Numbers, DataError> {
    let file = crate::files::open(&path).map_err(DataError::io(&path))?;
    let mut bytes = Vec::new();
    let packed = path.extension().is_some_and(|e| e == "gz");
    let read = if packed {
        GzDecoder::new(file).take(LARGEST).read_to_end(&mut bytes)
    } else {
        file.take(LARGEST).read_to_end(&mut bytes)
    };
    read.map_err(DataError::io(&path))?;
    let wrong = |at: usize, found: String, expected: &str| {
        DataError::content(&path, at as u64, found, expected)
    };
    let Some(([0, 0, 8, rank], rest)) = bytes.split_first_chunk::<4>() else {
        let found = format!("{:02x?}", &bytes[..bytes.len().min(4)]);
        return Err(wrong(
            0,
            found,
            "00 00 08 and the number of dimensions: unsigned bytes as IDX",
        ));
    };
    let rank = usize::from(*rank);
    if rest.len() < 4 * rank {
        return Err(wrong(
            4,
            format!("{} bytes", rest.len()),
            "a size for every dimension",
        ));
    }
    let (sizes, values) = rest.split_at(4 * rank);
    let dims: Vec<usize> = sizes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|b| u32::from_be_bytes(*b) as usize)
        .collect();
    let expected = dims.iter().try_fold(1usize, |a, d| a.checked_mul(*d));
    if expected != Some(values.len()) {
        let found = format!("{} numbers for shape {dims:?}", values.len());
        return Err(wrong(
            4 + 4 * rank,
            found,
            "as many as the sizes say: the file may be truncated",
        ));
    }
    let values = values.to_vec();
    Ok(Numbers { path, dims, values })
}

/// Images and labels of one part.
fn part(folder: &Path, prefix: &str) -> Result<Dataset, DataError> {
    let images = read_file(find(folder, &format!("{prefix}-images"), "idx3-ubyte")?)?;
    let labels = read_file(find(folder, &format!("{prefix}-labels"), "idx1-ubyte")?)?;
    let &[count, rows, columns] = &images.dims[..] else {
        let found = format!("shape {:?}", images.dims);
        return Err(DataError::content(
            &images.path,
            3,
            found,
            "[pictures, rows, columns]",
        ));
    };
    if labels.dims != [count] {
        let found = format!("labels of shape {:?}", labels.dims);
        return Err(DataError::content(
            &labels.path,
            3,
            found,
            format!("[{count}], one per picture"),
        ));
    }
    let largest = labels
        .values
        .iter()
        .max()
        .map_or(0, |m| usize::from(*m) + 1);
    Ok(Dataset {
        images: images.values,
        labels: labels.values.into_iter().map(u16::from).collect(),
        shape: [1, rows, columns],
        classes: largest.max(2),
        normalisation: super::Normalisation::symmetric(),
    })
}

/// Training and test part of a folder.
pub(super) fn read(folder: &Path) -> Result<(Dataset, Dataset), DataError> {
    let (mut train, mut test) = (part(folder, "train")?, part(folder, "t10k")?);
    let classes = train.classes.max(test.classes);
    (train.classes, test.classes) = (classes, classes);
    if train.shape != test.shape {
        let found = format!(
            "pictures of {:?} to train on and {:?} to test on",
            train.shape, test.shape
        );
        return Err(DataError::folder(folder, found, "one extent"));
    }
    Ok((train, test))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn idx(dims: &[u32], values: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, dims.len() as u8];
        dims.iter().for_each(|d| bytes.extend(d.to_be_bytes()));
        bytes.extend(values);
        bytes
    }

    #[test]
    fn plain_and_gzipped_files_are_read_and_cut_ones_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, bytes: &[u8]| {
            std::fs::write(folder.path().join(name), bytes).expect("written");
        };
        let packed = |bytes: &[u8]| {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).expect("packed");
            encoder.finish().expect("packed")
        };
        let images: Vec<u8> = (0..3 * 2 * 4).collect();
        write("train-images-idx3-ubyte", &idx(&[3, 2, 4], &images));
        write("train-labels.idx1-ubyte", &idx(&[3], &[0, 4, 2]));
        write(
            "t10k-images-idx3-ubyte.gz",
            &packed(&idx(&[1, 2, 4], &images[..8])),
        );
        write("t10k-labels-idx1-ubyte.gz", &packed(&idx(&[1], &[1])));
        let (train, test) = read(folder.path()).expect("readable");
        assert_eq!(
            (train.shape, train.classes, test.classes),
            ([1, 2, 4], 5, 5)
        );
        assert_eq!(
            (train.picture(2), train.labels[1], test.labels.len()),
            (&images[16..], 4, 1)
        );
        write("train-images-idx3-ubyte", &idx(&[3, 2, 4], &images[..20]));
        let error = read(folder.path()).expect_err("cut").to_string();
        assert!(error.contains("20 numbers for shape [3, 2, 4]"), "{error}");
        std::fs::remove_file(folder.path().join("train-labels.idx1-ubyte")).expect("removed");
        write("train-images-idx3-ubyte", &idx(&[3, 2, 4], &images));
        let error = read(folder.path()).expect_err("gone").to_string();
        assert!(error.contains("no train-labels-idx1-ubyte"), "{error}");
    }
}
