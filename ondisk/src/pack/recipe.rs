//! What makes a group of its content: what a patch comes with.
//!
//! ```text
//! 0     32  sha256 of the blocks of the base
//! 32    2   number of parts
//! 34    …   the parts: blocks u16, level u8, content u32; all numbers are little-endian
//! …     …   a patch
//! ```
//! The hash is there so that nothing on a disk is unpacked before it was checked, the system that
//! runs included: it is read past dm-verity.
//!
//! A part of level 0 are blocks as they are; another is a span ([`crate::spans`]) of a frame that
//! libzstd makes of so many bytes at that level.
use alloc::vec;
use alloc::vec::Vec;

use crate::bundle::MAX_GROUP_BLOCKS;
use crate::digest::Digest;
use crate::spans;

/// Most bytes of content, of a window or a group.
pub const MAX_CONTENT_BYTES: usize = 2 * 1024 * 1024;
/// Most bytes of recipe and patch, unpacked: differences and insertions are as long as the content,
/// parts and steps are few.
pub const MAX_BYTES: usize = MAX_CONTENT_BYTES + 256 * 1024;

const BLOCK: usize = 4096;
const PART_BYTES: usize = 7;

/// Blocks of a group that are made at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Number of blocks.
    pub blocks: u16,
    /// libzstd's level, 0 for blocks as they are.
    pub level: u8,
    /// Number of bytes of the content.
    pub content: u32,
}

impl Part {
    /// Lengths of content and of blocks; `None` for a part that makes no sense.
    fn lengths(self) -> Option<(usize, usize)> {
        let content = usize::try_from(self.content).ok()?;
        let blocks = usize::from(self.blocks).checked_mul(BLOCK)?;
        let fits = blocks > 0 && (self.level > 0 || content == blocks);
        fits.then_some((content, blocks))
    }
}

/// What is before the patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// Hash of the blocks of the base that the patch is for.
    pub base: Digest,
    /// What the group is made of.
    pub parts: Vec<Part>,
}

impl Recipe {
    /// The bytes before the patch.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::from(*self.base.as_bytes());
        // OK to saturate: a group has few blocks.
        let count = u16::try_from(self.parts.len()).unwrap_or(u16::MAX);
        bytes.extend_from_slice(&count.to_le_bytes());
        for Part { blocks, level, content } in &self.parts {
            bytes.extend_from_slice(&blocks.to_le_bytes());
            bytes.push(*level);
            bytes.extend_from_slice(&content.to_le_bytes());
        }
        bytes
    }
}

/// Reads the recipe of a group and leaves the patch; `None` for parts that are not for `blocks`
/// blocks or have more content than is allowed.
pub fn decode(bytes: &[u8], blocks: u32) -> Option<(Recipe, &[u8])> {
    let (base, rest) = bytes.split_first_chunk()?;
    let (count, rest) = rest.split_first_chunk()?;
    let count = u16::from_le_bytes(*count);
    if u32::from(count) > MAX_GROUP_BLOCKS {
        return None;
    }
    let (parts, patch) = rest.split_at_checked(usize::from(count).checked_mul(PART_BYTES)?)?;
    let (parts, _) = parts.as_chunks::<PART_BYTES>();
    let part = |bytes: &[u8; PART_BYTES]| {
        let [low, high, level, content @ ..] = *bytes;
        let blocks = u16::from_le_bytes([low, high]);
        Part { blocks, level, content: u32::from_le_bytes(content) }
    };
    let parts: Vec<Part> = parts.iter().map(part).collect();
    let all = parts.iter().try_fold(0_u32, |sum, part| sum.checked_add(u32::from(part.blocks)));
    let fits = all == Some(blocks) && content_bytes(&parts)? <= MAX_CONTENT_BYTES;
    fits.then_some((Recipe { base: Digest::from_bytes(*base), parts }, patch))
}

/// Number of bytes of the content of all parts; `None` if one makes no sense.
pub fn content_bytes(parts: &[Part]) -> Option<usize> {
    parts.iter().try_fold(0_usize, |sum, part| sum.checked_add(part.lengths()?.0))
}

/// Makes the blocks of a group of its content; `None` if they cannot be made of it.
///
/// `pack` makes a frame of a level and a content.
pub fn make(
    parts: &[Part],
    content: &[u8],
    mut pack: impl FnMut(u8, &[u8]) -> Option<Vec<u8>>,
) -> Option<Vec<u8>> {
    let mut group = Vec::new();
    let mut rest = content;
    for part in parts {
        let (content, blocks) = part.lengths()?;
        let (content, left) = rest.split_at_checked(content)?;
        rest = left;
        if part.level == 0 {
            group.extend_from_slice(content);
        } else {
            let mut span = vec![0; blocks];
            spans::place(&pack(part.level, content)?, &mut span)?;
            group.append(&mut span);
        }
    }
    rest.is_empty().then_some(group)
}
