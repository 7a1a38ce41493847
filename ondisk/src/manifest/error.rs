//! Everything a manifest can be refused for.
use alloc::string::String;
use core::fmt;

use super::{MAX_COMMAND_LINE_BYTES, PartName};
use crate::envelope;
use crate::layout::Extent;
use crate::trust_root;

/// Why a manifest is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The envelope or a signature is wrong.
    Envelope(envelope::Error),
    /// The trust roots behind it are none, or do not follow.
    Trust(trust_root::Error),
    /// The payload is not UTF-8.
    NotText,
    /// A line is missing or not the one that belongs here.
    Line {
        /// Counted from 1.
        number: usize,
        /// What the line has to start with.
        wanted: &'static str,
    },
    /// A line has a value that cannot be read.
    Value {
        /// What the line starts with.
        name: &'static str,
        /// The rest of it.
        value: String,
    },
    /// There is a line after the last one.
    ExtraLine(usize),
    /// Readable, but not the one form of its contents.
    NotCanonical,
    /// Not a board name.
    Board(String),
    /// Not a version.
    Version(String),
    /// The command line has this many bytes.
    CommandLineLength(usize),
    /// The command line has this byte.
    CommandLineByte(u8),
    /// The command line says something that only the loader may say.
    CommandLineWord(String),
    /// A slot of this size has no room for a manifest.
    SlotTooSmall(u64),
    /// A part has no bytes.
    PartEmpty(PartName),
    /// A part does not start at a block.
    PartUnaligned {
        /// Which part.
        name: PartName,
        /// Where it starts.
        offset: u64,
    },
    /// A part starts before the end of the one before.
    PartOverlap {
        /// Which part.
        name: PartName,
        /// Where it starts.
        offset: u64,
        /// Where the part before ends.
        free_from: u64,
    },
    /// A part reaches into the manifest area or further.
    PartTooLong {
        /// Which part.
        name: PartName,
        /// Where it ends; `None` if there is no such number.
        end: Option<u64>,
        /// Where the manifest area starts.
        limit: u64,
    },
    /// The root does not start the slot.
    RootOffset(u64),
    /// The root is not made of whole blocks.
    RootLength(u64),
    /// The hash tree is not where, or as long as, the root needs it.
    VerityExtent {
        /// What the manifest says.
        found: Extent,
        /// What follows from the root.
        needed: Extent,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trust(error) => fmt::Display::fmt(error, f),
            Self::Envelope(error) => fmt::Display::fmt(error, f),
            Self::NotText => f.write_str("not UTF-8 text"),
            Self::Line { number, wanted } => {
                write!(f, "line {number} is not the line \"{}\"", wanted.trim_end())
            }
            Self::Value { name, value } => write!(f, "{}: cannot read {value:?}", name.trim_end()),
            Self::ExtraLine(number) => write!(f, "line {number} is one too many"),
            Self::NotCanonical => f.write_str("not in canonical form"),
            Self::Board(name) => write!(f, "{name:?} is not a board name"),
            Self::Version(version) => write!(f, "{version:?} is not a version"),
            Self::CommandLineLength(length) => {
                write!(f, "command line has {length} bytes, allowed are {MAX_COMMAND_LINE_BYTES}")
            }
            Self::CommandLineByte(byte) => write!(f, "command line has the byte {byte:#04x}"),
            Self::CommandLineWord(word) => {
                write!(f, "command line says {word:?}, which only the loader may say")
            }
            Self::SlotTooSmall(bytes) => write!(f, "a slot of {bytes} bytes is too small"),
            Self::PartEmpty(name) => write!(f, "part {name} is empty"),
            Self::PartUnaligned { name, offset } => {
                write!(f, "part {name} starts at {offset}, not at a block")
            }
            Self::PartOverlap { name, offset, free_from } => {
                write!(f, "part {name} starts at {offset}, before the end {free_from} of another")
            }
            Self::PartTooLong { name, end: Some(end), limit } => {
                write!(f, "part {name} ends at {end}, the slot has room up to {limit}")
            }
            Self::PartTooLong { name, end: None, .. } => write!(f, "part {name} ends nowhere"),
            Self::RootOffset(offset) => write!(f, "root starts at {offset}, not at 0"),
            Self::RootLength(length) => write!(f, "root of {length} bytes is not whole blocks"),
            Self::VerityExtent { found, needed } => write!(
                f,
                "verity is at {}+{}, the root needs it at {}+{}",
                found.offset, found.length, needed.offset, needed.length
            ),
        }
    }
}

impl core::error::Error for Error {}
