//! Slices: which files of a Debian package ship, which are left out, and why.
//!
//! Data in `rootfs/slices/*.toml`. A file of a package is decided by the first of:
//! the package's `ship` rules, its `drop` and `bundle` rules, the `everywhere` rules. A file that
//! no rule decides stays out and is reported, so that a package update which brings a new program
//! is noticed. A pattern of a package that decides nothing is an error: it is out of date.
//!
//! Patterns are absolute paths: `*` and `?` stay within one part, `**` crosses parts, `{a,b}` are
//! alternatives.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::board::toml_message;
use crate::error::{Context, Error, Result};

/// All slices. Holding one proves: every rule has a pattern and a reason, patterns are absolute
/// and well formed, no two slices have one name.
#[derive(Clone, Debug, Default)]
pub struct Slices {
    packages: Vec<Slice>,
    everywhere: Everywhere,
}

/// The rules of one package.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slice {
    /// Name of the package; may hold `*` where a version is part of the name.
    pub name: String,
    /// What reaches the root.
    #[serde(default)]
    pub ship: Vec<Rule>,
    /// What is left out on purpose.
    #[serde(default)]
    pub drop: Vec<Rule>,
    /// Files that are joined into one.
    #[serde(default)]
    pub bundle: Vec<Bundle>,
    /// Symbolic links that the package's scripts would make.
    #[serde(default)]
    pub link: Vec<Link>,
}

/// Patterns with the reason for what is done to the files they match.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Patterns.
    pub files: Vec<String>,
    /// Why.
    pub reason: String,
    /// The group of packages that needs the files; in an image without it the rule is not there.
    #[serde(default)]
    pub group: Option<String>,
}

/// Files that are joined, in the order of their paths, into one text file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// The file that is made.
    pub into: String,
    /// Patterns of the parts.
    pub files: Vec<String>,
    /// Why.
    pub reason: String,
}

/// A symbolic link that is made.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Where.
    pub path: String,
    /// To what, as the link says it.
    pub target: String,
    /// Why.
    pub reason: String,
    /// As of [`Rule::group`].
    #[serde(default)]
    pub group: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Everywhere {
    #[serde(default)]
    ship: Vec<Rule>,
    #[serde(default)]
    drop: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    package: Vec<Slice>,
    #[serde(default)]
    everywhere: Everywhere,
}

/// What becomes of a file of a package.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// It reaches the root.
    Ship,
    /// It is left out on purpose.
    Drop,
    /// It is a part of the bundle with this index.
    Bundle(usize),
    /// No rule speaks of it.
    Undecided,
}

impl Slices {
    /// Checks the texts of all slice files, given with the names that messages call them by.
    pub fn parse<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Slices> {
        let mut slices = Slices::default();
        let mut names = BTreeSet::new();
        for (name, text) in files {
            let raw: RawFile =
                toml::from_str(text).map_err(|e| Error::new(toml_message(&e))).in_file(name)?;
            for slice in raw.package {
                slice.check().in_file(name)?;
                if !names.insert(slice.name.clone()) {
                    return Err(Error::new(format!("package {} has two slices", slice.name)))
                        .in_file(name);
                }
                slices.packages.push(slice);
            }
            for rule in raw.everywhere.ship.iter().chain(&raw.everywhere.drop) {
                check_rule(&rule.files, &rule.reason).in_file(name)?;
            }
            slices.everywhere.ship.extend(raw.everywhere.ship);
            slices.everywhere.drop.extend(raw.everywhere.drop);
        }
        Ok(slices)
    }

    /// Leaves out the rules that are for groups which an image does not have.
    #[must_use]
    pub fn of_groups(mut self, groups: &[String]) -> Self {
        let has = |group: &Option<String>| group.as_ref().is_none_or(|it| groups.contains(it));
        for slice in &mut self.packages {
            slice.ship.retain(|rule| has(&rule.group));
            slice.drop.retain(|rule| has(&rule.group));
            slice.link.retain(|link| has(&link.group));
        }
        self
    }

    /// Starts deciding the files of a package.
    pub fn decide<'a>(&'a self, package: &'a str) -> Decider<'a> {
        let slice =
            self.packages.iter().find(|slice| matches(slice.name.as_bytes(), package.as_bytes()));
        Decider { package, slice, everywhere: &self.everywhere, used: BTreeSet::new() }
    }
}

