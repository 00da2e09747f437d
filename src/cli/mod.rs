//! The command line: what each subcommand does.

mod arguments;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use arguments::{Cli, Command, Data, GoOn, Named, Plot, Runs};

use crate::attached::Sent;
use crate::check::{self, Check};
use crate::experiment::{self, Loaded, Overrides, printable};
use crate::face::checkpoint::{Checkpoint, Which};
use crate::face::{
    Begin, CliError, Output, Run, Screen, exit, find_run, load, load_recorded, parse, print, report,
};
use crate::files::is_same_file;
use crate::graph::Architecture;
use crate::headless::together;
use crate::kernels::ranks::Group;
use crate::predict::{self, Origin, Source};
use crate::run::{LockError, Parent, RunLock, list_runs};
use crate::training::{TrainError, resumable};
use crate::{device, headless, recorded};

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; a reader that went away is success.
            let code = if error.use_stderr() { exit::USAGE } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    if cli.trains() {
        crate::process::spare_other_programs();
    }
    let outcome = match cli.command {
        None => together(|group| open(&cli.open, group)),
        Some(command) => run(command),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            report(&error);
            ExitCode::from(error.code())
        }
    }
}

fn open(run: &Run, group: &Group) -> Result<u8, CliError> {
    let loaded = load(run.experiment.as_deref(), &run.set)?;
    let output = Output {
        json: false,
        plain: false,
    };
    begin(loaded, output, run, Begin::New, group)
}

fn run(command: Command) -> Result<u8, CliError> {
    match command {
        Command::Train {
            run,
            output,
            detach,
        } => together(|group| {
            let loaded = load(run.experiment.as_deref(), &run.set)?;
            match (detach, group.size()) {
                (false, _) => headless::train(&loaded, &run, output, Begin::New, group),
                (true, 1) => crate::detached::train(&loaded, &run),
                (true, ranks) => Err(CliError::Usage(format!(
                    "--detach: {ranks} ranks train only while their launcher runs; hint: leave it out"
                ))),
            }
        }),
        Command::Resume { go_on, paused } => resume(go_on, paused),
        Command::Fork { go_on, checkpoint } => fork(go_on, checkpoint),
        Command::Check {
            experiment,
            set,
            json,
            data,
        } => check::command(&Check {
            path: experiment.as_deref(),
            set: &set,
            json,
            data,
        }),
        Command::Predict {
            source,
            predict,
            runs,
        } => {
            spares(&predict.output, &source)?;
            let source = predict_source(&source, &predict, &runs)?;
            if let Source::Tensors(Origin::Run(folder, _)) = &source {
                spares(&predict.output, folder.path())?;
            }
            predict::command(&source, &predict)
        }
        Command::Export(export) => {
            let folder = find_run(&export.run, &export.runs)?;
            spares(&export.output, folder.path())?;
            let experiment = load_recorded(&folder, &export.set)?.experiment;
            crate::export::command(&folder, &experiment, &export)
        }
        Command::Verify(verify) => {
            let folder = find_run(&verify.run, &verify.runs)?;
            let experiment = load_recorded(&folder, &verify.set)?.experiment;
            crate::verify::command(&folder, &experiment, &verify)
        }
        Command::Devices => devices(),
        Command::Attach { of, send, screen } => attach(&of, send, screen),
        Command::Watch { of, output, screen } => watch(of, output, screen),
        Command::Runs(arguments) => recorded_runs(arguments),
        Command::Replay(of) => crate::replay::command(&of.folder()?),
        Command::Log { of, extract } => recorded::log(&of.folder()?, &extract),
        Command::Compare { run, json, runs } => {
            let folders: Result<Vec<_>, _> = run.iter().map(|r| find_run(r, &runs)).collect();
            recorded::compare(&folders?, json)
        }
        Command::Plot(arguments) => plot(arguments),
        Command::Study(arguments) => crate::studies::command(&arguments),
        Command::Report(arguments) => crate::studies::report(&arguments),
        Command::Data {
            data: Data::Cifar10 { dir, url },
        } => headless::fetch_cifar10(&dir, url),
        Command::Data {
            data: Data::FashionMnist { dir, url },
        } => headless::fetch_fashion_mnist(&dir, url.as_deref()),
        Command::Data {
            data: Data::Check { experiment, set },
        } => check::data(&experiment, &set),
        Command::Quantize { file, rules, plot } => {
            crate::quantize::command(file.as_deref(), rules.as_deref(), plot.as_deref())
        }
        Command::Toy {
            output,
            steps,
            json,
        } => crate::toy::command(&output, steps, json),
        Command::Bench(bench) => crate::bench::command(&bench),
        Command::New { name, from, set } => new(&name, from.as_deref(), &set),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "bitscope", &mut text);
            print(&String::from_utf8_lossy(&text))?;
            Ok(0)
        }
        Command::Man => {
            print(&manual()?)?;
            Ok(0)
        }
        Command::Keys => {
            print(&experiment::reference_markdown())?;
            Ok(0)
        }
    }
}

