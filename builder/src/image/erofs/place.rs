//! Where each inode lies in the metadata area, decided from lengths alone.
//!
//! ```text
//!   | shared attributes | inode attributes map tail | inode attributes … |
//!   ^ multiple of 4096  ^ multiple of 32       ^ within one block
//! ```
//!
//! An inode with all that follows it stays within a block when it can, so that looking at a file
//! reads one block. The gaps this leaves at the ends of blocks are filled by later, smaller ones.

use super::format::{BLOCK_BYTES, SLOT_BYTES, align};

/// Lengths of the parts of one inode, in order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Inode and attributes.
    pub(super) head: usize,
    /// What the map's start is a multiple of.
    pub(super) map_align: usize,
    /// Chunk map or cluster index.
    pub(super) map: usize,
    /// Data beside the inode; must not cross a block boundary.
    pub(super) tail: usize,
}

impl Shape {
    /// Where the map starts, for an inode at `start`.
    pub(super) fn map_at(self, start: usize) -> usize {
        align(start + self.head, self.map_align)
    }

    /// Where the tail starts.
    pub(super) fn tail_at(self, start: usize) -> usize {
        self.map_at(start) + self.map
    }

    fn end(self, start: usize) -> usize {
        self.tail_at(start) + self.tail
    }

    fn is_valid_at(self, start: usize) -> bool {
        let tail = self.tail_at(start);
        self.tail == 0 || tail / BLOCK_BYTES == (tail + self.tail - 1) / BLOCK_BYTES
    }
}

/// Blocks with room at their end that are still considered: bounds the work and keeps what is
/// near in the tree near on disk.
const GAPS_MAX: usize = 64;

/// Finds a place for each shape, in order, from `start` on; returns the places and the end.
pub(super) fn place(shapes: &[Shape], start: usize) -> (Vec<usize>, usize) {
    let mut end = start;
    let mut gaps: Vec<(usize, usize)> = Vec::new();
    let places = shapes.iter().map(|shape| take(*shape, &mut gaps, &mut end)).collect();
    (places, end)
}

fn take(shape: Shape, gaps: &mut Vec<(usize, usize)>, end: &mut usize) -> usize {
    let length = shape.end(0);
    // The tightest gap wins; of equal ones the oldest.
    let fits = |&(_, (at, stop)): &(usize, &(usize, usize))| stop - at >= length;
    let best = gaps.iter().enumerate().filter(fits).min_by_key(|(_, (at, stop))| stop - at);
    if length <= BLOCK_BYTES
        && let Some((index, &(at, stop))) = best
    {
        let rest = align(at + length, SLOT_BYTES);
        gaps.remove(index);
        keep(gaps, rest, stop);
        return at;
    }
    let mut at = align(*end, SLOT_BYTES);
    let boundary = align(at, BLOCK_BYTES);
    let crosses = at != boundary && at + length > boundary;
    if length <= BLOCK_BYTES && crosses {
        keep(gaps, at, boundary);
        at = boundary;
    }
    while !shape.is_valid_at(at) {
        at += SLOT_BYTES;
    }
    *end = shape.end(at);
    at
}

fn keep(gaps: &mut Vec<(usize, usize)>, at: usize, stop: usize) {
    if at + SLOT_BYTES <= stop {
        gaps.push((at, stop));
    }
    if gaps.len() > GAPS_MAX {
        gaps.remove(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(head: usize, tail: usize) -> Shape {
        Shape { head, map_align: 1, map: 0, tail }
    }

    #[test]
    fn gaps_are_filled_and_tails_stay_within_a_block() {
        let shapes = [flat(32, 3000), flat(32, 2000), flat(32, 900), flat(32, 40)];
        let (places, end) = place(&shapes, 32);
        // The second does not fit behind the first, the third does, the fourth follows the second.
        assert_eq!(places, [32, 4096, 3072, 4096 + 2048]);
        assert_eq!(end, 4096 + 2048 + 72);
    }

    #[test]
    fn what_exceeds_a_block_runs_on_but_its_tail_does_not_cross() {
        let long = Shape { head: 32, map_align: 8, map: 5000, tail: 4000 };
        let (places, _) = place(&[flat(32, 0), long], 0);
        assert!(long.is_valid_at(places[1]), "{places:?}");
        assert_eq!(place(&[flat(64, 0), Shape { tail: 0, ..long }], 0).0, [0, 64]);
    }

    #[test]
    fn places_never_overlap() {
        let mut seed = 1_u64;
        let mut random = |limit: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % limit
        };
        let shapes: Vec<Shape> = (0..500)
            .map(|_| Shape {
                head: 32 + 4 * random(300) as usize,
                map_align: 8,
                map: if random(4) == 0 { 8 * random(1500) as usize } else { 0 },
                tail: random(2000) as usize,
            })
            .collect();
        let (places, end) = place(&shapes, 100);
        let mut ranges: Vec<(usize, usize)> =
            places.iter().zip(&shapes).map(|(at, shape)| (*at, shape.end(*at))).collect();
        ranges.sort_unstable();
        assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0));
        assert_eq!(ranges.iter().map(|range| range.1).max(), Some(end));
        assert!(places.iter().zip(&shapes).all(|(at, shape)| shape.is_valid_at(*at)));
    }
}
