//! What is where on a disk and inside a slot: constants only, and the two words for "A or B".
//!
//! ```text
//! disk:  GPT │ p1 ESP │ p2 record │ p3 slot-a │ p4 slot-b │ p5 data │ backup GPT
//! or:    MBR │ record (4–12 MiB) │ p1 FAT (from 16 MiB) │ p2 slot-a │ p3 slot-b │ p4 data
//! slot:  erofs root │ verity tree │ kernel │ initrd │ zeros … │ manifest area (last 64 KiB)
//! ```
use core::fmt;

use crate::guid::Guid;

/// Smallest piece of a slot: every part starts at a multiple of it, dm-verity hashes it.
pub const BLOCK_BYTES: u64 = 4096;

/// Logical block size of the disks we make.
pub const SECTOR_BYTES: u64 = 512;

/// Partitions start at a multiple of this: the erase block of the cards we expect.
pub const PARTITION_ALIGNMENT_BYTES: u64 = 4 * MIB;

/// The signed manifest lives in the last bytes of its slot, so that it is found without a header
/// in front of the file system, and so that cutting a slot short removes its signature.
pub const MANIFEST_AREA_BYTES: u64 = 64 * 1024;

/// Where the two copies of the boot record start, from the start of the record partition.
///
/// They are 4 MiB apart so that a card that loses the page around a write loses one copy only.
pub const RECORD_OFFSETS: [u64; 2] = [0, 4 * MIB];

/// Where the two copies of the trial log start, from the start of the record partition: as far from
/// the record as there is room, so that losing a page around them seldom costs a copy of it.
pub const TRIAL_LOG_OFFSETS: [u64; 2] = [2 * MIB, 6 * MIB];

/// Size of a copy of the trial log.
pub const TRIAL_LOG_BYTES: u64 = 16 * 1024;

/// Where a request to make the data partition new is kept, in the half of each copy of the record:
/// right behind the copies of the trial log, for the same reason.
pub const RESET_OFFSETS: [u64; 2] =
    [TRIAL_LOG_OFFSETS[0] + TRIAL_LOG_BYTES, TRIAL_LOG_OFFSETS[1] + TRIAL_LOG_BYTES];

/// Size of the record partition.
pub const RECORD_PARTITION_BYTES: u64 = 8 * MIB;

/// Size of the ESP on boards with their own UEFI firmware.
pub const ESP_BYTES: u64 = 64 * MIB;

/// Size of a slot unless the board says otherwise.
pub const DEFAULT_SLOT_BYTES: u64 = 512 * MIB;

/// The UEFI specification's type of an EFI system partition.
pub const ESP_TYPE: Guid =
    Guid::new(0xc12a_7328, 0xf81f, 0x11d2, [0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b]);

/// Our type of the partition with the boot record. Our own types keep other systems' tools from
/// mounting, growing or formatting what they do not know.
pub const RECORD_TYPE: Guid =
    Guid::new(0x7ef3_a5d0, 0x11c4, 0x4b6a, [0x9d, 0x52, 0x69, 0x6f, 0x74, 0x61, 0x00, 0x01]);

/// Our type of both slot partitions; the partition name says which one it is.
pub const SLOT_TYPE: Guid =
    Guid::new(0x7ef3_a5d0, 0x11c4, 0x4b6a, [0x9d, 0x52, 0x69, 0x6f, 0x74, 0x61, 0x00, 0x02]);

/// Our type of the data partition.
pub const DATA_TYPE: Guid =
    Guid::new(0x7ef3_a5d0, 0x11c4, 0x4b6a, [0x9d, 0x52, 0x69, 0x6f, 0x74, 0x61, 0x00, 0x03]);

/// Where the record lies on a disk with an MBR, whose four entries leave none for it: in the gap
/// before the first partition, at the same distances as in a record partition.
pub const MBR_RECORD: Extent = Extent { offset: 4 * MIB, length: RECORD_PARTITION_BYTES };

/// Where the boot partition starts on a disk with an MBR: a page of 4 MiB behind the record, so
/// that a card that loses the page around a write there loses no file.
pub const MBR_BOOT_OFFSET: u64 = 16 * MIB;

/// MBR type of the boot partition: FAT32 with LBA. The Raspberry Pi 3's ROM takes no EFI system
/// partition (0xef), and U-Boot writes its variables to none but those.
pub const MBR_BOOT_TYPE: u8 = 0x0C;

/// MBR type of both slots: data that is no file system, which nothing mounts or mends by itself.
pub const MBR_SLOT_TYPE: u8 = 0xDA;

/// MBR type of the data partition: Linux.
pub const MBR_DATA_TYPE: u8 = 0x83;

/// Partition name of the ESP.
pub const ESP_NAME: &str = "boot";
/// Partition name of the boot record.
pub const RECORD_NAME: &str = "record";
/// Partition name of the data partition.
pub const DATA_NAME: &str = "data";

const MIB: u64 = 1024 * 1024;

