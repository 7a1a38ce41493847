//! Where in an old image something like a piece of the new one is.
//!
//! Every 32nd byte of the old image starts a sample of 32 bytes in a table; every 4th of a piece is
//! looked up there (programs for arm64 move by multiples of 4). Each hit is a vote for the place
//! where the piece would start in the old image; the place that most samples agree on wins, within
//! a few KiB.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use ondisk::layout::BLOCK_BYTES;
use ondisk::pack::MAX_WINDOW_BLOCKS;

const SAMPLE: usize = 32;
const STEP: usize = 4;
/// A sample that occurs more often says nothing: zeros, tables of equal entries.
const MOST_PLACES: usize = 4;
/// Votes within so many bytes are for the same place.
const PLACE_BYTES: i64 = 8 * 1024;
const BLOCK: usize = BLOCK_BYTES as usize;
const WINDOW: usize = MAX_WINDOW_BLOCKS as usize * BLOCK;

/// The samples of an old image.
pub struct Samples<'a> {
    image: &'a [u8],
    places: HashMap<u64, Vec<u32>, BuildHasherDefault<Ready>>,
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

impl<'a> Samples<'a> {
    /// Takes samples of an image.
    pub fn of(image: &'a [u8]) -> Self {
        let mut places: HashMap<u64, Vec<u32>, _> = HashMap::default();
        for (number, sample) in image.chunks_exact(SAMPLE).enumerate() {
            let list = places.entry(hash(sample)).or_default();
            // One more than the most marks it as useless.
            if list.len() <= MOST_PLACES {
                list.push(u32::try_from(number).unwrap_or(u32::MAX));
            }
        }
        Self { image, places }
    }

    /// Where most of a piece is, if any of it is anywhere.
    pub fn window(&self, piece: &[u8]) -> Option<Window> {
        let mut votes: HashMap<i64, u32> = HashMap::new();
        for (at, sample) in piece.windows(SAMPLE).enumerate().step_by(STEP) {
            let Some(list) = self.places.get(&hash(sample)) else { continue };
            if list.len() > MOST_PLACES {
                continue;
            }
            for number in list {
                let start = i64::from(*number) * SAMPLE as i64 - at as i64;
                *votes.entry(start.div_euclid(PLACE_BYTES)).or_default() += 1;
            }
        }
        // Ties go to the lower place, so that the same images give the same pack.
        let (place, _) = votes.into_iter().max_by_key(|(place, votes)| (*votes, -*place))?;
        Some(self.around(place * PLACE_BYTES, piece.len()))
    }

    /// A window of the largest size with the piece in its middle, as far as the image goes.
    fn around(&self, start: i64, length: usize) -> Window {
        let margin = (WINDOW.saturating_sub(length) / 2) as i64;
        let first = usize::try_from((start - margin).max(0)).unwrap_or_default() / BLOCK;
        let all = self.image.len() / BLOCK;
        let first = first.min(all.saturating_sub(1));
        let blocks = (all - first).min(MAX_WINDOW_BLOCKS as usize);
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Window { block: number(first), blocks: number(blocks) }
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

    #[test]
    fn a_piece_that_moved_is_found_where_it_was() {
        let old = noise(100 * WINDOW / 10);
        let samples = Samples::of(&old);
        for moved in [0, 4, 1000, 300_000] {
            let mut piece = old[moved..moved + 40_000].to_vec();
            piece[20_000..20_010].fill(0);
            let window = samples.window(&piece).unwrap();
            let bytes =
                window.block as usize * BLOCK..(window.block + window.blocks) as usize * BLOCK;
            assert!(bytes.start <= moved && moved + 40_000 <= bytes.end, "{moved}: {bytes:?}");
        }
    }

    #[test]
    fn what_is_nowhere_or_everywhere_has_no_window() {
        let old = noise(WINDOW);
        assert_eq!(Samples::of(&old).window(&noise(2 * WINDOW)[WINDOW..]), None);
        assert_eq!(Samples::of(&vec![0; WINDOW]).window(&[0; 40_000]), None);
        assert_eq!(Samples::of(&[]).window(&[1; 40_000]), None);
    }

    #[test]
    fn a_window_ends_with_the_image() {
        let old = noise(10 * BLOCK);
        let window = Samples::of(&old).window(&old[9 * BLOCK..]).unwrap();
        assert_eq!(window, Window { block: 0, blocks: 10 });
    }
}
