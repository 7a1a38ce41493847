//! Zstandard into a given room.
//!
//! The library can only compress a given input, so the input that fills the room is searched:
//! lengths of compressed and plain grow together almost linearly, hence the second or third try
//! ends within a few bytes of a block's end. (`mkfs.erofs` searches too, in more steps.)

use ondisk::spans::packer::{self, WINDOW_BITS};
use zstd::zstd_safe::{CCtx, compress_bound};

use super::cluster::Codec;
use super::format::BLOCK_BYTES;
use crate::error::{Error, Result};

/// Tries for one cluster; the best is taken if none comes close enough.
const TRIES: usize = 5;
/// Unused bytes of a block that end the search: less than one in a hundred of a usual cluster.
const WASTE_BYTES_MAX: usize = 400;
/// How far below a block's end the search aims at first.
const MARGIN_BYTES: usize = 96;

/// Largest window that the kernel's decoder is set up for, and the smallest of zstd.
const WINDOWS: std::ops::RangeInclusive<u32> = 10..=20;
const _: () = assert!(1 << WINDOW_BITS == 65536 * 8, "devices pack clusters of 64 KiB again");

/// A compressor and what it learned from the clusters before.
pub(super) struct Zstd {
    context: CCtx<'static>,
    scratch: Vec<u8>,
    /// Plain and compressed length of the last cluster: where to begin the next search.
    last: (usize, usize),
}

/// Power of two of the window for a cluster size: eight times as much, since text compresses
/// about so far. Each core of the device keeps one such buffer.
pub(super) fn window_bits(cluster_bytes: usize) -> u32 {
    (cluster_bytes * 8).ilog2().clamp(*WINDOWS.start(), *WINDOWS.end())
}

impl Zstd {
    /// A compressor of a level from 1 to 22.
    pub(super) fn new(level: i32, cluster_bytes: usize) -> Result<Self> {
        let context = packer::compressor(level, window_bits(cluster_bytes))
            .map_err(|why| Error::new(format!("cannot set up zstd level {level}: {why}")))?;
        Ok(Self { context, scratch: Vec::new(), last: FIRST_GUESS })
    }

    /// Compresses all of `source` into the scratch buffer; `None` if the library fails.
    fn try_all(&mut self, source: &[u8]) -> Option<usize> {
        self.scratch.clear();
        self.scratch.reserve(compress_bound(source.len()));
        self.context.compress2(&mut self.scratch, source).ok()
    }
}

/// Programs compress to about a third.
const FIRST_GUESS: (usize, usize) = (3, 1);

impl Codec for Zstd {
    fn restart(&mut self) {
        // What one file taught depends on which thread got it; images must not.
        self.last = FIRST_GUESS;
    }

    fn fill(&mut self, source: &[u8], target: &mut [u8]) -> (usize, usize) {
        let room = target.len();
        let mut best = (0, 0);
        let mut read = scale(room, self.last).clamp(1, source.len().max(1)).min(source.len());
        for attempt in 0..TRIES {
            let Some(written) = self.try_all(&source[..read]) else { break };
            if written <= room && is_better((read, written), best) {
                best = (read, written);
                target[..written].copy_from_slice(&self.scratch);
            }
            let waste = written.next_multiple_of(BLOCK_BYTES) - written;
            if written <= room && (read == source.len() || waste <= WASTE_BYTES_MAX) {
                break;
            }
            let next = next_length(read, written, room, MARGIN_BYTES << attempt);
            let next = next.min(source.len());
            if next == read || next == 0 {
                break;
            }
            read = next;
        }
        if best.0 > 0 {
            self.last = best;
        }
        best
    }
}

/// Which input to try after `read` bytes became `written`.
fn next_length(read: usize, written: usize, room: usize, margin: usize) -> usize {
    let up = written.next_multiple_of(BLOCK_BYTES);
    // Far from the room, go there; near it, to the end of the block that is open.
    let aim = if written > room || written < room / 4 * 3 || up > room { room } else { up };
    let aim = aim.saturating_sub(margin);
    let change = scale(aim.abs_diff(written), (read, written));
    if aim > written { read + change.max(1) } else { read.saturating_sub(change.max(1)) }
}

fn scale(length: usize, (plain, compressed): (usize, usize)) -> usize {
    length * plain / compressed.max(1)
}

/// More plain bytes for each block stored.
fn is_better((read, written): (usize, usize), best: (usize, usize)) -> bool {
    let blocks = |bytes: usize| bytes.div_ceil(BLOCK_BYTES).max(1);
    read * blocks(best.1) > best.0 * blocks(written)
}

/// Decompresses a whole frame; `None` unless it gives exactly `target.len()` bytes.
pub(super) fn decompress(source: &[u8], target: &mut [u8]) -> Option<()> {
    let length = zstd::bulk::decompress_to_buffer(source, target).ok()?;
    (length == target.len()).then_some(())
}
