//! What the suites offer now: Release files fetched and checked, indices fetched by digest.
//!
//! The edge around the pure modules. Every byte from the network is held against a signature
//! ([`super::signature`]) or against a digest from a signed file before it means anything.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::archive;
use super::digest::Digest;
use super::index::Index;
use super::manifest::{Manifest, Suite};
use super::release::{IndexFile, Release};
use super::resolve::SuitePackages;
use super::signature::{self, DEBIAN_KEYS, Keyring};
use crate::error::{Context, Error, Result};
use crate::host::fetch::Fetcher;
use crate::host::mirror::Mirror;
use crate::host::now_s;
use crate::host::parallel;
use crate::host::progress::{Progress, Task, Unit};
use crate::host::store::{Store, write_atomically};
use crate::tree::TreePath;

/// Largest Release file that is read; trixie's has 140 kB.
const RELEASE_LIMIT: u64 = 8 << 20;

/// Largest index that is read or unpacked; sid's has 65 MB.
const INDEX_LIMIT: u64 = 512 << 20;

/// Largest keyring package that is read; it has 200 kB.
const KEYRING_LIMIT: u64 = 8 << 20;

/// Which keys are believed, and where their material may lie on this machine.
#[derive(Clone, Debug)]
pub struct Trust {
    /// Fingerprints of keys that may sign a Release file, upper case.
    pub fingerprints: Vec<String>,
    /// Keyring files to look into first.
    pub keyrings: Vec<PathBuf>,
}

impl Default for Trust {
    fn default() -> Self {
        Self {
            fingerprints: DEBIAN_KEYS.map(str::to_owned).to_vec(),
            keyrings: KEYRING_FILES.map(|file| Path::new("/").join(file)).to_vec(),
        }
    }
}

/// The Debian package of the archive's keys, and its file under the names it has had.
const KEYRING_PACKAGE: &str = "debian-archive-keyring";
const KEYRING_FILES: [&str; 2] = [
    "usr/share/keyrings/debian-archive-keyring.gpg",
    "usr/share/keyrings/debian-archive-keyring.pgp",
];

/// Reads the suites of a manifest, from the mirror or (`mirror` absent: offline) from the cache.
pub struct Catalog<'a> {
    /// What is asked for; decides suites, components and architecture.
    pub manifest: &'a Manifest,
    /// Where Release files and indices are kept.
    pub store: &'a Store,
    /// Where they come from; `None` takes those of the last time.
    pub mirror: Option<&'a Mirror>,
    /// Whom to believe.
    pub trust: &'a Trust,
    /// Where to show what goes on.
    pub progress: &'a Progress,
}

impl Catalog<'_> {
    /// All suites, in the order of the manifest.
    pub fn load(&self) -> Result<Vec<SuitePackages>> {
        let session = Session {
            catalog: self,
            fetcher: Fetcher::new(),
            keyring: Mutex::new(self.keyring_of_this_machine()),
            task: self.progress.task("indices", Unit::Bytes, 0),
        };
        let suites = self.manifest.suites();
        // A worker holds a whole index while it unpacks: few are enough.
        let loaded = parallel::map(suites, parallel::processors().min(4), |suite| {
            session.load(suite).context(|| format!("suite {}", suite.name))
        })?;
        let packages: usize = loaded.iter().flat_map(|one| &one.indices).map(Index::len).sum();
        session.task.finish(format!("read {} suites, {packages} packages", loaded.len()));
        Ok(loaded)
    }

    fn keyring_of_this_machine(&self) -> Keyring {
        let mut keyring = Keyring::default();
        let kept = self.kept_keyring();
        for file in self.trust.keyrings.iter().chain([&kept]) {
            if let Ok(material) = fs::read(file) {
                self.add_keys(&mut keyring, &material);
            }
        }
        keyring
    }

    fn add_keys(&self, keyring: &mut Keyring, material: &[u8]) {
        let pinned: Vec<&str> = self.trust.fingerprints.iter().map(String::as_str).collect();
        keyring.add(material, &pinned);
    }

    fn kept_keyring(&self) -> PathBuf {
        self.store.releases().join(format!("{KEYRING_PACKAGE}.gpg"))
    }
}

