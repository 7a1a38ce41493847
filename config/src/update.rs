//! Where a device looks for updates, and what it does with them by itself.

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;

use crate::login;
use crate::registry::Repository;
use crate::secret::Secret;

/// The table `[update]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    pub(crate) source: Option<String>,
    pub(crate) mirrors: Vec<String>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) channel: Option<String>,
    pub(crate) automatic: Option<Automatic>,
    pub(crate) window: Option<Window>,
    pub(crate) every_min: Option<u32>,
    pub(crate) most_kb_s: Option<u32>,
    pub(crate) report: Option<String>,
}

/// Without a choice of the owner's.
const CHANNEL: &str = "stable";
const EVERY_MIN: u32 = 360;
/// Least and most that a transfer can be limited to, in kilobytes a second.
pub const MOST_LIMITS_KB_S: (u32, u32) = (1, 1_000_000);
/// Shortest and longest time between two looks, in minutes.
pub const EVERY_LIMITS_MIN: (u32, u32) = (5, 10_080);

impl Update {
    /// Address of the server's directory, without a slash at its end.
    pub fn source(&self) -> Option<&str> {
        self.source.as_deref()
    }

    /// Addresses of others that have the same, in the order in which they are asked.
    pub fn mirrors(&self) -> &[String] {
        &self.mirrors
    }

    /// The name by which the server knows this device.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// What only the two of them know.
    pub fn password(&self) -> Option<&Secret> {
        self.password.as_ref()
    }

    /// What is shown to the server to be let in, as the value of the header `Authorization`.
    pub fn authorization(&self) -> Option<Secret> {
        let password = self.password.as_ref().map_or("", Secret::reveal);
        self.user.as_ref().map(|user| login::basic(user, password))
    }

    /// The channel.
    pub fn channel(&self) -> &str {
        self.channel.as_deref().unwrap_or(CHANNEL)
    }

    /// What the device does by itself.
    pub fn automatic(&self) -> Automatic {
        self.automatic.unwrap_or(Automatic::Install)
    }

    /// When it may restart by itself; without one, at any time.
    pub fn window(&self) -> Option<Window> {
        self.window
    }

    /// Kilobytes that may be fetched in a second.
    pub fn most_kb_s(&self) -> Option<u32> {
        self.most_kb_s
    }

    /// Address that is told how it stands.
    pub fn report(&self) -> Option<&str> {
        self.report.as_deref()
    }

    /// Minutes between two looks.
    pub fn every_min(&self) -> u32 {
        self.every_min.unwrap_or(EVERY_MIN)
    }
}

/// What a device does when there is an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Automatic {
    /// Says so.
    Check,
    /// Installs it; somebody else restarts the device.
    Stage,
    /// Installs it and restarts.
    Install,
}

impl Automatic {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Check, "check"), (Self::Stage, "stage"), (Self::Install, "install")];
}

impl fmt::Display for Automatic {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(known, _)| known == self).map_or("", |(_, name)| name);
        out.write_str(name)
    }
}

pub(crate) fn automatic(text: &str) -> Result<Automatic, String> {
    let found = Automatic::ALL.iter().find(|(_, name)| *name == text);
    found.map(|(known, _)| *known).ok_or_else(|| format!("`{text}` is none of them"))
}

/// A time of each day, in minutes since midnight, UTC. One that ends before it begins spans
/// midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    from_min: u16,
    to_min: u16,
}

impl Window {
    /// Whether a moment, in seconds since 1970, lies in it.
    pub fn holds(self, now_s: u64) -> bool {
        let now = now_s / 60 % (24 * 60);
        let (from, to) = (u64::from(self.from_min), u64::from(self.to_min));
        if from < to { (from..to).contains(&now) } else { now >= from || now < to }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from_min: from, to_min: to } = self;
        write!(out, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)
    }
}

/// Reads `02:00-05:30`; an error is one clause.
pub(crate) fn window(text: &str) -> Result<Window, String> {
    let read = || {
        let (from, to) = text.split_once('-')?;
        let (from_min, to_min) = (time_of_day(from)?, time_of_day(to)?);
        (from_min != to_min).then_some(Window { from_min, to_min })
    };
    let window = { read }();
    window
        .filter(|window| window.to_string() == text)
        .ok_or_else(|| "no time of the day".to_owned())
}

