//! Cards that were prepared with the tools people have: files of cloud-init (NoCloud) and of
//! Raspberry Pi Imager become a configuration where there is no `iota.toml`.
//!
//! ```text
//! meta-data, user-data, network-config ─ yaml ─┐
//!                                              ├► node ─► draft ─► Config ─► text of an iota.toml
//! custom.toml ───────────────────────── toml ──┘            └─► findings: what was left out, where
//! ```
//!
//! Each value goes through the one check that `iota.toml` has for it. What is not supported or not
//! right is a finding with its line, and the rest holds; a file that cannot be read at all is an
//! error, so that what held before goes on. The text that is made says in comments what it was made
//! from and what was left out: whoever finds it later, on the data partition too, is told.
//!
//! Follows cloud-init's documentation of NoCloud, of `cloud-config` and of network configuration
//! versions 1 and 2, and what Raspberry Pi Imager writes.
//!
//! Reading order: [`Seed`] → `yaml`, `node` → `draft` → `user_data`, `network_config`, `imager`.

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;

use crate::problem::{Problem, Problems};
use crate::{Config, text};

mod draft;
mod imager;
mod network_config;
mod node;
#[cfg(test)]
mod tests;
mod user_data;
mod yaml;

/// A file that others write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// cloud-init: what the machine is told about itself.
    MetaData,
    /// cloud-init: what its owner wants.
    UserData,
    /// cloud-init: addresses and Wi-Fi.
    NetworkConfig,
    /// Raspberry Pi Imager, before it wrote cloud-init's files.
    Custom,
    /// Raspberry Pi Imager, before that: a script.
    FirstRun,
}

impl Name {
    /// All, a later one overriding an earlier one.
    pub const ALL: [Self; 5] =
        [Self::MetaData, Self::UserData, Self::NetworkConfig, Self::Custom, Self::FirstRun];

    /// Its name on the boot partition.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MetaData => "meta-data",
            Self::UserData => "user-data",
            Self::NetworkConfig => "network-config",
            Self::Custom => "custom.toml",
            Self::FirstRun => "firstrun.sh",
        }
    }

    /// The file that has this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == name)
    }

    /// Whether a file without a single byte is one that somebody meant.
    fn may_be_empty(self) -> bool {
        matches!(self, Self::MetaData | Self::NetworkConfig)
    }
}

/// A file of a seed that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Which one.
    pub name: Name,
    /// What is wrong with it.
    pub problems: Problems,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.name.as_str(), self.problems)
    }
}

/// Something in a file that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// In which file.
    pub name: Name,
    /// Where, and why not.
    pub problem: Problem,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, problem } = self;
        write!(out, "{}, {problem}", name.as_str())
    }
}

/// The files of a boot partition that others wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seed(Vec<(Name, Vec<u8>)>);

impl Seed {
    /// Adds a file.
    pub fn add(&mut self, name: Name, bytes: Vec<u8>) {
        self.0.push((name, bytes));
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All bytes with their names, in an order of their own: what a fingerprint is made of.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, content) in self.files() {
            bytes.extend(format!("{} {}\n", name.as_str(), content.len()).into_bytes());
            bytes.extend(content);
        }
        bytes
    }

    /// The files that count, in the order of [`Name::ALL`]. cloud-init's files are newer than
    /// `custom.toml`, as Imager's releases go.
    fn files(&self) -> impl Iterator<Item = (Name, &[u8])> {
        let find = |name| self.0.iter().find(|(own, _)| *own == name);
        let has_cloud_init = find(Name::UserData).or_else(|| find(Name::NetworkConfig)).is_some();
        Name::ALL
            .into_iter()
            .filter(move |name| *name != Name::Custom || !has_cloud_init)
            .filter_map(move |name| find(name).map(|(name, bytes)| (*name, &bytes[..])))
    }

    /// Makes a configuration of it.
    pub fn read(&self) -> Result<Imported, Unreadable> {
        let (mut config, mut findings) = (Config::default(), Vec::new());
        for (name, bytes) in self.files() {
            if bytes.is_empty() && name.may_be_empty() {
                continue;
            }
            let unreadable = |problems| Unreadable { name, problems };
            let text = text::check(bytes).map_err(unreadable)?;
            let mut draft = draft::Draft::new(name, text, &mut config);
            read_one(&mut draft, text).map_err(unreadable)?;
            findings.extend(draft.findings());
        }
        let names = self.files().map(|(name, _)| name).collect();
        Ok(Imported { config, names, findings })
    }
}

