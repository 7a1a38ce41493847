//! How kernel and initrd are packed in a slot: the loader unpacks the one, the kernel the other.
//! Both tell how from the first bytes.

use crate::error::{Context, Result};
use crate::image::lz4;

/// A way to pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// LZ4 with high effort: what changed between two versions stays a small change.
    Lz4 {
        /// From 2 to 12.
        level: u8,
    },
    /// One zstd frame that says how long its content is: fewest bytes.
    Zstd {
        /// libzstd's.
        level: i32,
    },
}

impl Packing {
    /// Packs; the same bytes each time.
    pub fn pack(self, bytes: &[u8]) -> Result<Vec<u8>> {
        match self {
            Self::Lz4 { level } => Ok(lz4::pack(bytes, level)),
            Self::Zstd { level } => zstd::bulk::compress(bytes, level)
                .context(|| format!("cannot compress {} bytes", bytes.len())),
        }
    }

    /// Names of files in the cache end in it.
    pub fn suffix(self) -> String {
        match self {
            Self::Lz4 { level } => format!("{level}.lz4"),
            Self::Zstd { level } => format!("{level}.zst"),
        }
    }
}

/// Unpacks what was packed in any way; `None` for more than `most` bytes, or for something else.
pub fn unpack(packed: &[u8], most: usize) -> Option<Vec<u8>> {
    if ondisk::lz4::is_frame(packed) {
        lz4::unpack(packed, most)
    } else {
        zstd::bulk::decompress(packed, most).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_in_any_way_comes_back() {
        let bytes = b"an initrd or a kernel ".repeat(1000);
        for packing in [Packing::Lz4 { level: 9 }, Packing::Zstd { level: 3 }] {
            let packed = packing.pack(&bytes).unwrap();
            assert!(packed.len() < bytes.len() / 10);
            assert_eq!(unpack(&packed, bytes.len()), Some(bytes.clone()), "{packing:?}");
            assert_eq!(unpack(&packed, bytes.len() - 1), None, "{packing:?}");
        }
        assert_eq!(unpack(b"neither of them", 100), None);
    }
}