const _: () = {
    assert!(MANIFEST_AREA_BYTES.is_multiple_of(BLOCK_BYTES));
    assert!(RECORD_OFFSETS[1] + SECTOR_BYTES <= RECORD_PARTITION_BYTES);
    assert!(TRIAL_LOG_OFFSETS[1] + TRIAL_LOG_BYTES <= RECORD_PARTITION_BYTES);
    assert!(RESET_OFFSETS[1] + SECTOR_BYTES <= RECORD_PARTITION_BYTES);
    assert!(RECORD_PARTITION_BYTES.is_multiple_of(PARTITION_ALIGNMENT_BYTES));
    assert!(DEFAULT_SLOT_BYTES.is_multiple_of(PARTITION_ALIGNMENT_BYTES));
};

/// One of the two operating systems on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// The slot a fresh image starts from.
    A,
    /// The slot the first update goes to.
    B,
}

impl Slot {
    /// Both slots, in the order in which they are tried when nothing else tells them apart.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The slot an update goes to while this one runs.
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// Name of the slot's partition.
    pub const fn partition_name(self) -> &'static str {
        match self {
            Self::A => "slot-a",
            Self::B => "slot-b",
        }
    }

    /// One lower-case letter, as on the kernel command line.
    pub const fn letter(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    /// Reads what [`Slot::letter`] writes; nothing else is a slot.
    pub fn from_letter(letter: &str) -> Option<Self> {
        Self::BOTH.into_iter().find(|slot| slot.letter() == letter)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::B => "B",
        })
    }
}

/// A pair of values, one for each slot: indexed by [`Slot`] only, so that no index can be wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerSlot<T> {
    /// The value of slot A.
    pub a: T,
    /// The value of slot B.
    pub b: T,
}

impl<T> PerSlot<T> {
    /// Computes both values.
    pub fn from_fn(mut value: impl FnMut(Slot) -> T) -> Self {
        Self { a: value(Slot::A), b: value(Slot::B) }
    }
}

impl<T> core::ops::Index<Slot> for PerSlot<T> {
    type Output = T;
    fn index(&self, slot: Slot) -> &T {
        match slot {
            Slot::A => &self.a,
            Slot::B => &self.b,
        }
    }
}

impl<T> core::ops::IndexMut<Slot> for PerSlot<T> {
    fn index_mut(&mut self, slot: Slot) -> &mut T {
        match slot {
            Slot::A => &mut self.a,
            Slot::B => &mut self.b,
        }
    }
}

/// A run of bytes of a device: what a partition is, and what a part of a slot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
}

impl Extent {
    /// The first byte after the run, if there is such a number.
    pub const fn end(self) -> Option<u64> {
        self.offset.checked_add(self.length)
    }

    /// The run `inner`, counted from this run's start, as a run of the device; `None` if it
    /// does not lie inside.
    pub fn slice(self, inner: Self) -> Option<Self> {
        if inner.end()? > self.length {
            return None;
        }
        Some(Self { offset: self.offset.checked_add(inner.offset)?, length: inner.length })
    }
}

/// The manifest area of a slot of `slot_bytes`, counted from the slot's start.
pub const fn manifest_area(slot_bytes: u64) -> Option<Extent> {
    match slot_bytes.checked_sub(MANIFEST_AREA_BYTES) {
        Some(offset) => Some(Extent { offset, length: MANIFEST_AREA_BYTES }),
        None => None,
    }
}

/// The manifest area of this slot of a disk; `None` for one that is too small.
pub fn manifest_area_of(slot: Extent) -> Option<Extent> {
    slot.slice(manifest_area(slot.length)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_letters_read_back_and_nothing_else_does() {
        for slot in Slot::BOTH {
            assert_eq!(Slot::from_letter(slot.letter()), Some(slot));
        }
        for wrong in ["", "A", "c", "ab"] {
            assert_eq!(Slot::from_letter(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_run_is_cut_from_a_run_only_when_it_lies_inside() {
        let outer = Extent { offset: 100, length: 10 };
        let cut = |offset, length| outer.slice(Extent { offset, length });
        assert_eq!(cut(0, 10), Some(outer));
        assert_eq!(cut(4, 6), Some(Extent { offset: 104, length: 6 }));
        assert_eq!(cut(4, 7), None);
        assert_eq!(cut(u64::MAX, 1), None);
    }

    #[test]
    fn the_manifest_area_is_the_end_of_the_slot() {
        assert_eq!(manifest_area(MANIFEST_AREA_BYTES - 1), None);
        let area = manifest_area(DEFAULT_SLOT_BYTES).expect("a slot of the default size");
        assert_eq!(area.end(), Some(DEFAULT_SLOT_BYTES));
        let slot = Extent { offset: 4096, length: DEFAULT_SLOT_BYTES };
        let on_disk = Extent { offset: area.offset + 4096, ..area };
        assert_eq!(manifest_area_of(slot), Some(on_disk));
        assert_eq!(manifest_area_of(Extent { length: 1, ..slot }), None);
    }
}
