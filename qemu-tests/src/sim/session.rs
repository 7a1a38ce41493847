//! What a started system does until it is switched off: it commits when it is healthy, and then
//! does what its user wishes, by the agent's own code.
use std::io::Cursor;

use agent::apply::{Error, Installed, Place, Rules, Source, install};
use ondisk::boot_args::BootArgs;
use ondisk::boot_record::{self, ChangeError, Reason, Record, State, Version};
use ondisk::manifest::Profile;
use ondisk::slot_change::{self, Refused};

use super::fixture::{BOARD, RECORD, SLOTS};
use super::world::{Mark, Next, Promise, Step, Versions, World, read_record};
use crate::simdisk::{Failure, SimDisk};

/// What a user wants of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// That this version runs, unless it is known to have failed.
    Install(&'static str),
    /// That this version waits for the next start.
    Stage(&'static str),
    /// That what waits for the next start is forgotten again.
    Cancel(&'static str),
    /// That the system in the other slot runs, which is of this version.
    RollBack(&'static str),
    /// That every bundle that is wrong is refused, with nothing changed (I8).
    RefuseAll,
    /// That a bundle of this version whose last chunk is garbled ends in an error.
    FailAtTheEnd(&'static str),
}

/// How a wish ended.
enum Outcome {
    Done,
    /// The device has to be started again, to go on or to try again.
    Reboot,
    Broken(String),
}

/// A system that runs on a disk.
struct Session<'a> {
    world: &'a World<'a>,
    disk: &'a SimDisk<Mark>,
    place: Place,
    version: &'static str,
    proven: bool,
    safe: bool,
}

impl World<'_> {
    /// What the system that was just started does.
    pub(super) fn session(
        &self,
        disk: &SimDisk<Mark>,
        args: &BootArgs,
        version: &'static str,
        done: usize,
    ) -> Step {
        let mut step = Step {
            next: Next::Steady,
            done,
            version: Some(version),
            attempt: args.attempt,
            proven: args.attempt == 0,
            safe: args.safe,
            broken: None,
        };
        if self.scenario.unhealthy.contains(&version) {
            step.next = Next::Reboot;
            return step;
        }
        let place = Place { record: RECORD, slots: SLOTS, running: args.slot };
        let Step { proven, safe, .. } = step;
        let mut session = Session { world: self, disk, place, version, proven, safe };
        if !session.proven && !step.safe {
            session.commit();
        }
        step.proven = session.proven;
        session.fulfil(&mut step);
        step
    }
}

impl Session<'_> {
    fn fulfil(&self, step: &mut Step) {
        while let Some(wish) = self.world.scenario.plan.get(step.done) {
            match self.wish(*wish) {
                Outcome::Done => {
                    step.done += 1;
                    self.disk.mark(Mark::Done(step.done));
                }
                Outcome::Reboot => {
                    step.next = Next::Reboot;
                    return;
                }
                Outcome::Broken(broken) => {
                    step.broken = Some(broken);
                    return;
                }
            }
        }
    }

    fn wish(&self, wish: Wish) -> Outcome {
        match wish {
            Wish::Install(version) if self.version == version && self.proven => Outcome::Done,
            // In safe mode nothing proves it: that takes a person.
            Wish::Install(version) if self.version == version && self.safe => Outcome::Done,
            // The commit did not work; the next start may be luckier.
            Wish::Install(version) if self.version == version => Outcome::Reboot,
            Wish::Install(version) if self.is_held_back(version) => Outcome::Done,
            Wish::Install(version) => {
                self.stage(version);
                Outcome::Reboot
            }
            Wish::Stage(version) => match self.stage(version) || self.version == version {
                true => Outcome::Done,
                false => Outcome::Reboot,
            },
            Wish::Cancel(version) => self.cancel(version),
            Wish::RollBack(version) if self.version == version => match self.is_preferred() {
                true => Outcome::Done,
                // It runs only because the other one could not be read this time.
                false => Outcome::Reboot,
            },
            Wish::RollBack(version) => {
                self.roll_back(version);
                Outcome::Reboot
            }
            Wish::RefuseAll => self.refuse_all(),
            Wish::FailAtTheEnd(version) => match self.install(&self.garbled(version)) {
                Ok(_) => Outcome::Broken("I8: a garbled bundle was installed".to_owned()),
                Err(_) => Outcome::Done,
            },
        }
    }

    fn promise(&self, promise: Promise) {
        self.disk.mark(Mark::Promise(promise));
    }

    fn runs(&self, versions: &[&str]) {
        self.promise(Promise::Runs(Versions::of(versions)));
    }

    fn commit(&mut self) {
        let committed = self.change(|record| slot_change::commit(record, self.place.running));
        self.proven = match committed {
            Ok(_) => true,
            Err(ChangeError::Refused(refused)) => refused.is_nothing_to_do(),
            Err(_) => false,
        };
        if self.proven {
            self.promise(Promise::Keeps(Versions::of(&[self.version])));
        }
    }

    /// Whether the version waits for the next start.
    fn stage(&self, version: &'static str) -> bool {
        self.runs(&[self.version, version]);
        let staged = match self.install(&self.world.system(version).bundle) {
            Ok(_) => true,
            Err(error) => {
                self.say(format_args!("install {version}: {error}"));
                error.is_nothing_to_do()
            }
        };
        if staged {
            self.runs(&[version]);
        }
        staged
    }

    fn install(&self, bundle: &[u8]) -> Result<Installed, Error<Failure>> {
        let rules =
            Rules { board: BOARD, profile: Profile::Development, trust: self.world.trust() };
        let length = u64::try_from(bundle.len()).ok();
        let source = Source { bytes: Cursor::new(bundle), length };
        install(&mut self.disk.clone(), &self.place, &rules, source, &mut |_| ())
    }

    fn is_preferred(&self) -> bool {
        let Some(record) = read_record(self.disk) else { return false };
        let (own, other) = (record.slots[self.place.running], record.slots[self.place.target()]);
        let good = matches!(other.state, State::Proven | State::Unproven { tries: 1.. });
        !good || own.priority > other.priority
    }

    fn is_held_back(&self, version: &str) -> bool {
        let version = Version::new(version).unwrap();
        let held = |record| slot_change::held_back(&record, self.place.running, &version);
        read_record(self.disk).is_some_and(held)
    }

    fn cancel(&self, version: &'static str) -> Outcome {
        self.runs(&[self.version, version]);
        match self.change(|record| slot_change::cancel(record, self.place.running)) {
            Ok(_) => {
                self.runs(&[self.version]);
                Outcome::Done
            }
            Err(ChangeError::Refused(refused)) if refused.is_nothing_to_do() => Outcome::Done,
            Err(_) => Outcome::Reboot,
        }
    }

    fn roll_back(&self, version: &'static str) {
        self.runs(&[self.version, version]);
        let running = self.place.running;
        let rolled = self.change(|r| slot_change::roll_back(r, running, Reason::REJECTED));
        match rolled {
            Ok(_) => self.promise(Promise::Keeps(Versions::of(&[version]))),
            Err(error) => self.say(format_args!("roll back: {error:?}")),
        }
    }

    fn change(
        &self,
        rule: impl FnOnce(&Record) -> Result<Record, Refused>,
    ) -> Result<Record, ChangeError<Failure, Refused>> {
        boot_record::change(&mut self.disk.clone(), RECORD, rule)
    }

    /// I8: input that is refused leaves the disk as it was.
    fn refuse_all(&self) -> Outcome {
        for (name, bundle) in &self.world.wrong_bundles {
            let before = self.disk.image().print();
            if self.install(bundle).is_ok() {
                return Outcome::Broken(format!("I8: a bundle was installed: {name}"));
            }
            if self.disk.image().print() != before {
                return Outcome::Broken(format!("I8: a refused bundle changed the disk: {name}"));
            }
        }
        Outcome::Done
    }

    fn garbled(&self, version: &str) -> Vec<u8> {
        let mut bundle = self.world.system(version).bundle.clone();
        *bundle.last_mut().unwrap() ^= 1;
        bundle
    }

    fn say(&self, line: std::fmt::Arguments<'_>) {
        if self.world.talk {
            eprintln!("    agent: {line}");
        }
    }
}
