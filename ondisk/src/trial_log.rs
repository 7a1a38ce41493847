//! What remains of a trial: how far it came and why it ended, outside both slots and the data
//! partition, for `iota status` after the way back.
//!
//! PID 1 notes each stage of a trial when it is reached, and the cause when it finds one itself. A
//! note without a cause that is still there when another system runs means that nobody could write
//! any more: the machine hung, lost power, or its kernel or PID 1 died after that stage.
//!
//! ```text
//! 0   8   "IOTALOG1"
//! 8   8   sequence number
//! 16  4   number of bytes of the text
//! 20  4   CRC32 of the text
//! 24  4   CRC32 of bytes 0 to 23
//! 28  …   text
//! ```
//! Numbers are little-endian. There are two copies ([`TRIAL_LOG_OFFSETS`]), each in the half of the
//! record partition of one copy of the record. Written is the one beside the OLDER copy of the
//! record, since a card may lose what lies around a write: a log is worth less than the record.
//!
//! Nothing is decided by what stands here. The text is for people: printable ASCII only, so that a
//! log cannot speak to a terminal.
use alloc::borrow::ToOwned as _;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use crate::boot_record::{Copies, Copy, CopyError};
use crate::device::{ReadAt, WriteAt};
use crate::layout::{Extent, Slot, TRIAL_LOG_BYTES, TRIAL_LOG_OFFSETS};
use crate::manifest::is_version;

/// First bytes of a copy.
pub const MAGIC: [u8; 8] = *b"IOTALOG1";
/// Longest stage and cause; the rest is cut off.
pub const MAX_LINE_BYTES: usize = 200;
/// Most bytes of kernel lines; the oldest are left out.
pub const MAX_KERNEL_BYTES: usize = 12 * 1024;

const HEADER_BYTES: usize = 28;
const COPY_BYTES: usize = 16 * 1024;
const _: () = assert!(HEADER_BYTES + 1024 + MAX_KERNEL_BYTES <= COPY_BYTES);

/// A note about a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The slot on trial.
    pub slot: Slot,
    /// Which trial, from 1.
    pub attempt: u8,
    /// The slot's version.
    pub version: String,
    /// The last stage that was reached, in a few words.
    pub stage: String,
    /// Why it ended; `None` while it goes on, or when nobody could say.
    pub cause: Option<String>,
    /// The kernel's last lines.
    pub kernel: String,
}

impl Note {
    /// The text of a copy.
    fn encode(&self) -> String {
        let Self { slot, attempt, version, stage, cause, kernel } = self;
        let stage = plain_line(stage);
        let cause = plain_line(cause.as_deref().unwrap_or_default());
        let mut text = alloc::format!(
            "slot {}\nattempt {attempt}\nversion {version}\nstage {stage}\ncause {cause}\n",
            slot.letter()
        );
        text.push_str(&last_lines(kernel));
        text
    }

    fn decode(text: &str) -> Option<Self> {
        let mut rest = text;
        let mut value = |name: &str| {
            let (line, after) = rest.split_once('\n')?;
            rest = after;
            line.strip_prefix(name)
        };
        let slot = Slot::from_letter(value("slot ")?)?;
        let attempt = value("attempt ")?.parse().ok()?;
        let version = value("version ")?.to_owned();
        let stage = value("stage ")?.to_owned();
        let cause = value("cause ")?;
        let cause = (!cause.is_empty()).then(|| cause.to_owned());
        let kernel = rest.to_owned();
        let note = Self { slot, attempt, version, stage, cause, kernel };
        (is_version(&note.version) && note.encode() == text).then_some(note)
    }
}

/// Reads the newest copy; `None` if there is none.
pub fn read<D: ReadAt>(device: &D, record: Extent) -> Option<Note> {
    let copies = [Copy::First, Copy::Second].map(|copy| read_copy(device, record, copy));
    let newest = copies.into_iter().flatten().max_by_key(|(sequence, _)| *sequence);
    newest.map(|(_, note)| note)
}

/// Writes a note, flushes and reads it back.
pub fn write<D: WriteAt>(
    device: &mut D,
    record: Extent,
    note: &Note,
) -> Result<(), CopyError<D::Error>> {
    let copies = [Copy::First, Copy::Second].map(|copy| read_copy(device, record, copy));
    let sequence = copies.iter().flatten().map(|(sequence, _)| *sequence).max().unwrap_or(0);
    let sequence = sequence.saturating_add(1);
    let copy = Copies::read(device, record).older();
    let extent = place(record, copy).ok_or(CopyError::Outside)?;
    device
        .write_at(extent.offset, &encode_copy(sequence, &note.encode()))
        .map_err(CopyError::Device)?;
    device.flush().map_err(CopyError::Device)?;
    match read_copy(device, record, copy) {
        Some((found, kept)) if found == sequence && kept.encode() == note.encode() => Ok(()),
        _ => Err(CopyError::NotKept),
    }
}

fn place(record: Extent, copy: Copy) -> Option<Extent> {
    let [first, second] = TRIAL_LOG_OFFSETS;
    let offset = match copy {
        Copy::First => first,
        Copy::Second => second,
    };
    record.slice(Extent { offset, length: TRIAL_LOG_BYTES })
}

fn encode_copy(sequence: u64, text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(COPY_BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&sequence.to_le_bytes());
    // OK to saturate: lines and kernel lines are limited.
    bytes.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(text.as_bytes()).to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes.resize(COPY_BYTES, 0);
    bytes
}

