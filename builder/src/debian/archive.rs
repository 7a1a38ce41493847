//! Inside a .deb: an `ar` archive of `debian-binary`, `control.tar.*` and `data.tar.*` (deb(5)).
//!
//! Streams: nothing but the decoder's own buffers is held in memory. Maintainer scripts are never
//! looked at. Numbers and names are checked before use; bad input is an error, never a panic.

use std::io::{self, BufRead, BufReader, Read};

use liblzma::stream::MtStreamBuilder;

use crate::error::{Context, Error, Result};
use crate::tree::TreePath;

/// One object of a package.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Where it goes.
    pub path: TreePath,
    /// Permission bits, set-uid, set-gid, sticky.
    pub mode: u16,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// What it is.
    pub kind: EntryKind,
}

/// What an entry is. Debian packages carry neither devices nor extended attributes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file with its length; its bytes come from the reader beside the entry.
    File(u64),
    /// A symbolic link with its target.
    Symlink(Vec<u8>),
    /// Another name of an earlier regular file.
    HardLink(TreePath),
}

/// Memory the decoder of one package may take for decoding its blocks side by side.
const THREADING_MEMORY: u64 = 256 << 20;

/// Memory no decoder may exceed: a file that asks for more is refused.
const DECODER_MEMORY: u64 = 512 << 20;

/// Calls `visit` for every object in `data.tar`, in the order of the archive, then reads to the
/// end, so that the checksums of the compressed stream are checked too.
///
/// `threads` > 1 decodes the blocks of a multi-block .xz side by side; the memory for it pays only
/// with large packages.
pub fn read_data(
    deb: impl BufRead,
    threads: u32,
    mut visit: impl FnMut(&Entry, &mut dyn Read) -> Result<()>,
) -> Result<()> {
    let (name, member) = find_member(deb, b"data.tar")?;
    let mut decoder = decoder(&name, BufReader::with_capacity(64 << 10, member), threads)?;
    let mut archive = tar::Archive::new(&mut decoder);
    for entry in archive.entries().context(|| "data.tar is damaged".to_owned())? {
        let mut file = entry.context(|| "data.tar is damaged".to_owned())?;
        if let Some(entry) = read_entry(&file)? {
            visit(&entry, &mut file)?;
        }
    }
    io::copy(&mut decoder, &mut io::sink()).context(|| "data.tar is damaged".to_owned())?;
    Ok(())
}

/// The bytes of one regular file of a package, if it has it.
pub fn read_file(deb: impl BufRead, path: &TreePath) -> Result<Option<Vec<u8>>> {
    let mut found = None;
    read_data(deb, 1, |entry, content| {
        if entry.path == *path && matches!(entry.kind, EntryKind::File(_)) {
            let mut bytes = Vec::new();
            content
                .read_to_end(&mut bytes)
                .context(|| format!("cannot read {}", path.display()))?;
            found = Some(bytes);
        }
        Ok(())
    })?;
    Ok(found)
}

fn decoder<'a>(name: &str, member: impl BufRead + 'a, threads: u32) -> Result<Box<dyn Read + 'a>> {
    let broken = || format!("cannot start decoding {name}");
    Ok(match name.strip_prefix("data.tar") {
        Some(".xz") => {
            let mut builder = MtStreamBuilder::new();
            builder.threads(threads.max(1));
            builder.memlimit_threading(THREADING_MEMORY).memlimit_stop(DECODER_MEMORY);
            let stream = builder.decoder().context(broken)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(member, stream))
        }
        Some(".zst") => Box::new(zstd::Decoder::with_buffer(member).context(broken)?),
        Some(".gz") => Box::new(flate2::bufread::MultiGzDecoder::new(member)),
        Some("") => Box::new(member),
        _ => return Err(Error::new(format!("{name} has an unknown compression"))),
    })
}

