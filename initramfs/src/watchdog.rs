//! The hardware watchdog: fed from the main loop, so that it bites when PID 1 hangs.
//!
//! The letter that disarms it is never written: a watchdog that is closed on the way down must
//! still fire if the way down hangs.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::IntoRawFd;
use std::path::Path;
use std::thread;
use std::time::Duration;

use ondisk::virtual_machine;
use rustix::io::FdFlags;

use crate::log::{now_ms, say};
use crate::sys;

/// Longest pause between two feedings.
const LONGEST_PAUSE_MS: u64 = 5_000;

/// An open watchdog.
#[derive(Debug)]
pub(crate) struct Watchdog {
    file: File,
    pause_ms: u64,
    next_ms: u64,
}

impl Watchdog {
    /// Opens the machine's watchdog, which starts it, unless that would reset the machine.
    pub(crate) fn open(now_ms: u64) -> Option<Self> {
        if Path::new(virtual_machine::PATH).exists() {
            return None;
        }
        let file = OpenOptions::new().write(true).open("/dev/watchdog").ok()?;
        say("watchdog armed");
        Some(Self::feeding(file, now_ms))
    }

    /// Takes over what an earlier stage armed and handed over under this number.
    pub(crate) fn inherit(number: &str, now_ms: u64) -> Option<Self> {
        let file = File::from(sys::inherited(number.parse().ok()?)?);
        Some(Self::feeding(file, now_ms))
    }

    /// Lets the program that is started next have it; gives the number to hand over.
    pub(crate) fn hand_over(self) -> Option<i32> {
        rustix::io::fcntl_setfd(&self.file, FdFlags::empty()).ok()?;
        Some(self.file.into_raw_fd())
    }

    fn feeding(file: File, now_ms: u64) -> Self {
        let timeout = fs::read_to_string("/sys/class/watchdog/watchdog0/timeout");
        let timeout = timeout.ok().and_then(|text| text.trim().parse().ok());
        let pause_ms = pause_for(timeout);
        let mut watchdog = Self { file, pause_ms, next_ms: 0 };
        watchdog.feed(now_ms);
        watchdog
    }

    /// Feeds it if it is time; to be called in every round of the main loop.
    pub(crate) fn feed(&mut self, now_ms: u64) {
        if now_ms >= self.next_ms {
            // A failure cannot be answered by anything better than trying again.
            let _ = self.file.write_all(&[0]);
            self.next_ms = now_ms.saturating_add(self.pause_ms);
        }
    }

    /// Feeds it beside the caller, who is about to wait, for a limited time.
    pub(crate) fn feed_beside(mut self, limit_ms: u64) {
        let deadline = now_ms().saturating_add(limit_ms);
        let feed = move || {
            while now_ms() < deadline {
                self.feed(now_ms());
                thread::sleep(Duration::from_millis(self.pause_ms));
            }
            // It stays open, and nobody feeds it from now on.
            thread::sleep(Duration::MAX);
        };
        // Without the thread it may bite early, which ends the machine as was wanted anyway.
        let _ = thread::Builder::new().name("watchdog".into()).spawn(feed);
    }

    /// When it wants to be fed again.
    pub(crate) fn next_ms(&self) -> u64 {
        self.next_ms
    }
}

/// A third of the timeout: two feedings may come late.
fn pause_for(timeout_seconds: Option<u64>) -> u64 {
    let third = timeout_seconds.unwrap_or(15).saturating_mul(1000) / 3;
    third.clamp(250, LONGEST_PAUSE_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_fed_three_times_in_its_timeout_or_more() {
        assert_eq!(pause_for(Some(30)), 5_000);
        assert_eq!(pause_for(Some(6)), 2_000);
        assert_eq!(pause_for(Some(0)), 250);
        assert_eq!(pause_for(Some(u64::MAX)), 5_000);
        assert_eq!(pause_for(None), 5_000);
    }
}
