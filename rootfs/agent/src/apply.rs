//! An installation: from a bundle to a slot that is started next. The sequence is one function
//! over any disk and any source of bytes, so that the simulator stops it at every write.
//!
//! ```text
//! header, slot manifest, index: verified │ board, profile, size, index, record: refused here,
//!                                        │ with not one byte of the disk changed
//! ───────────────────────────────────────┴──────────────────────────────────────────────────
//! 1  record, both copies: the slot is empty                        flush, read back
//! 2  first block of the slot's manifest area: zeros                flush
//! 3  groups of blocks, each checked; those already right are kept  flush
//! 4  every group read back and compared with what was written
//! 5  manifest area                                                 flush, read back
//! 6  record, one copy: the slot is on trial                        flush, read back
//! ```
//! A cut before 6 leaves a slot that the record calls empty and that, from 2 to 5, has no manifest
//! either, should both copies of the record be lost. Nothing else of the disk is written. What has
//! been written is its own journal: the next installation keeps every group that is already right.
//!
//! Both copies in step 1, because one copy may be lost at any time and the other one must not
//! bring back a slot that is half overwritten.
use std::mem;

use ondisk::boot_record::{self, Copies, CopyError, Record, State, Version};
use ondisk::bundle::{Group, HEADER_BYTES};
use ondisk::device::{ReadAt, WriteAt};
use ondisk::digest::Digest;
use ondisk::layout::{self, Extent, PerSlot, Slot};
use ondisk::manifest::Profile;
use ondisk::partition_table::{FindError, PartitionTable};
use ondisk::slot_change;
use ondisk::trust_root::TrustRoot;

mod chunks;
mod error;
mod front;
mod read_back;
mod stream;
mod writer;

pub use chunks::{Bytes, CheckedChunks, ChunkError, ChunkList};
pub use error::{Cause, Error, Left};
pub use front::{Front, Source};

use read_back::{Written, read_back};
pub use stream::Unpacked;
use writer::Writer;

/// Where the groups of an image come from, in order.
pub trait Groups {
    /// The bytes of the next group; of the disk nothing is read but what this installation has
    /// already written or leaves alone. Whoever asks checks them.
    fn next<D: ReadAt>(&mut self, disk: &D, group: &Group) -> Result<&[u8], Cause<D::Error>>;

    /// Whether the source ends here.
    fn finish<E>(self) -> Result<(), Cause<E>>;
}

/// Where the parts of a device's disk are, and which slot runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The record.
    pub record: Extent,
    /// The slots.
    pub slots: PerSlot<Extent>,
    /// The slot that runs, which is never written.
    pub running: Slot,
}

impl Place {
    /// Finds record and slots in a partition table.
    pub fn find(table: &PartitionTable, running: Slot) -> Result<Self, FindError> {
        let slots = PerSlot { a: table.slot(Slot::A)?.extent, b: table.slot(Slot::B)?.extent };
        Ok(Self { record: table.record()?, slots, running })
    }

    /// The slot that is written.
    pub fn target(&self) -> Slot {
        self.running.other()
    }

    /// Where the slot that is written lies.
    pub fn target_extent(&self) -> Extent {
        self.slots[self.target()]
    }
}

/// What a bundle has to be for this device.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// Name of the board.
    pub board: &'a str,
    /// Profile of the system that runs: a release takes no development system.
    pub profile: Profile,
    /// Whose signatures count.
    pub trust: &'a TrustRoot,
}

/// How far an installation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The slot is being written.
    Writing {
        /// Bytes of the image that are done.
        done: u64,
        /// Those among them that were already right.
        kept: u64,
        /// Bytes of the image.
        total: u64,
    },
    /// The slot is being read back.
    ReadingBack {
        /// Bytes of the image that are done.
        done: u64,
        /// Bytes of the image.
        total: u64,
    },
}

/// A finished installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Where it is.
    pub slot: Slot,
    /// What it is.
    pub version: String,
    /// Bytes of the image.
    pub image_bytes: u64,
    /// Those among them that were already right.
    pub kept_bytes: u64,
}

