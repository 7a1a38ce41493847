//! The compact index of a compressed file: which cluster holds each 4 KiB of it.
//!
//! A *cluster* (the documents' pcluster) is a run of blocks that decompresses to one stretch of
//! the file. The file is looked at in 4 KiB steps; each step has one entry of 14 significant
//! bits, type and value:
//!
//! ```text
//!   head    a cluster starts in this step, at byte `value`; at most one can
//!   first   the step after a head that does not start another: the cluster's length in blocks
//!   rest    steps after that: distance back to the head, or, in the last entry of a pack,
//!           distance ahead to the next head
//! ```
//!
//! Entries are packed by two into 8 bytes or by sixteen into 32, each pack with the block address
//! that its first cluster has; later ones in the pack follow by adding lengths. Hence a file's
//! clusters lie one after another.

use super::format::{Algorithm, BLOCK_BYTES, MapHeader, advise, align, u32_at};
use crate::error::{Error, Result};

/// One cluster of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cluster {
    /// Bytes of the file.
    pub(super) length: u32,
    /// Blocks on disk; zero if it stands beside the inode.
    pub(super) blocks: u32,
    /// False if the bytes are stored as they are: at most one block then.
    pub(super) compressed: bool,
}

/// Longest stretch of a file in one cluster, so that distances fit into their 11 bits; also what
/// a reader of one page may have to decompress. LZ4 packs this much of zeros into one block.
pub(super) const CLUSTER_LENGTH_MAX: usize = 240 * BLOCK_BYTES;
const _: () = assert!(CLUSTER_LENGTH_MAX / BLOCK_BYTES < (FIRST_FLAG as usize) - 1);

const TYPE_PLAIN: u16 = 0;
const TYPE_HEAD: u16 = 1;
const TYPE_NOT_HEAD: u16 = 2;
const TYPE_SHIFT: u16 = 12;
const VALUE_MASK: u16 = (1 << TYPE_SHIFT) - 1;
/// Marks a `first` entry among those that are no head (Z_EROFS_LI_D0_CBLKCNT).
const FIRST_FLAG: u16 = 1 << 11;

/// Packs of one file, from alignment and number of steps.
#[derive(Clone, Copy)]
struct Packs {
    /// Entries before the first aligned 32 bytes, by two.
    before: usize,
    /// Entries by sixteen.
    middle: usize,
    /// Number of entries.
    total: usize,
}

impl Packs {
    fn new(head_bytes: usize, total: usize) -> Self {
        let start = align(head_bytes, 8) + MapHeader::BYTES;
        let before = (align(start, 32) - start) / 4;
        let middle = total.saturating_sub(before) / 16 * 16;
        Self { before, middle, total }
    }

    fn bytes(self) -> usize {
        let by_two = align(self.total - self.middle, 2);
        self.middle * 2 + by_two * 4
    }

    /// First entry and number of entries of each pack.
    fn iter(self) -> impl Iterator<Item = (usize, usize)> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let in_middle = at >= self.before && at < self.before + self.middle;
            let pack = (at, if in_middle { 16 } else { 2 });
            (at < self.total).then(|| {
                at += pack.1;
                pack
            })
        })
    }
}

/// Bytes of the index, its header included, for an inode with attributes of `head_bytes`.
pub(super) fn bytes(head_bytes: usize, file_bytes: u64) -> usize {
    MapHeader::BYTES + Packs::new(head_bytes, steps(file_bytes)).bytes()
}

fn steps(file_bytes: u64) -> usize {
    usize::try_from(file_bytes.div_ceil(BLOCK_BYTES as u64)).unwrap_or(usize::MAX)
}

#[derive(Clone, Copy)]
enum Entry {
    Head { kind: u16, offset: u16, block: u32 },
    First { blocks: u16, block: u32 },
    Rest { back: u16, ahead: u16 },
}

/// The index of a file whose clusters start at `first_block`, with its header.
pub(super) fn encode(
    clusters: &[Cluster],
    first_block: u32,
    head_bytes: usize,
    algorithm: Algorithm,
    inline_bytes: u16,
) -> Vec<u8> {
    let inline = if inline_bytes > 0 { advise::INLINE_CLUSTER } else { 0 };
    let header = MapHeader {
        inline_bytes,
        advise: advise::TWO_BYTE_PACKS | advise::BIG_CLUSTERS | advise::INTERLACED | inline,
        algorithm,
    };
    let entries = entries(clusters, first_block);
    let mut bytes = header.encode().to_vec();
    for (at, count) in Packs::new(head_bytes, entries.len()).iter() {
        let end = entries.len().min(at + count);
        bytes.extend(pack(&entries[at..end], count));
    }
    bytes
}

