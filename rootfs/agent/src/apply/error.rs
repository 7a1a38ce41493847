//! Why an installation ended, and what it left behind.
use std::fmt;
use std::io;

use ondisk::boot_record::{ChangeError, CopyError};
use ondisk::manifest::Profile;
use ondisk::slot_change::Refused;
use ondisk::{bundle, manifest};

/// An installation that did not come to its end.
#[derive(Debug)]
pub struct Error<E> {
    /// What happened.
    pub cause: Cause<E>,
    /// What the disk holds now.
    pub left: Left,
}

/// What the disk holds after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Every byte is as it was.
    Untouched,
    /// The other slot is empty; the next installation goes on from what it holds.
    Empty,
    /// The record could not be written as it should: the slot is empty, or as it was before the
    /// installation, or whole and staged. Each of them is safe.
    Unsure,
}

/// What ended an installation.
#[derive(Debug)]
pub enum Cause<E> {
    /// The bundle cannot be read.
    Source(io::Error),
    /// The bundle ends this many bytes too early.
    Truncated(u64),
    /// There are bytes after the bundle's end.
    Trailing,
    /// The bundle's header, or what it lists, is wrong.
    Bundle(bundle::Error),
    /// The slot manifest is wrong, or its system does not fit the slot.
    Manifest(manifest::Error),
    /// The system is for another board.
    Board {
        /// The bundle's.
        found: String,
        /// This device's.
        wanted: String,
    },
    /// A development system for a device in the field.
    Profile(Profile),
    /// Its publisher has taken it back for good.
    Revoked(String),
    /// This system runs already: nothing to do.
    AlreadyRunning(String),
    /// This system waits already for the next start: nothing to do.
    AlreadyStaged(String),
    /// The rules of the record say no.
    Change(Refused),
    /// No copy of the record can be read.
    RecordUnreadable,
    /// Both copies of the record are zeros.
    RecordMissing,
    /// The record cannot be written.
    RecordWrite(CopyError<E>),
    /// The slot's partition has no room for a manifest.
    SlotTooSmall(u64),
    /// A chunk of the stream, counted from 0, is not the one of the index.
    Chunk(usize),
    /// The stream cannot be unpacked.
    Unpack(String),
    /// The stream unpacks to something else than the image.
    UnpackedLength(&'static str),
    /// A group of blocks, counted from 0, is not the one of the index.
    Group(usize),
    /// The disk cannot be read.
    Read {
        /// Which part of the slot.
        what: &'static str,
        /// What the device says.
        error: E,
    },
    /// The disk cannot be written.
    Write {
        /// Which part of the slot.
        what: &'static str,
        /// What the device says.
        error: E,
    },
    /// The disk gives back something else than was written.
    NotKept {
        /// Which part of the slot.
        what: &'static str,
        /// From which byte on.
        offset: u64,
    },
}

impl<E> Error<E> {
    /// Whether what was asked for is already so: an answer, not an error.
    pub fn is_nothing_to_do(&self) -> bool {
        matches!(self.cause, Cause::AlreadyRunning(_) | Cause::AlreadyStaged(_))
    }

    /// What somebody can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match &self.cause {
            Cause::Change(Refused::OnTrial(_)) => {
                Some("it commits by itself once it is healthy; `iota commit` does it now")
            }
            Cause::Bundle(_) | Cause::Manifest(manifest::Error::Envelope(_)) => {
                Some("`iota status` shows the keys that this device trusts")
            }
            Cause::Truncated(_) | Cause::Chunk(_) | Cause::Trailing => {
                Some("copy the bundle again; what is in the slot already is kept")
            }
            Cause::RecordUnreadable | Cause::RecordMissing => {
                Some("restart: the loader rebuilds the record from the slots")
            }
            Cause::Profile(_) => Some("build it with `iota bundle --release`"),
            Cause::NotKept { .. } | Cause::Write { .. } | Cause::Read { .. } => {
                Some("the disk may be worn out; the running system is not affected")
            }
            _ => None,
        }
    }
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.cause, f)
    }
}

impl<E: fmt::Display> fmt::Display for Cause<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(error) => write!(f, "cannot read the bundle: {error}"),
            Self::Truncated(bytes) => write!(f, "the bundle is cut short: {bytes} bytes missing"),
            Self::Trailing => f.write_str("there are bytes after the end of the bundle"),
            Self::Bundle(error) => fmt::Display::fmt(error, f),
            Self::Manifest(error) => write!(f, "slot manifest of the bundle: {error}"),
            Self::Board { found, wanted } => {
                write!(f, "the bundle is for {found}, this device is {wanted}")
            }
            Self::Profile(profile) => {
                write!(f, "this device runs release systems only, the bundle is for {profile}")
            }
            Self::Revoked(version) => write!(f, "{version} was revoked by its publisher"),
            Self::AlreadyRunning(version) => write!(f, "{version} is running already"),
            Self::AlreadyStaged(version) => write!(f, "{version} waits for the next start already"),
            Self::Change(refused) => fmt::Display::fmt(refused, f),
            Self::RecordUnreadable => f.write_str("record: no copy can be read"),
            Self::RecordMissing => f.write_str("record: there is none"),
            Self::RecordWrite(error) => write!(f, "record: cannot write: {error}"),
            Self::SlotTooSmall(bytes) => write!(f, "a slot of {bytes} bytes is too small"),
            Self::Chunk(number) => write!(f, "the bundle is damaged: chunk {number} of its stream"),
            Self::Unpack(error) => write!(f, "cannot unpack the bundle: {error}"),
            Self::UnpackedLength(what) => write!(f, "the bundle's stream {what}"),
            Self::Group(number) => write!(f, "the bundle's group {number} is not the one listed"),
            Self::Read { what, error } => write!(f, "{what}: cannot read: {error}"),
            Self::Write { what, error } => write!(f, "{what}: cannot write: {error}"),
            Self::NotKept { what, offset } => {
                write!(f, "{what}: the disk did not keep what was written at byte {offset}")
            }
        }
    }
}

impl<E> From<ChangeError<E, Refused>> for Cause<E> {
    fn from(error: ChangeError<E, Refused>) -> Self {
        match error {
            ChangeError::Unreadable(_) => Self::RecordUnreadable,
            ChangeError::Refused(refused) => Self::Change(refused),
            ChangeError::Write(error) => Self::RecordWrite(error),
        }
    }
}
