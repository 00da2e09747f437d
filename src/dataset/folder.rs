//! Pictures in folders: `train/CLASS/*` and, if present, `test/CLASS/*` (or `val/CLASS/*`).
//!
//! What a file is, its content says. Files and folders that other programs leave behind are passed over
//! and counted; a picture that cannot be decoded in full is an error, or skipped where the experiment
//! says so.

use std::ffi::OsStr;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::imageops::FilterType;
use image::{DynamicImage, ImageDecoder, ImageReader};
use rayon::prelude::*;

use super::{DataError, Dataset};
use crate::experiment::OnTrouble;

/// Side that pictures are scaled to where the experiment does not say.
pub(super) const SIZE: usize = 32;

/// Names of pictures' files; one that holds no picture is damaged.
const ENDINGS: [&str; 7] = ["png", "jpg", "jpeg", "jpe", "webp", "bmp", "gif"];
/// What programs leave behind.
const LITTER: [&str; 3] = ["thumbs.db", "desktop.ini", "__macosx"];
/// Unreadable pictures that an error lists.
const LISTED: usize = 20;

/// What to do where a folder is not as it should be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choices {
    /// Pictures that cannot be decoded.
    pub unreadable: OnTrouble,
    /// Classes of the test part that the training part has not.
    pub unknown_classes: OnTrouble,
}

/// What was found in a folder.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Pictures of the training and the test part.
    pub pictures: [usize; 2],
    /// Files and folders that were passed over.
    pub skipped: usize,
    /// Pictures that cannot be decoded, with the reason.
    pub unreadable: Vec<String>,
    /// What a reader should know, a sentence each.
    pub notes: Vec<String>,
}

/// A class: its name, and its folder under it.
struct Class {
    name: String,
    folder: PathBuf,
}

/// A file and its class.
type Labelled = (PathBuf, u16);

