//! From wanted packages to all needed packages. Pure: indices in, pinned packages out.
//!
//! Rules: the newest version among the ordinary suites wins (the first listed suite among equals);
//! a package that names its suite comes from there. Dependencies are followed breadth first. Of
//! alternatives, one that is there already is taken, then one that is excluded, then the first that
//! exists. A virtual package with one provider is that provider; with several, the manifest has to
//! name one. No package is ever "probably fine": a version that does not fit, or a conflict between
//! two chosen packages, is an error that names the chain of who needs what.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::index::{Index, Package};
use super::lock::{Lock, LockedPackage};
use super::manifest::{BASE, Manifest, Wanted};
use super::relation::{Alternative, Relation};
use crate::error::{Error, Result};
use crate::suggest;

/// What a suite offers for one architecture.
pub struct SuitePackages {
    /// The suite's name.
    pub name: String,
    /// It gives only packages that are asked from it by name.
    pub named_only: bool,
    /// One index per component.
    pub indices: Vec<Index>,
}

/// The outcome of [`resolve`].
#[derive(Debug)]
pub struct Resolution {
    /// Everything needed, with groups.
    pub lock: Lock,
    /// Exclusions that nothing depends on (any more).
    pub unused_exclusions: Vec<String>,
}

/// Finds everything that `manifest` needs in `suites`.
pub fn resolve(manifest: &Manifest, suites: &[SuitePackages]) -> Result<Resolution> {
    let universe = Universe { manifest, suites };
    let mut base = Selection::default();
    universe.close(&mut base, BASE)?;
    let mut needed = Needed::default();
    needed.add(&base, BASE)?;
    let groups: BTreeSet<&str> = manifest
        .packages()
        .iter()
        .map(|one| one.group.as_str())
        .filter(|one| *one != BASE)
        .collect();
    for group in groups {
        // Each group stands on the base alone: an image may have any of them.
        let mut selection = base.clone();
        universe.close(&mut selection, group)?;
        needed.add(&selection, group)?;
    }
    let unused = manifest.excluded().iter().filter(|one| !needed.spared.contains(&one.name));
    Ok(Resolution {
        unused_exclusions: unused.map(|one| one.name.clone()).collect(),
        lock: Lock::new(manifest, needed.packages.into_values().collect())?,
    })
}

/// The union of the groups' selections, as it is locked.
#[derive(Default)]
struct Needed {
    packages: BTreeMap<String, LockedPackage>,
    spared: BTreeSet<String>,
}

impl Needed {
    fn add(&mut self, selection: &Selection, group: &str) -> Result<()> {
        self.spared.extend(selection.spared.iter().cloned());
        for (name, chosen) in &selection.chosen {
            let package = &chosen.found.package;
            let Some(locked) = self.packages.get_mut(name) else {
                self.packages.insert(name.clone(), locked(&chosen.found, group));
                continue;
            };
            if locked.sha256 != package.sha256 {
                return Err(Error::new(format!(
                    "group {group} needs {name} {}, another group {}",
                    package.version, locked.version
                )));
            }
            if !locked.groups.iter().any(|one| one == BASE || one == group) {
                locked.groups.push(group.to_owned());
            }
        }
        Ok(())
    }
}

fn locked(found: &Found, group: &str) -> LockedPackage {
    let Package { name, version, architecture, path, size, sha256, .. } = found.package.clone();
    let (suite, groups) = (found.suite.clone(), vec![group.to_owned()]);
    LockedPackage { name, version, architecture, suite, size, sha256, path, groups }
}

/// A package and the suite it was found in.
#[derive(Clone, Debug)]
struct Found {
    package: Package,
    suite: String,
}

#[derive(Clone, Debug)]
struct Chosen {
    found: Found,
    /// Who needs it; `None` if the manifest does.
    needed_by: Option<String>,
}

/// The packages chosen so far for one group.
#[derive(Clone, Default)]
struct Selection {
    chosen: BTreeMap<String, Chosen>,
    /// Excluded packages that something depends on.
    spared: BTreeSet<String>,
}

