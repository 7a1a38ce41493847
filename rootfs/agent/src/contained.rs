//! `iota contained PROGRAM…`: the first program in a container of an engine that has none for that.
//!
//! What is started by containerd inherits the score that keeps the engine from the memory killer;
//! here it becomes an ordinary one. As PID 1 of a container it then starts the program, passes
//! signals on (a program that does not expect to be PID 1 would ignore SIGTERM) and takes leave of
//! whoever has lost his parent; elsewhere it becomes the program.

use std::fs;
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitStatus};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};

use crate::sys;

const SCORE: &str = "/proc/self/oom_score_adj";

/// Those that people and engines send.
const PASSED_ON: [Signal; 7] = [
    Signal::TERM,
    Signal::INT,
    Signal::HUP,
    Signal::QUIT,
    Signal::USR1,
    Signal::USR2,
    Signal::WINCH,
];

/// As shells say it: the program was not found, or cannot be started.
const NOT_STARTED: u8 = 127;

/// Runs the program; gives its exit code, or why it did not start and the code for that.
pub fn run(command: &[String]) -> Result<u8, (String, u8)> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(("`contained` needs a program".to_owned(), NOT_STARTED));
    };
    let failed = |error: io::Error| (format!("{program}: {error}"), NOT_STARTED);
    // Without /proc, or with a lower score, there is nothing to be done about it.
    let _ = fs::write(SCORE, "0");
    let mut command = Command::new(program);
    command.args(arguments);
    if std::process::id() != 1 {
        return Err(failed(command.exec()));
    }
    attend(command).map_err(failed)
}

/// Until the program ends, which is the end of the container.
fn attend(mut command: Command) -> io::Result<u8> {
    let signals = sys::signals(&[&[Signal::CHILD][..], &PASSED_ON].concat())?;
    let child = command.spawn()?;
    let child = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let child = child.ok_or_else(|| io::Error::other("a process without a number"))?;
    loop {
        match poll(&mut [PollFd::new(&signals, PollFlags::IN)], None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for signal in sys::take_signals(&signals) {
            if signal != Signal::CHILD {
                // One that has just ended hears nothing.
                let _ = kill_process(child, signal);
            }
        }
        while let Ok(Some((id, status))) = wait(WaitOptions::NOHANG) {
            if id == child {
                return Ok(code(ExitStatus::from_raw(status.as_raw())));
            }
        }
    }
}

/// As shells say it: the exit code, or 128 and the signal.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| signal.saturating_add(128)));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_ends_with_its_own_code_or_with_its_signals() {
        assert_eq!(code(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(code(ExitStatus::from_raw(9)), 137);
        assert_eq!(code(ExitStatus::from_raw(0)), 0);
    }

    #[test]
    fn what_is_no_program_is_told_with_the_code_for_that() {
        assert_eq!(run(&[]), Err(("`contained` needs a program".to_owned(), 127)));
        let error = attend(Command::new("/no/such/program")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
