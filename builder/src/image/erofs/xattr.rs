//! Extended attributes as bytes: inline after each inode, and once in a shared area where several
//! inodes carry the same name and value.

use std::collections::BTreeMap;

use super::format::{XATTR_HEADER_BYTES, XATTR_PREFIXES, align};
use crate::error::{Error, Result};
use crate::tree::{Node, TreePath};

/// Most shared attributes of one inode: the count is one byte on disk.
const SHARED_PER_INODE: usize = 255;
/// Longest attribute area of one inode in 4-byte units, as `i_xattr_icount` can say.
const UNITS_MAX: usize = u16::MAX as usize - 1;

/// All attributes of a tree: those met more than once, with their place in the shared area.
pub(super) struct Xattrs {
    /// The shared area's bytes.
    pub(super) area: Vec<u8>,
    shared: BTreeMap<Vec<u8>, u32>,
}

impl Xattrs {
    /// Finds the attributes worth sharing: each use costs 4 bytes instead of the whole entry.
    pub(super) fn new<'a>(nodes: impl Iterator<Item = (&'a TreePath, &'a Node)>) -> Result<Self> {
        let mut uses: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
        for (path, node) in nodes {
            for (name, value) in &node.xattrs {
                *uses.entry(entry(path, name, value)?).or_default() += 1;
            }
        }
        let mut area = Vec::new();
        let mut shared = BTreeMap::new();
        for (entry, _) in uses.into_iter().filter(|(_, count)| *count > 1) {
            let id = u32::try_from(area.len() / 4)
                .map_err(|_| Error::new("shared extended attributes exceed 16 GiB"))?;
            area.extend_from_slice(&entry);
            shared.insert(entry, id);
        }
        Ok(Self { area, shared })
    }

    /// The attribute area that follows a node's inode; empty without attributes.
    pub(super) fn encode(&self, path: &TreePath, node: &Node) -> Result<Vec<u8>> {
        if node.xattrs.is_empty() {
            return Ok(Vec::new());
        }
        let mut ids = Vec::new();
        let mut inline = Vec::new();
        for (name, value) in &node.xattrs {
            let entry = entry(path, name, value)?;
            match self.shared.get(&entry) {
                Some(id) if ids.len() < SHARED_PER_INODE => ids.push(*id),
                _ => inline.extend_from_slice(&entry),
            }
        }
        let mut bytes = vec![0; XATTR_HEADER_BYTES];
        bytes[4] = u8::try_from(ids.len()).unwrap_or(u8::MAX);
        bytes.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
        bytes.extend(inline);
        if bytes.len() > XATTR_HEADER_BYTES + 4 * (UNITS_MAX - 1) {
            return Err(Error::new(format!(
                "{}: {} bytes of extended attributes, EROFS holds 256 KiB a file",
                path.display(),
                bytes.len()
            )));
        }
        Ok(bytes)
    }
}

/// `i_xattr_icount` for an attribute area: its header counts as one unit.
pub(super) fn count(area: &[u8]) -> u16 {
    match area.len() {
        0 => 0,
        length => u16::try_from(1 + (length - XATTR_HEADER_BYTES) / 4).unwrap_or(u16::MAX),
    }
}

/// One attribute: length of name, class, length of value, name without its class, value, padding.
fn entry(path: &TreePath, name: &[u8], value: &[u8]) -> Result<Vec<u8>> {
    let shown = || format!("{}: extended attribute `{}`", path.display(), name.escape_ascii());
    let (class, suffix) = split(name)
        .ok_or_else(|| Error::new(format!("{} is of a class EROFS cannot store", shown())))?;
    let name_length = u8::try_from(suffix.len())
        .map_err(|_| Error::new(format!("{} has a name longer than 255 bytes", shown())))?;
    let value_length = u16::try_from(value.len()).map_err(|_| {
        Error::new(format!("{} has a value of {} bytes, at most 65535 fit", shown(), value.len()))
    })?;
    let mut bytes = vec![name_length, class];
    bytes.extend(value_length.to_le_bytes());
    bytes.extend(suffix);
    bytes.extend(value);
    bytes.resize(align(bytes.len(), 4), 0);
    Ok(bytes)
}

fn split(name: &[u8]) -> Option<(u8, &[u8])> {
    XATTR_PREFIXES.iter().find_map(|(class, prefix)| {
        let suffix = name.strip_prefix(*prefix)?;
        // The ACL classes are whole names, the others need something after the dot.
        (prefix.ends_with(b".") != suffix.is_empty()).then_some((*class, suffix))
    })
}
