//! The chunks of a bundle's stream: each is read whole and checked before anything else sees a byte
//! of it. After the last one the source has to end.
use std::io::Read;

use ondisk::bundle::Header;
use ondisk::digest::Digest;

use super::front::read_exact;
use super::{Cause, bytes_in_memory};

/// A source of a bundle's bytes.
///
/// How its chunks are read is the source's own matter: in turn with all else that is done, or
/// ahead of it by another thread.
pub trait Bytes: Read + Sized {
    /// What is left of the source.
    fn chunks(self, list: ChunkList) -> impl CheckedChunks {
        Chunks { source: self, list, number: 0 }
    }
}

impl Bytes for &[u8] {}
impl<T: AsRef<[u8]>> Bytes for std::io::Cursor<T> {}

/// Chunks in order, each checked.
pub trait CheckedChunks {
    /// The next chunk, `None` after the last one; not called again after either `None` or an
    /// error. It may be given in the memory of a chunk that is not needed any more.
    fn next_chunk(&mut self, spent: Vec<u8>) -> Result<Option<Vec<u8>>, ChunkError>;
}

/// What the chunks of a stream have to be.
#[derive(Clone, Debug)]
pub struct ChunkList {
    hashes: Vec<Digest>,
    /// Bytes of the stream that have not been read.
    rest: u64,
    chunk_bytes: u64,
}

impl ChunkList {
    /// Takes a verified header and the hashes of the index that it lists.
    pub(super) fn new(header: &Header, hashes: Vec<Digest>) -> Self {
        let fields = header.fields();
        Self::of(hashes, fields.stream_bytes, fields.chunk_bytes)
    }

    /// Chunks of `chunk_bytes`, the last one shorter, `stream_bytes` together.
    pub(crate) fn of(hashes: Vec<Digest>, stream_bytes: u64, chunk_bytes: u64) -> Self {
        Self { hashes, rest: stream_bytes, chunk_bytes }
    }
}

/// Why there is no next chunk.
#[derive(Debug)]
pub enum ChunkError {
    /// The source cannot be read.
    Source(std::io::Error),
    /// So many bytes of the stream are missing.
    Truncated(u64),
    /// This chunk, counted from 0, is not the one of the index.
    Chunk(usize),
    /// The source goes on after the stream.
    Trailing,
}

impl ChunkError {
    pub(super) fn cause<E>(self) -> Cause<E> {
        match self {
            Self::Source(error) => Cause::Source(error),
            Self::Truncated(missing) => Cause::Truncated(missing),
            Self::Chunk(number) => Cause::Chunk(number),
            Self::Trailing => Cause::Trailing,
        }
    }
}

/// Chunks that are read when they are asked for.
struct Chunks<S> {
    source: S,
    list: ChunkList,
    /// Number of the next chunk.
    number: usize,
}

impl<S: Read> Chunks<S> {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), ChunkError> {
        read_exact::<()>(&mut self.source, buffer).map_err(|cause| match cause {
            Cause::Source(error) => ChunkError::Source(error),
            // All of the stream that is missing, not only of this chunk.
            Cause::Truncated(missing) => ChunkError::Truncated(missing + self.list.rest),
            _ => ChunkError::Truncated(self.list.rest),
        })
    }
}

impl<S: Read> CheckedChunks for Chunks<S> {
    fn next_chunk(&mut self, mut chunk: Vec<u8>) -> Result<Option<Vec<u8>>, ChunkError> {
        let Some(hash) = self.list.hashes.get(self.number).copied() else {
            return match self.fill(&mut [0]) {
                Err(ChunkError::Truncated(_)) => Ok(None),
                Ok(()) => Err(ChunkError::Trailing),
                Err(error) => Err(error),
            };
        };
        let length = self.list.rest.min(self.list.chunk_bytes);
        self.list.rest -= length;
        chunk.resize(bytes_in_memory(length), 0);
        self.fill(&mut chunk)?;
        if Digest::of(&chunk) != hash {
            return Err(ChunkError::Chunk(self.number));
        }
        self.number += 1;
        Ok(Some(chunk))
    }
}
