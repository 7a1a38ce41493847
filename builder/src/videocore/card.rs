//! The card as a whole: its partition table as the boot programs read it, and their volumes.
//!
//! The image has a reader of its own for partition tables; this is a second one on purpose, of
//! nothing but what a ROM looks at, so that a mistake in the first does not excuse itself.

use ondisk::device::ReadAt;

use super::volume::Volume;
use crate::error::{Context, Result};

const SECTOR: u64 = 512;
const FIRST_ENTRY: usize = 446;
const ENTRY_BYTES: usize = 16;
/// Partition types that say FAT, hidden ones and the EFI system partition among them.
const FAT_TYPES: [u8; 13] =
    [0x01, 0x04, 0x06, 0x0B, 0x0C, 0x0E, 0x11, 0x14, 0x16, 0x1B, 0x1C, 0x1E, 0xEF];
/// The entry that stands for a whole GPT.
pub(super) const PROTECTIVE: u8 = 0xEE;

/// All that a simulated boot reads.
#[derive(Clone, Debug)]
pub(super) struct Card {
    /// Length of the image.
    pub bytes: u64,
    /// True if the first sector ends as a partition table does.
    pub signed: bool,
    /// True if the second sector is the header of a GPT.
    pub gpt: bool,
    /// Entries in use.
    pub partitions: Vec<Partition>,
}

/// An entry of the table.
#[derive(Clone, Debug)]
pub(super) struct Partition {
    /// 1 to 4.
    pub number: usize,
    /// Type byte.
    pub kind: u8,
    /// First byte.
    pub start: u64,
    /// Behind the last byte.
    pub end: u64,
    /// What a FAT type holds: a volume, or what is wrong with it.
    pub volume: Option<std::result::Result<Volume, String>>,
}

impl Card {
    /// Reads table and volumes.
    ///
    /// Errors: the image cannot be read. Whatever is wrong with its content is not an error here:
    /// that is for the simulation to stumble over.
    pub(super) fn read<D: ReadAt>(device: &D) -> Result<Self> {
        let mut sectors = [0; 2 * SECTOR as usize];
        device
            .read_at(0, &mut sectors)
            .map_err(|error| error.to_string())
            .context(|| "cannot read the first two sectors of the image".into())?;
        let (table, second) = sectors.split_at(SECTOR as usize);
        let entries = table[FIRST_ENTRY..].chunks_exact(ENTRY_BYTES).take(4).enumerate();
        let partition = |(index, entry): (usize, &[u8])| {
            let long = |at: usize| {
                u64::from(u32::from_le_bytes([
                    entry[at],
                    entry[at + 1],
                    entry[at + 2],
                    entry[at + 3],
                ]))
            };
            let start = long(8) * SECTOR;
            let end = start + long(12) * SECTOR;
            let kind = entry[4];
            let inside = end <= device.size();
            let volume =
                (FAT_TYPES.contains(&kind) && inside).then(|| Volume::read(device, &(start..end)));
            Partition { number: index + 1, kind, start, end, volume }
        };
        Ok(Self {
            bytes: device.size(),
            signed: table.ends_with(&[0x55, 0xAA]),
            gpt: second.starts_with(b"EFI PART"),
            partitions: entries.map(partition).filter(|partition| partition.kind != 0).collect(),
        })
    }
}
