//! How the machine goes down: what asks for it, and the last steps.
//!
//! | asks | then |
//! |---|---|
//! | power key, SIGTERM, SIGINT (ctrl-alt-del), SIGPWR | power off |
//! | SIGHUP | restart |

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount_remount, unmount};
use rustix::process::{WaitOptions, wait};
use rustix::system::{RebootCommand, reboot};

use crate::clock;
use crate::data::DATA;
use crate::log::{self, now_ms, say};
use crate::sys;
use crate::watchdog::Watchdog;

/// Signals PID 1 takes from its file; all others are ignored by the kernel for PID 1.
pub(crate) const SIGNALS: &[i32] =
    &[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGPWR, libc::SIGHUP];

/// How the machine ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Switch it off.
    PowerOff,
    /// Start it again.
    Restart,
}

/// What a signal asks for, and the reason to print.
pub(crate) fn asked_by(signal: i32) -> Option<(End, &'static str)> {
    match signal {
        libc::SIGTERM => Some((End::PowerOff, "SIGTERM")),
        libc::SIGINT => Some((End::PowerOff, "SIGINT")),
        libc::SIGPWR => Some((End::PowerOff, "SIGPWR")),
        libc::SIGHUP => Some((End::Restart, "SIGHUP")),
        _ => None,
    }
}

/// A device with a power key.
#[derive(Debug)]
pub(crate) struct PowerKey(pub(crate) File);

/// `KEY_POWER` of linux/input-event-codes.h.
const KEY_POWER: usize = 116;
/// `EV_KEY`: a key changed.
const KEY_EVENT: u16 = 1;
/// Bytes of an event on a 64-bit kernel: time, type, code, value.
const EVENT_BYTES: usize = 24;

impl PowerKey {
    /// Opens an input device (`input/event0`) if it has a power key.
    pub(crate) fn open(node: &str) -> Option<Self> {
        let name = node.strip_prefix("input/")?;
        let keys = format!("/sys/class/input/{name}/device/capabilities/key");
        if !name.starts_with("event") || !has_key(&fs::read_to_string(keys).ok()?, KEY_POWER) {
            return None;
        }
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
        let path = Path::new("/dev").join(node);
        fs::OpenOptions::new().read(true).custom_flags(flags).open(path).ok().map(Self)
    }

    /// All power keys that are there.
    pub(crate) fn open_all() -> Vec<Self> {
        let Ok(entries) = fs::read_dir("/sys/class/input") else { return Vec::new() };
        let nodes = entries.flatten().map(|entry| entry.file_name());
        nodes.filter_map(|name| Self::open(&format!("input/{}", name.to_str()?))).collect()
    }

    /// Reads what there is; `None` when the device is gone, else whether the key was pressed.
    pub(crate) fn pressed(&mut self) -> Option<bool> {
        let mut bytes = [0; EVENT_BYTES * 16];
        match self.0.read(&mut bytes) {
            Ok(0) => None,
            Ok(length) => Some(bytes[..length].chunks_exact(EVENT_BYTES).any(is_press)),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => None,
            Err(_) => Some(false),
        }
    }
}

/// Whether a bitmap of sysfs (64-bit words in hex, highest first) has this bit.
fn has_key(bitmap: &str, key: usize) -> bool {
    let word = bitmap.split_whitespace().rev().nth(key / 64);
    let word = word.and_then(|word| u64::from_str_radix(word, 16).ok()).unwrap_or(0);
    word >> (key % 64) & 1 == 1
}

fn is_press(event: &[u8]) -> bool {
    let field = |at: usize| event.get(at..at + 2).and_then(|bytes| bytes.try_into().ok());
    let kind = field(16).map(u16::from_ne_bytes);
    let code = field(18).map(u16::from_ne_bytes);
    // The value is 1 for a press, 2 for a repeat, 0 for a release.
    let value = field(20).map(u16::from_ne_bytes);
    kind == Some(KEY_EVENT) && code.map(usize::from) == Some(KEY_POWER) && value == Some(1)
}

/// How long containers and other processes that no service owns get from SIGTERM to SIGKILL: what
/// engines give a container that is stopped.
const GRACE_MS: u64 = 10_000;

/// How long the disks may take for their last writes before the watchdog may end it.
const UNMOUNT_MS: u64 = 120_000;

/// The last steps, when no service is left: nobody may write any more, then the disk is made whole.
pub(crate) fn finish(end: End, mut watchdog: Option<Watchdog>) -> ! {
    // An engine may leave its containers running when it stops; this is how they are asked.
    sys::signal_all(libc::SIGTERM);
    if !all_ended(GRACE_MS, &mut watchdog) {
        say("processes do not stop: SIGKILL");
        sys::signal_all(libc::SIGKILL);
        all_ended(GRACE_MS, &mut watchdog);
    }
    // Writing everything to a slow card may take longer than the watchdog waits.
    if let Some(watchdog) = watchdog {
        watchdog.feed_beside(UNMOUNT_MS);
    }
    clock::keep();
    unmount_all();
    rustix::fs::sync();
    say(match end {
        End::PowerOff => "power off",
        End::Restart => "restart",
    });
    log::drain();
    match end {
        End::PowerOff => {
            // Without a way to switch off, starting again is better than hanging.
            let error = reboot(RebootCommand::PowerOff);
            say(&format!("power off failed: {error:?}"));
            restart_now()
        }
        End::Restart => restart_now(),
    }
}

