//! A system on trial: what is noted about it, and when it has failed.
//!
//! The loader counts trials; this side ends one that does not succeed, so that the loader gets its
//! turn. The verdict comes from one service (`health` in `ondisk::system`), which commits by
//! itself; here its end is awaited, for a limited time. How far the trial has come and why it ended
//! goes to the trial log beside the record, where the system that is started next finds it.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

use ondisk::boot_args::BootArgs;
use ondisk::boot_record::TRIES;
use ondisk::device::FileDevice;
use ondisk::system::Health;
use ondisk::trial_log::{self, Note};
use rustix::fs::OFlags;

use crate::disk::RecordPlace;
use crate::failure::{Context, Result};
use crate::log::say;

/// A trial that has not been judged.
#[derive(Debug)]
pub(crate) struct Trial {
    note: Note,
    place: Option<RecordPlace>,
    health: Option<Health>,
    /// When it has failed, in milliseconds of the monotonic clock.
    deadline_ms: u64,
}

/// What the end of a service means for the trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing.
    Open,
    /// It is committed.
    Passed,
    /// The machine has to restart.
    Failed,
}

/// The limit of a system that does not say how it is judged.
const NO_HEALTH_LIMIT_S: u32 = 3600;

impl Trial {
    /// The trial this start is, if it is one that is counted. A start as a last resort is none:
    /// nothing would be gained by ending it.
    pub(crate) fn of(
        args: &BootArgs,
        place: Option<RecordPlace>,
        health: Option<Health>,
        now_ms: u64,
    ) -> Option<Self> {
        let counted = (1..=TRIES).contains(&args.attempt) && !args.safe;
        let limit_s = health.as_ref().map_or(NO_HEALTH_LIMIT_S, |health| health.limit_s);
        let note = Note {
            slot: args.slot,
            attempt: args.attempt,
            version: args.version.clone(),
            stage: "start of PID 1".to_owned(),
            cause: None,
            kernel: String::new(),
        };
        let deadline_ms = now_ms.saturating_add(u64::from(limit_s).saturating_mul(1000));
        counted.then_some(Self { note, place, health, deadline_ms })
    }

    /// When it is to be asked again at the latest.
    pub(crate) fn deadline_ms(&self) -> u64 {
        self.deadline_ms
    }

    /// Notes a stage that was reached. A log that cannot be written is no reason to stop.
    pub(crate) fn reached(&mut self, stage: &str) {
        stage.clone_into(&mut self.note.stage);
        self.write();
    }

    /// Whether it is over by time alone.
    pub(crate) fn is_late(&self, now_ms: u64) -> bool {
        now_ms >= self.deadline_ms
    }

    /// What the end of a service means.
    pub(crate) fn after(&self, service: &str, success: bool) -> Verdict {
        match &self.health {
            Some(health) if health.service == service && success => Verdict::Passed,
            Some(health) if health.service == service => Verdict::Failed,
            _ => Verdict::Open,
        }
    }

    /// Keeps why it failed, with the kernel's last lines.
    pub(crate) fn failed(&mut self, cause: &str) {
        say(&format!("trial {} failed: {cause}", self.note.attempt));
        self.note.cause = Some(cause.to_owned());
        self.note.kernel = kernel_lines();
        self.write();
    }

    fn write(&self) {
        if let Some(place) = &self.place
            && let Err(failure) = write(place, &self.note)
        {
            say(&format!("trial log: {failure}"));
        }
    }
}

fn write(place: &RecordPlace, note: &Note) -> Result<()> {
    let disk = place.disk.display();
    let file = OpenOptions::new().read(true).write(true).open(&place.disk).context(&disk)?;
    let mut device = FileDevice::new(file).context(&disk)?;
    trial_log::write(&mut device, place.extent, note).context(&disk)
}

