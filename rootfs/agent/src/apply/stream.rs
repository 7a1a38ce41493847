//! The stream of a bundle: chunks that are checked before the decoder sees one byte of them, and
//! what they unpack to.
//!
//! Memory: one chunk (at most 1 MiB), the decoder's window (at most 8 MiB and a quarter) and one
//! group of blocks (at most 256 KiB).
use std::io::Read;

use ondisk::bundle::{Header, MAX_GROUP_BLOCKS};
use ondisk::digest::Digest;
use ondisk::layout::BLOCK_BYTES;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use ruzstd::io as zstd_io;
// Under another name: the decoder has its own trait where it is built without `std`.
use ruzstd::io::Read as DecoderRead;

use super::front::read_exact;
use super::{Cause, bytes_in_memory};

/// What the stream unpacks to.
pub(super) struct Unpacked<'a, S: Read> {
    decoder: StreamingDecoder<Chunks<'a, S>, FrameDecoder>,
    group: Vec<u8>,
}

impl<'a, S: Read> Unpacked<'a, S> {
    /// Reads the first chunk and prepares the decoder.
    pub(super) fn new<E>(
        source: S,
        header: &Header,
        hashes: &'a [Digest],
    ) -> Result<Self, Cause<E>> {
        let fields = header.fields();
        let mut chunks = Chunks {
            source,
            hashes: hashes.iter().enumerate(),
            rest: fields.stream_bytes,
            chunk_bytes: fields.chunk_bytes,
            chunk: Vec::new(),
            position: 0,
            failure: None,
        };
        // Before the decoder asks, so that a wrong first chunk is told as what it is.
        if let Err(failure) = chunks.next_chunk() {
            return Err(failure.cause());
        }
        let decoder = StreamingDecoder::new_with_max_window_size(chunks, fields.window_bytes)
            .map_err(|error| Cause::Unpack(error.to_string()))?;
        let group = vec![0; bytes_in_memory(u64::from(MAX_GROUP_BLOCKS) * BLOCK_BYTES)];
        Ok(Self { decoder, group })
    }

    /// The next `bytes` bytes; at most those of the largest group.
    pub(super) fn next<E>(&mut self, bytes: u64) -> Result<&[u8], Cause<E>> {
        let length = bytes_in_memory(bytes).min(self.group.len());
        let mut filled = 0;
        while filled < length {
            match DecoderRead::read(&mut self.decoder, &mut self.group[filled..length]) {
                Ok(0) => return Err(Cause::UnpackedLength("unpacks to too few bytes")),
                Ok(count) => filled += count,
                Err(error) => return Err(self.cause(&error)),
            }
        }
        Ok(&self.group[..length])
    }

    /// Whether stream and source end here.
    pub(super) fn finish<E>(mut self) -> Result<(), Cause<E>> {
        match DecoderRead::read(&mut self.decoder, &mut [0]) {
            Ok(0) => {}
            Ok(_) => return Err(Cause::UnpackedLength("unpacks to too many bytes")),
            Err(error) => return Err(self.cause(&error)),
        }
        let mut chunks = self.decoder.into_inner();
        if chunks.rest > 0 || chunks.position < chunks.chunk.len() {
            return Err(Cause::UnpackedLength("goes on after its end"));
        }
        match read_exact(&mut chunks.source, &mut [0]) {
            Err(Cause::Truncated(_)) => Ok(()),
            Ok(()) => Err(Cause::Trailing),
            Err(error) => Err(error),
        }
    }

    /// What stopped the decoder: the source's own trouble, if there was any.
    fn cause<E>(&mut self, error: &zstd_io::Error) -> Cause<E> {
        match self.decoder.get_mut().failure.take() {
            Some(failure) => failure.cause(),
            None => Cause::Unpack(error.to_string()),
        }
    }
}

/// The chunks of a stream; each is checked when it has been read.
struct Chunks<'a, S> {
    source: S,
    hashes: std::iter::Enumerate<std::slice::Iter<'a, Digest>>,
    /// Bytes of the stream that have not been read.
    rest: u64,
    chunk_bytes: u64,
    chunk: Vec<u8>,
    position: usize,
    /// What the decoder's own errors have no room for.
    failure: Option<Failure>,
}

enum Failure {
    Source(std::io::Error),
    Truncated(u64),
    Chunk(usize),
}

impl Failure {
    fn cause<E>(self) -> Cause<E> {
        match self {
            Self::Source(error) => Cause::Source(error),
            Self::Truncated(missing) => Cause::Truncated(missing),
            Self::Chunk(number) => Cause::Chunk(number),
        }
    }
}

impl<S: Read> Chunks<'_, S> {
    fn next_chunk(&mut self) -> Result<(), Failure> {
        let length = self.rest.min(self.chunk_bytes);
        self.position = 0;
        self.chunk.resize(bytes_in_memory(length), 0);
        let read = read_exact::<()>(&mut self.source, &mut self.chunk);
        self.rest -= length;
        read.map_err(|cause| match cause {
            Cause::Source(error) => Failure::Source(error),
            // All of the stream that is missing, not only of this chunk.
            Cause::Truncated(missing) => Failure::Truncated(missing + self.rest),
            _ => Failure::Truncated(self.rest),
        })?;
        match self.hashes.next() {
            Some((_, hash)) if Digest::of(&self.chunk) == *hash => Ok(()),
            Some((number, _)) => Err(Failure::Chunk(number)),
            // An Index has as many hashes as its header's stream has chunks.
            None => Err(Failure::Truncated(self.rest)),
        }
    }
}

impl<S: Read> DecoderRead for Chunks<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, zstd_io::Error> {
        let more = self.position == self.chunk.len() && self.rest > 0;
        if more && let Err(failure) = self.next_chunk() {
            self.chunk.clear();
            self.rest = 0;
            self.failure = Some(failure);
        }
        if self.failure.is_some() {
            return Err(zstd_io::Error::from(zstd_io::ErrorKind::Other));
        }
        let left = &self.chunk[self.position..];
        let count = left.len().min(buffer.len());
        buffer[..count].copy_from_slice(&left[..count]);
        self.position += count;
        Ok(count)
    }
}
