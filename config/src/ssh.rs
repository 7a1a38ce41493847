//! Public keys of people who may log in, as OpenSSH writes them into a `.pub` file.

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// Kinds that the device's server accepts. Those of DSA are left out: they can be forged.
const KINDS: [&str; 7] = [
    "ssh-ed25519",
    "sk-ssh-ed25519@openssh.com",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-rsa",
];

/// The longest one: RSA of 16384 bits has 2780 characters.
const MOST_BYTES: usize = 4096;

/// A public key: kind, key and comment. Holding one proves that it is one line of a file of
/// authorized keys (sshd(8)) without options, and that kind and key belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    kind: &'static str,
    base64: String,
    comment: String,
}

impl PublicKey {
    /// The comment: nearly always whose key it is, and on which computer.
    pub fn comment(&self) -> &str {
        &self.comment
    }

    /// The same key, whatever its comment.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.base64 == other.base64
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.kind, self.base64)?;
        if self.comment.is_empty() { Ok(()) } else { write!(out, " {}", self.comment) }
    }
}

/// Reads a line of a `.pub` file; an error is one clause.
pub(crate) fn public_key(text: &str) -> Result<PublicKey, String> {
    if text.contains("PRIVATE KEY") {
        return Err("this is a private key, which belongs on no device".to_owned());
    }
    let mut words = text.split(' ').filter(|word| !word.is_empty());
    let (word, base64) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let comment = words.collect::<Vec<_>>().join(" ");
    let Some(kind) = KINDS.into_iter().find(|kind| *kind == word) else {
        let shown: String = word.chars().take(40).collect();
        return Err(format!("`{}` is no kind of key that is accepted", shown.escape_debug()));
    };
    if text.len() > MOST_BYTES {
        return Err(format!("a key of {} characters", text.len()));
    }
    // What a quoted string would have to escape makes no line of a file of keys.
    if comment.chars().any(|c| c.is_control() || c == '"' || c == '\\') {
        return Err("a comment with a character that does not belong there".to_owned());
    }
    let key = decode(base64).ok_or("the key itself is damaged: it is not base64")?;
    match named_kind(&key) {
        Some(inner) if inner == kind.as_bytes() => {
            Ok(PublicKey { kind, base64: base64.to_owned(), comment })
        }
        _ => Err("the key itself is damaged: it is not of the kind that is named".to_owned()),
    }
}

/// The kind within a key, which begins with it: length, big endian, and bytes (RFC 4253, 6.6).
fn named_kind(key: &[u8]) -> Option<&[u8]> {
    let (length, rest) = key.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (kind, values) = rest.split_at_checked(length)?;
    // Every value has a length of its own; a copy that lost its end ends within one.
    let mut values = values;
    while !values.is_empty() {
        let (length, rest) = values.split_first_chunk::<4>()?;
        values = rest.get(usize::try_from(u32::from_be_bytes(*length)).ok()?..)?;
    }
    Some(kind)
}

/// Base64 with padding (RFC 4648, section 4).
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    if digits.is_empty() || !text.len().is_multiple_of(4) || text.len().abs_diff(digits.len()) > 2 {
        return None;
    }
    let mut bytes = Vec::new();
    for quad in digits.as_bytes().chunks(4) {
        let mut bits = 0_u32;
        for position in 0..4 {
            let value = quad.get(position).map_or(Some(0), |digit| digit_value(*digit))?;
            bits = (bits << 6) | u32::from(value);
        }
        let [_, all @ ..] = bits.to_be_bytes();
        bytes.extend(all.iter().take(quad.len().saturating_sub(1)));
    }
    Some(bytes)
}

fn digit_value(digit: u8) -> Option<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    DIGITS.iter().position(|known| *known == digit).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    /// Made by `ssh-keygen -t ed25519` for this test; the other half was thrown away.
    const KEY: &str = "ssh-ed25519 \
        AAAAC3NzaC1lZDI1NTE5AAAAIAkFG14uhMzsA/P6XR4xFVZ7v5HlZmbImE7M3BxGSxtE anna@mill";

    #[test]
    fn a_key_is_read_as_it_is_printed() {
        let key = public_key(KEY).unwrap();
        assert_eq!(key.to_string(), KEY);
        assert_eq!(key.comment(), "anna@mill");
        let bare = KEY.trim_end_matches(" anna@mill");
        assert_eq!(public_key(bare).unwrap().to_string(), bare);
        assert!(public_key(bare).unwrap().is_same(&key));
    }

    #[test]
    fn what_is_no_key_is_refused_and_says_why() {
        let damaged = "the key itself is damaged";
        for (text, why) in [
            ("".to_owned(), "`` is no kind"),
            ("ssh-dss AAAA".to_owned(), "`ssh-dss` is no kind"),
            (format!("command=\"x\" {KEY}"), "is no kind of key"),
            ("-----BEGIN OPENSSH PRIVATE KEY-----".to_owned(), "belongs on no device"),
            ("ssh-ed25519".to_owned(), damaged),
            (KEY.replace("Nz", "N."), damaged),
            (KEY.replace("ssh-ed25519 ", "ssh-rsa "), damaged),
            (KEY.replace("SxtE", ""), damaged),
            (format!("{KEY}\nssh-rsa AAAA"), "a comment with a character"),
            (format!("{KEY} {}", "x".repeat(MOST_BYTES)), "a key of"),
        ] {
            let error = public_key(&text).unwrap_err();
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }
}
