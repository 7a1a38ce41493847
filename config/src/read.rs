//! From the text to checked values: every table is walked to its end, whatever was wrong before.

use alloc::borrow::ToOwned as _;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::network::{self, Address, Interface, Vlan};
use crate::problem::{Problem, Problems};
use crate::secret::Secret;
use crate::ssh::{self, PublicKey};
use crate::wifi;
use crate::{Config, keys, suggest, sysctls};

mod host;
mod outside;
mod updates;
mod wireless;

pub(crate) type Value<'t> = Spanned<DeValue<'t>>;

pub(crate) fn read(text: &str) -> Result<Config, Problems> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader { text, problems: Vec::new(), broken: BTreeSet::new() };
    for error in &errors {
        reader.syntax(error);
    }
    let config = reader.config(document.get_ref());
    match Problems::new(reader.problems) {
        None => Ok(config),
        Some(problems) => Err(problems),
    }
}

struct Reader<'t> {
    text: &'t str,
    problems: Vec<Problem>,
    /// Lines that are not TOML. Nothing else is said about them: what they mean was guessed.
    broken: BTreeSet<usize>,
}

impl<'t> Reader<'t> {
    fn syntax(&mut self, error: &toml::de::Error) {
        let byte = error.span().map_or(self.text.len(), |span| span.start);
        let problem = Problem::at(self.text, byte, error.message().to_owned(), None);
        // One mistake makes the parser stumble more than once.
        if self.broken.insert(problem.line) {
            self.problems.push(problem);
        }
    }

    fn add(&mut self, span: Range<usize>, message: String, hint: Option<String>) {
        let problem = Problem::at(self.text, span.start, message, hint);
        if !self.broken.contains(&problem.line) {
            self.problems.push(problem);
        }
    }

    /// The value of this key is not what it has to be.
    fn wrong(&mut self, span: Range<usize>, path: &str, message: String) {
        self.add(span, message, Some(format!("expected {}", keys::expected(path))));
    }

    fn config(&mut self, table: &DeTable<'t>) -> Config {
        let mut config = Config::default();
        for (name, value) in self.known("", table) {
            match name {
                "hostname" => config.hostname = self.hostname(value),
                "network" => self.network(value, &mut config),
                "time" => self.time(value, &mut config),
                "proxy" => self.proxy(value, &mut config.proxy),
                "ca" => config.certificates = self.certificates(value),
                "ssh" => config.ssh_keys = self.ssh(value),
                "console" => self.console(value, &mut config),
                "health" => config.health_window_s = self.health(value),
                "watchdog" => self.watchdog(value, &mut config),
                "engine" => self.engine(value, &mut config.engine),
                "kernel" => config.modules = self.kernel(value),
                "logs" => self.logs(value, &mut config),
                "memory" => config.zram_percent = self.memory(value),
                "update" => self.update(value, &mut config.update),
                "reset" => config.reset_by_power_cycles = self.reset(value),
                keys::SYSCTL => self.sysctls(value, &mut config),
                _ => {}
            }
        }
        config
    }

