//! Which configuration holds: from what was found on the boot partition, and what was kept.
//!
//! Pure. An owner who removes the file wants the defaults; a file that cannot be read or is wrong
//! is nobody's wish, and what held before goes on.

use std::fmt;

use config::{Config, FILE_NAME};

/// What the boot partition has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A good file, and its bytes.
    Good(Config, Vec<u8>),
    /// A file with a mistake: the first, as one clause.
    Bad(String),
    /// No file.
    Missing,
    /// Nobody knows, for this reason.
    Unreadable(String),
}

/// What the data partition has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// A good copy.
    Good(Config),
    /// None was ever kept.
    Missing,
    /// One that cannot be used, for this reason.
    Unusable(String),
}

/// Where the configuration that holds comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The owner's file.
    File,
    /// The copy of the last good one.
    LastGood,
    /// The image alone.
    Defaults,
}

impl Source {
    const ALL: [(Self, &'static str); 3] =
        [(Self::File, "file"), (Self::LastGood, "last-good"), (Self::Defaults, "defaults")];

    /// The word for it.
    pub fn word(self) -> &'static str {
        Self::ALL.iter().find(|(source, _)| *source == self).map_or("", |(_, word)| word)
    }

    /// Reads what [`Source::word`] writes.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == word).map(|(source, _)| *source)
    }
}

/// For people.
impl fmt::Display for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => out.write_str(FILE_NAME),
            Self::LastGood => write!(out, "copy of the last good {FILE_NAME}"),
            Self::Defaults => out.write_str("defaults"),
        }
    }
}

/// What becomes of the copy on the data partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// It becomes this.
    Keep(Vec<u8>),
    /// It is removed.
    Forget,
    /// It stays as it is.
    Nothing,
}

/// What holds from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The configuration.
    pub config: Config,
    /// Where it comes from.
    pub source: Source,
    /// Why it is not what the owner may have meant.
    pub problem: Option<String>,
    /// What is stored.
    pub store: Store,
}

/// Decides; what was kept is asked for only if it matters.
pub fn decide(found: Found, kept: impl FnOnce() -> Kept) -> Decision {
    let problem = match found {
        Found::Good(config, bytes) => {
            let (source, store) = (Source::File, Store::Keep(bytes));
            return Decision { config, source, problem: None, store };
        }
        Found::Missing => {
            let (config, source) = (Config::default(), Source::Defaults);
            return Decision { config, source, problem: None, store: Store::Forget };
        }
        Found::Bad(why) => format!("{FILE_NAME}: {why}"),
        Found::Unreadable(why) => format!("{FILE_NAME} cannot be read: {why}"),
    };
    let (config, source, problem) = match kept() {
        Kept::Good(config) => (config, Source::LastGood, problem),
        Kept::Missing => (Config::default(), Source::Defaults, problem),
        Kept::Unusable(why) => {
            let problem = format!("{problem}; the copy of the last good one: {why}");
            (Config::default(), Source::Defaults, problem)
        }
    };
    Decision { config, source, problem: Some(problem), store: Store::Nothing }
}

impl Decision {
    /// What the console says.
    pub fn line(&self) -> String {
        let source = self.source;
        match &self.problem {
            Some(problem) => format!("config: ERROR: {problem}; in force: {source}"),
            None => format!("config: {source}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Config {
        Config::parse(format!("hostname = \"{name}\"\n").as_bytes()).unwrap()
    }

    const BAD: &str = "line 1, column 1: no";

    /// Source, host name, store, and the line on the console.
    fn check(found: &Found, kept: &Kept, expected: (Source, &str, Store, &str)) {
        let Decision { config, source, problem, store } = decide(found.clone(), || kept.clone());
        let line = decide(found.clone(), || kept.clone()).line();
        let name = config.hostname().unwrap_or("-").to_owned();
        let (found_source, found_store) = (source, store);
        assert_eq!((found_source, &*name, found_store, &*line), expected, "{found:?} {kept:?}");
        assert_eq!(problem.is_some(), line.contains("ERROR"));
    }

    #[test]
    fn what_is_found_and_what_was_kept_decide_together() {
        use Source::{Defaults, File, LastGood};
        let good = || Kept::Good(named("old"));
        let broken = || Kept::Unusable("I/O error".to_owned());
        let file = || Found::Good(named("new"), b"new".to_vec());
        let bad = || Found::Bad(BAD.to_owned());
        let dead = || Found::Unreadable("no answer".to_owned());
        let keep = || Store::Keep(b"new".to_vec());
        let last = "copy of the last good iota.toml";
        let bad_line = format!("config: ERROR: iota.toml: {BAD}");
        let dead_line = "config: ERROR: iota.toml cannot be read: no answer".to_owned();
        let also = "the copy of the last good one: I/O error";
        for kept in [good(), Kept::Missing, broken()] {
            check(&file(), &kept, (File, "new", keep(), "config: iota.toml"));
            check(&Found::Missing, &kept, (Defaults, "-", Store::Forget, "config: defaults"));
        }
        for (found, line) in [(bad(), bad_line), (dead(), dead_line)] {
            for (kept, source, name, rest) in [
                (good(), LastGood, "old", format!("in force: {last}")),
                (Kept::Missing, Defaults, "-", "in force: defaults".to_owned()),
                (broken(), Defaults, "-", format!("{also}; in force: defaults")),
            ] {
                let line = format!("{line}; {rest}");
                check(&found, &kept, (source, name, Store::Nothing, &line));
            }
        }
    }

    #[test]
    fn what_was_kept_is_not_read_when_it_cannot_matter() {
        let found = Found::Good(Config::default(), Vec::new());
        for found in [found, Found::Missing] {
            decide(found, || panic!("it was read"));
        }
    }

    #[test]
    fn the_words_for_sources_are_read_back() {
        for source in [Source::File, Source::LastGood, Source::Defaults] {
            assert_eq!(Source::from_word(source.word()), Some(source));
        }
        assert_eq!(Source::from_word("elsewhere"), None);
    }
}
