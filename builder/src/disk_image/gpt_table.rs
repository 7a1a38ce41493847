//! Writes a GUID partition table (UEFI specification, chapter 5) with the crate `gpt`.
use std::collections::BTreeMap;

use gpt::mbr::ProtectiveMBR;
use gpt::partition::Partition as Entry;
use gpt::partition_types::{OperatingSystem, Type};
use ondisk::guid::Guid;
use ondisk::layout::{
    DATA_NAME, DATA_TYPE, ESP_NAME, ESP_TYPE, Extent, RECORD_NAME, RECORD_TYPE, SECTOR_BYTES,
    SLOT_TYPE, Slot,
};

use super::{DiskIds, DiskLayout};
use crate::error::{Context, Result};
use crate::image::sparse::{Sparse, Window};

/// A line of the partition table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Partition {
    /// Its name.
    pub(super) name: &'static str,
    /// What kind of partition it is.
    pub(super) type_guid: Guid,
    /// Its own GUID.
    pub(super) guid: Guid,
    /// Its bytes on the disk.
    pub(super) extent: Extent,
}

/// The partitions, in the order of the table.
pub(super) fn partitions(layout: &DiskLayout, ids: &DiskIds) -> Vec<Partition> {
    let line = |name, type_guid, guid, extent| Partition { name, type_guid, guid, extent };
    let slot =
        |slot: Slot| line(slot.partition_name(), SLOT_TYPE, ids.slots[slot], layout.slots[slot]);
    vec![
        line(ESP_NAME, ESP_TYPE, ids.boot, layout.boot),
        line(RECORD_NAME, RECORD_TYPE, ids.record, layout.record),
        slot(Slot::A),
        slot(Slot::B),
        line(DATA_NAME, DATA_TYPE, ids.data, layout.data),
    ]
}

/// Writes both copies of the table and the MBR that keeps other tools off.
pub(super) fn write(image: &mut Sparse, layout: &DiskLayout, ids: &DiskIds) -> Result<()> {
    let failed = || "cannot write the partition table".to_owned();
    let entries = table_entries(layout, ids)?;
    let mut window = image.window(0..layout.length)?;
    // The UEFI specification: as many sectors as there are behind the first, or all ones.
    let behind = u32::try_from(layout.length / SECTOR_BYTES - 1).unwrap_or(u32::MAX);
    ProtectiveMBR::with_lb_size(behind).overwrite_lba0(&mut window).context(failed)?;
    let mut table: gpt::GptDisk<Window<'_>> = gpt::GptConfig::new()
        .writable(true)
        .create_from_device(window, Some(ids.disk.to_string().parse().context(failed)?))
        .context(failed)?;
    table.update_partitions(entries).context(failed)?;
    table.write().context(failed)?;
    // Both checksums cover all 128 entries, most of which are zeros.
    image.keep_zeros(0..TABLE_BYTES + SECTOR_BYTES)?;
    image.keep_zeros(layout.length - TABLE_BYTES..layout.length)
}

/// Header and entries: what each copy of the table takes.
const TABLE_BYTES: u64 = 33 * SECTOR_BYTES;

fn table_entries(layout: &DiskLayout, ids: &DiskIds) -> Result<BTreeMap<u32, Entry>> {
    let entry = |partition: Partition| -> Result<Entry> {
        let failed = || format!("partition {}: bad GUID", partition.name);
        let Extent { offset, length } = partition.extent;
        Ok(Entry {
            part_type_guid: Type {
                guid: partition.type_guid.to_string().parse().context(failed)?,
                os: OperatingSystem::None,
            },
            part_guid: partition.guid.to_string().parse().context(failed)?,
            first_lba: offset / SECTOR_BYTES,
            last_lba: (offset + length) / SECTOR_BYTES - 1,
            flags: 0,
            name: partition.name.to_owned(),
        })
    };
    (1..).zip(partitions(layout, ids)).map(|(number, line)| Ok((number, entry(line)?))).collect()
}
