//! `iota network-hook`: run by dhcpcd at every change, keeps `/run/resolv.conf`, says what is up.
//!
//! dhcpcd (10.1, `dhcpcd-run-hooks(8)`) runs the program named by its option `script` without any
//! argument, one event at a time, and describes the event in the environment. So the program is
//! installed as a link named `network-hook`, too. dhcpcd itself sets addresses and routes.
//!
//! What each interface and protocol brought is kept in a file of its own, because an event tells
//! only about one of them and `resolv.conf` is made of all:
//!
//! ```text
//! /run/iota/network/eth0.dhcp          summary as a comment, then resolv.conf lines
//! /run/iota/network/eth0.ra
//! /run/resolv.conf                     their union, the preferred interface first
//! ```
//!
//! Guarantees: `resolv.conf` is replaced in one step; nothing that a server on the network sends
//! gets into a file or onto the console before it was read as an address or a domain name; an
//! event that changes nothing (a renewed lease) says nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use crate::files;

/// Where the files lie.
#[derive(Clone, Copy, Debug)]
pub struct Files<'a> {
    /// Directory of what each interface and protocol brought.
    pub state: &'a Path,
    /// The file that resolvers read.
    pub resolv_conf: &'a Path,
}

impl Files<'static> {
    /// On the device, `/etc/resolv.conf` is a link to this one.
    pub fn device() -> Self {
        Self { state: Path::new("/run/iota/network"), resolv_conf: Path::new("/run/resolv.conf") }
    }
}

/// What dhcpcd reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    interface: String,
    protocol: String,
    /// All interfaces, the preferred one first.
    order: Vec<String>,
    /// Name of the Wi-Fi network that the interface is in.
    wifi: Option<String>,
    /// The interface has just been found, or has a link now.
    arrives: bool,
    change: Change,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    /// This is what the interface has by this protocol now.
    Up(Configuration),
    /// It has nothing by this protocol any more, for this reason.
    Down(String),
    /// There is a network at the other end of the cable, or of the radio.
    Link,
    /// A step on the way that changes nothing.
    None,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Configuration {
    address: Option<String>,
    routers: Vec<String>,
    name_servers: Vec<String>,
    search: Vec<String>,
}

impl Event {
    /// Reads an event from the environment; an error says which variable is missing.
    pub fn read(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        let required = |name: &str| {
            variable(name).ok_or_else(|| format!("{name} is not set; dhcpcd runs this program"))
        };
        let interface = required("interface")?;
        let protocol = variable("protocol").unwrap_or_else(|| "link".to_owned());
        for name in [&interface, &protocol] {
            if !is_file_name(name) {
                return Err(format!("`{}` cannot name an interface", name.escape_default()));
            }
        }
        let reason = required("reason")?;
        let is_set = |name: &str| variable(name).as_deref() == Some("true");
        let arrives = matches!(&*reason, "PREINIT" | "CARRIER");
        let change = match (is_set("if_up"), is_set("if_down")) {
            _ if reason == "CARRIER" => Change::Link,
            (true, _) => Change::Up(Configuration::read(&protocol, variable)),
            (false, true) => Change::Down(reason),
            (false, false) => Change::None,
        };
        let order = words(variable("interface_order"));
        let wifi = variable("ifssid").filter(|name| !name.is_empty());
        Ok(Self { interface, protocol, order, wifi, arrives, change })
    }

    /// The interface, if this event says that it is there.
    pub fn arrival(&self) -> Option<&str> {
        self.arrives.then_some(&*self.interface)
    }

    /// Puts the owner's name servers, if there are any, in place of those that the network offers.
    #[must_use]
    pub fn with_name_servers(mut self, servers: &[IpAddr]) -> Self {
        if let Change::Up(configuration) = &mut self.change
            && !servers.is_empty()
        {
            configuration.name_servers = servers.iter().map(ToString::to_string).collect();
        }
        self
    }

    /// Brings the files up to date; what to say about it, if anything.
    pub fn apply(&self, files: Files<'_>) -> io::Result<Option<String>> {
        let changed = match &self.change {
            Change::None => return Ok(None),
            Change::Link => return Ok(Some(self.summary())),
            // The link's own state carries no configuration.
            Change::Up(_) if self.protocol == "link" => return Ok(None),
            Change::Up(configuration) => self.keep(configuration, files)?,
            Change::Down(_) => self.forget(files)?,
        };
        if !changed {
            return Ok(None);
        }
        let text = merged(&self.order, files.state)?;
        files::replace(files.resolv_conf, text.as_bytes(), 0o644)?;
        Ok(Some(self.summary()))
    }

