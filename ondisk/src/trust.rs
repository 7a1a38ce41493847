//! What a running system takes for an update: a file in its verified root.
//!
//! ```text
//! iota-trust 2
//! board generic-aarch64
//! profile development
//! iota-trust-root 1
//! number 1
//! …
//! ```
//! The rest is a trust root. The loader has its own copy; this one is as trustworthy as the root
//! file system that it lies in, and changes with it.
use alloc::borrow::ToOwned as _;
use alloc::string::{String, ToString as _};
use core::fmt;

use crate::manifest::Profile;
use crate::trust_root::{self, TrustRoot};

/// Where the file is in the root.
pub const PATH: &str = "/usr/lib/iota/trust";

/// What a bundle has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// Name of the board.
    pub board: String,
    /// Profile of this system; a release takes no development system.
    pub profile: Profile,
    /// Which keys count for what.
    pub root: TrustRoot,
}

impl Trust {
    /// The file's text.
    pub fn encode(&self) -> String {
        let Self { board, profile, root } = self;
        let root = root.encode();
        alloc::format!("iota-trust 2\nboard {board}\nprofile {profile}\n{root}")
    }

    /// Reads the file; only the one form that [`Trust::encode`] gives.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut rest = text;
        let mut value = |name: &'static str| {
            let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
            rest = after;
            line.strip_prefix(name).ok_or(Error::Line(name))
        };
        if value("iota-trust ")? != "2" {
            return Err(Error::Format);
        }
        let board = value("board ")?.to_owned();
        let profile = value("profile ")?;
        let profiles = [Profile::Development, Profile::Release];
        let profile = profiles.into_iter().find(|known| known.to_string() == profile);
        let trust = Self {
            board,
            profile: profile.ok_or(Error::Line("profile "))?,
            root: TrustRoot::decode(rest).map_err(Error::Root)?,
        };
        if trust.encode() == text { Ok(trust) } else { Err(Error::NotCanonical) }
    }
}

/// Why a file does not say what to trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The line that starts so is missing or cannot be read.
    Line(&'static str),
    /// A format this program does not know.
    Format,
    /// The trust root is none.
    Root(trust_root::Error),
    /// Readable, but not the one form of its contents.
    NotCanonical,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(name) => write!(f, "cannot read the line \"{}\"", name.trim_end()),
            Self::Format => f.write_str("unknown format"),
            Self::Root(error) => fmt::Display::fmt(error, f),
            Self::NotCanonical => f.write_str("not in canonical form"),
        }
    }
}

impl core::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust_root::tests::{Secrets, root};

    fn sample() -> Trust {
        let root = root(1, &Secrets::default());
        Trust { board: "generic-aarch64".to_owned(), profile: Profile::Release, root }
    }

    #[test]
    fn the_file_is_a_trust_root_with_board_and_profile_in_front() {
        let text = sample().encode();
        let rest = text.strip_prefix("iota-trust 2\nboard generic-aarch64\nprofile release\n");
        assert_eq!(rest, Some(sample().root.encode().as_str()));
        assert_eq!(Trust::parse(&text), Ok(sample()));
    }

    #[test]
    fn a_file_with_one_thing_changed_is_refused() {
        let check = |from: &str, to: &str, expected: &str| {
            let text = sample().encode();
            assert!(text.contains(from), "{from:?} is not there");
            let error = Trust::parse(&text.replacen(from, to, 1)).expect_err(expected);
            assert_eq!(error.to_string(), expected);
        };
        check("trust 2", "trust 1", "unknown format");
        check("board ", "bard ", "cannot read the line \"board\"");
        check("release", "relaese", "cannot read the line \"profile\"");
        check("number 1", "number one", "cannot read the line \"number\"");
        check("number 1", "number 01", "not in canonical form");
    }
}
