//! Requests to a web server, one after the other.
//!
//! [`Web`] is what the rest needs of HTTP, so that tests can be any server there is. [`Http`] is
//! the real one, over crate ureq.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use config::Secret;
use ureq::config::RedirectAuthHeaders;
use ureq::http::{Response, Uri, header};
use ureq::{Agent, Body, Error, Proxy, ProxyProtocol, Timeout};

use super::{login, tls};

/// A server's files below one address.
pub trait Web {
    /// Asks for a file, or for what of it lies in `range` (from the first byte to before the
    /// second).
    fn get(&self, path: &str, range: Option<(u64, u64)>) -> Result<Answer, Trouble>;
}

/// What a server answered.
pub struct Answer {
    /// The first byte that it sends, counted from the start of the file.
    pub from: u64,
    /// Size of the whole file, if it says so.
    pub total: Option<u64>,
    /// The bytes.
    pub body: Box<dyn Read + Send>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Another try may well succeed: no connection, a busy server.
    Passing {
        /// What happened.
        why: String,
        /// How long the server asks to be left alone.
        wait: Option<Duration>,
    },
    /// Another try will not: an answer that makes no sense.
    Lasting(String),
    /// There is no such file, or nobody may see it, which many servers say instead.
    Missing(String),
}

impl Trouble {
    /// What happened, in one clause; what to do in a second line if that is known.
    pub fn why(&self) -> &str {
        match self {
            Self::Passing { why, .. } | Self::Lasting(why) | Self::Missing(why) => why,
        }
    }
}

/// Longest that a connection may take to come about, and an answer to begin.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// Longest that one answer may take. It costs a new request, no bytes: see [`super::remote`].
const BODY_LIMIT: Duration = Duration::from_secs(60);
const MOST_REDIRECTS: u32 = 5;
/// Longest that a server may ask to be left alone.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A real server.
pub struct Http {
    agent: Agent,
    source: String,
    login: Option<Secret>,
}

impl Http {
    /// The files below this address, with or without a slash at its end. With `https://`, servers
    /// are those that the authorities of this bundle vouch for.
    pub fn new(source: &str, bundle: &Path, proxy: &config::Proxy) -> Self {
        let agent = agent(source, bundle, proxy);
        Self { agent, source: source.trim_end_matches('/').to_owned(), login: None }
    }

    /// Shows this in each request, but not where a redirect leads to.
    #[must_use]
    pub fn with_login(self, login: Option<Secret>) -> Self {
        Self { login, ..self }
    }
}

