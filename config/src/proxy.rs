//! Servers that stand between a device and the rest of the world (`[proxy]`).

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Who is asked in place of the servers themselves. What is not set is not used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxy {
    pub(crate) http: Option<String>,
    pub(crate) https: Option<String>,
    pub(crate) no_proxy: Vec<String>,
}

impl Proxy {
    /// For servers without TLS.
    pub fn http(&self) -> Option<&str> {
        self.http.as_deref()
    }

    /// For servers with TLS.
    pub fn https(&self) -> Option<&str> {
        self.https.as_deref()
    }

    /// Who is asked directly all the same: names, domains, addresses and networks.
    pub fn no_proxy(&self) -> &[String] {
        &self.no_proxy
    }
}

/// Reads `http://proxy.example.org:3128`; an error is one clause that shows no password.
pub(crate) fn address(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let rest = rest.ok_or("it has to start with http:// or https://")?;
    let rest = rest.trim_end_matches('/');
    if rest.contains('@') {
        return Err("a proxy with a name and a password, which is not supported".to_owned());
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    let good = (1..=200).contains(&rest.len()) && rest.bytes().all(plain);
    let port = rest.rsplit_once(':').filter(|_| !rest.ends_with(']')).map(|(_, port)| port);
    let fits = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    match good && fits && !rest.starts_with(':') {
        true => Ok(text.trim_end_matches('/').to_owned()),
        false => Err("no address of a proxy".to_owned()),
    }
}

/// Reads `example.org`, `.example.org`, `10.0.0.0/8` or `192.168.1.1:5000`; an error is one clause.
pub(crate) fn exception(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:/[]".contains(&byte);
    match (1..=200).contains(&text.len()) && text.bytes().all(plain) {
        true => Ok(text.to_owned()),
        false => Err(format!("`{}` is no name, domain, address or network", text.escape_debug())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_an_address_of_a_server_and_nothing_else() {
        for good in ["http://proxy", "https://proxy.example.org:3128", "http://[fd00::1]:3128"] {
            assert_eq!(address(good).as_deref(), Ok(good));
        }
        assert_eq!(address("http://proxy:80/").as_deref(), Ok("http://proxy:80"));
        for (bad, why) in [
            ("proxy:3128", "it has to start with"),
            ("socks5://proxy", "it has to start with"),
            ("http://", "no address"),
            ("http://:80", "no address"),
            ("http://proxy:0", "no address"),
            ("http://proxy:x", "no address"),
            ("http://proxy/path", "no address"),
            ("http://a b", "no address"),
            ("http://anna:secret@proxy", "a name and a password"),
        ] {
            let error = address(bad).unwrap_err();
            assert!(error.contains(why) && !error.contains("secret"), "{bad}: {error}");
        }
    }

    #[test]
    fn exceptions_are_words_that_no_list_is_broken_by() {
        for good in ["example.org", ".example.org", "10.0.0.0/8", "[fd00::1]:80", "localhost"] {
            assert_eq!(exception(good).as_deref(), Ok(good));
        }
        for bad in ["", "a,b", "a b", "*", "a\nb"] {
            assert!(exception(bad).is_err(), "{bad:?}");
        }
    }
}
