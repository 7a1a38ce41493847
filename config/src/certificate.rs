//! Certificates of authorities that an owner trusts beside the public ones (`[ca]`).

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::String;
use core::fmt;

use crate::ssh::decode;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// Far above any of them.
const MOST_BYTES: usize = 8 * 1024;

/// A certificate as text (RFC 7468). Holding one proves: one frame, base64 within it, and of that a
/// sequence that ends where its length says. What it says is for whoever uses it to judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate(String);

/// With its frame, in lines of 64 characters, the last one ended.
impl fmt::Display for Certificate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{BEGIN}")?;
        let mut rest = &*self.0;
        while !rest.is_empty() {
            let (line, more) = rest.split_at_checked(64).unwrap_or((rest, ""));
            writeln!(out, "{line}")?;
            rest = more;
        }
        writeln!(out, "{END}")
    }
}

/// Reads one; an error is one clause that shows nothing of it.
pub(crate) fn certificate(text: &str) -> Result<Certificate, String> {
    if text.contains("PRIVATE KEY") {
        return Err("this is a private key, which belongs on no device".to_owned());
    }
    if text.len() > MOST_BYTES {
        return Err(format!("a certificate of {} characters", text.len()));
    }
    let body = text.trim().strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END));
    let body = body.ok_or_else(|| format!("it has to be one certificate, from `{BEGIN}` on"))?;
    let base64: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    match decode(&base64) {
        Some(der) if is_whole(&der) => Ok(Certificate(base64)),
        _ => Err("the certificate is damaged".to_owned()),
    }
}

/// A sequence of DER whose length is that of all (X.690, section 8.1.3).
fn is_whole(der: &[u8]) -> bool {
    match der {
        [0x30, length @ 0..=0x7f, rest @ ..] => usize::from(*length) == rest.len(),
        [0x30, 0x81, length, rest @ ..] => usize::from(*length) == rest.len(),
        [0x30, 0x82, high, low, rest @ ..] => {
            usize::from(u16::from_be_bytes([*high, *low])) == rest.len()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    /// The one of the documentation: made by `openssl req -x509 -newkey ed25519`.
    fn example() -> String {
        let key = crate::keys::KEYS.iter().find(|key| key.path == "ca.certificates").unwrap();
        let (start, end) = (key.example.find(BEGIN).unwrap(), key.example.find(END).unwrap());
        format!("{}{END}\n", &key.example[start..end])
    }

    #[test]
    fn a_certificate_is_read_as_it_is_printed_however_it_was_wrapped() {
        let example = example();
        assert_eq!(certificate(&example).unwrap().to_string(), example);
        let (head, body) = example.split_at(BEGIN.len());
        let other = format!("\n{head}\r\n{}", body.replace('\n', "\r\n  ").trim_end());
        assert_eq!(certificate(&other).unwrap().to_string(), example);
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        let example = example();
        for (text, why) in [
            (String::new(), "it has to be one"),
            (example.replace("BEGIN", "END"), "it has to be one"),
            (format!("{example}{example}"), "damaged"),
            (example.replace("MII", "MI"), "damaged"),
            (format!("{BEGIN}\nAAAA\n{END}"), "damaged"),
            (example.replace("CERTIFICATE", "PRIVATE KEY"), "belongs on no device"),
            ("x".repeat(MOST_BYTES + 1), "characters"),
        ] {
            let error = certificate(&text).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
