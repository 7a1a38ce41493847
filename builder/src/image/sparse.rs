//! Sparse images that know what they hold.
//!
//! Guarantees: an image appears complete or not at all ([`Unfinished`]); a block counts as mapped
//! when something other than zeros was written into it, or when its zeros are declared to matter.
//! That does not depend on what the file system below calls a hole, so the list is the same on
//! every machine.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result};
use crate::image::unfinished::with_room_hint;
pub use crate::image::unfinished::{Unfinished, discard_unfinished};

/// The unit of mapping: a whole block is written or a hole.
pub const BLOCK: u64 = 4096;

/// Bytes copied by one system call; large enough that the call itself costs nothing.
const COPY_CHUNK: usize = 1 << 20;

static ZEROS: [u8; BLOCK as usize] = [0; BLOCK as usize];

/// Sorted, disjoint, merged ranges of bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Vec<Range<u64>>);

impl Ranges {
    /// Adds a range; merges it with those it touches.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let first = self.0.partition_point(|present| present.end < range.start);
        let last = self.0.partition_point(|present| present.start <= range.end);
        let merged = self.0[first..last].iter().fold(range, |merged, present| {
            merged.start.min(present.start)..merged.end.max(present.end)
        });
        self.0.splice(first..last, [merged]);
    }

    /// True if the byte lies in one of the ranges.
    pub fn contains(&self, offset: u64) -> bool {
        let next = self.0.partition_point(|present| present.end <= offset);
        self.0.get(next).is_some_and(|present| present.start <= offset)
    }

    /// Where the next range starts or ends behind an offset.
    pub fn edge_after(&self, offset: u64) -> Option<u64> {
        let next = self.0.partition_point(|present| present.end <= offset);
        self.0.get(next).map(|range| if offset < range.start { range.start } else { range.end })
    }

    /// The ranges in order.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.iter().cloned()
    }

    /// Number of bytes in all ranges.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|range| range.end - range.start).sum()
    }

    /// Number of separate ranges.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True without any range.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Range<u64>> for Ranges {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Self {
        let mut all = Self::default();
        ranges.into_iter().for_each(|range| all.insert(range));
        all
    }
}

/// A complete sparse image on disk: where it is, how long, and which bytes are not holes.
#[derive(Clone, Debug)]
pub struct SparseImage {
    /// The file.
    pub path: PathBuf,
    /// Its length, holes included.
    pub length: u64,
    /// What holds data: whole blocks, but for the last one of a file of odd length.
    pub mapped: Ranges,
}

impl SparseImage {
    /// Takes an image that was not written by this process as the file system describes it,
    /// in whole blocks.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = || format!("cannot read {}", path.display());
        let file = File::open(path).context(failed)?;
        let length = file.metadata().context(failed)?.len();
        let found = data_ranges(&file, 0..length).context(failed)?;
        let whole = |range: Range<u64>| {
            range.start / BLOCK * BLOCK..range.end.next_multiple_of(BLOCK).min(length)
        };
        let mapped = found.iter().map(whole).collect();
        Ok(Self { path: path.to_owned(), length, mapped })
    }
}

/// An unfinished image of a fixed length that holds only what was written into it.
#[derive(Debug)]
pub struct Sparse {
    output: Unfinished,
    length: u64,
    mapped: Ranges,
}

impl Sparse {
    /// Creates an image of `length` bytes that is one hole.
    pub fn create(target: &Path, length: u64) -> Result<Self> {
        let output = Unfinished::create(target)?;
        output
            .file()
            .set_len(length)
            .context(|| format!("cannot make {} {length} bytes long", target.display()))?;
        Ok(Self { output, length, mapped: Ranges::default() })
    }

    /// The image's length.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// What has been written so far, in whole blocks.
    pub fn mapped(&self) -> &Ranges {
        &self.mapped
    }

    /// The unfinished file, for reading back what was written.
    pub fn file(&self) -> &File {
        self.output.file()
    }

    /// The name the image gets when it is complete.
    pub fn target(&self) -> &Path {
        self.output.target()
    }

