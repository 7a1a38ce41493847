//! This machine's disks: what the kernel says of them, and one of them opened to be overwritten.
//!
//! Facts come from `/sys/block`, `/proc/self/mountinfo` and `/proc/swaps`; what they mean is
//! decided in [`crate::flash::permit`]. An opened disk is claimed: the kernel refuses to mount any
//! part of it until it is closed, and refuses the claim if somebody was faster.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use ondisk::device::{FileDevice, ReadAt, WriteAt};
use rustix::fs::{Advice, OFlags, fadvise, major, minor};

use crate::error::{Context, Error, Result};
use crate::flash::facts::{Bus, DeviceNumber, Disk, Facts, FileIdentity, Mount, Node, Place, Seen};
use crate::flash::permit::{Permit, Target};
use crate::flash::write::ALIGNMENT;

/// What the kernel says of disks, file systems and swap space right now.
pub fn facts() -> Result<Facts> {
    load(Path::new("/"), &device_of)
}

/// What a path leads to.
pub fn look(path: &Path) -> Result<Place> {
    let seen = match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Seen::Directory,
        Ok(metadata) if metadata.is_file() => {
            let identity = FileIdentity { device: metadata.dev(), inode: metadata.ino() };
            Seen::File { identity, bytes: metadata.len() }
        }
        Ok(metadata) if metadata.file_type().is_block_device() => {
            Seen::Device(number(metadata.rdev()))
        }
        Ok(_) => Seen::Other,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Seen::Nothing,
        Err(error) => {
            return Err(Error::caused(format!("cannot look at {}", path.display()), error));
        }
    };
    Ok(Place { path: path.to_owned(), seen })
}

fn number(device: u64) -> DeviceNumber {
    DeviceNumber { major: major(device), minor: minor(device) }
}

/// The block device that a path is, or that its file lies on.
fn device_of(path: &Path) -> Option<DeviceNumber> {
    let metadata = fs::metadata(path).ok()?;
    let is_device = metadata.file_type().is_block_device();
    Some(number(if is_device { metadata.rdev() } else { metadata.dev() }))
}

/// Facts from below another root than `/`, so that tests can make them up.
fn load(root: &Path, device_of: &dyn Fn(&Path) -> Option<DeviceNumber>) -> Result<Facts> {
    let mut facts = Facts::default();
    let blocks = root.join("sys/block");
    for name in names(&blocks)? {
        // A device may be unplugged while it is looked at.
        if let Some(disk) = disk(&blocks.join(&name), &name, &mut facts.holders) {
            facts.disks.push(disk);
        }
    }
    resolve_holders(&mut facts);
    let read = |path: &str| {
        let path = root.join(path);
        fs::read_to_string(&path).context(|| format!("cannot read {}", path.display()))
    };
    facts.mounts =
        read("proc/self/mountinfo")?.lines().filter_map(|line| mount(line, device_of)).collect();
    // Not there in a kernel without swap.
    let swaps = read("proc/swaps").unwrap_or_default();
    let paths = swaps.lines().skip(1).filter_map(|line| line.split_ascii_whitespace().next());
    facts.swaps = paths.filter_map(|path| device_of(Path::new(&unescape(path)))).collect();
    Ok(facts)
}

