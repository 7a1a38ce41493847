//! One short word for everything that decides what a component's bytes are.

use std::fs;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::{Compilers, Component, Target, link_flags};
use crate::error::{Context, Result};
use crate::hex;

/// Raised when the way of building changes without any of the inputs.
const FORMAT: &str = "component 1";

/// Files beside the crates themselves that decide how they are built.
const SHARED: [&str; 2] = ["Cargo.lock", "Cargo.toml"];

/// SHA-256.
pub(super) fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Hashes every source file of a component: path, then content.
pub(super) fn of_sources(workspace: &Path, component: Component) -> Result<String> {
    let mut paths: Vec<String> = SHARED.iter().map(|&name| name.to_owned()).collect();
    for directory in component.sources() {
        collect(workspace, directory, &mut paths)?;
    }
    paths.sort();
    let mut hasher = Sha256::new();
    for path in paths {
        let bytes = fs::read(workspace.join(&path)).context(|| format!("cannot read {path}"))?;
        hasher.update(format!("{path}\0{}\0", bytes.len()));
        hasher.update(&bytes);
    }
    Ok(hex::encode(hasher.finalize()))
}

fn collect(workspace: &Path, directory: &str, paths: &mut Vec<String>) -> Result<()> {
    let cannot = || format!("cannot list {directory}");
    for entry in fs::read_dir(workspace.join(directory)).context(cannot)? {
        let entry = entry.context(cannot)?;
        let path = format!("{directory}/{}", entry.file_name().to_string_lossy());
        if entry.file_type().context(cannot)?.is_dir() {
            collect(workspace, &path, paths)?;
        } else {
            paths.push(path);
        }
    }
    Ok(())
}

/// Hashes all that decides the bytes of a component.
pub(super) fn of_build(
    component: Component,
    target: Target,
    made_with: &Compilers,
    sources: &str,
) -> String {
    let flags = link_flags(target).join(" ");
    let parts = [
        FORMAT,
        component.name(),
        target.triple,
        &flags,
        &made_with.toolchain.identity,
        &made_with.library.id,
        made_with.c.as_ref().map_or("no C", |c| &c.id),
        sources,
    ];
    hex::encode(digest(parts.join("\0").as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("Cargo.lock", "lock"),
            ("Cargo.toml", "workspace"),
            ("loader/src/main.rs", "main"),
            ("ondisk/src/lib.rs", "lib"),
            ("initramfs/src/main.rs", "init"),
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn a_changed_new_or_renamed_source_changes_the_fingerprint_and_a_foreign_one_does_not() {
        let root = workspace();
        let now = || of_sources(root.path(), Component::Loader).unwrap();
        let first = now();
        fs::write(root.path().join("initramfs/src/main.rs"), "other").unwrap();
        assert_eq!(now(), first);
        fs::write(root.path().join("ondisk/src/lib.rs"), "other").unwrap();
        let second = now();
        assert_ne!(second, first);
        fs::write(root.path().join("loader/src/disk.rs"), "").unwrap();
        let third = now();
        assert_ne!(third, second);
        fs::rename(root.path().join("loader/src/disk.rs"), root.path().join("loader/src/a.rs"))
            .unwrap();
        assert_ne!(now(), third);
    }
}
