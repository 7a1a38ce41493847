//! What PID 1 does about the data partition before anybody uses it, and what it tells about that.
//!
//! ```text
//!              needs no check                  mounted, no errors noted
//! superblock ─────────────────► mount ───────────────────────────────────► good
//!     │                           │ refused, or errors noted: unmount
//!     │ needs one                 ▼
//!     └────────────────► e2fsck -f -p ──mended──► mount ──► repaired
//!                           │ not mended            │ refused
//!                           ▼                       ▼
//!         e2fsck -f -y until it finds nothing ──not──► quarantined: left alone, never formatted
//! ```
//! The sequence is here and its hands are a trait, so that a test can run it with the real tools
//! on damaged images. A file system is made only when somebody asked for it ([`reset`]).
//!
//! Then a report goes to [`PATH`], lines of text in this order:
//!
//! ```text
//! iota-data 1
//! device /dev/vda5            left out if the disk has no data partition
//! state repaired              missing, good, repaired, new, new-kept-identity, quarantined
//! why the kernel met errors on it         repaired, quarantined
//! said Inode 12, i_size is 8 … FIXED.     repaired
//! cut yes                     if nobody had unmounted it: a power cut, or the kernel fell over
//! problem …                   what else went wrong
//! ```
use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::{String, ToString as _};

use crate::ext4::{self, Cause, Superblock};
use crate::reset::Reset;

/// Where PID 1 leaves the report.
pub const PATH: &str = "/run/iota/data";

/// What a reset may keep, below the data partition's top: who this device is to others.
pub const IDENTITY: [&str; 2] = ["iota", "identity"];

/// How far a check may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Only repairs that lose nothing (`e2fsck -p`).
    Careful,
    /// Every repair that e2fsck knows (`e2fsck -y`).
    Everything,
}

impl Mode {
    /// The arguments of e2fsck(8) besides the device. It has been decided that a check is needed,
    /// so each is a full one, whatever the superblock says.
    pub fn arguments(self) -> [&'static str; 2] {
        match self {
            Self::Careful => ["-f", "-p"],
            Self::Everything => ["-f", "-y"],
        }
    }
}

/// What e2fsck came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Its exit status; `None` if a signal ended it.
    pub status: Option<i32>,
    /// What it said, in brief ([`Brief`]).
    pub said: String,
}

impl Checked {
    /// Whether the file system is whole now: only "errors corrected" (1) and "restart" (2), which
    /// is for a root that is mounted, may be set in the status (e2fsck(8)).
    fn is_whole(&self) -> bool {
        self.status.is_some_and(|status| status & !3 == 0)
    }
}

/// The hands of the sequence.
pub trait Partition {
    /// Its size.
    fn bytes(&self) -> u64;
    /// Reads the superblock's place.
    fn superblock(&mut self) -> Result<Superblock, String>;
    /// Runs e2fsck; an error if it cannot be started or took too long.
    fn check(&mut self, mode: Mode) -> Result<Checked, String>;
    /// Mounts it.
    fn mount(&mut self) -> Result<(), String>;
    /// Takes it off again; nobody has used it.
    fn unmount(&mut self) -> Result<(), String>;
    /// Makes a new file system; it is on the medium when this returns.
    fn make_new(&mut self) -> Result<(), String>;
    /// Removes everything but [`IDENTITY`] from what is mounted; gone from the medium when this
    /// returns.
    fn remove_all_but_identity(&mut self) -> Result<(), String>;
    /// Takes the request for a reset back.
    fn take_back(&mut self) -> Result<(), String>;
}

/// How it stands with the data partition at this start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The disk has none.
    Missing,
    /// Mounted as it was.
    Good,
    /// Mounted after a repair.
    Repaired {
        /// Why it was checked.
        why: String,
        /// What e2fsck said, in brief.
        said: String,
    },
    /// Mounted, and empty by request.
    New {
        /// But for the identity.
        kept_identity: bool,
    },
    /// Not mounted and left as it is.
    Quarantined {
        /// Why.
        why: String,
    },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How it stands.
    pub state: State,
    /// Whether nobody had unmounted it before this start: what was written last may be half there.
    pub was_cut: bool,
    /// What else went wrong.
    pub problem: Option<String>,
}

impl From<State> for Outcome {
    fn from(state: State) -> Self {
        Self { state, was_cut: false, problem: None }
    }
}

