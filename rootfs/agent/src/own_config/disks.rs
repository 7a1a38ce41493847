//! What touches a disk: the file on the boot partition, its copies on the data partition.
//!
//! The boot partition is mounted read-only and only as long as it is read; to be written, only to
//! take away the owner's own request for a reset ([`crate::reset`]). A copy is replaced in
//! one step (write, flush, rename, flush of the directory), so that a cut leaves the old or the new
//! one. Each slot has its own: what a newer system accepts, an older one may not understand.

use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use config::import::{Name, Seed};
use config::{Config, FILE_NAME, READ_BYTES};
use ondisk::digest::Digest;
use ondisk::layout::Slot;
use rustix::fs::statfs;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::device;
use crate::files;
use crate::own_disk::Devices;
use crate::update::Facts;

/// What an editor on Windows makes of the name when endings are hidden.
const WRONG_NAME: &str = "iota.toml.txt";

/// The owner's file, or what others wrote as one; `None` if the partition has neither.
pub fn read_file(facts: &Facts) -> Result<Option<Vec<u8>>, String> {
    read_from(Mounted::boot_partition(facts, Use::Read)?.path())
}

/// What the boot partition is mounted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Nothing is written.
    Read,
    /// A file of the owner's is taken away.
    Change,
}

/// The boot partition, as long as this lives.
#[derive(Debug)]
pub struct Mounted(PathBuf);

impl Mounted {
    /// Mounts the boot partition of the disk that this system was started from.
    pub fn boot_partition(facts: &Facts, purpose: Use) -> Result<Self, String> {
        let boot = facts.boot()?;
        let (disk, table) = facts.devices.find(boot.disk)?;
        let partition = table.boot().map_err(|error| format!("{disk}: {error}"))?;
        let node = facts.devices.partition(&disk, partition.number);
        let node = node.ok_or_else(|| format!("{disk} has no partition {}", partition.number))?;
        Self::new(&facts.devices, &node, &facts.run.join("boot"), purpose)
            .map_err(|error| format!("cannot mount {node}: {error}"))
    }

