//! Pictures in folders: `train/CLASS/*` and, if present, `test/CLASS/*` (or `val/CLASS/*`).
//!
//! What a file is, its content says. Files and folders that other programs leave behind are passed over
//! and counted; a picture that cannot be decoded in full is an error, or skipped where the experiment
//! says so.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rand_pcg::Pcg64Mcg;
use rayon::prelude::*;

use super::cached::Cached;
use super::picture::{Decoded, decode, extent, frame};
use super::samples::{Pixels, Sample, Samples};
use super::stored::Stored;
use super::{DataError, Dataset, Normalisation};
use crate::experiment::{Cache, Experiment, Framing, OnTrouble};

/// Side that pictures are scaled to where the experiment does not say.
pub(super) const SIZE: usize = 32;

/// What programs leave behind.
const LITTER: [&str; 3] = ["thumbs.db", "desktop.ini", "__macosx"];
/// Unreadable pictures that an error lists.
const LISTED: usize = 20;

/// Bytes of decoded pictures that are held in memory where the experiment does not say.
const HELD: usize = 1 << 30;
/// Pictures of a stream whose extents are looked at before training.
const LOOKED_AT: usize = 64;

/// What an experiment wants of a folder.
#[derive(Debug, Clone)]
pub(super) struct Wishes {
    /// Pictures that cannot be decoded.
    pub unreadable: OnTrouble,
    /// Classes of the test part that the training part has not.
    pub unknown_classes: OnTrouble,
    size: Option<usize>,
    cache: Cache,
    framing: Framing,
    /// Whether training pictures are cropped at random as they are stored.
    crops: bool,
    normalisation: Normalisation,
}

impl Wishes {
    pub fn of(experiment: &Experiment) -> Self {
        Self {
            unreadable: experiment.unreadable,
            unknown_classes: experiment.unknown_classes,
            size: experiment.shape.size,
            cache: experiment.cache,
            framing: experiment.framing.clone(),
            crops: experiment.random_resized,
            normalisation: Normalisation::new(&experiment.normalise),
        }
    }

    fn side(&self) -> usize {
        self.size.unwrap_or(SIZE)
    }

    /// Whether so many pictures are decoded as they are needed, instead of once.
    fn streams(&self, pictures: usize) -> bool {
        match self.cache {
            Cache::Memory => false,
            Cache::None | Cache::File => true,
            Cache::Auto => self.crops || pictures * 3 * self.side() * self.side() > HELD,
        }
    }
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
    /// How the parts are held, where not in memory.
    pub holding: Vec<String>,
}

/// A class: its name, and its folder under it.
struct Class {
    name: String,
    folder: PathBuf,
}

/// A picture and its class.
pub(super) type Labelled = (Stored, u16);

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

/// Whether it is a tar file, or holds one.
fn has_tars(path: &Path) -> bool {
    let is_tar = |path: &Path| path.extension().is_some_and(|e| e == "tar");
    is_tar(path) || entries(path).is_ok_and(|all| all.iter().any(|p| is_tar(p)))
}

