//! `iota update follow`: looks for updates from time to time and does what the owner wants with
//! them. What touches network and disk is a process of its own each time, so that one that hangs or
//! is ended for want of memory takes nothing with it.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use config::Update;
use config::update::Automatic;
use ondisk::digest::Digest;

use super::report::Report;
use super::session::Places;
use crate::console::Console;
use crate::time::now_s;

/// What the loop needs from around it.
pub trait World {
    /// Runs this `iota` command to its end; its exit status.
    fn run(&mut self, words: &[&str]) -> u8;
    /// Tells people.
    fn say(&mut self, line: &str);
}

/// The real one: commands of this program as processes of their own.
pub struct Children<'a> {
    /// Where people look.
    pub console: &'a Console,
    /// This program.
    pub program: PathBuf,
}

impl World for Children<'_> {
    fn run(&mut self, words: &[&str]) -> u8 {
        let mut command = Command::new(&self.program);
        // What they say is in the report.
        command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let code = command.status().ok().and_then(|status| status.code());
        code.and_then(|code| u8::try_from(code).ok()).unwrap_or(2)
    }

    fn say(&mut self, line: &str) {
        self.console.say(line);
    }
}

/// The first look comes within so long after the start: not every device of a house that had no
/// power asks in the same second.
const FIRST_S: u64 = 60;
/// After trouble it is tried again sooner than the owner's interval.
const AFTER_TROUBLE_S: u64 = 600;
/// Looks after a start that are tried again within a minute or two: the network may still come up.
const SOON_ROUNDS: u64 = 3;
/// How often the time of the day is looked at while an update waits for it.
const TICK: Duration = Duration::from_secs(30);

/// Follows the channel until there is no server to ask.
pub fn follow(places: &Places, world: &mut dyn World) -> Result<(), String> {
    let machine_id = places.machine_id();
    let mut round = 0;
    let mut wait_s = spread(&machine_id, round, FIRST_S);
    loop {
        let begin = Instant::now();
        while begin.elapsed().as_secs() < wait_s {
            thread::sleep(TICK.min(Duration::from_secs(wait_s)));
            if let Some((update, critical)) = waiting(places)
                && (critical || is_time(&update, now_s()))
            {
                world.say("update: restarts into what is installed");
                world.run(&["reboot"]);
            }
        }
        let update = places.update()?;
        if update.source().is_none() {
            return Ok(());
        }
        round += 1;
        let fine = one_round(places, &update, world);
        if update.report().is_some() {
            world.run(&["update", "report"]);
        }
        let every_s = u64::from(update.every_min()) * 60;
        wait_s = if fine || round > SOON_ROUNDS {
            next_s(every_s, spread(&machine_id, round, every_s), fine)
        } else {
            FIRST_S / 2 + spread(&machine_id, round, FIRST_S)
        };
    }
}

/// Looks, and installs if that is wanted; whether all went well.
fn one_round(places: &Places, update: &Update, world: &mut dyn World) -> bool {
    let before = Report::read(&places.report);
    let mut code = world.run(&["update", "check"]);
    let mut now = Report::read(&places.report).unwrap_or_default();
    if now.verdict == "install" && update.automatic() != Automatic::Check {
        code = world.run(&["update", "install"]);
        now = Report::read(&places.report).unwrap_or_default();
    }
    if now.verdict == "withdrawn" || now.verdict == "revoked" {
        // Nothing to do if it is not the one that waits: then it is not this one's business.
        world.run(&["update", "cancel"]);
    }
    let line = now.line();
    if before.is_none_or(|before| before.line() != line) && !line.is_empty() {
        world.say(&format!("update: {line}"));
    }
    code != 2
}

/// The owner's wishes, if an update waits for a restart that the device makes by itself, and
/// whether it is one that does not wait for the owner's hours.
fn waiting(places: &Places) -> Option<(Update, bool)> {
    let report = Report::read(&places.report).filter(|report| report.verdict == "staged")?;
    let update = places.update().ok()?;
    let by_itself = update.source().is_some() && update.automatic() == Automatic::Install;
    by_itself.then_some((update, report.critical))
}

fn is_time(update: &Update, now_s: u64) -> bool {
    update.window().is_none_or(|window| window.holds(now_s))
}

/// A number below `limit`, another one for each device and round.
fn spread(machine_id: &str, round: u64, limit: u64) -> u64 {
    let digest = Digest::of(format!("iota-spread {machine_id} {round}").as_bytes());
    let [a, b, c, d, ..] = *digest.as_bytes();
    u64::from(u32::from_be_bytes([a, b, c, d])) % limit.max(1)
}

/// Seconds to the next look: the interval, give or take a quarter.
fn next_s(every_s: u64, spread: u64, fine: bool) -> u64 {
    let wanted = if fine { every_s } else { every_s.min(AFTER_TROUBLE_S) };
    wanted * 3 / 4 + spread % (wanted / 2).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_a_quarter_around_the_interval_and_sooner_after_trouble() {
        for spread in [0, 1, 10_000, u64::from(u32::MAX)] {
            assert!((16_200..27_000).contains(&next_s(21_600, spread, true)));
            assert!((450..750).contains(&next_s(21_600, spread, false)));
            assert!((225..375).contains(&next_s(300, spread, false)));
        }
    }

    #[test]
    fn devices_and_rounds_are_spread() {
        let all: Vec<u64> = (0..100).map(|round| spread("a", round, 1000)).collect();
        assert!(all.iter().all(|number| *number < 1000));
        assert!(all.iter().filter(|number| **number < 500).count() > 30);
        assert_ne!(spread("a", 0, 1 << 30), spread("b", 0, 1 << 30));
    }
}
