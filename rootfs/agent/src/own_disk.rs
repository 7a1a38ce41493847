//! The disk this system was started from: found by the id that the loader passed on, never by the
//! names of partitions, so that another disk with the same product is not written.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use ondisk::boot_args::{BootArgs, DiskId};
use ondisk::device::{FileDevice, ReadAt, WriteAt, is_disk_name};
use ondisk::gpt::Table;
use rustix::fs::{Advice, fadvise};

use crate::apply::Place;

/// Where the kernel shows its devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Devices {
    /// `/sys/class/block`
    pub block: PathBuf,
    /// `/dev`
    pub nodes: PathBuf,
}

impl Default for Devices {
    fn default() -> Self {
        Self { block: "/sys/class/block".into(), nodes: "/dev".into() }
    }
}

impl Devices {
    /// Names of whole disks, sorted.
    pub fn disks(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.block).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .filter(|entry| !entry.path().join("partition").exists())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| is_disk_name(name))
            .collect();
        names.sort();
        names
    }

    /// Names of the partitions of a disk, sorted; of one without a table, the disk itself.
    pub fn volumes(&self, disk: &str) -> Vec<String> {
        let entries = fs::read_dir(self.block.join(disk)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .filter(|entry| entry.path().join("partition").exists())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        if names.is_empty() { vec![disk.to_owned()] } else { names }
    }

    /// The name of the disk with this id, and its partition table.
    pub fn find(&self, id: DiskId) -> Result<(String, Table), String> {
        let DiskId::Gpt(guid) = id else {
            return Err(format!("disk {id}: this program knows GPT only"));
        };
        let own = self.disks().into_iter().find_map(|name| {
            let table = self.table(&name)?;
            (table.disk == guid).then_some((name, table))
        });
        own.ok_or_else(|| format!("the disk {id} that this system was started from is gone"))
    }

    fn table(&self, name: &str) -> Option<Table> {
        let file = File::open(self.nodes.join(name)).ok()?;
        let block_bytes =
            fs::read_to_string(self.block.join(name).join("queue/logical_block_size"))
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or(512);
        Table::read(&FileDevice::new(file).ok()?, block_bytes).ok()
    }
}

/// The own disk, open, and where its parts are.
#[derive(Debug)]
pub struct OwnDisk {
    /// Its bytes.
    pub device: Uncached,
    /// Its parts.
    pub place: Place,
    /// The kernel's name of it.
    pub name: String,
}

impl OwnDisk {
    /// Opens the disk that the loader named, to read it.
    pub fn open(devices: &Devices, boot: &BootArgs) -> Result<Self, String> {
        Self::open_with(devices, boot, File::options().read(true))
    }

    /// Opens the disk that the loader named, to write to it as well.
    pub fn open_to_write(devices: &Devices, boot: &BootArgs) -> Result<Self, String> {
        Self::open_with(devices, boot, File::options().read(true).write(true))
    }

    fn open_with(
        devices: &Devices,
        boot: &BootArgs,
        options: &fs::OpenOptions,
    ) -> Result<Self, String> {
        let (name, table) = devices.find(boot.disk)?;
        let place = Place::find(&table, boot.slot).map_err(|error| format!("{name}: {error}"))?;
        let path = devices.nodes.join(&name);
        let device = options.open(&path).and_then(Uncached::new);
        let device = device.map_err(|error| format!("cannot open {}: {error}", path.display()))?;
        Ok(Self { device, place, name })
    }
}

/// A disk whose flush also forgets what the kernel keeps of it in memory, so that what is read
/// after a flush comes from the disk.
#[derive(Debug)]
pub struct Uncached {
    device: FileDevice,
    /// The same file: to tell the kernel to forget.
    file: File,
}

impl Uncached {
    /// Takes an open file or block device.
    pub fn new(file: File) -> io::Result<Self> {
        let device = FileDevice::new(file.try_clone()?)?;
        Ok(Self { device, file })
    }
}

impl ReadAt for Uncached {
    type Error = io::Error;
    fn size(&self) -> u64 {
        self.device.size()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.device.read_at(offset, buffer)
    }
}

impl WriteAt for Uncached {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.device.write_at(offset, bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.device.flush()?;
        Ok(fadvise(&self.file, 0, None, Advice::DontNeed)?)
    }
}

/// Held while a program may write the record or a slot.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "the lock ends with the open file")] File);

impl Lock {
    /// Takes the lock, or says that another program has it.
    pub fn take(path: &Path) -> Result<Self, String> {
        let failed = |error: io::Error| format!("cannot lock {}: {error}", path.display());
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(failed)?;
        }
        let options = File::options().write(true).create(true).truncate(false).open(path);
        let file = options.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => {
                Err("another `iota` is changing this system\nhint: wait until it has ended"
                    .to_owned())
            }
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}
