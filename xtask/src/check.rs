//! `cargo xtask check`: what must hold before every commit, the quick things first.

use crate::process::{self, Outcome};
use crate::tidy;

/// Runs the gate; the first thing that fails ends it.
pub(crate) fn run() -> Outcome {
    tidy::run()?;
    process::run(process::cargo().args(["fmt", "--all", "--check"]))?;
    process::run(
        process::cargo()
            .args(["clippy", "--workspace", "--all-targets", "--quiet"])
            .args(["--", "--deny", "warnings"]),
    )?;
    process::run(process::cargo().args(["test", "--workspace", "--quiet"]))
}
