//! A compression as the user names it, checked and made ready.

use super::Compression;
use super::cluster::Codec;
use super::format::{Algorithm, BLOCK_BYTES};
use super::zstd::{Zstd, window_bits};
use crate::error::{Error, Result};
use crate::image::lz4::{self, Lz4};

/// Most bytes of a cluster that the kernel accepts.
const CLUSTER_BYTES_MAX: usize = 1 << 20;

/// How files are compressed. Holding one proves that level and cluster size are valid.
pub(super) struct Method {
    pub(super) algorithm: Algorithm,
    /// Most bytes of a cluster on disk.
    pub(super) cluster_bytes: usize,
    compression: Compression,
}

impl Method {
    /// `None` if nothing is to be compressed.
    pub(super) fn new(compression: Compression) -> Result<Option<Self>> {
        let (algorithm, cluster_bytes) = match compression {
            Compression::None => return Ok(None),
            Compression::Lz4 { cluster_bytes } => (Algorithm::LZ4, cluster_bytes),
            Compression::Lz4hc { level, cluster_bytes } => {
                check_level("lz4hc", i32::from(level), 2, 12)?;
                (Algorithm::LZ4, cluster_bytes)
            }
            Compression::Zstd { level, cluster_bytes } => {
                check_level("zstd", level, 1, 22)?;
                (Algorithm::ZSTD, cluster_bytes)
            }
        };
        let valid = (BLOCK_BYTES..=CLUSTER_BYTES_MAX).contains(&cluster_bytes)
            && cluster_bytes % BLOCK_BYTES == 0;
        if !valid {
            return Err(Error::new(format!(
                "EROFS cluster of {cluster_bytes} bytes: \
                 must be a multiple of {BLOCK_BYTES} up to {CLUSTER_BYTES_MAX}"
            )));
        }
        Ok(Some(Self { algorithm, cluster_bytes, compression }))
    }

    /// A compressor for one thread.
    pub(super) fn codec(&self) -> Result<Box<dyn Codec>> {
        Ok(match self.compression {
            Compression::Lz4hc { level, .. } => Box::new(Lz4::high(level)),
            Compression::Zstd { level, cluster_bytes } => {
                Box::new(Zstd::new(level, cluster_bytes)?)
            }
            Compression::None | Compression::Lz4 { .. } => Box::new(Lz4::Fast),
        })
    }

    /// The algorithm's record behind the superblock, its length in front.
    pub(super) fn config(&self) -> Vec<u8> {
        // Cluster size and window bits are small, as checked.
        if self.algorithm == Algorithm::ZSTD {
            let window = window_bits(self.cluster_bytes) - ZSTD_WINDOW_BITS_BASE;
            return vec![6, 0, 0, window as u8, 0, 0, 0, 0];
        }
        let mut record = vec![14, 0];
        record.extend(lz4::DISTANCE_MAX.to_le_bytes());
        record.extend(((self.cluster_bytes / BLOCK_BYTES) as u16).to_le_bytes());
        record.extend([0; 10]);
        record
    }
}

/// A window of this power of two is written as zero.
const ZSTD_WINDOW_BITS_BASE: u32 = 10;

fn check_level(name: &str, level: i32, least: i32, most: i32) -> Result<()> {
    if (least..=most).contains(&level) {
        return Ok(());
    }
    Err(Error::new(format!("{name} level {level}: must be from {least} to {most}")))
}
