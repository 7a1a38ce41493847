//! Wi-Fi networks to join, as an owner describes them.
//!
//! What is accepted here can be written to a file of wpa_supplicant without anything having to be
//! escaped there: see [`Wifi::ssid`] and [`Secret`].

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::String;
use core::fmt;

use crate::secret::{self, Secret};

/// A network to join. Holding one proves: 1 to 32 bytes of name; a password unless the network is
/// open, and none if it is; one of 64 hexadecimal digits only where WPA2 may use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wifi {
    pub(crate) ssid: String,
    pub(crate) password: Option<Secret>,
    pub(crate) security: Option<Security>,
    pub(crate) hidden: bool,
    pub(crate) priority: u32,
}

impl Wifi {
    /// Its name, without control characters.
    pub fn ssid(&self) -> &str {
        &self.ssid
    }

    /// What its members know; none if it is open.
    pub fn password(&self) -> Option<&Secret> {
        self.password.as_ref()
    }

    /// How it is protected; `None` is WPA2 or WPA3, whichever it offers.
    pub fn security(&self) -> Option<Security> {
        self.security
    }

    /// Whether it has to be asked for by its name.
    pub fn hidden(&self) -> bool {
        self.hidden
    }

    /// Of two that are in reach the one with the higher number is joined.
    pub fn priority(&self) -> u32 {
        self.priority
    }
}

/// How a network is protected, where its owner does not leave that to the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// WPA2 alone.
    Wpa2,
    /// WPA3 alone.
    Wpa3,
    /// Not at all.
    Open,
}

impl Security {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Wpa2, "wpa2"), (Self::Wpa3, "wpa3"), (Self::Open, "open")];

    /// The word for it.
    pub fn word(self) -> &'static str {
        Self::ALL.iter().find(|(own, _)| *own == self).map_or("", |(_, word)| word)
    }
}

/// Whether a password of a network is the key itself, not what one is made of.
pub fn is_key(password: &Secret) -> bool {
    password.reveal().len() == 64
}

/// Reads the name of a network; an error is one clause.
pub(crate) fn ssid(text: &str) -> Result<String, String> {
    match text {
        "" => Err("a network without a name".to_owned()),
        _ if text.len() > 32 => Err(format!("{} bytes are too long a name", text.len())),
        _ if text.chars().any(char::is_control) => Err("a control character".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

/// Reads a password: 8 to 63 printable characters of ASCII, or 64 hexadecimal digits, which are the
/// key itself (IEEE 802.11-2020, annex J.4.1). An error is one clause that does not hold it.
pub(crate) fn password(text: &str) -> Result<Secret, String> {
    let secret = secret::read(text)?;
    match text.chars().count() {
        8..=63 => Ok(secret),
        64 if text.bytes().all(|byte| byte.is_ascii_hexdigit()) => Ok(secret),
        64 => Err("64 characters that are not hexadecimal digits".to_owned()),
        count => Err(format!("{count} characters")),
    }
}

/// Reads a word for the protection of a network.
pub(crate) fn security(text: &str) -> Result<Security, String> {
    let found = Security::ALL.iter().find(|(_, word)| *word == text);
    found.map(|(security, _)| *security).ok_or_else(|| format!("`{text}` is no protection"))
}

/// Reads the code of a country (ISO 3166-1 alpha-2).
pub(crate) fn country(text: &str) -> Result<String, String> {
    let good = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_uppercase());
    if good { Ok(text.to_owned()) } else { Err(format!("`{text}` is no code of a country")) }
}

/// Whether password and protection fit; an error is one clause.
pub(crate) fn fits(
    password: Option<&Secret>,
    security: Option<Security>,
) -> Result<(), &'static str> {
    match (password, security) {
        (Some(_), Some(Security::Open)) => Err("an open network has no password"),
        (None, None) => Err("a network without `password` that is not said to be open"),
        (None, Some(Security::Wpa2 | Security::Wpa3)) => Err("a network without `password`"),
        (Some(secret), Some(Security::Wpa3)) if is_key(secret) => {
            Err("WPA3 needs the password itself, not a key of 64 digits made of it")
        }
        _ => Ok(()),
    }
}

/// For lists of values.
impl fmt::Display for Security {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_eight_to_sixty_three_printable_characters_or_a_key() {
        let key = "0123456789abcdefABCDEF0123456789".repeat(2);
        for good in ["12345678", "a \"quoted\" # one\\", &"x".repeat(63), &key] {
            assert_eq!(password(good).unwrap().reveal(), good);
        }
        assert!(is_key(&password(&key).unwrap()));
        let long = "x".repeat(64);
        for (bad, expected) in [
            ("1234567", "7 characters"),
            ("größer als", "a character that is not of printable ASCII"),
            ("line\nbreak", "a character that is not of printable ASCII"),
            (long.as_str(), "64 characters that are not hexadecimal digits"),
            (secret::CONCEALED, "a password that was left out when this was printed"),
        ] {
            assert_eq!(password(bad).unwrap_err(), expected);
        }
    }

    #[test]
    fn a_password_is_in_no_message_about_it() {
        assert_eq!(format!("{:?}", password("correct horse").unwrap()), secret::CONCEALED);
        assert!(!password("horse").unwrap_err().contains("horse"));
    }

    #[test]
    fn protection_and_password_have_to_fit() {
        let secret = password("correct horse").unwrap();
        let key = password(&"0".repeat(64)).unwrap();
        let all = [None, Some(Security::Wpa2), Some(Security::Wpa3), Some(Security::Open)];
        for (secret, good) in [
            (None, [false, false, false, true]),
            (Some(&secret), [true, true, true, false]),
            (Some(&key), [true, true, false, false]),
        ] {
            assert_eq!(all.map(|security| fits(secret, security).is_ok()), good, "{secret:?}");
        }
    }

    #[test]
    fn names_of_networks_are_counted_in_bytes() {
        for good in ["Home", "Büro № 1", " ", &"x".repeat(32)] {
            assert_eq!(ssid(good).unwrap(), good);
        }
        for bad in ["", &"x".repeat(33), &"ü".repeat(17), "a\nb", "\u{7f}"] {
            assert!(ssid(bad).is_err(), "{bad:?}");
        }
        assert!(country("DE").is_ok());
        assert!(["de", "D", "DEU", "D1"].iter().all(|bad| country(bad).is_err()));
    }
}