    /// The entries of a table that may be there; what else is in it is said.
    fn known<'a>(
        &mut self,
        path: &str,
        table: &'a DeTable<'t>,
    ) -> Vec<(&'static str, &'a Value<'t>)> {
        let mut found = Vec::new();
        for (name, value) in table {
            let wanted: &str = name.get_ref();
            match keys::names_in(path).find(|known| *known == wanted) {
                Some(known) => found.push((known, value)),
                None => self.unknown(path, wanted, name.span()),
            }
        }
        found
    }

    fn unknown(&mut self, path: &str, name: &str, span: Range<usize>) {
        let place = if path.is_empty() { String::new() } else { format!(" of [{path}]") };
        let near = suggest::nearest(name, keys::names_in(path));
        let hint = match (near, keys::table_with(name)) {
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, Some(table)) => format!("`{name}` is a key of [{table}]"),
            (None, None) if sysctls::find(name).is_some() => {
                format!("`{name}` is a key of [{}]", keys::SYSCTL)
            }
            (None, None) => {
                let known: Vec<&str> = keys::names_in(path).collect();
                format!("there are {}", known.join(", "))
            }
        };
        self.add(span, format!("`{name}` is not a key{place}"), Some(hint));
    }

    fn table<'a>(&mut self, path: &str, value: &'a Value<'t>) -> Option<&'a DeTable<'t>> {
        match value.get_ref() {
            DeValue::Table(table) => Some(table),
            other => {
                let hint = format!("expected a table: [{path}] on a line of its own");
                let message = format!("`{path}` is {}, not a table", kind(other));
                self.add(value.span(), message, Some(hint));
                None
            }
        }
    }

    fn string<'a>(&mut self, path: &str, value: &'a Value<'t>) -> Option<&'a str> {
        match value.get_ref() {
            DeValue::String(text) => Some(text),
            other => {
                self.wrong(value.span(), path, format!("{}, not a string", kind(other)));
                None
            }
        }
    }

    /// A string, read by a function whose error is one clause.
    fn parsed<T>(
        &mut self,
        path: &str,
        value: &Value<'t>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let parsed = parse(self.string(path, value)?);
        parsed.map_err(|message| self.wrong(value.span(), path, message)).ok()
    }

    /// A password. What is said about it shows nothing of its line.
    fn secret(
        &mut self,
        path: &str,
        value: &Value<'t>,
        parse: impl FnOnce(&str) -> Result<Secret, String>,
    ) -> Option<Secret> {
        let mistakes = self.problems.len();
        let secret = self.parsed(path, value, parse);
        self.conceal(mistakes);
        secret
    }

    /// Shows nothing of the lines of what was found after so many mistakes.
    fn conceal(&mut self, mistakes: usize) {
        self.problems.iter_mut().skip(mistakes).for_each(Problem::conceal);
    }

    /// A number of this range.
    fn number(&mut self, value: &Value<'t>, (least, most): (u32, u32)) -> Option<u32> {
        let number = match value.get_ref() {
            DeValue::Integer(number) => u32::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        let number = number.filter(|number| (least..=most).contains(number));
        if number.is_none() {
            let found = match value.get_ref() {
                DeValue::Integer(number) => format!("{number} is out of range"),
                DeValue::String(_) => "a string, not a number: leave out the quotes".to_owned(),
                other => format!("{}, not a number", kind(other)),
            };
            let hint = format!("expected {}", sysctls::range(least, most));
            self.add(value.span(), found, Some(hint));
        }
        number
    }

    fn hostname(&mut self, value: &Value<'t>) -> Option<String> {
        self.parsed("hostname", value, network::hostname)
    }

    fn ssh(&mut self, value: &Value<'t>) -> Vec<PublicKey> {
        const PATH: &str = "ssh.keys";
        let Some(table) = self.table("ssh", value) else { return Vec::new() };
        let known = self.known("ssh", table);
        let Some((_, value)) = known.into_iter().next() else { return Vec::new() };
        let Some(list) = self.list(PATH, value, 32, "keys") else { return Vec::new() };
        let mut keys: Vec<PublicKey> = Vec::new();
        for value in list {
            let Some(key) = self.parsed(PATH, value, ssh::public_key) else { continue };
            if keys.iter().any(|other| other.is_same(&key)) {
                self.wrong(value.span(), PATH, "this key is there twice".to_owned());
            }
            keys.push(key);
        }
        keys
    }

    fn switch(&mut self, path: &str, value: &Value<'t>) -> bool {
        match value.get_ref() {
            DeValue::Boolean(switch) => *switch,
            other => {
                self.wrong(value.span(), path, format!("{}, neither true nor false", kind(other)));
                false
            }
        }
    }

    fn network(&mut self, value: &Value<'t>, config: &mut Config) {
        let Some(table) = self.table("network", value) else { return };
        for (name, value) in self.known("network", table) {
            match name {
                "dns" => {
                    // The C library reads three (resolv.conf(5)).
                    config.name_servers =
                        self.servers("network.dns", value, 3, network::name_server);
                }
                "wifi-country" => {
                    config.wifi_country = self.parsed("network.wifi-country", value, wifi::country);
                }
                "vlans" => config.vlans = self.vlans(value),
                "interface" => config.interfaces = self.interfaces(value),
                "wifi" => config.wifi = self.wifi(value),
                _ => {}
            }
        }
    }

    /// A list of at least one and at most so many of what `what` says.
    fn list<'a>(
        &mut self,
        path: &str,
        value: &'a Value<'t>,
        most: usize,
        what: &str,
    ) -> Option<&'a [Value<'t>]> {
        let DeValue::Array(list) = value.get_ref() else {
            let message = format!("{}, not a list", kind(value.get_ref()));
            self.wrong(value.span(), path, message);
            return None;
        };
        if list.is_empty() || list.len() > most {
            self.wrong(value.span(), path, format!("{} {what}", list.len()));
        }
        Some(list)
    }

    /// A list of at least one and at most so many different servers of a kind.
    fn servers<T: PartialEq + core::fmt::Display>(
        &mut self,
        path: &str,
        value: &Value<'t>,
        most: usize,
        parse: fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        self.different(path, value, (most, "addresses"), parse)
    }

    /// A list of at least one and at most so many things, none of them twice.
    fn different<T: PartialEq + core::fmt::Display>(
        &mut self,
        path: &str,
        value: &Value<'t>,
        (most, what): (usize, &str),
        parse: fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let Some(list) = self.list(path, value, most, what) else { return Vec::new() };
        let mut things = Vec::new();
        for value in list {
            let Some(thing) = self.parsed(path, value, parse) else { continue };
            if things.contains(&thing) {
                self.wrong(value.span(), path, format!("{thing} is there twice"));
            }
            things.push(thing);
        }
        things
    }

    fn vlans(&mut self, value: &Value<'t>) -> Vec<Vlan> {
        self.different("network.vlans", value, (32, "names"), network::vlan)
    }

    /// The tables of a list of them, one for each `what`.
    fn tables<'a>(
        &mut self,
        path: &str,
        value: &'a Value<'t>,
        what: &str,
    ) -> Vec<(&'a DeTable<'t>, Range<usize>)> {
        match value.get_ref() {
            DeValue::Array(list) if !list.is_empty() => {
                let tables = list.iter().map(|value| (self.table(path, value), value.span()));
                tables.filter_map(|(table, span)| table.map(|table| (table, span))).collect()
            }
            other => {
                let hint = format!("expected [[{path}]], with two brackets, for each {what}");
                let message = format!("`{path}` is {}, not a list of tables", kind(other));
                self.add(value.span(), message, Some(hint));
                Vec::new()
            }
        }
    }

    fn interfaces(&mut self, value: &Value<'t>) -> Vec<Interface> {
        let mut interfaces = Vec::new();
        for (table, span) in self.tables("network.interface", value, "interface") {
            if let Some(interface) = self.interface(table, span, &interfaces) {
                interfaces.push(interface);
            }
        }
        interfaces
    }

    fn interface(
        &mut self,
        table: &DeTable<'t>,
        span: Range<usize>,
        others: &[Interface],
    ) -> Option<Interface> {
        const PATH: &str = "network.interface";
        let known = self.known(PATH, table);
        let find =
            |wanted: &str| known.iter().find(|(name, _)| *name == wanted).map(|entry| entry.1);
        for wanted in ["name", "address"].into_iter().filter(|wanted| find(wanted).is_none()) {
            // A line that could not be read may have been just that key.
            if self.broken.is_empty() {
                let path = format!("{PATH}.{wanted}");
                self.wrong(span.clone(), &path, format!("an interface without `{wanted}`"));
            }
        }
        let name = find("name").and_then(|value| self.interface_name(value, others));
        let addresses = find("address").and_then(|value| self.addresses(value, others));
        let router = find("router").map(|value| {
            let host = addresses.and_then(|(ipv4, _)| ipv4);
            // Of an address that is wrong itself nothing more needs to be said.
            addresses.and_then(|_| {
                let path = "network.interface.router";
                self.parsed(path, value, |text| network::router(text, host))
            })
        });
        let (ipv4, ipv6) = addresses?;
        Some(Interface { name: name?, ipv4, ipv6, router: router.flatten() })
    }

    fn interface_name(&mut self, value: &Value<'t>, others: &[Interface]) -> Option<String> {
        self.parsed("network.interface.name", value, |name| {
            network::interface_name(name)?;
            match others.iter().any(|other| other.name == name) {
                true => Err(format!("`{name}` has a table already")),
                false => Ok(name.to_owned()),
            }
        })
    }

    fn addresses(&mut self, value: &Value<'t>, others: &[Interface]) -> Option<Addresses> {
        const PATH: &str = "network.interface.address";
        let values: Vec<&Value<'t>> = match value.get_ref() {
            DeValue::Array(list) => list.iter().collect(),
            _ => [value].into(),
        };
        if values.is_empty() {
            self.wrong(value.span(), PATH, "no address".to_owned());
        }
        let (mut ipv4, mut ipv6) = (None, None);
        let mut good = !values.is_empty();
        for value in values {
            let read =
                |text: &str| one_of_each(network::address(text)?, others, &mut ipv4, &mut ipv6);
            good &= self.parsed(PATH, value, read).is_some();
        }
        good.then_some((ipv4, ipv6))
    }

    fn sysctls(&mut self, value: &Value<'t>, config: &mut Config) {
        let Some(table) = self.table(keys::SYSCTL, value) else { return };
        let mut leaves = Vec::new();
        flatten("", table, &mut leaves);
        for (name, place, value) in leaves {
            let Some(sysctl) = sysctls::find(&name) else {
                self.unknown_sysctl(&name, place);
                continue;
            };
            let Some(number) = self.number(value, (sysctl.least, sysctl.most)) else { continue };
            if config.sysctls.iter().any(|(other, _)| *other == sysctl.name) {
                self.add(place, format!("`{name}` is there twice"), None);
            }
            config.sysctls.push((sysctl.name, number));
        }
        config.sysctls.sort_unstable();
    }

    fn unknown_sysctl(&mut self, name: &str, span: Range<usize>) {
        let near = suggest::nearest(name, sysctls::SYSCTLS.iter().map(|sysctl| sysctl.name));
        let hint = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => "docs/config.md lists those that are, and says why others are not".to_owned(),
        };
        let message = format!("`{name}` is not a kernel setting that can be chosen here");
        self.add(span, message, Some(hint));
    }
}

