//! Why a target is not overwritten, in words, with the next step.

use std::fmt;
use std::path::PathBuf;

use ondisk::layout::SECTOR_BYTES;

use super::facts::disk_size;
use crate::error::Error;

/// Why a target is not overwritten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A directory.
    Directory(PathBuf),
    /// Neither a disk nor a regular file.
    NoBytes(PathBuf),
    /// Nothing, or a regular file, where devices are.
    NoSuchDevice {
        /// As typed.
        path: PathBuf,
        /// The disks there are.
        candidates: Vec<String>,
    },
    /// A file that is read on the way.
    Source {
        /// The target.
        path: PathBuf,
        /// The file by the other name.
        source: PathBuf,
    },
    /// A part of a disk.
    Partition {
        /// As typed.
        path: PathBuf,
        /// The whole.
        disk: String,
    },
    /// A device that is made of others.
    NotAMedium(String),
    /// Parts of this machine's system are on it.
    System {
        /// The disk.
        name: String,
        /// Where they are mounted.
        places: Vec<String>,
    },
    /// File systems on it are mounted.
    Mounted {
        /// The disk.
        name: String,
        /// Where.
        places: Vec<String>,
    },
    /// A volume or an array uses it.
    Held {
        /// The disk.
        name: String,
        /// What uses it.
        by: String,
    },
    /// A reader without a card.
    NoMedium(String),
    /// It cannot be written.
    ReadOnly(String),
    /// Sectors of a size that the image is not made for.
    SectorSize {
        /// The disk.
        name: String,
        /// Their size.
        bytes: u64,
    },
    /// Not removable, and not named twice.
    BuiltIn {
        /// The disk.
        name: String,
        /// Its model.
        model: String,
        /// Its length.
        bytes: u64,
    },
    /// Another disk was named the second time.
    OtherErased {
        /// The disk.
        name: String,
        /// The other.
        named: PathBuf,
    },
    /// Smaller than the image.
    TooSmall {
        /// The disk.
        name: String,
        /// Its length.
        has: u64,
        /// The image's.
        needs: u64,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "{} is a directory", path.display()),
            Self::NoBytes(path) => {
                write!(f, "{} is neither a disk nor a regular file", path.display())
            }
            Self::NoSuchDevice { path, .. } => write!(f, "there is no disk {}", path.display()),
            Self::Source { path, source } => {
                write!(f, "{} is {}, which is read", path.display(), source.display())
            }
            Self::Partition { path, disk } => {
                write!(f, "{} is a partition of {disk}; an image is a whole disk", path.display())
            }
            Self::NotAMedium(name) => write!(f, "{name} is not a disk of its own"),
            Self::System { name, places } => {
                write!(f, "{name} runs this machine: {}", places.join(", "))
            }
            Self::Mounted { name, places } => {
                write!(f, "{name} is mounted: {}", places.join(", "))
            }
            Self::Held { name, by } => write!(f, "{name} is in use by {by}"),
            Self::NoMedium(name) => write!(f, "{name} has no card in it"),
            Self::ReadOnly(name) => write!(f, "{name} cannot be written"),
            Self::SectorSize { name, bytes } => {
                write!(f, "{name} has sectors of {bytes} bytes, images are made for {SECTOR_BYTES}")
            }
            Self::BuiltIn { name, model, bytes } => {
                let model = if model.is_empty() { String::new() } else { format!(" {model}") };
                write!(f, "{name} is not removable ({}{model})", disk_size(*bytes))
            }
            Self::OtherErased { name, named } => {
                write!(f, "--yes-erase names {}, the target is {name}", named.display())
            }
            Self::TooSmall { name, has, needs } => write!(
                f,
                "{name} has {has} bytes ({}), the image needs {needs} ({})",
                disk_size(*has),
                disk_size(*needs)
            ),
        }
    }
}

impl Refusal {
    /// The same for the command line.
    pub fn into_error(self) -> Error {
        Error::new(self.to_string()).hint(self.hint())
    }

    /// What the user can do.
    pub fn hint(&self) -> String {
        let any = "run `iota flash BOARD` without --device to see the disks there are";
        match self {
            Self::Partition { disk, .. } => format!("for the whole disk: --device {disk}"),
            Self::NoSuchDevice { candidates, .. } if candidates.is_empty() => {
                "no card, stick or USB disk is here; name a file outside of /dev".to_owned()
            }
            Self::NoSuchDevice { candidates, .. } => {
                format!("there are: {}", candidates.join(", "))
            }
            Self::Directory(_) => "name a disk or a file, such as card.img".to_owned(),
            Self::Source { .. } => "name another file".to_owned(),
            Self::Mounted { places, .. } => {
                let words = places.iter().map(|place| format!("'{place}'")).collect::<Vec<_>>();
                format!("unmount it first: umount {}", words.join(" "))
            }
            Self::Held { by, .. } => format!("stop {by} first, with the tools that made it"),
            Self::NoMedium(_) => "put a card into the reader".to_owned(),
            Self::ReadOnly(_) => "move the lock at the card's side, or take another".to_owned(),
            Self::BuiltIn { name, .. } => {
                format!("if it is meant, name it again: --yes-erase {name}")
            }
            Self::OtherErased { name, .. } => {
                format!("to erase it: --device {name} --yes-erase {name}")
            }
            Self::TooSmall { .. } => {
                "take a larger card, or make `layout.data` of the board smaller".to_owned()
            }
            Self::System { .. }
            | Self::NoBytes(_)
            | Self::NotAMedium(_)
            | Self::SectorSize { .. } => any.to_owned(),
        }
    }
}
