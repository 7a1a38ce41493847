//! `iota mend-output`: makes the files with containers' output readable again after a power cut,
//! before the engine goes on writing them.
//!
//! ext4 keeps the length of a file in its journal, and writes what was added to a block that the
//! file already had when it has time. So a cut leaves zeros where the last lines were, up to some
//! blocks of them, and perhaps whole lines behind. Docker reads no further than there, for as long
//! as the file lives; what it adds later lies behind.
//!
//! ```text
//! /var/lib/docker/containers/ID/local-logs/container.log      the driver `local`: entries of
//!     4 length   n protobuf   4 length again                  moby, daemon/logger/local/local.go
//! /var/lib/docker/containers/ID/ID-json.log                   the driver `json-file`: {…}⏎
//! /var/lib/containers/storage/overlay-containers/ID/userdata/ctr.log          Podman's conmon, and
//! /var/lib/containerd/output/NAME.log                         `iota containerd log`: 2026-… …⏎
//! ```
//! `.1` and so on behind a name are older files. Docker packs those when it puts them away; what is
//! packed is left alone.
//!
//! Guarantees: whole entries stay, in their order; a file whose entries are all whole is not
//! written. A cut in the middle of the work leaves what the next start mends.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use ondisk::data_care::{Outcome, State};

use crate::files;

/// So much of the end of a file is looked at: more than an engine lets one grow, and more than is
/// written in the half minute after which the kernel has written everything.
const MOST: u64 = 16 << 20;
/// Docker takes no longer entry for one (moby, daemon/logger/local/read.go).
const LONGEST: u32 = 1_000_000;

/// How the entries of a file are told from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// Docker's own.
    Local,
    /// A line of JSON each.
    Json,
    /// A line each, that starts with its time.
    Text,
}

/// A file that was not whole.
#[derive(Debug, PartialEq, Eq)]
pub struct Mended {
    /// Its path.
    pub path: PathBuf,
    /// Bytes that belonged to no whole entry.
    pub lost: u64,
}

/// Whether the engine may find half-written files at this start.
pub fn is_needed(data: &Outcome) -> bool {
    data.was_cut || matches!(data.state, State::Repaired { .. })
}

/// Mends the output of all containers below the directory where engines keep theirs (`/var/lib`);
/// `told` hears of each file that was not whole, or could not be mended.
pub fn mend_all(engines: &Path, told: &mut dyn FnMut(Result<Mended, String>)) {
    let logs = |parent: &Path, framing, is_one: &dyn Fn(&str) -> bool| {
        let names = files::names(parent).into_iter().filter(|name| is_one(name));
        names.map(|name| (parent.join(name), framing)).collect::<Vec<_>>()
    };
    let docker = engines.join("docker/containers");
    let podman = engines.join("containers/storage/overlay-containers");
    let containerd = engines.join("containerd/output");
    let mut all = logs(&containerd, Framing::Text, &|name| is_log(name, ".log"));
    for id in files::names(&docker) {
        let own = docker.join(id);
        all.extend(logs(&own, Framing::Json, &|name| is_log(name, "-json.log")));
        let local = own.join("local-logs");
        all.extend(logs(&local, Framing::Local, &|name| is_log(name, "container.log")));
    }
    for id in files::names(&podman) {
        let own = podman.join(id).join("userdata");
        all.extend(logs(&own, Framing::Text, &|name| is_log(name, "ctr.log")));
    }
    for (path, framing) in all {
        match mend(&path, framing) {
            Ok(0) => {}
            Ok(lost) => told(Ok(Mended { path, lost })),
            Err(error) => told(Err(format!("{}: {error}", path.display()))),
        }
    }
}

/// Whether a name ends like this, or so with the number of an older file.
fn is_log(name: &str, end: &str) -> bool {
    let numbered = name.rsplit_once('.').filter(|(_, number)| number.parse::<u16>().is_ok());
    name.ends_with(end) || numbered.is_some_and(|(plain, _)| plain.ends_with(end))
}

