//! `iota logs`: what PID 1, the services and the containers have said since the start, and the
//! kernel's own messages.
//!
//! PID 1 keeps the last lines in memory and hands all of them to whoever connects; a follower
//! connects again and prints what is new.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::fs::OFlags;

use crate::crash;
use crate::kept_log::Store;

/// Where PID 1 hands out what it keeps.
const SOCKET: &str = "/run/iota/log";
/// Messages of the kernel, one for each read (`Documentation/ABI/testing/dev-kmsg`).
const KERNEL: &str = "/dev/kmsg";
/// Levels up to this one mean trouble (`include/linux/kern_levels.h`).
const WARNING: u8 = 4;
/// The name under which they are asked for.
const KERNEL_UNIT: &str = "kernel";
/// The name under which its crashes are asked for.
pub const CRASHES_UNIT: &str = "crashes";
/// How soon a follower sees a line.
const PACE: Duration = Duration::from_millis(500);

/// Prints what a unit has said, or everybody, and goes on with what is said from now on if
/// `follow`. A reader who has seen enough is no error.
pub fn print(unit: Option<&str>, follow: bool, out: &mut impl Write) -> Result<(), String> {
    let printed = if unit == Some(KERNEL_UNIT) {
        print_kernel(follow, out)
    } else {
        print_services(unit, follow, out)
    };
    match printed {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        printed => printed.map_err(|error| error.to_string()),
    }
}

/// Prints what is kept on the data partition.
pub fn print_kept(unit: Option<&str>, store: &Store, out: &mut impl Write) -> Result<(), String> {
    match store.print(unit, out) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(format!("{}: {error}", Store::PLACE)),
        Ok(0) => Err("nothing is kept on the data partition\n\
                      hint: `iota config set logs.persistent true` keeps the log from the next \
                      start on"
            .to_owned()),
        Ok(_) => Ok(()),
    }
}

/// Prints what the kernel said last before each of its crashes that are kept.
pub fn print_crashes(kept: &Path, out: &mut impl Write) -> Result<(), String> {
    match crash::print(kept, out) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(format!("{}: {error}", kept.display())),
        Ok(0) => Err("no crash of the kernel is kept\n\
                      hint: `iota logs kernel` prints its messages of this start"
            .to_owned()),
        Ok(_) => Ok(()),
    }
}

fn print_services(unit: Option<&str>, follow: bool, out: &mut impl Write) -> io::Result<()> {
    let mut seen = Vec::new();
    loop {
        let now = kept()?;
        for line in fresh(&seen, &now).split_inclusive(|byte| *byte == b'\n') {
            if unit.is_none_or(|unit| is_of(line, unit)) {
                out.write_all(line)?;
            }
        }
        out.flush()?;
        if !follow {
            return Ok(());
        }
        seen = now;
        std::thread::sleep(PACE);
    }
}

/// All lines that PID 1 keeps.
pub(crate) fn kept() -> io::Result<Vec<u8>> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{SOCKET}: {error}"));
    let mut bytes = Vec::new();
    UnixStream::connect(SOCKET).map_err(named)?.read_to_end(&mut bytes).map_err(named)?;
    Ok(bytes)
}

/// What is in `now` and was not in `seen`: the oldest lines have gone since, new ones have come.
pub(crate) fn fresh<'a>(seen: &[u8], now: &'a [u8]) -> &'a [u8] {
    let mut rest = seen;
    while !rest.is_empty() {
        if let Some(new) = now.strip_prefix(rest) {
            return new;
        }
        let line = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |end| end + 1);
        rest = rest.get(line..).unwrap_or_default();
    }
    now
}

/// Whether a line is a unit's: `iota docker: …`, or `iota app hello: …` for the container `hello`.
pub(crate) fn is_of(line: &[u8], unit: &str) -> bool {
    let rest = line.strip_prefix(b"iota ").unwrap_or_default();
    let rest = rest.strip_prefix(b"app ").unwrap_or(rest);
    rest.strip_prefix(unit.as_bytes()).is_some_and(|rest| rest.starts_with(b":"))
}

