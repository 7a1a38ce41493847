//! Reads a master boot record with our four partitions: the table of boards whose first stages
//! know no other (Raspberry Pi).
//!
//! ```text
//! 0      4 MiB     8 MiB      12 MiB  16 MiB
//! │ MBR │ record 1 │ record 2 │       │ 1 boot (0x0c) │ 2 slot A │ 3 slot B │ 4 data │
//! ```
//! Only a table that is ours to the last entry counts: types in this order, inside the disk, apart
//! from each other, and the gap of the record free. There is one copy of it, as for every such
//! disk; a disk that has lost it does not start.
//!
//! Layout: UEFI specification, 5.2.1 (legacy MBR). Addresses of cylinders and heads are not read.
use core::fmt;

use crate::device::ReadAt;
use crate::layout::{
    Extent, MBR_BOOT_TYPE, MBR_DATA_TYPE, MBR_RECORD, MBR_SLOT_TYPE, PARTITION_ALIGNMENT_BYTES,
    SECTOR_BYTES,
};

/// The types of our partitions, in the order of the table.
pub const TYPES: [u8; 4] = [MBR_BOOT_TYPE, MBR_SLOT_TYPE, MBR_SLOT_TYPE, MBR_DATA_TYPE];

const SIGNATURE_OFFSET: usize = 440;
const ENTRIES_OFFSET: usize = 446;
const ENTRY_BYTES: usize = 16;
const MAGIC: [u8; 2] = [0x55, 0xAA];
/// Where the last entry counts the sectors of its partition.
const LAST_COUNT_OFFSET: usize = ENTRIES_OFFSET + 3 * ENTRY_BYTES + 12;
/// The longest partition: sectors are counted in 32 bits.
const MOST_BYTES: u64 = 0xffff_ffff * SECTOR_BYTES;

/// A table of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// What tells this disk from others; never 0.
    pub signature: u32,
    /// Boot, slot A, slot B and data: partitions 1 to 4.
    pub partitions: [Extent; 4],
}

impl Table {
    /// Reads the table of a device with logical blocks of `block_bytes`.
    pub fn read<D: ReadAt>(device: &D, block_bytes: u64) -> Result<Self, Error<D::Error>> {
        if block_bytes != SECTOR_BYTES {
            return Err(Error::BlockSize(block_bytes));
        }
        let mut sector = [0; 512];
        device.read_at(0, &mut sector).map_err(Error::Device)?;
        Self::parse(&sector, device.size())
    }

    fn parse<E>(sector: &[u8; 512], device_bytes: u64) -> Result<Self, Error<E>> {
        if !sector.ends_with(&MAGIC) {
            return Err(Error::Magic);
        }
        let mut partitions = [Extent { offset: 0, length: 0 }; 4];
        let entries = sector.get(ENTRIES_OFFSET..).unwrap_or_default().chunks_exact(ENTRY_BYTES);
        for (((number, entry), wanted), extent) in
            (1..).zip(entries).zip(TYPES).zip(&mut partitions)
        {
            let found = *entry.get(4).unwrap_or(&0);
            if found != wanted {
                return Err(Error::Type { number, found, wanted });
            }
            *extent = extent_of(entry).ok_or(Error::Empty(number))?;
            if extent.end().is_none_or(|end| end > device_bytes) {
                return Err(Error::Outside(number));
            }
        }
        check_order(&partitions)?;
        match u32_at(sector, SIGNATURE_OFFSET) {
            0 => Err(Error::NoSignature),
            signature => Ok(Self { signature, partitions }),
        }
    }
}

/// The first sector with the last partition as long as the disk allows, and that partition's
/// bytes; it does not become shorter.
pub(crate) fn grown<D: ReadAt>(device: &D, table: &Table) -> Result<(u64, [u8; 512]), D::Error> {
    let mut sector = [0; 512];
    device.read_at(0, &mut sector)?;
    let [.., last] = table.partitions;
    let most = device.size().saturating_sub(last.offset).min(MOST_BYTES);
    let most = most.saturating_sub(most.checked_rem(PARTITION_ALIGNMENT_BYTES).unwrap_or(0));
    let length = most.max(last.length);
    let sectors = length.checked_div(SECTOR_BYTES).and_then(|sectors| u32::try_from(sectors).ok());
    let count = sector.get_mut(LAST_COUNT_OFFSET..).and_then(|rest| rest.first_chunk_mut());
    if let (Some(sectors), Some(count)) = (sectors, count) {
        *count = sectors.to_le_bytes();
    }
    Ok((length, sector))
}

/// Each partition starts after the end of the one before; the first one after the record.
fn check_order<E>(partitions: &[Extent; 4]) -> Result<(), Error<E>> {
    let mut end = MBR_RECORD.end();
    for (number, extent) in (1..).zip(partitions) {
        if end.is_none_or(|end| extent.offset < end) {
            return Err(Error::Order(number));
        }
        end = extent.end();
    }
    Ok(())
}

