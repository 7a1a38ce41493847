//! LZ4 blocks, and the frame in which a slot has its kernel (`ondisk::lz4`), through the C library:
//! `lz4-sys` builds it but declares only part of it.
//!
//! The functions are those of `lz4.h` and `lz4hc.h` 1.10; all of them respect the lengths they
//! are given, keep nothing after they return, and are safe to call from several threads with
//! separate states.

use std::ffi::{c_char, c_int, c_void};

// Links the library.
use lz4_sys::LZ4_decompress_safe;
use ondisk::lz4;

unsafe extern "C" {
    fn LZ4_compress_destSize(
        source: *const c_char,
        target: *mut c_char,
        source_bytes: *mut c_int,
        target_bytes: c_int,
    ) -> c_int;
    fn LZ4_compress_HC_destSize(
        state: *mut c_void,
        source: *const c_char,
        target: *mut c_char,
        source_bytes: *mut c_int,
        target_bytes: c_int,
        level: c_int,
    ) -> c_int;
    fn LZ4_compress_HC(
        source: *const c_char,
        target: *mut c_char,
        source_bytes: c_int,
        target_bytes: c_int,
        level: c_int,
    ) -> c_int;
    fn LZ4_compressBound(source_bytes: c_int) -> c_int;
    fn LZ4_sizeofStateHC() -> c_int;
}

/// Farthest match of an LZ4 block.
pub(in crate::image) const DISTANCE_MAX: u16 = u16::MAX;

/// A compressor; the high one carries its tables from call to call to save the allocation.
pub(in crate::image) enum Lz4 {
    Fast,
    High { level: u8, state: Vec<u64> },
}

impl Lz4 {
    /// The high compressor for a level from 2 to 12.
    pub(in crate::image) fn high(level: u8) -> Self {
        // SAFETY: takes nothing, returns a constant.
        let bytes = unsafe { LZ4_sizeofStateHC() };
        let words = usize::try_from(bytes).unwrap_or(0).div_ceil(8);
        Self::High { level, state: vec![0; words] }
    }

    /// Compresses as much of the start of `source` as fits into `target`.
    ///
    /// Returns how many bytes were read and how many written; zero written means failure.
    pub(in crate::image) fn fill(&mut self, source: &[u8], target: &mut [u8]) -> (usize, usize) {
        let mut read = length(source.len());
        let room = length(target.len());
        let (from, to) = (source.as_ptr().cast(), target.as_mut_ptr().cast());
        let written = match self {
            // SAFETY: both pointers are valid for the lengths given with them; `length` never
            // gives more than the slice has.
            Self::Fast => unsafe { LZ4_compress_destSize(from, to, &mut read, room) },
            Self::High { level, state } => {
                let (state, level) = (state.as_mut_ptr().cast(), c_int::from(*level));
                // SAFETY: as above; the state has the size that the library asks for and the
                // alignment of u64, which is the strictest of its fields.
                unsafe { LZ4_compress_HC_destSize(state, from, to, &mut read, room, level) }
            }
        };
        (usize::try_from(read).unwrap_or(0), usize::try_from(written).unwrap_or(0))
    }
}

/// Compresses all of it with high effort (level 2 to 12) into one frame.
pub fn pack(bytes: &[u8], level: u8) -> Vec<u8> {
    let mut frame = lz4::MAGIC.to_vec();
    for source in bytes.chunks(lz4::BLOCK_BYTES) {
        let block = compress(source, level);
        let count = u32::try_from(block.len()).unwrap_or(u32::MAX);
        frame.extend_from_slice(&count.to_le_bytes());
        frame.extend_from_slice(&block);
    }
    frame
}

/// What a frame holds; `None` for more than `most` bytes, or what is no frame.
pub fn unpack(frame: &[u8], most: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; most];
    let count = lz4::unpack(frame, &mut bytes, decompress_some)?;
    bytes.truncate(count);
    Some(bytes)
}

/// One block. The room that it asks the library for is enough for whatever there is.
fn compress(source: &[u8], level: u8) -> Vec<u8> {
    let count = length(source.len());
    // SAFETY: takes a number, returns a number.
    let bound = unsafe { LZ4_compressBound(count) };
    let mut target = vec![0_u8; usize::try_from(bound).unwrap_or(0)];
    let (from, to) = (source.as_ptr().cast(), target.as_mut_ptr().cast());
    // SAFETY: both pointers are valid for the lengths given with them.
    let written = unsafe { LZ4_compress_HC(from, to, count, bound, c_int::from(level)) };
    target.truncate(usize::try_from(written).unwrap_or(0));
    target
}

/// Decompresses a whole block; `None` unless it gives exactly `target.len()` bytes.
pub(in crate::image) fn decompress(source: &[u8], target: &mut [u8]) -> Option<()> {
    let written = decompress_some(source, target)?;
    (written == target.len()).then_some(())
}

/// Decompresses a whole block; the number of bytes that it gives, if there is room for them.
fn decompress_some(source: &[u8], target: &mut [u8]) -> Option<usize> {
    let (from, to) = (source.as_ptr().cast(), target.as_mut_ptr().cast());
    // SAFETY: both pointers are valid for the lengths given; the function checks its input.
    let written =
        unsafe { LZ4_decompress_safe(from, to, length(source.len()), length(target.len())) };
    usize::try_from(written).ok()
}

fn length(bytes: usize) -> c_int {
    c_int::try_from(bytes).unwrap_or(c_int::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_room_is_filled_and_comes_back() {
        let source: Vec<u8> = (0..200_000_u32).flat_map(|n| (n / 3).to_le_bytes()).collect();
        for mut codec in [Lz4::Fast, Lz4::high(9), Lz4::high(12)] {
            let mut target = [0; 4096];
            let (read, written) = codec.fill(&source, &mut target);
            assert!(read > 4096 && read < source.len() && written > 4000, "{read} {written}");
            let mut back = vec![0; read];
            decompress(&target[..written], &mut back).unwrap();
            assert_eq!(back, source[..read]);
            assert_eq!(decompress(&target[..written], &mut back[1..]), None);
        }
    }

    #[test]
    fn a_frame_has_blocks_of_8_mib_and_comes_back() {
        let source: Vec<u8> = (0..2_200_000_u32).flat_map(|n| (n / 3).to_le_bytes()).collect();
        let frame = pack(&source, 9);
        assert_eq!(frame[..4], [0x02, 0x21, 0x4C, 0x18]);
        assert_eq!(unpack(&frame, source.len()).as_deref(), Some(source.as_slice()));
        assert_eq!(unpack(&frame, source.len() + 1).as_deref(), Some(source.as_slice()));
        assert_eq!(unpack(&frame, source.len() - 1), None);
        assert_eq!(unpack(&frame[..frame.len() - 1], source.len()), None);
        // Whoever changes these bytes changes every device's differences to the release before.
        let digest = ondisk::digest::Digest::of(&frame);
        let expected = "208b311ed46270a62b5809b10b0bbda23582f0b3f2c65428b34ab6d58e574808";
        assert_eq!((frame.len(), digest.to_string().as_str()), (2_936_181, expected));
    }
}