/// Names of the classes: the folders under `train`.
pub(super) fn classes(root: &Path) -> Result<Vec<String>, DataError> {
    let train = root.join("train");
    if root.is_file() || !train.is_dir() {
        let hint = if has_tars(root) {
            "; hint: `data.source = \"tar\"`"
        } else {
            ""
        };
        let expected = format!("a folder with train/CLASS/PICTURE{hint}");
        let found = if root.is_file() {
            "a file"
        } else {
            "no folder train in it"
        };
        return Err(DataError::folder(root, found, expected));
    }
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

/// A part of a folder.
pub(super) type Part = Box<dyn Samples>;

/// Training and test part, with what was found.
pub(super) fn read(
    root: &Path,
    wishes: &Wishes,
) -> Result<(Part, Option<Part>, Report), DataError> {
    let mut reading = Reading::new(classes(root)?, wishes);
    let part = root.join("train");
    let train = reading.list(&part)?;
    let test = match test_part(root) {
        Some(part) => Some((reading.list(&part)?, part)),
        None => None,
    };
    let names = reading.report.classes.clone();
    let train = reading.part(&part, train, true)?;
    if train.is_empty() {
        let found = match reading.report.unreadable.as_slice() {
            [] => format!("{} class folders without a picture", names.len()),
            [first, ..] => format!(
                "none of {} pictures can be decoded, the first: {first}",
                reading.report.unreadable.len()
            ),
        };
        let expected = "pictures: PNG, JPEG, WebP, BMP or GIF";
        return Err(DataError::folder(&part, found, expected));
    }
    let test = match test {
        Some((listed, part)) => {
            let test = reading.part(&part, listed, false)?;
            if test.is_empty() {
                reading.report.notes.push(format!(
                    "{} holds no picture: there is no test part",
                    part.display()
                ));
            }
            Some(test).filter(|t| !t.is_empty())
        }
        None => None,
    };
    let sizes = [train.len(), test.as_ref().map_or(0, |t| t.len())];
    Ok((train, test, reading.finish(sizes)))
}

/// What a check wants: every picture decoded, unreadable ones listed and no error.
pub(super) fn wishes_of_check(wishes: Wishes) -> Wishes {
    Wishes {
        unreadable: OnTrouble::Skip,
        cache: Cache::Memory,
        ..wishes
    }
}

/// Every picture decoded: unreadable ones are listed, not an error.
pub(super) fn check(root: &Path, wishes: Wishes) -> Result<Report, DataError> {
    let wishes = wishes_of_check(wishes);
    let mut reading = Reading::new(classes(root)?, &wishes);
    let mut parts = vec![root.join("train")];
    parts.extend(test_part(root));
    let mut listed = Vec::new();
    for part in parts {
        let files = reading.list(&part)?;
        listed.push((part, files));
    }
    reading.check(listed)
}

/// A folder as it is read.
pub(super) struct Reading<'a> {
    wishes: &'a Wishes,
    report: Report,
    extents: Vec<[u32; 2]>,
    /// Whether decoded pictures are kept.
    keeps: bool,
}

/// Smallest and largest extent.
fn spread(sorted: &[[u32; 2]]) -> Option<[[u32; 2]; 2]> {
    Some([*sorted.first()?, *sorted.last()?])
}

impl<'a> Reading<'a> {
    /// Of classes of these names.
    pub fn new(classes: Vec<String>, wishes: &'a Wishes) -> Self {
        let report = Report {
            classes,
            ..Report::default()
        };
        Self {
            wishes,
            report,
            extents: Vec::new(),
            keeps: true,
        }
    }

    /// Decodes every picture of the parts, the training part first, and keeps none of them: each is
    /// brought to the least size, so that memory is no question.
    pub fn check(mut self, parts: Vec<(PathBuf, Vec<Labelled>)>) -> Result<Report, DataError> {
        self.keeps = false;
        let mut pictures = [0; 2];
        for (i, ((part, files), pictures)) in parts.into_iter().zip(&mut pictures).enumerate() {
            let before = self.extents.len();
            self.part(&part, files, i == 0)?;
            *pictures = self.extents.len() - before;
        }
        Ok(self.finish(pictures))
    }

    /// So many files were passed over.
    pub fn skip(&mut self, count: usize) {
        self.report.skipped += count;
    }

    /// What is to be said besides.
    pub fn note(&mut self, notes: Vec<String>) {
        self.report.notes.extend(notes);
    }

    /// What was found: so many pictures of the training and the test part.
    pub fn finish(mut self, pictures: [usize; 2]) -> Report {
        self.report.pictures = pictures;
        self.extents.sort_unstable();
        if let (None, Some([least, most])) = (self.wishes.size, spread(&self.extents))
            && [least, most] != [[SIZE as u32; 2]; 2]
        {
            let text = |[w, h]: [u32; 2]| format!("{w}x{h}");
            let found = if least == most {
                text(least)
            } else {
                format!("{} to {}", text(least), text(most))
            };
            self.report.notes.push(format!(
                "pictures of {found} are brought to {SIZE}x{SIZE}; `data.size` asks for another size"
            ));
        }
        if self.report.skipped > 0 {
            self.report.notes.push(format!(
                "{} files and folders that are not pictures of a class were skipped",
                self.report.skipped
            ));
        }
        if !self.report.unreadable.is_empty() {
            let what = if self.keeps {
                "were left out"
            } else {
                "are listed here"
            };
            self.report.notes.push(format!(
                "{} pictures that cannot be decoded {what}",
                self.report.unreadable.len()
            ));
        }
        self.report
    }

