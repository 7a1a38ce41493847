//! Servers of the network's time, as an owner names them.

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::String;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr};

/// A server, by name or address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeServer {
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
}

impl TimeServer {
    /// Its name or address, free of anything that means something to whoever reads it.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its port, if it is not NTP's.
    pub fn port(&self) -> Option<u16> {
        self.port
    }
}

impl fmt::Display for TimeServer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            None => out.write_str(&self.host),
            Some(port) => write!(out, "{}:{port}", self.host),
        }
    }
}

/// Reads `ntp.example.org`, `192.168.1.1`, `fd00::1` or `192.168.1.1:1123`; an error is one clause.
pub(crate) fn server(text: &str) -> Result<TimeServer, String> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return match ip.is_unspecified() || ip.is_multicast() {
            true => Err(format!("{ip} is no address of a server")),
            false => Ok(TimeServer { host: text.to_owned(), port: None }),
        };
    }
    let (host, port) = match text.split_once(':') {
        None => (text, None),
        Some((host, port)) => match port.parse::<u16>() {
            Ok(port @ 1..) => (host, Some(port)),
            _ => return Err(format!("`{port}` is no port")),
        },
    };
    if !is_name(host) && host.parse::<Ipv4Addr>().is_err() {
        return Err(format!("`{host}` is no name and no address of a server"));
    }
    Ok(TimeServer { host: host.to_owned(), port })
}

/// RFC 1123, section 2.1: what ends in a number is an address, or was meant as one.
fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(plain)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= 253
        && name.split('.').all(is_label)
        && !last.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    #[test]
    fn names_and_addresses_with_or_without_a_port_are_read_as_they_are_printed() {
        for text in
            ["ntp.example.org", "gateway", "192.168.1.1", "fd00::1", "10.0.2.2:11123", "ntp:123"]
        {
            assert_eq!(server(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_server_is_refused() {
        for text in [
            "",
            "two words",
            "ntp.example.org iburst",
            "a..b",
            "-a",
            "10.0.0.300",
            "ntp:0",
            "ntp:70000",
            "ntp:",
            "0.0.0.0",
            "ff02::101",
            "[fd00::1]:123",
            "a\nb",
        ] {
            assert!(server(text).is_err(), "{text:?}");
        }
    }
}
