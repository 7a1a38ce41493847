//! Disk images under test: sparse copies, what lies where, and faults put into them.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use builder::cli::Cli;
use builder::flash::block_map::BlockMap;
use builder::image::erofs::{Image, ImageSource, Storage};
use builder::image::sparse::{Sparse, SparseImage, is_zero};
use builder::tree::TreePath;
use clap::Parser as _;
use ondisk::boot_record::{self, Copies, Entry, Reason, Record, State};
use ondisk::device::{FileDevice, ReadAt};
use ondisk::digest::Digest;
use ondisk::layout::{self, Extent, SECTOR_BYTES, Slot};
use ondisk::manifest::{Fields, PartName, Unverified};
use ondisk::partition_table::PartitionTable;

/// A disk image that a test may change; removed when it is dropped.
pub struct Disk {
    path: PathBuf,
    file: File,
    table: PartitionTable,
}

impl Disk {
    /// A copy of an image that takes no more room than its data.
    pub fn copy_of(image: &Path, name: &str) -> Self {
        let path = Self::place(name);
        let source = SparseImage::open(image).unwrap();
        let mut copy = Sparse::create(&path, source.length).unwrap();
        copy.copy_image(&source, 0).unwrap();
        copy.finish().unwrap();
        Self::open(path)
    }

    /// A disk with the contents of any device.
    pub fn with_contents_of(source: &impl ReadAt, name: &str) -> Self {
        let path = Self::place(name);
        let mut image = Sparse::create(&path, source.size()).unwrap();
        let mut piece = vec![0; 1 << 20];
        for offset in (0..source.size()).step_by(piece.len()) {
            let rest = usize::try_from(source.size() - offset).unwrap_or(usize::MAX);
            let piece = &mut piece[..rest.min(1 << 20)];
            source.read_at(offset, piece).unwrap();
            if !is_zero(piece) {
                image.write_at(offset, piece).unwrap();
            }
        }
        image.finish().unwrap();
        Self::open(path)
    }

    /// A card that was in use before, with the outputs of a build flashed onto it by `iota flash`.
    /// All that the block map leaves out holds old data.
    pub fn flashed(outputs: &Path, name: &str) -> Self {
        Self::flashed_by(outputs, name, &[])
    }

    /// The same, with an `iota.toml` in its boot partition.
    pub fn flashed_with_config(outputs: &Path, name: &str, config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kiosk.toml");
        std::fs::write(&path, config).unwrap();
        let disk = Self::flashed_by(outputs, name, &["--config".as_ref(), path.as_os_str()]);
        let boot = disk.table.boot().unwrap().extent;
        let found = builder::image::fat_reader::read_file(&disk.path, boot, "iota.toml");
        assert_eq!(found.unwrap_or_else(|error| panic!("{}", error.chain())), config.as_bytes());
        disk
    }

    fn flashed_by(outputs: &Path, name: &str, options: &[&OsStr]) -> Self {
        let path = Self::place(name);
        // One that failed before is as large as that test made it.
        let _ = std::fs::remove_file(&path);
        let (image, map) = (outputs.join("disk.img.zst"), outputs.join("disk.img.bmap"));
        let words = ["iota", "--quiet", "flash", "--device"].map(OsStr::new);
        let command = words.into_iter().chain([path.as_os_str(), image.as_os_str()]);
        let command = command.chain(options.iter().copied());
        let code = builder::verbs::main(Cli::try_parse_from(command).unwrap());
        assert_eq!(code, ExitCode::SUCCESS, "{} was not flashed", image.display());

        let map = BlockMap::parse(&std::fs::read_to_string(map).unwrap()).unwrap();
        // A config may lie in a cluster that the image's own map leaves out.
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let table = PartitionTable::read(&device(&file), SECTOR_BYTES).unwrap();
        let boot = table.boot().unwrap().extent;
        let mut config = vec![0; usize::try_from(boot.length).unwrap()];
        file.read_exact_at(&mut config, boot.offset).unwrap();
        let mut free_from = 0;
        for stretch in &map.stretches {
            fill(&file, free_from..stretch.range.start);
            free_from = stretch.range.end;
        }
        fill(&file, free_from..map.image_bytes);
        for (number, block) in config.chunks(4096).enumerate() {
            if !options.is_empty() && !is_zero(block) {
                file.write_all_at(block, boot.offset + number as u64 * 4096).unwrap();
            }
        }
        Self::open(path)
    }

