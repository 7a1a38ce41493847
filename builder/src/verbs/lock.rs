//! `iota lock`: resolve again, write packages.lock, say what changed.

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::debian::catalog::Trust;
use crate::debian::lock::{Change, Lock};
use crate::debian::manifest::Manifest;
use crate::debian::obtain;
use crate::error::{Error, Result};
use crate::host::mirror::Mirror;
use crate::host::progress::{Progress, megabytes};
use crate::host::store::Store;

/// What to lock and how.
pub struct Options {
    /// What is wanted: packages.toml with the groups of engines and boards added.
    pub manifest: Manifest,
    /// The lock file to bring up to date.
    pub lock: PathBuf,
    /// The mirror as given on the command line.
    pub mirror: Option<String>,
    /// Resolve from the indices of the last time.
    pub offline: bool,
    /// Whose signatures are believed.
    pub trust: Trust,
}

/// Writes the lock if anything changed; returns the report for standard output.
pub fn run(options: &Options, store: &Store, progress: &Progress) -> Result<String> {
    let old = read_old(options, progress)?;
    let mirror = match options.offline {
        true => None,
        false => Some(Mirror::discover(options.mirror.as_deref())?),
    };
    let Options { manifest, trust, .. } = options;
    let resolution = obtain::resolve_now(manifest, store, mirror.as_ref(), trust, progress)?;
    for name in &resolution.unused_exclusions {
        progress.warn(format!("nothing depends on the excluded package {name}"));
    }
    let new = resolution.lock;
    if old.as_ref() == Some(&new) {
        return Ok(format!("nothing changed: {}\n", summary(&new)));
    }
    new.write(&options.lock)?;
    Ok(report(old.as_ref(), &new))
}

/// The lock as it is. A damaged one is no obstacle: it is made anew.
fn read_old(options: &Options, progress: &Progress) -> Result<Option<Lock>> {
    if !options.lock.exists() {
        return Ok(None);
    }
    match Lock::read(&options.lock) {
        Ok(lock) => Ok(Some(lock)),
        Err(error) if options.lock.is_file() => {
            progress.warn(format!("{}; it is made anew", error.chain()));
            Ok(None)
        }
        Err(error) => Err(Error::caused("the lock cannot be written", error)),
    }
}

fn report(old: Option<&Lock>, new: &Lock) -> String {
    let mut text = String::new();
    let changes: Vec<Change> = old.map(|old| old.diff(new)).unwrap_or_default();
    for change in &changes {
        let _ = writeln!(text, "{change}");
    }
    let _ = match old {
        None => writeln!(text, "locked {}", summary(new)),
        Some(_) if changes.is_empty() => {
            writeln!(text, "same packages for a changed packages.toml: {}", summary(new))
        }
        Some(_) => writeln!(text, "{} changes: {}", changes.len(), summary(new)),
    };
    text
}

fn summary(lock: &Lock) -> String {
    let bytes = lock.packages().iter().map(|package| package.size).sum();
    format!("{} packages, {}", lock.packages().len(), megabytes(bytes))
}
