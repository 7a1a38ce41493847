//! The disk this system was started from: found by the id that the loader passed on, never by the
//! names of partitions, so that another disk with the same product is not written.

use std::cell::RefCell;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use ondisk::boot_args::{BootArgs, DiskId};
use ondisk::device::{FileDevice, ReadAt, WriteAt, is_disk_name};
use ondisk::partition_table::PartitionTable;
use rustix::fs::{Advice, OFlags, fadvise, fcntl_getfl};

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

    /// What was written to a disk or partition since the start (`Documentation/block/stat.rst`: the
    /// seventh figure, in sectors of 512 bytes).
    pub fn written_bytes(&self, name: &str) -> Option<u64> {
        let text = fs::read_to_string(self.block.join(name).join("stat")).ok()?;
        text.split_ascii_whitespace().nth(6)?.parse::<u64>().ok()?.checked_mul(512)
    }

    /// The name of the partition of a disk that has this number.
    pub fn partition(&self, disk: &str, number: u32) -> Option<String> {
        let has_number = |name: &String| {
            let path = self.block.join(disk).join(name).join("partition");
            fs::read_to_string(path).is_ok_and(|text| text.trim() == number.to_string())
        };
        self.volumes(disk).into_iter().find(has_number)
    }

    /// The name of the disk with this id, and its partition table.
    pub fn find(&self, id: DiskId) -> Result<(String, PartitionTable), String> {
        let own = self.disks().into_iter().find_map(|name| {
            let table = self.table(&name)?;
            (table.disk == id).then_some((name, table))
        });
        own.ok_or_else(|| format!("the disk {id} that this system was started from is gone"))
    }

    /// Bytes of a disk or partition, as the kernel knows it.
    pub fn bytes(&self, name: &str) -> Option<u64> {
        let told = fs::read_to_string(self.block.join(name).join("size")).ok()?;
        // Whatever the disk's blocks are, sysfs counts in these.
        told.trim().parse::<u64>().ok()?.checked_mul(512)
    }

    /// Bytes of a disk's logical blocks.
    pub fn block_bytes(&self, name: &str) -> u64 {
        let told = fs::read_to_string(self.block.join(name).join("queue/logical_block_size"));
        told.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(512)
    }

    /// Whether the kernel takes no writes to this disk, whoever asks.
    fn is_read_only(&self, name: &str) -> bool {
        let told = fs::read_to_string(self.block.join(name).join("ro"));
        told.is_ok_and(|text| text.trim() == "1")
    }

    fn table(&self, name: &str) -> Option<PartitionTable> {
        let file = File::open(self.nodes.join(name)).ok()?;
        PartitionTable::read(&FileDevice::new(file).ok()?, self.block_bytes(name)).ok()
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
        let (name, _) = devices.find(boot.disk)?;
        if devices.is_read_only(&name) {
            // The kernel itself says no more than "permission denied".
            return Err(format!(
                "the disk {name} is read-only, so nothing was changed\n\
                 hint: unlock or replace it; the system that runs goes on as it is"
            ));
        }
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
/// after a flush comes from the disk. Whole blocks go past that memory: a process with little of it
/// is made to wait by the kernel whenever a few MiB are on their way.
#[derive(Debug)]
pub struct Uncached {
    device: FileDevice,
    /// The same file: to tell the kernel to forget.
    file: File,
    /// `None` where the file system knows no such writes.
    direct: RefCell<Option<Direct>>,
}

impl Uncached {
    /// Takes an open file or block device.
    pub fn new(file: File) -> io::Result<Self> {
        let device = FileDevice::new(file.try_clone()?)?;
        let direct = RefCell::new(Direct::open(&file).ok());
        Ok(Self { device, file, direct })
    }
}

/// Reads and writes past the kernel's memory (open(2), `O_DIRECT`).
#[derive(Debug)]
struct Direct {
    file: File,
    buffer: Vec<u8>,
}

/// What places, lengths and addresses of direct access are multiples of: blocks of any disk.
const DIRECT_ALIGNMENT: usize = 4096;

impl Direct {
    /// Opens the file again, by the name that the kernel has for what is open.
    fn open(file: &File) -> io::Result<Self> {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let flags = i32::try_from(OFlags::DIRECT.bits()).map_err(io::Error::other)?;
        let writes = fcntl_getfl(file)?.intersects(OFlags::WRONLY | OFlags::RDWR);
        let file = File::options().read(true).write(writes).custom_flags(flags).open(path)?;
        Ok(Self { file, buffer: Vec::new() })
    }

    fn takes(offset: u64, length: usize) -> bool {
        // OK to convert: 4096.
        let blocks = offset.is_multiple_of(u64::try_from(DIRECT_ALIGNMENT).unwrap_or(1))
            && length.is_multiple_of(DIRECT_ALIGNMENT);
        blocks && length > 0
    }

    /// So many bytes that begin where the disk wants them to.
    fn aligned(&mut self, length: usize) -> io::Result<(&File, &mut [u8])> {
        if self.buffer.len() < length + DIRECT_ALIGNMENT {
            self.buffer.resize(length + DIRECT_ALIGNMENT, 0);
        }
        let start = self.buffer.as_ptr().align_offset(DIRECT_ALIGNMENT);
        let aligned = self.buffer.get_mut(start..start + length);
        Ok((&self.file, aligned.ok_or(io::ErrorKind::InvalidInput)?))
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let (file, aligned) = self.aligned(buffer.len())?;
        file.read_exact_at(aligned, offset)?;
        buffer.copy_from_slice(aligned);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let (file, aligned) = self.aligned(bytes.len())?;
        aligned.copy_from_slice(bytes);
        file.write_all_at(aligned, offset)
    }
}

impl Uncached {
    /// Goes past the kernel's memory, if this piece can; otherwise `None`.
    fn directly(
        &self,
        (offset, length): (u64, usize),
        access: impl FnOnce(&mut Direct) -> io::Result<()>,
    ) -> Option<io::Result<()>> {
        let mut direct = self.direct.borrow_mut();
        let result = access(direct.as_mut().filter(|_| Direct::takes(offset, length))?);
        // A disk with larger blocks: what was written of it is written again.
        if result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::InvalidInput) {
            *direct = None;
            return None;
        }
        Some(result)
    }
}

