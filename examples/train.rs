//! A run from a program: trains an experiment, follows its events, and exports a figure of it.
//!
//! ```sh
//! cargo run --release --example train -- experiments/demo.toml
//! ```

use std::path::Path;
use std::sync::mpsc;

use bitscope::experiment::load;
use bitscope::figure::{Format, Name, Theme, View, build, export, notes};
use bitscope::run::{Event, History, RunFolder};
use bitscope::training::{Origin, Session, Setup};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args()
        .nth(1)
        .unwrap_or("experiments/demo.toml".into());
    // Settings over the file, as `--set` gives them.
    let set = vec!["train.float_epochs=1".into(), "train.epochs=1".into()];
    let loaded = load(Path::new(&file), &set)?;
    let folder = RunFolder::create(Path::new("runs"), &loaded.experiment.name)?;
    let (sender, events) = mpsc::channel();
    // Training has a thread of its own; it says what happens in events, and writes them to its log.
    let session = Session::start(
        Setup {
            experiment: loaded.experiment.clone(),
            folder: folder.clone(),
            origin: Origin::New,
            source: None,
            set,
            max_steps: None,
            paused: false,
        },
        move |event| drop(sender.send(event)),
    );
    let mut history = History::default();
    for event in events {
        history.push(&event);
        if let Event::Evaluation {
            step, split, error, ..
        } = event.as_ref()
        {
            println!("step {step}: {} error {:.2} %", split.name(), 100.0 * error);
        }
        if event.is_last() {
            break;
        }
    }
    session.stop();
    let figure = build(Name::Memory, &history, &View::default());
    let path = folder.path().join("memory.pdf");
    export(
        &figure,
        &path,
        Theme::Light,
        Format::pixels(1200, 900),
        &notes(&history),
    )?;
    println!("{}", path.display());
    Ok(())
}
