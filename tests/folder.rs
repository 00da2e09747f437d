//! Folders of pictures as people have them: what is no picture is passed over, what cannot be read is
//! an error, and the rest trains as its clean twin does.

use std::path::{Path, PathBuf};

use bitscope::dataset::{Batch, DataError, Dataset, Loader, LoaderSettings, Splits, open};
use bitscope::experiment::load_embedded;
use image::{DynamicImage, ImageFormat, Rgb, RgbImage, Rgba, RgbaImage};

/// A picture that its number decides.
fn picture(number: u32, size: u32) -> RgbImage {
    RgbImage::from_fn(size, size, |x, y| {
        let wave = |a: u32, b: u32| ((x * a + y * b + number * 37) % 256) as u8;
        Rgb([wave(7, 3), wave(2, 11), wave(5, 5)])
    })
}

fn save(path: &Path, picture: &DynamicImage, format: ImageFormat) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    picture.save_with_format(path, format).expect("written");
}

/// `train/a`, `train/b` and `test/a`, `test/b` with eight pictures each.
fn clean() -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a folder");
    for (p, part) in ["train", "test"].iter().enumerate() {
        for (c, class) in ["a", "b"].iter().enumerate() {
            for i in 0..8 {
                let number = (p * 100 + c * 50) as u32 + i;
                let path = root.path().join(part).join(class).join(format!("{i}.png"));
                save(&path, &picture(number, 32).into(), ImageFormat::Png);
            }
        }
    }
    root
}

fn read(root: &Path, settings: &[&str]) -> Result<Splits, String> {
    let mut set = vec![
        "data.source=folder".to_owned(),
        format!("data.path={}", root.display()),
        "data.validation=0".to_owned(),
    ];
    set.extend(settings.iter().map(|s| (*s).to_owned()));
    let loaded = load_embedded("folder.toml", "", &set).map_err(|e| e.to_string())?;
    open(&loaded.experiment).map_err(|e| e.to_string())
}

/// The training part, decoded.
fn all(splits: &Splits) -> Dataset {
    Dataset::of(&*splits.train).expect("decoded")
}

fn train(root: &Path) -> Dataset {
    all(&read(root, &[]).expect("readable"))
}

#[test]
fn what_other_programs_leave_behind_changes_nothing() {
    let twin = train(clean().path());
    let root = clean();
    let at = |name: &str| root.path().join(name);
    for name in [
        "train/.ipynb_checkpoints/a-checkpoint.png",
        "train/a/.DS_Store",
        "train/a/Thumbs.db",
        "train/__MACOSX/._0.png",
        "train/notes.txt",
        "train/b/notes.txt",
        "train/b/more/9.png",
    ] {
        let path = at(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, b"no picture").expect("written");
    }
    let splits = read(root.path(), &[]).expect("readable");
    assert_eq!(all(&splits), twin);
    assert!(
        splits
            .notes
            .iter()
            .any(|n| n.starts_with("7 files and folders")),
        "{:?}",
        splits.notes
    );
}

#[test]
fn a_file_is_what_it_holds() {
    let twin = train(clean().path());
    let root = clean();
    std::fs::rename(
        root.path().join("train/a/0.png"),
        root.path().join("train/a/0.jpg"),
    )
    .expect("renamed");
    std::fs::rename(
        root.path().join("train/a/1.png"),
        root.path().join("train/a/1.PNG"),
    )
    .expect("renamed");
    assert_eq!(train(root.path()), twin);
    for (format, ending) in [(ImageFormat::Bmp, "bmp"), (ImageFormat::WebP, "webp")] {
        let root = clean();
        std::fs::remove_file(root.path().join("train/a/0.png")).expect("removed");
        let path = root.path().join(format!("train/a/0.{ending}"));
        save(&path, &picture(0, 32).into(), format);
        assert_eq!(train(root.path()), twin, "{ending}");
    }
}

