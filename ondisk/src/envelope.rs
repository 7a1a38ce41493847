//! A signed message: the bytes, what they are for, and up to eight signatures.
//!
//! ```text
//! 0     8   "IOTASIG1"
//! 8     4   role: what the payload is
//! 12    4   payload length
//! 16    4   signature count, 1 to 8
//! 20    4   zero
//! 24    …   payload
//! …     72  per signature: key id (8), Ed25519 signature (64); ascending by key id
//! …     …   zeros to the end of the area
//! ```
//! All numbers are little-endian. What is signed is a context string, role, length and payload,
//! so that a signature for one purpose never counts for another.
//!
//! There is one encoding for a given content: order, count, the reserved field and everything
//! after the last signature are checked, so no byte of an accepted area can be changed freely.
use alloc::vec::Vec;
use core::fmt;

use crate::keyring::KeyId;
use crate::trust_root::Quorum;

/// First bytes of an envelope.
pub const MAGIC: [u8; 8] = *b"IOTASIG1";
/// Most signatures in one envelope.
pub const MAX_SIGNATURES: usize = 8;

const CONTEXT: &[u8] = b"iota-signature-v1\0";
const HEADER_BYTES: usize = 24;
const SIGNATURE_BYTES: usize = 72;

/// What a payload is. A number, not an enum: an unknown one is an error of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Role(pub u32);

impl Role {
    /// The manifest of a slot.
    pub const SLOT_MANIFEST: Self = Self(1);
    /// The header of an update bundle.
    pub const BUNDLE: Self = Self(2);
    /// What a channel offers.
    pub const CHANNEL: Self = Self(3);
    /// Which keys count for what.
    pub const TRUST_ROOT: Self = Self(4);
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::SLOT_MANIFEST => f.write_str("slot manifest"),
            Self::BUNDLE => f.write_str("bundle header"),
            Self::CHANNEL => f.write_str("channel"),
            Self::TRUST_ROOT => f.write_str("trust root"),
            Self(number) => write!(f, "unknown role {number}"),
        }
    }
}

/// One signature and the key it claims to be from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The key's short name.
    pub key: KeyId,
    /// The 64 bytes of the signature.
    pub bytes: [u8; 64],
}

/// The trusted keys that signed something: as many as had to, or more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signers(Vec<KeyId>);

impl fmt::Display for Signers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, key) in self.0.iter().enumerate() {
            write!(f, "{}{key}", if number == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// The bytes to sign for a payload.
pub fn signed_message(role: Role, payload: &[u8]) -> Result<Vec<u8>, Error> {
    let length = u32::try_from(payload.len()).map_err(|_| Error::TooLong(payload.len()))?;
    let parts: [&[u8]; 4] = [CONTEXT, &role.0.to_le_bytes(), &length.to_le_bytes(), payload];
    Ok(parts.concat())
}

/// Puts payload and signatures together; the caller pads the area with zeros. The signatures may
/// come in any order.
pub fn encode(role: Role, payload: &[u8], signatures: &[Signature]) -> Result<Vec<u8>, Error> {
    let length = u32::try_from(payload.len()).map_err(|_| Error::TooLong(payload.len()))?;
    let mut signatures = signatures.to_vec();
    signatures.sort_by_key(|signature| signature.key);
    check_signature_order(&signatures)?;
    let count = u32::try_from(signatures.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&MAGIC);
    for number in [role.0, length, count, 0] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(payload);
    for signature in &signatures {
        bytes.extend_from_slice(&signature.key.to_bytes());
        bytes.extend_from_slice(&signature.bytes);
    }
    Ok(bytes)
}

/// A well-formed envelope whose signatures nobody has looked at yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    role: Role,
    payload: &'a [u8],
    signatures: Vec<Signature>,
}

impl<'a> Envelope<'a> {
    /// Reads the envelope that starts `area` and ends in zeros.
    pub fn parse(area: &'a [u8]) -> Result<Self, Error> {
        let (envelope, padding) = Self::parse_first(area)?;
        if padding.iter().any(|&byte| byte != 0) {
            return Err(Error::Trailing);
        }
        Ok(envelope)
    }

