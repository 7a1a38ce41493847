//! Where in an old image something like a piece of the new one is.
//!
//! What is compared is what is *in* the blocks, spans unpacked. Every 64th byte of that starts a
//! sample of 32 bytes in a table; every byte of a piece is looked up there, for a span may start
//! anywhere in a file. Each hit is a vote for the place where the piece would start in the old
//! content; the place that most samples agree on wins, within a few KiB.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;

use ondisk::layout::BLOCK_BYTES;
use ondisk::pack::MAX_WINDOW_BLOCKS;
use ondisk::pack::recipe::MAX_CONTENT_BYTES;
use ondisk::spans;

use crate::payload;

const SAMPLE: usize = 32;
const SPACING: usize = 64;
/// A sample that occurs more often says nothing: zeros, tables of equal entries.
const MOST_PLACES: usize = 4;
/// Votes within so many bytes are for the same place.
const PLACE_BYTES: i64 = 8 * 1024;
/// Content on each side of a piece that a window has: what moved further is found by nobody.
const MARGIN: usize = 256 * 1024;
const BLOCK: usize = BLOCK_BYTES as usize;

/// What is in the blocks of an old image.
pub struct Content<'a> {
    image: &'a [u8],
    bytes: Vec<u8>,
    runs: Vec<Start>,
    places: HashMap<u64, Vec<u32>, BuildHasherDefault<Ready>>,
}

/// Where a run starts that starts with a block.
#[derive(Clone, Copy)]
struct Start {
    content: usize,
    block: usize,
}

/// A window of the old image, in blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// Its first block.
    pub block: u32,
    /// Number of blocks.
    pub blocks: u32,
}

impl Window {
    /// Its bytes.
    pub fn of(self, image: &[u8]) -> &[u8] {
        let start = self.block as usize * BLOCK;
        &image[start..start + self.blocks as usize * BLOCK]
    }
}

impl<'a> Content<'a> {
    /// Unpacks an image of whole blocks and takes samples of it.
    pub fn of(image: &'a [u8]) -> Self {
        let (mut bytes, mut starts, mut at) = (Vec::new(), Vec::new(), 0);
        for run in spans::runs(image) {
            if at % BLOCK == 0 {
                starts.push(Start { content: bytes.len(), block: at / BLOCK });
            }
            at += run.stored().len();
            // What only looks like a span has no content here, and a window with it none at all.
            let content = spans::content(run.stored(), MAX_CONTENT_BYTES, payload::decode);
            bytes.extend(content.unwrap_or_default());
        }
        starts.push(Start { content: bytes.len(), block: at / BLOCK });
        let mut places: HashMap<u64, Vec<u32>, _> = HashMap::default();
        for (number, sample) in bytes.chunks(SPACING).enumerate() {
            let Some(sample) = sample.get(..SAMPLE) else { continue };
            let list = places.entry(hash(sample)).or_default();
            // One more than the most marks it as useless.
            if list.len() <= MOST_PLACES {
                list.push(u32::try_from(number).unwrap_or(u32::MAX));
            }
        }
        Self { image, bytes, runs: starts, places }
    }

    /// Where most of a piece is, if any of it is anywhere; and what is in those blocks.
    pub fn window(&self, piece: &[u8]) -> Option<(Window, Vec<u8>)> {
        let start = self.place(piece)?;
        let margin = MARGIN.min(MAX_CONTENT_BYTES.checked_sub(piece.len())? / 2) as i64;
        let clamp = |at: i64| usize::try_from(at.max(0)).unwrap_or_default().min(self.bytes.len());
        let end = start + piece.len() as i64;
        let window = self.blocks_around(clamp(start - margin)..clamp(end + margin))?;
        let content = spans::content(window.of(self.image), MAX_CONTENT_BYTES, payload::decode)?;
        Some((window, content))
    }

    /// Where in the content most samples of the piece say that it starts.
    fn place(&self, piece: &[u8]) -> Option<i64> {
        let mut votes: HashMap<i64, u32> = HashMap::new();
        for (at, sample) in piece.windows(SAMPLE).enumerate() {
            let Some(list) = self.places.get(&hash(sample)) else { continue };
            if list.len() > MOST_PLACES {
                continue;
            }
            for number in list {
                let start = i64::from(*number) * SPACING as i64 - at as i64;
                *votes.entry(start.div_euclid(PLACE_BYTES)).or_default() += 1;
            }
        }
        // Ties go to the lower place, so that the same images give the same pack.
        let (place, _) = votes.into_iter().max_by_key(|(place, votes)| (*votes, -*place))?;
        Some(place * PLACE_BYTES)
    }

