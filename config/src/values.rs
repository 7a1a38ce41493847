//! A config as a flat list of keys and values: what `iota config get` prints and `set` takes.
//!
//! A key is its path with dots. An interface or a Wi-Fi network is named in the middle of it:
//! `network.interface.eth0.address`.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use crate::keys::{self, KEYS, REPEATED, SYSCTL, Shape};
use crate::problem::{Problem, Problems};
use crate::{Config, Interface, suggest, sysctls};

/// A key that a file may have. Holding one proves that there is such a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub(crate) table: Table,
    pub(crate) name: String,
    pub(crate) shape: Shape,
    default: &'static str,
}

/// Where a key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    /// The file's own keys: "". Else one that is there at most once.
    Single(&'static str),
    /// One of those that may be there more than once, by its name.
    Named(Named, String),
}

/// Tables that may be there more than once: a row of [`REPEATED`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Named(&'static str, &'static str);

impl Named {
    /// The kind of table that a path leads into, and the rest of the path.
    fn of(path: &str) -> Option<(Self, &str)> {
        REPEATED.iter().find_map(|(table, key)| {
            let rest = path.strip_prefix(table)?.strip_prefix('.')?;
            Some((Self(table, key), rest))
        })
    }

    /// Its path: `network.wifi`.
    pub(crate) fn table(self) -> &'static str {
        self.0
    }

    /// The last word of its path.
    pub(crate) fn last(self) -> &'static str {
        self.0.rsplit('.').next().unwrap_or(self.0)
    }

    /// The key that tells one from another.
    pub(crate) fn key(self) -> &'static str {
        self.1
    }
}

impl Key {
    /// Reads a key's path, or says which one may have been meant.
    pub fn parse(path: &str) -> Result<Self, Problems> {
        if let Some(name) = path.strip_prefix("sysctl.")
            && let Some(sysctl) = sysctls::find(name)
        {
            let default = "what the kernel has";
            let (table, name) = (Table::Single(SYSCTL), sysctl.name.to_string());
            return Ok(Self { table, name, shape: Shape::Number, default });
        }
        if let Some((kind, rest)) = Named::of(path) {
            // The name may hold dots itself (VLANs).
            let (own, name) = rest.rsplit_once('.').ok_or_else(|| unknown(path))?;
            let is_it = |key: &&keys::Key| key.path.rsplit_once('.') == Some((kind.table(), name));
            let key = KEYS.iter().find(is_it).filter(|_| name != kind.key());
            let key = key.ok_or_else(|| unknown(path))?;
            let table = Table::Named(kind, own.to_string());
            return Ok(Self { table, name: name.into(), shape: key.shape, default: key.default });
        }
        let key = KEYS.iter().find(|key| key.path == path).ok_or_else(|| unknown(path))?;
        let (table, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
        let (table, name) = (Table::Single(table), name.to_string());
        Ok(Self { table, name, shape: key.shape, default: key.default })
    }

    /// Its path.
    pub fn path(&self) -> String {
        match &self.table {
            Table::Single("") => self.name.clone(),
            Table::Single(table) => format!("{table}.{}", self.name),
            Table::Named(kind, own) => format!("{}.{own}.{}", kind.table(), self.name),
        }
    }

    /// The kernel's setting that it is, if it is one.
    pub fn sysctl(&self) -> Option<&str> {
        (self.table == Table::Single(SYSCTL)).then_some(&self.name)
    }

    /// Whether its value is for nobody to see.
    pub fn is_secret(&self) -> bool {
        keys::is_secret(&self.path())
    }

    /// What holds without it.
    pub fn default(&self) -> &'static str {
        self.default
    }
}

