//! `packages.toml`: which packages are wanted, from which suites, and which are left out and why.
//!
//! ```toml
//! architecture = "arm64"
//!
//! [[suite]]                       # the newest version among the suites wins
//! name = "trixie"
//! components = ["main"]
//!
//! [[suite]]                       # a newer suite gives only what is asked from it by name
//! name = "trixie-backports"
//! components = ["main"]
//! named-only = true
//!
//! [[package]]
//! name = "docker.io"
//! reason = "the engine"
//! group = "docker"                # optional, `base` if absent
//!
//! [[package]]
//! name = "rust-src"
//! reason = "the standard library of the device programs"
//! suite = "trixie-backports"      # optional
//!
//! [[excluded]]                    # counts as present wherever something depends on it
//! name = "adduser"
//! reason = "users are declared data; no package script runs"
//! ```
//!
//! A group is a set of packages that only some images need (an engine, a board's firmware). The
//! lock holds all groups, resolved together; a build takes `base` and the groups it needs.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::digest::Digest;
use super::relation;
use crate::error::{Context, Error, Result};

/// The group of packages that every image has.
pub const BASE: &str = "base";

/// A checked list of wanted packages: names are valid and unique, suites exist, and nothing is
/// both wanted and excluded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    architecture: String,
    suites: Vec<Suite>,
    packages: Vec<Wanted>,
    excluded: Vec<Excluded>,
}

/// A suite packages come from.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Suite {
    /// Its code name, such as `trixie-security`.
    pub name: String,
    /// Its components, such as `main`.
    pub components: Vec<String>,
    /// Gives only packages whose entry names this suite, never their dependencies.
    #[serde(default)]
    pub named_only: bool,
}

/// A package that is asked for.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// Why it is wanted.
    pub reason: String,
    /// The suite it has to come from; the newest of all if absent.
    pub suite: Option<String>,
    /// The group it belongs to.
    #[serde(default = "base")]
    pub group: String,
}

/// A package that is left out although others depend on it.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Excluded {
    /// Its name.
    pub name: String,
    /// Why nothing is missing without it.
    pub reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawManifest {
    architecture: String,
    suite: Vec<Suite>,
    package: Vec<Wanted>,
    #[serde(default)]
    excluded: Vec<Excluded>,
}

fn base() -> String {
    BASE.to_owned()
}

impl Manifest {
    /// Reads and checks a `packages.toml`.
    pub fn read(path: &Path) -> Result<Self> {
        let text =
            fs::read_to_string(path).context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).context(|| path.display().to_string())
    }

    /// Checks the text of a `packages.toml`.
    pub fn parse(text: &str) -> Result<Self> {
        let raw: RawManifest = toml::from_str(text).map_err(|error| {
            // The crate's own rendering spans several lines; its message is the clause we want.
            let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
            let place = line.map(|line| format!("line {line}: ")).unwrap_or_default();
            Error::new(format!("{place}{}", error.message().replace('\n', ", ")))
        })?;
        let manifest = Self {
            architecture: raw.architecture,
            suites: raw.suite,
            packages: raw.package,
            excluded: raw.excluded,
        };
        manifest.check()?;
        Ok(manifest)
    }

    /// This manifest and more packages, as an engine or a board asks for them.
    pub fn with_group<'a>(
        mut self,
        group: &str,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self> {
        for name in names {
            if self.packages.iter().any(|one| one.name == name && one.group == group) {
                continue;
            }
            self.packages.push(Wanted {
                name: name.to_owned(),
                reason: format!("asked for by {group}"),
                suite: self
                    .packages
                    .iter()
                    .find(|one| one.name == name)
                    .and_then(|p| p.suite.clone()),
                group: group.to_owned(),
            });
        }
        self.check()?;
        Ok(self)
    }

    /// The same manifest for another architecture, as the tools of the host need it.
    #[must_use]
    pub fn for_architecture(mut self, architecture: &str) -> Self {
        self.architecture = architecture.to_owned();
        self
    }

    /// Debian's name of the architecture: `arm64`, `amd64`.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// The suites, preferred ones first among equal versions.
    pub fn suites(&self) -> &[Suite] {
        &self.suites
    }

    /// Everything that is asked for.
    pub fn packages(&self) -> &[Wanted] {
        &self.packages
    }

    /// Everything that is left out.
    pub fn excluded(&self) -> &[Excluded] {
        &self.excluded
    }

    /// A digest of everything that decides what is locked: not of reasons, comments or order.
    pub fn request(&self) -> Digest {
        let mut lines: Vec<String> = Vec::new();
        for (at, suite) in self.suites.iter().enumerate() {
            let components = suite.components.join(",");
            lines.push(format!("suite {at} {} {components} {}", suite.name, suite.named_only));
        }
        for one in &self.packages {
            let suite = one.suite.as_deref().unwrap_or("-");
            lines.push(format!("package {} {suite} {}", one.name, one.group));
        }
        lines.extend(self.excluded.iter().map(|one| format!("excluded {}", one.name)));
        lines.push(format!("architecture {}", self.architecture));
        lines.sort();
        Digest::of(lines.join("\n").as_bytes())
    }

    fn check(&self) -> Result<()> {
        if !word(&self.architecture) {
            return Err(Error::new(format!("`{}` is not an architecture", self.architecture)));
        }
        self.check_suites()?;
        let mut seen = BTreeSet::new();
        for one in &self.packages {
            check_entry("package", &one.name, &one.reason)?;
            if !word(&one.group) {
                return Err(Error::new(format!("`{}` is not a group name", one.group)));
            }
            if !seen.insert((&one.name, &one.group)) {
                return Err(Error::new(format!("the package {} is listed twice", one.name)));
            }
            if let Some(suite) = &one.suite
                && !self.suites.iter().any(|known| known.name == *suite)
            {
                return Err(Error::new(format!(
                    "the package {} comes from the suite {suite}, which is not listed",
                    one.name
                )));
            }
        }
        let mut excluded = BTreeSet::new();
        for one in &self.excluded {
            check_entry("excluded", &one.name, &one.reason)?;
            if !excluded.insert(&one.name) {
                return Err(Error::new(format!("{} is excluded twice", one.name)));
            }
            if self.packages.iter().any(|wanted| wanted.name == one.name) {
                return Err(Error::new(format!("{} is both wanted and excluded", one.name)));
            }
        }
        Ok(())
    }

    fn check_suites(&self) -> Result<()> {
        let mut seen = BTreeSet::new();
        for suite in &self.suites {
            if !word(&suite.name) || suite.components.is_empty() {
                return Err(Error::new(format!(
                    "the suite `{}` needs a plain name and at least one component",
                    suite.name
                )));
            }
            if let Some(bad) = suite.components.iter().find(|component| !word(component)) {
                return Err(Error::new(format!("suite {}: bad component `{bad}`", suite.name)));
            }
            if !seen.insert(&suite.name) {
                return Err(Error::new(format!("the suite {} is listed twice", suite.name)));
            }
        }
        Ok(())
    }
}

