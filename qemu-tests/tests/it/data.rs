//! A data partition that was hit: repaired or quarantined, and never anything in between; then the
//! same on a device, which tells about it and can be reset.

use std::io;
use std::time::Duration;

use builder::host::qemu::Options;
use ondisk::data_care::{self, State};
use ondisk::ext4::{SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET, seal};
use ondisk::layout::Extent;
use ondisk::reset;
use qemu_tests::damage::{Image, Kind, Original};
use qemu_tests::disk::Disk;
use qemu_tests::hostile_fat::Volume;
use qemu_tests::machine::Machine;
use qemu_tests::{image, slow_tests_wanted, tools};
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(400);

/// Files that nobody has asked for.
const FILES: usize = 100_000;

/// Seeds of a run with slow tests, and of a quick one.
const SEEDS: [u64; 2] = [200, 30];

#[test]
fn what_was_hit_is_whole_afterwards_or_quarantined_and_never_both() {
    let seeds = if slow_tests_wanted() { SEEDS[0] } else { SEEDS[1] };
    let directory = tempfile::tempdir().unwrap();
    let originals =
        [Original::of_the_builder(directory.path()), Original::of_a_reset(directory.path())];
    let mut counts = [0; 3];
    for seed in 0..seeds {
        let kind = Kind::ALL[usize::try_from(seed).unwrap() % Kind::ALL.len()];
        let original = &originals[usize::try_from(seed / 10).unwrap() % 2];
        let mut image = original.damaged(&directory.path().join("image"), kind, seed << 32);
        let state = seen_through(&mut image, seed % 20 >= 10);
        let whole = image.is_whole();
        let quarantined = matches!(state, State::Quarantined { .. });
        assert!(whole != quarantined, "seed {seed}, {kind:?}: whole: {whole}; {state:?}");
        counts[match state {
            State::Good => 0,
            State::Repaired { .. } => 1,
            _ => 2,
        }] += 1;
        if matches!(kind, Kind::NoSuperblocks | Kind::Garbage) {
            assert!(quarantined, "seed {seed}, {kind:?}: {state:?}");
        }
    }
    let [good, repaired, quarantined] = counts;
    eprintln!("{good} good, {repaired} repaired, {quarantined} quarantined");
    assert!(good.min(repaired).min(quarantined) > 0, "the cases are all of a kind");
}

/// Starts until all is found: damage that a start does not look for, the kernel meets later, and
/// the start after that knows.
fn seen_through(image: &mut Image, noted: bool) -> State {
    if noted {
        image.note_errors();
    }
    let state = data_care::bring_up(image, None).state;
    if state != State::Good || image.is_whole() {
        return state;
    }
    image.restart();
    image.note_errors();
    data_care::bring_up(image, None).state
}

#[test]
fn a_device_repairs_its_data_or_quarantines_it_and_resets_it_when_asked() {
    if !slow_tests_wanted() {
        return;
    }
    let disk = Disk::copy_of(&image::outputs().join("disk.img"), "data-care");
    let options = Options { persist: true, ..Options::new(disk.path()) };

    let identity = plant_identity(&disk);
    hit_the_top_directory(&disk);
    let mut machine = Machine::boot("data-repaired", &options);
    machine.expect("data is checked: e2fsck -f -p", LONG);
    machine.expect("data repaired: the kernel met errors on it; ", LONG);
    machine.expect("data mounted", LONG);
    let data = data_of(&mut machine, "repaired");
    assert!(
        data["said"].as_str().unwrap().contains("Inode 2 passes checks, but checksum"),
        "{data}"
    );
    assert!(data["bytes"].as_u64() > data["used-bytes"].as_u64(), "{data}");
    resets(&mut machine, &["reset"], "everything");
    resets(&mut machine, &["reset", "cancel"], "nothing");
    resets(&mut machine, &["reset", "--keep-identity"], "keep-identity");
    machine.restart(LONG);
    machine.expect("data is empty but for the identity", LONG);
    assert_eq!(data_of(&mut machine, "new-kept-identity")["reset"], Value::Null);
    machine.power_off(LONG);
    drop(machine);
    data_is_whole(&disk);
    assert!(listed(&disk, "/iota/identity").contains(&identity));
    assert!(!listed(&disk, "/").contains(&"junk".to_owned()), "{:?}", listed(&disk, "/"));

    destroy_superblocks(&disk);
    let extent = disk.table().data().unwrap().extent;
    let before = disk.digests(extent);
    let mut machine = Machine::boot("data-quarantined", &options);
    machine.expect("data NOT mounted: it has no superblock of ext4; e2fsck -y ended with", LONG);
    data_of(&mut machine, "quarantined");
    let (code, text) = machine.execute(&["status"], io::empty());
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("QUARANTINED: it has no superblock of ext4"), "{text}");
    machine.power_off(LONG);
    drop(machine);
    assert_eq!(disk.digests(extent), before, "a partition in quarantine was written");

    disk.overwrite(extent.offset, &[0xa5; 1 << 20]);
    put_on_the_boot_partition(&disk, "iota-reset", "");
    // What somebody prepared with a tool for cards, while there is no file of ours.
    let seed = "#cloud-config\nhostname: kitchen\nruncmd: [[reboot]]\n";
    put_on_the_boot_partition(&disk, "user-data", seed);
    let mut machine = Machine::boot("data-reset", &options);
    machine.expect("data NOT mounted", LONG);
    machine.expect("reset: asked for on the boot partition (everything); restarting", LONG);
    machine.expect("data is reset, as was asked for: everything goes", LONG);
    machine.expect("data is new", LONG);
    machine.expect("engine docker ready", LONG);
    data_of(&mut machine, "new");
    is_told_by_cloud_init(&mut machine);
    machine.power_off(LONG);
    let said = machine.console.log();
    drop(machine);
    assert_eq!(said.matches("data is reset").count(), 1, "{said}");
    data_is_whole(&disk);
    let record = disk.table().record().unwrap();
    assert_eq!(reset::read(&disk.bytes(record), Extent { offset: 0, ..record }), None);
    power_that_is_cut_soon_after_each_start_resets(&disk, &options);
}

