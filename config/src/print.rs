//! A config as text: the one way to write it, which reads back as the same.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::{Config, Interface, Proxy, Update, Wifi};

impl fmt::Display for Config {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let network = network(self);
        let time = time(self).into_iter().chain(proxy(&self.proxy)).chain(authorities(self));
        let ssh = (!self.ssh_keys.is_empty()).then(|| {
            let keys: String =
                self.ssh_keys.iter().map(|key| format!("    \"{key}\",\n")).collect();
            format!("[ssh]\nkeys = [\n{keys}]\n")
        });
        let console = console(self);
        let health = self.health_window_s.map(|s| format!("[health]\nwindow-s = {s}\n"));
        let watchdog = watchdog(self);
        let percent = self.zram_percent;
        let memory = percent.map(|percent| format!("[memory]\nzram-percent = {percent}\n"));
        let kept = engine(self).into_iter().chain(logs(self)).chain(memory);
        let update = update(&self.update);
        let cycles = self.reset_by_power_cycles;
        let reset = cycles.then(|| "[reset]\npower-cycles = true\n".into());
        let mut sysctls = String::from("[sysctl]\n");
        for (name, value) in &self.sysctls {
            sysctls.push_str(&format!("{name} = {value}\n"));
        }
        let sysctls = (!self.sysctls.is_empty()).then_some(sysctls);
        let hostname = self.hostname.as_ref().map(|name| format!("hostname = {}\n", quoted(name)));
        let first = hostname.into_iter().chain(network);
        let interfaces = self.interfaces.iter().map(interface);
        let wifi = self.wifi.iter().map(wifi);
        let last = time.chain(ssh).chain(console).chain(health).chain(watchdog);
        let last = last.chain(kept).chain(update).chain(reset).chain(sysctls);
        let parts: Vec<String> = first.chain(interfaces).chain(wifi).chain(last).collect();
        // An empty file would not be read back: it is what a lost write leaves.
        out.write_str(if parts.is_empty() { "# nothing is set\n" } else { "" })?;
        out.write_str(&parts.join("\n"))
    }
}

fn watchdog(config: &Config) -> Option<String> {
    let limits = config.watchdog;
    let line = |name, minutes: Option<u32>| minutes.map(|it| format!("{name} = {it}\n"));
    let lines = line("engine-min", limits.engine_min).into_iter();
    let lines: String = lines.chain(line("network-min", limits.network_min)).collect();
    (!lines.is_empty()).then(|| format!("[watchdog]\n{lines}"))
}

fn network(config: &Config) -> Option<String> {
    let mut lines = String::new();
    if !config.name_servers.is_empty() {
        let servers = config.name_servers.iter().map(quoted).collect::<Vec<_>>();
        lines.push_str(&format!("dns = [{}]\n", servers.join(", ")));
    }
    if let Some(country) = &config.wifi_country {
        lines.push_str(&format!("wifi-country = {}\n", quoted(country)));
    }
    lines.extend(list("vlans", &config.vlans));
    (!lines.is_empty()).then(|| format!("[network]\n{lines}"))
}

fn time(config: &Config) -> Option<String> {
    let zone = config.time_zone.map(|zone| format!("zone = {}\n", quoted(zone)));
    let servers = list("servers", &config.time_servers);
    let lines: String = zone.into_iter().chain(servers).collect();
    (!lines.is_empty()).then(|| format!("[time]\n{lines}"))
}

fn proxy(proxy: &Proxy) -> Option<String> {
    let address = |name: &str, address: &Option<String>| {
        address.as_ref().map(|address| format!("{name} = {}\n", quoted(address)))
    };
    let (http, https) = (address("http", &proxy.http), address("https", &proxy.https));
    let exceptions = list("no-proxy", &proxy.no_proxy);
    let lines: String = http.into_iter().chain(https).chain(exceptions).collect();
    (!lines.is_empty()).then(|| format!("[proxy]\n{lines}"))
}

/// A line with a list, if there is anything in it.
fn list(name: &str, values: &[impl fmt::Display]) -> Option<String> {
    let texts: Vec<String> = values.iter().map(quoted).collect();
    (!texts.is_empty()).then(|| format!("{name} = [{}]\n", texts.join(", ")))
}

