//! A device around a simulated disk: it is switched on, the real loader starts a system, the
//! system does what its plan says by the real code of the agent, and is switched on again.
//!
//! One [`Step`] is what happens between two of these. It is a function of the disk's contents and
//! of how far the plan has got, so each is worked out once and remembered.
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::rc::Rc;

use loader::boot::{Machine, System as Started, boot};
use ondisk::boot_args::BootArgs;
use ondisk::boot_record::{Copies, Record, State};
use ondisk::layout::{PerSlot, RECORD_OFFSETS, Slot};
use ondisk::trust_root::TrustRoot;

use super::fixture::{self, RECORD, SLOTS, System, VERSIONS};
use crate::simdisk::{Image, Mutation, Op, SECTOR, SimDisk, Store};

/// What whoever uses the disk had reached, for what must hold after a cut there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The device is switched on.
    PowerOn,
    /// The loader has handed over to a system.
    Started(Slot),
    /// From here on a cut must leave this.
    Promise(Promise),
    /// So many wishes of the plan are done.
    Done(usize),
}

/// What a user has been told, or may rely on, and a cut must not take back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Promise {
    /// Nothing yet.
    Nothing,
    /// The slot does not have more tries than this.
    Tries {
        /// Which slot.
        slot: Slot,
        /// How many at most.
        left: u8,
    },
    /// One of these is started next, on trial or not.
    Runs(Versions),
    /// One of these is started next, as proven.
    Keeps(Versions),
}

/// A set of [`VERSIONS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Versions(u8);

impl Versions {
    /// One or two of them.
    pub fn of(versions: &[&str]) -> Self {
        let bit = |version: &&str| 1 << VERSIONS.iter().position(|v| v == version).unwrap();
        Self(versions.iter().map(bit).fold(0, |set: u8, bit: u8| set | bit))
    }

    /// Whether this is one.
    pub fn contains(self, version: &str) -> bool {
        self.0 & Self::of(&[version]).0 != 0
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = VERSIONS.iter().filter(|v| self.contains(v)).copied().collect();
        f.write_str(&names.join(" or "))
    }
}

/// What has to happen to the device, from one disk.
pub struct Scenario {
    /// Its name in tables and on the command line.
    pub name: &'static str,
    /// What the disk holds at first.
    pub disk: fixture::Disk,
    /// Versions that start but are never found healthy.
    pub unhealthy: &'static [&'static str],
    /// What the user wants, one wish after the other.
    pub plan: Vec<super::session::Wish>,
    /// The version that has to run in the end, proven.
    pub ends: &'static str,
    /// The version that may run instead when the power was cut at least so often: that a healthy
    /// system had no undisturbed trial, or that a wish came too late.
    pub falls_back: (&'static str, u8),
    /// Whether it ends in safe mode, unproven.
    pub ends_safe: bool,
    /// Whether a slot that the record calls good is not, from the start.
    pub damaged: bool,
    /// How many boots it may take from any state to the end.
    pub boots: usize,
}

/// What a step led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The system wants to be started again, or failed.
    Reboot,
    /// Nothing is left to do.
    Steady,
    /// Nothing could be started.
    Dead,
}

/// One life of the device, from power-on to the next.
#[derive(Clone)]
pub struct Step {
    /// How it ended.
    pub next: Next,
    /// How many wishes are done.
    pub done: usize,
    /// What ran.
    pub version: Option<&'static str>,
    /// Which attempt the loader said it was: 0 for a proven system.
    pub attempt: u8,
    /// Whether it was proven in the end.
    pub proven: bool,
    /// Whether it was started in safe mode.
    pub safe: bool,
    /// The rule that was broken, if any.
    pub broken: Option<String>,
}

