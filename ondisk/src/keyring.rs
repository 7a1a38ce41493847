//! Public keys, and short names for them.
use alloc::vec::Vec;
use core::fmt;

use ed25519_dalek::VerifyingKey;

use crate::digest::{Digest, Hex};

/// Most keys that may count for one thing.
pub const MAX_KEYS: usize = 8;
const KEY_BYTES: usize = 32;

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

    /// The keys, in the order in which they were given.
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }
}

/// What is wrong with a key, or with several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The bytes are not a point of the curve.
    NotAKey([u8; KEY_BYTES]),
    /// Anybody can make signatures for this key.
    WeakKey([u8; KEY_BYTES]),
    /// More keys than may count for one thing.
    TooManyKeys(usize),
    /// The same key is listed twice.
    KeyTwice(KeyId),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAKey(bytes) => write!(f, "{} is not an Ed25519 public key", Hex(bytes)),
            Self::WeakKey(bytes) => write!(f, "{} is a weak public key", Hex(bytes)),
            Self::TooManyKeys(count) => write!(f, "{count} keys, at most {MAX_KEYS} are allowed"),
            Self::KeyTwice(id) => write!(f, "key {id} is listed twice"),
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
    fn keys_are_points_that_not_anybody_can_sign_for_and_all_different() {
        assert_eq!(PublicKey::from_bytes(&[0; 32]), Err(Error::WeakKey([0; 32])));
        assert_eq!(PublicKey::from_bytes(&[2; 32]), Err(Error::NotAKey([2; 32])));
        assert_eq!(Keyring::new(vec![key(1), key(1)]), Err(Error::KeyTwice(key(1).id())));
        let nine = (1..10).map(key).collect();
        assert_eq!(Keyring::new(nine), Err(Error::TooManyKeys(9)));
    }

    #[test]
    fn the_id_of_a_key_is_the_start_of_its_hash() {
        let digest = Digest::of(key(1).as_bytes());
        assert_eq!(key(1).id().to_bytes(), digest.as_bytes()[..8]);
    }
}