impl State {
    /// Whether the partition is on /data.
    pub fn is_mounted(&self) -> bool {
        !matches!(self, Self::Missing | Self::Quarantined { .. })
    }

    /// The word for programs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Good => "good",
            Self::Repaired { .. } => "repaired",
            Self::New { kept_identity: false } => "new",
            Self::New { kept_identity: true } => "new-kept-identity",
            Self::Quarantined { .. } => "quarantined",
        }
    }

    /// Why it is so, and what was said about it.
    pub fn reasons(&self) -> (Option<&String>, Option<&String>) {
        match self {
            Self::Repaired { why, said } => (Some(why), Some(said)),
            Self::Quarantined { why } => (Some(why), None),
            Self::Missing | Self::Good | Self::New { .. } => (None, None),
        }
    }
}

/// Time for all checks of one start: what a slow card of this size needs, and never so long that a
/// start seems to be none.
pub fn check_limit_ms(partition_bytes: u64) -> u64 {
    let gibibytes = partition_bytes >> 30;
    gibibytes.saturating_add(120).min(300).saturating_mul(1000)
}

/// Brings the partition up: checked if need be, new if somebody asked for it.
pub fn bring_up<P: Partition>(partition: &mut P, request: Option<Reset>) -> Outcome {
    match request {
        None => care(partition),
        Some(Reset::Everything) => renew(partition),
        Some(Reset::KeepIdentity) => empty(partition),
    }
}

/// Checks, repairs and mounts.
fn care<P: Partition>(partition: &mut P) -> Outcome {
    let (cause, was_cut) = match partition.superblock() {
        Ok(superblock) => {
            (ext4::needs_check(&superblock, partition.bytes()), ext4::was_cut(&superblock))
        }
        Err(why) => (Some(Cause::Unreadable(why)), false),
    };
    Outcome { was_cut, ..mounted(partition, cause).into() }
}

fn mounted<P: Partition>(partition: &mut P, mut cause: Option<Cause>) -> State {
    let mut state = State::Good;
    loop {
        if let Some(cause) = cause {
            let why = cause.to_string();
            if state != State::Good {
                return State::Quarantined { why: format!("repaired, but {why}") };
            }
            state = match repair(partition) {
                Ok(said) => State::Repaired { why, said },
                Err(failed) => return State::Quarantined { why: format!("{why}; {failed}") },
            };
        }
        cause = match partition.mount() {
            Err(why) => Some(Cause::Refused(why)),
            // The journal may bring a note of errors; it is seen only once it is replayed.
            Ok(()) if state == State::Good && has_errors(partition) => match partition.unmount() {
                Ok(()) => Some(Cause::Errors),
                // The next start finds the note.
                Err(_) => return state,
            },
            Ok(()) => return state,
        };
    }
}

fn has_errors<P: Partition>(partition: &mut P) -> bool {
    partition.superblock().is_ok_and(|superblock| ext4::notes_errors(&superblock))
}

/// How often e2fsck may repair with all means. It says "corrected" and may leave what only a second
/// look finds, such as what follows from an inode that it made anew: a round that finds nothing is
/// the proof.
const ROUNDS: u32 = 3;

/// Carefully first, then with all means; gives what was said.
fn repair<P: Partition>(partition: &mut P) -> Result<String, String> {
    let careful = partition.check(Mode::Careful)?;
    if careful.is_whole() {
        return Ok(careful.said);
    }
    let mut said = None;
    for _ in 0..ROUNDS {
        let Checked { status, said: now } = partition.check(Mode::Everything)?;
        let how = match status {
            Some(0) => return Ok(said.unwrap_or(now)),
            Some(status) if status & !3 == 0 => {
                said.get_or_insert(now);
                continue;
            }
            Some(status) => format!("e2fsck -y ended with status {status}"),
            None => "e2fsck -y was ended by a signal".to_owned(),
        };
        return Err(if now.is_empty() { how } else { format!("{how}: {now}") });
    }
    Err(format!("e2fsck -y found more in each of {ROUNDS} rounds"))
}

/// Makes it new. The request stands until that is on the medium: a cut leads here again.
fn renew<P: Partition>(partition: &mut P) -> Outcome {
    if let Err(why) = partition.make_new() {
        let why = format!("the reset failed and is tried again at the next start: {why}");
        return State::Quarantined { why }.into();
    }
    let problem = taken_back(partition);
    let state = match care(partition).state {
        State::Good => State::New { kept_identity: false },
        other => other,
    };
    Outcome { problem, ..state.into() }
}

