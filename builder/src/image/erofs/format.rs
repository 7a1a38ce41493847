//! The on-disk structures of EROFS as bytes: what stands where, and nothing else.
//!
//! Follows the kernel's `fs/erofs/erofs_fs.h` and `Documentation/filesystems/erofs.rst`, whose
//! field names appear in the comments. Everything is little-endian. Writer and reader share these
//! codecs, so that a field has one place; only what this writer produces is accepted back, any
//! other feature is refused by name.

use crate::error::{Error, Result};

/// Bytes of a block; the only size used here, since every supported kernel has pages of 4 KiB.
pub(super) const BLOCK_BYTES: usize = 1 << BLOCK_BITS;
/// Power of two of the block size.
pub(super) const BLOCK_BITS: u8 = 12;
/// Inodes lie on multiples of this; their number (nid) counts in it.
pub(super) const SLOT_BYTES: usize = 32;
/// Where the superblock starts.
pub(super) const SUPERBLOCK_OFFSET: usize = 1024;
/// Bytes of the superblock.
pub(super) const SUPERBLOCK_BYTES: usize = 128;
/// Bytes of a directory entry without its name.
pub(super) const ENTRY_BYTES: usize = 12;
/// Longest name of a directory entry (EROFS_NAME_LEN).
pub(super) const NAME_BYTES_MAX: usize = 255;
/// Block address that stands for a hole in a chunk map (EROFS_NULL_ADDR).
pub(super) const HOLE: u32 = u32::MAX;

const MAGIC: u32 = 0xE0F5_E1E2;
const _: () = assert!(SUPERBLOCK_OFFSET + SUPERBLOCK_BYTES <= BLOCK_BYTES);
const _: () = assert!(BLOCK_BYTES.is_multiple_of(SLOT_BYTES));

/// Compatible features: a kernel that does not know them may still mount.
pub(super) mod compat {
    /// The superblock's block carries a CRC32-C.
    pub(in super::super) const CHECKSUM: u32 = 0x1;
    /// Times of extended inodes are modification times.
    pub(in super::super) const MTIME: u32 = 0x2;
}

/// Incompatible features: a kernel that does not know one must refuse the image.
pub(super) mod incompat {
    /// Compressed data stands at the end of its cluster, zeros before it (ZERO_PADDING).
    pub(in super::super) const ZERO_PADDING: u32 = 0x1;
    /// Configuration of each algorithm follows the superblock; clusters span blocks (COMPR_CFGS,
    /// BIG_PCLUSTER: one bit for both).
    pub(in super::super) const COMPRESSION_CONFIG: u32 = 0x2;
    /// Some files are maps of chunks (CHUNKED_FILE).
    pub(in super::super) const CHUNKS: u32 = 0x4;
    /// The last cluster of a file may stand beside its inode (ZTAILPACKING).
    pub(in super::super) const INLINE_CLUSTER: u32 = 0x10;
    /// All that this module writes and reads.
    pub(in super::super) const KNOWN: u32 =
        ZERO_PADDING | COMPRESSION_CONFIG | CHUNKS | INLINE_CLUSTER;
}

/// Number of a compression algorithm on disk (Z_EROFS_COMPRESSION_*).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Algorithm(pub u8);

impl Algorithm {
    /// LZ4 blocks; fast and high compression make the same format.
    pub(super) const LZ4: Self = Self(0);
    /// Zstandard frames.
    pub(super) const ZSTD: Self = Self(3);

    /// This algorithm's bit in the superblock's list (available_compr_algs).
    pub(super) fn bit(self) -> u16 {
        1 << self.0
    }
}

/// The superblock's fields that this writer uses; all others are zero on disk.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Superblock {
    /// `feature_compat`.
    pub compat: u32,
    /// `feature_incompat`.
    pub incompat: u32,
    /// `root_nid`: inode number of the root directory.
    pub root: u16,
    /// `inos`: number of inodes.
    pub inodes: u64,
    /// `build_time`: the time of every compact inode, seconds since 1970.
    pub build_time_s: u64,
    /// `blocks`: length of the image.
    pub blocks: u32,
    /// `meta_blkaddr`: where inode number 0 would lie.
    pub meta_block: u32,
    /// `xattr_blkaddr`: where shared extended attributes start.
    pub xattr_block: u32,
    /// `uuid`.
    pub uuid: [u8; 16],
    /// `volume_name`, padded with zeros.
    pub label: [u8; 16],
    /// `available_compr_algs`.
    pub algorithms: u16,
}

