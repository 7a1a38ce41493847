//! `cargo xtask bench`: how long builds take and how much memory they need, as one table.
//!
//! Numbers are compared within one run on one machine, never against a limit: a timed test fails on
//! a busy machine and says nothing on a fast one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::process::{self, Outcome};

/// Measures builds of one board, `generic-aarch64` unless named.
pub(crate) fn run(rest: &[String]) -> Outcome {
    let board = rest.first().map_or("generic-aarch64", String::as_str);
    process::run(process::cargo().args(["build", "--release", "--package", "builder"]))?;
    let cache = process::workspace().join("target/bench/cache");
    let build = || {
        let mut command = Command::new(process::workspace().join("target/release/iota"));
        command.current_dir(process::workspace()).env("IOTA_CACHE", &cache).args(["build", board]);
        command
    };
    // Downloads and components first: neither belongs to what is measured.
    process::run(&mut build())?;
    let mut rows = Vec::new();
    remove(&cache.join("unpacked"))?;
    forget_outputs(board)?;
    rows.push(Row::measure("packages downloaded, never unpacked", &mut build())?);
    forget_outputs(board)?;
    rows.push(Row::measure("packages unpacked once", &mut build())?);
    rows.push(Row::measure("nothing changed", &mut build())?);
    print!("{}", table(&rows));
    Ok(())
}

fn forget_outputs(board: &str) -> Outcome {
    remove(&process::workspace().join("out").join(board))
}

fn remove(directory: &Path) -> Outcome {
    match fs::remove_dir_all(directory) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("cannot remove {}: {cause}", directory.display()))
        }
        _ => Ok(()),
    }
}

/// One measured program run.
struct Row {
    name: &'static str,
    seconds: f64,
    peak_mib: u64,
}

impl Row {
    fn measure(name: &'static str, command: &mut Command) -> Result<Self, String> {
        process::announce(command);
        let words = process::words(command);
        let start = Instant::now();
        let mut child = command.spawn().map_err(|cause| format!("{words}: {cause}"))?;
        let peak_kib = watch_memory(&mut child).map_err(|cause| format!("{words}: {cause}"))?;
        Ok(Self { name, seconds: start.elapsed().as_secs_f64(), peak_mib: peak_kib / 1024 })
    }
}

/// Waits for the child and returns the largest resident set seen, in KiB. The kernel keeps the
/// peak itself, so only what happens in a child's last milliseconds can be missed.
fn watch_memory(child: &mut Child) -> std::io::Result<u64> {
    let status_file = PathBuf::from(format!("/proc/{}/status", child.id()));
    let mut peak = 0;
    loop {
        let text = fs::read_to_string(&status_file).unwrap_or_default();
        peak = peak.max(peak_kib(&text).unwrap_or(0));
        if let Some(status) = child.try_wait()? {
            return if status.success() {
                Ok(peak)
            } else {
                Err(std::io::Error::other(format!("ended with {status}")))
            };
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn peak_kib(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

fn table(rows: &[Row]) -> String {
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    let mut text = format!("{:width$}  seconds  peak MiB\n", "build");
    for row in rows {
        text += &format!("{:width$}  {:7.2}  {:8}\n", row.name, row.seconds, row.peak_mib);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_read_from_what_the_kernel_prints() {
        let text = "Name:\tiota\nVmPeak:\t   99 kB\nVmHWM:\t    5124 kB\n";
        assert_eq!(peak_kib(text), Some(5124));
        assert_eq!(peak_kib("Name:\tiota\n"), None);
    }

    #[test]
    fn columns_line_up() {
        let rows = [
            Row { name: "a", seconds: 1.0, peak_mib: 5 },
            Row { name: "long name", seconds: 12.345, peak_mib: 1000 },
        ];
        let lines: Vec<usize> = table(&rows).lines().map(str::len).collect();
        assert_eq!(lines, [lines[0]; 3]);
    }
}