/// One run of [`Catalog::load`].
struct Session<'a> {
    catalog: &'a Catalog<'a>,
    fetcher: Fetcher,
    keyring: Mutex<Keyring>,
    task: Task,
}

impl Session<'_> {
    fn load(&self, suite: &Suite) -> Result<SuitePackages> {
        let release = self.release(suite)?;
        self.warn_if_stale(suite, &release);
        let mut indices = Vec::new();
        for component in &suite.components {
            let own = release.packages_file(component, self.catalog.manifest.architecture())?;
            indices.push(self.index(suite, &release, own)?);
            if release.separate_all {
                let all = release.packages_file(component, "all")?;
                indices.push(self.index(suite, &release, all)?);
            }
        }
        Ok(SuitePackages { name: suite.name.clone(), named_only: suite.named_only, indices })
    }

    /// The checked Release file of a suite; a fetched one is kept for offline use.
    fn release(&self, suite: &Suite) -> Result<Release> {
        let kept = self.catalog.store.releases().join(format!("{}.InRelease", suite.name));
        let Some(mirror) = self.catalog.mirror else {
            let bytes = fs::read(kept).map_err(|error| {
                Error::caused("its Release file is not in the cache", error)
                    .hint("run once without --offline")
            })?;
            return self.checked(suite, &bytes);
        };
        let url = mirror.url(&suite.name, &format!("dists/{}/InRelease", suite.name))?;
        let fetched = self.fetcher.bytes(&url, RELEASE_LIMIT);
        let bytes = fetched.map_err(|failure| failure.into_error(&url))?;
        let release = self.checked(suite, &bytes)?;
        write_atomically(&kept, &bytes)?;
        Ok(release)
    }

    fn checked(&self, suite: &Suite, in_release: &[u8]) -> Result<Release> {
        let what = || "its Release file cannot be trusted".to_owned();
        let mut keyring = self.keyring.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let text = match keyring.verified(in_release) {
            Err(_) if self.catalog.mirror.is_some() => {
                // This machine has no Debian keyring, or one from before these keys.
                let material = self.keyring_of_the_mirror()?;
                self.catalog.add_keys(&mut keyring, &material);
                let text = keyring.verified(in_release).context(what)?;
                write_atomically(&self.catalog.kept_keyring(), &material)?;
                text
            }
            verified => verified.context(what)?,
        };
        let release = Release::parse(&text)?;
        release.check_suite(&suite.name)?;
        Ok(release)
    }

    /// Key material from a mirror that nobody vouches for yet: it is used only where it has a
    /// pinned fingerprint, so a lying mirror gets no further than a refusal.
    fn keyring_of_the_mirror(&self) -> Result<Vec<u8>> {
        let what = || format!("cannot get the package {KEYRING_PACKAGE}");
        let suites = self.catalog.manifest.suites();
        let (Some(suite), Some(mirror)) = (suites.first(), self.catalog.mirror) else {
            return Err(Error::new("the manifest names no suite"));
        };
        let get = |path: &str, limit: u64| -> Result<Vec<u8>> {
            let url = mirror.url(&suite.name, path)?;
            self.fetcher.bytes(&url, limit).map_err(|failure| failure.into_error(&url))
        };
        let fetch = || -> Result<Vec<u8>> {
            let path = format!("dists/{}/InRelease", suite.name);
            let release = Release::parse(&signature::unverified(&get(&path, RELEASE_LIMIT)?)?)?;
            let architecture = self.catalog.manifest.architecture();
            let file = release.packages_file(&suite.components[0], architecture)?;
            let packages = self.index(suite, &release, file)?.find(KEYRING_PACKAGE)?;
            let package = packages.iter().max_by(|one, two| one.version.cmp(&two.version));
            let package = package.ok_or_else(|| Error::new("the mirror does not have it"))?;
            let deb = get(&package.path, KEYRING_LIMIT)?;
            for path in KEYRING_FILES {
                if let Some(material) = archive::read_file(&deb[..], &TreePath::new(path)?)? {
                    return Ok(material);
                }
            }
            Err(Error::new("it holds no keyring"))
        };
        fetch().context(what)
    }

    /// An index, from the cache or the mirror, held against its digest and unpacked.
    fn index(&self, suite: &Suite, release: &Release, file: &IndexFile) -> Result<Index> {
        let path = self.catalog.store.indices().join(file.sha256.to_string());
        let bytes = match self.catalog.store.read_checked(&path, &file.sha256) {
            Some(bytes) => bytes,
            None => self.fetch_index(suite, release, file, &path)?,
        };
        let text = if file.path.ends_with(".xz") {
            let mut text = Vec::new();
            let decoder = liblzma::read::XzDecoder::new(&bytes[..]);
            let read = decoder.take(INDEX_LIMIT).read_to_end(&mut text);
            if read.context(|| format!("{} is damaged", file.path))? as u64 == INDEX_LIMIT {
                return Err(Error::new(format!("{} is too large", file.path)));
            }
            text
        } else {
            bytes
        };
        Index::new(text).context(|| file.path.clone())
    }

    fn fetch_index(
        &self,
        suite: &Suite,
        release: &Release,
        file: &IndexFile,
        kept: &Path,
    ) -> Result<Vec<u8>> {
        let Some(mirror) = self.catalog.mirror else {
            return Err(Error::new(format!("{} is not in the cache", file.path))
                .hint("run once without --offline"));
        };
        let path = match file.path.rsplit_once('/') {
            Some((directory, _)) if release.by_hash => {
                format!("dists/{}/{directory}/by-hash/SHA256/{}", suite.name, file.sha256)
            }
            _ => format!("dists/{}/{}", suite.name, file.path),
        };
        let url = mirror.url(&suite.name, &path)?;
        self.task.detail(&suite.name);
        let fetched = self.fetcher.bytes(&url, file.size.min(INDEX_LIMIT));
        let bytes = fetched.map_err(|failure| failure.into_error(&url))?;
        if Digest::of(&bytes) != file.sha256 {
            return Err(Error::new(format!("{} is not what its Release file says", file.path))
                .hint("the mirror may be in the middle of an update: try again in some minutes"));
        }
        self.task.add(file.size);
        write_atomically(kept, &bytes)?;
        Ok(bytes)
    }

    /// A mirror that stands still, or replays old files, hides security updates: say so. It does
    /// not fail, since as often the clock of the build machine is wrong, and it is not needed for
    /// safety: nothing is installed but what the lock says.
    fn warn_if_stale(&self, suite: &Suite, release: &Release) {
        let Some(until) = &release.valid_until else { return };
        if seconds_of(until).is_some_and(|until| until < now_s()) {
            self.catalog.progress.warn(format!(
                "{} was made on {} and should have been replaced by {until}: \
                 the mirror stands still, or the clock of this machine is wrong",
                suite.name, release.date
            ));
        }
    }
}

