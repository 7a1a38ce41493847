//! Disk images under test: sparse copies, what lies where, and faults put into them.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use builder::image::erofs::{Image, ImageSource, Storage};
use builder::image::sparse::{Sparse, SparseImage};
use builder::tree::TreePath;
use ondisk::boot_record::{self, Copies, Entry, Reason, Record, State};
use ondisk::device::FileDevice;
use ondisk::digest::Digest;
use ondisk::gpt::Table;
use ondisk::layout::{self, Extent, SECTOR_BYTES, Slot};
use ondisk::manifest::{Fields, PartName, Unverified};

/// A disk image that a test may change; removed when it is dropped.
pub struct Disk {
    path: PathBuf,
    file: File,
    table: Table,
}

impl Disk {
    /// A copy of an image that takes no more room than its data.
    pub fn copy_of(image: &Path, name: &str) -> Self {
        let directory = crate::scratch().join("disks");
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join(format!("{name}.img"));
        let source = SparseImage::open(image).unwrap();
        let mut copy = Sparse::create(&path, source.length).unwrap();
        copy.copy_image(&source, 0).unwrap();
        copy.finish().unwrap();
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let table = Table::read(&device(&file), SECTOR_BYTES).unwrap();
        Self { path, file, table }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The partitions.
    pub fn table(&self) -> &Table {
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
        extent.slice(layout::manifest_area(extent.length).unwrap()).unwrap()
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
        let partition = self.table.record().unwrap().extent;
        Copies::read(&device(&self.file), partition).newest().cloned().unwrap()
    }

    fn change_record(&self, change: impl FnOnce(&mut Record)) {
        let partition = self.table.record().unwrap().extent;
        let mut device = device(&self.file);
        let mut record = self.record();
        change(&mut record);
        for copy in [boot_record::Copy::First, boot_record::Copy::Second] {
            boot_record::write(&mut device, partition, copy, &record).unwrap();
        }
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
        let partition = self.table.record().unwrap().extent;
        for offset in layout::RECORD_OFFSETS {
            self.file.write_all_at(&[0xa5; 512], partition.offset + offset).unwrap();
        }
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