impl Selection {
    fn satisfies(&self, wanted: &Alternative) -> bool {
        let direct = self.chosen.get(&wanted.name);
        direct.is_some_and(|chosen| wanted.accepts(&chosen.found.package.version))
            || self.chosen.values().any(|chosen| provides(&chosen.found.package, wanted))
    }

    /// `docker.io → containerd → runc`, ending with `name`.
    fn chain(&self, name: &str) -> String {
        let mut names = vec![name];
        let mut current = name;
        while let Some(parent) = self.chosen.get(current).and_then(|one| one.needed_by.as_deref()) {
            names.push(parent);
            current = parent;
        }
        names.reverse();
        names.join(" → ")
    }

    fn check_conflicts(&self) -> Result<()> {
        for (name, chosen) in &self.chosen {
            let conflicts = chosen.found.package.conflicts.iter().flat_map(|one| &one.alternatives);
            for conflict in conflicts {
                let other = self.chosen.iter().find(|(other, chosen)| {
                    let package = &chosen.found.package;
                    let named = *other == &conflict.name && conflict.accepts(&package.version);
                    *other != name && (named || provides(package, conflict))
                });
                if let Some((other, _)) = other {
                    return Err(Error::new(format!(
                        "{} conflicts with {} ({conflict})",
                        self.chain(name),
                        self.chain(other)
                    ))
                    .hint("exclude one of them in packages.toml"));
                }
            }
        }
        Ok(())
    }
}

fn provides(package: &Package, wanted: &Alternative) -> bool {
    let fits = |(name, version): &(String, _)| {
        *name == wanted.name && wanted.accepts_provided(Option::as_ref(version))
    };
    package.provides.iter().any(fits)
}

struct Universe<'a> {
    manifest: &'a Manifest,
    suites: &'a [SuitePackages],
}