fn unknown(path: &str) -> Problems {
    let general = KEYS.iter().map(|key| key.path).filter(|path| Named::of(path).is_none());
    let settings: Vec<String> =
        sysctls::SYSCTLS.iter().map(|sysctl| format!("{SYSCTL}.{}", sysctl.name)).collect();
    let known = general.chain(settings.iter().map(String::as_str));
    let hint = match suggest::nearest(path, known) {
        _ if REPEATED.iter().any(|(table, _)| path == *table) || Named::of(path).is_some() => {
            let (table, own) =
                REPEATED.iter().find(|(table, _)| path.starts_with(table)).unwrap_or(&("", ""));
            let names = keys::names_in(table).filter(|name| name != own);
            let paths: Vec<String> = names.map(|name| format!("{table}.NAME.{name}")).collect();
            format!("there are {}", paths.join(", "))
        }
        Some(near) => format!("did you mean `{near}`?"),
        None => "`iota config get` lists what is set, docs/config.md what there is".to_string(),
    };
    Problem::of_file(format!("`{path}` is not a key"), &hint).into()
}

impl Config {
    /// Every key that is set, in the order of the documentation, with its values.
    pub fn values(&self) -> Vec<(String, Vec<String>)> {
        let mut all = Vec::new();
        let mut add = |path: String, values: Vec<String>| {
            if !values.is_empty() {
                all.push((path, values));
            }
        };
        add("hostname".into(), self.hostname.iter().cloned().collect());
        add("network.dns".into(), texts(&self.name_servers));
        add("network.wifi-country".into(), self.wifi_country.iter().cloned().collect());
        add("network.vlans".into(), texts(&self.vlans));
        for interface in &self.interfaces {
            let path = |name: &str| format!("network.interface.{}.{name}", interface.name);
            add(path("address"), addresses(interface));
            add(path("router"), texts(interface.router.as_slice()));
        }
        for wifi in &self.wifi {
            let path = |name: &str| format!("network.wifi.{}.{name}", wifi.ssid);
            add(path("password"), wifi.password.iter().map(|it| it.reveal().into()).collect());
            add(path("security"), texts(wifi.security.as_slice()));
            add(path("hidden"), wifi.hidden.then(|| "true".to_string()).into_iter().collect());
            let priority = (wifi.priority > 0).then_some(wifi.priority);
            add(path("priority"), texts(priority.as_slice()));
        }
        add("time.zone".into(), texts(self.time_zone.as_slice()));
        add("time.servers".into(), texts(&self.time_servers));
        add("proxy.http".into(), self.proxy.http.iter().cloned().collect());
        add("proxy.https".into(), self.proxy.https.iter().cloned().collect());
        add("proxy.no-proxy".into(), self.proxy.no_proxy.clone());
        add("ca.certificates".into(), texts(&self.certificates));
        add("ssh.keys".into(), texts(&self.ssh_keys));
        add("console.image".into(), self.console_image.iter().cloned().collect());
        let serial = self.serial_shell.then(|| "true".to_string());
        add("console.serial".into(), serial.into_iter().collect());
        add("health.window-s".into(), texts(self.health_window_s.as_slice()));
        add("watchdog.engine-min".into(), texts(self.watchdog.engine_min.as_slice()));
        add("watchdog.network-min".into(), texts(self.watchdog.network_min.as_slice()));
        add("engine.registry-mirrors".into(), self.engine.mirrors.clone());
        add("engine.insecure-registries".into(), self.engine.insecure.clone());
        add("kernel.modules".into(), texts(&self.modules));
        let persistent = self.keeps_logs.then(|| "true".to_string());
        add("logs.persistent".into(), persistent.into_iter().collect());
        add("logs.most-mb".into(), texts(self.most_log_mb.as_slice()));
        add("memory.zram-percent".into(), texts(self.zram_percent.as_slice()));
        let update = &self.update;
        add("update.source".into(), update.source.iter().cloned().collect());
        add("update.mirrors".into(), update.mirrors.clone());
        add("update.user".into(), update.user.iter().cloned().collect());
        let password = update.password.iter().map(|password| password.reveal().into());
        add("update.password".into(), password.collect());
        add("update.channel".into(), update.channel.iter().cloned().collect());
        add("update.automatic".into(), texts(update.automatic.as_slice()));
        add("update.window".into(), texts(update.window.as_slice()));
        add("update.every-min".into(), texts(update.every_min.as_slice()));
        add("update.most-kb-s".into(), texts(update.most_kb_s.as_slice()));
        add("update.report".into(), update.report.iter().cloned().collect());
        let cycles = self.reset_by_power_cycles.then(|| "true".to_string());
        add("reset.power-cycles".into(), cycles.into_iter().collect());
        for (name, value) in &self.sysctls {
            add(format!("{SYSCTL}.{name}"), [value.to_string()].into());
        }
        all
    }

