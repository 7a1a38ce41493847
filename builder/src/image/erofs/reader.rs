//! Reads the images that [`super::write`] makes: the other half of its proof, and what
//! `iota inspect` shows.
//!
//! Trusts nothing: every offset and length is checked before use, a damaged image gives an error
//! that says which part is wrong. Features this writer does not use are refused by name.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;

use super::format::{
    Algorithm, BLOCK_BYTES, CHUNK_BLOCK_BITS, CHUNK_BYTES, ENTRY_BYTES, HOLE, INODE_BYTES_MAX,
    InodeFields, Layout, MapHeader, SLOT_BYTES, Superblock, XATTR_HEADER_BYTES, XATTR_PREFIXES,
    align, blocks_for, device_parts, entry_type, incompat, mode, u16_at, u32_at, u64_at,
};
use super::{index, zstd};
use crate::error::{Context, Error, Result};
use crate::image::lz4;
use crate::tree::{Content, Kind, Node, Tree, TreePath};

/// Largest file read into memory: beyond it, a length is taken for damage.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// Longest stretch that one cluster may decompress to, as in the kernel.
const CLUSTER_LENGTH_MAX: u64 = 12 << 20;

/// Longest path followed: as in Linux.
const PATH_BYTES_MAX: usize = 4096;

/// Gives an image's bytes.
pub trait ImageSource {
    /// Fills `bytes` from an offset; an error if the image ends before.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<()>;
}

impl ImageSource for File {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        self.read_exact_at(bytes, offset)
            .context(|| format!("cannot read {} bytes of the image at {offset}", bytes.len()))
    }
}

impl ImageSource for &[u8] {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        let range = usize::try_from(offset).ok().and_then(|at| self.get(at..)?.get(..bytes.len()));
        let range =
            range.ok_or_else(|| Error::new(format!("the image ends before byte {offset}")))?;
        bytes.copy_from_slice(range);
        Ok(())
    }
}

/// An image whose superblock was checked.
pub struct Image<S> {
    source: S,
    pub(super) superblock: Superblock,
}

/// An inode read from an image.
#[derive(Clone, Debug)]
pub struct Inode {
    /// Its number: where it lies.
    pub nid: u64,
    pub(super) fields: InodeFields,
    /// Offset in the image of the byte after its fixed part.
    pub(super) after: u64,
}

impl Inode {
    /// Length of its data.
    pub fn size(&self) -> u64 {
        self.fields.size
    }

    /// Type and permissions as in `stat`.
    pub fn mode(&self) -> u16 {
        self.fields.mode
    }

    /// True for a directory.
    pub fn is_directory(&self) -> bool {
        self.fields.mode & mode::TYPE == mode::DIRECTORY
    }

    fn xattr_bytes(&self) -> usize {
        match self.fields.xattr_count {
            0 => 0,
            count => XATTR_HEADER_BYTES + 4 * (usize::from(count) - 1),
        }
    }

    /// Where attributes end.
    pub(super) fn head_end(&self) -> u64 {
        self.after + self.xattr_bytes() as u64
    }
}

/// One name in a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirectoryEntry {
    /// The name's bytes.
    pub name: Vec<u8>,
    /// Number of the inode it names.
    pub nid: u64,
    pub(super) kind: u8,
}

/// A stretch of a file and where it is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Extent {
    /// First byte in the file.
    pub start: u64,
    /// Bytes of the file.
    pub length: u64,
    /// Where they are.
    pub storage: Storage,
}

/// Where a stretch of a file is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Storage {
    /// Zeros, not stored.
    Hole,
    /// As they are, from this offset of the image.
    Plain(u64),
    /// In one block at this offset, each byte at its offset in the page.
    Wrapped(u64),
    /// Compressed, with zeros before.
    Compressed {
        /// First byte in the image.
        offset: u64,
        /// Bytes in the image.
        length: u64,
        /// How to decompress.
        algorithm: &'static str,
    },
}

