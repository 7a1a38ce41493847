//! The peers of our PID 1: the same image, with another program in its place.
//!
//! Kernel, initrd, engine, containers and probe stay. What a peer needs besides is data below
//! `qemu-tests/bench/`, and packages of Debian that `peers.lock` pins. No script of a package
//! runs: accounts, enabled units and module indices are made here as they would leave them. What is
//! spared a peer (checking the data partition, terminals, time synchronisation) is in its favour.

use std::path::{Path, PathBuf};

use builder::build::{self, Host, Plan};
use builder::error::{Error, Result};
use builder::sign::{Profile, key_for_build};
use builder::tree::{Content, Kind, Node, Tree, TreePath};

use super::{directory, module_index};
use crate::packages::{self, Packages};

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
    let packages = packages(host.workspace).unpacked(host)?;
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
        root_format: builder::cli::RootFormat::default(),
        locked: false,
        force: true,
        carried: builder::app::carried::Carried::default(),
        config: None,
    };
    let overlay = directory::read(&data.join(name))?;
    let summary = build::build_changed(&plan, host, |trees| {
        packages::add(&ships, &packages, &mut trees.root)?;
        change(&mut trees.root)?;
        add_overlay(&overlay, &mut trees.root)
    })?;
    Ok(summary.disk())
}

/// The packages of the peers.
pub fn packages(workspace: &Path) -> Packages {
    Packages::of(&workspace.join("qemu-tests/bench"), "peers")
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
