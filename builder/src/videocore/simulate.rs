//! One boot of one machine from one card, step by step, up to the start of our own loader.
//!
//! ```text
//! Pi 3:  rom ─► bootcode.bin ─┐
//!                             ├─► start.elf ─► config.txt, device tree, kernel ─► U-Boot ─► loader
//! Pi 4:  eeprom ──────────────┘
//! ```
//!
//! A step that cannot go on is an `Err` and ends the boot; a step that goes on wrongly leaves its
//! problem in the run. A real boot program stops as seldom as it can; this one says no wherever
//! the vendor's documents or its bug reports know of a machine that did.

use super::card::{Card, PROTECTIVE, Partition};
use super::model::{Eeprom, Family, Machine};
use super::report::{Problem, Stage, Trace};
use super::uboot;
use super::volume::{Kind, Volume};

mod record;
mod start_elf;

const MIB: u64 = 1 << 20;
/// What every ROM and EEPROM takes: FAT32, by cylinders and by sectors.
const BOOT_TYPES: [u8; 2] = [0x0B, 0x0C];
/// An EFI system partition.
const ESP: u8 = 0xEF;
/// Types of Linux and NTFS, at which an EEPROM of before 2020-10-28 stops looking.
const STOPPING_TYPES: [u8; 2] = [0x83, 0x07];
/// What the vendor's own images have; one kind of recovery program fails on 32 KiB.
const CLUSTER_BYTES: std::ops::RangeInclusive<u64> = 512..=2048;
/// Longest `autoboot.txt`.
const AUTOBOOT_BYTES: usize = 512;
/// Files that make a boot program do something else than boot, the families that read them if it is
/// not both, and what happens.
const DIVERSIONS: [(&str, Option<Family>, &str); 4] = [
    ("recovery.bin", Some(Family::Bcm2711), "the ROM starts it, and it writes the board's EEPROM"),
    ("pieeprom.upd", Some(Family::Bcm2711), "the EEPROM is updated from it"),
    ("recovery.elf", Some(Family::Bcm2837), "bootcode.bin starts it in place of start.elf"),
    ("tryboot.txt", None, "it takes the place of config.txt after a reboot that asks for it"),
];

/// Boots one machine; what it meets comes in the order in which it meets it.
pub(super) fn boot(card: &Card, machine: Machine) -> (Trace, Vec<Problem>) {
    let mut run = Run { machine, card, steps: Vec::new(), problems: Vec::new() };
    match run.all() {
        Ok(()) => run.steps.push("loader: started".into()),
        Err(problem) => {
            run.steps.push(format!("{}: stops: {}", problem.stage, problem.what));
            run.problems.push(problem);
        }
    }
    run.check_record();
    (Trace { machine, steps: run.steps }, run.problems)
}

struct Run<'c> {
    machine: Machine,
    card: &'c Card,
    steps: Vec<String>,
    problems: Vec<Problem>,
}

type Step<T> = Result<T, Problem>;

impl<'c> Run<'c> {
    fn all(&mut self) -> Step<()> {
        let partition = self.find_partition()?;
        let volume = self.open_volume(partition)?;
        self.check_diversions(volume);
        let config = self.read_config(volume)?;
        self.load_start(volume, &config)?;
        self.load_tree(volume, &config)?;
        self.load_kernel(volume, &config)?;
        let (steps, problems) = uboot::check(volume);
        self.steps.extend(steps);
        self.problems.extend(problems);
        Ok(())
    }

    /// The first program that reads the card.
    fn first(&self) -> Stage {
        match self.machine.model.family() {
            Family::Bcm2837 => Stage::Rom,
            Family::Bcm2711 => Stage::Eeprom,
        }
    }

    /// The program that loads `start.elf`.
    fn second(&self) -> Stage {
        match self.machine.model.family() {
            Family::Bcm2837 => Stage::Bootcode,
            Family::Bcm2711 => Stage::Eeprom,
        }
    }

    fn step(&mut self, stage: Stage, what: impl std::fmt::Display) {
        self.steps.push(format!("{stage}: {what}"));
    }

