//! Image archives: which image is in one, found without reading its layers, and what its layers
//! are.
//!
//! An archive is a tar with a `manifest.json` that names the image's config by its digest, and the
//! digest is the id under which the engine knows the image. The builder puts `manifest.json` first;
//! archives from elsewhere (`docker save`) have it last, so the entries before it are skipped.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};

use ondisk::digest::{Digest, Hasher};
use serde_json::Value;

const BLOCK: u64 = 512;

/// Longest `manifest.json` that is read; one takes some hundred bytes an image.
const MAX_MANIFEST: u64 = 1024 * 1024;

/// Why no image can be found in an archive.
#[derive(Debug)]
pub enum Error {
    /// It cannot be read.
    Io(io::Error),
    /// It is no tar, or a damaged one.
    NoTar,
    /// It holds no `manifest.json`.
    NoManifest,
    /// Its `manifest.json` does not name one config by a sha256 digest.
    BadManifest,
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(formatter),
            Self::NoTar => formatter.write_str("it is not a tar archive"),
            Self::NoManifest => formatter.write_str("it holds no manifest.json"),
            Self::BadManifest => formatter.write_str("its manifest.json does not name one image"),
        }
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::NoTar,
            _ => Self::Io(error),
        }
    }
}

/// The id (`sha256:HEX`) of the image in an archive that is read from its beginning.
pub fn image_id(archive: &mut (impl Read + Seek)) -> Result<String, Error> {
    loop {
        let mut header = [0; BLOCK as usize];
        archive.read_exact(&mut header)?;
        if header == [0; BLOCK as usize] {
            return Err(Error::NoManifest);
        }
        let size = checked_size(&header)?;
        if name(&header) == b"manifest.json" {
            return id_of(archive, size);
        }
        let padded = size.checked_next_multiple_of(BLOCK).ok_or(Error::NoTar)?;
        archive.seek(SeekFrom::Current(i64::try_from(padded).map_err(|_| Error::NoTar)?))?;
    }
}

/// Digests of the layers of the image in an archive that is read from its beginning, as its config
/// has them (`rootfs.diff_ids` of the OCI image specification): of their contents, not packed.
pub fn layers(archive: &mut (impl Read + Seek)) -> Result<Vec<Digest>, Error> {
    let id = image_id(archive)?;
    let hash = id.strip_prefix("sha256:").unwrap_or_default();
    archive.seek(SeekFrom::Start(0))?;
    let mut config = None;
    each_entry(archive, |name, content| {
        let file = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let file = file.strip_suffix(b".json").unwrap_or(file);
        if file == hash.as_bytes() {
            let mut bytes = Vec::new();
            content.take(MAX_MANIFEST).read_to_end(&mut bytes)?;
            config = Some(bytes);
        }
        Ok(())
    })?;
    let config = config.ok_or(Error::BadManifest)?;
    let config: Value = serde_json::from_slice(&config).map_err(|_| Error::BadManifest)?;
    let layers = config["rootfs"]["diff_ids"].as_array().ok_or(Error::BadManifest)?;
    let layers = layers.iter().map(|layer| layer.as_str()?.strip_prefix("sha256:"));
    layers
        .map(|hash| hash.and_then(Digest::from_hex).ok_or(Error::BadManifest))
        .collect::<Result<_, _>>()
}

/// Digests of everything in an archive that comes as a stream, up to its end.
pub fn digests(archive: &mut impl Read) -> Result<BTreeSet<Digest>, Error> {
    let mut all = BTreeSet::new();
    each_entry(archive, |_, content| {
        all.insert(digest(content)?);
        Ok(())
    })?;
    Ok(all)
}

/// The digest of whatever comes, up to its end.
pub fn digest(content: &mut dyn Read) -> io::Result<Digest> {
    let (mut hasher, mut piece) = (Hasher::new(), vec![0; 64 * 1024]);
    loop {
        match content.read(&mut piece)? {
            0 => return Ok(hasher.digest()),
            count => hasher.add(piece.get(..count).unwrap_or_default()),
        }
    }
}

/// Shows each entry with its name; what is not read of one is passed over.
fn each_entry(
    archive: &mut impl Read,
    mut show: impl FnMut(&[u8], &mut dyn Read) -> Result<(), Error>,
) -> Result<(), Error> {
    loop {
        let mut header = [0; BLOCK as usize];
        archive.read_exact(&mut header)?;
        if header == [0; BLOCK as usize] {
            return Ok(());
        }
        let size = checked_size(&header)?;
        let padded = size.checked_next_multiple_of(BLOCK).ok_or(Error::NoTar)?;
        let mut content = archive.by_ref().take(size);
        show(name(&header), &mut content)?;
        let left = content.limit().saturating_add(padded - size);
        if io::copy(&mut archive.by_ref().take(left), &mut io::sink())? < left {
            return Err(Error::NoTar);
        }
    }
}

