//! `packages.lock`: every package of every image with version, size and SHA-256.
//!
//! Sorted text, one package per line, so that a diff is a review. It names no mirror: `path` is
//! relative to whatever archive holds `suite`. The second line ties it to the `packages.toml` it
//! was made from.
//!
//! ```text
//! # Made by `iota lock` from packages.toml. Name, version, architecture, suite, size, …
//! iota-lock 1 arm64 request=e3b0…
//! runc 1.1.15+ds1-2+b4 arm64 trixie 2875540 9f2c… pool/main/r/runc/runc_….deb docker
//! ```

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs;
use std::path::Path;

use super::digest::{self, Digest};
use super::manifest::{BASE, Manifest};
use super::relation;
use super::version::Version;
use crate::error::{Context, Error, Result};
use crate::host::progress::megabytes;
use crate::host::store;

const FIRST_LINE: &str = "# Made by `iota lock` from packages.toml; do not edit. \
    Columns: name version architecture suite size sha256 path groups\n";

/// One package, pinned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LockedPackage {
    /// Package name.
    pub name: String,
    /// Version.
    pub version: Version,
    /// `arm64`, `amd64` or `all`.
    pub architecture: String,
    /// The suite it was found in; decides which archive of the mirror has it.
    pub suite: String,
    /// Size of the .deb in bytes.
    pub size: u64,
    /// SHA-256 of the .deb.
    pub sha256: Digest,
    /// Path of the .deb below the archive's base address.
    pub path: String,
    /// The groups that need it, sorted.
    pub groups: Vec<String>,
}

impl LockedPackage {
    fn parse(line: &str) -> Result<Self> {
        let columns: Vec<&str> = line.split(' ').collect();
        let [name, version, architecture, suite, size, sha256, path, groups] = columns[..] else {
            return Err(Error::new(format!("{} columns instead of 8", columns.len())));
        };
        if !relation::valid_name(name) {
            return Err(Error::new(format!("`{name}` is not a package name")));
        }
        if !safe_path(path) {
            return Err(Error::new(format!("`{path}` is not a path inside an archive")));
        }
        let size = size.parse().context(|| format!("`{size}` is not a size"))?;
        Ok(Self {
            name: name.to_owned(),
            version: Version::new(version)?,
            architecture: architecture.to_owned(),
            suite: suite.to_owned(),
            size,
            sha256: digest::parse(sha256)?,
            path: path.to_owned(),
            groups: groups.split(',').map(str::to_owned).collect(),
        })
    }

    fn write(&self, text: &mut String) {
        let Self { name, version, architecture, suite, size, sha256, path, groups } = self;
        let groups = groups.join(",");
        let _ = writeln!(
            text,
            "{name} {version} {architecture} {suite} {size} {sha256} {path} {groups}"
        );
    }
}

/// Paths come from a signed index or from the lock; still, none may climb out of the archive.
pub(crate) fn safe_path(path: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'\\');
    path.bytes().all(plain) && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// All pinned packages: names are unique and sorted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lock {
    architecture: String,
    request: Digest,
    packages: Vec<LockedPackage>,
}

