//! Where groups of blocks end.
//!
//! At places that depend on the blocks alone: what moves by whole blocks between two versions stays
//! the same group. A device cuts the system that runs by the same rule, to find in it what a new
//! one shares with it; were the rule another one, it would find less, and nothing wrong.
use alloc::vec::Vec;

use sha2::{Digest as _, Sha256};

use super::{Group, MAX_GROUP_BLOCKS};
use crate::digest::Digest;

/// Blocks of a group, at least; where the checksum of a block has five zeros at its end, the
/// group ends: 120 KiB in the mean. Smaller ones make larger updates: each has a hash, and is
/// packed without what its neighbours have told.
const LEAST_BLOCKS: u32 = 2;
/// And at most, so that zeros do not end up in one.
const MOST_BLOCKS: u32 = MAX_GROUP_BLOCKS;
const CUT_MASK: u32 = 31;

/// Cuts a row of blocks into groups.
#[derive(Clone, Debug, Default)]
pub struct Cutter {
    hasher: Sha256,
    blocks: u32,
}

impl Cutter {
    /// Takes the next block; the group that it ends, if it ends one.
    pub fn put(&mut self, block: &[u8]) -> Option<Group> {
        self.hasher.update(block);
        // OK to saturate: MOST_BLOCKS ends it.
        self.blocks = self.blocks.saturating_add(1);
        let cut = crc32fast::hash(block) & CUT_MASK == 0 && self.blocks >= LEAST_BLOCKS;
        if cut || self.blocks >= MOST_BLOCKS { self.finish() } else { None }
    }

    /// The group that has not ended yet; after it, the next one starts.
    pub fn finish(&mut self) -> Option<Group> {
        let blocks = core::mem::take(&mut self.blocks);
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