/// Gives how many bytes went.
fn mend(path: &Path, framing: Framing) -> io::Result<u64> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    let start = length.saturating_sub(MOST);
    let mut bytes = vec![0; usize::try_from(length - start).unwrap_or_default()];
    file.read_exact_at(&mut bytes, start)?;
    let mut whole = framing.whole(&bytes);
    if start > 0 {
        // It may begin in the middle of one.
        let first = whole.first().map_or(bytes.len(), |first| first.start);
        whole.insert(0, 0..first);
    }
    let kept = whole.iter().map(ExactSizeIterator::len).sum::<usize>();
    let lost = (bytes.len() - kept) as u64;
    if lost > 0 {
        join(&file, start, &bytes, &whole)?;
        file.set_len(length - lost)?;
        file.sync_data()?;
    }
    Ok(lost)
}

/// Moves the pieces together.
fn join(file: &File, start: u64, bytes: &[u8], pieces: &[Range<usize>]) -> io::Result<()> {
    let mut to = start;
    for piece in pieces {
        let content = bytes.get(piece.clone()).unwrap_or_default();
        if to != start + piece.start as u64 {
            file.write_all_at(content, to)?;
        }
        to += content.len() as u64;
    }
    Ok(())
}

impl Framing {
    /// Where whole entries are, neighbours as one piece.
    fn whole(self, bytes: &[u8]) -> Vec<Range<usize>> {
        let mut pieces: Vec<Range<usize>> = Vec::new();
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let (length, is_whole) = match self {
                // Without a length to go by, the next entry may begin anywhere.
                Self::Local => entry(rest).map_or((1, false), |length| (length, true)),
                Self::Json | Self::Text => {
                    let end = rest.iter().position(|byte| *byte == b'\n');
                    let line = rest.get(..end.map_or(rest.len(), |end| end + 1)).unwrap_or(rest);
                    (line.len(), self.is_line(line))
                }
            };
            let piece = at..at + length;
            match pieces.last_mut().filter(|last| last.end == piece.start) {
                _ if !is_whole => {}
                Some(last) => last.end = piece.end,
                None => pieces.push(piece.clone()),
            }
            at = piece.end;
        }
        pieces
    }

    fn is_line(self, line: &[u8]) -> bool {
        let starts = match self {
            Self::Json => line.starts_with(b"{") && !line.contains(&0),
            // What a container said may have zeros in it.
            _ => line.first().is_some_and(u8::is_ascii_digit),
        };
        starts && line.ends_with(b"\n")
    }
}

