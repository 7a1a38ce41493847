//! Debian version numbers and their order (Debian Policy 5.6.12).

use std::cmp::Ordering;
use std::fmt;

use crate::error::{Error, Result};

/// A Debian version, `[epoch:]upstream[-revision]`. Compared by policy: `1.0` equals `1.0-0`.
#[derive(Clone, Debug)]
pub struct Version {
    text: Box<str>,
}

impl Version {
    /// Accepts what policy allows; an epoch has to be a number.
    pub fn new(text: &str) -> Result<Self> {
        let (epoch, rest) = text.split_once(':').unwrap_or(("0", text));
        let bytes_good = rest.bytes().all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'+' | b'-' | b'~' | b':')
        });
        let epoch_good = !epoch.is_empty() && epoch.bytes().all(|byte| byte.is_ascii_digit());
        if rest.is_empty() || !bytes_good || !epoch_good {
            return Err(Error::new(format!("`{}` is not a Debian version", text.escape_debug())));
        }
        Ok(Self { text: text.into() })
    }

    /// The version as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Epoch without leading zeros, upstream version, revision.
    fn parts(&self) -> (&str, &str, &str) {
        let (epoch, rest) = self.text.split_once(':').unwrap_or(("", &self.text));
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        (epoch, upstream, revision)
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let (one, two) = (self.parts(), other.parts());
        compare_part(one.0, two.0)
            .then_with(|| compare_part(one.1, two.1))
            .then_with(|| compare_part(one.2, two.2))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// Takes turns: the longest prefix without digits, then the longest prefix of digits as a number.
fn compare_part(one: &str, two: &str) -> Ordering {
    let (mut one, mut two) = (one.as_bytes(), two.as_bytes());
    while !one.is_empty() || !two.is_empty() {
        let (one_text, two_text) = (take(&mut one, false), take(&mut two, false));
        let order = compare_text(one_text, two_text);
        if order != Ordering::Equal {
            return order;
        }
        let order = compare_number(take(&mut one, true), take(&mut two, true));
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

fn take<'a>(text: &mut &'a [u8], digits: bool) -> &'a [u8] {
    let end = text.iter().position(|byte| byte.is_ascii_digit() != digits).unwrap_or(text.len());
    let (taken, rest) = text.split_at(end);
    *text = rest;
    taken
}

/// `~` sorts before the end, the end before letters, letters before everything else.
fn compare_text(one: &[u8], two: &[u8]) -> Ordering {
    let weight = |text: &[u8], at: usize| match text.get(at) {
        Some(b'~') => -1,
        None => 0,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
        Some(byte) => i32::from(*byte) + 256,
    };
    (0..one.len().max(two.len()))
        .map(|at| weight(one, at).cmp(&weight(two, at)))
        .find(|order| *order != Ordering::Equal)
        .unwrap_or(Ordering::Equal)
}

/// Numbers of any length, so that a date stamp of twenty digits cannot overflow.
fn compare_number(one: &[u8], two: &[u8]) -> Ordering {
    let strip = |digits: &'_ [u8]| digits.iter().take_while(|digit| **digit == b'0').count();
    let (one, two) = (&one[strip(one)..], &two[strip(two)..]);
    one.len().cmp(&two.len()).then_with(|| one.cmp(two))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        Version::new(text).unwrap()
    }

    #[test]
    fn versions_are_ordered_as_policy_says() {
        // Each line: strictly older first.
        let table = [
            "1.0~~ 1.0~~a 1.0~ 1.0 1.0a 1.0+ 1.0.1 1.1 1.9 1.10",
            "0.9 1:0.1 2:0 10:0",
            "1.0-1 1.0-1+b1 1.0-1+deb13u1 1.0-1.1 1.0-2 1.0-10 1.0.1-1",
            "1.2~rc1-1 1.2-1",
            "1-1-1 1-2-0",
            "20230311 20230311+deb12u1 20250419",
            "6.12.107-1 6.12.116-1~bpo12+1 6.12.116-1",
            "99999999999999999998 99999999999999999999 100000000000000000000",
            "1.0-1 1.0-1b 1.0-1c 1.0-1+ 1.0a 1.0b",
        ];
        for line in table {
            let sorted: Vec<Version> = line.split(' ').map(version).collect();
            for (at, older) in sorted.iter().enumerate() {
                for newer in &sorted[at + 1..] {
                    assert!(older < newer, "{older} < {newer}");
                    assert!(newer > older, "{newer} > {older}");
                }
            }
        }
    }

    #[test]
    fn different_spellings_of_one_version_are_equal() {
        for (one, two) in [
            ("1.0", "1.0-0"),
            ("0:1.0", "1.0"),
            ("00:1.0", "1.0"),
            ("1.01", "1.1"),
            ("1.0-01", "1.0-1"),
            ("1.", "1.0"),
        ] {
            assert_eq!(version(one), version(two), "{one} = {two}");
        }
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for bad in ["", "1:", "a:1", ":1", "1 0", "1_0", "1/0", "1.0\n"] {
            assert!(Version::new(bad).is_err(), "{bad:?}");
        }
    }
}
