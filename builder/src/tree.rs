//! The root tree: what a file system will hold, sorted, in memory, independent of any format.
//!
//! Guarantees: every node's parent exists and is a directory; paths are relative, normalised and
//! unique; two origins that disagree about a path are an error. Contents may stay on disk until a
//! writer reads them. Writers (`image::{erofs, cpio, …}`) take a finished tree and never change it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Context, Error, Result};

/// A path inside a tree: relative, `/`-separated, no empty, `.` or `..` parts. The root is `""`.
///
/// Bytes, not text: Linux paths are bytes. Ordered by whole path bytes with `/` lowest, so that a
/// directory comes right before what it holds.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TreePath(Vec<u8>);

impl TreePath {
    /// The root directory.
    pub fn root() -> Self {
        Self(Vec::new())
    }

    /// Accepts `usr/bin`, `/usr/bin`, `./usr/bin`, `usr/bin/`; refuses `..` and NUL.
    pub fn new(path: impl AsRef<[u8]>) -> Result<Self> {
        let mut parts: Vec<&[u8]> = Vec::new();
        for part in path.as_ref().split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => return Err(bad_path(path.as_ref(), "`..` is not allowed")),
                part if part.contains(&0) => {
                    return Err(bad_path(path.as_ref(), "it holds a NUL byte"));
                }
                part => parts.push(part),
            }
        }
        Ok(Self(parts.join(&b'/')))
    }

    /// The bytes, without a leading slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// True for the root directory.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The directory that holds this path; `None` for the root.
    pub fn parent(&self) -> Option<TreePath> {
        if self.is_root() {
            return None;
        }
        let end = self.0.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        Some(Self(self.0[..end].to_vec()))
    }

    /// The last part; empty for the root.
    pub fn name(&self) -> &[u8] {
        match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => &self.0[slash + 1..],
            None => &self.0,
        }
    }

    /// This path with one more part.
    pub fn join(&self, name: impl AsRef<[u8]>) -> Result<TreePath> {
        let mut path = self.0.clone();
        path.push(b'/');
        path.extend_from_slice(name.as_ref());
        Self::new(path)
    }

    /// For messages: the path with a leading slash, odd bytes escaped.
    pub fn display(&self) -> String {
        format!("/{}", self.0.escape_ascii())
    }

    fn sort_key(&self) -> impl Iterator<Item = u8> + '_ {
        self.0.iter().map(|byte| if *byte == b'/' { 0 } else { *byte })
    }
}

impl Ord for TreePath {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.sort_key().cmp(other.sort_key())
    }
}

impl PartialOrd for TreePath {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

fn bad_path(path: &[u8], why: &str) -> Error {
    Error::new(format!("bad path `{}`: {why}", path.escape_ascii()))
}

/// The bytes of a regular file: in memory, or a range of a file of the store.
#[derive(Clone, Debug)]
pub enum Content {
    /// Held in memory.
    Bytes(Arc<[u8]>),
    /// `length` bytes from `offset` of the file `path`, which does not change during a build.
    Range {
        /// The file that holds the bytes.
        path: Arc<PathBuf>,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        length: u64,
    },
}

impl Content {
    /// Content held in memory.
    pub fn bytes(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self::Bytes(bytes.into())
    }

    /// Number of bytes.
    pub fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Range { length, .. } => *length,
        }
    }

    /// All bytes; reads them from disk if they are not in memory.
    pub fn read(&self) -> Result<Arc<[u8]>> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.clone()),
            Self::Range { path, offset, length } => {
                let what =
                    || format!("cannot read {length} bytes at {offset} of {}", path.display());
                let length = usize::try_from(*length).context(what)?;
                let file = File::open(path.as_ref()).context(what)?;
                let mut bytes = vec![0; length];
                file.read_exact_at(&mut bytes, *offset).context(what)?;
                Ok(bytes.into())
            }
        }
    }
}

/// What a path is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A directory; what it holds are nodes of their own.
    Directory,
    /// A regular file.
    File(Content),
    /// A symbolic link with its target's bytes.
    Symlink(Vec<u8>),
    /// Another name of the regular file at this path, which is not itself a hard link.
    HardLink(TreePath),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// One file, directory or other object of a tree.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Permission bits with set-uid, set-gid and sticky: at most `0o7777`.
    pub mode: u16,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Extended attributes by full name (`security.capability`), raw values.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Who brought it: a package name, a component, `overlay`…; for messages and the size report.
    pub origin: Arc<str>,
}

impl Node {
    /// A node owned by root without extended attributes.
    pub fn new(kind: Kind, mode: u16, origin: impl Into<Arc<str>>) -> Self {
        Self { kind, mode, uid: 0, gid: 0, xattrs: BTreeMap::new(), origin: origin.into() }
    }

    /// A root-owned directory with mode 0755.
    pub fn directory(origin: impl Into<Arc<str>>) -> Self {
        Self::new(Kind::Directory, 0o755, origin)
    }

    /// A root-owned regular file.
    pub fn file(content: Content, mode: u16, origin: impl Into<Arc<str>>) -> Self {
        Self::new(Kind::File(content), mode, origin)
    }

    /// A root-owned symbolic link.
    pub fn symlink(target: impl Into<Vec<u8>>, origin: impl Into<Arc<str>>) -> Self {
        Self::new(Kind::Symlink(target.into()), 0o777, origin)
    }

    /// True for a directory.
    pub fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory)
    }
}