impl ReadAt for Uncached {
    type Error = io::Error;
    fn size(&self) -> u64 {
        self.device.size()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let piece = (offset, buffer.len());
        match self.directly(piece, |direct| direct.read_at(offset, buffer)) {
            Some(result) => result,
            None => self.device.read_at(offset, buffer),
        }
    }
}

impl WriteAt for Uncached {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let piece = (offset, bytes.len());
        match self.directly(piece, |direct| direct.write_at(offset, bytes)) {
            Some(result) => result,
            None => self.device.write_at(offset, bytes),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        self.device.flush()?;
        Ok(fadvise(&self.file, 0, None, Advice::DontNeed)?)
    }
}

/// How often a lock that somebody has is tried again.
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// Held while a program changes what another must not change meanwhile.
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

    /// Takes the lock; whoever has it gets this much time to end. For what is soon done.
    pub fn take_within(path: &Path, patience: Duration) -> Result<Self, String> {
        let start = Instant::now();
        loop {
            match Self::take(path) {
                Err(_) if start.elapsed() < patience => thread::sleep(LOCK_PAUSE),
                result => return result,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_size_at_any_place_are_read_as_they_were_written() {
        // Beside the program, where a file system with direct writes is likelier than in /tmp.
        let directory = tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap());
        let path = directory.as_ref().unwrap().path().join("disk");
        fs::write(&path, vec![0; 1 << 20]).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let mut disk = Uncached::new(file).unwrap();
        let mut expected = vec![0; 1 << 20];
        let block = DIRECT_ALIGNMENT as u64;
        let large = 16 * DIRECT_ALIGNMENT;
        for (number, (offset, length)) in
            [(0, 512), (block, large), (block, large + 512), (512, large), (5 * block, 3 * large)]
                .into_iter()
                .enumerate()
        {
            let bytes = vec![number as u8 + 1; length];
            disk.write_at(offset, &bytes).unwrap();
            expected[offset as usize..][..length].copy_from_slice(&bytes);
            let mut found = vec![0; 1 << 20];
            disk.read_at(0, &mut found).unwrap();
            assert!(found == expected, "{length} bytes at {offset}");
            disk.read_at(offset, &mut found[..length]).unwrap();
            assert!(found[..length] == bytes, "{length} bytes at {offset}, read alone");
        }
        disk.flush().unwrap();
        assert!(fs::read(&path).unwrap() == expected);
    }

    #[test]
    fn whoever_has_a_lock_gets_time_to_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let first = Lock::take(&path).unwrap();
        let refused = Lock::take_within(&path, 2 * LOCK_PAUSE).unwrap_err();
        assert!(refused.starts_with("another `iota` is changing this system\n"), "{refused}");
        let second = thread::scope(|scope| {
            let second = scope.spawn(|| Lock::take_within(&path, Duration::from_secs(600)));
            drop(first);
            second.join().unwrap()
        });
        assert!(second.is_ok() && Lock::take(&path).is_err());
    }

    #[test]
    fn only_whole_blocks_go_past_the_kernels_memory() {
        let (block, bytes) = (DIRECT_ALIGNMENT as u64, DIRECT_ALIGNMENT);
        assert!(Direct::takes(block, bytes) && Direct::takes(0, 3 * bytes));
        assert!(!Direct::takes(512, bytes));
        assert!(!Direct::takes(0, bytes - 512));
        assert!(!Direct::takes(0, bytes + 512));
        assert!(!Direct::takes(0, 0));
    }
}
