//! When a container is started and stopped. Pure: time and what was seen come from outside.
//!
//! ```text
//!             a connection              the engine started it
//!  Stopped ──────────────────► Starting ──────────────────► Running ─┐ connections are handed on
//!     ▲ ▲        │ it could not │                             │  ▲   │
//!     │          └──────────► Paused ◄── ended before it answered ┤  └───┘
//!     │                                                       │
//!     └──────── Stopping ◄──────── no connection for a while ─┤
//!                   ▲                                         │ ended, or somebody stopped it
//!                   └── nobody came for a while ── Unknown ◄──┘
//! ```
//!
//! `Unknown`: it may run or not, as after an end that the engine answers with a new start by the
//! rules of the Compose file. A connection starts it, which is nothing if it runs.

use std::time::Duration;

/// Before the next start after one that failed: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The terms of a service, as times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Without a connection for so long it is stopped; `None`: never.
    pub idle: Option<Duration>,
    /// So long a connection waits for it.
    pub start_within: Duration,
}

/// What is known of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Unknown { since: Duration },
    Stopped,
    Paused { until: Duration },
    Starting { until: Duration },
    Running { until: Duration, has_answered: bool, idle_since: Option<Duration> },
    Stopping,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Have the engine start it.
    Start,
    /// Have the engine stop it.
    Stop,
    /// Close the connections that wait.
    TurnAway,
    /// Nothing, until this time if nothing else happens.
    Rest(Option<Duration>),
}

/// What is seen of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Whether one waits that nobody has taken.
    pub waits: bool,
    /// How many were taken and are not over.
    pub open: usize,
}

/// The life of a container. All times are of one clock that only grows.
#[derive(Clone, Debug)]
pub struct Life {
    rules: Rules,
    phase: Phase,
    failures: u32,
}

impl Life {
    /// Of one of which nothing is known.
    pub fn new(rules: Rules, now: Duration) -> Self {
        Self { rules, phase: Phase::Unknown { since: now }, failures: 0 }
    }

    /// Other rules from now on; whoever changed them may have started it as well.
    pub fn change(&mut self, rules: Rules, now: Duration) {
        self.rules = rules;
        self.failures = 0;
        match &mut self.phase {
            Phase::Running { idle_since, .. } => *idle_since = None,
            Phase::Starting { .. } | Phase::Stopping => {}
            Phase::Unknown { .. } | Phase::Stopped | Phase::Paused { .. } => {
                self.phase = Phase::Unknown { since: now };
            }
        }
    }

    /// What is to be done; who is told to start or stop has to say what came of it.
    pub fn step(&mut self, now: Duration, load: Load) -> Step {
        if let Phase::Paused { until } = self.phase {
            if now < until {
                return Step::Rest(Some(until));
            }
            // The engine may have started it again meanwhile, by the rules of the Compose file.
            self.phase = Phase::Unknown { since: now };
        }
        match &mut self.phase {
            Phase::Unknown { .. } | Phase::Stopped if load.waits => self.start(now),
            Phase::Unknown { since } => {
                let since = *since;
                self.stop_after(since, now)
            }
            Phase::Running { idle_since, .. } if load.waits || load.open > 0 => {
                *idle_since = None;
                Step::Rest(None)
            }
            Phase::Running { idle_since, .. } => {
                let since = *idle_since.get_or_insert(now);
                self.stop_after(since, now)
            }
            Phase::Starting { until } if now >= *until => {
                // The engine hangs. It is asked once; who comes meanwhile is told as often.
                *until = now + self.rules.start_within;
                Step::TurnAway
            }
            Phase::Starting { until } => Step::Rest(Some(*until)),
            Phase::Stopped | Phase::Paused { .. } | Phase::Stopping => Step::Rest(None),
        }
    }

    fn start(&mut self, now: Duration) -> Step {
        self.phase = Phase::Starting { until: now + self.rules.start_within };
        Step::Start
    }

    fn stop_after(&mut self, since: Duration, now: Duration) -> Step {
        match self.rules.idle.map(|idle| since + idle) {
            Some(end) if now >= end => {
                self.phase = Phase::Stopping;
                Step::Stop
            }
            end => Step::Rest(end),
        }
    }