fn is_litter(name: &OsStr) -> bool {
    let name = name.to_string_lossy().to_lowercase();
    name.starts_with('.') || LITTER.contains(&name.as_str())
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

/// The class folders of a part, and how many entries are none.
fn class_folders(part: &Path) -> Result<(Vec<Class>, usize), DataError> {
    let mut classes = Vec::new();
    let mut skipped = 0;
    for path in entries(part)? {
        let name = path.file_name().unwrap_or_default().to_owned();
        if is_litter(&name) || !path.is_dir() {
            skipped += 1;
            continue;
        }
        classes.push(Class {
            name: name.to_string_lossy().into_owned(),
            folder: path,
        });
    }
    Ok((classes, skipped))
}

/// Names of the classes: the folders under `train`.
pub(super) fn classes(root: &Path) -> Result<Vec<String>, DataError> {
    let train = root.join("train");
    let (classes, _) = class_folders(&train)?;
    if classes.len() < 2 || classes.len() > 65_536 {
        return Err(DataError::folder(
            &train,
            format!("{} class folders", classes.len()),
            "2 to 65536 folders, one per class",
        ));
    }
    Ok(classes.into_iter().map(|c| c.name).collect())
}

/// The part that the final figure is measured on: `test`, or ImageNet's `val`.
fn test_part(root: &Path) -> Option<PathBuf> {
    ["test", "val"]
        .map(|name| root.join(name))
        .into_iter()
        .find(|p| p.is_dir())
}

/// Training and test part, pictures of `size` by `size`, with what was found.
pub(super) fn read(
    root: &Path,
    size: Option<usize>,
    choices: Choices,
) -> Result<(Dataset, Option<Dataset>, Report), DataError> {
    let names = classes(root)?;
    let side = size.unwrap_or(SIZE);
    let mut report = Report {
        classes: names.clone(),
        ..Report::default()
    };
    let train = list(&root.join("train"), &names, choices, &mut report)?;
    let test = match test_part(root) {
        Some(part) => Some((list(&part, &names, choices, &mut report)?, part)),
        None => None,
    };
    let mut extents = Vec::new();
    let train = decode(
        &root.join("train"),
        &train,
        names.len(),
        side,
        choices,
        &mut report,
        &mut extents,
    )?;
    if train.is_empty() {
        return Err(DataError::folder(
            &root.join("train"),
            format!("{} class folders without a picture", names.len()),
            "pictures: PNG, JPEG, WebP, BMP or GIF",
        ));
    }
    report.pictures[0] = train.len();
    let empty: Vec<&str> = (0..names.len())
        .filter(|class| !train.labels.contains(&(*class as u16)))
        .map(|class| names[class].as_str())
        .collect();
    if !empty.is_empty() {
        report.notes.push(format!(
            "classes without a training picture: {}",
            empty.join(", ")
        ));
    }
    let test = match test {
        Some((listed, part)) => {
            let test = decode(
                &part,
                &listed,
                names.len(),
                side,
                choices,
                &mut report,
                &mut extents,
            )?;
            report.pictures[1] = test.len();
            if test.is_empty() {
                report.notes.push(format!(
                    "{} holds no picture: there is no test part",
                    part.display()
                ));
            }
            Some(test).filter(|t| !t.is_empty())
        }
        None => None,
    };
    extents.sort_unstable();
    if let (None, Some([least, most])) = (size, spread(&extents))
        && [least, most] != [[SIZE as u32; 2]; 2]
    {
        let text = |[w, h]: [u32; 2]| format!("{w}x{h}");
        let found = if least == most {
            text(least)
        } else {
            format!("{} to {}", text(least), text(most))
        };
        report.notes.push(format!(
            "pictures of {found} are brought to {SIZE}x{SIZE}; `data.size` asks for another size"
        ));
    }
    if report.skipped > 0 {
        report.notes.push(format!(
            "{} files and folders that are no pictures of a class were passed over",
            report.skipped
        ));
    }
    if !report.unreadable.is_empty() {
        report.notes.push(format!(
            "{} pictures that cannot be decoded were left out",
            report.unreadable.len()
        ));
    }
    Ok((train, test, report))
}

/// Smallest and largest extent.
fn spread(sorted: &[[u32; 2]]) -> Option<[[u32; 2]; 2]> {
    Some([*sorted.first()?, *sorted.last()?])
}

/// The files of a part with their classes.
fn list(
    part: &Path,
    names: &[String],
    choices: Choices,
    report: &mut Report,
) -> Result<Vec<Labelled>, DataError> {
    let (classes, skipped) = class_folders(part)?;
    let known = |class: &Class| names.iter().position(|n| *n == class.name);
    let unknown: Vec<&str> = classes
        .iter()
        .filter(|c| known(c).is_none())
        .map(|c| c.name.as_str())
        .collect();
    let absent: Vec<&str> = names
        .iter()
        .filter(|n| !classes.iter().any(|c| c.name == **n))
        .map(String::as_str)
        .collect();
    if !unknown.is_empty() && choices.unknown_classes == OnTrouble::Stop {
        let also = match absent.is_empty() {
            true => String::new(),
            false => format!("; {} of the training part are not there", absent.join(", ")),
        };
        return Err(DataError::folder(
            part,
            format!(
                "classes that the training part has not: {}{also}",
                unknown.join(", ")
            ),
            "the training part's classes; `data.unknown_classes = \"skip\"` leaves the others out",
        ));
    }
    if !unknown.is_empty() {
        report.notes.push(format!(
            "{}: classes left out: {}",
            part.display(),
            unknown.join(", ")
        ));
    }
    if !absent.is_empty() {
        report.notes.push(format!(
            "{}: classes that are not there: {}",
            part.display(),
            absent.join(", ")
        ));
    }
    report.skipped += skipped;
    let mut files = Vec::new();
    for class in &classes {
        let Some(label) = known(class) else {
            continue;
        };
        for path in entries(&class.folder)? {
            let name = path.file_name().unwrap_or_default();
            if is_litter(name) || path.is_dir() {
                report.skipped += 1;
            } else {
                files.push((path, label as u16));
            }
        }
    }
    Ok(files)
}

/// What a file turned out to be.
enum Found {
    Picture(Vec<u8>, [u32; 2]),
    Other,
    Unreadable(String),
}

fn decode(
    part: &Path,
    files: &[Labelled],
    classes: usize,
    size: usize,
    choices: Choices,
    report: &mut Report,
    extents: &mut Vec<[u32; 2]>,
) -> Result<Dataset, DataError> {
    let found: Vec<Found> = files
        .par_iter()
        .map(|(path, _)| picture(path, size))
        .collect();
    let mut data = Dataset {
        images: Vec::new(),
        labels: Vec::new(),
        shape: [3, size, size],
        classes,
    };
    let mut unreadable = Vec::new();
    for (found, (path, label)) in found.into_iter().zip(files) {
        match found {
            Found::Picture(bytes, extent) => {
                data.images.extend(bytes);
                data.labels.push(*label);
                extents.push(extent);
            }
            Found::Other => report.skipped += 1,
            Found::Unreadable(reason) => unreadable.push(format!("{}: {reason}", path.display())),
        }
    }
    if !unreadable.is_empty() && choices.unreadable == OnTrouble::Stop {
        let shown = unreadable
            .iter()
            .take(LISTED)
            .cloned()
            .collect::<Vec<_>>()
            .join("\n");
        let more = match unreadable.len().saturating_sub(LISTED) {
            0 => String::new(),
            more => format!("\n... and {more} more"),
        };
        return Err(DataError::folder(
            part,
            format!(
                "{} pictures that cannot be decoded:\n{shown}{more}\n",
                unreadable.len()
            ),
            "pictures that are whole; `data.unreadable = \"skip\"` leaves them out",
        ));
    }
    report.unreadable.extend(unreadable);
    Ok(data)
}

/// Decodes a file by its content and brings it to `size`; channels one behind the other.
fn picture(path: &Path, size: usize) -> Found {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => return Found::Unreadable(error.to_string()),
    };
    let reader = match ImageReader::new(Cursor::new(&bytes)).with_guessed_format() {
        Ok(reader) => reader,
        Err(error) => return Found::Unreadable(error.to_string()),
    };
    let Some(format) = reader.format() else {
        let ending = path
            .extension()
            .unwrap_or_default()
            .to_string_lossy()
            .to_lowercase();
        return if ENDINGS.contains(&ending.as_str()) {
            Found::Unreadable("it holds no picture".into())
        } else {
            Found::Other
        };
    };
    if format == image::ImageFormat::Jpeg && !is_whole_jpeg(&bytes) {
        return Found::Unreadable("the JPEG is cut: no end of image behind its last scan".into());
    }
    let decoded = (|| {
        let mut decoder = reader.into_decoder()?;
        let orientation = decoder.orientation()?;
        let mut picture = DynamicImage::from_decoder(decoder)?;
        picture.apply_orientation(orientation);
        Ok::<_, image::ImageError>(picture)
    })();
    match decoded {
        Ok(picture) => {
            let extent = [picture.width(), picture.height()];
            let opaque = DynamicImage::from(over_black(&picture));
            let side = size as u32;
            let scaled = opaque
                .resize_exact(side, side, FilterType::Triangle)
                .to_rgb8();
            let planes = (0..3).flat_map(|channel| scaled.pixels().map(move |p| p.0[channel]));
            Found::Picture(planes.collect(), extent)
        }
        Err(error) => Found::Unreadable(error.to_string()),
    }
}

/// Whether an end of image stands behind the last scan: inside a scan that marker cannot occur.
fn is_whole_jpeg(bytes: &[u8]) -> bool {
    let last = |marker: [u8; 2]| bytes.windows(2).rposition(|w| w == marker);
    match (last([0xff, 0xda]), last([0xff, 0xd9])) {
        (Some(scan), Some(end)) => end > scan,
        _ => false,
    }
}

/// The picture over black, as padding is: what transparency hides is not learned from.
fn over_black(picture: &DynamicImage) -> image::RgbImage {
    if !picture.color().has_alpha() {
        return picture.to_rgb8();
    }
    let pixels = picture.to_rgba8();
    image::RgbImage::from_fn(pixels.width(), pixels.height(), |x, y| {
        let [r, g, b, alpha] = pixels.get_pixel(x, y).0;
        let over = |v: u8| ((u32::from(v) * u32::from(alpha) + 127) / 255) as u8;
        image::Rgb([over(r), over(g), over(b)])
    })
}