impl Universe<'_> {
    /// Adds the wanted packages of `group` and everything they depend on.
    fn close(&self, selection: &mut Selection, group: &str) -> Result<()> {
        let mut queue = VecDeque::new();
        for wanted in self.manifest.packages().iter().filter(|one| one.group == group) {
            if !selection.chosen.contains_key(&wanted.name) {
                let found = self.wanted(wanted)?;
                selection.chosen.insert(wanted.name.clone(), Chosen { found, needed_by: None });
                queue.push_back(wanted.name.clone());
            }
        }
        while let Some(name) = queue.pop_front() {
            let depends = selection.chosen[&name].found.package.depends.clone();
            for relation in &depends {
                if let Some(found) = self.satisfy(selection, &name, relation)? {
                    let dependency = found.package.name.clone();
                    let chosen = Chosen { found, needed_by: Some(name.clone()) };
                    selection.chosen.insert(dependency.clone(), chosen);
                    queue.push_back(dependency);
                }
            }
        }
        selection.check_conflicts()
    }

    fn wanted(&self, wanted: &Wanted) -> Result<Found> {
        let suite = wanted.suite.as_deref();
        if let Some(found) = self.newest(&wanted.name, suite)? {
            return Ok(found);
        }
        let place = suite.map_or("the suites".to_owned(), |suite| format!("the suite {suite}"));
        let error = Error::new(format!("there is no package {} in {place}", wanted.name));
        let names = self.suites.iter().flat_map(|one| &one.indices).flat_map(Index::names);
        Err(match suggest::nearest(&wanted.name, names) {
            Some(near) if near != wanted.name => error.hint(format!("did you mean {near}?")),
            Some(_) => error.hint("it is in another suite; name it: suite = \"…\""),
            None => error,
        })
    }

    /// The package to add for a relation; `None` if nothing has to be added.
    fn satisfy(
        &self,
        selection: &mut Selection,
        name: &str,
        relation: &Relation,
    ) -> Result<Option<Found>> {
        let ours = |one: &&Alternative| one.fits(self.manifest.architecture());
        let alternatives: Vec<&Alternative> = relation.alternatives.iter().filter(ours).collect();
        if alternatives.iter().any(|one| selection.satisfies(one)) {
            return Ok(None);
        }
        if let Some(excluded) = alternatives.iter().find(|one| self.excluded(&one.name)) {
            selection.spared.insert(excluded.name.clone());
            return Ok(None);
        }
        let mut obstacles = Vec::new();
        for alternative in alternatives {
            match self.candidates(selection, alternative)? {
                Candidates::One(found) => return Ok(Some(*found)),
                Candidates::Spared(excluded) => {
                    selection.spared.insert(excluded);
                    return Ok(None);
                }
                Candidates::Unfit(why) => obstacles.push(why),
            }
        }
        let chain = selection.chain(name);
        Err(Error::new(format!("{chain} → {relation}: {}", obstacles.join("; ")))
            .hint("name a package that fits in packages.toml, or exclude what is not needed"))
    }

    fn candidates(&self, selection: &Selection, wanted: &Alternative) -> Result<Candidates> {
        if let Some(chosen) = selection.chosen.get(&wanted.name) {
            let Found { package, suite } = &chosen.found;
            let why = format!("{} {} of {suite} was chosen", wanted.name, package.version);
            return Ok(Candidates::Unfit(why));
        }
        let newest = self.newest(&wanted.name, None)?;
        if let Some(found) = newest.as_ref().filter(|one| wanted.accepts(&one.package.version)) {
            return Ok(Candidates::One(Box::new(found.clone())));
        }
        let mut providers = self.providers(wanted)?;
        if let Some(spared) = providers.keys().find(|name| self.excluded(name)) {
            return Ok(Candidates::Spared(spared.clone()));
        }
        let names: Vec<&str> = providers.keys().map(String::as_str).collect();
        let why = match (names.as_slice(), &newest) {
            ([_], _) => match providers.pop_first() {
                Some((_, found)) => return Ok(Candidates::One(Box::new(found))),
                None => String::new(),
            },
            ([], Some(Found { package, suite })) => {
                format!("the newest {} is {} ({suite})", package.name, package.version)
            }
            ([], None) => format!("there is no package {}", wanted.name),
            (several, _) => format!("{} is provided by {}", wanted.name, several.join(", ")),
        };
        Ok(Candidates::Unfit(why))
    }

    fn excluded(&self, name: &str) -> bool {
        self.manifest.excluded().iter().any(|one| one.name == name)
    }

    /// The suites to look in: the named one, or all ordinary ones.
    fn open(&self, suite: Option<&str>) -> impl Iterator<Item = &SuitePackages> {
        self.suites.iter().filter(move |one| match suite {
            Some(suite) => one.name == suite,
            None => !one.named_only,
        })
    }

    fn newest(&self, name: &str, suite: Option<&str>) -> Result<Option<Found>> {
        let mut newest: Option<Found> = None;
        for suite in self.open(suite) {
            for index in &suite.indices {
                for package in index.find(name)? {
                    let current = newest.as_ref().map(|found| &found.package.version);
                    if current.is_none_or(|current| package.version > *current) {
                        newest = Some(Found { package, suite: suite.name.clone() });
                    }
                }
            }
        }
        Ok(newest)
    }

    /// Packages whose newest version provides what is wanted.
    fn providers(&self, wanted: &Alternative) -> Result<BTreeMap<String, Found>> {
        let mut providers = BTreeMap::new();
        for suite in self.open(None) {
            for index in &suite.indices {
                for package in index.providers(&wanted.name)? {
                    let newest = self.newest(&package.name, None)?;
                    if let Some(found) = newest.filter(|one| provides(&one.package, wanted)) {
                        providers.insert(package.name, found);
                    }
                }
            }
        }
        Ok(providers)
    }
}

enum Candidates {
    One(Box<Found>),
    /// An excluded package would do, so nothing is needed.
    Spared(String),
    /// Nothing fits, and why.
    Unfit(String),
}

#[cfg(test)]
mod tests {
    use super::super::index::tests::paragraph;
    use super::*;