    /// The files of a part with their classes.
    fn list(&mut self, part: &Path) -> Result<Vec<Labelled>, DataError> {
        let (wishes, report) = (self.wishes, &mut self.report);
        let names = report.classes.clone();
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
        if !unknown.is_empty() && wishes.unknown_classes == OnTrouble::Stop {
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
                "{}: missing classes: {}",
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
                    files.push((Stored::File(path), label as u16));
                }
            }
        }
        Ok(files)
    }

    /// The pictures of a part: decoded now, or as they are needed.
    pub fn part(
        &mut self,
        part: &Path,
        files: Vec<Labelled>,
        is_training: bool,
    ) -> Result<Part, DataError> {
        let classes = self.report.classes.len();
        if !self.wishes.streams(files.len()) {
            return Ok(Box::new(self.decoded(part, &files, is_training)?));
        }
        let named = |(stored, _): &Labelled| stored.is_named_like_a_picture();
        let (files, others): (Vec<_>, Vec<_>) = files.into_iter().partition(named);
        self.report.skipped += others.len();
        if is_training {
            self.note_empty_classes(files.iter().map(|(_, label)| *label));
        }
        let step = files.len().div_ceil(LOOKED_AT).max(1);
        let looked_at = files.iter().step_by(step);
        self.extents
            .extend(looked_at.filter_map(|(stored, _)| extent(stored)));
        let crops = is_training && self.wishes.crops;
        let cached = match self.wishes.cache {
            // Parts are taken at random of pictures as they are stored.
            Cache::File if !crops => self.cached(part, is_training),
            _ => None,
        };
        self.report.holding.push(match &cached {
            None => format!("{} pictures are decoded as they are needed", files.len()),
            Some(cached) => format!(
                "{} pictures are decoded once and kept in {}, which grows to {:.1} MB",
                files.len(),
                cached.path().display(),
                cached.length(files.len()) as f64 / 1e6
            ),
        });
        Ok(Box::new(Stream {
            files,
            classes,
            side: self.wishes.side(),
            framing: self.wishes.framing.clone(),
            crops,
            cached,
            left_out: (self.wishes.unreadable == OnTrouble::Skip).then(Mutex::default),
            normalisation: self.wishes.normalisation.clone(),
        }))
    }

    /// The file beside a part of the data that its decoded pictures are kept in.
    fn cached(&mut self, part: &Path, is_training: bool) -> Option<Cached> {
        let side = self.wishes.side();
        let framed = self.wishes.framing.resize;
        let framed = framed.map_or(String::new(), |resize| format!("-of-{resize}"));
        let which = if is_training { "train" } else { "test" };
        let name = format!(".bitscope-{which}-{side}{framed}");
        let opened = Cached::open(part.with_file_name(name), 3 * side * side);
        opened
            .map_err(|error| {
                self.report.notes.push(format!(
                    "decoded pictures cannot be kept beside {}: {error}",
                    part.display()
                ));
            })
            .ok()
    }

    fn note_empty_classes(&mut self, labels: impl Iterator<Item = u16>) {
        let mut seen = vec![false; self.report.classes.len()];
        labels.for_each(|label| seen[usize::from(label)] = true);
        let names = self.report.classes.iter().zip(&seen);
        let empty: Vec<&str> = names
            .filter(|(_, s)| !**s)
            .map(|(n, _)| n.as_str())
            .collect();
        // (None at all is an error of its own.)
        if !empty.is_empty() && empty.len() < seen.len() {
            self.report.notes.push(format!(
                "classes without a training picture: {}",
                empty.join(", ")
            ));
        }
    }

    fn decoded(
        &mut self,
        part: &Path,
        files: &[Labelled],
        is_training: bool,
    ) -> Result<Dataset, DataError> {
        let side = self.wishes.side();
        let (framing, keeps) = (&self.wishes.framing, self.keeps);
        let found: Vec<Found> = files
            .par_iter()
            .map(|(stored, _)| match decode(stored) {
                Decoded::Picture(picture) => {
                    let extent = [picture.width(), picture.height()];
                    match frame(&picture, if keeps { side } else { 1 }, framing, None) {
                        Ok(planes) => Found::Picture(planes, extent),
                        Err(reason) => Found::Unreadable(reason),
                    }
                }
                Decoded::Other => Found::Other,
                Decoded::Unreadable(reason) => Found::Unreadable(reason),
            })
            .collect();
        let mut data = Dataset {
            images: Vec::new(),
            labels: Vec::new(),
            shape: [3, side, side],
            classes: self.report.classes.len(),
            normalisation: self.wishes.normalisation.clone(),
        };
        let mut unreadable = Vec::new();
        for (found, (stored, label)) in found.into_iter().zip(files) {
            match found {
                Found::Picture(bytes, extent) => {
                    if keeps {
                        data.images.extend(bytes);
                    }
                    data.labels.push(*label);
                    self.extents.push(extent);
                }
                Found::Other => self.report.skipped += 1,
                Found::Unreadable(reason) => {
                    unreadable.push(format!("{stored}: {reason}"));
                }
            }
        }
        if !unreadable.is_empty() && self.wishes.unreadable == OnTrouble::Stop {
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
                "intact pictures; `data.unreadable = \"skip\"` leaves them out",
            ));
        }
        self.report.unreadable.extend(unreadable);
        if is_training {
            self.note_empty_classes(data.labels.iter().copied());
        }
        Ok(data)
    }
}

