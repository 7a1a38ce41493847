//! The frame in which a slot has its kernel and initrd when they are packed with LZ4: the "legacy
//! frame" of LZ4's frame format, which Linux unpacks an initrd from.
//!
//! ```text
//! 0     4   0x184C2102, little-endian
//! 4     …   blocks: length u32, little-endian, then so many bytes
//! ```
//! Each block is packed on its own and unpacks to 8 MiB, the last one to what is left. There is no
//! end mark and no checksum: length and hash of a part are in the signed manifest.

/// First bytes of a frame.
pub const MAGIC: [u8; 4] = 0x184C_2102_u32.to_le_bytes();
/// What a block unpacks to, but the last one.
pub const BLOCK_BYTES: usize = 8 * 1024 * 1024;

/// Whether this is a frame, by its first bytes.
pub fn is_frame(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// Unpacks a frame into `target`; the number of bytes that came out.
///
/// `decode` unpacks one block into the room it is given and says how many bytes came out; whatever
/// it says, `target` is not left. `None` for what is no frame, for a block that `decode` refuses,
/// and if there is no room.
pub fn unpack(
    frame: &[u8],
    target: &mut [u8],
    mut decode: impl FnMut(&[u8], &mut [u8]) -> Option<usize>,
) -> Option<usize> {
    let mut rest = frame.strip_prefix(&MAGIC)?;
    let mut done = 0_usize;
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (block, left) = after.split_at_checked(length)?;
        let room = target.get_mut(done..)?;
        let most = room.len().min(BLOCK_BYTES);
        let count = decode(block, room.get_mut(..most)?)?;
        if count > most || (count < BLOCK_BYTES && !left.is_empty()) {
            return None;
        }
        done = done.checked_add(count)?;
        rest = left;
    }
    Some(done)
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;

    /// A frame of these blocks.
    fn frame(blocks: &[&[u8]]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for block in blocks {
            bytes.extend_from_slice(&u32::try_from(block.len()).unwrap().to_le_bytes());
            bytes.extend_from_slice(block);
        }
        bytes
    }

    /// Blocks of tests say how many times their second byte comes out: `[n]` MiB of it.
    fn repeat(block: &[u8], target: &mut [u8]) -> Option<usize> {
        let [count, byte] = block else { return None };
        let count = usize::from(*count) << 20;
        target.get_mut(..count)?.fill(*byte);
        Some(count)
    }

    #[test]
    fn blocks_come_out_one_after_the_other() {
        let mut target = vec![0; 18 << 20];
        let packed = frame(&[&[8, 1], &[8, 2], &[2, 3]]);
        assert!(is_frame(&packed));
        assert_eq!(unpack(&packed, &mut target, repeat), Some(18 << 20));
        let at = |mib: usize| target[mib << 20];
        assert_eq!([at(0), at(7), at(8), at(15), at(16), at(17)], [1, 1, 2, 2, 3, 3]);
        assert_eq!(unpack(&frame(&[]), &mut target, repeat), Some(0));
        assert_eq!(unpack(&frame(&[&[3, 1]]), &mut target, repeat), Some(3 << 20));
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let mut target = vec![0; 9 << 20];
        let mut check = |bytes: &[u8]| {
            assert_eq!(unpack(bytes, &mut target, repeat), None, "{bytes:?}");
        };
        let good = frame(&[&[8, 1], &[1, 2]]);
        check(b"");
        check(&[0x28, 0xB5, 0x2F, 0xFD]);
        check(&good[..good.len() - 1]);
        check(&good[..6]);
        check(&[good.as_slice(), &[0, 0]].concat());
        // A block that is short has no other one behind it.
        check(&frame(&[&[7, 1], &[1, 2]]));
        // More than there is room for, and more than a block holds.
        check(&frame(&[&[8, 1], &[2, 2]]));
        check(&frame(&[&[9, 1]]));
        check(&frame(&[&[1]]));
    }

    #[test]
    fn a_decoder_that_says_too_much_is_not_believed() {
        let mut target = vec![0; 10];
        let packed = frame(&[&[1]]);
        assert_eq!(unpack(&packed, &mut target, |_, _| Some(11)), None);
        assert_eq!(unpack(&packed, &mut target, |_, _| Some(10)), Some(10));
    }
}
