//! A configuration while it is made: takes values that pass their check, notes all others.

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use super::node::{Entry, Node, Value};
use super::{Finding, Name};
use crate::problem::Problem;
use crate::secret::Secret;
use crate::wifi::{self, Security, Wifi};
use crate::{Config, certificate, network, ssh, time, zone};

/// What is taken from one file.
pub(super) struct Draft<'a> {
    name: Name,
    text: &'a str,
    pub(super) config: &'a mut Config,
    findings: Vec<Finding>,
}

/// A Wi-Fi network as the formats describe it.
pub(super) struct Network<'a> {
    pub(super) ssid: &'a str,
    pub(super) at: usize,
    pub(super) password: Option<&'a Node>,
    pub(super) security: Option<Security>,
    pub(super) hidden: bool,
}

impl<'a> Draft<'a> {
    pub(super) fn new(name: Name, text: &'a str, config: &'a mut Config) -> Self {
        Self { name, text, config, findings: Vec::new() }
    }

    pub(super) fn name(&self) -> Name {
        self.name
    }

    /// In the order of the file.
    pub(super) fn findings(mut self) -> Vec<Finding> {
        self.findings.sort_by_key(|finding| (finding.problem.line, finding.problem.column));
        self.findings
    }

    /// Something is not taken.
    pub(super) fn note(&mut self, at: usize, message: &str, hint: &str) {
        let hint = (!hint.is_empty()).then(|| hint.to_owned());
        let problem = Problem::at(self.text, at, message.to_owned(), hint);
        self.findings.push(Finding { name: self.name, problem });
    }

    /// A key that means nothing to this system.
    pub(super) fn unsupported(&mut self, entry: &Entry, hint: &str) {
        self.note(entry.at, &format!("`{}` is not supported", entry.key), hint);
        self.hide_secret(&entry.key);
    }

    /// What stands behind a key that names a secret is for nobody to see.
    fn hide_secret(&mut self, key: &str) {
        let secret = ["pass", "psk", "secret", "key", "token"];
        if let Some(last) = self.findings.last_mut()
            && secret.iter().any(|word| key.contains(word))
        {
            last.problem.conceal();
        }
    }

