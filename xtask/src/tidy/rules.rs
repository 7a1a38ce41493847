//! The rules that look at one file alone.

use super::Finding;
use super::source::{Source, code, has_word};

const MOST_COLUMNS: usize = 100;
const MOST_LINES: usize = 500;

/// Files that may hold `unsafe`, each with its reason.
const UNSAFE_FILES: &[(&str, &str)] = &[
    ("builder/src/image/lz4.rs", "liblz4, of which its crate declares little"),
    ("builder/src/host/signals.rs", "what a child does between fork and exec"),
    ("loader/src/firmware/disk.rs", "block reads and writes of the firmware"),
    ("loader/src/firmware/initrd.rs", "a protocol that the kernel calls back"),
    ("loader/src/firmware/mod.rs", "the reset after a panic"),
    ("loader/src/firmware/start.rs", "starting the kernel"),
    ("loader/src/firmware/watchdog.rs", "registers of Raspberry Pis, and their device tree"),
    ("qemu-tests/src/bench/process.rs", "wait4, which says what a program cost"),
    ("rootfs/agent/src/sys.rs", "signals as a file, and a partition in use that has grown"),
    ("initramfs/src/sys.rs", "kernel calls that no safe wrapper offers"),
];

/// Pictures of the documents; anything else that is not text has no place in the repository.
const PICTURES: [&str; 3] = [".gif", ".png", ".webp"];

/// Host names of registries and package mirrors, spelt so that this file does not hold them.
const REGISTRIES: [&str; 5] = [
    concat!("deb.", "debian.org"),
    concat!("security.", "debian.org"),
    concat!("index.", "crates.io"),
    concat!("static.", "crates.io"),
    concat!("static.", "rust-lang.org"),
];

/// No compiled programs, archives or images in git.
pub(super) fn no_blobs(source: &Source) -> Vec<Finding> {
    let picture = source.path.starts_with("docs/")
        && PICTURES.iter().any(|extension| source.path.ends_with(extension));
    let text = std::str::from_utf8(&source.bytes).is_ok() && !source.bytes.contains(&0);
    finding_if(!picture && !text, "neither text nor a picture under docs/")
}

/// Lines fit beside each other in a review; tables and generated files are not read that way.
pub(super) fn lines_are_short(source: &Source) -> Vec<Finding> {
    if !source.is_rust() {
        return Vec::new();
    }
    // The text that a test expects is as wide as what it shows.
    let mut snapshot = false;
    let long = source.lines().filter(|(_, line)| {
        snapshot = (snapshot || line.ends_with("[r#\"")) && !line.trim_start().starts_with("\"#]");
        !snapshot && line.chars().count() > MOST_COLUMNS
    });
    long.map(|(line, _)| Finding { line, message: format!("longer than {MOST_COLUMNS} columns") })
        .collect()
}

/// A file that does not fit into a head becomes two; tests do not count.
pub(super) fn files_are_short(source: &Source) -> Vec<Finding> {
    let lines = if source.is_rust() { source.lines_before_tests().count() } else { 0 };
    let message = format!("{lines} lines without tests, more than {MOST_LINES}");
    finding_if(lines > MOST_LINES, &message)
}

/// Every Rust file says first what it is for.
pub(super) fn rust_files_open_with_their_purpose(source: &Source) -> Vec<Finding> {
    let missing = source.is_rust() && !source.text.starts_with("//! ");
    finding_if(missing, "does not open with `//! ` and what it is for")
}

/// `unsafe` stays in few files that are read with more care.
pub(super) fn unsafe_only_where_listed(source: &Source) -> Vec<Finding> {
    let listed = UNSAFE_FILES.iter().any(|(path, _)| *path == source.path);
    if !source.is_rust() || listed {
        return Vec::new();
    }
    let lines = source.lines().filter(|(_, line)| has_word(&code(line), "unsafe"));
    lines
        .map(|(line, _)| Finding {
            line,
            message: "unsafe outside the files listed in xtask/src/tidy/rules.rs".to_owned(),
        })
        .collect()
}

/// A mirror is the user's choice: none is written down.
pub(super) fn no_registry_host_names(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, text) in source.lines() {
        for host in REGISTRIES.iter().filter(|host| text.contains(**host)) {
            findings.push(Finding { line, message: format!("names the registry {host}") });
        }
    }
    findings
}

/// `boards/` and the root's description are data, not programs.
pub(super) fn data_directories_hold_no_code(source: &Source) -> Vec<Finding> {
    let data = source.path.starts_with("boards/")
        || source.path.starts_with("rootfs/") && !source.path.starts_with("rootfs/agent/");
    let name = source.path.rsplit('/').next().unwrap_or_default();
    let code_name = [".rs", ".sh", ".py", ".pl", ".c", ".js"].iter().any(|end| name.ends_with(end));
    finding_if(data && (code_name || source.text.starts_with("#!")), "code in a data directory")
}

