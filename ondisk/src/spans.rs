//! Spans: whole blocks that hold one zstd frame, by which parts of a slot can be told that are
//! packed, and unpacked and packed again.
//!
//! ```text
//! 0     …   zeros, fewer than a block
//! …     …   one zstd frame (RFC 8878) that says how long its content is, without checksum and
//!           dictionary; it ends where the last block ends
//! ```
//! Clusters of EROFS packed with zstd are spans, and kernel and initrd are rows of them. What ends
//! a file EROFS puts beside the file's inode: such a frame lies anywhere in a block that belongs to
//! no span, with others perhaps.
//!
//! Two versions of a program differ in little; two frames of them differ in all that follows the
//! first difference. So an update is made of the content of frames ([`crate::pack`]), and where
//! groups of blocks end follows spans too ([`crate::bundle::cut`]).
//!
//! What is a frame is told from the blocks alone, without unpacking: the lengths of a frame's
//! blocks lead from its start to its end. Other bytes that look like one are taken for one by
//! everybody alike, and what comes of that is checked against a signed hash.
use alloc::vec;
use alloc::vec::Vec;

#[cfg(feature = "packer")]
pub mod packer;

/// First bytes of a frame.
const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();
const BLOCK: usize = 4096;
/// Most blocks of a span: as many as the largest group has.
const MOST_BLOCKS: u32 = crate::bundle::MAX_GROUP_BLOCKS;
/// Least bytes of a frame that is no span: to tell a shorter one takes more than it saves.
const LEAST_BYTES: usize = 64;

/// A row of blocks, in which spans are looked for one block at a time.
#[derive(Clone, Debug, Default)]
pub struct Walker {
    open: Option<Open>,
}

/// Where a walker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The block belongs to no span, or to none that has an end.
    Outside,
    /// A span goes on behind the block.
    Inside,
    /// A span ends with the block.
    End {
        /// How many bytes its frame says it unpacks to.
        content: usize,
    },
}

impl Walker {
    /// Takes the next block.
    pub fn put(&mut self, block: &[u8]) -> At {
        let (mut open, bytes) = match self.open.take() {
            Some(open) => (open, block),
            None => match Start::of(block) {
                Some(Start { content, behind, .. }) => {
                    (Open { content, ..Open::default() }, behind)
                }
                None => return At::Outside,
            },
        };
        open.blocks = open.blocks.saturating_add(1);
        match open.pass(bytes) {
            Passed::All if open.blocks < MOST_BLOCKS => {
                self.open = Some(open);
                At::Inside
            }
            Passed::Frame([]) => At::End { content: open.content },
            _ => At::Outside,
        }
    }
}

/// A frame, part of which was seen.
#[derive(Clone, Debug, Default)]
struct Open {
    content: usize,
    /// Blocks of the disk so far.
    blocks: u32,
    /// Bytes until the next header of a block of the frame, or until its end.
    skip: usize,
    /// What was seen of that header.
    header: [u8; 3],
    seen: usize,
    /// Whether no header follows.
    last: bool,
}

/// How far a frame went.
enum Passed<'a> {
    /// Behind all bytes.
    All,
    /// To its end, before these.
    Frame(&'a [u8]),
    /// It is none.
    None,
}

impl Open {
    fn pass<'a>(&mut self, mut bytes: &'a [u8]) -> Passed<'a> {
        loop {
            let (skipped, rest) = bytes.split_at(self.skip.min(bytes.len()));
            self.skip = self.skip.saturating_sub(skipped.len());
            bytes = rest;
            if self.last && self.skip == 0 {
                return Passed::Frame(bytes);
            }
            let Some((byte, rest)) = bytes.split_first() else { return Passed::All };
            if let Some(place) = self.header.get_mut(self.seen) {
                *place = *byte;
            }
            self.seen = self.seen.saturating_add(1);
            bytes = rest;
            if self.seen == self.header.len() && self.end_header().is_none() {
                return Passed::None;
            }
        }
    }

    /// Reads the header of a block of the frame; `None` for the type that is reserved.
    fn end_header(&mut self) -> Option<()> {
        let [low, middle, high] = self.header;
        let header = u32::from_le_bytes([low, middle, high, 0]);
        let length = usize::try_from(header >> 3).ok()?;
        self.skip = match (header >> 1) & 3 {
            0 | 2 => length,
            // One byte, many times.
            1 => 1,
            _ => return None,
        };
        self.last = header & 1 == 1;
        self.seen = 0;
        Some(())
    }
}