    /// `suite: name version [field: value …]` lines; suites `new` and up are named-only.
    fn suites(packages: &[(&str, &str, &str, &str)]) -> Vec<SuitePackages> {
        let mut texts: BTreeMap<&str, String> = BTreeMap::new();
        for (suite, name, version, fields) in packages {
            *texts.entry(suite).or_default() += &paragraph(name, version, fields);
        }
        let suite = |(name, text): (&str, String)| SuitePackages {
            name: name.to_owned(),
            named_only: name.starts_with("new"),
            indices: vec![Index::new(text.into_bytes()).unwrap()],
        };
        texts.into_iter().map(suite).collect()
    }

    fn manifest(wanted: &str, excluded: &str) -> Manifest {
        let mut text = "architecture = 'arm64'\n".to_owned();
        for (name, named_only) in [("a", false), ("b", false), ("new", true)] {
            text += &format!(
                "[[suite]]\nname = '{name}'\ncomponents = ['main']\nnamed-only = {named_only}\n"
            );
        }
        for word in wanted.split_whitespace() {
            // name@suite%group
            let (word, group) = word.split_once('%').unwrap_or((word, "base"));
            let (name, suite) = word.split_once('@').unwrap_or((word, ""));
            text += &format!("[[package]]\nname = '{name}'\nreason = 'r'\ngroup = '{group}'\n");
            if !suite.is_empty() {
                text += &format!("suite = '{suite}'\n");
            }
        }
        for name in excluded.split_whitespace() {
            text += &format!("[[excluded]]\nname = '{name}'\nreason = 'r'\n");
        }
        Manifest::parse(&text).unwrap()
    }

    /// `name version[@suite][%groups]`, or the error.
    fn check(packages: &[(&str, &str, &str, &str)], wanted: &str, excluded: &str, expected: &str) {
        let outcome = match resolve(&manifest(wanted, excluded), &suites(packages)) {
            Err(error) => format!("error: {}", error.chain()),
            Ok(resolution) => {
                let line = |one: &LockedPackage| {
                    let suite = if one.suite == "a" { "" } else { &format!("@{}", one.suite) };
                    let groups = one.groups.join(",");
                    let groups = if groups == "base" { "" } else { &format!("%{groups}") };
                    format!("{}={}{suite}{groups}", one.name, one.version)
                };
                let lines: Vec<String> = resolution.lock.packages().iter().map(line).collect();
                let unused = resolution.unused_exclusions.join(",");
                let unused = if unused.is_empty() { "" } else { &format!(" unused:{unused}") };
                format!("{}{unused}", lines.join(" "))
            }
        };
        assert_eq!(outcome, expected, "wanted {wanted}, excluded {excluded}");
    }

    #[test]
    fn dependencies_are_followed_to_the_end_and_cycles_end() {
        let world = [
            ("a", "top", "1", "Depends: mid (>= 2), lib\nPre-Depends: pre"),
            ("a", "mid", "2", "Depends: lib:any (>= 1~), top"),
            ("a", "lib", "1", ""),
            ("a", "pre", "1", "Recommends: nothing"),
            ("a", "other", "1", ""),
        ];
        check(&world, "top", "", "lib=1 mid=2 pre=1 top=1");
        check(&world, "lib", "", "lib=1");
    }

    #[test]
    fn the_newest_version_wins_and_a_newer_suite_gives_only_what_is_asked_of_it() {
        let world = [
            ("a", "tool", "1.9", "Depends: lib"),
            ("b", "tool", "1.10", "Depends: lib"),
            ("a", "lib", "1", ""),
            ("b", "lib", "1-0", ""),
            ("new", "tool", "2", "Depends: lib"),
            ("new", "lib", "2", ""),
            ("new", "solo", "1", "Depends: lib (>= 2)"),
        ];
        check(&world, "tool", "", "lib=1 tool=1.10@b");
        check(&world, "tool@new", "", "lib=1 tool=2@new");
        check(&world, "tool@a", "", "lib=1 tool=1.9");
        check(&world, "solo@new lib@new", "", "lib=2@new solo=1@new");
        check(&world, "solo@new", "", "error: solo → lib (>= 2): the newest lib is 1 (a)");
        check(&world, "solo@new lib", "", "error: solo → lib (>= 2): lib 1 of a was chosen");
    }