/// What the kernel said last, one line each with its time, as much as a note can hold.
///
/// A record of /dev/kmsg is `priority,number,microseconds,flags;text` and is read whole at once
/// (Documentation/ABI/testing/dev-kmsg).
fn kernel_lines() -> String {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let Ok(mut file) = OpenOptions::new().read(true).custom_flags(flags).open("/dev/kmsg") else {
        return String::new();
    };
    let mut text = String::new();
    let mut record = [0; 8192];
    loop {
        match file.read(&mut record) {
            Ok(0) => return text,
            Ok(length) => {
                let record = String::from_utf8_lossy(record.get(..length).unwrap_or_default());
                text.extend(kernel_line(&record));
                let surplus = text.len().saturating_sub(2 * trial_log::MAX_KERNEL_BYTES);
                // Cut at a line's end, which is a character's as well.
                if let Some(end) = text.get(surplus..).and_then(|rest| rest.find('\n'))
                    && surplus > 0
                {
                    text.drain(..=surplus + end);
                }
            }
            // The oldest records were overwritten while they were read: go on with the next.
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
            Err(_) => return text,
        }
    }
}

fn kernel_line(record: &str) -> Option<String> {
    let (head, rest) = record.split_once(';')?;
    let microseconds: u64 = head.split(',').nth(2)?.parse().ok()?;
    let text = rest.lines().next()?;
    let (seconds, fraction) = (microseconds / 1_000_000, microseconds % 1_000_000 / 1000);
    Some(format!("[{seconds:5}.{fraction:03}] {text}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(attempt: u8, safe: bool) -> BootArgs {
        let zeros = "00".repeat(32);
        let mut args = BootArgs::parse(&format!(
            "iota.slot=b iota.attempt={attempt} iota.disk=0badcafe \
             iota.verity={zeros},{zeros},3,3 iota.version=2.0"
        ))
        .unwrap();
        args.safe = safe;
        args
    }

    fn health() -> Health {
        Health { service: "health".to_owned(), window_s: 60, limit_s: 600 }
    }

    #[test]
    fn only_a_counted_start_is_a_trial() {
        let is_trial = |attempt, safe| Trial::of(&args(attempt, safe), None, None, 0).is_some();
        assert!((1..=TRIES).all(|attempt| is_trial(attempt, false)));
        assert!(!is_trial(0, false), "proven");
        assert!(!is_trial(TRIES + 1, false), "not counted");
        assert!(!is_trial(1, true), "safe mode");
    }

    #[test]
    fn the_health_service_alone_decides_until_time_is_up() {
        let trial = Trial::of(&args(1, false), None, Some(health()), 5_000).unwrap();
        assert_eq!(trial.after("docker", false), Verdict::Open);
        assert_eq!(trial.after("health", true), Verdict::Passed);
        assert_eq!(trial.after("health", false), Verdict::Failed);
        assert!(!trial.is_late(604_999));
        assert!(trial.is_late(605_000));
    }

    #[test]
    fn a_system_that_nobody_judges_has_an_hour() {
        let trial = Trial::of(&args(1, false), None, None, 0).unwrap();
        assert_eq!(trial.after("health", true), Verdict::Open);
        assert_eq!(trial.deadline_ms(), 3_600_000);
    }

    #[test]
    fn a_stage_and_a_cause_reach_the_log() {
        let extent = ondisk::layout::Extent { offset: 4096, length: 8 << 20 };
        let disk = std::env::temp_dir().join(format!("iota-trial-{}", std::process::id()));
        let file = std::fs::File::create(&disk).unwrap();
        file.set_len(extent.offset + extent.length).unwrap();
        let place = RecordPlace { disk: disk.clone(), extent };
        let mut trial = Trial::of(&args(2, false), Some(place), Some(health()), 0).unwrap();
        let read = || {
            let file = std::fs::File::open(&disk).unwrap();
            trial_log::read(&FileDevice::new(file).unwrap(), extent).unwrap()
        };
        trial.reached("engine started");
        assert_eq!((read().stage.as_str(), read().cause), ("engine started", None));
        trial.failed("engine docker does not answer");
        assert_eq!(read().cause.as_deref(), Some("engine docker does not answer"));
        assert_eq!((read().attempt, read().version.as_str()), (2, "2.0"));
        std::fs::remove_file(&disk).unwrap();
    }

    #[test]
    fn a_kernel_record_becomes_a_line() {
        let record = "6,339,5140900,-;NET: Registered PF_INET6\n SUBSYSTEM=net\n";
        let expected = "[    5.140] NET: Registered PF_INET6\n";
        assert_eq!(kernel_line(record).as_deref(), Some(expected));
        assert_eq!(kernel_line("nonsense"), None);
    }
}
