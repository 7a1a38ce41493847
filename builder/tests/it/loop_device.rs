//! `iota flash` on a block device: a file that the kernel serves as a disk. That takes root and a
//! kernel with loop devices; where either is missing, the tests say so and end.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use builder::image::bmap;
use builder::image::sparse::{Sparse, SparseImage};
use rustix::fs::OFlags;

const MIB: usize = 1 << 20;
const OLD: u8 = 0xA5;

/// A file as a disk; the disk goes when this is dropped.
struct Loop(PathBuf);

impl Loop {
    /// A disk of so many bytes of old data.
    fn with_old_data(directory: &Path, bytes: usize) -> Option<Self> {
        let file = directory.join("card");
        fs::write(&file, vec![OLD; bytes]).unwrap();
        let output = Command::new("losetup").args(["--find", "--show"]).arg(&file).output();
        let told = output.ok().filter(|output| output.status.success());
        let Some(told) = told else {
            println!("not run: no loop device can be had here");
            return None;
        };
        Some(Self(String::from_utf8(told.stdout).unwrap().trim().into()))
    }

    fn bytes(&self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        File::open(&self.0).unwrap().read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    fn flash(&self, image: &SparseImage, options: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_iota"));
        command.arg("flash").arg(&image.path).arg("--device").arg(&self.0).args(options);
        command.output().unwrap()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

/// 8 MiB with data in the first MiB and at 5 MiB, and its block map.
fn image(directory: &Path) -> SparseImage {
    let mut image = Sparse::create(&directory.join("disk.img"), 8 * MIB as u64).unwrap();
    let mut first: Vec<u8> = (0..MIB).map(|at| (at % 251) as u8).collect();
    // The end of every first sector that is a partition table's.
    first[510..512].copy_from_slice(&[0x55, 0xAA]);
    image.write_at(0, &first).unwrap();
    image.write_at(5 * MIB as u64, &[7; 8192]).unwrap();
    let image = image.finish().unwrap();
    bmap::write(&image, &directory.join("disk.img.bmap")).unwrap();
    image
}

#[track_caller]
fn refused(output: &Output, why: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains(why), "{text}");
}

#[test]
fn a_disk_that_is_named_twice_gets_what_is_mapped_and_loses_an_old_table_at_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let Some(disk) = Loop::with_old_data(directory.path(), 16 * MIB) else { return };
    let image = image(directory.path());
    refused(&disk.flash(&image, &[]), "is not removable");
    assert!(disk.bytes(16 * MIB).iter().all(|byte| *byte == OLD), "a refusal wrote");

    let output = disk.flash(&image, &["--yes-erase", disk.0.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let mut expected = vec![OLD; 16 * MIB];
    let wanted = fs::read(&image.path).unwrap();
    for range in image.mapped.iter() {
        let range = range.start as usize..range.end as usize;
        expected[range.clone()].copy_from_slice(&wanted[range]);
    }
    // The copy of a GPT that ends a disk would contradict the new table.
    let last = expected.len() - 33 * 512;
    expected[last..].fill(0);
    let found = disk.bytes(16 * MIB);
    let differs = found.iter().zip(&expected).position(|(found, expected)| found != expected);
    assert_eq!(differs, None, "{text}");
}

#[test]
fn a_disk_that_something_uses_or_that_is_too_small_keeps_its_data() {
    let directory = tempfile::tempdir().unwrap();
    let Some(disk) = Loop::with_old_data(directory.path(), 4 * MIB) else { return };
    let image = image(directory.path());
    let twice = ["--yes-erase", disk.0.to_str().unwrap()];
    refused(&disk.flash(&image, &twice), "the image needs 8388608 (8 MB)");
    drop(disk);

    let Some(disk) = Loop::with_old_data(directory.path(), 16 * MIB) else { return };
    let twice = ["--yes-erase", disk.0.to_str().unwrap()];
    // What a mount does: the kernel then gives the disk to nobody else.
    let claim = i32::try_from(OFlags::EXCL.bits()).unwrap();
    let user = File::options().read(true).custom_flags(claim).open(&disk.0).unwrap();
    refused(&disk.flash(&image, &twice), "something uses it");
    drop(user);
    assert!(disk.bytes(16 * MIB).iter().all(|byte| *byte == OLD), "a refusal wrote");
}
