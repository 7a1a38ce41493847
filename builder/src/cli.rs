//! The command line as typed, and nothing else: no file is opened while it is read.

use std::path::PathBuf;

use crate::app::image::Source;
use crate::publish::Destination;
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
    /// Put the release of a bundle where any web server hands it out to devices
    Publish(PublishArgs),
    /// Change who is to install the release that a channel offers
    #[command(subcommand)]
    Release(ReleaseVerb),
    /// Show what a disk image, slot or bundle holds, and check it
    Inspect(InspectArgs),
    /// Check an iota.toml, which tells a device its name, addresses and more
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Put an app onto a device that runs, over SSH
    Push(PushArgs),
    /// Check an app: a Compose file and what lies beside it
    #[command(subcommand)]
    App(AppVerb),
    /// Choose versions of packages and container images again and record them
    Lock,
    /// Make and show signing keys
    #[command(subcommand)]
    Key(KeyVerb),
    /// Say which keys count for what, and change them on devices in the field
    #[command(subcommand)]
    Trust(TrustVerb),
}

/// Options of every verb that builds a board: `iota build`, `run`, `flash` and `bundle`.
#[derive(Args, Clone, Debug)]
pub struct BuildArgs {
    /// A directory of boards/, for example generic-aarch64
    pub board: String,
    /// The container engine: a file of rootfs/engines/
    #[arg(long, value_name = "NAME", default_value = "docker")]
    pub engine: String,
    /// For devices in the field: best compression; needs a release key
    #[arg(long, requires = "key")]
    pub release: bool,
    /// Sign with this .secret file; may be repeated [default: keys/development.secret, made on
    /// first use]
    #[arg(long, value_name = "FILE", env = "IOTA_KEY")]
    pub key: Vec<PathBuf>,
    /// A directory of trust roots, which say what keys count for [default: the key, for everything]
    #[arg(long, value_name = "DIR", env = "IOTA_TRUST")]
    pub trust: Option<PathBuf>,
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
    /// Compression of the root file system; kernel and initrd are packed with zstd or lz4 like it
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = RootFormat::default())]
    pub root_format: RootFormat,
    /// Build again even when nothing changed
    #[arg(long)]
    pub force: bool,
    /// Carry the app of this directory (compose.yaml), besides those of apps/; may be repeated
    #[arg(long, value_name = "DIR")]
    pub app: Vec<PathBuf>,
    /// Carry a container image: docker://NAME:TAG of a registry, oci:DIR or docker-archive:FILE,
    /// with NAME= in front to rename it; may be repeated
    #[arg(long, value_name = "SOURCE")]
    pub with_image: Vec<Source>,
    /// Carry Compose even without an app, for `iota push`
    #[arg(long)]
    pub compose: bool,
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

/// Where channels are.
#[derive(Args, Clone, Debug)]
pub struct Place {
    /// The directory that a web server hands out, made if need be; or a repository of a container
    /// registry: oci://HOST/NAME[:CHANNEL], without TLS oci+http://…; or a bucket:
    /// s3://BUCKET/PREFIX, with its keys in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
    #[arg(value_name = "DIR|oci://…|s3://…", value_parser = Destination::parse)]
    pub to: Destination,
    /// Where the bucket's store is, if it is not Amazon's, such as https://s3.example.org
    /// [default: AWS_ENDPOINT_URL]
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
}

/// Options of `iota publish`.
#[derive(Args, Clone, Debug)]
pub struct PublishArgs {
    /// The update file, made by `iota bundle`
    pub bundle: PathBuf,
    /// Where devices find it.
    #[command(flatten)]
    pub place: Place,
    /// Which devices: those whose iota.toml names this channel [default: stable]
    #[arg(long, value_name = "NAME")]
    pub channel: Option<String>,
    /// How many of them install it at first, in percent; `iota release promote` lets in more
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = percent())]
    pub share: u8,
    /// Let in more of them evenly, until it is all after so many hours by the devices' clocks
    #[arg(long, value_name = "HOURS", value_parser = clap::value_parser!(u16).range(1..))]
    pub over: Option<u16>,
    /// Have devices restart into it at once, whatever hours their owners want for that
    #[arg(long)]
    pub critical: bool,
    /// Offer it to devices that run a system of this rollback index or above, to no others
    #[arg(long, value_name = "N")]
    pub needs: Option<u64>,
    /// Bring those others there by this channel
    #[arg(long, value_name = "NAME", requires = "needs")]
    pub through: Option<String>,
    /// A line about what is new, for `iota update check` and `iota status`; may be repeated
    #[arg(long, value_name = "TEXT")]
    pub note: Vec<String>,
    /// From how many of the releases before there is a small way to this one
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = few())]
    pub bases: u8,
    /// Whose signatures count and with what.
    #[command(flatten)]
    pub signing: ChannelSigning,
}

fn percent() -> clap::builder::RangedI64ValueParser<u8> {
    clap::value_parser!(u8).range(0..=100)
}

fn few() -> clap::builder::RangedI64ValueParser<u8> {
    clap::value_parser!(u8).range(0..=15)
}