/// Whoever asks: with `https://` in the address, nobody is ever asked without TLS.
pub(super) fn agent(address: &str, bundle: &Path, proxy: &config::Proxy) -> Agent {
    Agent::config_builder()
        .timeout_connect(Some(ANSWER_LIMIT))
        .timeout_resolve(Some(ANSWER_LIMIT))
        .timeout_recv_response(Some(ANSWER_LIMIT))
        .timeout_recv_body(Some(BODY_LIMIT))
        .max_redirects(MOST_REDIRECTS)
        // To another port of the same host neither: that may be somebody else's.
        .redirect_auth_headers(RedirectAuthHeaders::Never)
        .http_status_as_error(false)
        .https_only(address.starts_with("https://"))
        .tls_config(tls::settings(tls::authorities(bundle)))
        .proxy(proxy_for(address, proxy))
        .user_agent(concat!("iota/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent()
}

/// The bytes from the first to before the second, as HTTP counts them.
pub(super) fn range((from, to): (u64, u64)) -> String {
    format!("bytes={from}-{}", to.saturating_sub(1))
}

/// Whom to ask in place of this server. Names below a domain and whole addresses are known here;
/// networks are for the engine alone, as the documentation says.
fn proxy_for(source: &str, proxy: &config::Proxy) -> Option<Proxy> {
    let own = if source.starts_with("https://") { proxy.https() } else { proxy.http() };
    let address: Uri = own?.parse().ok()?;
    let kind = match address.scheme_str() {
        Some("https") => ProxyProtocol::Https,
        _ => ProxyProtocol::Http,
    };
    let mut builder = Proxy::builder(kind).host(address.host()?);
    if let Some(port) = address.port_u16() {
        builder = builder.port(port);
    }
    for exception in proxy.no_proxy() {
        builder = builder.no_proxy(exception);
    }
    builder.build().ok()
}

impl Web for Http {
    fn get(&self, path: &str, range: Option<(u64, u64)>) -> Result<Answer, Trouble> {
        let mut request = self.agent.get(format!("{}/{path}", self.source));
        if let Some(wanted) = range {
            request = request.header(header::RANGE, self::range(wanted));
        }
        if let Some(login) = &self.login {
            request = request.header(header::AUTHORIZATION, login.reveal());
        }
        let response = request.call().map_err(|error| trouble(&error))?;
        if response.status().as_u16() == 401 {
            return Err(match login::elsewhere(&response, &self.source) {
                Some(elsewhere) => elsewhere,
                None => login::refused("the server", self.login.is_some()),
            });
        }
        read(response, range.map_or(0, |(from, _)| from))
    }
}

pub(super) fn trouble(error: &Error) -> Trouble {
    match tls::refusal(error) {
        Some(why) => Trouble::Lasting(why),
        None => Trouble::Passing { why: words(error), wait: None },
    }
}

/// In one clause, without the names that a library has for its errors.
fn words(error: &Error) -> String {
    match error {
        Error::HostNotFound => "no name server knows the server's name".to_owned(),
        // The standard library gives it no kind of its own.
        Error::Io(error) if error.to_string().contains("failed to lookup") => {
            "the server's name was not found, or no name server answers".to_owned()
        }
        Error::Io(error) => error.to_string(),
        Error::Timeout(Timeout::Resolve) => "no name server answers".to_owned(),
        Error::Timeout(_) => "the server does not answer in time".to_owned(),
        Error::ConnectionFailed => "the server takes no connection".to_owned(),
        other => other.to_string(),
    }
}

pub(super) fn read(response: Response<Body>, wanted: u64) -> Result<Answer, Trouble> {
    let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    if text(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(Trouble::Lasting("the server sends the file in another coding".to_owned()));
    }
    let status = response.status().as_u16();
    let (from, total) = match status {
        // Some servers and caches know no ranges: what comes before is passed over.
        200 => (0, text(header::CONTENT_LENGTH).and_then(|length| length.parse().ok())),
        206 => {
            let range = text(header::CONTENT_RANGE).and_then(content_range);
            let (from, total) = range.filter(|(from, _)| *from == wanted).ok_or_else(|| {
                Trouble::Lasting("the server sends another part of the file".into())
            })?;
            (from, total)
        }
        408 | 425 | 429 | 500..=599 => {
            let wait = text(header::RETRY_AFTER).and_then(|seconds| seconds.trim().parse().ok());
            let wait = wait.map(|seconds| Duration::from_secs(seconds).min(LONGEST_WAIT));
            return Err(Trouble::Passing { why: format!("the server answers {status}"), wait });
        }
        403 | 404 | 410 => return Err(Trouble::Missing(format!("the server answers {status}"))),
        _ => return Err(Trouble::Lasting(format!("the server answers {status}"))),
    };
    let body = response.into_body().into_reader();
    Ok(Answer { from, total, body: Box::new(body) })
}

/// First byte and size of the file from `bytes 100-199/2000` or `bytes 100-199/*`.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (from, _) = range.split_once('-')?;
    Some((from.parse().ok()?, if total == "*" { None } else { Some(total.parse().ok()?) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_that_of_the_servers_kind_and_not_for_exceptions() {
        let text = "[proxy]\nhttp = \"http://a:1\"\nhttps = \"http://b\"\n\
            no-proxy = [\".near.org\", \"here\"]\n";
        let config = config::Config::parse(text.as_bytes()).unwrap();
        let proxy = |source: &str| proxy_for(source, config.proxy());
        let plain = proxy("http://x.org/iota").unwrap();
        assert_eq!((plain.host(), plain.port()), ("a", 1));
        let tls = proxy("https://x.org/iota").unwrap();
        assert_eq!((tls.host(), tls.port()), ("b", 80));
        let is_direct = |uri: &str| plain.is_no_proxy(&uri.parse().unwrap());
        assert!(is_direct("http://www.near.org/") && is_direct("http://here/"));
        assert!(!is_direct("http://far.org/"));
        assert!(proxy_for("http://x.org", &config::Proxy::default()).is_none());
    }

    #[test]
    fn a_content_range_is_read() {
        assert_eq!(content_range("bytes 100-199/2000"), Some((100, Some(2000))));
        assert_eq!(content_range("bytes 0-0/*"), Some((0, None)));
        for text in ["", "bytes 100-199", "bytes -5/10", "items 1-2/3", "bytes */10"] {
            assert_eq!(content_range(text), None, "{text}");
        }
    }
}
