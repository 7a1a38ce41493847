//! Which crate may import which: the table of ARCHITECTURE.md, held against every `Cargo.toml`.

use super::Finding;
use super::source::Source;

/// Manifest, and the in-house crates it may name.
const ALLOWED: [(&str, &[&str]); 8] = [
    ("ondisk/Cargo.toml", &[]),
    ("config/Cargo.toml", &[]),
    ("loader/Cargo.toml", &["ondisk"]),
    ("initramfs/Cargo.toml", &["ondisk"]),
    ("rootfs/agent/Cargo.toml", &["ondisk", "config"]),
    ("builder/Cargo.toml", &["ondisk", "config"]),
    ("qemu-tests/Cargo.toml", &["ondisk", "config", "loader", "builder", "agent"]),
    ("xtask/Cargo.toml", &[]),
];

const IN_HOUSE: [&str; 8] =
    ["ondisk", "config", "loader", "initramfs", "agent", "builder", "qemu-tests", "xtask"];

/// Dependencies of a crate's manifest are those the architecture allows; xtask has none at all.
pub(super) fn imports_follow_the_architecture(source: &Source) -> Vec<Finding> {
    if !source.path.ends_with("/Cargo.toml") {
        return Vec::new();
    }
    let Some((_, allowed)) = ALLOWED.iter().find(|(path, _)| *path == source.path) else {
        let message = "a crate that the table in xtask/src/tidy/crates.rs does not know".to_owned();
        return vec![Finding { line: 1, message }];
    };
    let only_in_house = source.path != "xtask/Cargo.toml";
    let mut in_dependencies = false;
    let mut findings = Vec::new();
    for (number, line) in source.lines() {
        if line.starts_with('[') {
            in_dependencies = line.trim_end_matches(']').ends_with("dependencies");
            continue;
        }
        let name: String =
            line.chars().take_while(|c| c.is_alphanumeric() || *c == '-' || *c == '_').collect();
        if !in_dependencies || name.is_empty() || allowed.contains(&name.as_str()) {
            continue;
        }
        if !only_in_house || IN_HOUSE.contains(&name.as_str()) {
            let message = format!("{} may not import {name}", source.path);
            findings.push(Finding { line: number, message });
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, text: &str, expected: &[&str]) {
        let found = imports_follow_the_architecture(&Source::new(path, text.into()));
        let messages: Vec<_> = found.iter().map(|finding| finding.message.as_str()).collect();
        assert_eq!(messages, expected, "{text}");
    }

    #[test]
    fn a_device_program_may_import_the_shared_crate_and_crates_of_others() {
        let text = "[dependencies]\nondisk.workspace = true\nruzstd.workspace = true\n";
        check("loader/Cargo.toml", text, &[]);
    }

    #[test]
    fn a_device_program_may_not_import_another_under_any_condition() {
        check(
            "loader/Cargo.toml",
            "[target.'cfg(unix)'.dependencies]\nbuilder = { path = \"../builder\" }\n",
            &["loader/Cargo.toml may not import builder"],
        );
        check(
            "initramfs/Cargo.toml",
            "[dev-dependencies]\nagent.workspace = true\n",
            &["initramfs/Cargo.toml may not import agent"],
        );
    }

    #[test]
    fn xtask_imports_nothing() {
        check(
            "xtask/Cargo.toml",
            "[dependencies]\nserde = \"1\"\n",
            &["xtask/Cargo.toml may not import serde"],
        );
    }

    #[test]
    fn a_crate_outside_the_table_is_a_finding() {
        check(
            "extra/Cargo.toml",
            "",
            &["a crate that the table in xtask/src/tidy/crates.rs does not know"],
        );
    }
}
