//! What an owner may tell the container engine (`[engine]`): where images come from.

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::proxy;

/// Settings that both engines have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Engine {
    pub(crate) mirrors: Vec<String>,
    pub(crate) insecure: Vec<String>,
}

impl Engine {
    /// Addresses that are asked for images of Docker Hub before it, in this order.
    pub fn mirrors(&self) -> &[String] {
        &self.mirrors
    }

    /// Registries that are spoken to without TLS, or with a certificate that nobody vouches for.
    pub fn insecure(&self) -> &[String] {
        &self.insecure
    }
}

/// Reads `https://mirror.example.org`; an error is one clause.
pub(crate) fn mirror(text: &str) -> Result<String, String> {
    proxy::address(text).map_err(|why| match text.contains('@') {
        true => "a mirror with a name and a password, which is not supported".to_owned(),
        false => why.replace("of a proxy", "of a mirror"),
    })
}

/// Reads `registry.lan:5000`; an error is one clause.
pub(crate) fn registry(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:[]".contains(&byte);
    let good = (1..=200).contains(&text.len()) && text.bytes().all(plain);
    match good && text.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '[') {
        true => Ok(text.to_owned()),
        false => Err(format!("`{}` is no name of a registry", text.escape_debug())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_addresses_and_registries_are_names() {
        assert_eq!(mirror("https://m.example.org/").as_deref(), Ok("https://m.example.org"));
        for (bad, why) in [
            ("m.example.org", "it has to start with"),
            ("https://", "no address of a mirror"),
            ("https://a:b@m", "a mirror with a name and a password"),
        ] {
            assert!(mirror(bad).unwrap_err().contains(why), "{bad}");
        }
        for good in ["registry.lan:5000", "10.0.0.5", "[fd00::1]:5000"] {
            assert_eq!(registry(good).as_deref(), Ok(good));
        }
        for bad in ["", "http://registry.lan", "a/b", "a b", "-a", "a\nb"] {
            assert!(registry(bad).is_err(), "{bad:?}");
        }
    }
}
