//! Makes a bundle of a finished slot: signed header, slot manifest, index, zstd stream
//! (`ondisk::bundle` has the format).
//!
//! Guarantees: the same slot, key and settings give the same bytes with any number of cores; what
//! is written can be read by a device, since the header is checked by the device's own rules; an
//! unfinished bundle never has the target's name.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write};
use std::path::Path;

use ondisk::bundle::cut::Cutter;
use ondisk::bundle::{self, Blob, Fields, Group, HEADER_BYTES, Header, Index};
use ondisk::device::ReadAt;
use ondisk::digest::Digest;
use ondisk::envelope::Role;
use ondisk::layout::{self, BLOCK_BYTES};
use ondisk::manifest::{self, Manifest};
use sha2::{Digest as _, Sha256};
use zstd::stream::write::Encoder;

use crate::error::{Context, Error, Result};
use crate::host::parallel;
use crate::image::unfinished::{Unfinished, with_room_hint};
use crate::sign::Profile;
use crate::signer::Signer;

/// How the stream is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// libzstd's level.
    pub level: i32,
    /// Window in bits. A device needs so much memory, and writes so much later than it reads.
    pub window_log: u32,
    /// Bytes of the stream that are hashed at once.
    pub chunk_bytes: u64,
}

impl Settings {
    /// A person waits for a development build, a device downloads a release.
    pub fn of(profile: Profile) -> Self {
        let chunk_bytes = bundle::MAX_CHUNK_BYTES;
        match profile {
            Profile::Development => Self { level: 3, window_log: 20, chunk_bytes },
            Profile::Release => Self { level: 19, window_log: 23, chunk_bytes },
        }
    }
}

/// A finished bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// Its slot's version.
    pub version: String,
    /// Size of the file.
    pub bytes: u64,
    /// Size of what it unpacks to.
    pub image_bytes: u64,
}

/// OK to convert: 4096.
const BLOCK: usize = BLOCK_BYTES as usize;
const PIECE: usize = 1 << 20;
const _: () = assert!(PIECE.is_multiple_of(BLOCK));

/// Writes the bundle of a slot to `target`.
///
/// `slot` is the partition's contents; `signer` has the keys that signed it. `progress` is told of
/// more and more bytes of the image.
///
/// Errors: a slot that these keys did not sign, that cannot be read, or a target that cannot be
/// written.
pub fn write<D: ReadAt>(
    target: &Path,
    slot: &D,
    signer: &Signer,
    settings: Settings,
    progress: impl FnMut(u64),
) -> Result<Bundle> {
    let (manifest, slot_manifest) = read_manifest(slot, signer)?;
    let image_bytes = image_bytes(slot, signer)?;
    let mut output = Unfinished::create(target)?;
    let failed = |error| with_room_hint(format!("cannot write {}", target.display()), error);
    // Without a name, so that nothing is left of it whatever happens.
    let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty());
    let mut stream = tempfile::tempfile_in(directory.unwrap_or(Path::new("."))).map_err(failed)?;
    let packed = pack(slot, image_bytes, &mut stream, settings, progress)?;

    let index = packed.index.encode();
    let header = Header::new(Fields {
        slot_manifest: Blob::of(&slot_manifest),
        image_bytes,
        index: Blob::of(&index),
        stream_bytes: packed.stream_bytes,
        chunk_bytes: settings.chunk_bytes,
        window_bytes: 1 << settings.window_log,
    })
    .map_err(|error| Error::new(format!("cannot make a bundle of this slot: {error}")))?;
    for section in [&sign(&header, signer)?, &slot_manifest, &index] {
        output.write_all(section).map_err(failed)?;
    }
    stream.seek(SeekFrom::Start(0)).map_err(failed)?;
    io::copy(&mut stream, &mut output).map_err(failed)?;
    output.finish()?;
    let bytes = header.total_bytes();
    Ok(Bundle { version: manifest.version.clone(), bytes, image_bytes })
}

/// Bytes of a slot that a bundle carries: what [`write`] tells its progress in the end.
pub fn image_bytes<D: ReadAt>(slot: &D, signer: &Signer) -> Result<u64> {
    let (manifest, _) = read_manifest(slot, signer)?;
    bundle::image_bytes(&manifest)
        .ok_or_else(|| Error::new("the slot's manifest lists an image without an end"))
}

/// The slot's manifest, and what its area holds without the zeros at the end.
fn read_manifest<D: ReadAt>(slot: &D, signer: &Signer) -> Result<(Manifest, Vec<u8>)> {
    let wrong = |error: manifest::Error| {
        Error::new(format!("cannot make a bundle of this slot: manifest: {error}"))
            .hint("`iota build` writes a slot that these keys sign")
    };
    let area = layout::manifest_area(slot.size())
        .ok_or_else(|| wrong(manifest::Error::SlotTooSmall(slot.size())))?;
    let mut bytes = vec![0; usize::try_from(area.length).unwrap_or_default()];
    slot.read_at(area.offset, &mut bytes)
        .map_err(|error| Error::new(format!("cannot read the slot's manifest: {error}")))?;
    let found = manifest::Unverified::parse(&bytes).map_err(wrong)?;
    let exact = found.exact().map_err(wrong)?;
    let (manifest, _) = found.verify(signer.trust(), slot.size()).map_err(wrong)?;
    Ok((manifest, exact))
}

