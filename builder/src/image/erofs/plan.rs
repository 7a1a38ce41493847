//! A tree as EROFS sees it: numbered inodes, link counts, directory blocks. No data is read here.

use std::collections::HashMap;
use std::ops::Range;

use super::format::{
    BLOCK_BYTES, ENTRY_BYTES, INODE_BYTES_MAX, InodeFields, NAME_BYTES_MAX, SLOT_BYTES, entry_type,
    mode,
};
use super::xattr::Xattrs;
use crate::error::{Error, Result};
use crate::tree::{Kind, Node, Tree, TreePath};

/// Longest target of a symbolic link that Linux follows (PATH_MAX with its zero byte).
const TARGET_BYTES_MAX: usize = 4095;

/// The inodes of a tree in path order (root first) and their shared attributes.
pub(super) struct Plan<'a> {
    pub(super) inodes: Vec<Inode<'a>>,
    pub(super) shared_xattrs: Vec<u8>,
}

/// One inode: a node of the tree that is not a hard link.
pub(super) struct Inode<'a> {
    pub(super) path: &'a TreePath,
    pub(super) node: &'a Node,
    /// Type and permissions.
    pub(super) mode: u16,
    pub(super) links: u32,
    /// The attribute area as it follows the inode.
    pub(super) xattrs: Vec<u8>,
    /// What a directory holds; `None` for anything else.
    pub(super) directory: Option<Directory<'a>>,
}

/// A directory's entries, sorted by name, cut into blocks.
#[derive(Default)]
pub(super) struct Directory<'a> {
    entries: Vec<Entry<'a>>,
    blocks: Vec<Range<usize>>,
}

struct Entry<'a> {
    name: &'a [u8],
    inode: usize,
    kind: u8,
}

impl<'a> Plan<'a> {
    /// Numbers the inodes and checks names, links and attributes.
    pub(super) fn new(tree: &'a Tree) -> Result<Self> {
        let xattrs = Xattrs::new(tree.iter().filter(|(_, node)| !is_link(node)))?;
        let mut inodes = Vec::new();
        let mut numbers: HashMap<&TreePath, usize> = HashMap::new();
        for (path, node) in tree.iter().filter(|(_, node)| !is_link(node)) {
            numbers.insert(path, inodes.len());
            inodes.push(Inode::new(path, node, &xattrs)?);
        }
        let mut plan = Self { inodes, shared_xattrs: xattrs.area };
        for (path, node) in tree.iter() {
            plan.link(&numbers, path, node)?;
        }
        for inode in &mut plan.inodes {
            if let Some(directory) = &mut inode.directory {
                directory.cut();
            }
        }
        Ok(plan)
    }

    /// Enters a node into its parent directory and counts the link.
    fn link(
        &mut self,
        numbers: &HashMap<&TreePath, usize>,
        path: &'a TreePath,
        node: &'a Node,
    ) -> Result<()> {
        let number = |wanted: &TreePath| {
            numbers.get(wanted).copied().ok_or_else(|| {
                Error::new(format!(
                    "{} needs {}, which is missing",
                    path.display(),
                    wanted.display()
                ))
            })
        };
        let target = match &node.kind {
            Kind::HardLink(target) => number(target)?,
            _ => number(path)?,
        };
        let kind = entry_type(self.inodes[target].mode);
        let parent = match path.parent() {
            Some(parent) => number(&parent)?,
            None => target,
        };
        if node.is_directory() {
            // A directory's own `.` and its `..`, which counts for the parent.
            self.enter(target, b".", target, kind, path)?;
            self.enter(target, b"..", parent, kind, path)?;
        }
        if !path.is_root() {
            self.enter(parent, path.name(), target, kind, path)?;
        }
        Ok(())
    }

    fn enter(
        &mut self,
        directory: usize,
        name: &'a [u8],
        inode: usize,
        kind: u8,
        path: &TreePath,
    ) -> Result<()> {
        if name.len() > NAME_BYTES_MAX {
            return Err(Error::new(format!(
                "{}: name of {} bytes, at most {NAME_BYTES_MAX} fit",
                path.display(),
                name.len()
            )));
        }
        let target = &mut self.inodes[inode];
        target.links = target.links.checked_add(1).ok_or_else(|| {
            Error::new(format!("{} has more links than EROFS can count", target.path.display()))
        })?;
        let holder = self.inodes[directory].directory.as_mut().ok_or_else(|| {
            Error::new(format!("{} lies in something that is no directory", path.display()))
        })?;
        holder.entries.push(Entry { name, inode, kind });
        Ok(())
    }
}