/// `None` for what is no object of its own (a global header) and for the root directory.
fn read_entry(file: &tar::Entry<'_, impl Read>) -> Result<Option<Entry>> {
    let damaged = || "a header of data.tar is damaged".to_owned();
    let header = file.header();
    let path = TreePath::new(file.path_bytes())?;
    let link = || {
        file.link_name_bytes()
            .ok_or_else(|| Error::new(format!("the link {} has no target", path.display())))
    };
    let kind = match header.entry_type() {
        tar::EntryType::Directory => EntryKind::Directory,
        tar::EntryType::Regular | tar::EntryType::Continuous => EntryKind::File(file.size()),
        tar::EntryType::Symlink => EntryKind::Symlink(link()?.into_owned()),
        tar::EntryType::Link => EntryKind::HardLink(TreePath::new(link()?)?),
        tar::EntryType::XGlobalHeader => return Ok(None),
        other => {
            return Err(Error::new(format!("{} is of the kind {other:?}", path.display())));
        }
    };
    if path.is_root() {
        return Ok(None);
    }
    let number = |value: io::Result<u64>| -> Result<u32> {
        u32::try_from(value.context(damaged)?).context(damaged)
    };
    let mode = header.mode().context(damaged)? & 0o7777;
    let mode = u16::try_from(mode).context(damaged)?;
    let (uid, gid) = (number(header.uid())?, number(header.gid())?);
    Ok(Some(Entry { path, mode, uid, gid, kind }))
}

const AR_MAGIC: &[u8; 8] = b"!<arch>\n";

/// Skips to the member whose name starts with `prefix`; its name and a reader of its bytes.
fn find_member<R: BufRead>(mut deb: R, prefix: &[u8]) -> Result<(String, io::Take<R>)> {
    let mut magic = [0; 8];
    deb.read_exact(&mut magic).context(|| "it is too short for a package".to_owned())?;
    if magic != *AR_MAGIC {
        return Err(Error::new("it is not an `ar` archive"));
    }
    let mut first = true;
    loop {
        let mut header = [0; 60];
        deb.read_exact(&mut header)
            .context(|| format!("it has no member {}", prefix.escape_ascii()))?;
        let (name, length) = member_header(&header)?;
        if first && name != "debian-binary" {
            return Err(Error::new(format!("its first member is {name}, not debian-binary")));
        }
        first = false;
        if name.as_bytes().starts_with(prefix) {
            return Ok((name, deb.take(length)));
        }
        // Members start at even offsets.
        let padded = length + length % 2;
        let skipped = io::copy(&mut (&mut deb).take(padded), &mut io::sink());
        if skipped.context(|| format!("cannot read {name}"))? != padded {
            return Err(Error::new(format!("it ends inside of {name}")));
        }
    }
}

