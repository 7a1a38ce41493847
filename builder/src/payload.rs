//! How kernel and initrd are packed in a slot. Both tell how from the first bytes.

use ondisk::layout::BLOCK_BYTES;
use ondisk::spans::{self, Run, packer};

use crate::error::{Error, Result};
use crate::host::parallel;
use crate::image::lz4;

/// A way to pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// LZ4 with high effort: quick to unpack.
    Lz4 {
        /// From 2 to 12.
        level: u8,
    },
    /// Spans of zstd: fewest bytes, and what changed between two versions can be told in their
    /// content.
    Spans {
        /// libzstd's.
        level: u8,
    },
}

/// The levels at which anything in a slot is packed: whoever makes differences looks for the one
/// that gives the same bytes again.
pub const LEVELS: [u8; 3] = [3, 9, 19];

/// What one span holds: larger ones save little, and a device that makes one of another holds both
/// in memory.
const SPAN_CONTENT_BYTES: usize = 256 * 1024;

impl Packing {
    /// Packs; the same bytes each time.
    pub fn pack(self, bytes: &[u8]) -> Result<Vec<u8>> {
        match self {
            Self::Lz4 { level } => Ok(lz4::pack(bytes, level)),
            Self::Spans { level } => {
                let contents: Vec<&[u8]> = bytes.chunks(SPAN_CONTENT_BYTES).collect();
                let spans = parallel::map(&contents, parallel::processors(), |content| {
                    let failed = || Error::new(format!("cannot compress {} bytes", content.len()));
                    pack_spans(content, level).ok_or_else(failed)
                })?;
                Ok(spans.concat())
            }
        }
    }

    /// Names of files in the cache end in it.
    pub fn suffix(self) -> String {
        match self {
            Self::Lz4 { level } => format!("{level}.lz4"),
            Self::Spans { level } => format!("{level}.spans"),
        }
    }
}

/// A span of this content, or two of its halves where the start of the frame would fall between
/// two blocks, which nobody would find. `None` if the library fails.
fn pack_spans(content: &[u8], level: u8) -> Option<Vec<u8>> {
    let frame = packer::pack(level, content)?;
    let mut blocks = vec![0; frame.len().next_multiple_of(BLOCK_BYTES as usize)];
    spans::place(&frame, &mut blocks)?;
    let first = spans::runs(&blocks).next()?;
    if matches!(first, Run::Packed { .. }) && first.stored().len() == blocks.len() {
        return Some(blocks);
    }
    let half = content.len() / 2;
    let (first, second) = content.split_at_checked(half).filter(|_| half > 0)?;
    Some([pack_spans(first, level)?, pack_spans(second, level)?].concat())
}

/// Unpacks what was packed in any way; `None` for more than `most` bytes, or for something else.
pub fn unpack(packed: &[u8], most: usize) -> Option<Vec<u8>> {
    if ondisk::lz4::is_frame(packed) {
        lz4::unpack(packed, most)
    } else if spans::is_packed(packed) {
        spans::content(packed, most, decode)
    } else {
        None
    }
}

/// Unpacks a frame of a span.
pub fn decode(frame: &[u8], room: &mut [u8]) -> Option<usize> {
    zstd::bulk::decompress_to_buffer(frame, room).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::tests::noise;

    #[test]
    fn what_is_packed_in_any_way_comes_back() {
        // A span is a block at least, so it has to be a longer text.
        let short = b"an initrd or a kernel ".repeat(10_000);
        let long: Vec<u8> = noise(1, 1_000_001).iter().map(|byte| byte & 0x0F).collect();
        for packing in [Packing::Lz4 { level: 9 }, Packing::Spans { level: 3 }] {
            for (bytes, most) in [(&short, short.len() / 10), (&long, long.len())] {
                let packed = packing.pack(bytes).unwrap();
                assert!(packed.len() < most, "{packing:?}");
                assert_eq!(unpack(&packed, bytes.len()).as_ref(), Some(bytes), "{packing:?}");
                assert_eq!(unpack(&packed, bytes.len() - 1), None, "{packing:?}");
            }
        }
        assert_eq!(unpack(b"neither of them", 100), None);
    }

    #[test]
    fn spans_of_every_length_are_found_again() {
        let mut bytes = Vec::new();
        for number in 0..6000_u32 {
            bytes.extend(number.wrapping_mul(2_654_435_761).to_le_bytes());
        }
        // Somewhere among them a frame is a few bytes longer than whole blocks.
        for length in (8000..bytes.len()).step_by(3) {
            let packed = pack_spans(&bytes[..length], 1).unwrap();
            assert!(spans::runs(&packed).all(|run| matches!(run, Run::Packed { .. })), "{length}");
            assert_eq!(unpack(&packed, length).as_deref(), Some(&bytes[..length]));
        }
    }
}