impl<'a> Inode<'a> {
    fn new(path: &'a TreePath, node: &'a Node, xattrs: &Xattrs) -> Result<Self> {
        let kind_bits = match &node.kind {
            Kind::Directory => mode::DIRECTORY,
            Kind::File(_) | Kind::HardLink(_) => mode::FILE,
            Kind::Symlink(_) => mode::SYMLINK,
            Kind::CharDevice { .. } => mode::CHAR,
            Kind::BlockDevice { .. } => mode::BLOCK,
            Kind::Fifo => mode::FIFO,
        };
        if node.mode & mode::TYPE != 0 {
            return Err(Error::new(format!(
                "{}: mode {:#o} has more than permission bits",
                path.display(),
                node.mode
            )));
        }
        if let Kind::Symlink(target) = &node.kind {
            check_target(path, target)?;
        }
        Ok(Self {
            path,
            node,
            mode: kind_bits | node.mode,
            links: 0,
            xattrs: xattrs.encode(path, node)?,
            directory: node.is_directory().then(Directory::default),
        })
    }
}

impl Inode<'_> {
    /// `i_size`.
    pub(super) fn size(&self) -> u64 {
        match (&self.node.kind, &self.directory) {
            (Kind::File(content), _) => content.length(),
            (Kind::Symlink(target), _) => target.len() as u64,
            (_, Some(directory)) => directory.size() as u64,
            _ => 0,
        }
    }

    /// Bytes of inode and attributes, which all else follows.
    pub(super) fn head_bytes(&self) -> usize {
        let node = self.node;
        let compact = InodeFields::is_compact(node.uid, node.gid, self.links, self.size());
        self.xattrs.len() + if compact { SLOT_BYTES } else { INODE_BYTES_MAX }
    }
}

impl Directory<'_> {
    /// Sorts the entries and fills blocks in order: entries in front, names behind them.
    fn cut(&mut self) {
        self.entries.sort_unstable_by(|left, right| left.name.cmp(right.name));
        let mut start = 0;
        let mut used = 0;
        for (index, entry) in self.entries.iter().enumerate() {
            let bytes = ENTRY_BYTES + entry.name.len();
            if used + bytes > BLOCK_BYTES {
                self.blocks.push(start..index);
                (start, used) = (index, 0);
            }
            used += bytes;
        }
        self.blocks.push(start..self.entries.len());
    }

    /// Number of blocks, the last partly filled.
    pub(super) fn block_count(&self) -> usize {
        self.blocks.len()
    }

    /// Bytes used in the last block.
    pub(super) fn last_block_bytes(&self) -> usize {
        let last = self.blocks.last().cloned().unwrap_or_default();
        self.entries[last].iter().map(|entry| ENTRY_BYTES + entry.name.len()).sum()
    }

    /// `i_size`: all blocks full but the last.
    pub(super) fn size(&self) -> usize {
        (self.block_count() - 1) * BLOCK_BYTES + self.last_block_bytes()
    }

    /// One block's used bytes; `nid` tells where each inode came to lie.
    pub(super) fn encode(&self, block: usize, nid: impl Fn(usize) -> u64) -> Vec<u8> {
        let entries = &self.entries[self.blocks[block].clone()];
        let mut bytes = Vec::with_capacity(BLOCK_BYTES);
        let mut name_offset = entries.len() * ENTRY_BYTES;
        for entry in entries {
            bytes.extend(nid(entry.inode).to_le_bytes());
            bytes.extend(u16::try_from(name_offset).unwrap_or(0).to_le_bytes());
            bytes.extend([entry.kind, 0]);
            name_offset += entry.name.len();
        }
        for entry in entries {
            bytes.extend(entry.name);
        }
        bytes
    }
}

fn is_link(node: &Node) -> bool {
    matches!(node.kind, Kind::HardLink(_))
}

fn check_target(path: &TreePath, target: &[u8]) -> Result<()> {
    match target.len() {
        0 => Err(Error::new(format!("{}: symbolic link without a target", path.display()))),
        1..=TARGET_BYTES_MAX => Ok(()),
        length => Err(Error::new(format!(
            "{}: symbolic link target of {length} bytes, at most {TARGET_BYTES_MAX} fit",
            path.display()
        ))),
    }
}
