//! `iota watchdog`: restarts a device that lacks, for longer than its owner wants, what only a
//! restart may bring back (`[watchdog]` of `iota.toml`). The hardware's watchdog is PID 1's.
//!
//! Pure: what is seen comes in, the reason for a restart goes out.

use std::net::IpAddr;
use std::time::Duration;

/// Pause between two looks; the shortest limit is ten times as long.
pub const PACE: Duration = Duration::from_secs(30);

/// What a look has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The engine answers.
    pub engine: bool,
    /// Some network has given the device an address, or its owner has and the cable is plugged in.
    pub network: bool,
}

/// One thing that may be lacking.
#[derive(Debug)]
struct Patience {
    what: &'static str,
    limit: Option<Duration>,
    since: Duration,
}

impl Patience {
    fn new(what: &'static str, minutes: Option<u32>, now: Duration) -> Self {
        let limit = minutes.map(|minutes| Duration::from_secs(u64::from(minutes) * 60));
        Self { what, limit, since: now }
    }

    fn is_over(&mut self, is_there: bool, now: Duration) -> Option<String> {
        if is_there {
            self.since = now;
        }
        let limit = self.limit.filter(|limit| now.saturating_sub(self.since) >= *limit)?;
        Some(format!("{} for {} minutes", self.what, limit.as_secs() / 60))
    }
}

/// What the owner's patience is with everything.
#[derive(Debug)]
pub struct Watch {
    engine: Patience,
    network: Patience,
}

impl Watch {
    /// From `now` on, a time that only grows; `None` if the owner wants nothing of it.
    pub fn new(limits: config::Watchdog, now: Duration) -> Option<Self> {
        limits.engine_min.or(limits.network_min)?;
        Some(Self {
            engine: Patience::new("the engine has not answered", limits.engine_min, now),
            network: Patience::new("there has been no network", limits.network_min, now),
        })
    }

    /// Takes in what was seen at `now`; why the device has to restart, if it has to.
    pub fn look(&mut self, now: Duration, seen: Seen) -> Option<String> {
        let engine = self.engine.is_over(seen.engine, now);
        self.network.is_over(seen.network, now).or(engine)
    }
}

/// Whether one of these lines of [`crate::network::summaries`] has an address that somebody gave:
/// not one that the interface made up for its own cable.
pub fn has_address(summaries: &[String]) -> bool {
    let address = |line: &String| {
        let word = line.split_ascii_whitespace().nth(1)?;
        let (address, _) = word.trim_end_matches(',').split_once('/')?;
        address.parse::<IpAddr>().ok()
    };
    summaries.iter().filter_map(address).any(|address| match address {
        IpAddr::V4(address) => !address.is_link_local(),
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Seen = Seen { engine: true, network: true };

    fn minutes(number: u64) -> Duration {
        Duration::from_secs(number * 60)
    }

    fn watch(engine_min: Option<u32>, network_min: Option<u32>) -> Option<Watch> {
        Watch::new(config::Watchdog { engine_min, network_min }, minutes(1))
    }

    #[test]
    fn nobody_watches_for_an_owner_who_wants_nothing() {
        assert!(watch(None, None).is_none());
    }

    #[test]
    fn what_is_lacking_from_the_start_on_restarts_the_device_when_its_time_is_up() {
        let mut watch = watch(Some(15), Some(120)).unwrap();
        let none = Seen { engine: false, network: false };
        assert_eq!(watch.look(minutes(15), none), None);
        let reason = "the engine has not answered for 15 minutes";
        assert_eq!(watch.look(minutes(16), none).as_deref(), Some(reason));
        let reason = "there has been no network for 120 minutes";
        assert_eq!(watch.look(minutes(121), none).as_deref(), Some(reason));
    }

    #[test]
    fn the_time_begins_anew_whenever_it_is_there() {
        let mut watch = watch(None, Some(5)).unwrap();
        let no_network = Seen { network: false, ..ALL };
        assert_eq!(watch.look(minutes(5), no_network), None);
        assert_eq!(watch.look(minutes(6), ALL), None);
        assert_eq!(watch.look(minutes(10), no_network), None);
        assert!(watch.look(minutes(11), no_network).is_some());
    }

    #[test]
    fn what_has_no_limit_may_be_lacking_for_ever() {
        let mut watch = watch(Some(5), None).unwrap();
        assert_eq!(watch.look(minutes(9_999), Seen { network: false, ..ALL }), None);
    }

    #[test]
    fn only_an_address_that_somebody_gave_is_a_network() {
        let given = [
            "eth0 192.168.1.7/24, router 192.168.1.1",
            "eth0 fd00::7/64",
            "wlan0 10.0.0.5/8, Wi-Fi Home",
        ];
        for line in given {
            assert!(has_address(&["usb0 up".to_owned(), line.to_owned()]), "{line}");
        }
        let own = ["eth0 169.254.7.9/16", "eth0 fe80::1/64", "eth0 up, router fe80::1", "eth0"];
        assert!(!has_address(&own.map(str::to_owned)));
        assert!(!has_address(&[]));
    }
}