fn entries(clusters: &[Cluster], first_block: u32) -> Vec<Entry> {
    let file_bytes: u64 = clusters.iter().map(|cluster| u64::from(cluster.length)).sum();
    let total = steps(file_bytes);
    let mut entries = Vec::with_capacity(total);
    let mut start = 0;
    let mut block = first_block;
    for cluster in clusters {
        let end = start + u64::from(cluster.length);
        let head = (start / BLOCK_BYTES as u64) as usize;
        let next = (end / BLOCK_BYTES as u64) as usize;
        assert_eq!(entries.len(), head, "two clusters start in one step");
        let kind = if cluster.compressed { TYPE_HEAD } else { TYPE_PLAIN };
        entries.push(Entry::Head { kind, offset: (start % BLOCK_BYTES as u64) as u16, block });
        for step in head + 1..next {
            entries.push(match step - head {
                1 => Entry::First { blocks: cluster.blocks.max(1) as u16, block },
                back => Entry::Rest { back: back as u16, ahead: (next - step) as u16 },
            });
        }
        start = end;
        block += cluster.blocks;
    }
    if entries.len() < total {
        // The file ends in a step in which no cluster starts: a head at its end, of no length,
        // tells readers where the last cluster stops.
        let offset = (file_bytes % BLOCK_BYTES as u64) as u16;
        entries.push(Entry::Head { kind: TYPE_PLAIN, offset, block });
    }
    entries
}

/// One pack of `count` entries, missing ones as zeros.
fn pack(entries: &[Entry], count: usize) -> Vec<u8> {
    let bits = if count == 16 { 14 } else { 16 };
    let bytes = count * bits / 8;
    let mut packed = vec![0_u8; bytes];
    for (index, entry) in entries.iter().enumerate() {
        let value = u32::from(entry.value(index + 1 == count)) << (index * bits % 8);
        let at = index * bits / 8;
        for (byte, part) in packed[at..].iter_mut().zip(value.to_le_bytes()) {
            *byte |= part;
        }
    }
    packed.extend(base(entries).to_le_bytes());
    packed
}

impl Entry {
    fn value(self, last_in_pack: bool) -> u16 {
        match self {
            Self::Head { kind, offset, .. } => kind << TYPE_SHIFT | offset,
            Self::First { blocks, .. } => TYPE_NOT_HEAD << TYPE_SHIFT | FIRST_FLAG | blocks,
            Self::Rest { ahead, .. } if last_in_pack => TYPE_NOT_HEAD << TYPE_SHIFT | ahead,
            Self::Rest { back, .. } => TYPE_NOT_HEAD << TYPE_SHIFT | back,
        }
    }
}

/// The address from which a pack counts: that of the cluster whose length it tells first.
fn base(entries: &[Entry]) -> u32 {
    let address = |entry: &Entry| match entry {
        Entry::Head { block, .. } => Some(*block),
        _ => None,
    };
    match entries.first() {
        Some(Entry::First { block, .. }) => *block,
        _ => entries.iter().find_map(address).unwrap_or(0),
    }
}

/// A cluster as an index gives it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Located {
    /// First byte in the file.
    pub(super) start: u64,
    /// Bytes of the file.
    pub(super) length: u64,
    /// First block.
    pub(super) block: u32,
    /// Number of blocks.
    pub(super) blocks: u32,
    /// False if the bytes are stored as they are.
    pub(super) compressed: bool,
}

/// The clusters of a file of `file_bytes` from the packs behind its index header.
///
/// Checks what a reader relies on: one head at most in a step, distances that lead to heads,
/// clusters that cover the file.
pub(super) fn decode(packs: &[u8], head_bytes: usize, file_bytes: u64) -> Result<Vec<Located>> {
    let entries = unpack(packs, Packs::new(head_bytes, steps(file_bytes)));
    let mut found: Vec<Located> = Vec::new();
    for (step, entry) in entries.iter().enumerate() {
        let (compressed, blocks) = match entry.kind {
            TYPE_PLAIN | TYPE_HEAD => (entry.kind == TYPE_HEAD, entries.get(step + 1)),
            TYPE_NOT_HEAD => {
                check_distance(&entries, step, found.last())?;
                continue;
            }
            kind => return Err(wrong(step, format!("unsupported type {kind}"))),
        };
        let start = step as u64 * BLOCK_BYTES as u64 + u64::from(entry.value);
        if usize::from(entry.value) >= BLOCK_BYTES || start > file_bytes {
            return Err(wrong(step, format!("cluster starts at {start}")));
        }
        if let Some(last) = found.last_mut() {
            last.length = start - last.start;
        } else if start != 0 {
            return Err(wrong(step, "the file's start is in no cluster".into()));
        }
        let blocks = blocks.and_then(RawEntry::first_blocks).unwrap_or(1);
        let (block, length) = (entry.block, file_bytes - start);
        // A head at the file's end only ends the cluster before it.
        if length > 0 {
            found.push(Located { start, length, block, blocks, compressed });
        }
    }
    Ok(found)
}

/// An entry as it stands on disk, with the address that its pack gives it.
#[derive(Clone, Copy)]
struct RawEntry {
    kind: u16,
    value: u16,
    block: u32,
    last_in_pack: bool,
}

impl RawEntry {
    fn first_blocks(&self) -> Option<u32> {
        let is_first = self.kind == TYPE_NOT_HEAD && self.value & FIRST_FLAG != 0;
        is_first.then_some(u32::from(self.value & !FIRST_FLAG))
    }
}

