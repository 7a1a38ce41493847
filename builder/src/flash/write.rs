//! The order in which a card is written: [the module above](super) draws it.
//!
//! Guarantees, whatever write, read or flush is the last one that works: the card is as it was, or
//! its first sector says that it is incomplete, or it holds the whole image and that was read back.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use ondisk::device::WriteAt;
use ondisk::layout::SECTOR_BYTES;
use sha2::{Digest, Sha256};

use super::changes::Changes;
use super::source::{Reader, Stretch};
use super::{HEAD_BYTES, MARKER};
use crate::error::{Error, Result};
use crate::host::parallel;
use crate::image::sparse::Ranges;

/// Bytes of one write: as much as an erase block of common cards, so that none is written twice.
const CHUNK: u64 = 4 << 20;
/// Where a write that goes around the page cache may start in memory and on the target.
pub const ALIGNMENT: usize = 4096;
/// Chunks on their way from the image to the card.
const IN_FLIGHT: usize = 3;
/// What a backup of a GUID partition table takes at the end of a disk.
const BACKUP_BYTES: u64 = 33 * SECTOR_BYTES;
const SECTOR: usize = SECTOR_BYTES as usize;

/// Where the bytes of an image come from, in ascending order.
pub trait Feed: Send {
    /// Fills `buffer` with the bytes of the image from `offset` on.
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<()>;

    /// Checks that the image ends at `length`.
    fn finish(&mut self, length: u64) -> Result<()>;
}

impl Feed for Reader {
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        Reader::read(self, offset, buffer)
    }

    fn finish(&mut self, length: u64) -> Result<()> {
        Reader::finish(self, length)
    }
}

/// What to write.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The target, in words.
    pub name: &'a str,
    /// What the image holds, ascending.
    pub stretches: &'a [Stretch],
    /// Length of the image.
    pub image_bytes: u64,
    /// What goes on top of it.
    pub changes: &'a Changes,
}

/// Who looks on.
pub struct Watch<'a> {
    /// Set to end the work; the card stays incomplete.
    pub cancel: &'a AtomicBool,
    /// Told of bytes that were written.
    pub written: &'a (dyn Fn(u64) + Sync),
    /// Told of bytes that were read back.
    pub checked: &'a (dyn Fn(u64) + Sync),
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// Bytes of the image that were written.
    pub image_bytes: u64,
    /// SHA-256 of these bytes, one behind the other, as the image has them.
    pub image_sha256: [u8; 32],
}

/// How the work ended, if nothing failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The card is whole.
    Complete(Done),
    /// Somebody ended it early.
    Cancelled,
}

/// A target that can be read from several threads.
pub trait Card: WriteAt<Error = io::Error> + Sync {}

impl<T: WriteAt<Error = io::Error> + Sync> Card for T {}

/// Number of bytes that [`write`] writes, to measure progress by.
pub fn bytes_to_write(job: &Job<'_>, card_bytes: u64) -> u64 {
    pieces(job, card_bytes).iter().map(|piece| piece.range.end - piece.range.start).sum()
}

/// Writes the card, reads it back, and makes it whole with the last write.
///
/// Errors: the image cannot be read or does not fit its block map; the card cannot be written or
/// read, or does not keep what was written. The card is incomplete then and says so.
pub fn write(
    card: &mut impl Card,
    feed: &mut dyn Feed,
    job: &Job<'_>,
    watch: &Watch<'_>,
) -> Result<End> {
    let pieces = pieces(job, card.size());
    mark(card, job)?;
    let Some(body) = write_body(card, feed, job, &pieces, watch)? else {
        return Ok(End::Cancelled);
    };
    if !body_reads_back(card, job, &body.checks, watch)? {
        return Ok(End::Cancelled);
    }
    if let Err(error) = write_head(card, job, &body.head) {
        // Whole or not, it is not known to be: then it has to say so, if it still listens.
        let _ = mark(card, job);
        return Err(error);
    }
    (watch.written)(body.head_bytes);
    (watch.checked)(body.head_bytes);
    Ok(End::Complete(body.done))
}