/// A device and everything that has been worked out about it.
pub struct World<'a> {
    /// Contents of sectors.
    pub store: Rc<Store>,
    /// What happens.
    pub scenario: &'a Scenario,
    /// Plants a bug.
    pub bug: Option<&'a dyn Fn() -> Box<dyn Mutation<Mark>>>,
    /// Whether what the loader and the agent say is printed.
    pub talk: bool,
    /// Bundles to refuse.
    pub(super) wrong_bundles: Vec<(&'static str, Vec<u8>)>,
    trust: TrustRoot,
    systems: Vec<(System, Vec<u8>, Vec<u8>)>,
    steps: HashMap<(u64, usize), Remembered>,
    images: HashMap<u64, Image>,
    allowed: PerSlot<HashSet<usize>>,
}

/// A step, the disk after it, and what was done to the disk.
struct Remembered {
    step: Step,
    after: u64,
    log: Rc<[Op<Mark>]>,
}

/// So many remembered images and steps take about 100 MB each.
const MOST_IMAGES: usize = 20_000;
const MOST_STEPS: usize = 100_000;

impl<'a> World<'a> {
    /// A device in this scenario.
    pub fn new(store: &Rc<Store>, scenario: &'a Scenario) -> Self {
        let systems = VERSIONS.map(|version| {
            let kernel = fixture::contents(version, "kernel", 3000);
            let initrd = fixture::contents(version, "initrd", 2000);
            (System::new(version), kernel, initrd)
        });
        let writable = |slot| {
            let copies = RECORD_OFFSETS.map(|o| sector_of(RECORD.offset + o));
            copies.into_iter().chain(fixture::sectors(SLOTS[slot])).collect()
        };
        Self {
            store: Rc::clone(store),
            scenario,
            bug: None,
            talk: false,
            wrong_bundles: fixture::wrong_bundles(),
            trust: fixture::trust(),
            systems: systems.into(),
            steps: HashMap::new(),
            images: HashMap::new(),
            allowed: PerSlot::from_fn(writable),
        }
    }

    /// What the disk holds at first.
    pub fn first_image(&self) -> Image {
        self.scenario.disk.image(&self.store)
    }

    /// The system of a version.
    pub fn system(&self, version: &str) -> &System {
        &self.systems.iter().find(|(system, _, _)| system.version == version).unwrap().0
    }

    /// What everything here is signed with.
    pub fn trust(&self) -> &TrustRoot {
        &self.trust
    }

    /// A disk with this content, and the planted bug between it and the code under test.
    pub fn disk(&self, image: Image) -> SimDisk<Mark> {
        SimDisk::new(&self.store, image).with_mutation(self.bug.map(|plant| plant()))
    }

    /// One life, remembered. Gives the disk after it, and what was done to it.
    pub fn step(&mut self, image: &Image, done: usize) -> (Step, Image, Rc<[Op<Mark>]>) {
        let key = (image.print(), done);
        if let Some(Remembered { step, after, log }) = self.steps.get(&key) {
            return (step.clone(), self.images[after].clone(), Rc::clone(log));
        }
        let (step, image, log) = self.live(image.clone(), done);
        if self.images.len() >= MOST_IMAGES || self.steps.len() >= MOST_STEPS {
            self.images.clear();
            self.steps.clear();
        }
        let (after, log) = (image.print(), Rc::from(log));
        self.images.entry(after).or_insert_with(|| image.clone());
        let remembered = Remembered { step: step.clone(), after, log: Rc::clone(&log) };
        self.steps.insert(key, remembered);
        (step, image, log)
    }

    /// One life, with everything that was done to the disk.
    pub fn live(&self, image: Image, done: usize) -> (Step, Image, Vec<Op<Mark>>) {
        let disk = self.disk(image);
        let step = self.live_on(&disk, done);
        let log = disk.take_log();
        let after = disk.image().clone();
        let broken = step.broken.clone().or_else(|| self.check_writes(&log));
        (Step { broken, ..step }, after, log)
    }

