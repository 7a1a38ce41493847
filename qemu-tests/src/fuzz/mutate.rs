//! Small changes of bytes, several at a time.
use crate::simdisk::scramble;

/// Numbers that look random and depend on the seed only.
pub(super) struct Random(pub(super) u64);

impl Random {
    /// A number below `end`, or 0 if there is none.
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(1);
        let end = u64::try_from(end).unwrap_or(1).max(1);
        usize::try_from(scramble(self.0) % end).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        self.0 = self.0.wrapping_add(1);
        scramble(self.0).to_le_bytes()[0]
    }
}

/// Numbers at the edges of types and of the sizes disks are made of.
const EDGES: [u64; 16] = [
    0,
    1,
    2,
    3,
    127,
    128,
    511,
    512,
    4095,
    4096,
    65_536,
    0x7fff_ffff,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0xffff_ffff_ffff_f000,
    u64::MAX,
];

/// Changes an input in one to six places.
pub(super) fn mutate(input: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut Random) {
    for _ in 0..=random.below(6) {
        let at = random.below(input.len() + 1);
        match random.below(9) {
            0 => flip(input, at, random),
            1 => input.iter_mut().skip(at).take(1).for_each(|byte| *byte = random.byte()),
            2 => input.insert(at, random.byte()),
            3 => drop(input.drain(at..(at + 1 + random.below(16)).min(input.len()).max(at))),
            4 => write_number(input, at, random),
            5 => write_digits(input, at, random),
            6 => repeat(input, at, random),
            7 => splice(input, at, corpus, random),
            _ => swap(input, at, random),
        }
    }
}

fn flip(input: &mut [u8], at: usize, random: &mut Random) {
    if let Some(byte) = input.get_mut(at) {
        *byte ^= 1 << random.below(8);
    }
}

/// A number as disks hold it.
fn write_number(input: &mut [u8], at: usize, random: &mut Random) {
    let bytes = EDGES[random.below(EDGES.len())].to_le_bytes();
    let length = [1, 2, 4, 8][random.below(4)];
    // Fields are aligned; so is every other try.
    let at = if random.below(2) == 0 { at / length * length } else { at };
    input.iter_mut().skip(at).zip(&bytes[..length]).for_each(|(target, byte)| *target = *byte);
}

/// A number as text holds it, in the place of the one that is there.
fn write_digits(input: &mut Vec<u8>, at: usize, random: &mut Random) {
    let Some(start) = input.iter().skip(at).position(u8::is_ascii_digit).map(|n| at + n) else {
        return;
    };
    let end = start + input[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let digits = EDGES[random.below(EDGES.len())].to_string();
    input.splice(start..end, digits.into_bytes());
}

fn repeat(input: &mut Vec<u8>, at: usize, random: &mut Random) {
    let end = (at + 1 + random.below(64)).min(input.len());
    let piece = input[at..end.max(at)].to_vec();
    for _ in 0..=random.below(3) {
        input.splice(at..at, piece.iter().copied());
    }
}

/// A piece of another input.
fn splice(input: &mut Vec<u8>, at: usize, corpus: &[Vec<u8>], random: &mut Random) {
    let other = &corpus[random.below(corpus.len())];
    let from = random.below(other.len() + 1);
    let length = random.below(64).min(other.len() - from);
    let end = (at + random.below(64)).min(input.len()).max(at);
    input.splice(at..end, other[from..from + length].iter().copied());
}

/// Two lines or fields change places.
fn swap(input: &mut [u8], at: usize, random: &mut Random) {
    let length = 1 + random.below(32);
    let other = random.below(input.len() + 1);
    let (low, high) = (at.min(other), at.max(other));
    let length = length.min(high - low).min(input.len() - high);
    let (left, right) = input.split_at_mut(high);
    left[low..low + length].swap_with_slice(&mut right[..length]);
}
