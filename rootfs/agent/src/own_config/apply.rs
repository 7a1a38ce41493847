//! Makes a configuration hold: settings of the kernel, and the files that daemons are started with.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use config::Config;
use ondisk::system::System;

use super::{Places, outside};
use crate::{files, modprobe, wifi};

/// Makes it hold as far as a running system can; says what it could not.
pub fn everything(
    places: &Places,
    system: &System,
    config: &Config,
    set_hostname: impl FnOnce(&str) -> io::Result<()>,
) -> Vec<String> {
    let hostname = set_hostname(config.hostname().unwrap_or(&system.hostname));
    let mut troubles = Vec::from_iter(hostname.err().map(|error| format!("host name: {error}")));
    troubles.extend(sysctls(places, config));
    for name in config.modules() {
        let loaded = modprobe::load(&places.modprobe, name);
        troubles.extend(loaded.err().map(|why| format!("kernel.modules: {name}: {why}")));
    }
    troubles.extend(daemons(places, config));
    troubles.extend(outside::write(places, config));
    troubles
}

/// Sets the kernel's settings; says which it did not take, or took for something else.
fn sysctls(places: &Places, config: &Config) -> Vec<String> {
    let set = |(name, value): &(&str, u32)| {
        let path = places.sysctls.join(name.replace('.', "/"));
        let trouble = set(&path, &value.to_string()).err();
        trouble.map(|error| format!("{name} = {value}: {error}"))
    };
    config.sysctls().iter().filter_map(set).collect()
}

/// Opened, not made: the kernel says by a missing file that it has no such setting.
fn set(path: &Path, value: &str) -> io::Result<()> {
    File::options().write(true).truncate(true).open(path)?.write_all(value.as_bytes())?;
    let now = fs::read_to_string(path)?;
    if now.trim() == value {
        return Ok(());
    }
    Err(io::Error::other(format!("the kernel made {} of it", now.trim())))
}

/// Writes what dhcpcd, wpa_supplicant and chronyd are started with; says what could not be written.
pub fn daemons(places: &Places, config: &Config) -> Vec<String> {
    let network = derive(&places.dhcpcd, &places.network, |base| dhcpcd(base, config));
    // Passwords are in it.
    let wifi = files::replace(&places.wifi, wifi::file(config).as_bytes(), 0o600);
    let wifi = wifi.map_err(|error| format!("{}: {error}", places.wifi.display()));
    let time = derive(&places.chrony, &places.time, |base| chrony(base, config));
    [network, wifi, time].into_iter().filter_map(Result::err).collect()
}

/// A daemon's file: the root's own, changed as the owner wants it.
fn derive(base: &Path, target: &Path, change: impl Fn(&str) -> String) -> Result<(), String> {
    let failed = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
    let text = fs::read_to_string(base).map_err(|error| failed(base, error))?;
    files::replace(target, change(&text).as_bytes(), 0o644).map_err(|error| failed(target, error))
}

/// See chrony.conf(5). The owner's servers take the place of the root's.
fn chrony(base: &str, config: &Config) -> String {
    if config.time_servers().is_empty() {
        return base.to_owned();
    }
    let lines = base.lines().filter(|line| !line.starts_with("pool "));
    let mut text: String = lines.flat_map(|line| [line, "\n"]).collect();
    text.push_str("\n# iota.toml\n");
    for server in config.time_servers() {
        let _ = match server.port() {
            None => writeln!(text, "server {} iburst", server.host()),
            Some(port) => writeln!(text, "server {} port {port} iburst", server.host()),
        };
    }
    text
}

/// See dhcpcd.conf(5). Name servers are not here: the hook puts them in place of all others, those
/// of router advertisements among them, which no line of this file can do.
fn dhcpcd(base: &str, config: &Config) -> String {
    let mut text = format!("{}\n", base.trim_end());
    if let Some(hostname) = config.hostname() {
        let _ = write!(text, "\n# iota.toml\nhostname {hostname}\n");
    }
    for interface in config.interfaces() {
        let _ = write!(text, "\n# iota.toml\ninterface {}\n", interface.name());
        if let Some(address) = interface.ipv4() {
            let _ = writeln!(text, "static ip_address={address}");
        }
        if let Some(address) = interface.ipv6() {
            let _ = writeln!(text, "static ip6_address={address}");
        }
        if let Some(router) = interface.router() {
            let _ = writeln!(text, "static routers={router}");
        }
    }
    text
}