    /// Reads the envelope that starts `area`; with what comes after it.
    pub fn parse_first(area: &'a [u8]) -> Result<(Self, &'a [u8]), Error> {
        let (header, rest) = area.split_at_checked(HEADER_BYTES).ok_or(Error::Cut(area.len()))?;
        let (magic, fields) = header.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(if area.iter().all(|&b| b == 0) { Error::Empty } else { Error::Magic });
        }
        let field = |index: usize| {
            let (fields, _) = fields.as_chunks::<4>();
            fields.get(index).map_or(0, |bytes| u32::from_le_bytes(*bytes))
        };
        let (role, length, count, reserved) = (field(0), field(1), field(2), field(3));
        if reserved != 0 {
            return Err(Error::Reserved(reserved));
        }
        let size = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        if count == 0 || size(count) > MAX_SIGNATURES {
            return Err(Error::SignatureCount(size(count)));
        }
        let cut = || Error::Cut(area.len());
        let (payload, rest) = rest.split_at_checked(size(length)).ok_or_else(cut)?;
        let list = size(count).checked_mul(SIGNATURE_BYTES).ok_or_else(cut)?;
        let (list, after) = rest.split_at_checked(list).ok_or_else(cut)?;
        let signatures: Vec<_> = list.as_chunks().0.iter().map(read_signature).collect();
        check_signature_order(&signatures)?;
        Ok((Self { role: Role(role), payload, signatures }, after))
    }

    /// The payload if it is what `role` says and enough keys of `quorum` signed it, with the keys.
    ///
    /// A signature of an unknown key says nothing and is passed over; a wrong signature in the
    /// name of a known key is an attack or damage and refuses the whole envelope. Ids ascend, so
    /// that no key is counted twice.
    pub fn open(&self, role: Role, quorum: &Quorum) -> Result<(&'a [u8], Signers), Error> {
        if self.role != role {
            return Err(Error::Role { found: self.role, wanted: role });
        }
        let message = signed_message(role, self.payload)?;
        let mut signers = Vec::new();
        for signature in &self.signatures {
            let keys = quorum.keys().iter();
            let mut named = keys.filter(|key| key.id() == signature.key).peekable();
            if named.peek().is_none() {
                continue;
            }
            if !named.any(|key| key.verifies(&message, &signature.bytes)) {
                return Err(Error::Signature(signature.key));
            }
            signers.push(signature.key);
        }
        match signers.len() {
            0 => Err(Error::UnknownKeys {
                signers: self.signatures.iter().map(|signature| signature.key).collect(),
                trusted: quorum.keys().len(),
            }),
            found if found < quorum.threshold() => {
                Err(Error::TooFew { found, threshold: quorum.threshold() })
            }
            _ => Ok((self.payload, Signers(signers))),
        }
    }

    /// Its bytes alone, without the zeros that fill its area.
    pub fn exact(&self) -> Result<Vec<u8>, Error> {
        encode(self.role, self.payload, &self.signatures)
    }

    /// What the payload is said to be, unverified.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The payload, unverified: for tools that show what is there, never for a device.
    pub fn payload_unverified(&self) -> &'a [u8] {
        self.payload
    }

    /// The signatures, unverified.
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }
}

fn read_signature(bytes: &[u8; SIGNATURE_BYTES]) -> Signature {
    let mut signature = Signature { key: KeyId::from_bytes([0; 8]), bytes: [0; 64] };
    if let Some((key, rest)) = bytes.split_first_chunk() {
        signature.key = KeyId::from_bytes(*key);
        signature.bytes.copy_from_slice(rest);
    }
    signature
}

/// Ascending and each key once: else the same content would have more than one encoding, and one
/// key could be counted twice.
fn check_signature_order(signatures: &[Signature]) -> Result<(), Error> {
    if signatures.is_empty() || signatures.len() > MAX_SIGNATURES {
        return Err(Error::SignatureCount(signatures.len()));
    }
    let pairs = signatures.iter().zip(signatures.iter().skip(1));
    match pairs.into_iter().find(|(first, second)| first.key >= second.key) {
        Some((_, second)) => Err(Error::SignatureOrder(second.key)),
        None => Ok(()),
    }
}

