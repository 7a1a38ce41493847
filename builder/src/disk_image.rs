//! The image of a whole disk: partition table, boot partition, record, slots and data.
//!
//! ```text
//! 0       4 MiB                                                     end − 4 MiB
//! │ GPT   │ boot (FAT32) │ record │ slot-a │ slot-b (hole) │ data (ext4) │ backup GPT │
//! ```
//!
//! [`DiskLayout::plan`] decides where everything lies and has no I/O; [`write`] puts it there.
//! Guarantees: every partition starts and ends on a multiple of 4 MiB; all identities are inputs;
//! what is empty stays a hole; the image appears complete or not at all.

use std::collections::BTreeMap;
use std::path::Path;

use gpt::mbr::ProtectiveMBR;
use gpt::partition::Partition as Entry;
use gpt::partition_types::{OperatingSystem, Type};
use ondisk::guid::Guid;
use ondisk::layout::{
    DATA_NAME, DATA_TYPE, ESP_NAME, ESP_TYPE, Extent, PARTITION_ALIGNMENT_BYTES, PerSlot,
    RECORD_NAME, RECORD_OFFSETS, RECORD_PARTITION_BYTES, RECORD_TYPE, SECTOR_BYTES, SLOT_TYPE,
    Slot,
};

use crate::board::Layout;
use crate::error::{Context, Error, Result};
use crate::image::ext4;
use crate::image::fat::{self, FatFile};
use crate::image::sparse::{Sparse, SparseImage, Window};

/// Where everything lies on a disk. Holding one proves: extents are whole multiples of 4 MiB,
/// follow each other in the order of the fields, and leave room for both partition tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskLayout {
    length: u64,
    boot: Extent,
    record: Extent,
    slots: PerSlot<Extent>,
    data: Extent,
}

/// The identities of a disk and its partitions, derived from the build's inputs by the caller.
#[derive(Clone, Copy, Debug)]
pub struct DiskGuids {
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

/// A line of the partition table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its name.
    pub name: &'static str,
    /// What kind of partition it is.
    pub type_guid: Guid,
    /// Its own GUID.
    pub guid: Guid,
    /// Its bytes on the disk.
    pub extent: Extent,
}

impl DiskLayout {
    /// Lays the partitions out one behind the other.
    pub fn plan(sizes: &Layout) -> Result<Self> {
        // The table's 34 sectors need 17 KiB; the first partition starts on an erase block.
        let mut next = PARTITION_ALIGNMENT_BYTES;
        let mut take = |name: &str, length: u64| {
            if length == 0 || !length.is_multiple_of(PARTITION_ALIGNMENT_BYTES) {
                return Err(Error::new(format!(
                    "partition {name}: {length} bytes are not a whole multiple of 4 MiB"
                )));
            }
            let extent = Extent { offset: next, length };
            next = extent.end().filter(|end| *end <= LARGEST_DISK).ok_or_else(|| {
                let offset = extent.offset;
                Error::new(format!(
                    "partition {name}: {length} bytes at {offset} go beyond the largest disk, \
                     {LARGEST_DISK} bytes"
                ))
            })?;
            Ok(extent)
        };
        let boot = take(ESP_NAME, sizes.boot_bytes)?;
        let record = take(RECORD_NAME, RECORD_PARTITION_BYTES)?;
        let slots = PerSlot {
            a: take(Slot::A.partition_name(), sizes.slot_bytes)?,
            b: take(Slot::B.partition_name(), sizes.slot_bytes)?,
        };
        let data = take(DATA_NAME, sizes.data_bytes)?;
        Ok(Self { length: next + PARTITION_ALIGNMENT_BYTES, boot, record, slots, data })
    }

    /// Length of the whole disk.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The boot partition.
    pub fn boot(&self) -> Extent {
        self.boot
    }

    /// The record partition.
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

    /// The partition table, in order.
    pub fn partitions(&self, guids: &DiskGuids) -> Vec<Partition> {
        let line = |name, type_guid, guid, extent| Partition { name, type_guid, guid, extent };
        let slot = |slot: Slot| {
            line(slot.partition_name(), SLOT_TYPE, guids.slots[slot], self.slots[slot])
        };
        vec![
            line(ESP_NAME, ESP_TYPE, guids.boot, self.boot),
            line(RECORD_NAME, RECORD_TYPE, guids.record, self.record),
            slot(Slot::A),
            slot(Slot::B),
            line(DATA_NAME, DATA_TYPE, guids.data, self.data),
        ]
    }
}

/// 16 TiB: what the data partition's file system can be grown to.
const LARGEST_DISK: u64 = 1 << 44;

