//! The stream of a bundle: checked chunks, and what they unpack to.
//!
//! Memory: one chunk (at most 1 MiB), the decoder's window (at most 8 MiB and a quarter) and one
//! group of blocks (at most 256 KiB).
use std::mem;

use ondisk::bundle::{Group, Header, MAX_GROUP_BLOCKS};
use ondisk::device::ReadAt;
use ondisk::layout::BLOCK_BYTES;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use ruzstd::io as zstd_io;
// Under another name: the decoder has its own trait where it is built without `std`.
use ruzstd::io::Read as DecoderRead;

use super::chunks::{CheckedChunks, ChunkError};
use super::{Cause, Groups, bytes_in_memory};

/// What the stream unpacks to.
pub struct Unpacked<C: CheckedChunks> {
    decoder: StreamingDecoder<Packed<C>, FrameDecoder>,
    group: Vec<u8>,
}

impl<C: CheckedChunks> Unpacked<C> {
    /// Reads the first chunk and prepares the decoder.
    pub fn new<E>(chunks: C, header: &Header) -> Result<Self, Cause<E>> {
        let mut packed =
            Packed { chunks, chunk: Vec::new(), position: 0, ended: false, failure: None };
        // Before the decoder asks, so that a wrong first chunk is told as what it is.
        if let Err(failure) = packed.next_chunk() {
            return Err(failure.cause());
        }
        let window = header.fields().window_bytes;
        let decoder = StreamingDecoder::new_with_max_window_size(packed, window)
            .map_err(|error| Cause::Unpack(error.to_string()))?;
        let group = vec![0; bytes_in_memory(u64::from(MAX_GROUP_BLOCKS) * BLOCK_BYTES)];
        Ok(Self { decoder, group })
    }

    /// What stopped the decoder: the source's own trouble, if there was any.
    fn cause<E>(&mut self, error: &zstd_io::Error) -> Cause<E> {
        match self.decoder.get_mut().failure.take() {
            Some(failure) => failure.cause(),
            None => Cause::Unpack(error.to_string()),
        }
    }
}

impl<C: CheckedChunks> Groups for Unpacked<C> {
    fn next<D: ReadAt>(&mut self, _: &D, group: &Group) -> Result<&[u8], Cause<D::Error>> {
        let length = bytes_in_memory(group.bytes()).min(self.group.len());
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

    fn finish<E>(mut self) -> Result<(), Cause<E>> {
        match DecoderRead::read(&mut self.decoder, &mut [0]) {
            Ok(0) => {}
            Ok(_) => return Err(Cause::UnpackedLength("unpacks to too many bytes")),
            Err(error) => return Err(self.cause(&error)),
        }
        let mut packed = self.decoder.into_inner();
        if packed.position < packed.chunk.len() {
            return Err(Cause::UnpackedLength("goes on after its end"));
        }
        match packed.next_chunk() {
            Ok(()) if packed.chunk.is_empty() => Ok(()),
            Ok(()) => Err(Cause::UnpackedLength("goes on after its end")),
            Err(failure) => Err(failure.cause()),
        }
    }
}

/// The chunks, one after the other, as the decoder wants them.
struct Packed<C> {
    chunks: C,
    chunk: Vec<u8>,
    position: usize,
    ended: bool,
    /// What the decoder's own errors have no room for.
    failure: Option<ChunkError>,
}

impl<C: CheckedChunks> Packed<C> {
    /// Takes the next chunk, an empty one at the end.
    fn next_chunk(&mut self) -> Result<(), ChunkError> {
        let spent = mem::take(&mut self.chunk);
        self.position = 0;
        if !self.ended {
            match self.chunks.next_chunk(spent)? {
                Some(chunk) => self.chunk = chunk,
                None => self.ended = true,
            }
        }
        Ok(())
    }
}

impl<C: CheckedChunks> DecoderRead for Packed<C> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, zstd_io::Error> {
        if self.failure.is_none() && self.position == self.chunk.len() {
            self.failure = self.next_chunk().err();
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