#[test]
fn damaged_pictures_are_errors_or_left_out_never_grey() {
    let root = clean();
    let jpeg = root.path().join("train/a/x.jpg");
    save(&jpeg, &picture(3, 64).into(), ImageFormat::Jpeg);
    let whole = std::fs::read(&jpeg).expect("written");
    std::fs::write(&jpeg, &whole[..whole.len() / 2]).expect("cut");
    let png = root.path().join("train/b/y.png");
    let bytes = std::fs::read(root.path().join("train/b/0.png")).expect("there");
    std::fs::write(&png, &bytes[..bytes.len() / 2]).expect("cut");
    std::fs::write(root.path().join("train/b/z.jpg"), b"").expect("empty");
    let error = read(root.path(), &[]).expect_err("damaged");
    for part in [
        "3 pictures that cannot be decoded",
        "x.jpg",
        "y.png",
        "z.jpg",
        "data.unreadable",
    ] {
        assert!(error.contains(part), "{error}");
    }
    let splits = read(root.path(), &["data.unreadable=skip"]).expect("left out");
    assert_eq!(all(&splits), train(clean().path()));
    assert!(
        splits.notes.iter().any(|n| n.contains("3 pictures")),
        "{:?}",
        splits.notes
    );
}

#[test]
fn what_transparency_hides_is_not_seen() {
    let with_hidden = |hidden: u8| {
        let root = clean();
        let mut pixels = RgbaImage::from_pixel(32, 32, Rgba([hidden, hidden, hidden, 0]));
        pixels.put_pixel(3, 4, Rgba([200, 100, 50, 255]));
        save(
            &root.path().join("train/a/0.png"),
            &pixels.into(),
            ImageFormat::Png,
        );
        train(root.path())
    };
    assert_eq!(with_hidden(10), with_hidden(240));
}

/// A JPEG with an EXIF orientation in front.
fn oriented(jpeg: &[u8], orientation: u8) -> Vec<u8> {
    let mut exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
    let length = (exif.len() + 2) as u16;
    [
        &jpeg[..2],
        &[0xff, 0xe1],
        &length.to_be_bytes()[..],
        &exif,
        &jpeg[2..],
    ]
    .concat()
}

#[test]
fn pictures_stand_as_their_camera_was_held() {
    let make = |turn: bool| {
        let root = clean();
        let path = root.path().join("train/a/0.jpg");
        std::fs::remove_file(root.path().join("train/a/0.png")).expect("removed");
        // 16-pixel blocks of one colour survive the compression whichever way they lie.
        let blocks = RgbImage::from_fn(32, 32, |x, y| match (x / 16, y / 16) {
            (0, 0) => Rgb([255, 0, 0]),
            (1, 0) => Rgb([0, 255, 0]),
            (0, 1) => Rgb([0, 0, 255]),
            _ => Rgb([255, 255, 255]),
        });
        if turn {
            // Orientation 6: what is stored is the picture turned to the left.
            save(
                &path,
                &DynamicImage::from(blocks).rotate270(),
                ImageFormat::Jpeg,
            );
            let bytes = std::fs::read(&path).expect("written");
            std::fs::write(&path, oriented(&bytes, 6)).expect("written");
        } else {
            save(&path, &blocks.into(), ImageFormat::Jpeg);
        }
        train(root.path())
    };
    let (straight, turned) = (make(false), make(true));
    let gaps = straight
        .picture(0)
        .iter()
        .zip(turned.picture(0))
        .map(|(a, b)| a.abs_diff(*b));
    assert!(gaps.max().expect("pixels") < 30);
}

