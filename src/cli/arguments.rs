//! What the command line takes: every subcommand and its options.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::face::checkpoint::Checkpoint;
use crate::face::{CliError, Output, Run, Screen, find_run};
use crate::run::RunFolder;

/// An interactive terminal workbench for learned mixed-precision quantization.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub open: Run,
}

impl Cli {
    /// Whether it takes training steps.
    pub fn trains(&self) -> bool {
        use Command::{Bench, Fork, Replay, Resume, Study, Train};
        matches!(
            self.command,
            None | Some(
                Train { .. }
                    | Resume { .. }
                    | Fork { .. }
                    | Replay { .. }
                    | Bench { .. }
                    | Study(_)
            )
        )
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Train without a screen
    Train {
        #[command(flatten)]
        run: Run,
        #[command(flatten)]
        output: Output,
        /// Train in a process of its own, without a terminal; `attach` and `watch` return to it
        #[arg(long, conflicts_with_all = ["json", "plain", "into"])]
        detach: bool,
    },
    /// Watch and steer a run that trains elsewhere; only one process at a time holds its controls
    Attach {
        #[command(flatten)]
        of: Named,
        /// Send one command, without the workbench
        #[arg(long, value_name = "COMMAND")]
        send: Option<crate::attached::Sent>,
        #[command(flatten)]
        screen: Screen,
    },
    /// Start a new run from another run's checkpoint; it keeps what was learned
    Fork {
        #[command(flatten)]
        go_on: GoOn,
        #[command(flatten)]
        checkpoint: Checkpoint,
    },
    /// Continue a run from its newest checkpoint
    Resume {
        #[command(flatten)]
        go_on: GoOn,
        /// Wait for a command before the first step
        #[arg(long)]
        paused: bool,
    },
    /// Check an experiment file, and show its memory per layer and its budgets
    Check {
        /// Experiment file (default: the embedded demo)
        experiment: Option<PathBuf>,
        /// Override a key; repeatable
        #[arg(long = "set", value_name = "KEY.PATH=VALUE")]
        set: Vec<String>,
        /// One JSON object: layers, totals, least
        #[arg(long)]
        json: bool,
        /// Treat missing data, or weights to start from, as an error
        #[arg(long)]
        data: bool,
    },
    /// Compute logits of pictures with a run's network, an ONNX file, or an experiment before training
    Predict {
        /// Run folder (or its name), NET.onnx, EXPERIMENT.toml, or a file from `export --format integers`
        source: PathBuf,
        #[command(flatten)]
        predict: crate::predict::Predict,
        /// Where runs are recorded
        #[arg(long, value_name = "DIR", default_value = "runs")]
        runs: PathBuf,
    },
    /// Write a run's network for other programs: packed integers, ONNX, QONNX, C, or weights with their quantizers
    Export(crate::export::Export),
    /// Replay a run's network in integers beside the fake-quantized one, and compare every value bit for bit
    Verify(crate::verify::Verify),
    /// List engines and devices, and what is missing for those that cannot be used
    Devices,
    /// Watch a run that another process trains; any number of processes may watch
    Watch {
        #[command(flatten)]
        of: Named,
        #[command(flatten)]
        output: Output,
        #[command(flatten)]
        screen: Screen,
    },
    /// List recorded runs, forks below their parents; or rename, annotate or delete one
    Runs(Runs),
    /// Run a recorded run again, with its changes at the same steps, and say whether the results are equal
    Replay(Named),
    /// Print every recorded step of a run
    Log {
        #[command(flatten)]
        of: Named,
        #[command(flatten)]
        extract: crate::recorded::Extract,
    },
    /// Runs side by side: settings that differ, errors, memory, bits of every layer
    Compare {
        /// Run folders, or their names under the runs folder
        #[arg(required = true)]
        run: Vec<PathBuf>,
        /// One JSON object
        #[arg(long)]
        json: bool,
        /// Where runs are recorded
        #[arg(long, value_name = "DIR", default_value = "runs")]
        runs: PathBuf,
    },
    /// Draw a figure of a run, or redraw a saved one
    Plot(Plot),
    /// Run a study: many experiments and seeds, or one of its tasks when a scheduler starts it
    Study(crate::studies::Arguments),
    /// Report the results of a study: tables with confidence intervals, and figures
    Report(crate::studies::ReportArguments),
    /// Fetch or check data
    Data {
        #[command(subcommand)]
        data: Data,
    },
    /// Run quantizers on given numbers: cases as JSON in, the same cases with results out
    Quantize {
        /// File with `{"cases": [...]}` (default: standard input)
        file: Option<PathBuf>,
        /// Rules for cases that name none: paper or published-code
        #[arg(long)]
        rules: Option<String>,
        /// Draw Q(x) and its gradients of the first case to this PNG
        #[arg(long, value_name = "FILE.png")]
        plot: Option<PathBuf>,
    },
    /// The toy example of the paper's section 2: how the parametrizations converge
    Toy {
        /// PNG or SVG file to write
        #[arg(short, long)]
        output: PathBuf,
        /// Steps of SGD
        #[arg(long, default_value_t = 3000)]
        steps: usize,
        /// Print the spread of the last errors per parametrization as JSON
        #[arg(long)]
        json: bool,
    },
    /// Time training steps, or the frames of the screen
    Bench(crate::bench::Bench),
    /// Print the reference of the experiment file as Markdown
    Keys,
    /// Write a self-contained experiment file with every key explained
    New {
        /// Name of the experiment; the file is NAME.toml
        name: PathBuf,
        /// Experiment file to start from, with all files it extends (default: the embedded demo)
        #[arg(long, value_name = "EXPERIMENT")]
        from: Option<PathBuf>,
        /// Override a key; repeatable
        #[arg(long = "set", value_name = "KEY.PATH=VALUE")]
        set: Vec<String>,
    },
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, in troff
    Man,
}

#[derive(Debug, Subcommand)]
pub(super) enum Data {
    /// Decode every picture of an experiment's folder, and list what is wrong
    Check {
        /// Experiment file
        experiment: PathBuf,
        /// Override a key; repeatable
        #[arg(long = "set", value_name = "KEY.PATH=VALUE")]
        set: Vec<String>,
    },
    /// Download Fashion-MNIST (four IDX files)
    FashionMnist {
        /// Folder to fetch into
        dir: PathBuf,
        /// Another URL for the folder with the four files
        #[arg(long)]
        url: Option<String>,
    },
    /// Download CIFAR-10 (the official binary files)
    Cifar10 {
        /// Folder to unpack into
        dir: PathBuf,
        /// Another URL for cifar-10-binary.tar.gz
        #[arg(long)]
        url: Option<String>,
    },
}

/// Which recorded run.
#[derive(Debug, Args)]
pub(super) struct Named {
    /// Run folder, or its name under the runs folder
    run: PathBuf,
    /// Where runs are recorded
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub runs: PathBuf,
}

impl Named {
    /// Its folder.
    pub fn folder(&self) -> Result<RunFolder, CliError> {
        find_run(&self.run, &self.runs)
    }
}

/// A recorded run, and how training goes on from it.
#[derive(Debug, Args)]
pub(super) struct GoOn {
    #[command(flatten)]
    pub of: Named,
    #[command(flatten)]
    pub output: Output,
    /// Override a key of the experiment; repeatable
    #[arg(long = "set", value_name = "KEY.PATH=VALUE")]
    set: Vec<String>,
    /// Stop after this many more steps
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    #[command(flatten)]
    screen: Screen,
}

impl GoOn {
    /// With the experiment as it was recorded.
    pub fn run(self, folder: &RunFolder) -> Run {
        Run {
            experiment: Some(folder.experiment()),
            set: self.set,
            steps: self.steps,
            ..Run::recorded_in(self.of.runs, self.screen)
        }
    }
}

/// What `bitscope runs` is asked for.
#[derive(Debug, Args)]
pub(super) struct Runs {
    /// Where runs are recorded
    #[arg(value_name = "DIR", default_value = "runs", conflicts_with = "root")]
    pub runs: PathBuf,
    /// Where runs are recorded, as in the other commands
    #[arg(long = "runs", value_name = "DIR", id = "root")]
    pub root: Option<PathBuf>,
    /// One JSON list
    #[arg(long)]
    pub json: bool,
    /// Give a run another name
    #[arg(long, num_args = 2, value_names = ["RUN", "NAME"], conflicts_with_all = ["json", "note", "delete"])]
    pub rename: Option<Vec<PathBuf>>,
    /// Write a note to a run; an empty one removes it
    #[arg(long, num_args = 2, value_names = ["RUN", "TEXT"], conflicts_with_all = ["json", "delete"])]
    pub note: Option<Vec<PathBuf>>,
    /// Delete a run with everything in it
    #[arg(long, value_name = "RUN", conflicts_with = "json")]
    pub delete: Option<PathBuf>,
    /// Do not ask for confirmation
    #[arg(long, requires = "delete")]
    pub yes: bool,
}

/// What `bitscope plot` is asked for.
#[derive(Debug, Args)]
pub(super) struct Plot {
    /// Run folder, its name under the runs folder, or a figure's TOML file
    pub run: PathBuf,
    /// Which figure (not with a TOML file)
    pub figure: Option<crate::figure::Name>,
    /// PNG, SVG, PDF or CSV file to write (default for a TOML file: its name with .png)
    #[arg(short, long)]
    pub output: Option<PathBuf>,
    /// What a row stands for
    #[arg(long, value_name = "ROWS", default_value = "layers")]
    pub fold: crate::figure::Fold,
    /// How per-layer quantities are drawn
    #[arg(long, value_name = "HOW", default_value = "auto")]
    pub by_layer: crate::figure::ByLayer,
    /// Only layers whose name contains this, or whose role or kind begins with it
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub only: String,
    /// Colours
    #[arg(long, default_value = "light")]
    pub theme: crate::figure::Theme,
    /// WIDTHxHEIGHT in pixels; or `column` or `page` for print: 84 or 174 mm wide at 300 dpi, 8-point text
    #[arg(long, default_value = "1200x800")]
    pub size: crate::figure::Format,
    /// Where runs are recorded
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub runs: PathBuf,
}