fn extent_of(entry: &[u8]) -> Option<Extent> {
    let bytes = |sectors: u32| u64::from(sectors).checked_mul(SECTOR_BYTES);
    let (first, length) = (bytes(u32_at(entry, 8))?, bytes(u32_at(entry, 12))?);
    (length > 0).then_some(Extent { offset: first, length })
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let field = bytes.get(offset..).and_then(|rest| rest.first_chunk());
    u32::from_le_bytes(*field.unwrap_or(&[0; 4]))
}

/// Why there is no table of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error<E> {
    /// The device failed.
    Device(E),
    /// Only disks with blocks of 512 bytes have such a table.
    BlockSize(u64),
    /// The first sector does not end as an MBR does.
    Magic,
    /// An entry has another type than ours; 0xee is what a GPT puts here.
    Type {
        /// Its number.
        number: u32,
        /// Its type.
        found: u8,
        /// What ours has there.
        wanted: u8,
    },
    /// A partition has no sectors.
    Empty(u32),
    /// A partition does not end on the disk.
    Outside(u32),
    /// A partition starts before the end of what lies before it.
    Order(u32),
    /// The disk has no signature.
    NoSignature,
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(error) => fmt::Display::fmt(error, f),
            Self::BlockSize(bytes) => write!(f, "blocks of {bytes} bytes"),
            Self::Magic => f.write_str("no MBR"),
            Self::Type { number, found, wanted } => {
                write!(f, "partition {number} has type {found:#04x}, not {wanted:#04x}")
            }
            Self::Empty(number) => write!(f, "partition {number} is empty"),
            Self::Outside(number) => write!(f, "partition {number} is outside"),
            Self::Order(number) => {
                write!(f, "partition {number} starts before the end of what lies before it")
            }
            Self::NoSignature => f.write_str("the disk has no signature"),
        }
    }
}

impl<E: fmt::Display + fmt::Debug> core::error::Error for Error<E> {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    const MIB: u64 = 1 << 20;
    const DISK_BYTES: u64 = 64 * MIB;

    /// A table as one would write it by hand: boot 16 + 8 MiB, slots 8 MiB each, data 16 MiB.
    fn sector() -> [u8; 512] {
        let mut sector = [0; 512];
        sector[440..444].copy_from_slice(&0x0bad_cafe_u32.to_le_bytes());
        let partitions = [(0x0c_u8, 16, 8), (0xda, 24, 8), (0xda, 32, 8), (0x83, 40, 16)];
        for (number, (kind, start, length)) in partitions.into_iter().enumerate() {
            let entry = &mut sector[446 + 16 * number..][..16];
            entry[4] = kind;
            entry[8..12].copy_from_slice(&(start * 2048_u32).to_le_bytes());
            entry[12..].copy_from_slice(&(length * 2048_u32).to_le_bytes());
        }
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        sector
    }

    fn parse(change: impl FnOnce(&mut [u8; 512])) -> Result<Table, Error<&'static str>> {
        let mut sector = sector();
        change(&mut sector);
        Table::parse(&sector, DISK_BYTES)
    }

    #[test]
    fn our_own_table_is_read() {
        let extent = |start, length| Extent { offset: start * MIB, length: length * MIB };
        let partitions = [extent(16, 8), extent(24, 8), extent(32, 8), extent(40, 16)];
        assert_eq!(parse(|_| ()), Ok(Table { signature: 0x0bad_cafe, partitions }));
    }

    #[test]
    fn a_sector_with_one_thing_wrong_is_no_table_of_ours() {
        let check = |change: fn(&mut [u8; 512]), expected: &str| {
            assert_eq!(parse(change).unwrap_err().to_string(), expected);
        };
        check(|sector| sector[511] = 0, "no MBR");
        check(|sector| sector[450] = 0xee, "partition 1 has type 0xee, not 0x0c");
        check(|sector| sector[450] = 0xef, "partition 1 has type 0xef, not 0x0c");
        check(|sector| sector[498] = 0, "partition 4 has type 0x00, not 0x83");
        check(|sector| sector[458..462].fill(0), "partition 1 is empty");
        check(|sector| sector[509] = 0xff, "partition 4 is outside");
        check(|sector| sector[457] = 0xff, "partition 1 is outside");
        let early = "starts before the end of what lies before it";
        // 12 MiB less one sector, where the second copy of the record may still reach.
        check(
            |sector| sector[454..458].copy_from_slice(&(12 * 2048_u32 - 1).to_le_bytes()),
            &alloc::format!("partition 1 {early}"),
        );
        check(
            |sector| sector[486..490].copy_from_slice(&(31 * 2048_u32).to_le_bytes()),
            &alloc::format!("partition 3 {early}"),
        );
        check(|sector| sector[440..444].fill(0), "the disk has no signature");
    }

    #[test]
    fn a_disk_with_large_blocks_has_none() {
        let disk = sector().repeat(8);
        assert_eq!(Table::read(&disk, 4096), Err(Error::BlockSize(4096)));
    }
}
