//! The whole verb on files and, where this machine lets us, on a loop device: images of both kinds
//! of partition table, held against the tools that others trust.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::process::Command;

use clap::Parser as _;
use ondisk::gpt;
use ondisk::guid::Guid;
use ondisk::layout::{Extent, PerSlot, SECTOR_BYTES};
use ondisk::partition_table::PartitionTable;

use super::*;
use crate::board::{self, Layout};
use crate::cli::{Cli, Verb};
use crate::disk_image::{self, Contents, DiskIds, DiskLayout};
use crate::flash::facts::{Bus, DeviceNumber, Disk, Node};
use crate::image::fat::{FatFile, Volume};
use crate::image::sparse::{Sparse, SparseImage};
use crate::image::zstd::{self, Compression};
use crate::image::{bmap, ext4, foreign};
use crate::tree::Content;

const MIB: u64 = 1 << 20;

/// A small disk image of a kind of ours, with its block map and packed.
struct Sample {
    directory: tempfile::TempDir,
    image: SparseImage,
}

impl Sample {
    fn new(table: board::Table) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let image = make(directory.path(), table);
        bmap::write(&image, &directory.path().join("disk.img.bmap")).unwrap();
        let packed = directory.path().join("disk.img.zst");
        zstd::compress(&image, &packed, Compression::FAST, |_| {}).unwrap();
        Self { directory, image }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    /// A part of a disk in a file of its own.
    fn extract(&self, disk: &str, extent: Extent, name: &str) -> String {
        let mut bytes = vec![0; extent.length as usize];
        let disk = File::open(self.directory.path().join(disk)).unwrap();
        disk.read_exact_at(&mut bytes, extent.offset).unwrap();
        fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    /// `iota flash`, with names in the sample's directory.
    fn flash(&self, image: &str, device: &str, more: &[&str]) -> Result<()> {
        flash(&self.path(image), &self.path(device), more)
    }
}

fn make(directory: &Path, table: board::Table) -> SparseImage {
    let sizes = Layout { table, boot_bytes: 64 * MIB, slot_bytes: 16 * MIB, data_bytes: 192 * MIB };
    let layout = DiskLayout::plan(&sizes).unwrap();
    let guid = |number: u8| Guid::from_hash(&[number; 32]);
    let ids = DiskIds {
        signature: 0x0bad_cafe,
        disk: guid(1),
        boot: guid(2),
        record: guid(3),
        slots: PerSlot { a: guid(4), b: guid(5) },
        data: guid(6),
    };
    let mut slot = Sparse::create(&directory.join("slot.img"), 16 * MIB).unwrap();
    slot.write_at(0, &[0xAA; 5 * MIB as usize]).unwrap();
    slot.write_at(16 * MIB - 4096, &[0xBB; 4096]).unwrap();
    let file = |path: &str, length| FatFile {
        path: path.to_owned(),
        content: Content::bytes(vec![0x4D; length]),
    };
    let contents = Contents {
        boot_volume: Volume { id: 7, label: "BOOT" },
        boot_files: &[file("EFI/BOOT/BOOTAA64.EFI", 700_000), file("config.txt", 100)],
        record: [&[0x11; 512], &[0x22; 512]],
        slot: &slot.finish().unwrap(),
        data_identity: ext4::Identity {
            uuid: [8; 16],
            hash_seed: [9; 16],
            label: "data",
            time: 1_700_000_000,
        },
        data_directories: &[],
    };
    disk_image::write(&directory.join("disk.img"), &layout, &ids, &contents, |_| Ok(())).unwrap()
}

fn flash(image: &str, device: &str, more: &[&str]) -> Result<()> {
    let words = ["iota", "--quiet", "flash", image, "--device", device];
    let cli = Cli::try_parse_from(words.iter().chain(more)).unwrap();
    let Verb::Flash(arguments) = &cli.verb else { panic!() };
    run(arguments, &cli.common).map(|_| ())
}

fn same_contents(a: &str, b: &str) -> bool {
    fs::read(a).unwrap() == fs::read(b).unwrap()
}

fn table_of(path: &str) -> PartitionTable {
    let device = FileDevice::new(File::open(path).unwrap()).unwrap();
    PartitionTable::read(&device, SECTOR_BYTES).unwrap()
}

#[test]
fn a_name_with_a_directory_or_an_ending_is_a_file() {
    for file in ["./disk", "out/pi4/disk.img", "disk.img", "disk.img.zst", "/dev/sdb"] {
        assert_eq!(What::of(file), What::File(file.into()));
    }
    for board in ["pi4", "generic-aarch64", "img"] {
        assert_eq!(What::of(board), What::Board(board));
    }
}

#[test]
fn candidates_line_up_and_say_where_they_are_mounted() {
    let disk = |name: &str, bytes, model: &str| Disk {
        node: Node { name: name.to_owned(), number: DeviceNumber { major: 8, minor: 0 } },
        bytes,
        sector_bytes: 512,
        model: model.to_owned(),
        bus: Bus::Usb,
        removable: true,
        read_only: false,
        partitions: Vec::new(),
    };
    let (stick, card) =
        (disk("sdb", 31_914_983_424, "Ultra Fit"), disk("mmcblk0", 512_000_000, "SC32G"));
    let found = [
        Candidate { disk: &stick, mounted: vec!["/media/a".to_owned()] },
        Candidate { disk: &card, mounted: Vec::new() },
    ];
    assert_eq!(
        candidate_lines(&found),
        ["/dev/sdb      31.9 GB  Ultra Fit  mounted: /media/a", "/dev/mmcblk0   512 MB  SC32G"]
    );
}

#[test]
fn a_file_becomes_the_image_from_either_form_with_and_without_a_map() {
    let sample = Sample::new(board::Table::Gpt);
    for with_map in [true, false] {
        if !with_map {
            fs::remove_file(sample.path("disk.img.bmap")).unwrap();
        }
        for image in ["disk.img", "disk.img.zst"] {
            // What was in the file before is no part of the image.
            fs::write(sample.path("card"), vec![0xE5; 9 * MIB as usize]).unwrap();
            sample.flash(image, "card", &[]).unwrap();
            assert!(same_contents(&sample.path("card"), &sample.path("disk.img")), "{image}");
            let blocks = fs::metadata(sample.path("card")).unwrap().blocks();
            assert!(blocks * 512 < 40 * MIB, "{image}: not sparse, {blocks} blocks");
        }
    }
}

#[test]
fn the_image_stays_as_it_is_and_is_never_its_own_target() {
    let sample = Sample::new(board::Table::Mbr);
    let before = fs::read(sample.path("disk.img")).unwrap();
    fs::hard_link(sample.path("disk.img"), sample.path("link.img")).unwrap();
    let error = sample.flash("disk.img", "link.img", &[]).unwrap_err();
    assert!(error.to_string().ends_with("disk.img, which is read"), "{error}");
    fs::write(sample.path("iota.toml"), "hostname = \"box\"\n").unwrap();
    sample.flash("disk.img", "card", &["--config", &sample.path("iota.toml")]).unwrap();
    assert!(fs::read(sample.path("disk.img")).unwrap() == before);
}

#[test]
fn a_config_is_in_the_boot_partition_and_only_there() {
    let text = "# bö\nhostname = \"box\"\n".to_owned() + &"# long\n".repeat(1000);
    for table in [board::Table::Gpt, board::Table::Mbr] {
        let sample = Sample::new(table);
        let config = |text: &str| {
            fs::write(sample.path("mine.toml"), text).unwrap();
            ["--config".to_owned(), sample.path("mine.toml")]
        };
        let flash = |image: &str, text: &str| {
            let words = config(text);
            sample.flash(image, "card", &[&words[0], &words[1]]).unwrap();
            let boot = table_of(&sample.path("card")).boot().unwrap().extent;
            look_into(&sample.extract("card", boot, "boot"), text);
            boot
        };
        for image in ["disk.img", "disk.img.zst"] {
            let boot = flash(image, &text);
            let mut card = fs::read(sample.path("card")).unwrap();
            let plain = fs::read(sample.path("disk.img")).unwrap();
            let boot = boot.offset as usize..(boot.offset + boot.length) as usize;
            assert!(card[boot.clone()] != plain[boot.clone()]);
            card[boot.clone()].copy_from_slice(&plain[boot]);
            assert!(card == plain, "{image}: something outside of the boot partition changed");
        }
        // Another one takes the place of one that is there.
        fs::rename(sample.path("card"), sample.path("first.img")).unwrap();
        flash("first.img", "hostname = \"short\"\n");
    }
}

/// What others find in a boot partition with a config.
fn look_into(volume: &str, config: &str) {
    if let Some(mtype) = foreign::tool("mtype") {
        assert_eq!(mtype.run(&["-i", volume, "::/iota.toml"]), config);
        let loader = mtype.run(&["-i", volume, "::/EFI/BOOT/BOOTAA64.EFI"]);
        assert_eq!(loader.len(), 700_000);
    }
    if let Some(mdir) = foreign::tool("mdir") {
        let listing = mdir.run(&["-i", volume, "::/"]);
        assert!(listing.contains("1980-01-01"), "{listing}");
    }
    if let Some(fsck) = foreign::tool("fsck.vfat") {
        fsck.run(&["-n", volume]);
    }
}

#[test]
fn the_same_image_and_config_give_the_same_card() {
    let sample = Sample::new(board::Table::Mbr);
    fs::write(sample.path("a.toml"), "hostname = \"box\"\n").unwrap();
    for card in ["one", "two"] {
        sample.flash("disk.img.zst", card, &["--config", &sample.path("a.toml")]).unwrap();
    }
    assert!(same_contents(&sample.path("one"), &sample.path("two")));
}

#[test]
fn configs_that_are_none_are_refused_before_anything_is_written() {
    let sample = Sample::new(board::Table::Gpt);
    let config = sample.path("bad.toml");
    for (bytes, expected) in [
        (&b"hostname = \n"[..], "bad.toml: line 1, column 12: "),
        (b"name = \"box\"\n", "bad.toml: line 1, column 1: `name` is not a key"),
        (b"hostname = \"\xff\"\n", "bad.toml: line 1, column 13: not UTF-8 from here on"),
        (&[b'#'; ::config::MOST_BYTES + 1], "bad.toml: the file has more than 65536 bytes"),
    ] {
        fs::write(&config, bytes).unwrap();
        let error = sample.flash("disk.img", "card", &["--config", &config]).unwrap_err();
        assert!(error.chain().contains(expected), "{}", error.chain());
        assert!(!fs::exists(sample.path("card")).unwrap());
    }
    let error = sample.flash("disk.img", "card", &["--config", "/none.toml"]).unwrap_err();
    assert!(error.chain().starts_with("cannot read /none.toml"), "{}", error.chain());
}

#[test]
fn a_larger_card_has_the_backup_of_its_table_at_its_end() {
    let sample = Sample::new(board::Table::Gpt);
    let card = sample.path("card");
    for extra in [512, 100 * MIB] {
        File::create(&card).unwrap().set_len(sample.image.length + extra).unwrap();
        sample.flash("disk.img.zst", "card", &[]).unwrap();
        let file = File::options().read(true).write(true).open(&card).unwrap();
        assert_eq!(file.metadata().unwrap().len(), sample.image.length + extra);
        if let Some(sgdisk) = foreign::tool("sgdisk") {
            let text = sgdisk.run(&["-v", &card]);
            assert!(text.contains("No problems found"), "{text}");
        }
        let device = FileDevice::new(file.try_clone().unwrap()).unwrap();
        let original = FileDevice::new(File::open(sample.path("disk.img")).unwrap()).unwrap();
        let primary = gpt::Table::read(&device, SECTOR_BYTES).unwrap();
        assert_eq!(primary, gpt::Table::read(&original, SECTOR_BYTES).unwrap());
        // Without the first one, the one at the end says the same.
        file.write_all_at(&[0; 512], 512).unwrap();
        let backup = gpt::Table::read(&device, SECTOR_BYTES).unwrap();
        assert_eq!(backup.source, gpt::Source::Backup);
        assert_eq!(backup.partitions, primary.partitions);
    }
}

#[test]
fn what_is_no_disk_image_is_refused_before_the_target_is_touched() {
    let sample = Sample::new(board::Table::Mbr);
    fs::write(sample.path("short.img"), [0x55; 4096]).unwrap();
    fs::write(sample.path("marked.img"), {
        let mut bytes = vec![0; 2 * MIB as usize];
        bytes[..crate::flash::MARKER.len()].copy_from_slice(crate::flash::MARKER.as_bytes());
        bytes
    })
    .unwrap();
    let packed = fs::read(sample.path("disk.img.zst")).unwrap();
    fs::write(sample.path("cut.img.zst"), &packed[..packed.len() - 5]).unwrap();
    for (image, expected) in [
        ("short.img", "short.img is no disk image: it has 4096 bytes"),
        ("slot.img", "slot.img is no disk image: it has no partition table"),
        ("marked.img", "marked.img is no disk image: it was made by an interrupted iota flash"),
        ("cut.img.zst", "cannot unpack "),
        ("none.img", "cannot read "),
        (".", "is a directory"),
    ] {
        let error = sample.flash(image, "card", &[]).unwrap_err();
        assert!(error.chain().contains(expected), "{image}: {}", error.chain());
        assert!(!fs::exists(sample.path("card")).unwrap(), "{image}");
    }
}

#[test]
fn a_damaged_image_leaves_a_card_that_says_it_is_incomplete() {
    let sample = Sample::new(board::Table::Mbr);
    let image = File::options().write(true).open(sample.path("disk.img")).unwrap();
    image.write_all_at(b"?", sample.image.mapped.iter().last().unwrap().start).unwrap();
    let error = sample.flash("disk.img", "card", &[]).unwrap_err();
    assert!(error.chain().contains("does not fit its block map"), "{}", error.chain());
    let card = fs::read(sample.path("card")).unwrap();
    assert!(is_incomplete(&card));
    // A map that does not fit itself is not used at all.
    let map = fs::read_to_string(sample.path("disk.img.bmap")).unwrap();
    fs::write(sample.path("disk.img.bmap"), map.replace(" 0 <", " 1 <")).unwrap();
    sample.flash("disk.img", "card", &[]).unwrap();
    assert!(same_contents(&sample.path("card"), &sample.path("disk.img")));
}

#[test]
fn without_a_device_nothing_is_written_and_the_hint_says_how() {
    let cli = Cli::try_parse_from(["iota", "flash", "generic-aarch64"]).unwrap();
    let Verb::Flash(arguments) = &cli.verb else { panic!() };
    let error = run(arguments, &cli.common).unwrap_err();
    assert!(error.to_string().starts_with("no --device: nothing was written"), "{error}");
    assert!(error.next_step().unwrap().contains("--device"));
    let words = ["iota", "flash", "a.img", "--device", "b.img", "--release", "--key", "k"];
    let cli = Cli::try_parse_from(words).unwrap();
    let Verb::Flash(arguments) = &cli.verb else { panic!() };
    let error = run(arguments, &cli.common).unwrap_err().to_string();
    assert!(error.starts_with("a.img is a file: --release"), "{error}");
}

/// A file of the sample as a block device, for as long as this lives.
struct Loop(String);

impl Loop {
    /// `None`, with a line that says so, where this machine has no loop devices for us.
    fn over(file: &str) -> Option<Self> {
        let output = Command::new("losetup").args(["--find", "--show", file]).output();
        match output {
            Ok(output) if output.status.success() => {
                Some(Self(String::from_utf8(output.stdout).unwrap().trim().to_owned()))
            }
            other => {
                eprintln!("skipped: no loop device for this test: {other:?}");
                None
            }
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

#[test]
fn a_used_card_becomes_a_clean_one() {
    for table in [board::Table::Gpt, board::Table::Mbr] {
        let sample = Sample::new(table);
        let length = sample.image.length + 20 * MIB;
        fs::write(sample.path("noise"), vec![0xE5; usize::try_from(length).unwrap()]).unwrap();
        let Some(device) = Loop::over(&sample.path("noise")) else { return };
        let image = sample.path("disk.img.zst");
        let error = flash(&image, &device.0, &[]).unwrap_err().to_string();
        assert!(error.contains("is not removable"), "{error}");
        flash(&image, &device.0, &["--yes-erase", &device.0]).unwrap();
        check_file_systems(&sample, &device.0);
        drop(device);
        let card = fs::read(sample.path("noise")).unwrap();
        let plain = fs::read(sample.path("disk.img")).unwrap();
        // Between the tables, which differ since the card is larger.
        for range in sample.image.mapped.iter().filter(|range| range.start >= MIB) {
            let end = range.end.min(sample.image.length - MIB).max(range.start);
            let range = range.start as usize..end as usize;
            assert!(card[range.clone()] == plain[range]);
        }
        let behind = &card[sample.image.length as usize..][..4096];
        assert!(behind.iter().all(|byte| *byte == 0xE5), "more than the map was written");
    }
}

/// What the map leaves out is noise now: nobody may read it.
fn check_file_systems(sample: &Sample, device: &str) {
    let table = table_of(device);
    let boot = sample.extract(device, table.boot().unwrap().extent, "boot");
    let data = sample.extract(device, table.data().unwrap().extent, "data");
    if let Some(fsck) = foreign::tool("fsck.vfat") {
        fsck.run(&["-n", &boot]);
    }
    if let Some(e2fsck) = foreign::tool("e2fsck") {
        e2fsck.run(&["-f", "-n", &data]);
    }
}

#[test]
fn a_claimed_disk_is_refused_by_the_kernel() {
    let sample = Sample::new(board::Table::Mbr);
    File::create(sample.path("card")).unwrap().set_len(sample.image.length).unwrap();
    let Some(device) = Loop::over(&sample.path("card")) else { return };
    let excl = i32::try_from(rustix::fs::OFlags::EXCL.bits()).unwrap();
    let claim = {
        use std::os::unix::fs::OpenOptionsExt as _;
        File::options().read(true).custom_flags(excl).open(&device.0).unwrap()
    };
    let words = ["--yes-erase", device.0.as_str()];
    let error = flash(&sample.path("disk.img"), &device.0, &words).unwrap_err();
    assert!(error.chain().contains("cannot open /dev/loop"), "{}", error.chain());
    assert!(fs::read(sample.path("card")).unwrap().iter().all(|byte| *byte == 0));
    drop(claim);
    flash(&sample.path("disk.img"), &device.0, &words).unwrap();
    drop(device);
    assert!(same_contents(&sample.path("card"), &sample.path("disk.img")));
}