    /// The values of one key; none if it is not set.
    pub fn value(&self, path: &str) -> Vec<String> {
        let found = self.values().into_iter().find(|(key, _)| key == path);
        found.map(|(_, values)| values).unwrap_or_default()
    }

    /// Keys whose values differ between this and another config.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let (ours, theirs) = (self.values(), other.values());
        let changed = |all: &[(String, Vec<String>)], other: &[(String, Vec<String>)]| {
            let fresh = all.iter().filter(|entry| !other.contains(entry));
            fresh.map(|(key, _)| key.clone()).collect::<Vec<_>>()
        };
        let mut keys = changed(&theirs, &ours);
        let gone = changed(&ours, &theirs);
        keys.extend(gone.into_iter().filter(|key| !theirs.iter().any(|(path, _)| path == key)));
        keys
    }
}

fn texts<T: alloc::string::ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(T::to_string).collect()
}

fn addresses(interface: &Interface) -> Vec<String> {
    let ipv4 = interface.ipv4.map(|address| address.to_string());
    let ipv6 = interface.ipv6.map(|address| address.to_string());
    ipv4.into_iter().chain(ipv6).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(text: &str) -> Config {
        Config::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn every_value_has_a_key_that_is_read_back() {
        let config = good(
            "hostname = \"a\"\n[[network.interface]]\nname = \"eth0.7\"\n\
             address = [\"10.0.0.2/8\", \"fd00::2/64\"]\nrouter = \"10.0.0.1\"\n\
             [network]\ndns = [\"10.0.0.1\"]\n[time]\nservers = [\"ntp:1123\"]\n\
             [[network.wifi]]\nssid = \"My. Net\"\npassword = \"12345678\"\nhidden = true\n\
             [health]\nwindow-s = 90\n[sysctl]\nvm.swappiness = 1\n",
        );
        let lines: Vec<String> = config
            .values()
            .iter()
            .map(|(key, values)| {
                assert_eq!(Key::parse(key).unwrap().path(), *key);
                assert_eq!(&config.value(key), values);
                format!("{key} {}", values.join(" "))
            })
            .collect();
        assert_eq!(
            lines,
            [
                "hostname a",
                "network.dns 10.0.0.1",
                "network.interface.eth0.7.address 10.0.0.2/8 fd00::2/64",
                "network.interface.eth0.7.router 10.0.0.1",
                "network.wifi.My. Net.password 12345678",
                "network.wifi.My. Net.hidden true",
                "time.servers ntp:1123",
                "health.window-s 90",
                "sysctl.vm.swappiness 1",
            ]
        );
        assert_eq!(Config::default().values(), []);
    }

    #[test]
    fn differences_are_what_came_what_changed_and_what_went() {
        let old = good("hostname = \"a\"\n[sysctl]\nvm.swappiness = 1\nvm.dirty_ratio = 9\n");
        let new =
            good("[health]\nwindow-s = 90\n[sysctl]\nvm.swappiness = 2\nvm.dirty_ratio = 9\n");
        let expected = ["health.window-s", "sysctl.vm.swappiness", "hostname"];
        assert_eq!(old.differences(&new), expected);
        assert!(new.differences(&new).is_empty());
    }
}
