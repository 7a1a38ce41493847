//! From `bootcode.bin` or the EEPROM to the kernel: `config.txt`, `start.elf`, device tree, U-Boot.

use dtoolkit::fdt::Fdt;

use super::{Run, Step};
use crate::videocore::config::{Complaint, Config};
use crate::videocore::model::{Family, Model};
use crate::videocore::report::{Problem, Stage};
use crate::videocore::volume::{Volume, VolumeFile};
use crate::videocore::{firmware, uboot};

/// The ROM loads `bootcode.bin` into a cache of this size.
const BOOTCODE_BYTES: usize = 128 << 10;
/// Build of the first `start4.elf` known to boot with an EEPROM of 2025 from any partition.
const OLDEST_START4: (u16, u8, u8) = (2025, 1, 16);

impl Run<'_> {
    pub(super) fn read_config(&mut self, volume: &Volume) -> Step<Config> {
        // What a board sees without the file is a 32-bit boot of a kernel that is not there.
        let Some(file) = volume.file("config.txt") else {
            let why = "without it there is no 64-bit boot, and no U-Boot";
            let mend = "add config.txt to the board";
            return Err(Problem::new(Stage::StartElf, "no config.txt", why, mend));
        };
        let (config, complaints) = Config::parse(&String::from_utf8_lossy(&file.bytes));
        for Complaint { line, what, why, mend, .. } in &complaints {
            let what = format!("config.txt, line {line}: {what}");
            self.problems.push(Problem::new(Stage::StartElf, what, *why, mend.clone()));
        }
        let misspelt = |key| complaints.iter().any(|complaint| complaint.meant == Some(key));
        self.demand(&config, "enable_uart", !misspelt("enable_uart"));
        self.demand(&config, "upstream_kernel", !misspelt("upstream_kernel"));
        // A Pi 4 starts 64-bit unless it is told otherwise.
        let is_default = self.machine.model.family() == Family::Bcm2711
            && config.value("arm_64bit", self.machine.model).is_none();
        if !is_default {
            self.demand(&config, "arm_64bit", !misspelt("arm_64bit"));
        }
        Ok(config)
    }

    /// A key that has to be 1, unless a slip in its name was reported already.
    fn demand(&mut self, config: &Config, key: &str, spelt: bool) {
        let model = self.machine.model;
        let value = config.value(key, model);
        if value == Some("1") || (value.is_none() && !spelt) {
            return;
        }
        let why = match key {
            "enable_uart" => "the serial console is off, and on a Pi 3 of the wrong speed",
            "upstream_kernel" => "it looks for device trees under the vendor's own names",
            _ => "the processor starts in 32-bit mode, and U-Boot is a 64-bit program",
        };
        let what = match (value, config.withheld(key, "1", model)) {
            (Some(value), _) => format!("config.txt: {key} is {value}"),
            (None, Some(other)) => format!(
                "config.txt: {key}=1 stands under {} (line {})",
                other.filters(),
                other.line
            ),
            (None, None) => format!("config.txt: no {key}=1"),
        };
        let mend = format!("write `{key}=1` under `[all]`");
        self.problems.push(Problem::new(Stage::StartElf, what, why, mend));
    }

    /// The names of `start.elf` and `fixup.dat` that the settings ask for.
    fn start_names(&self, config: &Config) -> (String, String) {
        let model = self.machine.model;
        let set = |key| config.value(key, model);
        let on = |key| set(key).is_some_and(|value| value != "0");
        let four = self.machine.model.family() == Family::Bcm2711;
        let small =
            set("gpu_mem").and_then(|value| value.parse().ok()).is_some_and(|mib: u32| mib <= 16);
        let variant = match (on("start_x"), on("start_debug"), on("start_cd") || small) {
            (true, ..) => "x",
            (_, true, _) => "db",
            (.., true) => "cd",
            _ => "",
        };
        let middle = match (four, variant) {
            (true, variant) => format!("4{variant}"),
            (false, "") => String::new(),
            (false, variant) => format!("_{variant}"),
        };
        let start = set("start_file").map_or_else(|| format!("start{middle}.elf"), str::to_owned);
        let fixup = set("fixup_file").map_or_else(|| format!("fixup{middle}.dat"), str::to_owned);
        (start, fixup)
    }

    pub(super) fn load_start(&mut self, volume: &Volume, config: &Config) -> Step<()> {
        let mend = "take all files from one version of the package raspi-firmware";
        if self.first() == Stage::Rom {
            let bootcode = find(volume, "bootcode.bin", Stage::Rom, mend)?;
            let length = bootcode.bytes.len();
            if length == 0 || length > BOOTCODE_BYTES {
                let what = format!("bootcode.bin is {length} bytes long");
                let why = "the ROM loads it into a cache of 128 KiB";
                return Err(Problem::new(Stage::Rom, what, why, mend));
            }
            self.step(Stage::Rom, format!("bootcode.bin, {length} bytes"));
        }
        let stage = self.second();
        let (start_name, fixup_name) = self.start_names(config);
        let start = find(volume, &start_name, stage, mend)?;
        let length = start.bytes.len();
        if !firmware::is_elf(&start.bytes) {
            let what = format!("{start_name} is no ELF file");
            return Err(Problem::new(stage, what, "it cannot be started", mend));
        }
        let build = firmware::build(&start.bytes);
        let date = build.as_ref().map_or("an unknown day", |build| build.date_text.as_str());
        self.step(stage, format!("{start_name}, {length} bytes, of {date}"));
        let Some(fixup) = volume.file(&fixup_name) else {
            let what = format!("no {fixup_name}");
            let why = "without it the system sees a quarter of its memory or less";
            self.problems.push(Problem::new(stage, what, why, mend));
            return Ok(());
        };
        match firmware::fixed_up_length(&fixup.bytes) {
            Some(made_for) if made_for != length as u64 => {
                let what = format!(
                    "{fixup_name} was made for a {start_name} of {made_for} bytes, not {length}"
                );
                let why = "a pair of two builds leaves the system a quarter of its memory or less";
                self.problems.push(Problem::new(stage, what, why, mend));
            }
            Some(_) => self.step(stage, format!("{fixup_name} belongs to it")),
            None => self.step(stage, format!("{fixup_name} does not say what it was made for")),
        }
        self.check_age(&start_name, build.as_ref());
        Ok(())
    }

    fn check_age(&mut self, name: &str, build: Option<&firmware::Build>) {
        if self.machine.model.family() != Family::Bcm2711 {
            return;
        }
        let (year, month, day) = OLDEST_START4;
        let what = match build {
            Some(build) if build.date >= OLDEST_START4 => return,
            Some(build) => format!("{name} is of {}", build.date_text),
            None => format!("{name} does not say when it was built"),
        };
        let why = format!(
            "before {year}-{month:02}-{day:02} it does not run on boards made since and fails with \
             some partitions after an EEPROM of 2025"
        );
        let mend = "take the package raspi-firmware of version 1.20260408 or later";
        self.problems.push(Problem::new(Stage::StartElf, what, why, mend));
    }

    pub(super) fn load_tree(&mut self, volume: &Volume, config: &Config) -> Step<()> {
        let (stage, model) = (Stage::StartElf, self.machine.model);
        self.step(stage, format!("config.txt: {}", seen(config, model)));
        let mend = "add the device tree of the kernel's package to the boot partition's root";
        for setting in config.all("dtoverlay", model) {
            let name = setting.value.split(',').next().unwrap_or_default();
            let prefix = config.value("overlay_prefix", model).unwrap_or("overlays/");
            let path = format!("{prefix}{name}.dtbo");
            if !name.is_empty() && volume.file(&path).is_none() {
                let what = format!("config.txt, line {}: no {path}", setting.line);
                let why = "an overlay that is not there is skipped";
                self.problems.push(Problem::new(stage, what, why, "add it or remove the line"));
            }
        }
        let prefix = config.value("os_prefix", model).unwrap_or_default();
        let named = config.value("device_tree", model).unwrap_or(model.device_tree());
        let name = format!("{prefix}{named}");
        let Some(file) = volume.file(&name) else {
            let why = "without its device tree U-Boot does not know the board";
            return Err(Problem::new(stage, format!("no {name}"), why, mend));
        };
        let tree = Fdt::new(&file.bytes).map_err(|error| {
            let what = format!("{name} is no device tree: {error}");
            Problem::new(stage, what, "it cannot be handed to U-Boot", mend)
        })?;
        self.step(stage, format!("device tree {name}"));
        if model.family() == Family::Bcm2711 {
            self.problems.extend(uboot::finds_card(&name, &tree).err());
        }
        Ok(())
    }

    pub(super) fn load_kernel(&mut self, volume: &Volume, config: &Config) -> Step<()> {
        let (stage, model) = (Stage::StartElf, self.machine.model);
        let mend = "write `kernel=u-boot.bin` under `[all]`, and have that file";
        let Some(name) = config.value("kernel", model) else {
            let what = match config.withheld("kernel", "u-boot.bin", model) {
                Some(other) => format!("kernel= stands under {}", other.filters()),
                None => "no kernel=".into(),
            };
            let what = format!("config.txt: {what}");
            return Err(Problem::new(stage, what, "it looks for kernel8.img", mend));
        };
        let file = find(volume, name.trim_start_matches('/'), stage, mend)?;
        if file.bytes.is_empty() || firmware::is_elf(&file.bytes) {
            let what = format!("{name} is {}", if file.bytes.is_empty() { "empty" } else { "ELF" });
            let why = "it is copied into memory and started as it is";
            return Err(Problem::new(stage, what, why, "take u-boot.bin, not the ELF file"));
        }
        self.step(stage, format!("kernel {name}, {} bytes, 64-bit", file.bytes.len()));
        Ok(())
    }
}

fn find<'v>(volume: &'v Volume, name: &str, stage: Stage, mend: &str) -> Step<&'v VolumeFile> {
    let missing = || Problem::new(stage, format!("no {name}"), "the boot ends there", mend);
    volume.file(name).ok_or_else(missing)
}

/// The settings that matter to a boot, as a model sees them.
fn seen(config: &Config, model: Model) -> String {
    let keys = ["arm_64bit", "enable_uart", "upstream_kernel", "kernel"];
    let value = |key| config.value(key, model).map(|value| format!("{key}={value}"));
    keys.into_iter().filter_map(value).collect::<Vec<_>>().join(" ")
}
