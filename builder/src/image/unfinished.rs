//! Output files that appear complete or not at all.
//!
//! ```text
//! out/.disk.img.unfinished   locked and written while the build runs; nobody else's business
//! out/disk.img               the same file, flushed and then renamed: complete or not there
//! ```
//!
//! Guarantees: an error, a panic, a dropped value or Ctrl-C (through [`discard_unfinished`])
//! removes the unfinished file; what `kill -9` leaves behind is taken over by the next build. A
//! second build of the same target is refused while the first one runs.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::NamedTempFile;

use crate::error::{Context, Error, Result};

/// Temporary names that exist now; creation, renaming and removal happen under this lock.
static UNFINISHED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn unfinished() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    // A panic elsewhere must not stop the removal of half-written files.
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes every unfinished file and lets none be created or completed any more.
///
/// For the Ctrl-C handler, which ends the process right after: an output is either renamed before
/// this call or removed by it.
pub fn discard_unfinished() {
    let mut names = unfinished();
    for name in std::mem::take(&mut *names) {
        // Nothing can be done about a failure here; the next build takes the file over.
        let _ = fs::remove_file(name);
    }
    std::mem::forget(names);
}

/// An output file under a temporary name beside its target.
#[derive(Debug)]
pub struct Unfinished {
    file: File,
    temporary: PathBuf,
    target: PathBuf,
}

impl Unfinished {
    /// Creates and locks the temporary file; makes no other change to the target's directory.
    pub fn create(target: &Path) -> Result<Self> {
        let name = target.file_name().ok_or_else(|| {
            Error::new(format!("cannot write {}: it names no file", target.display()))
        })?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(".unfinished");
        let temporary = target.with_file_name(hidden);
        let mut names = unfinished();
        let file = open_locked(&temporary, target)?;
        names.insert(temporary.clone());
        drop(names);
        let this = Self { file, temporary, target: target.to_owned() };
        this.file.set_len(0).context(|| format!("cannot empty {}", this.temporary.display()))?;
        Ok(this)
    }

    /// The open file, readable and writable.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The name the file gets when it is complete.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Flushes the file and its name to the disk and gives it the target's name.
    pub fn finish(self) -> Result<()> {
        let failed = || format!("cannot complete {}", self.target.display());
        self.file.sync_all().map_err(|error| with_room_hint(failed(), error))?;
        let mut names = unfinished();
        fs::rename(&self.temporary, &self.target).context(failed)?;
        names.remove(&self.temporary);
        drop(names);
        let directory = directory_of(&self.target);
        File::open(directory).and_then(|directory| directory.sync_all()).context(failed)
    }
}

impl Write for Unfinished {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let mut names = unfinished();
        // Not in the list: renamed, or already removed by the Ctrl-C handler.
        if names.remove(&self.temporary) {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Writes a small file so that readers see the old or the new one, whole, with mode 0644. Two
/// programs may write the same target at once: the later one wins.
pub(crate) fn replace(target: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut names = unfinished();
    let mut file = NamedTempFile::new_in(directory_of(target))?;
    let temporary = file.path().to_owned();
    names.insert(temporary.clone());
    drop(names);
    let permissions = fs::Permissions::from_mode(0o644);
    let written = file.as_file().set_permissions(permissions).and_then(|()| file.write_all(bytes));
    let mut names = unfinished();
    names.remove(&temporary);
    written?;
    file.persist(target)?;
    Ok(())
}

fn directory_of(target: &Path) -> &Path {
    match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn open_locked(temporary: &Path, target: &Path) -> Result<File> {
    let failed = || format!("cannot create {}", temporary.display());
    loop {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(temporary).context(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::new(format!("another build is writing {}", target.display()))
                    .hint("wait until it has ended, or choose another output directory"));
            }
            Err(TryLockError::Error(error)) => return Err(error).context(failed),
        }
        // The other build may have renamed the file between our open and our lock.
        let same = |named: fs::Metadata, opened: fs::Metadata| {
            named.ino() == opened.ino() && named.dev() == opened.dev()
        };
        if let (Ok(named), Ok(opened)) = (fs::metadata(temporary), file.metadata())
            && same(named, opened)
        {
            return Ok(file);
        }
    }
}

/// A full disk is the user's to empty; any other error of the system speaks for itself.
pub(crate) fn with_room_hint(message: String, error: io::Error) -> Error {
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let error = Error::caused(message, error);
    if full {
        error.hint("free some disk space, or choose another output directory")
    } else {
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn an_output_appears_when_it_is_complete_and_not_before() {
        let directory = directory();
        let target = directory.path().join("disk.img");
        fs::write(&target, "old").unwrap();
        let mut output = Unfinished::create(&target).unwrap();
        output.write_all(b"new").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"old");
        output.finish().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"new");
        assert_eq!(names(directory.path()), ["disk.img"]);
    }

