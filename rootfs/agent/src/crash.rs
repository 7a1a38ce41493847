//! What the kernel said last when it crashed: kept over the restart, moved to the data partition.
//!
//! A kernel that panics hands its last lines to pstore (`Documentation/admin-guide/pstore-blk.rst`,
//! `fs/pstore/platform.c`), which puts them where a restart does not reach: memory that nobody else
//! uses on a Raspberry Pi (`ramoops`), variables of the firmware on a machine with UEFI
//! (`efi_pstore`). The next kernel shows them as files in `/sys/fs/pstore`, each beginning with a
//! line such as `Panic#1 Part2`, the newest lines in part 1; removing a file frees its place.
//!
//! ```text
//! /data/iota/crashes/7       one crash: a heading, then the lines, oldest first
//! ```
//!
//! Guarantees: a record is removed only after it is on the disk, or if it cannot be read; no more
//! than [`MOST_KEPT`] crashes are kept, and no more than [`MOST_BYTES`] of each.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rustix::mount::{MountFlags, mount};
use serde_json::{Value, json};

use crate::{files, modprobe};

/// Crashes that are kept, the newest ones.
pub const MOST_KEPT: usize = 5;
/// Bytes kept of a crash. Firmware keeps 10 KiB, memory 64 KiB.
pub const MOST_BYTES: usize = 128 * 1024;
/// Characters of a line that names a crash.
const MOST_CAUSE: usize = 200;
/// How long `iota status` tells of a crash.
const TOLD_S: u64 = 7 * 24 * 60 * 60;

/// Where things are.
#[derive(Clone, Debug)]
pub struct Places {
    /// What loads a module.
    pub modprobe: PathBuf,
    /// Where the kernel shows its records.
    pub records: PathBuf,
    /// Where crashes are kept.
    pub kept: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            modprobe: modprobe::PROGRAM.into(),
            records: "/sys/fs/pstore".into(),
            kept: "/data/iota/crashes".into(),
        }
    }
}

/// The newest crash that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crash {
    /// When it was found, in seconds since 1970.
    pub found_s: u64,
    /// What the kernel died of, in its words.
    pub cause: String,
}

impl Crash {
    /// For programs.
    pub fn json(&self) -> Value {
        json!({ "found-s": self.found_s, "cause": self.cause })
    }
}

/// Has the kernel keep its last lines, and shows those of the start before in `places.records`.
///
/// A machine has one of the two drivers or none, and what has none keeps nothing: no error.
pub fn prepare(places: &Places) -> io::Result<()> {
    for driver in ["ramoops", "efi_pstore"] {
        let _ = modprobe::load(&places.modprobe, driver);
    }
    let inert = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    match mount("pstore", &places.records, "pstore", inert, None) {
        // By an earlier life of this program.
        Err(rustix::io::Errno::BUSY) => Ok(()),
        mounted => Ok(mounted?),
    }
}

/// Moves the kernel's records to the data partition; what the kernel died of, if it did.
pub fn keep(places: &Places, heading: &str) -> io::Result<Option<String>> {
    let (mut records, mut unreadable) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(&places.records)? {
        let path = entry?.path();
        match read(&path).ok().and_then(|text| Record::parse(&text)) {
            Some(record) => records.push((path, record)),
            None => unreadable.push(path),
        }
    }
    let text = joined(records.iter().map(|(_, record)| record));
    if !records.is_empty() {
        fs::create_dir_all(&places.kept)?;
        let mut numbers = numbers(&places.kept);
        let number = numbers.last().map_or(1, |last| last.saturating_add(1));
        let whole = format!("== {heading}\n{}", tail(&text));
        files::keep(&places.kept.join(number.to_string()), whole.as_bytes(), 0o600)?;
        numbers.push(number);
        for old in numbers.iter().rev().skip(MOST_KEPT) {
            files::remove(&places.kept.join(old.to_string()))?;
        }
    }
    // Garbled, or of a kind that nobody asked for: it would take the place of the next one.
    for path in records.iter().map(|(path, _)| path).chain(&unreadable) {
        fs::remove_file(path)?;
    }
    Ok((!records.is_empty()).then(|| cause(&text)))
}

