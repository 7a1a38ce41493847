//! The boot record: what the loader has to remember between two starts, in one 512-byte sector.
//!
//! Two copies lie 4 MiB apart ([`RECORD_OFFSETS`]). A change is one write to the OLDER copy, so
//! that whatever happens to that write, the newer one is still whole; it counts once it has been
//! flushed and read back.
//!
//! ```text
//! 0    8   "IOTAREC1"
//! 8    4   format version, 1
//! 12   4   zero
//! 16   8   sequence number: the higher one is the newer record
//! 24   64  slot A   ┐ 0 1 state · 1 1 priority · 2 1 tries left · 3 1 reason · 4 4 zero
//! 88   64  slot B   ┘ 8 8 rollback index · 16 48 version, zero-padded
//! 152  8   rollback floor: no system with a lower rollback index is installed
//! 160  348 zero
//! 508  4   CRC32 of bytes 0 to 507
//! ```
//! All numbers are little-endian.
use core::fmt;

use crate::device::{ReadAt, WriteAt};
use crate::layout::{Extent, PerSlot, RECORD_OFFSETS, Slot};
use crate::manifest::{MAX_VERSION_BYTES, is_version};

/// First bytes of a record.
pub const MAGIC: [u8; 8] = *b"IOTAREC1";
/// Size of a record.
pub const RECORD_BYTES: usize = 512;
/// Tries of a slot that has just been written.
pub const TRIES: u8 = 3;

const FORMAT: u32 = 1;
const ENTRY_BYTES: usize = 64;
const CRC_OFFSET: usize = 508;
const _: () = assert!(16 + MAX_VERSION_BYTES == ENTRY_BYTES);
const FLOOR_OFFSET: usize = 24 + 2 * ENTRY_BYTES;
const UNUSED_OFFSET: usize = FLOOR_OFFSET + 8;
const _: () = assert!(UNUSED_OFFSET < CRC_OFFSET);

/// What the loader knows about both slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Counts the changes; the higher one of two records is the newer one.
    pub sequence: Sequence,
    /// No system with a lower rollback index is installed.
    pub rollback_floor: u64,
    /// The slots.
    pub slots: PerSlot<Entry>,
}

/// Number of a change of the record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The number of the change after this one. A device would have to change its record for
    /// billions of years to reach the end, so staying there is as good as anything.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// What the loader knows about one slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Whether it may be started.
    pub state: State,
    /// The higher one is started first; on a tie it is slot A.
    pub priority: u8,
    /// Rollback index of its manifest.
    pub rollback_index: u64,
    /// Version of its manifest; `None` if there is none. Of an empty slot: the version that
    /// failed there last, so that it is not tried again by itself.
    pub version: Option<Version>,
}

/// Whether a slot may be started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Holds no system, or one that is being written.
    #[default]
    Empty,
    /// Has not yet been seen to work.
    Unproven {
        /// How often it may still be started, at most [`TRIES`].
        tries: u8,
    },
    /// Has been found healthy once; is never counted down again.
    Proven,
    /// Was found not to work.
    Bad(Reason),
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("empty"),
            Self::Unproven { tries: 1 } => f.write_str("unproven with 1 try"),
            Self::Unproven { tries } => write!(f, "unproven with {tries} tries"),
            Self::Proven => f.write_str("proven"),
            Self::Bad(reason) => write!(f, "bad ({reason})"),
        }
    }
}

/// Why a slot is bad. A number, not an enum: an older loader must not lose its record because of
/// a reason that a newer agent knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason(pub u8);

impl Reason {
    /// Its manifest is not signed, or not for this disk.
    pub const MANIFEST: Self = Self(1);
    /// Its kernel is not the one of the manifest.
    pub const KERNEL: Self = Self(2);
    /// Its initrd is not the one of the manifest.
    pub const INITRD: Self = Self(3);
    /// Its kernel does not unpack, the firmware did not take it, or it came back.
    pub const START: Self = Self(4);
    /// It was started and did not become healthy.
    pub const UNHEALTHY: Self = Self(5);
    /// Somebody asked for the other slot while it was on trial.
    pub const REJECTED: Self = Self(6);
}

