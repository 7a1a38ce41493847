//! The cache shared by all builds of a user: downloaded packages and what is in them.
//!
//! ```text
//! <root>/debs/<sha256>.deb        checked when it was written, renamed into place
//! <root>/debs/<sha256>.part       a download that goes on where it stopped; locked while in use
//! <root>/unpacked-2/<sha256>.pack all regular file bytes of a package, back to back
//! <root>/unpacked-2/<sha256>.json its index: a SHA-256 line, then paths, owners, modes, offsets
//! <root>/indices/<sha256>         package indices
//! <root>/releases/…               the last checked Release file of each suite
//! <root>/unfinished/…             everything that is being written; emptied when nobody works
//! ```
//!
//! Guarantees: a file under its final name is whole (tmp + rename, so a killed build leaves none),
//! two builds may share the cache at once, and a damaged entry is noticed by its length or its
//! index's digest and made again. Deleting any of it at any time costs only time.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::fetch::{Expected, Failure, Fetcher};
use super::mirror::Mirror;
use super::parallel;
use super::progress::{Progress, Task, Unit, megabytes};
use crate::debian::digest::{self, Digest};
use crate::debian::lock::LockedPackage;
use crate::error::{Context, Error, Result};
use crate::image::unfinished;

pub use super::unpack::Unpacked;

/// The environment variable that names the cache directory.
pub const VARIABLE: &str = "IOTA_CACHE";

/// The number is that of the format of packs and indices, so that versions of iota can share.
const UNPACKED: &str = "unpacked-2";

/// Downloads at a time: enough to hide latency, few enough for a mirror run by volunteers.
const CONNECTIONS: usize = 4;

/// An open cache. Holds a shared lock, so that nobody sweeps away what this process is writing.
pub struct Store {
    root: PathBuf,
    _in_use: File,
}

impl Store {
    /// Opens the cache, making it if needed: `flag` (`--cache`), `IOTA_CACHE`, else
    /// `$XDG_CACHE_HOME/iota`, else `~/.cache/iota`.
    pub fn open(flag: Option<&Path>) -> Result<Self> {
        let root = match flag {
            Some(path) => path.to_owned(),
            None => default_root()?,
        };
        Self::open_at(&root).map_err(|error| {
            Error::caused(format!("cannot use the cache {}", root.display()), error)
                .hint("name another directory: --cache DIRECTORY")
        })
    }

    fn open_at(root: &Path) -> io::Result<Self> {
        for name in ["debs", UNPACKED, "indices", "releases", "unfinished"] {
            fs::create_dir_all(root.join(name))?;
        }
        let in_use = File::options().create(true).append(true).open(root.join("in-use.lock"))?;
        // Alone: what lies in `unfinished` belongs to builds that were killed.
        if in_use.try_lock().is_ok() {
            let unfinished = root.join("unfinished");
            fs::remove_dir_all(&unfinished)?;
            fs::create_dir_all(&unfinished)?;
            in_use.unlock()?;
        }
        in_use.lock_shared()?;
        Ok(Self { root: root.to_owned(), _in_use: in_use })
    }

    /// The directory of the cache; others may keep their own subdirectories in it.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// For files in the making; on the same file system as everything else of the cache.
    pub fn unfinished(&self) -> PathBuf {
        self.root.join("unfinished")
    }

    pub(super) fn unpacked(&self) -> PathBuf {
        self.root.join(UNPACKED)
    }

    /// Checked Release files and the keyring that checked them.
    pub(crate) fn releases(&self) -> PathBuf {
        self.root.join("releases")
    }

    /// Package indices, named by their digest.
    pub(crate) fn indices(&self) -> PathBuf {
        self.root.join("indices")
    }

    /// Where a downloaded package is, or will be.
    pub fn deb_path(&self, package: &LockedPackage) -> PathBuf {
        self.root.join("debs").join(format!("{}.deb", package.sha256))
    }

    /// True if the package has been downloaded, judged by its length.
    pub fn has_deb(&self, package: &LockedPackage) -> bool {
        fs::metadata(self.deb_path(package)).is_ok_and(|file| file.len() == package.size)
    }

