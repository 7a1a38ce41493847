//! An image as text, complete enough that any change of the image changes it: every field, every
//! extent with a checksum of its stored bytes, every stretch that belongs to nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::format::{BLOCK_BYTES, Layout, SLOT_BYTES, crc32c};
use super::reader::{Extent, Image, ImageSource, Inode, Storage};
use crate::error::Result;

impl<S: ImageSource> Image<S> {
    /// The whole image as text, inodes by place.
    pub fn dump(&self) -> Result<String> {
        let mut used = BTreeMap::from([(0, BLOCK_BYTES as u64)]);
        let mut text = self.dump_superblock();
        let inodes = self.reachable()?;
        self.dump_shared(&inodes, &mut text, &mut used)?;
        for inode in inodes.values() {
            self.dump_inode(inode, &mut text, &mut used)?;
        }
        self.dump_rest(&used, &mut text)?;
        Ok(text)
    }

    /// All inodes that the root leads to, by number.
    fn reachable(&self) -> Result<BTreeMap<u64, Inode>> {
        let root = self.root()?;
        let mut found = BTreeMap::new();
        let mut queue = vec![root];
        while let Some(inode) = queue.pop() {
            if found.contains_key(&inode.nid) {
                continue;
            }
            if inode.is_directory() {
                for entry in self.entries(&inode)? {
                    queue.push(self.inode(entry.nid)?);
                }
            }
            found.insert(inode.nid, inode);
        }
        Ok(found)
    }

    fn dump_superblock(&self) -> String {
        let s = &self.superblock;
        format!(
            "superblock compat={:#x} incompat={:#x} algorithms={:#x}\n  \
             uuid={} label={:?} build_time={}\n  \
             blocks={} metadata={} xattrs={} inodes={} root={}\n",
            s.compat,
            s.incompat,
            s.algorithms,
            s.uuid.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
            s.label.escape_ascii().to_string(),
            s.build_time_s,
            s.blocks,
            s.meta_block,
            s.xattr_block,
            s.inodes,
            s.root
        )
    }

    /// The shared attributes: what stands before the first inode.
    fn dump_shared(
        &self,
        inodes: &BTreeMap<u64, Inode>,
        text: &mut String,
        used: &mut BTreeMap<u64, u64>,
    ) -> Result<()> {
        let at = u64::from(self.superblock.xattr_block) * BLOCK_BYTES as u64;
        let first = inodes.keys().next().map_or(at, |nid| self.place(*nid));
        if first > at {
            let sum = crc32c(0, &self.bytes(at, first - at)?);
            let _ = writeln!(text, "shared attributes at {at:#x}+{} sum={sum:08x}", first - at);
            used.insert(at, first - at);
        }
        Ok(())
    }

    fn place(&self, nid: u64) -> u64 {
        u64::from(self.superblock.meta_block) * BLOCK_BYTES as u64 + nid * SLOT_BYTES as u64
    }

    fn dump_inode(
        &self,
        inode: &Inode,
        text: &mut String,
        used: &mut BTreeMap<u64, u64>,
    ) -> Result<()> {
        let f = &inode.fields;
        let place = self.place(inode.nid);
        let _ = writeln!(
            text,
            "inode {} at {place:#x} {:?} mode={:06o} links={} size={} union={:#x} number={} \
             owner={}:{} time={}",
            inode.nid,
            f.layout,
            f.mode,
            f.links,
            f.size,
            f.union,
            f.number,
            f.uid,
            f.gid,
            f.mtime_s
        );
        used.insert(place, inode.head_end() - place);
        for (name, value) in self.xattrs(inode)? {
            let _ = writeln!(text, "  xattr {}={}", name.escape_ascii(), value.escape_ascii());
        }
        for extent in self.extents(inode)? {
            self.dump_extent(&extent, text, used)?;
        }
        if f.layout == Layout::Compressed || f.layout == Layout::Chunked {
            let (at, length) = self.map_range(inode);
            used.insert(at, length);
        }
        if inode.is_directory() {
            for entry in self.entries(inode)? {
                let name = entry.name.escape_ascii();
                let _ = writeln!(text, "  entry {name} -> {} type {}", entry.nid, entry.kind);
            }
        }
        Ok(())
    }

    fn dump_extent(
        &self,
        extent: &Extent,
        text: &mut String,
        used: &mut BTreeMap<u64, u64>,
    ) -> Result<()> {
        let (name, offset, length) = match extent.storage {
            Storage::Hole => ("hole", 0, 0),
            Storage::Plain(offset) => ("plain", offset, extent.length),
            Storage::Wrapped(offset) => ("wrapped", offset, BLOCK_BYTES as u64),
            Storage::Compressed { offset, length, algorithm } => (algorithm, offset, length),
        };
        let sum = crc32c(0, &self.bytes(offset, length)?);
        let _ = writeln!(
            text,
            "  {}+{} {name} at {offset:#x}+{length} sum={sum:08x}",
            extent.start, extent.length
        );
        if length > 0 {
            used.insert(offset, length);
        }
        Ok(())
    }

    /// What no inode uses: zeros between parts, or bytes that nobody accounts for.
    fn dump_rest(&self, used: &BTreeMap<u64, u64>, text: &mut String) -> Result<()> {
        let mut at = 0;
        let end = (self.length_bytes(), 0);
        for (start, length) in used.iter().map(|(at, length)| (*at, *length)).chain([end]) {
            if start > at {
                let bytes = self.bytes(at, start - at)?;
                if bytes.iter().any(|byte| *byte != 0) {
                    let sum = crc32c(0, &bytes);
                    let _ = writeln!(text, "unused {at:#x}+{} sum={sum:08x}", bytes.len());
                }
            }
            at = at.max(start + length);
        }
        Ok(())
    }
}
