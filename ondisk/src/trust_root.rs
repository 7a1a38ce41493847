//! Which keys count for what: a short signed text with a number. The next one is signed by enough
//! keys of the one before and by enough of its own, so that a device follows from the one it has
//! to the newest, however many there are between.
//!
//! ```text
//! iota-trust-root 1
//! number 2
//! role root threshold=2
//! key 8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c
//! key 8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394
//! role release threshold=1
//! key ed4928c628d1c2c6eae90338905995612959273a5c63f93636c14614ac8737d1
//! role channel threshold=1
//! key ca93ac1705187071d67b83c7ff0efe8108e8ec4530575d7726879333dbdabe7c
//! revoked 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae
//! ```
//! Text in one canonical form, as a manifest is. `root` keys sign trust roots and nothing else,
//! `release` keys slot manifests and bundles, `channel` keys channels. A key that is not listed any
//! more counts no more. `revoked` names a release by its slot manifest's hash: no device installs
//! it again.
//!
//! The first is given to a device with its image; from there on a signature decides, never a clock.
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;
use core::num::NonZeroU8;

use crate::digest::{Digest, Hex, from_hex};
use crate::envelope::{self, Envelope, Role};
use crate::keyring::{Keyring, PublicKey};

mod error;

pub use error::Error;

/// Longest text.
pub const MAX_TEXT_BYTES: usize = 4080;
/// Longest file: the text and as many signatures as an envelope holds.
pub const MAX_BYTES: usize = 5 * 1024;
/// Most releases that are revoked by name.
pub const MAX_REVOKED: usize = 16;
/// Most trust roots in a row that a file or a slot carries.
pub const MAX_CHAIN: usize = 32;

/// Keys, and how many of them have to sign.
///
/// Holding one proves that they can: there are as many keys as the threshold. The default is
/// nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quorum {
    keys: Keyring,
    threshold: NonZeroU8,
}

impl Default for Quorum {
    fn default() -> Self {
        Self { keys: Keyring::default(), threshold: NonZeroU8::MIN }
    }
}

impl Quorum {
    /// Checks that enough keys are there.
    pub fn new(keys: Keyring, threshold: u8) -> Result<Self, Error> {
        let count = keys.keys().len();
        match NonZeroU8::new(threshold) {
            Some(threshold) if usize::from(threshold.get()) <= count => {
                Ok(Self { keys, threshold })
            }
            _ => Err(Error::Threshold { threshold, keys: count }),
        }
    }

    /// Each of these keys alone.
    pub fn any_of(keys: Keyring) -> Self {
        Self { keys, threshold: NonZeroU8::MIN }
    }

    /// The keys.
    pub fn keys(&self) -> &[PublicKey] {
        self.keys.keys()
    }

    /// Tells it from others; the order of the keys counts for nothing.
    pub fn digest(&self) -> Digest {
        let mut keys: Vec<&[u8]> = self.keys().iter().map(|key| &key.as_bytes()[..]).collect();
        keys.sort_unstable();
        Digest::of(&[&[self.threshold.get()], &*keys.concat()].concat())
    }

    /// How many different ones have to sign.
    pub fn threshold(&self) -> usize {
        self.threshold.get().into()
    }
}

/// Which keys count for what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustRoot {
    /// Counts from 1; the next is one more.
    pub number: u64,
    /// Who signs trust roots.
    pub root: Quorum,
    /// Who signs releases.
    pub release: Quorum,
    /// Who signs channels.
    pub channel: Quorum,
    /// Slot manifests, by the hash of what a bundle calls so, that are not to be installed.
    pub revoked: Vec<Digest>,
}

impl TrustRoot {
    /// One key for everything: what a workspace has that nobody made a trust root for.
    pub fn of_one_key(key: PublicKey) -> Self {
        // OK to default, to nobody: one key is neither too many nor twice.
        let quorum = Quorum::any_of(Keyring::new(alloc::vec![key]).unwrap_or_default());
        let (root, release) = (quorum.clone(), quorum.clone());
        Self { number: 1, root, release, channel: quorum, revoked: Vec::new() }
    }

    /// These keys, each for everything, and no other after them: for tools that are told by hand
    /// whom to trust.
    pub fn fixed(keys: Keyring) -> Self {
        let quorum = Quorum::any_of(keys);
        let (root, release) = (quorum.clone(), quorum.clone());
        Self { number: u64::MAX, root, release, channel: quorum, revoked: Vec::new() }
    }

