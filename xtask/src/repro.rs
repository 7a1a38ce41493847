//! `cargo xtask repro`: the same sources give the same image, wherever and whenever they are built.
//!
//! The sources are copied to two directories of different depth, with different file times, and
//! built with different locale, time zone and file mode mask, one after the other. Packages come
//! from the shared cache; everything else, device programs included, is built twice.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::process::{self, Outcome, workspace};
use crate::tidy::sources;

/// Builds twice and compares; `rest` may name a board.
pub(crate) fn run(rest: &[String]) -> Outcome {
    let board = rest.first().map_or("generic-aarch64", String::as_str);
    process::run(process::cargo().args(["build", "--release", "--package", "builder"]))?;
    let base = workspace().join("target/repro");
    let sites = [
        Site { root: base.join("a"), time_zone: "UTC", locale: "C", days_old: 0 },
        Site {
            root: base.join("b/much/deeper"),
            time_zone: "Asia/Tokyo",
            locale: "tr_TR.UTF-8",
            days_old: 400,
        },
    ];
    for site in &sites {
        site.copy_sources().map_err(|cause| format!("{}: {cause}", site.root.display()))?;
    }
    // Both are signed with one key: a key made by a first build is random, and must be.
    let [first, second] = &sites;
    first.build(board)?;
    copy_tree(&first.root.join("keys"), &second.root.join("keys"))
        .map_err(|cause| format!("cannot copy keys: {cause}"))?;
    second.build(board)?;
    let outputs = sites.each_ref().map(|site| site.root.join("out").join(board));
    let compared = compare(&outputs[0], &outputs[1])?;
    println!("{compared} files are byte-identical in two directories");
    Ok(())
}

/// One place where the image is built, and what is different there.
struct Site {
    root: PathBuf,
    time_zone: &'static str,
    locale: &'static str,
    days_old: u64,
}

impl Site {
    fn copy_sources(&self) -> std::io::Result<()> {
        if self.root.exists() {
            fs::remove_dir_all(&self.root)?;
        }
        let time = SystemTime::now() - Duration::from_secs(self.days_old * 86_400);
        for path in sources(&workspace()).map_err(std::io::Error::other)? {
            let (from, to) = (workspace().join(&path), self.root.join(&path));
            fs::create_dir_all(to.parent().unwrap_or(&self.root))?;
            fs::copy(&from, &to)?;
            File::options().append(true).open(&to)?.set_modified(time)?;
        }
        Ok(())
    }

    fn build(&self, board: &str) -> Outcome {
        let mut command = Command::new(workspace().join("target/release/iota"));
        command
            .current_dir(&self.root)
            .env("TZ", self.time_zone)
            .env("LC_ALL", self.locale)
            .args(["build", board]);
        process::run(&mut command)
    }
}

fn copy_tree(source: &Path, target: &Path) -> std::io::Result<()> {
    fs::create_dir_all(target)?;
    for entry in fs::read_dir(source)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target.join(entry.file_name()))?;
        } else {
            fs::copy(entry.path(), target.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Compares two directories of files; returns how many there are, or the first difference.
fn compare(left: &Path, right: &Path) -> Result<usize, String> {
    let names = [listing(left)?, listing(right)?];
    if names[0] != names[1] {
        return Err(format!("different files: {:?} and {:?}", names[0], names[1]));
    }
    if names[0].is_empty() {
        return Err(format!("{} holds no files", left.display()));
    }
    for name in &names[0] {
        let (left, right) = (left.join(name), right.join(name));
        let difference = first_difference(&left, &right)
            .map_err(|cause| format!("cannot compare {}: {cause}", left.display()))?;
        if let Some(offset) = difference {
            let (left, right) = (left.display(), right.display());
            return Err(format!("{left} and {right} differ from byte {offset} on"));
        }
    }
    Ok(names[0].len())
}

/// Names of all outputs.
fn listing(directory: &Path) -> Result<Vec<String>, String> {
    let failed = |cause| format!("{}: {cause}", directory.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    // The builder's own note about this build: it holds the times of these very files.
    names.retain(|name| name != ".inputs");
    names.sort();
    Ok(names)
}

fn first_difference(left: &Path, right: &Path) -> std::io::Result<Option<u64>> {
    let (mut left, mut right) = (File::open(left)?, File::open(right)?);
    let (mut one, mut other) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut offset = 0;
    loop {
        let (read, also) = (fill(&mut left, &mut one)?, fill(&mut right, &mut other)?);
        let common = read.min(also);
        if one[..common] != other[..common] || read != also {
            let equal = one[..common].iter().zip(&other[..common]).take_while(|(a, b)| a == b);
            return Ok(Some(offset + equal.count() as u64));
        }
        if read == 0 {
            return Ok(None);
        }
        offset += read as u64;
    }
}

fn fill(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("xtask-repro-{}-{name}", std::process::id()));
        fs::create_dir_all(path.join("left")).unwrap();
        fs::create_dir_all(path.join("right")).unwrap();
        path
    }

    #[test]
    fn the_first_different_byte_is_named_and_equal_files_are_counted() {
        let base = scratch("bytes");
        let (left, right) = (base.join("left"), base.join("right"));
        let mut bytes = vec![7_u8; (1 << 20) + 10];
        fs::write(left.join("disk.img"), &bytes).unwrap();
        fs::write(right.join("disk.img"), &bytes).unwrap();
        assert_eq!(compare(&left, &right), Ok(1));
        bytes[(1 << 20) + 3] = 8;
        fs::write(right.join("disk.img"), &bytes).unwrap();
        assert!(compare(&left, &right).unwrap_err().ends_with("differ from byte 1048579 on"));
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn a_missing_file_a_shorter_file_and_empty_directories_are_differences() {
        let base = scratch("missing");
        let (left, right) = (base.join("left"), base.join("right"));
        assert!(compare(&left, &right).is_err());
        fs::write(left.join("a"), "ab").unwrap();
        assert!(compare(&left, &right).unwrap_err().starts_with("different files"));
        fs::write(right.join("a"), "a").unwrap();
        assert!(compare(&left, &right).unwrap_err().ends_with("differ from byte 1 on"));
        fs::remove_dir_all(base).unwrap();
    }
}
