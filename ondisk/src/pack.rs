//! A pack: the pieces of a release in one file, each to be had on its own, so that a device fetches
//! only what it lacks and goes on where it was after a cut.
//!
//! ```text
//! 0     8   "IOTAPCK2"
//! 8     32  hash of the slot manifest of the release
//! 40    32  hash of the slot manifest of the base, zeros for none
//! 72    4   number of pieces, one for each group of the release's index
//! 76    4   version of libzstd that made what is packed, zero if no piece needs one
//! 80    …   the pieces, in the order of the image; these bytes are the table
//! …     …   what belongs to the pieces, in the same order, without gaps
//! ```
//! A piece is a kind and what that needs. All numbers are little-endian; blocks have 4 KiB.
//!
//! ```text
//! 0 raw                                             the group's bytes follow the table as they are
//! 1 packed  length u32, sha256                      one zstd frame of the group
//! 2 copy    block u32                               the group is in the base at this block
//! 3 patched length u32, sha256, block u32, blocks u32   one LZMA stream (the `.lzma` format) of a
//!                                                   [`recipe`] and a [`patch`], which make the
//!                                                   group of these blocks of the base
//! ```
//! A patch is made of what is *in* the blocks: spans ([`crate::spans`]) are unpacked before, and
//! the recipe packs what comes out. Where a device has another libzstd than the builder, what it
//! packs may be something else, so the table names the version and a device takes another carrier.
//! The table's own hash is listed in a signed channel, each frame's in the table: no byte reaches a
//! decompressor before it was checked. What comes of a piece is checked against the signed index: a
//! wrong table costs bytes, never integrity.
//!
//! A pack without a base brings any release to any device; one with a base is much smaller, and of
//! use where that base runs.
use alloc::vec::Vec;
use core::fmt;

use crate::bundle::Group;
use crate::digest::Digest;

pub mod patch;
pub mod recipe;

/// First bytes of a table.
pub const MAGIC: [u8; 8] = *b"IOTAPCK2";
/// Most blocks of the base that one piece looks at: 512 KiB, twice as much as the largest group.
pub const MAX_WINDOW_BLOCKS: u32 = 128;

const HEADER_BYTES: usize = 80;
const NO_BASE: Digest = Digest::from_bytes([0; 32]);

/// Where the bytes of a group come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// As they are.
    Raw,
    /// From a frame.
    Packed(Frame),
    /// From the base, at this block.
    Copy(u32),
    /// From a recipe, a patch, and what is in blocks of the base.
    Patched {
        /// Recipe and patch.
        frame: Frame,
        /// The first block.
        block: u32,
        /// Number of blocks.
        blocks: u32,
    },
}

/// What is packed: a zstd frame or, of a patch, an LZMA stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Number of bytes.
    pub length: u32,
    /// Their hash.
    pub sha256: Digest,
}

impl Piece {
    /// Number of bytes after the table that belong to the piece of this group.
    pub fn bytes(&self, group: &Group) -> u64 {
        match self {
            Self::Raw => group.bytes(),
            Self::Packed(frame) | Self::Patched { frame, .. } => u64::from(frame.length),
            Self::Copy(_) => 0,
        }
    }
}

/// What a pack is for, and its pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Hash of the slot manifest of the release.
    pub release: Digest,
    /// Hash of the slot manifest of the base.
    pub base: Option<Digest>,
    /// Version of libzstd ([`crate::spans`]) that whoever makes the image must have.
    pub libzstd: Option<u32>,
    /// One piece for each group.
    pub pieces: Vec<Piece>,
}

impl Table {
    /// The bytes that start the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::from(MAGIC);
        bytes.extend_from_slice(self.release.as_bytes());
        bytes.extend_from_slice(self.base.unwrap_or(NO_BASE).as_bytes());
        // OK to saturate: no image has so many groups.
        let count = u32::try_from(self.pieces.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.extend_from_slice(&self.libzstd.unwrap_or(0).to_le_bytes());
        self.pieces.iter().for_each(|piece| encode_piece(piece, &mut bytes));
        bytes
    }

