//! What the loader tells the started system: words on the kernel command line.
//!
//! ```text
//! iota.slot=a iota.attempt=0 iota.disk=<disk> iota.verity=<root hash>,<salt>,<blocks>,<start>
//! iota.version=<version>
//! ```
//! The loader may be newer than the slot it starts, so words that start with `iota.` and are not
//! known are passed over; a known word that is missing, doubled or unreadable is an error. A slot
//! cannot forge them: manifests with such words are refused.
use alloc::borrow::ToOwned as _;
use alloc::string::String;
use core::fmt;

use crate::digest::{Digest, Hex, from_hex};
use crate::guid::Guid;
use crate::layout::Slot;
use crate::manifest::{Manifest, is_version};

/// How a disk is told from other disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskId {
    /// The disk GUID of a GPT.
    Gpt(Guid),
    /// The disk signature of an MBR.
    Mbr(u32),
}

impl fmt::Display for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gpt(guid) => fmt::Display::fmt(guid, f),
            Self::Mbr(signature) => write!(f, "{signature:08x}"),
        }
    }
}

impl DiskId {
    fn parse(text: &str) -> Option<Self> {
        if text.len() == 8 {
            let bytes: [u8; 4] = from_hex(text)?.try_into().ok()?;
            return Some(Self::Mbr(u32::from_be_bytes(bytes)));
        }
        text.parse().ok().map(Self::Gpt)
    }
}

/// What dm-verity needs besides the slot's partition; blocks have 4096 bytes, hashes are SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verity {
    /// Root hash of the tree.
    pub root_hash: Digest,
    /// Salt in front of every block.
    pub salt: [u8; 32],
    /// Number of blocks of the root file system.
    pub data_blocks: u64,
    /// Block of the slot at which the tree starts.
    pub hash_start_block: u64,
}

/// Everything the loader appends to a manifest's command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootArgs {
    /// The slot that was started.
    pub slot: Slot,
    /// 0 for a proven slot, else which trial this is, from 1.
    pub attempt: u8,
    /// The disk the loader came from.
    pub disk: DiskId,
    /// How to open the root.
    pub verity: Verity,
    /// The slot's version.
    pub version: String,
}

impl BootArgs {
    /// The arguments for a slot with this manifest.
    pub fn new(slot: Slot, attempt: u8, disk: DiskId, manifest: &Manifest) -> Self {
        let data_blocks = manifest.verity_data_blocks();
        let verity = Verity {
            root_hash: manifest.verity_root_hash,
            salt: manifest.verity_salt,
            data_blocks,
            // The tree follows the data at once; a Manifest proves it.
            hash_start_block: data_blocks,
        };
        Self { slot, attempt, disk, verity, version: manifest.version.clone() }
    }

    /// Finds and reads the loader's words in a whole kernel command line.
    pub fn parse(command_line: &str) -> Result<Self, Error> {
        let words = Words(command_line);
        Ok(Self {
            slot: words.parsed("iota.slot=", Slot::from_letter)?,
            attempt: words.parsed("iota.attempt=", |text| text.parse().ok())?,
            disk: words.parsed("iota.disk=", DiskId::parse)?,
            verity: words.parsed("iota.verity=", Verity::parse)?,
            version: words
                .parsed("iota.version=", |text| is_version(text).then(|| text.to_owned()))?,
        })
    }
}

impl fmt::Display for BootArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { slot, attempt, disk, verity, version } = self;
        write!(f, "iota.slot={} iota.attempt={attempt} iota.disk={disk} ", slot.letter())?;
        write!(f, "iota.verity={verity} iota.version={version}")
    }
}

impl fmt::Display for Verity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { root_hash, salt, data_blocks, hash_start_block } = self;
        write!(f, "{root_hash},{},{data_blocks},{hash_start_block}", Hex(salt))
    }
}

impl Verity {
    fn parse(text: &str) -> Option<Self> {
        let mut values = text.split(',');
        let verity = Self {
            root_hash: Digest::from_hex(values.next()?)?,
            salt: from_hex(values.next()?)?.try_into().ok()?,
            data_blocks: values.next()?.parse().ok()?,
            hash_start_block: values.next()?.parse().ok()?,
        };
        values.next().is_none().then_some(verity)
    }
}

struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    fn parsed<T>(
        &self,
        name: &'static str,
        read: impl FnOnce(&'a str) -> Option<T>,
    ) -> Result<T, Error> {
        let words = self.0.split_ascii_whitespace();
        let mut values = words.filter_map(|word| word.strip_prefix(name));
        let value = values.next().ok_or(Error::Missing(name))?;
        if values.next().is_some() {
            return Err(Error::Twice(name));
        }
        read(value).ok_or_else(|| Error::Value { name, value: value.to_owned() })
    }
}

/// Why a command line does not say how the system was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The word is not there.
    Missing(&'static str),
    /// The word is there more than once.
    Twice(&'static str),
    /// The word has a value that cannot be read.
    Value {
        /// The word up to its `=`.
        name: &'static str,
        /// The rest.
        value: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(name) => write!(f, "kernel command line has no {name}"),
            Self::Twice(name) => write!(f, "kernel command line has {name} more than once"),
            Self::Value { name, value } => {
                write!(f, "kernel command line: cannot read {name}{value}")
            }
        }
    }
}

impl core::error::Error for Error {}
