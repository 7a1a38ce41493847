//! The block map of an image: which blocks hold data, with a hash of each range.
//!
//! Follows bmap format 2.0 as `bmaptool` reads and writes it: flashing tools then write only what
//! is mapped and check it on the way. Guarantees: only from what the image is known to hold, so
//! the same image gives the same map on every machine; ranges are at most 16 MiB long, so that all
//! cores hash, and a flashing tool finds damage before it has written everything.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{Context, Result};
use crate::hex;
use crate::host::parallel;
use crate::image::sparse::{BLOCK, SparseImage};
use crate::image::unfinished::Unfinished;

const LONGEST_RANGE: u64 = 16 << 20;
const READ_CHUNK: usize = 1 << 20;
/// Stands for the map's own hash while the map is hashed.
const NO_CHECKSUM: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Hashes what the image holds and writes its block map.
pub fn write(image: &SparseImage, target: &Path) -> Result<()> {
    let text = text(image)?;
    let mut output = Unfinished::create(target)?;
    output.write_all(text.as_bytes()).context(|| format!("cannot write {}", target.display()))?;
    output.finish()
}

/// The block map as text.
pub fn text(image: &SparseImage) -> Result<String> {
    let failed = || format!("cannot read {}", image.path.display());
    let file = File::open(&image.path).context(failed)?;
    let ranges = pieces(image);
    let hashes =
        parallel::map(&ranges, parallel::processors(), |range| hash(&file, range).context(failed))?;
    let draft = draft(image, ranges.iter().zip(&hashes));
    let checksum = hex::encode(Sha256::digest(&draft));
    Ok(draft.replacen(NO_CHECKSUM, &checksum, 1))
}

/// The mapped ranges, none longer than [`LONGEST_RANGE`].
fn pieces(image: &SparseImage) -> Vec<Range<u64>> {
    let mut pieces = Vec::new();
    for range in image.mapped.iter() {
        let mut start = range.start;
        while start < range.end {
            let next = ((start / LONGEST_RANGE + 1) * LONGEST_RANGE).min(range.end);
            pieces.push(start..next);
            start = next;
        }
    }
    pieces
}

fn hash(file: &File, range: &Range<u64>) -> std::io::Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; READ_CHUNK];
    let mut position = range.start;
    while position < range.end {
        let count = usize::try_from(range.end - position).map_or(READ_CHUNK, |n| n.min(READ_CHUNK));
        file.read_exact_at(&mut buffer[..count], position)?;
        hasher.update(&buffer[..count]);
        position += count as u64;
    }
    Ok(hasher.finalize().into())
}

fn draft<'a>(
    image: &SparseImage,
    ranges: impl Iterator<Item = (&'a Range<u64>, &'a [u8; 32])> + Clone,
) -> String {
    let mapped: u64 =
        ranges.clone().map(|(range, _)| (range.end - range.start).div_ceil(BLOCK)).sum();
    let mut text = format!(
        "<?xml version=\"1.0\" ?>\n\
         <bmap version=\"2.0\">\n\
         \x20   <ImageSize> {} </ImageSize>\n\
         \x20   <BlockSize> {BLOCK} </BlockSize>\n\
         \x20   <BlocksCount> {} </BlocksCount>\n\
         \x20   <MappedBlocksCount> {mapped} </MappedBlocksCount>\n\
         \x20   <ChecksumType> sha256 </ChecksumType>\n\
         \x20   <BmapFileChecksum> {NO_CHECKSUM} </BmapFileChecksum>\n\
         \x20   <BlockMap>\n",
        image.length,
        image.length.div_ceil(BLOCK),
    );
    for (range, hash) in ranges {
        let (first, last) = (range.start / BLOCK, (range.end - 1) / BLOCK);
        let blocks = if first == last { first.to_string() } else { format!("{first}-{last}") };
        let hash = hex::encode(hash);
        let _ = writeln!(text, "        <Range chksum=\"{hash}\"> {blocks} </Range>");
    }
    text.push_str("    </BlockMap>\n</bmap>\n");
    text
}

#[cfg(test)]
mod tests {
    use std::fs;

    use expect_test::expect;

    use super::*;
    use crate::image::foreign;
    use crate::image::sparse::Sparse;
    use crate::image::zstd::{self, Compression};