    /// One life on a disk that may make trouble.
    pub fn live_on(&self, disk: &SimDisk<Mark>, done: usize) -> Step {
        disk.switch_on();
        disk.mark(Mark::PowerOn);
        let machine = SimMachine { talk: self.talk, waited: RefCell::new(0) };
        let dead = Step {
            next: Next::Dead,
            done,
            version: None,
            attempt: 0,
            proven: false,
            safe: false,
            broken: None,
        };
        let Ok(started) = boot(&machine, disk.clone(), 512, &self.trust) else { return dead };
        match self.judge_start(&started, &machine) {
            Err(broken) => Step { broken: Some(broken), ..dead },
            Ok((args, version)) => {
                disk.mark(Mark::Started(args.slot));
                let record = read_record(disk);
                if let Some(State::Unproven { tries }) = record.map(|r| r.slots[args.slot].state) {
                    let promise = Promise::Tries { slot: args.slot, left: tries };
                    disk.mark(Mark::Promise(promise));
                }
                self.session(disk, &args, version, done)
            }
        }
    }

    /// I2: everything that was started is of one version, and it is the one it says it is.
    fn judge_start(
        &self,
        started: &Started,
        machine: &SimMachine,
    ) -> Result<(BootArgs, &'static str), String> {
        let args = BootArgs::parse(&started.command_line).map_err(|error| error.to_string())?;
        let known = self.systems.iter().find(|(system, _, _)| system.version == args.version);
        let (system, kernel, initrd) = known.ok_or("I2: a system of no known version")?;
        let command_line = format!("panic=5 of={} ", args.version);
        if started.kernel != *kernel
            || started.initrd != *initrd
            || !started.command_line.starts_with(&command_line)
        {
            return Err(format!("I2: what was started is not all of version {}", args.version));
        }
        let counted = args.attempt <= ondisk::boot_record::TRIES;
        if !counted && *machine.waited.borrow() < loader::boot::PAUSE_SECONDS {
            return Err("I4: a start that nothing counts did not wait".to_owned());
        }
        Ok((args, system.version))
    }

    /// I5: the loader writes the record only; a system also the slot that it does not run from.
    pub(super) fn check_writes(&self, log: &[Op<Mark>]) -> Option<String> {
        let mut running = None;
        for op in log {
            match op {
                Op::Mark(Mark::Started(slot)) => running = Some(*slot),
                Op::Write { sector, ids } => {
                    if let Some(wrong) = self.wrong_write(running, *sector..sector + ids.len()) {
                        return Some(wrong);
                    }
                }
                Op::Mark(_) | Op::Flush => {}
            }
        }
        None
    }

    fn wrong_write(&self, running: Option<Slot>, sectors: Range<usize>) -> Option<String> {
        let is_record =
            |sector| RECORD_OFFSETS.iter().any(|o| sector_of(RECORD.offset + o) == sector);
        let wrong = |sector: &usize| match running {
            None => !is_record(*sector),
            Some(slot) => !self.allowed[slot.other()].contains(sector),
        };
        let sector = sectors.into_iter().find(wrong)?;
        Some(match running {
            None => format!("I5: the loader wrote sector {sector}"),
            Some(slot) => format!("I5: the system in slot {slot} wrote sector {sector}"),
        })
    }
}

/// The record as any reader finds it.
pub fn read_record(disk: &SimDisk<Mark>) -> Option<Record> {
    Copies::read(disk, RECORD).newest().copied()
}

fn sector_of(offset: u64) -> usize {
    usize::try_from(offset).unwrap() / SECTOR
}

/// A machine that takes every kernel.
struct SimMachine {
    talk: bool,
    waited: RefCell<u64>,
}

impl Machine for SimMachine {
    type Started = Started;

    fn say(&self, line: fmt::Arguments<'_>) {
        if self.talk {
            eprintln!("    loader: {line}");
        }
    }

    fn start(&self, system: Started) -> Result<Started, &'static str> {
        Ok(system)
    }

    fn wait_seconds(&self, seconds: u64) {
        *self.waited.borrow_mut() += seconds;
    }
}
