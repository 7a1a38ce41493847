//! Reads a GUID partition table (UEFI specification, chapter 5).
//!
//! The primary table counts if it is whole; else the backup in the last block of the device. All
//! checksums are checked, and a table whose partitions overlap or leave the disk is refused.
//! Partitions are found by type and name together, and a doubled one is an error: guessing which
//! of two "slot-a" is meant has ended badly elsewhere.
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use crate::device::ReadAt;
use crate::guid::Guid;
use crate::layout::{DATA_NAME, DATA_TYPE, Extent, RECORD_NAME, RECORD_TYPE, SLOT_TYPE, Slot};

/// Number of a logical block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lba(pub u64);

impl fmt::Display for Lba {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block {}", self.0)
    }
}

/// A whole partition table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// GUID of the disk.
    pub disk: Guid,
    /// Which of the two tables was read.
    pub source: Source,
    /// The used entries, in the order of the table.
    pub partitions: Vec<Partition>,
}

/// Which of the two tables of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The one at the start.
    Primary,
    /// The one at the end.
    Backup,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Primary => "primary table",
            Self::Backup => "backup table",
        })
    }
}

/// A used entry of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Number from 1, as in the names of Linux' devices.
    pub number: u32,
    /// What kind of partition it is.
    pub type_guid: Guid,
    /// Its own GUID.
    pub guid: Guid,
    /// Its bytes on the disk.
    pub extent: Extent,
    /// Its name.
    pub name: String,
}

impl Table {
    /// Reads the table of a device with logical blocks of `block_bytes`.
    pub fn read<D: ReadAt>(device: &D, block_bytes: u64) -> Result<Self, Error<D::Error>> {
        let blocks = device.size().checked_div(block_bytes).unwrap_or(0);
        let disk = Disk { device, block_bytes, blocks };
        let primary = match disk.table(Source::Primary, Lba(1)) {
            Ok(table) => return Ok(table),
            Err(error) => error,
        };
        let last = Lba(blocks.saturating_sub(1));
        disk.table(Source::Backup, last).map_err(|backup| Error { primary, backup })
    }

    /// The partition of this slot.
    pub fn slot(&self, slot: Slot) -> Result<&Partition, FindError> {
        self.find(SLOT_TYPE, slot.partition_name())
    }

    /// The partition with the boot record.
    pub fn record(&self) -> Result<&Partition, FindError> {
        self.find(RECORD_TYPE, RECORD_NAME)
    }

    /// The data partition.
    pub fn data(&self) -> Result<&Partition, FindError> {
        self.find(DATA_TYPE, DATA_NAME)
    }

    /// The only partition of this type and name.
    pub fn find(&self, type_guid: Guid, name: &'static str) -> Result<&Partition, FindError> {
        let fits = |p: &&Partition| p.type_guid == type_guid && p.name == name;
        let mut found = self.partitions.iter().filter(fits);
        match (found.next(), found.next()) {
            (Some(partition), None) => Ok(partition),
            (None, _) => Err(FindError::Missing(name)),
            (Some(_), Some(_)) => Err(FindError::Twice(name)),
        }
    }
}

/// Largest header and entry sizes we read; the specification's are 92 and 128 bytes.
const MAX_BLOCK_BYTES: u64 = 65536;
const MAX_TABLE_BYTES: u64 = 1 << 20;
const HEADER_BYTES: usize = 92;
const MIN_ENTRY_BYTES: u32 = 128;

struct Disk<'a, D> {
    device: &'a D,
    block_bytes: u64,
    blocks: u64,
}

