//! Everything a trust root can be refused for.
use core::fmt;

use super::{MAX_CHAIN, MAX_REVOKED, MAX_TEXT_BYTES};
use crate::{envelope, keyring};

/// Why a trust root is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The envelope is wrong, or is one of something else.
    Envelope(envelope::Error),
    /// Too few signatures that count.
    Signature {
        /// The trust root that is signed.
        number: u64,
        /// The trust root whose keys have to sign it: the one before or itself.
        by: u64,
        /// What is wrong.
        error: envelope::Error,
    },
    /// Not the next.
    Gap {
        /// Its number.
        found: u64,
        /// The number before.
        after: u64,
    },
    /// The payload is not UTF-8.
    NotText,
    /// The line that starts so is missing or cannot be read.
    Line(&'static str),
    /// A format this program does not know.
    Format,
    /// A key is none, or there are too many.
    Key(keyring::Error),
    /// No number of a trust root.
    Number(u64),
    /// So many signatures cannot come together, or nobody has to sign.
    Threshold {
        /// How many have to sign.
        threshold: u8,
        /// How many keys there are.
        keys: usize,
    },
    /// This role has no key.
    Nobody(&'static str),
    /// So many revoked releases.
    TooManyRevoked(usize),
    /// The text has so many bytes.
    TooLong(usize),
    /// More trust roots in a row than are looked at.
    TooMany,
    /// Readable, but not the one form of its contents.
    NotCanonical,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Envelope(error) => fmt::Display::fmt(error, f),
            Self::Signature { number, by, error } => {
                write!(f, "trust root {number} by the keys of {by}: {error}")
            }
            Self::Gap { found, after } => {
                write!(f, "trust root {found} after {after}: there are others between them")
            }
            Self::NotText => f.write_str("not text"),
            Self::Line(name) => write!(f, "cannot read the line \"{}\"", name.trim_end()),
            Self::Format => f.write_str("unknown format"),
            Self::Key(error) => fmt::Display::fmt(error, f),
            Self::Number(number) => write!(f, "{number} is no number of a trust root"),
            Self::Threshold { threshold, keys } => {
                write!(f, "a threshold of {threshold} with {keys} keys")
            }
            Self::Nobody(role) => write!(f, "no key for the role {role}"),
            Self::TooManyRevoked(count) => {
                write!(f, "{count} revoked releases, at most {MAX_REVOKED} fit")
            }
            Self::TooLong(length) => {
                write!(f, "text of {length} bytes, at most {MAX_TEXT_BYTES} fit")
            }
            Self::TooMany => write!(f, "more than {MAX_CHAIN} trust roots"),
            Self::NotCanonical => f.write_str("not in canonical form"),
        }
    }
}

impl core::error::Error for Error {}
