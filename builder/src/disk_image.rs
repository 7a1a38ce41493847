//! The image of a whole disk: partition table, boot partition, record, slots and data.
//!
//! ```text
//! 0       4 MiB                                                     end − 4 MiB
//! │ GPT   │ boot (FAT32) │ record │ slot-a │ slot-b (hole) │ data (ext4) │ backup GPT │
//! │ MBR   │ record │     │ boot (FAT32) │ slot-a │ slot-b (hole) │ data (ext4) │
//! ```
//!
//! [`DiskLayout::plan`] decides where everything lies and has no I/O; [`write`] puts it there.
//! Guarantees: every partition starts and ends on a multiple of 4 MiB; all identities are inputs;
//! what is empty stays a hole; the image appears complete or not at all.

mod gpt_table;
mod mbr_table;

use std::fs::File;
use std::path::Path;

use ondisk::guid::Guid;
use ondisk::layout::{
    DATA_NAME, ESP_NAME, Extent, MANIFEST_AREA_BYTES, MBR_BOOT_OFFSET, MBR_RECORD,
    PARTITION_ALIGNMENT_BYTES, PerSlot, RECORD_NAME, RECORD_OFFSETS, RECORD_PARTITION_BYTES,
    RESET_OFFSETS, SECTOR_BYTES, Slot, TRIAL_LOG_BYTES, TRIAL_LOG_OFFSETS,
};

use crate::board::{Layout, Table};
use crate::error::{Error, Result};
use crate::image::ext4;
use crate::image::fat::{self, FatFile};
use crate::image::sparse::{Sparse, SparseImage};

/// Where everything lies on a disk. Holding one proves: extents are whole multiples of 4 MiB, do
/// not overlap, leave room for the partition tables, and are within reach of the kind of table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskLayout {
    table: Table,
    length: u64,
    boot: Extent,
    record: Extent,
    slots: PerSlot<Extent>,
    data: Extent,
}

/// The identities of a disk and its partitions, derived from the build's inputs by the caller.
#[derive(Clone, Copy, Debug)]
pub struct DiskIds {
    /// The disk's signature in an MBR, which has no other identity. Never 0: that is none.
    pub signature: u32,
    /// The disk.
    pub disk: Guid,
    /// The boot partition.
    pub boot: Guid,
    /// The record.
    pub record: Guid,
    /// The slots.
    pub slots: PerSlot<Guid>,
    /// The data partition.
    pub data: Guid,
}

/// What a disk holds.
#[derive(Clone, Debug)]
pub struct Contents<'a> {
    /// Names the boot partition's file system.
    pub boot_volume: fat::Volume<'a>,
    /// The files of the boot partition.
    pub boot_files: &'a [FatFile],
    /// The two copies of the boot record.
    pub record: [&'a [u8]; 2],
    /// Slot A, as long as its partition.
    pub slot: &'a SparseImage,
    /// Names the data partition's file system.
    pub data_identity: ext4::Identity<'a>,
    /// The directories of the data partition.
    pub data_directories: &'a [ext4::Directory],
}

impl DiskLayout {
    /// Lays the partitions out one behind the other.
    pub fn plan(sizes: &Layout) -> Result<Self> {
        let (mut next, most) = match sizes.table {
            // The table's 34 sectors need 17 KiB; the first partition starts on an erase block.
            Table::Gpt => (PARTITION_ALIGNMENT_BYTES, LARGEST_DISK),
            Table::Mbr => (MBR_BOOT_OFFSET, LARGEST_DISK.min(mbr_table::REACH_BYTES)),
        };
        let mut take = |name: &str, length: u64| {
            if length == 0 || !length.is_multiple_of(PARTITION_ALIGNMENT_BYTES) {
                return Err(Error::new(format!(
                    "partition {name}: {length} bytes are not a whole multiple of 4 MiB"
                )));
            }
            let extent = Extent { offset: next, length };
            next = extent.end().filter(|end| *end <= most).ok_or_else(|| {
                let offset = extent.offset;
                Error::new(format!(
                    "partition {name}: {length} bytes at {offset} go beyond the largest disk, \
                     {most} bytes"
                ))
            })?;
            Ok(extent)
        };
        let boot = take(ESP_NAME, sizes.boot_bytes)?;
        let record = match sizes.table {
            Table::Gpt => take(RECORD_NAME, RECORD_PARTITION_BYTES)?,
            // In the gap before the first partition.
            Table::Mbr => MBR_RECORD,
        };
        let slots = PerSlot {
            a: take(Slot::A.partition_name(), sizes.slot_bytes)?,
            b: take(Slot::B.partition_name(), sizes.slot_bytes)?,
        };
        let data = take(DATA_NAME, sizes.data_bytes)?;
        let length = match sizes.table {
            Table::Gpt => next + PARTITION_ALIGNMENT_BYTES,
            Table::Mbr => next,
        };
        Ok(Self { table: sizes.table, length, boot, record, slots, data })
    }

