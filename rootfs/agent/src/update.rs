//! The verbs that change which system is started: `iota update install|cancel`, `iota commit`,
//! `iota rollback`. The edge around [`apply`](crate::apply) and `ondisk::slot_change`: finds the
//! disk, takes the lock, says what happened.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use ondisk::boot_args::BootArgs;
use ondisk::boot_record::{self, ChangeError, Reason, Record};
use ondisk::layout::Slot;
use ondisk::slot_change::{self, Refused};
use ondisk::trust::{self, Trust};
use rustix::fs::{Advice, fadvise};
use serde_json::{Value, json};

use crate::apply::{self, Left, Rules, Source, Until};
use crate::memory_limit::Limited;
use crate::online::{roots, session};
use crate::own_disk::{Devices, Lock, OwnDisk};
use crate::read_ahead::ReadAhead;
use crate::stick::Stick;

pub mod lines;

pub use lines::Lines;

/// Where this program finds what it needs to know.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The kernel's devices.
    pub devices: Devices,
    /// What the kernel was told.
    pub command_line: PathBuf,
    /// What may be installed.
    pub trust: PathBuf,
    /// Locks and mount points of this start.
    pub run: PathBuf,
    /// The control group that groups of ours are made in.
    pub groups: PathBuf,
    /// What updates from a server need to know.
    pub online: session::Places,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            devices: Devices::default(),
            command_line: "/proc/cmdline".into(),
            trust: trust::PATH.into(),
            run: "/run/iota".into(),
            groups: "/sys/fs/cgroup/services".into(),
            online: session::Places::default(),
        }
    }
}

impl Facts {
    /// How the loader started this system.
    pub fn boot(&self) -> Result<BootArgs, String> {
        BootArgs::parse(&read(&self.command_line)?).map_err(|error| error.to_string())
    }

    /// What this system takes for an update, with the newest trust root that it has come to know.
    pub fn trust(&self) -> Result<Trust, String> {
        let text = read(&self.trust)?;
        let trust =
            Trust::parse(&text).map_err(|error| format!("{}: {error}", self.trust.display()))?;
        Ok(Trust { root: roots::kept(&self.online.trust_roots, trust.root), ..trust })
    }
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// Memory that an installation may take, so that containers need not fear an update: its buffers,
/// 10 MiB, and what the kernel holds of the files meanwhile.
const INSTALL_MEMORY_BYTES: u64 = 24 << 20;

/// What to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Install the bundle of a file, `-` for standard input, `usb:` or `usb:PATH` for a stick.
    Install(String),
    /// Bring what the server offers, and install it if that is wanted.
    InstallOffered(Until),
    /// Give up the update that waits.
    Cancel,
    /// Keep the system that runs.
    Commit,
    /// Start the other system next.
    RollBack,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has happened; in words, and the facts.
    Done(String, Value),
    /// It was so already, or there is nothing to do it with.
    Nothing(String),
    /// It did not happen.
    Failed {
        /// What and why, in one clause.
        error: String,
        /// What to do next.
        hint: Option<String>,
        /// What it left behind, if it got as far as changing something.
        left: Option<&'static str>,
    },
}

impl Outcome {
    /// The exit status: 0 done, 1 nothing to do, 2 failed.
    pub fn code(&self) -> u8 {
        match self {
            Self::Done(..) => 0,
            Self::Nothing(_) => 1,
            Self::Failed { .. } => 2,
        }
    }

    /// Of an installation that did not come to its end.
    pub fn of<E: std::fmt::Display>(error: &apply::Error<E>) -> Self {
        if error.is_nothing_to_do() {
            return Self::Nothing(error.to_string());
        }
        Self::Failed {
            error: error.to_string(),
            hint: error.hint().map(str::to_owned),
            left: match error.left {
                Left::Untouched => Some("nothing was changed"),
                Left::Empty => {
                    Some("the other slot is empty now; the running system is not affected")
                }
                Left::Unsure => {
                    Some("the record could not be written; the running system is not affected")
                }
            },
        }
    }

    /// Adds a fact to what has been done.
    fn with<T: Into<Value>>(mut self, name: &str, fact: impl FnOnce() -> T) -> Self {
        if let Self::Done(_, Value::Object(facts)) = &mut self {
            facts.insert(name.to_owned(), fact().into());
        }
        self
    }

    /// For people.
    pub fn text(&self) -> String {
        match self {
            Self::Done(text, _) => format!("{text}\n"),
            Self::Nothing(reason) => format!("nothing to do: {reason}\n"),
            Self::Failed { error, hint, left } => {
                let left = left.map(|left| format!("\n{left}")).unwrap_or_default();
                let hint = hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
                format!("error: {error}{left}{hint}\n")
            }
        }
    }

    /// The same facts for programs, in one line.
    pub fn json(&self) -> String {
        let value = match self {
            Self::Done(_, facts) => {
                let mut value = json!({ "result": "done" });
                if let (Some(to), Some(from)) = (value.as_object_mut(), facts.as_object()) {
                    to.extend(from.clone());
                }
                value
            }
            Self::Nothing(reason) => json!({ "result": "nothing", "reason": reason }),
            Self::Failed { error, hint, left } => {
                json!({ "result": "failed", "error": error, "hint": hint, "left": left })
            }
        };
        format!("{value}\n")
    }
}

impl From<String> for Outcome {
    /// A message may carry its hint in a second line.
    fn from(message: String) -> Self {
        let (error, hint) = match message.split_once("\nhint: ") {
            Some((error, hint)) => (error.to_owned(), Some(hint.to_owned())),
            None => (message, None),
        };
        Self::Failed { error, hint, left: None }
    }
}

