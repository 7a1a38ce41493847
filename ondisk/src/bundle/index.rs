//! The index of a bundle: what each chunk of its stream and each group of the image hash to.
use alloc::vec::Vec;

use super::{Error, Header, MAX_GROUP_BLOCKS};
use crate::digest::Digest;
use crate::layout::BLOCK_BYTES;

const HASH_BYTES: u64 = 32;
const GROUP_BYTES: u64 = 4 + HASH_BYTES;

/// A run of blocks of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// Number of blocks, from 1 to [`MAX_GROUP_BLOCKS`].
    pub blocks: u32,
    /// Hash of exactly these bytes.
    pub sha256: Digest,
}

impl Group {
    /// Number of bytes.
    pub fn bytes(&self) -> u64 {
        // OK to saturate: 256 KiB at most.
        u64::from(self.blocks).saturating_mul(BLOCK_BYTES)
    }
}

/// A decoded index.
///
/// Holding one that was decoded proves: there is one hash for every chunk of its header's stream,
/// and the groups follow one another to exactly the end of the image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// Hashes of the chunks of the stream.
    pub chunks: Vec<Digest>,
    /// The groups, in the order in which they lie in the slot.
    pub groups: Vec<Group>,
}

impl Index {
    /// The bytes of the section.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.chunks.iter().for_each(|hash| bytes.extend_from_slice(hash.as_bytes()));
        for Group { blocks, sha256 } in &self.groups {
            bytes.extend_from_slice(&blocks.to_le_bytes());
            bytes.extend_from_slice(sha256.as_bytes());
        }
        bytes
    }

    /// Reads the section of a bundle with this header, whose hash is checked first.
    pub fn decode(header: &Header, bytes: &[u8]) -> Result<Self, Error> {
        header.fields().index.check("index", bytes)?;
        let wrong = || Error::IndexLength(header.fields().index.length);
        let chunks = header.chunks().checked_mul(HASH_BYTES).ok_or_else(wrong)?;
        let chunks = usize::try_from(chunks).map_err(|_| wrong())?;
        let (chunks, groups) = bytes.split_at_checked(chunks).ok_or_else(wrong)?;
        // 36 is GROUP_BYTES; a constant of another type is no length of an array.
        const { assert!(GROUP_BYTES == 36) };
        let (groups, rest) = groups.as_chunks::<36>();
        if !rest.is_empty() {
            return Err(wrong());
        }
        let index = Self {
            chunks: chunks.as_chunks().0.iter().map(|hash| Digest::from_bytes(*hash)).collect(),
            groups: groups.iter().map(decode_group).collect::<Result<_, _>>()?,
        };
        // OK to add: 2 MiB of index describe less than 15 GiB.
        let sum = index.groups.iter().map(Group::bytes).fold(0_u64, u64::saturating_add);
        if sum != header.fields().image_bytes {
            return Err(Error::IndexSum(sum));
        }
        Ok(index)
    }
}

fn decode_group(bytes: &[u8; 36]) -> Result<Group, Error> {
    let [b0, b1, b2, b3, hash @ ..] = bytes;
    let blocks = u32::from_le_bytes([*b0, *b1, *b2, *b3]);
    if !(1..=MAX_GROUP_BLOCKS).contains(&blocks) {
        return Err(Error::GroupBlocks(blocks));
    }
    Ok(Group { blocks, sha256: Digest::from_bytes(*hash) })
}
