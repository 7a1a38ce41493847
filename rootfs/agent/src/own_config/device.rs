//! What was changed on the device itself, and which file of the boot partition that was based on.
//!
//! One file on the data partition, the text behind one line that is a comment of it:
//!
//! ```text
//! # iota config: changed on this device; the boot partition had sha256 0123…
//! hostname = "kiosk-7"
//! ```
//!
//! As long as the boot partition has the file it had then, the change is the owner's later word.
//! A file that is another one was put there later, by a laptop, and holds.

use std::fmt;

use config::Config;
use config::import::Origin;
use ondisk::digest::Digest;

/// What the boot partition had when something was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// A file with this hash.
    File(Digest),
    /// No file.
    NoFile,
    /// Nobody knows: it could not be read.
    Unknown,
}

impl Base {
    /// Of these bytes. A text that was made of other files stands for those: another system may
    /// make another text of the same, and nobody has changed anything then.
    pub fn of(bytes: &[u8]) -> Self {
        let origin = std::str::from_utf8(bytes).ok().and_then(Origin::of);
        let seed = origin.and_then(|origin| Digest::from_hex(&origin.fingerprint));
        Self::File(seed.unwrap_or_else(|| Digest::of(bytes)))
    }

    /// Reads what is printed.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "no file" => Some(Self::NoFile),
            "nothing readable" => Some(Self::Unknown),
            other => Digest::from_hex(other.strip_prefix("sha256 ")?).map(Self::File),
        }
    }
}

impl fmt::Display for Base {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(digest) => write!(out, "sha256 {digest}"),
            Self::NoFile => out.write_str("no file"),
            Self::Unknown => out.write_str("nothing readable"),
        }
    }
}

/// What the data partition has of it.
#[allow(clippy::large_enum_variant)] // one of them is made at a start
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// A good text.
    Good(Config, String, Base),
    /// Nothing was changed.
    Missing,
    /// One that cannot be used, for this reason; what it was based on, if that can be read.
    Unusable(Option<Base>, String),
}

/// How the first line begins.
const HEAD: &str = "# iota config: changed on this device; the boot partition had ";

/// Bytes that the first line has at most.
pub const HEAD_BYTES: usize = 256;

/// The file of a text.
pub fn encode(text: &str, base: Base) -> Vec<u8> {
    format!("{HEAD}{base}\n{text}").into_bytes()
}

impl Device {
    /// Reads what [`encode`] made.
    pub fn decode(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let parts = text.split_once('\n').and_then(|(head, text)| {
            let base = Base::parse(head.strip_prefix(HEAD)?)?;
            Some((base, text))
        });
        let Some((base, text)) = parts else {
            return Self::Unusable(None, "its first line is damaged".to_owned());
        };
        match Config::parse(text.as_bytes()) {
            Ok(config) => Self::Good(config, text.to_owned(), base),
            Err(problems) => Self::Unusable(Some(base), problems.to_string()),
        }
    }

    /// What it was based on.
    pub fn base(&self) -> Option<Base> {
        match self {
            Self::Good(_, _, base) => Some(*base),
            Self::Unusable(base, _) => *base,
            Self::Missing => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_back_with_its_base() {
        let text = "# Mine.\nhostname = \"a\"\n";
        let config = Config::parse(text.as_bytes()).unwrap();
        for base in [Base::of(b"x"), Base::NoFile, Base::Unknown] {
            let bytes = encode(text, base);
            let found = Device::decode(&bytes);
            assert_eq!(found, Device::Good(config.clone(), text.to_owned(), base));
            assert!(bytes.len() < text.len() + HEAD_BYTES);
        }
    }

    #[test]
    fn what_is_damaged_or_too_new_says_so_and_keeps_its_base_if_it_can() {
        let too_new = encode("new-key = 1\n", Base::NoFile);
        let Device::Unusable(Some(Base::NoFile), why) = Device::decode(&too_new) else {
            panic!("{:?}", Device::decode(&too_new));
        };
        assert!(why.contains("`new-key` is not a key"), "{why}");
        for bytes in [&b""[..], b"hostname = \"a\"\n", b"# iota config: \xff\n"] {
            assert!(matches!(Device::decode(bytes), Device::Unusable(None, _)), "{bytes:?}");
        }
    }
}
