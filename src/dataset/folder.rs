//! Pictures in folders: `train/CLASS/*.png|jpg` and, if present, `test/CLASS/*`.

use std::path::{Path, PathBuf};

use image::imageops::FilterType;

use super::{DataError, Dataset};

/// Side that pictures are scaled to where the experiment does not say.
pub(super) const SIZE: usize = 32;

/// Names of the classes: the folders under `train`.
pub(super) fn classes(root: &Path) -> Result<Vec<String>, DataError> {
    let classes = entries(&root.join("train"))?
        .into_iter()
        .filter(|p| p.is_dir());
    let names: Vec<String> = classes
        .filter_map(|p| Some(p.file_name()?.to_string_lossy().into_owned()))
        .collect();
    if names.len() < 2 || names.len() > 65_536 {
        return Err(DataError::content(
            &root.join("train"),
            0,
            format!("{} class folders", names.len()),
            "2 to 65536 folders, one per class",
        ));
    }
    Ok(names)
}

/// Training and test part, pictures of `size` by `size`.
pub(super) fn read(root: &Path, size: usize) -> Result<(Dataset, Option<Dataset>), DataError> {
    let names = classes(root)?;
    let train = part(&root.join("train"), &names, size)?;
    let test = root.join("test");
    let test = if test.is_dir() {
        Some(part(&test, &names, size)?)
    } else {
        None
    };
    Ok((train, test))
}

/// Sorted, so that the order does not depend on the file system.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(DataError::io(folder))? {
        found.push(entry.map_err(DataError::io(folder))?.path());
    }
    found.sort();
    Ok(found)
}

fn part(folder: &Path, classes: &[String], size: usize) -> Result<Dataset, DataError> {
    let mut data = Dataset {
        images: Vec::new(),
        labels: Vec::new(),
        shape: [3, size, size],
        classes: classes.len(),
    };
    for (label, class) in classes.iter().enumerate() {
        for path in entries(&folder.join(class))? {
            let picture = image::open(&path).map_err(|e| {
                DataError::content(&path, 0, e.to_string(), "a PNG or JPEG picture")
            })?;
            let picture = picture
                .resize_exact(size as u32, size as u32, FilterType::Triangle)
                .to_rgb8();
            for channel in 0..3 {
                data.images.extend(picture.pixels().map(|p| p.0[channel]));
            }
            data.labels.push(label as u16);
        }
    }
    Ok(data)
}