/// What a file turned out to be.
enum Found {
    Picture(Vec<u8>, [u32; 2]),
    Other,
    Unreadable(String),
}

/// Pictures that are decoded as they are needed: in memory is the list of files alone.
#[derive(Debug)]
struct Stream {
    files: Vec<Labelled>,
    classes: usize,
    side: usize,
    framing: Framing,
    crops: bool,
    /// Where decoded pictures are kept.
    cached: Option<Cached>,
    /// Which pictures cannot be decoded, where such are left out.
    left_out: Option<Mutex<BTreeSet<usize>>>,
    normalisation: Normalisation,
}

impl Stream {
    /// A picture's planes, or why there are none.
    fn planes(&self, index: usize, random: Option<&mut Pcg64Mcg>) -> Result<Vec<u8>, String> {
        let (stored, _) = &self.files[index];
        let kept = match (&self.cached, &random) {
            (Some(cached), None) => stored.identity().ok().map(|of| (cached, of)),
            _ => None,
        };
        if let Some((cached, of)) = kept
            && let Some(planes) = cached.get(index, of)
        {
            return Ok(planes);
        }
        let planes = match decode(stored) {
            Decoded::Picture(picture) => frame(&picture, self.side, &self.framing, random),
            Decoded::Other => Err("it holds no picture".into()),
            Decoded::Unreadable(reason) => Err(reason),
        }?;
        if let Some((cached, of)) = kept {
            cached.put(index, of, &planes);
        }
        Ok(planes)
    }
}

impl Samples for Stream {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn shape(&self) -> [usize; 3] {
        [3, self.side, self.side]
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn normalisation(&self) -> &Normalisation {
        &self.normalisation
    }

    fn which_left_out(&self) -> Vec<usize> {
        let left_out = self.left_out.iter();
        let left_out = left_out.map(|all| all.lock().unwrap_or_else(PoisonError::into_inner));
        left_out
            .flat_map(|all| Vec::from_iter(all.iter().copied()))
            .collect()
    }

    fn crops_itself(&self) -> bool {
        self.crops
    }

    fn sample(
        &self,
        index: usize,
        random: Option<&mut Pcg64Mcg>,
    ) -> Result<Option<Sample<'_>>, DataError> {
        let (stored, label) = &self.files[index];
        match (self.planes(index, random), &self.left_out) {
            (Ok(planes), _) => Ok(Some((Pixels::Bytes(planes.into()), *label))),
            (Err(_), Some(left_out)) => {
                let mut left_out = left_out.lock().unwrap_or_else(PoisonError::into_inner);
                left_out.insert(index);
                Ok(None)
            }
            (Err(reason), None) => Err(DataError::folder(
                Path::new(&stored.to_string()),
                reason,
                "an intact picture; `data.unreadable = \"skip\"` leaves others out",
            )),
        }
    }
}
