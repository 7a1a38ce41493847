//! Writes an image in order: data, directories, metadata, superblock.

use super::body::Body;
use super::content::originals;
use super::format::{
    BLOCK_BYTES, InodeFields, Layout, SLOT_BYTES, SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET, Superblock,
    compat, incompat, seal,
};
use super::method::Method;
use super::place::{Shape, place};
use super::plan::{Directory, Plan};
use super::sink::{BlockWriter, ImageSink};
use super::store::store_all;
use super::{Options, Report, StoredFile, xattr};
use crate::error::{Context, Error, Result};
use crate::tree::{Kind, Tree};

/// Writes the tree as an EROFS image and says what it holds.
///
/// Contents are read once (twice where another file has the same length), in pieces. An error
/// names the path at fault; what the sink holds then has no superblock.
pub fn write(tree: &Tree, options: &Options, sink: &mut impl ImageSink) -> Result<Report> {
    let label = label(&options.volume_label)?;
    let method = Method::new(options.compression)?;
    let plan = Plan::new(tree)?;
    let originals = originals(&plan)?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut out = BlockWriter::new(sink);
    let bodies = store_all(&plan, &originals, method.as_ref(), threads, &mut out)?;
    let data_end = out.next_block()?;
    let metadata = Metadata::new(&plan, bodies, data_end)?;
    metadata.write(&plan, options.build_time_s, &mut out)?;
    let superblock = Superblock {
        compat: compat::CHECKSUM | compat::MTIME,
        incompat: metadata.features() | compression_features(method.as_ref()),
        root: metadata.root()?,
        inodes: plan.inodes.len() as u64,
        build_time_s: options.build_time_s,
        blocks: out.next_block()?,
        meta_block: metadata.first_block,
        xattr_block: metadata.first_block,
        uuid: options.uuid,
        label,
        algorithms: method.as_ref().map_or(0, |method| method.algorithm.bit()),
    };
    let report = report(&plan, &originals, &metadata, &superblock);
    out.finish(&first_block(&superblock, method.as_ref()))?;
    Ok(report)
}

fn label(text: &str) -> Result<[u8; 16]> {
    let mut label = [0; 16];
    let field = label
        .get_mut(..text.len())
        .ok_or_else(|| Error::new(format!("volume label `{text}` is longer than 16 bytes")))?;
    field.copy_from_slice(text.as_bytes());
    Ok(label)
}

fn compression_features(method: Option<&Method>) -> u32 {
    method.map_or(0, |_| incompat::ZERO_PADDING | incompat::COMPRESSION_CONFIG)
}

fn first_block(superblock: &Superblock, method: Option<&Method>) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    let config = method.map(Method::config).unwrap_or_default();
    let (fields, after) = block[SUPERBLOCK_OFFSET..].split_at_mut(SUPERBLOCK_BYTES);
    fields.copy_from_slice(&superblock.encode());
    after[..config.len()].copy_from_slice(&config);
    seal(&mut block);
    block
}

/// The metadata area, laid out but not yet written.
struct Metadata {
    /// Where inode number 0 would lie.
    first_block: u32,
    bodies: Vec<Body>,
    shapes: Vec<Shape>,
    /// Offset of each inode in the area.
    places: Vec<usize>,
    length: usize,
}

impl Metadata {
    /// Gives directories their blocks from `next_block` on, and every inode its place behind.
    fn new(plan: &Plan, mut bodies: Vec<Body>, mut next_block: u32) -> Result<Self> {
        let mut shapes = Vec::with_capacity(bodies.len());
        for (inode, body) in plan.inodes.iter().zip(&mut bodies) {
            let mut shape = Shape {
                head: inode.head_bytes(),
                map_align: match body.layout {
                    Layout::Compressed => 8,
                    Layout::Chunked => 4,
                    Layout::FlatPlain | Layout::FlatInline => 1,
                },
                map: body.map.len(),
                tail: body.tail.len(),
            };
            if let Some(directory) = &inode.directory {
                shape.tail = inline_bytes(directory, shape.head);
                *body = directory_body(directory, shape.tail, next_block)?;
                next_block = next_block
                    .checked_add(body.blocks)
                    .ok_or_else(|| Error::new("directories exceed what EROFS can address"))?;
            }
            shapes.push(shape);
        }
        // Number 0 stays free: tools and the C library take inode 0 for "none".
        let start = plan.shared_xattrs.len().max(SLOT_BYTES);
        let (places, length) = place(&shapes, start);
        Ok(Self { first_block: next_block, bodies, shapes, places, length })
    }

    fn root(&self) -> Result<u16> {
        u16::try_from(self.number(0)).map_err(|_| {
            Error::new("shared extended attributes leave no place for the root directory")
                .hint("at most 2 MiB of distinct attributes can be shared")
        })
    }