#[test]
fn classes_of_both_parts_are_compared() {
    let root = clean();
    std::fs::rename(root.path().join("test/b"), root.path().join("test/c")).expect("renamed");
    let error = read(root.path(), &[]).expect_err("c is unknown");
    assert!(
        error.contains("has not: c; b of the training part are not there"),
        "{error}"
    );
    let splits = read(root.path(), &["data.unknown_classes=skip"]).expect("left out");
    assert_eq!(splits.test.expect("a").len(), 8);
    assert_eq!(splits.notes.len(), 2, "{:?}", splits.notes);
    let root = clean();
    for i in 0..8 {
        std::fs::remove_file(root.path().join(format!("train/b/{i}.png"))).expect("removed");
        std::fs::remove_file(root.path().join(format!("test/a/{i}.png"))).expect("removed");
        std::fs::remove_file(root.path().join(format!("test/b/{i}.png"))).expect("removed");
    }
    let splits = read(root.path(), &[]).expect("a has pictures");
    assert!(splits.test.is_none(), "an empty part is none");
    assert!(
        splits
            .notes
            .iter()
            .any(|n| n.contains("without a training picture: b")),
        "{:?}",
        splits.notes
    );
    for i in 0..8 {
        std::fs::remove_file(root.path().join(format!("train/a/{i}.png"))).expect("removed");
    }
    let error = read(root.path(), &[]).expect_err("nothing left");
    assert!(
        error.contains("2 class folders without a picture"),
        "{error}"
    );
}

#[cfg(unix)]
#[test]
fn names_of_any_bytes_and_links_in_circles_are_folders_too() {
    use std::os::unix::ffi::OsStrExt;
    let root = clean();
    let odd = std::ffi::OsStr::from_bytes(b"caf\xe9");
    for part in ["train", "test"] {
        std::fs::rename(
            root.path().join(part).join("b"),
            root.path().join(part).join(odd),
        )
        .expect("renamed");
    }
    std::os::unix::fs::symlink(
        root.path().join("train"),
        root.path().join("train/a/circle"),
    )
    .expect("linked");
    let twin = train(clean().path());
    assert_eq!(train(root.path()), twin);
}

#[test]
fn a_size_is_asked_for_or_said() {
    let root = tempfile::tempdir().expect("a folder");
    for class in ["a", "b"] {
        let path: PathBuf = root.path().join("train").join(class).join("0.png");
        save(&path, &picture(1, 64).into(), ImageFormat::Png);
    }
    let splits = read(root.path(), &[]).expect("readable");
    assert_eq!(splits.train.shape(), [3, 32, 32]);
    assert!(
        splits.notes[0].contains("64x64 are brought to 32x32"),
        "{:?}",
        splits.notes
    );
    let splits = read(root.path(), &["data.size=64"]).expect("readable");
    assert_eq!(splits.train.shape(), [3, 64, 64]);
    assert!(splits.notes.is_empty());
}

fn batches(splits: &Splits, threads: usize, first: u64, count: usize) -> Vec<Batch> {
    let settings = LoaderSettings {
        batch: 4,
        augment: bitscope::experiment::Augment {
            crop: 0,
            flip: true,
        },
        seed: 5,
        threads,
        in_order: false,
    };
    let mut loader = Loader::start(splits.train.clone(), settings, first);
    (0..count).map(|_| loader.next_batch()).collect()
}

#[test]
fn a_stream_gives_the_same_batches_whoever_decodes_them() {
    let root = clean();
    let held = read(root.path(), &[]).expect("readable");
    let stream = read(root.path(), &["data.cache=none"]).expect("readable");
    assert_eq!(all(&stream), all(&held));
    let said = stream.described();
    assert!(
        said.contains("16 pictures are decoded as they are needed"),
        "{said}"
    );
    assert!(stream.notes.is_empty());
    let expected = batches(&held, 1, 0, 12);
    for threads in [1, 2, 4] {
        assert_eq!(batches(&stream, threads, 0, 12), expected);
        assert_eq!(batches(&stream, threads, 5, 7), expected[5..]);
    }
    // Parts taken at random: as the seed says, not the number of threads; other ones every epoch.
    let random = [
        "data.crop=resized",
        "data.augment=crop-flip",
        "data.size=24",
    ];
    let random = read(root.path(), &random).expect("readable");
    let once = batches(&random, 1, 0, 8);
    assert_eq!(batches(&random, 4, 0, 8), once);
    assert_eq!(batches(&random, 2, 3, 5), once[3..]);
    let sorted = |batches: &[Batch]| {
        let mut all: Vec<u32> = batches
            .iter()
            .flat_map(|b| &b.images)
            .map(|v| v.to_bits())
            .collect();
        all.sort_unstable();
        all
    };
    assert_ne!(sorted(&once[..4]), sorted(&once[4..]));
    assert_eq!(once[0].shape, [3, 24, 24]);
}