    /// Stores what the interface has; false if it had just that.
    fn keep(&self, configuration: &Configuration, files: Files<'_>) -> io::Result<bool> {
        let path = files.state.join(format!("{}.{}", self.interface, self.protocol));
        let text = format!("# {}\n{}", self.summary(), configuration.resolv_lines());
        if fs::read_to_string(&path).is_ok_and(|present| present == text) {
            return Ok(false);
        }
        fs::create_dir_all(files.state)?;
        files::replace(&path, text.as_bytes(), 0o644).map(|()| true)
    }

    /// Removes what the interface had; false if that was nothing.
    fn forget(&self, files: Files<'_>) -> io::Result<bool> {
        let mut removed = false;
        for (interface, protocol) in stored(files.state)? {
            // Without a link nothing else is left either.
            let gone = self.protocol == "link" || protocol == self.protocol;
            if interface == self.interface && gone {
                fs::remove_file(files.state.join(format!("{interface}.{protocol}")))?;
                removed = true;
            }
        }
        Ok(removed)
    }

    fn summary(&self) -> String {
        let interface = &self.interface;
        match &self.change {
            Change::Up(configuration) => {
                // Anybody may have chosen this name.
                let wifi = self.wifi.as_ref();
                let wifi = wifi.map(|name| format!(", Wi-Fi {}", name.escape_debug()));
                let configuration = configuration.summary();
                format!("network {interface} {configuration}{}", wifi.unwrap_or_default())
            }
            Change::Down(reason) if self.protocol == "link" => {
                format!("network {interface} down ({})", reason.escape_default())
            }
            Change::Down(reason) => {
                let protocol = &self.protocol;
                format!("network {interface} without {protocol} ({})", reason.escape_default())
            }
            Change::Link => format!("link {interface} up"),
            Change::None => format!("network {interface}"),
        }
    }
}

impl Configuration {
    fn read(protocol: &str, variable: &dyn Fn(&str) -> Option<String>) -> Self {
        match protocol {
            "ra" => Self::from_advertisements(variable),
            "dhcp6" => Self {
                address: first_address(variable("new_dhcp6_ia_na1_ia_addr1"), None),
                routers: Vec::new(),
                name_servers: addresses(variable("new_dhcp6_name_servers")),
                search: domains(variable("new_dhcp6_domain_search")),
            },
            _ => Self {
                address: first_address(variable("new_ip_address"), variable("new_subnet_cidr")),
                routers: addresses(variable("new_routers")),
                name_servers: addresses(variable("new_domain_name_servers")),
                search: domains(
                    variable("new_domain_search").or_else(|| variable("new_domain_name")),
                ),
            },
        }
    }

    /// Router advertisements come numbered, and so do the options in each of them.
    fn from_advertisements(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let mut found = Self::default();
        let present = |name: &String| variable(name).is_some();
        for router in
            (1..).map(|n| format!("nd{n}")).take_while(|nd| present(&format!("{nd}_from")))
        {
            let number = |name: String| variable(&name)?.parse::<u64>().ok();
            let age = number(format!("{router}_now"))
                .zip(number(format!("{router}_acquired")))
                .map_or(0, |(now, acquired)| now.saturating_sub(acquired));
            let alive = |option: &str| {
                number(format!("{option}_lifetime")).is_none_or(|lifetime| lifetime > age)
            };
            let options = |kind: &str| {
                let numbered = (1..).map(|n| format!("{router}_{kind}{n}"));
                let numbered = numbered.take_while(|name| present(&format!("{name}_lifetime")));
                numbered.filter(|name| alive(name)).collect::<Vec<_>>()
            };
            if found.address.is_none() {
                found.address = first_address(variable(&format!("{router}_addr1")), None);
            }
            found.routers.extend(addresses(variable(&format!("{router}_from"))));
            for option in options("rdnss") {
                found.name_servers.extend(addresses(variable(&format!("{option}_servers"))));
            }
            for option in options("dnssl") {
                found.search.extend(domains(variable(&format!("{option}_search"))));
            }
        }
        found
    }

    fn resolv_lines(&self) -> String {
        let mut lines = String::new();
        if !self.search.is_empty() {
            let _ = writeln!(lines, "search {}", self.search.join(" "));
        }
        for server in &self.name_servers {
            let _ = writeln!(lines, "nameserver {server}");
        }
        lines
    }