    /// Length of the whole disk.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The boot partition.
    pub fn boot(&self) -> Extent {
        self.boot
    }

    /// The area of the record.
    pub fn record(&self) -> Extent {
        self.record
    }

    /// A slot's partition.
    pub fn slot(&self, slot: Slot) -> Extent {
        self.slots[slot]
    }

    /// The data partition.
    pub fn data(&self) -> Extent {
        self.data
    }
}

/// 16 TiB: what the data partition's file system can be grown to.
const LARGEST_DISK: u64 = 1 << 44;

/// Writes the image of a whole disk. It gets its name only if `accept`, which is shown the finished
/// bytes, has nothing against them.
pub fn write(
    target: &Path,
    layout: &DiskLayout,
    ids: &DiskIds,
    contents: &Contents<'_>,
    accept: impl FnOnce(&File) -> Result<()>,
) -> Result<SparseImage> {
    check_slot(layout, contents.slot)?;
    let mut image = Sparse::create(target, layout.length)?;
    let boot = range(layout.boot);
    fat::write(&mut image, boot, contents.boot_volume, contents.boot_files)?;
    for (offset, copy) in RECORD_OFFSETS.into_iter().zip(contents.record) {
        image.write_at(layout.record.offset + offset, copy)?;
    }
    image.copy_image(contents.slot, layout.slots.a.offset)?;
    forget_former_life(&mut image, layout)?;
    ext4::write(&mut image, range(layout.data), contents.data_identity, contents.data_directories)?;
    // Last, as a disk without a table is nobody's disk.
    match layout.table {
        Table::Gpt => gpt_table::write(&mut image, layout, ids)?,
        Table::Mbr => mbr_table::write(&mut image, layout, ids.signature)?,
    }
    accept(image.file())?;
    image.finish()
}

/// What is empty on a new device is also empty on a card that was one before: no trial has ended,
/// no reset is asked for, and slot B holds no system, however well signed.
fn forget_former_life(image: &mut Sparse, layout: &DiskLayout) -> Result<()> {
    for offset in TRIAL_LOG_OFFSETS {
        let start = layout.record.offset + offset;
        image.keep_zeros(start..start + TRIAL_LOG_BYTES)?;
    }
    for offset in RESET_OFFSETS {
        let start = layout.record.offset + offset;
        image.keep_zeros(start..start + SECTOR_BYTES)?;
    }
    let end = layout.slots.b.offset + layout.slots.b.length;
    image.keep_zeros(end - MANIFEST_AREA_BYTES..end)
}

fn check_slot(layout: &DiskLayout, slot: &SparseImage) -> Result<()> {
    let wanted = layout.slots.a.length;
    if slot.length == wanted {
        return Ok(());
    }
    let (path, length) = (slot.path.display(), slot.length);
    let message = format!("{path}: {length} bytes are not the slot partition's {wanted}");
    Err(Error::new(message).hint("raise `layout.slot` of the board, or build the slot again"))
}

fn range(extent: Extent) -> std::ops::Range<u64> {
    extent.offset..extent.offset + extent.length
}

#[cfg(test)]
mod tests;
