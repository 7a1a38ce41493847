//! A store that its engine cannot open any more is put aside, and the engine makes a new one.
//!
//! ```text
//! /var/lib/docker/…               all of it but the volumes, which stay
//! /var/lib/docker/aside/…         what was there before, for a week
//! /var/lib/docker/aside/when      seconds since 1970; there once everything else is
//! ```
//! Likewise in `/var/lib/containers/storage`.
//!
//! Images that the system brings are loaded into the new store, and its containers and apps made
//! anew, as on a new device. What was only in the store (pulled images, containers by hand) is in
//! `aside` for whoever wants to have a look.
//!
//! Guarantees: nothing is done while a system is on trial (it may be the new engine that is wrong,
//! and the old one is still there), nor twice within a day; volumes are never moved or removed; a
//! power cut at any moment leaves files in the store or in `aside`, and the next start goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, DirEntry, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ondisk::system::System;
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use rustix::mount::{UnmountFlags, unmount};

use crate::files;

/// How often to look: a life may be short.
pub const PACE: Duration = Duration::from_millis(250);
/// How long an engine gets to start before it is suspected: a slow card, a store of many images.
const PATIENCE: Duration = Duration::from_secs(90);
/// So many times it has been started by then: one that is only slow lives on.
const LIVES: usize = 5;
const DAY_S: u64 = 24 * 60 * 60;
/// After this the space is wanted back.
const KEPT_S: u64 = 7 * DAY_S;

/// Where the old store goes, in the store itself: the same file system, and found with it.
const ASIDE: &str = "aside";
const WHEN: &str = "when";
const VOLUMES: &str = "volumes";
/// The persistent directory of Podman and its libraries.
const CONTAINERS: &str = "containers";
/// The engine's notes about volumes, which it makes anew; it does not start with bad ones.
const NOTES: &str = "metadata.db";

/// What was seen of an engine that has not answered since the start.
#[derive(Debug, Default)]
pub struct Seen {
    /// The processes that each of its services had.
    lives: BTreeMap<String, BTreeSet<i32>>,
}

impl Seen {
    /// A service has this process now, or none.
    pub fn note(&mut self, service: &str, process: Option<i32>) {
        if let Some(process) = process {
            self.lives.entry(service.to_owned()).or_default().insert(process);
        }
    }

    /// Whether it ends by itself whenever it is started.
    pub fn is_hopeless(&self, waited: Duration) -> bool {
        waited >= PATIENCE && self.lives.values().any(|lives| lives.len() >= LIVES)
    }
}

/// The store of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store(PathBuf);

impl Store {
    /// At this place.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The one that a system keeps for its engine, if it keeps one.
    pub fn of(system: &System) -> Option<Self> {
        let engine = system.engine.as_ref()?;
        let kept = |name: &str| system.persistent.iter().find(|kept| kept.name == name);
        match kept(&engine.name) {
            Some(kept) => Some(Self::at(&kept.path)),
            // Podman's lies beside its networks, which stay.
            None => kept(CONTAINERS).map(|kept| Self::at(Path::new(&kept.path).join("storage"))),
        }
    }

    /// In words for people, what came of putting it aside.
    pub fn told(&self, engine: &str, done: Result<(), String>) -> String {
        match done {
            Ok(()) => format!(
                "engine {engine} ended again and again: its store is put aside, in {}, and it \
                 begins with a new one; volumes stay",
                self.aside_path()
            ),
            Err(error) => format!("engine {engine} ends again and again: {error}"),
        }
    }

    fn aside(&self) -> PathBuf {
        self.0.join(ASIDE)
    }

    /// When it was put aside, in seconds since 1970, if it was.
    pub fn put_aside_s(&self) -> Option<u64> {
        fs::read_to_string(self.aside().join(WHEN)).ok()?.trim().parse().ok()
    }

    /// Where what was put aside lies, for people.
    pub fn aside_path(&self) -> String {
        self.aside().display().to_string()
    }

    /// Puts everything but the volumes aside.
    ///
    /// Errors: in one clause; nothing was moved if that was done within a day.
    pub fn put_aside(&self, now_s: u64) -> Result<(), String> {
        if self.put_aside_s().is_some_and(|then_s| now_s.abs_diff(then_s) < DAY_S) {
            return Err("that was done within a day, and did not help".to_owned());
        }
        let failed = |error: io::Error| format!("{}: {error}", self.0.display());
        if self.put_aside_s().is_some() {
            files::remove_tree(&self.aside()).map_err(failed)?;
        }
        self.move_all().map_err(failed)?;
        let when = self.aside().join(WHEN);
        files::keep(&when, format!("{now_s}\n").as_bytes(), 0o600).map_err(failed)
    }

