//! `cargo xtask sim`: the crash simulator of `qemu-tests`, with its own options.

use crate::process::{self, Outcome};

/// Runs it; `rest` goes to it as it is. `--help` lists what it takes.
pub(crate) fn run(rest: &[String]) -> Outcome {
    let mut command = process::cargo();
    command.args(["run", "--quiet", "--package", "qemu-tests", "--bin", "sim", "--"]).args(rest);
    process::run(&mut command)
}
