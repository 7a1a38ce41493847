//! Relations between packages (Debian Policy 7.1): `a (>= 1), b:any | c`.

use std::fmt;

use super::version::Version;
use crate::error::{Error, Result};

/// How a version has to compare.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operator {
    /// `<<`
    Earlier,
    /// `<=`
    EarlierOrEqual,
    /// `=`
    Equal,
    /// `>=`
    LaterOrEqual,
    /// `>>`
    Later,
}

impl Operator {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "<<" => Self::Earlier,
            // Policy keeps the single `<` and `>` of old times as "or equal".
            "<=" | "<" => Self::EarlierOrEqual,
            "=" => Self::Equal,
            ">=" | ">" => Self::LaterOrEqual,
            ">>" => Self::Later,
            _ => return None,
        })
    }

    fn accepts(self, have: &Version, want: &Version) -> bool {
        match self {
            Self::Earlier => have < want,
            Self::EarlierOrEqual => have <= want,
            Self::Equal => have == want,
            Self::LaterOrEqual => have >= want,
            Self::Later => have > want,
        }
    }

    fn symbol(self) -> &'static str {
        match self {
            Self::Earlier => "<<",
            Self::EarlierOrEqual => "<=",
            Self::Equal => "=",
            Self::LaterOrEqual => ">=",
            Self::Later => ">>",
        }
    }
}

/// One package name with what is asked of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Alternative {
    /// Name of a real or virtual package.
    pub name: String,
    /// The architecture after the colon: `any`, `native` or a real one.
    pub architecture: Option<String>,
    /// The version it has to have.
    pub version: Option<(Operator, Version)>,
}

impl Alternative {
    /// True if `version` is good enough.
    pub fn accepts(&self, version: &Version) -> bool {
        self.version.as_ref().is_none_or(|(operator, want)| operator.accepts(version, want))
    }

    /// True if a provider of `provided` (`None`: provided without version) is good enough: policy
    /// 7.5 lets an unversioned provision satisfy only an unversioned relation.
    pub fn accepts_provided(&self, provided: Option<&Version>) -> bool {
        match (&self.version, provided) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some((operator, want)), Some(have)) => operator.accepts(have, want),
        }
    }

    /// True if a package of `architecture` can be meant at all.
    pub fn fits(&self, architecture: &str) -> bool {
        matches!(self.architecture.as_deref(), None | Some("any" | "native"))
            || self.architecture.as_deref() == Some(architecture)
    }

    fn parse(text: &str) -> Option<Self> {
        let (target, constraint) = match text.split_once('(') {
            Some((target, rest)) => (target.trim(), Some(rest.strip_suffix(')')?.trim())),
            None => (text, None),
        };
        let (name, architecture) = match target.split_once(':') {
            Some((name, architecture)) => (name, Some(architecture.to_owned())),
            None => (target, None),
        };
        if !valid_name(name) {
            return None;
        }
        let version = match constraint {
            Some(constraint) => {
                let end = constraint.find(|letter| !matches!(letter, '<' | '=' | '>'))?;
                let operator = Operator::parse(&constraint[..end])?;
                Some((operator, Version::new(constraint[end..].trim()).ok()?))
            }
            None => None,
        };
        Some(Self { name: name.to_owned(), architecture, version })
    }
}

impl fmt::Display for Alternative {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name)?;
        if let Some(architecture) = &self.architecture {
            write!(formatter, ":{architecture}")?;
        }
        if let Some((operator, version)) = &self.version {
            write!(formatter, " ({} {version})", operator.symbol())?;
        }
        Ok(())
    }
}

/// One relation: any of the alternatives will do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Relation {
    /// At least one, in the maintainer's order of preference.
    pub alternatives: Vec<Alternative>,
}

impl fmt::Display for Relation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, alternative) in self.alternatives.iter().enumerate() {
            let separator = if at == 0 { "" } else { " | " };
            write!(formatter, "{separator}{alternative}")?;
        }
        Ok(())
    }
}

/// Parses the value of `Depends`, `Provides` and their like.
pub fn parse(value: &str) -> Result<Vec<Relation>> {
    let mut relations = Vec::new();
    for text in value.split(',').map(str::trim).filter(|text| !text.is_empty()) {
        let alternatives: Option<Vec<Alternative>> =
            text.split('|').map(|one| Alternative::parse(one.trim())).collect();
        let Some(alternatives) = alternatives else {
            return Err(Error::new(format!("bad package relation `{}`", text.escape_debug())));
        };
        relations.push(Relation { alternatives });
    }
    Ok(relations)
}

/// Package names (policy 5.6.7): lower case letters, digits, `+`, `-`, `.`; two letters at least.
pub fn valid_name(name: &str) -> bool {
    name.len() >= 2
        && name.as_bytes()[0].is_ascii_alphanumeric()
        && name.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relations_are_read_and_written_alike() {
        for (text, written) in [
            ("libc6 (>= 2.38)", "libc6 (>= 2.38)"),
            ("aa|bb(=1:2-3) | cc:any (<<2~)", "aa | bb (= 1:2-3) | cc:any (<< 2~)"),
            ("perl:any, libx", "perl:any, libx"),
            ("xx (> 1), yy (< 2)", "xx (>= 1), yy (<= 2)"),
            ("", ""),
            ("foo,\n bar ,", "foo, bar"),
        ] {
            let again: Vec<String> = parse(text).unwrap().iter().map(Relation::to_string).collect();
            assert_eq!(again.join(", "), written);
        }
    }

    #[test]
    fn bad_relations_are_refused() {
        for bad in [
            "aa (",
            "aa (1)",
            "aa (=> 1)",
            "aa (>= )",
            "aa (>= 1",
            "Aa",
            "a",
            "aa bb",
            "aa | | bb",
            "aa (>= 1) x",
            "${misc:Depends}",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_unversioned_provision_satisfies_only_an_unversioned_relation() {
        let plain = Alternative::parse("aa").unwrap();
        let versioned = Alternative::parse("aa (>= 2)").unwrap();
        let (one, two) = (Version::new("1").unwrap(), Version::new("2").unwrap());
        assert!(plain.accepts_provided(None) && plain.accepts_provided(Some(&one)));
        assert!(!versioned.accepts_provided(None) && !versioned.accepts_provided(Some(&one)));
        assert!(versioned.accepts_provided(Some(&two)));
    }
}
