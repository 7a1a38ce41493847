//! What a running system may change in the record: rules only, no I/O. `changes.txt` beside this
//! file is the truth table a test holds them against.
//!
//! ```text
//!              begin              stage               (loader counts down)
//!   anything ─────────► empty ──────────► unproven 3 ──► … ──► unproven 0
//!                         ▲                   │  │
//!                         └───── cancel ──────┘  ├── commit ──────► proven
//!                                                └── roll back ───► bad
//! ```
//! - Only the slot that is NOT running is written, so `begin`, `stage` and `cancel` change the
//!   other slot and `commit` and `roll_back` judge the running one.
//! - A slot is empty in the record before its first byte is written, and stays so until all of it
//!   has been read back.
//! - A system on trial may not overwrite the one to fall back to: first commit or roll back.
//! - The rollback floor rises at a commit only, and not above the index of what the other slot
//!   holds: that system can still be started, so it can still be installed again.
//! - The version that failed is remembered in its slot's entry, also while the slot is being
//!   written ([`held_back`]), until another system is staged there.
//!
//! [`crate::boot_record::change`] carries a change to the disk.
//!
//! The functions never write the entry of one slot because of the other one, but for priorities:
//! those are always 2 for the slot that is preferred and 1 for the other one.
use core::fmt;

use crate::boot_record::{Entry, Reason, Record, State, TRIES, Version};
use crate::layout::Slot;

const PREFERRED: u8 = 2;
const SECOND: u8 = 1;

/// The record before the first byte of the other slot is written: that slot is empty.
///
/// If it is already, the record comes back unchanged and need not be written.
pub fn begin(record: &Record, running: Slot) -> Result<Record, Refused> {
    let target = running.other();
    let entry = &record.slots[target];
    if entry.state == State::Empty {
        return Ok(*record);
    }
    if is_good(entry) && record.slots[running].state != State::Proven {
        return Err(Refused::OnTrial(running));
    }
    let version = if has_failed(entry) { entry.version } else { None };
    let mut next = changed(record);
    next.slots[target] = Entry { version, ..Entry::default() };
    Ok(next)
}

/// The record after all of the other slot was written and read back: it is started next, on trial.
pub fn stage(
    record: &Record,
    running: Slot,
    version: Version,
    rollback_index: u64,
) -> Result<Record, Refused> {
    let target = running.other();
    check_index(record, rollback_index)?;
    if record.slots[target].state != State::Empty {
        return Err(Refused::NotBegun(target));
    }
    let mut next = changed(record);
    let state = State::Unproven { tries: TRIES };
    let version = Some(version);
    next.slots[target] = Entry { state, priority: PREFERRED, rollback_index, version };
    next.slots[running].priority = SECOND;
    Ok(next)
}

/// The record after the running slot was found healthy: it is proven, and the floor may rise.
pub fn commit(record: &Record, running: Slot) -> Result<Record, Refused> {
    let other = &record.slots[running.other()];
    let index = record.slots[running].rollback_index;
    match record.slots[running].state {
        State::Unproven { .. } => {}
        State::Proven => return Err(Refused::AlreadyProven(running)),
        State::Bad(reason) => return Err(Refused::Bad { slot: running, reason }),
        State::Empty => return Err(Refused::RunningIsEmpty(running)),
    }
    let reachable = match other.state {
        State::Empty => index,
        _ => index.min(other.rollback_index),
    };
    let mut next = changed(record);
    next.rollback_floor = record.rollback_floor.max(reachable);
    next.slots[running].state = State::Proven;
    prefer(&mut next, running);
    Ok(next)
}

/// The record that starts the other slot next. A running slot on trial is bad from now on, for
/// `reason`; a proven one keeps its standing as what to fall back to.
pub fn roll_back(record: &Record, running: Slot, reason: Reason) -> Result<Record, Refused> {
    let target = running.other();
    let state = record.slots[target].state;
    if state != State::Proven {
        return Err(Refused::NotProven { slot: target, state });
    }
    let mut next = changed(record);
    if let State::Unproven { .. } = record.slots[running].state {
        next.slots[running].state = State::Bad(reason);
    }
    prefer(&mut next, target);
    // Twice in a row is one wish, not two: what is decided already needs no write.
    if next.slots == record.slots {
        return Err(Refused::AlreadyPreferred(target));
    }
    Ok(next)
}