impl<D: ReadAt> Disk<'_, D> {
    fn table(&self, source: Source, at: Lba) -> Result<Table, CopyError<D::Error>> {
        if !(512..=MAX_BLOCK_BYTES).contains(&self.block_bytes) {
            return Err(CopyError::BlockSize(self.block_bytes));
        }
        let block = self.read(at, self.block_bytes)?;
        let header = Header::parse(&block, at)?;
        let entries = self.entries(&header)?;
        let partitions = self.partitions(&header, &entries)?;
        check_overlap(&partitions)?;
        Ok(Table { disk: header.disk, source, partitions })
    }

    fn entries(&self, header: &Header) -> Result<Vec<u8>, CopyError<D::Error>> {
        if header.last_usable.0 >= self.blocks || header.first_usable > header.last_usable {
            return Err(CopyError::Usable(header.first_usable, header.last_usable));
        }
        let length = u64::from(header.entry_count).checked_mul(u64::from(header.entry_bytes));
        let length = length.filter(|&length| length <= MAX_TABLE_BYTES);
        let entries = self.read(header.entries, length.ok_or(CopyError::TableSize)?)?;
        let found = crc32fast::hash(&entries);
        if found != header.entries_crc {
            return Err(CopyError::EntriesCrc { found, wanted: header.entries_crc });
        }
        Ok(entries)
    }

    fn read(&self, at: Lba, length: u64) -> Result<Vec<u8>, CopyError<D::Error>> {
        let offset = at.0.checked_mul(self.block_bytes);
        let end = offset.and_then(|offset| offset.checked_add(length));
        let (Some(offset), Ok(size), Some(end)) = (offset, usize::try_from(length), end) else {
            return Err(CopyError::Outside(at));
        };
        if end > self.device.size() {
            return Err(CopyError::Outside(at));
        }
        let mut bytes = vec![0; size];
        self.device.read_at(offset, &mut bytes).map_err(CopyError::Device)?;
        Ok(bytes)
    }

    fn partitions(
        &self,
        header: &Header,
        entries: &[u8],
    ) -> Result<Vec<Partition>, CopyError<D::Error>> {
        let size = usize::try_from(header.entry_bytes).map_err(|_| CopyError::TableSize)?;
        let numbered = (1..).zip(entries.chunks_exact(size));
        let used = numbered.filter(|(_, entry)| guid_at(entry, 0) != Guid::NIL);
        used.map(|(number, entry)| self.partition(header, number, entry)).collect()
    }

    fn partition(
        &self,
        header: &Header,
        number: u32,
        entry: &[u8],
    ) -> Result<Partition, CopyError<D::Error>> {
        let (first, last) = (Lba(u64_at(entry, 32)), Lba(u64_at(entry, 40)));
        let error = CopyError::Entry { number, first, last };
        if first > last || first < header.first_usable || last > header.last_usable {
            return Err(error);
        }
        let blocks = last.0.checked_sub(first.0).and_then(|blocks| blocks.checked_add(1));
        let offset = first.0.checked_mul(self.block_bytes);
        let length = blocks.and_then(|blocks| blocks.checked_mul(self.block_bytes));
        let (Some(offset), Some(length)) = (offset, length) else {
            return Err(error);
        };
        Ok(Partition {
            number,
            type_guid: guid_at(entry, 0),
            guid: guid_at(entry, 16),
            extent: Extent { offset, length },
            name: name_at(entry, 56),
        })
    }
}

/// The fields of a header under the specification's meaning, checked by themselves.
struct Header {
    first_usable: Lba,
    last_usable: Lba,
    disk: Guid,
    entries: Lba,
    entry_count: u32,
    entry_bytes: u32,
    entries_crc: u32,
}

impl Header {
    fn parse<E>(block: &[u8], at: Lba) -> Result<Self, CopyError<E>> {
        if !block.starts_with(b"EFI PART") {
            return Err(CopyError::Signature);
        }
        if u32_at(block, 8) != 0x0001_0000 {
            return Err(CopyError::Revision(u32_at(block, 8)));
        }
        let size = u32_at(block, 12);
        let header = usize::try_from(size).ok().and_then(|size| block.get(..size));
        let Some(header) = header.filter(|header| header.len() >= HEADER_BYTES) else {
            return Err(CopyError::HeaderSize(size));
        };
        let mut header = header.to_vec();
        header[16..20].fill(0); // its own checksum
        let (found, wanted) = (u32_at(block, 16), crc32fast::hash(&header));
        if found != wanted {
            return Err(CopyError::HeaderCrc { found, wanted });
        }
        if Lba(u64_at(block, 24)) != at {
            return Err(CopyError::OtherPlace(Lba(u64_at(block, 24))));
        }
        let entry_bytes = u32_at(block, 84);
        if entry_bytes < MIN_ENTRY_BYTES || !entry_bytes.is_power_of_two() {
            return Err(CopyError::EntrySize(entry_bytes));
        }
        Ok(Self {
            first_usable: Lba(u64_at(block, 40)),
            last_usable: Lba(u64_at(block, 48)),
            disk: guid_at(block, 56),
            entries: Lba(u64_at(block, 72)),
            entry_count: u32_at(block, 80),
            entry_bytes,
            entries_crc: u32_at(block, 88),
        })
    }
}

