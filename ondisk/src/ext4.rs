//! What the superblock of an ext4 file system tells before anybody mounts it: whether a check has
//! to come first.
//!
//! Layout after the kernel's `Documentation/filesystems/ext4/super.rst`; bytes from the start of
//! the superblock, which itself starts 1024 bytes behind the start of the partition:
//!
//! ```text
//! 0x004 4  blocks, low half       0x038 2  magic 0xEF53          0x150 4  blocks, high half
//! 0x018 4  log2(block size) - 10  0x03A 2  state: 1 clean, 2 errors, 4 orphans
//! 0x060 4  incompatible features: 0x80 means 64-bit block numbers, 0x4 a journal to be replayed
//! 0x064 4  read-only features: 0x400 means that there are checksums
//! 0x3FC 4  CRC32C of all bytes before, not inverted at the end
//! ```
//!
//! The rule ([`needs_check`]): a file system is mounted unchecked when its superblock is whole,
//! fits into its partition, and says "clean, no errors". A journal that waits to be replayed is no
//! reason for a check: that is what a power cut leaves, the kernel replays it at the mount, and the
//! state stays "clean" meanwhile. The kernel notes "errors" when it meets damage while it runs, and
//! e2fsck takes "clean" away while it repairs, so that an interrupted repair is seen here.
//! How often it was mounted, or when it was checked last, does not count: a check that nothing
//! asks for would only make a start slow, on a day that nobody chose.
use alloc::string::String;
use core::fmt;

/// Where a superblock starts, from the start of its partition.
pub const SUPERBLOCK_OFFSET: u64 = 1024;
/// Its size.
pub const SUPERBLOCK_BYTES: usize = 1024;

/// The bytes of a superblock.
pub type Superblock = [u8; SUPERBLOCK_BYTES];

/// Why a file system is checked before it is mounted, or once more after the kernel has looked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The first block of the partition cannot be read.
    Unreadable(String),
    /// There is no superblock of ext4.
    NoFileSystem,
    /// The superblock is damaged.
    Superblock,
    /// It is larger than its partition.
    TooLarge,
    /// It was not left clean: a repair was interrupted.
    NotClean,
    /// The kernel met errors.
    Errors,
    /// The kernel does not mount it.
    Refused(String),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(why) => write!(f, "its first block cannot be read: {why}"),
            Self::NoFileSystem => f.write_str("it has no superblock of ext4"),
            Self::Superblock => f.write_str("its superblock is damaged"),
            Self::TooLarge => f.write_str("its file system is larger than the partition"),
            Self::NotClean => f.write_str("a repair of it was not finished"),
            Self::Errors => f.write_str("the kernel met errors on it"),
            Self::Refused(why) => write!(f, "it cannot be mounted: {why}"),
        }
    }
}

/// Why a file system in a partition of so many bytes has to be checked before it is mounted;
/// `None` if it need not be.
pub fn needs_check(superblock: &Superblock, partition_bytes: u64) -> Option<Cause> {
    if word(superblock, field::MAGIC) & 0xffff != MAGIC {
        return Some(Cause::NoFileSystem);
    }
    let has_checksum = word(superblock, field::READ_ONLY) & CHECKSUMS != 0;
    if has_checksum && word(superblock, field::CHECKSUM) != checksum(superblock) {
        return Some(Cause::Superblock);
    }
    match held_bytes(superblock) {
        None => Some(Cause::Superblock),
        Some(bytes) if bytes > partition_bytes => Some(Cause::TooLarge),
        Some(_) if notes_errors(superblock) => Some(Cause::Errors),
        Some(_) if word(superblock, field::STATE) & CLEAN == 0 => Some(Cause::NotClean),
        Some(_) => None,
    }
}

/// Whether somebody has noted errors.
pub fn notes_errors(superblock: &Superblock) -> bool {
    word(superblock, field::STATE) & ERRORS != 0
}

/// Whether its journal waits to be replayed: nobody unmounted it, since the power went or the
/// kernel fell over.
pub fn was_cut(superblock: &Superblock) -> bool {
    word(superblock, field::INCOMPATIBLE) & RECOVER != 0
}

/// Bytes that a file system counts as its own; `None` if there is none.
pub fn held_bytes(superblock: &Superblock) -> Option<u64> {
    if word(superblock, field::MAGIC) & 0xffff != MAGIC {
        return None;
    }
    let has_64_bits = word(superblock, field::INCOMPATIBLE) & SIXTY_FOUR_BITS != 0;
    let high = if has_64_bits { word(superblock, field::BLOCKS_HIGH) } else { 0 };
    let blocks = u64::from(word(superblock, field::BLOCKS_LOW)) | u64::from(high) << 32;
    let log = word(superblock, field::LOG_BLOCK_SIZE);
    let block_bytes = (log <= LARGEST_LOG).then(|| 1024_u64.checked_shl(log)).flatten()?;
    blocks.checked_mul(block_bytes).filter(|bytes| *bytes > 0)
}

/// Places in a superblock.
mod field {
    pub(super) const BLOCKS_LOW: usize = 0x4;
    pub(super) const LOG_BLOCK_SIZE: usize = 0x18;
    pub(super) const MAGIC: usize = 0x38;
    pub(super) const STATE: usize = 0x3A;
    pub(super) const INCOMPATIBLE: usize = 0x60;
    pub(super) const READ_ONLY: usize = 0x64;
    pub(super) const BLOCKS_HIGH: usize = 0x150;
    pub(super) const CHECKSUM: usize = 0x3FC;
}