    /// Writes bytes at an offset. Zero blocks where nothing was written stay holes.
    pub fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let end = self.check_range(offset, bytes.len() as u64)?;
        let mut position = offset;
        let mut run_start = offset;
        while position < end {
            let next = ((position / BLOCK + 1) * BLOCK).min(end);
            let piece = &bytes[to_index(position - offset)..to_index(next - offset)];
            if is_zero(piece) && !self.mapped.contains(position) {
                self.write_run(run_start..position, offset, bytes)?;
                run_start = next;
            }
            position = next;
        }
        self.write_run(run_start..end, offset, bytes)
    }

    fn write_run(&mut self, run: Range<u64>, offset: u64, bytes: &[u8]) -> Result<()> {
        if run.is_empty() {
            return Ok(());
        }
        let piece = &bytes[to_index(run.start - offset)..to_index(run.end - offset)];
        self.output.file().write_all_at(piece, run.start).map_err(|error| {
            let name = self.output.target().display();
            let message = format!("cannot write {} bytes at {} of {name}", piece.len(), run.start);
            with_room_hint(message, error)
        })?;
        self.mark(run);
        Ok(())
    }

    fn mark(&mut self, written: Range<u64>) {
        let start = written.start / BLOCK * BLOCK;
        let end = written.end.next_multiple_of(BLOCK).min(self.length);
        self.mapped.insert(start..end);
    }

    fn check_range(&self, offset: u64, length: u64) -> Result<u64> {
        offset.checked_add(length).filter(|end| *end <= self.length).ok_or_else(|| {
            Error::new(format!(
                "{length} bytes at {offset} do not fit in {}, which is {} bytes long",
                self.output.target().display(),
                self.length
            ))
        })
    }

    /// Makes a range part of what the image holds even where it is zeros, because somebody reads
    /// them: on a card that was in use before, what is not mapped is whatever was there.
    pub fn keep_zeros(&mut self, range: Range<u64>) -> Result<()> {
        self.check_range(range.start, range.end.saturating_sub(range.start))?;
        self.mark(range);
        Ok(())
    }

    /// Copies `length` bytes of any file; reads only its data, leaves out its zero blocks.
    pub fn copy_file(&mut self, source: &Path, offset: u64, length: u64) -> Result<()> {
        let failed = || format!("cannot copy {length} bytes of {}", source.display());
        self.check_range(offset, length)?;
        let file = File::open(source).context(failed)?;
        let present = file.metadata().context(failed)?.len();
        if present < length {
            return Err(Error::new(format!(
                "{} is {present} bytes long, {length} were expected",
                source.display()
            )));
        }
        let mut buffer = vec![0; COPY_CHUNK];
        for range in data_ranges(&file, 0..length).context(failed)?.iter() {
            let mut position = range.start;
            while position < range.end {
                let count = to_index(range.end - position).min(buffer.len());
                file.read_exact_at(&mut buffer[..count], position).context(failed)?;
                self.write_at(offset + position, &buffer[..count])?;
                position += count as u64;
            }
        }
        Ok(())
    }

    /// Copies the mapped ranges of a complete image to `offset`, inside the kernel if it can.
    pub fn copy_image(&mut self, source: &SparseImage, offset: u64) -> Result<()> {
        self.check_range(offset, source.length)?;
        let target_name = self.output.target().display().to_string();
        let failed = || format!("cannot copy {} to {target_name}", source.path.display());
        let file = File::open(&source.path).context(failed)?;
        for range in source.mapped.iter() {
            let target = offset + range.start..offset + range.end;
            copy_range(&file, range.start, self.output.file(), target.clone())
                .map_err(|error| with_room_hint(failed(), error))?;
            self.mark(target);
        }
        Ok(())
    }

    /// A cursor over a part of the image for writers that want `Read + Write + Seek`.
    pub fn window(&mut self, range: Range<u64>) -> Result<Window<'_>> {
        self.check_range(range.start, range.end.saturating_sub(range.start))?;
        Ok(Window { image: self, range, position: 0 })
    }

    /// Flushes the image and gives it its name.
    pub fn finish(self) -> Result<SparseImage> {
        let Self { output, length, mapped } = self;
        let path = output.target().to_owned();
        output.finish()?;
        Ok(SparseImage { path, length, mapped })
    }
}

/// A part of a [`Sparse`] image as a file of its own.
#[derive(Debug)]
pub struct Window<'a> {
    image: &'a mut Sparse,
    range: Range<u64>,
    position: u64,
}

impl Window<'_> {
    fn length(&self) -> u64 {
        self.range.end - self.range.start
    }

    fn room(&self, wanted: usize) -> usize {
        wanted.min(to_index(self.length().saturating_sub(self.position)))
    }
}

impl Read for Window<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = self.room(buffer.len());
        let offset = self.range.start + self.position;
        let count = self.image.output.file().read_at(&mut buffer[..room], offset)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Write for Window<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.room(bytes.len());
        let offset = self.range.start + self.position;
        self.image.write_at(offset, &bytes[..room]).map_err(io::Error::other)?;
        self.position += room as u64;
        Ok(room)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Window<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(distance) => self.position.checked_add_signed(distance),
            SeekFrom::End(distance) => self.length().checked_add_signed(distance),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

/// What the file system says is data within `within`; a hole is certain to read as zeros.
fn data_ranges(file: &File, within: Range<u64>) -> io::Result<Ranges> {
    let mut ranges = Ranges::default();
    let mut position = within.start;
    while position < within.end {
        let start = match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(position)) {
            Ok(start) => start.min(within.end),
            // No data behind this position.
            Err(rustix::io::Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(start))?.min(within.end);
        ranges.insert(start..end);
        position = end.max(start + 1);
    }
    Ok(ranges)
}

fn copy_range(source: &File, from: u64, target: &File, to: Range<u64>) -> io::Result<()> {
    let (mut from, mut position) = (from, to.start);
    while position < to.end {
        let wanted = to_index(to.end - position);
        let copied = rustix::fs::copy_file_range(
            source,
            Some(&mut from),
            target,
            Some(&mut position),
            wanted,
        );
        match copied {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            // Two file systems, or one that cannot: by hand.
            Err(_) => return copy_by_hand(source, from, target, position..to.end),
        }
    }
    Ok(())
}

