//! CIFAR-10 in its official binary layout: reading, and fetching it in the first place.

use std::fs::{self, File};
use std::path::Path;

use super::fetch::{self, Archive};
use super::{DataError, Dataset};

const SIZE: usize = 32;
const RECORD: usize = 1 + 3 * SIZE * SIZE;
const RECORDS: usize = 10_000;
pub(super) const TRAIN_FILES: [&str; 5] = [
    "data_batch_1.bin",
    "data_batch_2.bin",
    "data_batch_3.bin",
    "data_batch_4.bin",
    "data_batch_5.bin",
];
const TEST_FILE: &str = "test_batch.bin";

impl Default for Archive {
    /// The authors' own binary version of CIFAR-10.
    fn default() -> Self {
        Self {
            url: "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz".into(),
            sha256: "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd".into(),
        }
    }
}

/// Reads training and test part from a folder with the official files, or from the
/// `cifar-10-batches-bin` folder inside it.
///
/// # Errors
/// Where a file is missing, has another size or a label out of range: which, and at which byte.
pub fn read(folder: &Path) -> Result<(Dataset, Dataset), DataError> {
    let inner = folder.join("cifar-10-batches-bin");
    let folder = if inner.is_dir() { &inner } else { folder };
    let mut train = empty();
    for name in TRAIN_FILES {
        read_file(&folder.join(name), &mut train)?;
    }
    let mut test = empty();
    read_file(&folder.join(TEST_FILE), &mut test)?;
    Ok((train, test))
}

fn empty() -> Dataset {
    Dataset {
        images: Vec::new(),
        labels: Vec::new(),
        shape: [3, SIZE, SIZE],
        classes: 10,
        normalisation: super::Normalisation::symmetric(),
    }
}

fn read_file(path: &Path, into: &mut Dataset) -> Result<(), DataError> {
    let bytes = crate::files::read(path).map_err(DataError::io(path))?;
    if bytes.len() != RECORD * RECORDS {
        return Err(DataError::content(
            path,
            bytes.len() as u64,
            "end of file",
            format!("{} bytes ({RECORDS} records of {RECORD})", RECORD * RECORDS),
        ));
    }
    for (index, record) in bytes.chunks_exact(RECORD).enumerate() {
        if record[0] > 9 {
            let offset = (index * RECORD) as u64;
            return Err(DataError::content(
                path,
                offset,
                format!("label {}", record[0]),
                "0 to 9",
            ));
        }
        into.labels.push(record[0].into());
        into.images.extend_from_slice(&record[1..]);
    }
    Ok(())
}

/// Fetches the archive into `folder`, verifies its checksum and unpacks it.
///
/// Resumable: a partial download is continued where the server allows it. `progress` is called
/// with (bytes so far, total if known).
///
/// # Errors
/// Network, disk or checksum failures, with what to do about them.
pub fn download(
    archive: &Archive,
    folder: &Path,
    mut progress: impl FnMut(u64, Option<u64>),
) -> Result<(), DataError> {
    if read(folder).is_ok() {
        return Ok(());
    }
    fs::create_dir_all(folder).map_err(DataError::io(folder))?;
    let partial = folder.join("cifar-10-binary.tar.gz.part");
    fetch::fetch(&archive.url, &partial, &mut progress)?;
    fetch::verify(&partial, &archive.sha256, false)?;
    unpack(&partial, folder)?;
    fs::remove_file(&partial).map_err(DataError::io(&partial))?;
    read(folder).map(drop)
}

fn unpack(partial: &Path, folder: &Path) -> Result<(), DataError> {
    let file = File::open(partial).map_err(DataError::io(partial))?;
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    archive.unpack(folder).map_err(DataError::io(partial))
}
