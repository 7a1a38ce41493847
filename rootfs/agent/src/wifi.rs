//! `iota wifi`: wpa_supplicant, for the networks of `iota.toml`, once there is a radio.
//!
//! The file that it is started with is made whenever the configuration is applied
//! ([`crate::own_config::apply`]). A running wpa_supplicant reads it again on SIGHUP; while this
//! program still waits, the same signal ends it, and PID 1 starts it anew.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use config::wifi::is_key;
use config::{Config, Security, Wifi};
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

/// Joins networks (wpa_supplicant(8)).
const PROGRAM: &str = "/usr/sbin/wpa_supplicant";

/// Where things lie.
#[derive(Clone, Debug)]
pub struct Places {
    /// The program, which only images for boards with a radio have.
    pub program: PathBuf,
    /// What it is started with.
    pub file: PathBuf,
    /// The kernel's network interfaces.
    pub interfaces: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            program: PROGRAM.into(),
            file: "/run/iota/wifi.conf".into(),
            interfaces: "/sys/class/net".into(),
        }
    }
}

/// Becomes wpa_supplicant as soon as there is a radio and a network to join; returns at once where
/// the program is not there, or if something fails.
pub fn serve(places: &Places, config: &Config) -> Result<(), String> {
    if !places.program.exists() {
        return match config.wifi() {
            [] => Ok(()),
            _ => Err("there is no wpa_supplicant in this image: its board has no radio".to_owned()),
        };
    }
    if config.wifi().is_empty() {
        // Until a signal says that the configuration is another one.
        loop {
            std::thread::park();
        }
    }
    let radios = wait_for_radios(&places.interfaces).map_err(|error| format!("radios: {error}"))?;
    let error = Command::new(&places.program).args(arguments(&places.file, &radios)).exec();
    Err(format!("{}: {error}", places.program.display()))
}

/// Every radio is described on its own, `-N` between them.
fn arguments(file: &Path, radios: &[String]) -> Vec<String> {
    let mut arguments = Vec::new();
    for radio in radios {
        if !arguments.is_empty() {
            arguments.push("-N".to_owned());
        }
        let file = file.display().to_string();
        arguments.extend(["-Dnl80211", "-i", radio, "-c"].map(str::to_owned));
        arguments.push(file);
    }
    arguments
}