#[test]
fn what_a_stream_cannot_decode_ends_the_run_or_is_left_out() {
    let root = clean();
    std::fs::write(root.path().join("train/a/3.png"), b"no picture").expect("written");
    let skipping = ["data.cache=none", "data.unreadable=skip"];
    let skipping = read(root.path(), &skipping).expect("listed");
    assert_eq!(all(&skipping).labels.len(), 15);
    assert_eq!(skipping.train.left_out(), 1);
    // Its place is taken by the next one.
    assert!(
        batches(&skipping, 2, 0, 4)
            .iter()
            .all(|b| b.labels.len() == 4)
    );
    let nothing = tempfile::tempdir().expect("a folder");
    for class in ["a", "b"] {
        let path = nothing.path().join("train").join(class);
        std::fs::create_dir_all(&path).expect("made");
        std::fs::write(path.join("0.png"), b"no picture").expect("written");
    }
    let nothing = read(nothing.path(), &["data.cache=none", "data.unreadable=skip"]);
    let nothing = std::panic::AssertUnwindSafe(nothing.expect("listed"));
    let failed = std::panic::catch_unwind(|| batches(&nothing, 1, 0, 1)).expect_err("it ends");
    let reason = failed.downcast_ref::<DataError>().expect("a reason");
    let reason = reason.to_string();
    assert!(
        reason.contains("none of the 2 training pictures"),
        "{reason}"
    );
    let strict = read(root.path(), &["data.cache=none"]).expect("listed");
    let strict = std::panic::AssertUnwindSafe(strict);
    let failed = std::panic::catch_unwind(|| batches(&strict, 2, 0, 4)).expect_err("it ends");
    let reason = failed.downcast_ref::<DataError>().expect("a reason");
    let reason = reason.to_string();
    assert!(
        reason.contains("train/a/3.png: it holds no picture"),
        "{reason}"
    );
}

#[test]
fn pictures_are_framed_as_torchvision_does() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pictures");
    let bytes = std::fs::read(root.join("expected.safetensors")).expect("there");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("tensors");
    let stretched = read(&root, &[]).expect("readable");
    let expected = file.tensor("stretched").expect("there");
    let found = all(&stretched).images;
    assert_eq!(found.len(), expected.data().len());
    let pictures = found
        .chunks(3 * 32 * 32)
        .zip(expected.data().chunks(3 * 32 * 32));
    let largest: Vec<_> = pictures
        .map(|(a, b)| a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max())
        .collect();
    assert!(largest.iter().all(|l| *l <= Some(2)), "{largest:?}");
    let settings = ["data.resize=40", "data.size=32", "data.normalise=imagenet"];
    for cache in ["memory", "none"] {
        let mut settings = settings.to_vec();
        let cache = format!("data.cache={cache}");
        settings.push(&cache);
        let framed = read(&root, &settings).expect("readable");
        let batch = bitscope::dataset::evaluation_batches(framed.train.clone(), 9, 2).next();
        let found = batch.expect("a batch").images;
        let expected = file.tensor("framed").expect("there");
        let (expected, _) = expected.data().as_chunks::<4>();
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            let expected = f32::from_le_bytes(*expected);
            // Two levels of the least standard deviation.
            assert!(
                (found - expected).abs() <= 2.01 / 255.0 / 0.224,
                "{found} {expected}"
            );
        }
    }
}

#[test]
fn what_is_about_folders_alone_is_refused_elsewhere() {
    for (setting, expected) in [
        ("data.resize=64", "`data.resize` with the source `glyphs`"),
        ("data.crop=resized", "`data.crop` with the source `glyphs`"),
    ] {
        let error = load_embedded("e.toml", "", &vec![setting.to_owned()]).expect_err("refused");
        assert!(error.to_string().contains(expected), "{error}");
    }
    let error = read(clean().path(), &["data.size=64", "data.resize=40"]).expect_err("refused");
    assert!(error.contains("at least `data.size`, 64"), "{error}");
}

