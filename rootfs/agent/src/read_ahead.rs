//! A source that is read on while what came of it is still at work: a stick is slow, and so is
//! checking and writing; one after the other they would take the sum of both.

use std::io::{self, Read};
use std::mem;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread;

use crate::apply::{Bytes, CheckedChunks, ChunkError, ChunkList};

/// Bytes of a piece, and how many of them are read ahead: 2 MiB with those at either end.
const PIECE_BYTES: usize = 256 * 1024;
const PIECES: usize = 6;

/// The bytes of a source, in order, with its errors where they occurred.
///
/// The thread that reads ends with the source, or when nobody takes its pieces any more.
pub struct ReadAhead {
    pieces: Receiver<io::Result<Vec<u8>>>,
    /// Where memory goes back to: taking new one from the kernel costs as much as a copy.
    spent: Sender<Vec<u8>>,
    piece: Vec<u8>,
    /// Bytes of the piece that have been taken.
    taken: usize,
}

impl ReadAhead {
    /// Starts to read.
    pub fn new(source: impl Read + Send + 'static) -> Self {
        let (sender, pieces) = mpsc::sync_channel(PIECES);
        let (spent, memory) = mpsc::channel();
        thread::spawn(move || read_all(source, &sender, &memory));
        Self { pieces, spent, piece: Vec::new(), taken: 0 }
    }

    /// Takes the next piece, if there is one.
    fn advance(&mut self) -> io::Result<()> {
        // The thread has ended: so has the source.
        let Ok(next) = self.pieces.recv() else { return Ok(()) };
        // Nobody needs it after the end.
        let _ = self.spent.send(mem::replace(&mut self.piece, next?));
        self.taken = 0;
        Ok(())
    }
}

/// Sends what there is, up to the end or an error.
fn read_all(
    mut source: impl Read,
    to: &SyncSender<io::Result<Vec<u8>>>,
    memory: &Receiver<Vec<u8>>,
) {
    loop {
        let mut piece = memory.try_recv().unwrap_or_default();
        piece.resize(PIECE_BYTES, 0);
        let read = match source.read(&mut piece) {
            Ok(0) => return,
            Ok(length) => {
                piece.truncate(length);
                Ok(piece)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let is_last = read.is_err();
        if to.send(read).is_err() || is_last {
            return;
        }
    }
}

impl Read for ReadAhead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.piece.len() {
            self.advance()?;
        }
        let left = self.piece.get(self.taken..).unwrap_or_default();
        let count = left.len().min(buffer.len());
        buffer[..count].copy_from_slice(&left[..count]);
        self.taken += count;
        Ok(count)
    }
}

/// Chunks that were checked and wait; one more is being checked and one is being unpacked.
const CHUNKS: usize = 1;

/// Checking a chunk takes as long as all that is done with it later, so another thread does it.
impl Bytes for ReadAhead {
    fn chunks(self, list: ChunkList) -> impl CheckedChunks {
        let (sender, chunks) = mpsc::sync_channel(CHUNKS);
        let (spent, memory) = mpsc::channel();
        thread::spawn(move || check_all(InTurn(self).chunks(list), &sender, &memory));
        Ahead { chunks, spent }
    }
}

/// Sends the chunks, up to the end or an error.
fn check_all(
    mut chunks: impl CheckedChunks,
    to: &SyncSender<Result<Option<Vec<u8>>, ChunkError>>,
    memory: &Receiver<Vec<u8>>,
) {
    loop {
        let chunk = chunks.next_chunk(memory.try_recv().unwrap_or_default());
        let is_last = !matches!(chunk, Ok(Some(_)));
        if to.send(chunk).is_err() || is_last {
            return;
        }
    }
}

/// Chunks that another thread has checked.
struct Ahead {
    chunks: Receiver<Result<Option<Vec<u8>>, ChunkError>>,
    spent: Sender<Vec<u8>>,
}

