//! Addresses of repositories in container registries, and how registries ask for a token. Shared by
//! whoever publishes and whoever fetches.

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::String;

/// The kind of a manifest: OCI image specification, "Image Manifest".
pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// The annotation that names a file: the same, "Pre-Defined Annotation Keys".
pub const TITLE: &str = "org.opencontainers.image.title";

/// A repository: `oci://HOST/NAME`, without TLS `oci+http://HOST/NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// Whether the registry is spoken to over TLS.
    pub tls: bool,
    /// Host, with a port if it is not the usual one.
    pub host: String,
    /// Its name within the registry.
    pub name: String,
}

impl Repository {
    /// Reads an address; none if it is of another kind or not well formed.
    pub fn parse(text: &str) -> Option<Self> {
        let (tls, rest) = match text.strip_prefix("oci://") {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix("oci+http://")?),
        };
        let (host, name) = rest.trim_end_matches('/').split_once('/')?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
        let is_host = !host.is_empty() && host.bytes().all(plain);
        (is_host && name.split('/').all(is_name_part)).then(|| Self {
            tls,
            host: host.to_owned(),
            name: name.to_owned(),
        })
    }

    /// The web address that paths of the distribution protocol follow.
    pub fn base(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}/v2/{}", self.host, self.name)
    }
}

/// A part of a name as the OCI distribution specification has it, a little stricter.
fn is_name_part(part: &str) -> bool {
    let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
    let bytes = part.as_bytes();
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    bytes.iter().copied().all(plain) && edge(bytes.first()) && edge(bytes.last())
}

/// A parameter of a challenge such as `Bearer realm="https://…",service="…"` (RFC 9110, 11.6.1).
pub fn challenge_parameter<'a>(challenge: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = challenge.split_once(' ')?.1;
    loop {
        let (found, after) = rest.trim_start_matches([' ', ',']).split_once("=\"")?;
        let (value, after) = after.split_once('"')?;
        if found.eq_ignore_ascii_case(name) {
            return Some(value);
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_a_registry_with_or_without_tls() {
        let base = |text| Repository::parse(text).map(|found| found.base());
        assert_eq!(base("oci://a.org/b/c").as_deref(), Some("https://a.org/v2/b/c"));
        assert_eq!(base("oci+http://[::1]:5000/b/").as_deref(), Some("http://[::1]:5000/v2/b"));
        for text in [
            "https://a.org/b",
            "oci://a",
            "oci://a/",
            "oci:///b",
            "oci://a/B",
            "oci://a/b:stable",
            "oci://a/b//c",
            "oci://a/../b",
            "oci://me@a/b",
        ] {
            assert_eq!(base(text), None, "{text}");
        }
    }

    #[test]
    fn a_challenge_is_read_in_any_order() {
        let challenge = "Bearer service=\"a b\", Realm=\"https://a/token\",scope=\"x,y\"";
        assert_eq!(challenge_parameter(challenge, "realm"), Some("https://a/token"));
        assert_eq!(challenge_parameter(challenge, "scope"), Some("x,y"));
        for broken in ["", "Bearer", "Bearer realm", "Bearer realm=\"a", "Basic x=\"y\""] {
            assert_eq!(challenge_parameter(broken, "realm"), None, "{broken}");
        }
    }
}
