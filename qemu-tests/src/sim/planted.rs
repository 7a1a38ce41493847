//! Twenty bugs, planted between the real code and the simulated disk, and each to be found.
//!
//! Loader and agent can do harm only by what they read, write, flush and start, in which order. So
//! a bug is a change of that sequence, and no switch for it exists in what ships
//! (`docs/decisions/planted-bugs.md`).
use ondisk::boot_record::{Entry, RECORD_BYTES, Record, Sequence, State};
use ondisk::layout::{MANIFEST_AREA_BYTES, PerSlot, RECORD_OFFSETS, Slot};

use super::fixture::{RECORD, SLOTS, crc32, sectors};
use super::world::Mark;
use crate::simdisk::{Mutation, Op, SECTOR, View};

/// A bug, by what a programmer would have done wrong.
pub struct Planted {
    /// What.
    pub name: &'static str,
    /// Scenarios that go through the code that has it.
    pub scenarios: &'static [&'static str],
    /// Makes the mutation.
    pub plant: fn() -> Box<dyn Mutation<Mark>>,
}

/// All of them.
pub const BUGS: [Planted; 20] = [
    bug("agent: no flush between slot and record", UPDATE, || every_op(Bug::NoFlushOfSlot)),
    bug("agent: no flush after making the slot empty", OVERWRITE, || every_op(Bug::NoFlushOfEmpty)),
    bug("agent: no flush of the record it stages", UPDATE, || every_op(Bug::NoFlushOfRecord)),
    bug("agent: no flush at all", UPDATE, || every_op(Bug::NoFlushInAgent)),
    bug("agent: record before slot", UPDATE, || every_op(Bug::RecordBeforeSlot)),
    bug("agent: record between image and manifest", UPDATE, || every_op(Bug::RecordBeforeManifest)),
    bug("agent: slot not made empty first", OVERWRITE, || every_op(Bug::NotEmptied)),
    bug("agent: slot emptied in one copy of the record only", OVERWRITE, || every_op(Bug::OneCopy)),
    bug("agent: floor raised above the other slot", BACK, || every_op(Bug::FloorTooHigh)),
    bug("agent: image not read back", UPDATE, || every_op(Bug::ImageNotRead)),
    bug("agent: writes its own slot", UPDATE, || every_op(Bug::OwnSlot)),
    bug("agent: last block of the image left out", UPDATE, || every_op(Bug::LastBlock)),
    bug("agent: new slot is proven at once", UNHEALTHY, || every_op(Bug::ProvenAtOnce)),
    bug("agent: commits the wrong slot", TRIAL, || every_op(Bug::CommitsOther)),
    bug("agent: commit not flushed", TRIAL, || every_op(Bug::CommitNotFlushed)),
    bug("record: newer copy overwritten", UNHEALTHY_TRIAL, || every_op(Bug::NewerCopy)),
    bug("record: sequence not counted up", TRIAL, || every_op(Bug::NoSequence)),
    bug("record: wrong checksum accepted", ROT, || every_op(Bug::AnyCrc)),
    bug("loader: started before it is counted", UNHEALTHY_TRIAL, || every_op(Bug::StartThenCount)),
    bug("loader: count not flushed", UNHEALTHY_TRIAL, || every_op(Bug::CountNotFlushed)),
];

const UPDATE: &[&str] = &["update-a-b"];
const OVERWRITE: &[&str] = &["update-b-a", "update-a-b-a"];
const BACK: &[&str] = &["update-and-back"];
const UNHEALTHY: &[&str] = &["update-unhealthy"];
const TRIAL: &[&str] = &["trial-healthy", "update-a-b"];
const UNHEALTHY_TRIAL: &[&str] = &["trial-unhealthy"];
const ROT: &[&str] = &["record-rot"];

const fn bug(
    name: &'static str,
    scenarios: &'static [&'static str],
    plant: fn() -> Box<dyn Mutation<Mark>>,
) -> Planted {
    Planted { name, scenarios, plant }
}