    #[test]
    fn a_dropped_output_leaves_the_directory_as_it_was() {
        let directory = directory();
        let output = Unfinished::create(&directory.path().join("disk.img")).unwrap();
        assert_eq!(names(directory.path()), [".disk.img.unfinished"]);
        drop(output);
        assert!(names(directory.path()).is_empty());
    }

    #[test]
    fn a_second_build_of_the_same_target_is_refused_while_the_first_runs() {
        let directory = directory();
        let target = directory.path().join("disk.img");
        let first = Unfinished::create(&target).unwrap();
        let error = Unfinished::create(&target).unwrap_err();
        assert!(error.to_string().starts_with("another build is writing "), "{error}");
        assert!(error.next_step().is_some());
        first.finish().unwrap();
        Unfinished::create(&target).unwrap().finish().unwrap();
    }

    #[test]
    fn what_a_killed_build_left_behind_is_taken_over() {
        let directory = directory();
        fs::write(directory.path().join(".disk.img.unfinished"), "half").unwrap();
        Unfinished::create(&directory.path().join("disk.img")).unwrap().finish().unwrap();
        assert_eq!(names(directory.path()), ["disk.img"]);
        assert_eq!(fs::read(directory.path().join("disk.img")).unwrap(), b"");
    }

    /// In a process of its own: after the discarding nothing can be written any more.
    #[test]
    fn an_interrupt_removes_unfinished_files_for_good() {
        const VARIABLE: &str = "IOTA_TEST_DISCARD";
        if let Some(target) = std::env::var_os(VARIABLE) {
            let _output = Unfinished::create(Path::new(&target)).unwrap();
            let other = Path::new(&target).with_extension("zst");
            std::thread::spawn(move || Unfinished::create(&other).unwrap().finish());
            let small = Path::new(&target).with_extension("json");
            std::thread::spawn(move || {
                loop {
                    replace(&small, &[b'x'; 100_000]).unwrap();
                }
            });
            std::thread::sleep(std::time::Duration::from_millis(20));
            discard_unfinished();
            std::process::exit(130);
        }
        let directory = directory();
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "image::unfinished::tests::an_interrupt_removes_unfinished_files_for_good",
            ])
            .env(VARIABLE, directory.path().join("disk.img"))
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(130));
        // The other threads' files were complete before the interrupt, or are not there at all.
        let mut left = names(directory.path());
        left.retain(|name| !["disk.zst", "disk.json"].contains(&name.as_str()));
        assert!(left.is_empty(), "{left:?}");
    }

    #[test]
    fn a_full_disk_comes_with_a_hint() {
        let error = |kind| with_room_hint("cannot write x".into(), io::Error::from(kind));
        assert!(error(io::ErrorKind::StorageFull).next_step().unwrap().starts_with("free some"));
        assert!(error(io::ErrorKind::PermissionDenied).next_step().is_none());
    }

    #[test]
    fn a_missing_directory_is_an_error_that_names_the_file() {
        let error = Unfinished::create(Path::new("/nowhere/at/all/disk.img")).unwrap_err();
        let chain = error.chain();
        assert!(chain.starts_with("cannot create /nowhere/at/all/.disk.img.unfinished"), "{chain}");
    }
}