    /// The text to sign.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        let mut line = |args: fmt::Arguments<'_>| {
            text.push_str(&args.to_string());
            text.push('\n');
        };
        line(format_args!("iota-trust-root 1"));
        line(format_args!("number {}", self.number));
        for (name, quorum) in self.roles() {
            line(format_args!("role {name} threshold={}", quorum.threshold));
            for key in quorum.keys() {
                line(format_args!("key {}", Hex(key.as_bytes())));
            }
        }
        for release in &self.revoked {
            line(format_args!("revoked {release}"));
        }
        text
    }

    /// The roles and who has them.
    pub fn roles(&self) -> [(&'static str, &Quorum); 3] {
        [("root", &self.root), ("release", &self.release), ("channel", &self.channel)]
    }

    /// Reads the text; only the one form that [`TrustRoot::encode`] gives.
    pub fn decode(text: &str) -> Result<Self, Error> {
        let mut lines = text.lines().peekable();
        let mut value = |name: &'static str| {
            lines.next().and_then(|line| line.strip_prefix(name)).ok_or(Error::Line(name))
        };
        if value("iota-trust-root ")? != "1" {
            return Err(Error::Format);
        }
        let number = value("number ")?.parse().map_err(|_| Error::Line("number "))?;
        let root = read_role(&mut lines, "role root threshold=")?;
        let release = read_role(&mut lines, "role release threshold=")?;
        let channel = read_role(&mut lines, "role channel threshold=")?;
        let revoked = lines.map(|line| line.strip_prefix("revoked ").and_then(Digest::from_hex));
        let revoked: Option<Vec<_>> = revoked.collect();
        let revoked = revoked.ok_or(Error::Line("revoked "))?;
        let found = Self { number, root, release, channel, revoked };
        found.check()?;
        if found.encode() == text { Ok(found) } else { Err(Error::NotCanonical) }
    }

    /// Whether this can be signed and read again.
    pub fn check(&self) -> Result<(), Error> {
        if self.number == 0 || self.number == u64::MAX {
            return Err(Error::Number(self.number));
        }
        for (name, quorum) in self.roles() {
            if quorum.keys().is_empty() {
                return Err(Error::Nobody(name));
            }
        }
        if self.revoked.len() > MAX_REVOKED {
            return Err(Error::TooManyRevoked(self.revoked.len()));
        }
        let length = self.encode().len();
        if length > MAX_TEXT_BYTES { Err(Error::TooLong(length)) } else { Ok(()) }
    }

    /// Whether a release must not be installed, by the hash of its slot manifest.
    pub fn revokes(&self, release: &Digest) -> bool {
        self.revoked.contains(release)
    }

    /// The newest trust root that this one leads to: each in `chain` that is newer has to be the
    /// next and signed as the next. Older ones say nothing.
    pub fn follow(&self, chain: &[Envelope<'_>]) -> Result<Self, Error> {
        let mut newest = self.clone();
        for envelope in chain {
            newest = newest.next(envelope)?.unwrap_or(newest);
        }
        Ok(newest)
    }

    /// The next trust root, if the envelope holds it; `None` for one that this one has replaced.
    pub fn next(&self, envelope: &Envelope<'_>) -> Result<Option<Self>, Error> {
        let next = Self::unverified(envelope)?;
        if next.number <= self.number {
            return Ok(None);
        }
        if self.number.checked_add(1) != Some(next.number) {
            return Err(Error::Gap { found: next.number, after: self.number });
        }
        for (quorum, by) in [(&self.root, self.number), (&next.root, next.number)] {
            let opened = envelope.open(Role::TRUST_ROOT, quorum);
            opened.map_err(|error| Error::Signature { number: next.number, by, error })?;
        }
        Ok(Some(next))
    }

    /// What an envelope says, whoever signed it.
    pub fn unverified(envelope: &Envelope<'_>) -> Result<Self, Error> {
        if envelope.role() != Role::TRUST_ROOT {
            let (found, wanted) = (envelope.role(), Role::TRUST_ROOT);
            return Err(Error::Envelope(envelope::Error::Role { found, wanted }));
        }
        let text = core::str::from_utf8(envelope.payload_unverified());
        Self::decode(text.map_err(|_| Error::NotText)?)
    }
}

fn read_role<'a>(
    lines: &mut core::iter::Peekable<impl Iterator<Item = &'a str>>,
    name: &'static str,
) -> Result<Quorum, Error> {
    let threshold = lines.next().and_then(|line| line.strip_prefix(name));
    let threshold = threshold.and_then(|number| number.parse().ok()).ok_or(Error::Line(name))?;
    let mut keys = Vec::new();
    while let Some(key) = lines.peek().and_then(|line| line.strip_prefix("key ")) {
        let bytes: Option<[u8; 32]> = from_hex(key).and_then(|bytes| bytes.try_into().ok());
        keys.push(PublicKey::from_bytes(&bytes.ok_or(Error::Line("key "))?).map_err(Error::Key)?);
        lines.next();
    }
    Quorum::new(Keyring::new(keys).map_err(Error::Key)?, threshold)
}

/// The envelopes in bytes that hold trust roots one after the other, and zeros after them.
pub fn chain(bytes: &[u8]) -> Result<Vec<Envelope<'_>>, Error> {
    let mut found = Vec::new();
    let mut rest = bytes;
    while rest.iter().any(|&byte| byte != 0) {
        if found.len() == MAX_CHAIN {
            return Err(Error::TooMany);
        }
        let (envelope, after) = Envelope::parse_first(rest).map_err(Error::Envelope)?;
        found.push(envelope);
        rest = after;
    }
    Ok(found)
}

#[cfg(test)]
pub(crate) mod tests;
