//! Kernel and initrd of a slot, unpacked: of LZ4 or of spans of zstd, as the first bytes say.

use lz4_flex::block::decompress_into;
use ondisk::{lz4, spans};
use ruzstd::decoding::FrameDecoder;

/// Unpacks into `kernel`; the number of bytes that came out. `None` for more than it has room for,
/// and for what is no frame that we can unpack.
pub fn unpack(packed: &[u8], kernel: &mut [u8]) -> Option<usize> {
    if lz4::is_frame(packed) {
        lz4::unpack(packed, kernel, |block, room| decompress_into(block, room).ok())
    } else if spans::is_packed(packed) {
        let mut decoder = FrameDecoder::new();
        spans::unpack(packed, kernel, |frame, room| decoder.decode_all(frame, room).ok())
    } else {
        None
    }
}