/// Installs a bundle into the slot that does not run.
///
/// Errors say whether anything was written ([`Error::left`]): everything that can be known from the
/// bundle's front, its length and the record is refused before the first write.
pub fn install<D: WriteAt, S: Bytes>(
    disk: &mut D,
    place: &Place,
    rules: &Rules<'_>,
    source: Source<S>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Installed, Error<D::Error>> {
    let untouched = |cause| Error { cause, left: Left::Untouched };
    let (mut front, source) = Front::read(source, rules, place).map_err(untouched)?;
    check_device(disk, place, &front).map_err(untouched)?;
    let list = ChunkList::new(&front.header, mem::take(&mut front.index.chunks));
    let stream = Unpacked::new(source.chunks(list), &front.header).map_err(untouched)?;
    install_groups(disk, place, &front, stream, (Until::Staged, progress))
}

/// How far an installation is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// The image is in the slot, which stays empty for whoever starts systems. The installation
    /// that follows finds it there.
    Written,
    /// It is started next.
    Staged,
}

/// The same from where the front has been read and the device checked ([`check_device`]), with
/// groups from anywhere, as far as is wanted.
pub fn install_groups<D: WriteAt>(
    disk: &mut D,
    place: &Place,
    front: &Front,
    groups: impl Groups,
    (until, progress): (Until, &mut dyn FnMut(Progress)),
) -> Result<Installed, Error<D::Error>> {
    let empty = |cause| Error { cause, left: Left::Empty };
    empty_slot(disk, place).map_err(|cause| Error { cause, left: Left::Unsure })?;
    remove_manifest(disk, place).map_err(empty)?;
    let written = write_image(disk, place, groups, front, progress).map_err(empty)?;
    read_back(disk, place.target_extent(), &written.groups, progress).map_err(empty)?;
    if until == Until::Staged {
        write_manifest(disk, place, &front.slot_manifest).map_err(empty)?;
        stage(disk, place, front).map_err(|cause| Error { cause, left: Left::Unsure })?;
    }
    Ok(Installed {
        slot: place.target(),
        version: front.manifest.version.clone(),
        image_bytes: front.header.fields().image_bytes,
        kept_bytes: written.kept_bytes,
    })
}

/// What the disk says about this bundle, before anything is written.
pub fn check_device<D: ReadAt>(
    disk: &D,
    place: &Place,
    front: &Front,
) -> Result<(), Cause<D::Error>> {
    let copies = Copies::read(disk, place.record);
    let record = copies.newest().ok_or_else(|| no_record(&copies))?;
    let holds = |slot| holds_manifest(disk, place.slots[slot], &front.slot_manifest);
    if holds(place.running) {
        return Err(Cause::AlreadyRunning(front.manifest.version.clone()));
    }
    let waits = matches!(record.slots[place.target()].state, State::Unproven { tries: 1.. });
    if waits && holds(place.target()) {
        return Err(Cause::AlreadyStaged(front.manifest.version.clone()));
    }
    slot_change::check_index(record, front.manifest.rollback_index).map_err(Cause::Change)?;
    slot_change::begin(record, place.running).map_err(Cause::Change)?;
    Ok(())
}

fn no_record<E>(copies: &Copies<E>) -> Cause<E> {
    let both_empty = matches!(
        (&copies.first, &copies.second),
        (
            Err(CopyError::Record(boot_record::Error::Empty)),
            Err(CopyError::Record(boot_record::Error::Empty))
        )
    );
    if both_empty { Cause::RecordMissing } else { Cause::RecordUnreadable }
}

/// Whether a slot holds the system of this manifest. A slot that cannot be read holds another one.
fn holds_manifest<D: ReadAt>(disk: &D, slot: Extent, manifest: &[u8]) -> bool {
    let area = layout::manifest_area_of(slot);
    let mut found = vec![0; manifest.len()];
    area.is_some_and(|area| disk.read_at(area.offset, &mut found).is_ok()) && found == manifest
}

