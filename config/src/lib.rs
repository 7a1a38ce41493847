//! `iota.toml`, what an owner can tell a device: from bytes to checked values, and back to text.
//!
//! The builder checks with it before a card is written, the device when it starts. It receives
//! bytes and gives values: no file, clock or network is looked at. All mistakes of a file are
//! found, not only the first, because the next look at them may be at another start of a device
//! in a cupboard. What can be said is a row of [`keys::KEYS`] or [`sysctls::SYSCTLS`], from which
//! `docs/config.md` is made; none of it names code, kernel arguments, keys, devices or mounts.
//!
//! Reading order: [`Config`] → [`text`] (is it a text at all) → `read` (its values) → [`network`];
//! for a device on which single values are changed [`values`] → [`edit`].
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

pub mod edit;
pub mod keys;
pub mod network;
pub mod problem;
pub mod reference;
pub mod ssh;
pub mod suggest;
pub mod sysctls;
pub mod text;
pub mod time;
pub mod values;

mod print;
mod read;
#[cfg(test)]
mod tests;

pub use network::{Address, Interface};
pub use problem::{Problem, Problems};
pub use ssh::PublicKey;
pub use time::TimeServer;

/// Name of the file, in the top directory of the boot partition.
pub const FILE_NAME: &str = "iota.toml";

/// Far above any configuration, far below what a boot partition has free.
pub const MOST_BYTES: usize = 64 * 1024;

/// What to read of a file at most: with a byte order mark, and one byte that shows that it is too
/// long.
pub const READ_BYTES: usize = MOST_BYTES + 4;

/// What an owner told a device. Holding one proves what [`keys::KEYS`] says about every value, and
/// of all together: no name of an interface, no address and no setting occurs twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    hostname: Option<String>,
    name_servers: Vec<IpAddr>,
    interfaces: Vec<Interface>,
    time_servers: Vec<TimeServer>,
    health_window_s: Option<u32>,
    ssh_keys: Vec<PublicKey>,
    console_image: Option<String>,
    sysctls: Vec<(&'static str, u32)>,
}

impl Config {
    /// Reads a file, or says everything that is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, Problems> {
        read::read(text::check(bytes)?)
    }

    /// The name of the device, if the owner chose one.
    pub fn hostname(&self) -> Option<&str> {
        self.hostname.as_deref()
    }

    /// Name servers to use in place of those that the network offers.
    pub fn name_servers(&self) -> &[IpAddr] {
        &self.name_servers
    }

    /// Interfaces with fixed addresses; all others ask the network.
    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// Servers of time to ask in place of the image's.
    pub fn time_servers(&self) -> &[TimeServer] {
        &self.time_servers
    }

    /// Seconds for which everything has to run before an update is kept.
    pub fn health_window_s(&self) -> Option<u32> {
        self.health_window_s
    }

    /// Keys of those who may log in; without one, nobody can.
    pub fn ssh_keys(&self) -> &[PublicKey] {
        &self.ssh_keys
    }

    /// The container image that a login opens, if the owner chose one.
    pub fn console_image(&self) -> Option<&str> {
        self.console_image.as_deref()
    }

    /// Kernel settings, sorted by name.
    pub fn sysctls(&self) -> &[(&'static str, u32)] {
        &self.sysctls
    }
}