/// Length of the entry that these bytes begin with, if they begin with a whole one.
fn entry(bytes: &[u8]) -> Option<usize> {
    let length = bytes.first_chunk().map(|length| u32::from_be_bytes(*length))?;
    let content = usize::try_from(length).ok().filter(|_| (1..=LONGEST).contains(&length))?;
    let end = bytes.get(4 + content..)?.first_chunk()?;
    (u32::from_be_bytes(*end) == length).then_some(content + 8)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn local(texts: &[&str]) -> Vec<u8> {
        let entry = |text: &&str| {
            let length = u32::try_from(text.len()).unwrap().to_be_bytes();
            [&length, text.as_bytes(), &length].concat()
        };
        texts.iter().flat_map(entry).collect()
    }

    /// What is left of a file, and how much went.
    fn mended(framing: Framing, parts: &[&[u8]]) -> (Vec<u8>, u64) {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), parts.concat()).unwrap();
        let lost = mend(file.path(), framing).unwrap();
        assert_eq!(mend(file.path(), framing).unwrap(), 0, "all is whole now");
        (fs::read(file.path()).unwrap(), lost)
    }

    #[test]
    fn whole_entries_stay_before_and_behind_what_a_cut_left() {
        let json = b"{\"log\":\"one\\n\"}\n{\"log\":\"two\\n\"}\n".as_slice();
        let text = b"2026-11-28T20:00:00.1Z stdout F one\n2026- stdout F t\0wo\n".as_slice();
        let own = local(&["one", "a longer second entry", "3"]);
        for (framing, whole) in
            [(Framing::Local, &*own), (Framing::Json, json), (Framing::Text, text)]
        {
            assert_eq!(mended(framing, &[whole]), (whole.to_vec(), 0));
            let zeros = [0; 5000];
            for count in [1, 3, 4, 7, 8, 9, 16, 4096, 5000] {
                let zeros = &zeros[..count];
                let lost = count as u64;
                assert_eq!(mended(framing, &[whole, zeros]), (whole.to_vec(), lost));
                let both = [whole, whole].concat();
                assert_eq!(mended(framing, &[whole, zeros, b"\n", whole]), (both, lost + 1));
            }
        }
        assert_eq!(mended(Framing::Local, &[]), (Vec::new(), 0));
    }

    #[test]
    fn an_entry_that_is_half_there_goes() {
        let whole = local(&["one", "two"]);
        let longer = local(&["one", "two", "a third entry"]);
        for end in whole.len()..longer.len() {
            for tail in [&[][..], &[0; 40]] {
                let (left, lost) = mended(Framing::Local, &[&longer[..end], tail]);
                assert_eq!((&left, lost), (&whole, (end - whole.len() + tail.len()) as u64));
            }
        }
        let (left, _) = mended(Framing::Json, &[b"{\"log\":\"a\\n\"}\n{\"log\":\"b"]);
        assert_eq!(left, b"{\"log\":\"a\\n\"}\n");
    }

    #[test]
    fn only_the_end_of_a_long_file_is_looked_at() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "x".repeat(100_000);
        let entries = vec![text.as_str(); 180];
        let whole = local(&entries);
        assert!(whole.len() as u64 > MOST + 100_000);
        fs::write(file.path(), [&whole[..], &[0; 77]].concat()).unwrap();
        assert_eq!(mend(file.path(), Framing::Local).unwrap(), 77);
        assert!(fs::read(file.path()).unwrap() == whole);
    }

    #[test]
    fn the_output_of_every_engine_is_found_and_nothing_else_is_touched() {
        let directory = tempfile::tempdir().unwrap();
        let (docker, podman) = ("docker/containers/1", "containers/storage/overlay-containers/2");
        let found = [
            "containerd/output/web.log".to_owned(),
            "containerd/output/web.log.1".to_owned(),
            format!("{docker}/1-json.log"),
            format!("{docker}/1-json.log.2"),
            format!("{docker}/local-logs/container.log"),
            format!("{docker}/local-logs/container.log.1"),
            format!("{podman}/userdata/ctr.log"),
        ];
        let others = [
            format!("{docker}/config.v2.json"),
            format!("{docker}/1-json.log.1.gz"),
            format!("{docker}/local-logs/container.log.2.gz"),
            format!("{podman}/userdata/config.json"),
            "docker/volumes/pages/_data/web.log".to_owned(),
        ];
        for name in found.iter().chain(&others) {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, [0; 9]).unwrap();
        }
        let mut told = Vec::new();
        mend_all(directory.path(), &mut |result| told.push(result.unwrap()));
        let expected = found.map(|name| Mended { path: directory.path().join(name), lost: 9 });
        assert_eq!(told, expected);
        for name in others {
            assert_eq!(fs::read(directory.path().join(name)).unwrap(), [0; 9]);
        }
        mend_all(&directory.path().join("nothing"), &mut |_| unreachable!("there is none"));
    }

    #[test]
    fn after_an_orderly_end_nothing_is_read() {
        let good = Outcome::from(State::Good);
        assert!(!is_needed(&good));
        assert!(is_needed(&Outcome { was_cut: true, ..good }));
        let (why, said) = (String::new(), String::new());
        assert!(is_needed(&State::Repaired { why, said }.into()));
    }
}
