//! Packages of Debian that no image of ours has: a benchmark's peers, and the programs of the
//! containers of the tests.
//!
//! A list is `NAME.toml`, which people write, and `NAME.lock`, which pins what it stands for. No
//! script of a package runs.

use std::path::{Path, PathBuf};

use builder::build::Host;
use builder::debian::catalog::Trust;
use builder::debian::lock::Lock;
use builder::debian::manifest::Manifest;
use builder::debian::obtain::{self, obtain};
use builder::error::Result;
use builder::host::unpack::Unpacked;
use builder::tree::{Kind, Tree, TreePath};
use builder::verbs;

/// A list of packages.
pub struct Packages {
    manifest: PathBuf,
    lock: PathBuf,
}

impl Packages {
    /// The list of that name in a directory.
    pub fn of(directory: &Path, name: &str) -> Self {
        Self {
            manifest: directory.join(format!("{name}.toml")),
            lock: directory.join(format!("{name}.lock")),
        }
    }

    /// Writes the lock anew.
    pub fn lock(&self, host: &Host<'_>) -> Result<()> {
        let options = verbs::lock::Options {
            manifest: Manifest::read(&self.manifest)?,
            lock: self.lock.clone(),
            mirror: host.mirror.map(str::to_owned),
            offline: host.offline,
            trust: Trust::default(),
        };
        print!("{}", verbs::lock::run(&options, host.store, host.progress)?);
        Ok(())
    }

    /// What is in the packages.
    pub fn unpacked(&self, host: &Host<'_>) -> Result<Vec<Unpacked>> {
        let manifest = Manifest::read(&self.manifest)?;
        let lock = Lock::read(&self.lock)?;
        let options = obtain::Options {
            mirror: host.mirror.map(str::to_owned),
            offline: host.offline,
            ..obtain::Options::default()
        };
        let packages = obtain(&lock, &manifest, host.store, &options, host.progress)?;
        host.store.unpack_all(&packages, host.progress)
    }
}

/// Adds the files that packages have and the root has not, where `ships` says so of a package and
/// a path.
pub fn add(
    ships: impl Fn(&str, &str) -> bool,
    packages: &[Unpacked],
    root: &mut Tree,
) -> Result<()> {
    for package in packages {
        // Files before hard links, so that a link finds its file.
        let (links, files): (Vec<_>, Vec<_>) =
            package.entries.iter().partition(|(_, node)| matches!(node.kind, Kind::HardLink(_)));
        for (path, node) in files.into_iter().chain(links) {
            let path = merged(path)?;
            let text = String::from_utf8_lossy(path.as_bytes()).into_owned();
            let is_wanted = !node.is_directory() && ships(&package.name, &text);
            if is_wanted && root.get(&path).is_none() {
                let mut node = node.clone();
                if let Kind::HardLink(target) = &node.kind {
                    node.kind = Kind::HardLink(merged(target)?);
                }
                root.insert(path, node)?;
            }
        }
    }
    Ok(())
}

/// Where a path lies with merged /usr.
fn merged(path: &TreePath) -> Result<TreePath> {
    let bytes = path.as_bytes();
    let below_usr = ["bin/", "sbin/", "lib/"].iter().any(|top| bytes.starts_with(top.as_bytes()));
    if below_usr { TreePath::new([b"usr/", bytes].concat()) } else { Ok(path.clone()) }
}
