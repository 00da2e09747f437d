//! Reloading where the system has no watcher left to give. A program of its own: the tests of
//! `reload.rs` need one.

#![allow(unsafe_code, reason = "the system is asked for what no crate wraps")]
#![cfg(target_os = "linux")]

mod common;

use std::sync::mpsc::channel;
use std::time::Duration;

use bitscope::experiment::{Saved, Watcher, load};
use common::{SMALL, write};

/// Every watcher that this user may still have; free again when it is dropped.
struct Watchers(Vec<i32>);

impl Watchers {
    fn all() -> Self {
        let mut taken = Vec::new();
        loop {
            // SAFETY: the call takes no pointer.
            let descriptor = unsafe { libc::inotify_init1(libc::IN_CLOEXEC) };
            if descriptor < 0 {
                break;
            }
            taken.push(descriptor);
        }
        let error = std::io::Error::last_os_error();
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{error}");
        Self(taken)
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        for descriptor in &self.0 {
            // SAFETY: the descriptor is this value's own and is closed once.
            unsafe { libc::close(*descriptor) };
        }
    }
}

#[test]
fn without_a_watcher_left_a_slow_poll_sees_the_change() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = write(folder.path(), "e.toml", SMALL);
    let loaded = load(&path, &Vec::new()).expect("valid");
    // Files need descriptors too: a few are kept free.
    let spare: Vec<_> = (0..16)
        .map(|_| std::fs::File::open(&path).expect("open"))
        .collect();
    let taken = Watchers::all();
    drop(spare);
    let (sender, reports) = channel();
    let watcher = Watcher::start(&path, Vec::new(), loaded.files, move |saved| {
        drop(sender.send(saved))
    });
    let watcher = watcher.expect("a poll needs no watcher");
    write(
        folder.path(),
        "e.toml",
        &SMALL.replace("lr = 0.01", "lr = 0.03"),
    );
    let saved = reports.recv_timeout(Duration::from_secs(30));
    let Ok(Saved::Valid(loaded)) = saved else {
        panic!("{saved:?}");
    };
    assert_eq!(loaded.experiment.optimizer.lr, 0.03);
    drop(watcher);
    drop(taken);
}