    fn move_all(&self) -> io::Result<()> {
        let aside = self.aside();
        fs::create_dir_all(&aside)?;
        let entries: Vec<DirEntry> = fs::read_dir(&self.0)?.collect::<io::Result<_>>()?;
        for entry in entries {
            if entry.file_name() != ASIDE && entry.file_name() != VOLUMES {
                let to = free_name(&aside, &entry.file_name().to_string_lossy());
                rename(&entry.path(), &to)?;
                // PID 1 asked for it, and would do so again only at the next start.
                if is_journaled(&to) {
                    make_journaled(&entry.path(), fs::metadata(&to)?.permissions().mode())?;
                }
            }
        }
        match fs::rename(self.0.join(VOLUMES).join(NOTES), free_name(&aside, NOTES)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Removes what has been aside for a week; gives whether it did.
    pub fn tidy(&self, now_s: u64) -> io::Result<bool> {
        match self.put_aside_s() {
            // A clock that was ahead then is believed too.
            Some(then_s) if now_s.abs_diff(then_s) >= KEPT_S => files::remove_tree(&self.aside()),
            _ => Ok(false),
        }
    }
}

/// Whether it is a directory below which contents are written through the journal: memory has none.
fn is_journaled(path: &Path) -> bool {
    let flags = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path);
    let flags = flags.and_then(|file| Ok(ioctl_getflags(file)?));
    flags.is_ok_and(|flags| flags.contains(IFlags::JOURNALING))
}

fn make_journaled(directory: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().mode(mode & 0o777).create(directory)?;
    let directory = File::open(directory)?;
    let flags = ioctl_getflags(&directory)?;
    Ok(ioctl_setflags(&directory, flags | IFlags::JOURNALING)?)
}

/// Podman mounts a directory of its store onto itself, and leaves that behind when it fails.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            unmount(from, UnmountFlags::DETACH)?;
            fs::rename(from, to)
        }
        done => done,
    }
}

/// A power cut in the middle leaves some of the old store there, and the engine has begun another.
fn free_name(directory: &Path, name: &str) -> PathBuf {
    let plain = directory.join(name);
    let numbered = (1_u32..).map(|number| directory.join(format!("{name}.{number}")));
    let is_free = |path: &PathBuf| fs::symlink_metadata(path).is_err();
    std::iter::once(plain.clone()).chain(numbered).find(is_free).unwrap_or(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for path in ["overlay2/a", "containerd/daemon", "volumes/pages/_data"] {
            fs::create_dir_all(root.join(path)).unwrap();
        }
        fs::write(root.join("volumes/pages/_data/index.html"), "mine").unwrap();
        fs::write(root.join("volumes/metadata.db"), "garbled").unwrap();
        fs::write(root.join("engine-id"), "1").unwrap();
        let store = Store::at(root);
        (directory, store)
    }

    #[test]
    fn an_engine_that_is_slow_is_not_one_that_ends_again_and_again() {
        let mut slow = Seen::default();
        for _ in 0..100 {
            slow.note("docker", Some(70));
            slow.note("containerd", None);
        }
        assert!(!slow.is_hopeless(Duration::from_secs(3600)));
        let mut ends = Seen::default();
        (0..4).for_each(|process| ends.note("containerd", Some(process)));
        (4..7).for_each(|process| ends.note("docker", Some(process)));
        assert!(!ends.is_hopeless(PATIENCE));
        ends.note("containerd", Some(9));
        assert!(ends.is_hopeless(PATIENCE) && !ends.is_hopeless(Duration::from_secs(89)));
    }

    #[test]
    fn volumes_stay_and_all_else_is_put_aside_once_a_day() {
        let (directory, store) = store();
        let root = directory.path();
        assert_eq!(store.put_aside_s(), None);
        // Where the test may, and the file system can.
        let journaled = make_journaled(&root.join("layers"), 0o700).is_ok();
        store.put_aside(1_000_000).unwrap();
        assert_eq!(is_journaled(&root.join("layers")), journaled);
        let _ = fs::remove_dir(root.join("layers"));
        assert_eq!(store.put_aside_s(), Some(1_000_000));
        let mut left: Vec<_> =
            fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["aside", "volumes"]);
        assert_eq!(fs::read(root.join("volumes/pages/_data/index.html")).unwrap(), b"mine");
        assert!(!root.join("volumes/metadata.db").exists());
        for path in ["overlay2/a", "containerd/daemon", "engine-id", "metadata.db"] {
            assert!(root.join("aside").join(path).exists(), "{path}");
        }
        fs::write(root.join("engine-id"), "2").unwrap();
        let again = store.put_aside(1_000_000 + DAY_S - 1).unwrap_err();
        assert_eq!(again, "that was done within a day, and did not help");
        assert_eq!(fs::read(root.join("engine-id")).unwrap(), b"2");
        store.put_aside(1_000_000 + DAY_S).unwrap();
        assert_eq!(fs::read(root.join("aside/engine-id")).unwrap(), b"2");
        assert!(!root.join("aside/overlay2").exists(), "the older one takes space");
    }

    #[test]
    fn after_a_power_cut_in_the_middle_nothing_of_either_store_is_lost() {
        let (directory, store) = store();
        let root = directory.path();
        fs::create_dir(root.join("aside")).unwrap();
        fs::rename(root.join("engine-id"), root.join("aside/engine-id")).unwrap();
        fs::write(root.join("engine-id"), "2").unwrap();
        store.put_aside(5).unwrap();
        assert_eq!(fs::read(root.join("aside/engine-id")).unwrap(), b"1");
        assert_eq!(fs::read(root.join("aside/engine-id.1")).unwrap(), b"2");
    }

    #[test]
    fn what_was_put_aside_goes_after_a_week() {
        let (directory, store) = store();
        assert!(!store.tidy(5).unwrap());
        store.put_aside(5).unwrap();
        assert!(!store.tidy(5 + KEPT_S - 1).unwrap());
        assert!(directory.path().join("aside").exists());
        assert!(store.tidy(5 + KEPT_S).unwrap());
        assert!(!directory.path().join("aside").exists());
    }
}
