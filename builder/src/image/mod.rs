//! Image writers: a finished tree or a list of files in, bytes of one format out.

pub mod bmap;
pub mod cpio;
pub mod erofs;
pub mod ext4;
pub mod fat;
pub mod fat_reader;
#[cfg(test)]
pub(crate) mod foreign;
pub mod lz4;
pub mod sparse;
pub mod unfinished;
pub mod verity;
pub mod zstd;
