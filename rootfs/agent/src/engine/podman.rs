//! Where Podman is not Docker: nobody is there to follow a container's output or to start it when
//! the device starts, because nobody is there at all while nothing is asked.
//!
//! Output is followed in the file that the container's keeper (conmon) writes. A line of it:
//!
//! ```text
//! 2026-11-28T20:00:00.123456789+00:00 stdout F text      P in place of F: the line goes on
//! ```

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::docker::{Docker, senseless, text};
use crate::client::{Content, Result, escape};
use crate::time::Moment;

/// Pause between two looks at a file that did not grow.
const PACE: Duration = Duration::from_millis(250);

/// What has to be asked with a version in the path; any of Podman 4 and 5.
const LIBPOD: &str = "/v4.0.0/libpod";

impl Docker {
    pub(super) fn follow_file(&self, name: &str, after: Option<Moment>) -> Result<Box<dyn Read>> {
        let container = self.inspect(name)?;
        let path = text(&container["HostConfig"]["LogConfig"], "Path")?;
        let process = container["State"]["Pid"].as_u64().filter(|id| *id > 0);
        let process = process.map(|id| PathBuf::from(format!("/proc/{id}")));
        Ok(Box::new(Followed::open(path.into(), process, after)?))
    }

    /// Podman's own description of a container.
    fn inspect(&self, name: &str) -> Result<Value> {
        self.get(&format!("{LIBPOD}/containers/{}/json", escape(name)))
    }

    /// Containers that are to run always, and do not: those that ran when the device was switched
    /// off. Each is tried; the first failure is told.
    pub(super) fn start_kept(&self) -> Result<()> {
        let list = self.get("/containers/json?all=1")?;
        let list = list.as_array().ok_or_else(|| senseless("no list of containers"))?;
        let mut failure = Ok(());
        for listed in list.iter().filter(|it| it["State"] == "exited") {
            let id = text(listed, "Id")?;
            if is_kept(&self.inspect(&id)?) {
                failure = failure
                    .and(self.post(&format!("/containers/{}/start", escape(&id)), Content::None));
            }
        }
        failure
    }

    /// How often the health check of a container is to run; `None` if it has none.
    pub(crate) fn check_interval(&self, id: &str) -> Result<Option<Duration>> {
        Ok(check_interval(&self.inspect(id)?))
    }

    /// Runs the health check of a container; what came of it is in the container's state.
    pub(crate) fn check_health(&self, id: &str) -> Result<()> {
        let target = format!("{LIBPOD}/containers/{}/healthcheck", escape(id));
        self.request("GET", &target, Content::None, None)?.document().map(drop)
    }
}

fn is_kept(container: &Value) -> bool {
    let policy = container["HostConfig"]["RestartPolicy"]["Name"].as_str().unwrap_or_default();
    matches!(policy, "always" | "unless-stopped")
}

fn check_interval(container: &Value) -> Option<Duration> {
    let check = &container["Config"]["Healthcheck"];
    let command = check["Test"].as_array()?.first()?.as_str()?;
    let nanoseconds = check["Interval"].as_u64().filter(|it| *it > 0).unwrap_or(30_000_000_000);
    (command != "NONE").then_some(Duration::from_nanos(nanoseconds))
}

/// The output of a container out of its file, as frames of Docker's log endpoint
/// ([`crate::stream`]).
pub(super) struct Followed {
    path: PathBuf,
    file: BufReader<File>,
    inode: u64,
    /// `/proc/ID` of the container's first process; without one nothing more will come.
    process: Option<PathBuf>,
    after: Option<Moment>,
    line: Vec<u8>,
    frames: Vec<u8>,
    given: usize,
}

impl Followed {
    /// Of a file; more comes as long as the process is there.
    pub(super) fn open(
        path: PathBuf,
        process: Option<PathBuf>,
        after: Option<Moment>,
    ) -> io::Result<Self> {
        let file = File::open(&path)?;
        let (inode, file) = (file.metadata()?.ino(), BufReader::new(file));
        let (line, frames) = (Vec::new(), Vec::new());
        Ok(Self { path, file, inode, process, after, line, frames, given: 0 })
    }

