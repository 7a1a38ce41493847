//! Foreign tools that tests hold our formats against.
//!
//! A tool that is not there skips its part of a test with a printed line: the formats are also
//! proven by our own readers and by pinned digests, which always run.

use std::io::Write;
use std::process::{Command, Output, Stdio};

/// A program found on this machine.
#[derive(Clone, Debug)]
pub(crate) struct Tool {
    words: Vec<String>,
}

/// Finds a program: with `IOTA_TEST_TOOLS` (words put before its name, such as `chroot /some/root`)
/// or in the places where administrators' programs lie.
pub(crate) fn tool(name: &str) -> Option<Tool> {
    let prefix = std::env::var("IOTA_TEST_TOOLS").unwrap_or_default();
    let mut words: Vec<String> = prefix.split_whitespace().map(str::to_owned).collect();
    if words.is_empty() {
        let path = std::env::var("PATH").unwrap_or_default();
        let places = path.split(':').chain(["/usr/sbin", "/sbin", "/usr/bin"]);
        let found = places.map(|place| format!("{place}/{name}"));
        let Some(found) = found.into_iter().find(|file| std::path::Path::new(file).exists()) else {
            eprintln!("skipped: {name} is not installed, nothing was held against it");
            return None;
        };
        words.push(found);
    } else {
        words.push(name.to_owned());
    }
    Some(Tool { words })
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
            "{:?} {arguments:?}: {}\n{text}{}",
            self.words,
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }

    /// Runs it and returns whatever came of it.
    pub(crate) fn start(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]).args(arguments).env("LC_ALL", "C");
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