/// Removes all but the identity, file by file: one that is carried over a format in memory would be
/// lost by a cut, and a copy elsewhere would be a second place for secrets. A cut leads here again.
fn empty<P: Partition>(partition: &mut P) -> Outcome {
    match care(partition).state {
        State::Quarantined { why } => {
            let why = format!(
                "{why}; its identity cannot be kept, so the reset waits: \
                 `iota reset` without --keep-identity makes it new"
            );
            State::Quarantined { why }.into()
        }
        state => match partition.remove_all_but_identity() {
            Ok(()) => {
                let state = State::New { kept_identity: true };
                Outcome { problem: taken_back(partition), ..state.into() }
            }
            Err(why) => {
                let problem =
                    format!("the reset is not complete and goes on at the next start: {why}");
                Outcome { problem: Some(problem), ..state.into() }
            }
        },
    }
}

fn taken_back<P: Partition>(partition: &mut P) -> Option<String> {
    let failed = partition.take_back().err()?;
    Some(format!("the next start resets again, since the request cannot be taken back: {failed}"))
}

/// What a program says, in brief: the first line that tells something, and how many came after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Brief {
    first: Option<String>,
    more: u32,
}

/// Longest first line; the rest is cut off.
const MAX_LINE_CHARACTERS: usize = 160;

impl Brief {
    /// Takes a line in.
    pub fn add(&mut self, line: &str) {
        let line = plain(line);
        let line = line.trim();
        if says_nothing(line) {
            return;
        }
        match self.first {
            None => self.first = Some(line.chars().take(MAX_LINE_CHARACTERS).collect()),
            Some(_) => self.more = self.more.saturating_add(1),
        }
    }

    /// One line.
    pub fn text(&self) -> String {
        match (&self.first, self.more) {
            (None, _) => String::new(),
            (Some(first), 0) => first.clone(),
            (Some(first), more) => format!("{first} (and {more} more)"),
        }
    }
}

/// Lines of e2fsck that it prints whatever it finds.
fn says_nothing(line: &str) -> bool {
    let always = ["e2fsck 1.", "Pass ", "mke2fs 1."];
    line.is_empty()
        || always.iter().any(|start| line.starts_with(start))
        || line.contains("FILE SYSTEM WAS MODIFIED")
        || line.ends_with("Backing up journal inode block information.")
        || line.contains(" files (") && line.ends_with(" blocks")
}

/// One line without characters that speak to a terminal.
fn plain(text: &str) -> String {
    text.replace(|character: char| character.is_control(), " ")
}

/// The outcome as it is told to the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Node of the partition, if there is one.
    pub device: Option<String>,
    /// How it stands.
    pub outcome: Outcome,
}

const HEADER: &str = "iota-data 1";
const YES: &str = "yes";

impl Report {
    /// The text of the report.
    pub fn encode(&self) -> String {
        let state = &self.outcome.state;
        let (word, (why, said)) = (state.word().to_owned(), state.reasons());
        let yes = self.outcome.was_cut.then(|| YES.to_owned());
        let fields = [
            ("device", self.device.as_ref()),
            ("state", Some(&word)),
            ("why", why),
            ("said", said),
            ("cut", yes.as_ref()),
            ("problem", self.outcome.problem.as_ref()),
        ];
        let mut text = format!("{HEADER}\n");
        for (name, value) in fields {
            if let Some(value) = value {
                text.push_str(&format!("{name} {}\n", plain(value)));
            }
        }
        text
    }

    /// Reads what [`Report::encode`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(HEADER)?.strip_prefix('\n')?;
        let value = |name: &str| {
            let mut lines = rest.lines().filter_map(|line| line.split_once(' '));
            lines.find(|(found, _)| *found == name).map(|(_, value)| value.to_owned())
        };
        let why = || value("why").unwrap_or_default();
        let state = match value("state")?.as_str() {
            "missing" => State::Missing,
            "good" => State::Good,
            "repaired" => State::Repaired { why: why(), said: value("said").unwrap_or_default() },
            "new" => State::New { kept_identity: false },
            "new-kept-identity" => State::New { kept_identity: true },
            "quarantined" => State::Quarantined { why: why() },
            _ => return None,
        };
        let was_cut = value("cut").is_some();
        let outcome = Outcome { state, was_cut, problem: value("problem") };
        let report = Self { device: value("device"), outcome };
        (report.encode() == text).then_some(report)
    }
}

#[cfg(test)]
mod tests;
