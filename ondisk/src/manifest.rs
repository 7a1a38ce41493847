//! What a slot says about itself: which system it is, where its parts are, what they hash to and
//! how its kernel is started. Nothing of a slot is used that is not listed here.
//!
//! The text is made of lines in a fixed order, each present once:
//!
//! ```text
//! iota-slot 1
//! board generic-aarch64
//! version 2026.11.0
//! rollback-index 1
//! profile development
//! part root offset=0 length=4096 sha256=…
//! part verity offset=4096 length=4096 sha256=…
//! part kernel offset=8192 length=11300000 sha256=… unpacked-length=37732288 unpacked-sha256=…
//! part initrd offset=11309056 length=1800000 sha256=…
//! verity salt=… root-hash=…
//! command-line panic=5
//! ```
//! Text because people read it in reports and diffs; canonical because signed bytes must have one
//! meaning and one form: whatever does not come out of [`Fields::encode`] again is refused.
use alloc::borrow::ToOwned as _;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;
use core::ops::Deref;

use crate::digest::{Digest, Hex, from_hex};
use crate::envelope::{self, Envelope, Role, Signers};
use crate::keyring::KeyId;
use crate::layout::{self, BLOCK_BYTES, Extent};
use crate::trust_root::{self, TrustRoot};

mod error;

pub use error::Error;

/// Longest board name.
pub const MAX_BOARD_BYTES: usize = 32;
/// Longest version; the boot record has room for this much.
pub const MAX_VERSION_BYTES: usize = 48;
/// Longest command line of a manifest. The kernel takes 2048 bytes; the loader adds less than
/// half of that.
pub const MAX_COMMAND_LINE_BYTES: usize = 1024;

/// Hashes of one block of the hash tree.
const HASHES_PER_BLOCK: u64 = BLOCK_BYTES / 32;

/// The contents of a manifest, as the builder puts them together: nothing is checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    /// The board it is made for: `a-z`, `0-9`, `-`.
    pub board: String,
    /// The version, for people and for comparing "same or not"; order is the rollback index's.
    pub version: String,
    /// Never goes down on a device.
    pub rollback_index: u64,
    /// Who may run it.
    pub profile: Profile,
    /// The EROFS root file system; starts the slot.
    pub root: Part,
    /// The dm-verity hash tree of the root; follows it at once.
    pub verity: Part,
    /// The kernel, packed: a frame of LZ4 ([`crate::lz4`]), else spans ([`crate::spans`]).
    pub kernel: Part,
    /// What the kernel unpacks to.
    pub kernel_unpacked: Unpacked,
    /// The initial RAM disk, a cpio archive, packed likewise. LZ4 the kernel unpacks by itself.
    pub initrd: Part,
    /// Salt of the hash tree.
    pub verity_salt: [u8; 32],
    /// Root hash of the hash tree, as veritysetup prints it.
    pub verity_root_hash: Digest,
    /// What the kernel is told besides what the loader appends.
    pub command_line: String,
}

/// Whether a slot is for machines in the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Signed with a key that is meant for one developer.
    Development,
    /// Signed with a release key.
    Release,
}

/// A part of a slot: where it is and what it hashes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where, from the start of the slot.
    pub extent: Extent,
    /// Hash of exactly these bytes.
    pub sha256: Digest,
}

/// What a compressed part unpacks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// Number of bytes.
    pub length: u64,
    /// Their hash.
    pub sha256: Digest,
}

/// The name of a part, in manifests and in messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartName {
    /// The root file system.
    Root,
    /// Its hash tree.
    Verity,
    /// The kernel.
    Kernel,
    /// The initial RAM disk.
    Initrd,
}

impl PartName {
    /// All parts, in the order in which they lie in a slot.
    pub const ALL: [Self; 4] = [Self::Root, Self::Verity, Self::Kernel, Self::Initrd];
}

impl fmt::Display for PartName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Root => "root",
            Self::Verity => "verity",
            Self::Kernel => "kernel",
            Self::Initrd => "initrd",
        })
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Development => "development",
            Self::Release => "release",
        })
    }
}

