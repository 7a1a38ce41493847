//! Where Debian packages come from: the address of a mirror, never written down in this repository.
//!
//! Order: the command line, `IOTA_MIRROR`, the apt sources of this machine (both formats). A mirror
//! is trusted for nothing: Release files are checked against pinned keys, packages against the
//! lock. So taking whatever address the machine uses itself is safe, and a wrong one only fails.

use std::fs;
use std::path::Path;

use crate::debian::deb822;
use crate::error::{Error, Result};

/// The name of the environment variable that names a mirror.
pub const VARIABLE: &str = "IOTA_MIRROR";

/// Base addresses of the Debian archive and of its security archive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mirror {
    archive: String,
    security: Option<String>,
    origin: String,
}

impl Mirror {
    /// Finds the mirror: `flag` (`--mirror`), then `IOTA_MIRROR`, then the host's apt sources.
    ///
    /// Flag and variable hold one address, or two separated by a comma: archive and security.
    pub fn discover(flag: Option<&str>) -> Result<Self> {
        if let Some(text) = flag {
            return Self::parse(text, "--mirror");
        }
        if let Ok(text) = std::env::var(VARIABLE)
            && !text.trim().is_empty()
        {
            return Self::parse(&text, VARIABLE);
        }
        Self::from_apt(Path::new("/etc/apt")).ok_or_else(|| {
            Error::new(
                "no Debian mirror is known: no --mirror, no IOTA_MIRROR, no Debian apt sources",
            )
            .hint("name one that is near you: --mirror http://HOST/debian")
        })
    }

    /// A mirror given as text; `origin` says in messages who gave it.
    pub fn parse(text: &str, origin: &str) -> Result<Self> {
        let (archive, security) = match text.split_once(',') {
            Some((archive, security)) => (archive, Some(checked_base(security, origin)?)),
            None => (text, None),
        };
        Ok(Self::new(checked_base(archive, origin)?, security, origin))
    }

    fn new(archive: String, security: Option<String>, origin: &str) -> Self {
        let security = security.or_else(|| {
            // Mirrors that carry both archives carry them side by side under these names.
            archive.strip_suffix("/debian").map(|host| format!("{host}/debian-security"))
        });
        Self { archive, security, origin: origin.to_owned() }
    }

    /// The full address of `path` in the archive that holds `suite`.
    pub fn url(&self, suite: &str, path: &str) -> Result<String> {
        if !suite.ends_with("-security") {
            return Ok(format!("{}/{path}", self.archive));
        }
        let Some(security) = &self.security else {
            return Err(Error::new(format!(
                "the mirror of {} has no address for the suite {suite}",
                self.origin
            ))
            .hint("give both: --mirror http://HOST/debian,http://HOST/debian-security"));
        };
        Ok(format!("{security}/{path}"))
    }

    /// Who named this mirror: `--mirror`, `IOTA_MIRROR` or a file under /etc/apt.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The mirror that the apt configuration in `directory` uses for Debian itself.
    pub fn from_apt(directory: &Path) -> Option<Self> {
        let mut sources = Vec::new();
        for file in source_files(directory) {
            let Ok(text) = fs::read_to_string(&file) else { continue };
            let origin = file.display().to_string();
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("sources") => read_deb822(&text, &origin, &mut sources),
                _ => read_one_line(&text, &origin, &mut sources),
            }
        }
        let security = best(&sources, Archive::Security).map(|source| source.base.clone());
        let main = best(&sources, Archive::Main)?;
        Some(Self::new(main.base.clone(), security, &main.origin))
    }
}

/// An address without its trailing slash and without user name and password, for messages.
pub fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let host_end = rest.find('/').unwrap_or(rest.len());
    match rest[..host_end].rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => url.to_owned(),
    }
}

fn checked_base(text: &str, origin: &str) -> Result<String> {
    let base = text.trim().trim_end_matches('/');
    if usable(base) {
        return Ok(base.to_owned());
    }
    Err(Error::new(format!("{origin}: `{}` is not the address of a mirror", redacted(base)))
        .hint("an address looks like http://HOST/debian"))
}