impl CheckedChunks for Ahead {
    fn next_chunk(&mut self, spent: Vec<u8>) -> Result<Option<Vec<u8>>, ChunkError> {
        // Nobody needs it after the end.
        let _ = self.spent.send(spent);
        // Without its last word, that thread was stopped by a defect of ours.
        let gone = |_| Err(ChunkError::Source(io::ErrorKind::BrokenPipe.into()));
        self.chunks.recv().unwrap_or_else(gone)
    }
}

/// The same bytes, with the chunks read when they are asked for.
struct InTurn(ReadAhead);

impl Read for InTurn {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Bytes for InTurn {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a few bytes at a time, then an error or the end.
    struct Slow {
        left: Vec<u8>,
        fails: bool,
    }

    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.left.is_empty() && self.fails {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let count = self.left.len().min(buffer.len()).min(100_000);
            buffer[..count].copy_from_slice(&self.left[..count]);
            self.left.drain(..count);
            Ok(count)
        }
    }

    #[test]
    fn all_bytes_come_in_order_and_then_the_end() {
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
        let mut ahead = ReadAhead::new(Slow { left: bytes.clone(), fails: false });
        let mut found = Vec::new();
        ahead.read_to_end(&mut found).unwrap();
        assert!(found == bytes);
        assert_eq!(ahead.read(&mut [0; 8]).unwrap(), 0, "the end stays the end");
    }

    #[test]
    fn an_error_comes_after_the_bytes_before_it() {
        let mut ahead = ReadAhead::new(Slow { left: vec![7; 150_000], fails: true });
        let mut found = vec![0; 150_000];
        ahead.read_exact(&mut found).unwrap();
        assert!(found.iter().all(|byte| *byte == 7));
        assert_eq!(ahead.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_source_that_nobody_reads_on_is_left() {
        struct Endless(mpsc::Sender<()>);
        impl Read for Endless {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let _ = self.0.send(());
                Ok(buffer.len())
            }
        }
        let (sender, reads) = mpsc::channel();
        let mut ahead = ReadAhead::new(Endless(sender));
        ahead.read_exact(&mut [0; 1000]).unwrap();
        drop(ahead);
        // Ends when the thread drops the source, and not before.
        assert!(reads.iter().count() >= 1);
    }

    /// Three chunks and their list; `last` is how the third one ends.
    fn three_chunks(last: u8) -> (Vec<u8>, ChunkList) {
        let mut bytes = vec![1; 250_000];
        let hashes = bytes.chunks(100_000).map(ondisk::digest::Digest::of).collect();
        let list = ChunkList::of(hashes, 250_000, 100_000);
        *bytes.last_mut().unwrap() = last;
        (bytes, list)
    }

    #[test]
    fn chunks_that_are_checked_ahead_come_in_order_with_their_errors_and_reuse_memory() {
        let (bytes, list) = three_chunks(1);
        let mut ahead = ReadAhead::new(io::Cursor::new(bytes)).chunks(list);
        let (mut lengths, mut spent) = (Vec::new(), Vec::new());
        while let Some(chunk) = ahead.next_chunk(spent).unwrap() {
            lengths.push(chunk.len());
            spent = chunk;
        }
        assert_eq!(lengths, [100_000, 100_000, 50_000]);

        let (bytes, list) = three_chunks(2);
        let mut ahead = ReadAhead::new(io::Cursor::new(bytes)).chunks(list);
        for _ in 0..2 {
            assert_eq!(ahead.next_chunk(Vec::new()).unwrap().unwrap().len(), 100_000);
        }
        assert!(matches!(ahead.next_chunk(Vec::new()), Err(ChunkError::Chunk(2))));
    }

    #[test]
    fn what_follows_the_last_chunk_is_told() {
        let (mut bytes, list) = three_chunks(1);
        bytes.push(0);
        let mut ahead = ReadAhead::new(io::Cursor::new(bytes)).chunks(list);
        let told = (0..4).map(|_| ahead.next_chunk(Vec::new())).last().unwrap();
        assert!(matches!(told, Err(ChunkError::Trailing)));
    }
}
