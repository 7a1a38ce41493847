//! Which service is started, stopped or left alone, and when: the rules without the doing.
//!
//! ```text
//!            its `after` is met            ended, to be restarted
//! Waiting ───────────────────────► Running ──────────────────────► Pausing
//!                                   │  ▲         pause over            │
//!     ended, not to be restarted    │  └───────────────────────────────┘
//! Ended ◄───────────────────────────┤
//!                                   │ shutdown, nothing that needs it is left
//!                                   ▼
//!                   Terminating ──ended──► Stopped     (SIGKILL when its time is up)
//! ```
//! Time is given by the caller in milliseconds, so tests have no clock.

use ondisk::system::{BackOff, Ready, Restart, Service};

/// A run of this length clears what is remembered of earlier failures.
const LONG_RUN_MS: u64 = 60_000;

/// All services of a system and what each is doing.
#[derive(Debug)]
pub(crate) struct Services {
    entries: Vec<Entry>,
    stopping: bool,
}

#[derive(Debug)]
struct Entry {
    service: Service,
    state: State,
    /// Restarts since the last long run.
    restarts: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Running { since: u64 },
    Pausing { until: u64 },
    Ended,
    Terminating { kill_at: u64 },
    Killing,
    Stopped,
}

/// What the caller shall do now, with the number of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start it; [`Services::ended`] if that fails.
    Start(usize),
    /// Send SIGTERM to its first process.
    Terminate(usize),
    /// Kill everything that belongs to it.
    Kill(usize),
}

/// What follows from the end of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is started again after this pause.
    Restart {
        /// The pause.
        after_ms: u64,
    },
    /// It had done its work.
    Done,
    /// It failed and is not started again.
    GivenUp,
    /// It was told to stop.
    Stopped,
}

impl Services {
    /// All services waiting to be started.
    pub(crate) fn new(services: Vec<Service>) -> Self {
        let entry = |service| Entry { service, state: State::Waiting, restarts: 0 };
        Self { entries: services.into_iter().map(entry).collect(), stopping: false }
    }

    /// The description of a service.
    pub(crate) fn get(&self, index: usize) -> Option<&Service> {
        self.entries.get(index).map(|entry| &entry.service)
    }

    /// Everything that is due. Services to be started count as running from now on.
    pub(crate) fn due(&mut self, now: u64) -> Vec<Action> {
        let due = |index| self.due_for(index, now);
        let actions: Vec<Action> = (0..self.entries.len()).filter_map(due).collect();
        for action in &actions {
            self.apply(*action, now);
        }
        actions
    }

    fn due_for(&self, index: usize, now: u64) -> Option<Action> {
        let entry = self.entries.get(index)?;
        match entry.state {
            State::Waiting if self.is_free(&entry.service) => Some(Action::Start(index)),
            State::Pausing { until } if until <= now => Some(Action::Start(index)),
            State::Running { .. } if self.stopping && !self.is_needed(&entry.service) => {
                Some(Action::Terminate(index))
            }
            State::Terminating { kill_at } if kill_at <= now => Some(Action::Kill(index)),
            _ => None,
        }
    }

    fn apply(&mut self, action: Action, now: u64) {
        let (Action::Start(index) | Action::Terminate(index) | Action::Kill(index)) = action;
        let Some(entry) = self.entries.get_mut(index) else { return };
        entry.state = match action {
            Action::Start(_) => State::Running { since: now },
            Action::Terminate(_) => {
                let timeout = u64::from(entry.service.stop_timeout_ms);
                State::Terminating { kill_at: now.saturating_add(timeout) }
            }
            Action::Kill(_) => State::Killing,
        };
    }

    /// Whether everything it comes after has started, or ended if it is work done once.
    fn is_free(&self, service: &Service) -> bool {
        let met = |name: &String| {
            let Some(other) = self.entries.iter().find(|entry| entry.service.name == *name) else {
                return true;
            };
            match other.service.ready {
                Ready::Exit => matches!(other.state, State::Ended),
                Ready::Started | Ready::Http { .. } => other.state != State::Waiting,
            }
        };
        service.after.iter().all(met)
    }

    /// Whether a service that comes after it is still alive.
    fn is_needed(&self, service: &Service) -> bool {
        self.entries
            .iter()
            .any(|entry| entry.is_alive() && entry.service.after.contains(&service.name))
    }

    /// Takes note that a service ended, or could not be started.
    pub(crate) fn ended(&mut self, index: usize, success: bool, now: u64) -> Verdict {
        let stopping = self.stopping;
        let Some(entry) = self.entries.get_mut(index) else { return Verdict::Stopped };
        let (state, verdict) = match (entry.state, entry.service.restart) {
            _ if stopping => (State::Stopped, Verdict::Stopped),
            (_, Restart::Never) if success => (State::Ended, Verdict::Done),
            (_, Restart::OnFailure(_)) if success => (State::Ended, Verdict::Done),
            (_, Restart::Never) => (State::Ended, Verdict::GivenUp),
            (state, Restart::OnFailure(back_off) | Restart::Always(back_off)) => {
                let after_ms = entry.pause(state, back_off, now);
                let until = now.saturating_add(after_ms);
                (State::Pausing { until }, Verdict::Restart { after_ms })
            }
        };
        entry.state = state;
        verdict
    }

    /// From now on services are stopped, the last one of each chain first.
    pub(crate) fn stop(&mut self) {
        self.stopping = true;
        for entry in &mut self.entries {
            if !entry.is_alive() {
                entry.state = State::Stopped;
            }
        }
    }