fn read_copy<D: ReadAt>(device: &D, record: Extent, copy: Copy) -> Option<(u64, Note)> {
    let extent = place(record, copy)?;
    let mut bytes = alloc::vec![0; COPY_BYTES];
    device.read_at(extent.offset, &mut bytes).ok()?;
    let (header, rest) = bytes.split_at_checked(HEADER_BYTES)?;
    let (head, crc) = header.split_at_checked(24)?;
    if !head.starts_with(&MAGIC) || *crc != crc32fast::hash(head).to_le_bytes() {
        return None;
    }
    let sequence = u64::from_le_bytes(*head.get(8..)?.first_chunk()?);
    let length = u32::from_le_bytes(*head.get(16..)?.first_chunk()?);
    let crc = u32::from_le_bytes(*head.get(20..)?.first_chunk()?);
    let text = rest.get(..usize::try_from(length).ok()?)?;
    let note = Note::decode(core::str::from_utf8(text).ok()?)?;
    (crc == crc32fast::hash(text)).then_some((sequence, note))
}

/// One line of printable ASCII, cut to its limit.
fn plain_line(text: &str) -> String {
    let plain = |character: char| if matches!(character, ' '..='~') { character } else { '?' };
    text.chars().take(MAX_LINE_BYTES).map(plain).collect()
}

/// The last lines, as many as there is room for, each whole.
fn last_lines(text: &str) -> String {
    let mut kept = Vec::new();
    let mut room = MAX_KERNEL_BYTES;
    for line in text.lines().rev() {
        let line = plain_line(line);
        match room.checked_sub(line.len().saturating_add(1)) {
            Some(left) => room = left,
            None => break,
        }
        kept.push(line);
    }
    kept.iter()
        .rev()
        .flat_map(|line| [line.as_str(), "\n"])
        .collect::<Vec<_>>()
        .concat()
        .to_string()
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::vec;

    use super::*;
    use crate::boot_record::{self, Record, Sequence};
    use crate::layout::RECORD_PARTITION_BYTES;

    const RECORD: Extent = Extent { offset: 512, length: RECORD_PARTITION_BYTES };

    fn note(attempt: u8) -> Note {
        Note {
            slot: Slot::B,
            attempt,
            version: "2.0".to_owned(),
            stage: "engine started".to_owned(),
            cause: Some("no answer within 60 s".to_owned()),
            kernel: "one\ntwo\n".to_owned(),
        }
    }

    fn disk() -> Vec<u8> {
        vec![0; usize::try_from(512 + RECORD_PARTITION_BYTES).expect("a small disk")]
    }

    #[test]
    fn the_last_note_is_read_back() {
        let mut disk = disk();
        assert_eq!(read(&disk, RECORD), None);
        for attempt in 1..6 {
            assert_eq!(write(&mut disk, RECORD, &note(attempt)), Ok(()));
            assert_eq!(read(&disk, RECORD), Some(note(attempt)));
        }
        let open = Note { cause: None, kernel: String::new(), ..note(6) };
        assert_eq!(write(&mut disk, RECORD, &open), Ok(()));
        assert_eq!(read(&disk, RECORD), Some(open));
    }

    #[test]
    fn a_note_is_written_beside_the_older_copy_of_the_record() {
        for (first, second, expected) in [(1, 2, 2 << 20), (2, 1, 6 << 20)] {
            let mut disk = disk();
            for (copy, sequence) in [(Copy::First, first), (Copy::Second, second)] {
                let record = Record { sequence: Sequence(sequence), ..Record::default() };
                boot_record::write(&mut disk, RECORD, copy, &record).expect("written");
            }
            let before = disk.clone();
            write(&mut disk, RECORD, &note(1)).expect("written");
            let changed = disk.iter().zip(&before).position(|(new, old)| new != old);
            assert_eq!(changed, Some(512 + expected));
        }
    }

    #[test]
    fn every_flipped_bit_of_a_note_loses_it_and_nothing_else() {
        let mut disk = disk();
        write(&mut disk, RECORD, &note(1)).expect("written");
        let start = 512 + (2 << 20);
        let length = HEADER_BYTES + note(1).encode().len();
        for bit in 0..length * 8 {
            disk[start + bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&disk, RECORD), None, "bit {bit}");
            disk[start + bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(read(&disk, RECORD), Some(note(1)));
    }

    #[test]
    fn long_and_strange_text_is_cut_and_made_plain() {
        let kernel: String = (0..2000).map(|number| format!("line {number}\n")).collect();
        let stage = "s".repeat(300);
        let strange = Note { stage, cause: Some("\u{1b}[2J\nü".to_owned()), kernel, ..note(1) };
        let mut disk = disk();
        write(&mut disk, RECORD, &strange).expect("written");
        let found = read(&disk, RECORD).expect("a note");
        assert_eq!(found.stage.len(), MAX_LINE_BYTES);
        assert_eq!(found.cause.as_deref(), Some("?[2J??"));
        assert!(found.kernel.len() <= MAX_KERNEL_BYTES && found.kernel.len() > 12_000);
        assert!(found.kernel.starts_with("line ") && found.kernel.ends_with("line 1999\n"));
    }

    #[test]
    fn a_record_partition_without_room_is_an_error() {
        let short = Extent { offset: 0, length: 4096 };
        assert_eq!(write(&mut disk(), short, &note(1)), Err(CopyError::Outside));
    }
}