impl Lock {
    /// A lock for what `manifest` asks for; sorts the packages.
    pub fn new(manifest: &Manifest, mut packages: Vec<LockedPackage>) -> Result<Self> {
        packages.sort_by(|one, two| one.name.cmp(&two.name));
        if let Some(pair) = packages.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(Error::new(format!("the package {} is locked twice", pair[0].name)));
        }
        let architecture = manifest.architecture().to_owned();
        Ok(Self { architecture, request: manifest.request(), packages })
    }

    /// Reads a lock file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(|error| {
            let missing = error.kind() == std::io::ErrorKind::NotFound;
            let error = Error::caused(format!("cannot read {}", path.display()), error);
            if missing { error.hint("make it: iota lock") } else { error }
        })?;
        Self::parse(&text).map_err(|error| {
            Error::caused(path.display().to_string(), error)
                .hint("restore it from version control or make it anew: iota lock")
        })
    }

    /// Reads the text of a lock.
    pub fn parse(text: &str) -> Result<Self> {
        let mut lines =
            text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let header = lines.next().map_or("", |(_, line)| line);
        let words: Vec<&str> = header.split(' ').collect();
        let ["iota-lock", "1", architecture, request] = words[..] else {
            return Err(Error::new("it does not start with a line `iota-lock 1 …`"));
        };
        let request = digest::parse(request.strip_prefix("request=").unwrap_or(request))?;
        let mut packages: Vec<LockedPackage> = Vec::new();
        for (at, line) in lines {
            let package =
                LockedPackage::parse(line).context(|| format!("line {} is damaged", at + 1))?;
            if packages.last().is_some_and(|last| last.name >= package.name) {
                return Err(Error::new(format!(
                    "line {}: {} is out of order",
                    at + 1,
                    package.name
                )));
            }
            packages.push(package);
        }
        Ok(Self { architecture: architecture.to_owned(), request, packages })
    }

    /// Writes the lock file; whoever reads it sees the old or the new one whole.
    pub fn write(&self, path: &Path) -> Result<()> {
        store::write_atomically(path, self.to_string().as_bytes())
    }

    /// All packages, sorted by name.
    pub fn packages(&self) -> &[LockedPackage] {
        &self.packages
    }

    /// Debian's name of the architecture this lock is for.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// The packages of the group `base` and of the named groups, sorted by name.
    pub fn packages_of(&self, groups: &[&str]) -> Vec<LockedPackage> {
        let needed = |one: &&LockedPackage| {
            one.groups.iter().any(|group| group == BASE || groups.contains(&group.as_str()))
        };
        self.packages.iter().filter(needed).cloned().collect()
    }

    /// Fails if `manifest` asks for something else than what this lock was made from.
    pub fn check_made_from(&self, manifest: &Manifest) -> Result<()> {
        if self.request == manifest.request() {
            return Ok(());
        }
        Err(Error::new("packages.toml has changed since packages.lock was made")
            .hint("bring the lock up to date: iota lock"))
    }

    /// What changes from this lock to `newer`, sorted by name.
    pub fn diff(&self, newer: &Lock) -> Vec<Change> {
        let mut names: BTreeMap<&str, (Option<&LockedPackage>, Option<&LockedPackage>)> =
            BTreeMap::new();
        for package in &self.packages {
            names.entry(&package.name).or_default().0 = Some(package);
        }
        for package in &newer.packages {
            names.entry(&package.name).or_default().1 = Some(package);
        }
        let change = |pair| match pair {
            (None, Some(new)) => Some(Change::Added(LockedPackage::clone(new))),
            (Some(old), None) => Some(Change::Removed(LockedPackage::clone(old))),
            (Some(old), Some(new)) if old != new => {
                Some(Change::Updated { old: old.clone(), new: new.clone() })
            }
            _ => None,
        };
        names.into_values().filter_map(change).collect()
    }
}

impl fmt::Display for Lock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = FIRST_LINE.to_owned();
        let _ = writeln!(text, "iota-lock 1 {} request={}", self.architecture, self.request);
        self.packages.iter().for_each(|package| package.write(&mut text));
        formatter.write_str(&text)
    }
}

/// One difference between two locks; `Display` is a line for the user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A package that was not locked before.
    Added(LockedPackage),
    /// A package that is no longer needed.
    Removed(LockedPackage),
    /// Another version, or the same version from another place or with another content.
    Updated {
        /// As it was.
        old: LockedPackage,
        /// As it is now.
        new: LockedPackage,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added(new) => {
                let size = megabytes(new.size);
                write!(formatter, "added   {} {} ({size})", new.name, new.version)
            }
            Self::Removed(old) => {
                let size = megabytes(old.size);
                write!(formatter, "removed {} {} ({size})", old.name, old.version)
            }
            Self::Updated { old, new } if old.version == new.version => {
                write!(formatter, "changed {} {}: ", new.name, new.version)?;
                formatter.write_str(what_differs(old, new))
            }
            Self::Updated { old, new } => {
                // A mirror may lag, or replay an old signed index: an older version must show.
                let verb = if new.version < old.version { "OLDER  " } else { "updated" };
                write!(formatter, "{verb} {} {} → {}", new.name, old.version, new.version)?;
                write!(formatter, " ({} → {})", megabytes(old.size), megabytes(new.size))
            }
        }
    }
}