    /// Whether nothing is left to stop.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopping && !self.entries.iter().any(Entry::is_alive)
    }

    /// When [`Services::due`] has to be asked again, if nothing ends before.
    pub(crate) fn next_due(&self) -> Option<u64> {
        let times = self.entries.iter().filter_map(|entry| match entry.state {
            State::Pausing { until } => Some(until),
            State::Terminating { kill_at } => Some(kill_at),
            _ => None,
        });
        times.min()
    }
}

impl Entry {
    fn is_alive(&self) -> bool {
        matches!(self.state, State::Running { .. } | State::Terminating { .. } | State::Killing)
    }

    fn pause(&mut self, state: State, back_off: BackOff, now: u64) -> u64 {
        if let State::Running { since } = state
            && now.saturating_sub(since) >= LONG_RUN_MS
        {
            self.restarts = 0;
        }
        let factor = 1_u64.checked_shl(self.restarts.min(32)).unwrap_or(u64::MAX);
        self.restarts = self.restarts.saturating_add(1);
        u64::from(back_off.first_ms).saturating_mul(factor).min(u64::from(back_off.longest_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, after: &[&str]) -> Service {
        let after = after.iter().map(|name| (*name).to_owned()).collect();
        Service { after, stop_timeout_ms: 1000, ..Service::named(name) }
    }

    fn once(name: &str, restart: Restart) -> Service {
        Service { ready: Ready::Exit, restart, ..service(name, &[]) }
    }

    #[test]
    fn everything_that_waits_for_nothing_starts_at_once() {
        let mut services = Services::new(vec![
            service("docker", &[]),
            service("network", &[]),
            service("agent", &["docker"]),
        ]);
        assert_eq!(services.due(0), [Action::Start(0), Action::Start(1)]);
        assert_eq!(services.due(0), [Action::Start(2)]);
        assert_eq!(services.due(0), []);
        assert_eq!(services.next_due(), None);
    }

    #[test]
    fn work_done_once_must_have_ended_before_what_comes_after_it() {
        let mut services =
            Services::new(vec![once("setup", Restart::Never), service("docker", &["setup"])]);
        assert_eq!(services.due(0), [Action::Start(0)]);
        assert_eq!(services.due(1), []);
        assert_eq!(services.ended(0, true, 2), Verdict::Done);
        assert_eq!(services.due(2), [Action::Start(1)]);
    }

    #[test]
    fn failed_work_does_not_hold_up_the_engine_for_ever() {
        let mut services =
            Services::new(vec![once("setup", Restart::Never), service("docker", &["setup"])]);
        services.due(0);
        assert_eq!(services.ended(0, false, 2), Verdict::GivenUp);
        assert_eq!(services.due(2), [Action::Start(1)]);
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_are_forgotten_after_a_long_run() {
        let mut services = Services::new(vec![service("docker", &[])]);
        let mut now = 0;
        let mut pauses = Vec::new();
        for run_ms in [10, 10, 10, 10, 10, 10, 10, 10, LONG_RUN_MS, 10] {
            assert_eq!(services.due(now), [Action::Start(0)]);
            now += run_ms;
            let Verdict::Restart { after_ms } = services.ended(0, false, now) else { panic!() };
            pauses.push(after_ms);
            assert_eq!(services.next_due(), Some(now + after_ms));
            assert_eq!(services.due(now + after_ms - 1), []);
            now += after_ms;
        }
        let expected = [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 500, 1000];
        assert_eq!(pauses, expected);
    }

    #[test]
    fn restarting_for_years_does_not_overflow() {
        let mut services = Services::new(vec![service("docker", &[])]);
        for _ in 0..1000 {
            let verdict = services.ended(0, false, u64::MAX);
            assert!(matches!(verdict, Verdict::Restart { after_ms } if after_ms <= 30_000));
        }
    }

    #[test]
    fn a_service_that_ends_well_is_restarted_only_if_it_shall_always_run() {
        let back_off = BackOff { first_ms: 500, longest_ms: 500 };
        for (restart, success, expected) in [
            (Restart::Always(back_off), true, Verdict::Restart { after_ms: 500 }),
            (Restart::OnFailure(back_off), true, Verdict::Done),
            (Restart::OnFailure(back_off), false, Verdict::Restart { after_ms: 500 }),
            (Restart::Never, true, Verdict::Done),
            (Restart::Never, false, Verdict::GivenUp),
        ] {
            let mut services = Services::new(vec![Service { restart, ..service("x", &[]) }]);
            services.due(0);
            assert_eq!(services.ended(0, success, 1), expected, "{restart:?} {success}");
        }
    }

    #[test]
    fn services_are_stopped_in_reverse_and_killed_when_their_time_is_up() {
        let mut services = Services::new(vec![
            service("docker", &[]),
            service("agent", &["docker"]),
            service("network", &[]),
            service("broken", &[]),
        ]);
        services.due(0);
        services.due(0);
        services.ended(3, false, 0);
        services.stop();
        assert_eq!(services.due(10), [Action::Terminate(1), Action::Terminate(2)]);
        assert_eq!(services.next_due(), Some(1010));
        assert_eq!(services.ended(2, true, 20), Verdict::Stopped);
        assert_eq!(services.due(1009), []);
        assert_eq!(services.due(1010), [Action::Kill(1)]);
        assert_eq!(services.due(2000), []);
        assert_eq!(services.ended(1, false, 2001), Verdict::Stopped);
        assert_eq!(services.due(2001), [Action::Terminate(0)]);
        assert!(!services.is_stopped());
        assert_eq!(services.ended(0, true, 2002), Verdict::Stopped);
        assert!(services.is_stopped());
        assert_eq!(services.due(9999), []);
    }
}
