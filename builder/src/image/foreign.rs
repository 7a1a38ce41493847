//! Foreign tools that tests hold our formats against.
//!
//! They come from [`host::tools`](crate::host::tools): the machine's own or the tool tree. A tool
//! that cannot be had skips its part of a test with a printed line: the formats are also proven by
//! our own readers and by pinned digests, which always run.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;

use crate::error::Result;
use crate::host::progress::Progress;
use crate::host::store::Store;
use crate::host::tools::{self, Tools};

/// A program that can be run.
pub(crate) struct Tool(tools::Tool);

/// Finds a tool, or says that what it would check is skipped.
pub(crate) fn tool(name: &str) -> Option<Tool> {
    match find(name) {
        Ok(tool) => Some(Tool(tool)),
        Err(error) => {
            eprintln!("skipped: nothing was held against {name}: {}", error.chain());
            None
        }
    }
}

/// True if the machine has a program that some foreign tool starts by itself.
pub(crate) fn is_in_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|directory| directory.join(name).is_file());
    if !found {
        eprintln!("skipped: nothing was held against {name}: it is not in the path");
    }
    found
}

fn find(name: &str) -> Result<tools::Tool> {
    // One test fetches the tool tree, the others wait for it.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock();
    let store = Store::open(None)?;
    let progress = Progress::quiet();
    Tools { store: &store, mirror: None, offline: false, progress: &progress }.find(name)
}

impl Tool {
    /// Runs it; panics with everything it said unless it succeeds; returns its output.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        self.feed(arguments, &[])
    }

    /// Like [`Tool::run`] with bytes on its standard input.
    pub(crate) fn feed(&self, arguments: &[&str], input: &[u8]) -> String {
        let output = self.start(arguments, input);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{} {arguments:?}: {}\n{text}{}",
            self.0.name(),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }

    /// Runs it and returns whatever came of it.
    pub(crate) fn start(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut command: Command = self.0.command();
        command.args(arguments).env("LC_ALL", "C").env("TZ", "UTC");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            // A tool may stop reading early; what it says about that is in its status.
            scope.spawn(move || stdin.write_all(input).ok());
            child.wait_with_output().unwrap()
        })
    }
}
