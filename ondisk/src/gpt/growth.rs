//! A GPT whose last partition ends where a larger disk does.
use alloc::vec::Vec;

use super::{CopyError, Disk, Header, Lba, Partition, Source, Table, u32_at};
use crate::device::ReadAt;
use crate::growth::Piece;
use crate::layout::PARTITION_ALIGNMENT_BYTES;

/// Where a primary table has its entries, as every program of our time puts them.
const PRIMARY_ENTRIES: Lba = Lba(2);

/// The two copies of a table that is to be written: entries and header of each.
pub(crate) struct Grown {
    /// Bytes of the partition.
    pub(crate) length: u64,
    /// The copy at the end of the disk.
    pub(crate) backup: [Piece; 2],
    /// The copy at its start.
    pub(crate) primary: [Piece; 2],
}

/// Both copies with `last`, the last partition of the disk, as long as the disk allows; it does
/// not become shorter.
///
/// The protective MBR stays as it is: firmware does not look at the size in it, and of that sector
/// there is no second copy.
pub(crate) fn grown<D: ReadAt>(
    device: &D,
    block_bytes: u64,
    table: &Table,
    last: &Partition,
) -> Result<Grown, CopyError<D::Error>> {
    let blocks = device.size().checked_div(block_bytes).unwrap_or(0);
    let disk = Disk { device, block_bytes, blocks };
    let end_of_disk = Lba(blocks.saturating_sub(1));
    let at = if table.source == Source::Primary { Lba(1) } else { end_of_disk };
    let block = disk.read(at, block_bytes)?;
    let header = Header::parse(&block, at)?;
    let mut entries = disk.entries(&header)?;

    let bytes = u64::try_from(entries.len()).map_err(|_| CopyError::TableSize)?;
    let blocks_of_entries = bytes.div_ceil(block_bytes);
    let backup_entries = Lba(end_of_disk.0.saturating_sub(blocks_of_entries));
    let last_usable = Lba(backup_entries.0.saturating_sub(1));
    if PRIMARY_ENTRIES.0.saturating_add(blocks_of_entries) > header.first_usable.0 {
        return Err(CopyError::Usable(header.first_usable, last_usable));
    }
    let length = length_up_to(backup_entries, block_bytes, last);
    set_length(&mut entries, &header, block_bytes, last, length)?;

    let mut header = Fields { block, last_usable, entries_crc: crc32fast::hash(&entries) };
    let piece = |at: Lba, bytes: Vec<u8>| Piece { offset: at.0.saturating_mul(block_bytes), bytes };
    let mut copy = |at, other, entries_at, entries: Vec<u8>| {
        [piece(entries_at, entries), piece(at, header.bytes(at, other, entries_at))]
    };
    Ok(Grown {
        length,
        backup: copy(end_of_disk, Lba(1), backup_entries, entries.clone()),
        primary: copy(Lba(1), end_of_disk, PRIMARY_ENTRIES, entries),
    })
}

/// Bytes from the start of a partition to the last multiple of the alignment before a block.
fn length_up_to(end: Lba, block_bytes: u64, partition: &Partition) -> u64 {
    let end = end.0.saturating_mul(block_bytes);
    let end = end.saturating_sub(end.checked_rem(PARTITION_ALIGNMENT_BYTES).unwrap_or(0));
    end.saturating_sub(partition.extent.offset).max(partition.extent.length)
}

fn set_length<E>(
    entries: &mut [u8],
    header: &Header,
    block_bytes: u64,
    partition: &Partition,
    length: u64,
) -> Result<(), CopyError<E>> {
    let size = usize::try_from(header.entry_bytes).map_err(|_| CopyError::TableSize)?;
    let index = usize::try_from(partition.number).ok().and_then(|number| number.checked_sub(1));
    let entry = index.and_then(|index| entries.chunks_exact_mut(size).nth(index));
    let end = partition.extent.offset.saturating_add(length).checked_div(block_bytes);
    let last = end.and_then(|end| end.checked_sub(1)).ok_or(CopyError::TableSize)?;
    put(entry.ok_or(CopyError::TableSize)?, 40, &last.to_le_bytes());
    Ok(())
}

/// A header that is written anew.
struct Fields {
    block: Vec<u8>,
    last_usable: Lba,
    entries_crc: u32,
}

impl Fields {
    /// The block of the header that lies at `at`.
    fn bytes(&mut self, at: Lba, other: Lba, entries: Lba) -> Vec<u8> {
        let block = &mut self.block;
        put(block, 24, &at.0.to_le_bytes());
        put(block, 32, &other.0.to_le_bytes());
        put(block, 48, &self.last_usable.0.to_le_bytes());
        put(block, 72, &entries.0.to_le_bytes());
        put(block, 88, &self.entries_crc.to_le_bytes());
        put(block, 16, &[0; 4]);
        let size = usize::try_from(u32_at(block, 12)).unwrap_or(0);
        let crc = crc32fast::hash(block.get(..size).unwrap_or_default());
        put(block, 16, &crc.to_le_bytes());
        block.clone()
    }
}

/// Fields lie inside: their structure was parsed before.
fn put(target: &mut [u8], offset: usize, bytes: &[u8]) {
    let place = target.get_mut(offset..).and_then(|rest| rest.get_mut(..bytes.len()));
    if let Some(place) = place {
        place.copy_from_slice(bytes);
    }
}
