//! The front of a bundle, up to its stream: read in order, checked before it is used, and held
//! against what this device takes.
use std::io::{self, Read};

use ondisk::bundle::{self, Blob, HEADER_BYTES, Header, Index};
use ondisk::keyring::Keyring;
use ondisk::manifest::{self, Manifest, Profile};

use super::{Cause, Rules, bytes_in_memory};

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
/// Holding one proves: a trusted key signed header and slot manifest; the system is for this board
/// and profile and fits the slot; the index is the one that the header lists and describes the
/// image that the manifest lists; the source has the right length, if that is known.
pub(super) struct Front {
    pub(super) header: Header,
    pub(super) manifest: Manifest,
    /// The manifest in its envelope.
    pub(super) slot_manifest: Vec<u8>,
    pub(super) index: Index,
}

impl Front {
    /// Reads up to the stream; also gives back the source, which stands there.
    pub(super) fn read<S: Read, E>(
        source: Source<S>,
        rules: &Rules<'_>,
        slot_bytes: u64,
    ) -> Result<(Self, S), Cause<E>> {
        let Source { mut bytes, length } = source;
        let header = read_header(&mut bytes, rules.keys)?;
        let fields = header.fields();
        check_length(&header, length)?;
        let slot_manifest = read_blob(&mut bytes, "slot manifest", &fields.slot_manifest)?;
        let manifest = open_manifest(&slot_manifest, rules.keys, slot_bytes)?;
        check_manifest(&manifest, rules)?;
        header.check_manifest(&manifest).map_err(Cause::Bundle)?;
        let index = read_blob(&mut bytes, "index", &fields.index)?;
        let index = Index::decode(&header, &index).map_err(Cause::Bundle)?;
        Ok((Self { header, manifest, slot_manifest, index }, bytes))
    }
}

fn read_header<E>(source: &mut impl Read, keys: &Keyring) -> Result<Header, Cause<E>> {
    let mut area = [0; HEADER_BYTES];
    read_exact(source, &mut area)?;
    let found = bundle::Unverified::parse(&area).and_then(|found| found.verify(keys));
    let (header, _) = found.map_err(Cause::Bundle)?;
    Ok(header)
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
    keys: &Keyring,
    slot_bytes: u64,
) -> Result<Manifest, Cause<E>> {
    let found = manifest::Unverified::parse(envelope);
    let (manifest, _) =
        found.and_then(|found| found.verify(keys, slot_bytes)).map_err(Cause::Manifest)?;
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
