//! What is known of this machine's disks and of the paths on the command line: checked types
//! without I/O, filled by [`crate::host::block_devices`].

use std::path::PathBuf;

/// Names a block device to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceNumber {
    /// Which driver.
    pub major: u32,
    /// Which of its devices.
    pub minor: u32,
}

/// How a disk is attached, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus {
    /// Sticks, card readers, disks in a case.
    Usb,
    /// Cards in a slot of the machine.
    Mmc,
    /// Everything that is not meant to be carried away.
    Other,
}

/// A block device as the kernel names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// `sda1`.
    pub name: String,
    /// Its number.
    pub number: DeviceNumber,
}

/// A block device that is no partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Name and number.
    pub node: Node,
    /// Length; 0 for a reader without a card.
    pub bytes: u64,
    /// Smallest piece that it reads and writes.
    pub sector_bytes: u64,
    /// What vendor and model call it; may be empty.
    pub model: String,
    /// How it is attached.
    pub bus: Bus,
    /// The kernel says that its medium can be taken out.
    pub removable: bool,
    /// Cannot be written, as with the lock of a card.
    pub read_only: bool,
    /// Its partitions.
    pub partitions: Vec<Node>,
}

impl Disk {
    /// True if it is meant to be carried to another machine.
    pub fn is_portable(&self) -> bool {
        self.removable || self.bus != Bus::Other
    }

    /// `/dev/sda`.
    pub fn path(&self) -> String {
        format!("/dev/{}", self.node.name)
    }
}

/// A mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The device of its files; of no disk for file systems that span several.
    pub device: DeviceNumber,
    /// The device it was mounted from, if that is one.
    pub source: Option<DeviceNumber>,
    /// Where.
    pub place: String,
}

/// What the kernel knows of block devices and their use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// All disks, made-up ones included, sorted by name.
    pub disks: Vec<Disk>,
    /// A device, and one that stands on it: a volume on a partition, an array on a disk.
    pub holders: Vec<(DeviceNumber, Node)>,
    /// All mounted file systems.
    pub mounts: Vec<Mount>,
    /// Devices with swap space, or with the file that is used as such.
    pub swaps: Vec<DeviceNumber>,
}

/// Which file a path leads to, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileIdentity {
    /// The file system.
    pub device: u64,
    /// The file in it.
    pub inode: u64,
}

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing.
    Nothing,
    /// A regular file.
    File {
        /// Which.
        identity: FileIdentity,
        /// How long it is.
        bytes: u64,
    },
    /// A directory.
    Directory,
    /// A block device.
    Device(DeviceNumber),
    /// Something that holds no bytes to keep.
    Other,
}

/// A path as typed and what it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// As typed.
    pub path: PathBuf,
    /// What is there.
    pub seen: Seen,
}

/// Sizes as they are printed on cards: `31.9 GB`, `512 MB`.
pub fn disk_size(bytes: u64) -> String {
    match bytes {
        0..1_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{}.{} GB", bytes / 1_000_000_000, bytes % 1_000_000_000 / 100_000_000),
    }
}
