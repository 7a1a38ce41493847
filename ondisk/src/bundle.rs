//! A bundle: one file that brings one signed system to a device.
//!
//! ```text
//! 0      4 KiB  header in its signature envelope (role "bundle header"), zeros to the end
//! 4096   …      slot manifest in its own envelope, exactly as it will lie in the slot
//! …      …      index: what the stream and the slot hash to, piece by piece
//! …      …      stream: one zstd frame, which unpacks to the slot's bytes from 0 on
//! ```
//! The header is text, in one canonical form, and commits to every byte after it:
//!
//! ```text
//! iota-bundle 1
//! slot-manifest length=1402 sha256=…
//! image length=196083712
//! index length=203424 sha256=…
//! stream length=48211022 chunk=1048576 window=8388608
//! ```
//! The index lists first one SHA-256 for each chunk of the stream, the last one shorter, then one
//! entry for each group of blocks of the image: number of 4 KiB blocks (4 bytes, little-endian) and
//! SHA-256. So no byte reaches a decompressor before it was checked, and each group of blocks can
//! be checked on the disk. Where groups are cut is the builder's affair.
//!
//! The image ends with the block of the slot's last part; the manifest area comes from the bundle's
//! own copy of the slot manifest and is written last.
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;

use crate::digest::Digest;
use crate::envelope::{self, Envelope, Role, Signers};
use crate::keyring::KeyId;
use crate::layout::{BLOCK_BYTES, Extent, MANIFEST_AREA_BYTES};
use crate::manifest::{Manifest, PartName};
use crate::trust_root::TrustRoot;

pub mod cut;

mod error;
mod index;

pub use error::Error;
pub use index::{Group, Index};

/// Size of the area of the header's envelope.
pub const HEADER_BYTES: usize = 4096;
/// Longest slot manifest with its envelope.
pub const MAX_SLOT_MANIFEST_BYTES: u64 = 48 * 1024;
/// Longest index: for an image of about 1.8 GiB in groups of 32 KiB.
pub const MAX_INDEX_BYTES: u64 = 2 * MIB;
/// Longest chunk of the stream: a device holds one in memory.
pub const MAX_CHUNK_BYTES: u64 = MIB;
/// Largest window of the stream: a device holds that much of what it has unpacked.
pub const MAX_WINDOW_BYTES: u64 = 8 * MIB;
/// Most blocks in a group.
pub const MAX_GROUP_BLOCKS: u32 = 64;

const MIB: u64 = 1024 * 1024;
const _: () = assert!(MAX_SLOT_MANIFEST_BYTES <= MANIFEST_AREA_BYTES);

/// The contents of a header, as the builder puts them together: nothing is checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    /// The slot manifest with its envelope.
    pub slot_manifest: Blob,
    /// Number of bytes that the stream unpacks to.
    pub image_bytes: u64,
    /// The encoded [`Index`].
    pub index: Blob,
    /// Number of bytes of the stream.
    pub stream_bytes: u64,
    /// Number of bytes of each chunk of the stream but the last.
    pub chunk_bytes: u64,
    /// How far back the stream refers to what it has unpacked, in bytes.
    pub window_bytes: u64,
}

/// A section of a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Number of bytes.
    pub length: u64,
    /// Hash of exactly these bytes.
    pub sha256: Digest,
}

impl Blob {
    /// The section with these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        // OK to saturate: nothing in memory is that long.
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Self { length, sha256: Digest::of(bytes) }
    }

    /// Whether these are the bytes of the section.
    pub fn check(&self, name: &'static str, bytes: &[u8]) -> Result<(), Error> {
        if Self::of(bytes) == *self { Ok(()) } else { Err(Error::Section(name)) }
    }
}