/// The last two of six starts in a row.
fn power_that_is_cut_soon_after_each_start_resets(disk: &Disk, options: &Options) {
    put_on_the_boot_partition(disk, "iota.toml", "[reset]\npower-cycles = true\n");
    let count = disk.path().with_extension("starts");
    std::fs::write(&count, "4\n").unwrap();
    debugfs(disk, &format!("mkdir junk\ncd iota\nwrite {} starts\n", count.display()));
    let mut machine = Machine::boot("data-fifth-start", options);
    machine.expect("reset: start 5 of 6 in quick succession; 1 more reset the data", LONG);
    // Its power goes.
    drop(machine);

    let mut machine = Machine::boot("data-sixth-start", options);
    machine.expect("reset: asked for by 6 starts in quick succession; restarting", LONG);
    machine.expect("data is new", LONG);
    machine.expect("config: iota.toml", LONG);
    machine.power_off(LONG);
    drop(machine);
    let left = listed(disk, "/");
    assert!(!left.contains(&"junk".to_owned()), "{left:?}");
    let left = listed(disk, "/iota");
    assert!(!left.contains(&"starts".to_owned()), "an end that was asked for counts: {left:?}");
}

/// The device says how it stands with its data; gives all that it says about it.
fn data_of(machine: &mut Machine, state: &str) -> Value {
    let status = machine.status();
    assert_eq!(status["data"]["state"], state, "{status}");
    status["data"].clone()
}

/// A command about a reset is obeyed, and the device says that it is.
fn resets(machine: &mut Machine, command: &[&str], expected: &str) {
    let (code, said) = machine.execute(command, io::empty());
    assert_eq!(code, 0, "{said}");
    let status = machine.status();
    let reset = status["data"]["reset"].as_str().unwrap_or("nothing");
    assert_eq!(reset, expected, "{status}");
}

fn data_is_whole(disk: &Disk) {
    let data = disk.extract(disk.table().data().unwrap().extent, "data");
    tools::run(tools::tool("e2fsck").command().args(["-f", "-n"]).arg(data));
}

/// Runs commands of debugfs on the data partition.
pub(crate) fn debugfs(disk: &Disk, commands: &str) -> String {
    let offset = disk.table().data().unwrap().extent.offset;
    let script = disk.path().with_extension("commands");
    std::fs::write(&script, commands).unwrap();
    let place = format!("{}?offset={offset}", disk.path().display());
    tools::run(tools::tool("debugfs").command().arg("-w").arg("-f").arg(script).arg(place))
}

/// Puts an identity and something else onto the data partition; gives the name of the file.
fn plant_identity(disk: &Disk) -> String {
    let name = "planted";
    let content = disk.path().with_extension(name);
    std::fs::write(&content, "0123456789abcdef\n").unwrap();
    let commands = "mkdir iota\nmkdir iota/identity\nmkdir junk\ncd iota/identity\n";
    debugfs(disk, &format!("{commands}write {} {name}\n", content.display()));
    name.to_owned()
}

