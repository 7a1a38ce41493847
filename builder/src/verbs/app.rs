//! `iota app check`: what of a Compose file a device cannot honour, before a device has to say it.

use std::path::Path;
use std::process::ExitCode;

use config::problem::Problem;
use serde_json::{Value, json};

use crate::app;
use crate::error::Result;
use crate::host::output::out;

/// Prints every problem and note; exit code 2 if there is a problem.
pub fn check(path: &Path, json: bool) -> Result<ExitCode> {
    let file = app::find(path)?;
    let checked = app::check(&file)?;
    let shown = file.display().to_string();
    if json {
        let document = json!({
            "file": shown,
            "good": checked.problems.is_empty(),
            "problems": list(&checked.problems),
            "notes": list(&checked.notes),
        });
        out!("{document}");
    } else {
        checked.problems.iter().for_each(|problem| eprint!("{}", problem.render(&shown)));
        for note in &checked.notes {
            eprintln!("{shown}:{}:{}: note: {}", note.line, note.column, note.message);
        }
        if checked.problems.is_empty() {
            out!("{shown} is good");
        }
    }
    Ok(if checked.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

fn list(problems: &[Problem]) -> Vec<Value> {
    let one = |problem: &Problem| {
        let Problem { line, column, text, message, hint } = problem;
        json!({ "line": line, "column": column, "text": text, "message": message, "hint": hint })
    };
    problems.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_file_is_0_a_bad_one_2_and_none_at_all_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("compose.yaml");
        assert!(check(&path, false).unwrap_err().chain().starts_with("cannot read "));
        for (text, code) in [
            ("services:\n  web:\n    image: web:1\n", 0),
            ("services:\n  web:\n    image: web:1\n    build: .\n", 2),
            ("", 2),
        ] {
            std::fs::write(&path, text).unwrap();
            for (json, path) in [(false, &*path), (true, directory.path())] {
                assert_eq!(check(path, json).unwrap(), ExitCode::from(code), "{text}");
            }
        }
    }
}
