//! An image on its way in, over a connection that may break: what has come of it is kept, and the
//! next connection goes on there.
//!
//! ```text
//! /data/iota/push/HEX      the first bytes of an archive whose SHA-256 is HEX
//! ```
//!
//! Of all archives only the last one that was begun is kept, for a day. Nothing of it counts until
//! all has come and the hash is right.

use std::fs::{self, File};
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ondisk::digest::Digest;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::statvfs;

use crate::archive;
use crate::own_disk::Lock;

/// So long nothing may come before a connection counts as dead.
const SILENCE: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };
/// A connection that is dead and has not noticed yet holds the place for so long.
const LOCK_PATIENCE: Duration = Duration::from_secs(75);
/// So long what has come is kept.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// An archive, and how much of it is on the other side of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Of all of it.
    pub digest: Digest,
    /// Bytes of all of it.
    pub length: u64,
    /// Bytes of it that do not come any more, since they are here.
    pub from: u64,
}

/// Where images arrive.
#[derive(Clone, Debug)]
pub struct Arrivals {
    directory: PathBuf,
    lock: PathBuf,
}

impl Arrivals {
    /// Those of a device.
    pub fn device() -> Self {
        Self { directory: "/data/iota/push".into(), lock: "/run/iota/push.lock".into() }
    }

    /// What has come of the archive that was begun last, and how many bytes.
    pub fn begun(&self) -> Option<(Digest, u64)> {
        self.all().into_iter().find_map(|path| {
            let digest = Digest::from_hex(path.file_name()?.to_str()?)?;
            Some((digest, fs::metadata(path).ok()?.len()))
        })
    }

    /// Keeps what comes of an archive; when it is whole, `hand_over` gets it, and it goes.
    pub fn take(
        &self,
        wanted: &Wanted,
        input: &mut dyn Read,
        hand_over: impl FnOnce(&mut File) -> Result<(), String>,
    ) -> Result<(), String> {
        let _lock = Lock::take_within(&self.lock, LOCK_PATIENCE)?;
        let path = self.directory.join(wanted.digest.to_string());
        let failed = |error: io::Error| format!("{}: {error}", path.display());
        let mut file = self.begin(&path, wanted)?;
        let rest = wanted.length - wanted.from;
        let copied = io::copy(&mut input.take(rest), &mut file).and_then(|count| {
            file.flush()?;
            Ok(count)
        });
        match copied {
            Ok(count) if count == rest => {}
            Ok(count) => {
                let has = wanted.from + count;
                return Err(format!("{has} of {} bytes have come and are kept", wanted.length));
            }
            Err(error) => return Err(failed(error)),
        }
        let found = file.rewind().and_then(|()| archive::digest(&mut file)).map_err(failed)?;
        let done = match found == wanted.digest {
            true => file.rewind().map_err(failed).and_then(|()| hand_over(&mut file)),
            false => Err("what came is not what was sent; it is removed: push again".to_owned()),
        };
        fs::remove_file(&path).map_err(failed)?;
        done
    }

    /// The file that the rest is written to; of whatever else was begun nothing stays.
    fn begin(&self, path: &Path, wanted: &Wanted) -> Result<File, String> {
        let failed = |error: io::Error| format!("{}: {error}", path.display());
        fs::create_dir_all(&self.directory).map_err(failed)?;
        for other in self.all().iter().filter(|other| *other != path) {
            fs::remove_file(other).map_err(failed)?;
        }
        let options =
            File::options().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = options.map_err(failed)?;
        let has = file.metadata().map_err(failed)?.len();
        if has < wanted.from || wanted.length < wanted.from {
            return Err(format!("{has} bytes are here, not {}: push again", wanted.from));
        }
        self.has_room(wanted)?;
        file.set_len(wanted.from).map_err(failed)?;
        file.seek(SeekFrom::Start(wanted.from)).map_err(failed)?;
        Ok(file)
    }

    /// For what comes, and for what the engine makes of it while it is still here.
    fn has_room(&self, wanted: &Wanted) -> Result<(), String> {
        let failed = |error| format!("{}: {error}", self.directory.display());
        let told = statvfs(&self.directory).map_err(failed)?;
        let free = told.f_bavail.saturating_mul(told.f_frsize);
        let needed = (wanted.length - wanted.from).saturating_add(wanted.length);
        match needed <= free {
            true => Ok(()),
            false => Err(format!(
                "the data partition has {} MB left, and this takes {} MB for a while\n\
                 hint: `docker image prune` removes images that nothing uses",
                free / 1_000_000,
                needed.div_ceil(1_000_000)
            )),
        }
    }

