//! A directory of this machine as a tree, so that our writers and those of others get the same.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use builder::error::{Context, Error, Result};
use builder::tree::{Content, Kind, Node, Tree, TreePath};

/// Everything in a directory; contents stay on disk until a writer reads them.
pub fn read(directory: &Path) -> Result<Tree> {
    let mut tree = Tree::new();
    add(directory, &TreePath::root(), &mut tree, &mut HashMap::new())?;
    Ok(tree)
}

/// Adds a path and all below it; files stay on disk until the writer reads them.
fn add(
    path: &Path,
    at: &TreePath,
    tree: &mut Tree,
    links: &mut HashMap<(u64, u64), TreePath>,
) -> Result<()> {
    let what = || format!("cannot read {}", path.display());
    let metadata = path.symlink_metadata().context(what)?;
    let kind = metadata.file_type();
    let identity = (metadata.dev(), metadata.ino());
    let kind = if kind.is_dir() {
        Kind::Directory
    } else if kind.is_symlink() {
        Kind::Symlink(path.read_link().context(what)?.as_os_str().as_bytes().to_vec())
    } else if let Some(first) = links.get(&identity) {
        Kind::HardLink(first.clone())
    } else if kind.is_file() {
        let path = Arc::new(path.to_path_buf());
        Kind::File(Content::Range { path, offset: 0, length: metadata.len() })
    } else if kind.is_fifo() {
        Kind::Fifo
    } else {
        return Err(Error::new(format!("{} is of a kind not expected here", path.display())));
    };
    if matches!(kind, Kind::File(_)) && metadata.nlink() > 1 {
        links.insert(identity, at.clone());
    }
    let is_directory = matches!(kind, Kind::Directory);
    let mut node = Node::new(kind, (metadata.mode() & 0o7777) as u16, "directory");
    (node.uid, node.gid) = (metadata.uid(), metadata.gid());
    tree.replace(at.clone(), node)?;
    if is_directory {
        let mut names = Vec::new();
        for entry in path.read_dir().context(what)? {
            names.push(entry.context(what)?.file_name());
        }
        // Sorted, so that of several hard links the first by path carries the content.
        names.sort();
        for name in names {
            add(&path.join(&name), &at.join(name.as_bytes())?, tree, links)?;
        }
    }
    Ok(())
}
