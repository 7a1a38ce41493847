//! The peers of our PID 1: the same image, with another program in its place.
//!
//! Kernel, initrd, engine, containers and probe stay. What a peer needs besides is data below
//! `qemu-tests/bench/`, and packages of Debian that `peers.lock` pins. No script of a package
//! runs: accounts, enabled units and module indices are made here as they would leave them. What is
//! spared a peer (checking the data partition, terminals, time synchronisation) is in its favour.

use std::path::{Path, PathBuf};

use builder::build::{self, Host, Plan};
use builder::debian::catalog::Trust;
use builder::debian::lock::Lock;
use builder::debian::manifest::Manifest;
use builder::debian::obtain::{self, obtain};
use builder::error::{Error, Result};
use builder::host::unpack::Unpacked;
use builder::sign::{Profile, key_for_build};
use builder::tree::{Content, Kind, Node, Tree, TreePath};
use builder::verbs;

use super::{directory, module_index};

/// A program that can be PID 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peer {
    /// Debian's systemd with udev, networkd and the engine's own units.
    Systemd,
    /// A script of ten lines.
    Busybox,
}

impl Peer {
    /// Its name in tables, and that of its data.
    pub fn name(self) -> &'static str {
        match self {
            Self::Systemd => "systemd",
            Self::Busybox => "busybox",
        }
    }

    /// Groups of packages that it needs, and which of their files.
    fn ships(self, package: &str, path: &str) -> bool {
        let dead = ["usr/share/", "var/", "run/", "boot/", "etc/init.d/", "usr/lib/iota/"];
        match self {
            _ if dead.iter().any(|start| path.starts_with(start)) => {
                path.starts_with("usr/share/dbus-1/")
            }
            Self::Busybox => package == "busybox-static" && path.ends_with("bin/busybox"),
            Self::Systemd if package == "docker.io" || package == "containerd" => {
                path.starts_with("usr/lib/systemd/") || path.starts_with("etc/")
            }
            Self::Systemd => package != "busybox-static" && package != "zstd",
        }
    }
}

/// Builds the image with a peer in it and returns the disk.
pub fn build(peer: Peer, board: &str, host: &Host<'_>, out: &Path) -> Result<PathBuf> {
    let ships = |package: &str, path: &str| peer.ships(package, path);
    image_with(peer.name(), ships, board, host, out, add_module_indices)
}

/// Builds the image with what `ships` of the peers' packages, what `change` makes of its root, and
/// the data of that name; returns the disk.
pub(super) fn image_with(
    name: &str,
    ships: impl Fn(&str, &str) -> bool,
    board: &str,
    host: &Host<'_>,
    out: &Path,
    change: impl FnOnce(&mut Tree) -> Result<()>,
) -> Result<PathBuf> {
    let data = host.workspace.join("qemu-tests/bench");
    let packages = packages(&data, host)?;
    let profile = Profile::Development;
    let (key, _) = key_for_build(None, &host.workspace.join("keys"), profile)?;
    let plan = Plan {
        board: board.to_owned(),
        engine: "docker".to_owned(),
        profile,
        signer: key.into(),
        out: out.join(name),
        version: None,
        rollback_index: 1,
        root_format: builder::cli::RootFormat::Lz4hc,
        locked: false,
        force: true,
        carried: builder::app::carried::Carried::default(),
        config: None,
    };
    let overlay = directory::read(&data.join(name))?;
    let summary = build::build_changed(&plan, host, |trees| {
        add_packages(&ships, &packages, &mut trees.root)?;
        change(&mut trees.root)?;
        add_overlay(&overlay, &mut trees.root)
    })?;
    Ok(summary.disk())
}

/// Writes `peers.lock` anew.
pub fn lock(host: &Host<'_>) -> Result<()> {
    let data = host.workspace.join("qemu-tests/bench");
    let options = verbs::lock::Options {
        manifest: Manifest::read(&data.join("peers.toml"))?,
        lock: data.join("peers.lock"),
        mirror: host.mirror.map(str::to_owned),
        offline: host.offline,
        trust: Trust::default(),
    };
    print!("{}", verbs::lock::run(&options, host.store, host.progress)?);
    Ok(())
}

fn packages(data: &Path, host: &Host<'_>) -> Result<Vec<Unpacked>> {
    let manifest = Manifest::read(&data.join("peers.toml"))?;
    let lock = Lock::read(&data.join("peers.lock"))?;
    let options = obtain::Options {
        mirror: host.mirror.map(str::to_owned),
        offline: host.offline,
        ..obtain::Options::default()
    };
    let packages = obtain(&lock, &manifest, host.store, &options, host.progress)?;
    host.store.unpack_all(&packages, host.progress)
}

/// Adds what packages have and the root has not.
fn add_packages(
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

/// What depmod would make for udev and modprobe.
fn add_module_indices(root: &mut Tree) -> Result<()> {
    let ends = |path: &TreePath| path.as_bytes().ends_with(b"/modules.dep");
    let base = root.iter().find(|(path, _)| ends(path)).and_then(|(path, _)| path.parent());
    let base = base.ok_or_else(|| Error::new("the root has no modules.dep"))?;
    type Read = fn(&str) -> module_index::Entries;
    let indices: [(&str, Read); 3] = [
        ("modules.dep", module_index::dependencies),
        ("modules.alias", module_index::aliases),
        ("modules.builtin", module_index::builtin),
    ];
    for (name, read) in indices {
        let text = match root.get(&base.join(name)?).map(|node| &node.kind) {
            Some(Kind::File(content)) => content.read()?,
            _ => return Err(Error::new(format!("the root has no {name}"))),
        };
        let index = module_index::encode(&read(&String::from_utf8_lossy(&text)));
        let node = Node::file(Content::bytes(index), 0o644, "benchmark");
        root.insert(base.join(format!("{name}.bin"))?, node)?;
    }
    Ok(())
}

fn add_overlay(overlay: &Tree, root: &mut Tree) -> Result<()> {
    for (path, node) in overlay.iter().filter(|(_, node)| !node.is_directory()) {
        let mut node = node.clone();
        (node.uid, node.gid) = (0, 0);
        root.replace(path.clone(), node)?;
    }
    Ok(())
}
