//! What makes a group of its content: what a patch comes with.
//!
//! ```text
//! 0     32  sha256 of the blocks of the base
//! 32    2   number of parts
//! 34    …   the parts: stored u32, level u8, content u32; all numbers are little-endian
//! …     …   a patch
//! ```
//! The hash is there so that nothing on a disk is unpacked before it was checked, the system that
//! runs included: it is read past dm-verity.
//!
//! A part of level 0 are bytes as they are; another is a frame ([`crate::spans`]) that libzstd
//! makes of so many bytes at that level, after zeros if it is shorter than the part.
use alloc::vec;
use alloc::vec::Vec;

use crate::digest::Digest;
use crate::spans;

/// Most bytes of content, of a window or a group.
pub const MAX_CONTENT_BYTES: usize = 2 * 1024 * 1024;
/// Most bytes of recipe and patch, unpacked: differences and insertions are as long as the content,
/// parts and steps are few.
pub const MAX_BYTES: usize = MAX_CONTENT_BYTES + 256 * 1024;

/// Most parts of a group: 64 blocks, in which many a file ends.
pub const MAX_PARTS: usize = 2048;

const BLOCK: u32 = 4096;
const PART_BYTES: usize = 9;

/// Bytes of a group that are made at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Number of bytes in the group.
    pub stored: u32,
    /// libzstd's level, 0 for bytes as they are.
    pub level: u8,
    /// Number of bytes of the content.
    pub content: u32,
}

impl Part {
    /// Lengths of content and in the group; `None` for a part that makes no sense.
    fn lengths(self) -> Option<(usize, usize)> {
        let content = usize::try_from(self.content).ok()?;
        let stored = usize::try_from(self.stored).ok()?;
        let fits = stored > 0 && (self.level > 0 || content == stored);
        fits.then_some((content, stored))
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
        // OK to saturate: a group has few parts.
        let count = u16::try_from(self.parts.len()).unwrap_or(u16::MAX);
        bytes.extend_from_slice(&count.to_le_bytes());
        for Part { stored, level, content } in &self.parts {
            bytes.extend_from_slice(&stored.to_le_bytes());
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
    let count = usize::from(u16::from_le_bytes(*count));
    if count > MAX_PARTS {
        return None;
    }
    let (parts, patch) = rest.split_at_checked(count.checked_mul(PART_BYTES)?)?;
    let (parts, _) = parts.as_chunks::<PART_BYTES>();
    let part = |bytes: &[u8; PART_BYTES]| {
        let [s0, s1, s2, s3, level, content @ ..] = *bytes;
        let stored = u32::from_le_bytes([s0, s1, s2, s3]);
        Part { stored, level, content: u32::from_le_bytes(content) }
    };
    let parts: Vec<Part> = parts.iter().map(part).collect();
    let all = parts.iter().try_fold(0_u32, |sum, part| sum.checked_add(part.stored))?;
    let fits =
        Some(all) == blocks.checked_mul(BLOCK) && content_bytes(&parts)? <= MAX_CONTENT_BYTES;
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
        let (content, stored) = part.lengths()?;
        let (content, left) = rest.split_at_checked(content)?;
        rest = left;
        if part.level == 0 {
            group.extend_from_slice(content);
        } else {
            let mut bytes = vec![0; stored];
            spans::place(&pack(part.level, content)?, &mut bytes)?;
            group.append(&mut bytes);
        }
    }
    rest.is_empty().then_some(group)
}
