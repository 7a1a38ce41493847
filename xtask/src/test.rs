//! `cargo xtask test`: every test of the workspace, the slow ones that boot machines included.
//!
//! Output is cargo's own, followed by what the failed tests said once more, by the tests that had
//! no time left, and by one line that sums the runners up: `812 passed, 0 failed`.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::process::{self, Outcome};
use crate::tidy;

/// Variable with the minutes after which no further slow test starts.
const MINUTES: &str = "IOTA_TEST_MINUTES";

/// Runs all tests; `rest` goes to `cargo test` as it is, such as a part of a test's name.
pub(crate) fn run(rest: &[String]) -> Outcome {
    let minutes = minutes(std::env::var(MINUTES).ok().as_deref())?;
    let until = minutes.map(|minutes| SystemTime::now() + Duration::from_secs(60 * minutes));
    let tidiness = tidy::run();
    let mut command = process::cargo();
    command.args(["test", "--workspace", "--no-fail-fast"]).args(rest);
    command.env("RUN_SLOW_TESTS", "1");
    let left_out = process::workspace().join("target/tests-left-out");
    if let Some(until) = until {
        limit(&mut command, until, &left_out)?;
    }
    let (mut sums, failures, success) = run_and_sum(&mut command)?;
    sums.settle(success);
    if until.is_some() {
        sums.left_out = names(&left_out)?;
    }
    print!("{}", failures.text());
    println!("{}", sums.line());
    tidiness?;
    if success { Ok(()) } else { Err("tests failed".to_owned()) }
}

fn minutes(text: Option<&str>) -> Result<Option<u64>, String> {
    let number = |text: &str| text.parse().map_err(|_| format!("{MINUTES}={text} is no number"));
    text.map(number).transpose()
}

/// Tells the slow tests until when they may start, and where they write what did not
/// (`qemu_tests::slow_tests_wanted`).
fn limit(command: &mut Command, until: SystemTime, left_out: &Path) -> Outcome {
    let failed = |cause: std::io::Error| format!("{}: {cause}", left_out.display());
    if let Some(directory) = left_out.parent() {
        fs::create_dir_all(directory).map_err(failed)?;
    }
    fs::write(left_out, "").map_err(failed)?;
    let since_1970 = until.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    command.env("SLOW_TESTS_UNTIL", since_1970.as_secs().to_string());
    command.env("SLOW_TESTS_LEFT_OUT", left_out);
    Ok(())
}

fn names(left_out: &Path) -> Result<Vec<String>, String> {
    let text = fs::read_to_string(left_out);
    let text = text.map_err(|cause| format!("{}: {cause}", left_out.display()))?;
    Ok(text.lines().map(str::to_owned).collect())
}

fn run_and_sum(command: &mut Command) -> Result<(Sums, Failures, bool), String> {
    process::announce(command);
    let words = process::words(command);
    let failed = |cause: std::io::Error| format!("{words}: {cause}");
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(failed)?;
    let (mut sums, mut failures) = (Sums::default(), Failures::default());
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).split(b'\n') {
            let line = line.map_err(failed)?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            sums.add(&line);
            failures.add(&line);
        }
    }
    let status = child.wait().map_err(failed)?;
    Ok((sums, failures, status.success()))
}

/// Lines at the end of what a failed test printed that are told again: its panic, and what led
/// there.
const TOLD_AGAIN: usize = 60;

/// What the failed tests of all runners printed: thousands of lines above the end otherwise.
#[derive(Default)]
struct Failures {
    /// Of each failed test, the heading that its runner gives it, and what it printed.
    sections: Vec<(String, Vec<String>)>,
    /// Whether the runner is at its failures.
    within: bool,
}

