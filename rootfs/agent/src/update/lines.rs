//! What an installation tells while it goes on: lines for people, or documents for programs.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::apply::Progress;

/// Where the lines go. Nobody has to listen.
pub struct Lines<'a> {
    out: &'a mut dyn Write,
    json: bool,
    step: Option<Step>,
}

/// A step that goes on.
struct Step {
    name: &'static str,
    begun: Instant,
    /// What was told last, in parts of the way.
    told: u64,
}

/// How often people are told, and programs.
const PARTS: (u64, u64) = (10, 100);

impl<'a> Lines<'a> {
    /// For people.
    pub fn plain(out: &'a mut dyn Write) -> Self {
        Self::new(out, false)
    }

    /// For people, or one JSON document a line.
    pub fn new(out: &'a mut dyn Write, json: bool) -> Self {
        Self { out, json, step: None }
    }

    /// Says something, in one clause.
    pub fn say(&mut self, text: &str) {
        let line = if self.json { json!({ "says": text }).to_string() } else { text.to_owned() };
        let _ = writeln!(self.out, "{line}");
    }

    /// Says how far it is, now and then.
    pub fn show(&mut self, progress: Progress) {
        let (name, done, kept, total) = match progress {
            Progress::Writing { done, kept, total } => ("writing", done, kept, total),
            Progress::ReadingBack { done, total } => ("reading back", done, 0, total),
        };
        let parts = if self.json { PARTS.1 } else { PARTS.0 };
        let part = done.saturating_mul(parts).checked_div(total).unwrap_or(parts);
        let begun = match &self.step {
            Some(step) if step.name == name && step.told == part => return,
            Some(step) if step.name == name => step.begun,
            _ => Instant::now(),
        };
        self.step = Some(Step { name, begun, told: part });
        let pace = Pace::of(done, kept, total, begun.elapsed());
        let line = if self.json {
            let progress = json!({
                "step": name,
                "bytes": done,
                "kept-bytes": kept,
                "of-bytes": total,
                "bytes-per-s": pace.bytes_per_s,
                "left-s": pace.left_s,
            });
            json!({ "progress": progress }).to_string()
        } else {
            let mb = |bytes: u64| bytes / 1_000_000;
            let kept = match kept {
                0 => String::new(),
                kept => format!(", {} MB were there already", mb(kept)),
            };
            let percent = part * 100 / parts;
            format!("{name} {percent} % ({} of {} MB{kept}){}", mb(done), mb(total), pace.text())
        };
        let _ = writeln!(self.out, "{line}");
    }
}

/// How fast it goes.
#[derive(Default, Debug, PartialEq, Eq)]
struct Pace {
    /// Of bytes that were not there already.
    bytes_per_s: Option<u64>,
    /// If it goes on like this.
    left_s: Option<u64>,
}

/// Before, the first bytes say nothing about the rest.
const SOON: Duration = Duration::from_secs(1);

impl Pace {
    fn of(done: u64, kept: u64, total: u64, elapsed: Duration) -> Self {
        if elapsed < SOON || done == 0 || done >= total {
            return Self::default();
        }
        let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let new = done.saturating_sub(kept);
        let left_ms = u128::from(ms) * u128::from(total - done) / u128::from(done);
        Self {
            bytes_per_s: Some(new.saturating_mul(1000) / ms),
            left_s: u64::try_from(left_ms.div_ceil(1000)).ok(),
        }
    }

    fn text(&self) -> String {
        let (Some(rate), Some(left)) = (self.bytes_per_s, self.left_s) else {
            return String::new();
        };
        let left = match left {
            0..120 => format!("{left} s"),
            _ => format!("{} min", left.div_ceil(60)),
        };
        format!(", {} KB/s, {left} left", rate / 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    #[test]
    fn people_are_told_ten_times_and_programs_a_hundred() {
        for (json, expected) in [(false, 11 + 11), (true, 101 + 101)] {
            let mut out = Vec::new();
            let mut lines = Lines::new(&mut out, json);
            for done in 0..=1000 {
                lines.show(Progress::Writing { done: done * MB, kept: 0, total: 1000 * MB });
            }
            for done in 0..=1000 {
                lines.show(Progress::ReadingBack { done: done * MB, total: 1000 * MB });
            }
            lines.say("fetching all of it");
            let text = String::from_utf8(out).unwrap();
            assert_eq!(text.lines().count(), expected + 1, "{text}");
            let documents =
                text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok());
            assert_eq!(documents, json);
        }
    }

    #[test]
    fn the_pace_is_that_of_new_bytes_and_the_time_that_of_all() {
        let pace = Pace::of(30 * MB, 10 * MB, 120 * MB, Duration::from_secs(10));
        assert_eq!(pace, Pace { bytes_per_s: Some(2 * MB), left_s: Some(30) });
        assert_eq!(pace.text(), ", 2000 KB/s, 30 s left");
        assert_eq!(Pace::of(30, 0, 120, Duration::from_millis(10)), Pace::default());
        let slow = Pace::of(1, 0, 1000, Duration::from_secs(2));
        assert_eq!(slow.text(), ", 0 KB/s, 34 min left");
    }
}
