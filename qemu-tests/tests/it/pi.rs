//! Raspberry Pis in QEMU, from Debian's U-Boot onward: the very files of the boot partition start
//! the loader, and a card controller, a USB bus and a serial line take the place of virtio.
//!
//! Cards are slow in QEMU (half a megabyte a second), so there are few boots and each is looked at
//! from all sides.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use builder::host::qemu::Options;
use builder::image::fat::{self, FatFile};
use builder::image::fat_reader;
use builder::image::sparse::Sparse;
use builder::tree::Content;
use ondisk::device::FileDevice;
use ondisk::layout::{self, SECTOR_BYTES};
use ondisk::partition_table::PartitionTable;
use qemu_tests::disk::Disk;
use qemu_tests::image::{emulation, variant_of};
use qemu_tests::machine::Machine;
use qemu_tests::slow_tests_wanted;
use qemu_tests::time_server::TimeServer;
use serde_json::Value;

use crate::slots::short_window;

/// A boot takes minutes.
const LONG: Duration = Duration::from_secs(900);

/// What may be read from a card until the kernel starts: at 20 MB/s, less than a second. It was
/// 16 MB with a kernel in zstd (docs/decisions/root-format.md).
const MOST_READ_BEFORE_KERNEL: u64 = 19_000_000;
/// The initrd holds what reaches the root on a card, and nothing else.
const LARGEST_INITRD: u64 = 2_000_000;
const STICK_BYTES: u64 = 256 << 20;

fn image(board: &str, version: &str, index: u32) -> PathBuf {
    variant_of(board, &format!("{version}-{board}"), index, short_window)
}

#[test]
fn a_pi_3_boots_from_u_boot_to_a_container_updates_itself_and_goes_back() {
    if !slow_tests_wanted() {
        return;
    }
    let (first, second) = (image("pi3", "1.0", 1), image("pi3", "2.0", 2));
    reads_little_until_the_kernel_starts(&first, "bcm2837-rpi-3-b.dtb");

    let server = TimeServer::start();
    let config = format!("[time]\nservers = [\"10.0.2.2:{}\"]\n", server.port());
    let mut disk = Disk::flashed_with_config(&first, "pi3", &config);
    let before = disk.system_digests();
    let options = Options {
        emulation: emulation("pi3"),
        persist: true,
        stick: Some(stick(&disk, &second)),
        ..Options::new(disk.path())
    };
    let mut machine = Machine::boot("pi3", &options);
    machine.expect("Loading Environment from FAT... OK", LONG);
    machine.expect("iota loader: version", LONG);
    machine.expect("MBR", LONG);
    machine.expect("slot A: proven", LONG);
    machine.expect("slot A: starting kernel", LONG);
    // The loader has asked QEMU's mailbox; were the watchdog armed, the machine would start over.
    machine.expect("watchdog: not armed: this board is emulated", LONG);
    machine.expect("early stage of 1.0-pi3 in slot A", LONG);
    machine.expect("root mounted", LONG);
    // No clock runs while this machine is off, in QEMU as on a desk.
    machine.expect("clock set to the day of the kernel: 20", LONG);
    machine.expect("data mounted", LONG);
    machine.expect("engine docker ready", LONG);
    machine.expect("system ready", LONG);
    machine.expect_somewhere("network usb0", LONG);
    greets(&mut machine);
    let now = machine.status();
    assert_eq!(
        (&now["slots"]["running"], &now["boot"]["version"]),
        (&"a".into(), &"1.0-pi3".into())
    );
    assert_eq!(disk.system_digests(), before, "the running system wrote outside of its data");
    follows_the_time_of_the_network(&mut machine);
    // QEMU's cards have a power of two of bytes, which the image has not.
    machine.expect_somewhere("data has ", LONG);
    disk.read_table();
    let card = fs::metadata(disk.path()).unwrap().len();
    assert_eq!(disk.table().data().unwrap().extent.end(), Some(card));
    assert!(card > fs::metadata(first.join("disk.img")).unwrap().len());

    // Not through the command port: QEMU's serial line takes an interrupt for each byte.
    let (code, said) = machine.execute(&["update", "install", "usb:"], io::empty());
    assert_eq!(code, 0, "{said}");
    machine.restart(LONG);
    machine.expect("slot B: trial 1", LONG);
    machine.expect("clock set to the time that was kept: 20", LONG);
    machine.expect("trial: slot B is committed", LONG);
    assert_eq!(machine.status()["slots"]["record"]["b"]["state"], "proven");

    let (code, said) = machine.execute(&["rollback"], io::empty());
    assert_eq!(code, 0, "{said}");
    machine.restart(LONG);
    machine.expect("slot A: proven", LONG);
    machine.expect("early stage of 1.0-pi3 in slot A", LONG);
    machine.expect("system ready", LONG);
    machine.power_off(LONG);
}

