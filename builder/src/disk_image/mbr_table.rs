//! Writes a master boot record with the crate `mbrman`, as `ondisk::mbr` reads it.
use std::io::Cursor;

use mbrman::{BOOT_INACTIVE, CHS, MBRHeader, MBRPartitionEntry};
use ondisk::layout::{Extent, SECTOR_BYTES, Slot};
use ondisk::mbr::TYPES;

use super::DiskLayout;
use crate::error::{Context, Error, Result};
use crate::image::sparse::Sparse;

/// What its 32 bits of sectors can name.
pub(super) const REACH_BYTES: u64 = (1 << 32) * SECTOR_BYTES;

/// Writes the first sector. The rest of its block is written too, as zeros: a card that had a GPT
/// before must not show both tables.
pub(super) fn write(image: &mut Sparse, layout: &DiskLayout, signature: u32) -> Result<()> {
    let failed = || "cannot write the partition table".to_owned();
    if signature == 0 {
        return Err(Error::new("a disk with an MBR needs a signature that is not 0"));
    }
    let mut header = MBRHeader::new(signature.to_le_bytes());
    let extents = [layout.boot, layout.slots[Slot::A], layout.slots[Slot::B], layout.data];
    for ((number, kind), extent) in (1..).zip(TYPES).zip(extents) {
        header[number] = entry(kind, extent)?;
    }
    let mut sector = Cursor::new(Vec::new());
    header.write_into(&mut sector).context(failed)?;
    image.write_at(0, &sector.into_inner())
}

/// No partition is marked active: no board of ours asks for the mark, and firmware of PCs, which
/// would, starts none of them.
fn entry(kind: u8, extent: Extent) -> Result<MBRPartitionEntry> {
    // Cylinders and heads cannot name these places; this is what says so.
    let nowhere = CHS::new(1023, 254, 63);
    let sectors = |bytes: u64| {
        let number = u32::try_from(bytes / SECTOR_BYTES);
        number.context(|| format!("{bytes} bytes are out of reach of an MBR"))
    };
    Ok(MBRPartitionEntry {
        boot: BOOT_INACTIVE,
        first_chs: nowhere,
        sys: kind,
        last_chs: nowhere,
        starting_lba: sectors(extent.offset)?,
        sectors: sectors(extent.length)?,
    })
}