    /// Removes what has not gone on for a day, whoever's clock is wrong.
    pub fn tidy(&self, now: SystemTime) {
        let Ok(_lock) = Lock::take(&self.lock) else { return };
        for path in self.all() {
            let Ok(then) = fs::metadata(&path).and_then(|it| it.modified()) else { continue };
            let apart = now.duration_since(then).unwrap_or_else(|error| error.duration());
            if apart >= KEPT {
                let _ = fs::remove_file(path);
            }
        }
    }

    fn all(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }
}

/// Bytes of a connection, as long as some come now and then.
pub struct Patient<T>(pub T);

impl<T: Read + AsFd> Read for Patient<T> {
    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&SILENCE))? {
            0 => Err(io::Error::new(io::ErrorKind::TimedOut, "nothing has come for a minute")),
            _ => self.0.read(piece),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARCHIVE: &[u8] = b"manifest, config, layer";

    fn arrivals() -> (tempfile::TempDir, Arrivals) {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let arrivals = Arrivals { directory: at("push"), lock: at("lock") };
        (directory, arrivals)
    }

    fn wanted(from: u64) -> Wanted {
        Wanted { digest: Digest::of(ARCHIVE), length: ARCHIVE.len() as u64, from }
    }

    /// What is handed over when this comes; it is gone from the disk afterwards.
    fn comes(arrivals: &Arrivals, from: usize, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let mut got = Vec::new();
        let hand_over =
            |file: &mut File| file.read_to_end(&mut got).map(drop).map_err(|_| "".into());
        arrivals.take(&wanted(from as u64), &mut &*bytes, hand_over).map(|()| got)
    }

    #[test]
    fn what_a_broken_connection_brought_is_not_sent_again() {
        let (_own, arrivals) = arrivals();
        assert_eq!(arrivals.begun(), None);
        let error = comes(&arrivals, 0, &ARCHIVE[..9]).unwrap_err();
        assert_eq!(error, "9 of 23 bytes have come and are kept");
        assert_eq!(arrivals.begun(), Some((wanted(0).digest, 9)));
        // Less than is here may be asked for: who sends need not know the latest.
        comes(&arrivals, 4, &ARCHIVE[4..8]).unwrap_err();
        assert_eq!(arrivals.begun(), Some((wanted(0).digest, 8)));
        assert_eq!(comes(&arrivals, 8, &ARCHIVE[8..]).unwrap(), ARCHIVE);
        assert_eq!(arrivals.begun(), None);
    }

    #[test]
    fn what_is_not_here_is_not_gone_on_with() {
        let (_own, arrivals) = arrivals();
        comes(&arrivals, 0, &ARCHIVE[..5]).unwrap_err();
        assert!(
            comes(&arrivals, 6, &ARCHIVE[6..]).unwrap_err().contains("5 bytes are here, not 6")
        );
        assert!(comes(&arrivals, 100, b"").is_err());
        assert_eq!(arrivals.begun(), Some((wanted(0).digest, 5)));
    }

    #[test]
    fn other_bytes_of_the_same_length_are_refused_and_removed() {
        let (_own, arrivals) = arrivals();
        let error = comes(&arrivals, 0, &ARCHIVE.to_ascii_uppercase()).unwrap_err();
        assert!(error.contains("not what was sent"), "{error}");
        assert_eq!(arrivals.begun(), None);
    }

    #[test]
    fn an_archive_that_the_engine_refuses_is_removed() {
        let (_own, arrivals) = arrivals();
        let refuse = |_: &mut File| Err("no such layer".to_owned());
        let done = arrivals.take(&wanted(0), &mut &*ARCHIVE, refuse);
        assert_eq!(done, Err("no such layer".to_owned()));
        assert_eq!(arrivals.begun(), None);
    }

    #[test]
    fn only_what_was_begun_last_is_kept_and_for_a_day() {
        let (_own, arrivals) = arrivals();
        comes(&arrivals, 0, &ARCHIVE[..5]).unwrap_err();
        let other = Wanted { digest: Digest::of(b"other"), length: 5, from: 0 };
        arrivals.take(&other, &mut &b"oth"[..], |_| Ok(())).unwrap_err();
        assert_eq!(arrivals.begun(), Some((other.digest, 3)));
        arrivals.tidy(SystemTime::now() + KEPT / 2);
        assert!(arrivals.begun().is_some());
        arrivals.tidy(SystemTime::now() + KEPT * 2);
        assert_eq!(arrivals.begun(), None);
    }

    #[test]
    fn an_archive_that_does_not_fit_is_refused_before_it_comes() {
        let (_own, arrivals) = arrivals();
        let huge = Wanted { length: 1 << 60, ..wanted(0) };
        let error = arrivals.take(&huge, &mut &*ARCHIVE, |_| Ok(())).unwrap_err();
        assert!(error.contains("hint: `docker image prune`"), "{error}");
    }
}
