//! Which slot is started next: rules only, no I/O. `decisions.txt` beside this file is the truth
//! table a test holds them against.
//!
//! - The highest priority among proven slots and slots with tries left is started.
//! - Only an unproven slot is counted down. A proven one never loses tries: counting every start
//!   is how good systems get rolled back.
//! - The count must be on the disk before the start. If it cannot be written, a proven slot is
//!   started instead; if there is none, the unproven one is started uncounted, since refusing
//!   would surely end the system and starting it may not.
//! - A slot below the rollback floor of the record is passed over.
//! - When no slot is left by these rules, there is safe mode: slots without tries, bad ones and
//!   ones below the floor, the newest first. They are verified like any other, start with network
//!   and agent but without an engine, and the loader waits before it, so that a system that fails
//!   at once does not spin. A loader that gives up helps nobody, and a floor that locks out the
//!   only system that is left protects nobody.
//! - Records lost are rebuilt from the manifests.
use crate::boot_record::{Entry, Reason, Record, Sequence, State, TRIES, Version};
use crate::layout::{PerSlot, Slot};
use crate::manifest::Manifest;

/// What the loader knows when it asks what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Situation {
    /// The record that counts.
    pub record: Record,
    /// Slots that were refused since power-on.
    pub refused: PerSlot<bool>,
    /// Slots whose manifest turned out to be below the rollback floor of the record, whatever
    /// the record says about them.
    pub below_floor: PerSlot<bool>,
    /// Whether the record can be written, as far as known.
    pub record_writable: bool,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Start this slot.
    Start(Start),
    /// There is no slot to start.
    Nothing,
}

/// A slot to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Which.
    pub slot: Slot,
    /// By which rule.
    pub rule: Rule,
    /// The record that has to be on the disk before the start; if it cannot be written, ask again.
    pub write_first: Option<Record>,
}

/// The rule that chose a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// It has been found healthy.
    Proven,
    /// It is tried, for the n-th time.
    Trial {
        /// From 1 to [`TRIES`].
        attempt: u8,
    },
    /// It is tried, but the count could not be written.
    Uncounted,
    /// Nothing better is left: it is started without an engine.
    Safe,
}

impl Rule {
    /// The number the started system is told: 0 means proven, more than [`TRIES`] not counted.
    pub const fn attempt(self) -> u8 {
        match self {
            Self::Proven => 0,
            Self::Trial { attempt } => attempt,
            Self::Uncounted | Self::Safe => TRIES + 1,
        }
    }
}

/// Chooses the slot to start.
pub fn decide(situation: &Situation) -> Decision {
    let slots = &situation.record.slots;
    let highest = |wanted: fn(&Entry) -> bool| {
        let fit = |slot: &Slot| {
            !situation.refused[*slot] && !is_below_floor(situation, *slot) && wanted(&slots[*slot])
        };
        // Reversed, because on a tie max_by_key takes the last one.
        Slot::BOTH.into_iter().rev().filter(fit).max_by_key(|slot| slots[*slot].priority)
    };
    let start = |slot, rule| Decision::Start(Start { slot, rule, write_first: None });

    match highest(|entry| is_proven(entry) || has_tries(entry)) {
        Some(slot) if is_proven(&slots[slot]) => start(slot, Rule::Proven),
        Some(slot) if situation.record_writable => count_down(&situation.record, slot),
        Some(slot) => match highest(is_proven) {
            Some(proven) => start(proven, Rule::Proven),
            None => start(slot, Rule::Uncounted),
        },
        None => newest_left(situation).map_or(Decision::Nothing, |slot| start(slot, Rule::Safe)),
    }
}

/// The slot for safe mode: any that is not empty and has not been refused. The newest, and of two
/// equally new ones the one that is not known to be bad, since there may have been no fair trial.
fn newest_left(situation: &Situation) -> Option<Slot> {
    let slots = &situation.record.slots;
    let fit = |slot: &Slot| !situation.refused[*slot] && slots[*slot].state != State::Empty;
    Slot::BOTH.into_iter().rev().filter(fit).max_by_key(|slot| {
        let Entry { state, priority, rollback_index, .. } = slots[*slot];
        (rollback_index, !matches!(state, State::Bad(_)), priority)
    })
}

fn is_below_floor(situation: &Situation, slot: Slot) -> bool {
    let Situation { record, below_floor, .. } = situation;
    below_floor[slot] || record.slots[slot].rollback_index < record.rollback_floor
}

/// The record after a slot was found not to work.
pub fn mark_bad(record: &Record, slot: Slot, reason: Reason) -> Record {
    changed(record, slot, State::Bad(reason))
}

/// A record from what the slots themselves say, for when both copies are lost.
///
/// One system: proven, since there is nothing to fall back to and counting would only stop it.
/// Two: the newer one may have been on trial, so it gets its tries again, and the older one is
/// what to fall back to.
pub fn rebuild(manifests: PerSlot<Option<&Manifest>>) -> Record {
    let index = |slot: Slot| manifests[slot].map(|manifest| manifest.rollback_index);
    let newer = if index(Slot::B) > index(Slot::A) { Slot::B } else { Slot::A };
    let alone = index(newer.other()).is_none();
    let entry = |slot: Slot| {
        let Some(manifest) = manifests[slot] else {
            return Entry::default();
        };
        let trial = slot == newer && !alone;
        Entry {
            state: if trial { State::Unproven { tries: TRIES } } else { State::Proven },
            priority: if slot == newer { 2 } else { 1 },
            rollback_index: manifest.rollback_index,
            version: Version::new(&manifest.version),
        }
    };
    // What the floor was is lost. The lower index is one it cannot have been above.
    let indices = Slot::BOTH.into_iter().filter_map(index);
    let rollback_floor = indices.min().unwrap_or_default();
    Record { sequence: Sequence(1), rollback_floor, slots: PerSlot::from_fn(entry) }
}

fn is_proven(entry: &Entry) -> bool {
    entry.state == State::Proven
}

fn has_tries(entry: &Entry) -> bool {
    matches!(entry.state, State::Unproven { tries: 1.. })
}

fn count_down(record: &Record, slot: Slot) -> Decision {
    let State::Unproven { tries } = record.slots[slot].state else {
        return Decision::Nothing;
    };
    let left = tries.saturating_sub(1);
    let attempt = TRIES.saturating_sub(left);
    let write_first = Some(changed(record, slot, State::Unproven { tries: left }));
    Decision::Start(Start { slot, rule: Rule::Trial { attempt }, write_first })
}

fn changed(record: &Record, slot: Slot, state: State) -> Record {
    let mut record = Record { sequence: record.sequence.next(), ..*record };
    record.slots[slot].state = state;
    record
}

#[cfg(test)]
mod tests;
