//! The public keys a loader trusts, kept in a block inside its own binary.
//!
//! The loader is built once with an empty block; the builder finds the block in the finished
//! program and fills it, so that no compiler is needed to change keys. The firmware may not let
//! us keep keys anywhere else, and a key on the disk would be as easy to swap as the slot.
//!
//! ```text
//! 0   8   "IOTAKEYS"
//! 8   4   number of keys, little-endian
//! 12  4   CRC32 of the block with this field zero
//! 16  256 eight Ed25519 public keys of 32 bytes, unused ones zero
//! ```
//! The CRC is not for security: it tells the block from other bytes that look like its magic.
use alloc::vec::Vec;
use core::fmt;

use ed25519_dalek::VerifyingKey;

use crate::digest::{Digest, Hex};

/// First bytes of the block.
pub const MAGIC: [u8; 8] = *b"IOTAKEYS";
/// Most keys that fit.
pub const MAX_KEYS: usize = 8;
/// Size of the block.
pub const BLOCK_BYTES: usize = 16 + MAX_KEYS * KEY_BYTES;
/// The block as it is compiled into a loader that has no keys yet.
pub const EMPTY_BLOCK: [u8; BLOCK_BYTES] = {
    let mut block = [0; BLOCK_BYTES];
    let (magic, _) = block.split_at_mut(MAGIC.len());
    magic.copy_from_slice(&MAGIC);
    let [c0, c1, c2, c3] = EMPTY_CRC.to_le_bytes();
    [block[12], block[13], block[14], block[15]] = [c0, c1, c2, c3];
    block
};

const KEY_BYTES: usize = 32;
/// CRC32 of the empty block, pinned because `crc32fast` cannot run at compile time.
const EMPTY_CRC: u32 = 0x1859_bcd3;

/// The short name of a key in messages and envelopes: the first 8 bytes of its SHA-256.
///
/// Two keys could share one by design of an attacker, so it only says where to look; whether a
/// signature counts is decided by the key itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 8]);

impl KeyId {
    /// The id as stored in an envelope.
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// The bytes to store in an envelope.
    pub const fn to_bytes(self) -> [u8; 8] {
        self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Hex(&self.0), f)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A public key that may be trusted: a point of the curve, and not one of the few for which
/// anybody can make signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Checks the 32 bytes of a key.
    pub fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Result<Self, Error> {
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| Error::NotAKey(*bytes))?;
        if key.is_weak() {
            return Err(Error::WeakKey(*bytes));
        }
        Ok(Self(key))
    }

    /// The 32 bytes of the key.
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        self.0.as_bytes()
    }

    /// The key's short name.
    pub fn id(&self) -> KeyId {
        let digest = Digest::of(self.as_bytes());
        let [b0, b1, b2, b3, b4, b5, b6, b7, ..] = *digest.as_bytes();
        KeyId([b0, b1, b2, b3, b4, b5, b6, b7])
    }

    /// Whether `signature` is this key's for `message`, by the strict rules (no weak points, one
    /// signature per message and key).
    pub fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(signature);
        self.0.verify_strict(message, &signature).is_ok()
    }
}

/// Keys that are trusted: at most [`MAX_KEYS`], all different.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keyring {
    keys: Vec<PublicKey>,
}

impl Keyring {
    /// Checks number and difference of the keys.
    pub fn new(keys: Vec<PublicKey>) -> Result<Self, Error> {
        if keys.len() > MAX_KEYS {
            return Err(Error::TooManyKeys(keys.len()));
        }
        let mut rest = keys.as_slice();
        while let [key, others @ ..] = rest {
            if others.contains(key) {
                return Err(Error::KeyTwice(key.id()));
            }
            rest = others;
        }
        Ok(Self { keys })
    }