fn usable(base: &str) -> bool {
    let host = base.strip_prefix("http://").or_else(|| base.strip_prefix("https://"));
    host.is_some_and(|host| !host.is_empty())
        && !base.contains(|letter: char| letter.is_whitespace() || letter.is_control())
}

/// sources.list first, then sources.list.d by name: the order apt reads them in.
fn source_files(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut files = vec![directory.join("sources.list")];
    if let Ok(entries) = fs::read_dir(directory.join("sources.list.d")) {
        let mut more: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        more.retain(|file| {
            let extension = file.extension().and_then(|extension| extension.to_str());
            matches!(extension, Some("list" | "sources"))
        });
        more.sort();
        files.extend(more);
    }
    files
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Archive {
    Main,
    Security,
}

#[derive(Debug)]
struct Source {
    base: String,
    archive: Archive,
    /// How sure it is that this is Debian's own archive and not one that copies its suite names.
    score: u32,
    origin: String,
}

fn best(sources: &[Source], archive: Archive) -> Option<&Source> {
    // `max_by_key` keeps the last of equals; apt's first is what the machine prefers.
    sources.iter().rev().filter(|source| source.archive == archive).max_by_key(|one| one.score)
}

/// `deb [options] URI suite component…`, one a line.
fn read_one_line(text: &str, origin: &str, sources: &mut Vec<Source>) {
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or("").trim();
        let Some(rest) = line.strip_prefix("deb ").or_else(|| line.strip_prefix("deb\t")) else {
            continue;
        };
        let rest = rest.trim_start();
        let (options, rest) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some(split) => split,
            None => ("", rest),
        };
        let words: Vec<&str> = rest.split_whitespace().collect();
        let [uri, suite, components @ ..] = words.as_slice() else { continue };
        consider(uri, &[*suite], components, options, origin, sources);
    }
}

/// Stanzas with `Types`, `URIs`, `Suites`, `Components`.
fn read_deb822(text: &str, origin: &str, sources: &mut Vec<Source>) {
    // apt ignores comment lines anywhere in a stanza.
    let text: String =
        text.lines().filter(|line| !line.starts_with('#')).flat_map(|line| [line, "\n"]).collect();
    for paragraph in deb822::paragraphs(text.as_bytes()) {
        let Ok(paragraph) = paragraph else { return };
        let words = |name: &str| -> Vec<&str> {
            paragraph.get(name).unwrap_or("").split_whitespace().collect()
        };
        let off =
            words("Enabled").first().is_some_and(|word| matches!(*word, "no" | "false" | "0"));
        if off || !words("Types").contains(&"deb") {
            continue;
        }
        let signed_by = paragraph.get("Signed-By").unwrap_or("");
        for uri in words("URIs") {
            let (suites, components) = (words("Suites"), words("Components"));
            consider(uri, &suites, &components, signed_by, origin, sources);
        }
    }
}

fn consider(
    uri: &str,
    suites: &[&str],
    components: &[&str],
    options: &str,
    origin: &str,
    sources: &mut Vec<Source>,
) {
    let base = uri.trim_end_matches('/');
    if !usable(base) || !components.contains(&"main") {
        return;
    }
    let mut score = 0;
    score += u32::from(options.contains("debian-archive-keyring")) * 4;
    score += u32::from(base.ends_with("/debian") || base.ends_with("/debian-security")) * 2;
    score += u32::from(origin.ends_with("/sources.list") || origin.ends_with("/debian.sources"));
    for suite in suites {
        if let Some(archive) = debian_archive(suite) {
            sources.push(Source {
                base: base.to_owned(),
                archive,
                score,
                origin: origin.to_owned(),
            });
        }
    }
}