/// Seconds since 1970 of a date like `Sun, 29 Nov 2026 02:09:05 UTC`, as Release files have it.
fn seconds_of(date: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let words: Vec<&str> = date.split_whitespace().collect();
    let [_, day, month, year, time, "UTC" | "GMT" | "+0000"] = words[..] else { return None };
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let (day, year): (u64, u64) = (day.parse().ok()?, year.parse().ok()?);
    let clock: Vec<u64> = time.split(':').map_while(|part| part.parse().ok()).collect();
    let [hour, minute, second] = clock[..] else { return None };
    if !(1970..10_000).contains(&year) || !(1..=31).contains(&day) {
        return None;
    }
    // Days since 1970-01-01 in the Gregorian calendar, counting years from March so that the leap
    // day is the last of a year; 719,468 days lie between 0000-03-01 and 1970-01-01.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    Some((days - 719_468) * 86_400 + hour * 3_600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_release_files_are_read() {
        for (date, seconds) in [
            ("Thu, 01 Jan 1970 00:00:00 UTC", Some(0)),
            ("Tue, 29 Feb 2000 12:00:00 UTC", Some(951_825_600)),
            ("Sun, 29 Nov 2026 02:09:05 UTC", Some(1_795_918_145)),
            ("Sun, 29 Nov 2026 02:09:05 +0000", Some(1_795_918_145)),
            ("Sun, 29 Nov 2026 02:09:05 CET", None),
            ("Sun, 29 Foo 2026 02:09:05 UTC", None),
            ("Sun, 29 Nov 2026 02:09 UTC", None),
            ("soon", None),
        ] {
            assert_eq!(seconds_of(date), seconds, "{date}");
        }
    }
}