fn unpack(bytes: &[u8], packs: Packs) -> Vec<RawEntry> {
    let mut entries = Vec::with_capacity(packs.total);
    let mut at = 0;
    for (first, count) in packs.iter() {
        let bits = if count == 16 { 14 } else { 16 };
        let pack = &bytes[at..][..count * bits / 8 + 4];
        at += pack.len();
        let mut block = u32_at(pack, pack.len() - 4);
        let present = count.min(packs.total - first);
        let raw: Vec<u16> = (0..present).map(|index| bits_at(pack, index * bits)).collect();
        for (index, value) in raw.iter().enumerate() {
            let entry = RawEntry {
                kind: value >> TYPE_SHIFT & 3,
                value: value & VALUE_MASK,
                block,
                last_in_pack: index + 1 == count,
            };
            // A cluster's length is added where it is told: at its second step, or at its head
            // if the next step is another's.
            let next_is_head = raw.get(index + 1).is_none_or(|n| n >> TYPE_SHIFT & 3 != 2);
            let told = match entry.first_blocks() {
                Some(blocks) => blocks,
                None => u32::from(entry.kind != TYPE_NOT_HEAD && next_is_head),
            };
            block = block.wrapping_add(told);
            entries.push(entry);
        }
    }
    entries
}

fn bits_at(bytes: &[u8], bit: usize) -> u16 {
    let value = u32_at(bytes, bit / 8) >> (bit % 8);
    // The upper bits belong to the next entry and are masked by the caller.
    (value & 0x3FFF) as u16
}

fn check_distance(entries: &[RawEntry], step: usize, head: Option<&Located>) -> Result<()> {
    let entry = entries[step];
    let Some(head) = head else {
        return Err(wrong(step, "no cluster starts before it".into()));
    };
    let back = step - (head.start / BLOCK_BYTES as u64) as usize;
    if entry.first_blocks().is_some() != (back == 1) {
        return Err(wrong(step, format!("{} steps after a head", back)));
    }
    let ahead = || entries[step..].iter().take_while(|entry| entry.kind == TYPE_NOT_HEAD).count();
    let right = if entry.last_in_pack { ahead() } else { back };
    if back > 1 && usize::from(entry.value) != right {
        return Err(wrong(step, format!("distance {} instead of {right}", entry.value)));
    }
    Ok(())
}

fn wrong(step: usize, what: String) -> Error {
    Error::new(format!("cluster index, entry {step}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clusters of given (length, blocks) survive, whatever the alignment of the index.
    fn check(lengths: &[(u32, u32)]) {
        let cluster = |&(length, blocks): &(u32, u32)| {
            let compressed = length > BLOCK_BYTES as u32;
            Cluster { length, blocks, compressed }
        };
        let clusters: Vec<Cluster> = lengths.iter().map(cluster).collect();
        let file_bytes = clusters.iter().map(|cluster| u64::from(cluster.length)).sum();
        for head_bytes in [32, 44, 48, 56, 64] {
            let encoded = encode(&clusters, 1000, head_bytes, Algorithm::LZ4, 0);
            assert_eq!(encoded.len(), bytes(head_bytes, file_bytes));
            let decoded = decode(&encoded[MapHeader::BYTES..], head_bytes, file_bytes).unwrap();
            let mut expected = Vec::new();
            let (mut start, mut block) = (0, 1000);
            for Cluster { length, blocks, compressed } in clusters.iter().copied() {
                let length = u64::from(length);
                expected.push(Located { start, length, block, blocks, compressed });
                start += length;
                block += blocks;
            }
            assert_eq!(decoded, expected, "{lengths:?} behind {head_bytes} bytes");
        }
    }

    #[test]
    fn clusters_survive_the_index() {
        check(&[(5000, 1)]);
        check(&[(4096, 1)]);
        check(&[(100_000, 16), (70_001, 16), (4096, 1), (4096, 1), (900, 1)]);
        check(&[(4097, 1), (8191, 1), (8193, 2), (4096, 1), (240 * 4096, 1), (300_000, 16)]);
        check(&vec![(12_345, 2); 300]);
        check(&vec![(70_000, 16); 40]);
        check(&vec![(4096, 1); 100]);
    }

    #[test]
    fn a_file_that_ends_beyond_its_last_head_says_where() {
        // The kernel takes an uncompressed cluster that seems longer than its block for damage.
        check(&[(5000, 1), (3500, 1)]);
        check(&[(100_000, 3), (4000, 1)]);
    }

    #[test]
    fn a_wrong_distance_is_refused() {
        let clusters = [Cluster { length: 50_000, blocks: 5, compressed: true }];
        let mut encoded = encode(&clusters, 9, 32, Algorithm::LZ4, 0);
        // The first pack holds head and first, the second two rests: 2 and 3 back.
        encoded[MapHeader::BYTES + 8] ^= 1;
        let error = decode(&encoded[MapHeader::BYTES..], 32, 50_000).unwrap_err();
        assert_eq!(error.to_string(), "cluster index, entry 2: distance 3 instead of 2");
    }
}
