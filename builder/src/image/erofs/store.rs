//! Writes the data of all inodes: plain, or compressed by all cores.

use super::body::{Body, store_plain};
use super::cluster::{Codec, Limits, Packed, pack};
use super::content::Reader;
use super::format::{BLOCK_BYTES, Layout, device_number};
use super::index;
use super::method::Method;
use super::ordered::in_order;
use super::plan::{Inode, Plan};
use super::sink::{BlockWriter, ImageSink};
use crate::error::{Context, Error, Result};
use crate::tree::{Content, Kind};

/// Bytes of a file that one thread compresses at a time. A cluster does not span two stretches,
/// which costs half a block each; memory is eight of these a thread.
const STRETCH_BYTES: usize = 4 << 20;

/// Most compressed bytes beside an inode whose index already fills blocks.
const INLINE_BEHIND_LONG_INDEX: usize = 2048;

/// Stores every inode's data, files first; `originals` names for each inode the one whose blocks
/// it shares.
pub(super) fn store_all<S: ImageSink>(
    plan: &Plan,
    originals: &[usize],
    method: Option<&Method>,
    threads: usize,
    out: &mut BlockWriter<S>,
) -> Result<Vec<Body>> {
    let mut bodies = vec![Body::empty(0); plan.inodes.len()];
    match method {
        Some(method) => compress_files(plan, originals, method, threads, &mut bodies, out)?,
        None => copy_files(plan, originals, &mut bodies, out)?,
    }
    for (number, inode) in plan.inodes.iter().enumerate() {
        if originals[number] != number {
            bodies[number] = bodies[originals[number]].copy();
        } else if !matches!(inode.node.kind, Kind::File(_)) {
            bodies[number] = store_other(inode, out).context(|| cannot_store(inode))?;
        }
    }
    Ok(bodies)
}

fn cannot_store(inode: &Inode) -> String {
    format!("cannot store {}", inode.path.display())
}

/// Numbers and contents of the files whose data is to be written.
fn files<'a>(
    plan: &'a Plan,
    originals: &[usize],
) -> impl Iterator<Item = (usize, &'a Inode<'a>, &'a Content)> {
    plan.inodes.iter().enumerate().filter_map(move |(number, inode)| match &inode.node.kind {
        Kind::File(content) if originals[number] == number => Some((number, inode, content)),
        _ => None,
    })
}

fn copy_files<S: ImageSink>(
    plan: &Plan,
    originals: &[usize],
    bodies: &mut [Body],
    out: &mut BlockWriter<S>,
) -> Result<()> {
    let mut reader = Reader::default();
    for (number, inode, content) in files(plan, originals) {
        bodies[number] = store_plain(content, inode.head_bytes(), &mut reader, out)
            .context(|| cannot_store(inode))?;
    }
    Ok(())
}

fn store_other<S: ImageSink>(inode: &Inode, out: &mut BlockWriter<S>) -> Result<Body> {
    match &inode.node.kind {
        Kind::Symlink(target) => {
            let target = Content::bytes(target.as_slice());
            store_plain(&target, inode.head_bytes(), &mut Reader::default(), out)
        }
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
            let number = device_number(*major, *minor).ok_or_else(|| {
                Error::new(format!("device number {major}:{minor} does not fit into 12:20 bits"))
            })?;
            Ok(Body::empty(number))
        }
        Kind::File(_) | Kind::HardLink(_) | Kind::Directory | Kind::Fifo => Ok(Body::empty(0)),
    }
}

/// A stretch of a file to compress.
struct Job<'a> {
    number: usize,
    inode: &'a Inode<'a>,
    content: &'a Content,
    offset: u64,
    length: usize,
    /// The stretch ends the file.
    last: bool,
}

enum Done {
    /// Compression did not pay: the whole file as it is.
    Plain(Vec<u8>),
    Packed(Packed),
}

fn compress_files<S: ImageSink>(
    plan: &Plan,
    originals: &[usize],
    method: &Method,
    threads: usize,
    bodies: &mut [Body],
    out: &mut BlockWriter<S>,
) -> Result<()> {
    let jobs: Vec<Job> = files(plan, originals).flat_map(|(n, i, c)| stretches(n, i, c)).collect();
    let state = || Ok((Reader::default(), method.codec()?));
    let work = |(reader, codec): &mut (Reader, Box<dyn Codec>), job: &Job| {
        compress(job, method, reader, codec).context(|| cannot_store(job.inode))
    };
    // Clusters of the file at hand, whose stretches arrive one after another.
    let mut clusters = Vec::new();
    in_order(&jobs, threads, state, work, |job, done| {
        let head_bytes = job.inode.head_bytes();
        let packed = match done {
            Done::Plain(bytes) => {
                let content = Content::bytes(bytes);
                bodies[job.number] =
                    store_plain(&content, head_bytes, &mut Reader::default(), out)?;
                return Ok(());
            }
            Done::Packed(packed) => packed,
        };
        if job.offset == 0 {
            bodies[job.number].first_block = out.next_block()?;
            clusters.clear();
        }
        clusters.extend(packed.clusters);
        out.append(&packed.blocks)?;
        if job.last {
            let body = &mut bodies[job.number];
            body.layout = Layout::Compressed;
            body.blocks = clusters.iter().map(|cluster| cluster.blocks).sum();
            body.union = body.blocks;
            let inline_bytes = packed.inline.len() as u16;
            let (first_block, algorithm) = (body.first_block, method.algorithm);
            body.map = index::encode(&clusters, first_block, head_bytes, algorithm, inline_bytes);
            body.tail = packed.inline;
        }
        Ok(())
    })
}

fn stretches<'a>(
    number: usize,
    inode: &'a Inode<'a>,
    content: &'a Content,
) -> impl Iterator<Item = Job<'a>> {
    let file_bytes = content.length();
    (0..file_bytes).step_by(STRETCH_BYTES).map(move |offset| {
        let length = (file_bytes - offset).min(STRETCH_BYTES as u64);
        let last = offset + length == file_bytes;
        Job { number, inode, content, offset, length: length as usize, last }
    })
}

fn compress(
    job: &Job,
    method: &Method,
    reader: &mut Reader,
    codec: &mut Box<dyn Codec>,
) -> Result<Done> {
    let mut stretch = vec![0; job.length];
    reader.read(job.content, job.offset, &mut stretch)?;
    let head_bytes = job.inode.head_bytes();
    let index_bytes = index::bytes(head_bytes, job.content.length());
    let before = head_bytes + 8 + index_bytes;
    let inline_bytes = match job.last {
        true if before < BLOCK_BYTES => BLOCK_BYTES - before,
        true => INLINE_BEHIND_LONG_INDEX,
        false => 0,
    };
    let limits = Limits { cluster_bytes: method.cluster_bytes, inline_bytes };
    let packed = pack(codec.as_mut(), &stretch, limits);
    let whole = job.offset == 0 && job.last;
    let stored = packed.blocks.len() + packed.inline.len() + index_bytes;
    if whole && stored >= plain_bytes(job.length, head_bytes) {
        return Ok(Done::Plain(stretch));
    }
    Ok(Done::Packed(packed))
}

/// Bytes that a file takes as it is.
fn plain_bytes(length: usize, head_bytes: usize) -> usize {
    let rest = length % BLOCK_BYTES;
    let fits = head_bytes + rest <= BLOCK_BYTES;
    length - rest + if fits { rest } else { BLOCK_BYTES }
}