/// Where there are more than twenty classes an evaluation says, in its own event, how many answers have
/// the class among the first five.
#[test]
fn many_classes_have_a_top_five_error() {
    let root = tempfile::tempdir().expect("a folder");
    for class in 0..25 {
        for i in 0..4 {
            let path = root.path().join(format!("train/c{class:02}/{i}.png"));
            save(&path, &picture(class * 4 + i, 32).into(), ImageFormat::Png);
        }
    }
    let text = "device = \"flex\"\n[data]\nsource = \"folder\"\npath = \".\"\nvalidation = 0.5\n\
                [train]\nbatch = 10\nepochs = 1\n";
    std::fs::write(root.path().join("e.toml"), text).expect("written");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_bitscope"))
        .args(["train", "e.toml", "--json"])
        .current_dir(root.path())
        .output()
        .expect("started");
    let lines = String::from_utf8(output.stdout).expect("text");
    let events: Vec<serde_json::Value> = lines
        .lines()
        .map(|l| serde_json::from_str(l).expect("an object"))
        .collect();
    let at = events.iter().position(|e| e["event"] == "top_five");
    let at = at.unwrap_or_else(|| panic!("{lines}"));
    let (evaluation, top_five) = (&events[at - 1], &events[at]);
    assert_eq!(evaluation["event"], "evaluation");
    assert_eq!(evaluation["split"], top_five["split"]);
    assert!(top_five["error"].as_f64() <= evaluation["error"].as_f64());
}

/// The parts of a folder as tar files; with `.cls` members, named by number alone.
fn packed(root: &Path, numbered: bool) -> tempfile::TempDir {
    let packed = tempfile::tempdir().expect("a folder");
    for part in ["train", "test"] {
        // Two shards, a class each.
        for (label, class) in ["a", "b"].iter().enumerate() {
            let shard = packed.path().join(format!("{part}-{label:06}.tar"));
            let file = std::fs::File::create(shard).expect("made");
            let mut archive = tar::Builder::new(file);
            let mut add = |name: &str, bytes: &[u8]| {
                let mut header = tar::Header::new_gnu();
                header.set_size(bytes.len() as u64);
                header.set_mode(0o644);
                archive
                    .append_data(&mut header, name, bytes)
                    .expect("added");
            };
            for i in 0..8 {
                let bytes = std::fs::read(root.join(part).join(class).join(format!("{i}.png")));
                let bytes = bytes.expect("there");
                if numbered {
                    add(&format!("{i:04}.png"), &bytes);
                    add(&format!("{i:04}.cls"), format!("{label}\n").as_bytes());
                    add(&format!("{i:04}.json"), b"{}");
                } else {
                    add(&format!("{part}/{class}/{i}.png"), &bytes);
                }
            }
            archive.finish().expect("written");
        }
    }
    packed
}

