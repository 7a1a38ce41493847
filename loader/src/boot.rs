//! The steps from a disk to a started kernel, in order, over any machine.
//!
//! ```text
//! table → record → decide ─┬─ count down, write, read back ─→ manifest → kernel → initrd → start
//!            ↑             └─ nothing left: give up                │        │        │       │
//!            └───────────── say why, mark bad, other slot ─────────┴────────┴────────┴───────┘
//! ```
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use ondisk::boot_args::BootArgs;
use ondisk::boot_record::{Record, State};
use ondisk::boot_state::{self, Decision, Rule, Situation, Start};
use ondisk::device::WriteAt;
use ondisk::layout::{Extent, PerSlot, Slot};
use ondisk::manifest::PartName;
use ondisk::partition_table::PartitionTable;
use ondisk::trust_root::TrustRoot;

use crate::record::Store;
use crate::slot::{Refused, load_part, read_manifest, unpack_initrd, unpack_kernel};

/// Wait before anything that could otherwise repeat itself without end.
pub const PAUSE_SECONDS: u64 = 30;

/// What a step needs of the machine besides its disk.
pub trait Machine {
    /// What a start that worked gives back; under UEFI, nothing ever.
    type Started;

    /// Puts one line on the console.
    fn say(&self, line: fmt::Arguments<'_>);

    /// Starts a kernel. Comes back only if that did not work.
    fn start(&self, system: System) -> Result<Self::Started, &'static str>;

    /// Does nothing for a while.
    fn wait_seconds(&self, seconds: u64);
}

/// A verified system, ready to be started.
#[derive(Debug, PartialEq, Eq)]
pub struct System {
    /// The kernel, an EFI program.
    pub kernel: Vec<u8>,
    /// What the kernel finds as its initial RAM disk.
    pub initrd: Vec<u8>,
    /// What the kernel is told.
    pub command_line: String,
}

/// No slot could be started; the reasons are on the console.
#[derive(Debug, PartialEq, Eq)]
pub struct NothingStarts;

/// Starts the best slot of the disk that can be started.
pub fn boot<M: Machine, D: WriteAt>(
    machine: &M,
    disk: D,
    block_bytes: u64,
    trust: &TrustRoot,
) -> Result<M::Started, NothingStarts> {
    for key in trust.release.keys() {
        machine.say(format_args!("trusted key {}", key.id()));
    }
    let table = PartitionTable::read(&disk, block_bytes).map_err(|error| {
        machine.say(format_args!("disk: {error}"));
        NothingStarts
    })?;
    machine.say(format_args!("disk {}, {}", table.disk, table.source));
    let place = table.record().map_err(|error| machine.say(format_args!("record: {error}")));
    let store = Store::read(&disk, place.ok());
    let (record, known) = match store.newest() {
        Some(record) => (*record, true),
        None => (Record::default(), false),
    };
    let mut attempt = Attempt {
        machine,
        disk,
        table,
        trust,
        store,
        record,
        refused: PerSlot::default(),
        below_floor: PerSlot::default(),
        record_writable: true,
    };
    attempt.report_record();
    if !known {
        attempt.rebuild_record();
    }
    attempt.run()
}

/// What is known while slots are tried.
struct Attempt<'a, M, D: WriteAt> {
    machine: &'a M,
    disk: D,
    table: PartitionTable,
    trust: &'a TrustRoot,
    store: Store<D::Error>,
    record: Record,
    refused: PerSlot<bool>,
    below_floor: PerSlot<bool>,
    record_writable: bool,
}