    /// The keys, in the order of the block.
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// The block to put into a loader.
    pub fn encode(&self) -> [u8; BLOCK_BYTES] {
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        block.extend_from_slice(&MAGIC);
        // OK to default: new() keeps the number below MAX_KEYS.
        let count = u32::try_from(self.keys.len()).unwrap_or_default();
        block.extend_from_slice(&count.to_le_bytes());
        block.extend_from_slice(&[0; 4]);
        self.keys.iter().for_each(|key| block.extend_from_slice(key.as_bytes()));
        block.resize(BLOCK_BYTES, 0);
        let mut bytes = EMPTY_BLOCK;
        bytes.copy_from_slice(&block);
        let crc = checksum(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a block; every bit of it is checked.
    pub fn decode(block: &[u8; BLOCK_BYTES]) -> Result<Self, Error> {
        if !is_block(block) {
            return Err(Error::Damaged);
        }
        let (header, keys) = block.split_at(16);
        let [.., n0, n1, n2, n3, _, _, _, _] = *header else {
            return Err(Error::Damaged);
        };
        let count = u32::from_le_bytes([n0, n1, n2, n3]);
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if count > MAX_KEYS {
            return Err(Error::TooManyKeys(count));
        }
        let (keys, _) = keys.as_chunks::<KEY_BYTES>();
        let (used, unused) = keys.split_at(count);
        if unused.iter().any(|key| *key != [0; KEY_BYTES]) {
            return Err(Error::UnlistedKey);
        }
        Self::new(used.iter().map(PublicKey::from_bytes).collect::<Result<_, _>>()?)
    }
}

/// Reads the keys of a built loader.
pub fn read(program: &[u8]) -> Result<Keyring, Error> {
    let at = find(program)?;
    let block = program.get(at..).and_then(|rest| rest.first_chunk()).ok_or(Error::NoBlock)?;
    Keyring::decode(block)
}

/// Fills the key block of a built loader.
pub fn patch(program: &mut [u8], ring: &Keyring) -> Result<(), Error> {
    let at = find(program)?;
    let block = program.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<BLOCK_BYTES>());
    *block.ok_or(Error::NoBlock)? = ring.encode();
    Ok(())
}

/// Where the one key block of a program starts. Two blocks are refused: we could not know which
/// of them the program reads.
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

/// What is wrong with a key or a key block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The bytes are not a point of the curve.
    NotAKey([u8; KEY_BYTES]),
    /// Anybody can make signatures for this key.
    WeakKey([u8; KEY_BYTES]),
    /// More keys than a block holds.
    TooManyKeys(usize),
    /// The same key is listed twice.
    KeyTwice(KeyId),
    /// Bytes after the last listed key.
    UnlistedKey,
    /// Magic or CRC are wrong.
    Damaged,
    /// The program has no key block.
    NoBlock,
    /// The program has more than one key block, at these offsets.
    TwoBlocks(usize, usize),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAKey(bytes) => write!(f, "{} is not an Ed25519 public key", Hex(bytes)),
            Self::WeakKey(bytes) => write!(f, "{} is a weak public key", Hex(bytes)),
            Self::TooManyKeys(count) => write!(f, "{count} keys, at most {MAX_KEYS} fit"),
            Self::KeyTwice(id) => write!(f, "key {id} is listed twice"),
            Self::UnlistedKey => f.write_str("bytes after the last listed key"),
            Self::Damaged => f.write_str("key block is damaged"),
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
    use alloc::vec;

    use ed25519_dalek::SigningKey;

    use super::*;

    fn key(seed: u8) -> PublicKey {
        let secret = SigningKey::from_bytes(&[seed; 32]);
        PublicKey::from_bytes(secret.verifying_key().as_bytes()).expect("a key of our own")
    }

    #[test]
    fn a_loader_without_keys_carries_the_empty_block() {
        assert_eq!(Keyring::default().encode(), EMPTY_BLOCK);
        assert_eq!(Keyring::decode(&EMPTY_BLOCK), Ok(Keyring::default()));
    }

    #[test]
    fn keys_patched_into_a_program_are_read_back_from_it() {
        let mut program = [&[7; 1001], &EMPTY_BLOCK[..], &MAGIC, &[9; 500]].concat();
        let untouched = program.clone();
        let ring = Keyring::new(vec![key(1), key(2)]).expect("two keys");
        assert_eq!(patch(&mut program, &ring), Ok(()));
        assert_eq!(read(&program), Ok(ring));
        assert_eq!(patch(&mut program, &Keyring::default()), Ok(()));
        assert_eq!(program, untouched);
    }

    #[test]
    fn a_program_needs_exactly_one_block() {
        let mut none = MAGIC.repeat(50);
        assert_eq!(patch(&mut none, &Keyring::default()), Err(Error::NoBlock));
        let two = EMPTY_BLOCK.repeat(2);
        assert_eq!(read(&two), Err(Error::TwoBlocks(0, BLOCK_BYTES)));
        assert_eq!(read(&[]), Err(Error::NoBlock));
    }

    #[test]
    fn every_flipped_bit_of_a_block_is_refused() {
        let block = Keyring::new(vec![key(1)]).expect("one key").encode();
        for bit in 0..BLOCK_BYTES * 8 {
            let mut flipped = block;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Keyring::decode(&flipped), Err(Error::Damaged), "bit {bit}");
        }
    }

    #[test]
    fn a_block_with_a_right_checksum_and_wrong_contents_is_refused() {
        let check = |change: fn(&mut [u8]), expected: Error| {
            let mut block = Keyring::new(vec![key(1)]).expect("one key").encode();
            change(&mut block);
            let crc = checksum(&block);
            block[12..16].copy_from_slice(&crc.to_le_bytes());
            assert_eq!(Keyring::decode(&block), Err(expected));
        };
        check(|block| block[8] = 9, Error::TooManyKeys(9));
        check(|block| block[11] = 1, Error::TooManyKeys(0x0100_0001));
        check(|block| block[8] = 0, Error::UnlistedKey);
        check(|block| block[271] = 1, Error::UnlistedKey);
        check(|block| block[16..48].fill(0), Error::WeakKey([0; 32]));
        check(|block| block[16..48].fill(2), Error::NotAKey([2; 32]));
        check(
            |block| {
                block[8] = 2;
                block.copy_within(16..48, 48);
            },
            Error::KeyTwice(key(1).id()),
        );
    }

    #[test]
    fn the_id_of_a_key_is_the_start_of_its_hash() {
        let digest = Digest::of(key(1).as_bytes());
        assert_eq!(key(1).id().to_bytes(), digest.as_bytes()[..8]);
    }
}
