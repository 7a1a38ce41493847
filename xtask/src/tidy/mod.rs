//! Rules about the source itself: those of the style and of the architecture that a program can
//! check. Each rule is a function from one file to its findings, listed in [`RULES`].

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::process::{self, Outcome};

mod crates;
mod rules;
mod source;

use source::Source;

/// One thing that breaks a rule.
#[derive(PartialEq, Eq, Debug)]
struct Finding {
    line: usize,
    message: String,
}

type Rule = fn(&Source) -> Vec<Finding>;

/// Every rule, in the order in which findings are printed.
const RULES: [Rule; 10] = [
    rules::no_blobs,
    rules::lines_are_short,
    rules::files_are_short,
    rules::rust_files_open_with_their_purpose,
    rules::unsafe_only_where_listed,
    rules::no_registry_host_names,
    rules::data_directories_hold_no_code,
    rules::shipped_code_keeps_its_absences,
    rules::text_ends_in_one_newline,
    crates::imports_follow_the_architecture,
];

/// Checks every file that git knows or would add.
pub(crate) fn run() -> Outcome {
    let root = process::workspace();
    let mut findings = 0;
    let files = sources(&root)?;
    for path in &files {
        let bytes = fs::read(root.join(path)).map_err(|cause| format!("{path}: {cause}"))?;
        let source = Source::new(path, bytes);
        for finding in RULES.iter().flat_map(|rule| rule(&source)) {
            eprintln!("{path}:{}: {}", finding.line, finding.message);
            findings += 1;
        }
    }
    match findings {
        0 => {
            eprintln!("tidy: {} files keep {} rules", files.len(), RULES.len());
            Ok(())
        }
        1 => Err("tidy: 1 finding".to_owned()),
        number => Err(format!("tidy: {number} findings")),
    }
}

/// The files of the repository, those not yet added included, sorted; links are left out.
pub(crate) fn sources(root: &Path) -> Result<Vec<String>, String> {
    let mut command = Command::new("git");
    command.current_dir(root).args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]);
    let output = command.output().map_err(|cause| format!("git: {cause}"))?;
    if !output.status.success() {
        return Err(format!("git ls-files: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    let listing = String::from_utf8_lossy(&output.stdout);
    let is_file = |path: &&str| {
        fs::symlink_metadata(root.join(path)).is_ok_and(|metadata| metadata.is_file())
    };
    let mut files: Vec<String> = listing
        .split('\0')
        .filter(|path| !path.is_empty())
        .filter(is_file)
        .map(str::to_owned)
        .collect();
    files.sort();
    files.dedup();
    Ok(files)
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_repository_is_tidy() {
        super::run().unwrap();
    }
}