fn names(directory: &Path) -> Result<Vec<String>> {
    let failed = || format!("cannot read {}", directory.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).context(failed)? {
        names.extend(entry.context(failed)?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// Reads one directory of `/sys/block`.
fn disk(path: &Path, name: &str, holders: &mut Vec<(DeviceNumber, Node)>) -> Option<Disk> {
    let node = Node { name: name.to_owned(), number: dev(path)? };
    add_holders(path, node.number, holders);
    let mut partitions = Vec::new();
    for name in names(path).ok()? {
        let part = path.join(&name);
        if part.join("partition").exists() {
            let number = dev(&part)?;
            add_holders(&part, number, holders);
            partitions.push(Node { name, number });
        }
    }
    let place = path.canonicalize().ok()?;
    let place = place.to_string_lossy();
    let bus = match () {
        () if place.contains("/usb") => Bus::Usb,
        () if place.contains("/mmc_host/") => Bus::Mmc,
        () => Bus::Other,
    };
    // The kernel counts in units of 512 bytes, whatever the disk's sectors are.
    let bytes = value(path, "size")?.parse::<u64>().ok()?.checked_mul(512)?;
    let sector_bytes = value(path, "queue/logical_block_size")?.parse().ok()?;
    let words = ["device/vendor", "device/model", "device/name"].map(|file| value(path, file));
    let model = words.into_iter().flatten().filter(|word| !word.is_empty()).collect::<Vec<_>>();
    Some(Disk {
        node,
        bytes,
        sector_bytes,
        model: model.join(" "),
        bus,
        removable: value(path, "removable")? == "1",
        read_only: value(path, "ro")? == "1",
        partitions,
    })
}

fn value(directory: &Path, file: &str) -> Option<String> {
    fs::read_to_string(directory.join(file)).ok().map(|text| text.trim().to_owned())
}

fn dev(directory: &Path) -> Option<DeviceNumber> {
    device_number(&value(directory, "dev")?)
}

/// `8:1`.
fn device_number(text: &str) -> Option<DeviceNumber> {
    let (major, minor) = text.split_once(':')?;
    Some(DeviceNumber { major: major.parse().ok()?, minor: minor.parse().ok()? })
}

/// Names what stands on a device; its number is only known when all disks have been seen.
fn add_holders(path: &Path, below: DeviceNumber, holders: &mut Vec<(DeviceNumber, Node)>) {
    for name in names(&path.join("holders")).unwrap_or_default() {
        holders.push((below, Node { name, number: below }));
    }
}

fn resolve_holders(facts: &mut Facts) {
    let Facts { disks, holders, .. } = facts;
    for (_, holder) in holders {
        let same = |node: &&Node| node.name == holder.name;
        let mut all =
            disks.iter().flat_map(|disk| [&disk.node].into_iter().chain(&disk.partitions));
        if let Some(node) = all.find(same) {
            holder.number = node.number;
        }
    }
}

/// A line of mountinfo, as proc_pid_mountinfo(5) has it: the device is the third field, the place
/// the fifth; the source comes second behind a dash.
fn mount(line: &str, device_of: &dyn Fn(&Path) -> Option<DeviceNumber>) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut fields = left.split(' ').skip(2);
    let device = device_number(fields.next()?)?;
    let place = unescape(fields.nth(1)?);
    let source = unescape(right.split(' ').nth(1)?);
    // A file system on several disks has a number of its own; the source is one of the disks.
    let source = if source.starts_with('/') { device_of(Path::new(&source)) } else { None };
    Some(Mount { device, source, place })
}

/// Undoes `\040` for a space and its like.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if first == b'\\' => {
                bytes.push(byte);
                rest = &after[3..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A target that was opened to be overwritten.
#[derive(Debug)]
pub struct OpenTarget {
    /// Through the page cache: single sectors, and everything where the way around is closed.
    buffered: FileDevice,
    /// The same file, around the page cache: what is read comes from the medium, and progress is
    /// what the medium took.
    direct: Option<File>,
    /// Again the same, to tell the kernel what need not be kept.
    file: File,
}

/// Opens what the permit is for; a regular file is made, emptied, and as long as it shall be.
///
/// Errors: the kernel says that it is in use, or that this user may not; another device than the
/// permitted one answers to the name by now.
pub fn open(permit: &Permit) -> Result<OpenTarget> {
    let path = permit.path();
    let file = match permit.target() {
        Target::Disk(disk) => open_disk(path, disk)?,
        Target::File { bytes } => open_file(path, *bytes)?,
    };
    let failed = || format!("cannot open {}", path.display());
    // By this name, since a second claim of a disk would be refused, and to get the very same file.
    let itself = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let direct = options(OFlags::DIRECT).open(itself).ok();
    let buffered = FileDevice::new(file.try_clone().context(failed)?).context(failed)?;
    Ok(OpenTarget { buffered, direct, file })
}

fn options(flags: OFlags) -> OpenOptions {
    let mut options = OpenOptions::new();
    // Flags of open(2) fit into 31 bits.
    options.read(true).write(true).custom_flags(flags.bits().cast_signed());
    options
}

fn open_disk(path: &Path, disk: &Disk) -> Result<File> {
    let name = path.display();
    let file = options(OFlags::EXCL).open(path).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => "disks belong to root: run it with sudo",
            io::ErrorKind::ResourceBusy => "something uses it: unmount it, or stop what does",
            _ => "pull it out and put it in again",
        };
        Error::caused(format!("cannot open {name}"), error).hint(hint)
    })?;
    let metadata = file.metadata().context(|| format!("cannot look at {name}"))?;
    if !metadata.file_type().is_block_device() || number(metadata.rdev()) != disk.node.number {
        return Err(Error::new(format!("{name} is not the disk any more that it was"))
            .hint("look again which disk it is"));
    }
    Ok(file)
}

fn open_file(path: &Path, bytes: u64) -> Result<File> {
    let failed = || format!("cannot make {}", path.display());
    let file = options(OFlags::CLOEXEC).create(true).truncate(true).open(path).context(failed)?;
    file.set_len(bytes).context(failed)?;
    Ok(file)
}

impl OpenTarget {
    /// Whether a read or write can go around the page cache.
    fn direct(&self, offset: u64, address: *const u8, count: usize) -> Option<&File> {
        let fits = offset.is_multiple_of(ALIGNMENT as u64)
            && address.addr().is_multiple_of(ALIGNMENT)
            && count.is_multiple_of(ALIGNMENT);
        self.direct.as_ref().filter(|_| fits)
    }
}

/// Some file systems say only now that there is no way around the page cache.
fn is_refused(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidInput
}

impl ReadAt for OpenTarget {
    type Error = io::Error;

    fn size(&self) -> u64 {
        self.buffered.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if let Some(direct) = self.direct(offset, buffer.as_ptr(), buffer.len()) {
            match direct.read_exact_at(buffer, offset) {
                Err(error) if is_refused(&error) => {}
                done => return done,
            }
        }
        self.buffered.read_at(offset, buffer)
    }
}

impl WriteAt for OpenTarget {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if let Some(direct) = self.direct(offset, bytes.as_ptr(), bytes.len()) {
            match direct.write_all_at(bytes, offset) {
                Err(error) if is_refused(&error) => {}
                done => return done,
            }
        }
        self.buffered.write_at(offset, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.buffered.flush()?;
        // What is read back shall come from the medium. It is advice: nothing fails without it.
        let _ = fadvise(&self.file, 0, None, Advice::DontNeed);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
