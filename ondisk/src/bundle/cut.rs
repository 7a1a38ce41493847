//! Where groups of blocks end.
//!
//! At places that depend on the blocks alone: what moves by whole blocks between two versions stays
//! the same group. A span ([`crate::spans`]) stays in one group, since it is packed again as a
//! whole. A device cuts the system that runs by the same rule, to find in it what a new one shares
//! with it; were the rule another one, it would find less, and nothing wrong.
use alloc::vec::Vec;

use super::{Group, MAX_GROUP_BLOCKS};
use crate::digest::Digest;
use crate::spans::{At, Walker};

/// Blocks of a group, at least; behind a block whose checksum has five zeros at its end, the group
/// ends where no span is open: 150 KiB in the mean. Smaller ones make larger updates: each has a
/// hash, and is packed without what its neighbours have told.
const LEAST_BLOCKS: u32 = 2;
/// And at most, so that zeros do not end up in one. A span that goes on behind them starts the
/// next group: in a kernel one of 35 blocks follows one of 33, and what begins in one group and
/// ends in another can be unpacked in neither.
const MOST_BLOCKS: u32 = MAX_GROUP_BLOCKS;
/// From so many blocks on it ends in any case, if no span is open,
const MANY_BLOCKS: u32 = 48;
/// and from so many bytes on that are in its spans: a device holds them in memory.
const MANY_CONTENT_BYTES: usize = 1024 * 1024;
const CUT_MASK: u32 = 31;

/// Cuts a row of blocks into groups.
#[derive(Clone, Debug, Default)]
pub struct Cutter {
    walker: Walker,
    /// The group so far, up to where no span was open.
    whole: Part,
    /// What follows it: a span that has not ended.
    open: Part,
}

impl Cutter {
    /// Takes the next block; the group that has ended with it, or before a span that it is in.
    pub fn put(&mut self, block: &[u8]) -> Option<Group> {
        let at = self.walker.put(block);
        self.open.put(block);
        if at == At::Inside {
            let fits = self.whole.blocks.saturating_add(self.open.blocks) < MOST_BLOCKS;
            return if fits { None } else { self.whole.take() };
        }
        let content = if let At::End { content } = at { content } else { 0 };
        self.whole.join(core::mem::take(&mut self.open), content);
        if self.whole.ends() { self.whole.take() } else { None }
    }

    /// The group that has not ended yet; after it, the next one starts.
    pub fn finish(&mut self) -> Option<Group> {
        self.whole.join(core::mem::take(&mut self.open), 0);
        self.whole.take()
    }
}

/// Part of a group.
#[derive(Clone, Debug, Default)]
struct Part {
    bytes: Vec<u8>,
    blocks: u32,
    /// Bytes that are in its spans.
    content: usize,
    /// Whether a block says that the group ends.
    cut: bool,
}

impl Part {
    fn put(&mut self, block: &[u8]) {
        self.bytes.extend_from_slice(block);
        // OK to saturate: MOST_BLOCKS ends it.
        self.blocks = self.blocks.saturating_add(1);
        self.cut |= crc32fast::hash(block) & CUT_MASK == 0;
    }

    fn join(&mut self, next: Self, content: usize) {
        self.bytes.extend_from_slice(&next.bytes);
        self.blocks = self.blocks.saturating_add(next.blocks);
        self.content = self.content.saturating_add(content);
        self.cut |= next.cut;
    }

    fn ends(&self) -> bool {
        let much = self.blocks >= MANY_BLOCKS || self.content >= MANY_CONTENT_BYTES;
        much || (self.cut && self.blocks >= LEAST_BLOCKS)
    }

    /// The group that it is, if it is one; it is empty afterwards.
    fn take(&mut self) -> Option<Group> {
        let Self { bytes, blocks, .. } = core::mem::take(self);
        (blocks > 0).then(|| Group { blocks, sha256: Digest::of(&bytes) })
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
