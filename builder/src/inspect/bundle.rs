//! What a bundle holds, and whether it is whole: everything a device checks, and the slot's parts
//! besides, which on a device is the loader's affair.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use ondisk::bundle::{Header, Index, Sections, Unverified};
use ondisk::device::{FileDevice, ReadAt};
use ondisk::digest::Digest;
use ondisk::layout::Extent;
use ondisk::manifest::{self, Fields, PartName};
use ondisk::trust_root::TrustRoot;
use ondisk::verify::Check;
use serde::Serialize;

use super::CheckFinding;
use crate::error::{Context, Error, Result};

/// A bundle.
#[derive(Serialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub struct BundleFindings {
    /// What the header says, line by line.
    pub header: Vec<String>,
    /// What the slot manifest says, line by line; empty if it cannot be read.
    pub manifest: Vec<String>,
    /// Ids of the keys that claim to have signed the header.
    pub signers: Vec<String>,
    /// Groups of blocks in the index.
    pub groups: usize,
    /// Each check in words, with its result.
    pub checks: Vec<CheckFinding>,
}

/// Reads a file that starts like a bundle; `None` if it does not.
///
/// Errors: unreadable, or a header that makes no sense.
pub(super) fn inspect(
    path: &Path,
    file: &FileDevice,
    trust: &TrustRoot,
) -> Result<Option<BundleFindings>> {
    let mut area = [0; ondisk::bundle::HEADER_BYTES];
    let Ok(()) = file.read_at(0, &mut area) else { return Ok(None) };
    let Ok(unverified) = Unverified::parse(&area) else { return Ok(None) };
    let header = unverified
        .header_unverified()
        .map_err(|error| Error::new(format!("{}: {error}", path.display())))?;
    let mut findings = BundleFindings {
        header: header.fields().encode().lines().map(str::to_owned).collect(),
        manifest: Vec::new(),
        signers: unverified.signers_unverified().map(|id| id.to_string()).collect(),
        groups: 0,
        checks: Vec::new(),
    };
    findings.check_signature(
        "signature",
        || match unverified.verify(trust) {
            Ok((_, key)) => Ok(key.to_string()),
            Err(error) => Err(error.to_string()),
        },
        trust,
    );
    let length = if file.size() == header.total_bytes() {
        Ok("length".to_owned())
    } else {
        Err(format!("{} bytes, the header says {}", file.size(), header.total_bytes()))
    };
    findings.check("file", length);
    let Some(manifest) = findings.check_manifest(file, &header, trust)? else {
        return Ok(Some(findings));
    };
    findings.check_image(path, file, &header, &manifest)?;
    Ok(Some(findings))
}

impl BundleFindings {
    fn check(&mut self, what: &str, result: std::result::Result<String, String>) {
        let good = Some(result.is_ok());
        let detail = result.unwrap_or_else(|error| error);
        self.checks.push(CheckFinding { what: what.to_owned(), good, detail });
    }

    fn check_signature(
        &mut self,
        what: &str,
        verify: impl FnOnce() -> std::result::Result<String, String>,
        trust: &TrustRoot,
    ) {
        if trust.release.keys().is_empty() {
            let detail =
                format!("by {}; pass --key or --trust to check it", self.signers.join(", "));
            self.checks.push(CheckFinding { what: what.to_owned(), good: None, detail });
        } else {
            self.check(what, verify().map(|key| format!("by {key}")));
        }
    }

    fn check_manifest(
        &mut self,
        file: &FileDevice,
        header: &Header,
        trust: &TrustRoot,
    ) -> Result<Option<Fields>> {
        let blob = header.fields().slot_manifest;
        let bytes = read(file, Sections::of(header).slot_manifest)?;
        if let Err(error) = blob.check("slot manifest", &bytes) {
            self.check("manifest", Err(error.to_string()));
            return Ok(None);
        }
        let found = manifest::Unverified::parse(&bytes).and_then(|unverified| {
            let fields = unverified.fields_unverified()?;
            Ok((unverified, fields))
        });
        let (unverified, fields) = match found {
            Ok(found) => found,
            Err(error) => {
                self.check("manifest", Err(error.to_string()));
                return Ok(None);
            }
        };
        self.manifest = fields.encode().lines().map(str::to_owned).collect();
        // The smallest slot that the image fits in: the device's may be larger.
        let slot = header.fields().image_bytes + ondisk::layout::MANIFEST_AREA_BYTES;
        self.check_signature(
            "manifest",
            || match unverified.verify(trust, slot) {
                Ok((_, key)) => Ok(key.to_string()),
                Err(error) => Err(error.to_string()),
            },
            trust,
        );
        Ok(Some(fields))
    }

