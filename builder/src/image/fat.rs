//! FAT32 for the boot partition: what firmware reads to find the loader.
//!
//! Follows Microsoft's "FAT32 File System Specification" (2000) for what it writes, which is only
//! ever a fresh volume. Guarantees: the same files, volume id and label give the same bytes (all
//! times are 1980-01-01, the format's first); always FAT32, whatever the size, with clusters of
//! 512 bytes to 2 KiB; every file lies in one piece, one behind the other from the start, so that
//! free space is at the end and stays a hole in the image.
//!
//! ```text
//! boot sector · info sector · … · copies of both at 6 and 7 · … │ table │ table again │ clusters
//! cluster 2: root directory · then each directory followed by what it holds, in the order given
//! ```
//!
//! Why not crate `fatfs`: see `docs/decisions/fat-writer.md`.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::image::sparse::Sparse;
use crate::tree::Content;

#[path = "fat_names.rs"]
mod names;

/// With fewer clusters a volume is FAT16, by definition; the specification advises to stay 16 away
/// from the limit, because other programs get it wrong by a few.
const SMALLEST_CLUSTER_COUNT: u64 = 65525 + 16;
/// Largest first: a smaller file allocation table is read faster by firmware.
const CLUSTER_SIZES: [u64; 3] = [2048, 1024, 512];
const SECTOR: u64 = 512;
/// At least as many sectors lie before the first table as other formatters leave.
const RESERVED_SECTORS: u64 = 32;
/// Clusters start on a multiple of this many sectors within the volume: 4 KiB.
const DATA_ALIGNMENT: u64 = 8;
const INFO_SECTOR: u64 = 1;
const BACKUP_SECTOR: u64 = 6;
const FIRST_CLUSTER: u32 = 2;
const END_OF_CHAIN: u32 = 0x0FFF_FFFF;
/// A directory entry, short or long.
const ENTRY: usize = 32;

/// What names a volume.
#[derive(Clone, Copy, Debug)]
pub struct Volume<'a> {
    /// Shown as `1234-ABCD`; an input, so that builds are reproducible.
    pub id: u32,
    /// At most 11 capital letters, digits, spaces, `-` or `_`.
    pub label: &'a str,
}

/// A file of the volume.
#[derive(Clone, Debug)]
pub struct FatFile {
    /// Path with `/`, such as `EFI/BOOT/BOOTAA64.EFI`; directories are made as needed.
    pub path: String,
    /// Its bytes.
    pub content: Content,
}

/// Makes a FAT32 volume of a range of the image that nothing was written to, and writes the files
/// in the order given.
pub fn write(
    image: &mut Sparse,
    range: Range<u64>,
    volume: Volume<'_>,
    files: &[FatFile],
) -> Result<()> {
    let label = padded_label(volume.label)?;
    let geometry = Geometry::new(&range)?;
    let mut root = names::Directory::default();
    for file in files {
        root.add(&file.path, &file.content)?;
    }
    let mut writer = Writer { image, geometry, table: vec![0x0FFF_FFF8, END_OF_CHAIN] };
    // The label's own entry, then the files'.
    let mut label_entry = short_entry(&label, ATTRIBUTE_LABEL, 0, 0);
    label_entry[22..26].copy_from_slice(&[0, 0, FIRST_DAY[0], FIRST_DAY[1]]);
    writer.write_directory(&root, label_entry.to_vec(), None)?;
    writer.write_tables()?;
    writer.write_boot_sectors(volume.id, &label)
}

/// Where things lie in the volume, in sectors unless named otherwise.
#[derive(Clone, Copy, Debug)]
struct Geometry {
    start_bytes: u64,
    sectors: u64,
    cluster_sectors: u64,
    reserved: u64,
    table_sectors: u64,
    clusters: u64,
}

