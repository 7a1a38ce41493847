//! What must hold after a cut: the device is switched on until it is steady again.
//!
//! The invariants (I1 to I8, `docs/simulator.md`) and where they are held:
//! I1 something verified starts, I4 few boots, I6 the plan is fulfilled in the end: here.
//! I2 all of one version, I5 only allowed writes: [`super::world`]. I3 the floor, I7 the same
//! bytes, I8 refused input changes nothing: [`super::session`]. And [`Promise`]s: what had been
//! reached before the cut is still so.
use ondisk::boot_record::{Copies, State, TRIES, Version};

use ondisk::layout::{Extent, Slot, manifest_area};
use ondisk::manifest::{Manifest, PartName};

use super::fixture::{RECORD, SLOT_BYTES, SLOTS, VERSIONS, sectors};
use super::world::{Mark, Next, Promise, Step, World};
use crate::simdisk::{Image, Op, SECTOR, SimDisk};

/// What must hold of a disk after a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Expected {
    /// How many wishes of the plan were done.
    pub done: usize,
    /// What must not be taken back.
    pub promise: Promise,
    /// How often the power was cut.
    pub cuts: u8,
    /// Whether a flush lied, or more than one page was lost.
    pub beyond_promises: bool,
}

impl Expected {
    /// Nothing has happened yet.
    pub const START: Self =
        Self { done: 0, promise: Promise::Nothing, cuts: 0, beyond_promises: false };

    /// The same with what happens at an operation.
    #[must_use]
    pub fn after(self, op: &Op<Mark>) -> Self {
        match *op {
            Op::Mark(Mark::Promise(promise)) => Self { promise, ..self },
            Op::Mark(Mark::Done(done)) => Self { done, ..self },
            Op::Mark(Mark::PowerOn | Mark::Started(_)) | Op::Write { .. } | Op::Flush => self,
        }
    }
}

impl World<'_> {
    /// Switches the device on until it is steady; gives the number of boots, or the broken rule.
    pub fn recover(&mut self, image: &Image, expected: Expected) -> Result<usize, String> {
        if !expected.beyond_promises {
            self.check_tries(image, expected.promise)?;
            self.check_record(image)?;
        }
        let mut image = image.clone();
        let mut done = expected.done;
        for boots in 1..=self.scenario.boots {
            let (step, after, _) = self.step(&image, done);
            if let Some(broken) = step.broken {
                return Err(broken);
            }
            if boots == 1 && !expected.beyond_promises {
                check_version(&step, expected)?;
            }
            match step.next {
                Next::Dead => return Err("I1: nothing starts".to_owned()),
                Next::Steady => {
                    return self.check_end(&step, &after, expected.cuts).map(|()| boots);
                }
                Next::Reboot => (image, done) = (after, step.done),
            }
        }
        Err(format!("I4: not steady after {} boots", self.scenario.boots))
    }

    /// The whole run from a disk to the end, as operations. What is broken ends it early.
    pub fn whole_run(&mut self, image: &Image, done: usize) -> Vec<Op<Mark>> {
        let (mut image, mut done) = (image.clone(), done);
        let mut ops = Vec::new();
        for _ in 0..self.scenario.boots {
            let (step, after, log) = self.step(&image, done);
            ops.extend_from_slice(&log);
            if step.next != Next::Reboot || step.broken.is_some() {
                break;
            }
            (image, done) = (after, step.done);
        }
        ops
    }

    fn check_tries(&self, image: &Image, promise: Promise) -> Result<(), String> {
        let Promise::Tries { slot, left } = promise else { return Ok(()) };
        let disk: SimDisk<Mark> = SimDisk::new(&self.store, image.clone());
        let copies = Copies::read(&disk, RECORD);
        match copies.newest().map(|record| record.slots[slot].state) {
            Some(State::Unproven { tries }) if tries > left => Err(format!(
                "promise: slot {slot} was started with {left} tries left and now has {tries}"
            )),
            _ => Ok(()),
        }
    }

    /// I6: what the user wished for is so.
    fn check_end(&self, step: &Step, after: &Image, cuts: u8) -> Result<(), String> {
        let scenario = self.scenario;
        let version = step.version.unwrap_or("none");
        let may_fall_back = version == scenario.falls_back.0 && cuts >= scenario.falls_back.1;
        if version != scenario.ends && !may_fall_back {
            return Err(format!("I6: ends with version {version}, not {}", scenario.ends));
        }
        if step.done != scenario.plan.len() {
            return Err(format!("I6: only {} of the plan is done", step.done));
        }
        // With no good slot to fall back to, too many cuts of a trial end in safe mode.
        let restricted = scenario.ends_safe || step.safe && cuts >= scenario.falls_back.1;
        if step.safe != restricted || step.proven == restricted {
            let (safe, proven) = (step.safe, step.proven);
            return Err(format!("I6: ends with {version} safe: {safe}, proven: {proven}"));
        }
        self.check_bytes(after, version)
    }
}