impl Superblock {
    /// The bytes at [`SUPERBLOCK_OFFSET`], checksum zero.
    pub(super) fn encode(&self) -> [u8; SUPERBLOCK_BYTES] {
        let mut bytes = [0; SUPERBLOCK_BYTES];
        put(&mut bytes, 0x00, MAGIC.to_le_bytes());
        put(&mut bytes, 0x08, self.compat.to_le_bytes());
        put(&mut bytes, 0x0C, [BLOCK_BITS]);
        put(&mut bytes, 0x0E, self.root.to_le_bytes());
        put(&mut bytes, 0x10, self.inodes.to_le_bytes());
        put(&mut bytes, 0x18, self.build_time_s.to_le_bytes());
        put(&mut bytes, 0x24, self.blocks.to_le_bytes());
        put(&mut bytes, 0x28, self.meta_block.to_le_bytes());
        put(&mut bytes, 0x2C, self.xattr_block.to_le_bytes());
        put(&mut bytes, 0x30, self.uuid);
        put(&mut bytes, 0x40, self.label);
        put(&mut bytes, 0x50, self.incompat.to_le_bytes());
        put(&mut bytes, 0x54, self.algorithms.to_le_bytes());
        bytes
    }

    /// Reads the image's first block; checks magic, checksum and features.
    pub(super) fn decode(block: &[u8; BLOCK_BYTES]) -> Result<Self> {
        let bytes = &block[SUPERBLOCK_OFFSET..];
        if u32_at(bytes, 0) != MAGIC {
            return Err(Error::new("no EROFS superblock: wrong magic number"));
        }
        let fields = Self {
            compat: u32_at(bytes, 0x08),
            root: u16_at(bytes, 0x0E),
            inodes: u64_at(bytes, 0x10),
            build_time_s: u64_at(bytes, 0x18),
            blocks: u32_at(bytes, 0x24),
            meta_block: u32_at(bytes, 0x28),
            xattr_block: u32_at(bytes, 0x2C),
            uuid: array_at(bytes, 0x30),
            label: array_at(bytes, 0x40),
            incompat: u32_at(bytes, 0x50),
            algorithms: u16_at(bytes, 0x54),
        };
        if fields.compat & compat::CHECKSUM != 0 && u32_at(bytes, 4) != checksum(block) {
            return Err(Error::new("EROFS superblock: checksum does not match"));
        }
        let unknown = fields.incompat & !incompat::KNOWN;
        if unknown != 0 {
            return Err(Error::new(format!("EROFS superblock: unsupported features {unknown:#x}")));
        }
        if bytes[0x0C] != BLOCK_BITS || bytes[0x0D] != 0 || bytes[0x5A] != 0 {
            return Err(Error::new("EROFS superblock: unsupported block or superblock size"));
        }
        Ok(fields)
    }
}

/// Puts the checksum into a finished first block.
pub(super) fn seal(block: &mut [u8; BLOCK_BYTES]) {
    let sum = checksum(block);
    put(&mut block[SUPERBLOCK_OFFSET..], 4, sum.to_le_bytes());
}

/// The superblock's checksum: from the superblock to the end of its block, the field itself as
/// zeros, seed all ones and, unlike most uses of CRC32-C, not inverted at the end.
fn checksum(block: &[u8; BLOCK_BYTES]) -> u32 {
    let covered = &block[SUPERBLOCK_OFFSET..];
    let mut sum = crc32c(u32::MAX, &covered[..4]);
    sum = crc32c(sum, &[0; 4]);
    crc32c(sum, &covered[8..])
}

/// CRC32-C without inversions.
pub(super) fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(seed, |sum, byte| {
        let index = (sum ^ u32::from(*byte)) & 0xFF;
        (sum >> 8) ^ CRC32C[index as usize]
    })
}

