//! What the loader tells the started system: words on the kernel command line.
//!
//! ```text
//! iota.slot=a iota.attempt=0 iota.disk=<disk> iota.verity=<root hash>,<salt>,<blocks>,<start>
//! iota.version=<version> [iota.safe=1]
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
    /// Safe mode: no slot is known to be good, so that this one is started with network and agent
    /// but without an engine. The word is left out where it is false.
    pub safe: bool,
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
        Self { slot, attempt, disk, verity, version: manifest.version.clone(), safe: false }
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
            safe: words.flag("iota.safe=")?,
        })
    }
}

impl fmt::Display for BootArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { slot, attempt, disk, verity, version, safe } = self;
        write!(f, "iota.slot={} iota.attempt={attempt} iota.disk={disk} ", slot.letter())?;
        write!(f, "iota.verity={verity} iota.version={version}")?;
        if *safe { f.write_str(" iota.safe=1") } else { Ok(()) }
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

    /// Whether the word is there; its only value is 1.
    fn flag(&self, name: &'static str) -> Result<bool, Error> {
        match self.parsed(name, |text| (text == "1").then_some(true)) {
            Err(Error::Missing(_)) => Ok(false),
            found => found,
        }
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

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::ToString as _;

    use super::*;
    use crate::manifest;

    fn sample() -> BootArgs {
        let disk = "11111111-2222-3333-4444-555555555555".parse().expect("a GUID");
        BootArgs::new(Slot::B, 2, DiskId::Gpt(disk), &manifest::tests::of_version("1.0+dev", 1))
    }

    #[test]
    fn the_words_are_pinned_and_read_back() {
        let words = sample().to_string();
        let Verity { root_hash, salt, .. } = sample().verity;
        let short = words.replace(&root_hash.to_string(), "ROOT-HASH");
        let short = short.replace(&Hex(&salt).to_string(), "SALT").replace(' ', "\n");
        expect_test::expect![[r#"
            iota.slot=b
            iota.attempt=2
            iota.disk=11111111-2222-3333-4444-555555555555
            iota.verity=ROOT-HASH,SALT,200,200
            iota.version=1.0+dev"#]]
        .assert_eq(&short);
        assert_eq!(BootArgs::parse(&format!("panic=5 {words}\n")), Ok(sample()));
    }

    #[test]
    fn safe_mode_is_a_word_that_is_there_or_not() {
        let safe = BootArgs { safe: true, ..sample() };
        assert_eq!(safe.to_string(), format!("{} iota.safe=1", sample()));
        assert_eq!(BootArgs::parse(&safe.to_string()), Ok(safe.clone()));
        let error = |words: &str| {
            BootArgs::parse(&format!("{} {words}", sample())).expect_err(words).to_string()
        };
        assert_eq!(error("iota.safe=0"), "kernel command line: cannot read iota.safe=0");
        let twice = error("iota.safe=1 iota.safe=1");
        assert_eq!(twice, "kernel command line has iota.safe= more than once");
    }

    #[test]
    fn a_disk_with_an_mbr_is_told_by_its_signature() {
        let args = BootArgs { disk: DiskId::Mbr(0x0123_abcd), ..sample() };
        assert!(args.to_string().contains(" iota.disk=0123abcd "));
        assert_eq!(BootArgs::parse(&args.to_string()), Ok(args));
    }

    #[test]
    fn words_of_a_newer_loader_are_passed_over() {
        let words = format!("{} iota.future=1 iota.slots=2", sample());
        assert_eq!(BootArgs::parse(&words), Ok(sample()));
    }

    #[test]
    fn words_that_are_missing_doubled_or_wrong_are_named() {
        let check = |from: &str, to: &str, expected: &str| {
            let words = sample().to_string();
            assert!(words.contains(from), "{from:?} is not there");
            let error = BootArgs::parse(&words.replace(from, to)).expect_err(expected);
            assert_eq!(error.to_string(), expected);
        };
        check("iota.slot=b ", "", "kernel command line has no iota.slot=");
        check("iota.slot=b", "iota.slot=c", "kernel command line: cannot read iota.slot=c");
        check(
            "iota.slot=b",
            "iota.slot=b iota.slot=a",
            "kernel command line has iota.slot= more than once",
        );
        check("attempt=2", "attempt=256", "kernel command line: cannot read iota.attempt=256");
        check(
            "1111-2222",
            "1111_2222",
            "kernel command line: cannot read iota.disk=11111111_2222-3333-4444-555555555555",
        );
        check("1.0+dev", "1/0", "kernel command line: cannot read iota.version=1/0");
        let verity = sample().verity.to_string();
        check(&verity, "1,2", "kernel command line: cannot read iota.verity=1,2");
        check(
            &verity,
            &format!("{verity},9"),
            &format!("kernel command line: cannot read iota.verity={verity},9"),
        );
    }
}