/// The newest crash, if it was found within the last week.
pub fn newest(kept: &Path, now_s: u64) -> Option<Crash> {
    let path = kept.join(numbers(kept).last()?.to_string());
    let found = fs::metadata(&path).ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    let found_s = found.as_secs();
    // A clock that was wrong then or is now says nothing about its age.
    let is_told = now_s.saturating_sub(found_s) <= TOLD_S;
    is_told.then_some(Crash { found_s, cause: cause(&read(&path).ok()?) })
}

/// Prints all that are kept, oldest first; how many.
pub fn print(kept: &Path, out: &mut impl Write) -> io::Result<usize> {
    let numbers = numbers(kept);
    for number in &numbers {
        out.write_all(read(&kept.join(number.to_string()))?.as_bytes())?;
    }
    out.flush().map(|()| numbers.len())
}

/// Numbers of the crashes that are kept, in order.
fn numbers(kept: &Path) -> Vec<u32> {
    let names = fs::read_dir(kept).into_iter().flatten().flatten();
    let mut numbers: Vec<u32> =
        names.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    numbers
}

fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    let most = u64::try_from(2 * MOST_BYTES).unwrap_or(u64::MAX);
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A file of pstore.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    /// Why the kernel kept it: `Panic`, `Oops`…
    reason: String,
    /// Counts what the kernel kept since its start.
    number: u32,
    /// Counts from the newest lines to the oldest.
    part: u32,
    lines: String,
}

impl Record {
    fn parse(text: &str) -> Option<Self> {
        let (head, lines) = text.split_once('\n')?;
        let (what, part) = head.split_once(" Part")?;
        let (reason, number) = what.split_once('#')?;
        let (number, part) = (number.parse().ok()?, part.trim().parse().ok()?);
        Some(Self { reason: reason.to_owned(), number, part, lines: lines.to_owned() })
    }
}

/// All lines in the order in which they were said. An oops that became a panic is kept twice, and
/// the second has all of the first that there was room for: both are shown, the oops first.
fn joined<'a>(records: impl Iterator<Item = &'a Record>) -> String {
    let mut crashes: BTreeMap<(u32, &str), Vec<&Record>> = BTreeMap::new();
    for record in records {
        crashes.entry((record.number, &record.reason)).or_default().push(record);
    }
    let mut text = String::new();
    for ((number, reason), mut parts) in crashes {
        parts.sort_by_key(|record| std::cmp::Reverse(record.part));
        text.push_str(&format!("-- {reason} {number}\n"));
        for record in parts {
            text.push_str(&record.lines);
            if !text.ends_with('\n') {
                text.push('\n');
            }
        }
    }
    text
}

/// The end of a text, from the beginning of a line: what was said last counts.
fn tail(text: &str) -> &str {
    let start = text.len().saturating_sub(MOST_BYTES);
    let Some(rest) = (start..text.len()).find_map(|at| text.get(at..)) else { return text };
    match start {
        0 => text,
        _ => rest.split_once('\n').map_or(rest, |(_, lines)| lines),
    }
}