trait InFile<T> {
    fn in_file(self, name: &str) -> Result<T>;
}

impl<T> InFile<T> for Result<T> {
    fn in_file(self, name: &str) -> Result<T> {
        self.context(|| name.to_owned())
    }
}

impl Slice {
    fn check(&self) -> Result<()> {
        let bundles = self.bundle.iter().map(|bundle| (&bundle.files, &bundle.reason));
        let rules = self.ship.iter().chain(&self.drop).map(|rule| (&rule.files, &rule.reason));
        for (files, reason) in rules.chain(bundles) {
            check_rule(files, reason).context(|| format!("package {}", self.name))?;
        }
        for link in &self.link {
            if link.reason.trim().is_empty() {
                return Err(Error::new(format!("link {} has no reason", link.path)));
            }
        }
        Ok(())
    }
}

fn check_rule(files: &[String], reason: &str) -> Result<()> {
    let first = files.first().ok_or_else(|| Error::new("a rule has no files"))?;
    if reason.trim().is_empty() {
        return Err(Error::new(format!("the rule for {first} has no reason")));
    }
    for file in files {
        let opening = file.bytes().filter(|byte| *byte == b'{').count();
        let closing = file.bytes().filter(|byte| *byte == b'}').count();
        if !file.starts_with('/') || opening != closing {
            return Err(Error::new(format!("`{file}` is not a pattern"))
                .hint("patterns are absolute paths with *, **, ? and {a,b}"));
        }
    }
    Ok(())
}

/// Decides the files of one package and remembers which patterns were of use.
pub struct Decider<'a> {
    package: &'a str,
    slice: Option<&'a Slice>,
    everywhere: &'a Everywhere,
    used: BTreeSet<&'a str>,
}

impl<'a> Decider<'a> {
    /// The fate of the file at an absolute path.
    pub fn file(&mut self, path: &[u8]) -> Decision {
        let everywhere = self.everywhere;
        if let Some(slice) = self.slice {
            if self.any(&slice.ship, path) {
                return Decision::Ship;
            }
            for (index, bundle) in slice.bundle.iter().enumerate() {
                if self.pattern(&bundle.files, path) {
                    return Decision::Bundle(index);
                }
            }
            if self.any(&slice.drop, path) {
                return Decision::Drop;
            }
        }
        if self.any(&everywhere.ship, path) {
            Decision::Ship
        } else if self.any(&everywhere.drop, path) {
            Decision::Drop
        } else {
            Decision::Undecided
        }
    }

    fn any(&mut self, rules: &'a [Rule], path: &[u8]) -> bool {
        rules.iter().any(|rule| self.pattern(&rule.files, path))
    }

    fn pattern(&mut self, patterns: &'a [String], path: &[u8]) -> bool {
        let found = patterns.iter().find(|pattern| matches(pattern.as_bytes(), path));
        self.used.extend(found.map(String::as_str));
        found.is_some()
    }

    /// Bundles and links of the package.
    pub fn made(&self) -> (&'a [Bundle], &'a [Link]) {
        self.slice.map_or((&[], &[]), |slice| (&slice.bundle, &slice.link))
    }

    /// To be called after the last file: a pattern of the package that decided nothing is an
    /// error.
    pub fn finish(&self) -> Result<()> {
        let Some(slice) = self.slice else { return Ok(()) };
        let rules = slice.ship.iter().chain(&slice.drop).map(|rule| &rule.files);
        let bundles = slice.bundle.iter().map(|bundle| &bundle.files);
        for pattern in rules.chain(bundles).flatten() {
            if !self.used.contains(pattern.as_str()) {
                return Err(Error::new(format!(
                    "rootfs/slices: package {} has nothing left for the pattern {pattern}",
                    self.package
                ))
                .hint(
                    "the package changed, or an earlier pattern takes it all; correct the slice",
                ));
            }
        }
        Ok(())
    }
}

