//! Addresses of interfaces, and which of them make sense on a network.
//!
//! What is refused here would leave a device that nobody reaches: an address that is none of a
//! host (RFC 1122, section 3.2.1.3; RFC 4291, section 2.5), a router on another network.

use alloc::format;
use alloc::string::{String, ToString as _};
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An interface with fixed addresses: at least one of them, and a router only within the network
/// of the address of IPv4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub(crate) name: String,
    pub(crate) ipv4: Option<Address<Ipv4Addr>>,
    pub(crate) ipv6: Option<Address<Ipv6Addr>>,
    pub(crate) router: Option<Ipv4Addr>,
}

impl Interface {
    /// The kernel's name of it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address of IPv4.
    pub fn ipv4(&self) -> Option<Address<Ipv4Addr>> {
        self.ipv4
    }

    /// Its address of IPv6.
    pub fn ipv6(&self) -> Option<Address<Ipv6Addr>> {
        self.ipv6
    }

    /// The router of IPv4.
    pub fn router(&self) -> Option<Ipv4Addr> {
        self.router
    }
}

/// A virtual network of its own on the cable of an interface (IEEE 802.1Q).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vlan {
    pub(crate) interface: String,
    pub(crate) id: u16,
}

impl Vlan {
    /// The interface whose cable it is on.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// Its number, 1 to 4094.
    pub fn id(&self) -> u16 {
        self.id
    }
}

/// The name of the interface that leads into it.
impl fmt::Display for Vlan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.interface, self.id)
    }
}

/// Reads `eth0.10`; an error is one clause.
pub(crate) fn vlan(name: &str) -> Result<Vlan, String> {
    interface_name(name)?;
    let Some((interface, number)) = name.rsplit_once('.') else {
        return Err(format!("`{name}` lacks the number of the virtual network, as in {name}.10"));
    };
    if interface.is_empty() || interface.contains('.') {
        return Err(format!("`{interface}` is no interface with a cable"));
    }
    // The kernel itself writes no zeroes in front.
    let id = number.parse::<u16>().ok().filter(|id| id.to_string() == number);
    match id {
        // 0 and 4095 are reserved (802.1Q, table 9-2).
        Some(id @ 1..=4094) => Ok(Vlan { interface: interface.to_string(), id }),
        _ => Err(format!("`{number}` is no number of a virtual network: 1 to 4094")),
    }
}

/// An address of a host and the length of its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address<Ip> {
    /// The host.
    pub ip: Ip,
    /// Bits of the network.
    pub prefix: u8,
}

impl<Ip: fmt::Display> fmt::Display for Address<Ip> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.ip, self.prefix)
    }
}

/// Reads `192.168.1.10/24`; an error is one clause.
pub(crate) fn address(text: &str) -> Result<Address<IpAddr>, String> {
    let Some((ip, prefix)) = text.split_once('/') else {
        return Err(format!("`{text}` lacks the length of its network, as in {text}/24"));
    };
    let ip: IpAddr = ip.parse().map_err(|_| format!("`{ip}` is no address"))?;
    let most = if ip.is_ipv4() { 32 } else { 128 };
    let digits = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
    let length = prefix.parse::<u8>().ok().filter(|length| digits && (8..=most).contains(length));
    let Some(prefix) = length else {
        return Err(format!("`/{prefix}` is no length of a network: 8 to {most}"));
    };
    unfit(ip, prefix).map_or(Ok(Address { ip, prefix }), |why| Err(format!("{ip} {why}")))
}

/// Why no host can have this address.
fn unfit(ip: IpAddr, prefix: u8) -> Option<&'static str> {
    match ip {
        IpAddr::V4(ip) => unfit_v4(ip, prefix),
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => Some("is one of IPv4: write it so"),
        IpAddr::V6(ip) => not_of_a_host(ip.into()),
    }
}

fn unfit_v4(ip: Ipv4Addr, prefix: u8) -> Option<&'static str> {
    let host = u32::from(ip) & !mask(prefix);
    let last = !mask(prefix);
    match () {
        // Networks of one or two addresses have none to spare (RFC 3021).
        () if prefix <= 30 && host == 0 => Some("is the network itself, not a host in it"),
        () if prefix <= 30 && host == last => Some("is the broadcast address of its network"),
        () if ip.octets().first().is_some_and(|first| *first >= 240) => Some("is reserved"),
        () => not_of_a_host(ip.into()),
    }
}

fn not_of_a_host(ip: IpAddr) -> Option<&'static str> {
    if ip.is_unspecified() {
        Some("means no address")
    } else if ip.is_loopback() {
        Some("means this device itself")
    } else if ip.is_multicast() {
        Some("is an address of a group")
    } else if is_link_local(ip) {
        Some("is a link-local address, which a device gives itself")
    } else {
        None
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// The bits of a network's part.
fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32_u32.saturating_sub(prefix.into())).unwrap_or(0)
}

/// Reads the address of a name server. One on this device itself is fine: it may be a container.
pub(crate) fn name_server(text: &str) -> Result<IpAddr, String> {
    let ip: IpAddr = text.parse().map_err(|_| match text.contains('/') {
        true => format!("`{text}`: a name server has no length of a network"),
        false => format!("`{text}` is no address"),
    })?;
    match not_of_a_host(ip) {
        Some(why) if !ip.is_loopback() => Err(format!("{ip} {why}")),
        _ => Ok(ip),
    }
}

/// Reads a router that hosts with this address can reach.
pub(crate) fn router(text: &str, host: Option<Address<Ipv4Addr>>) -> Result<Ipv4Addr, String> {
    let ip: Ipv4Addr = text.parse().map_err(|_| format!("`{text}` is no address of IPv4"))?;
    let Some(host) = host else {
        return Err("a router needs an address of IPv4 in the same table".to_string());
    };
    if ip == host.ip {
        return Err(format!("{ip} is the device itself"));
    }
    if u32::from(ip) & mask(host.prefix) != u32::from(host.ip) & mask(host.prefix) {
        return Err(format!("{ip} is not in the network of {host}"));
    }
    unfit_v4(ip, host.prefix).map_or(Ok(ip), |why| Err(format!("{ip} {why}")))
}

/// Reads the name of a device; an error is one clause.
pub(crate) fn hostname(name: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let good = (1..=63).contains(&name.len()) && name.bytes().all(plain);
    match good && !name.starts_with('-') && !name.ends_with('-') {
        true if name == "localhost" => Err("`localhost` is every device".to_string()),
        true => Ok(name.to_string()),
        false => Err(format!("`{name}` is no name of a device")),
    }
}

/// Beginnings of names that belong to an engine, which makes and removes such interfaces.
const ENGINE_NAMES: [&str; 9] =
    ["veth", "docker", "br-", "cni", "podman", "vxlan", "tunl", "wg", "dummy"];

/// Why this cannot name an interface that an owner configures.
pub(crate) fn interface_name(name: &str) -> Result<(), String> {
    // The kernel's own rule (dev_valid_name) and what a line of dhcpcd.conf can hold.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() || name.len() > 15 || !name.bytes().all(plain) || name.starts_with('.') {
        return Err(format!("`{name}` cannot name an interface"));
    }
    if name == "lo" || ENGINE_NAMES.iter().any(|start| name.starts_with(start)) {
        return Err(format!("`{name}` belongs to the system or its engine"));
    }
    Ok(())
}
