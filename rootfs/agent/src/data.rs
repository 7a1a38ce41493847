//! What `iota status` tells about the data partition: what PID 1 did about it at this start
//! ([`ondisk::data_care`]), what the kernel has met since, and whether it is to be reset.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use ondisk::data_care::{self, Report, State};
use ondisk::reset::{self, Reset};
use rustix::fs::statvfs;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use crate::own_disk::OwnDisk;
use crate::reset::word;
use crate::update::Facts;

/// Where PID 1 shows the data partition, or memory in place of it.
const DATA: &str = "/data";
/// Where the kernel tells about mounted file systems of this kind.
const EXT4: &str = "/sys/fs/ext4";

/// The data partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    /// What PID 1 left.
    pub report: Report,
    /// Size of the partition.
    pub bytes: Option<u64>,
    /// What is used of it, if it is mounted.
    pub used_bytes: Option<u64>,
    /// What was written to it since the start, as the kernel counts.
    pub written_bytes: Option<u64>,
    /// Seconds since the start.
    pub up_s: u64,
    /// How often the kernel met an error since the last repair.
    pub errors: u64,
    /// What the next start will do.
    pub reset: Option<Reset>,
}

impl Data {
    /// Asks PID 1's report, the kernel and the record; an error is one clause.
    pub fn read(facts: &Facts) -> Result<Self, String> {
        let report = report()?;
        let node = report.device.as_deref().map(Path::new).and_then(Path::file_name);
        let name = node.map(|name| name.to_string_lossy().into_owned());
        let mounted = report.outcome.state.is_mounted();
        Ok(Self {
            bytes: name.as_ref().and_then(|name| facts.devices.bytes(name)),
            written_bytes: name.as_ref().and_then(|name| facts.devices.written_bytes(name)),
            up_s: u64::try_from(clock_gettime(ClockId::Boottime).tv_sec).unwrap_or(0),
            used_bytes: if mounted { used_bytes(Path::new(DATA)) } else { None },
            errors: name.filter(|_| mounted).and_then(|name| errors(&name)).unwrap_or(0),
            reset: request(facts),
            report,
        })
    }

    /// False when what containers keep is not kept.
    pub fn is_well(&self) -> bool {
        !matches!(self.report.outcome.state, State::Quarantined { .. })
    }

    /// Lines for people.
    pub fn text(&self) -> String {
        let mut line = self.bytes.map(size).unwrap_or_default();
        if let Some(used) = self.used_bytes {
            let _ = write!(line, ", {} used", size(used));
        }
        if !line.is_empty() {
            line.push_str(", ");
        }
        match &self.report.outcome.state {
            State::Missing => line.push_str("none on this disk: /data is memory and will be lost"),
            State::Good if self.report.outcome.was_cut => {
                line.push_str("good, after a power cut or a crash");
            }
            State::Good => line.push_str("good"),
            State::New { kept_identity: false } => line.push_str("new since this start"),
            State::New { kept_identity: true } => {
                line.push_str("emptied at this start, but for the identity");
            }
            State::Repaired { why, said } if said.is_empty() => {
                let _ = write!(line, "checked at this start, nothing found: {why}");
            }
            State::Repaired { why, said } => {
                let _ = write!(line, "repaired at this start: {why}; {said}");
            }
            State::Quarantined { why } => {
                let _ = write!(line, "QUARANTINED: {why}; /data is memory and will be lost");
            }
        }
        let mut text = format!("data       {line}\n");
        if let Some(written) = self.written_bytes.filter(|_| self.report.outcome.state.is_mounted())
        {
            let _ = writeln!(text, "           {}", wear(written, self.up_s));
        }
        for more in self.more() {
            let _ = writeln!(text, "           {more}");
        }
        text
    }

    /// What else there is to say, and what to do.
    fn more(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(problem) = &self.report.outcome.problem {
            lines.push(format!("ERROR: {problem}"));
        }
        if self.errors > 0 {
            let errors = self.errors;
            lines.push(format!("ERROR: the kernel met errors on it ({errors} times)"));
            lines.push("hint: `iota reboot`: the next start repairs it".to_owned());
        }
        if let Some(reset) = self.reset {
            lines.push(format!("RESET at the next start: {reset} goes"));
            lines.push("hint: `iota reset cancel` takes that back".to_owned());
        } else if !self.is_well() {
            lines.push(
                "hint: it is left as it is; copy the partition if it matters, then `iota reset`"
                    .to_owned(),
            );
        }
        lines
    }

    /// The same facts for programs.
    pub fn json(&self) -> Value {
        let Report { device, outcome } = &self.report;
        let (why, said) = outcome.state.reasons();
        json!({
            "state": outcome.state.word(),
            "why": why,
            "said": said,
            "was-cut": outcome.was_cut,
            "problem": outcome.problem,
            "device": device,
            "bytes": self.bytes,
            "used-bytes": self.used_bytes,
            "written-bytes": self.written_bytes,
            "up-s": self.up_s,
            "errors": self.errors,
            "reset": self.reset.map(word),
        })
    }
}

/// What PID 1 left at this start; an error is one clause.
pub fn report() -> Result<Report, String> {
    let text = fs::read_to_string(data_care::PATH)
        .map_err(|error| format!("{}: {error}", data_care::PATH))?;
    Report::parse(&text).ok_or_else(|| format!("{}: not PID 1's words", data_care::PATH))
}

