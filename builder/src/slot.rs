//! The slot: one signed operating system as it lies in a partition.
//!
//! ```text
//! 0            EROFS root
//! after it     dm-verity hash tree
//! after it     kernel, packed (`payload`)
//! after it     initrd, cpio, packed likewise
//! …            zeros
//! last 64 KiB  manifest in its signature envelope
//! ```
//! Parts start at multiples of 4 KiB. Everything but the manifest is hashed by it; the manifest is
//! signed. The file `slot.img` is the whole partition, sparse.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;

use ondisk::bundle::MAX_SLOT_MANIFEST_BYTES;
use ondisk::digest::Digest;
use ondisk::envelope::Role;
use ondisk::layout::{self, BLOCK_BYTES, Extent};
use ondisk::manifest::{Fields, Manifest, Part, PartName, Unpacked};
use sha2::{Digest as _, Sha256};

use crate::error::{Context, Error, Result};
use crate::image::erofs::{self, ImageSink};
use crate::image::sparse::{Sparse, SparseImage};
use crate::image::verity;
use crate::report::{self, mib};
use crate::signer::Signer;
use crate::tree::Tree;

/// A kernel or other payload that the loader unpacks.
#[derive(Clone, Debug)]
pub struct Compressed {
    /// As `payload` packs.
    pub bytes: Vec<u8>,
    /// What it unpacks to.
    pub unpacked: Unpacked,
}

/// Everything a slot is made of.
pub struct Contents<'a> {
    /// Name of the board.
    pub board: &'a str,
    /// Version for people.
    pub version: &'a str,
    /// Never goes down on a device.
    pub rollback_index: u64,
    /// Kernel command line.
    pub command_line: &'a str,
    /// The root.
    pub root: &'a Tree,
    /// How the root is stored.
    pub erofs: erofs::Options,
    /// Salt of the hash tree.
    pub salt: [u8; verity::SALT],
    /// Initial RAM disk, compressed as the kernel takes it.
    pub initrd: &'a [u8],
    /// Signs the manifest; its trust roots go into the slot.
    pub signer: &'a Signer,
}

/// A finished slot.
pub struct Slot {
    /// The file.
    pub image: SparseImage,
    /// What was signed.
    pub manifest: Manifest,
    /// What the root came to.
    pub root: erofs::Report,
}

impl Slot {
    /// Lengths of the parts in slot order.
    pub fn parts(&self) -> Vec<(&'static str, u64)> {
        [
            ("root", PartName::Root),
            ("verity", PartName::Verity),
            ("kernel", PartName::Kernel),
            ("initrd", PartName::Initrd),
        ]
        .map(|(name, part)| (name, self.manifest.part(part).extent.length))
        .to_vec()
    }
}