/// Which of Debian's archives has a suite of this name; `None` for suites of others.
fn debian_archive(suite: &str) -> Option<Archive> {
    const NAMES: [&str; 12] = [
        "oldoldstable",
        "oldstable",
        "stable",
        "testing",
        "unstable",
        "sid",
        "buster",
        "bullseye",
        "bookworm",
        "trixie",
        "forky",
        "duke",
    ];
    let (name, archive) = match suite.split_once(['-', '/']) {
        Some((name, "security" | "updates" | "updates/")) if suite.contains('/') => {
            (name, Archive::Security)
        }
        Some((name, "security")) => (name, Archive::Security),
        Some((name, "updates" | "backports" | "proposed-updates")) => (name, Archive::Main),
        Some(_) => return None,
        None => (suite, Archive::Main),
    };
    NAMES.contains(&name).then_some(archive)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Option<Mirror> {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("sources.list.d")).unwrap();
        for (name, text) in files {
            fs::write(directory.path().join(name), text).unwrap();
        }
        Mirror::from_apt(directory.path())
    }

    #[test]
    fn both_apt_formats_name_the_two_archives() {
        let one_line = "# deb http://no/debian trixie main\n\
            deb-src http://no/debian trixie main\n\
            deb [arch=amd64 signed-by=/x/y.gpg] http://a.test/debian/ trixie main contrib # main\n\
            deb http://s.test/debian-security trixie-security main\n";
        let deb822 = "Types: deb\n# comment\nURIs: http://a.test/debian\n\
            Suites: trixie trixie-updates\nComponents: main\n\n\
            Types: deb deb-src\nURIs: http://s.test/debian-security/\n\
            Suites: trixie-security\nComponents: main\n";
        for (name, text) in [("sources.list", one_line), ("sources.list.d/debian.sources", deb822)]
        {
            let mirror = found(&[(name, text)]).unwrap();
            assert_eq!(mirror.url("trixie", "x").unwrap(), "http://a.test/debian/x");
            assert_eq!(
                mirror.url("trixie-security", "x").unwrap(),
                "http://s.test/debian-security/x"
            );
            assert!(mirror.origin().ends_with(name));
        }
    }

    #[test]
    fn archives_of_others_are_not_taken_for_debian() {
        let others = [
            "deb http://d.test/linux/debian trixie stable\n",
            "deb http://c.test/apt cloud-sdk-bookworm main\n",
            "deb http://u.test/ubuntu noble main\n",
            "deb cdrom:[Debian]/ trixie main\n",
        ];
        for text in others {
            assert_eq!(found(&[("sources.list", text)]), None, "{text}");
        }
        let mixed = found(&[
            ("sources.list.d/a.list", "deb http://h.test bookworm main"),
            ("sources.list.d/b.list", "deb http://d.test/debian bookworm main"),
        ]);
        assert_eq!(mixed.unwrap().archive, "http://d.test/debian");
    }

    #[test]
    fn disabled_and_broken_stanzas_are_passed_over() {
        let off = "Enabled: no\nTypes: deb\nURIs: http://a.test/debian\nSuites: sid\n\
            Components: main\n";
        assert_eq!(found(&[("sources.list.d/x.sources", off)]), None);
        assert_eq!(found(&[("sources.list.d/x.sources", "no colon here\n")]), None);
        assert_eq!(found(&[]), None);
    }

    #[test]
    fn a_flag_holds_one_address_or_two() {
        let one = Mirror::parse("http://a.test/debian/", "--mirror").unwrap();
        assert_eq!(one.url("trixie-security", "p").unwrap(), "http://a.test/debian-security/p");
        let two = Mirror::parse("http://a.test/d, http://b.test/s", "--mirror").unwrap();
        assert_eq!(two.url("trixie-security", "p").unwrap(), "http://b.test/s/p");
        let lone = Mirror::parse("http://a.test/d", "--mirror").unwrap();
        assert!(lone.url("trixie-security", "p").unwrap_err().next_step().is_some());
    }

    #[test]
    fn what_is_no_address_is_refused_without_showing_a_password() {
        for bad in ["", "a.test/debian", "ftp://a.test/debian", "http://", "http://a b/"] {
            assert!(Mirror::parse(bad, "--mirror").is_err(), "{bad}");
        }
        let error = Mirror::parse("ftp://me:secret@a.test/debian", "--mirror").unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
        assert_eq!(redacted("http://u:p@h/d@e"), "http://h/d@e");
    }
}