/// Why an envelope is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// Nothing but zeros where the envelope should be.
    Empty,
    /// The first bytes are not the magic.
    Magic,
    /// The content goes beyond the end of its area of this size.
    Cut(usize),
    /// The reserved field has this value.
    Reserved(u32),
    /// Not 1 to 8 signatures.
    SignatureCount(usize),
    /// The signature of this key is not after the ones of smaller ids.
    SignatureOrder(KeyId),
    /// Bytes after the last signature.
    Trailing,
    /// Signed for another purpose.
    Role {
        /// What the envelope says it is.
        found: Role,
        /// What was looked for.
        wanted: Role,
    },
    /// The signature in the name of this trusted key is wrong.
    Signature(KeyId),
    /// No trusted key signed it.
    UnknownKeys {
        /// Who did.
        signers: Vec<KeyId>,
        /// How many keys are trusted here.
        trusted: usize,
    },
    /// Fewer trusted keys signed it than have to.
    TooFew {
        /// How many did.
        found: usize,
        /// How many have to.
        threshold: usize,
    },
    /// A payload of this size cannot be put into an envelope.
    TooLong(usize),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("nothing there (all zero)"),
            Self::Magic => f.write_str("no envelope (wrong magic)"),
            Self::Cut(area) => write!(f, "envelope does not fit its area of {area} bytes"),
            Self::Reserved(value) => write!(f, "reserved field is {value:#x}, not 0"),
            Self::SignatureCount(count) => {
                write!(f, "{count} signatures, allowed are 1 to {MAX_SIGNATURES}")
            }
            Self::SignatureOrder(key) => write!(f, "signature of key {key} is out of order"),
            Self::Trailing => f.write_str("bytes after the last signature"),
            Self::Role { found, wanted } => write!(f, "signed as {found}, not as {wanted}"),
            Self::Signature(key) => write!(f, "wrong signature in the name of key {key}"),
            Self::UnknownKeys { trusted: 0, .. } => f.write_str("no key is trusted here"),
            Self::UnknownKeys { signers, .. } => {
                f.write_str("signed by no trusted key, but by")?;
                signers.iter().try_for_each(|key| write!(f, " {key}"))
            }
            Self::TooFew { found, threshold } => {
                write!(f, "signed by {found} of the {threshold} trusted keys that it needs")
            }
            Self::TooLong(length) => write!(f, "payload of {length} bytes is too long"),
        }
    }
}

