//! Makes the frames of spans: the builder does it first, a device again.
//!
//! libzstd gives the same bytes for the same version, settings and input on every machine, and may
//! give others in another version ([`version`]).
use alloc::vec::Vec;

use zstd_safe::{CCtx, CParameter, compress_bound, get_error_name};

/// Window of a frame, as a power of two: what the kernel keeps room for when it reads clusters of
/// 64 KiB.
pub const WINDOW_BITS: u32 = 19;

/// Version of libzstd: 10507 is 1.5.7.
pub fn version() -> u32 {
    zstd_safe::version_number()
}

/// A compressor of a level from 1 to 22 that makes frames of spans; else why there is none.
pub fn compressor(level: i32, window_bits: u32) -> Result<CCtx<'static>, &'static str> {
    let mut context = CCtx::try_create().ok_or("no memory")?;
    let parameters = [
        CParameter::CompressionLevel(level),
        CParameter::WindowLog(window_bits),
        // Spans are told by it, and fsck.erofs wants it.
        CParameter::ContentSizeFlag(true),
        // It would only repeat verity.
        CParameter::ChecksumFlag(false),
    ];
    for parameter in parameters {
        context.set_parameter(parameter).map_err(get_error_name)?;
    }
    Ok(context)
}

/// Packs a content, as any other device does; `None` if the library fails.
///
/// Each frame has a compressor of its own: at some levels one that was used before finds other
/// matches.
pub fn pack(level: u8, content: &[u8]) -> Option<Vec<u8>> {
    let mut context = compressor(i32::from(level), WINDOW_BITS).ok()?;
    let mut frame = Vec::with_capacity(compress_bound(content.len()));
    context.compress2(&mut frame, content).ok()?;
    Some(frame)
}