/// A run of bytes to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    range: Range<u64>,
    /// False for what lies outside of the image's data and is all change.
    of_image: bool,
    sha256: Option<[u8; 32]>,
}

/// The image's data and the changes around it, ascending.
fn pieces(job: &Job<'_>, card_bytes: u64) -> Vec<Piece> {
    let image = job.stretches.iter().map(|stretch| Piece {
        range: stretch.range.clone(),
        of_image: true,
        sha256: stretch.sha256,
    });
    let covered: Ranges = job.stretches.iter().map(|stretch| stretch.range.clone()).collect();
    let mut pieces: Vec<Piece> = image.collect();
    for range in job.changes.ranges(card_bytes).iter() {
        let mut start = range.start;
        while start < range.end {
            let end = covered.edge_after(start).unwrap_or(range.end).min(range.end);
            if !covered.contains(start) {
                pieces.push(Piece { range: start..end, of_image: false, sha256: None });
            }
            start = end;
        }
    }
    pieces.sort_by_key(|piece| piece.range.start);
    pieces
}

/// Makes sure that nothing takes the card for what it was or will be.
fn mark(card: &mut impl Card, job: &Job<'_>) -> Result<()> {
    let mut sector = [0; SECTOR];
    sector[..MARKER.len()].copy_from_slice(MARKER.as_bytes());
    sector[MARKER.len()] = b'\n';
    put(card, job, 0, &sector)?;
    flush(card, job)?;
    let size = card.size();
    let head = vec![0; length(HEAD_BYTES.min(size) - SECTOR_BYTES)];
    put(card, job, SECTOR_BYTES, &head)?;
    let backup = size.saturating_sub(BACKUP_BYTES).max(HEAD_BYTES)..size;
    if !backup.is_empty() {
        put(card, job, backup.start, &vec![0; length(backup.end - backup.start)])?;
    }
    flush(card, job)
}

/// What is known once everything but the head is written.
struct Body {
    /// The first bytes of the card, which are not there yet.
    head: Vec<u8>,
    /// How many of them had to be written.
    head_bytes: u64,
    checks: Vec<Check>,
    done: Done,
}

/// What a run of bytes has to hash to when it is read back.
struct Check {
    range: Range<u64>,
    sha256: [u8; 32],
}

/// Bytes for the card, in a buffer that starts where the target wants it.
struct Chunk {
    offset: u64,
    buffer: Buffer,
    count: usize,
}

/// Reads on one thread and writes on another, so that neither waits for the other's device; `None`
/// if it was cancelled.
fn write_body(
    card: &mut impl Card,
    feed: &mut dyn Feed,
    job: &Job<'_>,
    pieces: &[Piece],
    watch: &Watch<'_>,
) -> Result<Option<Body>> {
    let head = vec![0; length(HEAD_BYTES.min(card.size()))];
    thread::scope(|scope| {
        let (to_write, chunks) = sync_channel(IN_FLIGHT);
        let (give_back, free) = sync_channel(IN_FLIGHT + 1);
        for _ in 0..=IN_FLIGHT {
            let _ = give_back.send(Buffer::new());
        }
        let mut preparation = Preparation::new(feed, job, head, to_write, free);
        let prepared = scope.spawn(move || {
            preparation.run(pieces)?;
            Ok(preparation.body())
        });
        let written = write_chunks(card, job, &chunks, &give_back, watch);
        // Whoever still reads the image hears that nobody writes it.
        drop((chunks, give_back));
        let body: Result<Option<Body>> =
            prepared.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (written?, body?) {
            (true, Some(body)) => flush(card, job).map(|()| Some(body)),
            _ => Ok(None),
        }
    })
}

/// Returns false if it was cancelled.
fn write_chunks(
    card: &mut impl Card,
    job: &Job<'_>,
    chunks: &Receiver<Chunk>,
    give_back: &SyncSender<Buffer>,
    watch: &Watch<'_>,
) -> Result<bool> {
    for chunk in chunks {
        if watch.cancel.load(Ordering::Relaxed) {
            return Ok(false);
        }
        put(card, job, chunk.offset, &chunk.buffer.bytes()[..chunk.count])?;
        (watch.written)(chunk.count as u64);
        // The reader may be done.
        let _ = give_back.send(chunk.buffer);
    }
    Ok(!watch.cancel.load(Ordering::Relaxed))
}