#[test]
fn tar_files_give_what_the_folder_gives() {
    let root = clean();
    let folder = read(root.path(), &["data.cache=none"]).expect("readable");
    let expected = batches(&folder, 1, 0, 8);
    for numbered in [false, true] {
        let shards = packed(root.path(), numbered);
        for cache in ["data.cache=none", "data.cache=memory"] {
            let splits = read(shards.path(), &["data.source=tar", cache]).expect("readable");
            assert_eq!(all(&splits), all(&folder));
            assert_eq!(splits.test.as_ref().expect("a part").len(), 16);
            for threads in [1, 4] {
                assert_eq!(batches(&splits, threads, 0, 8), expected);
            }
            let passed_over = splits.notes.iter().any(|n| n.starts_with("32 files"));
            assert_eq!(passed_over, numbered, "{:?}", splits.notes);
        }
        // One file, and patterns.
        for (pattern, pictures) in [
            ("t*-*.tar", 32),
            ("train-00000?.tar", 16),
            ("{test,train}-000001.tar", if numbered { 16 } else { 0 }),
            ("train-{000000..000001}.tar", 16),
        ] {
            let splits = read(&shards.path().join(pattern), &["data.source=tar"]);
            match pictures {
                // One class alone.
                0 => assert!(splits.expect_err("refused").contains("one class")),
                _ => assert_eq!(splits.expect("readable").train.len(), pictures),
            }
        }
    }
    let error = read(root.path(), &["data.source=tar"]).expect_err("no tar file");
    assert!(
        error.contains("hint: `data.source = \"folder\"`"),
        "{error}"
    );
    let shards = packed(root.path(), false);
    let error = read(shards.path(), &[]).expect_err("tar files");
    assert!(error.contains("hint: `data.source = \"tar\"`"), "{error}");
    // A shard that is cut: said with its name, before training or at the picture.
    let shards = packed(root.path(), false);
    let shard = shards.path().join("train-000001.tar");
    let length = shard.metadata().expect("there").len();
    let file = std::fs::File::options()
        .write(true)
        .open(&shard)
        .expect("open");
    file.set_len(length / 2).expect("cut");
    let error = read(shards.path(), &["data.source=tar"]).expect_err("cut");
    assert!(error.contains("train-000001.tar"), "{error}");
}

/// A tar file of these members; without the blocks of zeros at its end where it is cut.
fn tar_of(path: &Path, members: &[(&str, &[u8])], cut: bool) {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive
            .append_data(&mut header, name, *bytes)
            .expect("added");
    }
    let mut bytes = archive.into_inner().expect("written");
    if cut {
        bytes.truncate(bytes.len() - 1024);
    }
    std::fs::write(path, bytes).expect("written");
}

#[test]
fn a_sample_in_a_tar_file_has_one_picture_and_one_class() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.tar");
    let png = |number| {
        let mut bytes = std::io::Cursor::new(Vec::new());
        let picture: DynamicImage = picture(number, 32).into();
        picture
            .write_to(&mut bytes, ImageFormat::Png)
            .expect("written");
        bytes.into_inner()
    };
    let (one, two) = (png(1), png(2));
    let sound: [(&str, &[u8]); 5] = [
        ("0.png", &one),
        ("0.cls", b"0"),
        ("0.seg.png", &two),
        ("1.png", &two),
        ("1.cls", b"1"),
    ];
    tar_of(&path, &sound, false);
    let tar = ["data.source=tar"];
    let splits = read(&path, &tar).expect("readable");
    assert_eq!(splits.train.len(), 2);
    assert!(splits.notes.iter().any(|n| n.starts_with("1 files")));

    tar_of(&path, &sound, true);
    let notes = read(&path, &tar).expect("readable").notes;
    assert!(
        notes.iter().any(|n| n.contains("may have been cut")),
        "{notes:?}"
    );

    let twice = |more: &[(&'static str, &'static [u8])]| {
        tar_of(&path, &[&sound[..], more].concat(), false);
        read(&path, &tar).expect_err("twice")
    };
    assert!(twice(&[("1.cls", b"0")]).contains("a second 1.cls"));
    tar_of(&path, &[&sound[..], &[("1.jpg", &one[..])]].concat(), false);
    let error = read(&path, &tar).expect_err("twice");
    assert!(
        error.contains("1.jpg, a second picture of the key 1"),
        "{error}"
    );
    tar_of(&path, &[], false);
    let error = read(&path, &tar).expect_err("nothing");
    assert!(error.contains("no picture in it"), "{error}");
}

