//! The clock of a machine that may have none: many boards start in 1970.
//!
//! It is never before the day on which the running kernel was made, which its signed image says,
//! and never before the time that this system kept on its data partition, or that was signed into a
//! channel which the agent has accepted. Programs that ask the network for the time go on from
//! there; until they have, certificates of today are valid.

use std::fs::{self, File};
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ondisk::calendar::{Day, days_since_epoch};
use ondisk::system::SIGNED_TIME;
use rustix::time::{ClockId, Timespec, clock_settime};

use crate::failure::{Context, Result};
use crate::log::say;

/// Its time of modification is the time that was kept.
const KEPT: &str = "/data/iota/clock";
/// How often the time is kept.
const EVERY_MS: u64 = 3_600_000;
/// A time this long after the kernel's day was never right.
const LONGEST: Duration = Duration::from_secs(20 * 365 * 86_400);

/// Keeps the clock from going back over restarts.
#[derive(Debug)]
pub(crate) struct Clock {
    /// The day of the running kernel.
    floor: SystemTime,
    /// By the clock that runs since the kernel's start.
    next_ms: u64,
}

impl Clock {
    /// Sets the clock to the day of the kernel if it is before; `version` is its own text
    /// (`utsname`).
    pub(crate) fn start(version: &str) -> Self {
        let floor = day_of(version).map_or(UNIX_EPOCH, |day| UNIX_EPOCH + day);
        raise_to(floor, "the day of the kernel");
        Self { floor, next_ms: 0 }
    }

    /// Sets the clock to what the data partition knows, if it is before that.
    pub(crate) fn go_on(&mut self, now_ms: u64) {
        self.next_ms = now_ms.saturating_add(EVERY_MS);
        let known = [(KEPT, "the time that was kept"), (SIGNED_TIME, "the time that was signed")];
        for (path, what) in known {
            if let Ok(time) = fs::metadata(path).and_then(|file| file.modified())
                && is_plausible(time, self.floor)
            {
                raise_to(time, what);
            }
        }
    }

    /// Keeps the time once an hour, whenever PID 1 is awake for something else.
    pub(crate) fn keep_at(&mut self, now_ms: u64) {
        if now_ms >= self.next_ms {
            self.next_ms = now_ms.saturating_add(EVERY_MS);
            // Beside the main loop, which waits for no disk.
            let _ = thread::Builder::new().name("clock".into()).spawn(keep);
        }
    }
}

/// Keeps the time. On a machine without data there is nowhere to.
pub(crate) fn keep() {
    let _ = write(Path::new(KEPT), SystemTime::now());
}

fn write(path: &Path, time: SystemTime) -> std::io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let file = File::options().write(true).create(true).truncate(false).open(path)?;
    file.set_modified(time)
}

fn raise_to(least: SystemTime, what: &str) {
    if SystemTime::now() >= least {
        return;
    }
    match set(least) {
        Ok(()) => {
            let since = least.duration_since(UNIX_EPOCH).unwrap_or_default();
            say(&format!("clock set to {what}: {} UTC", Day(since.as_secs())));
        }
        Err(failure) => say(&format!("clock: {failure}")),
    }
}

fn set(time: SystemTime) -> Result<()> {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let tv_sec = i64::try_from(since.as_secs()).context("clock_settime")?;
    let time = Timespec { tv_sec, tv_nsec: since.subsec_nanos().into() };
    clock_settime(ClockId::Realtime, time).context("clock_settime")
}

/// A file can say anything; a clock far in the future would make all certificates invalid.
fn is_plausible(kept: SystemTime, floor: SystemTime) -> bool {
    floor > UNIX_EPOCH && kept > floor && kept < floor + LONGEST
}

/// The date in `#1 SMP Debian 6.12.117-1 (2026-11-08)`, as time since 1970; `None` without one.
fn day_of(version: &str) -> Option<Duration> {
    let (_, date) = version.trim_end().strip_suffix(')')?.rsplit_once('(')?;
    let mut numbers = date.split('-').map(str::parse::<i64>);
    let (year, month, day) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
    let valid =
        (1970..=2199).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    let days = u64::try_from(days_since_epoch(year, month, day)).ok();
    let days = days.filter(|_| valid && numbers.next().is_none());
    days.map(|days| Duration::from_secs(days * 86_400))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Days since 1970, as `date --date=… +%s` has them.
    const DAYS: [(u64, &str); 7] = [
        (0, "1970-01-01"),
        (59, "1970-03-01"),
        (11_016, "2000-02-29"),
        (11_017, "2000-03-01"),
        (20_819, "2027-01-01"),
        (20_818, "2026-12-31"),
        (47_541, "2100-03-01"),
    ];

    #[test]
    fn a_kernel_tells_its_day_and_a_day_is_told_as_people_write_it() {
        for (days, text) in DAYS {
            let time = Duration::from_secs(days * 86_400);
            assert_eq!(day_of(&format!("#1 SMP Debian 6.12.1-1 ({text})")), Some(time), "{text}");
            let evening = time + Duration::from_secs(86_399);
            assert_eq!(Day(evening.as_secs()).to_string(), text);
        }
    }

    #[test]
    fn a_kernel_without_a_day_has_none() {
        for version in
            ["#1 SMP PREEMPT_DYNAMIC Sat Nov 21 09:15:44 UTC 2026", "", "(2026-13-01)", "(2026-11)"]
        {
            assert_eq!(day_of(version), None, "{version}");
        }
    }

    #[test]
    fn a_time_that_was_kept_counts_for_twenty_years_from_the_kernels_day_on() {
        let floor = UNIX_EPOCH + Duration::from_secs(1_795_000_000);
        let year = Duration::from_secs(365 * 86_400);
        assert!(is_plausible(floor + year, floor));
        assert!(!is_plausible(floor - year, floor));
        assert!(!is_plausible(floor + 21 * year, floor));
        assert!(!is_plausible(floor + year, UNIX_EPOCH), "nothing to hold it against");
    }

    #[test]
    fn the_time_is_kept_in_a_file() {
        let directory = std::env::temp_dir().join(format!("iota-clock-{}", std::process::id()));
        let path = directory.join("iota/clock");
        let time = UNIX_EPOCH + Duration::from_secs(1_795_000_000);
        for time in [time, time + LONGEST] {
            write(&path, time).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), time);
        }
        fs::remove_dir_all(directory).unwrap();
    }
}