/// Writes a slot of `slot_bytes` to `target`.
///
/// `kernel` is asked for while the root is being written, on another thread.
///
/// Errors: contents that do not fit (with the largest origins), I/O.
pub fn write(
    target: &Path,
    slot_bytes: u64,
    contents: &Contents<'_>,
    kernel: impl FnOnce() -> Result<Compressed> + Send,
) -> Result<Slot> {
    let mut image = Sparse::create(target, slot_bytes)?;
    let (root, kernel) = thread::scope(|scope| {
        let kernel = scope.spawn(kernel);
        let root = erofs::write(contents.root, &contents.erofs, &mut SlotSink(&mut image));
        let kernel = kernel.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok::<_, Error>((
            root.map_err(|error| too_large(error, contents.root, slot_bytes))?,
            kernel?,
        ))
    })?;
    let (tree, root_sha256) = hash_root(image.file(), target, root.length_bytes, &contents.salt)?;

    let mut next = Placer::default();
    let root_part = next.place(root.length_bytes, root_sha256);
    let verity_part = next.place(tree.bytes.len() as u64, Digest::of(&tree.bytes));
    let kernel_part = next.place(kernel.bytes.len() as u64, Digest::of(&kernel.bytes));
    let initrd_part = next.place(contents.initrd.len() as u64, Digest::of(contents.initrd));
    let area = layout::manifest_area(slot_bytes)
        .filter(|area| next.end <= area.offset)
        .ok_or_else(|| {
            let message =
                format!("the slot is {}, its contents need {}", mib(slot_bytes), mib(next.end));
            too_large(Error::new(message), contents.root, slot_bytes)
        })?;
    for (part, bytes) in [
        (&verity_part, tree.bytes.as_slice()),
        (&kernel_part, &kernel.bytes),
        (&initrd_part, contents.initrd),
    ] {
        image.write_at(part.extent.offset, bytes)?;
    }
    // Hashes cover every byte of a part, zeros too; so does the padding of the last block.
    image.keep_zeros(0..next.end.next_multiple_of(BLOCK_BYTES))?;
    image.keep_zeros(area.offset..slot_bytes)?;

    let fields = Fields {
        board: contents.board.to_owned(),
        version: contents.version.to_owned(),
        rollback_index: contents.rollback_index,
        profile: contents.signer.profile().in_manifests(),
        root: root_part,
        verity: verity_part,
        kernel: kernel_part,
        kernel_unpacked: kernel.unpacked,
        initrd: initrd_part,
        verity_salt: contents.salt,
        verity_root_hash: Digest::from_bytes(tree.root_hash),
        command_line: contents.command_line.to_owned(),
    };
    let manifest = Manifest::new(fields, slot_bytes)
        .map_err(|error| Error::new(format!("the slot's manifest is not valid: {error}")))?;
    let payload = manifest.encode();
    let signer = contents.signer;
    let mut signed = signer.envelope(Role::SLOT_MANIFEST, payload.as_bytes(), "the manifest")?;
    signed.extend(signer.roots().after_the_first());
    if signed.len() as u64 > MAX_SLOT_MANIFEST_BYTES {
        let count = signer.trust().number;
        return Err(Error::new(format!("{count} trust roots do not fit behind a manifest")));
    }
    image.write_at(area.offset, &signed)?;
    Ok(Slot { image: image.finish()?, manifest, root })
}

/// Hash tree and plain hash of the root, side by side: both read the same cached bytes.
fn hash_root(
    file: &File,
    name: &Path,
    length: u64,
    salt: &[u8; verity::SALT],
) -> Result<(verity::HashTree, Digest)> {
    thread::scope(|scope| {
        let plain = scope.spawn(|| sha256_of(file, length));
        let tree = verity::build(file, name, length, salt);
        let plain = plain.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let digest = plain.context(|| format!("cannot read back {}", name.display()))?;
        Ok((tree?, digest))
    })
}

fn sha256_of(file: &File, length: u64) -> std::io::Result<Digest> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut offset = 0;
    while offset < length {
        let rest = usize::try_from(length - offset).unwrap_or(usize::MAX);
        let count = rest.min(buffer.len());
        file.read_exact_at(&mut buffer[..count], offset)?;
        hasher.update(&buffer[..count]);
        offset += count as u64;
    }
    Ok(Digest::from_bytes(hasher.finalize().into()))
}

/// Hands out places one after the other, each at the next block.
#[derive(Default)]
struct Placer {
    end: u64,
}

impl Placer {
    fn place(&mut self, length: u64, sha256: Digest) -> Part {
        let offset = self.end.next_multiple_of(BLOCK_BYTES);
        self.end = offset + length;
        Part { extent: Extent { offset, length }, sha256 }
    }
}

/// Says what to remove when something does not fit in the slot.
fn too_large(error: Error, root: &Tree, slot_bytes: u64) -> Error {
    let largest: Vec<String> = report::by_origin(root)
        .into_iter()
        .take(3)
        .map(|(origin, bytes)| format!("{origin} {}", mib(bytes)))
        .collect();
    let total: u64 = report::by_origin(root).iter().map(|(_, bytes)| bytes).sum();
    if total < slot_bytes / 2 {
        return error;
    }
    error.hint(format!(
        "raise layout.slot in board.toml or ship less (largest: {})",
        largest.join(", ")
    ))
}

/// The root's place in the slot image.
struct SlotSink<'a>(&'a mut Sparse);

impl ImageSink for SlotSink<'_> {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.0.write_at(offset, bytes)
    }
}