impl Reason {
    /// Whether it speaks against the medium and not against the system: what was written and
    /// found right at the time has changed since. A system of that version may be as good as ever.
    pub const fn is_damage(self) -> bool {
        matches!(self, Self::MANIFEST | Self::KERNEL | Self::INITRD)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::MANIFEST => f.write_str("manifest refused"),
            Self::KERNEL => f.write_str("kernel refused"),
            Self::INITRD => f.write_str("initrd refused"),
            Self::START => f.write_str("kernel did not start"),
            Self::UNHEALTHY => f.write_str("not healthy in time"),
            Self::REJECTED => f.write_str("rolled back by request"),
            Self(number) => write!(f, "reason {number}"),
        }
    }
}

/// A version in a record: [`is_version`] holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Version([u8; MAX_VERSION_BYTES]);

impl Version {
    /// Takes a version of a manifest.
    pub fn new(text: &str) -> Option<Self> {
        if !is_version(text) {
            return None;
        }
        let mut bytes = [0; MAX_VERSION_BYTES];
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        Some(Self(bytes))
    }

    /// The version as text.
    pub fn as_str(&self) -> &str {
        let length = self.0.iter().position(|&byte| byte == 0).unwrap_or(MAX_VERSION_BYTES);
        let (text, _) = self.0.split_at(length);
        core::str::from_utf8(text).unwrap_or_default()
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Record {
    /// The sector to write.
    pub fn encode(&self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.0.to_le_bytes());
        bytes[24..88].copy_from_slice(&self.slots.a.encode());
        bytes[88..152].copy_from_slice(&self.slots.b.encode());
        bytes[FLOOR_OFFSET..UNUSED_OFFSET].copy_from_slice(&self.rollback_floor.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..CRC_OFFSET]);
        bytes[CRC_OFFSET..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a sector; every bit of it is checked.
    pub fn decode(bytes: &[u8; RECORD_BYTES]) -> Result<Self, Error> {
        if bytes.iter().all(|&byte| byte == 0) {
            return Err(Error::Empty);
        }
        if !bytes.starts_with(&MAGIC) {
            return Err(Error::Magic);
        }
        let found = u32_at(bytes, CRC_OFFSET);
        let wanted = crc32fast::hash(&bytes[..CRC_OFFSET]);
        if found != wanted {
            return Err(Error::Crc { found, wanted });
        }
        if u32_at(bytes, 8) != FORMAT {
            return Err(Error::Format(u32_at(bytes, 8)));
        }
        let unused = [12..16, UNUSED_OFFSET..CRC_OFFSET].into_iter().flatten();
        if let Some(offset) = unused.into_iter().find(|&offset| bytes[offset] != 0) {
            return Err(Error::NotZero(offset));
        }
        let entry = |slot, start| {
            let bytes = bytes.get(start..).and_then(|rest| rest.first_chunk());
            let field = bytes.ok_or("size").and_then(Entry::decode);
            field.map_err(|field| Error::Entry { slot, field })
        };
        let slots = PerSlot { a: entry(Slot::A, 24)?, b: entry(Slot::B, 88)? };
        let sequence = Sequence(u64_at(bytes, 16));
        Ok(Self { sequence, rollback_floor: u64_at(bytes, FLOOR_OFFSET), slots })
    }
}

impl Entry {
    fn encode(&self) -> [u8; ENTRY_BYTES] {
        let (state, tries, reason) = match self.state {
            State::Empty => (0, 0, 0),
            State::Unproven { tries } => (1, tries, 0),
            State::Proven => (2, 0, 0),
            State::Bad(Reason(reason)) => (3, 0, reason),
        };
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..4].copy_from_slice(&[state, self.priority, tries, reason]);
        bytes[8..16].copy_from_slice(&self.rollback_index.to_le_bytes());
        if let Some(Version(version)) = &self.version {
            bytes[16..].copy_from_slice(version);
        }
        bytes
    }

    /// The error is the name of the field that is wrong.
    fn decode(bytes: &[u8; ENTRY_BYTES]) -> Result<Self, &'static str> {
        let [state, priority, tries, reason, ..] = *bytes;
        let state = match (state, tries, reason) {
            (0, 0, 0) => State::Empty,
            (1, 0..=TRIES, 0) => State::Unproven { tries },
            (2, 0, 0) => State::Proven,
            (3, 0, 1..) => State::Bad(Reason(reason)),
            (0..=3, _, _) => return Err("tries or reason"),
            _ => return Err("state"),
        };
        if u32_at(bytes, 4) != 0 {
            return Err("reserved bytes");
        }
        let (_, version) = bytes.split_at(16);
        let text = core::str::from_utf8(version).map_err(|_| "version")?;
        let version = match text.trim_end_matches('\0') {
            "" => None,
            text => Some(Version::new(text).ok_or("version")?),
        };
        Ok(Self { state, priority, rollback_index: u64_at(bytes, 8), version })
    }
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let field = bytes.get(offset..).and_then(|rest| rest.first_chunk());
    u32::from_le_bytes(*field.unwrap_or(&[0; 4]))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    let field = bytes.get(offset..).and_then(|rest| rest.first_chunk());
    u64::from_le_bytes(*field.unwrap_or(&[0; 8]))
}