impl<S: ImageSource> Image<S> {
    /// Reads and checks the superblock.
    pub fn open(source: S) -> Result<Self> {
        let mut block = [0; BLOCK_BYTES];
        source.read_at(0, &mut block)?;
        let superblock = Superblock::decode(&block)?;
        Ok(Self { source, superblock })
    }

    /// Length of the image as its superblock says.
    pub fn length_bytes(&self) -> u64 {
        u64::from(self.superblock.blocks) * BLOCK_BYTES as u64
    }

    /// The root directory.
    pub fn root(&self) -> Result<Inode> {
        let root = self.inode(u64::from(self.superblock.root))?;
        if !root.is_directory() {
            return Err(Error::new("the root is no directory"));
        }
        Ok(root)
    }

    /// Reads an inode.
    pub fn inode(&self, nid: u64) -> Result<Inode> {
        let start = u64::from(self.superblock.meta_block) * BLOCK_BYTES as u64;
        let at = nid
            .checked_mul(SLOT_BYTES as u64)
            .and_then(|offset| offset.checked_add(start))
            .filter(|at| *at < self.length_bytes())
            .ok_or_else(|| Error::new(format!("inode {nid} lies outside the image")))?;
        let mut bytes = [0; INODE_BYTES_MAX];
        // The last inode may be compact and end with the image.
        let room = (self.length_bytes() - at).min(INODE_BYTES_MAX as u64) as usize;
        self.source.read_at(at, &mut bytes[..room])?;
        let (fields, length) = InodeFields::decode(&bytes, self.superblock.build_time_s)
            .context(|| format!("inode {nid}"))?;
        Ok(Inode { nid, fields, after: at + length as u64 })
    }

    /// The entries of a directory, `.` and `..` among them, in order.
    pub fn entries(&self, directory: &Inode) -> Result<Vec<DirectoryEntry>> {
        let data = self.data(directory)?;
        let mut entries: Vec<DirectoryEntry> = Vec::new();
        for block in data.chunks(BLOCK_BYTES) {
            directory_block(block, &mut entries)
                .context(|| format!("directory {}", directory.nid))?;
        }
        if entries.windows(2).any(|pair| pair[0].name >= pair[1].name) {
            return Err(Error::new(format!("directory {} is not sorted", directory.nid)));
        }
        Ok(entries)
    }

