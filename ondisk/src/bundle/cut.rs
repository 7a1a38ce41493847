//! Where groups of blocks end.
//!
//! At places that depend on the blocks alone: what moves by whole blocks between two versions stays
//! the same group. Spans ([`crate::spans`]) stay in one group, since they are packed again as a
//! whole. A device cuts the system that runs by the same rule, to find in it what a new one shares
//! with it; were the rule another one, it would find less, and nothing wrong.
use alloc::vec::Vec;

use sha2::{Digest as _, Sha256};

use super::{Group, MAX_GROUP_BLOCKS};
use crate::digest::Digest;
use crate::spans::{At, Walker};

/// Blocks of a group, at least; after a block whose checksum has five zeros at its end, the group
/// ends where no span is open: 150 KiB in the mean. Smaller ones make larger updates: each has a
/// hash, and is packed without what its neighbours have told.
const LEAST_BLOCKS: u32 = 2;
/// And at most, so that zeros do not end up in one.
const MOST_BLOCKS: u32 = MAX_GROUP_BLOCKS;
/// From so many blocks on it ends in any case, if no span is open,
const MANY_BLOCKS: u32 = 48;
/// and from so many bytes on that are in its spans: a device holds them in memory.
const MANY_CONTENT_BYTES: usize = 1024 * 1024;
const CUT_MASK: u32 = 31;

/// Cuts a row of blocks into groups.
#[derive(Clone, Debug, Default)]
pub struct Cutter {
    hasher: Sha256,
    blocks: u32,
    walker: Walker,
    /// Bytes that are in the spans of the group.
    content: usize,
    /// Whether a block said that the group ends.
    ends: bool,
}

impl Cutter {
    /// Takes the next block; the group that it ends, if it ends one.
    pub fn put(&mut self, block: &[u8]) -> Option<Group> {
        self.hasher.update(block);
        // OK to saturate: MOST_BLOCKS ends it.
        self.blocks = self.blocks.saturating_add(1);
        let cut = crc32fast::hash(block) & CUT_MASK == 0 && self.blocks >= LEAST_BLOCKS;
        let at = self.walker.put(block);
        if let At::End { content } = at {
            self.content = self.content.saturating_add(content);
        }
        let much = self.blocks >= MANY_BLOCKS || self.content >= MANY_CONTENT_BYTES;
        self.ends |= cut || much;
        let whole = at != At::Inside;
        if (self.ends && whole) || self.blocks >= MOST_BLOCKS { self.finish() } else { None }
    }

    /// The group that has not ended yet; after it, the next one starts.
    pub fn finish(&mut self) -> Option<Group> {
        let blocks = core::mem::take(&mut self.blocks);
        (self.content, self.ends) = (0, false);
        let sha256 = Digest::from_bytes(self.hasher.finalize_reset().into());
        (blocks > 0).then_some(Group { blocks, sha256 })
    }
}

/// The groups of whole blocks that are all in memory.
pub fn groups(image: &[u8], block_bytes: usize) -> Vec<Group> {
    let mut cutter = Cutter::default();
    let mut groups: Vec<Group> =
        image.chunks(block_bytes).filter_map(|block| cutter.put(block)).collect();
    groups.extend(cutter.finish());
    groups
}
