//! Every write of a virtual machine's disk, recorded by QEMU's driver `blklogwrites`, and the disk
//! as it is after any part of them.
//!
//! The format is that of Linux' dm-log-writes (Documentation/admin-guide/device-mapper/
//! log-writes.rst and drivers/md/dm-log-writes.c), in sectors of 512 bytes, little-endian:
//!
//! ```text
//! sector 0   magic 8 · version 8 · number of entries 8 · sector size 4
//! then each  first sector 8 · number of sectors 8 · flags 8 · length of extra data 8 · zeros,
//!            and from the next sector on the data, unless it is a discard
//! ```
//! QEMU appends an entry when its request has ended. So what the log has before a flush is what
//! the flush has brought to the medium, and what it has after the last flush may be lost.
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use ondisk::device::ReadAt;

/// Bytes of a sector.
pub const SECTOR: u64 = 512;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const DISCARD: u64 = 1 << 2;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Sectors were written; their data starts at this byte of the log.
    Write(Range<u64>, u64),
    /// Sectors were discarded; they read as zeros.
    Discard(Range<u64>),
    /// All that was written before is on the medium.
    Flush,
}

impl Entry {
    /// The sectors that it changes.
    pub fn sectors(&self) -> Range<u64> {
        match self {
            Self::Write(sectors, _) | Self::Discard(sectors) => sectors.clone(),
            Self::Flush => 0..0,
        }
    }
}

/// A recorded run.
pub struct WriteLog {
    file: File,
    /// Its requests, in the order of their ends.
    pub entries: Vec<Entry>,
}

impl WriteLog {
    /// Reads the log of a machine that has ended.
    ///
    /// Errors: the file is no such log, ends early, or holds a request that QEMU's virtio disks
    /// do not make (forced unit access), which nothing here would treat rightly.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let mut entries = Vec::new();
        let mut offset = SECTOR;
        for number in 0..count(&file)? {
            let [first, sectors, flags, extra] = words(&file, offset)?;
            offset += SECTOR;
            let range = first..first + sectors;
            entries.push(match (flags, extra, sectors) {
                (0, 0, 1..) => Entry::Write(range, offset),
                (DISCARD, 0, 1..) => Entry::Discard(range),
                (FLUSH, 0, 0) => Entry::Flush,
                _ => {
                    let what = format!(
                        "entry {number}: {sectors} sectors with flags {flags} and {extra} bytes"
                    );
                    return Err(io::Error::other(what));
                }
            });
            if matches!(entries.last(), Some(Entry::Write(..))) {
                offset += sectors * SECTOR;
            }
        }
        Ok(Self { file, entries })
    }

    /// What the disk is before the run.
    pub fn nothing_written(base: &File) -> io::Result<Written> {
        let sectors = base.metadata()?.len() / SECTOR;
        Ok(Written(vec![0; usize::try_from(sectors).unwrap()]))
    }

    /// The disk `base` with what has been written to it.
    pub fn disk<'a>(&'a self, base: &'a File, written: &'a Written) -> Replayed<'a> {
        Replayed { log: self, base, written }
    }
}

/// Number of requests that were in a log, of a machine that may still run, at its last flush.
pub fn entries_at_last_flush(path: &Path) -> io::Result<usize> {
    let count = count(&File::open(path)?)?;
    Ok(usize::try_from(count).unwrap())
}

fn count(log: &File) -> io::Result<u64> {
    let [magic, version, entries, sector] = words(log, 0)?;
    if (magic, version, sector & 0xffff_ffff) != (MAGIC, 1, SECTOR) {
        return Err(io::Error::other("not a log of writes with sectors of 512 bytes"));
    }
    Ok(entries)
}

fn words(log: &File, offset: u64) -> io::Result<[u64; 4]> {
    let mut bytes = [0; 32];
    log.read_exact_at(&mut bytes, offset)?;
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    Ok(words)
}

/// For each sector of a disk, the entry that wrote it last, counted from 1; 0 if none did. Equal
/// numbers mean equal contents.
#[derive(Clone, PartialEq, Eq)]
pub struct Written(Vec<u32>);

impl Written {
    /// Sectors are written by the entry with this place in the log.
    pub fn write(&mut self, sectors: Range<u64>, entry: usize) {
        self.0[places(&sectors)].fill(u32::try_from(entry + 1).unwrap());
    }

