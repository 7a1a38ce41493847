//! `iota config set`, `apply` and `confirm`: the edge around [`edit`], [`trial`] and [`effects`].
//!
//! ```text
//!   new text ── the one check ──► kept on the data partition ──► in force: report, host name,
//!                    │                                           settings, daemons
//!                    └ the network differs: on trial in /run, a keeper watches its time
//! ```
//!
//! What is refused, or cannot be kept, changes nothing. The lock is held by whoever changes; the
//! keeper takes it too, so that a change is confirmed or reverted, never both.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::values::Key;
use config::{Config, FILE_NAME, Problems, edit, text};
use ondisk::system::System;
use serde_json::{Value, json};

use super::decide::{Source, Store};
use super::effects::{Daemon, Effects, same_network};
use super::report::{self, Report};
use super::trial::{self, Beside, Event, State, Step};
use super::{Parts, Places, apply, device};
use crate::files;
use crate::own_disk::Lock;
use crate::update::Outcome;

/// How long another `iota` may hold the lock: a daemon that is told something takes a moment, and
/// the keeper of a trial looks at it each second.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// What somebody wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// A key gets these values.
    Set(Key, Vec<String>),
    /// The whole file becomes this one, which has that name.
    Apply(String, Vec<u8>),
}

/// What a check found; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The file it is about.
    pub file: String,
    /// All that is wrong with it.
    pub problems: Box<Problems>,
}

/// What a change needs of the machine besides files.
pub trait Machine {
    /// Seconds since the kernel began.
    fn now_s(&self) -> u64;
    /// Names this device.
    fn set_hostname(&self, name: &str) -> io::Result<()>;
    /// Tells a daemon that its file is another one.
    fn tell(&self, daemon: Daemon) -> Result<(), String>;
    /// From now on those with these keys may log in, and nobody else.
    fn let_in(&self, config: &Config) -> io::Result<()>;
    /// Lets a process watch the time of a trial; it may be one of several.
    fn start_keeper(&self) -> Result<(), String>;
}

/// A device whose configuration may be changed.
pub struct Changer<'a> {
    /// Where things are.
    pub places: &'a Places,
    /// Locks of this start, and what is on trial.
    pub run: PathBuf,
    /// The image's own description.
    pub system: &'a System,
    /// The disks.
    pub parts: &'a dyn Parts,
    /// The rest.
    pub machine: &'a dyn Machine,
}

/// A change on trial: what is in force again unless it is confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Trial {
    until_s: u64,
    before: Report,
}

