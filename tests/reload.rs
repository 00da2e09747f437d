//! Every way editors save, and files that break or go away.

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use bitscope::experiment::{Saved, Watcher, load};
use common::{SMALL, write};

const PATIENCE: Duration = Duration::from_secs(20);

struct Watched {
    folder: tempfile::TempDir,
    reports: Receiver<Saved>,
    _watcher: Watcher,
}

fn watch(prepare: impl FnOnce(&Path)) -> Watched {
    let folder = tempfile::tempdir().expect("a folder");
    prepare(folder.path());
    let path = folder.path().join("e.toml");
    let loaded = load(&path, &Vec::new()).expect("valid");
    let (sender, reports) = channel();
    let watcher = Watcher::start(&path, Vec::new(), loaded.files, move |s| {
        drop(sender.send(s))
    });
    Watched {
        folder,
        reports,
        _watcher: watcher.expect("watching"),
    }
}

fn plain(folder: &Path) {
    write(folder, "e.toml", SMALL);
}

/// Saves in one way and waits until the new learning rate is read; prints the time it took.
fn sees(way: &str, watched: &Watched, lr: f64, save: impl FnOnce(&Path, &str)) {
    let text = SMALL.replace("lr = 0.01", &format!("lr = {lr}"));
    let start = Instant::now();
    save(watched.folder.path(), &text);
    loop {
        let left = PATIENCE.checked_sub(start.elapsed()).expect("seen in time");
        match watched.reports.recv_timeout(left).expect("seen in time") {
            Saved::Valid(l) if l.experiment.optimizer.lr == lr => break,
            // A file seen half written is not the end of the story.
            _ => {}
        }
    }
    println!(
        "{way}: {:.0} ms from save to effect",
        start.elapsed().as_secs_f64() * 1e3
    );
}

#[test]
fn truncate_and_write() {
    sees("truncate", &watch(plain), 0.02, |folder, text| {
        drop(write(folder, "e.toml", text))
    });
}

#[test]
fn rename_over() {
    sees("rename over", &watch(plain), 0.03, |folder, text| {
        let new = write(folder, ".e.toml.swp", text);
        fs::rename(new, folder.join("e.toml")).expect("renamed");
    });
}

#[test]
fn backup_and_rename() {
    sees("backup and rename", &watch(plain), 0.04, |folder, text| {
        fs::rename(folder.join("e.toml"), folder.join("e.toml~")).expect("backed up");
        write(folder, "e.toml", text);
    });
}

#[cfg(unix)]
#[test]
fn symlink_swap() {
    let link = |folder: &Path, target: &str, name: &str| {
        std::os::unix::fs::symlink(folder.join(target), folder.join(name)).expect("linked");
    };
    let watched = watch(|folder| {
        fs::create_dir(folder.join("v1")).expect("a folder");
        write(&folder.join("v1"), "e.toml", SMALL);
        link(folder, "v1/e.toml", "e.toml");
    });
    sees("symlink swap", &watched, 0.05, |folder, text| {
        fs::create_dir(folder.join("v2")).expect("a folder");
        write(&folder.join("v2"), "e.toml", text);
        link(folder, "v2/e.toml", "new");
        fs::rename(folder.join("new"), folder.join("e.toml")).expect("swapped");
    });
}

#[test]
fn written_in_pieces() {
    sees("in pieces", &watch(plain), 0.06, |folder, text| {
        let mut file = File::create(folder.join("e.toml")).expect("created");
        for piece in text.as_bytes().chunks(40) {
            file.write_all(piece).expect("written");
            file.sync_all().expect("synced");
        }
    });
}

#[test]
fn broken_then_deleted_then_back() {
    let watched = watch(plain);
    let next = || watched.reports.recv_timeout(PATIENCE).expect("reported");
    write(watched.folder.path(), "e.toml", "[optimizer]\nlr = \"x\"\n");
    assert!(matches!(next(), Saved::Broken(d) if d.to_string().contains("e.toml:2:6")));
    fs::remove_file(watched.folder.path().join("e.toml")).expect("removed");
    assert!(matches!(next(), Saved::Missing(..)));
    sees("back", &watched, 0.07, |folder, text| {
        drop(write(folder, "e.toml", text))
    });
}

#[test]
fn a_base_file_is_watched_too() {
    let watched = watch(|folder| {
        fs::create_dir(folder.join("base")).expect("a folder");
        write(&folder.join("base"), "b.toml", SMALL);
        write(folder, "e.toml", "extends = \"base/b.toml\"\n");
    });
    sees("base", &watched, 0.08, |folder, text| {
        drop(write(&folder.join("base"), "b.toml", text))
    });
}

/// A base that is named for the first time may be what is wrong.
#[test]
fn a_base_that_was_broken_when_it_was_named_is_seen_when_it_is_mended() {
    let watched = watch(plain);
    let folder = watched.folder.path();
    fs::create_dir(folder.join("base")).expect("a folder");
    write(&folder.join("base"), "b.toml", "[optimizer]\nlr = \"x\"\n");
    write(
        folder,
        "e.toml",
        &format!("extends = \"base/b.toml\"\n{SMALL}"),
    );
    let next = watched.reports.recv_timeout(PATIENCE).expect("reported");
    assert!(matches!(next, Saved::Broken(_)), "{next:?}");
    sees("mended base", &watched, 0.01, |folder, _| {
        drop(write(
            &folder.join("base"),
            "b.toml",
            "[optimizer]\nlr = 0.5\n",
        ))
    });
}

#[test]
fn a_file_saved_in_two_pieces_is_applied_when_it_is_whole() {
    let watched = watch(plain);
    let path = watched.folder.path().join("e.toml");
    let text = SMALL.replace("lr = 0.01", "lr = 0.05");
    // The half holds another learning rate than the whole, and is valid.
    let half = &text[..text.find("5\n\n[log]").expect("there")];
    let mut file = File::create(&path).expect("opened");
    file.write_all(half.as_bytes()).expect("written");
    std::thread::sleep(Duration::from_millis(600));
    file.write_all(&text.as_bytes()[half.len()..])
        .expect("written");
    drop(file);
    let first = watched.reports.recv_timeout(PATIENCE).expect("seen");
    let Saved::Valid(loaded) = first else {
        panic!("{first:?}")
    };
    assert_eq!(loaded.experiment.optimizer.lr, 0.05);
}

#[test]
fn an_emptied_file_is_said_and_never_applied() {
    let watched = watch(plain);
    let path = watched.folder.path().join("e.toml");
    for text in ["", " \n\n"] {
        fs::write(&path, text).expect("written");
        let seen = watched.reports.recv_timeout(PATIENCE).expect("seen");
        assert!(matches!(seen, Saved::Empty(_)), "{seen:?}");
    }
}

#[test]
fn a_file_that_becomes_a_pipe_is_gone_and_comes_back() {
    let watched = watch(plain);
    let path = watched.folder.path().join("e.toml");
    fs::remove_file(&path).expect("removed");
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.expect("made").success());
    let seen = watched.reports.recv_timeout(PATIENCE).expect("seen");
    assert!(matches!(seen, Saved::Missing(..)), "{seen:?}");
    fs::remove_file(&path).expect("removed");
    sees("a file again", &watched, 0.07, |folder, text| {
        fs::write(folder.join("e.toml"), text).expect("written");
    });
}