/// Words that must not stand in a part of the product, outside its tests, and why.
const ABSENCES: &[(&str, &str, &str)] = &[
    ("ondisk/src/", "SystemTime", "ondisk has no clock"),
    ("ondisk/src/", "Instant", "ondisk has no clock"),
    ("ondisk/src/", "getrandom", "ondisk has no randomness"),
    ("ondisk/src/", "SigningKey", "device code holds no private keys"),
    ("config/src/", "std", "config receives bytes and gives values"),
    ("loader/src/", "SigningKey", "device code holds no private keys"),
    ("initramfs/src/", "SigningKey", "device code holds no private keys"),
    ("rootfs/agent/src/", "SigningKey", "device code holds no private keys"),
    ("initramfs/src/", "TcpStream", "PID 1 has no network code"),
    ("initramfs/src/", "UdpSocket", "PID 1 has no network code"),
    ("initramfs/src/", "unwrap", "PID 1 never ends on bad input"),
    // debian/catalog.rs warns of old indices by the clock; what is chosen does not depend on it.
    ("builder/src/debian/resolve", "SystemTime", "no step of a build reads the clock"),
    ("builder/src/debian/lock", "SystemTime", "no step of a build reads the clock"),
    ("builder/src/build", "SystemTime", "no step of a build reads the clock"),
    ("builder/src/disk_image", "SystemTime", "no step of a build reads the clock"),
    ("builder/src/slot", "SystemTime", "no step of a build reads the clock"),
    ("builder/src/image/", "SystemTime", "no step of a build reads the clock"),
];

/// The invariants of ARCHITECTURE.md that are the absence of a word.
pub(super) fn shipped_code_keeps_its_absences(source: &Source) -> Vec<Finding> {
    if !source.is_rust() {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (part, word, reason) in ABSENCES.iter().filter(|entry| source.path.starts_with(entry.0)) {
        for (line, _) in source.lines_before_tests().filter(|(_, l)| has_word(&code(l), word)) {
            findings.push(Finding { line, message: format!("{word} in {part}: {reason}") });
        }
    }
    findings
}

/// So that a diff never shows a line that did not change.
pub(super) fn text_ends_in_one_newline(source: &Source) -> Vec<Finding> {
    let text = &source.text;
    let wrong = !text.is_empty() && (!text.ends_with('\n') || text.ends_with("\n\n"));
    finding_if(wrong, "does not end in exactly one newline")
}

fn finding_if(condition: bool, message: &str) -> Vec<Finding> {
    if condition { vec![Finding { line: 1, message: message.to_owned() }] } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: super::super::Rule, path: &str, text: &str, expected: &[usize]) {
        let found = rule(&Source::new(path, text.into()));
        let lines: Vec<usize> = found.iter().map(|finding| finding.line).collect();
        assert_eq!(lines, expected, "{path}: {found:?}");
    }

    #[test]
    fn programs_are_blobs_and_pictures_of_the_documents_are_not() {
        check(no_blobs, "loader/loader.efi", "MZ\0", &[1]);
        check(no_blobs, "docs/boot.png", "\0", &[]);
        check(no_blobs, "boards/boot.png", "\0", &[1]);
    }

    #[test]
    fn long_lines_are_found_by_number() {
        let long = "x".repeat(101);
        check(lines_are_short, "a/src/lib.rs", &format!("//! a\n{long}\n"), &[2]);
        check(lines_are_short, "Cargo.lock", &long, &[]);
    }

    #[test]
    fn tests_do_not_make_a_file_long() {
        let code = "x\n".repeat(500);
        let tests = format!("#[cfg(test)]\nmod tests {{\n{code}}}\n");
        check(files_are_short, "a/src/lib.rs", &format!("{code}{tests}"), &[]);
        check(files_are_short, "a/src/lib.rs", &format!("x\n{code}{tests}"), &[1]);
        check(files_are_short, "a/src/b/tests.rs", &format!("x\n{code}"), &[]);
    }

    #[test]
    fn a_file_without_a_purpose_is_found() {
        check(rust_files_open_with_their_purpose, "a/src/lib.rs", "//! Does.\n", &[]);
        check(rust_files_open_with_their_purpose, "a/src/lib.rs", "use std;\n", &[1]);
    }

    #[test]
    fn unsafe_code_is_found_and_unsafe_words_are_not() {
        let text = "//! unsafe\n#![forbid(unsafe_code)]\nunsafe { x }\n";
        check(unsafe_only_where_listed, "ondisk/src/lib.rs", text, &[3]);
        check(unsafe_only_where_listed, UNSAFE_FILES[0].0, text, &[]);
    }

    #[test]
    fn host_names_of_registries_are_found_in_any_file() {
        let text = format!("mirror = \"http://{}/debian\"\n", REGISTRIES[0]);
        check(no_registry_host_names, "docs/build.md", &text, &[1]);
        check(no_registry_host_names, "docs/build.md", "any mirror\n", &[]);
    }

    #[test]
    fn scripts_are_found_in_data_directories_only() {
        check(data_directories_hold_no_code, "rootfs/overlay/run", "#!/bin/sh\n", &[1]);
        check(data_directories_hold_no_code, "boards/pi/build.rs", "", &[1]);
        check(data_directories_hold_no_code, "rootfs/agent/src/main.rs", "", &[]);
        check(data_directories_hold_no_code, "rootfs/packages.toml", "a = 1\n", &[]);
    }

    #[test]
    fn a_clock_in_shared_code_is_found_and_one_in_its_tests_is_not() {
        let text = "use std::time::Instant;\n#[cfg(test)]\nmod tests { use Instant; }\n";
        check(shipped_code_keeps_its_absences, "ondisk/src/a.rs", text, &[1]);
        check(shipped_code_keeps_its_absences, "builder/src/a.rs", text, &[]);
    }

    #[test]
    fn ends_of_files_are_checked() {
        check(text_ends_in_one_newline, "a.md", "a\n", &[]);
        check(text_ends_in_one_newline, "a.md", "a", &[1]);
        check(text_ends_in_one_newline, "a.md", "a\n\n", &[1]);
    }
}
