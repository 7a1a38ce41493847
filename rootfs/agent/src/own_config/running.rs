//! The machine that runs, for [`Machine`]: its clock, its name, its daemons.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use config::Config;
use ondisk::system::{self, ENVIRONMENT, Service};
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
    /// What services are started with beside their own environment.
    pub environment: PathBuf,
}

impl Running {
    /// This one.
    pub fn device(program: PathBuf) -> Self {
        let groups = "/sys/fs/cgroup/services".into();
        Self { program, groups, processes: "/proc".into(), environment: ENVIRONMENT.into() }
    }

    /// Ends a service; PID 1 starts it anew. One that pauses between two runs is left alone.
    pub fn end(&self, service: &str) -> Result<(), String> {
        self.signal(service, Signal::TERM)
    }

    /// Ends a service that was started before the owner's words were known, so that it is started
    /// anew with them; gives whether it was. The engine starts beside the configuration and not
    /// after it, so that an owner without such wishes waits for nothing.
    pub fn renew(&self, service: &Service) -> Result<bool, String> {
        let owners = match fs::read_to_string(&self.environment) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            read => read.map_err(|error| format!("{}: {error}", self.environment.display()))?,
        };
        let Some(process) = self.main_process(&service.name) else { return Ok(false) };
        let path = self.processes.join(process.as_raw_nonzero().to_string()).join("environ");
        let has = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        if knows(&has, &service.environment, &owners) {
            return Ok(false);
        }
        self.end(&service.name).map(|()| true)
    }

    fn signal(&self, service: &str, signal: Signal) -> Result<(), String> {
        let Some(process) = self.main_process(service) else { return Ok(()) };
        kill_process(process, signal)
            .map_err(|error| format!("cannot tell the service {service}: {error}"))
    }

    /// The process of a service that PID 1 has started, not one that this one has.
    pub fn main_process(&self, service: &str) -> Option<Pid> {
        let members = fs::read_to_string(self.groups.join(service).join("cgroup.procs")).ok()?;
        let mut ids = members.lines().filter_map(|line| line.parse::<i32>().ok());
        ids.find(|id| parent(&self.processes, *id) == Some(1)).and_then(Pid::from_raw)
    }
}

fn parent(processes: &Path, id: i32) -> Option<i32> {
    let text = fs::read_to_string(processes.join(id.to_string()).join("status")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// Whether an environment as in `/proc/PID/environ` holds the owner's entries, but for names that
/// the image itself has given to the service (`ondisk::system::ENVIRONMENT`).
fn knows(environ: &[u8], own: &[String], owners: &str) -> bool {
    let has: Vec<&[u8]> = environ.split(|byte| *byte == 0).collect();
    let is_own = |name: &str| {
        own.iter().any(|entry| entry.split_once('=').is_some_and(|(own, _)| own == name))
    };
    let mut wanted = system::environment(owners).filter(|(name, _)| !is_own(name));
    wanted.all(|(name, value)| has.contains(&format!("{name}={value}").as_bytes()))
}

/// The service that a daemon is, and the signal that it is told by.
fn signal(daemon: Daemon) -> (&'static str, Signal) {
    match daemon {
        Daemon::NetworkAgain => ("network", Signal::HUP),
        Daemon::NetworkAnew => ("network", Signal::ALARM),
        Daemon::WifiAgain => ("wifi", Signal::HUP),
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
    fn a_service_is_renewed_if_it_lacks_what_the_owner_wants_it_to_know() {
        let own = ["PATH=/bin".to_owned()];
        let owners = "HTTP_PROXY=http://p:1\nPATH=/evil\nSSL_CERT_FILE=/run/a\n";
        for (environ, known) in [
            ("PATH=/bin\0HTTP_PROXY=http://p:1\0SSL_CERT_FILE=/run/a\0", true),
            ("PATH=/bin\0HTTP_PROXY=http://p:12\0SSL_CERT_FILE=/run/a\0", false),
            ("PATH=/bin\0SSL_CERT_FILE=/run/a\0", false),
            ("", false),
        ] {
            assert_eq!(knows(environ.as_bytes(), &own, owners), known, "{environ:?}");
        }
        assert!(knows(b"PATH=/bin\0", &own, ""), "an owner without wishes costs no restart");
    }

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
        let running = Running {
            program: PathBuf::new(),
            groups: path("groups"),
            processes: path("proc"),
            environment: path("environment"),
        };
        assert_eq!(running.main_process("network"), Pid::from_raw(70));
        assert_eq!(running.main_process("time"), None);
    }
}