impl Failures {
    /// Keeps a line if a runner tells failures: `failures:`, sections that begin with
    /// `---- name stdout ----`, `failures:` again with the names alone.
    fn add(&mut self, line: &str) {
        if line == "failures:" || line.starts_with("test result: ") {
            self.within = false;
        } else if line.starts_with("---- ") && line.ends_with(" stdout ----") {
            self.within = true;
            self.sections.push((line.to_owned(), Vec::new()));
        } else if let Some((_, lines)) = self.sections.last_mut().filter(|_| self.within) {
            lines.push(line.to_owned());
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (heading, lines) in &self.sections {
            let end = lines.iter().rposition(|line| !line.is_empty()).map_or(0, |last| last + 1);
            let told = &lines[end.saturating_sub(TOLD_AGAIN)..end];
            text.push_str(&format!("\n{heading}\n{}\n", told.join("\n")));
        }
        text
    }
}

/// What the runners of all test binaries reported.
#[derive(Default, PartialEq, Eq, Debug)]
struct Sums {
    passed: u64,
    failed: u64,
    ignored: u64,
    /// Names of those that had no time left; their runners count them as passed.
    left_out: Vec<String>,
}

impl Sums {
    /// Counts a line if it is a runner's result: `test result: ok. 3 passed; 0 failed; …`.
    fn add(&mut self, line: &str) {
        let Some((_, counts)) =
            line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for part in counts.split("; ") {
            let Some((number, what)) = part.split_once(' ') else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }

    /// A runner that was killed, or never built, prints no result: that is a failure too, and the
    /// last line must not read as if all were well.
    fn settle(&mut self, success: bool) {
        if !success && self.failed == 0 {
            self.failed = 1;
        }
    }

    fn line(&self) -> String {
        let ignored = match self.ignored {
            0 => String::new(),
            number => format!(", {number} ignored"),
        };
        let (left_out, names) = match self.left_out.len() {
            0 => (0, String::new()),
            number => {
                (number as u64, format!("no time was left for: {}\n", self.left_out.join(", ")))
            }
        };
        let passed = self.passed.saturating_sub(left_out);
        let last = if left_out > 0 { format!(", {left_out} left out") } else { String::new() };
        format!("{names}{passed} passed, {} failed{ignored}{last}", self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_all_runners_are_summed_and_other_lines_are_not() {
        let mut sums = Sums::default();
        for line in [
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished",
            "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out",
            "test a::test_result ... ok",
            "    5 passed; nobody counts this",
        ] {
            sums.add(line);
        }
        assert_eq!(sums.line(), "5 passed, 1 failed, 1 ignored");
    }

    #[test]
    fn tests_that_had_no_time_left_are_named_and_have_not_passed() {
        let left_out = vec!["a::b".to_owned(), "c::d".to_owned()];
        let sums = Sums { passed: 5, left_out, ..Sums::default() };
        let lines = "no time was left for: a::b, c::d\n3 passed, 0 failed, 2 left out";
        assert_eq!(sums.line(), lines);
        assert_eq!(minutes(Some("70")), Ok(Some(70)));
        assert_eq!(minutes(None), Ok(None));
        assert_eq!(minutes(Some("1h")), Err("IOTA_TEST_MINUTES=1h is no number".to_owned()));
    }

    #[test]
    fn what_failed_tests_said_is_told_again_at_the_end() {
        let mut failures = Failures::default();
        let many: Vec<String> = (0..100).map(|number| format!("line {number}")).collect();
        let printed = ["test a ... FAILED", "failures:", "", "---- a stdout ----", "a: left", ""];
        let names = ["failures:", "    a", "    b", "", "test result: FAILED. 0 passed; 2 failed"];
        let lines = printed.into_iter().chain(["---- b stdout ----"]);
        let lines = lines.chain(many.iter().map(String::as_str)).chain([""]).chain(names);
        lines.chain(["running 3 tests"]).for_each(|line| failures.add(line));
        let last = many[40..].join("\n");
        let expected = format!("\n---- a stdout ----\na: left\n\n---- b stdout ----\n{last}\n");
        assert_eq!(failures.text(), expected);
        assert_eq!(Failures::default().text(), "");
    }

    #[test]
    fn a_runner_that_ends_without_a_result_is_a_failure() {
        let mut sums = Sums { passed: 5, ..Sums::default() };
        sums.settle(true);
        assert_eq!(sums.line(), "5 passed, 0 failed");
        sums.settle(false);
        assert_eq!(sums.line(), "5 passed, 1 failed");
        sums.settle(false);
        assert_eq!(sums.line(), "5 passed, 1 failed");
    }
}
