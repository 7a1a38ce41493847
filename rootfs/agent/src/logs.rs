//! `iota logs`: what PID 1, the services and the containers have said since the start, and the
//! kernel's own messages.
//!
//! PID 1 keeps the last lines in memory and hands all of them to whoever connects; a follower
//! connects again and prints what is new.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::fs::OFlags;

/// Where PID 1 hands out what it keeps.
const SOCKET: &str = "/run/iota/log";
/// Messages of the kernel, one for each read (`Documentation/ABI/testing/dev-kmsg`).
const KERNEL: &str = "/dev/kmsg";
/// The name under which they are asked for.
const KERNEL_UNIT: &str = "kernel";
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

fn kept() -> io::Result<Vec<u8>> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{SOCKET}: {error}"));
    let mut bytes = Vec::new();
    UnixStream::connect(SOCKET).map_err(named)?.read_to_end(&mut bytes).map_err(named)?;
    Ok(bytes)
}

/// What is in `now` and was not in `seen`: the oldest lines have gone since, new ones have come.
fn fresh<'a>(seen: &[u8], now: &'a [u8]) -> &'a [u8] {
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
fn is_of(line: &[u8], unit: &str) -> bool {
    let rest = line.strip_prefix(b"iota ").unwrap_or_default();
    let rest = rest.strip_prefix(b"app ").unwrap_or(rest);
    rest.strip_prefix(unit.as_bytes()).is_some_and(|rest| rest.starts_with(b":"))
}

fn print_kernel(follow: bool, out: &mut impl Write) -> io::Result<()> {
    let mut options = File::options();
    let now_or_never = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    options.read(true).custom_flags(if follow { 0 } else { now_or_never });
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{KERNEL}: {error}"));
    let mut messages = options.open(KERNEL).map_err(named)?;
    let mut message = vec![0; 8192];
    loop {
        match messages.read(&mut message) {
            Ok(length) => {
                let text = String::from_utf8_lossy(message.get(..length).unwrap_or_default());
                if let Some(line) = kernel_line(&text) {
                    out.write_all(line.as_bytes())?;
                    out.flush()?;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            // Overwritten before it was read: the next one is.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(named(error)),
        }
    }
}

/// `6,339,5140900,-;text` and further lines with the device becomes `[    5.140] text`.
fn kernel_line(message: &str) -> Option<String> {
    let (head, text) = message.split_once(';')?;
    let microseconds: u64 = head.split(',').nth(2)?.parse().ok()?;
    let (seconds, milliseconds) = (microseconds / 1_000_000, microseconds / 1000 % 1000);
    let text = text.lines().next().unwrap_or_default();
    Some(format!("[{seconds:>5}.{milliseconds:03}] {text}\n"))
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
        assert_eq!(kernel_line(message).as_deref(), Some("[    5.140] NET: Registered PF_INET6\n"));
        assert_eq!(kernel_line("nonsense"), None);
    }
}
