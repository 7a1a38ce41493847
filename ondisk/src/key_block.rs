//! The trust root of a loader, in a block inside its own binary.
//!
//! The loader is built once with an empty block; the builder finds the block in the finished
//! program and fills it, so that no compiler is needed to change keys. The firmware may not let
//! us keep keys anywhere else, and a key on the disk would be as easy to swap as the slot.
//!
//! ```text
//! 0   8    "IOTAKEYS"
//! 8   4    length of the text in bytes, little-endian; 0 in a loader that trusts nobody yet
//! 12  4    CRC32 of the block with this field zero
//! 16  4080 the text of a trust root, zeros after it
//! ```
//! The CRC is not for security: it tells the block from other bytes that look like its magic.
use alloc::vec::Vec;
use core::fmt;

use crate::trust_root::{self, MAX_TEXT_BYTES, TrustRoot};

/// First bytes of the block.
pub const MAGIC: [u8; 8] = *b"IOTAKEYS";
/// Size of the block.
pub const BLOCK_BYTES: usize = HEADER_BYTES + MAX_TEXT_BYTES;
/// The block as it is compiled into a loader that trusts nobody yet.
pub const EMPTY_BLOCK: [u8; BLOCK_BYTES] = {
    let mut block = [0; BLOCK_BYTES];
    let (magic, _) = block.split_at_mut(MAGIC.len());
    magic.copy_from_slice(&MAGIC);
    let [c0, c1, c2, c3] = EMPTY_CRC.to_le_bytes();
    [block[12], block[13], block[14], block[15]] = [c0, c1, c2, c3];
    block
};

const HEADER_BYTES: usize = 16;
/// CRC32 of the empty block, pinned because `crc32fast` cannot run at compile time.
const EMPTY_CRC: u32 = 0xfa4e_30a8;

/// The block to put into a loader.
pub fn encode(trust: &TrustRoot) -> Result<[u8; BLOCK_BYTES], Error> {
    trust.check().map_err(Error::Trust)?;
    let text = trust.encode();
    let mut bytes = Vec::with_capacity(BLOCK_BYTES);
    bytes.extend_from_slice(&MAGIC);
    let length = u32::try_from(text.len()).map_err(|_| Error::Damaged)?;
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(text.as_bytes());
    bytes.resize(BLOCK_BYTES, 0);
    let mut block = [0; BLOCK_BYTES];
    block.copy_from_slice(&bytes);
    let crc = checksum(&block);
    block[12..16].copy_from_slice(&crc.to_le_bytes());
    Ok(block)
}

/// Reads a block; every bit of it is checked. An empty one trusts nobody.
pub fn decode(block: &[u8; BLOCK_BYTES]) -> Result<TrustRoot, Error> {
    if !is_block(block) {
        return Err(Error::Damaged);
    }
    let (header, text) = block.split_at(HEADER_BYTES);
    let [.., n0, n1, n2, n3, _, _, _, _] = *header else {
        return Err(Error::Damaged);
    };
    let length = usize::try_from(u32::from_le_bytes([n0, n1, n2, n3])).unwrap_or(usize::MAX);
    let (text, rest) = text.split_at_checked(length).ok_or(Error::Length(length))?;
    if rest.iter().any(|&byte| byte != 0) {
        return Err(Error::Length(length));
    }
    // Not by comparing with the empty block: then there would be two of them in the loader.
    if text.is_empty() {
        return Ok(TrustRoot::default());
    }
    let text = core::str::from_utf8(text).map_err(|_| Error::Trust(trust_root::Error::NotText))?;
    TrustRoot::decode(text).map_err(Error::Trust)
}

/// Reads the trust root of a built loader.
pub fn read(program: &[u8]) -> Result<TrustRoot, Error> {
    let at = find(program)?;
    let block = program.get(at..).and_then(|rest| rest.first_chunk()).ok_or(Error::NoBlock)?;
    decode(block)
}

/// Fills the block of a built loader.
pub fn patch(program: &mut [u8], trust: &TrustRoot) -> Result<(), Error> {
    let at = find(program)?;
    let block = program.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<BLOCK_BYTES>());
    *block.ok_or(Error::NoBlock)? = encode(trust)?;
    Ok(())
}