/// Looks after the kernel was asked to tell of new ones: none is missed.
fn wait_for_radios(interfaces: &Path) -> io::Result<Vec<String>> {
    let events = open_events()?;
    loop {
        let found = radios(interfaces)?;
        if !found.is_empty() {
            return Ok(found);
        }
        let mut buffer = [0_u8; 8192];
        match recv(&events, &mut buffer[..], RecvFlags::empty()) {
            // Lost events are a reason to look as well.
            Ok(_) | Err(rustix::io::Errno::NOBUFS | rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn open_events() -> io::Result<OwnedFd> {
    let (family, kind) = (AddressFamily::NETLINK, SocketType::DGRAM);
    let protocol = Some(netlink::KOBJECT_UEVENT);
    let events = socket_with(family, kind, SocketFlags::CLOEXEC, protocol)?;
    bind(&events, &SocketAddrNetlink::new(0, 1))?;
    Ok(events)
}

/// Interfaces of radios that can join a network, sorted by name.
fn radios(interfaces: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(interfaces)? {
        let entry = entry?;
        // Type 1 is Ethernet to everybody above (ARPHRD_ETHER); one that only listens is none.
        let kind = fs::read_to_string(entry.path().join("type")).unwrap_or_default();
        if entry.path().join("phy80211").exists() && kind.trim() == "1" {
            found.extend(entry.file_name().into_string());
        }
    }
    found.sort();
    Ok(found)
}

/// The file of wpa_supplicant, see wpa_supplicant.conf(5) and its own example. A name is written
/// as hexadecimal digits. A password is written in quotes, in which nothing needs to be escaped:
/// they end at the last one of the line, and what is printable in ASCII has no end of a line.
pub fn file(config: &Config) -> String {
    let mut text = String::from(
        "# Made from iota.toml.\n\
         p2p_disabled=1\n\
         # Both ways to begin WPA3: the older one, and that of newer access points.\n\
         sae_pwe=2\n",
    );
    if let Some(country) = config.wifi_country() {
        let _ = writeln!(text, "country={country}");
    }
    for wifi in config.wifi() {
        let _ = write!(text, "network={{\n{}}}\n", network(wifi));
    }
    text
}

fn network(wifi: &Wifi) -> String {
    let name: String = wifi.ssid().bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut lines = format!("ssid={name}\n");
    // `ieee80211w`: management frames are protected if the network can, or have to be (WPA3).
    let protection = match (wifi.security(), wifi.password()) {
        (Some(Security::Open), _) | (_, None) => "key_mgmt=NONE\n",
        (Some(Security::Wpa3), _) => "key_mgmt=SAE\nieee80211w=2\n",
        (None, Some(secret)) if !is_key(secret) => {
            "key_mgmt=WPA-PSK WPA-PSK-SHA256 SAE\nproto=RSN\nieee80211w=1\n"
        }
        _ => "key_mgmt=WPA-PSK WPA-PSK-SHA256\nproto=RSN\nieee80211w=1\n",
    };
    lines.push_str(protection);
    if let Some(secret) = wifi.password() {
        let quote = if is_key(secret) { "" } else { "\"" };
        let _ = writeln!(lines, "psk={quote}{}{quote}", secret.reveal());
    }
    if wifi.hidden() {
        lines.push_str("scan_ssid=1\n");
    }
    if wifi.priority() > 0 {
        let _ = writeln!(lines, "priority={}", wifi.priority());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn every_network_is_written_as_wpa_supplicant_reads_it() {
        let key = "0123456789abcdef".repeat(4);
        let text = format!(
            "[network]\nwifi-country = \"DE\"\n\
             [[network.wifi]]\nssid = \"Café\"\npassword = 'a \"b\" # c\\'\n\
             [[network.wifi]]\nssid = \"two\"\npassword = \"{key}\"\nhidden = true\n\
             [[network.wifi]]\nssid = \"three\"\npassword = \"12345678\"\n\
             security = \"wpa3\"\npriority = 7\n\
             [[network.wifi]]\nssid = \"four\"\nsecurity = \"open\"\n\
             [[network.wifi]]\nssid = \"five\"\npassword = \"12345678\"\n\
             security = \"wpa2\"\n"
        );
        let expected = format!(
            "# Made from iota.toml.\np2p_disabled=1\n\
             # Both ways to begin WPA3: the older one, and that of newer access points.\n\
             sae_pwe=2\ncountry=DE\n\
             network={{\nssid=436166c3a9\nkey_mgmt=WPA-PSK WPA-PSK-SHA256 SAE\nproto=RSN\n\
             ieee80211w=1\npsk=\"a \"b\" # c\\\"\n}}\n\
             network={{\nssid=74776f\nkey_mgmt=WPA-PSK WPA-PSK-SHA256\nproto=RSN\n\
             ieee80211w=1\npsk={key}\nscan_ssid=1\n}}\n\
             network={{\nssid=7468726565\nkey_mgmt=SAE\nieee80211w=2\npsk=\"12345678\"\n\
             priority=7\n}}\n\
             network={{\nssid=666f7572\nkey_mgmt=NONE\n}}\n\
             network={{\nssid=66697665\nkey_mgmt=WPA-PSK WPA-PSK-SHA256\nproto=RSN\n\
             ieee80211w=1\npsk=\"12345678\"\n}}\n"
        );
        assert_eq!(file(&config(&text)), expected);
    }

    #[test]
    fn radios_are_found_by_what_the_kernel_says_about_them() {
        let root = tempfile::tempdir().unwrap();
        for (name, kind, is_radio) in [
            ("wlan1", "1", true),
            ("wlan0", "1", true),
            ("eth0", "1", false),
            ("mon0", "803", true),
        ] {
            fs::create_dir_all(root.path().join(name)).unwrap();
            fs::write(root.path().join(name).join("type"), format!("{kind}\n")).unwrap();
            if is_radio {
                fs::create_dir(root.path().join(name).join("phy80211")).unwrap();
            }
        }
        assert_eq!(wait_for_radios(root.path()).unwrap(), ["wlan0", "wlan1"]);
        let both = arguments(Path::new("/f"), &["wlan0".to_owned(), "wlan1".to_owned()]);
        let expected = "-Dnl80211 -i wlan0 -c /f -N -Dnl80211 -i wlan1 -c /f";
        assert_eq!(both.join(" "), expected);
    }

    #[test]
    fn an_image_without_the_program_says_so_only_if_somebody_wants_a_network() {
        let places = Places { program: "/nowhere".into(), ..Places::default() };
        assert_eq!(serve(&places, &Config::default()), Ok(()));
        let wanted = config("[[network.wifi]]\nssid = \"a\"\nsecurity = \"open\"\n");
        assert!(serve(&places, &wanted).unwrap_err().contains("no wpa_supplicant"));
    }
}