/// What the next start will do; a disk that cannot be read says so elsewhere.
fn request(facts: &Facts) -> Option<Reset> {
    let OwnDisk { device, place, .. } = OwnDisk::open(&facts.devices, &facts.boot().ok()?).ok()?;
    reset::read(&device, place.record)
}

fn used_bytes(path: &Path) -> Option<u64> {
    let told = statvfs(path).ok()?;
    told.f_blocks.checked_sub(told.f_bfree)?.checked_mul(told.f_frsize)
}

fn errors(name: &str) -> Option<u64> {
    fs::read_to_string(format!("{EXT4}/{name}/errors_count")).ok()?.trim().parse().ok()
}

/// What was written, and how much that is in a day: what wears a card out. Of a start's first hour
/// nothing follows.
fn wear(bytes: u64, up_s: u64) -> String {
    const DAY_S: u64 = 24 * 60 * 60;
    let megabytes = |bytes: u64| format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10);
    let text = format!("{} written since the start", megabytes(bytes));
    match up_s {
        ..3600 => text,
        _ => format!("{text}, {} in a day", megabytes(bytes.saturating_mul(DAY_S) / up_s)),
    }
}

/// As people read sizes of cards.
fn size(bytes: u64) -> String {
    let tenths = bytes / ((1 << 30) / 10);
    match bytes >> 20 {
        mebibytes if mebibytes < 10 << 10 => format!("{mebibytes} MiB"),
        _ => format!("{}.{} GiB", tenths / 10, tenths % 10),
    }
}

#[cfg(test)]
mod tests {
    use ondisk::data_care::Outcome;

    use super::*;

    fn data(state: State) -> Data {
        let device = Some("/dev/vda5".to_owned());
        let report = Report { device, outcome: Outcome::from(state) };
        let (bytes, used_bytes) = (Some(896 << 20), Some(41 << 20));
        let (written_bytes, up_s) = (Some(12_345_678), 60);
        Data { report, bytes, used_bytes, written_bytes, up_s, errors: 0, reset: None }
    }

    #[test]
    fn a_line_says_size_use_and_state() {
        let (why, said) = ("it was hit".to_owned(), "Inode 12. FIXED.".to_owned());
        let repaired = State::Repaired { why: why.clone(), said };
        let checked = State::Repaired { why, said: String::new() };
        for (state, expected) in [
            (State::Good, "good"),
            (State::New { kept_identity: false }, "new since this start"),
            (repaired, "repaired at this start: it was hit; Inode 12. FIXED."),
            (checked, "checked at this start, nothing found: it was hit"),
        ] {
            let data = data(state);
            let line = format!("data       896 MiB, 41 MiB used, {expected}\n");
            let wear = "           12.3 MB written since the start\n";
            assert_eq!(data.text(), format!("{line}{wear}"));
            assert!(data.is_well());
        }
    }

    #[test]
    fn a_start_after_a_power_cut_says_so() {
        let mut data = data(State::Good);
        assert_eq!(data.json()["was-cut"], false);
        data.report.outcome.was_cut = true;
        assert!(data.text().contains(" 41 MiB used, good, after a power cut or a crash\n"));
        assert_eq!(data.json()["was-cut"], true);
    }

    #[test]
    fn a_quarantine_says_what_to_do() {
        let quarantined = State::Quarantined { why: "no superblock".to_owned() };
        let mut data = Data { used_bytes: None, ..data(quarantined) };
        let line =
            "data       896 MiB, QUARANTINED: no superblock; /data is memory and will be lost\n";
        let hint = "           hint: it is left as it is; copy the partition if it matters, then \
                    `iota reset`\n";
        assert_eq!(data.text(), format!("{line}{hint}"));
        assert!(!data.is_well());
        assert_eq!(data.json()["state"], "quarantined");
        assert_eq!(data.json()["why"], "no superblock");
        data.reset = Some(Reset::Everything);
        assert!(data.text().contains("RESET at the next start: everything goes\n"));
        assert!(!data.text().contains("copy the partition"));
    }

    #[test]
    fn errors_and_problems_are_not_hidden_behind_a_good_start() {
        let mut data = Data { errors: 3, ..data(State::Good) };
        data.report.outcome.problem = Some("not taken back".to_owned());
        let text = data.text();
        assert!(text.contains("           ERROR: not taken back\n"), "{text}");
        assert!(text.contains("met errors on it (3 times)\n"), "{text}");
        assert!(text.contains("`iota reboot`"), "{text}");
        assert_eq!(data.json()["errors"], 3);
    }

    #[test]
    fn what_is_written_in_a_day_is_told_after_an_hour() {
        assert_eq!(wear(999_999, 3599), "0.9 MB written since the start");
        assert_eq!(wear(200_000, 3600), "0.2 MB written since the start, 4.8 MB in a day");
    }

    #[test]
    fn sizes_are_as_people_read_them() {
        assert_eq!(size(900 << 20), "900 MiB");
        assert_eq!(size(29 << 30), "29.0 GiB");
        assert_eq!(size((116 << 30) + (700 << 20)), "116.6 GiB");
    }
}
