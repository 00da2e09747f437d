//! Job scripts for schedulers that people already have. Every task says by itself whether there is
//! something to do, so a script may be submitted again at any time.

use std::path::Path;

use super::folder::StudyFolder;
use super::plan::Study;

/// What runs the tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Scheduler {
    /// A script of `sbatch` calls, an array for each stage
    Slurm,
    /// A script of `hq submit` calls, an array for each stage
    Hyperqueue,
    /// A Makefile, for `make -j N`
    Make,
}

/// Words for a shell, quoted where they have to be.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Numbers as ranges: `0-3,7`.
fn ranges(numbers: &[usize]) -> String {
    let mut out: Vec<(usize, usize)> = Vec::new();
    for n in numbers {
        match out.last_mut() {
            Some((_, last)) if *last + 1 == *n => *last = *n,
            _ => out.push((*n, *n)),
        }
    }
    let text = out.into_iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    text.collect::<Vec<_>>().join(",")
}

/// The script for a scheduler: `program` runs each task with so many cores.
pub fn script(
    study: &Study,
    folder: &StudyFolder,
    program: &Path,
    cores: usize,
    scheduler: Scheduler,
) -> String {
    let source = folder.source(study);
    let file = std::path::absolute(source).unwrap_or(source.to_owned());
    let words = [
        "env".into(),
        format!("RAYON_NUM_THREADS={cores}"),
        format!("OMP_NUM_THREADS={cores}"),
        program.display().to_string(),
        "study".into(),
        file.display().to_string(),
        "--into".into(),
        folder.path().display().to_string(),
    ];
    let command: Vec<String> = words.iter().map(|w| quoted(w)).collect();
    let command = command.join(" ");
    let tasks = 0..study.tasks.len();
    let last = tasks.clone().map(|t| study.stage(t)).max().unwrap_or(0);
    let stages: Vec<Vec<usize>> = (0..=last)
        .map(|stage| tasks.clone().filter(|t| study.stage(*t) == stage).collect())
        .collect();
    let name = &study.name;
    let said = folder.path().join("said");
    match scheduler {
        Scheduler::Slurm => {
            let output = quoted(&said.join("slurm-%A-%a.txt").display().to_string());
            let mut out = format!(
                "#!/bin/bash\n\
                 # Study {name}: {} tasks in {} stages. Submit it again to go on: what is finished ends at once.\n\
                 # Options behind the script's name go to every sbatch, such as --partition or --time.\n\
                 set -euo pipefail\n\
                 mkdir -p {}\n\
                 previous=\n",
                study.tasks.len(),
                stages.len(),
                quoted(&said.display().to_string()),
            );
            for (stage, tasks) in stages.iter().enumerate() {
                out += &format!(
                    "\n# Stage {stage}: {}\n\
                     previous=$(sbatch --parsable --job-name={name}-{stage} --array={} \\\n    \
                     --cpus-per-task={cores} --output={output} \\\n    \
                     ${{previous:+--dependency=afterany:$previous}} \"$@\" \\\n    \
                     --wrap {})\n\
                     echo \"stage {stage}: job $previous\"\n",
                    study.describe(tasks[0]),
                    ranges(tasks),
                    quoted(&format!("exec {command}")),
                );
            }
            out
        }
        Scheduler::Hyperqueue => {
            // (Both in one file would overwrite each other.)
            let [output, errors] = ["txt", "err.txt"].map(|ending| {
                let name = format!("hq-%{{JOB_ID}}-%{{TASK_ID}}.{ending}");
                quoted(&said.join(name).display().to_string())
            });
            let mut out = format!(
                "#!/bin/bash\n\
                 # Study {name}: {} tasks in {} stages. Run it again to go on: what is finished ends at once.\n\
                 # Needs a running HyperQueue server. Options behind the script's name go to every `hq submit`.\n\
                 set -uo pipefail\n\
                 mkdir -p {}\n",
                study.tasks.len(),
                stages.len(),
                quoted(&said.display().to_string()),
            );
            for (stage, tasks) in stages.iter().enumerate() {
                out += &format!(
                    "\n# Stage {stage}: {}\n\
                     hq submit --wait --name={name}-{stage} --array={} --cpus={cores} \\\n    \
                     --stdout={output} --stderr={errors} \"$@\" -- \\\n    \
                     {command}\n",
                    study.describe(tasks[0]),
                    ranges(tasks),
                );
            }
            out
        }
        Scheduler::Make => {
            let names: Vec<String> = tasks.clone().map(|t| format!("task-{t}")).collect();
            let mut out = format!(
                "# Study {name}. make -j N runs N tasks at a time; again: what is finished ends at once.\n\
                 all: {}\n\
                 .PHONY: all {}\n\n",
                names.join(" "),
                names.join(" "),
            );
            for task in tasks {
                let before = study
                    .needs(task)
                    .map_or(String::new(), |b| format!(" task-{b}"));
                let (words, command) = (study.describe(task), command.replace('$', "$$"));
                out += &format!("# {words}\ntask-{task}:{before}\n\t{command} --task {task}\n",);
            }
            out
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_name_every_task_once_and_keep_the_order() {
        let text = "name = \"it's\"\nseeds = [1, 2]\n[[row]]\nname = \"a\"\n[[row]]\nname = \"b\"\nfrom = \"a\"";
        let place = tempfile::tempdir().expect("a folder");
        let file = place.path().join("s t.toml");
        std::fs::write(&file, text).expect("written");
        let study = Study::read(&file).expect("a study");
        let folder = StudyFolder::at(Path::new("/out"));
        let make = |scheduler| script(&study, &folder, Path::new("/bin/b"), 2, scheduler);
        let slurm = make(Scheduler::Slurm);
        assert!(
            slurm.contains("--array=0,2 ") && slurm.contains("--array=1,3 "),
            "{slurm}"
        );
        assert!(slurm.contains("afterany:$previous"), "{slurm}");
        assert!(
            slurm.contains(&format!("'\\''{}'\\''", file.display())),
            "{slurm}"
        );
        let hq = make(Scheduler::Hyperqueue);
        assert!(hq.contains("--array=0,2 ") && hq.contains("--wait"), "{hq}");
        assert!(
            hq.contains("env RAYON_NUM_THREADS=2 OMP_NUM_THREADS=2 /bin/b"),
            "{hq}"
        );
        let makefile = make(Scheduler::Make);
        assert!(makefile.contains("task-3: task-2"), "{makefile}");
    }

    #[test]
    fn numbers_are_ranges_and_words_are_quoted() {
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
        assert_eq!(quoted("a b'c"), "'a b'\\''c'");
        assert_eq!(quoted("/a/b.toml"), "/a/b.toml");
    }
}