    /// The numbers of some sectors.
    pub fn of(&self, sectors: &Range<u64>) -> &[u32] {
        &self.0[places(sectors)]
    }
}

fn places(sectors: &Range<u64>) -> Range<usize> {
    usize::try_from(sectors.start).unwrap()..usize::try_from(sectors.end).unwrap()
}

/// A disk with some of the recorded writes on it.
pub struct Replayed<'a> {
    log: &'a WriteLog,
    base: &'a File,
    written: &'a Written,
}

impl ReadAt for Replayed<'_> {
    type Error = io::Error;

    fn size(&self) -> u64 {
        SECTOR * u64::try_from(self.written.0.len()).unwrap()
    }

    fn read_at(&self, mut offset: u64, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            let sector = usize::try_from(offset / SECTOR).unwrap();
            let rest = self.written.0.get(sector..).filter(|rest| !rest.is_empty());
            let rest = rest.ok_or(io::ErrorKind::UnexpectedEof)?;
            let inside = usize::try_from(offset % SECTOR).unwrap();
            let most = (inside + buffer.len()).div_ceil(512).min(rest.len());
            let number = rest[0];
            let run = rest[..most].iter().take_while(|other| **other == number).count();
            let (now, later) = buffer.split_at_mut((run * 512 - inside).min(buffer.len()));
            let entry = number.checked_sub(1).map(|entry| usize::try_from(entry).unwrap());
            match entry.map(|entry| &self.log.entries[entry]) {
                None => self.base.read_exact_at(now, offset)?,
                Some(Entry::Write(sectors, data)) => {
                    self.log.file.read_exact_at(now, data + offset - sectors.start * SECTOR)?;
                }
                Some(Entry::Discard(_) | Entry::Flush) => now.fill(0),
            }
            offset += u64::try_from(now.len()).unwrap();
            buffer = later;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sector(words: [u64; 4]) -> Vec<u8> {
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.resize(512, 0);
        bytes
    }

    /// Two sectors written from 1 on, a flush, sector 2 discarded.
    fn log() -> Vec<Vec<u8>> {
        vec![
            sector([MAGIC, 1, 3, 512]),
            sector([1, 2, 0, 0]),
            vec![0xaa; 512],
            vec![0xbb; 512],
            sector([0, 0, FLUSH, 0]),
            sector([2, 1, DISCARD, 0]),
        ]
    }

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    #[test]
    fn a_disk_is_its_base_with_the_writes_that_are_wanted() {
        let log = WriteLog::open(file(&log().concat()).path()).unwrap();
        let expected = [Entry::Write(1..3, 1024), Entry::Flush, Entry::Discard(2..3)];
        assert_eq!(log.entries, expected);
        let base = file(&[0x11; 4 * 512]).reopen().unwrap();
        let mut written = WriteLog::nothing_written(&base).unwrap();
        let read = |written: &Written, offset, length| {
            let mut bytes = vec![0; length];
            log.disk(&base, written).read_at(offset, &mut bytes).map(|()| bytes).ok()
        };
        assert_eq!(read(&written, 0, 2048), Some(vec![0x11; 2048]));
        written.write(1..3, 0);
        assert_eq!(read(&written, 1022, 4), Some(vec![0xaa, 0xaa, 0xbb, 0xbb]));
        assert_eq!(read(&written, 510, 4), Some(vec![0x11, 0x11, 0xaa, 0xaa]));
        written.write(2..3, 2);
        assert_eq!(read(&written, 1022, 4), Some(vec![0xaa, 0xaa, 0, 0]));
        assert_eq!(read(&written, 2047, 2), None, "beyond the end");
    }

    #[test]
    fn a_log_that_is_cut_or_holds_other_requests_is_refused() {
        let open = |change: fn(&mut Vec<Vec<u8>>)| {
            let mut log = log();
            change(&mut log);
            WriteLog::open(file(&log.concat()).path()).map(|log| log.entries)
        };
        assert!(open(|_| ()).is_ok());
        assert!(open(|log| log[0][0] ^= 1).is_err(), "magic");
        assert!(open(|log| log[0][24] = 1).is_err(), "sector size");
        assert!(open(|log| log.truncate(5)).is_err(), "cut");
        assert!(open(|log| log[1][16] = 2).is_err(), "forced unit access");
    }
}