/// Makes a change; what goes on meanwhile is told in `lines`.
pub fn run(change: &Change, facts: &Facts, lines: &mut Lines<'_>) -> Outcome {
    let result = Lock::take(&facts.run.join("update.lock")).and_then(|lock| {
        let boot = facts.boot()?;
        let disk = OwnDisk::open_to_write(&facts.devices, &boot)?;
        Ok((lock, disk))
    });
    let (_lock, mut disk) = match result {
        Ok(opened) => opened,
        Err(message) => return message.into(),
    };
    match change {
        Change::Install(source) => {
            in_little_memory(facts, lines, |lines| install(source, facts, &mut disk, lines))
        }
        Change::InstallOffered(until) => {
            in_little_memory(facts, lines, |lines| install_offered(facts, &mut disk, *until, lines))
        }
        Change::Cancel => {
            let done = |slot: Slot| format!("the update in slot {} is given up", slot.other());
            change_record(&mut disk, slot_change::cancel, done)
        }
        Change::Commit => {
            let done = |slot| format!("slot {slot} is committed");
            change_record(&mut disk, slot_change::commit, done)
        }
        Change::RollBack => {
            let roll_back = |record: &Record, running| {
                slot_change::roll_back(record, running, Reason::REJECTED)
            };
            let done = |slot: Slot| format!("slot {} is started next", slot.other());
            change_record(&mut disk, roll_back, done)
        }
    }
}

fn in_little_memory(
    facts: &Facts,
    lines: &mut Lines<'_>,
    work: impl FnOnce(&mut Lines<'_>) -> Outcome,
) -> Outcome {
    let limited = Limited::enter(&facts.groups.join("update"), INSTALL_MEMORY_BYTES);
    if let Err(error) = &limited {
        // An update matters more than what it takes.
        lines.say(&format!("memory is not limited: {error}"));
    }
    let outcome = work(lines);
    outcome.with("peak-memory-bytes", || limited.as_ref().ok().and_then(Limited::peak_bytes))
}

fn change_record(
    disk: &mut OwnDisk,
    rule: impl FnOnce(&Record, Slot) -> Result<Record, Refused>,
    done: impl FnOnce(Slot) -> String,
) -> Outcome {
    let running = disk.place.running;
    let changed =
        boot_record::change(&mut disk.device, disk.place.record, |record| rule(record, running));
    match changed {
        Ok(_) => Outcome::Done(done(running), json!({ "running": running.letter() })),
        Err(ChangeError::Refused(refused)) if refused.is_nothing_to_do() => {
            Outcome::Nothing(refused.to_string())
        }
        Err(error) => error.to_string().into(),
    }
}

fn install(source: &str, facts: &Facts, disk: &mut OwnDisk, lines: &mut Lines<'_>) -> Outcome {
    let trust = match facts.trust() {
        Ok(trust) => trust,
        Err(message) => return message.into(),
    };
    if source == "-" {
        let source = Source { bytes: ReadAhead::new(io::stdin()), length: None };
        return install_from(source, &trust, disk, lines);
    }
    let opened = match source.strip_prefix("usb:") {
        None => Ok((None, PathBuf::from(source))),
        Some(wanted) => Stick::find(&facts.devices, &disk.name, &facts.run.join("stick"), wanted)
            .map(|stick| {
                let bundle = stick.bundle.clone();
                (Some(stick), bundle)
            }),
    };
    // The stick stays mounted until the bundle has been read.
    let (_stick, path) = match opened {
        Ok(opened) => opened,
        Err(message) => return message.into(),
    };
    let file = File::open(&path).and_then(|file| Ok((file.metadata()?, file)));
    match file {
        Ok((data, file)) => {
            // A pipe with a name has no length.
            let length = data.is_file().then_some(data.len());
            // The kernel reads twice as far ahead. A refusal changes nothing but the speed.
            let _ = fadvise(&file, 0, None, Advice::Sequential);
            let bytes = ReadAhead::new(file);
            install_from(Source { bytes, length }, &trust, disk, lines)
        }
        Err(error) => format!("cannot read {}: {error}", path.display()).into(),
    }
}

fn install_from(
    source: Source<ReadAhead>,
    trust: &Trust,
    disk: &mut OwnDisk,
    lines: &mut Lines<'_>,
) -> Outcome {
    let rules = Rules { board: &trust.board, profile: trust.profile, trust: &trust.root };
    let mut progress = |step| lines.show(step);
    let installed = apply::install(&mut disk.device, &disk.place, &rules, source, &mut progress);
    match installed {
        Ok(apply::Installed { slot, version, image_bytes, kept_bytes }) => {
            let text =
                format!("{version} is installed in slot {slot} and is started next, on trial");
            let facts = json!({
                "slot": slot.letter(),
                "version": version,
                "image-bytes": image_bytes,
                "kept-bytes": kept_bytes,
            });
            Outcome::Done(text, facts)
        }
        Err(error) => Outcome::of(&error),
    }
}

fn install_offered(
    facts: &Facts,
    disk: &mut OwnDisk,
    until: Until,
    lines: &mut Lines<'_>,
) -> Outcome {
    // Written to by two who tell of the same thing.
    let lines = RefCell::new(lines);
    let mut progress = |step| lines.borrow_mut().show(step);
    let mut say = |line: &str| lines.borrow_mut().say(line);
    session::install(facts, disk, until, &mut progress, &mut say)
}
