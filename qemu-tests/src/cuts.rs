//! Power cuts drawn over a recorded update, and what the loader makes of the disks they leave.
//!
//! ```text
//!   ── write ── write ── FLUSH ── write ── discard ── write ─╳─ cut
//!   └──── on the medium ────┘   └─ each kept, torn or lost ──┘
//! ```
//! The loader is the real one; it runs here because that takes a moment where a virtual machine
//! takes twenty seconds. Disks that look alike wherever it reads are worked out once.
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

use loader::boot::{self, System};
use ondisk::boot_args::BootArgs;
use ondisk::device::{ReadAt, WriteAt};
use ondisk::layout::{self, Extent, SECTOR_BYTES, Slot};
use ondisk::manifest::{Manifest, PartName, Unverified};
use ondisk::partition_table::PartitionTable;
use ondisk::trust_root::TrustRoot;
use ondisk::verify::read_part;

use crate::simdisk::scramble;
use crate::write_log::{Entry, Replayed, SECTOR, WriteLog, Written};

/// A cut: the power goes after some entries of the log, and chance decides on the unflushed ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cut {
    /// Number of entries that have ended.
    pub after: usize,
    /// What chance is made of.
    pub seed: u64,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cut after entry {} with seed {:#x}", self.after, self.seed)
    }
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = scramble(self.0);
        usize::try_from(self.0 % u64::try_from(end.max(1)).unwrap()).unwrap()
    }
}

/// Draws cuts, sorted, in equal parts: anywhere from entry `start` on, and around the writes there
/// that touch each of `hot`, given in bytes.
pub fn draw(log: &WriteLog, start: usize, hot: &[Extent], count: usize, seed: u64) -> Vec<Cut> {
    let end = log.entries.len();
    let touching = |extent: &Extent| {
        let hot = sectors(*extent);
        let touches = |at: &usize| {
            let sectors = log.entries[*at].sectors();
            sectors.start < hot.end && hot.start < sectors.end
        };
        let touching: Vec<usize> = (start..end).filter(touches).collect();
        assert!(!touching.is_empty(), "the run wrote nothing where cuts matter most");
        touching
    };
    let hot: Vec<Vec<usize>> = hot.iter().map(touching).collect();
    let mut dice = Dice(seed);
    let mut cuts: Vec<Cut> = (0..count)
        .map(|number| {
            let after = match hot.get(number % (hot.len() + 1)) {
                None => start + dice.below(end - start + 1),
                Some(hot) => {
                    (hot[dice.below(hot.len())] + dice.below(5)).saturating_sub(1).min(end)
                }
            };
            Cut { after, seed: scramble(dice.0) }
        })
        .collect();
    cuts.sort_unstable();
    cuts
}

/// Calls `visit` with what the disk holds after each of the cuts, which are sorted, and with how
/// many requests were at the mercy of chance.
pub fn replay(
    log: &WriteLog,
    base: &File,
    cuts: &[Cut],
    mut visit: impl FnMut(Cut, &Written, usize),
) {
    let mut flushed = WriteLog::nothing_written(base).unwrap();
    let mut pending: Vec<usize> = Vec::new();
    let mut at = 0;
    for cut in cuts {
        while at < cut.after {
            match &log.entries[at] {
                Entry::Flush => {
                    for entry in pending.drain(..) {
                        flushed.write(log.entries[entry].sectors(), entry);
                    }
                }
                Entry::Write(..) | Entry::Discard(_) => pending.push(at),
            }
            at += 1;
        }
        let mut state = flushed.clone();
        let mut dice = Dice(cut.seed);
        let share = [0, 4, 8, 12, 15, 16][dice.below(6)];
        for &entry in &pending {
            if dice.below(16) < share {
                state.write(torn(log.entries[entry].sectors(), &mut dice), entry);
            }
        }
        visit(*cut, &state, pending.len());
    }
}

/// Of four requests one reaches the medium only in part.
fn torn(sectors: Range<u64>, dice: &mut Dice) -> Range<u64> {
    if dice.below(4) > 0 {
        return sectors;
    }
    let length = usize::try_from(sectors.end - sectors.start).unwrap();
    let from = [0, dice.below(length)][dice.below(2)];
    let to = from + 1 + dice.below(length - from);
    let place = |at: usize| sectors.start + u64::try_from(at).unwrap();
    place(from)..place(to)
}

/// What a disk starts, verified to its last byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// From where.
    pub slot: Slot,
    /// The version of its manifest.
    pub version: String,
    /// Which trial it is, 0 for a proven slot.
    pub attempt: u8,
}

/// Finds out what disks start.
pub struct Checker<'a> {
    log: &'a WriteLog,
    base: &'a File,
    trust: TrustRoot,
    loads: Known<Started>,
    roots: Known<()>,
}

impl<'a> Checker<'a> {
    /// For disks that came from `base`, with a loader that trusts the key in this file.
    pub fn new(log: &'a WriteLog, base: &'a File, key: &Path) -> Self {
        let trust = builder::inspect::trust(&[key.to_owned()], None);
        let trust = trust.unwrap_or_else(|error| panic!("{}", error.chain()));
        Self { log, base, trust, loads: Known::default(), roots: Known::default() }
    }

    /// Number of disks on which the loader, or the check of a root, really ran.
    pub fn distinct(&self) -> usize {
        self.loads.0.len() + self.roots.0.len()
    }