    /// Reads a table, whose hash is checked first, for an image of these groups.
    ///
    /// Guarantees: there is one piece for each group; no frame is longer than its group, which is
    /// what raw pieces are for; only with a base does a piece look into one, and never at more than
    /// [`MAX_WINDOW_BLOCKS`].
    pub fn decode(bytes: &[u8], groups: &[Group]) -> Result<Self, Error> {
        let mut reader = Reader { rest: bytes };
        if reader.take::<8>()? != MAGIC {
            return Err(Error::Magic);
        }
        let release = Digest::from_bytes(reader.take()?);
        let base = Digest::from_bytes(reader.take()?);
        let (count, libzstd) = (reader.number()?, reader.number()?);
        if usize::try_from(count) != Ok(groups.len()) {
            return Err(Error::Count { found: count, wanted: groups.len() });
        }
        let base = (base != NO_BASE).then_some(base);
        let libzstd = (libzstd != 0).then_some(libzstd);
        let mut pieces = Vec::with_capacity(groups.len());
        for (number, group) in groups.iter().enumerate() {
            let piece = read_piece(&mut reader, number)?;
            check_piece(&piece, group, base.is_some()).ok_or(Error::Piece(number))?;
            pieces.push(piece);
        }
        if reader.rest.is_empty() {
            Ok(Self { release, base, libzstd, pieces })
        } else {
            Err(Error::Trailing)
        }
    }

    /// Where the bytes of each piece are, counted from the end of the table; the last number is
    /// where the file ends.
    pub fn offsets(&self, groups: &[Group]) -> Vec<u64> {
        let mut offset = 0_u64;
        let mut offsets = Vec::with_capacity(self.pieces.len().saturating_add(1));
        offsets.push(0);
        for (piece, group) in self.pieces.iter().zip(groups) {
            offset = offset.saturating_add(piece.bytes(group));
            offsets.push(offset);
        }
        offsets
    }
}

fn encode_piece(piece: &Piece, bytes: &mut Vec<u8>) {
    let frame = |frame: &Frame, bytes: &mut Vec<u8>| {
        bytes.extend_from_slice(&frame.length.to_le_bytes());
        bytes.extend_from_slice(frame.sha256.as_bytes());
    };
    match piece {
        Piece::Raw => bytes.push(0),
        Piece::Packed(packed) => {
            bytes.push(1);
            frame(packed, bytes);
        }
        Piece::Copy(block) => {
            bytes.push(2);
            bytes.extend_from_slice(&block.to_le_bytes());
        }
        Piece::Patched { frame: patch, block, blocks } => {
            bytes.push(3);
            frame(patch, bytes);
            bytes.extend_from_slice(&block.to_le_bytes());
            bytes.extend_from_slice(&blocks.to_le_bytes());
        }
    }
}

fn read_piece(reader: &mut Reader<'_>, number: usize) -> Result<Piece, Error> {
    let [kind] = reader.take()?;
    let frame = |reader: &mut Reader<'_>| -> Result<Frame, Error> {
        Ok(Frame { length: reader.number()?, sha256: Digest::from_bytes(reader.take()?) })
    };
    Ok(match kind {
        0 => Piece::Raw,
        1 => Piece::Packed(frame(reader)?),
        2 => Piece::Copy(reader.number()?),
        3 => Piece::Patched {
            frame: frame(reader)?,
            block: reader.number()?,
            blocks: reader.number()?,
        },
        _ => return Err(Error::Piece(number)),
    })
}

fn check_piece(piece: &Piece, group: &Group, has_base: bool) -> Option<()> {
    let short = |frame: &Frame| (1..=group.bytes()).contains(&u64::from(frame.length));
    let fits = match piece {
        Piece::Raw => true,
        Piece::Packed(frame) => short(frame),
        Piece::Copy(block) => has_base && block.checked_add(group.blocks).is_some(),
        Piece::Patched { frame, block, blocks } => {
            let window = (1..=MAX_WINDOW_BLOCKS).contains(blocks);
            has_base && window && short(frame) && block.checked_add(*blocks).is_some()
        }
    };
    fits.then_some(())
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(Error::Cut)?;
        self.rest = rest;
        Ok(*bytes)
    }

    fn number(&mut self) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.take()?))
    }
}

/// Why a table is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The first bytes are not the magic.
    Magic,
    /// The table ends before its last piece.
    Cut,
    /// Pieces for another image.
    Count {
        /// So many.
        found: u32,
        /// So many groups.
        wanted: usize,
    },
    /// This piece, counted from 0, makes no sense.
    Piece(usize),
    /// Bytes after the last piece.
    Trailing,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => f.write_str("no pack (wrong magic)"),
            Self::Cut => f.write_str("the table is cut short"),
            Self::Count { found, wanted } => write!(f, "{found} pieces for {wanted} groups"),
            Self::Piece(number) => write!(f, "piece {number} makes no sense"),
            Self::Trailing => f.write_str("bytes after the last piece"),
        }
    }
}

impl core::error::Error for Error {}

const _: () = assert!(HEADER_BYTES == 8 + 32 + 32 + 4 + 4);

#[cfg(test)]
mod tests;
