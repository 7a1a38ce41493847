//! Where the parts of a disk of ours lie, whichever kind of partition table says so.
//!
//! An MBR of ours is looked for first: a card that held a GPT in a former life still has that
//! one's copies, while a disk with a GPT has no MBR that could be taken for ours.
use alloc::borrow::ToOwned as _;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::boot_args::DiskId;
use crate::device::ReadAt;
use crate::gpt;
pub use crate::gpt::FindError;
use crate::layout::{DATA_NAME, ESP_NAME, ESP_TYPE, Extent, MBR_RECORD, PerSlot, Slot};
use crate::mbr;

/// A partition table that can be read. What is missing in it shows when it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionTable {
    /// What tells this disk from others.
    pub disk: DiskId,
    /// What was read.
    pub source: Source,
    /// All partitions, in the order of the table.
    pub partitions: Vec<Partition>,
    boot: Result<Partition, FindError>,
    record: Result<Extent, FindError>,
    slots: PerSlot<Result<Partition, FindError>>,
    data: Result<Partition, FindError>,
}

/// What a table was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// One of the two copies of a GPT.
    Gpt(gpt::Source),
    /// The first sector.
    Mbr,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gpt(copy) => fmt::Display::fmt(copy, f),
            Self::Mbr => f.write_str("MBR"),
        }
    }
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Number from 1, as in the names of Linux' devices.
    pub number: u32,
    /// Its name in a GPT, or the one it would have there.
    pub name: String,
    /// Its bytes on the disk.
    pub extent: Extent,
}

/// The table that counts, as its kind has it.
pub(crate) enum Found {
    Mbr(mbr::Table),
    Gpt(gpt::Table),
}

impl Found {
    pub(crate) fn read<D: ReadAt>(device: &D, block_bytes: u64) -> Result<Self, Error<D::Error>> {
        let mbr = match mbr::Table::read(device, block_bytes) {
            Ok(table) => return Ok(Self::Mbr(table)),
            Err(error) => error,
        };
        gpt::Table::read(device, block_bytes).map(Self::Gpt).map_err(|gpt| Error { mbr, gpt })
    }
}

impl PartitionTable {
    /// Reads the table of a device with logical blocks of `block_bytes`.
    pub fn read<D: ReadAt>(device: &D, block_bytes: u64) -> Result<Self, Error<D::Error>> {
        Found::read(device, block_bytes).map(|found| (&found).into())
    }

    /// The partition that the firmware reads.
    pub fn boot(&self) -> Result<&Partition, FindError> {
        self.boot.as_ref().map_err(|error| *error)
    }

    /// The area of the boot record.
    pub fn record(&self) -> Result<Extent, FindError> {
        self.record
    }

    /// The partition of this slot.
    pub fn slot(&self, slot: Slot) -> Result<&Partition, FindError> {
        self.slots[slot].as_ref().map_err(|error| *error)
    }

    /// The data partition.
    pub fn data(&self) -> Result<&Partition, FindError> {
        self.data.as_ref().map_err(|error| *error)
    }
}

impl From<&Found> for PartitionTable {
    fn from(found: &Found) -> Self {
        match found {
            Found::Mbr(table) => table.into(),
            Found::Gpt(table) => table.into(),
        }
    }
}

impl From<&gpt::Table> for PartitionTable {
    fn from(table: &gpt::Table) -> Self {
        let own = |found: &gpt::Partition| Partition {
            number: found.number,
            name: found.name.clone(),
            extent: found.extent,
        };
        Self {
            disk: DiskId::Gpt(table.disk),
            source: Source::Gpt(table.source),
            partitions: table.partitions.iter().map(own).collect(),
            boot: table.find(ESP_TYPE, ESP_NAME).map(own),
            record: table.record().map(|found| found.extent),
            slots: PerSlot::from_fn(|slot| table.slot(slot).map(own)),
            data: table.data().map(own),
        }
    }
}

