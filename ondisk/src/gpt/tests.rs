//! Tables made by code of our own here; sgdisk's are read in `qemu-tests` and by the loader.
use alloc::string::ToString as _;
use alloc::vec::Vec;

use super::*;
use crate::device::{BeyondEnd, WriteAt as _};
use crate::layout::ESP_TYPE;

const BLOCK: usize = 512;
const BLOCKS: usize = 256;
const DISK: Guid = Guid::new(1, 2, 3, [4; 8]);

/// Type, name, first and last block.
pub(crate) type Sample = (Guid, &'static str, u64, u64);

const SAMPLE: [Sample; 4] = [
    (ESP_TYPE, "boot", 40, 47),
    (RECORD_TYPE, "record", 48, 55),
    (SLOT_TYPE, "slot-a", 64, 99),
    (SLOT_TYPE, "slot-b", 100, 135),
];

fn disk(partitions: &[Sample]) -> Vec<u8> {
    disk_of(BLOCKS, partitions)
}

/// A disk of so many blocks of 512 bytes.
pub(crate) fn disk_of(blocks: usize, partitions: &[Sample]) -> Vec<u8> {
    let mut entries = vec![0; 128 * 128];
    for (entry, (type_guid, name, first, last)) in entries.chunks_mut(128).zip(partitions) {
        entry[..16].copy_from_slice(&type_guid.to_bytes());
        entry[16..32].copy_from_slice(&[9; 16]);
        entry[32..40].copy_from_slice(&first.to_le_bytes());
        entry[40..48].copy_from_slice(&last.to_le_bytes());
        for (unit, target) in name.encode_utf16().zip(entry[56..].chunks_mut(2)) {
            target.copy_from_slice(&unit.to_le_bytes());
        }
    }
    let mut disk = vec![0; blocks * BLOCK];
    let last = blocks - 1;
    put(&mut disk, 2, &entries);
    put(&mut disk, 1, &header(blocks, 1, 2, &entries));
    put(&mut disk, last - 32, &entries);
    put(&mut disk, last, &header(blocks, last, last - 32, &entries));
    disk
}

fn header(blocks: usize, at: usize, entries_at: usize, entries: &[u8]) -> [u8; 92] {
    let mut header = [0; 92];
    let mut set = |offset: usize, bytes: &[u8]| {
        header[offset..offset + bytes.len()].copy_from_slice(bytes);
    };
    set(0, b"EFI PART\0\0\x01\0\x5c\0\0\0");
    set(24, &at.to_le_bytes());
    set(32, &(blocks - at).to_le_bytes());
    set(40, &34_u64.to_le_bytes());
    set(48, &(blocks - 34).to_le_bytes());
    set(56, &DISK.to_bytes());
    set(72, &entries_at.to_le_bytes());
    set(80, &128_u32.to_le_bytes());
    set(84, &128_u32.to_le_bytes());
    set(88, &crc32fast::hash(entries).to_le_bytes());
    let crc = crc32fast::hash(&header);
    header[16..20].copy_from_slice(&crc.to_le_bytes());
    header
}

fn put(disk: &mut [u8], block: usize, bytes: &[u8]) {
    disk[block * BLOCK..][..bytes.len()].copy_from_slice(bytes);
}

fn read(disk: &Vec<u8>) -> Result<Table, Error<BeyondEnd>> {
    Table::read(disk, 512)
}

#[test]
fn partitions_are_found_by_type_and_name() {
    let table = read(&disk(&SAMPLE)).expect("a good table");
    assert_eq!((table.disk, table.source), (DISK, Source::Primary));
    let extent = |partition: Result<&Partition, FindError>| partition.map(|p| p.extent);
    let blocks = |first: u64, count: u64| Ok(Extent { offset: first * 512, length: count * 512 });
    assert_eq!(extent(table.record()), blocks(48, 8));
    assert_eq!(extent(table.slot(Slot::A)), blocks(64, 36));
    assert_eq!(extent(table.slot(Slot::B)), blocks(100, 36));
    assert_eq!(extent(table.data()), Err(FindError::Missing("data")));
    assert_eq!(table.slot(Slot::B).map(|partition| partition.number), Ok(4));
}

#[test]
fn the_name_alone_or_the_type_alone_is_not_enough() {
    let mut partitions = SAMPLE;
    partitions[2].0 = ESP_TYPE;
    partitions[3].1 = "slot-c";
    let table = read(&disk(&partitions)).expect("a good table");
    assert_eq!(table.slot(Slot::A), Err(FindError::Missing("slot-a")));
    assert_eq!(table.slot(Slot::B), Err(FindError::Missing("slot-b")));
}

#[test]
fn a_doubled_partition_is_not_guessed() {
    let mut partitions = SAMPLE;
    partitions[3].1 = "slot-a";
    let table = read(&disk(&partitions)).expect("a good table");
    assert_eq!(table.slot(Slot::A), Err(FindError::Twice("slot-a")));
}

#[test]
fn every_flipped_bit_of_the_primary_header_is_noticed() {
    for bit in 0..92 * 8 {
        let mut disk = disk(&SAMPLE);
        disk[BLOCK + bit / 8] ^= 1 << (bit % 8);
        let table = read(&disk).expect("the backup is whole");
        assert_eq!(table.source, Source::Backup, "bit {bit}");
        assert!(table.slot(Slot::A).is_ok());
    }
}

#[test]
fn a_flipped_bit_in_the_entries_is_noticed() {
    let mut disk = disk(&SAMPLE);
    disk[2 * BLOCK + 32] ^= 1;
    assert_eq!(read(&disk).map(|table| table.source), Ok(Source::Backup));
}

#[test]
fn a_disk_without_a_table_says_so_twice() {
    let error = read(&vec![0; BLOCKS * BLOCK]).expect_err("nothing there");
    let text = "no partition table: primary: no GPT header; backup: no GPT header";
    assert_eq!(error.to_string(), text);
    assert!(read(&vec![]).is_err());
    assert!(Table::read(&disk(&SAMPLE), 0).is_err());
    assert!(Table::read(&disk(&SAMPLE), 4096).is_err());
}

#[test]
fn a_table_with_a_right_checksum_and_wrong_contents_is_refused() {
    let check = |offset: usize, bytes: &[u8], expected: CopyError<BeyondEnd>| {
        let mut disk = disk(&SAMPLE);
        let mut header = [0; 92];
        header.copy_from_slice(&disk[BLOCK..BLOCK + 92]);
        header[offset..offset + bytes.len()].copy_from_slice(bytes);
        header[16..20].fill(0);
        let crc = crc32fast::hash(&header);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
        put(&mut disk, 1, &header);
        disk.write_at(255 * 512, &[0; 512]).expect("room");
        assert_eq!(read(&disk).expect_err("refused").primary, expected);
    };
    check(0, b"e", CopyError::Signature);
    check(8, &[1], CopyError::Revision(0x0001_0001));
    check(12, &[91], CopyError::HeaderSize(91));
    check(12, &[1, 2], CopyError::HeaderSize(513));
    check(24, &[2], CopyError::OtherPlace(Lba(2)));
    check(40, &[255], CopyError::Usable(Lba(255), Lba(222)));
    check(48, &[255, 255], CopyError::Usable(Lba(34), Lba(65535)));
    check(48, &[134], CopyError::Entry { number: 4, first: Lba(100), last: Lba(135) });
    check(72, &[0xff; 8], CopyError::Outside(Lba(u64::MAX)));
    check(72, &[0, 1], CopyError::Outside(Lba(256)));
    check(80, &[0xff; 4], CopyError::TableSize);
    check(84, &[0; 4], CopyError::EntrySize(0));
    check(84, &[192], CopyError::EntrySize(192));
}

#[test]
fn partitions_that_overlap_or_leave_the_disk_are_refused() {
    let check = |first: u64, last: u64, expected: CopyError<BeyondEnd>| {
        let mut partitions = SAMPLE;
        (partitions[3].2, partitions[3].3) = (first, last);
        assert_eq!(read(&disk(&partitions)).expect_err("refused").primary, expected);
    };
    let entry = |first, last| CopyError::Entry { number: 4, first: Lba(first), last: Lba(last) };
    check(100, 223, entry(100, 223));
    check(33, 39, entry(33, 39));
    check(120, 119, entry(120, 119));
    check(99, 110, CopyError::Overlap(3, 4));
    check(47, 47, CopyError::Overlap(1, 4));
}