fn id_of(archive: &mut impl Read, size: u64) -> Result<String, Error> {
    if size > MAX_MANIFEST {
        return Err(Error::BadManifest);
    }
    let mut bytes = Vec::new();
    archive.take(size).read_to_end(&mut bytes)?;
    let manifest: Value = serde_json::from_slice(&bytes).map_err(|_| Error::BadManifest)?;
    let [image] = manifest.as_array().map(Vec::as_slice).unwrap_or_default() else {
        return Err(Error::BadManifest);
    };
    // `blobs/sha256/HEX` in archives of today, `HEX.json` in older ones.
    let config = image["Config"].as_str().ok_or(Error::BadManifest)?;
    let file = config.rsplit('/').next().unwrap_or_default();
    let hash = file.strip_suffix(".json").unwrap_or(file);
    let fine = hash.len() == 64
        && hash.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    fine.then(|| format!("sha256:{hash}")).ok_or(Error::BadManifest)
}

/// Name of an entry, without the zeros after it. Long names use other fields, which no one needs
/// to find a short one.
fn name(header: &[u8; BLOCK as usize]) -> &[u8] {
    header[..100].split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Size of an entry, if the header's checksum is right.
fn checked_size(header: &[u8; BLOCK as usize]) -> Result<u64, Error> {
    let sum: u64 = header
        .iter()
        .enumerate()
        // The checksum counts its own field as blanks.
        .map(|(at, byte)| u64::from(if (148..156).contains(&at) { b' ' } else { *byte }))
        .sum();
    if octal(&header[148..156]) != Some(sum) {
        return Err(Error::NoTar);
    }
    octal(&header[124..136]).ok_or(Error::NoTar)
}

fn octal(field: &[u8]) -> Option<u64> {
    let digits = field.split(|byte| *byte == 0).next()?.trim_ascii();
    let fine = digits.iter().all(|byte| (b'0'..=b'7').contains(byte));
    fine.then(|| u64::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok())?
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    const HASH: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn entry(name: &str, bytes: &[u8]) -> Vec<u8> {
        let mut header = [0; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[124..135].copy_from_slice(format!("{:011o}", bytes.len()).as_bytes());
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        let padding = bytes.len().next_multiple_of(512) - bytes.len();
        [&header, bytes, &vec![0; padding]].concat()
    }

    fn id(archive: &[u8]) -> Result<String, String> {
        image_id(&mut Cursor::new(archive)).map_err(|error| error.to_string())
    }

    fn manifest(config: &str) -> Vec<u8> {
        let text = format!(r#"[{{"Config":"{config}","RepoTags":["a:b"],"Layers":[]}}]"#);
        entry("manifest.json", text.as_bytes())
    }

    #[test]
    fn the_layers_of_a_config_are_among_what_a_whole_archive_holds() {
        let layer = b"a layer".repeat(20_000);
        let hex = |bytes: &[u8]| Digest::of(bytes).to_string();
        let config = format!(r#"{{"rootfs":{{"diff_ids":["sha256:{}"]}}}}"#, hex(&layer));
        let hash = hex(config.as_bytes());
        let config = entry(&format!("blobs/sha256/{hash}"), config.as_bytes());
        let named = manifest(&format!("blobs/sha256/{hash}"));
        let layers_of = |archive: &[u8]| layers(&mut Cursor::new(archive)).unwrap();
        let end = vec![0; 1024];
        let whole = [config.clone(), entry("blobs/x", &layer), named, end].concat();
        let expected = layers_of(&whole);
        assert_eq!(expected, [Digest::of(&layer)]);
        let found = digests(&mut &whole[..]).unwrap();
        assert!(found.contains(&expected[0]) && found.len() == 3);
        let at = config.len() + 600;
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        assert!(!digests(&mut &damaged[..]).unwrap().contains(&expected[0]));
        // An engine that cannot read its own store breaks off.
        assert!(digests(&mut &whole[..at]).is_err());
        let lost = [manifest(&format!("blobs/sha256/{hash}")), vec![0; 1024]].concat();
        assert!(layers(&mut Cursor::new(lost)).is_err());
    }

    #[test]
    fn the_id_is_found_first_or_last_in_the_new_form_and_the_old() {
        let new = manifest(&format!("blobs/sha256/{HASH}"));
        assert_eq!(id(&new), Ok(format!("sha256:{HASH}")));
        let old = manifest(&format!("{HASH}.json"));
        let archive = [entry("layer.tar", &[7; 1000]), entry("empty", b""), old].concat();
        assert_eq!(id(&archive), Ok(format!("sha256:{HASH}")));
    }

    #[test]
    fn each_fault_has_its_own_answer() {
        let short = manifest("blobs/sha256/0123");
        let upper = manifest(&HASH.to_uppercase());
        let two = entry("manifest.json", b"[{},{}]");
        let end = [entry("a", b"1"), vec![0; 1024]].concat();
        let mut damaged = manifest(HASH);
        damaged[0] ^= 1;
        for (archive, expected) in [
            (&b"no tar at all"[..], "it is not a tar archive"),
            (&[1; 512], "it is not a tar archive"),
            (&damaged, "it is not a tar archive"),
            (&end, "it holds no manifest.json"),
            (&short, "its manifest.json does not name one image"),
            (&upper, "its manifest.json does not name one image"),
            (&two, "its manifest.json does not name one image"),
            (&entry("manifest.json", b"{"), "its manifest.json does not name one image"),
            (&entry("manifest.json", b"{}"), "its manifest.json does not name one image"),
        ] {
            assert_eq!(id(archive), Err(expected.to_owned()));
        }
    }
}