/// The line that names it, without what the kernel puts before each line: `<0>[   12.345678] `.
fn cause(text: &str) -> String {
    const NAMES: [&str; 4] =
        ["Kernel panic", "Internal error", "Unable to handle", "watchdog: BUG"];
    let named =
        |name: &&str| text.lines().rev().find_map(|line| line.find(*name).map(|at| &line[at..]));
    let line = NAMES.iter().find_map(named);
    let line = line.or_else(|| text.lines().rev().find(|line| !line.trim().is_empty()));
    let line = line.unwrap_or("nothing was said").trim();
    // Memory that lost its power for a moment may hold anything.
    line.chars().filter(|it| !it.is_control()).take(MOST_CAUSE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PANIC: &str = "<0>[   31.5] Kernel panic - not syncing: sysrq triggered crash";

    fn places(directory: &Path) -> Places {
        let (records, kept) = (directory.join("pstore"), directory.join("crashes"));
        fs::create_dir_all(&records).unwrap();
        Places { modprobe: "/bin/false".into(), records, kept }
    }

    fn left(places: &Places) -> usize {
        fs::read_dir(&places.records).unwrap().count()
    }

    #[test]
    fn parts_become_lines_in_the_order_in_which_they_were_said() {
        let directory = tempfile::tempdir().unwrap();
        let places = places(directory.path());
        let record = |name: &str, text: &str| fs::write(places.records.join(name), text).unwrap();
        record("dmesg-efi_pstore-2", &format!("Panic#2 Part1\n{PANIC}\n"));
        record("dmesg-efi_pstore-1", "Panic#2 Part2\n<6>[   31.4] about to crash\n");
        record("dmesg-efi_pstore-3", "Oops#1 Part1\n<1>[   31.3] Internal error: Oops: 5");
        let cause = keep(&places, "found 2026-11-29").unwrap();
        assert_eq!(cause.as_deref(), Some("Kernel panic - not syncing: sysrq triggered crash"));
        let text = fs::read_to_string(places.kept.join("1")).unwrap();
        let expected = format!(
            "== found 2026-11-29\n-- Oops 1\n<1>[   31.3] Internal error: Oops: 5\n\
             -- Panic 2\n<6>[   31.4] about to crash\n{PANIC}\n"
        );
        assert_eq!(text, expected);
        assert_eq!(left(&places), 0, "a record was left in the kernel's small place");
        assert_eq!(keep(&places, "again").unwrap(), None);
        assert!(!places.kept.join("2").exists());
    }

    #[test]
    fn what_is_no_record_makes_room_and_is_no_crash() {
        let directory = tempfile::tempdir().unwrap();
        let places = places(directory.path());
        fs::write(places.records.join("dmesg-ramoops-0.enc.z"), [0x78, 0x9c, 0xff]).unwrap();
        fs::write(places.records.join("console-ramoops-0"), "Panic of mine\n").unwrap();
        assert_eq!(keep(&places, "h").unwrap(), None);
        assert_eq!((left(&places), places.kept.exists()), (0, false));
    }

    #[test]
    fn records_stay_where_they_are_while_they_cannot_be_kept() {
        let directory = tempfile::tempdir().unwrap();
        let mut places = places(directory.path());
        fs::write(places.records.join("dmesg-ramoops-0"), format!("Panic#1 Part1\n{PANIC}"))
            .unwrap();
        // A file is in the way of the directory.
        fs::write(&places.kept, "").unwrap();
        keep(&places, "h").unwrap_err();
        assert_eq!(left(&places), 1);
        places.kept = directory.path().join("elsewhere");
        assert!(keep(&places, "h").unwrap().is_some());
        assert_eq!(left(&places), 0);
    }

    #[test]
    fn the_newest_crashes_are_kept_and_the_end_of_each() {
        let directory = tempfile::tempdir().unwrap();
        let places = places(directory.path());
        let long = format!("Panic#1 Part1\n{}{PANIC}\n", "a line that is told\n".repeat(8000));
        for _ in 0..=MOST_KEPT {
            fs::write(places.records.join("dmesg-ramoops-0"), &long).unwrap();
            keep(&places, "found").unwrap();
        }
        assert_eq!(numbers(&places.kept), [2, 3, 4, 5, 6]);
        let mut printed = Vec::new();
        assert_eq!(print(&places.kept, &mut printed).unwrap(), MOST_KEPT);
        assert!(printed.len() <= MOST_KEPT * (MOST_BYTES + 100), "{}", printed.len());
        let text = String::from_utf8(printed).unwrap();
        assert_eq!(text.matches("== found\na line that is told\n").count(), MOST_KEPT);
        assert_eq!(text.matches(PANIC).count(), MOST_KEPT);
    }

    #[test]
    fn the_newest_crash_is_told_for_a_week() {
        let directory = tempfile::tempdir().unwrap();
        let places = places(directory.path());
        assert_eq!(newest(&places.kept, 0), None);
        fs::write(places.records.join("r"), format!("Panic#1 Part1\n{PANIC}\n")).unwrap();
        keep(&places, "found").unwrap();
        let crash = newest(&places.kept, 0).unwrap();
        assert_eq!(crash.cause, "Kernel panic - not syncing: sysrq triggered crash");
        assert_eq!(newest(&places.kept, crash.found_s + TOLD_S), Some(crash.clone()));
        assert_eq!(newest(&places.kept, crash.found_s + TOLD_S + 1), None);
    }

    #[test]
    fn a_crash_without_a_name_is_told_by_its_last_line() {
        assert_eq!(
            cause("-- Panic 1\n<1> Unable to handle kernel paging request\n<0> ---[ end"),
            "Unable to handle kernel paging request"
        );
        assert_eq!(cause("first\nlast\n\n"), "last");
        assert_eq!(cause(""), "nothing was said");
    }
}