    fn summary(&self) -> String {
        let mut text = self.address.clone().unwrap_or_else(|| "up".to_owned());
        for (what, list) in [("router", &self.routers), ("name server", &self.name_servers)] {
            if !list.is_empty() {
                let _ = write!(text, ", {what} {}", list.join(" "));
            }
        }
        text
    }
}

/// The union of all stored configurations: comments, one line of domains, the name servers.
fn merged(order: &[String], state: &Path) -> io::Result<String> {
    let mut files = stored(state)?;
    let rank = |interface: &String| {
        order.iter().position(|other| other == interface).unwrap_or(order.len())
    };
    files.sort_by_key(|(interface, protocol)| {
        (rank(interface), interface.clone(), protocol.clone())
    });
    // Each kind of line in the order of arrival, no line twice.
    let mut lines: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (interface, protocol) in files {
        let text = fs::read_to_string(state.join(format!("{interface}.{protocol}")))?;
        for line in text.lines() {
            let (kind, value) = line.split_once(' ').unwrap_or((line, ""));
            let kind = match kind {
                "nameserver" => "nameserver",
                "search" => "search",
                _ => "#",
            };
            let values = lines.entry(kind).or_default();
            let parts: Vec<&str> = match kind {
                "search" => value.split(' ').collect(),
                _ => vec![value],
            };
            for part in parts {
                if !values.iter().any(|present| present == part) {
                    values.push(part.to_owned());
                }
            }
        }
    }
    if let Some(domains) = lines.get_mut("search") {
        *domains = vec![domains.join(" ")];
    }
    let mut text = String::new();
    for kind in ["#", "search", "nameserver"] {
        for value in lines.get(kind).into_iter().flatten() {
            let _ = writeln!(text, "{kind} {value}");
        }
    }
    Ok(text)
}

/// What each interface has, a line for each protocol; none if that is not known.
pub fn summaries(state: &Path) -> Vec<String> {
    let names = stored(state).unwrap_or_default().into_iter();
    let texts = names.filter_map(|(interface, protocol)| {
        fs::read_to_string(state.join(format!("{interface}.{protocol}"))).ok()
    });
    let line = |text: String| Some(text.lines().next()?.strip_prefix("# network ")?.to_owned());
    texts.filter_map(line).collect()
}

/// Whether one of these lines of [`summaries`] has an address that somebody gave:
/// not one that the interface made up for its own cable.
pub fn has_address(summaries: &[String]) -> bool {
    let address = |line: &String| {
        let word = line.split_ascii_whitespace().nth(1)?;
        let (address, _) = word.trim_end_matches(',').split_once('/')?;
        address.parse::<IpAddr>().ok()
    };
    summaries.iter().filter_map(address).any(|address| match address {
        IpAddr::V4(address) => !address.is_link_local(),
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    })
}

/// Interface and protocol of each stored configuration, sorted.
fn stored(state: &Path) -> io::Result<Vec<(String, String)>> {
    let entries = match fs::read_dir(state) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        // An interface's name may hold dots (VLANs), a protocol's does not.
        if let Some((interface, protocol)) = name.to_str().and_then(|name| name.rsplit_once('.'))
            && protocol != files::UNFINISHED
        {
            names.push((interface.to_owned(), protocol.to_owned()));
        }
    }
    names.sort();
    Ok(names)
}

/// Names that can be part of a file's name, as the kernel and dhcpcd allow for interfaces.
fn is_file_name(name: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
    !name.is_empty() && name.len() <= 64 && !name.starts_with('.') && name.bytes().all(fine)
}

fn words(value: Option<String>) -> Vec<String> {
    value.unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect()
}

/// Those words that are addresses, an IPv6 one with or without its interface (`fe80::1%eth0`).
fn addresses(value: Option<String>) -> Vec<String> {
    let mut list = words(value);
    list.retain(|word| {
        let (address, scope) = word.split_once('%').unwrap_or((word, "none"));
        address.parse::<IpAddr>().is_ok() && is_file_name(scope)
    });
    list
}

/// An address with its prefix length, which comes behind a slash or on its own.
fn first_address(value: Option<String>, prefix_length: Option<String>) -> Option<String> {
    let value = value?;
    let (address, own_length) = match value.split_once('/') {
        Some((address, length)) => (address, Some(length.to_owned())),
        None => (value.as_str(), None),
    };
    let address = addresses(Some(address.to_owned())).into_iter().next()?;
    match own_length.or(prefix_length).map(|text| text.parse::<u8>()) {
        Some(length) => Some(format!("{address}/{}", length.ok()?)),
        None => Some(address),
    }
}

