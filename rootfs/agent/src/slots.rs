//! What `iota status` tells about the slots: the record, the manifests, and what remains of the
//! last trial that failed.

use std::fmt::Write as _;

use ondisk::boot_record::{Copies, Copy, Entry, Record, State};
use ondisk::boot_state::{self, Decision, Rule, Situation, Start};
use ondisk::device::ReadAt;
use ondisk::layout::{self, Extent, PerSlot, Slot};
use ondisk::manifest::Unverified;
use ondisk::trial_log::{self, Note};
use ondisk::trust_root::TrustRoot;
use serde_json::{Value, json};

use crate::apply::Place;
use crate::own_disk::OwnDisk;
use crate::update::Facts;

/// The slots of the disk this system was started from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slots {
    /// The slot that runs.
    pub running: Slot,
    /// The newest record; `None` if no copy can be read.
    pub record: Option<Record>,
    /// What is wrong with copies of the record.
    pub damage: Vec<String>,
    /// Who signed each slot's manifest, or why that is not known.
    pub signers: PerSlot<Result<String, String>>,
    /// Whose signatures count.
    pub trust: TrustRoot,
    /// The last note about a trial.
    pub note: Option<Note>,
}

impl Slots {
    /// Finds the disk and reads it.
    pub fn find(facts: &Facts) -> Result<Self, String> {
        let OwnDisk { device, place, .. } = OwnDisk::open(&facts.devices, &facts.boot()?)?;
        let trust = facts.trust().map(|trust| trust.root).unwrap_or_default();
        Ok(Self::read(&device, &place, &trust))
    }

    /// Reads what a disk says. Never fails: what is wrong is part of the result.
    pub fn read<D: ReadAt>(disk: &D, place: &Place, trust: &TrustRoot) -> Self {
        let copies = Copies::read(disk, place.record);
        let broken = [(Copy::First, &copies.first), (Copy::Second, &copies.second)];
        let broken =
            broken.into_iter().filter_map(|(copy, found)| Some((copy, found.as_ref().err()?)));
        Self {
            running: place.running,
            record: copies.newest().copied(),
            damage: broken.map(|(copy, error)| format!("{copy}: {error}")).collect(),
            signers: PerSlot::from_fn(|slot| signer(disk, place.slots[slot], trust)),
            trust: trust.clone(),
            note: trial_log::read(disk, place.record),
        }
    }

    /// The slot that the loader would start now, and by which rule.
    fn next(&self) -> Option<(Slot, Rule)> {
        let record = self.record?;
        let none = PerSlot::default();
        let situation =
            Situation { record, refused: none, below_floor: none, record_writable: true };
        match boot_state::decide(&situation) {
            Decision::Start(Start { slot, rule, .. }) => Some((slot, rule)),
            Decision::Nothing => None,
        }
    }

    /// The note, if it is about what is in the slot that does not run: why this one runs.
    fn last_failure(&self) -> Option<&Note> {
        let note = self.note.as_ref().filter(|note| note.slot != self.running)?;
        let version = self.record?.slots[note.slot].version?;
        (version.as_str() == note.version).then_some(note)
    }

    /// The version that failed its trials last, whatever has been put over it since.
    pub fn failed_version(&self) -> Option<&str> {
        let running = self.record?.slots[self.running].version?;
        let note = self.note.as_ref()?;
        (note.version != running.as_str()).then_some(note.version.as_str())
    }

