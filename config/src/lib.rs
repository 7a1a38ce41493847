//! `iota.toml`, what an owner can tell a device: from bytes to checked values, and back to text.
//!
//! The builder checks with it before a card is written, the device when it starts. It receives
//! bytes and gives values: no file, clock or network is looked at. All mistakes of a file are
//! found, not only the first, because the next look at them may be at another start of a device
//! in a cupboard. What can be said is a row of [`keys::KEYS`] or [`sysctls::SYSCTLS`], from which
//! `docs/config.md` is made; none of it names code, kernel arguments, keys, devices or mounts.
//!
//! Reading order: [`Config`] → [`text`] (is it a text at all) → `read` (its values) → [`network`];
//! for a device on which single values are changed [`values`] → [`edit`]; for cards that other
//! tools prepared [`import`].
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

pub mod certificate;
pub mod check;
pub mod edit;
pub mod engine;
pub mod import;
pub mod keys;
pub mod login;
pub mod modules;
pub mod network;
pub mod problem;
pub mod proxy;
pub mod reference;
pub mod registry;
pub mod secret;
pub mod ssh;
pub mod suggest;
pub mod sysctls;
pub mod text;
pub mod time;
pub mod update;
pub mod values;
pub mod wifi;
pub mod zone;

mod print;
mod read;
#[cfg(test)]
mod tests;

pub use certificate::Certificate;
pub use engine::Engine;
pub use network::{Address, Interface, Vlan};
pub use problem::{Problem, Problems};
pub use proxy::Proxy;
pub use secret::Secret;
pub use ssh::PublicKey;
pub use time::TimeServer;
pub use update::Update;
pub use wifi::{Security, Wifi};

/// Name of the file, in the top directory of the boot partition.
pub const FILE_NAME: &str = "iota.toml";

/// Far above any configuration, far below what a boot partition has free.
pub const MOST_BYTES: usize = 64 * 1024;

/// What to read of a file at most: with a byte order mark, and one byte that shows that it is too
/// long.
pub const READ_BYTES: usize = MOST_BYTES + 4;

/// What an owner told a device. Holding one proves what [`keys::KEYS`] says about every value, and
/// of all together: no name of an interface or a Wi-Fi network, no address and no setting occurs
/// twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    hostname: Option<String>,
    name_servers: Vec<IpAddr>,
    interfaces: Vec<Interface>,
    vlans: Vec<Vlan>,
    wifi_country: Option<String>,
    wifi: Vec<Wifi>,
    time_zone: Option<&'static str>,
    time_servers: Vec<TimeServer>,
    proxy: Proxy,
    certificates: Vec<Certificate>,
    health_window_s: Option<u32>,
    watchdog: Watchdog,
    ssh_keys: Vec<PublicKey>,
    console_image: Option<String>,
    serial_shell: bool,
    engine: Engine,
    modules: Vec<&'static str>,
    keeps_logs: bool,
    most_log_mb: Option<u32>,
    zram_percent: Option<u32>,
    update: Update,
    reset_by_power_cycles: bool,
    sysctls: Vec<(&'static str, u32)>,
}

/// Minutes for which a device may lack something before it restarts; without end if absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watchdog {
    /// A container engine that answers.
    pub engine_min: Option<u32>,
    /// An address of a network.
    pub network_min: Option<u32>,
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

    /// Virtual networks on the cables of interfaces.
    pub fn vlans(&self) -> &[Vlan] {
        &self.vlans
    }

    /// The country whose rules for radio hold, if the owner said where the device is.
    pub fn wifi_country(&self) -> Option<&str> {
        self.wifi_country.as_deref()
    }

    /// Wi-Fi networks to join.
    pub fn wifi(&self) -> &[Wifi] {
        &self.wifi
    }

    /// The same without its passwords: what may be shown. It is no file of a device any more.
    #[must_use]
    pub fn concealed(&self) -> Self {
        let mut config = self.clone();
        let wifi = config.wifi.iter_mut().filter_map(|wifi| wifi.password.as_mut());
        for password in wifi.chain(&mut config.update.password) {
            *password = Secret::concealed();
        }
        config
    }

    /// Servers of time to ask in place of the image's.
    pub fn time_servers(&self) -> &[TimeServer] {
        &self.time_servers
    }

    /// The time zone of containers, if the owner chose one.
    pub fn time_zone(&self) -> Option<&'static str> {
        self.time_zone
    }

    /// Who is asked in place of servers.
    pub fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    /// Authorities to trust beside the public ones.
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// Seconds for which everything has to run before an update is kept.
    pub fn health_window_s(&self) -> Option<u32> {
        self.health_window_s
    }

    /// What a device may lack for how long.
    pub fn watchdog(&self) -> Watchdog {
        self.watchdog
    }

    /// Whether several starts in quick succession reset the data partition.
    pub fn reset_by_power_cycles(&self) -> bool {
        self.reset_by_power_cycles
    }

    /// Keys of those who may log in; without one, nobody can.
    pub fn ssh_keys(&self) -> &[PublicKey] {
        &self.ssh_keys
    }

    /// The container image that a login opens, if the owner chose one.
    pub fn console_image(&self) -> Option<&str> {
        self.console_image.as_deref()
    }

    /// Whether whoever reaches the serial console may open a shell there.
    pub fn serial_shell(&self) -> bool {
        self.serial_shell
    }

    /// What the engine is told.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Modules of the kernel to load.
    pub fn modules(&self) -> &[&'static str] {
        &self.modules
    }

    /// Whether the log is kept on the data partition.
    pub fn keeps_logs(&self) -> bool {
        self.keeps_logs
    }

    /// Bytes that the kept log takes at most.
    pub fn most_log_bytes(&self) -> u64 {
        u64::from(self.most_log_mb.unwrap_or(16)).saturating_mul(1_000_000)
    }

    /// How much of all memory may be compressed, in hundredths.
    pub fn zram_percent(&self) -> u32 {
        self.zram_percent.unwrap_or(25)
    }

    /// Where updates come from, and what is done with them.
    pub fn update(&self) -> &Update {
        &self.update
    }

    /// Kernel settings, sorted by name.
    pub fn sysctls(&self) -> &[(&'static str, u32)] {
        &self.sysctls
    }
}