    fn sample(directory: &Path) -> SparseImage {
        let mut image = Sparse::create(&directory.join("disk.img"), (40 << 20) + 100).unwrap();
        image.write_at(0, b"first").unwrap();
        image.write_at(5 * BLOCK, &[7; 3 * BLOCK as usize]).unwrap();
        image.write_at(30 << 20, &vec![9; 3 << 20]).unwrap();
        image.write_at(40 << 20, &[1; 100]).unwrap();
        image.finish().unwrap()
    }

    #[test]
    fn the_map_of_an_image_is_this() {
        let directory = tempfile::tempdir().unwrap();
        let map = text(&sample(directory.path())).unwrap();
        let digest = hex::encode(Sha256::digest(&map));
        expect!["2af5fa4d3433e8d7879280dc8bd339fc737123903b47593e28cdc649f83e63db"]
            .assert_eq(&digest);
        // Hashes are cut short so that the rest can be read.
        let is_digit = |character: char| character.is_ascii_hexdigit();
        let words = map.split_inclusive(|character| !is_digit(character)).map(|word| {
            if word.len() > 64 { format!("{}…{}", &word[..8], &word[64..]) } else { word.into() }
        });
        expect![[r#"
            <?xml version="1.0" ?>
            <bmap version="2.0">
                <ImageSize> 41943140 </ImageSize>
                <BlockSize> 4096 </BlockSize>
                <BlocksCount> 10241 </BlocksCount>
                <MappedBlocksCount> 773 </MappedBlocksCount>
                <ChecksumType> sha256 </ChecksumType>
                <BmapFileChecksum> 9f66a824… </BmapFileChecksum>
                <BlockMap>
                    <Range chksum="7050480c…"> 0 </Range>
                    <Range chksum="948302d0…"> 5-7 </Range>
                    <Range chksum="131fca71…"> 7680-8191 </Range>
                    <Range chksum="3bd3b5de…"> 8192-8447 </Range>
                    <Range chksum="80f93e8c…"> 10240 </Range>
                </BlockMap>
            </bmap>
        "#]]
        .assert_eq(&words.collect::<String>());
    }

    #[test]
    fn the_maps_own_hash_is_that_of_the_map_without_it() {
        let directory = tempfile::tempdir().unwrap();
        let text = text(&sample(directory.path())).unwrap();
        let start = text.find("<BmapFileChecksum> ").unwrap() + "<BmapFileChecksum> ".len();
        let mut without = text.clone();
        without.replace_range(start..start + 64, NO_CHECKSUM);
        assert_eq!(text[start..start + 64], hex::encode(Sha256::digest(without)));
    }

    #[test]
    fn an_image_without_data_has_a_map_without_ranges() {
        let directory = tempfile::tempdir().unwrap();
        let image = Sparse::create(&directory.path().join("i"), 8192).unwrap().finish().unwrap();
        let text = text(&image).unwrap();
        assert!(text.contains("<MappedBlocksCount> 0 <") && !text.contains("<Range"), "{text}");
    }

    #[test]
    fn bmaptool_copies_by_the_map_and_finds_a_flipped_byte() {
        let Some(bmaptool) = foreign::tool("bmaptool") else { return };
        let directory = tempfile::tempdir().unwrap();
        let image = sample(directory.path());
        let name = |file: &str| directory.path().join(file).to_str().unwrap().to_owned();
        let (map, packed, copy) = (name("disk.img.bmap"), name("disk.img.zst"), name("copy"));
        write(&image, Path::new(&map)).unwrap();
        zstd::compress(&image, Path::new(&packed), Compression::FAST, |_| {}).unwrap();
        let plain = image.path.to_str().unwrap();
        // bmaptool leaves unpacking to the program zstd.
        let sources = if foreign::is_in_path("zstd") { vec![plain, &packed] } else { vec![plain] };
        for source in sources {
            bmaptool.run(&["copy", "--bmap", &map, source, &copy]);
            assert!(fs::read(&copy).unwrap() == fs::read(&image.path).unwrap());
            fs::remove_file(&copy).unwrap();
        }

        let damaged = fs::OpenOptions::new().write(true).open(&image.path).unwrap();
        damaged.write_all_at(b"F", 0).unwrap();
        let output = bmaptool.start(&["copy", "--bmap", &map, plain, &copy], &[]);
        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains("checksum"), "{output:?}");
    }
}