impl Fields {
    /// The part of this name.
    pub fn part(&self, name: PartName) -> &Part {
        match name {
            PartName::Root => &self.root,
            PartName::Verity => &self.verity,
            PartName::Kernel => &self.kernel,
            PartName::Initrd => &self.initrd,
        }
    }

    /// Number of data blocks of the root, which is also the block the hash tree starts at.
    pub fn verity_data_blocks(&self) -> u64 {
        self.root.extent.length / BLOCK_BYTES
    }

    /// The text to sign.
    pub fn encode(&self) -> String {
        let Unpacked { length, sha256 } = self.kernel_unpacked;
        let mut text = String::new();
        let mut line = |args: fmt::Arguments<'_>| {
            text.push_str(&args.to_string());
            text.push('\n');
        };
        line(format_args!("iota-slot 1"));
        line(format_args!("board {}", self.board));
        line(format_args!("version {}", self.version));
        line(format_args!("rollback-index {}", self.rollback_index));
        line(format_args!("profile {}", self.profile));
        line(format_args!("part root {}", self.root));
        line(format_args!("part verity {}", self.verity));
        line(format_args!(
            "part kernel {} unpacked-length={length} unpacked-sha256={sha256}",
            self.kernel
        ));
        line(format_args!("part initrd {}", self.initrd));
        line(format_args!(
            "verity salt={} root-hash={}",
            Hex(&self.verity_salt),
            self.verity_root_hash
        ));
        line(format_args!("command-line {}", self.command_line));
        text
    }

    /// Reads the text of a manifest and insists on its canonical form.
    fn decode(text: &str) -> Result<Self, Error> {
        let mut lines = Lines { rest: text, number: 0 };
        lines.parsed("iota-slot ", |version| (version == "1").then_some(()))?;
        let board = lines.value("board ")?.to_owned();
        let version = lines.value("version ")?.to_owned();
        let rollback_index = lines.parsed("rollback-index ", |text| text.parse().ok())?;
        let profile = lines.parsed("profile ", read_profile)?;
        let root = lines.parsed("part root ", read_part)?;
        let verity = lines.parsed("part verity ", read_part)?;
        let (kernel, kernel_unpacked) = lines.parsed("part kernel ", read_kernel)?;
        let initrd = lines.parsed("part initrd ", read_part)?;
        let (verity_salt, verity_root_hash) = lines.parsed("verity ", read_verity)?;
        let command_line = lines.value("command-line ")?.to_owned();
        if !lines.rest.is_empty() {
            return Err(Error::ExtraLine(lines.number.saturating_add(1)));
        }
        let fields = Self {
            board,
            version,
            rollback_index,
            profile,
            root,
            verity,
            kernel,
            kernel_unpacked,
            initrd,
            verity_salt,
            verity_root_hash,
            command_line,
        };
        if fields.encode() == text { Ok(fields) } else { Err(Error::NotCanonical) }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Extent { offset, length } = self.extent;
        write!(f, "offset={offset} length={length} sha256={}", self.sha256)
    }
}

/// A manifest that makes sense for a slot of a certain size.
///
/// Holding one proves: the names and the command line are short plain text and say nothing in
/// the loader's name; all parts are block-aligned, not empty, in order, without overlap and end
/// before the manifest area; the hash tree follows the root and has the size that its root needs.
/// It does not prove that anybody signed it: that is [`Unverified::verify`]'s result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest(Fields);

impl Manifest {
    /// Checks the fields for a slot of `slot_bytes`.
    pub fn new(fields: Fields, slot_bytes: u64) -> Result<Self, Error> {
        check_text(&fields)?;
        check_parts(&fields, slot_bytes)?;
        check_verity(&fields)?;
        Ok(Self(fields))
    }
}

impl Deref for Manifest {
    type Target = Fields;
    fn deref(&self) -> &Fields {
        &self.0
    }
}