    /// Whether connections are waited for: while they could not be handed on, they wait with the
    /// kernel, and nobody wakes up for them.
    pub fn listens(&self) -> bool {
        !matches!(self.phase, Phase::Starting { .. } | Phase::Stopping | Phase::Paused { .. })
    }

    /// Whether connections are handed on.
    pub fn runs(&self) -> bool {
        matches!(self.phase, Phase::Running { .. })
    }

    /// Until when a connection that is taken now may wait for an answer.
    pub fn deadline(&self, now: Duration) -> Duration {
        match self.phase {
            // Those that came first have waited for the start already.
            Phase::Running { until, has_answered: false, .. } => until,
            _ => now + self.rules.start_within,
        }
    }

    /// The engine has started it.
    pub fn started(&mut self, now: Duration) {
        let until = match self.phase {
            // At least a moment to answer, however long the engine took.
            Phase::Starting { until } => until.max(now + FIRST_PAUSE),
            _ => now + self.rules.start_within,
        };
        self.phase = Phase::Running { until, has_answered: false, idle_since: None };
    }

    /// The engine could not start it; the next try is after a pause.
    pub fn failed(&mut self, now: Duration) {
        let doubled = FIRST_PAUSE * 2_u32.saturating_pow(self.failures.min(10));
        self.failures = self.failures.saturating_add(1);
        self.phase = Phase::Paused { until: now + doubled.min(LONGEST_PAUSE) };
    }

    /// Its port took a connection: the start is over, and was good.
    pub fn answered(&mut self) {
        self.failures = 0;
        if let Phase::Running { has_answered, .. } = &mut self.phase {
            *has_answered = true;
        }
    }

    /// Nobody at its port took a connection in time. Who comes next has as long again.
    pub fn did_not_answer(&mut self, now: Duration) {
        let until = now + self.rules.start_within;
        if let Phase::Running { until: end, has_answered: false, .. } = &mut self.phase {
            *end = until;
        }
    }

    /// Its process has ended. False if that was before it ever answered: the start has failed.
    pub fn ended(&mut self, now: Duration) -> bool {
        match self.phase {
            Phase::Running { has_answered: false, .. } => {
                self.failed(now);
                false
            }
            Phase::Running { .. } => {
                self.phase = Phase::Unknown { since: now };
                true
            }
            _ => true,
        }
    }

    /// The engine has stopped it, or could not: then it is as before, and tried again as late.
    pub fn stopped(&mut self, now: Duration, done: bool) {
        self.phase = if done { Phase::Stopped } else { Phase::Unknown { since: now } };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Load = Load { waits: false, open: 0 };
    const WAITS: Load = Load { waits: true, open: 0 };
    const OPEN: Load = Load { waits: false, open: 1 };

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn life() -> Life {
        let rules = Rules { idle: Some(s(300)), start_within: s(30) };
        let mut life = Life::new(rules, s(0));
        life.stopped(s(0), true);
        life
    }

    fn running() -> Life {
        let mut life = life();
        assert_eq!(life.step(s(10), WAITS), Step::Start);
        life.started(s(11));
        life.answered();
        life
    }

    #[test]
    fn a_stopped_container_rests_without_an_end_until_somebody_comes() {
        let mut life = life();
        assert_eq!(life.step(s(5), NOTHING), Step::Rest(None));
        assert!(life.listens());
        assert_eq!(life.step(s(9_000), WAITS), Step::Start);
        assert!(!life.listens() && !life.runs(), "who comes meanwhile waits with the kernel");
        assert_eq!(life.step(s(9_001), WAITS), Step::Rest(Some(s(9_030))), "started once");
        assert_eq!(life.deadline(s(9_001)), s(9_031));
        life.started(s(9_002));
        assert!(life.listens() && life.runs());
        assert_eq!(life.deadline(s(9_002)), s(9_030), "the start counts");
    }

    #[test]
    fn it_is_stopped_when_no_connection_was_open_for_the_whole_time() {
        let mut life = running();
        assert_eq!(life.step(s(12), OPEN), Step::Rest(None));
        assert_eq!(life.step(s(5_000), OPEN), Step::Rest(None), "however long it is open");
        assert_eq!(life.step(s(5_001), NOTHING), Step::Rest(Some(s(5_301))));
        assert_eq!(life.step(s(5_300), OPEN), Step::Rest(None));
        assert_eq!(life.step(s(5_310), NOTHING), Step::Rest(Some(s(5_610))));
        assert_eq!(life.step(s(5_610), NOTHING), Step::Stop);
        assert!(!life.listens(), "who comes while it stops is not handed to it");
        assert_eq!(life.step(s(5_611), WAITS), Step::Rest(None));
        life.stopped(s(5_615), true);
        assert_eq!(life.step(s(5_615), WAITS), Step::Start);
    }

    #[test]
    fn starts_that_fail_are_farther_and_farther_apart_until_one_is_good() {
        let mut life = life();
        let mut now = s(0);
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(life.step(now, WAITS), Step::Start);
            life.failed(now);
            assert!(!life.listens());
            assert_eq!(life.step(now, WAITS), Step::Rest(Some(now + s(pause))));
            now += s(pause);
        }
        assert_eq!(life.step(now, WAITS), Step::Start);
        life.started(now);
        life.answered();
        assert!(life.ended(now), "that is no failure");
        assert_eq!(life.step(now, WAITS), Step::Start);
        life.failed(now);
        assert_eq!(life.step(now, WAITS), Step::Rest(Some(now + s(1))));
    }

