//! Reads the block map that lies beside an image: which blocks to write, with a hash of each range.
//!
//! Takes bmap format 2.x with SHA-256, as [`crate::image::bmap`] and `bmaptool` write it.
//! Guarantees of a map: its own checksum fits, ranges ascend, do not touch each other's blocks and
//! lie in the image.

use std::ops::Range;

use ondisk::digest::Digest;
use roxmltree::{Document, Node};

use super::source::Stretch;
use crate::error::{Context, Error, Result};
use crate::hex;

/// What an image holds, block for block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockMap {
    /// Length of the image, unpacked.
    pub image_bytes: u64,
    /// What holds data, ascending, each with its hash.
    pub stretches: Vec<Stretch>,
}

impl BlockMap {
    /// Reads and checks a map.
    ///
    /// Errors: not XML, another version or kind of checksum, its own checksum does not fit, a
    /// number that makes no sense.
    pub fn parse(text: &str) -> Result<Self> {
        let document = Document::parse(text).context(|| "not a block map".to_owned())?;
        let root = document.root_element();
        if root.tag_name().name() != "bmap" {
            return Err(Error::new("not a block map"));
        }
        match root.attribute("version") {
            Some(version) if version.starts_with("2.") => {}
            version => {
                let version = version.unwrap_or("unknown");
                return Err(Error::new(format!("version {version}, only 2.x is known")));
            }
        }
        let kind = field(root, "ChecksumType")?;
        if kind != "sha256" {
            return Err(Error::new(format!("checksums of type {kind}, only sha256 is known")));
        }
        check_itself(text, root)?;
        let image_bytes = number(field(root, "ImageSize")?)?;
        let block_bytes = number(field(root, "BlockSize")?)?;
        if !(512..=1 << 24).contains(&block_bytes) || !block_bytes.is_multiple_of(512) {
            return Err(Error::new(format!("blocks of {block_bytes} bytes")));
        }
        let list = child(root, "BlockMap")?;
        let ranges = list.children().filter(|node| node.tag_name().name() == "Range");
        let mut stretches = Vec::new();
        let mut free_from = 0;
        for node in ranges {
            let stretch = stretch(node, block_bytes, image_bytes)?;
            if stretch.range.start < free_from {
                return Err(Error::new(format!("ranges overlap at byte {}", stretch.range.start)));
            }
            free_from = stretch.range.end;
            stretches.push(stretch);
        }
        Ok(Self { image_bytes, stretches })
    }
}

/// The map's own checksum is that of the map with zeros in its place.
fn check_itself(text: &str, root: Node<'_, '_>) -> Result<()> {
    let wanted = field(root, "BmapFileChecksum")?;
    // `field` gives a part of the text itself unless an entity stands in it.
    let at = text.find(wanted).filter(|_| hex::decode::<32>(wanted).is_some());
    let at = at.ok_or_else(|| Error::new("its own checksum is no SHA-256"))?;
    let mut bytes = text.as_bytes().to_vec();
    bytes[at..at + wanted.len()].fill(b'0');
    if Digest::of(&bytes).to_string() == wanted.to_ascii_lowercase() {
        Ok(())
    } else {
        Err(Error::new("its own checksum does not fit: it was changed or cut short"))
    }
}

fn stretch(node: Node<'_, '_>, block_bytes: u64, image_bytes: u64) -> Result<Stretch> {
    let text = node.text().unwrap_or_default().trim();
    let bad = || Error::new(format!("range `{text}` makes no sense"));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    let start = first.checked_mul(block_bytes).ok_or_else(bad)?;
    let end = last.checked_add(1).and_then(|blocks| blocks.checked_mul(block_bytes));
    // The last block of an image of odd length is cut short.
    let range: Range<u64> = start..end.ok_or_else(bad)?.min(image_bytes);
    let hash = node.attribute("chksum").and_then(hex::decode::<32>);
    match hash {
        Some(sha256) if first <= last && !range.is_empty() => {
            Ok(Stretch { range, sha256: Some(sha256) })
        }
        _ => Err(bad()),
    }
}

fn child<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Result<Node<'a, 'i>> {
    let mut found = node.children().filter(|node| node.tag_name().name() == name);
    found.next().ok_or_else(|| Error::new(format!("no {name} in it")))
}

fn field<'a>(node: Node<'a, '_>, name: &str) -> Result<&'a str> {
    Ok(child(node, name)?.text().unwrap_or_default().trim())
}

fn number(text: &str) -> Result<u64> {
    let text = text.trim();
    text.parse().map_err(|_| Error::new(format!("`{text}` is not a number")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::bmap;
    use crate::image::sparse::{BLOCK, Sparse};

    fn text() -> String {
        let directory = tempfile::tempdir().unwrap();
        let mut image = Sparse::create(&directory.path().join("i"), (40 << 20) + 100).unwrap();
        image.write_at(0, b"first").unwrap();
        image.write_at(5 * BLOCK, &[7; 3 * BLOCK as usize]).unwrap();
        image.write_at(40 << 20, &[1; 100]).unwrap();
        bmap::text(&image.finish().unwrap()).unwrap()
    }

    /// The map with one thing replaced and, if wanted, a checksum that fits again.
    fn changed(from: &str, to: &str, sign: bool) -> String {
        let mut text = text();
        assert!(text.contains(from), "{text}");
        text = text.replacen(from, to, 1);
        if sign {
            let start = text.find("<BmapFileChecksum> ").unwrap() + "<BmapFileChecksum> ".len();
            text.replace_range(start..start + 64, &"0".repeat(64));
            let digest = Digest::of(text.as_bytes()).to_string();
            text.replace_range(start..start + 64, &digest);
        }
        text
    }

    #[test]
    fn a_map_that_was_written_is_read_back() {
        let map = BlockMap::parse(&text()).unwrap();
        assert_eq!(map.image_bytes, (40 << 20) + 100);
        let ranges: Vec<_> = map.stretches.iter().map(|one| one.range.clone()).collect();
        assert_eq!(ranges, [0..BLOCK, 5 * BLOCK..8 * BLOCK, 40 << 20..(40 << 20) + 100]);
        let of_zeros = Digest::of(&[[7; BLOCK as usize]; 3].concat());
        assert_eq!(map.stretches[1].sha256, Some(*of_zeros.as_bytes()));
    }

    #[test]
    fn a_map_with_one_thing_wrong_is_refused_by_name() {
        for (from, to, sign, expected) in [
            ("<bmap", "<map", true, "not a block map"),
            ("</bmap>", "", false, "not a block map"),
            ("version=\"2.0\"", "version=\"1.3\"", true, "version 1.3, only 2.x is known"),
            ("> sha256 <", "> sha1 <", true, "checksums of type sha1, only sha256 is known"),
            ("> 5-7 <", "> 5-8 <", false, "its own checksum does not fit"),
            ("> 5-7 <", "> 0-7 <", true, "ranges overlap at byte 0"),
            ("> 5-7 <", "> 7-5 <", true, "range `7-5` makes no sense"),
            ("> 5-7 <", "> x <", true, "`x` is not a number"),
            ("> 10240 <", "> 10241 <", true, "range `10241` makes no sense"),
            ("> 4096 <", "> 100 <", true, "blocks of 100 bytes"),
            ("ImageSize", "Image", true, "not a block map"),
            ("chksum=", "sum=", true, "range `0` makes no sense"),
        ] {
            let message = BlockMap::parse(&changed(from, to, sign)).unwrap_err().chain();
            assert!(message.starts_with(expected), "{from} -> {to}: {message}");
        }
    }
}
