//! What holds on this device and why: written at its start, read by everyone who wants to know.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use config::import::Origin;
use config::{Config, Interface, Secret, Security, Wifi};
use ondisk::system::System;
use serde_json::{Value, json};

use super::decide::{Decision, Source};
use super::device::Base;
use crate::files;

/// The configuration of this start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Where it comes from.
    pub source: Source,
    /// Why it is not what the owner may have meant.
    pub problem: Option<String>,
    /// What it says.
    pub config: Config,
    /// As its owner wrote it; empty if nobody did.
    pub text: String,
    /// What a change is based on.
    pub base: Base,
}

impl Report {
    /// Where it is on a device.
    pub fn path() -> &'static Path {
        Path::new("/run/iota/config.json")
    }

    /// Of what was decided.
    pub fn of(decision: &Decision) -> Self {
        let Decision { config, text, source, base, problem, .. } = decision.clone();
        Self { source, problem, config, text, base }
    }

    /// For this system alone, which the services of this start may read: no sync.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        write(path, &self.document())
    }

    /// All of it, to be written to a file.
    pub fn document(&self) -> Value {
        json!({
            "source": self.source.word(),
            "problem": self.problem,
            "base": self.base.to_string(),
            "config": self.text,
        })
    }

    /// Reads what [`Report::write`] wrote; an error is one clause.
    pub fn read(path: &Path) -> Result<Self, String> {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let text = fs::read_to_string(path).map_err(|error| failed(&error))?;
        let document: Value = serde_json::from_str(&text).map_err(|error| failed(&error))?;
        Self::from_document(&document).map_err(|error| failed(&error))
    }

    /// Reads a [`Report::document`]; an error is one clause.
    pub fn from_document(document: &Value) -> Result<Self, String> {
        let word = |name: &str| document.get(name).and_then(Value::as_str);
        let source = word("source").and_then(Source::from_word).ok_or("no source")?;
        let base = word("base").and_then(Base::parse).ok_or("no base")?;
        let text = word("config").unwrap_or_default().to_owned();
        let config = match &*text {
            "" => Config::default(),
            text => Config::parse(text.as_bytes()).map_err(|problems| problems.to_string())?,
        };
        Ok(Self { source, problem: word("problem").map(str::to_owned), config, text, base })
    }

    /// The line of `iota status`.
    pub fn text(&self) -> String {
        let mut text = self.source.describe(self.origin().as_ref());
        if let Some(problem) = &self.problem {
            let _ = write!(text, "; ERROR: {problem}");
        }
        text
    }

    /// What it was made from, if nobody wrote it as it is.
    fn origin(&self) -> Option<Origin> {
        Origin::of(&self.text)
    }

    /// What the files that it was made from say and the device does not do.
    pub fn left_out(&self) -> Vec<String> {
        self.origin().map(|origin| origin.left_out).unwrap_or_default()
    }

    /// Source and problem, for programs.
    pub fn json(&self) -> Value {
        json!({
            "source": self.source.word(),
            "problem": self.problem,
            "imported-from": self.origin().map(|origin| origin.files),
            "left-out": self.left_out(),
        })
    }

    /// The same without passwords.
    #[must_use]
    pub fn concealed(mut self) -> Self {
        self.config = self.config.concealed();
        self
    }

    /// All that holds, as a file that says it; what the image says is in comments.
    pub fn show(&self, system: &System) -> String {
        let mut text = format!("# {}\n", self.text());
        for line in self.left_out() {
            let _ = writeln!(text, "# Left out: {line}");
        }
        if self.config.hostname().is_none() {
            let _ = writeln!(text, "# The image says: hostname = \"{}\"", system.hostname);
        }
        if let Some(health) = &system.health
            && self.config.health_window_s().is_none()
        {
            let _ = writeln!(text, "# The image says: health.window-s = {}", health.window_s);
        }
        format!("{text}\n{}", self.config)
    }

    /// All that holds, for programs.
    pub fn show_json(&self, system: &System) -> Value {
        let config = &self.config;
        let declared = system.health.as_ref().map(|health| health.window_s);
        let servers: Vec<_> = config.name_servers().iter().map(ToString::to_string).collect();
        let time: Vec<_> = config.time_servers().iter().map(ToString::to_string).collect();
        let certificates: Vec<_> = config.certificates().iter().map(ToString::to_string).collect();
        let keys: Vec<_> = config.ssh_keys().iter().map(ToString::to_string).collect();
        let interfaces: Vec<Value> = config.interfaces().iter().map(interface).collect();
        let sysctls: serde_json::Map<String, Value> = config
            .sysctls()
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json!(value)))
            .collect();
        let mut document = self.json();
        document["config"] = json!({
                "hostname": config.hostname().unwrap_or(&system.hostname),
                "network": {
                    "dns": servers,
                    "wifi-country": config.wifi_country(),
                    "vlans": config.vlans().iter().map(ToString::to_string).collect::<Vec<_>>(),
                    "interface": interfaces,
                    "wifi": config.wifi().iter().map(wifi).collect::<Vec<Value>>(),
                },
                "time": { "zone": config.time_zone(), "servers": time },
                "proxy": {
                    "http": config.proxy().http(),
                    "https": config.proxy().https(),
                    "no-proxy": config.proxy().no_proxy(),
                },
                "ca": { "certificates": certificates },
                "ssh": { "keys": keys },
                "console": {
                    "image": config.console_image(),
                    "serial": config.serial_shell(),
                },
                "health": { "window-s": config.health_window_s().or(declared) },
                "watchdog": {
                    "engine-min": config.watchdog().engine_min,
                    "network-min": config.watchdog().network_min,
                },
                "engine": {
                    "registry-mirrors": config.engine().mirrors(),
                    "insecure-registries": config.engine().insecure(),
                },
                "kernel": { "modules": config.modules() },
                "logs": {
                    "persistent": config.keeps_logs(),
                    "most-mb": config.most_log_bytes() / 1_000_000,
                },
                "memory": { "zram-percent": config.zram_percent() },
                "update": {
                    "source": config.update().source(),
                    "user": config.update().user(),
                    "password": config.update().password().map(Secret::reveal),
                    "channel": config.update().channel(),
                    "automatic": config.update().automatic().to_string(),
                    "window": config.update().window().map(|window| window.to_string()),
                    "every-min": config.update().every_min(),
                    "most-kb-s": config.update().most_kb_s(),
                    "report": config.update().report(),
                },
                "reset": { "power-cycles": config.reset_by_power_cycles() },
                "sysctl": sysctls,
        });
        document
    }
}

/// Puts a document in place of one in memory, in one step.
pub fn write(path: &Path, document: &Value) -> io::Result<()> {
    files::replace(path, format!("{document}\n").as_bytes(), 0o600)
}

fn wifi(wifi: &Wifi) -> Value {
    json!({
        "ssid": wifi.ssid(),
        "password": wifi.password().map(Secret::reveal),
        "security": wifi.security().map(Security::word),
        "hidden": wifi.hidden(),
        "priority": wifi.priority(),
    })
}

fn interface(interface: &Interface) -> Value {
    let ipv4 = interface.ipv4().map(|address| address.to_string());
    let ipv6 = interface.ipv6().map(|address| address.to_string());
    json!({
        "name": interface.name(),
        "address": ipv4.into_iter().chain(ipv6).collect::<Vec<_>>(),
        "router": interface.router().map(|router| router.to_string()),
    })
}
