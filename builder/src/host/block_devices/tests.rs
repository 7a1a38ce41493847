//! Facts made up as the kernel shows them, and targets that are opened.

use super::*;

/// A root with the given files; a name that ends in `->` is a link.
fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = root.path().join(name.trim_end_matches("->"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match name.strip_suffix("->") {
            Some(_) => std::os::unix::fs::symlink(text, path).unwrap(),
            None => fs::write(path, text).unwrap(),
        }
    }
    root
}

const STICK: &str = "sys/devices/pci0000:00/0000:00:14.0/usb1/1-2/host6/block/sda";
const CARD: &str = "sys/devices/platform/soc/mmc_host/mmc0/mmc0:aaaa/block/mmcblk0";

fn files() -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut add = |name: String, text: &str| files.push((name, text.to_owned()));
    for (path, dev, size, removable, model) in [
        (STICK, "8:0", "62333952", "1", "model"),
        (CARD, "179:0", "249856000", "0", "name"),
        ("sys/devices/virtual/block/dm-0", "253:0", "1000", "0", "none"),
    ] {
        add(format!("{path}/dev"), dev);
        add(format!("{path}/size"), size);
        add(format!("{path}/removable"), removable);
        add(format!("{path}/ro"), "0\n");
        add(format!("{path}/queue/logical_block_size"), "512\n");
        add(format!("{path}/device/{model}"), "Ultra Fit  \n");
        let name = path.rsplit('/').next().unwrap();
        add(format!("sys/block/{name}->"), &format!("../../{path}"));
    }
    add(format!("{STICK}/device/vendor"), "SanDisk \n");
    for (part, dev) in [("sda1", "8:1"), ("sda2", "8:2")] {
        add(format!("{STICK}/{part}/partition"), "1\n");
        add(format!("{STICK}/{part}/dev"), dev);
    }
    add(format!("{STICK}/sda2/holders/dm-0->"), "../../../dm-0");
    add(
        "proc/self/mountinfo".to_owned(),
        "22 27 0:21 / /proc rw,relatime - proc proc rw\n\
         27 1 0:35 /@ / rw,noatime shared:1 - btrfs /dev/mapper/root rw\n\
         31 27 8:1 / /media/my\\040stick rw,nosuid shared:9 - vfat /dev/sda1 rw\n",
    );
    add(
        "proc/swaps".to_owned(),
        "Filename\tType\tSize\tUsed\tPriority\n/swap\\040file file 524284 0 -2\n",
    );
    files
}

fn loaded() -> Facts {
    let files = files();
    let files: Vec<_> = files.iter().map(|(name, text)| (&name[..], &text[..])).collect();
    let root = root(&files);
    let device_of = |path: &Path| match path.to_str().unwrap() {
        "/dev/sda1" => device_number("8:1"),
        "/dev/mapper/root" => device_number("253:0"),
        "/swap file" => device_number("179:0"),
        other => panic!("asked for {other}"),
    };
    load(root.path(), &device_of).unwrap()
}

#[test]
fn disks_are_read_with_bus_model_and_partitions() {
    let facts = loaded();
    let names: Vec<_> = facts.disks.iter().map(|disk| disk.node.name.as_str()).collect();
    assert_eq!(names, ["dm-0", "mmcblk0", "sda"]);
    let node = |name: &str, minor| Node {
        name: name.to_owned(),
        number: DeviceNumber { major: 8, minor },
    };
    assert_eq!(
        facts.disks[2],
        Disk {
            node: node("sda", 0),
            bytes: 62_333_952 * 512,
            sector_bytes: 512,
            model: "SanDisk Ultra Fit".to_owned(),
            bus: Bus::Usb,
            removable: true,
            read_only: false,
            partitions: vec![node("sda1", 1), node("sda2", 2)],
        }
    );
    assert_eq!((facts.disks[1].bus, facts.disks[1].removable), (Bus::Mmc, false));
    assert_eq!(facts.disks[1].model, "Ultra Fit");
    assert_eq!(facts.disks[0].bus, Bus::Other);
}

#[test]
fn holders_mounts_and_swaps_lead_to_devices() {
    let facts = loaded();
    let number = |text| device_number(text).unwrap();
    let holder = Node { name: "dm-0".to_owned(), number: number("253:0") };
    assert_eq!(facts.holders, [(number("8:2"), holder)]);
    let mounts: Vec<_> =
        facts.mounts.iter().map(|mount| (mount.place.as_str(), mount.source)).collect();
    assert_eq!(
        mounts,
        [("/proc", None), ("/", device_number("253:0")), ("/media/my stick", device_number("8:1"))]
    );
    assert_eq!(facts.swaps, [number("179:0")]);
}

#[test]
fn this_machines_own_facts_name_what_is_mounted_at_its_root() {
    let facts = facts().unwrap();
    assert!(facts.mounts.iter().any(|mount| mount.place == "/"), "{facts:?}");
}

#[test]
fn a_path_is_seen_as_what_it_leads_to() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "12345").unwrap();
    let other_name = directory.path().join("other");
    fs::hard_link(&file, &other_name).unwrap();
    let Seen::File { identity, bytes: 5 } = look(&file).unwrap().seen else { panic!() };
    assert_eq!(look(&other_name).unwrap().seen, Seen::File { identity, bytes: 5 });
    assert_eq!(look(directory.path()).unwrap().seen, Seen::Directory);
    assert_eq!(look(&directory.path().join("none")).unwrap().seen, Seen::Nothing);
    assert_eq!(look(Path::new("/dev/null")).unwrap().seen, Seen::Other);
}