impl Geometry {
    fn new(range: &Range<u64>) -> Result<Self> {
        let length = range.end.saturating_sub(range.start);
        let sectors = length / SECTOR;
        let whole = length.is_multiple_of(SECTOR) && range.start.is_multiple_of(SECTOR);
        let addressable = u32::try_from(range.end / SECTOR).is_ok();
        let choices = CLUSTER_SIZES.into_iter().map(|size| Self::with(range, sectors, size));
        let mut choices = choices.filter(|found| found.clusters >= SMALLEST_CLUSTER_COUNT);
        choices.next().filter(|_| whole && addressable).ok_or_else(|| {
            Error::new(format!(
                "boot partition: {length} bytes at {} cannot be a FAT32 volume \
                 (whole sectors, 33 MiB or more, within the first 2 TiB)",
                range.start
            ))
            .hint("set `layout.boot` of the board to 64 MiB")
        })
    }

    fn with(range: &Range<u64>, sectors: u64, cluster_bytes: u64) -> Self {
        let cluster_sectors = cluster_bytes / SECTOR;
        // Generous by a few entries: as if the tables took no room.
        let most = sectors.saturating_sub(RESERVED_SECTORS) / cluster_sectors;
        let table_sectors = ((most + u64::from(FIRST_CLUSTER)) * 4).div_ceil(SECTOR);
        let data = (RESERVED_SECTORS + 2 * table_sectors).next_multiple_of(DATA_ALIGNMENT);
        Self {
            start_bytes: range.start,
            sectors,
            cluster_sectors,
            reserved: data - 2 * table_sectors,
            table_sectors,
            clusters: sectors.saturating_sub(data) / cluster_sectors,
        }
    }

    fn cluster_bytes(&self) -> u64 {
        self.cluster_sectors * SECTOR
    }

    fn offset_of_cluster(&self, cluster: u32) -> u64 {
        let data = self.reserved + 2 * self.table_sectors;
        let index = u64::from(cluster - FIRST_CLUSTER);
        self.start_bytes + (data + index * self.cluster_sectors) * SECTOR
    }
}

struct Writer<'a> {
    image: &'a mut Sparse,
    geometry: Geometry,
    /// The allocation table as far as clusters are in use.
    table: Vec<u32>,
}