    /// The entries of a table, each key once; anything else is noted.
    pub(super) fn entries<'n>(&mut self, node: &'n Node, what: &str) -> Vec<&'n Entry> {
        if !matches!(node.value, Value::Table(_) | Value::Nothing) {
            self.note(node.at, &format!("{what} is {}, not a table", node.kind()), "");
        }
        let mut found: Vec<&Entry> = Vec::new();
        for entry in node.entries() {
            if let Some(place) = found.iter().position(|other| other.key == entry.key) {
                let message = format!("`{}` is there twice: the last one counts", entry.key);
                let first = found.remove(place);
                self.note(first.at, &message, "");
                self.hide_secret(&first.key);
            }
            found.push(entry);
        }
        found
    }

    /// A text that passes a check whose error is one clause.
    pub(super) fn parsed<T>(
        &mut self,
        what: &str,
        node: &Node,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let parsed = match node.text() {
            Some(text) => parse(text),
            None => Err(format!("{}, not a text", node.kind())),
        };
        parsed.map_err(|why| self.note(node.at, &format!("`{what}`: {why}"), "")).ok()
    }

    /// The name of the device. Tools for cards let people write large letters, which mean the same.
    pub(super) fn hostname(&mut self, what: &str, node: &Node) {
        let first = |text: &str| {
            let name = text.split('.').next().unwrap_or_default();
            network::hostname(&name.to_ascii_lowercase())
        };
        if let Some(name) = self.parsed(what, node, first) {
            self.config.hostname = Some(name);
        }
    }

    /// Keys of people who may log in; each once, whoever's it is.
    pub(super) fn ssh_keys(&mut self, what: &str, node: &Node) {
        for item in node.items() {
            // A list in YAML often comes from a file of keys with blanks at the end of lines.
            let parse = |text: &str| ssh::public_key(text.trim());
            let Some(key) = self.parsed(what, item, parse) else { continue };
            if self.config.ssh_keys.iter().any(|other| other.is_same(&key)) {
                continue;
            }
            match self.config.ssh_keys.len() {
                32.. => self.note(item.at, "more than 32 keys", ""),
                _ => self.config.ssh_keys.push(key),
            }
        }
    }

    /// Servers of time.
    pub(super) fn time_servers(&mut self, what: &str, node: &Node) {
        for item in node.items() {
            let Some(server) = self.parsed(what, item, time::server) else { continue };
            if !add_once(&mut self.config.time_servers, server, 8) {
                self.note(item.at, "more than 8 servers of time", "");
            }
        }
    }

    /// Name servers, of whichever interface: the device asks the same ones everywhere.
    pub(super) fn name_servers(&mut self, what: &str, node: &Node) {
        for item in node.items() {
            let Some(server) = self.parsed(what, item, network::name_server) else { continue };
            if !add_once(&mut self.config.name_servers, server, 3) {
                self.note(item.at, "more than 3 name servers", "");
            }
        }
    }

    /// A virtual network: what it is called there is between its own lines, here it is named by
    /// cable and number. Without both nothing is known of it.
    pub(super) fn vlan(&mut self, entry: &Entry) -> Option<String> {
        let part = |key| entry.value.get(key).and_then(Node::text);
        let Some((link, id)) = part("link").zip(part("id")) else {
            self.note(entry.at, "a VLAN without `link` and `id`", "");
            return None;
        };
        match network::vlan(&format!("{link}.{id}")) {
            Ok(vlan) if self.config.vlans.len() < 32 => {
                let name = vlan.to_string();
                add_once(&mut self.config.vlans, vlan, 32);
                return Some(name);
            }
            Ok(_) => self.note(entry.at, "more than 32 VLANs", ""),
            Err(why) => self.note(entry.at, &why, ""),
        }
        None
    }

    /// The time zone.
    pub(super) fn zone(&mut self, what: &str, node: &Node) {
        if let Some(zone) = self.parsed(what, node, zone::zone) {
            self.config.time_zone = Some(zone);
        }
    }

    /// Authorities.
    pub(super) fn certificates(&mut self, what: &str, node: &Node) {
        for item in node.items() {
            let read = self.parsed(what, item, certificate::certificate);
            let Some(certificate) = read else { continue };
            if !add_once(&mut self.config.certificates, certificate, 16) {
                self.note(item.at, "more than 16 certificates", "");
            }
        }
    }

    /// Where the device is, for Wi-Fi.
    pub(super) fn country(&mut self, what: &str, node: &Node) {
        let upper = |text: &str| wifi::country(&text.to_ascii_uppercase());
        if let Some(country) = self.parsed(what, node, upper) {
            self.config.wifi_country = Some(country);
        }
    }

    /// A Wi-Fi network to join.
    pub(super) fn wifi(&mut self, network: &Network<'_>) {
        let ssid = match wifi::ssid(network.ssid) {
            Ok(ssid) => ssid,
            Err(why) => return self.note(network.at, &format!("a Wi-Fi network: {why}"), ""),
        };
        let password = match network.password {
            None => None,
            Some(node) => match self.secret(node) {
                None => return,
                password => password,
            },
        };
        let security = network.security.or(password.is_none().then_some(Security::Open));
        if let Err(why) = wifi::fits(password.as_ref(), security) {
            return self.note(network.at, &format!("a Wi-Fi network: {why}"), "");
        }
        let wifi = Wifi { ssid, password, security, hidden: network.hidden, priority: 0 };
        match self.config.wifi.iter().find(|other| other.ssid == wifi.ssid) {
            // Two radios of one machine are told the same; this system's join whichever they can.
            Some(other) if *other == wifi => {}
            Some(_) => self.note(network.at, "a Wi-Fi network that is there twice", ""),
            None => self.config.wifi.push(wifi),
        }
    }

    fn secret(&mut self, node: &Node) -> Option<Secret> {
        let password = self.parsed("password", node, wifi::password);
        if password.is_none() {
            self.hide_secret("password");
        }
        password
    }
}

/// Adds what is not there yet; false if there are `most` others.
fn add_once<T: PartialEq>(list: &mut Vec<T>, item: T, most: usize) -> bool {
    if list.contains(&item) {
        return true;
    }
    let has_room = list.len() < most;
    if has_room {
        list.push(item);
    }
    has_room
}