    /// Which packages have to be fetched: neither unpacked nor here as they should be. Reads every
    /// package that is not unpacked yet, since it is about to be used; removes damaged ones.
    pub fn missing(&self, packages: &[LockedPackage]) -> Result<Vec<LockedPackage>> {
        let here = parallel::map(packages, parallel::processors(), |package| {
            Ok(self.has_unpacked(package) || self.has_good_deb(package))
        })?;
        let missing = packages.iter().zip(here).filter(|(_, here)| !here);
        Ok(missing.map(|(package, _)| package.clone()).collect())
    }

    fn has_good_deb(&self, package: &LockedPackage) -> bool {
        let path = self.deb_path(package);
        let Ok(mut file) = File::open(&path) else { return false };
        let wanted = (package.sha256, package.size);
        let good = self.has_deb(package)
            && digest::of_reader(&mut file).is_ok_and(|found| found == wanted);
        if !good {
            let _ = fs::remove_file(&path);
        }
        good
    }

    /// Fetches packages that are not in the cache, several at a time. Returns those that the
    /// mirror does not have any more.
    pub fn fetch_all(
        &self,
        packages: &[LockedPackage],
        mirror: &Mirror,
        progress: &Progress,
    ) -> Result<Vec<LockedPackage>> {
        let missing = self.missing(packages)?;
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        let total = missing.iter().map(|package| package.size).sum();
        let task = progress.task("fetch", Unit::Bytes, total);
        let fetcher = Fetcher::new();
        let gone = parallel::map(&missing, CONNECTIONS, |package| {
            task.detail(&package.name);
            self.fetch(package, mirror, &fetcher, &task)
        })?;
        let gone: Vec<LockedPackage> = gone.into_iter().flatten().collect();
        let bytes = total - gone.iter().map(|package| package.size).sum::<u64>();
        task.finish(format!(
            "fetched {} packages, {}",
            missing.len() - gone.len(),
            megabytes(bytes)
        ));
        Ok(gone)
    }

    /// Fetches one package; hands it back if the mirror does not have it.
    fn fetch(
        &self,
        package: &LockedPackage,
        mirror: &Mirror,
        fetcher: &Fetcher,
        task: &Task,
    ) -> Result<Option<LockedPackage>> {
        let url = mirror.url(&package.suite, &package.path)?;
        let part = self.root.join("debs").join(format!("{}.part", package.sha256));
        let expected = Expected { size: package.size, sha256: &package.sha256 };
        match fetcher.file(&url, &part, &self.deb_path(package), &expected, task) {
            Ok(()) => Ok(None),
            Err(Failure::NotFound) => {
                let _ = fs::remove_file(part);
                Ok(Some(package.clone()))
            }
            Err(Failure::Other(error)) => {
                Err(error).context(|| format!("cannot fetch {} {}", package.name, package.version))
            }
        }
    }

    /// A small file of the cache, if it is there and has this digest; a damaged one is removed.
    pub(crate) fn read_checked(&self, path: &Path, digest: &Digest) -> Option<Vec<u8>> {
        let bytes = fs::read(path).ok()?;
        if Digest::of(&bytes) == *digest {
            return Some(bytes);
        }
        let _ = fs::remove_file(path);
        None
    }
}

fn default_root() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(path) = set(VARIABLE) {
        return Ok(path.into());
    }
    if let Some(path) = set("XDG_CACHE_HOME") {
        return Ok(PathBuf::from(path).join("iota"));
    }
    set("HOME").map(|home| PathBuf::from(home).join(".cache/iota")).ok_or_else(|| {
        Error::new("there is no place for the cache: HOME is not set")
            .hint("name a directory: --cache DIRECTORY")
    })
}

/// Writes a file so that readers see the old or the new one whole, with mode 0644. An interrupt
/// leaves nothing else behind.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    unfinished::replace(path, bytes)
        .map_err(explain_full)
        .context(|| format!("cannot write {}", path.display()))
}

/// Adds the next step to the one I/O error that users can do something about.
pub(crate) fn explain_full(error: io::Error) -> Error {
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let error = Error::caused(if full { "the disk is full" } else { "input/output failed" }, error);
    if full { error.hint("free some space, or use another disk: --cache DIRECTORY") } else { error }
}
