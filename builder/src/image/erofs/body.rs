//! What follows an inode, and the uncompressed ways to store a file's data.

use super::content::Reader;
use super::format::{BLOCK_BYTES, CHUNK_BYTES, HOLE, Layout};
use super::sink::{BlockWriter, ImageSink};
use crate::error::Result;
use crate::tree::Content;

/// Where an inode's data is: blocks written earlier and bytes that stand beside the inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Body {
    pub(super) layout: Layout,
    /// The inode's `i_u`.
    pub(super) union: u32,
    /// First of the data blocks.
    pub(super) first_block: u32,
    /// Data blocks that belong to this inode alone.
    pub(super) blocks: u32,
    /// A chunk map or cluster index, after the attributes.
    pub(super) map: Vec<u8>,
    /// The end of the data, after the map.
    pub(super) tail: Vec<u8>,
}

impl Body {
    /// No data: devices (with their number), pipes and empty files.
    pub(super) fn empty(union: u32) -> Self {
        let (map, tail) = (Vec::new(), Vec::new());
        Self { layout: Layout::FlatPlain, union, first_block: 0, blocks: 0, map, tail }
    }

    /// The same data for another inode; the blocks belong to the first.
    pub(super) fn copy(&self) -> Self {
        Self { blocks: 0, ..self.clone() }
    }
}

/// Stores bytes as they are: whole blocks, and the rest beside the inode if it fits there.
///
/// `head_bytes` is the length of inode and attributes, which share a block with the rest. A file
/// with whole chunks of zeros becomes a chunk map, in which those take no blocks.
pub(super) fn store_plain<S: ImageSink>(
    content: &Content,
    head_bytes: usize,
    reader: &mut Reader,
    out: &mut BlockWriter<S>,
) -> Result<Body> {
    let length = content.length();
    if length == 0 {
        return Ok(Body::empty(0));
    }
    let first_block = out.next_block()?;
    let mut chunks = Vec::new();
    let mut tail = Vec::new();
    reader.pieces(content, |piece| {
        // Chunks between two holes are written at once: copying them together would cost as much
        // as the kernel's own copy.
        let is_hole = |chunk: &[u8]| chunk.len() >= BLOCK_BYTES && is_zero(chunk);
        let all: Vec<&[u8]> = piece.chunks(CHUNK_BYTES).collect();
        let mut start = 0;
        for run in all.chunk_by(|one, next| is_hole(one) == is_hole(next)) {
            let run_bytes: usize = run.iter().map(|chunk| chunk.len()).sum();
            let bytes = &piece[start..][..run_bytes];
            start += run_bytes;
            if is_hole(run[0]) {
                chunks.extend(run.iter().map(|_| HOLE));
                continue;
            }
            let first = out.next_block()?;
            chunks.extend((first..).step_by(CHUNK_BYTES / BLOCK_BYTES).take(run.len()));
            // Only the file's last chunk has a rest.
            let (blocks, end) = bytes.split_at(bytes.len() - bytes.len() % BLOCK_BYTES);
            out.append(blocks)?;
            tail = end.to_vec();
        }
        Ok(())
    })?;
    let sparse = chunks.contains(&HOLE);
    if sparse || head_bytes + tail.len() > BLOCK_BYTES {
        out.append(&tail)?;
        out.pad()?;
        tail.clear();
    }
    let blocks = out.next_block()? - first_block;
    if sparse {
        let map = chunks.iter().flat_map(|block| block.to_le_bytes()).collect();
        let union = super::format::CHUNK_BLOCK_BITS;
        return Ok(Body { layout: Layout::Chunked, union, first_block, blocks, map, tail });
    }
    let layout = if tail.is_empty() { Layout::FlatPlain } else { Layout::FlatInline };
    let union = if blocks == 0 { 0 } else { first_block };
    Ok(Body { layout, union, first_block, blocks, map: Vec::new(), tail })
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(bytes: Vec<u8>, head_bytes: usize) -> (Body, usize) {
        let mut image = Vec::new();
        let mut out = BlockWriter::new(&mut image);
        let content = Content::bytes(bytes);
        let body = store_plain(&content, head_bytes, &mut Reader::default(), &mut out).unwrap();
        out.finish(&[0; BLOCK_BYTES]).unwrap();
        (body, image.len() / BLOCK_BYTES - 1)
    }

    #[test]
    fn a_rest_stands_beside_the_inode_only_if_it_fits() {
        let (body, blocks) = store(vec![1; 5000], 32);
        assert_eq!((body.layout, body.tail.len(), blocks), (Layout::FlatInline, 904, 1));
        let (body, blocks) = store(vec![1; 4096 + 4064], 32);
        assert_eq!((body.layout, body.tail.len(), blocks), (Layout::FlatInline, 4064, 1));
        let (body, blocks) = store(vec![1; 4096 + 4065], 32);
        assert_eq!((body.layout, body.tail.len(), blocks), (Layout::FlatPlain, 0, 2));
    }

    #[test]
    fn whole_chunks_of_zeros_take_no_blocks() {
        let mut bytes = vec![0; 3 * CHUNK_BYTES + 10];
        bytes[CHUNK_BYTES] = 1;
        let (body, blocks) = store(bytes, 32);
        assert_eq!((body.layout, blocks), (Layout::Chunked, 17));
        let expected: Vec<u8> = [HOLE, 1, HOLE, 17].iter().flat_map(|b| b.to_le_bytes()).collect();
        assert_eq!(body.map, expected);
    }
}
