//! Where an image goes: anything that takes bytes at an offset, written front to back in large
//! pieces; only the superblock comes last, so that an unfinished image has none.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::format::BLOCK_BYTES;
use crate::error::{Context, Error, Result};

/// Takes an image's bytes. Bytes never written are zeros.
pub trait ImageSink {
    /// Stores bytes at an offset from the image's start.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()>;
}

/// A file that holds the image from its first byte.
impl ImageSink for File {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.write_all_at(bytes, offset)
            .context(|| format!("cannot write {} bytes of the image at {offset}", bytes.len()))
    }
}

/// An image in memory, for tests.
impl ImageSink for Vec<u8> {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let start = usize::try_from(offset).context(|| "image does not fit in memory".into())?;
        let end = start + bytes.len();
        if self.len() < end {
            self.resize(end, 0);
        }
        self[start..end].copy_from_slice(bytes);
        Ok(())
    }
}

/// Keeps nothing: for callers that want only the report.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measure;

impl ImageSink for Measure {
    fn write_at(&mut self, _offset: u64, _bytes: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// Appends whole blocks to a sink, collecting small pieces into large writes.
pub(super) struct BlockWriter<'a, S: ImageSink> {
    sink: &'a mut S,
    /// Where the buffer's first byte belongs.
    flushed: u64,
    buffer: Vec<u8>,
}

/// Large enough that the number of system calls does not matter, small enough for any cache.
const BUFFER_BYTES: usize = 1 << 20;

/// From this length on bytes are written as they are: collecting them costs more than a call.
const DIRECT_BYTES: usize = 64 << 10;

impl<'a, S: ImageSink> BlockWriter<'a, S> {
    /// Starts after the first block, which the superblock takes at the end.
    pub(super) fn new(sink: &'a mut S) -> Self {
        let flushed = BLOCK_BYTES as u64;
        Self { sink, flushed, buffer: Vec::with_capacity(2 * BUFFER_BYTES) }
    }

    /// Adds bytes; until [`Self::pad`] they form one run.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.len() >= DIRECT_BYTES {
            self.flush()?;
            self.sink.write_at(self.flushed, bytes)?;
            self.flushed += bytes.len() as u64;
            return Ok(());
        }
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() < BUFFER_BYTES {
            return Ok(());
        }
        self.flush()
    }

    /// Fills the current block with zeros.
    pub(super) fn pad(&mut self) -> Result<()> {
        // Everything flushed may end inside a block: the whole position counts.
        let position = self.flushed + self.buffer.len() as u64;
        let missing = position.next_multiple_of(BLOCK_BYTES as u64) - position;
        let zeros = [0; BLOCK_BYTES];
        self.append(&zeros[..usize::try_from(missing).unwrap_or(0)])
    }

    /// Address of the next block; only meaningful when the current one is full.
    pub(super) fn next_block(&self) -> Result<u32> {
        let position = self.flushed + self.buffer.len() as u64;
        debug_assert_eq!(position % BLOCK_BYTES as u64, 0, "asked within a block");
        u32::try_from(position / BLOCK_BYTES as u64)
            .map_err(|_| Error::new("the image is larger than EROFS can address (16 TiB)"))
    }

    /// Writes what is left and then the first block.
    pub(super) fn finish(mut self, first_block: &[u8; BLOCK_BYTES]) -> Result<()> {
        self.flush()?;
        self.sink.write_at(0, first_block)
    }

    fn flush(&mut self) -> Result<()> {
        if !self.buffer.is_empty() {
            self.sink.write_at(self.flushed, &self.buffer)?;
            self.flushed += self.buffer.len() as u64;
            self.buffer.clear();
        }
        Ok(())
    }
}