impl core::error::Error for Error {}

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;
    use alloc::vec;

    use ed25519_dalek::{Signer as _, SigningKey};

    use super::*;
    use crate::digest::Digest;
    use crate::keyring::{Keyring, PublicKey};

    const ROLE: Role = Role::SLOT_MANIFEST;
    const PAYLOAD: &[u8] = b"what is signed";

    fn secret(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn public(seed: u8) -> PublicKey {
        PublicKey::from_bytes(secret(seed).verifying_key().as_bytes()).expect("a key")
    }

    fn ring(seeds: &[u8]) -> Quorum {
        all(seeds, 1)
    }

    fn all(seeds: &[u8], threshold: u8) -> Quorum {
        let keys = Keyring::new(seeds.iter().map(|&seed| public(seed)).collect());
        Quorum::new(keys.expect("few keys"), threshold).expect("enough keys")
    }

    fn sign(seed: u8, role: Role, payload: &[u8]) -> Signature {
        let message = signed_message(role, payload).expect("short");
        Signature { key: public(seed).id(), bytes: secret(seed).sign(&message).to_bytes() }
    }

    /// An envelope of these signers in an area of 512 bytes.
    fn area(seeds: &[u8]) -> Vec<u8> {
        let signatures: Vec<_> = seeds.iter().map(|&seed| sign(seed, ROLE, PAYLOAD)).collect();
        let mut area = encode(ROLE, PAYLOAD, &signatures).expect("good signatures");
        area.resize(512, 0);
        area
    }

    fn open(area: &[u8], quorum: &Quorum) -> Result<Signers, Error> {
        let (payload, signers) = Envelope::parse(area)?.open(ROLE, quorum)?;
        assert_eq!(payload, PAYLOAD);
        Ok(signers)
    }

    fn signers(seeds: &[u8]) -> Result<Signers, Error> {
        Ok(Signers(seeds.iter().map(|&seed| public(seed).id()).collect()))
    }

    #[test]
    fn the_bytes_of_an_envelope_are_pinned() {
        let pinned = "e591823fb702821081380af65eae1743406cb8baeb48550dfdd54c0a453141fe";
        assert_eq!(Digest::of(&area(&[1, 2])).to_string(), pinned);
    }

    #[test]
    fn one_trusted_signature_is_enough() {
        assert_eq!(open(&area(&[1]), &ring(&[1])), signers(&[1]));
        assert_eq!(open(&area(&[1, 2]), &ring(&[2])), signers(&[2]));
        assert_eq!(open(&area(&[1]), &ring(&[3, 1])), signers(&[1]));
    }

    #[test]
    fn as_many_different_keys_sign_as_the_threshold_asks_for() {
        let two_of_three = all(&[1, 2, 3], 2);
        for signed in [&[1, 2][..], &[2, 3], &[1, 2, 3], &[1, 3, 4]] {
            assert!(open(&area(signed), &two_of_three).is_ok(), "{signed:?}");
        }
        let too_few = Err(Error::TooFew { found: 1, threshold: 2 });
        assert_eq!(open(&area(&[1]), &two_of_three), too_few);
        assert_eq!(open(&area(&[3, 4, 5]), &two_of_three), too_few);
    }

    #[test]
    fn what_comes_after_the_first_envelope_is_given_back() {
        let two = [area(&[1]), area(&[2])].concat();
        let exact = Envelope::parse(&two[..512]).and_then(|found| found.exact()).expect("good");
        let (first, rest) = Envelope::parse_first(&two).expect("two envelopes");
        assert_eq!(first.exact().as_ref(), Ok(&exact));
        assert_eq!(rest, &two[exact.len()..]);
        assert_eq!(Envelope::parse(&two).map(drop), Err(Error::Trailing));
    }

    #[test]
    fn signatures_of_unknown_keys_do_not_count() {
        let signers = vec![public(1).id()];
        let expected = Error::UnknownKeys { signers, trusted: 1 };
        assert_eq!(open(&area(&[1]), &ring(&[2])), Err(expected));
    }

    #[test]
    fn a_wrong_signature_of_a_trusted_key_refuses_the_envelope() {
        let forged = Signature { key: public(2).id(), ..sign(1, ROLE, PAYLOAD) };
        let signatures = [sign(1, ROLE, PAYLOAD), forged];
        let area = encode(ROLE, PAYLOAD, &signatures).expect("two signatures");
        assert_eq!(open(&area, &ring(&[1, 2])), Err(Error::Signature(public(2).id())));
        assert_eq!(open(&area, &ring(&[1])), signers(&[1]));
    }

    #[test]
    fn a_signature_for_another_role_does_not_count() {
        let other = Role::BUNDLE;
        let moved = encode(ROLE, PAYLOAD, &[sign(1, other, PAYLOAD)]).expect("one signature");
        assert_eq!(open(&moved, &ring(&[1])), Err(Error::Signature(public(1).id())));
        let asked = encode(other, PAYLOAD, &[sign(1, other, PAYLOAD)]).expect("one signature");
        let expected = Error::Role { found: other, wanted: ROLE };
        assert_eq!(open(&asked, &ring(&[1])), Err(expected));
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let good = area(&[1]);
        for bit in 0..good.len() * 8 {
            let mut flipped = good.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&flipped, &ring(&[1])).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn an_area_with_one_field_changed_is_refused() {
        let check = |change: fn(&mut Vec<u8>), expected: Error| {
            let mut area = area(&[1]);
            change(&mut area);
            assert_eq!(Envelope::parse(&area).map(|_| ()), Err(expected));
        };
        check(|area| area.fill(0), Error::Empty);
        check(|area| area.clear(), Error::Cut(0));
        check(|area| area[0] = b'i', Error::Magic);
        check(|area| area[16] = 0, Error::SignatureCount(0));
        check(|area| area[16] = 9, Error::SignatureCount(9));
        check(|area| area[16] = 2, Error::SignatureOrder(KeyId::from_bytes([0; 8])));
        check(|area| area[20] = 1, Error::Reserved(1));
        check(|area| area[15] = 1, Error::Cut(512));
        check(|area| area.truncate(109), Error::Cut(109));
        check(|area| area[110] = 1, Error::Trailing);
        check(|area| area[511] = 1, Error::Trailing);
    }

    #[test]
    fn a_key_signs_once() {
        let twice = [sign(1, ROLE, PAYLOAD), sign(1, ROLE, PAYLOAD)];
        assert_eq!(encode(ROLE, PAYLOAD, &twice), Err(Error::SignatureOrder(public(1).id())));
        assert_eq!(encode(ROLE, PAYLOAD, &[]), Err(Error::SignatureCount(0)));
        let nine: Vec<_> = (1..10).map(|seed| sign(seed, ROLE, PAYLOAD)).collect();
        assert_eq!(encode(ROLE, PAYLOAD, &nine), Err(Error::SignatureCount(9)));
    }
}