fn copy_by_hand(source: &File, mut from: u64, target: &File, to: Range<u64>) -> io::Result<()> {
    let mut buffer = vec![0; COPY_CHUNK];
    let mut position = to.start;
    while position < to.end {
        let count = to_index(to.end - position).min(buffer.len());
        source.read_exact_at(&mut buffer[..count], from)?;
        target.write_all_at(&buffer[..count], position)?;
        from += count as u64;
        position += count as u64;
    }
    Ok(())
}

/// True for bytes that are all zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(ZEROS.len()).all(|chunk| *chunk == ZEROS[..chunk.len()])
}

/// A length within a buffer or a file; this program only runs where pointers have 64 bits.
fn to_index(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn zero_blocks_stay_holes_until_something_was_written_there() {
        let directory = directory();
        let mut image = Sparse::create(&directory.path().join("i"), 10 * BLOCK).unwrap();
        image.write_at(100, &[0; 3 * BLOCK as usize]).unwrap();
        assert!(image.mapped().is_empty());
        image.write_at(BLOCK + 5, b"x").unwrap();
        image.write_at(7 * BLOCK - 1, b"yz").unwrap();
        let mapped: Vec<_> = image.mapped().iter().collect();
        assert_eq!(mapped, [BLOCK..2 * BLOCK, 6 * BLOCK..8 * BLOCK]);
        image.write_at(0, &[0; 10 * BLOCK as usize]).unwrap();
        assert_eq!(image.mapped().bytes(), 3 * BLOCK);
        let image = image.finish().unwrap();
        assert!(is_zero(&fs::read(&image.path).unwrap()), "zeros must overwrite what was there");
    }

    #[test]
    fn the_mapped_list_is_what_the_file_system_calls_data() {
        let directory = directory();
        let mut image = Sparse::create(&directory.path().join("i"), 3000 * BLOCK).unwrap();
        for block in [0, 1, 700, 701, 1500, 2999] {
            image.write_at(block * BLOCK + block % 4096, &[1]).unwrap();
        }
        let written = image.finish().unwrap();
        let found = SparseImage::open(&written.path).unwrap();
        assert_eq!(found.length, written.length);
        // A file system with larger blocks may call more than was written data, never less.
        for range in written.mapped.iter() {
            assert!(found.mapped.contains(range.start) && found.mapped.contains(range.end - 1));
        }
        assert!(found.mapped.bytes() < found.length / 10, "{:?}", found.mapped);
    }

    #[test]
    fn copies_hold_the_same_bytes_and_no_more_blocks() {
        let directory = directory();
        let mut source = Sparse::create(&directory.path().join("s"), 50 * BLOCK + 17).unwrap();
        source.write_at(3 * BLOCK, &[7; 9000]).unwrap();
        source.write_at(50 * BLOCK, &[9; 17]).unwrap();
        let source = source.finish().unwrap();
        let mut target = Sparse::create(&directory.path().join("t"), 200 * BLOCK).unwrap();
        target.copy_image(&source, 10 * BLOCK).unwrap();
        target.copy_file(&source.path, 100 * BLOCK, source.length).unwrap();
        let target = target.finish().unwrap();
        assert_eq!(target.mapped.bytes(), 8 * BLOCK);
        let (bytes, wanted) = (fs::read(&target.path).unwrap(), fs::read(&source.path).unwrap());
        for start in [10 * BLOCK as usize, 100 * BLOCK as usize] {
            assert!(bytes[start..start + wanted.len()] == wanted);
        }
    }

    #[test]
    fn nothing_is_written_behind_the_end() {
        let directory = directory();
        let mut image = Sparse::create(&directory.path().join("i"), 100).unwrap();
        let error = image.write_at(99, b"ab").unwrap_err().to_string();
        assert!(error.contains("2 bytes at 99 do not fit in"), "{error}");
        assert!(image.write_at(u64::MAX, b"ab").is_err());
        image.write_at(98, b"ab").unwrap();
        assert_eq!(image.mapped().bytes(), 100);
    }

    #[test]
    fn a_window_is_a_file_of_its_own() {
        let directory = directory();
        let mut image = Sparse::create(&directory.path().join("i"), 100).unwrap();
        let mut window = image.window(10..20).unwrap();
        window.seek(SeekFrom::End(-2)).unwrap();
        assert_eq!(window.write(b"abc").unwrap(), 2);
        assert_eq!(window.write(b"c").unwrap(), 0);
        window.seek(SeekFrom::Start(7)).unwrap();
        let mut bytes = Vec::new();
        window.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"\0ab");
    }

    #[test]
    fn ranges_merge_whatever_the_order() {
        let ranges: Ranges = [5..6, 0..2, 9..9, 2..4, 7..9, 6..7].into_iter().collect();
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [0..4, 5..9]);
        assert!(ranges.contains(3) && !ranges.contains(4) && !ranges.contains(9));
        let edges = [0, 3, 4, 5, 8, 9].map(|offset| ranges.edge_after(offset));
        assert_eq!(edges, [Some(4), Some(4), Some(5), Some(9), Some(9), None]);
    }
}
