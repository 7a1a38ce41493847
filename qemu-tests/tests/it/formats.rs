//! A built image, part by part, before the tools that others trust.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use builder::flash::source::Image;
use builder::hex;
use builder::payload;
use ondisk::layout::{Extent, Slot};
use ondisk::manifest::{Fields, PartName};
use qemu_tests::disk::Disk;
use qemu_tests::{image, slow_tests_wanted, tools, workspace};

#[test]
fn foreign_tools_accept_their_parts_of_a_built_image() {
    if !slow_tests_wanted() {
        return;
    }
    let disk = Disk::copy_of(&image::outputs().join("disk.img"), "formats");
    let manifest = disk.manifest(Slot::A);
    sgdisk_accepts_the_table(disk.path());
    fat_tools_accept_the_boot_partition(&disk);
    e2fsck_accepts_the_data_partition(&disk);
    erofs_accepts_the_root(&disk, &manifest);
    veritysetup_accepts_the_hash_tree(&disk, &manifest);
    cpio_lists_the_initrd(&disk, &manifest);
    the_kernel_unpacks_to_an_arm64_image(&disk, &manifest);
    bmaptool_writes_the_image(image::outputs(), disk.path());
}

#[test]
fn images_are_what_other_flashing_programs_ask_for() {
    if !slow_tests_wanted() {
        return;
    }
    let (plain, packed) =
        (image::outputs().join("disk.img"), image::outputs().join("disk.img.zst"));
    let length = fs::metadata(&plain).unwrap().len();
    // Imager takes whole sectors only; Etcher warns of an image without a table.
    assert!(length.is_multiple_of(512));
    let mut sector = [0; 512];
    fs::File::open(&plain).unwrap().read_exact(&mut sector).unwrap();
    assert_eq!(sector[510..], [0x55, 0xAA]);
    // A row of frames, which the library that Imager unpacks with takes as one file.
    let unpacked = builder::image::zstd::decompress(&packed, &mut std::io::sink());
    assert_eq!(unpacked.unwrap_or_else(|error| panic!("{}", error.chain())), length);
}

#[test]
fn an_image_with_a_config_is_the_plain_one_but_for_its_boot_partition() {
    if !slow_tests_wanted() {
        return;
    }
    let directory = qemu_tests::scratch().join("configured");
    // Of a run before; there may be none.
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    let (file, out) = (directory.join("kiosk.toml"), directory.join("out"));
    let options = ["--config".as_ref(), file.as_os_str(), "--force".as_ref()];
    let build = || image::try_to_build(&out, &options);
    // Refused before anything is made.
    fs::write(&file, "hostnam = \"kiosk-7\"\n").unwrap();
    let error = build().unwrap_err();
    assert_eq!(error.next_step(), Some("did you mean `hostname`?"), "{}", error.chain());
    assert!(!out.exists());

    let text = "# By the window.\nhostname = \"kiosk-7\"\n";
    fs::write(&file, text).unwrap();
    let image = build().unwrap_or_else(|error| panic!("{}", error.chain())).join("disk.img");
    let disk = Disk::copy_of(&image, "configured");
    let boot = disk.table().boot().unwrap().extent;
    let found = builder::image::fat_reader::read_file(disk.path(), boot, "iota.toml");
    assert_eq!(found.unwrap_or_else(|error| panic!("{}", error.chain())), text.as_bytes());
    fat_tools_accept_the_boot_partition(&disk);
    let plain = Disk::copy_of(&image::outputs().join("disk.img"), "configured-not");
    let ([boot, rest @ ..], [plain_boot, plain_rest @ ..]) =
        (disk.system_digests(), plain.system_digests());
    assert!(rest == plain_rest, "the record or a slot is another one");
    assert_ne!(boot, plain_boot);
    build().unwrap_or_else(|error| panic!("{}", error.chain()));
    let again = Disk::copy_of(&image, "configured-again");
    assert!(again.system_digests() == disk.system_digests(), "same input, other bytes");
}

#[test]
fn by_its_block_map_an_image_verifies_on_a_card_full_of_noise() {
    if !slow_tests_wanted() {
        return;
    }
    let image = Image::open(&image::outputs().join("disk.img"), |text| panic!("{text}"), |_| {});
    let image = image.unwrap_or_else(|error| panic!("{}", error.chain()));
    assert!(image.map().is_some());
    let card = qemu_tests::scratch().join("used-card");
    let file = fs::File::create(&card).unwrap();
    for offset in (0..image.length()).step_by(1 << 20) {
        file.write_all_at(&[0xE5; 1 << 20], offset).unwrap();
    }
    file.set_len(image.length()).unwrap();
    let mut reader = image.reader().unwrap_or_else(|error| panic!("{}", error.chain()));
    for stretch in image.stretches(false) {
        let mut bytes = vec![0; usize::try_from(stretch.range.end - stretch.range.start).unwrap()];
        reader.read(stretch.range.start, &mut bytes).unwrap();
        file.write_all_at(&bytes, stretch.range.start).unwrap();
    }
    let keys =
        builder::inspect::trust(&[workspace().join("keys/development.secret")], None).unwrap();
    let findings = builder::inspect::inspect(&card, &keys).unwrap();
    let text = builder::inspect::render(&findings);
    assert!(findings.whole(), "{text}");
    assert!(findings.slots[1].empty || findings.slots[1].manifest.is_empty(), "{text}");
    fs::remove_file(card).unwrap();
}