    /// What a disk starts; the error says why it is nothing, or nothing whole.
    pub fn check(&mut self, written: &Written) -> Result<Started, String> {
        let disk = self.log.disk(self.base, written);
        let trust = &self.trust;
        let started = self.loads.find(written, || load(&disk, trust))?;
        let (slot, manifest) = manifest(&disk, trust, started.slot)?;
        let parts = [PartName::Root, PartName::Verity].map(|name| manifest.part(name));
        let reads = parts.map(|part| sectors(slot.slice(part.extent).unwrap()));
        self.roots.find(written, || {
            let mut reads = reads.to_vec();
            reads.push(sectors(layout::manifest_area_of(slot).unwrap()));
            let whole = parts.into_iter().try_for_each(|part| {
                let mut bytes = vec![0; usize::try_from(part.extent.length).unwrap()];
                read_part(&disk, slot, part, &mut bytes, 1 << 20)
            });
            (reads, whole.map_err(|error| format!("slot {}: root: {error}", started.slot)))
        })?;
        Ok(started)
    }
}

/// Results, each with the sectors it depends on and what they held.
struct Known<T>(Vec<Dependent<T>>);

struct Dependent<T> {
    on: Vec<(Range<u64>, Vec<u32>)>,
    result: Result<T, String>,
}

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Clone> Known<T> {
    fn find(
        &mut self,
        written: &Written,
        work: impl FnOnce() -> (Vec<Range<u64>>, Result<T, String>),
    ) -> Result<T, String> {
        let same = |known: &&Dependent<T>| {
            known.on.iter().all(|(sectors, numbers)| written.of(sectors) == numbers)
        };
        if let Some(known) = self.0.iter().find(same) {
            return known.result.clone();
        }
        let (reads, result) = work();
        let on = reads.into_iter().map(|sectors| (sectors.clone(), written.of(&sectors).to_vec()));
        self.0.push(Dependent { on: on.collect(), result: result.clone() });
        result
    }
}

fn sectors(extent: Extent) -> Range<u64> {
    extent.offset / SECTOR..extent.end().unwrap().div_ceil(SECTOR)
}

fn manifest(
    disk: &Replayed<'_>,
    trust: &TrustRoot,
    slot: Slot,
) -> Result<(Extent, Manifest), String> {
    let table = PartitionTable::read(disk, SECTOR_BYTES).map_err(|error| error.to_string())?;
    let extent = table.slot(slot).map_err(|error| error.to_string())?.extent;
    let area = layout::manifest_area_of(extent).unwrap();
    let mut bytes = vec![0; usize::try_from(area.length).unwrap()];
    disk.read_at(area.offset, &mut bytes).map_err(|error| error.to_string())?;
    let manifest = Unverified::parse(&bytes).and_then(|found| found.verify(trust, extent.length));
    let (manifest, _) = manifest.map_err(|error| format!("slot {slot}: manifest: {error}"))?;
    Ok((extent, manifest))
}

/// Runs the loader; with the sectors that it read.
fn load(disk: &Replayed<'_>, trust: &TrustRoot) -> (Vec<Range<u64>>, Result<Started, String>) {
    let reads = RefCell::new(Vec::new());
    let machine = Host::default();
    let overlay = Overlay { disk, writes: BTreeMap::new(), reads: &reads };
    let started = boot::boot(&machine, overlay, SECTOR_BYTES, trust);
    let said = machine.said.into_inner();
    let started = started.map_err(|_| format!("nothing starts:\n{}", said.join("\n")));
    let started = started.and_then(|command_line| {
        let args = BootArgs::parse(&command_line).map_err(|error| error.to_string())?;
        if args.safe {
            return Err(format!("only safe mode starts:\n{}", said.join("\n")));
        }
        Ok(Started { slot: args.slot, version: args.version, attempt: args.attempt })
    });
    (reads.into_inner(), started)
}

/// The machine that the loader finds itself on.
#[derive(Default)]
struct Host {
    said: RefCell<Vec<String>>,
}

impl boot::Machine for Host {
    type Started = String;

    fn say(&self, line: fmt::Arguments<'_>) {
        self.said.borrow_mut().push(line.to_string());
    }

    fn start(&self, system: System) -> Result<String, &'static str> {
        Ok(system.command_line)
    }

    fn wait_seconds(&self, _seconds: u64) {}
}

/// A disk whose writes go to memory and whose reads are noted down.
struct Overlay<'a> {
    disk: &'a Replayed<'a>,
    writes: BTreeMap<u64, [u8; 512]>,
    reads: &'a RefCell<Vec<Range<u64>>>,
}

impl ReadAt for Overlay<'_> {
    type Error = io::Error;

    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let length = u64::try_from(buffer.len()).unwrap();
        self.disk.read_at(offset, buffer)?;
        self.reads.borrow_mut().push(sectors(Extent { offset, length }));
        for (place, bytes) in self.writes.range(offset..offset + length) {
            let start = usize::try_from(place - offset).unwrap();
            let end = (start + bytes.len()).min(buffer.len());
            buffer[start..end].copy_from_slice(&bytes[..end - start]);
        }
        Ok(())
    }
}

impl WriteAt for Overlay<'_> {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        assert!(offset.is_multiple_of(SECTOR), "the loader writes sectors");
        let (sectors, rest) = bytes.as_chunks();
        assert!(rest.is_empty(), "the loader writes sectors");
        self.writes.extend((offset..).step_by(512).zip(sectors.iter().copied()));
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
