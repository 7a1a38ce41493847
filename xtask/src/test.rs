//! `cargo xtask test`: every test of the workspace, the slow ones that boot machines included.
//!
//! Output is cargo's own, followed by what the failed tests said once more, and by one line that
//! sums the runners up: `812 passed, 0 failed`.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use crate::process::{self, Outcome};
use crate::tidy;

/// Runs all tests; `rest` goes to `cargo test` as it is, such as a part of a test's name.
pub(crate) fn run(rest: &[String]) -> Outcome {
    let tidiness = tidy::run();
    let mut command = process::cargo();
    command.args(["test", "--workspace", "--no-fail-fast"]).args(rest);
    command.env("RUN_SLOW_TESTS", "1");
    let (mut sums, failures, success) = run_and_sum(&mut command)?;
    sums.settle(success);
    print!("{}", failures.text());
    println!("{}", sums.line());
    tidiness?;
    if success { Ok(()) } else { Err("tests failed".to_owned()) }
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
        format!("{} passed, {} failed{ignored}", self.passed, self.failed)
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
