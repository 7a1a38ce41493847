//! `cargo xtask bench`: speed, size and memory, beside other programs' where there are others, as
//! one table of one run.
//!
//! Numbers are compared within one run on one machine, never against a limit: a timed test fails on
//! a busy machine and says nothing on a fast one. What is measured is in `qemu-tests/src/bench/`.

use crate::process::{self, Outcome};

/// Measures; `rest` names parts and options (`cargo xtask bench --help`).
pub(crate) fn run(rest: &[String]) -> Outcome {
    // What is measured is what users run: an optimised `iota`.
    process::run(process::cargo().args(["build", "--release", "--package", "builder"]))?;
    let mut bench = process::cargo();
    bench.args(["run", "--release", "--package", "qemu-tests", "--bin", "bench", "--"]).args(rest);
    process::run(&mut bench)
}