    fn find_partition(&mut self) -> Step<&'c Partition> {
        let (stage, card) = (self.first(), self.card);
        let mend = "write an MBR whose first partition is of type 0x0c";
        if !card.signed {
            let why = "without its signature there is no partition table";
            return Err(Problem::new(stage, "the first sector does not end in 55 aa", why, mend));
        }
        if card.gpt || card.partitions.iter().any(|partition| partition.kind == PROTECTIVE) {
            let why = "the ROM of a Pi 3 boots no GPT from a card, and a Pi 4 only with the right \
                       pair of EEPROM and start4.elf";
            return Err(Problem::new(stage, "the partition table is a GPT", why, mend));
        }
        let fat = card.partitions.iter().find(|partition| {
            let eeprom_takes_esp = self.first() == Stage::Eeprom && partition.kind == ESP;
            BOOT_TYPES.contains(&partition.kind) || eeprom_takes_esp
        });
        let Some(fat) = fat else {
            let kinds: Vec<String> = card.partitions.iter().map(|one| hex(one.kind)).collect();
            let what = format!("no partition of type 0x0b or 0x0c ({})", kinds.join(", "));
            return Err(Problem::new(stage, what, "it looks at no other types for FAT", mend));
        };
        self.check_place(fat)?;
        let start = fat.start / MIB;
        self.step(
            stage,
            format!("partition {}, type {}, at {start} MiB", fat.number, hex(fat.kind)),
        );
        Ok(fat)
    }

    fn check_place(&mut self, fat: &Partition) -> Step<()> {
        let before = self.card.partitions.iter().take_while(|one| one.number != fat.number);
        let mut stopping = before.filter(|one| STOPPING_TYPES.contains(&one.kind));
        if self.machine.eeprom == Some(Eeprom::Old)
            && let Some(other) = stopping.next()
        {
            return Err(Problem::new(
                Stage::Eeprom,
                format!("partition {} before FAT has type {}", other.number, hex(other.kind)),
                "an EEPROM of before 2020-10-28 stops there",
                "make the boot partition the first one",
            ));
        }
        if fat.number != 1 {
            self.problems.push(Problem::new(
                Stage::UBoot,
                format!("the boot partition is partition {}, not 1", fat.number),
                "U-Boot reads its settings from partition 1",
                "make the boot partition the first one",
            ));
        }
        if fat.kind == ESP {
            self.problems.push(Problem::new(
                Stage::UBoot,
                "the boot partition has type 0xef",
                "U-Boot takes it for its own and writes its variables into it",
                "give it type 0x0c",
            ));
        }
        Ok(())
    }

    fn open_volume(&mut self, partition: &'c Partition) -> Step<&'c Volume> {
        let stage = self.first();
        let mend = "let the builder write the boot partition";
        let damaged = |why: &str| {
            let what = format!("partition {} cannot be read", partition.number);
            Problem::new(stage, what, why, mend)
        };
        let volume = match &partition.volume {
            None => return Err(damaged("it ends behind the end of the image")),
            Some(Err(why)) => return Err(damaged(why)),
            Some(Ok(volume)) => volume,
        };
        let Volume { cluster_bytes, clusters, .. } = *volume;
        if volume.kind != Kind::Fat32 {
            let kind = format!("{:?}", volume.kind).to_uppercase();
            let what = format!("the boot partition is {kind}, with {clusters} clusters");
            let why = "with fewer than 65525 it is not FAT32, the only kind that every ROM reads";
            return Err(Problem::new(stage, what, why, "make `layout.boot` larger"));
        }
        self.check_geometry(volume);
        let cluster = if cluster_bytes < 1024 {
            format!("{cluster_bytes} bytes")
        } else {
            format!("{} KiB", cluster_bytes / 1024)
        };
        self.step(stage, format!("FAT32, {clusters} clusters of {cluster}"));
        Ok(volume)
    }

    fn check_geometry(&mut self, volume: &Volume) {
        let stage = self.first();
        let mut complain = |what: String, why, mend| {
            self.problems.push(Problem::new(stage, what, why, mend));
        };
        let size = volume.sector_bytes;
        if size != 512 {
            complain(
                format!("the boot partition has sectors of {size} bytes"),
                "a card has sectors of 512 bytes, and a ROM counts in them",
                "let the builder write the boot partition",
            );
        }
        if !CLUSTER_BYTES.contains(&volume.cluster_bytes) {
            complain(
                format!("the boot partition has clusters of {} bytes", volume.cluster_bytes),
                "known to boot everywhere are 512 bytes to 2 KiB; 32 KiB are known to fail",
                "make `layout.boot` smaller",
            );
        }
        if volume.last_cluster_used && self.machine.eeprom == Some(Eeprom::Old) {
            complain(
                "a file uses the last cluster of the boot partition".into(),
                "an EEPROM of before 2024-01-18 misreads that file",
                "make `layout.boot` larger",
            );
        }
    }

    fn check_diversions(&mut self, volume: &Volume) {
        let own = self.machine.model.family();
        for (name, family, why) in DIVERSIONS {
            if family.is_none_or(|family| family == own) && volume.file(name).is_some() {
                let what = format!("there is a file {name}");
                let mend = "leave it out of the image";
                self.problems.push(Problem::new(self.second(), what, why, mend));
            }
        }
        let Some(file) = volume.file("autoboot.txt") else { return };
        if file.bytes.len() > AUTOBOOT_BYTES {
            self.problems.push(Problem::new(
                self.second(),
                format!("autoboot.txt is {} bytes long", file.bytes.len()),
                "it is read as far as its 512th byte",
                "shorten it",
            ));
        }
    }
}

fn hex(kind: u8) -> String {
    format!("{kind:#04x}")
}
