//! `iota containerd log`: takes a container's output for an engine that keeps none, and keeps the
//! last of it.
//!
//! containerd's shim starts it for each start of a container, with the output on descriptor 3, the
//! errors on 4, and 5 to be closed when it is ready. It ends with the container.
//!
//! ```text
//! /var/lib/containerd/output/NAME.log      lines as Podman's conmon writes them (engine::podman)
//! /var/lib/containerd/output/NAME.log.1    the ones before, when the first has grown too long
//! /run/iota/output/NAME                    process that writes: without it nothing more will come
//! ```
//!
//! Guarantees: a container never waits for a disk that is full (its lines are lost then), and takes
//! no more of the disk than [`MOST`] twice.

use std::fs::{self, DirBuilder, File};
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::files;
use crate::sys;
use crate::time::Moment;

const DIRECTORY: &str = "/var/lib/containerd/output";
const WRITERS: &str = "/run/iota/output";

/// A file that is longer than this is put away for a new one.
const MOST: u64 = 5 << 20;

/// A longer line is written in pieces.
const PIECE: u64 = 16 * 1024;

/// Where a container's output is.
pub fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{name}.log"))
}

fn old(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

/// The process that takes a container's output, if one ever did since the device was started.
pub fn writer(name: &str) -> Option<u32> {
    fs::read_to_string(Path::new(WRITERS).join(name)).ok()?.trim().parse().ok()
}

/// Before a container's first start: an output without a line.
pub fn begin(name: &str) -> io::Result<()> {
    directory(Path::new(DIRECTORY))?;
    File::create(path(name)).map(drop)
}

/// Removes what a container that is gone has said.
pub fn forget(name: &str) -> io::Result<()> {
    let path = path(name);
    for file in [&old(&path), &path, &Path::new(WRITERS).join(name)] {
        files::remove(file)?;
    }
    Ok(())
}

fn directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// What `iota containerd log` does.
pub fn run() -> Result<(), String> {
    let name = std::env::var("CONTAINER_ID")
        .map_err(|_| "this is started by containerd, which names a container".to_owned())?;
    if name.contains('/') {
        return Err(format!("`{name}` is no name of a container"));
    }
    let failed = |error: io::Error| format!("container {name}: its output is not kept: {error}");
    let (output, errors, ready) = (sys::inherited(3), sys::inherited(4), sys::inherited(5));
    directory(Path::new(WRITERS)).map_err(failed)?;
    let own = std::process::id().to_string();
    files::replace(&Path::new(WRITERS).join(&name), own.as_bytes(), 0o600).map_err(failed)?;
    directory(Path::new(DIRECTORY)).map_err(failed)?;
    let log = Mutex::new(Log::open(path(&name), MOST).map_err(failed)?);
    drop(ready);
    thread::scope(|scope| {
        scope.spawn(|| take("stdout", File::from(output), &log));
        take("stderr", File::from(errors), &log);
    });
    Ok(())
}

/// Until everybody who could write has closed it.
fn take(stream: &str, source: impl Read, log: &Mutex<Log>) {
    let mut source = BufReader::new(source);
    loop {
        let mut line = Vec::new();
        match source.by_ref().take(PIECE).read_until(b'\n', &mut line) {
            Ok(0) => return,
            Ok(_) => {
                let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                // A disk that is full must not stop the container, which waits for its reader.
                let _ = log.add(stream, &line, Moment::now());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

struct Log {
    path: PathBuf,
    file: File,
    length: u64,
    most: u64,
}

impl Log {
    /// Goes on with what is there; a line that a power cut has left in the middle is ended.
    fn open(path: PathBuf, most: u64) -> io::Result<Self> {
        let mut file = File::options().create(true).append(true).open(&path)?;
        let mut length = file.metadata()?.len();
        if length > 0 {
            file.write_all(b"\n")?;
            length += 1;
        }
        Ok(Self { path, file, length, most })
    }

    fn add(&mut self, stream: &str, line: &[u8], now: Moment) -> io::Result<()> {
        let (text, whole) = match line.strip_suffix(b"\n") {
            Some(text) => (text, 'F'),
            None => (line, 'P'),
        };
        let head = format!("{} {stream} {whole} ", now.rfc3339());
        // In one piece, so that a reader sees whole lines.
        let bytes = [head.as_bytes(), text, b"\n"].concat();
        if self.length > self.most {
            fs::rename(&self.path, old(&self.path))?;
            self.file = File::options().create(true).append(true).open(&self.path)?;
            self.length = 0;
        }
        self.file.write_all(&bytes)?;
        self.length = self.length.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment() -> Moment {
        Moment::parse("2026-11-28T20:00:00.5Z").unwrap()
    }

    #[test]
    fn lines_are_written_as_the_reader_of_containers_files_takes_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web.log");
        let mut log = Log::open(path.clone(), MOST).unwrap();
        log.add("stdout", b"one\n", moment()).unwrap();
        log.add("stderr", b"tw", moment()).unwrap();
        let expected = "2026-11-28T20:00:00.500000000Z stdout F one\n\
            2026-11-28T20:00:00.500000000Z stderr P tw\n";
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        drop(log);
        fs::write(&path, "2026-11-28T20:0").unwrap();
        Log::open(path.clone(), MOST).unwrap().add("stdout", b"two\n", moment()).unwrap();
        let expected = "2026-11-28T20:0\n2026-11-28T20:00:00.500000000Z stdout F two\n";
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    }

    #[test]
    fn a_container_that_never_stops_talking_takes_two_files_and_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let log = Log::open(directory.path().join("web.log"), 1000).unwrap();
        let (source, log) = ("a line of some length\n".repeat(1000), Mutex::new(log));
        take("stdout", source.as_bytes(), &log);
        let mut lengths = Vec::new();
        for entry in fs::read_dir(directory.path()).unwrap() {
            lengths.push(entry.unwrap().metadata().unwrap().len());
        }
        assert_eq!(lengths.len(), 2);
        assert!(lengths.iter().all(|length| *length < 1100), "{lengths:?}");
    }

    #[test]
    fn a_long_line_comes_in_pieces_and_all_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web.log");
        let log = Mutex::new(Log::open(path.clone(), MOST).unwrap());
        take("stdout", [&[b'x'; 40_000][..], b"\nend"].concat().as_slice(), &log);
        let text = fs::read_to_string(&path).unwrap();
        let pieces: Vec<(&str, usize)> = text
            .lines()
            .map(|line| line.split_once("stdout ").unwrap().1.split_once(' ').unwrap())
            .map(|(whole, text)| (whole, text.len()))
            .collect();
        assert_eq!(pieces, [("P", 16_384), ("P", 16_384), ("F", 7_232), ("P", 3)]);
    }
}