/// Lists recorded runs, or changes one.
fn recorded_runs(arguments: Runs) -> Result<u8, CliError> {
    let runs = arguments.root.unwrap_or(arguments.runs);
    if let Some([run, name]) = arguments.rename.as_deref() {
        return recorded::rename(&find_run(run, &runs)?, &name.to_string_lossy());
    }
    if let Some([run, text]) = arguments.note.as_deref() {
        let note = Some(text.to_string_lossy().into_owned()).filter(|t| !t.is_empty());
        recorded::change(&find_run(run, &runs)?, |m| m.note = note)?;
        return Ok(0);
    }
    if let Some(run) = arguments.delete {
        return recorded::delete(&find_run(&run, &runs)?, arguments.yes);
    }
    let all = list_runs(&runs);
    print(&match arguments.json {
        true => recorded::list_json(&all)?,
        false if all.is_empty() => {
            format!(
                "no runs in {} yet\n",
                printable(&runs.display().to_string())
            )
        }
        false => recorded::table(&all),
    })?;
    recorded::tell_without_log(&runs);
    Ok(0)
}

/// Draws a figure of a run, or a saved one.
fn plot(arguments: Plot) -> Result<u8, CliError> {
    let usage = |text: &str| Err(CliError::Usage(text.into()));
    let Plot { run, output, .. } = arguments;
    if run.extension().is_some_and(|e| e == "toml") {
        if arguments.figure.is_some() {
            return usage("a figure's TOML file already says which figure; leave its name out");
        }
        headless::plot_saved(&run, output.as_deref())?;
        return Ok(0);
    }
    let Some(figure) = arguments.figure else {
        return usage(
            "expected the name of a figure after the run; `bitscope help plot` lists them",
        );
    };
    let Some(output) = output else {
        return usage("expected -o FILE.png, .svg, .pdf or .csv");
    };
    let folder = find_run(&run, &arguments.runs)?;
    let view = crate::figure::View {
        fold: arguments.fold,
        by_layer: arguments.by_layer,
        filter: arguments.only,
        ..Default::default()
    };
    let (theme, size) = (arguments.theme, arguments.size);
    headless::plot(&folder, figure, &view, &output, theme, size)?;
    Ok(0)
}

/// Writes a new experiment file, where there is none of that name.
fn new(name: &Path, from: Option<&Path>, set: &Overrides) -> Result<u8, CliError> {
    let path = match name.extension() {
        Some(ending) if ending == "toml" => name.to_owned(),
        _ => PathBuf::from(format!("{}.toml", name.display())),
    };
    let title = path.file_stem().map(|s| s.to_string_lossy().into_owned());
    let title = title.filter(|t| !t.is_empty()).ok_or_else(|| {
        CliError::Usage(format!(
            "{}: expected a name for the experiment",
            name.display()
        ))
    })?;
    let loaded = parse(from, set)?;
    let text = experiment::template(&title, &loaded.experiment.values);
    // Whatever becomes of it, it has to be readable as it is.
    experiment::load_as(&path, &text, &Vec::new())?;
    let failed = |e: std::io::Error| CliError::Failed(format!("{}: {e}", path.display()));
    let file = std::fs::File::options()
        .write(true)
        .create_new(true)
        .open(&path);
    match file {
        Ok(mut file) => file.write_all(text.as_bytes()).map_err(failed)?,
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(CliError::Usage(format!(
                "{}: a file of that name exists; it was not changed",
                path.display()
            )));
        }
        Err(e) => return Err(failed(e)),
    }
    print(&format!(
        "{0}: hint: `bitscope {0}` opens it\n",
        path.display()
    ))?;
    Ok(0)
}

/// The manual: the program's page and those of its commands, one behind the other.
fn manual() -> Result<String, CliError> {
    let mut command = Cli::command();
    command.build();
    let mut pages = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut pages)?;
    for part in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        let man = clap_mangen::Man::new(part.clone());
        man.render_name_section(&mut pages)?;
        man.render_synopsis_section(&mut pages)?;
        man.render_description_section(&mut pages)?;
        man.render_options_section(&mut pages)?;
    }
    Ok(String::from_utf8_lossy(&pages).into_owned())
}

/// Lists devices, and which is taken where none is named.
fn devices() -> Result<u8, CliError> {
    let chosen = device::parse("auto").map_err(|e| CliError::Failed(e.to_string()))?;
    print(&format!(
        "{}\nauto takes {chosen}, the best that is usable here\n",
        device::list(&device::available())
    ))?;
    Ok(0)
}

fn resume(go_on: GoOn, paused: bool) -> Result<u8, CliError> {
    let (folder, output) = (go_on.of.folder()?, go_on.output);
    let run = Run {
        paused,
        ..go_on.run(&folder)
    };
    together(|group| {
        if let Some(holder) = RunLock::holder(folder.path()) {
            let folder = folder.path().to_owned();
            let held = LockError::Held { folder, holder };
            return Err(CliError::Usage(held.to_string()));
        }
        if folder.newest_checkpoint().is_none() && !folder.best().is_file() {
            let none = TrainError::no_checkpoint(&folder);
            return Err(CliError::Usage(none.to_string()));
        }
        let loaded = load_recorded(&folder, &run.set)?;
        resumable(&folder, &loaded.experiment).map_err(|e| CliError::Usage(e.to_string()))?;
        begin(loaded, output, &run, Begin::Resume(folder.clone()), group)
    })
}

