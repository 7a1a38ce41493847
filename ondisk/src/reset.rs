//! The request to make the data partition new at the next start.
//!
//! It lies outside of what it is about, in the record partition, so that it survives the making:
//!
//! ```text
//! request durable ──► restart ──► data made new, flushed ──► request taken back
//!                        ▲ a cut before the last step          │
//!                        └──────── leads here again ───────────┘
//! ```
//!
//! One sector in the half of each copy of the record ([`RESET_OFFSETS`]); little-endian:
//!
//! ```text
//! 0   8   "IOTARST1"
//! 8   4   1 everything, 2 everything but the identity
//! 12  4   CRC32 of bytes 0 to 11
//! 16  …   zeros
//! ```
//! A sector is written whole or not at all. Written is the one beside the OLDER copy of the record,
//! since a card may lose what lies around a write. There is no sequence number: a request is there
//! or is not, and taking it back removes every one, so that no older one comes to light when a
//! sector is lost. If two are there, the one that keeps more counts.
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use crate::boot_record::{Copies, Copy, CopyError};
use crate::device::{ReadAt, WriteAt};
use crate::layout::{Extent, RESET_OFFSETS, SECTOR_BYTES};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reset {
    /// An empty file system.
    Everything,
    /// Everything is removed but the identity.
    KeepIdentity,
}

impl fmt::Display for Reset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Everything => "everything",
            Self::KeepIdentity => "everything but the identity",
        })
    }
}

/// First bytes of a request.
const MAGIC: [u8; 8] = *b"IOTARST1";

const KINDS: [(Reset, u32); 2] = [(Reset::Everything, 1), (Reset::KeepIdentity, 2)];

const BOTH: [Copy; 2] = [Copy::First, Copy::Second];

/// The request that stands, if one does. What cannot be read is none.
pub fn read<D: ReadAt>(device: &D, record: Extent) -> Option<Reset> {
    BOTH.into_iter().filter_map(|copy| read_copy(device, record, copy)).max()
}

/// Makes a request stand, in place of any other; it is on the medium when this returns.
pub fn ask<D: WriteAt>(
    device: &mut D,
    record: Extent,
    reset: Reset,
) -> Result<(), CopyError<D::Error>> {
    let copy = Copies::read(device, record).older();
    write_copy(device, record, copy, Some(reset))?;
    for other in BOTH.into_iter().filter(|other| *other != copy) {
        remove(device, record, other)?;
    }
    if read(device, record) == Some(reset) { Ok(()) } else { Err(CopyError::NotKept) }
}

/// Takes back whatever was asked for; it is gone from the medium when this returns.
pub fn take_back<D: WriteAt>(device: &mut D, record: Extent) -> Result<(), CopyError<D::Error>> {
    BOTH.into_iter().try_for_each(|copy| remove(device, record, copy))?;
    if read(device, record).is_none() { Ok(()) } else { Err(CopyError::NotKept) }
}

fn remove<D: WriteAt>(
    device: &mut D,
    record: Extent,
    copy: Copy,
) -> Result<(), CopyError<D::Error>> {
    match read_copy(device, record, copy) {
        Some(_) => write_copy(device, record, copy, None),
        None => Ok(()),
    }
}

fn write_copy<D: WriteAt>(
    device: &mut D,
    record: Extent,
    copy: Copy,
    reset: Option<Reset>,
) -> Result<(), CopyError<D::Error>> {
    let extent = place(record, copy).ok_or(CopyError::Outside)?;
    device.write_at(extent.offset, &encode(reset)).map_err(CopyError::Device)?;
    device.flush().map_err(CopyError::Device)
}

fn place(record: Extent, copy: Copy) -> Option<Extent> {
    let [first, second] = RESET_OFFSETS;
    let offset = match copy {
        Copy::First => first,
        Copy::Second => second,
    };
    record.slice(Extent { offset, length: SECTOR_BYTES })
}

fn sector() -> Vec<u8> {
    vec![0; usize::try_from(SECTOR_BYTES).unwrap_or_default()]
}

fn encode(reset: Option<Reset>) -> Vec<u8> {
    let kind = KINDS.iter().find(|(known, _)| Some(*known) == reset).map(|(_, kind)| kind);
    let Some(kind) = kind else { return sector() };
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&kind.to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes.resize(sector().len(), 0);
    bytes
}

fn read_copy<D: ReadAt>(device: &D, record: Extent, copy: Copy) -> Option<Reset> {
    let mut bytes = sector();
    device.read_at(place(record, copy)?.offset, &mut bytes).ok()?;
    KINDS.iter().map(|(reset, _)| *reset).find(|reset| bytes == encode(Some(*reset)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot_record::{self, Record, Sequence};
    use crate::layout::RECORD_PARTITION_BYTES;

    const RECORD: Extent = Extent { offset: 512, length: RECORD_PARTITION_BYTES };

    fn disk() -> Vec<u8> {
        vec![0; usize::try_from(512 + RECORD_PARTITION_BYTES).expect("a small disk")]
    }

    #[test]
    fn a_request_stands_until_it_is_taken_back() {
        let mut disk = disk();
        assert_eq!(read(&disk, RECORD), None);
        for reset in [Reset::Everything, Reset::KeepIdentity, Reset::Everything] {
            assert_eq!(ask(&mut disk, RECORD, reset), Ok(()));
            assert_eq!(read(&disk, RECORD), Some(reset));
        }
        assert_eq!(take_back(&mut disk, RECORD), Ok(()));
        assert_eq!(read(&disk, RECORD), None);
        assert!(disk.iter().all(|byte| *byte == 0), "nothing is left of it");
    }

    #[test]
    fn taking_back_removes_the_request_of_each_half() {
        // The record's older copy changes between two requests.
        let mut disk = disk();
        for (first, second, reset) in [(1, 2, Reset::Everything), (3, 2, Reset::KeepIdentity)] {
            for (copy, sequence) in [(Copy::First, first), (Copy::Second, second)] {
                let record = Record { sequence: Sequence(sequence), ..Record::default() };
                boot_record::write(&mut disk, RECORD, copy, &record).expect("written");
            }
            assert_eq!(ask(&mut disk, RECORD, reset), Ok(()));
            assert_eq!(read(&disk, RECORD), Some(reset));
        }
        assert_eq!(take_back(&mut disk, RECORD), Ok(()));
        assert_eq!(read(&disk, RECORD), None);
    }

    #[test]
    fn of_two_requests_the_one_that_keeps_more_counts() {
        let mut disk = disk();
        for (copy, reset) in [(Copy::First, Reset::KeepIdentity), (Copy::Second, Reset::Everything)]
        {
            write_copy(&mut disk, RECORD, copy, Some(reset)).expect("written");
        }
        assert_eq!(read(&disk, RECORD), Some(Reset::KeepIdentity));
    }

    #[test]
    fn every_flipped_bit_of_a_request_makes_it_none() {
        let mut disk = disk();
        ask(&mut disk, RECORD, Reset::Everything).expect("written");
        let start = disk.iter().position(|byte| *byte != 0).expect("a request");
        for bit in 0..512 * 8 {
            disk[start + bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&disk, RECORD), None, "bit {bit}");
            disk[start + bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_record_partition_without_room_is_an_error() {
        let short = Extent { offset: 0, length: 4096 };
        assert_eq!(ask(&mut disk(), short, Reset::Everything), Err(CopyError::Outside));
        assert_eq!(read(&disk(), short), None);
        assert_eq!(take_back(&mut disk(), short), Ok(()));
    }
}