impl World<'_> {
    /// I7: what runs is, byte for byte, what was built, however it got there.
    fn check_bytes(&self, after: &Image, version: &str) -> Result<(), String> {
        if Slot::BOTH.into_iter().any(|slot| self.holds(after, slot, version)) {
            Ok(())
        } else {
            Err(format!("I7: no slot holds exactly version {version}"))
        }
    }

    /// What the record calls good is whole: a slot is empty there before its first byte changes,
    /// and on trial only after its last one has.
    fn check_record(&self, image: &Image) -> Result<(), String> {
        if self.scenario.damaged {
            return Ok(());
        }
        let disk: SimDisk<Mark> = SimDisk::new(&self.store, image.clone());
        let copies = Copies::read(&disk, RECORD);
        let Some(record) = copies.newest() else { return Ok(()) };
        for slot in Slot::BOTH {
            let entry = &record.slots[slot];
            let good = matches!(entry.state, State::Proven | State::Unproven { tries: 1.. });
            let version = entry.version.as_ref().map_or("", Version::as_str);
            if good && !(VERSIONS.contains(&version) && self.holds(image, slot, version)) {
                let state = entry.state;
                return Err(format!("I1: slot {slot} is {state:?} and not all of {version:?}"));
            }
        }
        Ok(())
    }

    fn holds(&self, image: &Image, slot: Slot, version: &str) -> bool {
        let system = self.system(version);
        let start = sectors(SLOTS[slot]).start;
        // The manifest first: it tells versions apart.
        self.listed_sectors(&system.manifest).all(|at| {
            let wanted = &system.slot[at * SECTOR..][..SECTOR];
            self.store.contents(image.get(start + at)) == *wanted
        })
    }

    /// The sectors of a slot that its manifest lists, and its own.
    fn listed_sectors(&self, manifest: &Manifest) -> impl Iterator<Item = usize> + use<> {
        let area = manifest_area(SLOT_BYTES).unwrap();
        let parts = PartName::ALL.map(|name| manifest.part(name).extent);
        let extents = [area].into_iter().chain(parts);
        extents.flat_map(|extent| {
            let end = extent.offset + extent.length.next_multiple_of(512);
            sectors(Extent { offset: extent.offset, length: end - extent.offset })
        })
    }
}

fn check_version(step: &Step, expected: Expected) -> Result<(), String> {
    let version = step.version.unwrap_or("none");
    // What waits for a trial may have had all of them cut short.
    let tried = expected.cuts >= TRIES;
    match expected.promise {
        Promise::Runs(versions) if !versions.contains(version) && !tried => {
            Err(format!("promise: {versions} was to run, and {version} does"))
        }
        Promise::Keeps(versions) if !versions.contains(version) || step.attempt != 0 => {
            let attempt = step.attempt;
            Err(format!("promise: {versions} was proven, and {version} runs, attempt {attempt}"))
        }
        Promise::Nothing | Promise::Tries { .. } | Promise::Runs(_) | Promise::Keeps(_) => Ok(()),
    }
}
