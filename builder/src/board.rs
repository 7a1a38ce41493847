//! A board: one directory under `boards/` with a `board.toml`, checked once into [`Board`].
//!
//! Adding a directory adds the board to the command line and the tests. Files are flat and
//! complete; an unknown key is refused, so that a typing error never changes an image silently.

use std::fs;
use std::path::Path;

use ondisk::system::{Led, Pattern};
use serde::Deserialize;

use crate::boot_files::{Boot, RawBoot};
use crate::emulation::{Emulation, RawEmulation};
use crate::error::{Context, Error, Result};
use crate::suggest;
use crate::videocore::Model;

/// A machine that images can be built for. Holding one proves: the name is that of its directory,
/// sizes are whole multiples of 4 MiB, the kernel command line has no control characters and no
/// key of our own, the status LED has all of its stages.
#[derive(Clone, Debug)]
pub struct Board {
    /// Directory name and the name in manifests.
    pub name: String,
    /// One line for `iota build --help` and error messages.
    pub description: String,
    /// Instruction set of everything in the image.
    pub architecture: Architecture,
    /// Partition sizes.
    pub layout: Layout,
    /// The kernel's package.
    pub kernel_package: String,
    /// Kernel command line as signed into the manifest.
    pub command_line: String,
    /// Groups of packages that this board needs besides the base.
    pub groups: Vec<String>,
    /// Kernel modules by where they are needed.
    pub modules: Modules,
    /// The LED that shows how far a start is.
    pub led: Option<Led>,
    /// Raspberry Pis that the image is for: the firmware of each has to accept it.
    pub models: Vec<Model>,
    /// What the boot partition holds besides the loader.
    pub boot: Boot,
    /// How the image is run in QEMU.
    pub emulation: Emulation,
}

/// Instruction set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// 64-bit Arm; Debian's `arm64`.
    Aarch64,
}

impl Architecture {
    /// Debian's name of the architecture.
    pub fn debian(self) -> &'static str {
        match self {
            Self::Aarch64 => "arm64",
        }
    }
}

/// Kind of partition table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Table {
    /// GUID partition table (UEFI 2.10, chapter 5).
    Gpt,
    /// Master boot record with four partitions: what the first stages of a Raspberry Pi read.
    Mbr,
}

/// Partition table and sizes in bytes, multiples of 4 MiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Kind of partition table.
    pub table: Table,
    /// The FAT partition the firmware reads.
    pub boot_bytes: u64,
    /// Each of the two slots.
    pub slot_bytes: u64,
    /// The data partition.
    pub data_bytes: u64,
}

/// Kernel modules a board needs, each group with its reason.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Modules {
    /// Loaded before the root is mounted; shipped in the initrd.
    #[serde(default)]
    pub initrd: Vec<ModuleGroup>,
    /// Shipped in the root; loaded when a device or the engine asks for them.
    #[serde(default)]
    pub root: Vec<ModuleGroup>,
}

/// Modules that are there for one reason.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ModuleGroup {
    /// Why these modules ship.
    pub reason: String,
    /// Module names as `modprobe` takes them.
    pub names: Vec<String>,
    /// Of the initrd's: these only find the disk, and are not loaded once it is there.
    #[serde(default)]
    pub until_disk: bool,
}

impl Modules {
    /// Names of all modules the initrd ships, in the file's order.
    pub fn initrd_names(&self) -> Vec<&str> {
        names(&self.initrd)
    }

    /// Those among them that every start loads.
    pub fn always_names(&self) -> Vec<&str> {
        let always = self.initrd.iter().filter(|group| !group.until_disk);
        always.flat_map(|group| group.names.iter().map(String::as_str)).collect()
    }

    /// Names of all modules the root ships, in the file's order.
    pub fn root_names(&self) -> Vec<&str> {
        names(&self.root)
    }
}