    /// Lines for people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        match &self.record {
            None => text.push_str("record     no copy can be read; the loader rebuilds it\n"),
            Some(record) => {
                for slot in Slot::BOTH {
                    let line = self.line(slot, &record.slots[slot]);
                    let _ = writeln!(text, "slot {}     {line}", slot.letter());
                }
            }
        }
        for damage in &self.damage {
            let _ = writeln!(text, "record     {damage}");
        }
        if let Some((slot, rule)) = self.next() {
            let rule = match rule {
                Rule::Proven => "proven".to_owned(),
                Rule::Trial { attempt } => format!("trial {attempt}"),
                Rule::Uncounted => "trial, not counted".to_owned(),
                Rule::Safe => "safe mode, without an engine".to_owned(),
            };
            let _ = writeln!(text, "next       {} ({rule})", slot.letter());
        }
        if self.trust.number > 1 {
            let _ = writeln!(text, "trust      root {}", self.trust.number);
        }
        if let Some(note) = self.last_failure() {
            text.push_str(&describe(note));
        }
        text
    }

    fn line(&self, slot: Slot, entry: &Entry) -> String {
        let version = entry.version.as_ref().map(|version| version.as_str());
        let state = match (entry.state, version) {
            (State::Empty, None) => return "empty".to_owned(),
            (State::Empty, Some(version)) => return format!("empty; {version} failed here"),
            (state, version) => format!("{}, {state}", version.unwrap_or("no version")),
        };
        let signer = match &self.signers[slot] {
            Ok(key) => format!("key {key}"),
            Err(error) => error.clone(),
        };
        let runs = if slot == self.running { ", runs" } else { "" };
        format!("{state}, index {}, {signer}{runs}", entry.rollback_index)
    }

    /// The same facts for programs.
    pub fn json(&self) -> Value {
        let record = self.record.as_ref().map(|record| {
            json!({
                "sequence": record.sequence.0,
                "rollback-floor": record.rollback_floor,
                "a": self.slot_json(Slot::A, &record.slots.a),
                "b": self.slot_json(Slot::B, &record.slots.b),
            })
        });
        let note = |note: &Note| {
            json!({
                "slot": note.slot.letter(),
                "attempt": note.attempt,
                "version": note.version,
                "stage": note.stage,
                "cause": note.cause,
                "kernel": note.kernel.lines().collect::<Vec<_>>(),
            })
        };
        json!({
            "running": self.running.letter(),
            "next": self.next().map(|(slot, _)| slot.letter()),
            "record": record,
            "damage": self.damage,
            "trust-root": self.trust.number,
            "last-failure": self.last_failure().map(note),
            "note": self.note.as_ref().map(note),
        })
    }

    fn slot_json(&self, slot: Slot, entry: &Entry) -> Value {
        let (state, tries, reason) = match entry.state {
            State::Empty => ("empty", None, None),
            State::Unproven { tries } => ("unproven", Some(tries), None),
            State::Proven => ("proven", None, None),
            State::Bad(reason) => ("bad", None, Some(reason.to_string())),
        };
        json!({
            "state": state,
            "tries": tries,
            "reason": reason,
            "priority": entry.priority,
            "version": entry.version.as_ref().map(|version| version.as_str()),
            "rollback-index": entry.rollback_index,
            "key": self.signers[slot].as_ref().ok(),
        })
    }
}

fn describe(note: &Note) -> String {
    let Note { slot, attempt, version, stage, cause, kernel } = note;
    let cause = cause.as_deref().unwrap_or("it hung, lost power, or its kernel or PID 1 died");
    let mut text = format!(
        "last trial {version} in slot {}, trial {attempt}: {cause}; last stage: {stage}\n",
        slot.letter()
    );
    // The end is what matters; all of it is in the JSON.
    let lines: Vec<&str> = kernel.lines().collect();
    for line in &lines[lines.len().saturating_sub(5)..] {
        let _ = writeln!(text, "           {line}");
    }
    text
}

/// The ids of the trusted keys that signed the slot's manifest.
fn signer<D: ReadAt>(disk: &D, slot: Extent, trust: &TrustRoot) -> Result<String, String> {
    let area = layout::manifest_area_of(slot);
    let area = area.ok_or("too small for a manifest")?;
    let mut bytes = vec![0; usize::try_from(area.length).unwrap_or_default()];
    disk.read_at(area.offset, &mut bytes).map_err(|error| format!("cannot read: {error}"))?;
    let found = Unverified::parse(&bytes).and_then(|found| found.verify(trust, slot.length));
    found.map(|(_, keys)| keys.to_string()).map_err(|error| format!("manifest: {error}"))
}