impl From<&mbr::Table> for PartitionTable {
    fn from(table: &mbr::Table) -> Self {
        let [a, b] = Slot::BOTH.map(Slot::partition_name);
        let names = [ESP_NAME, a, b, DATA_NAME].into_iter();
        let own = |((number, name), extent): ((u32, &str), Extent)| Partition {
            number,
            name: name.to_owned(),
            extent,
        };
        let partitions: Vec<_> = (1..).zip(names).zip(table.partitions).map(own).collect();
        let named = |name| {
            let found = partitions.iter().find(|partition| partition.name == name);
            found.cloned().ok_or(FindError::Missing(name))
        };
        Self {
            disk: DiskId::Mbr(table.signature),
            source: Source::Mbr,
            boot: named(ESP_NAME),
            record: Ok(MBR_RECORD),
            slots: PerSlot { a: named(a), b: named(b) },
            data: named(DATA_NAME),
            partitions,
        }
    }
}

/// There is no table of either kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error<E> {
    /// Why there is no MBR of ours.
    pub mbr: mbr::Error<E>,
    /// Why there is no GPT.
    pub gpt: gpt::Error<E>,
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; MBR: {}", self.gpt, self.mbr)
    }
}

impl<E: fmt::Display + fmt::Debug> core::error::Error for Error<E> {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;
    use alloc::vec;

    const MIB: u64 = 1 << 20;

    /// 64 MiB, of which only the first sector is not zero.
    fn disk_with_mbr() -> Vec<u8> {
        let mut disk = vec![0; 64 << 20];
        disk[440..444].copy_from_slice(&0x0bad_cafe_u32.to_le_bytes());
        for (number, kind) in (0_u32..).zip(mbr::TYPES) {
            let entry = &mut disk[446 + 16 * usize::try_from(number).unwrap()..][..16];
            entry[4] = kind;
            entry[8..12].copy_from_slice(&((16 + 8 * number) * 2048).to_le_bytes());
            entry[12..].copy_from_slice(&(8 * 2048_u32).to_le_bytes());
        }
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        disk
    }

    /// A GPT without partitions in the first sectors of a disk.
    fn add_empty_gpt(disk: &mut [u8]) {
        let entries = crc32fast::hash(&[0; 512]).to_le_bytes();
        let header = &mut disk[512..][..92];
        header[..8].copy_from_slice(b"EFI PART");
        header[8..12].copy_from_slice(&0x0001_0000_u32.to_le_bytes());
        header[12] = 92;
        header[24] = 1;
        header[40] = 3;
        header[48] = 100;
        header[56..72].fill(7);
        header[72] = 2;
        header[80] = 4;
        header[84] = 128;
        header[88..].copy_from_slice(&entries);
        let crc = crc32fast::hash(header).to_le_bytes();
        header[16..20].copy_from_slice(&crc);
    }

    #[test]
    fn an_mbr_of_ours_names_all_parts_and_the_record_in_the_gap() {
        let table = PartitionTable::read(&disk_with_mbr(), 512).unwrap();
        assert_eq!((table.disk, table.source), (DiskId::Mbr(0x0bad_cafe), Source::Mbr));
        let extent = |start| Extent { offset: start * MIB, length: 8 * MIB };
        assert_eq!(table.record(), Ok(extent(4)));
        let found = [table.boot(), table.slot(Slot::A), table.slot(Slot::B), table.data()];
        let expected = [(1, 16), (2, 24), (3, 32), (4, 40)].map(|(n, start)| (n, extent(start)));
        assert_eq!(found.map(|found| found.map(|it| (it.number, it.extent))), expected.map(Ok));
        let names: Vec<_> = table.partitions.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["boot", "slot-a", "slot-b", "data"]);
    }

    #[test]
    fn a_gpt_that_a_card_had_before_does_not_count() {
        let mut disk = disk_with_mbr();
        add_empty_gpt(&mut disk);
        assert_eq!(PartitionTable::read(&disk, 512).unwrap().source, Source::Mbr);
        // Another kind of MBR, as every GPT has one.
        disk[450] = 0xee;
        let table = PartitionTable::read(&disk, 512).unwrap();
        assert_eq!(table.source, Source::Gpt(gpt::Source::Primary));
        assert_eq!(table.data(), Err(FindError::Missing("data")));
    }

    #[test]
    fn a_disk_without_a_table_says_so_of_both_kinds() {
        let error = PartitionTable::read(&vec![0; 8192], 512).unwrap_err().to_string();
        let expected =
            "no partition table: primary: no GPT header; backup: no GPT header; MBR: no MBR";
        assert_eq!(error, expected);
    }
}