    fn new(devices: &Devices, node: &str, place: &Path, purpose: Use) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(place)?;
        let inert = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
        let access = match purpose {
            Use::Read => MountFlags::RDONLY,
            // Each write is on the card before the next one is made.
            Use::Change => MountFlags::SYNCHRONOUS,
        };
        mount(devices.nodes.join(node), place, "vfat", access | inert, None)?;
        Ok(Self(place.to_owned()))
    }

    /// Its top directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Takes it off after a change: what was changed is on the card when this returns.
    pub fn finish(self) -> Result<(), String> {
        let failed = |error| format!("the boot partition cannot be unmounted: {error}");
        unmount(&self.0, UnmountFlags::empty()).map_err(failed)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // One that stays mounted read-only costs nothing but the name; one that is off is off.
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// The file in the top directory of a mounted boot partition, or the text that files of cloud-init
/// or Raspberry Pi Imager come to.
pub fn read_from(directory: &Path) -> Result<Option<Vec<u8>>, String> {
    match read_whole(&directory.join(FILE_NAME)).map_err(|error| error.to_string())? {
        Some(bytes) => Ok(Some(bytes)),
        None if directory.join(WRONG_NAME).exists() => {
            Err(format!("it is named {WRONG_NAME}: take away the `.txt`"))
        }
        None => import_from(directory),
    }
}

/// A seed that is wrong is no seed: its error keeps in force what held before.
fn import_from(directory: &Path) -> Result<Option<Vec<u8>>, String> {
    let mut seed = Seed::default();
    for name in Name::ALL {
        let read = read_whole(&directory.join(name.as_str()));
        let bytes = read.map_err(|error| format!("{}: {error}", name.as_str()))?;
        bytes.into_iter().for_each(|bytes| seed.add(name, bytes));
    }
    if seed.is_empty() {
        return Ok(None);
    }
    let imported = seed.read().map_err(|error| format!("there is none, and {error}"))?;
    let text = imported.text(&Digest::of(&seed.bytes()).to_string());
    // What is kept is read again at the next start, by the one check.
    Config::parse(text.as_bytes()).map_err(|problems| format!("what was imported: {problems}"))?;
    Ok(Some(text.into_bytes()))
}

/// The bytes of a file, a few more than it may have at most; `None` if there is none.
pub fn read_whole(path: &Path) -> io::Result<Option<Vec<u8>>> {
    read_up_to(path, READ_BYTES)
}

fn read_up_to(path: &Path, most: usize) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let most = u64::try_from(most).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Refuses a place in memory, where PID 1 puts `/data` if no data partition can be mounted.
pub fn is_on_disk(directory: &Path) -> Result<(), String> {
    /// `TMPFS_MAGIC` (`include/uapi/linux/magic.h`).
    const IN_MEMORY: u64 = 0x0102_1994;
    let mounted = directory.parent().unwrap_or(directory);
    let found = statfs(mounted).map_err(|error| format!("{}: {error}", mounted.display()))?;
    match u64::try_from(found.f_type) {
        Ok(IN_MEMORY) => {
            let shown = mounted.display();
            Err(format!("{shown} is in memory, since the data partition is not mounted"))
        }
        _ => Ok(()),
    }
}

/// The copies of good files, and what was changed on the device.
#[derive(Clone, Debug)]
pub struct Copies {
    directory: PathBuf,
    slot: Slot,
}

impl Copies {
    /// Those of the system that runs in this slot.
    pub fn new(directory: &Path, slot: Slot) -> Self {
        Self { directory: directory.to_owned(), slot }
    }

    fn path(&self, slot: Slot) -> PathBuf {
        self.directory.join(format!("config-{}.toml", slot.letter()))
    }

    /// The own copy, or else the other system's; one that this system understands, if there is one.
    pub fn read(&self) -> Result<Option<Vec<u8>>, String> {
        let mut unfit = Ok(None);
        for slot in [self.slot, self.slot.other()] {
            match read_whole(&self.path(slot)) {
                Ok(Some(bytes)) if Config::parse(&bytes).is_ok() => return Ok(Some(bytes)),
                Ok(None) => {}
                // What is wrong with the own one is worth more than what is with the other's.
                other if unfit == Ok(None) => unfit = other.map_err(|error| error.to_string()),
                _ => {}
            }
        }
        unfit
    }

    /// Puts a file in place of the own copy; the same again costs no write.
    pub fn keep(&self, bytes: &[u8]) -> io::Result<()> {
        self.put(&self.path(self.slot), bytes)
    }

    /// What was changed on the device: one file for both systems, since it is one owner's wish.
    fn device_path(&self) -> PathBuf {
        self.directory.join("config-device.toml")
    }

    /// What was changed on the device, as [`device::encode`] wrote it; `None` if nothing was.
    pub fn read_device(&self) -> io::Result<Option<Vec<u8>>> {
        read_up_to(&self.device_path(), READ_BYTES.saturating_add(device::HEAD_BYTES))
    }

    /// Puts this in place of what was changed on the device before.
    pub fn keep_device(&self, bytes: &[u8]) -> io::Result<()> {
        self.put(&self.device_path(), bytes)
    }

    /// Removes what was changed on the device.
    pub fn drop_device(&self) -> io::Result<()> {
        self.remove(&[self.device_path()])
    }

    fn put(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        if read_up_to(path, usize::MAX).is_ok_and(|present| present.as_deref() == Some(bytes)) {
            return Ok(());
        }
        self.make_directory()?;
        files::keep(path, bytes, 0o600)
    }

    fn make_directory(&self) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(&self.directory) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
            made => made?,
        }
        self.directory.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    }

    /// Removes all: no system shall come back to what its owner has taken away.
    pub fn forget(&self) -> io::Result<()> {
        self.remove(&[self.path(Slot::A), self.path(Slot::B), self.device_path()])
    }

    fn remove(&self, paths: &[PathBuf]) -> io::Result<()> {
        let mut removed = false;
        for path in paths {
            removed |= files::remove(path)?;
        }
        if removed { File::open(&self.directory)?.sync_all() } else { Ok(()) }
    }
}