/// Step 1. Ends: each round makes one copy right.
fn empty_slot<D: WriteAt>(disk: &mut D, place: &Place) -> Result<(), Cause<D::Error>> {
    for _ in 0..2 {
        let copies = Copies::read(disk, place.record);
        let record = copies.newest().ok_or_else(|| no_record(&copies))?;
        let empty = |record: &Record| record.slots[place.target()].state == State::Empty;
        let both = [&copies.first, &copies.second];
        if both.into_iter().all(|copy| copy.as_ref().is_ok_and(empty)) {
            return Ok(());
        }
        let next = slot_change::begin(record, place.running).map_err(Cause::Change)?;
        let next = Record { sequence: record.sequence.next(), ..next };
        let written = boot_record::write(disk, place.record, copies.older(), &next);
        written.map_err(Cause::RecordWrite)?;
    }
    Ok(())
}

/// Step 2. The first block is enough: without the magic there is no manifest.
fn remove_manifest<D: WriteAt>(disk: &mut D, place: &Place) -> Result<(), Cause<D::Error>> {
    let area = target_manifest_area(place)?;
    let mut block = [0; HEADER_BYTES];
    let what = "manifest area";
    if disk.read_at(area.offset, &mut block).is_ok() && block.iter().all(|&byte| byte == 0) {
        return Ok(());
    }
    let written = disk.write_at(area.offset, &[0; HEADER_BYTES]);
    written.and_then(|()| disk.flush()).map_err(|error| Cause::Write { what, error })
}

/// Step 3. What came before a trouble of the source is written all the same: the next installation
/// goes on from there.
fn write_image<D: WriteAt>(
    disk: &mut D,
    place: &Place,
    mut groups: impl Groups,
    front: &Front,
    progress: &mut dyn FnMut(Progress),
) -> Result<Written, Cause<D::Error>> {
    let mut writer = Writer::new(disk, place.target_extent());
    let got = write_groups(&mut writer, &mut groups, front, progress);
    let written = writer.finish();
    got?;
    groups.finish()?;
    written
}

fn write_groups<D: WriteAt>(
    writer: &mut Writer<'_, D>,
    groups: &mut impl Groups,
    front: &Front,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), Cause<D::Error>> {
    let total = front.header.fields().image_bytes;
    for (number, group) in front.index.groups.iter().enumerate() {
        let bytes = groups.next(writer.disk(), group)?;
        if Digest::of(bytes) != group.sha256 {
            return Err(Cause::Group(number));
        }
        writer.put(bytes)?;
        progress(Progress::Writing { done: writer.done(), kept: writer.kept(), total });
    }
    Ok(())
}

/// Step 5.
fn write_manifest<D: WriteAt>(
    disk: &mut D,
    place: &Place,
    manifest: &[u8],
) -> Result<(), Cause<D::Error>> {
    let what = "manifest area";
    let area = target_manifest_area(place)?;
    let mut wanted = vec![0; bytes_in_memory(area.length)];
    wanted[..manifest.len()].copy_from_slice(manifest);
    let written = disk.write_at(area.offset, &wanted).and_then(|()| disk.flush());
    written.map_err(|error| Cause::Write { what, error })?;
    let mut found = vec![0; wanted.len()];
    disk.read_at(area.offset, &mut found).map_err(|error| Cause::Read { what, error })?;
    if found == wanted { Ok(()) } else { Err(Cause::NotKept { what, offset: area.offset }) }
}

/// Step 6: the commit of the installation, one sector.
fn stage<D: WriteAt>(disk: &mut D, place: &Place, front: &Front) -> Result<(), Cause<D::Error>> {
    let manifest = &front.manifest;
    // A Manifest proves that its version fits.
    let version = Version::new(&manifest.version).ok_or(Cause::RecordUnreadable)?;
    boot_record::change(disk, place.record, |record| {
        slot_change::stage(record, place.running, version, manifest.rollback_index)
    })?;
    Ok(())
}

fn target_manifest_area<E>(place: &Place) -> Result<Extent, Cause<E>> {
    let slot = place.target_extent();
    let area = layout::manifest_area_of(slot);
    area.ok_or(Cause::SlotTooSmall(slot.length))
}

/// Only for numbers that a header or a constant limits to a few MiB.
fn bytes_in_memory(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