fn tool(name: &str) -> Command {
    tools::tool(name).command()
}

fn part(disk: &Disk, manifest: &Fields, name: PartName) -> Extent {
    disk.slot(Slot::A).slice(manifest.part(name).extent).unwrap()
}

fn sgdisk_accepts_the_table(disk: &Path) {
    let text = tools::run(tool("sgdisk").arg("-v").arg(disk));
    assert!(text.contains("No problems found"), "{text}");
}

fn fat_tools_accept_the_boot_partition(disk: &Disk) {
    let extent = disk.table().boot().unwrap().extent;
    let esp = disk.extract(extent, "esp");
    tools::run(tool("fsck.vfat").arg("-n").arg(&esp));
    let listing = tools::run(tool("mdir").arg("-b").arg("-i").arg(&esp).arg("::/EFI/BOOT"));
    assert!(listing.contains("BOOTAA64.EFI"), "{listing}");
}

fn e2fsck_accepts_the_data_partition(disk: &Disk) {
    let data = disk.extract(disk.table().data().unwrap().extent, "data");
    tools::run(tool("e2fsck").args(["-f", "-n"]).arg(&data));
    // With one group there would be no second superblock.
    let text = tools::run(tool("dumpe2fs").arg(&data));
    assert!(text.contains("\nGroup 1:"), "{text}");
}

fn erofs_accepts_the_root(disk: &Disk, manifest: &Fields) {
    let root = disk.extract(part(disk, manifest, PartName::Root), "root");
    tools::run(tool("fsck.erofs").arg(&root));
}

fn veritysetup_accepts_the_hash_tree(disk: &Disk, manifest: &Fields) {
    let root = disk.extract(part(disk, manifest, PartName::Root), "root");
    let tree = disk.extract(part(disk, manifest, PartName::Verity), "verity");
    let root_hash = manifest.verity_root_hash.to_string();
    let salt = hex::encode(manifest.verity_salt);
    let verify = |root_hash: &str| {
        let mut command = tool("veritysetup");
        command.args(["verify", "--no-superblock", "--format=1", "--hash=sha256"]);
        command.args(["--data-block-size=4096", "--hash-block-size=4096", "--salt", &salt]);
        command.arg(&root).arg(&tree).arg(root_hash);
        tools::output(&mut command)
    };
    let output = verify(&root_hash);
    assert!(output.status.success(), "{}", tools::text_of(&output));
    assert!(!verify(&"0".repeat(64)).status.success(), "veritysetup accepts any root hash");
}

fn cpio_lists_the_initrd(disk: &Disk, manifest: &Fields) {
    let packed = disk.bytes(part(disk, manifest, PartName::Initrd));
    let archive = disk.path().with_extension("initrd");
    fs::write(&archive, payload::unpack(&packed, 64 << 20).unwrap()).unwrap();
    let text = tools::run(tool("cpio").args(["--list", "--quiet", "-F"]).arg(&archive));
    assert!(text.lines().any(|line| line == "init"), "{text}");
    assert!(text.contains("lib/modules/order"), "{text}");
}

fn the_kernel_unpacks_to_an_arm64_image(disk: &Disk, manifest: &Fields) {
    let packed = disk.bytes(part(disk, manifest, PartName::Kernel));
    let length = manifest.kernel_unpacked.length;
    let kernel = payload::unpack(&packed, usize::try_from(length).unwrap()).unwrap();
    assert_eq!(kernel.len() as u64, length);
    // Documentation/arch/arm64/booting.rst: the magic number at 56.
    assert_eq!(kernel[56..60], *b"ARM\x64");
}

fn bmaptool_writes_the_image(outputs: &Path, expected: &Path) {
    let target = expected.with_extension("written");
    let mut command = tool("bmaptool");
    command.args(["--quiet", "copy", "--bmap"]);
    command.arg(outputs.join("disk.img.bmap")).arg(outputs.join("disk.img")).arg(&target);
    tools::run(&mut command);
    // bmaptool has checked every block that it wrote; what it left out has to be zero.
    let written = builder::image::sparse::SparseImage::open(&target).unwrap();
    let image = builder::image::sparse::SparseImage::open(&outputs.join("disk.img")).unwrap();
    assert_eq!(written.length, image.length);
}