fn fork(go_on: GoOn, checkpoint: Checkpoint) -> Result<u8, CliError> {
    let (folder, output) = (go_on.of.folder()?, go_on.output);
    let run = go_on.run(&folder);
    together(|group| {
        let chosen = checkpoint.which.unwrap_or(Which::Newest).of(&folder)?;
        crate::face::warn(&chosen.notes);
        let loaded = load_recorded(&folder, &run.set)?;
        let parent = Parent {
            run: folder.label(),
            step: chosen.step,
        };
        // The child's file is the one that its parent came from: the parent's own copy stays as it is.
        let source = folder.manifest().ok().and_then(|m| m.source);
        let run = Run {
            experiment: source.filter(|p| p.is_file()),
            ..run.clone()
        };
        let begin_at = Begin::Fork {
            checkpoint: chosen.path,
            parent,
        };
        begin(loaded, output, &run, begin_at, group)
    })
}

fn attach(of: &Named, send: Option<Sent>, screen: Screen) -> Result<u8, CliError> {
    let folder = of.folder()?;
    if send.is_none() && !is_interactive() {
        return Err(CliError::Usage(
            "`attach` needs a terminal; hint: `--send` sends one command, `watch` only looks"
                .into(),
        ));
    }
    let loaded = || load_recorded(&folder, &Vec::new());
    crate::attached::attach(&folder, loaded, send, &of.runs, screen)
}

fn watch(of: Named, output: Output, screen: Screen) -> Result<u8, CliError> {
    let folder = of.folder()?;
    if output.json || output.plain || !is_interactive() {
        return recorded::watch(&folder, output);
    }
    let loaded = load_recorded(&folder, &Vec::new())?;
    crate::tui::watch(&loaded, &Run::recorded_in(of.runs, screen), &folder)
}

/// What a prediction is made with: a model's file, a run, or an experiment.
fn predict_source(
    source: &Path,
    predict: &predict::Predict,
    runs: &Path,
) -> Result<Source, CliError> {
    let ends = |ending: &str| {
        source
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case(ending))
    };
    if ends("onnx") {
        return model_file(source, &predict.set).map(|model| Source::Tensors(Origin::Model(model)));
    }
    if ends("safetensors") || crate::integers::file::is_program(source) {
        let bytes = crate::files::read(source)
            .map_err(|e| CliError::Usage(format!("{}: {e}", source.display())))?;
        let program = crate::integers::file::read(source, &bytes)
            .map_err(|e| CliError::Usage(e.to_string()))?;
        return Ok(Source::Integers(program));
    }
    if ends("toml") {
        let experiment = load(Some(source), &predict.set)?.experiment;
        return Ok(Source::Tensors(Origin::Experiment(experiment)));
    }
    let folder = find_run(source, runs)?;
    let experiment = load_recorded(&folder, &predict.set)?.experiment;
    Ok(Source::Tensors(Origin::Run(folder, experiment)))
}

/// Refuses an output that is what is read, or one of a run's own files.
fn spares(output: &Path, source: &Path) -> Result<(), CliError> {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    let folder = output.parent().filter(|p| !p.as_os_str().is_empty());
    let inside = || {
        let (run, own) = (real(source)?, real(folder.unwrap_or(Path::new(".")))?);
        let within = own.strip_prefix(&run).ok()?;
        Some(source.is_dir() && !within.starts_with("exports"))
    };
    if !is_same_file(output, source) && !inside().unwrap_or(false) {
        return Ok(());
    }
    Err(CliError::Usage(format!(
        "{}: would overwrite what is read, or lie among the run's own files; expected another file",
        output.display()
    )))
}

/// A network's file as it is, with what may be said of its input and its output.
fn model_file(path: &Path, set: &Overrides) -> Result<Architecture, CliError> {
    let mut settings = vec![format!(
        "model.file={}",
        std::path::absolute(path)?.display()
    )];
    for setting in set {
        if !["model.input", "model.output"].contains(&experiment::key_of(setting)) {
            return Err(CliError::Usage(format!(
                "--set {setting}: for an ONNX file only `model.input` and `model.output` can be set"
            )));
        }
        settings.push(setting.clone());
    }
    let loaded = crate::experiment::load_embedded("the command line", "", &settings)?;
    Ok(loaded.experiment.model.clone())
}

fn is_interactive() -> bool {
    std::io::stdout().is_terminal() && std::io::stdin().is_terminal()
}

/// With the workbench where there is a terminal and nobody asked for less.
fn begin(
    loaded: Loaded,
    output: Output,
    run: &Run,
    begin: Begin,
    group: &Group,
) -> Result<u8, CliError> {
    if output.json || output.plain || !is_interactive() || !group.is_alone() {
        headless::train(&loaded, run, output, begin, group)
    } else {
        crate::tui::run(loaded, run, begin)
    }
}
