//! Finds the disk the loader came from, by its id, and the partitions on it.
//!
//! Other disks are never used, whatever their partitions are called: a stick with an image of the
//! same product must not be mistaken for the machine's own disk.

use std::fmt;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ondisk::boot_args::DiskId;
use ondisk::device::{FileDevice, is_disk_name};
use ondisk::layout::{Extent, Slot};
use ondisk::partition_table::PartitionTable;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::failure::{Context, Failure, Result};
use crate::log::{now_ms, say};
use crate::netlink::{EVENT_BYTES, Received, next_event};

/// How long a disk may take to appear: a USB disk that spins up needs about ten seconds.
const DEADLINE_MS: u64 = 30_000;
/// When the wait is worth a line.
const PATIENCE_MS: u64 = 3_000;
/// Disks are looked at again after this even if no event came: events can be lost.
const LOOK_AGAIN_MS: u64 = 1_000;

const BLOCK: &str = "/sys/class/block";

/// The partitions PID 1 mounts, as device nodes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OwnDisk {
    /// The slot that was started.
    pub(crate) slot: PathBuf,
    /// The data partition, if there is one.
    pub(crate) data: Option<PathBuf>,
    /// Where the record lies, if there is one.
    pub(crate) record: Option<RecordPlace>,
}

/// Where the record lies: a stretch of the whole disk. The agent opens the whole disk too; two
/// views of the same bytes through different nodes would not agree, since each has its own cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecordPlace {
    /// The disk.
    pub(crate) disk: PathBuf,
    /// The bytes of the record's area.
    pub(crate) extent: Extent,
}

/// `/dev/vda@71303168+8388608`: how one stage of PID 1 tells the next.
impl fmt::Display for RecordPlace {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Extent { offset, length } = self.extent;
        write!(out, "{}@{offset}+{length}", self.disk.display())
    }
}

impl FromStr for RecordPlace {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self> {
        let parts = text.rsplit_once('@').and_then(|(disk, place)| {
            let (offset, length) = place.split_once('+')?;
            let extent = Extent { offset: offset.parse().ok()?, length: length.parse().ok()? };
            Some(Self { disk: disk.into(), extent })
        });
        parts.ok_or_else(|| Failure::new(format!("`{text}` is no place of a record")))
    }
}

/// Waits for the disk with this id.
pub(crate) fn wait_for(id: DiskId, slot: Slot, events: &OwnedFd) -> Result<OwnDisk> {
    let start = now_ms();
    let mut told = false;
    loop {
        match find(id, slot) {
            Found::Disk(disk) => return Ok(disk),
            Found::Broken(failure) => return Err(failure),
            Found::Nothing => {}
        }
        let waited = now_ms().saturating_sub(start);
        if waited >= DEADLINE_MS {
            return Err(Failure::new(format!("no disk {id}; disks seen: {}", names())));
        }
        if waited >= PATIENCE_MS && !told {
            say(&format!("waiting for disk {id}"));
            told = true;
        }
        wait_for_event(events);
    }
}

/// Whether a disk with this id is there now.
pub(crate) fn is_there(id: DiskId) -> bool {
    disks().into_iter().any(|name| has_id(&name, id).is_some())
}

enum Found {
    Disk(OwnDisk),
    /// It is the disk, but it cannot be used.
    Broken(Failure),
    Nothing,
}

fn find(id: DiskId, slot: Slot) -> Found {
    let mut own = disks().into_iter().filter_map(|name| Some((has_id(&name, id)?, name)));
    let Some((table, name)) = own.next() else { return Found::Nothing };
    for (_, other) in own {
        say(&format!("disk {other} has the same id as {name} and is not used: {id}"));
    }
    match partitions(&name, &table, slot) {
        Ok(disk) => Found::Disk(disk),
        Err(failure) => Found::Broken(failure),
    }
}

/// The table of a disk if it has this id.
fn has_id(name: &str, id: DiskId) -> Option<PartitionTable> {
    let file = File::open(Path::new("/dev").join(name)).ok()?;
    let block_bytes = fs::read_to_string(format!("{BLOCK}/{name}/queue/logical_block_size"))
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(512);
    let table = PartitionTable::read(&FileDevice::new(file).ok()?, block_bytes).ok()?;
    (table.disk == id).then_some(table)
}

fn partitions(disk: &str, table: &PartitionTable, slot: Slot) -> Result<OwnDisk> {
    let slot = table.slot(slot).context(disk)?;
    let data = match table.data() {
        Ok(partition) => node(disk, partition.number).ok(),
        Err(_) => None,
    };
    let record = table.record().ok();
    let record = record.map(|extent| RecordPlace { disk: Path::new("/dev").join(disk), extent });
    Ok(OwnDisk { slot: node(disk, slot.number)?, data, record })
}

/// Device node of a partition. Its name is the kernel's affair (vda3, mmcblk0p3): it is looked up.
fn node(disk: &str, number: u32) -> Result<PathBuf> {
    let children = fs::read_dir(format!("{BLOCK}/{disk}/")).context(disk)?;
    for child in children.flatten() {
        let text = fs::read_to_string(child.path().join("partition")).unwrap_or_default();
        if text.trim().parse() == Ok(number) {
            return Ok(Path::new("/dev").join(child.file_name()));
        }
    }
    Err(Failure::new(format!("{disk}: the kernel knows no partition {number}")))
}

/// Names of whole disks, sorted; devices that the kernel makes out of nothing or of other disks
/// are none.
fn disks() -> Vec<String> {
    let Ok(entries) = fs::read_dir(BLOCK) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| !entry.path().join("partition").exists())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_disk_name(name))
        .collect();
    names.sort();
    names
}

fn names() -> String {
    let names = disks();
    if names.is_empty() { "none".to_owned() } else { names.join(" ") }
}

fn wait_for_event(events: &OwnedFd) {
    let timeout = Timespec { tv_sec: 0, tv_nsec: 0 };
    let timeout = Timespec { tv_sec: i64::try_from(LOOK_AGAIN_MS / 1000).unwrap_or(1), ..timeout };
    let mut fds = [PollFd::new(events, PollFlags::IN)];
    // A poll that fails is only a shorter wait.
    let _ = poll(&mut fds, Some(&timeout));
    let mut buffer = [0; EVENT_BYTES];
    while next_event(events, &mut buffer) != Received::Nothing {}
}