/// Nothing in a certificate would have to be escaped.
fn authorities(config: &Config) -> Option<String> {
    let all = &config.certificates;
    let certificates: String = all.iter().map(|it| format!("\"\"\"\n{it}\"\"\",\n")).collect();
    (!all.is_empty()).then(|| format!("[ca]\ncertificates = [{}]\n", certificates.trim_end()))
}

fn wifi(wifi: &Wifi) -> String {
    let mut text = format!("[[network.wifi]]\nssid = {}\n", quoted(&wifi.ssid));
    if let Some(password) = &wifi.password {
        text.push_str(&format!("password = {}\n", quoted(password.reveal())));
    }
    if let Some(security) = wifi.security {
        text.push_str(&format!("security = {}\n", quoted(security)));
    }
    if wifi.hidden {
        text.push_str("hidden = true\n");
    }
    if wifi.priority > 0 {
        text.push_str(&format!("priority = {}\n", wifi.priority));
    }
    text
}

fn interface(interface: &Interface) -> String {
    let ipv4 = interface.ipv4.map(quoted);
    let ipv6 = interface.ipv6.map(quoted);
    let addresses: Vec<String> = ipv4.into_iter().chain(ipv6).collect();
    let (name, addresses) = (quoted(&interface.name), addresses.join(", "));
    let text = format!("[[network.interface]]\nname = {name}\naddress = [{addresses}]\n");
    match &interface.router {
        Some(router) => format!("{text}router = {}\n", quoted(router)),
        None => text,
    }
}

fn console(config: &Config) -> Option<String> {
    let image = config.console_image.as_ref();
    let image = image.map(|image| format!("image = {}\n", quoted(image)));
    let serial = config.serial_shell.then(|| String::from("serial = true\n"));
    let lines: String = image.into_iter().chain(serial).collect();
    (!lines.is_empty()).then(|| format!("[console]\n{lines}"))
}

fn engine(config: &Config) -> Option<String> {
    let mirrors = list("registry-mirrors", &config.engine.mirrors);
    let insecure = list("insecure-registries", &config.engine.insecure);
    let lines: String = mirrors.into_iter().chain(insecure).collect();
    let engine = (!lines.is_empty()).then(|| format!("[engine]\n{lines}"));
    let modules = list("modules", &config.modules).map(|line| format!("[kernel]\n{line}"));
    let tables: Vec<String> = engine.into_iter().chain(modules).collect();
    (!tables.is_empty()).then(|| tables.join("\n"))
}

fn logs(config: &Config) -> Option<String> {
    let persistent = config.keeps_logs.then(|| String::from("persistent = true\n"));
    let most = config.most_log_mb.map(|most| format!("most-mb = {most}\n"));
    let lines: String = persistent.into_iter().chain(most).collect();
    (!lines.is_empty()).then(|| format!("[logs]\n{lines}"))
}

fn update(update: &Update) -> Option<String> {
    let text = |name: &str, value: Option<String>| value.map(|value| format!("{name} = {value}\n"));
    let lines: String = [
        text("source", update.source.as_ref().map(quoted)),
        list("mirrors", &update.mirrors),
        text("user", update.user.as_ref().map(quoted)),
        text("password", update.password.as_ref().map(|it| quoted(it.reveal()))),
        text("channel", update.channel.as_ref().map(quoted)),
        text("automatic", update.automatic.map(quoted)),
        text("window", update.window.map(quoted)),
        text("every-min", update.every_min.map(|minutes| format!("{minutes}"))),
        text("most-kb-s", update.most_kb_s.map(|most| format!("{most}"))),
        text("report", update.report.as_ref().map(quoted)),
    ]
    .into_iter()
    .flatten()
    .collect();
    (!lines.is_empty()).then(|| format!("[update]\n{lines}"))
}

/// A value as a basic string of TOML.
pub(crate) fn quoted(value: impl fmt::Display) -> String {
    let mut text = String::from("\"");
    for character in format!("{value}").chars() {
        match character {
            '"' | '\\' => text.extend(['\\', character]),
            control if control.is_control() => {
                text.push_str(&format!("\\u{:04x}", u32::from(control)));
            }
            other => text.push(other),
        }
    }
    text.push('"');
    text
}