fn every_op(bug: Bug) -> Box<dyn Mutation<Mark>> {
    Box::new(Planting { bug, running: None, held: Vec::new(), last: Target::Nothing, emptied: 0 })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Bug {
    NoFlushOfSlot,
    NoFlushOfEmpty,
    NoFlushOfRecord,
    NoFlushInAgent,
    RecordBeforeSlot,
    RecordBeforeManifest,
    NotEmptied,
    OneCopy,
    FloorTooHigh,
    ImageNotRead,
    OwnSlot,
    LastBlock,
    ProvenAtOnce,
    CommitsOther,
    CommitNotFlushed,
    NewerCopy,
    NoSequence,
    AnyCrc,
    StartThenCount,
    CountNotFlushed,
}

/// What a write goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Nothing,
    /// The record, after which the other slot is in this state.
    Record(Change),
    Image(Slot),
    Manifest(Slot),
}

/// What a new record changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Empties,
    Stages,
    Commits,
    Counts,
    Else,
}

/// The state of a planted bug in one life of a device.
struct Planting {
    bug: Bug,
    running: Option<Slot>,
    /// Operations that are done later than they should be.
    held: Vec<Op<Mark>>,
    last: Target,
    emptied: usize,
}

impl Mutation<Mark> for Planting {
    fn change(&mut self, disk: &View<'_>, op: Op<Mark>) -> Vec<Op<Mark>> {
        match op {
            Op::Mark(mark) => self.mark(mark),
            Op::Flush => self.flush(),
            Op::Write { sector, ids } => {
                self.last = target(disk, sector, &ids);
                match self.last {
                    Target::Record(change) => self.record(disk, change, sector, ids),
                    _ => self.slot(disk, sector, ids),
                }
            }
        }
    }

    fn read(&mut self, offset: u64, bytes: &mut [u8]) {
        let is_record = RECORD_OFFSETS.iter().any(|copy| RECORD.offset + copy == offset);
        if self.bug == Bug::AnyCrc && is_record && bytes.starts_with(b"IOTAREC1") {
            let end = RECORD_BYTES - 4;
            let crc = crc32(&bytes[..end]);
            bytes[end..].copy_from_slice(&crc.to_le_bytes());
        }
    }
}

impl Planting {
    fn mark(&mut self, mark: Mark) -> Vec<Op<Mark>> {
        if let Mark::Started(slot) = mark {
            self.running = Some(slot);
        }
        let mut ops = vec![Op::Mark(mark)];
        // What was held back in the loader comes after the promise about it.
        if self.bug == Bug::StartThenCount && matches!(mark, Mark::Promise(_)) {
            ops.append(&mut self.held);
        }
        ops
    }

    fn flush(&mut self) -> Vec<Op<Mark>> {
        let in_agent = self.running.is_some();
        let last = self.last;
        let skipped = match self.bug {
            Bug::NoFlushInAgent => in_agent,
            Bug::NoFlushOfSlot => matches!(last, Target::Image(_) | Target::Manifest(_)),
            Bug::NoFlushOfEmpty => last == Target::Record(Change::Empties),
            Bug::NoFlushOfRecord => last == Target::Record(Change::Stages),
            Bug::CommitNotFlushed => last == Target::Record(Change::Commits),
            Bug::CountNotFlushed => last == Target::Record(Change::Counts),
            Bug::StartThenCount => !self.held.is_empty(),
            _ => false,
        };
        if skipped { Vec::new() } else { vec![Op::Flush] }
    }

    fn record(
        &mut self,
        disk: &View<'_>,
        change: Change,
        sector: usize,
        ids: Vec<u32>,
    ) -> Vec<Op<Mark>> {
        let write = Op::Write { sector, ids: ids.clone() };
        let changed = |edit: &dyn Fn(&mut Record)| {
            let Ok(mut record) = Record::decode(&disk.contents(ids[0])) else { return Vec::new() };
            edit(&mut record);
            vec![Op::Write { sector, ids: vec![disk.id(&record.encode())] }]
        };
        match (self.bug, change) {
            (Bug::NotEmptied, Change::Empties) => Vec::new(),
            (Bug::OneCopy, Change::Empties) => {
                self.emptied += 1;
                if self.emptied > 1 { Vec::new() } else { vec![write] }
            }
            (Bug::ProvenAtOnce, Change::Stages) => changed(&|record| {
                for slot in Slot::BOTH {
                    if let State::Unproven { .. } = record.slots[slot].state {
                        record.slots[slot].state = State::Proven;
                    }
                }
            }),
            (Bug::CommitsOther, Change::Commits) => {
                let running = self.running.unwrap_or(Slot::A);
                changed(&|record| {
                    record.slots[running].state = State::Unproven { tries: 2 };
                    record.slots[running.other()].state = State::Proven;
                })
            }
            (Bug::NewerCopy, _) => vec![Op::Write { sector: other_copy(sector), ids }],
            (Bug::NoSequence, _) => {
                changed(&|record| record.sequence = Sequence(record.sequence.0 - 1))
            }
            (Bug::StartThenCount, Change::Counts) => {
                self.held.push(write);
                self.held.push(Op::Flush);
                Vec::new()
            }
            (Bug::RecordBeforeManifest | Bug::RecordBeforeSlot, Change::Stages) => {
                let held = std::mem::take(&mut self.held);
                [write, Op::Flush].into_iter().chain(held).collect()
            }
            (Bug::FloorTooHigh, Change::Commits) => {
                let running = self.running.unwrap_or(Slot::A);
                changed(&|record| record.rollback_floor = record.slots[running].rollback_index)
            }
            _ => vec![write],
        }
    }

