//! One machine with disks of every kind, and what may be done to each.

use super::*;
use crate::flash::facts::{Bus, FileIdentity, Mount, Node};

const GB: u64 = 1_000_000_000;

fn number(minor: u32) -> DeviceNumber {
    DeviceNumber { major: 8, minor }
}

fn node(name: &str, minor: u32) -> Node {
    Node { name: name.to_owned(), number: number(minor) }
}

/// A stick of 32 GB; the partitions are numbered on from the disk.
fn stick(name: &str, minor: u32, partitions: u32) -> Disk {
    let parts = 1..=partitions;
    Disk {
        node: node(name, minor),
        bytes: 32 * GB,
        sector_bytes: 512,
        model: "Ultra Fit".to_owned(),
        bus: Bus::Usb,
        removable: true,
        read_only: false,
        partitions: parts.map(|part| node(&format!("{name}{part}"), minor + part)).collect(),
    }
}

fn built_in(name: &str, minor: u32, partitions: u32) -> Disk {
    let model = "970 EVO".to_owned();
    Disk { bus: Bus::Other, removable: false, model, ..stick(name, minor, partitions) }
}

fn mount(minor: u32, place: &str) -> Mount {
    Mount { device: number(minor), source: None, place: place.to_owned() }
}

fn machine() -> Facts {
    let anonymous = DeviceNumber { major: 0, minor: 35 };
    Facts {
        disks: vec![
            stick("sda", 0, 2),
            stick("sdb", 10, 1),
            built_in("nvme0n1", 20, 3),
            built_in("sdc", 30, 1),
            built_in("sdd", 40, 0),
            Disk { bytes: 0, ..stick("sde", 50, 0) },
            Disk { read_only: true, ..stick("sdf", 60, 0) },
            Disk { sector_bytes: 4096, ..stick("sdg", 70, 0) },
            built_in("sdh", 80, 0),
            Disk { bus: Bus::Mmc, removable: false, ..stick("mmcblk0", 90, 0) },
            Disk { bus: Bus::Mmc, removable: false, ..stick("mmcblk0boot0", 95, 0) },
            stick("sdi", 100, 1),
            stick("sdj", 110, 1),
            built_in("dm-0", 200, 0),
            built_in("dm-1", 201, 0),
            built_in("md0", 202, 1),
            built_in("loop0", 210, 0),
            stick("sr0", 220, 0),
        ],
        holders: vec![
            // Root and swap are volumes of an encrypted partition.
            (number(23), node("dm-0", 200)),
            (number(200), node("dm-1", 201)),
            // An array on the whole disk, with a partition of its own.
            (number(80), node("md0", 202)),
            (number(111), node("dm-9", 209)),
        ],
        mounts: vec![
            mount(21, "/boot/efi"),
            mount(201, "/"),
            mount(11, "/media/my stick"),
            mount(203, "/srv"),
            Mount { device: anonymous, source: Some(number(31)), place: "/usr".to_owned() },
        ],
        swaps: vec![number(101)],
    }
}

fn file(inode: u64, bytes: u64) -> Seen {
    Seen::File { identity: FileIdentity { device: 1, inode }, bytes }
}

struct Case {
    path: &'static str,
    seen: Seen,
    erase: Option<Place>,
    image_bytes: u64,
}

fn case(path: &'static str, seen: Seen) -> Case {
    Case { path, seen, erase: None, image_bytes: 2 * GB }
}

fn disk_case(path: &'static str, minor: u32) -> Case {
    case(path, Seen::Device(number(minor)))
}

fn place(path: &str, seen: Seen) -> Place {
    Place { path: path.into(), seen }
}

impl Case {
    fn erase(mut self, path: &str, minor: u32) -> Self {
        self.erase = Some(place(path, Seen::Device(number(minor))));
        self
    }

    fn needs(mut self, image_bytes: u64) -> Self {
        self.image_bytes = image_bytes;
        self
    }

    fn decide(&self) -> Result<Permit, Refusal> {
        let sources =
            [place("out/disk.img", file(7, 2 * GB)), place("/dev/sdb", Seen::Device(number(10)))];
        let target = place(self.path, self.seen);
        let request = Request {
            target: &target,
            erase: self.erase.as_ref(),
            sources: if self.path == "/dev/sdb" { &sources[..1] } else { &sources },
            image_bytes: self.image_bytes,
        };
        may_flash(&request, &machine())
    }
}

