//! The parts that touch a disk, each in a process of its own that is given up when it takes too
//! long: a process that waits for a disk cannot be ended, but it can be left behind.

use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use config::{Config, MOST_BYTES};
use ondisk::layout::Slot;

use super::decide::{Found, Kept, Store};
use super::device::{Device, HEAD_BYTES};
use super::disks::{self, Copies};
use crate::update::Facts;

/// How long each part may take. A card answers within a tenth of a second; the rest is for a small
/// machine that starts an engine meanwhile: giving up early would cost the owner's addresses.
pub const LIMIT: Duration = Duration::from_secs(15);

/// Where the copies are.
const COPIES: &str = "/data/iota";

/// What the device's disks have, and what they shall keep.
pub trait Parts {
    /// Looks at the boot partition.
    fn read_file(&self) -> Found;
    /// Looks at the data partition for the copy of the last good file.
    fn read_kept(&self) -> Kept;
    /// Looks at the data partition for what was changed on the device.
    fn read_device(&self) -> Device;
    /// Changes the data partition.
    fn store(&self, store: &Store) -> Result<(), String>;
}

/// One of them, as this program is told on its command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The file of the boot partition goes to standard output.
    ReadFile,
    /// The copy goes to standard output.
    ReadKept,
    /// Standard input becomes the copy.
    Keep,
    /// What was changed on the device goes to standard output.
    ReadDevice,
    /// Standard input becomes what was changed on the device.
    KeepDevice,
    /// What was changed on the device is removed.
    DropDevice,
    /// All of them are removed.
    Forget,
}

impl Part {
    /// All, with their words.
    const ALL: [(Self, &'static str); 7] = [
        (Self::ReadFile, "read-file"),
        (Self::ReadKept, "read-kept"),
        (Self::Keep, "keep"),
        (Self::ReadDevice, "read-device"),
        (Self::KeepDevice, "keep-device"),
        (Self::DropDevice, "drop-device"),
        (Self::Forget, "forget"),
    ];

    /// The part that this word means.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == word).map(|(part, _)| *part)
    }

    fn word(self) -> &'static str {
        Self::ALL.iter().find(|(part, _)| *part == self).map_or("", |(_, word)| word)
    }

    /// Does it, in the process that was started for it: exit status 1 means "there is none".
    pub fn run(self, facts: &Facts) -> Result<ExitCode, String> {
        // Without words of a loader there is no slot; the copy of the first one does then.
        let slot = facts.boot().map_or(Slot::A, |boot| boot.slot);
        let copies = Copies::new(Path::new(COPIES), slot);
        let failed = |error: io::Error| error.to_string();
        let done = |result: io::Result<()>| result.map(|()| ExitCode::SUCCESS).map_err(failed);
        let found = match self {
            Self::ReadFile => disks::read_file(facts)?,
            Self::ReadKept => copies.read()?,
            Self::ReadDevice => copies.read_device().map_err(failed)?,
            Self::Keep => return done(copies.keep(&input()?)),
            Self::KeepDevice => {
                // What is said to be kept has to outlive a restart.
                disks::is_on_disk(Path::new(COPIES))?;
                return done(copies.keep_device(&input()?));
            }
            Self::DropDevice => return done(copies.drop_device()),
            Self::Forget => return done(copies.forget()),
        };
        let Some(bytes) = found else { return Ok(ExitCode::from(1)) };
        io::stdout().write_all(&bytes).map(|()| ExitCode::SUCCESS).map_err(failed)
    }
}

fn input() -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    io::stdin().read_to_end(&mut bytes).map(|_| bytes).map_err(|error| error.to_string())
}

/// The parts as processes of a program, which is this one.
#[derive(Clone, Debug)]
pub struct Processes {
    program: PathBuf,
    limit: Duration,
}

impl Processes {
    /// Parts that run this program and have this long.
    pub fn new(program: PathBuf, limit: Duration) -> Self {
        Self { program, limit }
    }

    /// What a part brought; `None` if there is none.
    fn run(&self, part: Part, input: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let failed = |error: io::Error| format!("{}: {error}", self.program.display());
        let mut command = Command::new(&self.program);
        command.args(["config", part.word()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let deadline = Instant::now() + self.limit;
        let mut child = command.spawn().map_err(failed)?;
        let (output, errors) = (collect(child.stdout.take()), collect(child.stderr.take()));
        if let Some(mut pipe) = child.stdin.take() {
            let input = input.to_vec();
            // A part that hangs does not read either.
            std::thread::spawn(move || drop(pipe.write_all(&input)));
        }
        let answer = wait(&output, deadline).zip(wait(&errors, deadline));
        let Some((output, errors)) = answer else {
            // It ends when its disk answers, if ever; PID 1 collects it.
            let _ = child.kill();
            return Err(format!("no answer within {} s", self.limit.as_secs()));
        };
        // Both of its outputs are closed: it has ended.
        let status = child.wait().map_err(failed)?;
        outcome(status, output, &errors)
    }
}

fn outcome(status: ExitStatus, output: Vec<u8>, errors: &[u8]) -> Result<Option<Vec<u8>>, String> {
    match status.code() {
        Some(0) => Ok(Some(output)),
        Some(1) => Ok(None),
        _ => {
            let said = String::from_utf8_lossy(errors);
            let said = said.trim().trim_start_matches("error: ");
            Err(if said.is_empty() { status.to_string() } else { said.replace('\n', "; ") })
        }
    }
}

/// Reads a pipe to its end, or to more than any file may have.
fn collect(pipe: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let most = u64::try_from(2 * MOST_BYTES + HEAD_BYTES).unwrap_or(u64::MAX);
        if let Some(pipe) = pipe {
            let _ = pipe.take(most).read_to_end(&mut bytes);
        }
        let _ = sender.send(bytes);
    });
    receiver
}

fn wait(receiver: &Receiver<Vec<u8>>, deadline: Instant) -> Option<Vec<u8>> {
    receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
}

impl Parts for Processes {
    fn read_file(&self) -> Found {
        match self.run(Part::ReadFile, &[]) {
            Ok(Some(bytes)) => match Config::parse(&bytes) {
                Ok(config) => Found::Good(config, bytes),
                Err(problems) => Found::Bad(problems.to_string(), bytes),
            },
            Ok(None) => Found::Missing,
            Err(error) => Found::Unreadable(error),
        }
    }

    fn read_kept(&self) -> Kept {
        match self.run(Part::ReadKept, &[]) {
            Ok(Some(bytes)) => match Config::parse(&bytes) {
                Ok(config) => Kept::Good(config, bytes),
                Err(problems) => Kept::Unusable(problems.to_string()),
            },
            Ok(None) => Kept::Missing,
            Err(error) => Kept::Unusable(error),
        }
    }

    fn read_device(&self) -> Device {
        match self.run(Part::ReadDevice, &[]) {
            Ok(Some(bytes)) => Device::decode(&bytes),
            Ok(None) => Device::Missing,
            Err(error) => Device::Unusable(None, error),
        }
    }

    fn store(&self, store: &Store) -> Result<(), String> {
        let (part, input): (_, &[u8]) = match store {
            Store::Keep(bytes) => (Part::Keep, bytes),
            Store::KeepDevice(bytes) => (Part::KeepDevice, bytes),
            Store::DropDevice => (Part::DropDevice, &[]),
            Store::Forget => (Part::Forget, &[]),
        };
        self.run(part, input).map(drop)
    }
}