/// The record without the update that waits in the other slot.
pub fn cancel(record: &Record, running: Slot) -> Result<Record, Refused> {
    let target = running.other();
    match record.slots[target].state {
        State::Unproven { tries: 1.. } => {}
        State::Unproven { tries: 0 } | State::Empty | State::Proven | State::Bad(_) => {
            return Err(Refused::NothingStaged(target));
        }
    }
    begin(record, running)
}

/// Whether a system with this index may be installed.
pub fn check_index(record: &Record, index: u64) -> Result<(), Refused> {
    let floor = record.rollback_floor;
    if index < floor { Err(Refused::Downgrade { index, floor }) } else { Ok(()) }
}

/// Whether this version has been in the other slot and is not what should run: it failed there,
/// or somebody went back from it. It is installed when somebody asks for it, never by itself.
///
/// A slot that was damaged does not count: a card that lost a page says nothing about the version.
pub fn held_back(record: &Record, running: Slot, version: &Version) -> bool {
    let entry = &record.slots[running.other()];
    if is_damaged(entry) {
        return false;
    }
    let waits = matches!(entry.state, State::Unproven { tries: 1.. });
    entry.version.as_ref() == Some(version) && !waits
}

fn changed(record: &Record) -> Record {
    Record { sequence: record.sequence.next(), ..*record }
}

fn prefer(record: &mut Record, slot: Slot) {
    record.slots[slot].priority = PREFERRED;
    record.slots[slot.other()].priority = SECOND;
}

/// Whether the loader would start it, and not in safe mode only.
fn is_good(entry: &Entry) -> bool {
    matches!(entry.state, State::Proven | State::Unproven { tries: 1.. })
}

fn has_failed(entry: &Entry) -> bool {
    matches!(entry.state, State::Bad(_) | State::Unproven { tries: 0 }) && !is_damaged(entry)
}

fn is_damaged(entry: &Entry) -> bool {
    matches!(entry.state, State::Bad(reason) if reason.is_damage())
}

/// Why the record does not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The running slot is proven: nothing to commit.
    AlreadyProven(Slot),
    /// This slot is started next anyway: nothing to roll back.
    AlreadyPreferred(Slot),
    /// No update waits in this slot: nothing to cancel.
    NothingStaged(Slot),
    /// The running slot is on trial, and the other one is what to fall back to.
    OnTrial(Slot),
    /// The slot has not been made empty before it was written.
    NotBegun(Slot),
    /// The slot to go back to has never been found healthy.
    NotProven {
        /// Which slot.
        slot: Slot,
        /// What the record says about it.
        state: State,
    },
    /// The running slot was found bad and runs in safe mode.
    Bad {
        /// Which slot.
        slot: Slot,
        /// For what.
        reason: Reason,
    },
    /// The record does not know that the running slot holds a system.
    RunningIsEmpty(Slot),
    /// The system is older than what may be installed.
    Downgrade {
        /// Its rollback index.
        index: u64,
        /// The lowest index that may be installed.
        floor: u64,
    },
}

impl Refused {
    /// Whether what was asked for is already so: an answer, not an error.
    pub const fn is_nothing_to_do(&self) -> bool {
        match self {
            Self::AlreadyProven(_) | Self::AlreadyPreferred(_) | Self::NothingStaged(_) => true,
            Self::OnTrial(_)
            | Self::NotBegun(_)
            | Self::NotProven { .. }
            | Self::Bad { .. }
            | Self::RunningIsEmpty(_)
            | Self::Downgrade { .. } => false,
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyProven(slot) => write!(f, "slot {slot} is committed already"),
            Self::AlreadyPreferred(slot) => write!(f, "slot {slot} is started next already"),
            Self::NothingStaged(slot) => write!(f, "no update waits in slot {slot}"),
            Self::OnTrial(slot) => write!(f, "slot {slot} is running on trial"),
            Self::NotBegun(slot) => write!(f, "slot {slot} was not emptied before it was written"),
            Self::NotProven { slot, state } => {
                write!(f, "slot {slot} is {state}, never found healthy")
            }
            Self::Bad { slot, reason } => write!(f, "slot {slot} is bad ({reason})"),
            Self::RunningIsEmpty(slot) => {
                write!(f, "slot {slot} runs, but the record calls it empty")
            }
            Self::Downgrade { index, floor } => {
                write!(f, "rollback index {index} is lower than {floor}, the lowest allowed here")
            }
        }
    }
}

impl core::error::Error for Refused {}

#[cfg(test)]
mod tests;
