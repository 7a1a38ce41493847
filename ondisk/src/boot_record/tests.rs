//! The record's bytes, and what happens to it on disks that fail.
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use alloc::{format, vec};

use expect_test::expect;

use super::*;
use crate::device::BeyondEnd;
use crate::digest::Digest;
use crate::layout::RECORD_PARTITION_BYTES;

const PARTITION: Extent = Extent { offset: 4096, length: RECORD_PARTITION_BYTES };

fn sample() -> Record {
    let version = Version::new;
    let b = State::Unproven { tries: 2 };
    Record {
        sequence: Sequence(0x0102),
        rollback_floor: 6,
        slots: PerSlot {
            a: Entry {
                state: State::Proven,
                priority: 1,
                rollback_index: 7,
                version: version("1.0"),
            },
            b: Entry {
                state: b,
                priority: 2,
                rollback_index: 8,
                version: version("2026.11.0+dev"),
            },
        },
    }
}

fn numbered(sequence: u64) -> Record {
    Record { sequence: Sequence(sequence), ..sample() }
}

fn disk() -> Vec<u8> {
    vec![0; usize::try_from(PARTITION.offset + PARTITION.length).expect("a small disk")]
}

#[test]
fn the_bytes_of_a_record_are_pinned() {
    let bytes = sample().encode();
    let lines = bytes.chunks(16).enumerate().filter(|(_, line)| line.iter().any(|&b| b != 0));
    let dump: String = lines
        .map(|(number, line)| format!("{:3} {}\n", number * 16, crate::digest::Hex(line)))
        .collect();
    expect![[r#"
          0 494f5441524543310100000000000000
         16 02010000000000000201000000000000
         32 0700000000000000312e300000000000
         80 00000000000000000102020000000000
         96 0800000000000000323032362e31312e
        112 302b6465760000000000000000000000
        144 00000000000000000600000000000000
        496 0000000000000000000000009f49ad2b
    "#]]
    .assert_eq(&dump);
    let digest = expect!["6b53e11f21ab56ad3f1e1aad35aadb2d6a45f13bf66e56782f83b9cc97be0c6f"];
    digest.assert_eq(&Digest::of(&bytes).to_string());
}

#[test]
fn every_record_reads_back_as_it_was_written() {
    let states = [
        State::Empty,
        State::Unproven { tries: 0 },
        State::Unproven { tries: TRIES },
        State::Proven,
        State::Bad(Reason::KERNEL),
        State::Bad(Reason(255)),
    ];
    let versions = [None, Version::new("1"), Version::new(&"9".repeat(MAX_VERSION_BYTES))];
    for state in states {
        for version in versions {
            let a = Entry { state, priority: 255, rollback_index: u64::MAX, version };
            let slots = PerSlot { a, b: Entry::default() };
            let record = Record { sequence: Sequence(u64::MAX), rollback_floor: u64::MAX, slots };
            assert_eq!(Record::decode(&record.encode()), Ok(record));
        }
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    let bytes = sample().encode();
    for bit in 0..RECORD_BYTES * 8 {
        let mut flipped = bytes;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(Record::decode(&flipped).is_err(), "bit {bit}");
    }
}

#[test]
fn a_record_with_a_right_checksum_and_wrong_contents_is_refused() {
    let check = |offset: usize, value: u8, expected: &str| {
        let mut bytes = sample().encode();
        assert_ne!(bytes[offset], value);
        bytes[offset] = value;
        let crc = crc32fast::hash(&bytes[..CRC_OFFSET]);
        bytes[CRC_OFFSET..].copy_from_slice(&crc.to_le_bytes());
        let error = Record::decode(&bytes).expect_err(expected);
        assert_eq!(error.to_string(), expected);
    };
    check(0, b'i', "no record (wrong magic)");
    check(8, 2, "unknown format 2");
    check(12, 1, "byte 12 is not zero");
    check(24, 4, "slot A: bad state");
    check(24, 3, "slot A: bad tries or reason");
    check(26, 1, "slot A: bad tries or reason");
    check(27, 1, "slot A: bad tries or reason");
    check(28, 1, "slot A: bad reserved bytes");
    check(40, b'/', "slot A: bad version");
    check(41, 0, "slot A: bad version");
    check(90, TRIES + 1, "slot B: bad tries or reason");
    check(160, 1, "byte 160 is not zero");
    check(507, 1, "byte 507 is not zero");
}

#[test]
fn sectors_without_a_record_are_named() {
    assert_eq!(Record::decode(&[0; RECORD_BYTES]), Err(Error::Empty));
    assert_eq!(Record::decode(&[0xff; RECORD_BYTES]), Err(Error::Magic));
}

#[test]
fn the_newer_copy_counts_and_the_older_one_is_written() {
    let check = |first: Option<u64>, second: Option<u64>, newest: Option<u64>, older: Copy| {
        let copy = |number: Option<u64>| match number {
            Some(number) => Ok(numbered(number)),
            None => Err(CopyError::<BeyondEnd>::Record(Error::Empty)),
        };
        let copies = Copies { first: copy(first), second: copy(second) };
        assert_eq!(copies.newest().map(|record| record.sequence.0), newest);
        assert_eq!(copies.older(), older);
    };
    check(Some(1), Some(2), Some(2), Copy::First);
    check(Some(2), Some(1), Some(2), Copy::Second);
    check(Some(2), Some(2), Some(2), Copy::Second);
    check(None, Some(1), Some(1), Copy::First);
    check(Some(1), None, Some(1), Copy::Second);
    check(None, None, None, Copy::First);
}

#[test]
fn a_write_torn_at_any_byte_leaves_the_old_or_the_new_record() {
    let mut before = disk();
    write(&mut before, PARTITION, Copy::First, &numbered(1)).expect("first");
    write(&mut before, PARTITION, Copy::Second, &numbered(2)).expect("second");
    let older = Copies::read(&before, PARTITION).older();
    assert_eq!(older, Copy::First);
    let (offset, new) = (4096, numbered(3).encode());
    for kept in 0..=RECORD_BYTES {
        // Both ways in which a sector can be half written: old bytes or erased ones after the cut.
        for erased in [false, true] {
            let mut torn = before.clone();
            if erased {
                torn[offset..offset + RECORD_BYTES].fill(0xff);
            }
            torn[offset..offset + kept].copy_from_slice(&new[..kept]);
            let found = Copies::read(&torn, PARTITION).newest().map(|record| record.sequence.0);
            let whole = torn[offset..offset + RECORD_BYTES] == new;
            assert_eq!(found, Some(if whole { 3 } else { 2 }), "{kept} bytes, erased {erased}");
        }
    }
}

/// A disk that says yes to writes and forgets them.
struct Forgetful(Vec<u8>);

impl ReadAt for Forgetful {
    type Error = BeyondEnd;
    fn size(&self) -> u64 {
        self.0.size()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), BeyondEnd> {
        self.0.read_at(offset, buffer)
    }
}

impl WriteAt for Forgetful {
    fn write_at(&mut self, _: u64, _: &[u8]) -> Result<(), BeyondEnd> {
        Ok(())
    }
    fn flush(&mut self) -> Result<(), BeyondEnd> {
        Ok(())
    }
}

#[test]
fn a_disk_that_forgets_a_write_is_found_out() {
    let mut disk = Forgetful(disk());
    let wrote = write(&mut disk, PARTITION, Copy::First, &numbered(1));
    assert_eq!(wrote, Err(CopyError::Record(Error::Empty)));
    disk.0.write_at(4096, &numbered(1).encode()).expect("room");
    let wrote = write(&mut disk, PARTITION, Copy::First, &numbered(2));
    assert_eq!(wrote, Err(CopyError::NotKept));
}

#[test]
fn a_partition_that_is_too_small_is_not_written_beyond_its_end() {
    let mut disk = disk();
    let small = Extent { length: RECORD_OFFSETS[1] + 511, ..PARTITION };
    assert_eq!(write(&mut disk, small, Copy::Second, &sample()), Err(CopyError::Outside));
    assert!(disk.iter().all(|&byte| byte == 0));
}
