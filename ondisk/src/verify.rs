//! Checks the bytes of a part while they pass by, so that each byte is read once and the bytes
//! that are used are the bytes that were checked.
use core::fmt;

use sha2::{Digest as _, Sha256};

use crate::device::ReadAt;
use crate::digest::Digest;
use crate::layout::Extent;
use crate::manifest::{Part, Unpacked};

/// A running check of a known number of bytes against a known hash.
#[derive(Clone, Debug)]
pub struct Check {
    hasher: Sha256,
    seen: u64,
    length: u64,
    sha256: Digest,
}

impl Check {
    /// Starts the check of a part.
    pub fn part(part: &Part) -> Self {
        Self::new(part.extent.length, part.sha256)
    }

    /// Starts the check of what a part unpacks to.
    pub fn unpacked(unpacked: &Unpacked) -> Self {
        Self::new(unpacked.length, unpacked.sha256)
    }

    fn new(length: u64, sha256: Digest) -> Self {
        Self { hasher: Sha256::new(), seen: 0, length, sha256 }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.seen = self.seen.saturating_add(length);
    }

    /// Whether these were the right bytes, and all of them.
    pub fn finish(self) -> Result<(), Mismatch> {
        if self.seen != self.length {
            return Err(Mismatch::Length { found: self.seen, wanted: self.length });
        }
        let found = Digest::from_bytes(self.hasher.finalize().into());
        if found != self.sha256 {
            return Err(Mismatch::Sha256 { found, wanted: self.sha256 });
        }
        Ok(())
    }
}

/// The bytes are not the ones the manifest lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// Too few or too many.
    Length {
        /// How many there were.
        found: u64,
        /// How many the manifest lists.
        wanted: u64,
    },
    /// Others.
    Sha256 {
        /// What they hash to.
        found: Digest,
        /// What the manifest lists.
        wanted: Digest,
    },
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { found, wanted } => {
                write!(f, "length mismatch: {found} bytes, manifest says {wanted}")
            }
            Self::Sha256 { found, wanted } => {
                write!(f, "sha256 mismatch: {found}, manifest says {wanted}")
            }
        }
    }
}

impl core::error::Error for Mismatch {}

/// Why a part could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartError<E> {
    /// The device failed.
    Device(E),
    /// The device gave other bytes.
    Mismatch(Mismatch),
    /// The part does not lie inside its slot.
    Outside,
    /// The caller's buffer has another size than the part.
    BufferSize(usize),
}

impl<E: fmt::Display> fmt::Display for PartError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(error) => write!(f, "cannot read: {error}"),
            Self::Mismatch(mismatch) => fmt::Display::fmt(mismatch, f),
            Self::Outside => f.write_str("not inside its slot"),
            Self::BufferSize(size) => write!(f, "buffer of {size} bytes has the wrong size"),
        }
    }
}

impl<E: fmt::Display + fmt::Debug> core::error::Error for PartError<E> {}

/// Reads a part of `slot` into `buffer`, which has its exact size, in pieces of `piece_bytes`,
/// hashing each piece while it is still in the processor's cache. On an error the contents of the
/// buffer must not be used.
pub fn read_part<D: ReadAt>(
    device: &D,
    slot: Extent,
    part: &Part,
    buffer: &mut [u8],
    piece_bytes: usize,
) -> Result<(), PartError<D::Error>> {
    let extent = slot.slice(part.extent).ok_or(PartError::Outside)?;
    if u64::try_from(buffer.len()) != Ok(extent.length) {
        return Err(PartError::BufferSize(buffer.len()));
    }
    let mut check = Check::part(part);
    let mut offset = extent.offset;
    for piece in buffer.chunks_mut(piece_bytes.max(1)) {
        device.read_at(offset, piece).map_err(PartError::Device)?;
        check.update(piece);
        // Cannot overflow: slice() has checked the end of the part.
        let length = u64::try_from(piece.len()).map_err(|_| PartError::Outside)?;
        offset = offset.checked_add(length).ok_or(PartError::Outside)?;
    }
    check.finish().map_err(PartError::Mismatch)
}