    /// Reads lines until there is a frame; false when none will come any more.
    fn fill(&mut self) -> io::Result<bool> {
        self.frames.clear();
        self.given = 0;
        loop {
            // Asked before the file is: what it wrote last is read in any case.
            let runs = self.process.as_ref().is_some_and(|process| process.exists());
            self.file.read_until(b'\n', &mut self.line)?;
            if self.line.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                if let Some(frame) = frame(&line, self.after) {
                    self.frames = frame;
                    return Ok(true);
                }
            } else if self.is_replaced() {
                let next = File::open(&self.path)?;
                (self.inode, self.line) = (next.metadata()?.ino(), Vec::new());
                self.file = BufReader::new(next);
            } else if runs {
                std::thread::sleep(PACE);
            } else {
                return Ok(false);
            }
        }
    }

    /// A file that has grown too long is put away for a new one of the same name.
    fn is_replaced(&self) -> bool {
        Path::new(&self.path).metadata().is_ok_and(|now| now.ino() != self.inode)
    }
}

impl Read for Followed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.given == self.frames.len() && !self.fill()? {
            return Ok(0);
        }
        let left = self.frames.get(self.given..).unwrap_or_default();
        let count = left.len().min(buffer.len());
        buffer[..count].copy_from_slice(&left[..count]);
        self.given += count;
        Ok(count)
    }
}

/// A line of the file as a frame; `None` if it is none, or not after the moment.
fn frame(line: &[u8], after: Option<Moment>) -> Option<Vec<u8>> {
    let mut fields = line.strip_suffix(b"\n")?.splitn(4, |byte| *byte == b' ');
    let time = fields.next()?;
    let stream = if fields.next()? == b"stderr" { 2 } else { 1 };
    let whole = fields.next()? != b"P";
    let message = fields.next().unwrap_or_default();
    let moment = Moment::parse(std::str::from_utf8(time).ok()?)?;
    if after.is_some_and(|after| moment <= after) {
        return None;
    }
    let end: &[u8] = if whole { b"\n" } else { b"" };
    let text = [time, b" ", message, end].concat();
    let length = u32::try_from(text.len()).ok()?;
    Some([&[stream, 0, 0, 0], &length.to_be_bytes()[..], &text].concat())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;
    use crate::stream::Output;

    const FIRST: &str = "2026-11-28T20:00:00.1+00:00 stdout F one\n";

    fn lines(mut source: impl Read, after: Option<Moment>) -> Vec<String> {
        let (mut output, mut shown, mut buffer) = (Output::after(after), Vec::new(), [0; 7]);
        loop {
            let count = source.read(&mut buffer).unwrap();
            if count == 0 {
                output.finish(&mut |line| shown.push(line.to_owned()));
                return shown;
            }
            output.take(&buffer[..count], &mut |line| shown.push(line.to_owned())).unwrap();
        }
    }

    #[test]
    fn the_file_of_a_container_becomes_the_lines_of_its_output() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ctr.log");
        let text = format!(
            "{FIRST}2026-11-28T20:00:00.2+00:00 stderr P tw\n\
             2026-11-28T20:00:00.3+00:00 stderr F o 2\nno line of a log\n\
             2026-11-28T20:00:00.4+00:00 stdout F \n"
        );
        fs::write(&path, text).unwrap();
        let all = Followed::open(path.clone(), None, None).unwrap();
        assert_eq!(lines(all, None), ["one", "two 2", ""]);
        let after = Moment::parse("2026-11-28T20:00:00.1Z");
        let rest = Followed::open(path, None, after).unwrap();
        assert_eq!(lines(rest, after), ["two 2", ""]);
    }

    #[test]
    fn a_file_that_was_put_away_is_followed_by_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ctr.log");
        fs::write(&path, FIRST).unwrap();
        let mut followed = Followed::open(path.clone(), None, None).unwrap();
        assert!(followed.fill().unwrap());
        fs::rename(&path, directory.path().join("old")).unwrap();
        fs::write(&path, FIRST.replace("one", "two")).unwrap();
        assert_eq!(lines(followed, None).last().unwrap(), "two");
    }

    #[test]
    fn a_check_runs_as_often_as_it_says_and_never_if_it_was_taken_away() {
        let of = |check: Value| check_interval(&json!({ "Config": { "Healthcheck": check } }));
        let command = json!(["CMD", "true"]);
        let two = of(json!({ "Test": command, "Interval": 2_000_000_000_u64 }));
        assert_eq!(two, Some(Duration::from_secs(2)));
        assert_eq!(of(json!({ "Test": command })), Some(Duration::from_secs(30)));
        assert_eq!(of(json!({ "Test": ["NONE"], "Interval": 1 })), None);
        assert_eq!(of(Value::Null), None);
    }

    #[test]
    fn what_was_to_run_always_is_started_with_the_device() {
        let with = |policy: &str| {
            is_kept(&json!({ "HostConfig": { "RestartPolicy": { "Name": policy } } }))
        };
        assert!(with("always") && with("unless-stopped"));
        assert!(!with("no") && !with("on-failure") && !with(""));
    }
}
