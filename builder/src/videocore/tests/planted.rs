//! Mistakes planted into good cards, one at a time: each has to be found, by one rule, at the
//! stage where the real machine would stumble.

use expect_test::expect;
use ondisk::device::ReadAt;

use super::sample::{BOOT_START, MIB, Sample, environment, fixup, pi3, pi4, program, start, tree};
use super::{PI3, PI4, report};
use crate::videocore::Model;

/// A mistake: what it is, and how it gets into a card.
type Planted = (&'static str, fn(&mut Sample));

/// Found on the Pi 3 family.
const ON_PI3: [Planted; 24] = [
    ("no signature", |card| card.patches.push((510, vec![0, 0]))),
    ("type 0xef", |card| card.partitions[0].0 = 0xEF),
    ("type 0x0e", |card| card.partitions[0].0 = 0x0E),
    ("GPT", |card| {
        card.partitions = vec![(0xEE, 512, 144 * MIB - 512)];
        card.patches.push((512, b"EFI PART".to_vec()));
    }),
    ("hybrid MBR", |card| card.partitions[3].0 = 0xEE),
    ("boot partition second", |card| card.partitions.swap(0, 1)),
    ("partition over the record", |card| card.partitions[3] = (0x83, 8 * MIB, 2 * MIB)),
    ("partitions overlap", |card| card.partitions[1].2 += MIB),
    ("FAT16", |card| card.format = Some((fatfs::FatType::Fat16, 2048))),
    ("32 KiB clusters", |card| {
        card.format = Some((fatfs::FatType::Fat32, 32 << 10));
        card.boot.end = 2300 * MIB;
        card.partitions = vec![(0x0C, card.boot.start, card.boot.end - card.boot.start)];
    }),
    ("no bootcode.bin", |card| card.remove("bootcode.bin")),
    ("a long bootcode.bin", |card| card.set("bootcode.bin", vec![1; 140_000])),
    ("no fixup.dat", |card| card.remove("fixup.dat")),
    ("fixup.dat of another build", |card| card.set("fixup.dat", fixup(20_002))),
    ("start_x=1 without its files", |card| card.edit_config("# Pi 3", "start_x=1")),
    ("no config.txt", |card| card.remove("config.txt")),
    ("no arm_64bit", |card| card.edit_config("arm_64bit=1\n", "")),
    ("a key misspelt", |card| card.edit_config("enable_uart=1", "enable_uartt=1")),
    ("a key under [pi4]", |card| {
        card.edit_config("arm_64bit=1", "[pi4]\narm_64bit=1\n[all]");
    }),
    ("a filter misspelt", |card| card.edit_config("# Pi 3", "[pi33]\n[all]")),
    ("kernel= names a missing file", |card| {
        card.edit_config("kernel=u-boot.bin", "kernel=uboot.bin");
    }),
    ("kernel= names an ELF file", |card| card.set("u-boot.bin", *b"\x7fELF")),
    ("a recovery.elf", |card| card.set("recovery.elf", vec![1])),
    ("an autoboot.txt of 600 bytes", |card| card.set("autoboot.txt", vec![b'#'; 600])),
];

/// Found on the Pi 4 family.
const ON_PI4: [Planted; 16] = [
    ("type 0xef", |card| card.partitions[0].0 = 0xEF),
    ("a recovery.bin", |card| card.set("recovery.bin", vec![1])),
    ("file in the last cluster", fill),
    ("start4.elf of 2024", |card| card.set("start4.elf", start(20_000, "Apr 17 2024"))),
    ("arm_64bit=0", |card| card.edit_config("enable_uart=1", "enable_uart=1\narm_64bit=0")),
    ("DTB name wrong", |card| {
        card.remove("bcm2711-rpi-400.dtb");
        card.set("bcm2711-rpi-4-400.dtb", tree("/emmc2bus/mmc@7e340000"));
    }),
    ("DTB is none", |card| card.set("bcm2711-rpi-cm4-io.dtb", *b"not a tree")),
    ("DTB below /broadcom", |card| {
        card.set("broadcom/bcm2711-rpi-4-b.dtb", tree("/emmc2bus/mmc@7e340000"));
    }),
    ("no alias of the card", |card| {
        card.set("bcm2711-rpi-4-b.dtb", tree("/soc/mmc@7e300000"));
    }),
    ("an overlay that is not there", |card| card.edit_config("[pi4]", "dtoverlay=disable-bt,x")),
    ("no uboot.env", |card| card.remove("uboot.env")),
    ("uboot.env with a bad CRC", |card| card.files.get_mut("uboot.env").unwrap()[100] ^= 1),
    ("uboot.env too short", |card| card.files.get_mut("uboot.env").unwrap().truncate(0x2000)),
    ("uboot.env waits for a key", |card| {
        card.set("uboot.env", environment("bootcmd=bootflow scan\0bootdelay=0\0"));
    }),
    ("no loader", |card| card.remove("EFI/BOOT/BOOTAA64.EFI")),
    ("loader for x86", |card| card.set("EFI/BOOT/BOOTAA64.EFI", program(0x8664))),
];

/// Adds a file that leaves no cluster free: the largest one that fits.
fn fill(card: &mut Sample) {
    // The information sector has the number of free clusters; the file's name may cost one more.
    let (_directory, device) = card.write().unwrap();
    let mut free = [0; 4];
    device.read_at(BOOT_START + 512 + 488, &mut free).unwrap();
    let free = u32::from_le_bytes(free) as usize;
    let fits = (free - 2..=free).rev().any(|clusters| {
        card.set("zeros", vec![0; clusters * 512]);
        card.write().is_ok()
    });
    assert!(fits);
}

/// One line for a mistake: who found it, on which machines, and why.
fn found(good: &Sample, models: &[Model], (name, plant): &Planted) -> String {
    let mut card = good.clone();
    plant(&mut card);
    let report = report(&card, models);
    let [finding] = &report.findings[..] else {
        panic!("{name}: not one finding but {:#?}", report.findings);
    };
    format!("{name:<30} {finding} ({})\n", finding.mend)
}

fn table(good: &Sample, models: &[Model], planted: &[Planted]) -> String {
    let lines = planted.iter().map(|one| found(good, models, one));
    let table: String = lines.collect();
    println!("{table}");
    table
}

#[test]
fn every_mistake_planted_into_a_card_for_the_pi_3_is_found_by_one_rule() {
    expect![[r#"
        no signature                   rom on pi3-b, pi3-b-plus, pi3-a-plus, cm3, zero2-w: the first sector does not end in 55 aa; without its signature there is no partition table (write an MBR whose first partition is of type 0x0c)
        type 0xef                      rom on pi3-b, pi3-b-plus, pi3-a-plus, cm3, zero2-w: no partition of type 0x0b or 0x0c (0xef, 0xda, 0xda, 0x83); it looks at no other types for FAT (write an MBR whose first partition is of type 0x0c)
        type 0x0e                      rom on pi3-b, pi3-b-plus, pi3-a-plus, cm3, zero2-w: no partition of type 0x0b or 0x0c (0x0e, 0xda, 0xda, 0x83); it looks at no other types for FAT (write an MBR whose first partition is of type 0x0c)
        GPT                            rom on pi3-b, pi3-b-plus, pi3-a-plus, cm3, zero2-w: the partition table is a GPT; the ROM of a Pi 3 boots no GPT from a card, and a Pi 4 only with the right pair of EEPROM and start4.elf (write an MBR whose first partition is of type 0x0c)
        hybrid MBR                     rom on pi3-b, pi3-b-plus, pi3-a-plus, cm3, zero2-w: the partition table is a GPT; the ROM of a Pi 3 boots no GPT from a card, and a Pi 4 only with the right pair of EEPROM and start4.elf (write an MBR whose first partition is of type 0x0c)
        boot partition second          u-boot on pi3-b, pi3-b-plus, pi3-a-plus, cm3, zero2-w: the boot partition is partition 2, not 1; U-Boot reads its settings from partition 1 (make the boot partition the first one)
        partition over the record      loader on pi3-b, pi3-b-plus, pi3-a-plus, cm3, zero2-w: partition 4 lies over the boot record; the record's two copies at 4 and 8 MiB destroy it, and it them (start the first partition at 16 MiB)
        partitions overlap             loader on pi3-b, pi3-b-plus, pi3-a-plus, cm3, zero2-w: partitions 2 and 3 overlap; each destroys the other (let the builder lay out the disk)
        FAT16                          rom on pi3-b, pi3-b-plus, pi3-a-plus, cm3, zero2-w: the boot partition is FAT16, with 20431 clusters; with fewer than 65525 it is not FAT32, the only kind that every ROM reads (make `layout.boot` larger)
        32 KiB clusters                rom on pi3-b, pi3-b-plus, pi3-a-plus, cm3, zero2-w: the boot partition has clusters of 32768 bytes; known to boot everywhere are 512 bytes to 2 KiB; 32 KiB are known to fail (make `layout.boot` smaller)
        no bootcode.bin                rom on pi3-b, pi3-b-plus, pi3-a-plus, cm3, zero2-w: no bootcode.bin; the boot ends there (take all files from one version of the package raspi-firmware)
        a long bootcode.bin            rom on pi3-b, pi3-b-plus, pi3-a-plus, cm3, zero2-w: bootcode.bin is 140000 bytes long; the ROM loads it into a cache of 128 KiB (take all files from one version of the package raspi-firmware)
        no fixup.dat                   bootcode.bin on pi3-b, pi3-b-plus, pi3-a-plus, cm3, zero2-w: no fixup.dat; without it the system sees a quarter of its memory or less (take all files from one version of the package raspi-firmware)
        fixup.dat of another build     bootcode.bin on pi3-b, pi3-b-plus, pi3-a-plus, cm3, zero2-w: fixup.dat was made for a start.elf of 20002 bytes, not 20000; a pair of two builds leaves the system a quarter of its memory or less (take all files from one version of the package raspi-firmware)
        start_x=1 without its files    bootcode.bin on pi3-b, pi3-b-plus, pi3-a-plus, cm3, zero2-w: no start_x.elf; the boot ends there (take all files from one version of the package raspi-firmware)
        no config.txt                  start.elf on pi3-b, pi3-b-plus, pi3-a-plus, cm3, zero2-w: no config.txt; without it there is no 64-bit boot, and no U-Boot (add config.txt to the board)
        no arm_64bit                   start.elf on pi3-b, pi3-b-plus, pi3-a-plus, cm3, zero2-w: config.txt: no arm_64bit=1; the processor starts in 32-bit mode, and U-Boot is a 64-bit program (write `arm_64bit=1` under `[all]`)
        a key misspelt                 start.elf on pi3-b, pi3-b-plus, pi3-a-plus, cm3, zero2-w: config.txt, line 3: `enable_uartt=1`; the firmware skips a key that it does not know (did you mean `enable_uart`?)
        a key under [pi4]              start.elf on pi3-b, pi3-b-plus, pi3-a-plus, cm3, zero2-w: config.txt: arm_64bit=1 stands under [pi4] (line 3); the processor starts in 32-bit mode, and U-Boot is a 64-bit program (write `arm_64bit=1` under `[all]`)
        a filter misspelt              start.elf on pi3-b, pi3-b-plus, pi3-a-plus, cm3, zero2-w: config.txt, line 1: `[pi33]`; there is no such filter, so nothing behind it is read (did you mean `[pi3]`?)
        kernel= names a missing file   start.elf on pi3-b, pi3-b-plus, pi3-a-plus, cm3, zero2-w: no uboot.bin; the boot ends there (write `kernel=u-boot.bin` under `[all]`, and have that file)
        kernel= names an ELF file      start.elf on pi3-b, pi3-b-plus, pi3-a-plus, cm3, zero2-w: u-boot.bin is ELF; it is copied into memory and started as it is (take u-boot.bin, not the ELF file)
        a recovery.elf                 bootcode.bin on pi3-b, pi3-b-plus, pi3-a-plus, cm3, zero2-w: there is a file recovery.elf; bootcode.bin starts it in place of start.elf (leave it out of the image)
        an autoboot.txt of 600 bytes   bootcode.bin on pi3-b, pi3-b-plus, pi3-a-plus, cm3, zero2-w: autoboot.txt is 600 bytes long; it is read as far as its 512th byte (shorten it)
    "#]].assert_eq(&table(&pi3(), &PI3, &ON_PI3));
}

#[test]
fn every_mistake_planted_into_a_card_for_the_pi_4_is_found_by_one_rule() {
    expect![[r#"
        type 0xef                      u-boot on pi4-b, pi400, cm4: the boot partition has type 0xef; U-Boot takes it for its own and writes its variables into it (give it type 0x0c)
        a recovery.bin                 eeprom on pi4-b, pi400, cm4: there is a file recovery.bin; the ROM starts it, and it writes the board's EEPROM (leave it out of the image)
        file in the last cluster       eeprom on pi4-b (EEPROM of 2020-09), pi400 (EEPROM of 2020-09), cm4 (EEPROM of 2020-09): a file uses the last cluster of the boot partition; an EEPROM of before 2024-01-18 misreads that file (make `layout.boot` larger)
        start4.elf of 2024             start.elf on pi4-b, pi400, cm4: start4.elf is of Apr 17 2024; before 2025-01-16 it does not run on boards made since and fails with some partitions after an EEPROM of 2025 (take the package raspi-firmware of version 1.20260408 or later)
        arm_64bit=0                    start.elf on pi4-b, pi400, cm4: config.txt: arm_64bit is 0; the processor starts in 32-bit mode, and U-Boot is a 64-bit program (write `arm_64bit=1` under `[all]`)
        DTB name wrong                 start.elf on pi400: no bcm2711-rpi-400.dtb; without its device tree U-Boot does not know the board (add the device tree of the kernel's package to the boot partition's root)
        DTB is none                    start.elf on cm4: bcm2711-rpi-cm4-io.dtb is no device tree: Invalid FDT length at offset 0; it cannot be handed to U-Boot (add the device tree of the kernel's package to the boot partition's root)
        DTB below /broadcom            u-boot on pi4-b, pi400, cm4: a device tree at broadcom/bcm2711-rpi-4-b.dtb; U-Boot prefers it to the firmware's, which knows memory size, MAC address and serial (put device trees into the root of the boot partition)
        no alias of the card           u-boot on pi4-b: bcm2711-rpi-4-b.dtb: alias mmc0 is /soc/mmc@7e300000; U-Boot counts the card as the second one and does not find uboot.env on it (set /aliases/mmc0 to /emmc2bus/mmc@7e340000 in the board's device trees)
        an overlay that is not there   start.elf on pi4-b, pi400, cm4: config.txt, line 4: no overlays/disable-bt.dtbo; an overlay that is not there is skipped (add it or remove the line)
        no uboot.env                   u-boot on pi4-b, pi400, cm4: no uboot.env; U-Boot falls back to its built-in settings, waits for a key and scans USB: noise on the serial line keeps it at its prompt (let the builder write it from the board's settings)
        uboot.env with a bad CRC       u-boot on pi4-b, pi400, cm4: uboot.env does not have its own checksum; U-Boot falls back to its built-in settings, waits for a key and scans USB: noise on the serial line keeps it at its prompt (let the builder write it from the board's settings)
        uboot.env too short            u-boot on pi4-b, pi400, cm4: uboot.env is 8192 bytes long, not 16384; U-Boot falls back to its built-in settings, waits for a key and scans USB: noise on the serial line keeps it at its prompt (let the builder write it from the board's settings)
        uboot.env waits for a key      u-boot on pi4-b, pi400, cm4: uboot.env: bootdelay is 0; any byte on the serial line stops the boot at a prompt, even with 0 (set bootdelay=-2)
        no loader                      u-boot on pi4-b, pi400, cm4: no EFI/BOOT/BOOTAA64.EFI; UEFI finds nothing to start (let the builder write its loader for this board's architecture)
        loader for x86                 u-boot on pi4-b, pi400, cm4: EFI/BOOT/BOOTAA64.EFI is for machine 0x8664, not aarch64; UEFI refuses to start it (let the builder write its loader for this board's architecture)
    "#]].assert_eq(&table(&pi4(), &PI4, &ON_PI4));
}
