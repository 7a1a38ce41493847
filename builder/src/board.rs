//! A board: one directory under `boards/` with a `board.toml`, checked once into [`Board`].
//!
//! Adding a directory adds the board to the command line and the tests. Files are flat and
//! complete; an unknown key is refused, so that a typing error never changes an image silently.

use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::error::{Context, Error, Result};
use crate::suggest;

/// A machine that images can be built for. Holding one proves: the name is that of its directory,
/// sizes are whole multiples of 4 MiB, the kernel command line has no control characters and no
/// key of our own.
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
    /// Kernel modules by where they are needed.
    pub modules: Modules,
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
#[serde(deny_unknown_fields)]
pub struct ModuleGroup {
    /// Why these modules ship.
    pub reason: String,
    /// Module names as `modprobe` takes them.
    pub names: Vec<String>,
}

impl Modules {
    /// Names of all modules the initrd loads, in the file's order.
    pub fn initrd_names(&self) -> Vec<&str> {
        names(&self.initrd)
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
    layout: RawLayout,
    kernel: RawKernel,
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
        let path = workspace.join("boards").join(name).join("board.toml");
        let text =
            fs::read_to_string(&path).context(|| format!("cannot read {}", path.display()))?;
        let shown = format!("boards/{name}/board.toml");
        Board::parse(&text, name).context(|| shown)
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
            modules: raw.modules,
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

    #[test]
    fn a_misspelt_board_gets_the_nearest_name() {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let error = Board::load(&workspace, "generic-arch64").unwrap_err();
        assert_eq!(error.next_step(), Some("did you mean `generic-aarch64`?"));
    }
}
