//! A service as a process: started in its own control group, its output taken line by line.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Command, Stdio};

use ondisk::system::{self, Output, Service};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, kill_process};

use crate::failure::{Context, Failure, Result};
use crate::log::{self, note};
use crate::plan::SERVICES_GROUP;
use crate::sys::{self, ChildSetup};

/// A line longer than this is cut in pieces.
const LINE_BYTES: usize = 4096;
/// More than two proxies and 32 exceptions come to.
const ENVIRONMENT_BYTES: u64 = 16 * 1024;
/// Reads in one round: a service that never stops talking must not keep PID 1 from the others.
const READS_PER_ROUND: usize = 8;

/// Starts a service; gives its process and what it says.
pub(crate) fn start(index: usize, service: &Service) -> Result<(Pid, OutputPipe)> {
    let (program, arguments) =
        service.arguments.split_first().ok_or_else(|| Failure::new("no program"))?;
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).context("pipe")?;
    fcntl_setfl(&reader, OFlags::NONBLOCK).context("pipe")?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear();
    // The image's own words come last: nothing of the owner's takes their place.
    command.envs(system::environment(&owners_environment()));
    command.envs(service.environment.iter().filter_map(|entry| entry.split_once('=')));
    command.stdin(Stdio::null()).stderr(writer.try_clone().context("pipe")?).stdout(writer);
    let group = open_group(service);
    let setup = ChildSetup {
        group: group.as_ref().map(AsFd::as_fd),
        oom_score_adjust: service.oom_score_adjust.to_string(),
        user: service.user,
    };
    let child = sys::spawn(command, &setup).context(program)?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pipe = OutputPipe {
        index,
        pipe: reader.into(),
        lines: Lines::default(),
        name: service.name.clone(),
        output: service.output,
        last: String::new(),
    };
    Ok((pid.ok_or_else(|| Failure::new("no process id"))?, pipe))
}

/// What the agent made of the owner's proxies and authorities; nothing before it has, or if there
/// are none.
fn owners_environment() -> String {
    let mut text = String::new();
    if let Ok(file) = File::open(system::ENVIRONMENT) {
        // In memory, by the agent; a damaged one is no reason to start nothing.
        let _ = file.take(ENVIRONMENT_BYTES).read_to_string(&mut text);
    }
    text
}

/// Opens the control group of a service for a child to enter. Without one the service runs all the
/// same, only its children may be missed when it is killed.
fn open_group(service: &Service) -> Option<File> {
    let group = format!("{SERVICES_GROUP}/{}", service.name);
    match fs::create_dir(&group) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            note(&format!("{group}: {error}"));
        }
        _ => {}
    }
    if service.cpu_weight != Service::CPU_WEIGHT {
        let weight = format!("{group}/cpu.weight");
        if let Err(error) = fs::write(&weight, service.cpu_weight.to_string()) {
            note(&format!("{weight}: {error}"));
        }
    }
    let procs = format!("{group}/cgroup.procs");
    let opened = OpenOptions::new().write(true).open(&procs);
    opened.map_err(|error| note(&format!("{procs}: {error}"))).ok()
}

/// Asks a process to end.
pub(crate) fn terminate(pid: Pid) {
    // A process that is gone already is what is wanted.
    let _ = kill_process(pid, Signal::TERM);
}

/// Kills everything in the control group of a service.
pub(crate) fn kill_group(name: &str) {
    // No group, no leftovers.
    let _ = fs::write(format!("{SERVICES_GROUP}/{name}/cgroup.kill"), "1");
}

/// What a service writes to its standard output and error.
#[derive(Debug)]
pub(crate) struct OutputPipe {
    /// Number of the service.
    pub(crate) index: usize,
    pipe: File,
    lines: Lines,
    name: String,
    output: Output,
    /// The last whole line.
    last: String,
}

impl OutputPipe {
    /// The last line that came, empty if none did.
    pub(crate) fn last(&self) -> &str {
        &self.last
    }

    /// Logs what there is; gives whether more may come.
    pub(crate) fn read(&mut self) -> bool {
        let mut buffer = [0; LINE_BYTES];
        for _ in 0..READS_PER_ROUND {
            match self.pipe.read(&mut buffer) {
                Ok(0) => {
                    self.log_rest();
                    return false;
                }
                Ok(length) => self.log(buffer.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }

    fn log(&mut self, bytes: &[u8]) {
        let Self { lines, name, output, last, .. } = self;
        lines.push(bytes, |line| {
            log::service(name, line, *output);
            line.clone_into(last);
        });
    }

    fn log_rest(&mut self) {
        if !self.lines.0.is_empty() {
            self.log(b"\n");
        }
    }
}

impl AsFd for OutputPipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

/// Cuts a stream of bytes into lines that can be shown on a terminal.
#[derive(Debug, Default)]
pub(crate) struct Lines(Vec<u8>);

impl Lines {
    /// Takes bytes in; each line that is whole goes to `each`.
    pub(crate) fn push(&mut self, bytes: &[u8], mut each: impl FnMut(&str)) {
        for &byte in bytes {
            match byte {
                b'\n' => self.emit(&mut each),
                b'\r' => {}
                byte => self.0.push(byte),
            }
            if self.0.len() >= LINE_BYTES {
                self.emit(&mut each);
            }
        }
    }

    /// What is left becomes a line too.
    pub(crate) fn end(&mut self, mut each: impl FnMut(&str)) {
        if !self.0.is_empty() {
            self.emit(&mut each);
        }
    }

    fn emit(&mut self, each: &mut impl FnMut(&str)) {
        let text = String::from_utf8_lossy(&self.0);
        // What a container prints must not move the cursor of somebody's terminal.
        each(&text.replace(|c: char| c.is_control() && c != '\t', "?"));
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pieces: &[&[u8]], expected: &[&str]) {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for piece in pieces {
            lines.push(piece, |line| found.push(line.to_owned()));
        }
        assert_eq!(found, expected);
    }

    #[test]
    fn lines_are_whole_however_the_bytes_arrive() {
        check(&[b"one\ntw", b"o\r\n", b"\nthree"], &["one", "two", ""]);
    }

    #[test]
    fn what_would_move_the_cursor_is_made_visible() {
        check(&[b"a\x1b[2Jb\tc\x00\n"], &["a?[2Jb\tc?"]);
        check(&[b"\xff\n"], &["\u{fffd}"]);
    }

    #[test]
    fn an_endless_line_is_cut() {
        let long = vec![b'x'; LINE_BYTES + 1];
        check(&[&long, b"\n"], &[&"x".repeat(LINE_BYTES), "x"]);
    }
}
