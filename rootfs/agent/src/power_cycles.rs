//! The owner's way to ask for a reset without a card reader, a keyboard or a network: power that is
//! cut six times in a row, soon after each start (`[reset] power-cycles` of `iota.toml`).
//!
//! ```text
//! start ─► count + 1, on the disk ─► 10 s ─► count gone
//!              └─ the sixth: request for a reset ─► restart
//! ```
//! What does not count: a start of a system on trial, which restarts by itself until it is given
//! up, and an end that was asked for. Nothing tells power that was cut from a system that crashes
//! within those seconds at every start, so this is off unless the owner wants it.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use crate::own_config::disks::read_whole;
use crate::{files, sys};

/// So many starts in a row are the owner's.
pub const CYCLES: u32 = 6;
/// A start that lasts longer is one of its own, and the next is the first.
pub const QUICK: Duration = Duration::from_secs(10);
/// From so many on the console says what they lead to.
const TOLD_FROM: u32 = 3;

/// What a start means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// It is the n-th in a row.
    Counts(u32),
    /// It is the one that asks for a reset.
    Reset,
}

/// What this start means after what the file says; a file that cannot be understood says nothing.
pub fn meaning(file: Option<&[u8]>) -> Meaning {
    let text = file.and_then(|bytes| std::str::from_utf8(bytes).ok());
    let before: u32 = text.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    match before.saturating_add(1) {
        now if now < CYCLES => Meaning::Counts(now),
        _ => Meaning::Reset,
    }
}

/// Counts this start on the disk.
pub fn count(file: &Path) -> io::Result<Meaning> {
    let meaning = meaning(read_whole(file)?.as_deref());
    match meaning {
        Meaning::Counts(now) => files::keep(file, format!("{now}\n").as_bytes(), 0o600)?,
        // The reset takes the file with it; should it fail, the next starts count from the first.
        Meaning::Reset => forget(file)?,
    }
    Ok(meaning)
}

/// The next start is the first, also if the power goes right after this returns.
pub fn forget(file: &Path) -> io::Result<()> {
    if !files::remove(file)? {
        return Ok(());
    }
    file.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

/// What the console says about a start, if anything.
pub fn told(now: u32) -> Option<String> {
    let left = CYCLES.checked_sub(now).filter(|_| now >= TOLD_FROM)?;
    let seconds = QUICK.as_secs();
    Some(format!(
        "reset: start {now} of {CYCLES} in quick succession; {left} more reset the data; \
         power that stays on for {seconds} s ends that"
    ))
}

/// Waits until this start is one of its own: it has lasted, or somebody asks the machine to end.
pub fn wait_until_it_lasts() -> io::Result<()> {
    let signals = sys::signals(&[Signal::TERM])?;
    let limit = Timespec { tv_sec: i64::try_from(QUICK.as_secs()).unwrap_or(i64::MAX), tv_nsec: 0 };
    let mut fds = [PollFd::new(&signals, PollFlags::IN)];
    poll(&mut fds, Some(&limit)).map(drop).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sixth_start_in_a_row_asks_for_a_reset_and_the_next_is_the_first_again() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("starts");
        for now in 1..CYCLES {
            assert_eq!(count(&file).unwrap(), Meaning::Counts(now));
        }
        assert_eq!(count(&file).unwrap(), Meaning::Reset);
        assert!(!file.exists());
        assert_eq!(count(&file).unwrap(), Meaning::Counts(1));
    }

    #[test]
    fn a_start_that_lasts_ends_the_row() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("starts");
        for _ in 0..3 * CYCLES {
            assert_eq!(count(&file).unwrap(), Meaning::Counts(1));
            forget(&file).unwrap();
        }
        forget(&file).unwrap();
    }

    #[test]
    fn what_is_no_number_counts_as_nothing_and_too_high_a_one_as_enough() {
        for junk in [&b""[..], b"\xff\xfe", b"-1", b"five", b"99999999999999999999"] {
            assert_eq!(meaning(Some(junk)), Meaning::Counts(1), "{junk:?}");
        }
        assert_eq!(meaning(Some(b"5")), Meaning::Reset);
        assert_eq!(meaning(Some(b"4294967295")), Meaning::Reset);
    }

    #[test]
    fn the_console_warns_before_it_is_too_late() {
        assert_eq!([told(1), told(2)], [None, None]);
        let expected = "reset: start 5 of 6 in quick succession; 1 more reset the data; \
                        power that stays on for 10 s ends that";
        assert_eq!(told(5).as_deref(), Some(expected));
    }
}
