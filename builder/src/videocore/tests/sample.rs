//! Small cards with made-up files that carry what the checks look for.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use ondisk::device::FileDevice;

use crate::error::Result;
use crate::image::fat::{self, FatFile};
use crate::image::sparse::Sparse;
use crate::tree::Content;
use crate::videocore::model::Family;

pub(super) const MIB: u64 = 1 << 20;
pub(super) const BOOT_START: u64 = 16 * MIB;
const BOOT_BYTES: u64 = 40 * MIB;

/// A card to be written; everything in it can be changed before.
#[derive(Clone)]
pub(super) struct Sample {
    /// Type, start and length of up to four partitions.
    pub partitions: Vec<(u8, u64, u64)>,
    /// Files of the boot partition.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Where the boot partition is.
    pub boot: std::ops::Range<u64>,
    /// Another formatter's geometry: FAT type and bytes of a cluster.
    pub format: Option<(fatfs::FatType, u32)>,
    /// Bytes written over all else.
    pub patches: Vec<(u64, Vec<u8>)>,
}

pub(super) fn pi3() -> Sample {
    let config = "# Pi 3\narm_64bit=1\nenable_uart=1\nupstream_kernel=1\nkernel=u-boot.bin\n";
    sample(Family::Bcm2837, config, &["bootcode.bin", "start.elf", "fixup.dat"])
}

pub(super) fn pi4() -> Sample {
    let config = "enable_uart=1\nupstream_kernel=1\nkernel=u-boot.bin\n[pi4]\ngpu_mem=32\n";
    sample(Family::Bcm2711, config, &["start4.elf", "fixup4.dat"])
}

fn sample(family: Family, config: &str, firmware: &[&str]) -> Sample {
    let mut files = BTreeMap::from([
        ("config.txt".to_owned(), config.as_bytes().to_vec()),
        ("u-boot.bin".to_owned(), vec![0x14; 9000]),
        ("uboot.env".to_owned(), environment("bootcmd=bootflow scan\0bootdelay=-2\0")),
        ("EFI/BOOT/BOOTAA64.EFI".to_owned(), program(0xAA64)),
        ("iota.toml".to_owned(), Vec::new()),
    ]);
    for name in firmware {
        let bytes = match name.split_at(3) {
            ("sta", _) => start(20_000, "Feb 11 2026"),
            ("fix", _) => fixup(20_000),
            _ => vec![1; 5000],
        };
        files.insert((*name).to_owned(), bytes);
    }
    let models = crate::videocore::model::tests::ALL.into_iter();
    for model in models.filter(|model| model.family() == family) {
        files.insert(model.device_tree().to_owned(), tree("/emmc2bus/mmc@7e340000"));
    }
    Sample {
        partitions: vec![
            (0x0C, BOOT_START, BOOT_BYTES),
            (0xDA, 64 * MIB, 32 * MIB),
            (0xDA, 96 * MIB, 32 * MIB),
            (0x83, 128 * MIB, 16 * MIB),
        ],
        files,
        boot: BOOT_START..BOOT_START + BOOT_BYTES,
        format: None,
        patches: Vec::new(),
    }
}

/// A file with what tells the build of a `start.elf`.
pub(super) fn start(length: usize, date: &str) -> Vec<u8> {
    let text = format!(
        "\x7fELF\0VC_BUILD_ID_TIME: 18:28:41\0VC_BUILD_ID_TIME: {date}\0\
         VC_BUILD_ID_VERSION: 5eed5eed (clean)\0"
    );
    let mut bytes = text.into_bytes();
    bytes.resize(length, 0);
    bytes
}

/// A file that ends as a `fixup.dat` does.
pub(super) fn fixup(start_length: u32) -> Vec<u8> {
    let sum = start_length / 2 + 1;
    let records = [7, 8, 9, sum - 24].map(|part| [&[1], &part.to_le_bytes()[..3]].concat());
    [&[0x0F; 30][..], &records.concat()].concat()
}

/// A whole `uboot.env`.
pub(super) fn environment(settings: &str) -> Vec<u8> {
    let mut bytes = settings.as_bytes().to_vec();
    bytes.resize(0x4000 - 4, 0);
    [&crc32fast::hash(&bytes).to_le_bytes()[..], &bytes].concat()
}

