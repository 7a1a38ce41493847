//! The groups of an image from a pack: what is on the disk is read there, what is fetched is
//! checked before it is unpacked.

use std::io::{self, Read as _};

use lzma_rust2::LzmaReader;
use ondisk::bundle::Group;
use ondisk::device::ReadAt;
use ondisk::digest::Digest;
use ondisk::layout::BLOCK_BYTES;
use ondisk::pack::recipe::{MAX_CONTENT_BYTES, Recipe};
use ondisk::pack::{Frame, Piece, patch, recipe};
use ondisk::spans::{self, packer};
use ruzstd::decoding::FrameDecoder;

use super::plan::{Origin, Plan};
use super::remote::Remote;
use crate::apply::{Cause, Groups};

/// Most memory for unpacking a patch, in KiB: its window is no longer than itself.
const LZMA_KIB: u32 = 8 * 1024;

/// Groups in the order of a plan.
pub struct Pieces<'a, 'r, 'm> {
    plan: &'a Plan,
    /// Number of the next group.
    number: usize,
    /// Number of the next range.
    range: usize,
    remote: Remote<'r, 'm>,
    /// Where the system starts that the pack is from.
    base: u64,
    decoder: FrameDecoder,
    bytes: Vec<u8>,
}

impl<'a, 'r, 'm> Pieces<'a, 'r, 'm> {
    /// Starts with the first group.
    pub fn new(plan: &'a Plan, remote: Remote<'r, 'm>, base: u64) -> Self {
        let decoder = FrameDecoder::new();
        Self { plan, number: 0, range: 0, remote, base, decoder, bytes: Vec::new() }
    }

    /// Fetches these bytes of the file.
    fn fetch(&mut self, offset: u64, length: u64) -> io::Result<Vec<u8>> {
        let before = |range: &&(u64, u64)| range.0 <= offset;
        if let Some(range) = self.plan.ranges.get(self.range).filter(before) {
            self.range += 1;
            self.remote.go_to(*range);
        }
        self.remote.skip_to(offset)?;
        // A table limits it to the length of a group.
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        self.remote.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn unpack(&mut self, frame: &Frame, packed: &[u8], most: usize) -> Result<Vec<u8>, String> {
        check(frame, packed)?;
        let mut unpacked = vec![0; most];
        let length = self.decoder.decode_all(packed, &mut unpacked);
        unpacked.truncate(length.map_err(|error| error.to_string())?);
        Ok(unpacked)
    }

    fn make<D: ReadAt>(
        &mut self,
        disk: &D,
        origin: Origin,
        group: &Group,
    ) -> Result<Vec<u8>, Cause<D::Error>> {
        // OK to convert: 256 KiB at most.
        let wanted = usize::try_from(group.bytes()).unwrap_or_default();
        let read = |offset, length: usize| {
            let mut bytes = vec![0; length];
            let done = disk.read_at(offset, &mut bytes);
            done.map(|()| bytes).map_err(|error| Cause::Read { what: "what is there", error })
        };
        let (piece, offset, length) = match origin {
            Origin::Disk(offset) => return read(offset, wanted),
            Origin::Pack { piece, offset, length } => (piece, offset, length),
        };
        let stored = self.fetch(offset, length).map_err(Cause::Source)?;
        match piece {
            Piece::Raw | Piece::Copy(_) => Ok(stored),
            Piece::Packed(frame) => self.unpack(&frame, &stored, wanted).map_err(Cause::Unpack),
            Piece::Patched { frame, block, blocks } => {
                let patch = unpack_patch(&frame, &stored).map_err(Cause::Unpack)?;
                let window = usize::try_from(u64::from(blocks) * BLOCK_BYTES).unwrap_or_default();
                let old = read(self.base + u64::from(block) * BLOCK_BYTES, window)?;
                self.patched(&patch, &old, group).map_err(Cause::Unpack)
            }
        }
    }

    /// The group that recipe and patch make of what is in these blocks.
    fn patched(&mut self, patch: &[u8], old: &[u8], group: &Group) -> Result<Vec<u8>, String> {
        let (recipe, patch) =
            recipe::decode(patch, group.blocks).ok_or("a recipe makes no sense")?;
        let Recipe { base, parts } = recipe;
        if Digest::of(old) != base {
            return Err("what runs is not what a patch is for".to_owned());
        }
        let decode = |frame: &[u8], room: &mut [u8]| self.decoder.decode_all(frame, room).ok();
        let old = spans::content(old, MAX_CONTENT_BYTES, decode)
            .ok_or("what runs cannot be unpacked for a patch")?;
        let content = recipe::content_bytes(&parts)
            .and_then(|length| patch::apply(patch, &old, length))
            .ok_or("a patch makes no sense")?;
        drop(old);
        recipe::make(&parts, &content, packer::pack)
            .ok_or_else(|| "what a patch makes does not fit".to_owned())
    }
}

fn check(frame: &Frame, packed: &[u8]) -> Result<(), String> {
    let is_it = Digest::of(packed) == frame.sha256;
    is_it.then_some(()).ok_or_else(|| "a piece of the pack is not the one of its table".to_owned())
}

/// Recipe and patch.
fn unpack_patch(frame: &Frame, packed: &[u8]) -> Result<Vec<u8>, String> {
    check(frame, packed)?;
    let failed = |error: io::Error| format!("a patch cannot be unpacked: {error}");
    let reader = LzmaReader::new_mem_limit(packed, LZMA_KIB, None).map_err(failed)?;
    let mut unpacked = Vec::with_capacity(recipe::MAX_BYTES + 1);
    reader.take(recipe::MAX_BYTES as u64 + 1).read_to_end(&mut unpacked).map_err(failed)?;
    let fits = unpacked.len() <= recipe::MAX_BYTES;
    fits.then_some(unpacked).ok_or_else(|| "a patch is longer than it may be".to_owned())
}

impl Groups for Pieces<'_, '_, '_> {
    fn next<D: ReadAt>(&mut self, disk: &D, group: &Group) -> Result<&[u8], Cause<D::Error>> {
        let origin = self.plan.origins.get(self.number).copied();
        self.number += 1;
        let origin = origin.ok_or(Cause::UnpackedLength("ends too early"))?;
        self.bytes = self.make(disk, origin, group)?;
        Ok(&self.bytes)
    }

    fn finish<E>(self) -> Result<(), Cause<E>> {
        Ok(())
    }
}