/// Why a sector is not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// All zero.
    Empty,
    /// The first bytes are not the magic.
    Magic,
    /// The checksum is wrong.
    Crc {
        /// What the sector says.
        found: u32,
        /// What its bytes add up to.
        wanted: u32,
    },
    /// A format this program does not know.
    Format(u32),
    /// A byte that has to be zero is not.
    NotZero(usize),
    /// A field of a slot makes no sense.
    Entry {
        /// Which slot.
        slot: Slot,
        /// Which field.
        field: &'static str,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("nothing there (all zero)"),
            Self::Magic => f.write_str("no record (wrong magic)"),
            Self::Crc { found, wanted } => {
                write!(f, "checksum is {found:08x}, bytes add up to {wanted:08x}")
            }
            Self::Format(format) => write!(f, "unknown format {format}"),
            Self::NotZero(offset) => write!(f, "byte {offset} is not zero"),
            Self::Entry { slot, field } => write!(f, "slot {slot}: bad {field}"),
        }
    }
}

impl core::error::Error for Error {}

/// One of the two places a record lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copy {
    /// At the start of the record partition.
    First,
    /// 4 MiB after it.
    Second,
}

impl Copy {
    /// The bytes of the copy on a disk with this record partition.
    fn offset(self, partition: Extent) -> Option<u64> {
        let [first, second] = RECORD_OFFSETS;
        let offset = match self {
            Self::First => first,
            Self::Second => second,
        };
        // OK to convert: 512.
        let length = u64::try_from(RECORD_BYTES).ok()?;
        Some(partition.slice(Extent { offset, length })?.offset)
    }
}

impl fmt::Display for Copy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::First => "first copy",
            Self::Second => "second copy",
        })
    }
}

/// Both copies, as they were found on a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copies<E> {
    /// The copy at the start of the partition.
    pub first: Result<Record, CopyError<E>>,
    /// The other one.
    pub second: Result<Record, CopyError<E>>,
}

impl<E> Copies<E> {
    /// Reads both copies. Never fails: what is wrong is part of the result.
    pub fn read<D: ReadAt<Error = E>>(device: &D, partition: Extent) -> Self {
        let read = |copy| read_copy(device, partition, copy);
        Self { first: read(Copy::First), second: read(Copy::Second) }
    }