/// What lies in a manifest area: well-formed, but from anybody.
///
/// The manifest's envelope comes first. Behind it lie the trust roots that lead from the first to
/// the one whose keys signed it, if there is more than the first: a loader that was written years
/// ago, or a device that gets its update from a stick, knows no other way to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unverified<'a> {
    envelope: Envelope<'a>,
    trust_roots: Vec<Envelope<'a>>,
}

impl<'a> Unverified<'a> {
    /// Reads the manifest area of a slot.
    pub fn parse(area: &'a [u8]) -> Result<Self, Error> {
        let (envelope, rest) = Envelope::parse_first(area).map_err(Error::Envelope)?;
        let trust_roots = trust_root::chain(rest).map_err(|error| match error {
            // Something else than a trust root: what should be zeros.
            trust_root::Error::Envelope(envelope::Error::Magic | envelope::Error::Cut(_)) => {
                Error::Envelope(envelope::Error::Trailing)
            }
            error => Error::Trust(error),
        })?;
        Ok(Self { envelope, trust_roots })
    }

    /// The newest trust root that `trust` leads to with those that come along.
    pub fn follow(&self, trust: &TrustRoot) -> Result<TrustRoot, Error> {
        trust.follow(&self.trust_roots).map_err(Error::Trust)
    }

    /// The manifest, if enough trusted keys signed it and it fits a slot of `slot_bytes`; with the
    /// keys. Trust roots that come along are followed first.
    pub fn verify(self, trust: &TrustRoot, slot_bytes: u64) -> Result<(Manifest, Signers), Error> {
        let trust = self.follow(trust)?;
        let opened = self.envelope.open(Role::SLOT_MANIFEST, &trust.release);
        let (payload, signers) = opened.map_err(Error::Envelope)?;
        let text = core::str::from_utf8(payload).map_err(|_| Error::NotText)?;
        Ok((Manifest::new(Fields::decode(text)?, slot_bytes)?, signers))
    }

    /// All of it without the zeros that fill its area.
    pub fn exact(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = self.envelope.exact().map_err(Error::Envelope)?;
        for envelope in &self.trust_roots {
            bytes.extend(envelope.exact().map_err(Error::Envelope)?);
        }
        Ok(bytes)
    }

    /// The contents without any check of signatures or layout: for tools that show what is there.
    pub fn fields_unverified(&self) -> Result<Fields, Error> {
        let payload = self.envelope.payload_unverified();
        Fields::decode(core::str::from_utf8(payload).map_err(|_| Error::NotText)?)
    }

    /// The keys that claim to have signed it.
    pub fn signers_unverified(&self) -> impl Iterator<Item = KeyId> {
        self.envelope.signatures().iter().map(|signature| signature.key)
    }
}

/// Number of blocks of the hash tree over `data_blocks` blocks; `None` if it overflows.
pub fn verity_tree_blocks(data_blocks: u64) -> Option<u64> {
    let (mut level, mut total) = (data_blocks, 0_u64);
    while level > 1 {
        level = level.div_ceil(HASHES_PER_BLOCK);
        total = total.checked_add(level)?;
    }
    Some(total)
}

fn check_text(fields: &Fields) -> Result<(), Error> {
    let Fields { board, version, command_line, .. } = fields;
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    if board.is_empty() || board.len() > MAX_BOARD_BYTES || !board.as_bytes().iter().all(plain) {
        return Err(Error::Board(board.clone()));
    }
    if !is_version(version) {
        return Err(Error::Version(version.clone()));
    }
    if command_line.len() > MAX_COMMAND_LINE_BYTES {
        return Err(Error::CommandLineLength(command_line.len()));
    }
    if let Some(byte) = command_line.bytes().find(|byte| !matches!(byte, b' '..=b'~')) {
        return Err(Error::CommandLineByte(byte));
    }
    // The kernel matches names with dashes for underscores, but none of ours has either.
    match command_line.split(' ').find(|word| word.starts_with("iota.")) {
        Some(word) => Err(Error::CommandLineWord(word.to_owned())),
        None => Ok(()),
    }
}

