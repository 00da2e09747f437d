//! The experiment file: what ships is valid, what is broken is reported all at once and in place.

mod common;

use std::path::{Path, PathBuf};

use bitscope::experiment::{Class, KEYS, difference, load, load_embedded, render, strongest};

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|e| e == "toml") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_shipped_file_is_valid_and_survives_being_resolved() {
    let all = files(&root().join("experiments"));
    assert!(all.len() >= 18, "{all:?}");
    for file in all {
        let loaded = load(&file, &Vec::new()).unwrap_or_else(|e| panic!("{e}"));
        assert!(
            bitscope::training::preflight(&loaded.experiment).is_empty(),
            "{}",
            file.display()
        );
        let text = loaded.experiment.values.to_toml();
        let again =
            load_embedded("again.toml", &text, &Vec::new()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(again.experiment, loaded.experiment, "{}", file.display());
    }
}

#[test]
fn broken_files_say_where_and_what_was_expected() {
    let all = files(&root().join("tests/data/invalid"));
    assert!(all.len() >= 10, "{}", all.len());
    for file in all {
        let errors = load(&file, &Vec::new()).expect_err("invalid");
        let name = file
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let folder = file.parent().expect("a folder").display().to_string() + "/";
        let text = errors.to_string().replace(&folder, "");
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(name, text);
        });
        // The rendering shows the line itself.
        let rendered = render(&errors, false);
        for error in &errors.0 {
            assert!(rendered.contains(error.place.line()), "{rendered}");
        }
    }
}

#[test]
fn out_of_reach_budgets_say_what_could_be_reached() {
    let set = vec![
        "budget.weights_kb=1".to_owned(),
        "weights.quantizer=u3".to_owned(),
    ];
    let loaded = load_embedded("x.toml", "[model]\nname = \"resnet20\"\n", &set).expect("valid");
    let problems = bitscope::training::preflight(&loaded.experiment);
    assert_eq!(problems.len(), 1);
    // 2 bits for 268,346 parameters.
    assert!(problems[0].2.contains("65.51 kB"), "{problems:?}");
}

#[test]
fn settings_override_and_are_checked_like_the_file() {
    let set =
        |s: &[&str]| load_embedded("x.toml", "", &s.iter().map(|s| (*s).to_owned()).collect());
    let loaded = set(&[
        "optimizer.lr=0.5",
        "model.name=resnet32",
        "data.samples = 500",
    ])
    .expect("valid");
    assert_eq!(loaded.experiment.optimizer.lr, 0.5);
    let errors = set(&["optimizer.lr=fast", "optimiser.lr=1", "nonsense"])
        .expect_err("invalid")
        .to_string();
    for part in [
        "--set:1:16",
        "valid TOML",
        "did you mean `optimizer.lr`?",
        "expected key.path=value",
    ] {
        assert!(errors.contains(part), "{errors}");
    }
}

#[test]
fn differences_are_by_meaning_and_know_their_class() {
    let with = |text: &str| {
        load_embedded("x.toml", text, &Vec::new())
            .expect("valid")
            .experiment
    };
    let base = with("[optimizer]\nlr = 0.1\n");
    assert!(
        difference(
            &base.values,
            &with("# comment\n[optimizer]\nmomentum = 0.9").values
        )
        .is_empty()
    );
    for (text, class) in [
        ("[optimizer]\nlr = 0.2", Class::Live),
        ("[train]\nbatch = 7", Class::Epoch),
        ("[weights]\nquantizer = \"u3\"", Class::Fork),
        ("seed = 9", Class::Fresh),
    ] {
        let changes = difference(&base.values, &with(text).values);
        assert_eq!(
            (changes.len(), strongest(&changes)),
            (1, Some(class)),
            "{text}"
        );
    }
}

#[test]
fn the_readme_documents_every_key() {
    let readme = include_str!("../README.md");
    let reference = bitscope::experiment::reference_markdown();
    assert!(
        readme.contains(reference.trim()),
        "README.md lags behind `bitscope keys`"
    );
    assert!(KEYS.iter().all(|k| !k.doc.is_empty()));
}
