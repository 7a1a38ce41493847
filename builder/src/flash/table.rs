//! The partition table of a card: where its boot partition is, and its backup at the card's end.

use std::io;
use std::ops::Range;

use gpt::GptConfig;
use gpt::mbr::ProtectiveMBR;
use ondisk::device::ReadAt;
use ondisk::gpt::{Source, Table};
use ondisk::layout::SECTOR_BYTES;
use ondisk::partition_table::{self, PartitionTable};

use super::changes::Overlay;
use crate::error::{Context, Error, Result};

/// The bytes of the partition that firmware reads.
pub fn boot_partition<D: ReadAt<Error = io::Error>>(card: &Overlay<'_, D>) -> Result<Range<u64>> {
    let failed = || "cannot find the boot partition".to_owned();
    let table = PartitionTable::read(card, SECTOR_BYTES).context(failed)?;
    let extent = table.boot().context(failed)?.extent;
    let end = extent.end().ok_or_else(|| Error::new(failed()))?;
    Ok(extent.offset..end)
}

/// What became of the backup of the partition table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backup {
    /// It is where the image has it: at the card's end, or there is none.
    AsInTheImage,
    /// Moved to the card's end.
    Moved,
    /// The card is larger, and a table like this one is better left alone.
    LeftInTheMiddle,
}

/// Moves the backup of a GUID partition table to the end of a card that is larger than the image,
/// where the specification has it; the space behind the image can be used then.
pub fn move_backup<D>(card: &mut Overlay<'_, D>, image_bytes: u64) -> Result<Backup>
where
    D: ReadAt<Error = io::Error> + std::fmt::Debug,
{
    let of_mbr = PartitionTable::read(card, SECTOR_BYTES)
        .is_ok_and(|table| table.source == partition_table::Source::Mbr);
    let before = match Table::read(card, SECTOR_BYTES) {
        Ok(table) if card.size() > image_bytes && !of_mbr => table,
        _ => return Ok(Backup::AsInTheImage),
    };
    // The crate writes entries one behind the other: those of a table with gaps would be renamed.
    let numbers = before.partitions.iter().map(|partition| partition.number);
    if before.source != Source::Primary || !numbers.eq((1..).take(before.partitions.len())) {
        return Ok(Backup::LeftInTheMiddle);
    }
    let failed = || "cannot move the backup of the partition table".to_owned();
    let card_bytes = card.size() / SECTOR_BYTES * SECTOR_BYTES;
    let mut window = card.window(0..card_bytes);
    let behind = u32::try_from(card_bytes / SECTOR_BYTES - 1).unwrap_or(u32::MAX);
    ProtectiveMBR::with_lb_size(behind).update_conservative(&mut window).context(failed)?;
    let mut disk = GptConfig::new().writable(true).open_from_device(window).context(failed)?;
    let partitions = disk.partitions().clone();
    disk.update_partitions(partitions).context(failed)?;
    disk.write().context(failed)?;
    let after = Table::read(card, SECTOR_BYTES).context(failed)?;
    if after != before {
        return Err(Error::caused(failed(), "the partitions would not be the same"));
    }
    Ok(Backup::Moved)
}
