//! A change of the network is on trial: whoever made it confirms that the device can still be
//! reached, or what was before comes back.
//!
//! ```text
//!               Change: the network differs          Confirm in time: kept
//!   Settled ──────────────────────────────► Waiting ───────────────────────► Settled
//!      ▲  └─ Change: it does not: kept        │  ▲ └─ Change: its time starts anew
//!      └──────────────────────────────────────┘  └──┘
//!        time is up, or changed back: reverted
//! ```
//!
//! What is on trial stands in /run alone and reaches no disk before it is kept. So a restart or a
//! power cut during a trial boots what was before, without anything having to be undone.
//!
//! Pure: the time comes from outside, in seconds since the kernel began.

/// How long a change waits for its confirmation, unless told otherwise.
pub const WITHIN_S: u64 = 300;

/// Least and most that may be asked for: whoever confirms has to reach the device again first.
pub const WITHIN_RANGE_S: (u64, u64) = (5, 3600);

/// Whether a change waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// What is in force is what boots.
    Settled,
    /// A change waits for its confirmation until then.
    Waiting {
        /// Seconds since the kernel began.
        until_s: u64,
    },
}

/// A new text beside the one that boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// It is the same.
    Same,
    /// It differs, but in nothing of the network.
    SameNetwork,
    /// The network differs.
    OtherNetwork,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody wants a new text, and would confirm it within so many seconds.
    Change(Beside, u64),
    /// Somebody can reach the device.
    Confirm,
    /// Time has passed.
    Look,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Nothing,
    /// The new text, or the one on trial, is written to the disk; there is no trial any more.
    Keep,
    /// The new text is in force until then, on trial.
    Try {
        /// Seconds since the kernel began.
        until_s: u64,
    },
    /// What boots is in force again; there is no trial any more.
    Revert,
}

/// What an event leads to. A trial that is over is reverted first, whatever else was wanted.
pub fn next(state: State, event: Event, now_s: u64) -> Step {
    let is_waiting = match state {
        State::Settled => false,
        State::Waiting { until_s } if until_s <= now_s => return Step::Revert,
        State::Waiting { .. } => true,
    };
    match event {
        Event::Change(Beside::Same, _) if is_waiting => Step::Revert,
        Event::Change(Beside::Same, _) => Step::Nothing,
        Event::Change(Beside::SameNetwork, _) => Step::Keep,
        Event::Change(Beside::OtherNetwork, within_s) => {
            Step::Try { until_s: now_s.saturating_add(within_s) }
        }
        Event::Confirm if is_waiting => Step::Keep,
        Event::Confirm | Event::Look => Step::Nothing,
    }
}

/// Seconds that are left to confirm, if a change waits.
pub fn left_s(state: State, now_s: u64) -> Option<u64> {
    match state {
        State::Settled => None,
        State::Waiting { until_s } => Some(until_s.saturating_sub(now_s)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1000;

    #[test]
    fn every_event_in_every_state_leads_where_the_table_says() {
        use Beside::{OtherNetwork, Same, SameNetwork};
        use Event::{Change, Confirm, Look};
        let waiting = State::Waiting { until_s: NOW + 1 };
        let over = State::Waiting { until_s: NOW };
        let on_trial = Step::Try { until_s: NOW + 300 };
        for (event, settled, while_waiting) in [
            (Change(Same, 300), Step::Nothing, Step::Revert),
            (Change(SameNetwork, 300), Step::Keep, Step::Keep),
            (Change(OtherNetwork, 300), on_trial, on_trial),
            (Confirm, Step::Nothing, Step::Keep),
            (Look, Step::Nothing, Step::Nothing),
        ] {
            assert_eq!(next(State::Settled, event, NOW), settled, "{event:?}");
            assert_eq!(next(waiting, event, NOW), while_waiting, "{event:?}");
            assert_eq!(next(over, event, NOW), Step::Revert, "{event:?}, too late");
        }
    }

    #[test]
    fn the_seconds_that_are_left_end_at_zero() {
        let left = |now_s| left_s(State::Waiting { until_s: 1000 }, now_s);
        assert_eq!((left(990), left(1000), left(2000)), (Some(10), Some(0), Some(0)));
        assert_eq!(left_s(State::Settled, 5), None);
    }
}