/// The start of a 64-bit PE program.
pub(super) fn program(machine: u16) -> Vec<u8> {
    let mut bytes = vec![0; 700];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[0x3C] = 0x80;
    bytes[0x80..0x84].copy_from_slice(b"PE\0\0");
    bytes[0x84..0x86].copy_from_slice(&machine.to_le_bytes());
    bytes[0x98..0x9A].copy_from_slice(&0x20B_u16.to_le_bytes());
    bytes
}

/// A device tree with nothing but the alias of the card.
pub(super) fn tree(card: &str) -> Vec<u8> {
    let property = DeviceTreeProperty::new("mmc0", format!("{card}\0")).unwrap();
    let mut tree = DeviceTree::new();
    let aliases = DeviceTreeNode::builder("aliases").unwrap().property(property).build();
    tree.root.add_child(aliases);
    tree.to_dtb()
}

impl Sample {
    /// Adds to or takes the place of a file.
    pub(super) fn set(&mut self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.files.insert(path.into(), bytes.into());
    }

    /// Takes a file away.
    pub(super) fn remove(&mut self, path: &str) {
        self.files.remove(path).unwrap();
    }

    /// Changes one piece of `config.txt`.
    pub(super) fn edit_config(&mut self, from: &str, to: &str) {
        let text = String::from_utf8(self.files["config.txt"].clone()).unwrap();
        assert!(text.contains(from), "{from}");
        self.set("config.txt", text.replacen(from, to, 1));
    }

    pub(super) fn write(&self) -> Result<(tempfile::TempDir, FileDevice)> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.img");
        let ends = self.partitions.iter().map(|(_, start, length)| start + length);
        let mut image = Sparse::create(&path, ends.max().unwrap())?;
        if self.format.is_none() {
            let file = |(path, bytes): (&String, &Vec<u8>)| FatFile {
                path: path.clone(),
                content: Content::bytes(bytes.clone()),
            };
            let files: Vec<FatFile> = self.files.iter().map(file).collect();
            let volume = fat::Volume { id: 1, label: "BOOT" };
            fat::write(&mut image, self.boot.clone(), volume, &files)?;
        }
        image.write_at(446, &self.table())?;
        image.finish()?;
        self.finish(&path).unwrap();
        Ok((directory, FileDevice::new(File::open(&path).unwrap()).unwrap()))
    }

    fn table(&self) -> Vec<u8> {
        let mut table = Vec::new();
        for (kind, start, length) in &self.partitions {
            table.extend([0, 0, 0, 0, *kind, 0, 0, 0]);
            table.extend(u32::try_from(start / 512).unwrap().to_le_bytes());
            table.extend(u32::try_from(length / 512).unwrap().to_le_bytes());
        }
        table.resize(64, 0);
        table.extend([0x55, 0xAA]);
        table
    }

    fn finish(&self, path: &Path) -> io::Result<()> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        if let Some((fat_type, cluster)) = self.format {
            let mut part = Part { file: &file, range: self.boot.clone(), position: 0 };
            let options = fatfs::FormatVolumeOptions::new()
                .fat_type(fat_type)
                .bytes_per_cluster(cluster)
                .total_sectors(u32::try_from((self.boot.end - self.boot.start) / 512).unwrap());
            fatfs::format_volume(&mut part, options)?;
            let volume = fatfs::FileSystem::new(part, fatfs::FsOptions::new())?;
            for (path, bytes) in &self.files {
                let mut directory = volume.root_dir();
                let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
                for parent in parents.split('/').filter(|parent| !parent.is_empty()) {
                    directory = directory.create_dir(parent)?;
                }
                directory.create_file(name)?.write_all(bytes)?;
            }
            volume.unmount()?;
        }
        self.patches.iter().try_for_each(|(offset, bytes)| file.write_all_at(bytes, *offset))
    }
}

/// A range of a file as if it were one.
struct Part<'f> {
    file: &'f File,
    range: std::ops::Range<u64>,
    position: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.range.start + self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Write for Part<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write_at(bytes, self.range.start + self.position)?;
        self.position += count as u64;
        Ok(count)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Part<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => (self.range.end - self.range.start).checked_add_signed(by),
        };
        self.position = position.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}
