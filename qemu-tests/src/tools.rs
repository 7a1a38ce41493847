//! Foreign programs for tests, from this machine or from the tool tree.

use std::process::{Command, Output};

use builder::build::Host;
use builder::error::Result;
use builder::host::progress::Progress;
use builder::host::store::Store;
use builder::host::tools::{Tool, Tools};

use crate::workspace;

/// Calls `job` with the tools of this machine and the user's cache; panics if it fails.
pub fn with<T>(job: impl FnOnce(&Tools<'_>) -> Result<T>) -> T {
    let progress = Progress::new(false);
    let done = Store::open(None).and_then(|store| {
        let tools = Tools { store: &store, mirror: None, offline: false, progress: &progress };
        job(&tools)
    });
    done.unwrap_or_else(|error| panic!("{}", error.chain()))
}

/// Calls a job with what the builder works with: this workspace, and the user's cache.
pub fn with_host<T>(job: impl FnOnce(&Host<'_>) -> Result<T>) -> Result<T> {
    let (workspace, progress, store) = (workspace(), Progress::new(false), Store::open(None)?);
    job(&Host {
        workspace: &workspace,
        store: &store,
        mirror: None,
        offline: false,
        progress: &progress,
    })
}

/// A foreign tool. There is none that cannot be had where an image can be built: both come from
/// the same mirror, so a missing one is a failure, not a reason to skip.
pub fn tool(name: &str) -> Tool {
    with(|tools| tools.find(name))
}

/// Runs a command and returns what it printed; panics with all of it unless it succeeds.
pub fn run(command: &mut Command) -> String {
    let output = output(command);
    let text = text_of(&output);
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    text
}

/// Runs a command, whatever comes of it.
pub fn output(command: &mut Command) -> Output {
    command.env("LC_ALL", "C");
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Everything that a program printed.
pub fn text_of(output: &Output) -> String {
    let all = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&all).into_owned()
}