const CRC32C: [u32; 256] = {
    const POLYNOMIAL_REFLECTED: u32 = 0x82F6_3B78;
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut sum = index as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = (sum >> 1) ^ (POLYNOMIAL_REFLECTED * (sum & 1));
            bit += 1;
        }
        table[index] = sum;
        index += 1;
    }
    table
};

/// How an inode's data is stored (`i_format` bits 1 to 3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Layout {
    /// Consecutive blocks.
    FlatPlain = 0,
    /// Consecutive blocks, the rest right after the inode.
    FlatInline = 2,
    /// Compressed clusters found through a compact index.
    Compressed = 3,
    /// Chunks found through a map; holes possible.
    Chunked = 4,
}

/// Longest encoding of an inode without attributes and data.
pub(super) const INODE_BYTES_MAX: usize = 64;

/// An inode's fixed part; encoded in the compact form where its values fit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct InodeFields {
    /// How the data is stored.
    pub layout: Layout,
    /// `i_xattr_icount`: length of the attributes in 4-byte units, its header as one.
    pub xattr_count: u16,
    /// `i_mode`: type and permissions.
    pub(super) mode: u16,
    /// `i_nlink`.
    pub links: u32,
    /// `i_size`.
    pub size: u64,
    /// `i_u`: first block, device number, chunk format or number of compressed blocks.
    pub union: u32,
    /// `i_ino`: a number for 32-bit `stat`.
    pub number: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// `i_mtime`; not stored in the compact form, whose time is the image's.
    pub mtime_s: u64,
}

impl InodeFields {
    /// True if 32 bytes hold all values.
    pub(super) fn is_compact(uid: u32, gid: u32, links: u32, size: u64) -> bool {
        let small = |value: u32| u16::try_from(value).is_ok();
        small(uid) && small(gid) && small(links) && u32::try_from(size).is_ok()
    }

    /// The inode's bytes: 32 or 64.
    pub(super) fn encode(&self) -> Vec<u8> {
        let compact = Self::is_compact(self.uid, self.gid, self.links, self.size);
        let mut bytes = vec![0; if compact { SLOT_BYTES } else { INODE_BYTES_MAX }];
        let format = u16::from(!compact) | (self.layout as u16) << 1;
        put(&mut bytes, 0x00, format.to_le_bytes());
        put(&mut bytes, 0x02, self.xattr_count.to_le_bytes());
        put(&mut bytes, 0x04, self.mode.to_le_bytes());
        put(&mut bytes, 0x10, self.union.to_le_bytes());
        put(&mut bytes, 0x14, self.number.to_le_bytes());
        if compact {
            put_low_half(&mut bytes, 0x06, self.links);
            put(&mut bytes, 0x08, u32::try_from(self.size).unwrap_or(u32::MAX).to_le_bytes());
            put_low_half(&mut bytes, 0x18, self.uid);
            put_low_half(&mut bytes, 0x1A, self.gid);
        } else {
            put(&mut bytes, 0x08, self.size.to_le_bytes());
            put(&mut bytes, 0x18, self.uid.to_le_bytes());
            put(&mut bytes, 0x1C, self.gid.to_le_bytes());
            put(&mut bytes, 0x20, self.mtime_s.to_le_bytes());
            put(&mut bytes, 0x2C, self.links.to_le_bytes());
        }
        bytes
    }

    /// Reads an inode from bytes that start at it; also says how long it is.
    pub(super) fn decode(
        bytes: &[u8; INODE_BYTES_MAX],
        build_time_s: u64,
    ) -> Result<(Self, usize)> {
        let format = u16_at(bytes, 0);
        let layout = match format >> 1 {
            0 => Layout::FlatPlain,
            2 => Layout::FlatInline,
            3 => Layout::Compressed,
            4 => Layout::Chunked,
            other => return Err(Error::new(format!("inode with unsupported layout {other}"))),
        };
        let compact = format & 1 == 0;
        let half = |at| u32::from(u16_at(bytes, at));
        let fields = Self {
            layout,
            xattr_count: u16_at(bytes, 0x02),
            mode: u16_at(bytes, 0x04),
            links: if compact { half(0x06) } else { u32_at(bytes, 0x2C) },
            size: if compact { u64::from(u32_at(bytes, 0x08)) } else { u64_at(bytes, 0x08) },
            union: u32_at(bytes, 0x10),
            number: u32_at(bytes, 0x14),
            uid: if compact { half(0x18) } else { u32_at(bytes, 0x18) },
            gid: if compact { half(0x1A) } else { u32_at(bytes, 0x1C) },
            mtime_s: if compact { build_time_s } else { u64_at(bytes, 0x20) },
        };
        Ok((fields, if compact { SLOT_BYTES } else { INODE_BYTES_MAX }))
    }
}

