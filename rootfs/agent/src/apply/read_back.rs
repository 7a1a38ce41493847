//! What was written, read again from the disk.
//!
//! The groups were checked against the signed index before they were written; what is asked here is
//! whether the disk gives back the same bytes, and a sum of 64 bits answers that at a tenth of the
//! cost. Nothing rests on it alone: the loader and dm-verity check every byte by SHA-256 when it is
//! used, see `docs/decisions/read-back.md`.
use std::hash::{DefaultHasher, Hasher as _};

use ondisk::device::ReadAt;
use ondisk::layout::Extent;

use super::{Cause, Progress, bytes_in_memory};

/// Bytes that are read at once, unless a single group is larger.
const PIECE_BYTES: u64 = 1024 * 1024;

/// An image as it was put into a slot.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// Bytes that were already right.
    pub(super) kept_bytes: u64,
    /// From the start of the slot on, without gaps.
    pub(super) groups: Vec<Sum>,
}

/// Neighbouring bytes, and how they are known again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sum {
    bytes: u32,
    sum: u64,
}

impl Sum {
    /// Of the bytes of a group, which are few.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(bytes);
        Self { bytes: u32::try_from(bytes.len()).unwrap_or(u32::MAX), sum: hasher.finish() }
    }
}

/// Step 4.
pub(super) fn read_back<D: ReadAt>(
    disk: &D,
    slot: Extent,
    groups: &[Sum],
    progress: &mut dyn FnMut(Progress),
) -> Result<(), Cause<D::Error>> {
    let what = "image";
    let total = bytes_of(groups);
    let mut buffer = Vec::new();
    let (mut done, mut left) = (0, groups);
    while !left.is_empty() {
        let (now, later) = left.split_at(piece(left));
        let length = bytes_of(now);
        buffer.resize(bytes_in_memory(length), 0);
        let read = disk.read_at(slot.offset + done, &mut buffer);
        read.map_err(|error| Cause::Read { what, error })?;
        let mut rest = buffer.as_slice();
        for group in now {
            let (bytes, others) = rest.split_at(bytes_in_memory(u64::from(group.bytes)));
            if Sum::of(bytes) != *group {
                return Err(Cause::NotKept { what, offset: done });
            }
            done += u64::from(group.bytes);
            rest = others;
        }
        left = later;
        progress(Progress::ReadingBack { done, total });
    }
    Ok(())
}

fn bytes_of(groups: &[Sum]) -> u64 {
    groups.iter().map(|group| u64::from(group.bytes)).sum()
}

/// How many of these groups are read at once: at least one.
fn piece(groups: &[Sum]) -> usize {
    let mut bytes = 0;
    let fits = groups.iter().take_while(|group| {
        bytes += u64::from(group.bytes);
        bytes <= PIECE_BYTES
    });
    fits.count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: Extent = Extent { offset: 4096, length: 4 << 20 };

    fn disk_and_sums() -> (Vec<u8>, Vec<Sum>) {
        let disk: Vec<u8> = (0..5_u32 << 20).map(|at| (at % 251) as u8).collect();
        let lengths = [256 << 10, 256 << 10, 512, 256 << 10, 256 << 10, 300 << 10, 2 << 20];
        let mut at = 4096;
        let sums = lengths.map(|length| {
            at += length;
            Sum::of(&disk[at - length..at])
        });
        (disk, sums.to_vec())
    }

    #[test]
    fn every_byte_is_read_once_and_in_large_pieces() {
        let (disk, sums) = disk_and_sums();
        let mut steps = Vec::new();
        read_back(&disk, SLOT, &sums, &mut |step| steps.push(step)).unwrap();
        let total = (1324 << 10) + 512 + (2 << 20);
        let done = [(768 << 10) + 512, (1324 << 10) + 512, total];
        assert_eq!(steps, done.map(|done| Progress::ReadingBack { done, total }));
    }

    #[test]
    fn a_bit_that_is_another_one_is_told_by_its_group() {
        for (at, group) in [(0, 0), ((512 << 10) + 511, 512 << 10), (3 << 20, (1324 << 10) + 512)] {
            let (mut disk, sums) = disk_and_sums();
            disk[4096 + at] ^= 0x04;
            let error = read_back(&disk, SLOT, &sums, &mut |_| ()).unwrap_err();
            assert!(matches!(error, Cause::NotKept { offset, .. } if offset == group), "{error:?}");
        }
    }

    #[test]
    fn nothing_is_read_where_nothing_was_written() {
        read_back(&vec![0_u8; 0], SLOT, &[], &mut |_| panic!("no step")).unwrap();
    }
}