impl Writer<'_> {
    fn used(&self) -> u64 {
        self.table.len() as u64 - u64::from(FIRST_CLUSTER)
    }

    /// The next free clusters in one piece; 0 for nothing, as the format has it.
    fn allocate(&mut self, bytes: u64, path: &str) -> Result<u32> {
        let count = bytes.div_ceil(self.geometry.cluster_bytes());
        let free = self.geometry.clusters - self.used();
        if count > free {
            let (free, all) =
                (free * self.geometry.cluster_bytes(), self.geometry.sectors * SECTOR);
            return Err(Error::new(format!(
                "boot partition: {path} has {bytes} bytes, {free} of {all} are free"
            ))
            .hint("raise `layout.boot` of the board"));
        }
        if count == 0 {
            return Ok(0);
        }
        let first = self.table.len() as u32;
        // Bounded by the number of sectors, which is below 2^32.
        self.table.extend((1..count as u32).map(|next| first + next));
        self.table.push(END_OF_CHAIN);
        Ok(first)
    }

    /// Writes a directory whose first entries are given, and all it holds; returns its cluster.
    fn write_directory(
        &mut self,
        directory: &names::Directory<'_>,
        first_entries: Vec<u8>,
        parent: Option<u32>,
    ) -> Result<u32> {
        let dots = if parent.is_some() { 2 * ENTRY } else { 0 };
        let length = dots + first_entries.len() + directory.entries_length();
        let own = self.allocate(length.max(1) as u64, "a directory")?;
        let mut bytes = Vec::with_capacity(length);
        if let Some(parent) = parent {
            bytes.extend(short_entry(b".          ", ATTRIBUTE_DIRECTORY, own, 0));
            bytes.extend(short_entry(b"..         ", ATTRIBUTE_DIRECTORY, parent, 0));
        }
        bytes.extend(first_entries);
        // The root directory is called 0 by what lies in it.
        let as_parent = parent.map_or(0, |_| own);
        for item in directory.items() {
            let (attributes, cluster, size) = match &item.what {
                names::What::Directory(inner) => {
                    let cluster = self.write_directory(inner, Vec::new(), Some(as_parent))?;
                    (ATTRIBUTE_DIRECTORY, cluster, 0)
                }
                names::What::File { content, path } => {
                    let (cluster, size) = self.write_file(content, path)?;
                    (ATTRIBUTE_ARCHIVE, cluster, size)
                }
            };
            bytes.extend(item.long_entries());
            bytes.extend(short_entry(&item.short, attributes, cluster, size));
        }
        self.write(self.geometry.offset_of_cluster(own), &bytes)?;
        Ok(own)
    }

    fn write_file(&mut self, content: &Content, path: &str) -> Result<(u32, u32)> {
        let Ok(size) = u32::try_from(content.length()) else {
            return Err(Error::new(format!("boot partition: {path} has 4 GiB or more")));
        };
        let cluster = self.allocate(content.length(), path)?;
        if size > 0 {
            self.write(self.geometry.offset_of_cluster(cluster), &content.read()?)?;
        }
        Ok((cluster, size))
    }

    fn write_tables(&mut self) -> Result<()> {
        let bytes: Vec<u8> = self.table.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        for copy in 0..2 {
            let sector = self.geometry.reserved + copy * self.geometry.table_sectors;
            let start = self.geometry.start_bytes + sector * SECTOR;
            self.write(start, &bytes)?;
            // An entry of zero is a free cluster: with noise in its place, none would be free.
            self.image.keep_zeros(start..start + self.geometry.table_sectors * SECTOR)?;
        }
        Ok(())
    }

    /// Writes bytes that somebody reads, zeros among them too: on a card that was in use before,
    /// U-Boot's settings and the firmware's programs would have old data in their middle.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.image.write_at(offset, bytes)?;
        self.image.keep_zeros(offset..offset + bytes.len() as u64)
    }

    fn write_boot_sectors(&mut self, id: u32, label: &[u8; 11]) -> Result<()> {
        let boot = boot_sector(&self.geometry, id, label);
        let free = self.geometry.clusters - self.used();
        let info = info_sector(free as u32, self.table.len() as u32);
        for (sector, bytes) in [
            (0, &boot),
            (INFO_SECTOR, &info),
            (BACKUP_SECTOR, &boot),
            (BACKUP_SECTOR + INFO_SECTOR, &info),
        ] {
            self.write(self.geometry.start_bytes + sector * SECTOR, bytes)?;
        }
        Ok(())
    }
}

/// Bytes put at their offsets, as the specification's tables list them.
fn sector(fields: &[(usize, &[u8])]) -> [u8; SECTOR as usize] {
    let mut sector = [0; SECTOR as usize];
    for (offset, bytes) in fields {
        sector[*offset..*offset + bytes.len()].copy_from_slice(bytes);
    }
    sector
}

fn boot_sector(geometry: &Geometry, id: u32, label: &[u8; 11]) -> [u8; SECTOR as usize] {
    let word = |value: u64| (value as u16).to_le_bytes();
    let long = |value: u64| (value as u32).to_le_bytes();
    sector(&[
        (0, &[0xEB, 0x58, 0x90]),
        // Some programs take no other name for a volume of theirs; the specification says so.
        (3, b"MSWIN4.1"),
        (11, &word(SECTOR)),
        (13, &[geometry.cluster_sectors as u8]),
        (14, &word(geometry.reserved)),
        (16, &[2]),
        (21, &[0xF8]),
        // Sectors per track and heads: what every formatter says of a disk that has neither.
        (24, &word(63)),
        (26, &word(255)),
        (28, &long(geometry.start_bytes / SECTOR)),
        (32, &long(geometry.sectors)),
        (36, &long(geometry.table_sectors)),
        (44, &long(u64::from(FIRST_CLUSTER))),
        (48, &word(INFO_SECTOR)),
        (50, &word(BACKUP_SECTOR)),
        (64, &[0x80]),
        (66, &[0x29]),
        (67, &id.to_le_bytes()),
        (71, label),
        (82, b"FAT32   "),
        (510, &[0x55, 0xAA]),
    ])
}