/// Waits until no process is left, for a while. An orphan becomes a child of PID 1, so no child
/// means no process.
fn all_ended(patience_ms: u64, watchdog: &mut Option<Watchdog>) -> bool {
    let deadline = now_ms().saturating_add(patience_ms);
    loop {
        match wait(WaitOptions::NOHANG) {
            Err(Errno::CHILD) => return true,
            Ok(Some(_)) => continue,
            Ok(None) | Err(_) => {}
        }
        let now = now_ms();
        if now >= deadline {
            return false;
        }
        if let Some(watchdog) = watchdog {
            watchdog.feed(now);
        }
        log::flush();
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Restarts the machine at once.
pub(crate) fn restart_now() -> ! {
    log::drain();
    rustix::fs::sync();
    let error = reboot(RebootCommand::Restart);
    say(&format!("restart failed: {error:?}"));
    // The kernel panics when PID 1 ends, and restarts after its `panic=` seconds.
    std::process::exit(1)
}

fn unmount_all() {
    // A process that just died may hold a mount for a moment longer.
    for attempt in 0..20 {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = to_unmount(&mounts);
        if points.is_empty() {
            break;
        }
        let left =
            points.iter().filter(|point| unmount(point.as_str(), UnmountFlags::empty()).is_err());
        if left.count() == 0 {
            break;
        }
        if attempt == 19 {
            last_resort();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A data partition that is still in use is at least made clean.
fn last_resort() {
    match mount_remount(DATA, MountFlags::RDONLY, c"") {
        Ok(()) => say("data is still in use; made read-only"),
        Err(error) => say(&format!("data is still in use and stays writable: {error}")),
    }
}

/// Mount points that hold or show a disk's data, the last mounted first.
fn to_unmount(mountinfo: &str) -> Vec<String> {
    let mut points: Vec<String> = mountinfo.lines().filter_map(disk_mount).collect();
    points.reverse();
    points
}

/// The mount point of a line of mountinfo (proc_pid_mountinfo(5)) unless it is the root or one of
/// the kernel's own file systems.
fn disk_mount(line: &str) -> Option<String> {
    let (mount, source) = line.split_once(" - ")?;
    let point = unescaped(mount.split(' ').nth(4)?);
    let kind = source.split(' ').next()?;
    let holds_data = matches!(kind, "ext4" | "vfat" | "overlay" | "fuse" | "nfs" | "nfs4" | "xfs");
    (holds_data && point != "/").then_some(point)
}

/// Blanks and the like are octal in mountinfo.
fn unescaped(field: &str) -> String {
    let mut parts = field.split('\\');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (digits, rest) = part.split_at_checked(3).unwrap_or(("", part));
        let code = u8::from_str_radix(digits, 8);
        text.push(code.map_or('\\', char::from));
        text.push_str(rest);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_say_how_the_machine_ends() {
        assert_eq!(asked_by(libc::SIGTERM), Some((End::PowerOff, "SIGTERM")));
        assert_eq!(asked_by(libc::SIGHUP), Some((End::Restart, "SIGHUP")));
        assert_eq!(asked_by(libc::SIGCHLD), None);
    }

    #[test]
    fn a_power_key_is_found_in_the_bitmap_of_a_device() {
        // gpio-keys and the ACPI button of QEMU have just this key.
        assert!(has_key("10000000000000 0\n", KEY_POWER));
        assert!(!has_key("0\n", KEY_POWER));
        assert!(!has_key("10000000000000\n", KEY_POWER));
        assert!(!has_key("nonsense x\n", KEY_POWER));
    }

    #[test]
    fn only_the_press_of_the_power_key_counts() {
        let event = |kind: u16, code: u16, value: i32| {
            let mut bytes = vec![0; 16];
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(code.to_ne_bytes());
            bytes.extend(value.to_ne_bytes());
            bytes
        };
        assert!(is_press(&event(1, 116, 1)));
        assert!(!is_press(&event(1, 116, 0)));
        assert!(!is_press(&event(1, 30, 1)));
        assert!(!is_press(&event(0, 116, 1)));
        assert!(!is_press(&[]));
    }

    #[test]
    fn mounts_of_disks_are_undone_from_the_last_to_the_first() {
        let mountinfo = "\
22 1 252:0 / / ro,nodev - erofs /dev/dm-0 ro
23 22 0:21 / /proc rw - proc proc rw
30 22 0:30 / /var rw,nosuid - tmpfs tmpfs rw
31 22 254:5 / /data rw,nosuid shared:1 - ext4 /dev/vda5 rw
32 30 254:5 /docker /var/lib/docker rw - ext4 /dev/vda5 rw
40 32 0:50 / /var/lib/docker/overlay2/a\\040b/merged rw - overlay overlay rw,lowerdir=x
41 22 0:60 / /run/docker/netns/default rw - nsfs nsfs rw
";
        let expected = ["/var/lib/docker/overlay2/a b/merged", "/var/lib/docker", "/data"];
        assert_eq!(to_unmount(mountinfo), expected);
        assert!(to_unmount("nonsense\n1 - 2").is_empty());
    }
}