/// Reads the image, hashes it, and puts the changes on top.
struct Preparation<'a> {
    feed: &'a mut dyn Feed,
    job: &'a Job<'a>,
    head: Vec<u8>,
    head_bytes: u64,
    checks: Vec<Check>,
    all: Sha256,
    image_bytes: u64,
    to_write: SyncSender<Chunk>,
    free: Receiver<Buffer>,
    /// A buffer that did not have to go to the writer.
    spare: Option<Buffer>,
    /// The writer has gone away.
    abandoned: bool,
}

impl<'a> Preparation<'a> {
    fn new(
        feed: &'a mut dyn Feed,
        job: &'a Job<'a>,
        head: Vec<u8>,
        to_write: SyncSender<Chunk>,
        free: Receiver<Buffer>,
    ) -> Self {
        Self {
            feed,
            job,
            head,
            head_bytes: 0,
            checks: Vec::new(),
            all: Sha256::new(),
            image_bytes: 0,
            to_write,
            free,
            spare: None,
            abandoned: false,
        }
    }

    fn run(&mut self, pieces: &[Piece]) -> Result<()> {
        for piece in pieces {
            self.piece(piece)?;
            if self.abandoned {
                return Ok(());
            }
        }
        self.feed.finish(self.job.image_bytes)
    }

    fn body(self) -> Option<Body> {
        let Self { head, head_bytes, checks, all, image_bytes, abandoned, .. } = self;
        let done = Done { image_bytes, image_sha256: all.finalize().into() };
        (!abandoned).then_some(Body { head, head_bytes, checks, done })
    }

    fn piece(&mut self, piece: &Piece) -> Result<()> {
        let Range { start, end } = piece.range.clone();
        let changed = start < HEAD_BYTES || self.job.changes.touch(&piece.range);
        let (mut of_image, mut of_card) = (Sha256::new(), Sha256::new());
        let mut position = start;
        while position < end {
            let Some(mut buffer) = self.spare.take().or_else(|| self.free.recv().ok()) else {
                self.abandoned = true;
                return Ok(());
            };
            let next = end_of_chunk(position, end);
            let count = length(next - position);
            let bytes = &mut buffer.bytes_mut()[..count];
            if piece.of_image {
                self.feed.read(position, bytes)?;
                of_image.update(&*bytes);
                self.all.update(&*bytes);
                self.image_bytes += next - position;
            } else {
                bytes.fill(0);
            }
            if changed {
                self.job.changes.apply(position, bytes);
                if position >= HEAD_BYTES {
                    of_card.update(&*bytes);
                }
            }
            self.hand_over(position, count, buffer);
            position = next;
        }
        let of_image: [u8; 32] = of_image.finalize().into();
        if piece.sha256.is_some_and(|wanted| wanted != of_image) {
            return Err(damaged(&piece.range));
        }
        let range = start.max(HEAD_BYTES)..end;
        if !range.is_empty() {
            let sha256 = if changed { of_card.finalize().into() } else { of_image };
            self.checks.push(Check { range, sha256 });
        }
        Ok(())
    }

    /// The head is kept for the end, everything else is for the card.
    fn hand_over(&mut self, offset: u64, count: usize, buffer: Buffer) {
        if offset < HEAD_BYTES {
            let start = length(offset);
            self.head[start..start + count].copy_from_slice(&buffer.bytes()[..count]);
            self.head_bytes += count as u64;
            self.spare = Some(buffer);
        } else {
            self.abandoned |= self.to_write.send(Chunk { offset, buffer, count }).is_err();
        }
    }
}

/// A chunk ends at a multiple of its length, and with the head.
fn end_of_chunk(position: u64, end: u64) -> u64 {
    let next = (position / CHUNK + 1) * CHUNK;
    let next = if position < HEAD_BYTES { HEAD_BYTES } else { next };
    next.min(end)
}