fn names(groups: &[ModuleGroup]) -> Vec<&str> {
    groups.iter().flat_map(|group| group.names.iter().map(String::as_str)).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBoard {
    name: String,
    description: String,
    architecture: Architecture,
    #[serde(default)]
    models: Vec<Model>,
    #[serde(default)]
    groups: Vec<String>,
    layout: RawLayout,
    kernel: RawKernel,
    led: Option<RawLed>,
    #[serde(default)]
    boot: RawBoot,
    qemu: RawEmulation,
    #[serde(default)]
    modules: Modules,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLayout {
    table: Table,
    boot: String,
    slot: String,
    data: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawKernel {
    package: String,
    command_line: Vec<String>,
}

/// Each stage as the system description has it: a trigger of the kernel and its settings.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLed {
    reason: String,
    name: String,
    starting: String,
    running: String,
    safe: String,
    stopping: String,
}

impl RawLed {
    fn check(self) -> Result<Led> {
        if self.reason.trim().is_empty() {
            return Err(Error::new(format!("led {} has no reason", self.name)));
        }
        let pattern = |stage: &str, text: &str| {
            let parsed = text.parse::<Pattern>();
            let parsed = parsed.context(|| format!("led.{stage} is no trigger with settings"));
            parsed.map_err(|error| error.hint("write `timer delay_on=100 delay_off=100`"))
        };
        let led = Led {
            starting: pattern("starting", &self.starting)?,
            running: pattern("running", &self.running)?,
            safe: pattern("safe", &self.safe)?,
            stopping: pattern("stopping", &self.stopping)?,
            name: self.name,
        };
        match led.check() {
            Ok(()) => Ok(led),
            Err(error) => Err(Error::new(error.problem)),
        }
    }
}

impl Board {
    /// Loads `boards/NAME/board.toml` below the workspace root.
    ///
    /// Errors: no such board (with the nearest name), unreadable, unknown key, a value out of
    /// range.
    pub fn load(workspace: &Path, name: &str) -> Result<Board> {
        let boards = list(workspace)?;
        if !boards.iter().any(|board| board == name) {
            let nearest = suggest::nearest(name, boards.iter().map(String::as_str));
            let hint = match nearest {
                Some(nearest) => format!("did you mean `{nearest}`?"),
                None => format!("boards: {}", boards.join(", ")),
            };
            return Err(Error::new(format!("no board is named `{name}`")).hint(hint));
        }
        let directory = workspace.join("boards").join(name);
        let path = directory.join("board.toml");
        let text =
            fs::read_to_string(&path).context(|| format!("cannot read {}", path.display()))?;
        let shown = format!("boards/{name}/board.toml");
        let mut board = Board::parse(&text, name).context(|| shown)?;
        board.boot.load(&directory)?;
        Ok(board)
    }

    /// Checks the text of a `board.toml` that lies in the directory `directory`.
    pub fn parse(text: &str, directory: &str) -> Result<Board> {
        let raw: RawBoard =
            toml::from_str(text).map_err(|error| Error::new(toml_message(&error)))?;
        if raw.name != directory {
            return Err(Error::new(format!(
                "name is `{}`, but the directory is `{directory}`",
                raw.name
            )));
        }
        let layout = Layout {
            table: raw.layout.table,
            boot_bytes: partition_size("layout.boot", &raw.layout.boot)?,
            slot_bytes: partition_size("layout.slot", &raw.layout.slot)?,
            data_bytes: partition_size("layout.data", &raw.layout.data)?,
        };
        check_modules(&raw.modules)?;
        Ok(Board {
            name: raw.name,
            description: raw.description,
            architecture: raw.architecture,
            layout,
            kernel_package: raw.kernel.package,
            command_line: command_line(&raw.kernel.command_line)?,
            groups: raw.groups,
            models: raw.models,
            modules: raw.modules,
            led: raw.led.map(RawLed::check).transpose()?,
            boot: Boot::check(raw.boot)?,
            emulation: Emulation::check(raw.qemu)?,
        })
    }
}

/// Names of all boards: the directories of `boards/` that hold a `board.toml`, sorted.
pub fn list(workspace: &Path) -> Result<Vec<String>> {
    let directory = workspace.join("boards");
    let entries = fs::read_dir(&directory)
        .context(|| format!("cannot read {}", directory.display()))
        .map_err(|error| {
            error.hint("run `iota` inside the Iota source tree, or pass --workspace")
        })?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.context(|| format!("cannot read {}", directory.display()))?;
        if entry.path().join("board.toml").is_file() {
            names.extend(entry.file_name().into_string());
        }
    }
    names.sort();
    Ok(names)
}

/// The first useful line of a TOML error with its position.
pub fn toml_message(error: &toml::de::Error) -> String {
    error.to_string().trim_end().replace('\n', "\n  ")
}

fn check_modules(modules: &Modules) -> Result<()> {
    for group in modules.initrd.iter().chain(&modules.root) {
        if group.reason.trim().is_empty() || group.names.is_empty() {
            return Err(Error::new("a group of modules needs a reason and at least one name"));
        }
    }
    if modules.root.iter().any(|group| group.until_disk) {
        return Err(Error::new("until-disk is for groups of modules of the initrd"));
    }
    Ok(())
}

fn command_line(words: &[String]) -> Result<String> {
    for word in words {
        let plain = word.bytes().all(|byte| byte.is_ascii_graphic());
        if word.is_empty() || !plain {
            return Err(Error::new(format!(
                "kernel.command-line: `{}` is not one plain word",
                word.escape_debug()
            )));
        }
        if word.starts_with("iota.") {
            return Err(Error::new(format!(
                "kernel.command-line: `{word}` is reserved for the loader"
            )));
        }
    }
    Ok(words.join(" "))
}

const MIB: u64 = 1024 * 1024;

fn partition_size(key: &str, text: &str) -> Result<u64> {
    let bytes = parse_size(text).ok_or_else(|| {
        Error::new(format!("{key}: `{text}` is not a size"))
            .hint("write for example \"512 MiB\" or \"2 GiB\"")
    })?;
    if bytes == 0 || bytes % (4 * MIB) != 0 {
        return Err(Error::new(format!("{key}: {text} is not a positive multiple of 4 MiB"))
            .hint("flash erase blocks are up to 4 MiB; partitions start and end on them"));
    }
    Ok(bytes)
}

/// `512 MiB` → bytes. Binary units only: KiB, MiB, GiB.
pub fn parse_size(text: &str) -> Option<u64> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim_start() {
        "KiB" => 1024,
        "MiB" => MIB,
        "GiB" => 1024 * MIB,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ondisk::system::Stage;

    const GOOD: &str = include_str!("../../boards/generic-aarch64/board.toml");

    fn error_of(change: (&str, &str)) -> String {
        assert!(GOOD.contains(change.0), "the sample has no `{}`", change.0);
        let text = GOOD.replacen(change.0, change.1, 1);
        Board::parse(&text, "generic-aarch64").unwrap_err().chain()
    }

    #[test]
    fn the_shipped_board_is_good() {
        let board = Board::parse(GOOD, "generic-aarch64").unwrap();
        assert_eq!(board.layout.slot_bytes, 512 * MIB);
        assert!(board.command_line.contains("panic=5"));
    }

    #[test]
    fn every_board_is_good_and_those_in_qemu_say_that_they_are_emulated() {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for name in list(&workspace).unwrap() {
            let board = Board::load(&workspace, &name).unwrap_or_else(|e| panic!("{}", e.chain()));
            let Emulation::RaspberryPi(pi) = board.emulation else { continue };
            let property = ondisk::virtual_machine::PROPERTY;
            let says_so = pi.edits.iter().any(|edit| edit.set.contains_key(property));
            assert!(says_so, "{name}: no edit sets {property}");
        }
    }

    #[test]
    fn one_wrong_value_gives_one_exact_error() {
        let cases = [
            (("name = \"generic", "name = \"other"), "name is `other-aarch64`, but the directory"),
            (("\"512 MiB\"", "\"510 MiB\""), "layout.slot: 510 MiB is not a positive multiple"),
            (("\"512 MiB\"", "\"512 MB\""), "layout.slot: `512 MB` is not a size"),
            (("\"panic=5\"", "\"iota.slot=b\""), "`iota.slot=b` is reserved"),
            (("\"panic=5\"", "\"panic=5 x\""), "`panic=5 x` is not one plain word"),
            (("[layout]", "[layout]\nspeed = 1"), "unknown field `speed`"),
        ];
        for (change, expected) in cases {
            let error = error_of(change);
            assert!(error.contains(expected), "{change:?}: {error}");
        }
    }

    /// A start that is shown by a fast blinking light.
    const LED: &str = r#"
[led]
reason = "nobody has a screen there"
name = "ACT"
starting = "timer delay_on=100 delay_off=100"
running = "heartbeat"
safe = "timer delay_on=1000 delay_off=1000"
stopping = "default-on"
"#;

    #[test]
    fn a_status_led_has_all_of_its_stages_and_a_reason() {
        let parse = |from: &str, to: &str| {
            assert!(LED.contains(from), "the sample has no `{from}`");
            Board::parse(&format!("{GOOD}{}", LED.replacen(from, to, 1)), "generic-aarch64")
        };
        let led = parse("ACT", "green:status").unwrap().led.unwrap();
        assert_eq!(
            (led.name.as_str(), led.running.trigger.as_str()),
            ("green:status", "heartbeat")
        );
        assert!(
            Board::parse(GOOD, "generic-aarch64").unwrap().led.is_none(),
            "none has to be there"
        );
        for (from, to, expected) in [
            ("nobody has a screen there", " ", "led ACT has no reason"),
            ("safe = \"timer", "blink = \"timer", "unknown field `blink`"),
            ("stopping = \"default-on\"\n", "", "missing field `stopping`"),
            ("delay_on=100", "100", "led.starting is no trigger with settings: `100` has no `=`"),
            ("\"heartbeat\"", "\"\"", "led ACT: the stage `running` is missing"),
            ("\"ACT\"", "\"../ACT\"", "LED `../ACT` is not a name of letters"),
        ] {
            let error = parse(from, to).unwrap_err().chain();
            assert!(error.contains(expected), "{from} → {to}: {error}");
        }
    }

    #[test]
    fn the_triggers_of_a_status_led_are_in_the_kernel_or_among_the_modules() {
        /// `CONFIG_LEDS_TRIGGER_…=y` in Debian's kernel, of those that a board may want.
        const BUILT_IN: [&str; 1] = ["heartbeat"];
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for name in list(&workspace).unwrap() {
            let board = Board::load(&workspace, &name).unwrap();
            let shipped = board.modules.root_names();
            let patterns = board.led.iter().flat_map(|led| Stage::ALL.map(|s| led.pattern(s)));
            for pattern in patterns {
                let module = pattern.module();
                let there = BUILT_IN.contains(&&*pattern.trigger) || shipped.contains(&&*module);
                assert!(there, "{name}: the module {module} is missing");
            }
        }
    }

    #[test]
    fn a_misspelt_board_gets_the_nearest_name() {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let error = Board::load(&workspace, "generic-arch64").unwrap_err();
        assert_eq!(error.next_step(), Some("did you mean `generic-aarch64`?"));
    }
}
