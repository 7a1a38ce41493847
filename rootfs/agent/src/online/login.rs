//! Servers that do not let in everybody.
//!
//! The name and the password of `iota.toml` are for the server in `update.source`, and for whom a
//! registry there names for tokens; nobody else is shown them.

use ureq::http::{Response, Uri, header};
use ureq::{Body, ResponseExt as _};

use super::web::Trouble;

/// The server does not let this device in, with its name and password or without.
pub(super) fn refused(server: &str, shown: bool) -> Trouble {
    Trouble::Lasting(match shown {
        true => format!(
            "{server} refuses the name and the password of iota.toml\n\
             hint: `iota config set update.user NAME`, and the same with update.password"
        ),
        false => format!(
            "{server} wants a name and a password, and iota.toml has none for it\n\
             hint: `iota config set update.user NAME`, then the same with update.password"
        ),
    })
}

/// What to say if an answer is not from the server that was asked: a redirect led away from it, to
/// where nothing was shown.
pub(super) fn elsewhere(response: &Response<Body>, source: &str) -> Option<Trouble> {
    let asked: Option<Uri> = source.parse().ok();
    let answers = response.get_uri().authority()?;
    (asked?.authority()? != answers).then(|| {
        Trouble::Lasting(format!(
            "the server sends this device to {answers}, which wants a login\n\
             hint: a login is shown to the server of `update.source` alone: name the other one"
        ))
    })
}

/// How a registry wants to be shown who asks (RFC 9110, 11.6.1).
pub(super) enum Challenge {
    /// A token of somebody whom these parameters name.
    Token(String),
    /// Name and password themselves.
    Password,
}

impl Challenge {
    /// The first that this device can answer, if there is one.
    pub(super) fn of(response: &Response<Body>) -> Option<Self> {
        let all = response.headers().get_all(header::WWW_AUTHENTICATE);
        all.iter().filter_map(|value| value.to_str().ok()).find_map(Self::read)
    }

    fn read(text: &str) -> Option<Self> {
        let (scheme, _) = text.split_once(' ').unwrap_or((text, ""));
        match () {
            () if scheme.eq_ignore_ascii_case("bearer") => Some(Self::Token(text.to_owned())),
            () if scheme.eq_ignore_ascii_case("basic") => Some(Self::Password),
            () => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_known_in_letters_of_any_size() {
        let read = |text| match Challenge::read(text) {
            Some(Challenge::Token(text)) => text,
            Some(Challenge::Password) => "password".to_owned(),
            None => "none".to_owned(),
        };
        assert_eq!(read("bearer realm=\"a\""), "bearer realm=\"a\"");
        assert_eq!(read("BASIC realm=\"a\""), "password");
        for unknown in ["", "Digest realm=\"a\"", "Basically"] {
            assert_eq!(read(unknown), "none", "{unknown}");
        }
    }
}