/// Whether a version fits manifests, the boot record and the kernel command line.
pub fn is_version(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".+~_-".contains(&byte);
    !text.is_empty() && text.len() <= MAX_VERSION_BYTES && text.bytes().all(plain)
}

fn check_parts(fields: &Fields, slot_bytes: u64) -> Result<(), Error> {
    let area = layout::manifest_area(slot_bytes).ok_or(Error::SlotTooSmall(slot_bytes))?;
    let mut free_from = 0;
    for name in PartName::ALL {
        let extent = fields.part(name).extent;
        let Extent { offset, length } = extent;
        if length == 0 {
            return Err(Error::PartEmpty(name));
        }
        if !offset.is_multiple_of(BLOCK_BYTES) {
            return Err(Error::PartUnaligned { name, offset });
        }
        if offset < free_from {
            return Err(Error::PartOverlap { name, offset, free_from });
        }
        free_from = match extent.end() {
            Some(end) if end <= area.offset => end,
            end => {
                return Err(Error::PartTooLong { name, end, limit: area.offset });
            }
        };
    }
    Ok(())
}

fn check_verity(fields: &Fields) -> Result<(), Error> {
    let Fields { root, verity, .. } = fields;
    if root.extent.offset != 0 {
        return Err(Error::RootOffset(root.extent.offset));
    }
    if !root.extent.length.is_multiple_of(BLOCK_BYTES) {
        return Err(Error::RootLength(root.extent.length));
    }
    let blocks = verity_tree_blocks(fields.verity_data_blocks());
    let needed = Extent {
        offset: root.extent.length,
        length: blocks.and_then(|blocks| blocks.checked_mul(BLOCK_BYTES)).unwrap_or(u64::MAX),
    };
    if verity.extent != needed {
        return Err(Error::VerityExtent { found: verity.extent, needed });
    }
    Ok(())
}

/// The lines of a manifest, taken one by one.
struct Lines<'a> {
    rest: &'a str,
    number: usize,
}

impl<'a> Lines<'a> {
    /// The next line without `name`, which it has to start with.
    fn value(&mut self, name: &'static str) -> Result<&'a str, Error> {
        self.number = self.number.saturating_add(1);
        let error = Error::Line { number: self.number, wanted: name };
        let Some((line, rest)) = self.rest.split_once('\n') else {
            return Err(error);
        };
        self.rest = rest;
        line.strip_prefix(name).ok_or(error)
    }

    fn parsed<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, Error> {
        let value = self.value(name)?;
        read(value).ok_or_else(|| Error::Value { name, value: value.to_owned() })
    }
}

fn read_profile(text: &str) -> Option<Profile> {
    [Profile::Development, Profile::Release].into_iter().find(|p| p.to_string() == text)
}

fn read_part(text: &str) -> Option<Part> {
    let mut words = text.split(' ');
    let offset = words.next()?.strip_prefix("offset=")?.parse().ok()?;
    let length = words.next()?.strip_prefix("length=")?.parse().ok()?;
    let sha256 = Digest::from_hex(words.next()?.strip_prefix("sha256=")?)?;
    let part = Part { extent: Extent { offset, length }, sha256 };
    words.next().is_none().then_some(part)
}

fn read_kernel(text: &str) -> Option<(Part, Unpacked)> {
    let (part, unpacked) = text.split_once(" unpacked-length=")?;
    let (length, sha256) = unpacked.split_once(" unpacked-sha256=")?;
    let unpacked = Unpacked { length: length.parse().ok()?, sha256: Digest::from_hex(sha256)? };
    Some((read_part(part)?, unpacked))
}

fn read_verity(text: &str) -> Option<([u8; 32], Digest)> {
    let (salt, root_hash) = text.strip_prefix("salt=")?.split_once(" root-hash=")?;
    Some((from_hex(salt)?.try_into().ok()?, Digest::from_hex(root_hash)?))
}

#[cfg(test)]
pub(crate) mod tests;