    /// The inode at a path, symbolic links not followed; `None` if there is none.
    pub fn find(&self, path: &TreePath) -> Result<Option<Inode>> {
        let mut inode = self.root()?;
        for name in path.as_bytes().split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            if !inode.is_directory() {
                return Ok(None);
            }
            let entries = self.entries(&inode)?;
            match entries.iter().find(|entry| entry.name == name) {
                Some(entry) => inode = self.inode(entry.nid)?,
                None => return Ok(None),
            }
        }
        Ok(Some(inode))
    }

    /// All data of a file, directory or symbolic link.
    pub fn data(&self, inode: &Inode) -> Result<Vec<u8>> {
        let mut data = Vec::new();
        for extent in self.extents(inode)? {
            self.extract(&extent, &mut data)
                .context(|| format!("inode {}, byte {}", inode.nid, extent.start))?;
        }
        if data.len() as u64 != inode.fields.size {
            return Err(Error::new(format!("inode {}: data are incomplete", inode.nid)));
        }
        Ok(data)
    }

    /// Where the data of an inode are, in order.
    pub fn extents(&self, inode: &Inode) -> Result<Vec<Extent>> {
        let size = inode.fields.size;
        if size > FILE_BYTES_MAX {
            return Err(Error::new(format!("inode {}: {size} bytes are too many", inode.nid)));
        }
        match inode.fields.layout {
            Layout::FlatPlain | Layout::FlatInline => self.flat(inode),
            Layout::Chunked => self.chunks(inode),
            Layout::Compressed => self.clusters(inode),
        }
    }

    fn flat(&self, inode: &Inode) -> Result<Vec<Extent>> {
        let size = inode.fields.size;
        let inline = match inode.fields.layout {
            Layout::FlatInline => size % BLOCK_BYTES as u64,
            _ => 0,
        };
        let offset = u64::from(inode.fields.union) * BLOCK_BYTES as u64;
        let parts = [
            Extent { start: 0, length: size - inline, storage: Storage::Plain(offset) },
            Extent {
                start: size - inline,
                length: inline,
                storage: Storage::Plain(self.beside(inode, inode.head_end(), inline)?),
            },
        ];
        Ok(parts.into_iter().filter(|part| part.length > 0).collect())
    }

    /// Checks that data beside an inode stay within a block, as the kernel demands.
    fn beside(&self, inode: &Inode, at: u64, length: u64) -> Result<u64> {
        if at % BLOCK_BYTES as u64 + length > BLOCK_BYTES as u64 {
            return Err(Error::new(format!("inode {}: its data cross a block", inode.nid)));
        }
        Ok(at)
    }

    fn chunks(&self, inode: &Inode) -> Result<Vec<Extent>> {
        if inode.fields.union != CHUNK_BLOCK_BITS {
            return Err(Error::new(format!("inode {}: unsupported chunks", inode.nid)));
        }
        let size = inode.fields.size;
        let (map_at, map_bytes) = self.map_range(inode);
        let map = self.bytes(map_at, map_bytes)?;
        let extents = map.chunks(4).zip((0..size).step_by(CHUNK_BYTES)).map(|(entry, start)| {
            let storage = match u32_at(entry, 0) {
                HOLE => Storage::Hole,
                block => Storage::Plain(u64::from(block) * BLOCK_BYTES as u64),
            };
            Extent { start, length: (size - start).min(CHUNK_BYTES as u64), storage }
        });
        Ok(extents.collect())
    }

    /// Where the chunk map or cluster index of an inode is.
    pub(super) fn map_range(&self, inode: &Inode) -> (u64, u64) {
        let size = inode.fields.size;
        if inode.fields.layout == Layout::Chunked {
            let at = inode.head_end().next_multiple_of(4);
            return (at, size.div_ceil(CHUNK_BYTES as u64) * 4);
        }
        // Only the alignment counts, and that of packs is at most that of inodes.
        let head_bytes = (inode.head_end() % SLOT_BYTES as u64) as usize;
        (inode.head_end().next_multiple_of(8), index::bytes(head_bytes, size) as u64)
    }

    fn clusters(&self, inode: &Inode) -> Result<Vec<Extent>> {
        let (map_at, index_bytes) = self.map_range(inode);
        let map = self.bytes(map_at, index_bytes)?;
        let (header, packs) = map.split_first_chunk().unwrap_or((&[0; MapHeader::BYTES], &[]));
        let header = MapHeader::decode(header).context(|| format!("inode {}", inode.nid))?;
        let inline = self.superblock.incompat & incompat::INLINE_CLUSTER != 0;
        if header.inline_bytes > 0 && !inline {
            return Err(Error::new(format!(
                "inode {}: a cluster beside it, which the superblock does not announce",
                inode.nid
            )));
        }
        let head_bytes = (inode.head_end() % SLOT_BYTES as u64) as usize;
        let found = index::decode(packs, head_bytes, inode.fields.size)
            .context(|| format!("inode {}", inode.nid))?;
        let algorithm = if header.algorithm == Algorithm::LZ4 { "lz4" } else { "zstd" };
        let last = found.len().saturating_sub(1);
        let extent = |(number, cluster): (usize, &index::Located)| {
            let mut offset = u64::from(cluster.block) * BLOCK_BYTES as u64;
            let mut length = u64::from(cluster.blocks) * BLOCK_BYTES as u64;
            if header.inline_bytes > 0 && number == last {
                length = u64::from(header.inline_bytes);
                offset = self.beside(inode, map_at + index_bytes, length)?;
            }
            let storage = match cluster.compressed {
                true => Storage::Compressed { offset, length, algorithm },
                false => Storage::Wrapped(offset),
            };
            Ok(Extent { start: cluster.start, length: cluster.length, storage })
        };
        found.iter().enumerate().map(extent).collect()
    }

    /// Appends an extent's bytes to `data`.
    fn extract(&self, extent: &Extent, data: &mut Vec<u8>) -> Result<()> {
        let start = data.len();
        match extent.storage {
            Storage::Hole => data.resize(start + extent.length as usize, 0),
            Storage::Plain(offset) => data.extend(self.bytes(offset, extent.length)?),
            Storage::Wrapped(offset) => {
                if extent.length > BLOCK_BYTES as u64 {
                    return Err(Error::new("uncompressed cluster longer than a block"));
                }
                let mut block = self.bytes(offset, BLOCK_BYTES as u64)?;
                block.rotate_left(extent.start as usize % BLOCK_BYTES);
                data.extend(&block[..extent.length as usize]);
            }
            Storage::Compressed { offset, length, algorithm } => {
                if extent.length > CLUSTER_LENGTH_MAX {
                    return Err(Error::new("cluster of more than 12 MiB"));
                }
                let stored = self.bytes(offset, length)?;
                let zeros = stored.iter().take_while(|byte| **byte == 0).count();
                data.resize(start + extent.length as usize, 0);
                decompress(algorithm, &stored[zeros..], &mut data[start..])
                    .ok_or_else(|| Error::new(format!("{algorithm} cluster is damaged")))?;
            }
        }
        Ok(())
    }

    /// The extended attributes of an inode by full name.
    pub fn xattrs(&self, inode: &Inode) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
        let area = self.bytes(inode.after, inode.xattr_bytes() as u64)?;
        let mut found = BTreeMap::new();
        let damaged = || Error::new(format!("inode {}: damaged extended attributes", inode.nid));
        let Some(shared) = area.get(4) else { return Ok(found) };
        let (ids, mut entries) = area[XATTR_HEADER_BYTES..]
            .split_at_checked(4 * usize::from(*shared))
            .ok_or_else(damaged)?;
        for id in ids.chunks(4) {
            let base = u64::from(self.superblock.xattr_block) * BLOCK_BYTES as u64;
            let at = base + 4 * u64::from(u32_at(id, 0));
            let length = xattr_bytes(&self.bytes(at, 4)?);
            let entry = self.bytes(at, length as u64)?;
            let (name, value) = xattr(&entry).ok_or_else(damaged)?;
            found.insert(name, value);
        }
        while !entries.is_empty() {
            let length = entries.get(..4).map(xattr_bytes).ok_or_else(damaged)?;
            let (entry, rest) = entries.split_at_checked(length).ok_or_else(damaged)?;
            let (name, value) = xattr(entry).ok_or_else(damaged)?;
            found.insert(name, value);
            entries = rest;
        }
        Ok(found)
    }

    /// The whole image as a tree with its contents in memory, each node of origin `image`.
    ///
    /// Of several names of a file the first by path carries the content.
    pub fn tree(&self) -> Result<Tree> {
        let mut tree = Tree::new();
        let mut seen = HashMap::new();
        let root = self.root()?;
        self.add(TreePath::root(), &root, &mut seen, &mut tree)?;
        Ok(tree)
    }

    fn add(
        &self,
        path: TreePath,
        inode: &Inode,
        seen: &mut HashMap<u64, TreePath>,
        tree: &mut Tree,
    ) -> Result<()> {
        if path.as_bytes().len() > PATH_BYTES_MAX {
            return Err(Error::new("directories are nested too deep"));
        }
        let first = seen.get(&inode.nid).cloned();
        seen.entry(inode.nid).or_insert_with(|| path.clone());
        let node = self.node(inode, first.as_ref()).context(|| path.display())?;
        let is_directory = node.is_directory();
        tree.replace(path.clone(), node)?;
        if !is_directory {
            return Ok(());
        }
        for entry in self.entries(inode)? {
            if entry.name == b"." || entry.name == b".." {
                continue;
            }
            let child = self.inode(entry.nid)?;
            if entry.kind != entry_type(child.fields.mode) {
                return Err(Error::new(format!("{}: an entry has a wrong type", path.display())));
            }
            self.add(path.join(&entry.name)?, &child, seen, tree)?;
        }
        Ok(())
    }

    fn node(&self, inode: &Inode, first: Option<&TreePath>) -> Result<Node> {
        let fields = &inode.fields;
        let (major, minor) = device_parts(fields.union);
        let kind = match (fields.mode & mode::TYPE, first) {
            (mode::DIRECTORY, None) => Kind::Directory,
            (mode::DIRECTORY, Some(_)) => return Err(Error::new("directory met twice")),
            (mode::FILE, None) => Kind::File(Content::bytes(self.data(inode)?)),
            (mode::FILE, Some(first)) => Kind::HardLink(first.clone()),
            (mode::SYMLINK, _) => Kind::Symlink(self.data(inode)?),
            (mode::CHAR, _) => Kind::CharDevice { major, minor },
            (mode::BLOCK, _) => Kind::BlockDevice { major, minor },
            (mode::FIFO, _) => Kind::Fifo,
            (other, _) => return Err(Error::new(format!("unsupported file type {other:#o}"))),
        };
        let mut node = Node::new(kind, fields.mode & !mode::TYPE, "image");
        (node.uid, node.gid) = (fields.uid, fields.gid);
        node.xattrs = self.xattrs(inode)?;
        Ok(node)
    }

    /// Bytes of the image, which must hold them.
    pub(super) fn bytes(&self, offset: u64, length: u64) -> Result<Vec<u8>> {
        let inside = offset.checked_add(length).is_some_and(|end| end <= self.length_bytes());
        if !inside {
            let blocks = blocks_for(offset);
            return Err(Error::new(format!("block {blocks} lies outside the image")));
        }
        let mut bytes = vec![0; length as usize];
        self.source.read_at(offset, &mut bytes)?;
        Ok(bytes)
    }
}