#[test]
fn a_file_beside_the_data_keeps_what_was_decoded() {
    let root = clean();
    let settings = ["data.cache=file", "data.size=24"];
    let expected = batches(
        &read(root.path(), &["data.size=24"]).expect("held"),
        1,
        0,
        8,
    );
    let splits = read(root.path(), &settings).expect("readable");
    assert_eq!(batches(&splits, 2, 0, 8), expected);
    let kept = root.path().join(".bitscope-train-24");
    assert!(splits.described().contains(".bitscope-train-24"));
    assert_eq!(
        kept.metadata().expect("kept").len(),
        16 * (24 + 3 * 24 * 24)
    );
    // What is kept is not decoded again: with the time it had, a picture that cannot be serves on; with
    // another it is found out.
    let path = root.path().join("train/a/3.png");
    let stored = path.metadata().expect("there");
    std::fs::write(&path, vec![0; stored.len() as usize]).expect("written");
    let file = std::fs::File::options()
        .write(true)
        .open(&path)
        .expect("open");
    file.set_modified(stored.modified().expect("a time"))
        .expect("set");
    let splits = read(root.path(), &settings).expect("readable");
    assert_eq!(batches(&splits, 2, 0, 8), expected);
    file.set_modified(std::time::SystemTime::now())
        .expect("set");
    let changed = std::panic::AssertUnwindSafe(read(root.path(), &settings).expect("listed"));
    assert!(std::panic::catch_unwind(|| batches(&changed, 1, 0, 4)).is_err());
    // From tar files too; and where it cannot be written, without.
    let shards = packed(clean().path(), true);
    let settings = ["data.cache=file", "data.source=tar", "data.size=24"];
    for _ in 0..2 {
        let splits = read(shards.path(), &settings).expect("readable");
        assert_eq!(batches(&splits, 2, 0, 8), expected);
    }
    let kept = shards.path().join(".bitscope-train-24");
    std::fs::remove_file(&kept).expect("there");
    std::fs::create_dir(&kept).expect("in the way");
    let splits = read(shards.path(), &settings).expect("readable");
    assert_eq!(batches(&splits, 2, 0, 8), expected);
    let said = splits.notes.iter().any(|n| n.contains("cannot be kept"));
    assert!(said, "{:?}", splits.notes);
}

#[test]
fn means_and_deviations_are_the_users_where_they_are_given() {
    let root = clean();
    let imagenet = read(root.path(), &["data.normalise=imagenet"]).expect("readable");
    let own = [
        "data.mean=[0.485, 0.456, 0.406]",
        "data.std=[0.229, 0.224, 0.225]",
    ];
    let own = read(root.path(), &own).expect("readable");
    assert_eq!(batches(&own, 1, 0, 4), batches(&imagenet, 1, 0, 4));
    let half = read(root.path(), &["data.mean=[0.5]", "data.std=[0.5]"]).expect("readable");
    let symmetric = read(root.path(), &[]).expect("readable");
    let pairs = batches(&half, 1, 0, 2)[1].images.clone();
    let expected = &batches(&symmetric, 1, 0, 2)[1].images;
    assert!(
        pairs
            .iter()
            .zip(expected)
            .all(|(a, b)| (a - b).abs() < 1e-6)
    );
    for (settings, expected) in [
        (&["data.mean=[0.5]"][..], "1 numbers in `data.mean` and 0"),
        (
            &["data.mean=[0.5, 0.4]", "data.std=[1, 1]"],
            "expected 1, or 3",
        ),
        (&["data.mean=[]", "data.std=[]"], "an empty list"),
        (&["data.mean=[1.5]", "data.std=[1]"], "a list with 1.5"),
    ] {
        let error = read(root.path(), settings).expect_err("refused");
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_check_decodes_tar_files_too() {
    let shards = packed(clean().path(), false);
    let shard = shards.path().join("train-000000.tar");
    let mut bytes = std::fs::read(&shard).expect("read");
    // Inside the first picture's data.
    bytes[512 + 60] ^= 0xff;
    std::fs::write(&shard, bytes).expect("damaged");
    let text = format!(
        "[data]\nsource = \"tar\"\npath = \"{}\"\n",
        shards.path().display()
    );
    let file = shards.path().join("e.toml");
    std::fs::write(&file, text).expect("written");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_bitscope"))
        .args(["data", "check"])
        .arg(&file)
        .output()
        .expect("started");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("15 training and 16 test pictures"), "{said}");
    assert!(said.contains("train/a/0.png: "), "{said}");
}