fn read_one(draft: &mut draft::Draft<'_>, text: &str) -> Result<(), Problems> {
    match draft.name() {
        Name::MetaData => user_data::meta_data(draft, &yaml::read(text)?),
        Name::UserData if user_data::is_cloud_config(text) => {
            user_data::user_data(draft, &yaml::read(text)?);
        }
        Name::UserData => draft.note(
            0,
            "the file does not begin with `#cloud-config`",
            "scripts, archives and templates are not supported",
        ),
        Name::NetworkConfig => network_config::read(draft, &yaml::read(text)?),
        Name::Custom => imager::custom(draft, &imager::tree(text)?),
        Name::FirstRun => draft.note(
            0,
            "a script of Raspberry Pi Imager, which is not supported",
            "take Imager 2, which writes files of cloud-init, or write an iota.toml",
        ),
    }
    Ok(())
}

/// What a seed came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// What holds.
    pub config: Config,
    /// From which files.
    pub names: Vec<Name>,
    /// What in them does not hold.
    pub findings: Vec<Finding>,
}

/// How the first line of a text begins that was made of a seed.
const HEAD: &str = "# Made from ";
const MIDDLE: &str = " of the boot partition; sha256 ";
/// How a line begins that says what was not taken.
const LEFT_OUT: &str = "# Left out: ";
/// So many are written down; nobody reads more at the start of a device.
const MOST_LINES: usize = 30;

impl Imported {
    /// Reads a single file, as `iota config check` does.
    pub fn of_file(name: Name, bytes: &[u8]) -> Result<Self, Problems> {
        let mut seed = Seed::default();
        seed.add(name, bytes.to_vec());
        seed.read().map_err(|unreadable| unreadable.problems)
    }

    /// What a check of a single file prints: what is left out, and what holds, without passwords.
    pub fn render(&self, file: &str) -> String {
        let mut text: String =
            self.findings.iter().map(|finding| finding.problem.render(file)).collect();
        let left_out = self.findings.len();
        let config = self.config.concealed();
        text.push_str(&format!(
            "{file} can be imported, {left_out} left out; it means:\n\n{config}"
        ));
        text
    }

    /// The same for programs: what [`crate::problem::document`] says of an `iota.toml`, and what is
    /// left out.
    pub fn document(&self, file: &str) -> serde_json::Value {
        let findings = self.findings.iter().map(|finding| finding.problem.json());
        let mut document = crate::problem::document(file, None);
        document["left-out"] = findings.collect();
        document
    }

    /// The same as an `iota.toml`, with a fingerprint of the seed.
    pub fn text(&self, fingerprint: &str) -> String {
        let names: Vec<&str> = self.names.iter().map(|name| name.as_str()).collect();
        let mut text = format!("{HEAD}{}{MIDDLE}{fingerprint}\n", names.join(", "));
        for finding in self.findings.iter().take(MOST_LINES) {
            text.push_str(&format!("{LEFT_OUT}{finding}\n"));
        }
        if let Some(more) = self.findings.len().checked_sub(MOST_LINES).filter(|more| *more > 0) {
            text.push_str(&format!("{LEFT_OUT}{more} more\n"));
        }
        format!("{text}\n{}", self.config)
    }
}

/// What a text says of the seed it was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The files, as a list for people.
    pub files: String,
    /// The seed's fingerprint.
    pub fingerprint: String,
    /// What was not taken, a line each.
    pub left_out: Vec<String>,
}

impl Origin {
    /// Reads what [`Imported::text`] wrote; `None` of a text that somebody wrote.
    pub fn of(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let (files, fingerprint) = lines.next()?.strip_prefix(HEAD)?.split_once(MIDDLE)?;
        let left_out = lines.map_while(|line| line.strip_prefix(LEFT_OUT)).map(str::to_owned);
        let (files, fingerprint) = (files.to_owned(), fingerprint.to_string());
        Some(Self { files, fingerprint, left_out: left_out.collect() })
    }
}