impl<M: Machine, D: WriteAt> Attempt<'_, M, D> {
    /// Tries slots until one starts or none is left. Ends: every round refuses one more slot for
    /// good, or leaves one to safe mode, or finds out, once, that the record cannot be written.
    fn run(&mut self) -> Result<M::Started, NothingStarts> {
        loop {
            let Self { record, refused, below_floor, record_writable, .. } = *self;
            let situation = Situation { record, refused, below_floor, record_writable };
            let start = match boot_state::decide(&situation) {
                Decision::Start(start) => start,
                Decision::Nothing => return Err(NothingStarts),
            };
            if let Some(next) = &start.write_first
                && !self.write_record(next)
            {
                continue;
            }
            self.report_start(&start);
            match self.start(&start) {
                Ok(started) => return Ok(started),
                Err(refused) => self.refuse(start.slot, &refused),
            }
        }
    }

    /// Verifies one slot and starts it.
    fn start(&mut self, start: &Start) -> Result<M::Started, Refused<D::Error>> {
        let slot = start.slot;
        let extent = self.slot_extent(slot)?;
        let (manifest, keys) = read_manifest(&self.disk, extent, self.trust)?;
        self.say(slot, format_args!("version {}, signed by {keys}", manifest.version));
        let (index, floor) = (manifest.rollback_index, self.record.rollback_floor);
        let safe = start.rule == Rule::Safe;
        if index < floor && !safe {
            return Err(Refused::BelowFloor { index, floor });
        }
        let kernel = load_part(&self.disk, extent, &manifest, PartName::Kernel)?;
        self.say(slot, format_args!("kernel verified"));
        let initrd = load_part(&self.disk, extent, &manifest, PartName::Initrd)?;
        self.say(slot, format_args!("initrd verified"));
        let initrd = unpack_initrd(initrd)?;
        let kernel = unpack_kernel(&kernel, &manifest)?;
        self.say(slot, format_args!("kernel unpacked"));
        let (attempt, disk) = (start.rule.attempt(), self.table.disk);
        let args = BootArgs { safe, ..BootArgs::new(slot, attempt, disk, &manifest) };
        let command_line = format!("{} {args}", manifest.command_line);
        if matches!(start.rule, Rule::Safe | Rule::Uncounted) {
            // Nothing counts these starts, so nothing else keeps a system that fails at once from
            // spinning. Only here, so that slots that fail their checks do not add to it.
            self.say(slot, format_args!("starting in {PAUSE_SECONDS} s"));
            self.machine.wait_seconds(PAUSE_SECONDS);
        }
        self.say(slot, format_args!("starting kernel"));
        self.machine.start(System { kernel, initrd, command_line }).map_err(Refused::Start)
    }

    /// Says why a slot is not started, remembers it, and leaves the slot alone from now on.
    fn refuse(&mut self, slot: Slot, refused: &Refused<D::Error>) {
        self.say(slot, format_args!("{refused}"));
        match refused {
            Refused::BelowFloor { .. } => self.below_floor[slot] = true,
            _ => self.refused[slot] = true,
        }
        let Some(reason) = refused.reason() else { return };
        // A slot that is marked stays as it is: a write at every start would wear the card out.
        if !matches!(self.record.slots[slot].state, State::Bad(_)) {
            self.write_record(&boot_state::mark_bad(&self.record, slot, reason));
        }
    }

    /// Makes up for a lost record. A slot that the disk did not read may be as good as ever: then
    /// what is known is good enough to start from, but not to be written down.
    fn rebuild_record(&mut self) {
        let manifest = |slot| {
            let extent = self.slot_extent(slot)?;
            read_manifest(&self.disk, extent, self.trust).map(|(manifest, _)| manifest)
        };
        let mut all_read = true;
        let manifests = PerSlot::from_fn(|slot| match manifest(slot) {
            Ok(manifest) => Some(manifest),
            Err(error) => {
                all_read &= !matches!(error, Refused::ManifestRead(_));
                self.say(slot, format_args!("{error}"));
                None
            }
        });
        let PerSlot { a, b } = &manifests;
        let record = boot_state::rebuild(PerSlot { a: a.as_ref(), b: b.as_ref() });
        self.machine.say(format_args!("record: rebuilt from the manifests"));
        self.record_writable = all_read;
        self.write_record(&record);
        self.record = record;
    }

    /// Whether the change has reached the disk. If not, no further change is tried: the rules
    /// know what to do with a record that cannot be written.
    fn write_record(&mut self, record: &Record) -> bool {
        if !self.record_writable {
            return false;
        }
        match self.store.write(&mut self.disk, record) {
            Ok(()) => self.record = *record,
            Err(error) => {
                self.machine.say(format_args!("record: cannot write: {error}"));
                self.record_writable = false;
            }
        }
        self.record_writable
    }

    fn slot_extent(&self, slot: Slot) -> Result<Extent, Refused<D::Error>> {
        let partition = self.table.slot(slot).map_err(Refused::Partition)?;
        Ok(partition.extent)
    }

    fn report_record(&self) {
        for (copy, error) in self.store.damage() {
            self.machine.say(format_args!("record: {copy}: {error}"));
        }
    }

    fn report_start(&self, start: &Start) {
        let slot = start.slot;
        match start.rule {
            Rule::Proven => self.say(slot, format_args!("proven")),
            Rule::Trial { attempt } => self.say(slot, format_args!("trial {attempt}")),
            Rule::Uncounted => self.say(slot, format_args!("trial, not counted")),
            Rule::Safe => self.say(slot, format_args!("safe mode: started without an engine")),
        }
    }

    fn say(&self, slot: Slot, line: fmt::Arguments<'_>) {
        self.machine.say(format_args!("slot {slot}: {line}"));
    }
}

#[cfg(test)]
mod tests;