/// Writes the image of a whole disk.
pub fn write(
    target: &Path,
    layout: &DiskLayout,
    guids: &DiskGuids,
    contents: &Contents<'_>,
) -> Result<SparseImage> {
    check_slot(layout, contents.slot)?;
    let mut image = Sparse::create(target, layout.length)?;
    let boot = range(layout.boot);
    fat::write(&mut image, boot, contents.boot_volume, contents.boot_files)?;
    for (offset, copy) in RECORD_OFFSETS.into_iter().zip(contents.record) {
        image.write_at(layout.record.offset + offset, copy)?;
    }
    image.copy_image(contents.slot, layout.slots.a.offset)?;
    ext4::write(&mut image, range(layout.data), contents.data_identity, contents.data_directories)?;
    // Last, as a disk without a table is nobody's disk.
    write_table(&mut image, layout, guids)?;
    image.finish()
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

fn write_table(image: &mut Sparse, layout: &DiskLayout, guids: &DiskGuids) -> Result<()> {
    let failed = || "cannot write the partition table".to_owned();
    let entries = table_entries(layout, guids)?;
    let mut window = image.window(0..layout.length)?;
    // The UEFI specification: as many sectors as there are behind the first, or all ones.
    let behind = u32::try_from(layout.length / SECTOR_BYTES - 1).unwrap_or(u32::MAX);
    ProtectiveMBR::with_lb_size(behind).overwrite_lba0(&mut window).context(failed)?;
    let mut table: gpt::GptDisk<Window<'_>> = gpt::GptConfig::new()
        .writable(true)
        .create_from_device(window, Some(guids.disk.to_string().parse().context(failed)?))
        .context(failed)?;
    table.update_partitions(entries).context(failed)?;
    table.write().context(failed)?;
    Ok(())
}

fn table_entries(layout: &DiskLayout, guids: &DiskGuids) -> Result<BTreeMap<u32, Entry>> {
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
    (1..).zip(layout.partitions(guids)).map(|(number, line)| Ok((number, entry(line)?))).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::PathBuf;

    use expect_test::expect;
    use ondisk::device::FileDevice;
    use ondisk::gpt::{Source, Table};
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::board;
    use crate::hex;
    use crate::image::foreign;
    use crate::tree::{Content, TreePath};

    const MIB: u64 = 1 << 20;

    fn sizes() -> Layout {
        Layout {
            table: board::Table::Gpt,
            boot_bytes: 64 * MIB,
            slot_bytes: 16 * MIB,
            data_bytes: 192 * MIB,
        }
    }

    fn guids() -> DiskGuids {
        let guid = |number: u8| Guid::from_hash(&[number; 32]);
        DiskGuids {
            disk: guid(1),
            boot: guid(2),
            record: guid(3),
            slots: PerSlot { a: guid(4), b: guid(5) },
            data: guid(6),
        }
    }

    fn slot(directory: &Path, length: u64) -> SparseImage {
        let mut slot = Sparse::create(&directory.join("slot.img"), length).unwrap();
        slot.write_at(0, &[0xAA; 10_000]).unwrap();
        slot.write_at(length - 4096, &[0xBB; 4096]).unwrap();
        slot.finish().unwrap()
    }

    fn disk(directory: &Path) -> Result<SparseImage> {
        let layout = DiskLayout::plan(&sizes())?;
        let loader =
            FatFile { path: "EFI/BOOT/BOOTAA64.EFI".into(), content: Content::bytes([0x4D; 5000]) };
        let engine =
            ext4::Directory { path: TreePath::new("docker")?, mode: 0o710, uid: 0, gid: 0 };
        let contents = Contents {
            boot_volume: fat::Volume { id: 7, label: "BOOT" },
            boot_files: &[loader],
            record: [&[0x11; 512], &[0x22; 512]],
            slot: &slot(directory, 16 * MIB),
            data_identity: ext4::Identity {
                uuid: [8; 16],
                hash_seed: [9; 16],
                label: "data",
                time: 1_700_000_000,
            },
            data_directories: &[engine],
        };
        write(&directory.join("disk.img"), &layout, &guids(), &contents)
    }

    fn made() -> (tempfile::TempDir, PathBuf, SparseImage) {
        let directory = tempfile::tempdir().unwrap();
        let image = disk(directory.path()).unwrap();
        (directory, image.path.clone(), image)
    }

    #[test]
    fn the_layout_of_a_board_is_this() {
        let layout = DiskLayout::plan(&sizes()).unwrap();
        let mut text = format!("disk {} MiB\n", layout.length() / MIB);
        for Partition { name, extent, .. } in layout.partitions(&guids()) {
            text += &format!("{name} {} + {}\n", extent.offset / MIB, extent.length / MIB);
        }
        expect![[r#"
            disk 304 MiB
            boot 4 + 64
            record 68 + 8
            slot-a 76 + 16
            slot-b 92 + 16
            data 108 + 192
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn sizes_that_cannot_be_partitions_are_refused_with_the_size() {
        let refused = |change: fn(&mut Layout), message: &str| {
            let mut sizes = sizes();
            change(&mut sizes);
            let error = DiskLayout::plan(&sizes).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        };
        refused(|sizes| sizes.boot_bytes = 0, "partition boot: 0 bytes are not");
        refused(|sizes| sizes.slot_bytes += 512, "partition slot-a: 16777728 bytes are not");
        refused(|sizes| sizes.data_bytes = 1 << 44, "partition data: 17592186044416 bytes at ");
        refused(|sizes| sizes.data_bytes = u64::MAX - 4 * MIB + 1, "partition data: ");
    }

    #[test]
    fn a_slot_that_is_not_as_long_as_its_partition_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let layout = DiskLayout::plan(&sizes()).unwrap();
        let error = check_slot(&layout, &slot(directory.path(), 20 * MIB)).unwrap_err();
        assert!(
            error.to_string().ends_with("20971520 bytes are not the slot partition's 16777216"),
            "{error}"
        );
        assert!(error.next_step().is_some());
    }

    #[test]
    fn our_own_reader_finds_every_partition_in_both_tables() {
        let (_directory, path, _) = made();
        let layout = DiskLayout::plan(&sizes()).unwrap();
        let check = |source: Source| {
            let device = FileDevice::new(File::open(&path).unwrap()).unwrap();
            let table = Table::read(&device, SECTOR_BYTES).unwrap();
            assert_eq!((table.source, table.disk), (source, guids().disk));
            assert_eq!(table.partitions.len(), 5);
            for (found, planned) in table.partitions.iter().zip(layout.partitions(&guids())) {
                assert_eq!(found.name, planned.name);
                assert_eq!((found.type_guid, found.guid), (planned.type_guid, planned.guid));
                assert_eq!(found.extent, planned.extent);
            }
        };
        check(Source::Primary);
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[0; 512], 512).unwrap();
        check(Source::Backup);
    }

    #[test]
    fn the_protective_mbr_covers_the_whole_disk() {
        let (_directory, path, image) = made();
        let mbr = fs::read(path).unwrap()[..512].to_vec();
        let sectors = u32::try_from(image.length / 512 - 1).unwrap().to_le_bytes();
        assert!(mbr[..446].iter().all(|byte| *byte == 0));
        assert_eq!(mbr[446..458], [0, 0, 2, 0, 0xEE, 0xFF, 0xFF, 0xFF, 1, 0, 0, 0]);
        assert_eq!(mbr[458..462], sectors);
        assert!(mbr[462..510].iter().all(|byte| *byte == 0));
        assert_eq!(mbr[510..], [0x55, 0xAA]);
    }

    #[test]
    fn foreign_tools_accept_every_part() {
        let (_directory, path, _) = made();
        let name = path.to_str().unwrap();
        let layout = DiskLayout::plan(&sizes()).unwrap();
        if let Some(sgdisk) = foreign::tool("sgdisk") {
            let text = sgdisk.run(&["-v", name]);
            assert!(text.contains("No problems found."), "{text}");
            assert!(!text.contains("Caution") && !text.contains("Warning"), "{text}");
            let text = sgdisk.run(&["-p", name]);
            assert!(text.contains("First usable sector is 34, last usable sector is"), "{text}");
        }
        if let Some(mtools) = foreign::tool("mtools") {
            let boot = format!("{name}@@{}", layout.boot().offset);
            let text = mtools.run(&["-c", "mdir", "-i", &boot, "-b", "::/EFI/BOOT"]);
            assert_eq!(text, "::/EFI/BOOT/BOOTAA64.EFI\n");
        }
        if let Some(e2fsck) = foreign::tool("e2fsck") {
            let data = format!("{name}?offset={}", layout.data().offset);
            e2fsck.run(&["-fn", &data]);
        }
    }

    #[test]
    fn record_and_slot_lie_where_the_loader_looks_and_slot_b_is_a_hole() {
        let (directory, path, image) = made();
        let layout = DiskLayout::plan(&sizes()).unwrap();
        let bytes = fs::read(path).unwrap();
        let at = |offset: u64, length: usize| &bytes[offset as usize..][..length];
        assert_eq!(at(layout.record().offset, 512), [0x11; 512]);
        assert_eq!(at(layout.record().offset + 4 * MIB, 512), [0x22; 512]);
        let slot = fs::read(directory.path().join("slot.img")).unwrap();
        assert!(at(layout.slot(Slot::A).offset, slot.len()) == slot);
        let Extent { offset, length } = layout.slot(Slot::B);
        let mut mapped = image.mapped.iter();
        assert!(mapped.all(|range| range.end <= offset || range.start >= offset + length));
    }

    #[test]
    fn the_same_inputs_give_the_same_bytes() {
        let (_directory, path, _) = made();
        expect!["973b374403473a79187f6865f201086e83ec5c015569afc601e84abe601875f6"]
            .assert_eq(&hex::encode(Sha256::digest(fs::read(path).unwrap())));
    }
}
