//! How much memory an installation takes, measured by the kernel in a process of its own.
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use agent::apply::{self, Rules, Source};
use agent::own_disk::Uncached;
use agent::read_ahead::ReadAhead;
use ondisk::manifest::Profile;

use super::make::*;

const VARIABLE: &str = "IOTA_TEST_MEMORY";
const LIMIT_KIB: u64 = 24 * 1024;

/// An image of 40 MiB in a slot of 48 MiB, with the largest window.
#[test]
fn an_installation_takes_less_than_24_mib_of_memory() {
    if let Some(directory) = std::env::var_os(VARIABLE) {
        return install_and_tell(Path::new(&directory));
    }
    let directory = tempfile::tempdir().unwrap();
    let system = System::with_root("2.0", 6, noise(1, 40 << 20));
    let pieces = Pieces { stream: pack(&system.image, 23), ..Pieces::of(&system) };
    let chunk_bytes = 1 << 20;
    fs::write(directory.path().join("bundle"), Pieces { chunk_bytes, ..pieces }.build()).unwrap();
    let mut disk = disk();
    disk.resize(60 << 20, 0);
    fs::write(directory.path().join("disk"), disk).unwrap();

    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("update::memory::an_installation_takes_less_than_24_mib_of_memory")
        .env(VARIABLE, directory.path())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let told = text.lines().find_map(|line| line.strip_prefix("grown by "));
    let kib: u64 = told.expect(&text).parse().unwrap();
    println!("an installation took {kib} KiB");
    assert!(kib > 8 * 1024, "{kib} KiB: the window was not used");
    assert!(kib < LIMIT_KIB, "{kib} KiB");
}

/// The test's own program is in memory too: what counts is by how much the peak grows.
fn install_and_tell(directory: &Path) {
    let before = peak_kib();
    let file = File::options().read(true).write(true).open(directory.join("disk")).unwrap();
    let mut disk = Uncached::new(file).unwrap();
    let mut place = PLACE;
    place.slots.b.length = 48 << 20;
    let trust = trust(&[TRUSTED]);
    let rules = Rules { board: BOARD, profile: Profile::Development, trust: &trust };
    let bytes = ReadAhead::new(File::open(directory.join("bundle")).unwrap());
    let source = Source { bytes, length: None };
    apply::install(&mut disk, &place, &rules, source, &mut |_| {}).unwrap();
    println!("\ngrown by {}", peak_kib() - before);
}

fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