    #[test]
    fn a_pause_ends_without_a_start_if_nobody_came() {
        let mut life = life();
        assert_eq!(life.step(s(0), WAITS), Step::Start);
        life.failed(s(0));
        assert_eq!(life.step(s(1), NOTHING), Step::Rest(Some(s(301))));
        assert!(life.listens());
    }

    #[test]
    fn a_container_that_ends_before_it_answered_has_failed_to_start() {
        let mut life = life();
        life.step(s(0), WAITS);
        life.started(s(1));
        assert!(!life.ended(s(2)));
        assert_eq!(life.step(s(2), WAITS), Step::Rest(Some(s(3))));
    }

    #[test]
    fn one_that_somebody_stopped_is_started_by_the_next_connection() {
        let mut life = running();
        assert!(life.ended(s(20)));
        assert_eq!(life.step(s(21), WAITS), Step::Start);
        let mut life = running();
        life.ended(s(20));
        // The engine may have started it again: it is not left running for ever.
        assert_eq!(life.step(s(21), NOTHING), Step::Rest(Some(s(320))));
        assert_eq!(life.step(s(320), NOTHING), Step::Stop);
    }

    #[test]
    fn an_engine_that_hangs_keeps_nobody_waiting_for_ever() {
        let mut life = life();
        life.step(s(0), WAITS);
        assert_eq!(life.step(s(30), WAITS), Step::TurnAway);
        assert_eq!(life.step(s(31), WAITS), Step::Rest(Some(s(60))));
        assert_eq!(life.step(s(60), WAITS), Step::TurnAway);
        life.started(s(89));
        assert_eq!(life.deadline(s(89)), s(90));
    }

    #[test]
    fn a_port_that_does_not_answer_gives_the_next_connection_as_long() {
        let mut life = life();
        life.step(s(0), WAITS);
        life.started(s(1));
        assert_eq!(life.deadline(s(29)), s(30));
        life.did_not_answer(s(30));
        assert_eq!(life.deadline(s(40)), s(60));
        assert_eq!(life.step(s(40), NOTHING), Step::Rest(Some(s(340))), "it is stopped as any");
    }

    #[test]
    fn on_trial_it_stays_and_afterwards_it_does_not() {
        let rules = Rules { idle: None, start_within: s(30) };
        let mut life = Life::new(rules, s(0));
        assert_eq!(life.step(s(10_000), NOTHING), Step::Rest(None));
        life.change(Rules { idle: Some(s(300)), ..rules }, s(10_000));
        assert_eq!(life.step(s(10_000), NOTHING), Step::Rest(Some(s(10_300))));
    }

    #[test]
    fn a_stop_that_failed_is_tried_again_as_late() {
        let mut life = running();
        life.step(s(20), NOTHING);
        assert_eq!(life.step(s(320), NOTHING), Step::Stop);
        life.stopped(s(330), false);
        assert_eq!(life.step(s(330), NOTHING), Step::Rest(Some(s(630))));
        assert_eq!(life.step(s(331), WAITS), Step::Start, "which is nothing if it runs");
    }
}