fn time_of_day(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let (hours, minutes) = (hours.parse::<u16>().ok()?, minutes.parse::<u16>().ok()?);
    // Not `then_some`: it would multiply what is out of range.
    (hours < 24 && minutes < 60).then(|| hours * 60 + minutes)
}

/// Longest address.
const MOST_BYTES: usize = 200;

/// Reads an address such as `http://updates.example.org/iota` or `oci://registry.example.org/iota`;
/// an error is one clause.
pub(crate) fn source(text: &str) -> Result<String, String> {
    if text.starts_with("oci") {
        let known = Repository::parse(text).filter(|_| text.len() <= MOST_BYTES);
        let known = known.map(|_| text.trim_end_matches('/').to_owned());
        return known.ok_or_else(|| {
            "no repository of a registry, such as oci://registry.example.org/iota".to_owned()
        });
    }
    match is_web_address(text) {
        None => Err("it has to start with http://, https:// or oci://".to_owned()),
        Some(false) => Err("no address of a directory on a web server".to_owned()),
        Some(true) => Ok(text.trim_end_matches('/').to_owned()),
    }
}

/// Reads the address of whom to tell how it stands; an error is one clause.
pub(crate) fn report(text: &str) -> Result<String, String> {
    match is_web_address(text) {
        None => Err("it has to start with http:// or https://".to_owned()),
        Some(false) => Err("no address on a web server".to_owned()),
        Some(true) => Ok(text.to_owned()),
    }
}

/// Whether an address is well formed and has nothing secret in it; none of another kind is.
fn is_web_address(text: &str) -> Option<bool> {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"))?;
    let host = rest.split('/').next().unwrap_or_default();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/[]%+".contains(&byte);
    Some(!host.is_empty() && text.len() <= MOST_BYTES && rest.bytes().all(plain))
}

/// Reads the name of a channel; an error is one clause.
pub(crate) fn channel(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    match (1..=32).contains(&text.len()) && text.bytes().all(plain) {
        true => Ok(text.to_owned()),
        false => Err("no name of a channel".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_holds_the_minutes_from_its_start_to_before_its_end_also_over_midnight() {
        let at = |hours: u64, minutes: u64| 1_764_288_000 + (hours * 60 + minutes) * 60;
        let night = window("02:00-05:30").unwrap();
        let held = [(1, 59), (2, 0), (5, 29), (5, 30)].map(|(h, m)| night.holds(at(h, m)));
        assert_eq!(held, [false, true, true, false]);
        let late = window("22:00-01:00").unwrap();
        let held = [(21, 59), (22, 0), (0, 59), (1, 0)].map(|(h, m)| late.holds(at(h, m)));
        assert_eq!(held, [false, true, true, false]);
    }

    #[test]
    fn what_is_no_window_is_refused() {
        for text in [
            "",
            "2:00-5:00",
            "02:00",
            "02:00-02:00",
            "24:00-01:00",
            "02:60-03:00",
            "4096:00-01:00",
            "a-b",
        ] {
            assert!(window(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_without_a_password_has_an_empty_one_and_without_a_name_nothing_is_shown() {
        let shown = |user: Option<&str>, password: Option<&str>| {
            let password = password.map(|text| login::password(text).unwrap());
            let update = Update { user: user.map(str::to_owned), password, ..Update::default() };
            update.authorization().map(|shown| shown.reveal().to_owned())
        };
        assert_eq!(shown(Some("a"), Some("b")).as_deref(), Some("Basic YTpi"));
        assert_eq!(shown(Some("a"), None).as_deref(), Some("Basic YTo="));
        assert_eq!(shown(None, None), None);
    }

    #[test]
    fn an_address_is_one_of_a_server_without_anything_secret_in_it() {
        for text in [
            "http://10.0.0.1:8080/a/",
            "https://updates.example.org",
            "http://[fd00::1]/x",
            "oci://registry.example.org/team/iota",
            "oci+http://10.0.0.1:5000/iota/",
        ] {
            assert_eq!(source(text), Ok(text.trim_end_matches('/').to_owned()));
        }
        for text in [
            "",
            "ftp://a/",
            "http://",
            "http:///a",
            "http://me@host/",
            "http://a/?b",
            "a b",
            "oci://a",
            "oci:a/b",
        ] {
            assert!(source(text).is_err(), "{text}");
        }
        assert_eq!(report("https://a/b/").as_deref(), Ok("https://a/b/"));
        assert!(report("oci://a/b").is_err() && report("http://").is_err());
    }
}
