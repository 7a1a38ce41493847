//! `iota watchdog`: restarts a device that lacks, for longer than its owner wants, what only a
//! restart may bring back (`[watchdog]` of `iota.toml`). The hardware's watchdog is PID 1's.
//!
//! Pure: what is seen comes in, the reason for a restart goes out.

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
}
