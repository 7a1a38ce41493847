//! `cargo xtask test`: every test of the workspace, the slow ones that boot machines included.
//!
//! Output is cargo's own, followed by one line that sums the runners up: `812 passed, 0 failed`.

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
    let (mut sums, success) = run_and_sum(&mut command)?;
    sums.settle(success);
    println!("{}", sums.line());
    tidiness?;
    if success { Ok(()) } else { Err("tests failed".to_owned()) }
}

fn run_and_sum(command: &mut Command) -> Result<(Sums, bool), String> {
    process::announce(command);
    let words = process::words(command);
    let failed = |cause: std::io::Error| format!("{words}: {cause}");
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(failed)?;
    let mut sums = Sums::default();
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).split(b'\n') {
            let line = line.map_err(failed)?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            sums.add(&line);
        }
    }
    let status = child.wait().map_err(failed)?;
    Ok((sums, status.success()))
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