    fn number(&self, inode: usize) -> u64 {
        (self.places[inode] / SLOT_BYTES) as u64
    }

    fn features(&self) -> u32 {
        let used = self.bodies.iter().map(|body| match body.layout {
            Layout::Chunked => incompat::CHUNKS,
            Layout::Compressed if !body.tail.is_empty() => incompat::INLINE_CLUSTER,
            _ => 0,
        });
        used.fold(0, |all, feature| all | feature)
    }

    fn write<S: ImageSink>(
        &self,
        plan: &Plan,
        build_time_s: u64,
        out: &mut BlockWriter<S>,
    ) -> Result<()> {
        for (inode, body) in plan.inodes.iter().zip(&self.bodies) {
            if let Some(directory) = &inode.directory {
                for block in 0..body.blocks as usize {
                    out.append(&directory.encode(block, |inode| self.number(inode)))?;
                    out.pad()?;
                }
            }
        }
        let mut area = vec![0; self.length];
        area[..plan.shared_xattrs.len()].copy_from_slice(&plan.shared_xattrs);
        for index in 0..plan.inodes.len() {
            self.fill(plan, index, build_time_s, &mut area);
        }
        out.append(&area)?;
        out.pad()
    }

    /// Puts one inode and what follows it into the area.
    fn fill(&self, plan: &Plan, index: usize, build_time_s: u64, area: &mut [u8]) {
        let (inode, body, shape) = (&plan.inodes[index], &self.bodies[index], self.shapes[index]);
        let fields = InodeFields {
            layout: body.layout,
            xattr_count: xattr::count(&inode.xattrs),
            mode: inode.mode,
            links: inode.links,
            size: inode.size(),
            union: body.union,
            // Unique as long as there are fewer than 2^32 inodes; only 32-bit programs see it.
            number: index as u32 + 1,
            uid: inode.node.uid,
            gid: inode.node.gid,
            mtime_s: build_time_s,
        };
        let start = self.places[index];
        let mut put = |at: usize, bytes: &[u8]| area[at..at + bytes.len()].copy_from_slice(bytes);
        let fixed = fields.encode();
        put(start, &fixed);
        put(start + fixed.len(), &inode.xattrs);
        put(shape.map_at(start), &body.map);
        put(shape.tail_at(start), &body.tail);
        if let Some(directory) = &inode.directory
            && shape.tail > 0
        {
            let last = directory.block_count() - 1;
            put(shape.tail_at(start), &directory.encode(last, |inode| self.number(inode)));
        }
    }
}

/// How much of a directory stands beside its inode: its last block, if that fits there.
fn inline_bytes(directory: &Directory, head_bytes: usize) -> usize {
    let last = directory.last_block_bytes();
    if head_bytes + last <= BLOCK_BYTES { last } else { 0 }
}

fn directory_body(directory: &Directory, inline: usize, next_block: u32) -> Result<Body> {
    let blocks = directory.block_count() - usize::from(inline > 0);
    Ok(Body {
        layout: if inline > 0 { Layout::FlatInline } else { Layout::FlatPlain },
        blocks: u32::try_from(blocks).context(|| "directory too large".into())?,
        ..Body::empty(if blocks > 0 { next_block } else { 0 })
    })
}

fn report(
    plan: &Plan,
    originals: &[usize],
    metadata: &Metadata,
    superblock: &Superblock,
) -> Report {
    let block_bytes = BLOCK_BYTES as u64;
    let mut report = Report {
        length_bytes: u64::from(superblock.blocks) * block_bytes,
        inodes: superblock.inodes,
        content_bytes: 0,
        data_bytes: 0,
        metadata_bytes: 0,
        by_origin: Default::default(),
        files: Vec::new(),
    };
    for (index, inode) in plan.inodes.iter().enumerate() {
        let (body, shape) = (&metadata.bodies[index], metadata.shapes[index]);
        let data_bytes = u64::from(body.blocks) * block_bytes;
        let beside = (shape.tail_at(0) + shape.tail) as u64;
        *report.by_origin.entry(inode.node.origin.clone()).or_default() += data_bytes + beside;
        if let Kind::File(content) = &inode.node.kind
            && originals[index] == index
        {
            report.content_bytes += content.length();
            report.data_bytes += data_bytes;
            if body.blocks > 0 {
                let offset = u64::from(body.first_block) * block_bytes;
                let path = inode.path.clone();
                report.files.push(StoredFile { path, offset, length_bytes: data_bytes });
            }
        }
    }
    report.metadata_bytes = report.length_bytes - report.data_bytes;
    report
}