/// Where the one block of a program starts. Two are refused: we could not know which of them the
/// program reads.
fn find(program: &[u8]) -> Result<usize, Error> {
    let starts = program.windows(BLOCK_BYTES).enumerate();
    let mut found =
        starts.filter(|(_, window)| window.first_chunk().is_some_and(is_block)).map(|(at, _)| at);
    match (found.next(), found.next()) {
        (Some(at), None) => Ok(at),
        (None, _) => Err(Error::NoBlock),
        (Some(first), Some(second)) => Err(Error::TwoBlocks(first, second)),
    }
}

fn is_block(bytes: &[u8; BLOCK_BYTES]) -> bool {
    bytes.starts_with(&MAGIC) && bytes[12..16] == checksum(bytes).to_le_bytes()
}

fn checksum(block: &[u8; BLOCK_BYTES]) -> u32 {
    let mut block = *block;
    block[12..16].fill(0);
    crc32fast::hash(&block)
}

/// What is wrong with a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The trust root cannot be used.
    Trust(trust_root::Error),
    /// Magic or CRC are wrong.
    Damaged,
    /// The text does not have this length.
    Length(usize),
    /// The program has no block.
    NoBlock,
    /// The program has more than one block, at these offsets.
    TwoBlocks(usize, usize),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trust(error) => fmt::Display::fmt(error, f),
            Self::Damaged => f.write_str("key block is damaged"),
            Self::Length(length) => write!(f, "key block does not hold {length} bytes of text"),
            Self::NoBlock => f.write_str("no key block in the program"),
            Self::TwoBlocks(first, second) => {
                write!(f, "two key blocks in the program, at bytes {first} and {second}")
            }
        }
    }
}

impl core::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust_root::tests::{Secrets, root};

    fn trust() -> TrustRoot {
        root(1, &Secrets::default())
    }

    #[test]
    fn a_loader_without_keys_carries_the_empty_block_and_trusts_nobody() {
        assert_eq!(checksum(&EMPTY_BLOCK), EMPTY_CRC);
        assert_eq!(decode(&EMPTY_BLOCK), Ok(TrustRoot::default()));
        let nobody = trust_root::Error::Number(0);
        assert_eq!(encode(&TrustRoot::default()), Err(Error::Trust(nobody)));
    }

    #[test]
    fn a_trust_root_patched_into_a_program_is_read_back_from_it() {
        let mut program = [&[7; 1001], &EMPTY_BLOCK[..], &MAGIC, &[9; 500]].concat();
        assert_eq!(patch(&mut program, &trust()), Ok(()));
        assert_eq!(read(&program), Ok(trust()));
        let other = TrustRoot { number: 2, ..trust() };
        assert_eq!(patch(&mut program, &other), Ok(()));
        assert_eq!(read(&program), Ok(other));
    }

    #[test]
    fn a_program_needs_exactly_one_block() {
        let mut none = MAGIC.repeat(1000);
        assert_eq!(patch(&mut none, &trust()), Err(Error::NoBlock));
        let two = EMPTY_BLOCK.repeat(2);
        assert_eq!(read(&two), Err(Error::TwoBlocks(0, BLOCK_BYTES)));
        assert_eq!(read(&[]), Err(Error::NoBlock));
    }

    #[test]
    fn every_flipped_bit_of_a_block_is_refused() {
        let block = encode(&trust()).expect("a trust root");
        for bit in 0..BLOCK_BYTES * 8 {
            let mut flipped = block;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped), Err(Error::Damaged), "bit {bit}");
        }
    }

    #[test]
    fn a_block_with_a_right_checksum_and_wrong_contents_is_refused() {
        let check = |change: fn(&mut [u8]), expected: Error| {
            let mut block = encode(&trust()).expect("a trust root");
            change(&mut block);
            let crc = checksum(&block);
            block[12..16].copy_from_slice(&crc.to_le_bytes());
            assert_eq!(decode(&block), Err(expected));
        };
        check(|block| block[9] = 0xff, Error::Length(0xff00 | trust().encode().len() & 0xff));
        check(|block| block[BLOCK_BYTES - 1] = 1, Error::Length(trust().encode().len()));
        check(|block| block[16] = b'I', Error::Trust(trust_root::Error::Line("iota-trust-root ")));
        check(|block| block[16] = 0xff, Error::Trust(trust_root::Error::NotText));
    }
}