fn damaged(range: &Range<u64>) -> Error {
    let Range { start, end } = range;
    Error::new(format!("the image does not fit its block map from byte {start} to {end}"))
        .hint("fetch or build it again; if it was changed on purpose, remove the .bmap beside it")
}

/// Reads back everything but the head; returns false if it was cancelled.
fn body_reads_back(
    card: &impl Card,
    job: &Job<'_>,
    checks: &[Check],
    watch: &Watch<'_>,
) -> Result<bool> {
    let workers = parallel::processors().min(2);
    let results = parallel::map(checks, workers, |check| check_one(card, job, check, watch))?;
    Ok(results.into_iter().all(|done| done))
}

fn check_one(card: &impl Card, job: &Job<'_>, check: &Check, watch: &Watch<'_>) -> Result<bool> {
    let mut hasher = Sha256::new();
    let mut buffer = Buffer::new();
    let mut position = check.range.start;
    while position < check.range.end {
        if watch.cancel.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let next = end_of_chunk(position, check.range.end);
        let bytes = &mut buffer.bytes_mut()[..length(next - position)];
        get(card, job, position, bytes)?;
        hasher.update(&*bytes);
        (watch.checked)(next - position);
        position = next;
    }
    let found: [u8; 32] = hasher.finalize().into();
    if found == check.sha256 { Ok(true) } else { Err(changed_on_card(job, &check.range)) }
}

/// The step that makes the card whole: one sector, alone, after a flush.
fn write_head(card: &mut impl Card, job: &Job<'_>, head: &[u8]) -> Result<()> {
    let (first, rest) = head.split_at(SECTOR);
    put(card, job, SECTOR_BYTES, rest)?;
    flush(card, job)?;
    put(card, job, 0, first)?;
    flush(card, job)?;
    let mut buffer = Buffer::new();
    let found = &mut buffer.bytes_mut()[..head.len()];
    get(card, job, 0, found)?;
    if found == head { Ok(()) } else { Err(changed_on_card(job, &(0..head.len() as u64))) }
}

fn changed_on_card(job: &Job<'_>, range: &Range<u64>) -> Error {
    let (name, Range { start, end }) = (job.name, range);
    Error::new(format!("{name} does not hold what was written from byte {start} to {end}"))
        .hint("the card is worn out, or smaller than it says: take another")
}

fn put(card: &mut impl Card, job: &Job<'_>, offset: u64, bytes: &[u8]) -> Result<()> {
    card.write_at(offset, bytes).map_err(|error| {
        let count = bytes.len();
        failed(format!("cannot write {count} bytes at {offset} of {}", job.name), error)
    })
}

fn get(card: &impl Card, job: &Job<'_>, offset: u64, bytes: &mut [u8]) -> Result<()> {
    let count = bytes.len();
    card.read_at(offset, bytes).map_err(|error| {
        failed(format!("cannot read back {count} bytes at {offset} of {}", job.name), error)
    })
}

fn flush(card: &mut impl Card, job: &Job<'_>) -> Result<()> {
    card.flush().map_err(|error| failed(format!("cannot flush {}", job.name), error))
}

fn failed(message: String, error: io::Error) -> Error {
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let hint = if full {
        "free some disk space, or name a file elsewhere"
    } else {
        "it may have been pulled out, or the card or its reader is failing: try another"
    };
    Error::caused(message, error).hint(hint)
}

/// [`CHUNK`] bytes that start at a multiple of [`ALIGNMENT`], as direct I/O asks for.
struct Buffer {
    bytes: Vec<u8>,
    start: usize,
}

impl Buffer {
    fn new() -> Self {
        let bytes = vec![0; length(CHUNK) + ALIGNMENT];
        // The vector never grows, so its bytes never move.
        let start = bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Self { bytes, start }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.start + length(CHUNK)]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + length(CHUNK)]
    }
}

/// A distance within a buffer, which fits into memory.
fn length(distance: u64) -> usize {
    usize::try_from(distance).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
