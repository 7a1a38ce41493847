//! Everything a bundle can be refused for.
use core::fmt;

use crate::envelope;

/// Why a bundle is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The envelope or a signature is wrong.
    Envelope(envelope::Error),
    /// The header is not UTF-8.
    NotText,
    /// A format this program does not know.
    Format,
    /// The line that starts so is not where it belongs.
    Line(&'static str),
    /// The line of this name has a value that cannot be read.
    Value(&'static str),
    /// There is a line after the last one.
    ExtraLine,
    /// Readable, but not the one form of its contents.
    NotCanonical,
    /// A length is zero or beyond its limit.
    Limit {
        /// Of what.
        name: &'static str,
        /// What the header says, in bytes.
        value: u64,
        /// The most that is allowed, in bytes.
        limit: u64,
    },
    /// The image is empty or not made of whole blocks.
    ImageLength(u64),
    /// The sections end nowhere.
    TooLong,
    /// A section is not the one that the header lists.
    Section(&'static str),
    /// The slot manifest describes another image.
    NotTheImage {
        /// Bytes of the image in the bundle.
        found: u64,
        /// Bytes that the manifest lists.
        wanted: u64,
    },
    /// The index has another length than the header's numbers need.
    IndexLength(u64),
    /// A group of the index has this many blocks.
    GroupBlocks(u32),
    /// The groups of the index have this many bytes, which is not the image.
    IndexSum(u64),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Envelope(error) => write!(f, "bundle header: {error}"),
            Self::NotText => f.write_str("bundle header is not UTF-8 text"),
            Self::Format => f.write_str("bundle has a format that this program does not know"),
            Self::Line(name) => {
                write!(f, "bundle header: the line \"{}\" is missing", name.trim_end())
            }
            Self::Value(name) => write!(f, "bundle header: cannot read the line \"{name}\""),
            Self::ExtraLine => f.write_str("bundle header has a line too many"),
            Self::NotCanonical => f.write_str("bundle header is not in canonical form"),
            Self::Limit { name, value, limit } => {
                write!(f, "{name} of the bundle has {value} bytes, allowed are 1 to {limit}")
            }
            Self::ImageLength(length) => {
                write!(f, "image of {length} bytes in the bundle is not whole blocks")
            }
            Self::TooLong => f.write_str("bundle ends nowhere"),
            Self::Section(name) => {
                write!(f, "{name} of the bundle is not the one that its header lists")
            }
            Self::NotTheImage { found, wanted } => {
                write!(f, "image in the bundle has {found} bytes, its manifest lists {wanted}")
            }
            Self::IndexLength(length) => {
                write!(f, "index of {length} bytes does not fit the bundle's header")
            }
            Self::GroupBlocks(blocks) => {
                write!(f, "a group of {blocks} blocks in the bundle's index")
            }
            Self::IndexSum(bytes) => write!(f, "index of the bundle describes {bytes} bytes"),
        }
    }
}

impl core::error::Error for Error {}