/// The start of a frame.
struct Start<'a> {
    /// Zeros before the frame.
    padding: usize,
    /// Bytes that the frame says it unpacks to.
    content: usize,
    /// What follows its header in the same block.
    behind: &'a [u8],
}

impl<'a> Start<'a> {
    /// With zeros before it.
    fn of(block: &'a [u8]) -> Option<Self> {
        let padding = block.iter().position(|byte| *byte != 0)?;
        Some(Self { padding, ..Self::at(block.get(padding..)?)? })
    }

    fn at(frame: &'a [u8]) -> Option<Self> {
        let rest = frame.strip_prefix(&MAGIC)?;
        let (descriptor, rest) = rest.split_first()?;
        // A checksum, a dictionary, or a bit that is reserved.
        if descriptor & 0b1111 != 0 {
            return None;
        }
        let single_segment = descriptor & 0b10_0000 != 0;
        // Else a byte tells the window.
        let rest = if single_segment { rest } else { rest.get(1..)? };
        let (content, behind) = match (descriptor >> 6, single_segment) {
            (0, false) => return None,
            (0, true) => number::<1>(rest, 0)?,
            (1, _) => number::<2>(rest, 256)?,
            (2, _) => number::<4>(rest, 0)?,
            _ => number::<8>(rest, 0)?,
        };
        Some(Self { padding: 0, content, behind })
    }
}

fn number<const N: usize>(bytes: &[u8], more: usize) -> Option<(usize, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<N>()?;
    let mut wide = [0; 8];
    wide.get_mut(..N)?.copy_from_slice(number);
    let number = usize::try_from(u64::from_le_bytes(wide)).ok()?;
    Some((number.checked_add(more)?, rest))
}

/// Part of a row of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run<'a> {
    /// Bytes as they are, all of one block or what its frames leave.
    Plain(&'a [u8]),
    /// What is packed: a span, or a frame within a block.
    Packed {
        /// Its bytes: zeros, fewer than a block, and the frame.
        stored: &'a [u8],
        /// The frame in them.
        frame: &'a [u8],
        /// How many bytes the frame says it unpacks to.
        content: usize,
    },
}

impl<'a> Run<'a> {
    /// Its bytes in the blocks.
    pub fn stored(&self) -> &'a [u8] {
        match self {
            Self::Plain(stored) | Self::Packed { stored, .. } => stored,
        }
    }

    /// Number of bytes that are in it, unpacked.
    pub fn content_bytes(&self) -> usize {
        match self {
            Self::Plain(stored) => stored.len(),
            Self::Packed { content, .. } => *content,
        }
    }
}

/// The runs of whole blocks, none of which is part of a span that started before.
pub fn runs(blocks: &[u8]) -> impl Iterator<Item = Run<'_>> {
    let mut rest = blocks;
    // Bytes of the first block that earlier runs had.
    let mut passed = 0_usize;
    core::iter::from_fn(move || {
        let run = if passed == 0 {
            first_run(rest)?
        } else {
            run_within(rest.get(..BLOCK.checked_sub(passed)?.min(rest.len()))?)
        };
        let (stored, behind) = rest.split_at_checked(run.stored().len())?;
        passed = passed.checked_add(stored.len())? % BLOCK;
        rest = behind;
        (!stored.is_empty()).then_some(run)
    })
}

fn first_run(rest: &[u8]) -> Option<Run<'_>> {
    let block = rest.chunks(BLOCK).next()?;
    let span = span_bytes(rest).and_then(|length| rest.get(..length)).zip(Start::of(block));
    Some(match span {
        Some((stored, Start { padding, content, .. })) => {
            Run::Packed { stored, frame: stored.get(padding..)?, content }
        }
        None => run_within(block),
    })
}