fn info_sector(free_clusters: u32, next_free: u32) -> [u8; SECTOR as usize] {
    sector(&[
        (0, b"RRaA"),
        (484, b"rrAa"),
        (488, &free_clusters.to_le_bytes()),
        (492, &next_free.to_le_bytes()),
        (510, &[0x55, 0xAA]),
    ])
}

const ATTRIBUTE_LABEL: u8 = 0x08;
const ATTRIBUTE_DIRECTORY: u8 = 0x10;
const ATTRIBUTE_ARCHIVE: u8 = 0x20;
/// 1980-01-01: year 0, month 1, day 1.
const FIRST_DAY: [u8; 2] = [0x21, 0x00];

fn short_entry(name: &[u8; 11], attributes: u8, cluster: u32, size: u32) -> [u8; ENTRY] {
    let cluster = cluster.to_le_bytes();
    let mut entry = [0; ENTRY];
    entry[..11].copy_from_slice(name);
    entry[11] = attributes;
    // Created, read, written: times of day are 0.
    for date in [16, 18, 24] {
        entry[date..date + 2].copy_from_slice(&FIRST_DAY);
    }
    entry[20..22].copy_from_slice(&cluster[2..]);
    entry[26..28].copy_from_slice(&cluster[..2]);
    entry[28..].copy_from_slice(&size.to_le_bytes());
    entry
}

