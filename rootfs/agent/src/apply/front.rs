//! The front of a bundle, up to its stream: read in order, checked before it is used, and held
//! against what this device takes.
use std::io::{self, Read};

use ondisk::bundle::{self, Blob, Group, HEADER_BYTES, Header, Index};
use ondisk::digest::Digest;
use ondisk::manifest::{self, Manifest, Profile};
use ondisk::trust_root::TrustRoot;

use super::{Cause, ChunkList, Place, Rules, bytes_in_memory};

/// Where a bundle comes from.
#[derive(Debug)]
pub struct Source<S> {
    /// The bytes, from the first one on.
    pub bytes: S,
    /// How many there are, if known: a file that is cut short is then refused before anything is
    /// written.
    pub length: Option<u64>,
}

/// The verified front of a bundle.
///
/// Holding one proves: enough trusted keys signed header and slot manifest, and it is not revoked;
/// the system is for this board and profile and fits the slot; the index is the one that the header
/// lists and describes the image that the manifest lists; the source has the right length, if that
/// is known.
pub struct Front {
    pub(super) header: Header,
    pub(super) manifest: Manifest,
    /// The manifest in its envelope.
    pub(super) slot_manifest: Vec<u8>,
    pub(super) index: Index,
}

impl Front {
    /// Reads up to the stream; also gives back the source, which stands there.
    pub fn read<S: Read, E>(
        source: Source<S>,
        rules: &Rules<'_>,
        place: &Place,
    ) -> Result<(Self, S), Cause<E>> {
        let slot_bytes = place.target_extent().length;
        let Source { mut bytes, length } = source;
        let mut area = [0; HEADER_BYTES];
        read_exact(&mut bytes, &mut area)?;
        let found = bundle::Unverified::parse(&area).map_err(Cause::Bundle)?;
        let (slot_manifest, trust) = read_slot_manifest(&mut bytes, &found, rules.trust)?;
        let (header, _) = found.verify(&trust).map_err(Cause::Bundle)?;
        let fields = header.fields();
        check_length(&header, length)?;
        fields.slot_manifest.check("slot manifest", &slot_manifest).map_err(Cause::Bundle)?;
        let manifest = open_manifest(&slot_manifest, &trust, slot_bytes)?;
        check_manifest(&manifest, rules)?;
        if trust.revokes(&fields.slot_manifest.sha256) {
            return Err(Cause::Revoked(manifest.version.clone()));
        }
        header.check_manifest(&manifest).map_err(Cause::Bundle)?;
        let index = read_blob(&mut bytes, "index", &fields.index)?;
        let index = Index::decode(&header, &index).map_err(Cause::Bundle)?;
        Ok((Self { header, manifest, slot_manifest, index }, bytes))
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What the slot will say about itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The release's identity.
    pub fn release(&self) -> Digest {
        Digest::of(&self.slot_manifest)
    }

    /// The groups of the image.
    pub fn groups(&self) -> &[Group] {
        &self.index.groups
    }

    /// What the chunks of the bundle's stream have to be.
    pub fn chunks(&self) -> ChunkList {
        ChunkList::new(&self.header, self.index.chunks.clone())
    }
}

/// The slot manifest, and the newest trust root that the device's leads to with those behind it.
///
/// Its length, a limited one, is all that is taken of the header before that is verified: a device
/// that knows only old keys finds the way to the new ones here.
fn read_slot_manifest<E>(
    source: &mut impl Read,
    found: &bundle::Unverified<'_>,
    trust: &TrustRoot,
) -> Result<(Vec<u8>, TrustRoot), Cause<E>> {
    let header = match found.header_unverified() {
        Ok(header) => header,
        // What is not as it was signed has to be called that, whatever it broke in the text.
        Err(_) => found.verify(trust).map_err(Cause::Bundle)?.0,
    };
    let length = header.fields().slot_manifest.length;
    let mut bytes = vec![0; bytes_in_memory(length)];
    read_exact(source, &mut bytes)?;
    let found = manifest::Unverified::parse(&bytes).and_then(|found| found.follow(trust));
    // Whatever is wrong with them is told once it is known that they are what was signed.
    let trust = found.unwrap_or_else(|_| trust.clone());
    Ok((bytes, trust))
}

fn check_length<E>(header: &Header, length: Option<u64>) -> Result<(), Cause<E>> {
    let wanted = header.total_bytes();
    match length {
        Some(length) if length < wanted => Err(Cause::Truncated(wanted - length)),
        Some(length) if length > wanted => Err(Cause::Trailing),
        _ => Ok(()),
    }
}

fn read_blob<E>(
    source: &mut impl Read,
    name: &'static str,
    blob: &Blob,
) -> Result<Vec<u8>, Cause<E>> {
    // A Header limits both sections to a few MiB.
    let mut bytes = vec![0; bytes_in_memory(blob.length)];
    read_exact(source, &mut bytes)?;
    blob.check(name, &bytes).map_err(Cause::Bundle)?;
    Ok(bytes)
}

fn open_manifest<E>(
    envelope: &[u8],
    trust: &TrustRoot,
    slot_bytes: u64,
) -> Result<Manifest, Cause<E>> {
    let found = manifest::Unverified::parse(envelope);
    let (manifest, _) =
        found.and_then(|found| found.verify(trust, slot_bytes)).map_err(Cause::Manifest)?;
    Ok(manifest)
}

fn check_manifest<E>(manifest: &Manifest, rules: &Rules<'_>) -> Result<(), Cause<E>> {
    if manifest.board != rules.board {
        let (found, wanted) = (manifest.board.clone(), rules.board.to_owned());
        return Err(Cause::Board { found, wanted });
    }
    if rules.profile == Profile::Release && manifest.profile != Profile::Release {
        return Err(Cause::Profile(manifest.profile));
    }
    Ok(())
}

/// Like [`Read::read_exact`], but says how much is missing.
pub(super) fn read_exact<E>(source: &mut impl Read, buffer: &mut [u8]) -> Result<(), Cause<E>> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => {
                let missing = u64::try_from(buffer.len() - filled).unwrap_or(u64::MAX);
                return Err(Cause::Truncated(missing));
            }
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Cause::Source(error)),
        }
    }
    Ok(())
}
