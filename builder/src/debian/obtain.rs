//! From a lock to packages in the cache: the one function a build calls.
//!
//! Where the mirror no longer has a locked version (Debian removes superseded versions from its
//! pool), a plain build resolves again, says what changed and goes on with the newer versions;
//! with `locked` it refuses. All versions are taken from one resolution then, never a mix:
//! binaries of one source often depend on each other's exact version.

use super::catalog::{Catalog, Trust};
use super::lock::{Lock, LockedPackage};
use super::manifest::Manifest;
use super::resolve::{self, Resolution};
use crate::error::{Error, Result};
use crate::host::mirror::Mirror;
use crate::host::progress::Progress;
use crate::host::store::Store;

/// How packages may be obtained.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The mirror as given on the command line; see [`Mirror::discover`]. It is looked for only
    /// when something has to be fetched.
    pub mirror: Option<String>,
    /// Exactly the locked versions or an error.
    pub locked: bool,
    /// The cache alone, no network.
    pub offline: bool,
    /// Groups that are needed besides `base`; see [`super::manifest`].
    pub groups: Vec<String>,
    /// Whose signatures are believed.
    pub trust: Trust,
}

/// Brings the packages of a lock into the cache; returns what to build from, which differs from
/// the lock only if the mirror made it so and `locked` is not set.
pub fn obtain(
    lock: &Lock,
    manifest: &Manifest,
    store: &Store,
    options: &Options,
    progress: &Progress,
) -> Result<Vec<LockedPackage>> {
    lock.check_made_from(manifest)?;
    let packages = packages_of(lock, options);
    let missing = store.missing(&packages)?;
    if missing.is_empty() {
        return Ok(packages);
    }
    if options.offline {
        return Err(Error::new(format!("not in the cache: {}", names(&missing)))
            .hint("run once without --offline"));
    }
    let mirror = Mirror::discover(options.mirror.as_deref())?;
    let gone = store.fetch_all(&missing, &mirror, progress)?;
    if gone.is_empty() {
        return Ok(packages);
    }
    let what = format!("the mirror does not have the locked {}", names(&gone));
    if options.locked {
        return Err(Error::new(what).hint("take the newer versions: iota lock"));
    }
    progress.warn(format!("{what}; taking what the suites have now"));
    let newer = resolve_now(manifest, store, Some(&mirror), &options.trust, progress)?.lock;
    for change in lock.diff(&newer) {
        progress.line(format!("  {change}"));
    }
    progress.line("  record these versions with: iota lock");
    let packages = packages_of(&newer, options);
    let gone = store.fetch_all(&packages, &mirror, progress)?;
    if gone.is_empty() {
        return Ok(packages);
    }
    Err(Error::new(format!("the mirror lists but does not have {}", names(&gone)))
        .hint("it may be in the middle of an update: try again, or name another with --mirror"))
}

/// Reads the suites and resolves; `mirror` absent means from the cache alone.
pub fn resolve_now(
    manifest: &Manifest,
    store: &Store,
    mirror: Option<&Mirror>,
    trust: &Trust,
    progress: &Progress,
) -> Result<Resolution> {
    let suites = Catalog { manifest, store, mirror, trust, progress }.load()?;
    resolve::resolve(manifest, &suites)
}

fn packages_of(lock: &Lock, options: &Options) -> Vec<LockedPackage> {
    let groups: Vec<&str> = options.groups.iter().map(String::as_str).collect();
    lock.packages_of(&groups)
}

/// `libc6 2.41-12, runc 1.1.15` or, of many, the first and how many more.
fn names(packages: &[LockedPackage]) -> String {
    const SHOWN: usize = 4;
    let name = |package: &LockedPackage| format!("{} {}", package.name, package.version);
    let shown: Vec<String> = packages.iter().take(SHOWN).map(name).collect();
    let more = packages.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}