/// A sorted tree of nodes; always holds the root directory.
#[derive(Clone, Debug)]
pub struct Tree {
    nodes: BTreeMap<TreePath, Node>,
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

impl Tree {
    /// A tree with only a root directory (mode 0755).
    pub fn new() -> Self {
        Self { nodes: BTreeMap::from([(TreePath::root(), Node::directory("root"))]) }
    }

    /// Adds a node; makes missing parents (0755, same origin).
    ///
    /// A directory met again keeps its first owner and mode. Anything else at a taken path, a
    /// parent that is no directory, and a hard link to a path that is no regular file are errors
    /// that name both origins.
    pub fn insert(&mut self, path: TreePath, node: Node) -> Result<()> {
        if let Some(present) = self.nodes.get(&path) {
            if present.is_directory() && node.is_directory() {
                return Ok(());
            }
            return Err(Error::new(format!(
                "{} comes from both {} and {}",
                path.display(),
                present.origin,
                node.origin
            )));
        }
        self.make_parents(&path, &node.origin)?;
        if let Kind::HardLink(target) = &node.kind {
            let is_file = self.nodes.get(target).is_some_and(|n| matches!(n.kind, Kind::File(_)));
            if !is_file {
                return Err(Error::new(format!(
                    "{} from {} is a hard link to {}, which is not a regular file of the tree",
                    path.display(),
                    node.origin,
                    target.display()
                )));
            }
        }
        self.nodes.insert(path, node);
        Ok(())
    }

    fn make_parents(&mut self, path: &TreePath, origin: &Arc<str>) -> Result<()> {
        let mut missing = Vec::new();
        let mut parent = path.parent();
        while let Some(directory) = parent {
            match self.nodes.get(&directory) {
                Some(node) if node.is_directory() => break,
                Some(node) => {
                    return Err(Error::new(format!(
                        "{} from {origin} lies under {}, which {} does not have as a directory",
                        path.display(),
                        directory.display(),
                        node.origin
                    )));
                }
                None => {
                    parent = directory.parent();
                    missing.push(directory);
                }
            }
        }
        for directory in missing {
            self.nodes.insert(directory, Node::directory(origin.clone()));
        }
        Ok(())
    }

    /// Replaces or adds a node without the conflict check; parents as in [`Tree::insert`].
    pub fn replace(&mut self, path: TreePath, node: Node) -> Result<()> {
        self.make_parents(&path, &node.origin)?;
        self.nodes.insert(path, node);
        Ok(())
    }

    /// The node at a path, symbolic links not followed.
    pub fn get(&self, path: &TreePath) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// All nodes, each directory right before what it holds, names sorted by bytes.
    pub fn iter(&self) -> impl Iterator<Item = (&TreePath, &Node)> {
        self.nodes.iter()
    }

    /// Number of nodes, the root among them.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never true: a tree holds its root.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// One line a node: mode, owner, kind, path, detail. For snapshots and reviews.
    pub fn dump(&self) -> String {
        let mut text = String::new();
        for (path, node) in &self.nodes {
            let (letter, detail) = match &node.kind {
                Kind::Directory => ('d', String::new()),
                Kind::File(content) => ('f', format!(" {}", content.length())),
                Kind::Symlink(target) => ('l', format!(" -> {}", target.escape_ascii())),
                Kind::HardLink(target) => ('h', format!(" = {}", target.display())),
                Kind::CharDevice { major, minor } => ('c', format!(" {major}:{minor}")),
                Kind::BlockDevice { major, minor } => ('b', format!(" {major}:{minor}")),
                Kind::Fifo => ('p', String::new()),
            };
            let _ = write!(
                text,
                "{letter} {:04o} {}:{} {}{detail}",
                node.mode,
                node.uid,
                node.gid,
                path.display()
            );
            for (name, value) in &node.xattrs {
                let _ = write!(text, " {}={}", name.escape_ascii(), value.escape_ascii());
            }
            let _ = writeln!(text, " [{}]", node.origin);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    #[test]
    fn a_directory_comes_right_before_what_it_holds() {
        let mut tree = Tree::new();
        for name in ["a-b", "a/z", "a/b/c", "b"] {
            tree.insert(path(name), Node::file(Content::bytes(*b"x"), 0o644, "p")).unwrap();
        }
        let order: Vec<String> = tree.iter().map(|(path, _)| path.display()).collect();
        assert_eq!(order, ["/", "/a", "/a/b", "/a/b/c", "/a/z", "/a-b", "/b"]);
    }

    #[test]
    fn two_origins_of_one_file_are_an_error_that_names_both() {
        let mut tree = Tree::new();
        tree.insert(path("x"), Node::file(Content::bytes(*b"1"), 0o644, "one")).unwrap();
        let error = tree.insert(path("x"), Node::file(Content::bytes(*b"2"), 0o644, "two"));
        assert_eq!(error.unwrap_err().to_string(), "/x comes from both one and two");
    }

    #[test]
    fn nothing_lies_under_a_file_and_no_path_climbs_out() {
        let mut tree = Tree::new();
        tree.insert(path("x"), Node::symlink("y", "one")).unwrap();
        assert!(tree.insert(path("x/y"), Node::directory("two")).is_err());
        assert!(TreePath::new("a/../b").is_err());
        assert_eq!(TreePath::new("./a//b/").unwrap(), path("a/b"));
    }

    #[test]
    fn a_hard_link_needs_its_file() {
        let mut tree = Tree::new();
        let link = || Node::new(Kind::HardLink(path("x")), 0o644, "p");
        assert!(tree.insert(path("y"), link()).is_err());
        tree.insert(path("x"), Node::file(Content::bytes(*b"1"), 0o644, "p")).unwrap();
        tree.insert(path("y"), link()).unwrap();
    }
}
