//! EROFS images: the read-only root file system of a slot.
//!
//! [`write`] turns a finished [`Tree`] into an image; the same tree and options give the same
//! bytes, on any machine and with any number of threads. Format: the kernel's
//! `Documentation/filesystems/erofs.rst`, `fs/erofs/erofs_fs.h` and the project's on-disk
//! documents. Read by every kernel from 6.1 on (zstd: 6.10).
//!
//! ```text
//!   block 0     superblock, configuration of the compression algorithms
//!   1 …         data of the files, in path order, each file's blocks in one run
//!   …           blocks of directories that are larger than what fits beside their inode
//!   … end       metadata: shared attributes, then the inodes in path order, each with its
//!               attributes, index and the rest of its data
//! ```
//!
//! Data comes first, so that one pass over the contents suffices although the length of the
//! metadata depends on how well they compress. Metadata lie together: finding a file at boot
//! reads few, neighbouring blocks.
//!
//! Reading order: `format` (structures) → `plan` (tree → inodes) → `body` (data) → `place`
//! (metadata) → `image` (all of it, in order).

mod body;
mod cluster;
mod content;
mod dump;
mod format;
mod image;
mod index;
mod method;
mod ordered;
mod place;
mod plan;
mod reader;
mod sink;
mod store;
#[cfg(test)]
mod tests;
mod xattr;
mod zstd;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use image::write;
pub use reader::{DirectoryEntry, Extent, Image, ImageSource, Inode, Storage};
pub use sink::{ImageSink, Measure};

use crate::tree::TreePath;

/// How an image is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// How file contents are stored.
    pub compression: Compression,
    /// Identity of the file system; derived from the build's inputs by the caller.
    pub uuid: [u8; 16],
    /// Time of every inode, in seconds since 1970.
    pub build_time_s: u64,
    /// At most 16 bytes.
    pub volume_label: String,
}

/// How file contents are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compression {
    /// As they are.
    None,
    /// LZ4, fast to make.
    Lz4 {
        /// Most compressed bytes of a cluster: what one page fault may read.
        cluster_bytes: usize,
    },
    /// LZ4 made with more effort; read like [`Compression::Lz4`].
    Lz4hc {
        /// From 2 to 12.
        level: u8,
        /// As in [`Compression::Lz4`].
        cluster_bytes: usize,
    },
    /// Zstandard: smaller, slower to read.
    Zstd {
        /// From 1 to 22.
        level: i32,
        /// As in [`Compression::Lz4`].
        cluster_bytes: usize,
    },
}

/// What an image came to hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// Length of the image; a multiple of 4096.
    pub length_bytes: u64,
    /// Number of inodes.
    pub inodes: u64,
    /// Sum of the lengths of all files, each hard link and each copy counted once.
    pub content_bytes: u64,
    /// Bytes of the image spent on file data in blocks of its own.
    pub data_bytes: u64,
    /// Bytes of the image spent on inodes, attributes, indexes, directories and short data.
    pub metadata_bytes: u64,
    /// Bytes of the image by who brought the files: data and metadata.
    pub by_origin: BTreeMap<Arc<str>, u64>,
    /// Where the data of files with blocks of their own landed.
    pub files: Vec<StoredFile>,
}

/// Where a file's blocks are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredFile {
    /// The file.
    pub path: TreePath,
    /// First byte of its run of blocks in the image.
    pub offset: u64,
    /// Length of the run.
    pub length_bytes: u64,
}
