//! TLS for servers of updates: whom to trust, and refusals in words that help.
//!
//! What is installed never rests on it: that is signed. It keeps from others what is fetched, and
//! from a network that changes answers the chance to waste time. So it is held to what the owner
//! wrote: an address with `https://` is never followed to one without, whatever the clock says.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use ondisk::calendar::Day;
use rustls::pki_types::UnixTime;
use rustls::{CertificateError, Error as TlsError};
use ureq::Error;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// The authorities that this system knows.
pub const ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Reads a bundle of authorities, all that can be read of it. A missing one has none: who needs it
/// is told so when a server shows what none of them signed.
pub fn authorities(bundle: &Path) -> Vec<Certificate<'static>> {
    let text = fs::read(bundle).unwrap_or_default();
    let certificate = |item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    };
    parse_pem(&text).filter_map(certificate).collect()
}

/// How to speak TLS with servers that these authorities vouch for.
pub fn settings(authorities: Vec<Certificate<'static>>) -> TlsConfig {
    TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(RootCerts::Specific(Arc::new(authorities)))
        .build()
}

/// Why TLS did not come about, if that was it and another try will not help: a clause, and what to
/// do in a second line.
pub fn refusal(error: &Error) -> Option<String> {
    if let Error::RequireHttpsOnly(_) = error {
        return Some(
            "the server sends this device to an address without TLS\n\
             hint: the server has to redirect to https://; or give its http:// address"
                .to_owned(),
        );
    }
    let (why, hint) = match tls_error(error)? {
        TlsError::InvalidCertificate(error) => of_certificate(error),
        TlsError::InvalidMessage(_) => {
            ("what answers does not speak TLS".to_owned(), "is it the right port, or http://?")
        }
        TlsError::AlertReceived(alert) => (
            format!("the server refuses TLS with this device ({alert:?})"),
            "it has to speak TLS 1.2 or 1.3",
        ),
        TlsError::PeerIncompatible(_) => (
            "the server and this device have no way of TLS in common".to_owned(),
            "it has to speak TLS 1.2 or 1.3",
        ),
        _ => return None,
    };
    Some(format!("{why}\nhint: {hint}"))
}

/// The library's own error, however it is wrapped.
fn tls_error(error: &Error) -> Option<&TlsError> {
    match error {
        Error::Rustls(error) => Some(error),
        Error::Io(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    }
}

fn of_certificate(error: &CertificateError) -> (String, &'static str) {
    const CLOCK: &str = "is the clock right? It is set once a server of time answers: `[time]`";
    match error {
        CertificateError::NotValidYetContext { time, not_before } => (
            format!(
                "the server's certificate is not valid yet by this device's clock ({}): \
                 it begins on {}",
                date(time),
                date(not_before)
            ),
            CLOCK,
        ),
        CertificateError::ExpiredContext { time, not_after } => (
            format!(
                "the server's certificate is not valid any more by this device's clock ({}): \
                 it ended on {}",
                date(time),
                date(not_after)
            ),
            "the server needs a new one, unless the clock is wrong",
        ),
        // A bad signature: an authority of the same name, with another key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => (
            "nobody whom this device trusts has signed the server's certificate".to_owned(),
            "take one of a public authority; the server has to send those in between as well",
        ),
        CertificateError::NotValidForNameContext { expected, presented } => (
            format!(
                "the server's certificate is for {}, not for {}",
                names(presented),
                expected.to_str()
            ),
            "`update.source` has to name the server as its certificate does",
        ),
        other => (
            format!("the server's certificate is refused: {other}"),
            "the server needs another one",
        ),
    }
}

/// What a certificate is for, as the library lists it: `DnsName("a.example")`.
fn names(presented: &[String]) -> String {
    const MOST: usize = 3;
    let bare = |name: &String| name.split('"').nth(1).unwrap_or(name).to_owned();
    let mut names: Vec<String> = presented.iter().take(MOST).map(bare).collect();
    if presented.len() > MOST {
        names.push("others".to_owned());
    }
    if names.is_empty() { "no name at all".to_owned() } else { names.join(", ") }
}

fn date(time: &UnixTime) -> String {
    Day(time.as_secs()).to_string()
}