/// Those words that can be domain names.
fn domains(value: Option<String>) -> Vec<String> {
    let mut list = words(value);
    list.retain(|word| {
        let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        word.len() <= 253 && word.bytes().all(fine) && !word.starts_with(['.', '-'])
    });
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(text: &str) -> Result<Event, String> {
        let variables: BTreeMap<&str, &str> =
            text.lines().filter_map(|line| line.trim().split_once('=')).collect();
        Event::read(&|name| variables.get(name).map(|value| (*value).to_owned()))
    }

    struct Device(tempfile::TempDir);

    impl Device {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        /// Applies an event: what was said, and what resolvers read then.
        fn see(&self, text: &str) -> (Option<String>, String) {
            self.take(&event(text).unwrap())
        }

        fn take(&self, event: &Event) -> (Option<String>, String) {
            let (state, resolv_conf) =
                (self.0.path().join("n/state"), self.0.path().join("resolv"));
            let files = Files { state: &state, resolv_conf: &resolv_conf };
            let said = event.apply(files).unwrap();
            (said, fs::read_to_string(&resolv_conf).unwrap_or_default())
        }
    }

    const BOUND: &str = "reason=BOUND\ninterface=eth0\nprotocol=dhcp\ninterface_order=eth0 wlan0
        if_up=true\nif_down=false\nnew_ip_address=10.0.2.15\nnew_subnet_cidr=24
        new_routers=10.0.2.2\nnew_domain_name_servers=10.0.2.3\nnew_domain_name=example.org";

    #[test]
    fn a_lease_becomes_a_line_and_a_resolv_conf() {
        let device = Device::new();
        let said = "network eth0 10.0.2.15/24, router 10.0.2.2, name server 10.0.2.3";
        let file = format!("# {said}\nsearch example.org\nnameserver 10.0.2.3\n");
        assert_eq!(device.see(BOUND), (Some(said.to_owned()), file));
    }

    #[test]
    fn a_line_about_wifi_names_the_network_without_what_would_control_a_terminal() {
        let device = Device::new();
        let wifi = BOUND.replace("eth0", "wlan0") + "\nifssid=Caf\u{e9}\u{1b}[1m";
        let (said, _) = device.see(&wifi);
        assert!(said.unwrap().ends_with(", name server 10.0.2.3, Wi-Fi Caf\u{e9}\\u{1b}[1m"));
    }

    #[test]
    fn the_owners_name_servers_take_the_place_of_all_others() {
        let device = Device::new();
        let own = ["192.168.1.1", "fd00::1"].map(|server| server.parse::<IpAddr>().unwrap());
        for text in [BOUND, &BOUND.replace("=dhcp", "=ra")] {
            let (_, file) = device.take(&event(text).unwrap().with_name_servers(&own));
            let servers: Vec<_> = file.lines().filter(|line| line.starts_with("name")).collect();
            assert_eq!(servers, ["nameserver 192.168.1.1", "nameserver fd00::1"], "{text}");
        }
        let without = event(BOUND).unwrap();
        assert_eq!(without.clone().with_name_servers(&[]), without);
    }

    #[test]
    fn a_renewed_lease_says_nothing_and_an_expired_one_takes_its_lines_along() {
        let device = Device::new();
        let (_, file) = device.see(BOUND);
        assert_eq!(device.see(&BOUND.replace("BOUND", "RENEW")), (None, file));
        let expired = "reason=EXPIRE\ninterface=eth0\nprotocol=dhcp\nif_up=false\nif_down=true";
        let said = Some("network eth0 without dhcp (EXPIRE)".to_owned());
        assert_eq!(device.see(expired), (said, String::new()));
        assert_eq!(device.see(expired), (None, String::new()));
    }

    #[test]
    fn all_interfaces_and_protocols_are_merged_the_preferred_one_first() {
        let device = Device::new();
        let wlan = "reason=BOUND\ninterface=wlan0\nprotocol=dhcp\ninterface_order=eth0 wlan0
            if_up=true\nnew_domain_name_servers=192.168.1.1 10.0.2.3
            new_domain_search=home example.org";
        let v6 = "reason=BOUND6\ninterface=eth0\nprotocol=dhcp6\ninterface_order=eth0 wlan0
            if_up=true\nnew_dhcp6_ia_na1_ia_addr1=fd00::5\nnew_dhcp6_name_servers=fd00::1";
        device.see(wlan);
        device.see(v6);
        let (_, file) = device.see(BOUND);
        let lines: Vec<_> = file.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            lines,
            [
                "search example.org home",
                "nameserver 10.0.2.3",
                "nameserver fd00::1",
                "nameserver 192.168.1.1"
            ]
        );
        let unplugged =
            "reason=NOCARRIER\ninterface=eth0\nprotocol=link\nif_up=false\nif_down=true";
        let (said, file) = device.see(unplugged);
        assert_eq!(said.as_deref(), Some("network eth0 down (NOCARRIER)"));
        assert!(
            file.ends_with(
                "search home example.org\nnameserver 192.168.1.1\nnameserver 10.0.2.3\n"
            )
        );
    }

    #[test]
    fn router_advertisements_bring_servers_while_they_live() {
        let device = Device::new();
        let (said, file) = device.see(
            "reason=ROUTERADVERT\ninterface=eth0\nprotocol=ra\nif_up=true
            nd1_from=fe80::2\nnd1_addr1=fec0::15/64\nnd1_acquired=100\nnd1_now=160
            nd1_rdnss1_lifetime=61\nnd1_rdnss1_servers=fec0::3 fe80::3%eth0
            nd1_rdnss2_lifetime=60\nnd1_rdnss2_servers=fec0::dead
            nd1_dnssl1_lifetime=61\nnd1_dnssl1_search=lan
            nd2_from=fe80::4\nnd2_rdnss1_lifetime=1\nnd2_rdnss1_servers=fec0::4",
        );
        let summary = "network eth0 fec0::15/64, router fe80::2 fe80::4, \
            name server fec0::3 fe80::3%eth0 fec0::4";
        assert_eq!(said.as_deref(), Some(summary));
        assert_eq!(
            file,
            format!(
                "# {summary}\nsearch lan\nnameserver fec0::3\nnameserver fe80::3%eth0\n\
                nameserver fec0::4\n"
            )
        );
    }

    #[test]
    fn what_a_hostile_server_sends_goes_nowhere() {
        let device = Device::new();
        let (said, file) = device.see(
            "reason=BOUND\ninterface=eth0\nprotocol=dhcp\nif_up=true\nnew_ip_address=1.2.3.4
            new_subnet_cidr=24;reboot\nnew_routers=$(reboot) 1.2.3.1
            new_domain_name=a;b -x ok.example
            new_domain_name_servers=1.2.3.5\\nnameserver 9.9.9.9x 1.2.3.6 ::1%../../x",
        );
        assert_eq!(said.as_deref(), Some("network eth0 up, router 1.2.3.1, name server 1.2.3.6"));
        assert!(file.ends_with("\nsearch ok.example\nnameserver 1.2.3.6\n"), "{file}");
    }

    #[test]
    fn steps_on_the_way_change_nothing() {
        let device = Device::new();
        let step = |reason| {
            let rest = "interface=eth0\nprotocol=link\nif_up=false\nif_down=false";
            device.see(&format!("reason={reason}\n{rest}"))
        };
        assert_eq!(step("PREINIT"), (None, String::new()));
        assert_eq!(step("CARRIER"), (Some("link eth0 up".to_owned()), String::new()));
    }

    #[test]
    fn without_its_variables_the_hook_says_which_one_is_missing() {
        let missing = |name| Err(format!("{name} is not set; dhcpcd runs this program"));
        assert_eq!(event(""), missing("interface"));
        assert_eq!(event("interface=eth0"), missing("reason"));
        let bad = "interface=../x\nreason=BOUND";
        assert_eq!(event(bad), Err("`../x` cannot name an interface".to_owned()));
    }

    #[test]
    fn only_an_address_that_somebody_gave_is_a_network() {
        let given = [
            "eth0 192.168.1.7/24, router 192.168.1.1",
            "eth0 fd00::7/64",
            "wlan0 10.0.0.5/8, Wi-Fi Home",
        ];
        for line in given {
            assert!(has_address(&["usb0 up".to_owned(), line.to_owned()]), "{line}");
        }
        let own = ["eth0 169.254.7.9/16", "eth0 fe80::1/64", "eth0 up, router fe80::1", "eth0"];
        assert!(!has_address(&own.map(str::to_owned)));
        assert!(!has_address(&[]));
    }
}