/// One of IPv4 and one of IPv6: what dhcpcd can give an interface.
pub(crate) type Addresses = (Option<Address<Ipv4Addr>>, Option<Address<Ipv6Addr>>);

pub(crate) fn one_of_each(
    Address { ip, prefix }: Address<IpAddr>,
    others: &[Interface],
    ipv4: &mut Option<Address<Ipv4Addr>>,
    ipv6: &mut Option<Address<Ipv6Addr>>,
) -> Result<(), String> {
    let same = |other: &&Interface| {
        let v4 = other.ipv4.map(|address| IpAddr::V4(address.ip));
        let v6 = other.ipv6.map(|address| IpAddr::V6(address.ip));
        [v4, v6].contains(&Some(ip))
    };
    if let Some(other) = others.iter().find(same) {
        return Err(format!("{ip} is the address of {}", other.name));
    }
    let second = match ip {
        IpAddr::V4(ip) => ipv4.replace(Address { ip, prefix }).is_some(),
        IpAddr::V6(ip) => ipv6.replace(Address { ip, prefix }).is_some(),
    };
    if second { Err(format!("{ip} is a second address of its kind")) } else { Ok(()) }
}

pub(crate) type Leaf<'a, 't> = (String, Range<usize>, &'a Value<'t>);

/// `vm.swappiness = 10` is a table in a table to TOML, and `"vm.swappiness" = 10` is not.
pub(crate) fn flatten<'a, 't>(path: &str, table: &'a DeTable<'t>, leaves: &mut Vec<Leaf<'a, 't>>) {
    for (name, value) in table {
        let segment: &str = name.get_ref();
        let path = if path.is_empty() { segment.to_string() } else { format!("{path}.{segment}") };
        match value.get_ref() {
            DeValue::Table(table) => flatten(&path, table, leaves),
            _ => leaves.push((path, name.span(), value)),
        }
    }
}

/// What a value is, for a message.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
