//! The command line as typed, and nothing else: no file is opened while it is read.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Builds minimal, immutable, signed container-host operating systems.
#[derive(Parser, Debug)]
#[command(name = "iota", version, max_term_width = 100, arg_required_else_help = true)]
#[command(
    after_help = "Start with:  iota run generic-aarch64\nExit codes:  0 done, 1 no, 2 failed"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
    /// Options of every verb.
    #[command(flatten)]
    pub common: Common,
}

/// Options of every verb.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Common options")]
pub struct Common {
    /// The Iota source tree [default: the one around the current directory]
    #[arg(long, global = true, value_name = "DIR", env = "IOTA_WORKSPACE")]
    pub workspace: Option<PathBuf>,
    /// Downloads and unpacked packages, shared between builds [default: ~/.cache/iota]
    #[arg(long, global = true, value_name = "DIR", env = "IOTA_CACHE")]
    pub cache: Option<PathBuf>,
    /// Debian mirror [default: IOTA_MIRROR, then this machine's apt sources]
    #[arg(long, global = true, value_name = "URL")]
    pub mirror: Option<String>,
    /// Use the cache alone, never the network
    #[arg(long, global = true)]
    pub offline: bool,
    /// Print errors only
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

/// The verbs.
#[derive(Subcommand, Debug)]
pub enum Verb {
    /// Build the image of a board
    Build(ImageArgs),
    /// Build the image of a board and boot it in QEMU on this terminal
    Run(RunArgs),
    /// Write an image to a card, stick or disk, and read it back
    Flash(FlashArgs),
    /// Build the image of a board and make a signed update file of it
    Bundle(BuildArgs),
    /// Show what a disk image, slot or bundle holds, and check it
    Inspect(InspectArgs),
    /// Check an iota.toml, which tells a device its name, addresses and more
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Choose package versions again and record them
    Lock,
    /// Make and show signing keys
    #[command(subcommand)]
    Key(KeyVerb),
}

/// Options of every verb that builds a board: `iota build`, `run`, `flash` and `bundle`.
#[derive(Args, Clone, Debug)]
pub struct BuildArgs {
    /// A directory of boards/, for example generic-aarch64
    pub board: String,
    /// For devices in the field: best compression; needs a release key
    #[arg(long, requires = "key")]
    pub release: bool,
    /// Sign with this .secret file [default: keys/development.secret, made on first use]
    #[arg(long, value_name = "FILE", env = "IOTA_KEY")]
    pub key: Option<PathBuf>,
    /// Refuse to build when the mirror no longer has a locked package version
    #[arg(long)]
    pub locked: bool,
    /// Where outputs go, in a directory named after the board
    #[arg(long, short, value_name = "DIR", default_value = "out")]
    pub out: PathBuf,
    /// Version of the image [default: the builder's; with a digest of all inputs if not --release]
    #[arg(long, value_name = "VERSION")]
    pub image_version: Option<String>,
    /// Devices refuse updates with a lower number than the one they have committed
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub rollback_index: u32,
    /// Compression of the root file system
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = RootFormat::Zstd)]
    pub root_format: RootFormat,
    /// Build again even when nothing changed
    #[arg(long)]
    pub force: bool,
}

/// Options of `iota build` alone.
#[derive(Args, Clone, Debug)]
pub struct ImageArgs {
    /// Put this file, which is checked first, into the image's boot partition as the device's
    /// iota.toml
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How to build the board.
    #[command(flatten)]
    pub build: BuildArgs,
}

/// How the root file system is stored in the slot.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum RootFormat {
    /// EROFS without compression: quickest to make, most bytes to read at boot
    Plain,
    /// EROFS with lz4: fewer bytes to read at boot, quick to make
    Lz4,
    /// EROFS with lz4 at high effort: read like lz4, smaller, slower to make
    Lz4hc,
    /// EROFS with zstd: fewest bytes to read, more work for the processor
    Zstd,
}

/// Options of `iota run`.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// What to build first.
    #[command(flatten)]
    pub build: BuildArgs,
    /// Forward a TCP port of this machine to one of the guest; may be repeated
    #[arg(long, value_name = "HOST:GUEST")]
    pub forward: Vec<String>,
    /// Memory of the virtual machine in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    pub memory: u32,
    /// Keep what the guest writes; otherwise each run starts from the built image
    #[arg(long)]
    pub persist: bool,
    /// Print a table of boot stages at the end
    #[arg(long)]
    pub timings: bool,
    /// Shut down cleanly as soon as the containers run
    #[arg(long)]
    pub until_ready: bool,
    /// Run this `iota` command of the device once it is ready, print its output, and shut down; may
    /// be repeated, as in --exec 'status --json'
    #[arg(long, value_name = "COMMAND")]
    pub exec: Vec<String>,
}

/// Options of `iota flash`.
#[derive(Args, Debug)]
#[command(mut_arg("board", |argument| {
    argument.value_name("BOARD|IMAGE").help_heading("Arguments").help(
        "A board, which is built first if need be, or an image file: disk.img, disk.img.zst",
    )
}))]
pub struct FlashArgs {
    /// Where the image goes: a disk such as /dev/sdb, all of which is erased, or a file; without
    /// it the disks there are get listed
    #[arg(long, short, value_name = "DISK|FILE")]
    pub device: Option<PathBuf>,
    /// Put this file, which is checked first, into the boot partition as the device's iota.toml
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Erase a disk that is not removable: names the disk of --device again
    #[arg(long, value_name = "DISK", requires = "device")]
    pub yes_erase: Option<PathBuf>,
    /// How to build a board.
    #[command(flatten, next_help_heading = "Options for a BOARD")]
    pub build: BuildArgs,
}

/// Options of `iota inspect`.
#[derive(Args, Debug)]
pub struct InspectArgs {
    /// A disk.img, slot.img or update.bundle
    pub file: PathBuf,
    /// Check signatures against this .pub or .secret file; may be repeated
    #[arg(long, value_name = "FILE")]
    pub key: Vec<PathBuf>,
    /// Machine-readable output
    #[arg(long)]
    pub json: bool,
}

/// `iota config …`
#[derive(Subcommand, Debug)]
pub enum ConfigVerb {
    /// Say everything that is wrong with a file; exit code 2 if anything is
    Check {
        /// An iota.toml
        file: PathBuf,
        /// Machine-readable output
        #[arg(long)]
        json: bool,
    },
}

/// `iota key …`
#[derive(Subcommand, Debug)]
pub enum KeyVerb {
    /// Make a key pair: NAME.secret and NAME.pub
    New {
        /// Where to write, without ending: keys/acme makes keys/acme.secret and keys/acme.pub
        name: PathBuf,
        /// A key for devices in the field
        #[arg(long)]
        release: bool,
    },
    /// Show the id and public half of a key file
    Show {
        /// A .pub or .secret file
        file: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