/// Names in a directory of the data partition.
pub(crate) fn listed(disk: &Disk, directory: &str) -> Vec<String> {
    let text = debugfs(disk, &format!("ls -p {directory}\n"));
    let names = text.lines().filter_map(|line| line.strip_prefix('/')?.split('/').nth(4));
    names.filter(|name| !matches!(*name, "" | "." | "..")).map(str::to_owned).collect()
}

/// Changes the time of the top directory behind its checksum's back, and notes errors, as a kernel
/// does that met that.
fn hit_the_top_directory(disk: &Disk) {
    let start = disk.table().data().unwrap().extent.offset;
    let descriptor = disk.bytes(Extent { offset: start + 4096 + 8, length: 4 });
    let table = u64::from(u32::from_le_bytes(*descriptor.first_chunk().unwrap()));
    // The second inode, of 256 bytes; its time of last access.
    disk.overwrite(start + table * 4096 + 256 + 8, &[0x5a]);
    let place = Extent { offset: start + SUPERBLOCK_OFFSET, length: 1024 };
    let mut superblock = *disk.bytes(place).first_chunk::<SUPERBLOCK_BYTES>().unwrap();
    superblock[0x3A] |= 2;
    seal(&mut superblock);
    disk.overwrite(place.offset, &superblock);
}

/// Every superblock that there may be: at the start of each group.
fn destroy_superblocks(disk: &Disk) {
    let extent = disk.table().data().unwrap().extent;
    disk.overwrite(extent.offset, &[0; 4096]);
    for offset in (0..extent.length).step_by(32_768 * 4096).skip(1) {
        disk.overwrite(extent.offset + offset, &[0; 4096]);
    }
}

/// Has what the file says, and names what it does not do.
fn is_told_by_cloud_init(machine: &mut Machine) {
    let status = machine.status();
    assert_eq!(status["hostname"], "kitchen", "{status}");
    let left_out = "user-data, line 3, column 1: `runcmd` is not supported";
    let expected = json!({
        "source": "file",
        "problem": null,
        "imported-from": "user-data",
        "left-out": [left_out],
    });
    assert_eq!(status["config"], expected, "{status}");
    let (_, text) = machine.execute(&["status"], io::empty());
    let line = format!("config     imported from user-data\n           left out: {left_out}\n");
    assert!(text.contains(&line), "{text}");
}

/// What an owner does with a card reader.
fn put_on_the_boot_partition(disk: &Disk, name: &str, text: &str) {
    let file = disk.path().with_extension("file");
    std::fs::write(&file, text).unwrap();
    let boot = disk.table().boot().unwrap().extent.offset;
    let place = format!("{}@@{boot}", disk.path().display());
    let mut copy = tools::tool("mcopy").command();
    tools::run(copy.arg("-i").arg(place).arg(file).arg(format!("::{name}")));
}

/// What somebody with a card reader can do to the boot partition: a file whose clusters go round in
/// a circle, and a hundred thousand others beside it. The device starts as if it had none, and says
/// why.
#[test]
fn a_boot_partition_of_circles_and_a_hundred_thousand_files_does_not_keep_a_device_from_starting() {
    if !slow_tests_wanted() {
        return;
    }
    let disk = Disk::copy_of(&image::outputs().join("disk.img"), "hostile-fat");
    let marker = "# a file that comes back to its beginning\n";
    let text = format!("{marker}hostname = \"circle\"\n{}", "# more\n".repeat(5000));
    put_on_the_boot_partition(&disk, "iota.toml", &text);
    let mut volume = Volume::of(&disk);
    volume.lead_in_a_circle(marker.as_bytes());
    volume.crowd_the_top_directory(FILES);
    is_crowded(&disk);
    let mut machine = Machine::boot("hostile-fat", &Options::new(disk.path()));
    machine.expect_somewhere("config: ERROR: ", LONG);
    machine.expect_somewhere("system ready", LONG);
    let status = machine.status();
    assert_eq!(status["hostname"], "iota", "{status}");
    assert!(status["config"]["problem"].is_string(), "{status}");
    machine.power_off(LONG);
}

/// As a foreign tool sees it.
fn is_crowded(disk: &Disk) {
    let boot = disk.table().boot().unwrap().extent.offset;
    let place = format!("{}@@{boot}", disk.path().display());
    let text = tools::run(tools::tool("mdir").command().arg("-b").arg("-i").arg(place).arg("::"));
    assert_eq!(text.lines().filter(|line| line.starts_with("::/N")).count(), FILES);
}
