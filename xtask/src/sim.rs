//! `cargo xtask sim` and `cargo xtask fuzz`: the crash simulator and the fuzz targets of
//! `qemu-tests`, each with its own options.

use crate::process::{self, Outcome};

/// Runs one of them; `rest` goes to it as it is. `--help` lists what it takes.
pub(crate) fn run(program: &str, rest: &[String]) -> Outcome {
    let mut command = process::cargo();
    command.args(["run", "--quiet", "--package", "qemu-tests", "--bin", program, "--"]).args(rest);
    process::run(&mut command)
}
