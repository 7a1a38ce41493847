//! The pieces of a pack: for each group of the new image the cheapest way to make it.

use std::collections::HashMap;
use std::io;

use ondisk::bundle::Group;
use ondisk::digest::Digest;
use ondisk::pack::patch::{self, Step};
use ondisk::pack::{Frame, Piece, Table};

use super::release::Release;
use super::windows::{Samples, Window};
use crate::error::{Error, Result};
use crate::host::parallel;

/// libzstd's level: a pack is made once and fetched often.
const LEVEL: i32 = 19;
/// Tells what is worth it.
const QUICK_LEVEL: i32 = 1;

/// A pack in memory.
pub struct Pack {
    /// What starts the file.
    pub table: Table,
    /// What follows.
    pub frames: Vec<u8>,
}

/// Makes the pack of a release, for devices that run `base` or any. The same releases give the
/// same bytes with any number of processors.
pub fn make(
    new: &Release,
    base: Option<&Release>,
    progress: &(impl Fn(u64) + Sync),
) -> Result<Pack> {
    let old = base.map(Old::of);
    let groups: Vec<(&Group, &[u8])> = new.pieces().collect();
    let made = parallel::map(&groups, parallel::processors(), |(group, bytes)| {
        let piece = piece(group, bytes, old.as_ref());
        progress(bytes.len() as u64);
        piece.map_err(|error| Error::caused("cannot compress a piece of the release", error))
    })?;
    let mut pieces = Vec::with_capacity(made.len());
    let mut frames = Vec::new();
    for (piece, frame) in made {
        pieces.push(piece);
        frames.extend_from_slice(&frame);
    }
    let base = base.map(|base| base.slot_manifest.sha256);
    let table = Table { release: new.slot_manifest.sha256, base, pieces };
    Ok(Pack { table, frames })
}

/// The base of a pack.
struct Old<'a> {
    image: &'a [u8],
    /// The first block of each of its groups.
    groups: HashMap<Digest, u32>,
    samples: Samples<'a>,
}

impl<'a> Old<'a> {
    fn of(release: &'a Release) -> Self {
        let mut groups = HashMap::new();
        let mut block = 0;
        for group in &release.groups {
            // The first of equal ones, whatever their number.
            groups.entry(group.sha256).or_insert(block);
            block += group.blocks;
        }
        let image = &release.image;
        Self { image, groups, samples: Samples::of(image) }
    }
}

fn piece(group: &Group, bytes: &[u8], old: Option<&Old<'_>>) -> io::Result<(Piece, Vec<u8>)> {
    if let Some(block) = old.and_then(|old| old.groups.get(&group.sha256)) {
        return Ok((Piece::Copy(*block), Vec::new()));
    }
    let packed = pack(bytes)?;
    let patched = match old {
        Some(old) => old.patch(bytes)?,
        None => None,
    };
    if let Some((window, patch)) = patched
        && patch.len() < packed.len().min(bytes.len())
    {
        let Window { block, blocks } = window;
        return Ok((Piece::Patched { frame: frame(&patch), block, blocks }, patch));
    }
    if packed.len() < bytes.len() {
        return Ok((Piece::Packed(frame(&packed)), packed));
    }
    Ok((Piece::Raw, bytes.to_vec()))
}

/// The packed bytes, or these if packing does not pay: what is compressed already would only take
/// the highest level's time.
fn pack(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let quick = zstd::bulk::compress(bytes, QUICK_LEVEL)?;
    let pays = quick.len() < bytes.len() - bytes.len() / 32;
    if pays { zstd::bulk::compress(bytes, LEVEL) } else { Ok(bytes.to_vec()) }
}

fn frame(bytes: &[u8]) -> Frame {
    // OK to saturate: shorter than a group.
    Frame { length: u32::try_from(bytes.len()).unwrap_or(u32::MAX), sha256: Digest::of(bytes) }
}

impl Old<'_> {
    /// The packed patch that makes these bytes of what the old image has like them.
    fn patch(&self, new: &[u8]) -> io::Result<Option<(Window, Vec<u8>)>> {
        let Some(window) = self.samples.window(new) else { return Ok(None) };
        let mut difference = Vec::new();
        bsdiff::diff(window.of(self.image), new, &mut difference)?;
        let patch = steps(&difference).and_then(|steps| patch::encode(&steps));
        let patch = patch.ok_or_else(|| io::Error::other("the differences make no sense"))?;
        Ok(Some((window, zstd::bulk::compress(&patch, LEVEL)?)))
    }
}

/// Reads what crate `bsdiff` writes: for each step the lengths of both parts and a distance, as
/// numbers of 8 bytes with a sign bit, then both parts.
fn steps(mut rest: &[u8]) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    while !rest.is_empty() {
        let (numbers, parts) = rest.split_first_chunk::<24>()?;
        let (numbers, _) = numbers.as_chunks::<8>();
        let [add, insert, seek] = numbers else { return None };
        let (add, insert) = (signed(*add)?, signed(*insert)?);
        let (add, parts) = parts.split_at_checked(usize::try_from(add).ok()?)?;
        let (insert, left) = parts.split_at_checked(usize::try_from(insert).ok()?)?;
        let seek = i32::try_from(signed(*seek)?).ok()?;
        steps.push(Step { add: add.to_vec(), insert: insert.to_vec(), seek });
        rest = left;
    }
    Some(steps)
}

fn signed(bytes: [u8; 8]) -> Option<i64> {
    const SIGN: u64 = 1 << 63;
    let number = u64::from_le_bytes(bytes);
    let magnitude = i64::try_from(number & !SIGN).ok()?;
    Some(if number & SIGN == 0 { magnitude } else { -magnitude })
}