fn decompress(algorithm: &str, stored: &[u8], data: &mut [u8]) -> Option<()> {
    match algorithm {
        "lz4" => lz4::decompress(stored, data),
        "zstd" => zstd::decompress(stored, data),
        _ => None,
    }
}

fn directory_block(block: &[u8], entries: &mut Vec<DirectoryEntry>) -> Result<()> {
    let damaged = || Error::new("damaged directory block");
    let names_at = block.get(8..10).map(|bytes| usize::from(u16_at(bytes, 0)));
    let names_at = names_at.ok_or_else(damaged)?;
    let count = names_at / ENTRY_BYTES;
    if count == 0 || names_at % ENTRY_BYTES != 0 || names_at > block.len() {
        return Err(damaged());
    }
    let offset = |index: usize| usize::from(u16_at(block, index * ENTRY_BYTES + 8));
    for index in 0..count {
        let at = index * ENTRY_BYTES;
        let end = if index + 1 < count { offset(index + 1) } else { block.len() };
        let mut name = block.get(offset(index)..end).ok_or_else(damaged)?;
        if index + 1 == count {
            let used = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
            name = &name[..used];
        }
        if name.is_empty() || name.contains(&0) || name.contains(&b'/') {
            return Err(damaged());
        }
        let (nid, kind) = (u64_at(block, at), block[at + 10]);
        entries.push(DirectoryEntry { name: name.to_vec(), nid, kind });
    }
    Ok(())
}

/// Length of an attribute from its first four bytes, padding included.
fn xattr_bytes(header: &[u8]) -> usize {
    align(4 + usize::from(header[0]) + usize::from(u16_at(header, 2)), 4)
}

/// Full name and value of one whole attribute.
fn xattr(entry: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (_, prefix) = XATTR_PREFIXES.iter().find(|(class, _)| *class == entry[1])?;
    let (suffix, rest) = entry[4..].split_at(usize::from(entry[0]));
    let value = rest[..usize::from(u16_at(entry, 2))].to_vec();
    Some(([prefix, suffix].concat(), value))
}
