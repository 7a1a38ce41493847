//! The kernel of a slot, unpacked: of LZ4 or zstd, as its first bytes say.

use lz4_flex::block::decompress_into;
use ondisk::lz4;
use ruzstd::decoding::FrameDecoder;

/// Unpacks into `kernel`; the number of bytes that came out. `None` for more than it has room for,
/// and for what is no frame that we can unpack.
pub fn unpack(packed: &[u8], kernel: &mut [u8]) -> Option<usize> {
    if lz4::is_frame(packed) {
        lz4::unpack(packed, kernel, |block, room| decompress_into(block, room).ok())
    } else {
        FrameDecoder::new().decode_all(packed, kernel).ok()
    }
}