    fn slot(&mut self, disk: &View<'_>, sector: usize, mut ids: Vec<u32>) -> Vec<Op<Mark>> {
        let empty = disk.contents(ids[0]).iter().all(|byte| *byte == 0);
        match (self.bug, self.last) {
            (Bug::RecordBeforeSlot, Target::Image(_) | Target::Manifest(_)) if !empty => {
                self.held.push(Op::Write { sector, ids });
                return Vec::new();
            }
            (Bug::RecordBeforeManifest, Target::Manifest(_)) if !empty => {
                self.held.push(Op::Write { sector, ids });
                return Vec::new();
            }
            (Bug::OwnSlot, Target::Image(slot)) => {
                let shift = sectors(SLOTS[slot.other()]).start;
                return vec![Op::Write {
                    sector: sector - sectors(SLOTS[slot]).start + shift,
                    ids,
                }];
            }
            (Bug::LastBlock, Target::Image(_)) => ids.truncate(ids.len() - 8),
            (Bug::ImageNotRead, Target::Image(_)) => {
                // A card that does not keep one sector: reading it back would have told.
                let at = ids.len() / 2;
                ids[at] = disk.id(&[0xbd; SECTOR]);
            }
            _ => {}
        }
        vec![Op::Write { sector, ids }]
    }
}

fn target(disk: &View<'_>, sector: usize, ids: &[u32]) -> Target {
    for slot in Slot::BOTH {
        let own = sectors(SLOTS[slot]);
        let area = usize::try_from(MANIFEST_AREA_BYTES).unwrap() / SECTOR;
        if (own.end - area..own.end).contains(&sector) {
            return Target::Manifest(slot);
        }
        if own.contains(&sector) {
            return Target::Image(slot);
        }
    }
    let before = [copy_sector(0), copy_sector(1)]
        .into_iter()
        .filter_map(|copy| Record::decode(&disk.sector(copy)).ok())
        .max_by_key(|record| record.sequence);
    let after = Record::decode(&disk.contents(ids[0])).ok();
    match (before, after) {
        (Some(before), Some(after)) => Target::Record(change(&before.slots, &after.slots)),
        _ => Target::Record(Change::Else),
    }
}

fn change(before: &PerSlot<Entry>, after: &PerSlot<Entry>) -> Change {
    let changed = Slot::BOTH.into_iter().find(|slot| before[*slot].state != after[*slot].state);
    let Some(slot) = changed else {
        // Emptying writes the same record into the second copy.
        let empty = |slot: Slot| after[slot].state == State::Empty;
        return if Slot::BOTH.into_iter().any(empty) { Change::Empties } else { Change::Else };
    };
    match (before[slot].state, after[slot].state) {
        (_, State::Empty) => Change::Empties,
        (State::Empty, State::Unproven { .. }) => Change::Stages,
        (State::Unproven { .. }, State::Unproven { .. }) => Change::Counts,
        (_, State::Proven) => Change::Commits,
        _ => Change::Else,
    }
}

fn copy_sector(copy: usize) -> usize {
    sectors(RECORD).start + usize::try_from(RECORD_OFFSETS[copy]).unwrap() / SECTOR
}

fn other_copy(sector: usize) -> usize {
    if sector == copy_sector(0) { copy_sector(1) } else { copy_sector(0) }
}