/// Type bits of `i_mode`.
pub(super) mod mode {
    /// Mask of the type.
    pub(in super::super) const TYPE: u16 = 0o170_000;
    /// Named pipe.
    pub(in super::super) const FIFO: u16 = 0o010_000;
    /// Character device.
    pub(in super::super) const CHAR: u16 = 0o020_000;
    /// Directory.
    pub(in super::super) const DIRECTORY: u16 = 0o040_000;
    /// Block device.
    pub(in super::super) const BLOCK: u16 = 0o060_000;
    /// Regular file.
    pub(in super::super) const FILE: u16 = 0o100_000;
    /// Symbolic link.
    pub(in super::super) const SYMLINK: u16 = 0o120_000;
}

/// The type a directory entry carries (FT_*), from the inode's mode.
pub(super) fn entry_type(mode_bits: u16) -> u8 {
    match mode_bits & mode::TYPE {
        mode::FILE => 1,
        mode::DIRECTORY => 2,
        mode::CHAR => 3,
        mode::BLOCK => 4,
        mode::FIFO => 5,
        mode::SYMLINK => 7,
        _ => 0,
    }
}

/// The kernel's 32-bit form of a device number; `None` if the parts are too large for it.
pub(super) fn device_number(major: u32, minor: u32) -> Option<u32> {
    let fits = major < 1 << 12 && minor < 1 << 20;
    fits.then_some((minor & 0xFF) | (major << 8) | ((minor & !0xFF) << 12))
}

/// Major and minor number of [`device_number`].
pub(super) fn device_parts(number: u32) -> (u32, u32) {
    ((number >> 8) & 0xFFF, (number & 0xFF) | ((number >> 12) & !0xFF))
}

/// Chunk size of chunk-mapped files as a power of two of blocks (`EROFS_CHUNK_FORMAT_BLKBITS`).
pub(super) const CHUNK_BLOCK_BITS: u32 = 4;
/// Bytes of a chunk: 64 KiB, the finest step in which holes are looked for.
pub(super) const CHUNK_BYTES: usize = BLOCK_BYTES << CHUNK_BLOCK_BITS;

/// Name classes of extended attributes: their number on disk and what it stands for.
pub(super) const XATTR_PREFIXES: [(u8, &[u8]); 5] = [
    (1, b"user."),
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (4, b"trusted."),
    (6, b"security."),
];
/// Bytes before the first attribute of an inode (`erofs_xattr_ibody_header`).
pub(super) const XATTR_HEADER_BYTES: usize = 12;

/// Header of a compressed file's index (`z_erofs_map_header`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct MapHeader {
    /// `h_idata_size`: compressed bytes that stand after the index.
    pub inline_bytes: u16,
    /// `h_advise`.
    pub advise: u16,
    /// `h_algorithmtype`, first half: the file's algorithm.
    pub algorithm: Algorithm,
}

/// Bits of [`MapHeader::advise`].
pub(super) mod advise {
    /// Sixteen clusters share 32 bytes where alignment allows (COMPACTED_2B).
    pub(in super::super) const TWO_BYTE_PACKS: u16 = 0x1;
    /// Clusters may span blocks; compact indexes need both bits alike (BIG_PCLUSTER_1, _2).
    pub(in super::super) const BIG_CLUSTERS: u16 = 0x6;
    /// The last cluster stands after the index (INLINE_PCLUSTER).
    pub(in super::super) const INLINE_CLUSTER: u16 = 0x8;
    /// Uncompressed blocks keep each byte at its offset in the page (INTERLACED_PCLUSTER).
    pub(in super::super) const INTERLACED: u16 = 0x10;
    /// All that this module writes and reads.
    pub(in super::super) const KNOWN: u16 =
        TWO_BYTE_PACKS | BIG_CLUSTERS | INLINE_CLUSTER | INTERLACED;
}