fn check_entry(what: &str, name: &str, reason: &str) -> Result<()> {
    if !relation::valid_name(name) {
        return Err(Error::new(format!("{what}: `{name}` is not a package name")));
    }
    if reason.trim().is_empty() {
        return Err(Error::new(format!("{what}: {name} needs a reason")));
    }
    Ok(())
}

/// Names that end up in addresses, paths and columns of the lock.
fn word(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(['.', '-'])
        && text.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.' | b'_')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"architecture = "arm64"
[[suite]]
name = "trixie"
components = ["main"]
[[package]]
name = "docker.io"
reason = "the engine"
[[excluded]]
name = "adduser"
reason = "users are data"
"#;

    #[test]
    fn a_good_manifest_is_read() {
        let manifest = Manifest::parse(GOOD).unwrap();
        assert_eq!(manifest.packages()[0].group, "base");
        assert!(!manifest.suites()[0].named_only);
    }

    #[test]
    fn each_mistake_has_its_own_message() {
        for (from, to, message) in [
            ("components", "component", "line 4: unknown field `component`"),
            ("arm64", "ARM 64", "`ARM 64` is not an architecture"),
            ("docker.io", "Docker", "package: `Docker` is not a package name"),
            ("the engine", " ", "package: docker.io needs a reason"),
            ("adduser", "docker.io", "docker.io is both wanted and excluded"),
            (
                "[\"main\"]",
                "[]",
                "the suite `trixie` needs a plain name and at least one component",
            ),
            ("[\"main\"]", "[\"../x\"]", "suite trixie: bad component `../x`"),
            (
                "[[excluded]]",
                "suite = \"sid\"\n[[excluded]]",
                "the package docker.io comes from the suite sid, which is not listed",
            ),
            (
                "[[excluded]]",
                "[[package]]\nname = \"docker.io\"\nreason = \"x\"\n[[excluded]]",
                "the package docker.io is listed twice",
            ),
        ] {
            let error = Manifest::parse(&GOOD.replacen(from, to, 1)).unwrap_err();
            assert!(error.to_string().starts_with(message), "{error} should be {message}");
        }
    }

    #[test]
    fn the_request_changes_with_what_is_asked_and_not_with_the_reasons() {
        let request = |text: &str| Manifest::parse(text).unwrap().request();
        let first = request(GOOD);
        assert_eq!(request(&GOOD.replace("the engine", "an engine")), first);
        assert_eq!(request(&format!("# comment\n{GOOD}")), first);
        for (from, to) in [("arm64", "amd64"), ("docker.io", "podman"), ("adduser", "perl")] {
            assert_ne!(request(&GOOD.replace(from, to)), first);
        }
        let more = Manifest::parse(GOOD).unwrap().with_group("podman", ["podman"]).unwrap();
        assert_ne!(more.request(), first);
    }
}