/// Name (16 bytes), time, owner, group, mode (32 bytes together), size (10), end mark (2).
fn member_header(header: &[u8; 60]) -> Result<(String, u64)> {
    let bad = || Error::new(format!("bad `ar` header `{}`", header.escape_ascii()));
    let name = str::from_utf8(&header[..16]).map_err(|_| bad())?.trim_end().trim_end_matches('/');
    let size = str::from_utf8(&header[48..58]).map_err(|_| bad())?.trim_end();
    if &header[58..] != b"`\n" || !size.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad());
    }
    Ok((name.to_owned(), size.parse().map_err(|_| bad())?))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write as _;

    use super::*;

    /// A small .deb: a directory, two files, a symbolic and a hard link. `data` names the member.
    pub(crate) fn deb(data: &str, big: &[u8]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let add = |tar: &mut tar::Builder<Vec<u8>>, path, mode, kind, link: &str, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_uid(0);
            header.set_gid(42);
            header.set_size(bytes.len() as u64);
            if link.is_empty() {
                tar.append_data(&mut header, path, bytes).unwrap();
            } else {
                tar.append_link(&mut header, path, link).unwrap();
            }
        };
        use tar::EntryType::{Directory, Link, Regular, Symlink};
        let long = format!("./usr/share/{}/x", "long-".repeat(40));
        add(&mut tar, "./", 0o755, Directory, "", b"");
        add(&mut tar, "./usr/", 0o755, Directory, "", b"");
        add(&mut tar, "./usr/bin/tool", 0o4755, Regular, "", b"#!tool");
        add(&mut tar, "./usr/bin/alias", 0o777, Symlink, "tool", b"");
        add(&mut tar, "./usr/bin/twin", 0o755, Link, "./usr/bin/tool", b"");
        add(&mut tar, "./usr/share/man/man1/tool.1", 0o644, Regular, "", b"manual");
        add(&mut tar, "./usr/share/doc/tool/copyright", 0o644, Regular, "", b"terms");
        add(&mut tar, &long, 0o600, Regular, "", big);
        ar(&[
            ("debian-binary", b"2.0\n".to_vec()),
            ("control.tar", b"odd".to_vec()),
            (data, compress(data, &tar.into_inner().unwrap())),
        ])
    }

    /// A .deb with one regular file.
    pub(crate) fn deb_with(path: &str, bytes: &[u8]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, path, bytes).unwrap();
        let data = compress("data.tar.xz", &tar.into_inner().unwrap());
        ar(&[("debian-binary", b"2.0\n".to_vec()), ("data.tar.xz", data)])
    }

    fn compress(name: &str, bytes: &[u8]) -> Vec<u8> {
        match name.strip_prefix("data.tar").unwrap() {
            ".xz" => {
                // Many small blocks, as large Debian packages have large ones.
                let mut builder = MtStreamBuilder::new();
                let stream = builder.threads(2).preset(1).block_size(64 << 10).encoder().unwrap();
                let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            ".zst" => zstd::encode_all(bytes, 1).unwrap(),
            ".gz" => {
                let level = flate2::Compression::fast();
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            _ => bytes.to_vec(),
        }
    }

    fn ar(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = AR_MAGIC.to_vec();
        for (name, content) in members {
            let length = content.len();
            writeln!(bytes, "{name:<16}{:<12}{:<6}{:<6}{:<8}{length:<10}`", 0, 0, 0, 100_644)
                .unwrap();
            bytes.extend_from_slice(content);
            bytes.extend(std::iter::repeat_n(b'\n', length % 2));
        }
        bytes
    }

    fn listing(deb: &[u8], threads: u32) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        read_data(deb, threads, |entry, content| {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes).context(|| "bad content".to_owned())?;
            let Entry { path, mode, uid, gid, kind } = entry;
            let digest =
                if bytes.len() > 99 { "big".into() } else { bytes.escape_ascii().to_string() };
            lines.push(format!("{} {mode:o} {uid}:{gid} {kind:?} {digest}", path.display()));
            Ok(())
        })?;
        Ok(lines)
    }

    #[test]
    fn every_compression_gives_the_same_entries() {
        let big: Vec<u8> = (0..300_000_u32).flat_map(|n| (n * 7 / 3).to_le_bytes()).collect();
        let plain = listing(&deb("data.tar", &big), 1).unwrap();
        assert_eq!(plain.len(), 7);
        assert_eq!(plain[0], "/usr 755 0:42 Directory ");
        assert_eq!(plain[1], "/usr/bin/tool 4755 0:42 File(6) #!tool");
        assert_eq!(plain[2], "/usr/bin/alias 777 0:42 Symlink([116, 111, 111, 108]) ");
        assert!(plain[3].starts_with("/usr/bin/twin 755 0:42 HardLink("));
        assert!(plain[6].ends_with("x 600 0:42 File(1200000) big"), "{}", plain[6]);
        for data in ["data.tar.xz", "data.tar.zst", "data.tar.gz"] {
            for threads in [1, 2] {
                assert_eq!(listing(&deb(data, &big), threads).unwrap(), plain, "{data}");
            }
        }
    }

    #[test]
    fn every_truncation_is_an_error() {
        for data in ["data.tar.xz", "data.tar.zst", "data.tar.gz"] {
            let whole = deb(data, &[7; 5000]);
            for length in 0..whole.len() - 1 {
                let result = listing(&whole[..length], 2);
                assert!(result.is_err(), "{data} cut to {length} of {}", whole.len());
            }
        }
    }

    #[test]
    fn a_flipped_byte_in_the_compressed_data_is_noticed() {
        let whole = deb("data.tar.xz", &[7; 5000]);
        // After the magic, three member headers, `debian-binary` and a padded control member.
        let start = 8 + 3 * 60 + 4 + 4;
        for at in start..whole.len() - 1 {
            let mut bad = whole.clone();
            bad[at] ^= 0x55;
            assert!(listing(&bad, 1).is_err(), "byte {at} of {}", whole.len());
        }
    }

    #[test]
    fn what_is_no_package_says_why() {
        let member = |name: &str, bytes: &[u8]| {
            ar(&[("debian-binary", b"2.0\n".to_vec()), (name, bytes.to_vec())])
        };
        for (bytes, message) in [
            (b"short".to_vec(), "it is too short for a package: failed to fill whole buffer"),
            (b"<html>not found</html>".to_vec(), "it is not an `ar` archive"),
            (ar(&[("other", vec![])]), "its first member is other, not debian-binary"),
            (member("x", b""), "it has no member data.tar: failed to fill whole buffer"),
            (member("data.tar.lzma", b""), "data.tar.lzma has an unknown compression"),
        ] {
            assert_eq!(listing(&bytes, 1).unwrap_err().chain(), message);
        }
    }
}
