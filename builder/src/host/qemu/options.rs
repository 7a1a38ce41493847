//! What a virtual machine is made of.

use std::path::PathBuf;
use std::str::FromStr;

use crate::emulation::Emulation;
use crate::error::{Error, Result};

/// What a machine is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// A raw disk image.
    pub disk: PathBuf,
    /// The machine; memory and processors can be chosen for `virt` alone.
    pub emulation: Emulation,
    /// Write into the image; otherwise writes are thrown away in the end.
    pub persist: bool,
    /// The guest's disk takes no writes, as a card with its lock on, or one that is worn out.
    pub read_only: bool,
    /// A raw image of a USB stick that is plugged in from the start. It stays as it is.
    pub stick: Option<PathBuf>,
    /// USB, for what is plugged in later ([`super::Machine::plug_network`]); with a stick there is
    /// one.
    pub usb: bool,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Processors.
    pub processors: u32,
    /// TCP ports of this machine that lead into the guest.
    pub forwards: Vec<Forward>,
    /// A restart of the guest restarts the machine; otherwise it ends it.
    pub restarts: bool,
    /// A kernel that QEMU starts itself, without firmware and loader.
    pub kernel: Option<Kernel>,
    /// What the clock chip says at the start, in UTC, such as `2038-01-19T03:14:00`; else the time.
    pub clock: Option<&'static str>,
    /// Every write, flush and discard of the guest is appended to this file, in the order of their
    /// ends and in the format of Linux' dm-log-writes. Goes with `persist` only.
    pub write_log: Option<PathBuf>,
}

/// What a loader would start: for machines without one.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The kernel, unpacked.
    pub image: PathBuf,
    /// The initial RAM disk.
    pub initrd: PathBuf,
    /// All words of the command line.
    pub command_line: String,
}

impl Options {
    /// A machine as small devices are, whose disk stays as it is.
    pub fn new(disk: impl Into<PathBuf>) -> Self {
        Self {
            disk: disk.into(),
            emulation: Emulation::Virt,
            persist: false,
            read_only: false,
            stick: None,
            usb: false,
            memory_mib: 1024,
            processors: 2,
            forwards: Vec::new(),
            restarts: true,
            kernel: None,
            clock: None,
            write_log: None,
        }
    }
}

/// A TCP port of this machine, reachable from itself alone, that leads to one of the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Forward {
    /// The port on this machine.
    pub host: u16,
    /// The port in the guest.
    pub guest: u16,
}

impl FromStr for Forward {
    type Err = Error;

    /// Reads `8080:80`.
    fn from_str(text: &str) -> Result<Self> {
        let port = |text: &str| text.parse().ok().filter(|port| *port != 0);
        let ports =
            text.split_once(':').and_then(|(host, guest)| Some((port(host)?, port(guest)?)));
        let (host, guest) = ports.ok_or_else(|| {
            Error::new(format!("`{text}` is not a pair of ports"))
                .hint("give the port here and the port in the guest: --forward 8080:80")
        })?;
        Ok(Self { host, guest })
    }
}
