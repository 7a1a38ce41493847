//! The data partition takes all that its disk has: an image ends where its content does.
//!
//! Three things grow one after the other, and each is looked at by itself, so that whatever a
//! power cut left undone is done after the next start: the entry in the partition table
//! ([`ondisk::growth`]), the partition as the kernel knows it, and the file system on it, by its
//! own `resize2fs` while it is in use.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use ondisk::boot_args::BootArgs;
use ondisk::device::{ReadAt, WriteAt};
use ondisk::ext4;
use ondisk::growth::{self, Growth};
use ondisk::layout::Extent;

use crate::own_disk::{Devices, OwnDisk};
use crate::sys;

/// Where PID 1 shows the data partition.
const DATA: &str = "/data";
/// Grows ext4, in use or not (resize2fs(8)).
const RESIZE: &str = "/usr/sbin/resize2fs";
/// Less than this is not worth a write.
const LEAST_BYTES: u64 = 1 << 20;

/// Lets the data partition of the own disk grow; gives the lines to say, none if it is as large as
/// it can be.
///
/// Nothing is done to a disk whose data is not mounted: what could not be read is not written.
pub fn grow(devices: &Devices, boot: &BootArgs) -> Result<Vec<String>, String> {
    let (name, table) = devices.find(boot.disk)?;
    let data = table.data().map_err(|error| format!("{name}: {error}"))?;
    let partition = devices.partition(&name, data.number);
    let partition = partition.ok_or_else(|| format!("{name} has no partition {}", data.number))?;
    let node = devices.nodes.join(&partition);
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    if !is_mounted(&mounts, &node, DATA) {
        return Ok(Vec::new());
    }
    let mut said = Vec::new();
    let mut disk = OwnDisk::open_to_write(devices, boot)?;
    let block_bytes = devices.block_bytes(&name);
    let growth = growth::plan(&disk.device, block_bytes).map_err(|error| error.to_string())?;
    if let Some(growth) = &growth {
        write(&mut disk.device, growth).map_err(|error| format!("{name}: {error}"))?;
        said.push(format!("{name}: {}", told(growth)));
    }
    let extent = growth.map_or(data.extent, |growth| growth.after);
    if devices.bytes(&partition).is_some_and(|bytes| bytes < extent.length) {
        tell_kernel(&devices.nodes.join(&name), data.number, extent)?;
    }
    let held = file_system_bytes(&disk.device, extent);
    if held.is_some_and(|bytes| bytes.saturating_add(LEAST_BYTES) <= extent.length) {
        grow_file_system(&node)?;
        said.push(format!("data has {} now", mebibytes(extent.length)));
    }
    Ok(said)
}

fn told(growth: &Growth) -> String {
    let (before, after) = (growth.before.length, growth.after.length);
    if before == after {
        return "its partition table has two whole copies again".to_owned();
    }
    format!("partition {} grows from {} to {}", growth.number, mebibytes(before), mebibytes(after))
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

fn write<D: WriteAt>(disk: &mut D, growth: &Growth) -> Result<(), D::Error> {
    for step in &growth.steps {
        for piece in step {
            disk.write_at(piece.offset, &piece.bytes)?;
        }
        disk.flush()?;
    }
    Ok(())
}

fn tell_kernel(disk: &Path, number: u32, extent: Extent) -> Result<(), String> {
    let failed = |error| format!("{}: partition {number}: {error}", disk.display());
    let file = File::open(disk).map_err(failed)?;
    sys::resize_partition(file, number, extent).map_err(|error| failed(error.into()))
}

fn grow_file_system(node: &Path) -> Result<(), String> {
    let output = Command::new(RESIZE).arg(node).output();
    let output = output.map_err(|error| format!("cannot start {RESIZE}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let last = errors.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    Err(format!("{RESIZE} {}: {}: {last}", node.display(), output.status))
}

/// Whether this device is what is mounted at a path (fstab(5); the last line for it counts).
fn is_mounted(mounts: &str, node: &Path, path: &str) -> bool {
    let source_and_target = |line| str::split_once(line, ' ');
    let mut lines = mounts.lines().rev().filter_map(source_and_target);
    let last = lines.find(|(_, rest)| rest.split(' ').next() == Some(path));
    last.is_some_and(|(source, _)| Path::new(source) == node)
}

/// Bytes that an ext4 file system counts as its own; `None` if there is none.
fn file_system_bytes<D: ReadAt>(disk: &D, partition: Extent) -> Option<u64> {
    let mut superblock = [0; ext4::SUPERBLOCK_BYTES];
    let offset = partition.offset.checked_add(ext4::SUPERBLOCK_OFFSET)?;
    disk.read_at(offset, &mut superblock).ok()?;
    ext4::held_bytes(&superblock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_at_a_path_is_told_by_the_last_line() {
        let mounts = "/dev/vda5 /data ext4 rw 0 0\n/dev/vda5 /var/lib/docker ext4 rw 0 0\n";
        let node = Path::new("/dev/vda5");
        assert!(is_mounted(mounts, node, "/data"));
        assert!(!is_mounted(mounts, Path::new("/dev/vda4"), "/data"));
        assert!(!is_mounted(&format!("{mounts}tmpfs /data tmpfs rw 0 0\n"), node, "/data"));
        assert!(!is_mounted("", node, "/data"));
    }

    #[test]
    fn a_file_system_is_looked_for_where_its_partition_starts() {
        let mut disk = vec![0; 8192];
        let partition = Extent { offset: 4096, length: 4096 };
        assert_eq!(file_system_bytes(&disk, partition), None);
        let block = &mut disk[5120..6144];
        block[0x38..0x3a].copy_from_slice(&[0x53, 0xef]);
        block[0x4..0x8].copy_from_slice(&300_u32.to_le_bytes());
        block[0x18] = 2; // 1024 << 2
        assert_eq!(file_system_bytes(&disk, partition), Some(300 * 4096));
        assert_eq!(file_system_bytes(&disk, Extent { offset: 8000, length: 1 }), None);
    }
}
