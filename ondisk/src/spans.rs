//! Spans: whole blocks that hold one zstd frame, by which parts of a slot can be told that are
//! packed, and unpacked and packed again.
//!
//! ```text
//! 0     …   zeros, fewer than a block
//! …     …   one zstd frame (RFC 8878) that says how long its content is, without checksum and
//!           dictionary; it ends where the last block ends
//! ```
//! Clusters of EROFS packed with zstd are spans, and kernel and initrd are rows of them. Two
//! versions of a program differ in little; two frames of them differ in all that follows the first
//! difference. So an update is made of the content of spans ([`crate::pack`]), and where groups of
//! blocks end follows them too ([`crate::bundle::cut`]).
//!
//! What is a span is told from the blocks alone, without unpacking: the lengths of a frame's
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
        let at = open.pass(bytes);
        if at == At::Inside {
            if open.blocks >= MOST_BLOCKS {
                return At::Outside;
            }
            self.open = Some(open);
        }
        at
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

impl Open {
    fn pass(&mut self, mut bytes: &[u8]) -> At {
        loop {
            let (skipped, rest) = bytes.split_at(self.skip.min(bytes.len()));
            self.skip = self.skip.saturating_sub(skipped.len());
            bytes = rest;
            if self.last && self.skip == 0 {
                let end = At::End { content: self.content };
                return if bytes.is_empty() { end } else { At::Outside };
            }
            let Some((byte, rest)) = bytes.split_first() else { return At::Inside };
            if let Some(place) = self.header.get_mut(self.seen) {
                *place = *byte;
            }
            self.seen = self.seen.saturating_add(1);
            bytes = rest;
            if self.seen == self.header.len() && self.end_header().is_none() {
                return At::Outside;
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

/// The start of a span.
struct Start<'a> {
    /// Zeros before the frame.
    padding: usize,
    /// Bytes that the frame says it unpacks to.
    content: usize,
    /// What follows the header of the frame in the same block.
    behind: &'a [u8],
}

impl<'a> Start<'a> {
    fn of(block: &'a [u8]) -> Option<Self> {
        let padding = block.iter().position(|byte| *byte != 0)?;
        let rest = block.get(padding..)?.strip_prefix(&MAGIC)?;
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
        Some(Self { padding, content, behind })
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
    /// One block as it is.
    Block(&'a [u8]),
    /// A span.
    Span {
        /// Its blocks.
        blocks: &'a [u8],
        /// The frame in them.
        frame: &'a [u8],
        /// How many bytes the frame says it unpacks to.
        content: usize,
    },
}

impl<'a> Run<'a> {
    /// Its blocks.
    pub fn blocks(&self) -> &'a [u8] {
        match self {
            Self::Block(blocks) | Self::Span { blocks, .. } => blocks,
        }
    }

    /// Number of bytes that are in it, unpacked.
    pub fn content_bytes(&self) -> usize {
        match self {
            Self::Block(block) => block.len(),
            Self::Span { content, .. } => *content,
        }
    }
}

/// The runs of whole blocks, none of which is part of a span that started before.
pub fn runs(blocks: &[u8]) -> impl Iterator<Item = Run<'_>> {
    let mut rest = blocks;
    core::iter::from_fn(move || {
        let run = first_run(rest)?;
        rest = rest.get(run.blocks().len()..)?;
        Some(run)
    })
}

fn first_run(rest: &[u8]) -> Option<Run<'_>> {
    let block = rest.chunks(BLOCK).next()?;
    let span = span_bytes(rest).and_then(|length| rest.get(..length)).zip(Start::of(block));
    Some(match span {
        Some((blocks, Start { padding, content, .. })) => {
            Run::Span { blocks, frame: blocks.get(padding..)?, content }
        }
        None => Run::Block(block),
    })
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

/// Whether blocks are a row of spans and nothing else.
pub fn is_packed(blocks: &[u8]) -> bool {
    !blocks.is_empty() && runs(blocks).all(|run| matches!(run, Run::Span { .. }))
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
            Run::Block(block) => room.copy_from_slice(block),
            Run::Span { frame, content, .. } => {
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
