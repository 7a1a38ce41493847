//! The pieces of a pack: for each group of the new image the cheapest way to make it.

use std::collections::HashMap;
use std::io::{self, Write as _};

use liblzma::stream::{LzmaOptions, Stream};
use liblzma::write::XzEncoder;
use ondisk::bundle::Group;
use ondisk::digest::Digest;
use ondisk::pack::patch::{self, Step};
use ondisk::pack::recipe::{self, MAX_CONTENT_BYTES, MAX_PARTS, Part, Recipe};
use ondisk::pack::{Frame, Piece, Table};
use ondisk::spans::{self, Run, packer};

use super::release::Release;
use super::windows::{Content, Window};
use crate::error::{Error, Result};
use crate::host::parallel;
use crate::payload;

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
    let mut packs_again = false;
    for Made { piece, bytes, packs_again: it_does } in made {
        pieces.push(piece);
        frames.extend_from_slice(&bytes);
        packs_again |= it_does;
    }
    let base = base.map(|base| base.slot_manifest.sha256);
    let libzstd = packs_again.then(packer::version);
    let table = Table { release: new.slot_manifest.sha256, base, libzstd, pieces };
    Ok(Pack { table, frames })
}

/// The base of a pack.
struct Old<'a> {
    image: &'a [u8],
    /// The first block of each of its groups.
    groups: HashMap<Digest, u32>,
    content: Content<'a>,
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
        Self { image, groups, content: Content::of(image) }
    }
}

/// A piece and its bytes in the file.
struct Made {
    piece: Piece,
    bytes: Vec<u8>,
    /// Whether a device packs spans for it.
    packs_again: bool,
}

impl Made {
    fn new(piece: Piece, bytes: Vec<u8>) -> Self {
        Self { piece, bytes, packs_again: false }
    }
}

fn piece(group: &Group, bytes: &[u8], old: Option<&Old<'_>>) -> io::Result<Made> {
    if let Some(block) = old.and_then(|old| old.groups.get(&group.sha256)) {
        return Ok(Made::new(Piece::Copy(*block), Vec::new()));
    }
    let packed = pack(bytes)?;
    let patched = match old {
        Some(old) => old.patch(bytes)?,
        None => None,
    };
    if let Some(patched) = patched
        && patched.bytes.len() < packed.len().min(bytes.len())
    {
        return Ok(patched);
    }
    if packed.len() < bytes.len() {
        return Ok(Made::new(Piece::Packed(frame(&packed)), packed));
    }
    Ok(Made::new(Piece::Raw, bytes.to_vec()))
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
    /// Recipe and patch that make this group of what the old image has like it.
    fn patch(&self, group: &[u8]) -> io::Result<Option<Made>> {
        let Some((parts, new)) = parts(group) else { return Ok(None) };
        let Some((window, old)) = self.content.window(&new) else { return Ok(None) };
        let mut difference = Vec::new();
        bsdiff::diff(&old, &new, &mut difference)?;
        let patch = steps(&difference).and_then(|steps| patch::encode(&steps));
        let patch = patch.ok_or_else(|| io::Error::other("the differences make no sense"))?;
        let packs_again = parts.iter().any(|part| part.level > 0);
        let recipe = Recipe { base: Digest::of(window.of(self.image)), parts };
        let unpacked = [recipe.encode(), patch].concat();
        if unpacked.len() > recipe::MAX_BYTES {
            return Ok(None);
        }
        let bytes = pack_patch(&unpacked)?;
        let Window { block, blocks } = window;
        Ok(Some(Made {
            piece: Piece::Patched { frame: frame(&bytes), block, blocks },
            bytes,
            packs_again,
        }))
    }
}

