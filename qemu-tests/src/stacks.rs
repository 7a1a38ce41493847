//! Three stacks as people write them: a web interface with its database, a message broker with
//! those who use it, and a job of cron's. Their images hold programs of Debian.
//!
//! Compose files and what lies beside them are data below `qemu-tests/stacks`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use builder::build::Host;
use builder::error::Result;
use builder::host::unpack::Unpacked;
use builder::oci::{self, Architecture};
use builder::tree::{Content, Node, Tree, TreePath};

use crate::image;
use crate::packages::{self, Packages};

/// How many stacks there are.
pub const COUNT: usize = 3;

/// Images of the stacks: names and tags.
const IMAGES: [(&str, &str); 4] =
    [("redis", "8"), ("webdis", "0.1"), ("mosquitto", "2"), ("cron", "1")];
/// Packages whose programs they have; of the others they have libraries.
const PROGRAMS: [&str; 5] =
    ["mosquitto", "mosquitto-clients", "redis-server", "redis-tools", "webdis"];

/// The packages whose programs run in the containers.
pub fn packages(workspace: &Path) -> Packages {
    Packages::of(&directory(workspace), "packages")
}

/// The stacks: directories with a Compose file each.
pub fn apps(workspace: &Path) -> [PathBuf; COUNT] {
    ["notes", "sensors", "ticks"].map(|name| directory(workspace).join(name))
}

/// Writes their images into a directory, as `docker save` would.
pub fn save_images(host: &Host<'_>, directory: &Path) -> Result<Vec<PathBuf>> {
    let tree = tree(&packages(host.workspace).unpacked(host)?)?;
    std::fs::create_dir_all(directory).unwrap();
    let paths = IMAGES.map(|(name, tag)| {
        let image = oci::Image {
            name,
            tag,
            architecture: Architecture::Arm64,
            tree: &tree,
            command: &["/bin/sh"],
            environment: &BTreeMap::from([(
                "PATH".to_owned(),
                "/usr/bin:/usr/sbin:/bin".to_owned(),
            )]),
        };
        let path = directory.join(format!("{name}.tar"));
        std::fs::write(&path, image.build()?.bytes).unwrap();
        Ok(path)
    });
    paths.into_iter().collect()
}

/// One tree for all of them: an engine keeps their one layer once.
fn tree(packages: &[Unpacked]) -> Result<Tree> {
    let applets = ["sh", "echo", "wc", "crond"];
    let mut tree = oci::busybox_tree(Content::bytes(image::busybox()), &applets)?;
    tree.insert(TreePath::new("lib")?, Node::symlink("usr/lib", "test"))?;
    packages::add(ships, packages, &mut tree)?;
    Ok(tree)
}

fn ships(package: &str, path: &str) -> bool {
    let starts = |with: &str| path.starts_with(with);
    let loader = "ld-linux-aarch64.so.1";
    starts("usr/lib/aarch64-linux-gnu/lib")
        || starts("usr/lib/") && path.ends_with(loader)
        || PROGRAMS.contains(&package) && (starts("usr/bin/") || starts("usr/sbin/"))
}

fn directory(workspace: &Path) -> PathBuf {
    workspace.join("qemu-tests/stacks")
}
