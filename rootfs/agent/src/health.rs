//! `iota health`: judges a system on trial, and commits it when it is fit.
//!
//! Fit means: the engine answers, every declared container runs, and every service of every app
//! runs or is healthy by its own check, without a break for the window that the image declares. A
//! container that the engine had to start again is such a break. No network is needed for that. How
//! long it may take in all is PID 1's affair, which started this and restarts the machine if it
//! fails.

use std::time::Duration;

use ondisk::boot_args::BootArgs;
use ondisk::boot_record::TRIES;

use crate::apps::state::AppState;
use crate::status::Status;

/// Pause between two looks.
pub const PACE: Duration = Duration::from_secs(1);

/// Whether this start is one that has to be judged: a counted trial, or one whose count could not
/// be written and that may still be committed.
pub fn is_asked(boot: &BootArgs) -> bool {
    boot.attempt > 0 && !boot.safe
}

/// Whether a commit that fails ends the trial: if it was counted, the next start can try again.
pub fn is_counted(boot: &BootArgs) -> bool {
    boot.attempt <= TRIES
}

/// How long everything has been well.
#[derive(Debug)]
pub struct Gate {
    window: Duration,
    well_since: Option<Duration>,
    told: Option<String>,
    restarts: u64,
}

/// What one look comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is not over; a line to print if there is news.
    Wait(Option<String>),
    /// Everything ran for the whole window.
    Fit,
}

impl Gate {
    /// A gate that opens after `window`.
    pub fn new(window: Duration) -> Self {
        Self { window, well_since: None, told: None, restarts: 0 }
    }

    /// Takes in what was seen at `now`, a time that only grows: nothing amiss, or what.
    pub fn look(&mut self, now: Duration, amiss: Option<String>) -> Verdict {
        let Some(reason) = amiss else {
            let since = *self.well_since.get_or_insert(now);
            if now.saturating_sub(since) >= self.window {
                return Verdict::Fit;
            }
            let seconds = self.window.as_secs();
            return self.tell(format!("trial: everything runs; waiting {seconds} s"));
        };
        self.well_since = None;
        self.tell(format!("trial: waiting for {reason}"))
    }

    /// Takes in how often containers have been started again so far: more than at the last look is
    /// a break, even if all of them run now.
    pub fn count(&mut self, restarts: u64) {
        if restarts != self.restarts {
            self.restarts = restarts;
            self.well_since = None;
        }
    }

    fn tell(&mut self, line: String) -> Verdict {
        if self.told.as_ref() == Some(&line) {
            return Verdict::Wait(None);
        }
        self.told = Some(line.clone());
        Verdict::Wait(Some(line))
    }
}

/// What keeps a system from being fit, if anything does.
pub fn amiss(status: &Status) -> Option<String> {
    if let Some((name, Err(error))) = &status.engine {
        return Some(format!("engine {name}: {error}"));
    }
    match &status.apps {
        Err(error) => return Some(format!("apps: {error}")),
        Ok(apps) => {
            if let Some(amiss) = apps.iter().find_map(AppState::amiss) {
                return Some(amiss);
            }
        }
    }
    let waiting = status.declared.iter().find(|name| !status.runs(name));
    waiting.map(|name| format!("container {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    fn news(line: &str) -> Verdict {
        Verdict::Wait(Some(line.to_owned()))
    }

    #[test]
    fn a_window_without_a_break_is_fit() {
        let mut gate = Gate::new(seconds(60));
        let engine = || Some("engine docker: no answer".to_owned());
        assert_eq!(
            gate.look(seconds(0), engine()),
            news("trial: waiting for engine docker: no answer")
        );
        assert_eq!(gate.look(seconds(1), engine()), Verdict::Wait(None), "said once");
        assert_eq!(gate.look(seconds(10), None), news("trial: everything runs; waiting 60 s"));
        assert_eq!(gate.look(seconds(69), None), Verdict::Wait(None));
        assert_eq!(gate.look(seconds(70), None), Verdict::Fit);
    }

    #[test]
    fn a_break_starts_the_window_again() {
        let mut gate = Gate::new(seconds(60));
        gate.look(seconds(0), None);
        let container = Some("container web".to_owned());
        assert_eq!(gate.look(seconds(59), container), news("trial: waiting for container web"));
        assert_eq!(gate.look(seconds(60), None), news("trial: everything runs; waiting 60 s"));
        assert_eq!(gate.look(seconds(119), None), Verdict::Wait(None));
        assert_eq!(gate.look(seconds(120), None), Verdict::Fit);
    }

    #[test]
    fn a_container_that_was_started_again_starts_the_window_again() {
        let mut gate = Gate::new(seconds(60));
        gate.look(seconds(0), None);
        gate.count(1);
        assert_eq!(gate.look(seconds(60), None), Verdict::Wait(None));
        gate.count(1);
        assert_eq!(gate.look(seconds(120), None), Verdict::Fit);
    }

    #[test]
    fn proven_systems_and_safe_mode_are_not_judged() {
        let zeros = "00".repeat(32);
        let line = format!(
            "iota.slot=b iota.attempt=1 iota.disk=0badcafe \
             iota.verity={zeros},{zeros},3,3 iota.version=2.0"
        );
        let mut boot = BootArgs::parse(&line).unwrap();
        assert!(is_asked(&boot) && is_counted(&boot));
        boot.attempt = TRIES + 1;
        assert!(is_asked(&boot) && !is_counted(&boot));
        boot.safe = true;
        assert!(!is_asked(&boot));
        boot.attempt = 0;
        assert!(!is_asked(&boot));
    }
}