/// The area of the header.
fn sign(header: &Header, signer: &Signer) -> Result<Vec<u8>> {
    let payload = header.fields().encode();
    let mut area = signer.envelope(Role::BUNDLE, payload.as_bytes(), "the bundle")?;
    area.resize(HEADER_BYTES, 0);
    Ok(area)
}

struct Packed {
    index: Index,
    stream_bytes: u64,
}

/// Reads the image once: groups are hashed and the stream is written on the way.
fn pack<D: ReadAt>(
    slot: &D,
    image_bytes: u64,
    stream: &mut File,
    settings: Settings,
    mut progress: impl FnMut(u64),
) -> Result<Packed> {
    let failed = |error| with_room_hint("cannot write the bundle's stream".to_owned(), error);
    let mut cutter = Cutter::default();
    let mut groups: Vec<Group> = Vec::new();
    let mut encoder = encoder(Chunks::new(stream, settings.chunk_bytes), image_bytes, settings)
        .context(|| format!("cannot compress at level {}", settings.level))?;
    let mut piece = vec![0; PIECE];
    let mut done = 0;
    while done < image_bytes {
        let rest = usize::try_from(image_bytes - done).unwrap_or(usize::MAX);
        let bytes = &mut piece[..rest.min(PIECE)];
        slot.read_at(done, bytes)
            .map_err(|error| Error::new(format!("cannot read the slot at {done}: {error}")))?;
        groups.extend(bytes.chunks_exact(BLOCK).filter_map(|block| cutter.put(block)));
        encoder.write_all(bytes).map_err(failed)?;
        progress(bytes.len() as u64);
        done += bytes.len() as u64;
    }
    groups.extend(cutter.finish());
    let (chunks, stream_bytes) = encoder.finish().map_err(failed)?.finish();
    Ok(Packed { index: Index { chunks, groups }, stream_bytes })
}

fn encoder<W: Write>(
    output: W,
    image_bytes: u64,
    settings: Settings,
) -> io::Result<Encoder<'static, W>> {
    let mut encoder = Encoder::new(output, settings.level)?;
    encoder.window_log(settings.window_log)?;
    encoder.set_pledged_src_size(Some(image_bytes))?;
    encoder.include_contentsize(true)?;
    // Hashes of chunks and groups say more than a checksum at the end.
    encoder.include_checksum(false)?;
    // At least one, which gives the same bytes as many do; none does not.
    encoder.multithread(u32::try_from(parallel::processors()).unwrap_or(1).max(1))?;
    Ok(encoder)
}

/// Hashes what passes by in chunks.
struct Chunks<'a> {
    output: &'a mut File,
    chunk_bytes: u64,
    done: Vec<Digest>,
    hasher: Sha256,
    /// Bytes in the hasher.
    filled: u64,
    total: u64,
}

impl<'a> Chunks<'a> {
    fn new(output: &'a mut File, chunk_bytes: u64) -> Self {
        Self { output, chunk_bytes, done: Vec::new(), hasher: Sha256::new(), filled: 0, total: 0 }
    }

    fn cut(&mut self) {
        self.done.push(Digest::from_bytes(self.hasher.finalize_reset().into()));
        self.filled = 0;
    }

    fn finish(mut self) -> (Vec<Digest>, u64) {
        if self.filled > 0 {
            self.cut();
        }
        (self.done, self.total)
    }
}

impl Write for Chunks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = usize::try_from(self.chunk_bytes - self.filled).unwrap_or(usize::MAX);
        let count = self.output.write(&bytes[..bytes.len().min(room)])?;
        self.hasher.update(&bytes[..count]);
        self.filled += count as u64;
        self.total += count as u64;
        if self.filled == self.chunk_bytes {
            self.cut();
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

/// The header of the bundle in a file, if it is a whole one of this slot: then it need not be made
/// again. The stream is not read; `iota inspect` does that.
pub fn is_of(path: &Path, slot: &impl ReadAt, signer: &Signer) -> bool {
    let Ok((_, slot_manifest)) = read_manifest(slot, signer) else { return false };
    let read = || -> io::Result<(Box<[u8; HEADER_BYTES]>, u64)> {
        let mut file = File::open(path)?;
        let mut area = Box::new([0; HEADER_BYTES]);
        file.read_exact(&mut area[..])?;
        Ok((area, file.metadata()?.len()))
    };
    let Ok((area, length)) = read() else { return false };
    let header = bundle::Unverified::parse(&area).and_then(|found| found.verify(signer.trust()));
    header.is_ok_and(|(header, _)| {
        header.total_bytes() == length && header.fields().slot_manifest == Blob::of(&slot_manifest)
    })
}

#[cfg(test)]
pub(crate) mod tests;
