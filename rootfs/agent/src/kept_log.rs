//! The log on the data partition, if the owner wants one: what PID 1 keeps in memory, written down
//! from time to time, and the kernel's warnings.
//!
//! ```text
//! /data/iota/logs/log       the newest lines; each start begins with a line `== start …`
//! /data/iota/logs/log.1     those before; together never more than the owner's limit
//! ```
//!
//! A card wears out by being written. So lines are collected for [`PACE`], which is what a power
//! cut can lose, and a day's lines have a [`Budget`]: what is beyond it is left out, and counted.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::logs;

/// How long lines are collected. 144 times a day, each some 20 KiB of data and journal: 3 MB.
pub const PACE: Duration = Duration::from_secs(600);
/// The first time it is sooner: whoever restarts after a minute wants to know why.
pub const FIRST: Duration = Duration::from_secs(30);

/// How many bytes may still be written: 5 MB a day, and a tenth of that at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    left: u64,
    filled_at_s: u64,
}

impl Budget {
    const A_DAY: u64 = 5_000_000;
    const AT_ONCE: u64 = Self::A_DAY / 10;
    const DAY_S: u64 = 24 * 60 * 60;

    /// A full one at this second.
    pub fn new(now_s: u64) -> Self {
        Self { left: Self::AT_ONCE, filled_at_s: now_s }
    }

    /// What of these lines may be written, from the first on, with a line about the rest.
    pub fn take(&mut self, lines: &[u8], now_s: u64) -> Vec<u8> {
        // What is less than a byte waits for the next time.
        let grown =
            now_s.saturating_sub(self.filled_at_s).saturating_mul(Self::A_DAY) / Self::DAY_S;
        if grown > 0 {
            self.left = self.left.saturating_add(grown).min(Self::AT_ONCE);
            self.filled_at_s = now_s;
        }
        let (mut taken, mut left_out) = (Vec::new(), 0_u64);
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            let length = u64::try_from(line.len()).unwrap_or(u64::MAX);
            match self.left.checked_sub(length).filter(|_| left_out == 0) {
                Some(left) => {
                    self.left = left;
                    taken.extend_from_slice(line);
                }
                None => left_out = left_out.saturating_add(1),
            }
        }
        if left_out > 0 {
            let line = format!("iota logs: {left_out} lines left out: more than 5 MB in a day\n");
            taken.extend_from_slice(line.as_bytes());
        }
        taken
    }
}

/// The two files.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
    most_bytes: u64,
}

impl Store {
    /// Where a device has it.
    pub const PLACE: &str = "/data/iota/logs";

    /// In this directory, with so many bytes at most.
    pub fn new(directory: &Path, most_bytes: u64) -> Self {
        Self { directory: directory.to_owned(), most_bytes }
    }

    fn newest(&self) -> PathBuf {
        self.directory.join("log")
    }

    fn older(&self) -> PathBuf {
        self.directory.join("log.1")
    }

    /// Adds lines; they are on the disk when this returns.
    pub fn add(&self, lines: &[u8]) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        fs::create_dir_all(&self.directory)?;
        let length = fs::metadata(self.newest()).map_or(0, |data| data.len());
        let added = u64::try_from(lines.len()).unwrap_or(u64::MAX);
        if length > 0 && length.saturating_add(added) > self.most_bytes / 2 {
            fs::rename(self.newest(), self.older())?;
            File::open(&self.directory)?.sync_all()?;
        }
        let mut file = File::options().append(true).create(true).open(self.newest())?;
        let most = usize::try_from(self.most_bytes / 2).unwrap_or(usize::MAX);
        file.write_all(lines.get(..lines.len().min(most)).unwrap_or(lines))?;
        file.sync_data()
    }

    /// Prints all of a unit, or of everybody, oldest first, and the starts in between always; how
    /// many bytes are kept. They may be more than the device has memory.
    pub fn print(&self, unit: Option<&str>, out: &mut impl Write) -> io::Result<usize> {
        let mut bytes = 0_usize;
        for path in [self.older(), self.newest()] {
            let file = match File::open(path) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                opened => opened?,
            };
            let (mut lines, mut line) = (BufReader::new(file), Vec::new());
            while lines.read_until(b'\n', &mut line)? > 0 {
                bytes = bytes.saturating_add(line.len());
                if line.starts_with(b"== ") || unit.is_none_or(|unit| logs::is_of(&line, unit)) {
                    out.write_all(&line)?;
                }
                line.clear();
            }
        }
        out.flush().map(|()| bytes)
    }
}

/// Where lines come from: PID 1, and the kernel.
pub trait Sources {
    /// All lines that PID 1 keeps.
    fn services(&mut self) -> io::Result<Vec<u8>>;
    /// What the kernel has warned of since it was asked last.
    fn kernel(&mut self) -> Vec<u8>;
}