const MAGIC: u32 = 0xEF53;
const CLEAN: u32 = 1;
const ERRORS: u32 = 2;
const SIXTY_FOUR_BITS: u32 = 0x80;
const RECOVER: u32 = 0x4;
const CHECKSUMS: u32 = 0x400;
/// Blocks of 64 KiB: the kernel knows no larger ones.
const LARGEST_LOG: u32 = 6;

/// Four bytes as a number; of a field of two, the upper half belongs to the next one.
fn word(superblock: &Superblock, offset: usize) -> u32 {
    let bytes = superblock.get(offset..).and_then(|rest| rest.first_chunk());
    u32::from_le_bytes(bytes.copied().unwrap_or_default())
}

fn checksum(superblock: &Superblock) -> u32 {
    crc32c(superblock.get(..field::CHECKSUM).unwrap_or_default())
}

/// CRC32C without the inversion at the end, bit by bit: one block a start is not worth a table.
fn crc32c(bytes: &[u8]) -> u32 {
    /// The polynomial of Castagnoli, lowest bit first.
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 }
        })
    })
}

/// Gives a superblock that was changed its checksum again: for tests of what reads it.
pub fn seal(superblock: &mut Superblock) {
    let sum = checksum(superblock).to_le_bytes();
    if let Some(place) = superblock.get_mut(field::CHECKSUM..) {
        place.copy_from_slice(&sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const BYTES: u64 = 200 * MIB;

    /// What `mke2fs -t ext4 -b 4096` leaves of these fields for 200 MiB, with its checksum.
    fn good() -> Superblock {
        let mut block = [0; SUPERBLOCK_BYTES];
        let mut put = |offset: usize, value: u32| {
            block[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
        };
        put(field::BLOCKS_LOW, 51_200);
        put(field::LOG_BLOCK_SIZE, 2);
        put(field::MAGIC, MAGIC | CLEAN << 16);
        put(field::INCOMPATIBLE, 0x2c2);
        put(field::READ_ONLY, 0x46b);
        seal(&mut block);
        block
    }

    fn check(change: impl FnOnce(&mut Superblock), partition: u64, expected: Option<Cause>) {
        let mut block = good();
        change(&mut block);
        assert_eq!(needs_check(&block, partition), expected);
    }

    #[test]
    fn a_clean_file_system_is_mounted_unchecked_with_or_without_a_journal_to_replay() {
        check(|_| {}, BYTES, None);
        check(|_| {}, 2 * BYTES, None);
        let recover = |block: &mut Superblock| {
            block[field::INCOMPATIBLE] |= 0x4;
            seal(block);
        };
        check(recover, BYTES, None);
        // The kernel deletes what was open at the power cut: no reason either.
        let orphans = |block: &mut Superblock| {
            block[field::STATE] |= 4;
            seal(block);
        };
        check(orphans, BYTES, None);
    }

    #[test]
    fn each_fault_is_found_by_name() {
        let state = |state: u8| {
            move |block: &mut Superblock| {
                block[field::STATE] = state;
                seal(block);
            }
        };
        check(state(3), BYTES, Some(Cause::Errors));
        check(state(2), BYTES, Some(Cause::Errors));
        check(state(0), BYTES, Some(Cause::NotClean));
        check(|block| block[0x100] ^= 1, BYTES, Some(Cause::Superblock));
        check(|block| block[field::MAGIC] ^= 1, BYTES, Some(Cause::NoFileSystem));
        check(|block| block.fill(0), BYTES, Some(Cause::NoFileSystem));
        check(|_| {}, BYTES - 1, Some(Cause::TooLarge));
        let log = |block: &mut Superblock| {
            block[field::LOG_BLOCK_SIZE] = 7;
            seal(block);
        };
        check(log, BYTES, Some(Cause::Superblock));
    }

    #[test]
    fn every_flipped_bit_of_a_sealed_superblock_asks_for_a_check() {
        for bit in 0..SUPERBLOCK_BYTES * 8 {
            let mut block = good();
            block[bit / 8] ^= 1 << (bit % 8);
            // Without the feature there is no checksum to hold against the rest.
            if bit != (field::READ_ONLY + 1) * 8 + 2 {
                assert!(needs_check(&block, BYTES).is_some(), "bit {bit}");
            }
        }
    }

    #[test]
    fn a_file_system_tells_its_bytes_and_something_else_does_not() {
        let mut block = [0; SUPERBLOCK_BYTES];
        assert_eq!(held_bytes(&block), None);
        block[field::MAGIC..field::MAGIC + 2].copy_from_slice(&[0x53, 0xef]);
        block[field::BLOCKS_LOW..field::BLOCKS_LOW + 4].copy_from_slice(&300_u32.to_le_bytes());
        block[field::LOG_BLOCK_SIZE] = 2;
        block[field::BLOCKS_HIGH] = 1;
        assert_eq!(held_bytes(&block), Some(300 * 4096));
        block[field::INCOMPATIBLE] = 0x80;
        assert_eq!(held_bytes(&block), Some((300 + (1 << 32)) * 4096));
    }

    #[test]
    fn the_checksum_is_the_castagnoli_one() {
        // RFC 3720, B.4; there with the inversion.
        assert_eq!(!crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(!crc32c(&[0xff; 32]), 0x62a8_ab43);
    }
}
