//! What U-Boot, Debian's `rpi_arm64` build, makes of the boot partition.

use dtoolkit::fdt::Fdt;
use dtoolkit::{Node, Property};

use super::report::{Problem, Stage};
use super::volume::Volume;

/// The file of settings and its length, CONFIG_ENV_FAT_FILE and CONFIG_ENV_SIZE of that build.
const ENVIRONMENT: &str = "uboot.env";
const ENVIRONMENT_BYTES: usize = 0x4000;
const CHECKSUM_BYTES: usize = 4;
/// Where U-Boot looks for a device tree of its own before it takes the firmware's: `$fdtfile`,
/// which is `broadcom/NAME.dtb`, below each of these.
const TREE_DIRECTORIES: [&str; 4] = ["broadcom/", "dtb/", "dtbs/", "dtb/current/"];
/// The program of UEFI's removable media for 64-bit Arm.
const LOADER: &str = "EFI/BOOT/BOOTAA64.EFI";
/// The card's controller on the Pi 4; without the alias it is the second one, and U-Boot looks for
/// its settings on the first.
const CARD_ALIAS: (&str, &str) = ("mmc0", "/emmc2bus/mmc@7e340000");

fn problem(what: impl Into<String>, why: &str, mend: &str) -> Problem {
    Problem::new(Stage::UBoot, what, why, mend)
}

/// Everything that U-Boot and its UEFI meet; the steps are what it reads.
pub(super) fn check(volume: &Volume) -> (Vec<String>, Vec<Problem>) {
    let (mut steps, mut problems) = (Vec::new(), Vec::new());
    for result in [environment(volume), trees(volume), loader(volume)] {
        match result {
            Ok(step) => steps.push(format!("u-boot: {step}")),
            Err(problem) => problems.push(problem),
        }
    }
    (steps, problems)
}

fn environment(volume: &Volume) -> Result<String, Problem> {
    const DEFAULT: &str = "U-Boot falls back to its built-in settings, waits for a key and \
                           scans USB: noise on the serial line keeps it at its prompt";
    let mend = "let the builder write it from the board's settings";
    let Some(file) = volume.file(ENVIRONMENT) else {
        return Err(problem(format!("no {ENVIRONMENT}"), DEFAULT, mend));
    };
    let length = file.bytes.len();
    if length != ENVIRONMENT_BYTES {
        let what = format!("{ENVIRONMENT} is {length} bytes long, not {ENVIRONMENT_BYTES}");
        return Err(problem(what, DEFAULT, mend));
    }
    let (checksum, settings) = file.bytes.split_at(CHECKSUM_BYTES);
    if checksum != crc32fast::hash(settings).to_le_bytes() {
        let what = format!("{ENVIRONMENT} does not have its own checksum");
        return Err(problem(what, DEFAULT, mend));
    }
    let settings = pairs(settings);
    let value = |name: &str| {
        settings.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    };
    if value("bootdelay") != Some("-2") {
        let what = format!("{ENVIRONMENT}: bootdelay is {}", value("bootdelay").unwrap_or("2"));
        let why = "any byte on the serial line stops the boot at a prompt, even with 0";
        return Err(problem(what, why, "set bootdelay=-2"));
    }
    if let Some(preboot) = value("preboot").filter(|value| !value.is_empty()) {
        let what = format!("{ENVIRONMENT}: preboot is `{preboot}`");
        return Err(problem(what, "it runs before every boot and takes seconds", "leave it out"));
    }
    let Some(command) = value("bootcmd").filter(|value| !value.is_empty()) else {
        let why = "the file replaces all built-in settings, so U-Boot has nothing to do";
        return Err(problem(format!("{ENVIRONMENT} has no bootcmd"), why, "set bootcmd"));
    };
    Ok(format!("{ENVIRONMENT}, bootdelay=-2, bootcmd `{command}`"))
}

/// `name=value`, each ended by a zero byte, up to an empty one.
fn pairs(settings: &[u8]) -> Vec<(String, String)> {
    let lines = settings.split(|byte| *byte == 0).take_while(|line| !line.is_empty());
    let lines = lines.map(String::from_utf8_lossy);
    lines
        .filter_map(|line| line.split_once('=').map(|(name, value)| (name.into(), value.into())))
        .collect()
}

fn trees(volume: &Volume) -> Result<String, Problem> {
    let other = volume.files.iter().map(|file| &file.path).find(|path| {
        let path = path.to_lowercase();
        path.ends_with(".dtb") && TREE_DIRECTORIES.iter().any(|start| path.starts_with(start))
    });
    match other {
        Some(path) => Err(problem(
            format!("a device tree at {path}"),
            "U-Boot prefers it to the firmware's, which knows memory size, MAC address and serial",
            "put device trees into the root of the boot partition",
        )),
        None => Ok("the device tree is the firmware's".into()),
    }
}

fn loader(volume: &Volume) -> Result<String, Problem> {
    let mend = "let the builder write its loader for this board's architecture";
    let Some(file) = volume.file(LOADER) else {
        let why = "UEFI finds nothing to start";
        return Err(problem(format!("no {LOADER}"), why, mend));
    };
    let unfit = |what: String| problem(what, "UEFI refuses to start it", mend);
    match machine(&file.bytes) {
        None => Err(unfit(format!("{LOADER} is no PE program"))),
        Some(AARCH64) => Ok(format!("{LOADER}, {} bytes, aarch64", file.bytes.len())),
        Some(other) => Err(unfit(format!("{LOADER} is for machine {other:#06x}, not aarch64"))),
    }
}

/// IMAGE_FILE_MACHINE_ARM64.
const AARCH64: u16 = 0xAA64;

/// The machine of a PE program; none if it is no 64-bit PE.
fn machine(bytes: &[u8]) -> Option<u16> {
    let at = |offset: usize, length: usize| bytes.get(offset..offset.checked_add(length)?);
    let word = |offset| Some(u16::from_le_bytes(at(offset, 2)?.try_into().ok()?));
    let header = u32::from_le_bytes(at(0x3C, 4)?.try_into().ok()?);
    let header = usize::try_from(header).ok()?;
    let whole = at(0, 2)? == b"MZ" && at(header, 4)? == b"PE\0\0" && word(header + 24)? == 0x20B;
    whole.then(|| word(header + 4))?
}

/// Whether U-Boot finds its settings on the card of a Pi 4 with this device tree.
pub(super) fn finds_card(name: &str, tree: &Fdt<'_>) -> Result<(), Problem> {
    let (alias, target) = CARD_ALIAS;
    let aliases = tree.find_node("/aliases");
    let found = aliases.and_then(|node| node.property(alias)?.as_str().ok().map(str::to_owned));
    if found.as_deref() == Some(target) {
        return Ok(());
    }
    let found = found.as_deref().unwrap_or("absent");
    Err(problem(
        format!("{name}: alias {alias} is {found}"),
        "U-Boot counts the card as the second one and does not find uboot.env on it",
        "set /aliases/mmc0 to /emmc2bus/mmc@7e340000 in the board's device trees",
    ))
}