    fn check_image(
        &mut self,
        path: &Path,
        file: &FileDevice,
        header: &Header,
        manifest: &Fields,
    ) -> Result<()> {
        let sections = Sections::of(header);
        let index = match Index::decode(header, &read(file, sections.index)?) {
            Ok(index) => index,
            Err(error) => {
                self.check("index", Err(error.to_string()));
                return Ok(());
            }
        };
        self.groups = index.groups.len();
        self.check("index", Ok(format!("{} groups", index.groups.len())));
        let chunks = check_chunks(file, header, &index);
        let good = chunks.is_ok();
        self.check("stream", chunks);
        // As on a device: nothing is unpacked that is not what was signed.
        if !good {
            return Ok(());
        }
        let mut stream = File::open(path).context(|| format!("cannot read {}", path.display()))?;
        io::Seek::seek(&mut stream, io::SeekFrom::Start(sections.stream.offset))
            .context(|| format!("cannot read {}", path.display()))?;
        for (what, result) in check_unpacked(stream, &index, manifest) {
            self.check(&what, result);
        }
        Ok(())
    }
}

fn check_chunks(
    file: &FileDevice,
    header: &Header,
    index: &Index,
) -> std::result::Result<String, String> {
    let stream = Sections::of(header).stream;
    let mut offset = stream.offset;
    for (number, hash) in index.chunks.iter().enumerate() {
        let rest = stream.offset + stream.length - offset;
        let length = rest.min(header.fields().chunk_bytes);
        let bytes = read(file, Extent { offset, length }).map_err(|error| error.chain())?;
        if Digest::of(&bytes) != *hash {
            return Err(format!("chunk {number} is not the one of the index"));
        }
        offset += length;
    }
    Ok(format!("{} chunks", index.chunks.len()))
}

/// Unpacks the stream and checks its groups and the slot's parts.
fn check_unpacked(
    stream: impl Read,
    index: &Index,
    manifest: &Fields,
) -> Vec<(String, std::result::Result<String, String>)> {
    let mut parts = PartName::ALL.map(|name| (name, Check::part(manifest.part(name))));
    let image = || -> std::result::Result<String, String> {
        let unreadable = |error: io::Error| format!("cannot unpack: {error}");
        let mut decoder = zstd::stream::Decoder::new(stream).map_err(unreadable)?;
        let mut offset = 0;
        for (number, group) in index.groups.iter().enumerate() {
            let mut bytes = vec![0; usize::try_from(group.bytes()).unwrap_or_default()];
            decoder.read_exact(&mut bytes).map_err(unreadable)?;
            if Digest::of(&bytes) != group.sha256 {
                return Err(format!("group {number} is not the one of the index"));
            }
            for (name, check) in &mut parts {
                check.update(overlap(&bytes, offset, manifest.part(*name).extent));
            }
            offset += group.bytes();
        }
        match decoder.read(&mut [0]) {
            Ok(0) => Ok("every group".to_owned()),
            Ok(_) => Err("unpacks to more than the index lists".to_owned()),
            Err(error) => Err(unreadable(error)),
        }
    };
    let image = image();
    let good = image.is_ok();
    let mut results = vec![("image".to_owned(), image)];
    if good {
        results.extend(parts.into_iter().map(|(name, check)| {
            let result = check.finish().map(|()| "sha256".to_owned());
            (name.to_string(), result.map_err(|error| error.to_string()))
        }));
    }
    results
}

/// The bytes at `offset` of the image that belong to a part.
fn overlap(bytes: &[u8], offset: u64, part: Extent) -> &[u8] {
    let inside = |position: u64| {
        let within = position.saturating_sub(offset);
        usize::try_from(within).map_or(bytes.len(), |within| within.min(bytes.len()))
    };
    &bytes[inside(part.offset)..inside(part.offset + part.length)]
}

fn read(file: &FileDevice, extent: Extent) -> Result<Vec<u8>> {
    if extent.end().is_none_or(|end| end > file.size()) {
        return Err(Error::new("the bundle is cut short"));
    }
    let mut bytes = vec![0; usize::try_from(extent.length).unwrap_or_default()];
    file.read_at(extent.offset, &mut bytes).context(|| "cannot read the bundle".to_owned())?;
    Ok(bytes)
}

/// The findings for a person.
pub(super) fn render(findings: &BundleFindings) -> Vec<String> {
    let mut lines = vec!["bundle".to_owned()];
    lines.extend(findings.header.iter().map(|line| format!("  {line}")));
    lines.push("slot in the bundle".to_owned());
    lines.extend(findings.manifest.iter().map(|line| format!("  {line}")));
    lines.extend(findings.checks.iter().map(super::render_check));
    lines
}