/// Those of the device.
pub struct Device {
    kernel: Option<File>,
}

impl Device {
    /// A kernel without messages for us has none.
    pub fn new() -> Self {
        Self { kernel: logs::open_kernel(false).ok() }
    }
}

impl Default for Device {
    fn default() -> Self {
        Self::new()
    }
}

impl Sources for Device {
    fn services(&mut self) -> io::Result<Vec<u8>> {
        logs::kept()
    }

    fn kernel(&mut self) -> Vec<u8> {
        self.kernel.as_mut().map(logs::warnings).unwrap_or_default()
    }
}

/// What is collected between two writes.
pub struct Collector {
    seen: Vec<u8>,
    budget: Budget,
    heading: Option<String>,
}

impl Collector {
    /// Nothing is written yet of this start; the heading comes before its first line.
    pub fn new(heading: String, now_s: u64) -> Self {
        Self { seen: Vec::new(), budget: Budget::new(now_s), heading: Some(heading) }
    }

    /// What is to be written now.
    pub fn collect(&mut self, sources: &mut impl Sources, now_s: u64) -> io::Result<Vec<u8>> {
        let now = sources.services()?;
        let mut lines = sources.kernel();
        lines.extend_from_slice(logs::fresh(&self.seen, &now));
        self.seen = now;
        let taken = self.budget.take(&lines, now_s);
        let heading = if taken.is_empty() { None } else { self.heading.take() };
        let heading = heading.map(|text| format!("== {text}\n").into_bytes());
        Ok([heading.unwrap_or_default(), taken].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Lines(&'static str, &'static str);

    impl Sources for Lines {
        fn services(&mut self) -> io::Result<Vec<u8>> {
            Ok(self.0.into())
        }

        fn kernel(&mut self) -> Vec<u8> {
            std::mem::take(&mut self.1).into()
        }
    }

    #[test]
    fn each_line_is_written_once_below_a_heading_for_each_start() {
        let mut collector = Collector::new("start 2026-11-29".to_owned(), 0);
        let mut collect = |services, kernel| {
            let lines = collector.collect(&mut Lines(services, kernel), 0).unwrap();
            String::from_utf8(lines).unwrap()
        };
        assert_eq!(collect("", ""), "");
        let first = "== start 2026-11-29\niota kernel: oh\niota init: one\n";
        assert_eq!(collect("iota init: one\n", "iota kernel: oh\n"), first);
        assert_eq!(collect("iota init: one\n", ""), "");
        assert_eq!(collect("iota init: one\niota init: two\n", ""), "iota init: two\n");
    }

    #[test]
    fn a_day_has_a_budget_and_what_is_beyond_it_is_counted() {
        let mut budget = Budget::new(0);
        let line = [[b'x'; 99].as_slice(), b"\n"].concat();
        let taken = budget.take(&line.repeat(5003), 0);
        let note = "iota logs: 3 lines left out: more than 5 MB in a day\n";
        assert_eq!(taken.len(), 500_000 + note.len());
        assert!(taken.ends_with(note.as_bytes()));
        // 57 bytes come back each second.
        assert!(budget.take(&line, 1).starts_with(b"iota logs: 1 lines"));
        assert_eq!(budget.take(&line, 3), line);
        assert_eq!(budget.take(&line, 86_400).len(), 100);
        assert_eq!(budget.left, 500_000 - 100);
    }

    #[test]
    fn the_files_keep_to_the_limit_and_the_oldest_lines_go() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(&directory.path().join("logs"), 1000);
        let printed = |unit| {
            let mut out = Vec::new();
            store.print(unit, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(printed(None), "");
        store.add(b"").unwrap();
        assert!(!directory.path().join("logs").exists());
        for number in 0..100 {
            store.add(format!("iota init: {number:0>30}\n").as_bytes()).unwrap();
            let bytes = |path: PathBuf| fs::metadata(path).map_or(0, |data| data.len());
            assert!(bytes(store.newest()) + bytes(store.older()) <= 1000);
        }
        let all = printed(None);
        assert!(all.ends_with("99\n") && all.len() > 500, "{all}");
        let numbers = |text: &str| -> Vec<u32> {
            text.lines().map(|line| line[11..].parse().unwrap()).collect()
        };
        assert!(numbers(&all).windows(2).all(|pair| pair[0] + 1 == pair[1]));
        // More at once than there is room for.
        store.add(&b"y\n".repeat(2000)).unwrap();
        assert!(fs::metadata(store.newest()).unwrap().len() <= 500);
    }

    #[test]
    fn a_unit_is_printed_with_the_starts() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path(), 1000);
        store.add(b"== start 1\niota init: a\niota app hello: b\n== start 2\n").unwrap();
        let mut out = Vec::new();
        store.print(Some("hello"), &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "== start 1\niota app hello: b\n== start 2\n");
    }
}