impl MapHeader {
    /// Bytes on disk.
    pub(super) const BYTES: usize = 8;

    /// The header's bytes.
    pub(super) fn encode(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        put(&mut bytes, 2, self.inline_bytes.to_le_bytes());
        put(&mut bytes, 4, self.advise.to_le_bytes());
        put(&mut bytes, 6, [self.algorithm.0]);
        bytes
    }

    /// Reads a header; refuses what this module does not write.
    pub(super) fn decode(bytes: &[u8; Self::BYTES]) -> Result<Self> {
        let header = Self {
            inline_bytes: u16_at(bytes, 2),
            advise: u16_at(bytes, 4),
            algorithm: Algorithm(bytes[6]),
        };
        let known = header.advise & !advise::KNOWN == 0
            && header.advise & advise::BIG_CLUSTERS == advise::BIG_CLUSTERS
            && [Algorithm::LZ4, Algorithm::ZSTD].contains(&header.algorithm)
            && bytes[7] == 0;
        if !known {
            return Err(Error::new(format!("unsupported compression header {bytes:02x?}")));
        }
        Ok(header)
    }
}

/// Rounds up to a multiple of `unit`, a power of two.
pub(super) fn align(value: usize, unit: usize) -> usize {
    value.next_multiple_of(unit)
}

/// Number of blocks that hold `bytes`.
pub(super) fn blocks_for(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK_BYTES as u64)
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

fn put_low_half(bytes: &mut [u8], at: usize, value: u32) {
    put(bytes, at, u16::try_from(value).unwrap_or(u16::MAX).to_le_bytes());
}

/// A little-endian number at an offset that the caller knows to exist.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

/// As [`u16_at`].
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

/// As [`u16_at`].
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&bytes[at..at + N]);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_gives_the_published_check_value() {
        assert_eq!(!crc32c(u32::MAX, b"123456789"), 0xE306_9283);
    }

    #[test]
    fn superblock_survives_and_a_flipped_bit_is_noticed() {
        let superblock = Superblock {
            compat: compat::CHECKSUM,
            root: 7,
            inodes: 9,
            blocks: 11,
            meta_block: 3,
            uuid: *b"0123456789abcdef",
            ..Superblock::default()
        };
        let mut block = [0; BLOCK_BYTES];
        block[SUPERBLOCK_OFFSET..][..SUPERBLOCK_BYTES].copy_from_slice(&superblock.encode());
        seal(&mut block);
        assert_eq!(Superblock::decode(&block).unwrap(), superblock);
        block[SUPERBLOCK_OFFSET + 0x24] ^= 1;
        let error = Superblock::decode(&block).unwrap_err();
        assert_eq!(error.to_string(), "EROFS superblock: checksum does not match");
    }

    #[test]
    fn inodes_are_compact_exactly_when_all_values_fit() {
        let small = InodeFields {
            layout: Layout::FlatInline,
            xattr_count: 3,
            mode: mode::FILE | 0o644,
            links: 65_535,
            size: u64::from(u32::MAX),
            union: 5,
            number: 6,
            uid: 65_535,
            gid: 1,
            mtime_s: 99,
        };
        check_inode(&small, 32);
        check_inode(&InodeFields { uid: 65_536, ..small.clone() }, 64);
        check_inode(&InodeFields { links: 65_536, ..small.clone() }, 64);
        check_inode(&InodeFields { size: 1 << 32, ..small }, 64);
    }

    fn check_inode(fields: &InodeFields, expected_bytes: usize) {
        let mut bytes = fields.encode();
        assert_eq!(bytes.len(), expected_bytes);
        bytes.resize(INODE_BYTES_MAX, 0);
        let decoded = InodeFields::decode(bytes[..].try_into().unwrap(), 99).unwrap();
        assert_eq!(decoded, (fields.clone(), expected_bytes));
    }

    #[test]
    fn device_numbers_keep_their_parts() {
        for (major, minor) in [(1, 3), (4095, 0xF_FFFF), (8, 257)] {
            let number = device_number(major, minor).unwrap();
            assert_eq!(device_parts(number), (major, minor));
        }
        assert_eq!(device_number(4096, 0), None);
        assert_eq!(device_number(0, 1 << 20), None);
    }
}
