//! Good cards boot, and cards with one thing changed stop where the real machine would.

use expect_test::{Expect, expect};

use super::model::tests::ALL;
use super::*;

mod planted;
mod sample;

use sample::{Sample, pi3, pi4};

const PI3: [Model; 5] = [Model::Pi3B, Model::Pi3BPlus, Model::Pi3APlus, Model::Cm3, Model::Zero2W];
const PI4: [Model; 3] = [Model::Pi4B, Model::Pi400, Model::Cm4];

fn report(sample: &Sample, models: &[Model]) -> Report {
    let (_directory, device) = sample.write().unwrap();
    check(&device, models).unwrap()
}

fn boots(sample: &Sample, model: Model, expected: &Expect) {
    let report = report(sample, &[model]).into_result().unwrap();
    expected.assert_eq(&report.text());
}

#[test]
fn a_good_card_boots_a_pi_3() {
    boots(
        &pi3(),
        Model::Pi3BPlus,
        &expect![[r#"
        pi3-b-plus
          rom: partition 1, type 0x0c, at 16 MiB
          rom: FAT32, 80608 clusters of 512 bytes
          rom: bootcode.bin, 5000 bytes
          bootcode.bin: start.elf, 20000 bytes, of Feb 11 2026
          bootcode.bin: fixup.dat belongs to it
          start.elf: config.txt: arm_64bit=1 enable_uart=1 upstream_kernel=1 kernel=u-boot.bin
          start.elf: device tree bcm2837-rpi-3-b-plus.dtb
          start.elf: kernel u-boot.bin, 9000 bytes, 64-bit
          u-boot: uboot.env, bootdelay=-2, bootcmd `bootflow scan`
          u-boot: the device tree is the firmware's
          u-boot: EFI/BOOT/BOOTAA64.EFI, 700 bytes, aarch64
          loader: started
    "#]],
    );
}

#[test]
fn a_good_card_boots_a_pi_4_with_either_eeprom() {
    boots(
        &pi4(),
        Model::Pi4B,
        &expect![[r#"
        pi4-b (EEPROM of 2020-09)
          eeprom: partition 1, type 0x0c, at 16 MiB
          eeprom: FAT32, 80608 clusters of 512 bytes
          eeprom: start4.elf, 20000 bytes, of Feb 11 2026
          eeprom: fixup4.dat belongs to it
          start.elf: config.txt: enable_uart=1 upstream_kernel=1 kernel=u-boot.bin
          start.elf: device tree bcm2711-rpi-4-b.dtb
          start.elf: kernel u-boot.bin, 9000 bytes, 64-bit
          u-boot: uboot.env, bootdelay=-2, bootcmd `bootflow scan`
          u-boot: the device tree is the firmware's
          u-boot: EFI/BOOT/BOOTAA64.EFI, 700 bytes, aarch64
          loader: started

        pi4-b (EEPROM since 2025-02)
          eeprom: partition 1, type 0x0c, at 16 MiB
          eeprom: FAT32, 80608 clusters of 512 bytes
          eeprom: start4.elf, 20000 bytes, of Feb 11 2026
          eeprom: fixup4.dat belongs to it
          start.elf: config.txt: enable_uart=1 upstream_kernel=1 kernel=u-boot.bin
          start.elf: device tree bcm2711-rpi-4-b.dtb
          start.elf: kernel u-boot.bin, 9000 bytes, 64-bit
          u-boot: uboot.env, bootdelay=-2, bootcmd `bootflow scan`
          u-boot: the device tree is the firmware's
          u-boot: EFI/BOOT/BOOTAA64.EFI, 700 bytes, aarch64
          loader: started
    "#]],
    );
}

#[test]
fn a_card_boots_every_model_of_its_family_and_none_of_the_other() {
    for (sample, family, own) in
        [(pi3(), Family::Bcm2837, &PI3[..]), (pi4(), Family::Bcm2711, &PI4[..])]
    {
        let report = report(&sample, &ALL);
        assert_eq!(report.models(), ALL);
        let failed = report.findings.iter().flat_map(|finding| &finding.machines);
        let mut failed: Vec<Model> = failed.map(|machine| machine.model).collect();
        failed.sort();
        failed.dedup();
        let others: Vec<Model> = ALL.into_iter().filter(|one| one.family() != family).collect();
        assert_eq!(failed, others);
        assert!(own.iter().all(|model| !others.contains(model)));
    }
}

#[test]
fn linux_before_fat_stops_an_old_eeprom_and_costs_a_new_one_its_settings() {
    let mut card = pi4();
    card.partitions.swap(0, 3);
    let found = report(&card, &[Model::Pi4B]).findings;
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "eeprom on pi4-b (EEPROM of 2020-09): partition 1 before FAT has type 0x83; \
             an EEPROM of before 2020-10-28 stops there",
            "u-boot on pi4-b (EEPROM since 2025-02): the boot partition is partition 4, not 1; \
             U-Boot reads its settings from partition 1",
        ]
    );
}

#[test]
fn a_card_that_cannot_be_read_is_an_error_of_its_own() {
    let error = check(&vec![0_u8; 100], &PI3).unwrap_err();
    assert_eq!(
        error.chain(),
        "cannot read the first two sectors of the image: beyond the end of the device"
    );
}

#[test]
fn a_volume_that_contradicts_itself_is_named_and_not_followed() {
    for (offset, value, expected) in [
        (11, 3, "its boot sector has sectors of 515 bytes and clusters of 1 sectors"),
        (13, 3, "its boot sector has sectors of 512 bytes and clusters of 3 sectors"),
        (510, 0, "it has no FAT boot sector"),
        (35, 0xFF, "it has 4278272000 sectors, more than its partition"),
        (44, 1, "/: its chain leads to cluster 1"),
        (47, 0xF, "/: its chain leads to cluster 251658242"),
    ] {
        let mut sample = pi3();
        sample.patches.push((sample::BOOT_START + offset, vec![value]));
        let report = report(&sample, &[Model::Pi3B]);
        let [finding] = &report.findings[..] else { panic!("{offset}: {report:?}") };
        assert_eq!(finding.why, expected, "{offset}");
    }
}
