//! LZ4 into a given room, through the C library: `lz4-sys` builds it but declares only part of it.
//!
//! The functions are those of `lz4.h` and `lz4hc.h` 1.10; all of them respect the lengths they
//! are given, keep nothing after they return, and are safe to call from several threads with
//! separate states.

use std::ffi::{c_char, c_int, c_void};

// Links the library.
use lz4_sys::LZ4_decompress_safe;

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
    fn LZ4_sizeofStateHC() -> c_int;
}

/// Farthest match of an LZ4 block.
pub(super) const DISTANCE_MAX: u16 = u16::MAX;

/// A compressor; the high one carries its tables from call to call to save the allocation.
pub(super) enum Lz4 {
    Fast,
    High { level: u8, state: Vec<u64> },
}

impl Lz4 {
    /// The high compressor for a level from 2 to 12.
    pub(super) fn high(level: u8) -> Self {
        // SAFETY: takes nothing, returns a constant.
        let bytes = unsafe { LZ4_sizeofStateHC() };
        let words = usize::try_from(bytes).unwrap_or(0).div_ceil(8);
        Self::High { level, state: vec![0; words] }
    }

    /// Compresses as much of the start of `source` as fits into `target`.
    ///
    /// Returns how many bytes were read and how many written; zero written means failure.
    pub(super) fn fill(&mut self, source: &[u8], target: &mut [u8]) -> (usize, usize) {
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

/// Decompresses a whole block; `None` unless it gives exactly `target.len()` bytes.
pub(super) fn decompress(source: &[u8], target: &mut [u8]) -> Option<()> {
    let (from, to) = (source.as_ptr().cast(), target.as_mut_ptr().cast());
    // SAFETY: both pointers are valid for the lengths given; the function checks its input.
    let written =
        unsafe { LZ4_decompress_safe(from, to, length(source.len()), length(target.len())) };
    (usize::try_from(written) == Ok(target.len())).then_some(())
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
}
