//! The machine that runs, for [`Machine`]: its clock, its name, its daemons.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use config::Config;
use rustix::process::{Pid, Signal, kill_process};
use rustix::time::{ClockId, clock_gettime};

use super::change::Machine;
use super::effects::Daemon;
use crate::ssh;

/// The device that this program runs on.
#[derive(Clone, Debug)]
pub struct Running {
    /// This program.
    pub program: PathBuf,
    /// The control groups of services.
    pub groups: PathBuf,
    /// `/proc`.
    pub processes: PathBuf,
}

impl Running {
    /// This one.
    pub fn device(program: PathBuf) -> Self {
        Self { program, groups: "/sys/fs/cgroup/services".into(), processes: "/proc".into() }
    }

    /// Ends a service; PID 1 starts it anew. One that pauses between two runs is left alone.
    pub fn end(&self, service: &str) -> Result<(), String> {
        self.signal(service, Signal::TERM)
    }

    fn signal(&self, service: &str, signal: Signal) -> Result<(), String> {
        let Some(process) = self.main_process(service) else { return Ok(()) };
        kill_process(process, signal)
            .map_err(|error| format!("cannot tell the service {service}: {error}"))
    }

    /// The process of a service that PID 1 has started, not one that this one has.
    fn main_process(&self, service: &str) -> Option<Pid> {
        let members = fs::read_to_string(self.groups.join(service).join("cgroup.procs")).ok()?;
        let mut ids = members.lines().filter_map(|line| line.parse::<i32>().ok());
        ids.find(|id| parent(&self.processes, *id) == Some(1)).and_then(Pid::from_raw)
    }
}

fn parent(processes: &Path, id: i32) -> Option<i32> {
    let text = fs::read_to_string(processes.join(id.to_string()).join("status")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// The service that a daemon is, and the signal that it is told by.
fn signal(daemon: Daemon) -> (&'static str, Signal) {
    match daemon {
        Daemon::NetworkAgain => ("network", Signal::HUP),
        Daemon::NetworkAnew => ("network", Signal::ALARM),
        Daemon::NamesAnew => ("names", Signal::TERM),
        Daemon::TimeAnew => ("time", Signal::TERM),
    }
}

impl Machine for Running {
    fn now_s(&self) -> u64 {
        u64::try_from(clock_gettime(ClockId::Boottime).tv_sec).unwrap_or_default()
    }

    fn set_hostname(&self, name: &str) -> io::Result<()> {
        Ok(rustix::system::sethostname(name.as_bytes())?)
    }

    fn tell(&self, daemon: Daemon) -> Result<(), String> {
        let (service, signal) = signal(daemon);
        // One that pauses between two runs reads its file when it is started.
        self.signal(service, signal)
    }

    fn let_in(&self, config: &Config) -> io::Result<()> {
        ssh::authorize(&ssh::Places::default(), config)
    }

    fn start_keeper(&self) -> Result<(), String> {
        let mut command = Command::new(&self.program);
        command.args(["config", "await-confirm"]).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map(drop).map_err(|error| {
            format!("cannot start what would revert the change, so it is not made: {error}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_that_is_told_is_the_one_that_pid_1_has_started() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        fs::create_dir_all(path("groups/network")).unwrap();
        fs::write(path("groups/network/cgroup.procs"), "71\n70\n72\n").unwrap();
        for (id, parent) in [(70, 1), (71, 70), (72, 70)] {
            fs::create_dir_all(path(&format!("proc/{id}"))).unwrap();
            let text = format!("Name:\tdhcpcd\nPid:\t{id}\nPPid:\t{parent}\n");
            fs::write(path(&format!("proc/{id}/status")), text).unwrap();
        }
        let program = PathBuf::new();
        let running = Running { program, groups: path("groups"), processes: path("proc") };
        assert_eq!(running.main_process("network"), Pid::from_raw(70));
        assert_eq!(running.main_process("time"), None);
    }
}