impl Changer<'_> {
    /// Fulfils a wish, if the check has nothing against it.
    pub fn change(&self, wish: &Wish, within_s: u64) -> Result<Outcome, Refused> {
        let begun = self.begin().map(|lock| (lock, Report::read(&self.places.report)));
        let (_lock, current) = match begun {
            Ok((lock, Ok(current))) => (lock, current),
            Ok((_, Err(why))) => return Ok(unknown(&why)),
            Err(error) => return Ok(error.into()),
        };
        let wanted = wanted(wish, &current)?;
        if wanted.text == current.text {
            return Ok(Outcome::Nothing("that is in force already".to_owned()));
        }
        Ok(self.follow(&current, &wanted, within_s).unwrap_or_else(Outcome::from))
    }

    /// Keeps what is on trial.
    pub fn confirm(&self) -> Outcome {
        self.try_to_confirm().unwrap_or_else(Outcome::from)
    }

    fn try_to_confirm(&self) -> Result<Outcome, String> {
        let _lock = self.lock()?;
        let step = trial::next(self.state(), Event::Confirm, self.machine.now_s());
        match (step, self.trial()) {
            (Step::Keep, Some(_)) => {
                let current = Report::read(&self.places.report)?;
                self.keep(&current).map_err(|why| format!("the change stays on trial: {why}"))?;
                let facts = json!({ "confirmed": true });
                Ok(Outcome::Done("the network change is kept".to_owned(), facts))
            }
            (Step::Revert, Some(trial)) => {
                self.revert(&trial)?;
                Err("too late: what was before is in force again\n\
                     hint: make the change again, with a longer --confirm-within"
                    .to_owned())
            }
            _ => Ok(Outcome::Nothing("no network change waits for a confirmation".to_owned())),
        }
    }

    /// Reverts a trial whose time is over, and says so; false when nothing is left to watch.
    pub fn watch(&self, say: &dyn Fn(&str)) -> bool {
        // Somebody changes something right now: their news is looked at the next time.
        let Ok(_lock) = self.lock() else { return true };
        let Some(trial) = self.trial() else { return false };
        match trial::next(self.state(), Event::Look, self.machine.now_s()) {
            Step::Revert => {
                let troubles = self.revert(&trial);
                say("config: the network change was not confirmed; what was before is in force");
                match troubles {
                    Ok(troubles) => troubles.iter().for_each(|trouble| say(trouble)),
                    Err(error) => say(&error),
                }
                false
            }
            _ => true,
        }
    }

    /// Seconds that are left to confirm, if a change waits.
    pub fn left_s(&self) -> Option<u64> {
        trial::left_s(self.state(), self.machine.now_s())
    }

    fn lock(&self) -> Result<Lock, String> {
        Lock::take_within(&self.run.join("config.lock"), LOCK_PATIENCE)
    }

    /// The lock; a trial that nobody reverted in time is over before anything new begins.
    fn begin(&self) -> Result<Lock, String> {
        let lock = self.lock()?;
        if let Some(trial) = self.trial()
            && trial::next(self.state(), Event::Look, self.machine.now_s()) == Step::Revert
        {
            self.revert(&trial)?;
        }
        Ok(lock)
    }

    fn follow(&self, current: &Report, wanted: &Report, within_s: u64) -> Result<Outcome, String> {
        let trial = self.trial();
        let kept = trial.as_ref().map_or(current, |trial| &trial.before);
        let beside = match () {
            () if wanted.text == kept.text => Beside::Same,
            () if same_network(&wanted.config, &kept.config) => Beside::SameNetwork,
            () => Beside::OtherNetwork,
        };
        let event = Event::Change(beside, within_s);
        let effects = Effects::of(&current.config, &wanted.config);
        match trial::next(self.state(), event, self.machine.now_s()) {
            Step::Keep => {
                self.keep(wanted).map_err(|why| format!("nothing was changed: {why}"))?;
                let troubles = self.put_in_force(wanted, &effects)?;
                Ok(done(&effects, &troubles, None))
            }
            Step::Try { until_s } => {
                self.remember(&Trial { until_s, before: kept.clone() })?;
                let troubles = self.put_in_force(wanted, &effects)?;
                Ok(done(&effects, &troubles, Some(within_s)))
            }
            Step::Revert | Step::Nothing => {
                let effects = Effects::of(&current.config, &kept.config);
                self.put_in_force(kept, &effects)?;
                self.forget_trial()?;
                let text = "the network change is taken back".to_owned();
                Ok(Outcome::Done(text, json!({ "reverted": true })))
            }
        }
    }

    /// From now on this is what boots.
    fn keep(&self, wanted: &Report) -> Result<(), String> {
        let bytes = device::encode(&wanted.text, wanted.base);
        self.parts.store(&Store::KeepDevice(bytes)).map_err(|why| {
            format!(
                "the data partition cannot keep it: {why}\n\
                 hint: `iota logs init` says what became of the data partition"
            )
        })?;
        self.forget_trial()
    }

    fn revert(&self, trial: &Trial) -> Result<Vec<String>, String> {
        let current = Report::read(&self.places.report)?;
        let mut before = trial.before.clone();
        let note = "a network change was not confirmed and is taken back";
        let known = before.problem.take().filter(|known| known != note);
        before.problem = Some(known.map_or(note.to_owned(), |known| format!("{known}; {note}")));
        let effects = Effects::of(&current.config, &before.config);
        let troubles = self.put_in_force(&before, &effects)?;
        self.forget_trial()?;
        Ok(troubles)
    }

    /// Makes a configuration hold as far as a running system can; says what it could not.
    fn put_in_force(&self, wanted: &Report, effects: &Effects) -> Result<Vec<String>, String> {
        let path = &self.places.report;
        wanted.write(path).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        let set_hostname = |name: &str| self.machine.set_hostname(name);
        let config = &wanted.config;
        let mut troubles = apply::everything(self.places, self.system, config, set_hostname);
        if effects.keys
            && let Err(error) = self.machine.let_in(&wanted.config)
        {
            troubles.push(format!("keys for SSH: {error}"));
        }
        for daemon in &effects.daemons {
            troubles.extend(self.machine.tell(*daemon).err());
        }
        Ok(troubles)
    }

    fn trial_path(&self) -> PathBuf {
        self.run.join("config-trial.json")
    }

    fn trial(&self) -> Option<Trial> {
        let text = fs::read_to_string(self.trial_path()).ok()?;
        let document: Value = serde_json::from_str(&text).ok()?;
        let until_s = document.get("until-s")?.as_u64()?;
        let before = Report::from_document(document.get("before")?).ok()?;
        Some(Trial { until_s, before })
    }

    fn state(&self) -> State {
        let waiting = |trial: Trial| State::Waiting { until_s: trial.until_s };
        self.trial().map_or(State::Settled, waiting)
    }

    /// Before anything is in force on trial, it is sure that somebody will end it.
    fn remember(&self, trial: &Trial) -> Result<(), String> {
        let path = self.trial_path();
        let document = json!({ "until-s": trial.until_s, "before": trial.before.document() });
        report::write(&path, &document)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        self.machine.start_keeper().inspect_err(|_| drop(self.forget_trial()))
    }

    fn forget_trial(&self) -> Result<(), String> {
        let path = self.trial_path();
        let removed = files::remove(&path).map(drop);
        removed.map_err(|error| format!("cannot remove {}: {error}", path.display()))
    }
}