    #[test]
    fn of_alternatives_the_present_then_the_excluded_then_the_first_is_taken() {
        let world = [
            ("a", "top", "1", "Depends: first | second | third"),
            ("a", "late", "1", "Depends: absent | second"),
            ("a", "first", "1", ""),
            ("a", "second", "1", ""),
            ("a", "arch", "1", "Depends: first:amd64 | second"),
        ];
        check(&world, "top", "", "first=1 top=1");
        check(&world, "top second", "", "second=1 top=1");
        check(&world, "top", "second", "top=1");
        check(&world, "late", "", "late=1 second=1");
        check(&world, "arch", "", "arch=1 second=1");
        check(&world, "late", "first", "late=1 second=1 unused:first");
    }

    #[test]
    fn virtual_packages_need_one_provider_whose_version_fits() {
        let world = [
            ("a", "top", "1", "Depends: virt (>= 2)"),
            ("a", "plain", "1", "Depends: virt"),
            ("a", "one", "1", "Provides: virt (= 2)"),
            ("a", "two", "1", "Provides: virt"),
            ("a", "lone", "1", "Depends: single"),
            ("a", "giver", "1", "Provides: single"),
        ];
        check(&world, "top", "", "one=1 top=1");
        check(&world, "lone", "", "giver=1 lone=1");
        check(&world, "plain", "", "error: plain → virt: virt is provided by one, two");
        check(&world, "plain two", "", "plain=1 two=1");
        check(&world, "plain", "two", "plain=1");
    }

    #[test]
    fn failures_name_the_chain_of_who_needs_what() {
        let world = [
            ("a", "top", "1", "Depends: mid"),
            ("a", "mid", "1", "Depends: deep (= 3)"),
            ("a", "deep", "2", ""),
            ("a", "lost", "1", "Depends: nowhere | neither"),
        ];
        check(&world, "top", "", "error: top → mid → deep (= 3): the newest deep is 2 (a)");
        check(&world, "top", "deep", "mid=1 top=1");
        check(
            &world,
            "lost",
            "",
            "error: lost → nowhere | neither: there is no package nowhere; \
             there is no package neither",
        );
        check(&world, "dep", "", "error: there is no package dep in the suites");
        check(&world, "deep@b", "", "error: there is no package deep in the suite b");
    }

    #[test]
    fn conflicts_between_chosen_packages_are_errors() {
        let world = [
            ("a", "one", "1", "Conflicts: virt\nProvides: virt"),
            ("a", "two", "1", "Provides: virt"),
            ("a", "old", "1", "Breaks: lib (<< 2)"),
            ("a", "lib", "1", ""),
            ("a", "top", "1", "Depends: lib"),
        ];
        check(&world, "one", "", "one=1");
        check(&world, "one two", "", "error: one conflicts with two (virt)");
        check(&world, "old top", "", "error: old conflicts with top → lib (lib (<< 2))");
    }

    #[test]
    fn a_group_stands_on_the_base_and_on_no_other_group() {
        let world = [
            ("a", "base", "1", "Depends: lib"),
            ("a", "lib", "1", ""),
            ("a", "docker", "1", "Depends: lib, runc"),
            ("a", "podman", "1", "Depends: crun | runc, net"),
            ("a", "runc", "1", ""),
            ("a", "crun", "1", ""),
            ("a", "net", "1", ""),
        ];
        check(
            &world,
            "base docker%docker podman%podman net%docker",
            "",
            "base=1 crun=1%podman docker=1%docker lib=1 net=1%docker,podman podman=1%podman \
             runc=1%docker",
        );
    }

    #[test]
    fn a_slip_in_a_name_gets_a_suggestion() {
        let world = [("a", "busybox-static", "1", ""), ("new", "rust-src", "1", "")];
        let hint = |wanted| {
            let error = resolve(&manifest(wanted, ""), &suites(&world)).unwrap_err();
            error.next_step().unwrap_or("").to_owned()
        };
        assert_eq!(hint("busybox-statik"), "did you mean busybox-static?");
        assert_eq!(hint("rust-src"), "it is in another suite; name it: suite = \"…\"");
    }
}
