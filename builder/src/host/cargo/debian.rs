//! Sources of the standard library and start files of programs, from Debian packages.
//!
//! `musl-dev` is pinned by `builder/tools/device.lock`. `rust-src` cannot be pinned there: it
//! has to
//! be of the release that the user's compiler is. It is looked for in several suites, each held
//! against its signed Release file, and only its folder `library` is unpacked.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use super::Components;
use crate::debian::archive::{self, Entry, EntryKind};
use crate::debian::catalog::{Catalog, Trust};
use crate::debian::index::Package;
use crate::debian::lock::{Lock, LockedPackage};
use crate::debian::manifest::Manifest;
use crate::debian::obtain::{self, Options};
use crate::error::{Context, Error, Result};
use crate::host::mirror::Mirror;

const DEVICE_MANIFEST: &str = include_str!("../../../tools/device.toml");
const DEVICE_LOCK: &str = include_str!("../../../tools/device.lock");

/// Suites that may have `rust-src`, the small and steady ones first. Backports keep one version
/// for each release of Rust; unstable suites have the newest alone.
const SUITES: [&str; 5] = ["trixie-backports", "trixie", "forky", "sid", "experimental"];

/// Something unpacked from a package.
pub(super) struct Found {
    /// Where it lies.
    pub(super) directory: PathBuf,
    /// The version of the package.
    pub(super) version: String,
}

impl Found {
    /// What an earlier run left in the cache.
    fn earlier(directory: &Path) -> Option<Self> {
        let version = fs::read_to_string(directory.join("version")).ok()?;
        Some(Self { directory: directory.to_owned(), version })
    }
}

/// A directory with `library`, the sources of the standard library of a release.
pub(super) fn library_sources(
    components: &Components<'_>,
    release: &str,
    triple: &str,
) -> Result<Found> {
    let directory = components.store.root().join("rust-src").join(release);
    if let Some(found) = Found::earlier(&directory) {
        return Ok(found);
    }
    let advice = format!("add the target instead: rustup target add {triple}");
    if components.offline {
        return Err(Error::new(format!("the sources of Rust {release} are not in the cache"))
            .hint("run once without --offline"));
    }
    let package = search(components, release).map_err(|error| error.hint(advice))?;
    unpack(components, &package, &directory, |path| {
        // usr/src/rustc-1.95.0/library/core/src/lib.rs
        let mut parts = path.splitn(5, |byte| *byte == b'/');
        let is_library = parts.nth(3)? == b"library";
        is_library.then_some(Path::new("library").join(as_path(parts.next()?)))
    })
}

/// A directory with the C library's archive and start files.
pub(super) fn start_files(components: &Components<'_>) -> Result<Found> {
    let lock = Lock::parse(DEVICE_LOCK)?;
    let options = Options {
        mirror: components.mirror.map(str::to_owned),
        offline: components.offline,
        ..Options::default()
    };
    let manifest = Manifest::parse(DEVICE_MANIFEST)?;
    let (store, progress) = (components.store, components.progress);
    let packages = obtain::obtain(&lock, &manifest, store, &options, progress)?;
    let package = packages.first().ok_or_else(|| Error::new("device.lock is empty"))?;
    let directory = store.root().join("musl-dev").join(package.sha256.to_string());
    match Found::earlier(&directory) {
        Some(found) => Ok(found),
        None => unpack(components, package, &directory, |path| {
            let name = path.strip_prefix(b"usr/lib/aarch64-linux-musl/")?;
            Some(as_path(name).to_owned())
        }),
    }
}

fn as_path(bytes: &[u8]) -> &Path {
    use std::os::unix::ffi::OsStrExt as _;
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}