/// The configuration that a wish comes to, based on what the boot partition has.
fn wanted(wish: &Wish, current: &Report) -> Result<Report, Refused> {
    let refuse = |file: &str| {
        let file = file.to_owned();
        move |problems| Refused { file, problems: Box::new(problems) }
    };
    let (text, config) = match wish {
        Wish::Set(key, values) => {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            let text = edit::set(&current.text, key, &values).map_err(refuse(FILE_NAME))?;
            let config = Config::parse(text.as_bytes()).map_err(refuse(FILE_NAME))?;
            (text, config)
        }
        Wish::Apply(file, bytes) => {
            let config = Config::parse(bytes).map_err(refuse(file))?;
            (text::check(bytes).map_err(refuse(file))?.to_owned(), config)
        }
    };
    let (source, problem, base) = (Source::Device, None, current.base);
    Ok(Report { source, problem, config, text, base })
}

fn unknown(why: &str) -> Outcome {
    format!(
        "it is not known what is in force: {why}\n\
         hint: `iota config load` runs at each start; `iota logs config` says what became of it"
    )
    .into()
}

fn done(effects: &Effects, troubles: &[String], within_s: Option<u64>) -> Outcome {
    let mut lines = Vec::new();
    for (when, keys) in [("in force", &effects.now), ("in force after a restart", &effects.later)] {
        if !keys.is_empty() {
            lines.push(format!("{when}: {}", keys.join(", ")));
        }
    }
    if effects.now.is_empty() && effects.later.is_empty() {
        lines.push("kept: it means what was in force before".to_owned());
    }
    lines.extend(troubles.iter().map(|trouble| format!("trouble: {trouble}")));
    lines.extend(within_s.map(|seconds| {
        format!(
            "on trial: `iota config confirm` within {seconds} s keeps it, else what was before \
             comes back"
        )
    }));
    let facts = json!({
        "in-force": effects.now,
        "after-restart": effects.later,
        "trouble": troubles,
        "confirm-within-s": within_s,
    });
    Outcome::Done(lines.join("\n"), facts)
}

/// The process that watches a trial leaves the group of whoever started it, which is ended with
/// that, and is not the first to go when memory is short. Nothing of this is needed: a restart
/// reverts as well.
pub fn stand_alone(groups: &Path) {
    let group = groups.join("config-trial");
    let _ = fs::create_dir(&group);
    let _ = fs::write(group.join("cgroup.procs"), "0");
    let _ = fs::write("/proc/self/oom_score_adj", "-500");
}

#[cfg(test)]
mod tests;