fn padded_label(label: &str) -> Result<[u8; 11]> {
    let allowed =
        |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b" -_".contains(&byte);
    let mut padded = [b' '; 11];
    match padded.get_mut(..label.len()) {
        Some(start) if !label.trim().is_empty() && label.bytes().all(allowed) => {
            start.copy_from_slice(label.as_bytes());
            Ok(padded)
        }
        _ => Err(Error::new(format!(
            "boot partition: `{label}` cannot be a FAT label \
             (1 to 11 capital letters, digits, spaces, `-` or `_`)"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;

    use expect_test::expect;
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::hex;
    use crate::image::foreign;

    const MIB: u64 = 1 << 20;
    const VOLUME: Volume<'_> = Volume { id: 0x1234_abcd, label: "BOOT" };

    fn file(path: &str, bytes: Vec<u8>) -> FatFile {
        FatFile { path: path.into(), content: Content::bytes(bytes) }
    }

    fn sample() -> Vec<FatFile> {
        let loader: Vec<u8> = (0..700_001_u32).map(|number| (number % 251) as u8).collect();
        vec![
            file("EFI/BOOT/BOOTAA64.EFI", loader),
            file("iota.toml", b"name = \"box\"\n".to_vec()),
            file("overlays/a rather long name.dtbo", vec![7; 513]),
            file("empty", Vec::new()),
        ]
    }

    fn on_disk(length: u64, volume: Volume<'_>, files: &[FatFile]) -> Result<tempfile::TempDir> {
        let directory = tempfile::tempdir().unwrap();
        let mut image = Sparse::create(&directory.path().join("fat.img"), length)?;
        write(&mut image, 0..length, volume, files)?;
        image.finish()?;
        Ok(directory)
    }

    fn make(length: u64, volume: Volume<'_>, files: &[FatFile]) -> Result<Vec<u8>> {
        let directory = on_disk(length, volume, files)?;
        Ok(fs::read(directory.path().join("fat.img")).unwrap())
    }

    #[test]
    fn the_same_files_give_the_same_bytes() {
        let bytes = make(64 * MIB, VOLUME, &sample()).unwrap();
        expect!["f29e0153f82b91402cac8784c65abe3a57dd073cef70cc881a807517c9f67988"]
            .assert_eq(&hex::encode(Sha256::digest(bytes)));
    }

    #[test]
    fn what_was_written_is_read_back() {
        let disk = std::io::Cursor::new(make(64 * MIB, VOLUME, &sample()).unwrap());
        let fat = fatfs::FileSystem::new(disk, fatfs::FsOptions::new()).unwrap();
        assert_eq!(fat.fat_type(), fatfs::FatType::Fat32);
        assert_eq!((fat.volume_id(), fat.volume_label()), (0x1234_abcd, "BOOT".into()));
        for file in sample() {
            let mut bytes = Vec::new();
            fat.root_dir().open_file(&file.path).unwrap().read_to_end(&mut bytes).unwrap();
            assert!(bytes == *file.content.read().unwrap(), "{}", file.path);
        }
    }

    #[test]
    fn a_card_that_held_other_data_where_nothing_is_mapped_reads_the_same() {
        let mut settings = vec![0; 40_000];
        settings[20_000] = 1;
        let files = [sample(), vec![file("uboot.env", settings)]].concat();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fat.img");
        let mut image = Sparse::create(&path, 64 * MIB).unwrap();
        write(&mut image, 0..64 * MIB, VOLUME, &files).unwrap();
        let image = image.finish().unwrap();
        let mut card = vec![0xA5; 64 * MIB as usize];
        let bytes = fs::read(&path).unwrap();
        for range in image.mapped.iter() {
            let range = range.start as usize..range.end as usize;
            card[range.clone()].copy_from_slice(&bytes[range]);
        }

        let card = fatfs::FileSystem::new(std::io::Cursor::new(card), fatfs::FsOptions::new());
        let card = card.unwrap();
        for file in files {
            let mut bytes = Vec::new();
            card.root_dir().open_file(&file.path).unwrap().read_to_end(&mut bytes).unwrap();
            assert!(bytes == *file.content.read().unwrap(), "{}", file.path);
        }
        assert_eq!(card.root_dir().iter().count(), 5);
    }

    #[test]
    fn free_space_is_a_hole_at_the_end() {
        let bytes = make(64 * MIB, VOLUME, &sample()).unwrap();
        let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        // Two tables of 4 bytes for each 512, then the files.
        assert!(last < 2 * MIB as usize, "{last}");
    }

    #[test]
    fn fsck_and_mtools_accept_every_cluster_size() {
        for (length, cluster) in [(64 * MIB, 512), (128 * MIB, 1024), (256 * MIB, 2048)] {
            assert_eq!(Geometry::new(&(0..length)).unwrap().cluster_bytes(), cluster);
            let directory = on_disk(length, VOLUME, &sample()).unwrap();
            let file = directory.path().join("fat.img");
            let name = file.to_str().unwrap();
            if let Some(fsck) = foreign::tool("fsck.vfat") {
                let text = fsck.run(&["-n", "-v", name]);
                assert!(text.contains("2 FATs, 32 bit entries"), "{text}");
                assert!(text.contains(&format!("{cluster} bytes per cluster")), "{text}");
            }
            if let Some(mtools) = foreign::tool("mtools") {
                // Through the one program that is all of mtools, so that one name is looked up.
                let list = mtools.run(&["-c", "mdir", "-i", name, "-b", "-/", "::"]);
                for file in sample() {
                    assert!(list.contains(&format!("::/{}\n", file.path)), "{list}");
                }
                let loader = mtools.run(&["-c", "mtype", "-i", name, "::/iota.toml"]);
                assert_eq!(loader, "name = \"box\"\n");
            }
        }
    }

    #[test]
    fn a_file_that_does_not_fit_is_refused_with_sizes() {
        let files = [file("big", vec![1; 64 * MIB as usize])];
        let error = make(64 * MIB, VOLUME, &files).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("boot partition: big has 67108864 bytes, "), "{text}");
        assert!(error.next_step().is_some());
    }

    #[test]
    fn sizes_and_labels_that_firmware_would_not_read_are_refused() {
        for length in [0, 16 * MIB, 64 * MIB + 1] {
            assert!(make(length, VOLUME, &[]).is_err(), "{length}");
        }
        for label in ["", "boot", "TWELVE CHARS", "A/B"] {
            assert!(make(64 * MIB, Volume { id: 1, label }, &[]).is_err(), "{label}");
        }
    }
}
