//! Diagnostics of the program itself, to a file in the run folder.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;

/// The file that panics and traces of every thread go to.
static FILE: Mutex<Option<Arc<std::fs::File>>> = Mutex::new(None);

/// Records traces and panics to `path`; `BITSCOPE_LOG` filters (default `info`).
///
/// Without the file there is no recording: the program does not depend on it.
pub fn to_file(path: &Path) {
    let Ok(file) = std::fs::File::options()
        .create(true)
        .append(true)
        .open(path)
    else {
        return;
    };
    let file = Arc::new(file);
    let first = FILE
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .replace(file)
        .is_none();
    if first {
        let filter = EnvFilter::try_from_env("BITSCOPE_LOG").unwrap_or_else(|_| "info".into());
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(|| Writer);
        let subscriber = tracing_subscriber::registry().with(filter).with(layer);
        // A program that embeds the library may have a subscriber of its own.
        let _ = tracing::subscriber::set_global_default(subscriber);
        std::panic::set_hook(Box::new(|info| tracing::error!("{info}")));
    }
}

/// The file, where there is one.
pub(crate) fn file() -> Option<Arc<std::fs::File>> {
    FILE.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

struct Writer;

impl std::io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match file() {
            Some(file) => std::io::Write::write(&mut file.as_ref(), bytes),
            None => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
