//! A name and a password for the server of updates, as HTTP's basic authentication has them
//! (RFC 7617).

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::String;

use crate::secret::{self, Secret};

const MOST_USER_BYTES: usize = 255;
/// Some registries take a whole document as the password, in base64.
const MOST_PASSWORD_BYTES: usize = 4096;

/// Reads a name; an error is one clause.
pub(crate) fn user(text: &str) -> Result<String, String> {
    match () {
        () if text.contains(':') => Err("a name with a colon".to_owned()),
        () if !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) => {
            Err("a character that is not of printable ASCII".to_owned())
        }
        () if !(1..=MOST_USER_BYTES).contains(&text.len()) => {
            Err(format!("{} characters", text.len()))
        }
        () => Ok(text.to_owned()),
    }
}

/// Reads a password; an error is one clause that does not hold it.
pub(crate) fn password(text: &str) -> Result<Secret, String> {
    let secret = secret::read(text)?;
    match (1..=MOST_PASSWORD_BYTES).contains(&text.len()) {
        true => Ok(secret),
        false => Err(format!("{} characters", text.len())),
    }
}

/// The value of the header `Authorization`.
pub(crate) fn basic(user: &str, password: &str) -> Secret {
    Secret::new(format!("Basic {}", base64(format!("{user}:{password}").as_bytes())))
}

/// Base64 with padding (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let byte = |at: usize| group.get(at).copied().map_or(0, u32::from);
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for (place, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            let digit = DIGITS.get((bits >> shift & 63) as usize).copied().unwrap_or_default();
            text.push(if place > group.len() { '=' } else { char::from(digit) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_specification() {
        for (plain, expected) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), expected);
        }
        // The example of RFC 7617, section 2.
        let shown = basic("Aladdin", "open sesame");
        assert_eq!(shown.reveal(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert!(!format!("{shown:?}").contains("QWx"));
    }

    #[test]
    fn a_name_has_no_colon_and_neither_is_empty_or_endless() {
        assert!(user("AWS").is_ok() && user("fleet@example.org").is_ok());
        for bad in ["", "a:b", "gr\u{fc}n", "a\nb", &"x".repeat(256)] {
            assert!(user(bad).is_err(), "{bad:?}");
        }
        assert!(password("x").is_ok() && password(&"x".repeat(4096)).is_ok());
        for bad in ["", "a\nb", secret::CONCEALED, &"x".repeat(4097)] {
            assert!(password(bad).is_err(), "{bad:?}");
        }
    }
}