impl Fields {
    /// The text to sign.
    pub fn encode(&self) -> String {
        let Self { slot_manifest, image_bytes, index, .. } = self;
        let Self { stream_bytes, chunk_bytes, window_bytes, .. } = self;
        [
            "iota-bundle 1\n".to_string(),
            alloc::format!("slot-manifest {slot_manifest}\n"),
            alloc::format!("image length={image_bytes}\n"),
            alloc::format!("index {index}\n"),
            alloc::format!(
                "stream length={stream_bytes} chunk={chunk_bytes} window={window_bytes}\n"
            ),
        ]
        .concat()
    }

    /// Reads the text of a header and insists on its canonical form.
    fn decode(text: &str) -> Result<Self, Error> {
        let mut lines = text.split_inclusive('\n');
        let mut value = |name: &'static str| {
            let line = lines.next().and_then(|line| line.strip_suffix('\n'));
            line.and_then(|line| line.strip_prefix(name)).ok_or(Error::Line(name))
        };
        if value("iota-bundle ")? != "1" {
            return Err(Error::Format);
        }
        let slot_manifest = value("slot-manifest ")?;
        let image = value("image ")?;
        let index = value("index ")?;
        let stream = value("stream ")?;
        if lines.next().is_some() {
            return Err(Error::ExtraLine);
        }
        let [stream_bytes, chunk_bytes, window_bytes] =
            numbers(stream, ["length", "chunk", "window"]).ok_or(Error::Value("stream"))?;
        let [image_bytes] = numbers(image, ["length"]).ok_or(Error::Value("image"))?;
        let fields = Self {
            slot_manifest: Blob::parse(slot_manifest).ok_or(Error::Value("slot-manifest"))?,
            image_bytes,
            index: Blob::parse(index).ok_or(Error::Value("index"))?,
            stream_bytes,
            chunk_bytes,
            window_bytes,
        };
        if fields.encode() == text { Ok(fields) } else { Err(Error::NotCanonical) }
    }
}

impl Blob {
    /// Reads what `Display` writes.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (length, sha256) = text.strip_prefix("length=")?.split_once(" sha256=")?;
        Some(Self { length: length.parse().ok()?, sha256: Digest::from_hex(sha256)? })
    }
}

impl fmt::Display for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "length={} sha256={}", self.length, self.sha256)
    }
}

/// `name=number` of each name, in this order, and nothing else.
fn numbers<const N: usize>(text: &str, names: [&str; N]) -> Option<[u64; N]> {
    let mut words = text.split(' ');
    let mut values = [0; N];
    for (value, name) in values.iter_mut().zip(names) {
        *value = words.next()?.strip_prefix(name)?.strip_prefix('=')?.parse().ok()?;
    }
    words.next().is_none().then_some(values)
}

/// A header that makes sense.
///
/// Holding one proves: every length is within the limits of this module, the image is made of whole
/// blocks, and the sections follow one another to an end that is a number.
/// It does not prove that anybody signed it: that is [`Unverified::verify`]'s result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    fields: Fields,
    total_bytes: u64,
}

impl Header {
    /// Checks the fields.
    pub fn new(fields: Fields) -> Result<Self, Error> {
        let limit = |name, value: u64, limit: u64| {
            let fits = (1..=limit).contains(&value);
            if fits { Ok(()) } else { Err(Error::Limit { name, value, limit }) }
        };
        limit("slot manifest", fields.slot_manifest.length, MAX_SLOT_MANIFEST_BYTES)?;
        limit("index", fields.index.length, MAX_INDEX_BYTES)?;
        limit("chunk", fields.chunk_bytes, MAX_CHUNK_BYTES)?;
        limit("window", fields.window_bytes, MAX_WINDOW_BYTES)?;
        limit("stream", fields.stream_bytes, u64::MAX)?;
        if fields.image_bytes == 0 || !fields.image_bytes.is_multiple_of(BLOCK_BYTES) {
            return Err(Error::ImageLength(fields.image_bytes));
        }
        let sections = [fields.slot_manifest.length, fields.index.length, fields.stream_bytes];
        // OK to convert: 4096.
        let header = u64::try_from(HEADER_BYTES).unwrap_or(u64::MAX);
        let total = sections.into_iter().try_fold(header, u64::checked_add);
        Ok(Self { total_bytes: total.ok_or(Error::TooLong)?, fields })
    }