/// An LZMA stream: of differences it is five sixths of zstd's.
fn pack_patch(bytes: &[u8]) -> io::Result<Vec<u8>> {
    // The highest preset, in the variant that looks for the most matches; the window is as long as
    // the bytes, since a device keeps that in memory.
    const EXTREME: u32 = 1 << 31;
    let mut options = LzmaOptions::new_preset(9 | EXTREME)?;
    options.dict_size(u32::try_from(bytes.len()).unwrap_or(u32::MAX).max(4096));
    let stream = Stream::new_lzma_encoder(&options)?;
    let mut encoder = XzEncoder::new_stream(Vec::new(), stream);
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// How a group is made of its content, and that; `None` if it is too much.
fn parts(group: &[u8]) -> Option<(Vec<Part>, Vec<u8>)> {
    let (mut parts, mut content) = (Vec::<Part>::new(), Vec::new());
    for run in spans::runs(group) {
        let bytes = run.stored();
        let stored = u32::try_from(bytes.len()).ok()?;
        let packed = unpack(&run);
        let (level, inside) =
            packed.as_ref().map_or((0, bytes), |(level, inside)| (*level, inside));
        let length = u32::try_from(inside.len()).ok()?;
        content.extend_from_slice(inside);
        match parts.last_mut() {
            Some(last) if last.level == 0 && level == 0 => {
                last.stored += stored;
                last.content += length;
            }
            _ => parts.push(Part { stored, level, content: length }),
        }
    }
    let fits = content.len() <= MAX_CONTENT_BYTES && parts.len() <= MAX_PARTS;
    fits.then_some((parts, content))
}

/// What is in a frame, and the level at which any device packs it again.
fn unpack(run: &Run<'_>) -> Option<(u8, Vec<u8>)> {
    let Run::Packed { stored, frame, .. } = run else { return None };
    let content = spans::content(stored, MAX_CONTENT_BYTES, payload::decode)?;
    let is_made = |level: &u8| packer::pack(*level, &content).is_some_and(|again| again == *frame);
    let level = payload::LEVELS.into_iter().find(is_made)?;
    Some((level, content))
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::bundle::tests::noise;

    /// Recipe and patch of a piece, by liblzma.
    pub(in crate::publish) fn unpacked(stored: &[u8]) -> Vec<u8> {
        let stream = Stream::new_lzma_decoder(8 << 20).unwrap();
        let mut bytes = Vec::new();
        let mut decoder = liblzma::bufread::XzDecoder::new_stream(stored, stream);
        std::io::Read::read_to_end(&mut decoder, &mut bytes).unwrap();
        bytes
    }

    /// The group that a device makes of an unpacked patch and blocks of the base.
    pub(in crate::publish) fn patched(patch: &[u8], old: &[u8], blocks: u32) -> Vec<u8> {
        let (Recipe { base, parts }, patch) = recipe::decode(patch, blocks).unwrap();
        assert_eq!(base, Digest::of(old));
        let old = spans::content(old, MAX_CONTENT_BYTES, payload::decode).unwrap();
        let content = recipe::content_bytes(&parts).unwrap();
        let content = patch::apply(patch, &old, content).unwrap();
        recipe::make(&parts, &content, packer::pack).unwrap()
    }

    /// Bytes that can be packed to half, different from place to place.
    fn text(length: usize) -> Vec<u8> {
        noise(1, length).iter().map(|byte| byte & 0x0F).collect()
    }

    fn packed(content: &[u8], level: u8) -> Vec<u8> {
        payload::Packing::Spans { level }.pack(content).unwrap()
    }

    #[test]
    fn what_changed_in_a_span_costs_what_changed_and_not_what_follows_it() {
        let old = text(700_000);
        let mut new = old.clone();
        new.splice(10..10, *b"some more at the start");
        new.iter_mut().skip(5000).step_by(10_000).for_each(|byte| *byte = b'x');
        let image = [vec![1; 4096], packed(&old, 3)].concat();
        for level in payload::LEVELS {
            let group = packed(&new[..500_000], level);
            let base = Old { image: &image, groups: HashMap::new(), content: Content::of(&image) };
            let made = base.patch(&group).unwrap().unwrap();
            assert!(made.packs_again && made.bytes.len() < 700, "{}", made.bytes.len());
            let Piece::Patched { block, blocks, .. } = made.piece else { panic!("no patch") };
            let window = Window { block, blocks };
            let patch = unpacked(&made.bytes);
            let count = u32::try_from(group.len() / 4096).unwrap();
            assert!(patched(&patch, window.of(&image), count) == group, "level {level}");
        }
    }

    #[test]
    fn what_changed_in_the_end_of_a_file_costs_what_changed() {
        let content = text(6500);
        let mut newer = content.clone();
        newer[100..108].copy_from_slice(b"somewhat");
        // As EROFS has it: behind inodes, where a block has room.
        let block = |content: &[u8]| {
            let (one, two) = content.split_at(5000);
            let mut bytes = [&[1; 64], &packer::pack(3, one).unwrap()[..]].concat();
            let two = packer::pack(3, two).unwrap();
            bytes.resize(4096 - two.len(), 2);
            [bytes, two].concat()
        };
        let blocks = |content: &[u8]| [block(content), vec![3; 4096]].concat();
        let (image, group) = (blocks(&content), blocks(&newer));
        let (parts, _) = parts(&group).unwrap();
        let levels: Vec<u8> = parts.iter().map(|part| part.level).collect();
        assert_eq!(levels, [0, 3, 0, 3, 0]);
        let base = Old { image: &image, groups: HashMap::new(), content: Content::of(&image) };
        let made = base.patch(&group).unwrap().unwrap();
        assert!(made.packs_again && made.bytes.len() < 250, "{}", made.bytes.len());
        let patch = unpacked(&made.bytes);
        assert!(patched(&patch, &image, 2) == group);
    }

    #[test]
    fn a_span_that_nobody_can_pack_again_is_patched_as_it_is() {
        let content = text(100_000);
        // Another window than that of all spans.
        let mut frame = Vec::with_capacity(content.len());
        packer::compressor(3, 12).unwrap().compress2(&mut frame, &content).unwrap();
        let mut span = vec![0; frame.len().next_multiple_of(4096)];
        spans::place(&frame, &mut span).unwrap();
        let group = [vec![2; 8192], span.clone(), packed(&content, 9)].concat();
        let (parts, inside) = parts(&group).unwrap();
        let plain = 8192 + span.len();
        assert_eq!(parts[0], Part { stored: plain as u32, level: 0, content: plain as u32 });
        assert_eq!((parts.len(), parts[1].level, parts[1].content), (2, 9, 100_000));
        assert!(inside == [&group[..plain], &content].concat());
    }
}
