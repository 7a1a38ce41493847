//! A program that PID 1 waits for before it has a main loop: with a deadline, what it says taken
//! line by line, and the watchdog fed meanwhile.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::failure::{Context, Failure, Result};
use crate::log::{self, note, now_ms};
use crate::process::Lines;
use crate::watchdog::Watchdog;

/// The pace of the watchdog and of a look at the deadline; a watchdog wants to be fed every 250 ms
/// at most.
const LOOK_MS: u64 = 200;
/// How long a program that was killed may take to end: one that waits for a dead disk never does.
const END_MS: u64 = 2_000;
/// More lines of one program are not kept: they would push everything else out of the log.
const KEPT_LINES: u32 = 200;

/// What PID 1 has at hand while it waits.
#[derive(Debug)]
pub(crate) struct Patience<'a> {
    /// The watchdog, if it is armed.
    pub(crate) watchdog: Option<&'a mut Watchdog>,
    /// When waiting ends, on the clock of [`now_ms`].
    pub(crate) deadline_ms: u64,
}

impl Patience<'_> {
    /// To be called at least every [`LOOK_MS`]: gives whether there is time left.
    pub(crate) fn look(&mut self) -> bool {
        let now = now_ms();
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.feed(now);
        }
        log::flush();
        now < self.deadline_ms
    }
}

/// Runs a program to its end; every line it says goes to the log and to `each`.
pub(crate) fn run(
    arguments: &[&str],
    patience: &mut Patience<'_>,
    each: &mut dyn FnMut(&str),
) -> Result<ExitStatus> {
    let (program, rest) = arguments.split_first().ok_or_else(|| Failure::new("no program"))?;
    let name = program.rsplit('/').next().unwrap_or(program);
    let start = now_ms();
    let (mut child, pipe) = spawn(program, rest)?;
    let heard = listen(pipe, name, patience, each);
    match heard.and_then(|()| wait(&mut child, patience)) {
        Some(status) => Ok(status),
        None => {
            // A program that has ended meanwhile is what is wanted.
            let _ = child.kill();
            let mut last = Patience { watchdog: None, deadline_ms: now_ms() + END_MS };
            last.watchdog = patience.watchdog.as_deref_mut();
            // One that does not end even so is left behind; the main loop collects it.
            let _ = wait(&mut child, &mut last);
            let seconds = now_ms().saturating_sub(start) / 1000;
            Err(Failure::new(format!("{name} was ended after {seconds} s: it took too long")))
        }
    }
}

/// Nothing else runs yet: it needs no control group, and memory that it lacks is lacking.
fn spawn(program: &str, arguments: &[&str]) -> Result<(Child, File)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).context("pipe")?;
    fcntl_setfl(&reader, OFlags::NONBLOCK).context("pipe")?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", "/usr/sbin:/usr/bin").env("LC_ALL", "C");
    command.stdin(Stdio::null()).stderr(writer.try_clone().context("pipe")?).stdout(writer);
    let child = command.spawn().context(program)?;
    Ok((child, reader.into()))
}

/// Reads to the end of the pipe; `None` if time ran out before.
fn listen(
    mut pipe: File,
    name: &str,
    patience: &mut Patience<'_>,
    each: &mut dyn FnMut(&str),
) -> Option<()> {
    let mut lines = Lines::default();
    let mut count = 0_u32;
    let mut line = |text: &str| {
        count = count.saturating_add(1);
        if count <= KEPT_LINES {
            note(&format!("{name}: {text}"));
        }
        each(text);
    };
    let mut buffer = [0; 4096];
    while patience.look() {
        match pipe.read(&mut buffer) {
            Ok(0) => {
                lines.end(&mut line);
                return Some(());
            }
            Ok(length) => lines.push(buffer.get(..length).unwrap_or_default(), &mut line),
            Err(error) if error.kind() == ErrorKind::WouldBlock => pause(&pipe),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Some(()),
        }
    }
    None
}

fn pause(pipe: &File) {
    let nanoseconds = i64::try_from(LOOK_MS).unwrap_or(0) * 1_000_000;
    let timeout = Timespec { tv_sec: 0, tv_nsec: nanoseconds };
    // A poll that fails is only a shorter wait.
    let _ = poll(&mut [PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)], Some(&timeout));
}

/// Waits for the end of a child, which has closed its output; `None` if time ran out before.
fn wait(child: &mut Child, patience: &mut Patience<'_>) -> Option<ExitStatus> {
    while patience.look() {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) => std::thread::sleep(Duration::from_millis(5)),
            Err(_) => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(arguments: &[&str], limit_ms: u64) -> (Result<Option<i32>>, Vec<String>) {
        let mut lines = Vec::new();
        let mut patience = Patience { watchdog: None, deadline_ms: now_ms() + limit_ms };
        let result = run(arguments, &mut patience, &mut |line| lines.push(line.to_owned()));
        (result.map(|status| status.code()), lines)
    }

    #[test]
    fn what_a_program_says_and_its_status_come_back() {
        let (status, lines) = said(&["/bin/sh", "-c", "echo one; echo two >&2; exit 4"], 60_000);
        assert_eq!((status, lines), (Ok(Some(4)), vec!["one".to_owned(), "two".to_owned()]));
    }

    #[test]
    fn a_program_that_takes_too_long_is_ended_talking_or_not() {
        for script in ["while :; do echo on; done", "exec sleep 60", "exec >&- 2>&-; sleep 60"] {
            let start = now_ms();
            let (status, _) = said(&["/bin/sh", "-c", script], 300);
            let error = status.unwrap_err().to_string();
            assert!(error.starts_with("sh was ended after "), "{script}: {error}");
            assert!(now_ms() - start < 20_000, "{script}");
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let (status, _) = said(&["/nonexistent/e2fsck"], 1_000);
        assert!(status.unwrap_err().to_string().starts_with("/nonexistent/e2fsck: "));
    }
}
