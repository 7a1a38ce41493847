//! Everything a channel can be refused for.
use core::fmt;

use super::MAX_BYTES;
use crate::envelope;

/// Why a channel is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The file has so many bytes.
    TooLong(usize),
    /// The envelope or a signature is wrong.
    Envelope(envelope::Error),
    /// Not UTF-8.
    NotText,
    /// A format this program does not know.
    Format,
    /// The line that starts so is not where it belongs.
    Line(&'static str),
    /// The line of this name has a value that cannot be read.
    Value(&'static str),
    /// Readable, but not the one form of its contents.
    NotCanonical,
    /// A length is zero or beyond its limit.
    Limit {
        /// Of what.
        name: &'static str,
        /// What the file says, in bytes.
        value: u64,
        /// The most that is allowed, in bytes.
        limit: u64,
    },
    /// So many packs.
    TooManyPacks(usize),
    /// Two packs for one base.
    PackTwice,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(bytes) => write!(f, "{bytes} bytes, a channel has at most {MAX_BYTES}"),
            Self::Envelope(error) => fmt::Display::fmt(error, f),
            Self::NotText => f.write_str("not a text"),
            Self::Format => f.write_str("a format that this system does not know"),
            Self::Line(name) => write!(f, "no line \"{}\" where it should be", name.trim_end()),
            Self::Value(name) => write!(f, "cannot read the value of \"{name}\""),
            Self::NotCanonical => f.write_str("not in canonical form"),
            Self::Limit { name, value, limit } => {
                write!(f, "{name} of {value} bytes, allowed are 1 to {limit}")
            }
            Self::TooManyPacks(count) => write!(f, "{count} packs are too many"),
            Self::PackTwice => f.write_str("two packs for one base"),
        }
    }
}

impl core::error::Error for Error {}