/// Looks for `rust-src` of a release, suite by suite, and fetches it.
fn search(components: &Components<'_>, release: &str) -> Result<LockedPackage> {
    let mirror = Mirror::discover(components.mirror)?;
    components.progress.line(format!("looking for the sources of Rust {release}"));
    let mut misses = Vec::new();
    for suite in SUITES {
        match offers(components, &mirror, suite) {
            Ok(packages) => {
                if let Some(package) = packages.into_iter().find(|one| is_of(one, release)) {
                    return fetch(components, &mirror, suite, package);
                }
                misses.push(suite.to_owned());
            }
            Err(error) => misses.push(format!("{suite} ({})", error.chain())),
        }
    }
    let misses = misses.join(", ");
    Err(Error::new(format!("no suite has the sources of Rust {release}: not in {misses}")))
}

/// Every version of `rust-src` in a suite.
fn offers(components: &Components<'_>, mirror: &Mirror, suite: &str) -> Result<Vec<Package>> {
    let text = format!(
        "architecture = \"arm64\"\n[[suite]]\nname = \"{suite}\"\ncomponents = [\"main\"]\n\
         [[package]]\nname = \"rust-src\"\nreason = \"the standard library\"\n"
    );
    let catalog = Catalog {
        manifest: &Manifest::parse(&text)?,
        store: components.store,
        mirror: Some(mirror),
        trust: &Trust::default(),
        progress: components.progress,
    };
    let mut packages = Vec::new();
    for index in catalog.load()?.iter().flat_map(|suite| &suite.indices) {
        packages.extend(index.find("rust-src")?);
    }
    Ok(packages)
}

/// Debian's `1.95.0+dfsg1-2~bpo13+1` is Rust's `1.95.0`.
fn is_of(package: &Package, release: &str) -> bool {
    let version = package.version.to_string();
    version.strip_prefix(release).is_some_and(|rest| rest.starts_with(['+', '-', '~']))
}

fn fetch(
    components: &Components<'_>,
    mirror: &Mirror,
    suite: &str,
    package: Package,
) -> Result<LockedPackage> {
    let package = LockedPackage {
        name: package.name,
        version: package.version,
        architecture: package.architecture,
        suite: suite.to_owned(),
        size: package.size,
        sha256: package.sha256,
        path: package.path,
        groups: Vec::new(),
    };
    let wanted = std::slice::from_ref(&package);
    let gone = components.store.fetch_all(wanted, mirror, components.progress)?;
    if gone.is_empty() {
        return Ok(package);
    }
    Err(Error::new(format!("the mirror lists but does not have {}", package.path)))
}

/// Unpacks the files of a package for which `place` names a path, whole or not at all.
fn unpack(
    components: &Components<'_>,
    package: &LockedPackage,
    directory: &Path,
    place: impl Fn(&[u8]) -> Option<PathBuf>,
) -> Result<Found> {
    let what = || format!("cannot unpack {} {}", package.name, package.version);
    let unfinished = tempfile::tempdir_in(components.store.unfinished()).context(what)?;
    let deb = File::open(components.store.deb_path(package)).context(what)?;
    archive::read_data(BufReader::new(deb), 2, |entry, content| {
        match place(entry.path.as_bytes()) {
            Some(path) => put(&unfinished.path().join(path), entry, content),
            None => Ok(()),
        }
    })
    .context(what)?;
    let version = package.version.to_string();
    fs::write(unfinished.path().join("version"), &version).context(what)?;
    fs::create_dir_all(directory.parent().unwrap_or(directory)).context(what)?;
    match fs::rename(unfinished.path(), directory) {
        // Another build was faster; both unpacked the same.
        Err(_) if directory.join("version").is_file() => {}
        renamed => {
            renamed.context(what)?;
            let _ = unfinished.keep();
        }
    }
    Ok(Found { directory: directory.to_owned(), version })
}

/// Files and what leads to them; these packages need nothing else of what a package may hold.
fn put(path: &Path, entry: &Entry, content: &mut dyn Read) -> Result<()> {
    let what = || format!("cannot write {}", path.display());
    match entry.kind {
        EntryKind::File(_) => {
            fs::create_dir_all(path.parent().unwrap_or(path)).context(what)?;
            let mut file = File::create(path).context(what)?;
            std::io::copy(content, &mut file).context(what).map(|_| ())
        }
        _ => Ok(()),
    }
}