/// `iota release …`
#[derive(Subcommand, Clone, Debug)]
pub enum ReleaseVerb {
    /// Let more devices install it, and go on after a pause
    Promote {
        /// Which channel.
        #[command(flatten)]
        channel: ChannelArgs,
        /// How many of all devices, in percent
        #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = percent())]
        share: u8,
        /// Let in the rest evenly, until it is all after so many hours by the devices' clocks
        #[arg(long, value_name = "HOURS", value_parser = clap::value_parser!(u16).range(1..))]
        over: Option<u16>,
    },
    /// Let no more devices install it for now
    Pause(ChannelArgs),
    /// Let no device install it any more; those that have not started it yet give it up
    Withdraw(ChannelArgs),
}

/// Which channel is changed.
#[derive(Args, Clone, Debug)]
pub struct ChannelArgs {
    /// Where `iota publish` put it.
    #[command(flatten)]
    pub place: Place,
    /// The board
    pub board: String,
    /// The channel [default: stable]
    #[arg(long, value_name = "NAME")]
    pub channel: Option<String>,
    /// Whose signatures count and with what.
    #[command(flatten)]
    pub signing: ChannelSigning,
}

/// How the root file system is stored in the slot.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RootFormat {
    /// EROFS without compression: quickest to make, most bytes to read at boot
    Plain,
    /// EROFS with lz4: fewer bytes to read at boot, quick to make
    Lz4,
    /// EROFS with lz4 at high effort: read like lz4, smaller
    Lz4hc,
    /// EROFS with zstd: smallest slot, smallest updates, fewest bytes to read at boot
    #[default]
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
    #[arg(long, value_name = "FILE", conflicts_with = "trust")]
    pub key: Vec<PathBuf>,
    /// Check signatures against the newest of this directory of trust roots
    #[arg(long, value_name = "DIR")]
    pub trust: Option<PathBuf>,
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

/// Options of `iota push`.
#[derive(Args, Debug)]
pub struct PushArgs {
    /// The device: [USER@]NAME, as for ssh; the user is root
    pub host: String,
    /// The app: a directory with a Compose file
    #[arg(default_value = ".")]
    pub directory: PathBuf,
    /// Name of the app [default: that of its directory]
    #[arg(long)]
    pub name: Option<String>,
    /// An image that the file names: docker://NAME:TAG, oci:DIR or docker-archive:FILE, with NAME=
    /// in front to rename it; may be repeated. Others are taken from Docker on this machine, if it
    /// has them
    #[arg(long, value_name = "SOURCE")]
    pub with_image: Vec<Source>,
    /// How long it may take to become healthy before the former release comes back
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub within: u32,
    /// Port of the SSH server
    #[arg(long, short)]
    pub port: Option<u16>,
    /// The program to run for SSH
    #[arg(long, value_name = "PROGRAM", env = "IOTA_SSH", default_value = "ssh")]
    pub ssh: PathBuf,
}

/// `iota app …`
#[derive(Subcommand, Debug)]
pub enum AppVerb {
    /// Say what of a Compose file a device cannot honour; exit code 2 if there is anything
    Check {
        /// A Compose file, or the directory of an app
        file: PathBuf,
        /// Machine-readable output
        #[arg(long)]
        json: bool,
    },
}

/// Keys of `iota publish` and `iota release`.
#[derive(Args, Clone, Debug)]
pub struct ChannelSigning {
    /// Sign with this .secret file; may be repeated [default: keys/development.secret]
    #[arg(long, value_name = "FILE", env = "IOTA_KEY")]
    pub key: Vec<PathBuf>,
    /// A directory of trust roots, which say what keys count for [default: the key, for everything]
    #[arg(long, value_name = "DIR", env = "IOTA_TRUST")]
    pub trust: Option<PathBuf>,
}

/// `iota trust …`
#[derive(Subcommand, Debug)]
pub enum TrustVerb {
    /// Make the first trust root
    New(TrustArgs),
    /// Make the next one: what is not named stays as it is
    Change(TrustArgs),
    /// Add signatures to the one that waits for some
    Sign {
        /// A directory of trust roots
        directory: PathBuf,
        /// Sign with this .secret file; may be repeated
        #[arg(long, value_name = "FILE", required = true)]
        sign: Vec<PathBuf>,
    },
    /// Show which keys count for what, and check that each follows from the one before
    Show {
        /// A directory of trust roots
        directory: PathBuf,
    },
}

/// What a trust root says.
#[derive(Args, Clone, Debug)]
pub struct TrustArgs {
    /// A directory of trust roots: the files 1, 2, …
    pub directory: PathBuf,
    /// A key that signs trust roots, a .pub file; may be repeated
    #[arg(long, value_name = "FILE")]
    pub root_key: Vec<PathBuf>,
    /// A key that signs releases, a .pub file; may be repeated
    #[arg(long, value_name = "FILE")]
    pub release_key: Vec<PathBuf>,
    /// A key that signs channels, a .pub file; may be repeated
    #[arg(long, value_name = "FILE")]
    pub channel_key: Vec<PathBuf>,
    /// How many root keys have to sign [default: as before, at first 1]
    #[arg(long, value_name = "N")]
    pub root_threshold: Option<u8>,
    /// How many release keys have to sign
    #[arg(long, value_name = "N")]
    pub release_threshold: Option<u8>,
    /// How many channel keys have to sign
    #[arg(long, value_name = "N")]
    pub channel_threshold: Option<u8>,
    /// Let no device install the release of this bundle again; may be repeated
    #[arg(long, value_name = "BUNDLE")]
    pub revoke: Vec<PathBuf>,
    /// Sign with this .secret file of a root key; may be repeated
    #[arg(long, value_name = "FILE", required = true)]
    pub sign: Vec<PathBuf>,
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
