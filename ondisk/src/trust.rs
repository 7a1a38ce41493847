//! What a running system takes for an update: a file in its verified root.
//!
//! ```text
//! iota-trust 1
//! board generic-aarch64
//! profile development
//! key 8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c
//! ```
//! One `key` line for each Ed25519 public key. The loader has its own copy of the keys; this one is
//! as trustworthy as the root that it lies in, and changes with it.
use alloc::borrow::ToOwned as _;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;

use crate::digest::{Hex, from_hex};
use crate::keyring::{self, Keyring, PublicKey};
use crate::manifest::Profile;

/// Where the file is in the root.
pub const PATH: &str = "/usr/lib/iota/trust";

/// What a bundle has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// Name of the board.
    pub board: String,
    /// Profile of this system; a release takes no development system.
    pub profile: Profile,
    /// Keys that may sign.
    pub keys: Keyring,
}

impl Trust {
    /// The file's text.
    pub fn encode(&self) -> String {
        let Self { board, profile, keys } = self;
        let mut text = alloc::format!("iota-trust 1\nboard {board}\nprofile {profile}\n");
        for key in keys.keys() {
            text.push_str(&alloc::format!("key {}\n", Hex(key.as_bytes())));
        }
        text
    }

    /// Reads the file; only the one form that [`Trust::encode`] gives.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut lines = text.lines();
        let mut value = |name: &'static str| {
            lines.next().and_then(|line| line.strip_prefix(name)).ok_or(Error::Line(name))
        };
        if value("iota-trust ")? != "1" {
            return Err(Error::Format);
        }
        let board = value("board ")?.to_owned();
        let profile = value("profile ")?;
        let profiles = [Profile::Development, Profile::Release];
        let profile = profiles.into_iter().find(|known| known.to_string() == profile);
        let keys: Vec<PublicKey> = lines.map(read_key).collect::<Result<_, _>>()?;
        let trust = Self {
            board,
            profile: profile.ok_or(Error::Line("profile "))?,
            keys: Keyring::new(keys).map_err(Error::Key)?,
        };
        if trust.encode() == text { Ok(trust) } else { Err(Error::NotCanonical) }
    }
}

fn read_key(line: &str) -> Result<PublicKey, Error> {
    let bytes = line.strip_prefix("key ").and_then(from_hex);
    let bytes: [u8; 32] =
        bytes.and_then(|bytes| bytes.try_into().ok()).ok_or(Error::Line("key "))?;
    PublicKey::from_bytes(&bytes).map_err(Error::Key)
}

/// Why a file does not say what to trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The line that starts so is missing or cannot be read.
    Line(&'static str),
    /// A format this program does not know.
    Format,
    /// A key is none, or there are too many.
    Key(keyring::Error),
    /// Readable, but not the one form of its contents.
    NotCanonical,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(name) => write!(f, "cannot read the line \"{}\"", name.trim_end()),
            Self::Format => f.write_str("unknown format"),
            Self::Key(error) => fmt::Display::fmt(error, f),
            Self::NotCanonical => f.write_str("not in canonical form"),
        }
    }
}

impl core::error::Error for Error {}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use expect_test::expect;

    use super::*;

    fn sample() -> Trust {
        let key = |seed| {
            let secret = SigningKey::from_bytes(&[seed; 32]);
            PublicKey::from_bytes(secret.verifying_key().as_bytes()).expect("a key")
        };
        let keys = Keyring::new(alloc::vec![key(1), key(2)]).expect("two keys");
        Trust { board: "generic-aarch64".to_owned(), profile: Profile::Release, keys }
    }

    #[test]
    fn the_text_is_pinned_and_read_back() {
        expect![[r#"
            iota-trust 1
            board generic-aarch64
            profile release
            key 8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c
            key 8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394
        "#]]
        .assert_eq(&sample().encode());
        assert_eq!(Trust::parse(&sample().encode()), Ok(sample()));
    }

    #[test]
    fn a_file_with_one_thing_changed_is_refused() {
        let check = |from: &str, to: &str, expected: &str| {
            let text = sample().encode();
            assert!(text.contains(from), "{from:?} is not there");
            let error = Trust::parse(&text.replacen(from, to, 1)).expect_err(expected);
            assert_eq!(error.to_string(), expected);
        };
        check("trust 1", "trust 2", "unknown format");
        check("board ", "bard ", "cannot read the line \"board\"");
        check("release", "relaese", "cannot read the line \"profile\"");
        check("key 8", "key 8 ", "cannot read the line \"key\"");
        check("profile release\n", "profile release\r\n", "not in canonical form");
        let first = sample().encode().lines().nth(3).map(str::to_owned).expect("a key");
        let second = sample().encode().lines().nth(4).map(str::to_owned).expect("a key");
        let id = sample().keys.keys()[0].id();
        check(&second, &first, &alloc::format!("key {id} is listed twice"));
    }
}