    fn place(name: &str) -> PathBuf {
        let directory = crate::scratch().join("disks");
        std::fs::create_dir_all(&directory).unwrap();
        directory.join(format!("{name}.img"))
    }

    fn open(path: PathBuf) -> Self {
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let table = PartitionTable::read(&device(&file), SECTOR_BYTES).unwrap();
        Self { path, file, table }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the disk larger, as the card is that an image was put on; old data is there.
    pub fn enlarge(&self, bytes: u64) {
        let old = self.file.metadata().unwrap().len();
        self.file.set_len(old + bytes).unwrap();
        fill(&self.file, old..old + (1 << 20));
        fill(&self.file, old + bytes - (1 << 20)..old + bytes);
    }

    /// Looks at the partitions again.
    pub fn read_table(&mut self) {
        self.table = PartitionTable::read(&device(&self.file), SECTOR_BYTES).unwrap();
    }

    /// The partitions.
    pub fn table(&self) -> &PartitionTable {
        &self.table
    }

    /// Copies a part of the disk into a file of its own.
    pub fn extract(&self, extent: Extent, name: &str) -> PathBuf {
        let path = self.path.with_extension(name);
        let mut file = Sparse::create(&path, extent.length).unwrap();
        for piece in self.pieces(extent) {
            file.write_at(piece.offset - extent.offset, &self.bytes(piece)).unwrap();
        }
        file.finish().unwrap();
        path
    }

    /// Bytes of the disk.
    pub fn bytes(&self, extent: Extent) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(extent.length).unwrap()];
        self.file.read_exact_at(&mut bytes, extent.offset).unwrap();
        bytes
    }

    /// A digest for each piece of a partition: equal before and after means that nobody wrote
    /// there.
    pub fn digests(&self, extent: Extent) -> Vec<Digest> {
        self.pieces(extent).map(|piece| Digest::of(&self.bytes(piece))).collect()
    }

    /// Digests of what nothing may write to while a system runs: boot partition, record, slots.
    pub fn system_digests(&self) -> [Vec<Digest>; 4] {
        let extents = [
            self.table.boot().unwrap().extent,
            self.table.record().unwrap(),
            self.slot(Slot::A),
            self.slot(Slot::B),
        ];
        extents.map(|extent| self.digests(extent))
    }

    fn pieces(&self, extent: Extent) -> impl Iterator<Item = Extent> {
        let end = extent.end().unwrap();
        let starts = (extent.offset..end).step_by(1 << 20);
        starts.map(move |offset| Extent { offset, length: (end - offset).min(1 << 20) })
    }

    /// The manifest of a slot, which these tests trust: they check what the loader makes of it.
    pub fn manifest(&self, slot: Slot) -> Fields {
        let area = self.bytes(self.manifest_area(slot));
        Unverified::parse(&area).unwrap().fields_unverified().unwrap()
    }

    /// The partition of a slot.
    pub fn slot(&self, slot: Slot) -> Extent {
        self.table.slot(slot).unwrap().extent
    }

    fn manifest_area(&self, slot: Slot) -> Extent {
        let extent = self.slot(slot);
        layout::manifest_area_of(extent).unwrap()
    }

    /// Fills slot B with what is in slot A and gives it a proven entry of lower priority.
    pub fn mirror_slot_a_into_b(&self) {
        let (a, b) = (self.slot(Slot::A), self.slot(Slot::B));
        assert_eq!(a.length, b.length);
        for piece in self.pieces(a) {
            let bytes = self.bytes(piece);
            if bytes.iter().any(|byte| *byte != 0) {
                let target = b.offset + (piece.offset - a.offset);
                self.file.write_all_at(&bytes, target).unwrap();
            }
        }
        self.change_record(|record| {
            let entry = record.slots.a;
            record.slots.b = Entry { priority: entry.priority - 1, ..entry };
        });
    }

    /// The boot record that counts.
    pub fn record(&self) -> Record {
        let record = self.table.record().unwrap();
        Copies::read(&device(&self.file), record).newest().cloned().unwrap()
    }

    fn change_record(&self, change: impl FnOnce(&mut Record)) {
        let place = self.table.record().unwrap();
        let mut device = device(&self.file);
        let mut record = self.record();
        change(&mut record);
        for copy in [boot_record::Copy::First, boot_record::Copy::Second] {
            boot_record::write(&mut device, place, copy, &record).unwrap();
        }
    }

    /// Puts other bytes in place of these, which are in the boot partition once, as an editor does
    /// that writes where the file is.
    pub fn replace_in_boot(&self, old: &[u8], new: &[u8]) {
        assert_eq!(old.len(), new.len());
        let boot = self.table.boot().unwrap().extent;
        let bytes = self.bytes(boot);
        let found = bytes.windows(old.len()).enumerate().filter(|(_, window)| *window == old);
        let places: Vec<u64> = found.map(|(at, _)| u64::try_from(at).unwrap()).collect();
        let [place] = places[..] else { panic!("{} times in the boot partition", places.len()) };
        self.file.write_all_at(new, boot.offset + place).unwrap();
    }

    /// Marks both slots bad, as a loader does that found them so.
    pub fn mark_both_slots_bad(&self) {
        self.change_record(|record| {
            for slot in Slot::BOTH {
                record.slots[slot].state = State::Bad(Reason::UNHEALTHY);
            }
        });
    }

    /// Overwrites both copies of the record with noise.
    pub fn destroy_both_records(&self) {
        let record = self.table.record().unwrap();
        for offset in layout::RECORD_OFFSETS {
            self.file.write_all_at(&[0xa5; 512], record.offset + offset).unwrap();
        }
    }

    /// Writes bytes at an offset of the disk.
    pub fn overwrite(&self, offset: u64, bytes: &[u8]) {
        self.file.write_all_at(bytes, offset).unwrap();
    }

    /// Flips one bit of the byte at an offset of the disk.
    pub fn flip(&self, offset: u64) {
        let mut byte = [0];
        self.file.read_exact_at(&mut byte, offset).unwrap();
        self.file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
    }

    /// Flips a bit in the middle of a part of a slot.
    pub fn flip_part(&self, slot: Slot, part: PartName) {
        let extent = self.manifest(slot).part(part).extent;
        self.flip(self.slot(slot).offset + extent.offset + extent.length / 2);
    }

    /// Flips a bit in the text of a slot's manifest.
    pub fn flip_manifest(&self, slot: Slot) {
        // Magic, role, lengths and counts take 24 bytes; then comes the text.
        self.flip(self.manifest_area(slot).offset + 24 + 100);
    }

    /// Flips a bit in the last byte of the first signature below a slot's manifest.
    pub fn flip_signature(&self, slot: Slot) {
        let area = self.manifest_area(slot);
        let bytes = self.bytes(area);
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        self.flip(area.offset + u64::try_from(end).unwrap() - 20);
    }

    /// Flips a bit in the data of a file of a slot's root, which has to be stored plainly or
    /// compressed, not inline.
    pub fn flip_in_file(&self, slot: Slot, path: &str) {
        let part = self.manifest(slot).root.extent;
        let offset = self.slot(slot).offset + part.offset;
        let image = Image::open(Root { file: &self.file, offset }).unwrap();
        let path = TreePath::new(path).unwrap();
        let inode = image.find(&path).unwrap().unwrap_or_else(|| panic!("no {}", path.display()));
        let extents = image.extents(&inode).unwrap();
        let stored = extents.iter().find_map(|extent| match extent.storage {
            Storage::Plain(offset) | Storage::Compressed { offset, .. } => Some(offset),
            _ => None,
        });
        self.flip(offset + stored.unwrap());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Kept after a failure, for a look at it.
        if !std::thread::panicking() {
            for entry in
                std::fs::read_dir(self.path.parent().unwrap()).into_iter().flatten().flatten()
            {
                if entry.path().file_stem() == self.path.file_stem() {
                    let _ = std::fs::remove_file(entry.path());
                }
            }
        }
    }
}

/// The root file system inside of a disk.
struct Root<'a> {
    file: &'a File,
    offset: u64,
}

impl ImageSource for Root<'_> {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> builder::error::Result<()> {
        use builder::error::Context as _;
        self.file
            .read_exact_at(bytes, self.offset + offset)
            .context(|| "cannot read the disk under test".to_owned())
    }
}

fn device(file: &File) -> FileDevice {
    FileDevice::new(file.try_clone().unwrap()).unwrap()
}

/// Writes what nobody may read.
fn fill(file: &File, range: Range<u64>) {
    let piece = vec![0xA5; 1 << 20];
    for offset in range.clone().step_by(piece.len()) {
        let rest = usize::try_from(range.end - offset).unwrap_or(usize::MAX);
        file.write_all_at(&piece[..rest.min(piece.len())], offset).unwrap();
    }
}