#[test]
fn every_refusal_says_why_and_what_next() {
    let list = "run `iota flash BOARD` without --device to see the disks there are";
    let there_are = "there are: /dev/sda (32.0 GB Ultra Fit), /dev/sdb (32.0 GB Ultra Fit), \
                     /dev/sdf (32.0 GB Ultra Fit), /dev/sdg (32.0 GB Ultra Fit), \
                     /dev/mmcblk0 (32.0 GB Ultra Fit)";
    for (case, why, next) in [
        (
            case("/tmp", Seen::Directory),
            "/tmp is a directory",
            "name a disk or a file, such as card.img",
        ),
        (case("/dev/null", Seen::Other), "/dev/null is neither a disk nor a regular file", list),
        (case("/dev/sad", Seen::Nothing), "there is no disk /dev/sad", there_are),
        (case("/dev/sdx", file(9, 0)), "there is no disk /dev/sdx", there_are),
        (disk_case("/dev/gone", 255), "there is no disk /dev/gone", there_are),
        (
            case("link.img", file(7, 2 * GB)),
            "link.img is out/disk.img, which is read",
            "name another file",
        ),
        (
            disk_case("/dev/sda2", 2),
            "/dev/sda2 is a partition of /dev/sda; an image is a whole disk",
            "for the whole disk: --device /dev/sda",
        ),
        (disk_case("/dev/dm-1", 201), "/dev/dm-1 is not a disk of its own", list),
        (disk_case("/dev/sr0", 220), "/dev/sr0 is not a disk of its own", list),
        (disk_case("/dev/mmcblk0boot0", 95), "/dev/mmcblk0boot0 is not a disk of its own", list),
        (
            disk_case("/dev/nvme0n1", 20).erase("/dev/nvme0n1", 20),
            "/dev/nvme0n1 runs this machine: /, /boot/efi",
            list,
        ),
        (disk_case("/dev/sdc", 30).erase("/dev/sdc", 30), "/dev/sdc runs this machine: /usr", list),
        (disk_case("/dev/sdi", 100), "/dev/sdi runs this machine: swap", list),
        (
            disk_case("/dev/sdb", 10).erase("/dev/sdb", 10),
            "/dev/sdb is mounted: /media/my stick",
            "unmount it first: umount '/media/my stick'",
        ),
        (disk_case("/dev/sdh", 80), "/dev/sdh is mounted: /srv", "unmount it first: umount '/srv'"),
        (
            disk_case("/dev/sdj", 110),
            "/dev/sdj is in use by dm-9",
            "stop dm-9 first, with the tools that made it",
        ),
        (disk_case("/dev/sde", 50), "/dev/sde has no card in it", "put a card into the reader"),
        (
            disk_case("/dev/sdf", 60),
            "/dev/sdf cannot be written",
            "move the lock at the card's side, or take another",
        ),
        (
            disk_case("/dev/sdg", 70),
            "/dev/sdg has sectors of 4096 bytes, images are made for 512",
            list,
        ),
        (
            disk_case("/dev/sdd", 40),
            "/dev/sdd is not removable (32.0 GB 970 EVO)",
            "if it is meant, name it again: --yes-erase /dev/sdd",
        ),
        (
            disk_case("/dev/loop0", 210),
            "/dev/loop0 is not removable (32.0 GB 970 EVO)",
            "if it is meant, name it again: --yes-erase /dev/loop0",
        ),
        (
            disk_case("/dev/sdd", 40).erase("/dev/sdc", 30),
            "--yes-erase names /dev/sdc, the target is /dev/sdd",
            "to erase it: --device /dev/sdd --yes-erase /dev/sdd",
        ),
        (
            disk_case("/dev/sda", 0).needs(32 * GB + 512),
            "/dev/sda has 32000000000 bytes (32.0 GB), the image needs 32000000512 (32.0 GB)",
            "take a larger card, or make `layout.data` of the board smaller",
        ),
    ] {
        let refusal = case.decide().expect_err(why);
        assert_eq!((refusal.to_string().as_str(), refusal.hint().as_str()), (why, next));
        let error = refusal.into_error();
        assert_eq!((error.chain().as_str(), error.next_step()), (why, Some(next)));
    }
}

#[test]
fn sticks_cards_files_and_disks_named_twice_are_permitted() {
    for (case, bytes, reads_zeros) in [
        (disk_case("/dev/sda", 0), 32 * GB, false),
        (disk_case("/dev/sda", 0).needs(32 * GB), 32 * GB, false),
        (disk_case("/dev/disk/by-id/usb-Ultra_Fit", 0), 32 * GB, false),
        (disk_case("/dev/mmcblk0", 90), 32 * GB, false),
        (disk_case("/dev/sdd", 40).erase("/dev/disk/by-id/ata-970", 40), 32 * GB, false),
        (disk_case("/dev/loop0", 210).erase("/dev/loop0", 210), 32 * GB, false),
        (case("card.img", Seen::Nothing), 2 * GB, true),
        (case("/dev/shm/card.img", Seen::Nothing), 2 * GB, true),
        (case("card.img", file(8, 5)), 2 * GB, true),
        (case("card.img", file(8, 9 * GB)), 9 * GB, true),
    ] {
        let permit = case.decide().unwrap_or_else(|refusal| panic!("{refusal}"));
        assert_eq!(permit.path(), Path::new(case.path));
        assert_eq!((permit.bytes(), permit.reads_zeros()), (bytes, reads_zeros), "{}", case.path);
    }
}

#[test]
fn a_disk_that_is_read_is_not_written() {
    let target = place("/dev/sda", Seen::Device(number(0)));
    let sources = [place("/dev/disk/by-id/usb", Seen::Device(number(0)))];
    let request = Request { target: &target, erase: None, sources: &sources, image_bytes: 0 };
    let refusal = may_flash(&request, &machine()).unwrap_err();
    assert_eq!(refusal.to_string(), "/dev/sda is /dev/disk/by-id/usb, which is read");
}

#[test]
fn what_can_be_taken_out_and_does_not_run_this_machine_is_offered() {
    let facts = machine();
    let found: Vec<_> =
        candidates(&facts).map(|one| (one.disk.node.name.as_str(), one.mounted)).collect();
    let free = Vec::new;
    let mounted = vec!["/media/my stick".to_owned()];
    assert_eq!(
        found,
        [("sda", free()), ("sdb", mounted), ("sdf", free()), ("sdg", free()), ("mmcblk0", free())]
    );
}

#[test]
fn sizes_read_as_they_are_printed_on_cards() {
    for (bytes, text) in
        [(31_914_983_424, "31.9 GB"), (1_000_000_000, "1.0 GB"), (512_000_000, "512 MB")]
    {
        assert_eq!(disk_size(bytes), text);
    }
}
