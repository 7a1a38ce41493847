//! A bundle, unpacked and checked: a release as a publisher needs it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use ondisk::bundle::{self, Blob, Group, HEADER_BYTES, Header, Index};
use ondisk::digest::Digest;
use ondisk::layout::BLOCK_BYTES;
use ondisk::manifest::{self, Fields};
use ondisk::trust_root::TrustRoot;

use crate::error::{Context, Error, Result};
use crate::trust_roots::TrustRoots;

/// A release.
///
/// Holding one proves: a trusted key signed bundle and slot manifest, and the image is what both
/// of them say.
pub struct Release {
    /// What its slot manifest says.
    pub manifest: Fields,
    /// The slot manifest in its envelope.
    pub slot_manifest: Blob,
    /// Where the groups of its image end.
    pub groups: Vec<Group>,
    /// All of the image.
    pub image: Vec<u8>,
    /// Bytes of the bundle before its stream.
    pub front_bytes: u64,
    /// Bytes of the bundle.
    pub bundle_bytes: u64,
}

impl Release {
    /// Reads a bundle to its end.
    ///
    /// Errors: unreadable, damaged, or not signed by enough release keys.
    pub fn read(path: &Path, trust: &TrustRoot) -> Result<Self> {
        let mut file = File::open(path).context(|| format!("cannot read {}", path.display()))?;
        read(&mut file, trust).map_err(|why| {
            Error::new(format!("{}: {why}", path.display()))
                .hint("`iota inspect FILE --key KEY` says what is wrong with a bundle")
        })
    }

    /// Reads the bundle of a release of the past, which keys of then have signed.
    pub fn read_older(path: &Path, roots: &TrustRoots) -> Result<Self> {
        let mut why = None;
        for trust in roots.newest_first() {
            match Self::read(path, trust) {
                Ok(release) => return Ok(release),
                Err(error) => why = why.or(Some(error)),
            }
        }
        Err(why.unwrap_or_else(|| Error::new(format!("cannot read {}", path.display()))))
    }

    /// What a bundle says which release it is, whoever signed it.
    ///
    /// Errors: unreadable, no bundle.
    pub fn identity(path: &Path) -> Result<Digest> {
        let failed = || format!("cannot read {}", path.display());
        let mut area = [0; HEADER_BYTES];
        let mut file = File::open(path).context(failed)?;
        file.read_exact(&mut area).context(failed)?;
        let header = bundle::Unverified::parse(&area).and_then(|found| found.header_unverified());
        let header = header.map_err(|error| Error::new(format!("{}: {error}", path.display())))?;
        Ok(header.fields().slot_manifest.sha256)
    }

    /// The bytes of each group.
    pub fn pieces(&self) -> impl Iterator<Item = (&Group, &[u8])> {
        let mut rest = self.image.as_slice();
        self.groups.iter().map(move |group| {
            let (bytes, left) = rest.split_at(group.blocks as usize * BLOCK_BYTES as usize);
            rest = left;
            (group, bytes)
        })
    }
}

fn read(file: &mut impl Read, trust: &TrustRoot) -> std::result::Result<Release, String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let mut area = [0; HEADER_BYTES];
    file.read_exact(&mut area).map_err(|error| words(&error))?;
    let header = bundle::Unverified::parse(&area).and_then(|found| found.verify(trust));
    let (header, _) = header.map_err(|error| words(&error))?;
    let fields = header.fields();
    let envelope = blob(file, "slot manifest", &fields.slot_manifest)?;
    let manifest = manifest::Unverified::parse(&envelope).and_then(|found| {
        // The size of slots is the devices' affair: only the signature counts here.
        found.verify(trust, u64::MAX / 2)
    });
    let (manifest, _) = manifest.map_err(|error| words(&error))?;
    header.check_manifest(&manifest).map_err(|error| words(&error))?;
    let index = blob(file, "index", &fields.index)?;
    let index = Index::decode(&header, &index).map_err(|error| words(&error))?;
    let image = unpack(file, &header)?;
    let release = Release {
        manifest: Fields::clone(&manifest),
        slot_manifest: fields.slot_manifest,
        groups: index.groups,
        image,
        front_bytes: header.total_bytes() - fields.stream_bytes,
        bundle_bytes: header.total_bytes(),
    };
    let wrong = release.pieces().position(|(group, bytes)| Digest::of(bytes) != group.sha256);
    match wrong {
        Some(number) => Err(format!("group {number} of the image is damaged")),
        None => Ok(release),
    }
}

fn blob(
    file: &mut impl Read,
    name: &'static str,
    blob: &Blob,
) -> std::result::Result<Vec<u8>, String> {
    // A Header limits both sections to a few MiB.
    let mut bytes = vec![0; usize::try_from(blob.length).unwrap_or_default()];
    file.read_exact(&mut bytes).map_err(|error| error.to_string())?;
    blob.check(name, &bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

fn unpack(file: &mut impl Read, header: &Header) -> std::result::Result<Vec<u8>, String> {
    let failed = |error: io::Error| format!("cannot unpack the stream: {error}");
    let length = header.fields().image_bytes;
    let mut image = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
    let decoder = zstd::stream::read::Decoder::new(file).map_err(failed)?;
    decoder.take(length + 1).read_to_end(&mut image).map_err(failed)?;
    if image.len() as u64 == length {
        Ok(image)
    } else {
        Err(format!("unpacks to {} bytes, the header says {length}", image.len()))
    }
}
