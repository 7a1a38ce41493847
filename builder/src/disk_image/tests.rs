//! Disk images against foreign tools, our own readers, a text dump and a pinned digest.
use std::fs::{self, File};
use std::path::PathBuf;

use expect_test::expect;
use ondisk::boot_args::DiskId;
use ondisk::device::FileDevice;
use ondisk::gpt::{Source, Table};
use ondisk::partition_table::PartitionTable;
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

fn guids() -> DiskIds {
    let guid = |number: u8| Guid::from_hash(&[number; 32]);
    DiskIds {
        signature: 0x0bad_cafe,
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

fn mbr_sizes() -> Layout {
    Layout { table: board::Table::Mbr, ..sizes() }
}

fn disk(directory: &Path) -> Result<SparseImage> {
    disk_of(directory, &sizes())
}

fn disk_of(directory: &Path, sizes: &Layout) -> Result<SparseImage> {
    accepted_by(directory, sizes, |_| Ok(()))
}

fn accepted_by(
    directory: &Path,
    sizes: &Layout,
    accept: impl FnOnce(&File) -> Result<()>,
) -> Result<SparseImage> {
    let layout = DiskLayout::plan(sizes)?;
    let loader =
        FatFile { path: "EFI/BOOT/BOOTAA64.EFI".into(), content: Content::bytes([0x4D; 5000]) };
    let engine = ext4::Directory { path: TreePath::new("docker")?, mode: 0o710, uid: 0, gid: 0 };
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
    write(&directory.join("disk.img"), &layout, &guids(), &contents, accept)
}

#[test]
fn a_disk_that_is_not_accepted_does_not_appear() {
    let directory = tempfile::tempdir().unwrap();
    let error = accepted_by(directory.path(), &mbr_sizes(), |disk| {
        let device = FileDevice::new(disk.try_clone().unwrap()).unwrap();
        PartitionTable::read(&device, SECTOR_BYTES).unwrap().boot().unwrap();
        Err(Error::new("no"))
    });
    assert_eq!(error.unwrap_err().to_string(), "no");
    assert!(!directory.path().join("disk.img").exists());
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
    for gpt_table::Partition { name, extent, .. } in gpt_table::partitions(&layout, &guids()) {
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
        for (found, planned) in
            table.partitions.iter().zip(gpt_table::partitions(&layout, &guids()))
        {
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
    // But for where a manifest would be.
    let end = offset + length - MANIFEST_AREA_BYTES;
    let mut mapped = image.mapped.iter();
    assert!(mapped.all(|range| range.end <= offset || range.start >= end));
}

/// The mapped parts of an image on a card that is full of something else.
fn on_used_card(image: &SparseImage, directory: &Path) -> PathBuf {
    let plain = fs::read(&image.path).unwrap();
    let mut card = vec![0xE5; plain.len()];
    for range in image.mapped.iter() {
        let range = range.start as usize..range.end as usize;
        card[range.clone()].copy_from_slice(&plain[range]);
    }
    let path = directory.join("card");
    fs::write(&path, card).unwrap();
    path
}

#[test]
fn what_is_mapped_makes_a_used_card_as_good_as_a_new_one() {
    for sizes in [sizes(), mbr_sizes()] {
        let directory = tempfile::tempdir().unwrap();
        let image = disk_of(directory.path(), &sizes).unwrap();
        let card = on_used_card(&image, directory.path());
        let layout = DiskLayout::plan(&sizes).unwrap();
        let bytes = fs::read(&card).unwrap();
        let at = |offset: u64, length: u64| &bytes[offset as usize..(offset + length) as usize];
        for offset in TRIAL_LOG_OFFSETS {
            let log = at(layout.record().offset + offset, TRIAL_LOG_BYTES);
            assert!(log.iter().all(|byte| *byte == 0));
        }
        assert_eq!(ondisk::reset::read(&bytes, layout.record()), None);
        for offset in RESET_OFFSETS {
            let request = at(layout.record().offset + offset, SECTOR_BYTES);
            assert!(request.iter().all(|byte| *byte == 0));
        }
        let slot_b = layout.slot(Slot::B);
        let area = ondisk::layout::manifest_area(slot_b.length).unwrap();
        let area = at(slot_b.offset + area.offset, area.length);
        assert!(area.iter().all(|byte| *byte == 0));
        let part = |extent: Extent, name: &str| {
            let path = directory.path().join(name);
            fs::write(&path, at(extent.offset, extent.length)).unwrap();
            path.to_str().unwrap().to_owned()
        };
        if let Some(fsck) = foreign::tool("fsck.vfat") {
            fsck.run(&["-n", &part(layout.boot(), "boot")]);
        }
        if let Some(e2fsck) = foreign::tool("e2fsck") {
            e2fsck.run(&["-f", "-n", &part(layout.data(), "data")]);
        }
        if sizes.table == board::Table::Gpt {
            both_tables_are_whole(&card);
        }
    }
}

fn both_tables_are_whole(card: &Path) {
    if let Some(sgdisk) = foreign::tool("sgdisk") {
        let text = sgdisk.run(&["-v", card.to_str().unwrap()]);
        assert!(text.contains("No problems found"), "{text}");
    }
    let file = fs::OpenOptions::new().read(true).write(true).open(card).unwrap();
    let device = FileDevice::new(file.try_clone().unwrap()).unwrap();
    assert_eq!(Table::read(&device, SECTOR_BYTES).unwrap().source, Source::Primary);
    std::os::unix::fs::FileExt::write_all_at(&file, &[0; 512], 512).unwrap();
    assert_eq!(Table::read(&device, SECTOR_BYTES).unwrap().source, Source::Backup);
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let (_directory, path, _) = made();
    expect!["973b374403473a79187f6865f201086e83ec5c015569afc601e84abe601875f6"]
        .assert_eq(&hex::encode(Sha256::digest(fs::read(path).unwrap())));
}

#[test]
fn a_disk_with_an_mbr_has_its_record_in_front_of_its_partitions() {
    let layout = DiskLayout::plan(&mbr_sizes()).unwrap();
    let extents = [layout.record(), layout.boot(), layout.slot(Slot::A), layout.slot(Slot::B)];
    let mib = |extent: Extent| (extent.offset / MIB, extent.length / MIB);
    assert_eq!(extents.map(mib), [(4, 8), (16, 64), (80, 16), (96, 16)]);
    assert_eq!((mib(layout.data()), layout.length() / MIB), ((112, 192), 304));
    let error = DiskLayout::plan(&Layout { data_bytes: 1 << 41, ..mbr_sizes() }).unwrap_err();
    assert!(error.to_string().starts_with("partition data: 2199023255552 bytes at "), "{error}");
}

#[test]
fn our_own_reader_and_foreign_tools_find_the_partitions_of_an_mbr() {
    let directory = tempfile::tempdir().unwrap();
    let image = disk_of(directory.path(), &mbr_sizes()).unwrap();
    let layout = DiskLayout::plan(&mbr_sizes()).unwrap();
    let device = FileDevice::new(File::open(&image.path).unwrap()).unwrap();
    let table = PartitionTable::read(&device, SECTOR_BYTES).unwrap();
    assert_eq!(table.disk, DiskId::Mbr(0x0bad_cafe));
    let found = [table.boot(), table.slot(Slot::A), table.slot(Slot::B), table.data()];
    let planned = [layout.boot(), layout.slot(Slot::A), layout.slot(Slot::B), layout.data()];
    assert_eq!(found.map(|partition| partition.unwrap().extent), planned);
    assert_eq!(table.record(), Ok(layout.record()));
    let bytes = fs::read(&image.path).unwrap();
    let at = |offset: u64| &bytes[offset as usize..][..512];
    assert_eq!(at(layout.record().offset), [0x11; 512]);
    assert_eq!(at(layout.record().offset + 4 * MIB), [0x22; 512]);
    // The sector in which a GPT would start is written, not left as it is on a used card.
    assert!(image.mapped.contains(512));
    let name = image.path.to_str().unwrap();
    if let Some(mtools) = foreign::tool("mtools") {
        let boot = format!("{name}@@{}", layout.boot().offset);
        let text = mtools.run(&["-c", "mdir", "-i", &boot, "-b", "::/EFI/BOOT"]);
        assert_eq!(text, "::/EFI/BOOT/BOOTAA64.EFI\n");
    }
    if let Some(sgdisk) = foreign::tool("sgdisk") {
        // It shows what a GPT made of this MBR would be, and says that it found one.
        let text = sgdisk.run(&["-p", name]);
        assert!(text.contains("Found invalid GPT and valid MBR"), "{text}");
        let lines = text.lines().skip_while(|line| !line.starts_with("Number"));
        expect![[r#"
            Number  Start (sector)    End (sector)  Size       Code  Name
               1           32768          163839   64.0 MiB    0700  Microsoft basic data
               2          163840          196607   16.0 MiB    8300  Linux filesystem
               3          196608          229375   16.0 MiB    8300  Linux filesystem
               4          229376          622591   192.0 MiB   8300  Linux filesystem"#]]
        .assert_eq(&lines.collect::<Vec<_>>().join("\n"));
    }
}

#[test]
fn the_same_inputs_give_the_same_first_sector() {
    let directory = tempfile::tempdir().unwrap();
    let image = disk_of(directory.path(), &mbr_sizes()).unwrap();
    expect!["fecaad0b000000feffff0cfeffff008000000000020000feffffdafeffff008002000080000000feffffdafeffff000003000080000000feffff83feffff008003000000060055aa"].assert_eq(&hex::encode(&fs::read(image.path).unwrap()[440..512]));
}