fn what_differs(old: &LockedPackage, new: &LockedPackage) -> &'static str {
    if old.sha256 != new.sha256 {
        "same version, OTHER CONTENT"
    } else if old.groups != new.groups {
        "needed by other groups"
    } else {
        "found in another place"
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn package(name: &str, version: &str, size: u64) -> LockedPackage {
        LockedPackage {
            name: name.to_owned(),
            version: Version::new(version).unwrap(),
            architecture: "arm64".to_owned(),
            suite: "trixie".to_owned(),
            size,
            sha256: Digest::of(format!("{name} {version}").as_bytes()),
            path: format!("pool/main/{name}_{version}_arm64.deb"),
            groups: vec![BASE.to_owned()],
        }
    }

    pub(crate) fn manifest() -> Manifest {
        Manifest::parse(
            "architecture = 'arm64'\nsuite = [{ name = 'trixie', components = ['main'] }]\n\
            package = [{ name = 'runc', reason = 'x' }]",
        )
        .unwrap()
    }

    fn lock(packages: &[LockedPackage]) -> Lock {
        Lock::new(&manifest(), packages.to_vec()).unwrap()
    }

    #[test]
    fn a_lock_is_sorted_and_read_back_as_written() {
        let lock = lock(&[package("runc", "1.1-2", 5), package("libc6", "2.41-12", 7)]);
        let text = lock.to_string();
        assert!(text.find("libc6").unwrap() < text.find("runc").unwrap());
        assert_eq!(Lock::parse(&text).unwrap(), lock);
        assert!(lock.check_made_from(&manifest()).is_ok());
        let other = manifest().with_group("docker", ["docker.io"]).unwrap();
        let error = lock.check_made_from(&other).unwrap_err();
        assert_eq!(error.next_step(), Some("bring the lock up to date: iota lock"));
    }

    #[test]
    fn a_damaged_lock_is_refused_with_the_line_that_is_bad() {
        let good = lock(&[package("libc6", "2.41", 7), package("runc", "1.1", 5)]).to_string();
        for (from, to, message) in [
            ("iota-lock 1", "iota-lock 2", "it does not start with a line `iota-lock 1 …`"),
            ("runc 1.1 arm64", "runc 1.1", "line 4 is damaged: 7 columns instead of 8"),
            (" 5 ", " five ", "line 4 is damaged: `five` is not a size"),
            ("runc 1.1", "abba 1.1", "line 4: abba is out of order"),
            ("pool/main/runc", "../runc", "line 4 is damaged: `../runc_1.1_arm64.deb` is not"),
            ("runc 1.1", "runc 1_1", "line 4 is damaged: `1_1` is not a Debian version"),
        ] {
            let error = Lock::parse(&good.replacen(from, to, 1)).unwrap_err();
            assert!(error.chain().starts_with(message), "{} / {message}", error.chain());
        }
        assert!(Lock::parse("").is_err());
    }

    #[test]
    fn a_diff_names_every_change_once() {
        let old = lock(&[
            package("aa", "1", 10),
            package("bb", "1", 1_000),
            package("cc", "2", 10),
            package("same", "1", 1),
        ]);
        let new = lock(&[
            package("bb", "2", 2_000),
            package("cc", "1", 10),
            package("dd", "1", 3_000_000),
            package("same", "1", 1),
        ]);
        let lines: Vec<String> = old.diff(&new).iter().map(Change::to_string).collect();
        assert_eq!(
            lines,
            [
                "removed aa 1 (10 B)",
                "updated bb 1 → 2 (1 kB → 2 kB)",
                "OLDER   cc 2 → 1 (10 B → 10 B)",
                "added   dd 1 (3.0 MB)",
            ]
        );
        assert!(old.diff(&old).is_empty());
    }

    #[test]
    fn a_build_takes_the_base_and_the_groups_it_names() {
        let mut engine = package("runc", "1", 1);
        engine.groups = vec!["docker".to_owned(), "podman".to_owned()];
        let lock = lock(&[package("libc6", "1", 1), engine]);
        let names = |groups: &[&str]| -> Vec<String> {
            lock.packages_of(groups).into_iter().map(|one| one.name).collect()
        };
        assert_eq!(names(&[]), ["libc6"]);
        assert_eq!(names(&["podman"]), ["libc6", "runc"]);
    }
}
