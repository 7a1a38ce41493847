//! Cuts while a table is written: after each the disk must still have one, with everything else
//! where it was. Foreign tools look at grown disks in `qemu-tests`.
use alloc::string::ToString as _;

use super::*;
use crate::device::{BeyondEnd, WriteAt as _};
use crate::gpt::tests::{Sample, disk_of};
use crate::layout::{DATA_NAME, DATA_TYPE, RECORD_NAME, RECORD_TYPE, SLOT_TYPE};

const MIB: u64 = 1 << 20;
const SECTOR: usize = 512;

const PARTITIONS: [Sample; 4] = [
    (RECORD_TYPE, RECORD_NAME, 40, 47),
    (SLOT_TYPE, "slot-a", 64, 99),
    (SLOT_TYPE, "slot-b", 100, 135),
    (DATA_TYPE, DATA_NAME, 8192, 16383),
];

/// An image of 12 MiB, whose last 4 are the table's.
fn image_with_gpt() -> Vec<u8> {
    disk_of(12 * 2048, &PARTITIONS)
}

fn image_with_mbr() -> Vec<u8> {
    let mut image = vec![0; 48 << 20];
    image[440..444].copy_from_slice(&0x0bad_cafe_u32.to_le_bytes());
    for (number, kind) in mbr::TYPES.into_iter().enumerate() {
        let entry = &mut image[446 + 16 * number..][..16];
        entry[4] = kind;
        let first = u32::try_from((16 + 8 * number) * 2048).unwrap();
        entry[8..12].copy_from_slice(&first.to_le_bytes());
        entry[12..].copy_from_slice(&(8 * 2048_u32).to_le_bytes());
    }
    image[510..512].copy_from_slice(&[0x55, 0xaa]);
    image
}

/// The image on a card of so many MiB.
fn card(mut image: Vec<u8>, mib: usize) -> Vec<u8> {
    image.resize(mib << 20, 0xA5);
    image
}

fn plan_of(disk: &Vec<u8>) -> Option<Growth> {
    plan(disk, 512).unwrap()
}

fn write(disk: &mut Vec<u8>, step: &[Piece]) {
    step.iter().for_each(|piece| disk.write_at(piece.offset, &piece.bytes).unwrap());
}

fn grow(mut disk: Vec<u8>) -> Vec<u8> {
    for step in plan_of(&disk).map(|growth| growth.steps).unwrap_or_default() {
        write(&mut disk, &step);
    }
    disk
}

fn data_of(disk: &Vec<u8>) -> Extent {
    PartitionTable::read(disk, 512).unwrap().data().unwrap().extent
}

/// Everything in the table but the data's length and which copy it is.
fn rest_of(disk: &Vec<u8>) -> (crate::boot_args::DiskId, Vec<partition_table::Partition>) {
    let mut table = PartitionTable::read(disk, 512).unwrap();
    table.partitions.iter_mut().filter(|it| it.name == "data").for_each(|it| it.extent.length = 0);
    (table.disk, table.partitions)
}

#[test]
fn the_data_partition_takes_what_the_card_has_to_a_multiple_of_4_mib() {
    // The last 4 MiB of a disk with a GPT holds the second copy.
    for (image, mib, length) in
        [(image_with_gpt(), 32, 24), (image_with_gpt(), 18, 12), (image_with_mbr(), 102, 60)]
    {
        let disk = card(image, mib);
        let before = data_of(&disk);
        let growth = plan_of(&disk).unwrap();
        let after = Extent { offset: before.offset, length: length * MIB };
        assert_eq!((growth.number, growth.before, growth.after), (4, before, after));
        let grown = grow(disk.clone());
        assert_eq!(data_of(&grown), after);
        assert_eq!(rest_of(&grown), rest_of(&disk));
        assert_eq!(plan_of(&grown), None, "a second time there is nothing to do");
    }
}

#[test]
fn a_card_as_large_as_the_image_stays_as_it_is() {
    assert_eq!(plan_of(&image_with_gpt()), None);
    assert_eq!(plan_of(&image_with_mbr()), None);
}

#[test]
fn on_a_card_that_is_little_larger_only_the_second_copy_moves() {
    let mut disk = image_with_gpt();
    disk.resize(disk.len() + 16 * SECTOR, 0);
    let growth = plan_of(&disk).unwrap();
    assert_eq!(growth.before, growth.after);
    let grown = grow(disk);
    let start = SECTOR..2 * SECTOR;
    let mut without_primary = grown;
    without_primary[start].fill(0);
    assert_eq!(data_of(&without_primary), growth.before);
}

#[test]
fn a_partition_behind_the_data_keeps_its_place() {
    let mut partitions = PARTITIONS.to_vec();
    partitions.push((SLOT_TYPE, "mine", 16384, 16500));
    assert_eq!(plan_of(&card(disk_of(12 * 2048, &partitions), 32)), None);
}

/// All ways in which the sectors of a step may have reached the disk: each prefix, each one
/// missing, each one alone.
fn cuts(step: &[Piece]) -> Vec<Vec<Piece>> {
    let sectors: Vec<Piece> = step
        .iter()
        .flat_map(|piece| {
            let sectors = piece.bytes.chunks(SECTOR).enumerate();
            sectors.map(|(index, bytes)| Piece {
                offset: piece.offset + (index * SECTOR) as u64,
                bytes: bytes.to_vec(),
            })
        })
        .collect();
    let mut cuts = Vec::new();
    for at in 0..sectors.len() {
        cuts.push(sectors[..at].to_vec());
        cuts.push([&sectors[..at], &sectors[at + 1..]].concat());
        cuts.push(vec![sectors[at].clone()]);
    }
    cuts
}

#[test]
fn after_every_cut_there_is_a_table_and_the_next_start_ends_what_was_begun() {
    for disk in [card(image_with_gpt(), 32), card(image_with_mbr(), 100)] {
        let (rest, before) = (rest_of(&disk), data_of(&disk));
        let after = data_of(&grow(disk.clone()));
        let mut begun = disk.clone();
        for step in plan_of(&disk).unwrap().steps {
            for cut in cuts(&step) {
                let mut torn = begun.clone();
                write(&mut torn, &cut);
                assert_eq!(rest_of(&torn), rest);
                assert!([before, after].contains(&data_of(&torn)));
                let again = grow(torn);
                assert_eq!(data_of(&again), after);
                assert_eq!(plan_of(&again), None);
            }
            write(&mut begun, &step);
        }
    }
}

#[test]
fn a_damaged_copy_is_written_anew_from_the_other() {
    let whole = grow(card(image_with_gpt(), 32));
    let last = whole.len() - SECTOR;
    for damaged in [SECTOR..2 * SECTOR, 2 * SECTOR..3 * SECTOR, last..last + SECTOR] {
        let mut disk = whole.clone();
        disk[damaged].fill(0xff);
        assert_eq!(grow(disk), whole);
    }
}

#[test]
fn a_disk_without_a_table_or_without_data_is_an_error() {
    let error = plan(&vec![0; 1 << 20], 512).unwrap_err();
    assert!(error.to_string().starts_with("no partition table"), "{error}");
    let error: Error<BeyondEnd> = plan(&disk_of(12 * 2048, &PARTITIONS[..3]), 512).unwrap_err();
    assert_eq!(error.to_string(), "no partition \"data\" of our type");
}