fn check_overlap<E>(partitions: &[Partition]) -> Result<(), CopyError<E>> {
    let mut sorted: Vec<_> = partitions.iter().collect();
    sorted.sort_by_key(|partition| partition.extent.offset);
    let mut pairs = sorted.iter().zip(sorted.iter().skip(1));
    match pairs.find(|(a, b)| a.extent.end().is_none_or(|end| end > b.extent.offset)) {
        Some((a, b)) => Err(CopyError::Overlap(a.number, b.number)),
        None => Ok(()),
    }
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let field = bytes.get(offset..).and_then(|rest| rest.first_chunk());
    u32::from_le_bytes(*field.unwrap_or(&[0; 4]))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    let field = bytes.get(offset..).and_then(|rest| rest.first_chunk());
    u64::from_le_bytes(*field.unwrap_or(&[0; 8]))
}

fn guid_at(bytes: &[u8], offset: usize) -> Guid {
    let field = bytes.get(offset..).and_then(|rest| rest.first_chunk());
    Guid::from_bytes(*field.unwrap_or(&[0; 16]))
}

/// A name of up to 36 UTF-16 units; what is not UTF-16 cannot be one of our names.
fn name_at(bytes: &[u8], offset: usize) -> String {
    let field = bytes.get(offset..).and_then(|rest| rest.first_chunk::<72>());
    let (units, _) = field.unwrap_or(&[0; 72]).as_chunks::<2>();
    let units = units.iter().map(|unit| u16::from_le_bytes(*unit)).take_while(|&unit| unit != 0);
    char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

/// Why a partition is not found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindError {
    /// There is none.
    Missing(&'static str),
    /// There is more than one.
    Twice(&'static str),
}

impl fmt::Display for FindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(name) => write!(f, "no partition \"{name}\" of our type"),
            Self::Twice(name) => write!(f, "more than one partition \"{name}\" of our type"),
        }
    }
}

impl core::error::Error for FindError {}

/// Neither table is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error<E> {
    /// What is wrong with the one at the start.
    pub primary: CopyError<E>,
    /// What is wrong with the one at the end.
    pub backup: CopyError<E>,
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no partition table: primary: {}; backup: {}", self.primary, self.backup)
    }
}

impl<E: fmt::Display + fmt::Debug> core::error::Error for Error<E> {}

/// What is wrong with one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyError<E> {
    /// The device failed.
    Device(E),
    /// Not a size of logical blocks.
    BlockSize(u64),
    /// Something would lie beyond the end of the device.
    Outside(Lba),
    /// No "EFI PART".
    Signature,
    /// Not revision 1.0.
    Revision(u32),
    /// A header of this size.
    HeaderSize(u32),
    /// The header's checksum is wrong.
    HeaderCrc {
        /// What the header says.
        found: u32,
        /// What its bytes add up to.
        wanted: u32,
    },
    /// The header says it belongs elsewhere.
    OtherPlace(Lba),
    /// Entries of this size.
    EntrySize(u32),
    /// The entries take too many bytes.
    TableSize,
    /// The usable blocks do not lie on the device.
    Usable(Lba, Lba),
    /// The checksum of the entries is wrong.
    EntriesCrc {
        /// What the entries add up to.
        found: u32,
        /// What the header says.
        wanted: u32,
    },
    /// A partition is not inside the usable blocks.
    Entry {
        /// Its number.
        number: u32,
        /// Its first block.
        first: Lba,
        /// Its last block.
        last: Lba,
    },
    /// These two partitions overlap.
    Overlap(u32, u32),
}

impl<E: fmt::Display> fmt::Display for CopyError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(error) => fmt::Display::fmt(error, f),
            Self::BlockSize(bytes) => write!(f, "blocks of {bytes} bytes"),
            Self::Outside(lba) => write!(f, "{lba} is beyond the end of the device"),
            Self::Signature => f.write_str("no GPT header"),
            Self::Revision(revision) => write!(f, "unknown revision {revision:#x}"),
            Self::HeaderSize(size) => write!(f, "header of {size} bytes"),
            Self::HeaderCrc { found, wanted } => {
                write!(f, "header checksum is {found:08x}, bytes add up to {wanted:08x}")
            }
            Self::OtherPlace(lba) => write!(f, "header belongs to {lba}"),
            Self::EntrySize(size) => write!(f, "entries of {size} bytes"),
            Self::TableSize => f.write_str("entries take too many bytes"),
            Self::Usable(first, last) => write!(f, "usable from {first} to {last}"),
            Self::EntriesCrc { found, wanted } => {
                write!(f, "entries add up to {found:08x}, header says {wanted:08x}")
            }
            Self::Entry { number, first, last } => {
                write!(f, "partition {number} from {first} to {last} is outside")
            }
            Self::Overlap(a, b) => write!(f, "partitions {a} and {b} overlap"),
        }
    }
}

impl<E: fmt::Display + fmt::Debug> core::error::Error for CopyError<E> {}

pub(crate) mod growth;

#[cfg(test)]
pub(crate) mod tests;