/// QEMU's machine has another card controller than a Pi 4, and neither PCIe nor Ethernet: what the
/// device tree lacks for it stands in the board's `qemu.edit`. U-Boot, loader, kernel and root are
/// those of the card.
#[test]
fn a_pi_4_boots_from_u_boot_to_a_container() {
    if !slow_tests_wanted() {
        return;
    }
    let outputs = image("pi4", "1.0", 1);
    reads_little_until_the_kernel_starts(&outputs, "bcm2711-rpi-4-b.dtb");
    let options = Options { emulation: emulation("pi4"), ..Options::new(outputs.join("disk.img")) };
    let mut machine = Machine::boot("pi4", &options);
    machine.expect("Loading Environment from FAT... OK", LONG);
    machine.expect("slot A: starting kernel", LONG);
    machine.expect("early stage of 1.0-pi4 in slot A", LONG);
    machine.expect("root mounted", LONG);
    machine.expect("data mounted", LONG);
    machine.expect("system ready", LONG);
    // A Pi 4 has its network elsewhere. On a busy machine QEMU's bus answers a reset of its port
    // with a device that has gone and come back, and Linux gives it up after a few.
    let bus_lost = "dwc2 fe980000.usb: Not connected";
    let first = machine.expect_one_of(&["network usb0", bus_lost], LONG);
    if first == bus_lost {
        eprintln!("QEMU's USB has lost its network card: {first}");
    }
    greets(&mut machine);
}

/// A stick with the update of a build, as it lies on the table of whoever carries it to the Pi.
fn stick(disk: &Disk, outputs: &Path) -> PathBuf {
    let path = disk.path().with_extension("stick");
    let bundle = outputs.join("update.bundle");
    let length = fs::metadata(&bundle).unwrap().len();
    let content = Content::Range { path: Arc::new(bundle), offset: 0, length };
    let file = FatFile { path: "update.bundle".to_owned(), content };
    let mut image = Sparse::create(&path, STICK_BYTES).unwrap();
    let volume = fat::Volume { id: 1, label: "STICK" };
    fat::write(&mut image, 0..STICK_BYTES, volume, &[file]).unwrap();
    image.finish().unwrap();
    path
}

/// By sizes, since QEMU does not count what is read from a card.
fn reads_little_until_the_kernel_starts(outputs: &Path, device_tree: &str) {
    let manifest: Value =
        serde_json::from_slice(&fs::read(outputs.join("manifest.json")).unwrap()).unwrap();
    let length = |list: &str, key: &str, name: &str| {
        let mut entries = manifest[list].as_array().unwrap().iter();
        let entry = entries.find(|entry| entry[key] == name);
        entry.and_then(|entry| entry["length"].as_u64()).unwrap_or_else(|| panic!("no {name}"))
    };
    let initrd = length("parts", "name", "initrd");
    assert!(initrd <= LARGEST_INITRD, "the initrd has {initrd} bytes");
    let disk = outputs.join("disk.img");
    let device = FileDevice::new(File::open(&disk).unwrap()).unwrap();
    let table = PartitionTable::read(&device, SECTOR_BYTES).unwrap();
    let boot = table.boot().unwrap().extent;
    let loader = fat_reader::read_file(&disk, boot, "EFI/BOOT/BOOTAA64.EFI").unwrap();
    let files = ["u-boot.bin", "uboot.env", device_tree];
    let read = files.map(|name| length("boot-files", "path", name)).iter().sum::<u64>()
        + loader.len() as u64
        + layout::MANIFEST_AREA_BYTES
        + length("parts", "name", "kernel")
        + initrd;
    eprintln!("{read} bytes are read until the kernel starts, {initrd} of them initrd");
    assert!(read <= MOST_READ_BEFORE_KERNEL, "{read} bytes are read before the kernel");
}

/// Its clock was of the kernel's day until a server of time has answered.
fn follows_the_time_of_the_network(machine: &mut Machine) {
    let deadline = Instant::now() + LONG;
    loop {
        let (code, text) = machine.execute(&["logs", "time"], io::empty());
        assert_eq!(code, 0, "{text}");
        if text.contains("System clock was stepped by") {
            return;
        }
        assert!(Instant::now() < deadline, "{text}");
        std::thread::sleep(Duration::from_secs(5));
    }
}

/// The container prints, sooner or later than the agent says that it has started.
fn greets(machine: &mut Machine) {
    let greeting = "iota app hello: Hello from a container";
    if !machine.console.log().contains(greeting) {
        machine.expect(greeting, LONG);
    }
}
