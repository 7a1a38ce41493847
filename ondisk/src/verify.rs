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
                write!(f, "length mismatch ({found} bytes, manifest says {wanted})")
            }
            Self::Sha256 { found, wanted } => {
                // Eight digits are enough to tell them apart, and keep the line on one screen line.
                write!(f, "sha256 mismatch ({found:.8}, manifest says {wanted:.8})")
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

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;
    use alloc::vec::Vec;

    use super::*;
    use crate::device::BeyondEnd;

    const SLOT: Extent = Extent { offset: 100, length: 60 };

    fn disk() -> Vec<u8> {
        (0..200).collect()
    }

    fn part(offset: u64, length: u64, bytes: &[u8]) -> Part {
        Part { extent: Extent { offset, length }, sha256: Digest::of(bytes) }
    }

    #[test]
    fn a_part_is_read_in_pieces_of_any_size() {
        let part = part(10, 25, &disk()[110..135]);
        for piece in [1, 7, 24, 25, 26, 1000] {
            let mut buffer = [0; 25];
            assert_eq!(read_part(&disk(), SLOT, &part, &mut buffer, piece), Ok(()));
            assert_eq!(buffer[..], disk()[110..135], "pieces of {piece}");
        }
    }

    #[test]
    fn every_flipped_bit_of_a_part_is_refused() {
        let part = part(10, 25, &disk()[110..135]);
        for bit in 110 * 8..135 * 8 {
            let mut disk = disk();
            disk[bit / 8] ^= 1 << (bit % 8);
            let read = read_part(&disk, SLOT, &part, &mut [0; 25], 8);
            let mismatch = matches!(read, Err(PartError::Mismatch(Mismatch::Sha256 { .. })));
            assert!(mismatch, "bit {bit}: {read:?}");
        }
    }

    #[test]
    fn a_part_outside_its_slot_is_not_read() {
        let read = |offset, length: usize| {
            let part = part(offset, u64::try_from(length).expect("short"), b"");
            read_part(&disk(), SLOT, &part, &mut alloc::vec![0; length], 8)
        };
        assert_eq!(read(36, 25), Err(PartError::Outside));
        assert_eq!(read(u64::MAX, 1), Err(PartError::Outside));
        let short = disk()[..150].to_vec();
        let read = read_part(&short, SLOT, &part(40, 20, b""), &mut [0; 20], 100);
        assert_eq!(read, Err(PartError::Device(BeyondEnd)));
        let read = read_part(&disk(), SLOT, &part(0, 20, b""), &mut [0; 19], 100);
        assert_eq!(read, Err(PartError::BufferSize(19)));
    }

    #[test]
    fn a_mismatch_names_both_values_shortly() {
        let mut check = Check::part(&part(0, 3, b"abc"));
        check.update(b"abd");
        let error = check.finish().expect_err("other bytes");
        assert_eq!(error.to_string(), "sha256 mismatch (a52d159f, manifest says ba7816bf)");
        let mut check = Check::part(&part(0, 3, b"abc"));
        check.update(b"ab");
        let error = check.finish().expect_err("too short");
        assert_eq!(error.to_string(), "length mismatch (2 bytes, manifest says 3)");
    }
}