    /// The whole runs around a part of the content, fewer at the ends if they would be too much.
    fn blocks_around(&self, content: Range<usize>) -> Option<Window> {
        let before = |at: usize| self.runs.partition_point(|start| start.content <= at);
        let mut first = before(content.start).checked_sub(1)?;
        let mut end = self.runs.partition_point(|start| start.content < content.end);
        end = end.min(self.runs.len() - 1);
        loop {
            let (from, to) = (self.runs[first], *self.runs.get(end)?);
            let blocks = to.block - from.block;
            if blocks <= MAX_WINDOW_BLOCKS as usize
                && to.content - from.content <= MAX_CONTENT_BYTES
            {
                let number = |count| u32::try_from(count).ok();
                return Some(Window { block: number(from.block)?, blocks: number(blocks)? })
                    .filter(|window| window.blocks > 0);
            }
            let middle = content.start.midpoint(content.end);
            if to.content.abs_diff(middle) > middle.abs_diff(from.content) {
                end -= 1;
            } else {
                first += 1;
            }
        }
    }
}

/// FNV-1a by words: quick, and the same everywhere.
fn hash(sample: &[u8]) -> u64 {
    let (words, _) = sample.as_chunks::<8>();
    words.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, word| {
        (hash ^ u64::from_le_bytes(*word)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29)
    })
}

/// Keys that are hashes already.
#[derive(Default)]
struct Ready(u64);

impl Hasher for Ready {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only numbers are keys");
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes without repetitions.
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let step = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        std::iter::repeat_with(step).take(length).collect()
    }

    fn range(window: Window) -> Range<usize> {
        let start = window.block as usize * BLOCK;
        start..start + window.blocks as usize * BLOCK
    }

    #[test]
    fn a_piece_that_moved_is_found_where_it_was() {
        let old = noise(1280 * BLOCK);
        let content = Content::of(&old);
        for moved in [0, 4, 1000, 300_000, 3_000_000] {
            let mut piece = old[moved..moved + 40_000].to_vec();
            piece[20_000..20_010].fill(0);
            let (window, inside) = content.window(&piece).unwrap();
            let bytes = range(window);
            assert!(bytes.start <= moved && moved + 40_000 <= bytes.end, "{moved}: {bytes:?}");
            assert!(inside == old[bytes], "{moved}");
        }
    }

    #[test]
    fn a_piece_of_a_span_is_found_in_what_is_unpacked() {
        // Text of hexadecimal digits, so that it can be packed, in spans of 200,000 bytes.
        let text: Vec<u8> =
            noise(2_000_000).iter().map(|byte| b"0123456789abcdef"[*byte as usize % 16]).collect();
        let mut old = noise(3 * BLOCK);
        for content in text.chunks(200_000) {
            let frame = spans::packer::pack(3, content).unwrap();
            let mut blocks = vec![0; frame.len().next_multiple_of(BLOCK)];
            spans::place(&frame, &mut blocks).unwrap();
            old.extend(blocks);
        }
        let content = Content::of(&old);
        for moved in [0, 123_456, 1_500_000] {
            let piece = &text[moved..moved + 300_000];
            let (window, inside) = content.window(piece).unwrap();
            assert!(memchr::memmem::find(&inside, piece).is_some(), "{moved}: {window:?}");
            assert!(range(window).len() < inside.len() && inside.len() <= MAX_CONTENT_BYTES);
        }
    }

    #[test]
    fn what_is_nowhere_or_everywhere_has_no_window() {
        let noise = noise(2 << 20);
        let (old, new) = noise.split_at(1 << 20);
        assert_eq!(Content::of(old).window(new), None);
        assert_eq!(Content::of(&vec![0; 1 << 20]).window(&[0; 40_000]), None);
        assert_eq!(Content::of(&[]).window(&[1; 40_000]), None);
    }

    #[test]
    fn a_window_ends_with_the_image() {
        let old = noise(10 * BLOCK);
        let (window, inside) = Content::of(&old).window(&old[9 * BLOCK..]).unwrap();
        assert_eq!(window, Window { block: 0, blocks: 10 });
        assert!(inside == old);
    }
}