    /// The record that counts, if any copy is whole.
    pub fn newest(&self) -> Option<&Record> {
        match self.older() {
            Copy::First => self.second.as_ref().ok(),
            Copy::Second => self.first.as_ref().ok(),
        }
    }

    /// The copy to write next: a broken one, else the older one.
    pub fn older(&self) -> Copy {
        match (&self.first, &self.second) {
            (Ok(first), Ok(second)) if first.sequence < second.sequence => Copy::First,
            (Err(_), _) => Copy::First,
            (Ok(_), _) => Copy::Second,
        }
    }
}

fn read_copy<D: ReadAt>(
    device: &D,
    partition: Extent,
    copy: Copy,
) -> Result<Record, CopyError<D::Error>> {
    let offset = copy.offset(partition).ok_or(CopyError::Outside)?;
    let mut bytes = [0; RECORD_BYTES];
    device.read_at(offset, &mut bytes).map_err(CopyError::Device)?;
    Record::decode(&bytes).map_err(CopyError::Record)
}

/// Writes one copy, flushes, reads it back and compares. Only after `Ok` the change has happened.
pub fn write<D: WriteAt>(
    device: &mut D,
    partition: Extent,
    copy: Copy,
    record: &Record,
) -> Result<(), CopyError<D::Error>> {
    let offset = copy.offset(partition).ok_or(CopyError::Outside)?;
    device.write_at(offset, &record.encode()).map_err(CopyError::Device)?;
    device.flush().map_err(CopyError::Device)?;
    match read_copy(device, partition, copy) {
        Ok(found) if found == *record => Ok(()),
        Ok(_) => Err(CopyError::NotKept),
        Err(error) => Err(error),
    }
}

/// Changes the record by a rule: reads both copies, asks the rule, writes the older copy.
///
/// A record that the rule gives back as it was is not written.
pub fn change<D: WriteAt, R>(
    device: &mut D,
    partition: Extent,
    rule: impl FnOnce(&Record) -> Result<Record, R>,
) -> Result<Record, ChangeError<D::Error, R>> {
    let copies = Copies::read(device, partition);
    let Some(record) = copies.newest() else {
        // OK to take the first one's: both are broken.
        return Err(ChangeError::Unreadable(copies.first.err().unwrap_or(CopyError::NotKept)));
    };
    let next = rule(record).map_err(ChangeError::Refused)?;
    if next != *record {
        write(device, partition, copies.older(), &next).map_err(ChangeError::Write)?;
    }
    Ok(next)
}

/// Why the record was not changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeError<E, R> {
    /// Neither copy can be read; this is the first one's trouble. The loader rebuilds the record
    /// at the next start.
    Unreadable(CopyError<E>),
    /// The rule said no; nothing was written.
    Refused(R),
    /// The older copy could not be written. The newer one has not been touched.
    Write(CopyError<E>),
}

impl<E: fmt::Display, R: fmt::Display> fmt::Display for ChangeError<E, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => write!(f, "record: no copy can be read: {error}"),
            Self::Refused(reason) => fmt::Display::fmt(reason, f),
            Self::Write(error) => write!(f, "record: cannot write: {error}"),
        }
    }
}

/// Why a copy could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyError<E> {
    /// The device failed.
    Device(E),
    /// What is there is not a record.
    Record(Error),
    /// The record partition is too small.
    Outside,
    /// After a successful write something else is there.
    NotKept,
}

impl<E: fmt::Display> fmt::Display for CopyError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(error) => fmt::Display::fmt(error, f),
            Self::Record(error) => fmt::Display::fmt(error, f),
            Self::Outside => f.write_str("record partition is too small"),
            Self::NotKept => f.write_str("the disk did not keep what was written"),
        }
    }
}

impl<E: fmt::Display + fmt::Debug> core::error::Error for CopyError<E> {}

#[cfg(test)]
mod tests;
