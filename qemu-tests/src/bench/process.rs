//! Runs a program and says what it cost: time, processor time, memory.

use std::io::{self, Read as _, Seek as _};
use std::mem::MaybeUninit;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use builder::error::{Context, Error, Result};

/// What a program cost.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Cost {
    /// Seconds on the clock.
    pub seconds: f64,
    /// Seconds of processor time, its own and the kernel's for it, all threads together.
    pub cpu_seconds: f64,
    /// Most bytes of memory it held at a time.
    pub peak_bytes: u64,
}

/// Runs a program to its end; what it says is shown only if it fails.
pub fn measure(command: &mut Command) -> Result<Cost> {
    let words = words(command);
    eprintln!("+ {words}");
    let failed = || format!("cannot run {words}");
    command.env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::null());
    let errors = tempfile::tempfile().context(failed)?;
    command.stderr(errors.try_clone().context(failed)?);
    let start = Instant::now();
    let child = command.spawn().context(failed)?;
    let (status, usage) = wait(&child).context(failed)?;
    if status.success() {
        return Ok(cost(start.elapsed().as_secs_f64(), &usage));
    }
    let (mut said, mut errors) = (String::new(), errors);
    let _ = errors.rewind().and_then(|()| errors.read_to_string(&mut said));
    Err(Error::new(format!("{words} ended with {status}: {}", said.trim())))
}

/// A command to read, without the words that make a program of the tool tree run anywhere.
fn words(command: &Command) -> String {
    let mut words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
    match words.iter().position(|word| word == "--argv0") {
        Some(at) => drop(words.drain(..at + 2)),
        None => words.insert(0, command.get_program().to_string_lossy()),
    }
    words.join(" ")
}

/// The cheapest of several runs, each quantity by itself: what disturbs only ever adds.
pub fn least(costs: &[Cost]) -> Cost {
    let least = |quantity: fn(&Cost) -> f64| costs.iter().map(quantity).fold(f64::MAX, f64::min);
    Cost {
        seconds: least(|cost| cost.seconds),
        cpu_seconds: least(|cost| cost.cpu_seconds),
        peak_bytes: costs.iter().map(|cost| cost.peak_bytes).min().unwrap_or(0),
    }
}

/// Waits until a child has ended; the kernel has counted what it and its own children used.
fn wait(child: &Child) -> io::Result<(ExitStatus, libc::rusage)> {
    let pid = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
    loop {
        let mut status = 0;
        let mut usage = MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: both pointers are valid for what wait4 writes, and live until it returns.
        let ended = unsafe { libc::wait4(pid, &mut status, 0, usage.as_mut_ptr()) };
        if ended == pid {
            // SAFETY: made of numbers alone, and zeroed before the kernel wrote to it.
            return Ok((ExitStatus::from_raw(status), unsafe { usage.assume_init() }));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

fn cost(seconds: f64, usage: &libc::rusage) -> Cost {
    let time = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Cost {
        seconds,
        cpu_seconds: time(usage.ru_utime) + time(usage.ru_stime),
        // Counted in KiB, never negative.
        peak_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
    }
}

/// Processor time that a running process has used so far, in seconds (proc(5)).
pub fn cpu_seconds_of(process: u32) -> Result<f64> {
    let path = format!("/proc/{process}/stat");
    let text = std::fs::read_to_string(&path).context(|| format!("cannot read {path}"))?;
    let ticks = cpu_ticks(&text).ok_or_else(|| Error::new(format!("cannot read {path}")))?;
    Ok(ticks as f64 / TICKS_IN_SECOND)
}

/// The kernel's USER_HZ, the same on every architecture that can be bought.
const TICKS_IN_SECOND: f64 = 100.0;

/// User and system time of all threads of a process.
fn cpu_ticks(stat: &str) -> Option<u64> {
    // The name may hold anything, parentheses too.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let mut number = || fields.next()?.parse::<u64>().ok();
    number()?.checked_add(number()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_quantity_is_the_least_of_all_runs() {
        let cost = |seconds, cpu_seconds, peak_bytes| Cost { seconds, cpu_seconds, peak_bytes };
        assert_eq!(least(&[cost(3.0, 1.0, 9), cost(2.0, 4.0, 8)]), cost(2.0, 1.0, 8));
    }

    #[test]
    fn times_are_read_whatever_a_name_holds() {
        assert_eq!(cpu_ticks("7 (a) b) Z 1 2 3 4 5 6 7 8 9 10 250 50 3 4 20"), Some(300));
        assert_eq!(cpu_ticks("7 (a) Z 1"), None);
        assert!(cpu_seconds_of(std::process::id()).is_ok());
    }

    #[test]
    fn a_program_that_fails_is_an_error_with_what_it_said() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo trouble >&2; exit 3"]);
        let error = measure(&mut command).unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.ends_with("trouble"), "{error}");
        assert!(measure(Command::new("sh").args(["-c", "true"])).unwrap().seconds > 0.0);
    }
}