fn print_kernel(follow: bool, out: &mut impl Write) -> io::Result<()> {
    let mut messages = open_kernel(follow)?;
    while let Some(message) = next_message(&mut messages)? {
        if let Some((_, line)) = kernel_line(&message) {
            out.write_all(line.as_bytes())?;
            out.flush()?;
        }
    }
    Ok(())
}

/// The kernel's messages, from the oldest it has; reading waits for the next one if `waits`.
pub(crate) fn open_kernel(waits: bool) -> io::Result<File> {
    let now_or_never = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let mut options = File::options();
    options.read(true).custom_flags(if waits { 0 } else { now_or_never });
    options.open(KERNEL).map_err(of_kernel)
}

fn of_kernel(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{KERNEL}: {error}"))
}

/// The next one, or `None` if there is no more for now.
fn next_message(messages: &mut File) -> io::Result<Option<String>> {
    let mut message = vec![0; 8192];
    loop {
        match messages.read(&mut message) {
            Ok(length) => {
                let bytes = message.get(..length).unwrap_or_default();
                return Ok(Some(String::from_utf8_lossy(bytes).into_owned()));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            // Overwritten before it was read: the next one is.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(of_kernel(error)),
        }
    }
}

/// What the kernel has warned of since these messages were read last, as lines of a unit.
pub(crate) fn warnings(messages: &mut File) -> Vec<u8> {
    let mut lines = Vec::new();
    while let Ok(Some(message)) = next_message(messages) {
        if let Some((level, line)) = kernel_line(&message)
            && level <= WARNING
        {
            lines.extend_from_slice(format!("iota {KERNEL_UNIT}: {line}").as_bytes());
        }
    }
    lines
}

/// `6,339,5140900,-;text` and further lines with the device becomes 6 and `[    5.140] text`.
fn kernel_line(message: &str) -> Option<(u8, String)> {
    let (head, text) = message.split_once(';')?;
    let mut fields = head.split(',');
    // The facility is in the bits above.
    let level = u8::try_from(fields.next()?.parse::<u32>().ok()? & 7).ok()?;
    let microseconds: u64 = fields.nth(1)?.parse().ok()?;
    let (seconds, milliseconds) = (microseconds / 1_000_000, microseconds / 1000 % 1000);
    let text = text.lines().next().unwrap_or_default();
    Some((level, format!("[{seconds:>5}.{milliseconds:03}] {text}\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_follower_sees_each_line_once() {
        let check = |seen: &str, now: &str, expected: &str| {
            assert_eq!(fresh(seen.as_bytes(), now.as_bytes()), expected.as_bytes());
        };
        check("", "a\nb\n", "a\nb\n");
        check("a\nb\n", "a\nb\n", "");
        check("a\nb\n", "a\nb\nc\n", "c\n");
        check("a\nb\nc\n", "c\nd\n", "d\n");
        // The same line twice is two lines.
        check("a\nb\n", "b\nb\n", "b\n");
        // More was said than is kept.
        check("a\nb\n", "x\ny\n", "x\ny\n");
    }

    #[test]
    fn a_unit_is_a_service_or_a_container() {
        for (line, unit, expected) in [
            ("iota docker: [   3.456] ready\n", "docker", true),
            ("iota docker: [   3.456] ready\n", "dock", false),
            ("iota app hello: docker: said\n", "hello", true),
            ("iota app hello: docker: said\n", "docker", false),
            ("a line without a name\n", "a", false),
        ] {
            assert_eq!(is_of(line.as_bytes(), unit), expected, "{line}{unit}");
        }
    }

    #[test]
    fn a_message_of_the_kernel_is_told_with_its_time() {
        let message = "6,339,5140900,-;NET: Registered PF_INET6\n SUBSYSTEM=net\n";
        let line = "[    5.140] NET: Registered PF_INET6\n".to_owned();
        assert_eq!(kernel_line(message), Some((6, line)));
        assert_eq!(kernel_line("12,1,0,-;x").map(|(level, _)| level), Some(4));
        assert_eq!(kernel_line("nonsense"), None);
    }
}