/// True if the whole text matches the pattern.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let Some((first, rest)) = pattern.split_first() else { return text.is_empty() };
    match first {
        b'*' if rest.first() == Some(&b'*') => {
            (0..=text.len()).any(|taken| matches(&rest[1..], &text[taken..]))
        }
        b'*' => {
            let part = text.iter().position(|byte| *byte == b'/').unwrap_or(text.len());
            (0..=part).any(|taken| matches(rest, &text[taken..]))
        }
        b'?' => text.first().is_some_and(|byte| *byte != b'/') && matches(rest, &text[1..]),
        b'{' => {
            let Some(end) = rest.iter().position(|byte| *byte == b'}') else { return false };
            rest[..end]
                .split(|byte| *byte == b',')
                .any(|choice| matches(&[choice, &rest[end + 1..]].concat(), text))
        }
        _ => text.first() == Some(first) && matches(rest, &text[1..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_written() {
        let cases = [
            ("/usr/lib/*.so", "/usr/lib/a.so", true),
            ("/usr/lib/*.so", "/usr/lib/x/a.so", false),
            ("/usr/**", "/usr/lib/x/a.so", true),
            ("/usr/**", "/usrx", false),
            ("/lib{c,m}.so.?", "/libm.so.6", true),
            ("/lib{c,m}.so.?", "/libd.so.6", false),
            ("/{a,b*}/c", "/bee/c", true),
            ("linux-image-*-arm64", "linux-image-6.12.1-arm64", true),
            ("linux-image-*-arm64", "linux-image-arm64", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    const SAMPLE: &str = r#"
        [[everywhere.drop]]
        files = ["/doc/**"]
        reason = "unread"
        [[package]]
        name = "p"
        [[package.ship]]
        files = ["/bin/a"]
        reason = "needed"
        [[package.drop]]
        files = ["/bin/*"]
        reason = "the rest"
    "#;

    fn sample() -> Slices {
        Slices::parse([("sample.toml", SAMPLE)]).unwrap()
    }

    #[test]
    fn the_first_rule_decides_and_what_no_rule_names_is_undecided() {
        let slices = sample();
        let mut decider = slices.decide("p");
        assert_eq!(decider.file(b"/bin/a"), Decision::Ship);
        assert_eq!(decider.file(b"/bin/b"), Decision::Drop);
        assert_eq!(decider.file(b"/doc/p/readme"), Decision::Drop);
        assert_eq!(decider.file(b"/lib/new"), Decision::Undecided);
        decider.finish().unwrap();
    }

    #[test]
    fn a_rule_for_a_group_is_there_in_images_that_have_the_group() {
        let text = "[[package]]\nname = \"p\"\n\
            [[package.ship]]\nfiles = [\"/lib/a\"]\ngroup = \"wifi\"\nreason = \"needed\"\n\
            [[package.drop]]\nfiles = [\"/lib/{a,b}\"]\nreason = \"not needed\"\n\
            [[package.link]]\npath = \"/c\"\ntarget = \"lib/a\"\n\
            group = \"wifi\"\nreason = \"a name\"\n";
        for (groups, expected) in [(&["wifi"][..], Decision::Ship), (&[], Decision::Drop)] {
            let groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
            let slices = Slices::parse([("sample.toml", text)]).unwrap().of_groups(&groups);
            assert_eq!(slices.packages[0].link.len(), groups.len());
            let mut decider = slices.decide("p");
            assert_eq!(decider.file(b"/lib/a"), expected);
            assert_eq!(decider.file(b"/lib/b"), Decision::Drop);
            decider.finish().unwrap();
        }
    }

    #[test]
    fn a_pattern_that_decides_nothing_is_an_error_that_names_package_and_pattern() {
        let slices = sample();
        let mut decider = slices.decide("p");
        decider.file(b"/bin/a");
        assert_eq!(
            decider.finish().unwrap_err().to_string(),
            "rootfs/slices: package p has nothing left for the pattern /bin/*"
        );
    }

    #[test]
    fn one_wrong_value_gives_one_exact_error() {
        let cases = [
            ("reason = \"needed\"", "reason = \" \"", "the rule for /bin/a has no reason"),
            ("\"/bin/a\"", "", "a rule has no files"),
            ("\"/bin/a\"", "\"bin/a\"", "`bin/a` is not a pattern"),
            ("[[package.drop]]", "[[package.dorp]]", "unknown field `dorp`"),
            ("name = \"p\"", "name = \"p\"\n[[package]]\nname = \"p\"", "package p has two slices"),
        ];
        for (old, new, expected) in cases {
            let text = SAMPLE.replacen(old, new, 1);
            let error = Slices::parse([("sample.toml", text.as_str())]).unwrap_err().chain();
            assert!(error.starts_with("sample.toml: ") && error.contains(expected), "{error}");
        }
    }
}