/// The first run of a block, or of what is left of it, if no span starts there.
fn run_within(bytes: &[u8]) -> Run<'_> {
    let mut at = 0_usize;
    while let Some((before, rest)) = next_magic(bytes, at) {
        match frame_within(rest) {
            Some(run) if before.is_empty() => return run,
            Some(_) => return Run::Plain(before),
            None => at = before.len().saturating_add(MAGIC.len()),
        }
    }
    Run::Plain(bytes)
}

/// Splits before the first magic from a place on.
fn next_magic(bytes: &[u8], from: usize) -> Option<(&[u8], &[u8])> {
    let found = bytes.get(from..)?.windows(MAGIC.len()).position(|four| four == MAGIC)?;
    bytes.split_at_checked(from.checked_add(found)?)
}

/// The frame that these bytes start with and that ends in them.
fn frame_within(bytes: &[u8]) -> Option<Run<'_>> {
    let Start { content, behind, .. } = Start::at(bytes)?;
    let Passed::Frame(rest) = Open::default().pass(behind) else { return None };
    let frame = bytes.get(..bytes.len().checked_sub(rest.len())?)?;
    (frame.len() >= LEAST_BYTES).then_some(Run::Packed { stored: frame, frame, content })
}

/// Length of the span that these blocks start with.
fn span_bytes(blocks: &[u8]) -> Option<usize> {
    let mut walker = Walker::default();
    let mut length = 0_usize;
    for block in blocks.chunks(BLOCK) {
        length = length.checked_add(block.len())?;
        match walker.put(block) {
            At::Inside => {}
            At::End { .. } => return Some(length),
            At::Outside => return None,
        }
    }
    None
}

/// Whether blocks hold frames and nothing else.
pub fn is_packed(blocks: &[u8]) -> bool {
    !blocks.is_empty() && runs(blocks).all(|run| matches!(run, Run::Packed { .. }))
}

/// Number of bytes that are in whole blocks, unpacked; `None` for more than can be counted.
pub fn content_bytes(blocks: &[u8]) -> Option<usize> {
    runs(blocks).try_fold(0_usize, |sum, run| sum.checked_add(run.content_bytes()))
}

/// Unpacks what is in whole blocks into `target`; the number of bytes that came out.
///
/// `decode` unpacks a frame into the room it is given, which it has to fill. `None` if it does
/// not, and if `target` has no room.
pub fn unpack(
    blocks: &[u8],
    target: &mut [u8],
    mut decode: impl FnMut(&[u8], &mut [u8]) -> Option<usize>,
) -> Option<usize> {
    let mut done = 0_usize;
    for run in runs(blocks) {
        let end = done.checked_add(run.content_bytes())?;
        let room = target.get_mut(done..end)?;
        match run {
            Run::Plain(stored) => room.copy_from_slice(stored),
            Run::Packed { frame, content, .. } => {
                decode(frame, room).filter(|length| *length == content)?;
            }
        }
        done = end;
    }
    Some(done)
}

/// What is in whole blocks, unpacked as by [`unpack`], if that is no more than `most` bytes.
pub fn content(
    blocks: &[u8],
    most: usize,
    decode: impl FnMut(&[u8], &mut [u8]) -> Option<usize>,
) -> Option<Vec<u8>> {
    let mut content = vec![0; content_bytes(blocks).filter(|length| *length <= most)?];
    unpack(blocks, &mut content, decode)?;
    Some(content)
}

/// Puts a frame at the end of these blocks, zeros before it; `None` if that makes no span of them.
pub fn place(frame: &[u8], blocks: &mut [u8]) -> Option<()> {
    let padding = blocks.len().checked_sub(frame.len()).filter(|padding| *padding < BLOCK)?;
    let (zeros, room) = blocks.split_at_mut(padding);
    zeros.fill(0);
    room.copy_from_slice(frame);
    Some(())
}

#[cfg(test)]
mod tests;
