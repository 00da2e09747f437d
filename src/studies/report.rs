//! `bitscope report`: what came of a study.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::place::Place;
use crate::experiment::printable;
use crate::face::{CliError, print};
use crate::figure::{self, Format, Theme};
use crate::study::{Form, Missing, Report, figures};

/// What `bitscope report` is asked for.
#[derive(Debug, Args)]
pub(crate) struct ReportArguments {
    /// The study's file, or its folder
    study: PathBuf,
    /// Where its runs are recorded (default: studies/NAME)
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// What to write it as
    #[arg(long, value_enum, default_value = "md")]
    format: Form,
    /// Also write its figures into this folder, as PNG, PDF and CSV
    #[arg(long, value_name = "DIR")]
    figures: Option<PathBuf>,
    /// Colours of the figures
    #[arg(long, default_value = "light")]
    theme: Theme,
}

/// `bitscope report`.
pub(crate) fn report(arguments: &ReportArguments) -> Result<u8, CliError> {
    let place = Place::find(&arguments.study, arguments.into.as_deref())?;
    let mut warnings = Vec::new();
    let mut refused = BTreeMap::new();
    for task in 0..place.study.tasks.len() {
        match place.other_settings(task) {
            Ok(other) if other.is_empty() => {}
            Ok(other) => {
                let why = format!("it was recorded with other settings: {}", other.join(", "));
                refused.insert(task, why);
            }
            // (A base that is gone, say. What was recorded can still be read.)
            Err(error) => warnings.push(error.to_string()),
        }
    }
    let mut report = Report::read(place.study, &place.folder, refused);
    report.warnings.splice(0..0, warnings);
    for (task, missing) in report.missing() {
        if let Missing::Refused(why) = missing {
            let text = printable(&format!("{task} is not counted: {why}"));
            let _ = writeln!(std::io::stderr(), "warning: {text}");
        }
    }
    for warning in &report.warnings {
        let _ = writeln!(std::io::stderr(), "warning: {}", printable(warning));
    }
    if let Some(folder) = &arguments.figures {
        let failed =
            |e: &dyn std::fmt::Display| CliError::Failed(format!("{}: {e}", folder.display()));
        std::fs::create_dir_all(folder).map_err(|e| failed(&e))?;
        for (name, figure) in figures(&report) {
            let panels = figure.panels.len() as u32;
            let format = Format::pixels(1400, (600 * panels).clamp(800, 6000));
            for extension in ["png", "pdf", "csv"] {
                let path = folder.join(format!("{name}.{extension}"));
                figure::export(&figure, &path, arguments.theme, format, &[])
                    .map_err(|e| failed(&e))?;
            }
        }
    }
    print(&report.text(arguments.format)).map(|()| 0)
}