    /// What the header says.
    pub fn fields(&self) -> &Fields {
        &self.fields
    }

    /// Size of the whole file.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Number of chunks of the stream.
    pub fn chunks(&self) -> u64 {
        self.fields.stream_bytes.div_ceil(self.fields.chunk_bytes)
    }

    /// Whether the image is exactly what the manifest lists.
    pub fn check_manifest(&self, manifest: &Manifest) -> Result<(), Error> {
        let found = self.fields.image_bytes;
        match image_bytes(manifest) {
            Some(wanted) if wanted == found => Ok(()),
            wanted => Err(Error::NotTheImage { found, wanted: wanted.unwrap_or(u64::MAX) }),
        }
    }
}

/// Number of bytes from the start of a slot to the end of the block in which its last part ends.
pub fn image_bytes(manifest: &Manifest) -> Option<u64> {
    let ends = PartName::ALL.into_iter().map(|name| manifest.part(name).extent.end());
    let end = ends.collect::<Option<Vec<_>>>()?.into_iter().max()?;
    end.checked_next_multiple_of(BLOCK_BYTES)
}

/// The start of a bundle: well-formed, but from anybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unverified<'a> {
    envelope: Envelope<'a>,
}

impl<'a> Unverified<'a> {
    /// Reads the first [`HEADER_BYTES`] of a bundle.
    pub fn parse(area: &'a [u8; HEADER_BYTES]) -> Result<Self, Error> {
        Ok(Self { envelope: Envelope::parse(area).map_err(Error::Envelope)? })
    }

    /// The header, if enough trusted keys signed it; with the keys.
    pub fn verify(&self, trust: &TrustRoot) -> Result<(Header, Signers), Error> {
        let opened = self.envelope.open(Role::BUNDLE, &trust.release);
        let (payload, signer) = opened.map_err(Error::Envelope)?;
        Ok((Header::new(Fields::decode(text(payload)?)?)?, signer))
    }

    /// The contents without a check of signatures: for tools that show what is there.
    pub fn header_unverified(&self) -> Result<Header, Error> {
        if self.envelope.role() != Role::BUNDLE {
            let found = self.envelope.role();
            return Err(Error::Envelope(envelope::Error::Role { found, wanted: Role::BUNDLE }));
        }
        Header::new(Fields::decode(text(self.envelope.payload_unverified())?)?)
    }

    /// The keys that claim to have signed it.
    pub fn signers_unverified(&self) -> impl Iterator<Item = KeyId> {
        self.envelope.signatures().iter().map(|signature| signature.key)
    }
}

fn text(payload: &[u8]) -> Result<&str, Error> {
    core::str::from_utf8(payload).map_err(|_| Error::NotText)
}

/// Where the sections of a bundle lie in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sections {
    /// The slot manifest.
    pub slot_manifest: Extent,
    /// The index.
    pub index: Extent,
    /// The stream.
    pub stream: Extent,
}

impl Sections {
    /// The places, which follow from the lengths.
    pub fn of(header: &Header) -> Self {
        let Fields { slot_manifest, index, stream_bytes, .. } = header.fields();
        // OK to saturate: a Header proves that the end is a number.
        let mut offset = u64::try_from(HEADER_BYTES).unwrap_or(u64::MAX);
        let mut next = |length| {
            let extent = Extent { offset, length };
            offset = offset.saturating_add(length);
            extent
        };
        Self {
            slot_manifest: next(slot_manifest.length),
            index: next(index.length),
            stream: next(*stream_bytes),
        }
    }
}

#[cfg(test)]
mod tests;
