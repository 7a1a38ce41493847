//! The system description `/usr/lib/iota/system`: written by the builder, read by PID 1 and agent.
//!
//! It says what an image runs once its root is mounted: module and kernel settings, mounts,
//! services, and the containers that the agent starts. It lies in the verified root, so it is
//! trusted, but it is parsed strictly all the same: a mistake shall be found by the builder, which
//! runs the same code, and not by a device in a cupboard.
//!
//! UTF-8 lines. A line in the first column opens an item; lines indented by two spaces belong to
//! the item above them. A value reaches to the end of its line and is never quoted, so an argument
//! may hold blanks, but no value holds a control character. Items come in the order shown, lines
//! that do not apply are left out, and a text that [`System::encode`] would not write is refused.
//!
//! ```text
//! iota-system 1
//! hostname iota
//! engine docker                        the engine; its service, API and socket for the agent
//!   service docker
//!   api docker
//!   socket /run/docker.sock
//! health health                        the service whose success commits a trial
//!   window-s 60                        everything has to run this long
//!   limit-s 600                        a trial that has not succeeded by then has failed
//! led ACT                              shows how far this start is (/sys/class/leds); all stages:
//!   starting timer delay_on=100 delay_off=100      a trigger, then files beside it and values
//!   running heartbeat
//!   safe timer delay_on=1000 delay_off=1000
//!   stopping default-on
//! module br_netfilter                  loaded before the engine starts
//! sysctl net.ipv4.ip_forward=1
//! tmpfs /var mode=0755 size=25%        always nosuid,nodev
//! directory /var/log mode=0755 owner=0:0
//! bind /run/containerd /opt/containerd
//! persistent docker /var/lib/docker mode=0710 owner=0:0 layers=overlay2
//!                                      /data/docker bound over the path; layers of images below it
//! service docker                       services start in the order of the file
//!   argument /usr/sbin/dockerd         the first one is the program
//!   argument --data-root=/var/lib/docker
//!   environment PATH=/usr/sbin:/usr/bin            the whole environment, nothing is inherited
//!   user 0:0
//!   after network                      a service above; one with `ready exit` must have ended
//!   ready http /run/docker.sock /_ping             or: `ready started`, `ready exit`
//!   restart always first=500 longest=30000         or: on-failure; milliseconds. `restart never`
//!   stop-timeout-ms 20000              from SIGTERM to SIGKILL
//!   leftovers keep                     what happens to its children when it dies: keep or kill
//!   output console                     or: log (ring only), verbatim (whole lines, own prefix)
//!   oom-score-adjust -500
//!   cpu-weight 400                     its share while others want to run; 100 if nothing is said
//!   safe-mode skip                     not started in safe mode, where there is no engine
//! container hello
//!   image /usr/share/iota/images/hello.tar
//!   argument /bin/busybox
//!   environment TERM=dumb
//!   network none
//!   publish 8080:80
//! container report
//!   image /usr/share/iota/images/hello.tar
//!   network none
//!   after hello                        a container above; it has been started before this one is
//!   restart on-failure                 or: never. Always, if nothing is said
//! container console
//!   image /usr/share/iota/images/hello.tar
//!   network host
//!   start on-demand                    not with the system, but when somebody wants it
//! ```
//!
//! What PID 1 does without being told is not here: the kernel's own file systems, /run, /tmp,
//! loopback, modules of found devices, the data partition on /data.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

mod check;
mod led;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use led::{LEDS, Led, Pattern, RUNNING_MARK, Setting, Stage};

/// A file whose time of modification is the newest that somebody trusted has signed: the agent
/// raises it, PID 1 does not let the clock begin before it.
pub const SIGNED_TIME: &str = "/data/iota/update/signed-time";

/// Where the builder puts the description and PID 1 looks for it.
pub const PATH: &str = "/usr/lib/iota/system";

/// What services are started with beside their own environment: the agent writes it when it has
/// read the owner's wishes, lines of `NAME=value`; PID 1 reads it for each service that it starts.
pub const ENVIRONMENT: &str = "/run/iota/environment";

/// Entries of an [`ENVIRONMENT`] file. What is no entry is passed over.
pub fn environment(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
    };
    let entries = text.lines().filter_map(|line| line.split_once('='));
    entries.filter(move |(name, value)| is_name(name) && !value.contains('\0'))
}

const HEADER: &str = "iota-system 1";

/// What an image runs. Parsed ones have passed every check named on the fields below.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct System {
    /// Host name: letters, digits and `-`.
    pub hostname: String,
    /// The container engine; an image without one is a plain host.
    pub engine: Option<Engine>,
    /// How a trial is judged; without it every trial fails when its tries are used up.
    pub health: Option<Health>,
    /// The LED that shows how far a start is, if the board has one.
    pub led: Option<Led>,
    /// Kernel modules that are loaded before the first service, whatever devices are found.
    pub modules: Vec<String>,
    /// Kernel settings.
    pub sysctls: Vec<Sysctl>,
    /// Writable memory file systems beyond /run and /tmp.
    pub tmpfs: Vec<Tmpfs>,
    /// Directories made at each start, after the mounts.
    pub directories: Vec<Directory>,
    /// Bind mounts, made after the directories.
    pub binds: Vec<Bind>,
    /// Directories that live on the data partition.
    pub persistent: Vec<Persistent>,
    /// Services in starting order.
    pub services: Vec<Service>,
    /// Containers that the agent loads and runs.
    pub containers: Vec<Container>,
}

/// The container engine as the agent sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    /// Name in messages: `docker`.
    pub name: String,
    /// The service that runs it.
    pub service: String,
    /// Which API its socket speaks: `docker`.
    pub api: String,
    /// Path of its unix socket.
    pub socket: String,
}

/// How a system on trial is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The service that judges: it commits the trial and ends with status 0, or fails.
    pub service: String,
    /// Seconds for which everything has to run.
    pub window_s: u32,
    /// Seconds from the start of the services after which the trial has failed.
    pub limit_s: u32,
}

/// One kernel setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// Dotted name, as in sysctl.conf.
    pub name: String,
    /// Value as it is written to /proc/sys.
    pub value: String,
}

/// A memory file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tmpfs {
    /// Mount point; must exist in the image or on a mount before it.
    pub path: String,
    /// Mode of its root directory.
    pub mode: u32,
    /// Size as tmpfs takes it: `25%`, `64m`.
    pub size: String,
}

/// A directory made at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Where.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub owner: Owner,
}

/// A bind mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// What is shown.
    pub source: String,
    /// Where it is shown.
    pub target: String,
}

/// A directory whose content survives: `/data/NAME`, bound over `path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Persistent {
    /// Name below /data.
    pub name: String,
    /// Where the system expects it.
    pub path: String,
    /// Permission bits when it is made.
    pub mode: u32,
    /// Owner when it is made.
    pub owner: Owner,
    /// Where an engine unpacks layers of images, below it: contents of files that are made there
    /// are written through the journal.
    pub layers: Option<String>,
}

/// User and group, by number: PID 1 reads no user database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub user: u32,
    /// Group id.
    pub group: u32,
}

/// A supervised program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Name in messages: lower case letters, digits and `-`.
    pub name: String,
    /// Program (an absolute path) and its arguments.
    pub arguments: Vec<String>,
    /// `KEY=VALUE`, the whole environment.
    pub environment: Vec<String>,
    /// Whom it runs as.
    pub user: Owner,
    /// Services above it that must have started, or ended if they are `ready exit`.
    pub after: Vec<String>,
    /// When it counts as ready.
    pub ready: Ready,
    /// What to do when it ends.
    pub restart: Restart,
    /// Time from SIGTERM to SIGKILL.
    pub stop_timeout_ms: u32,
    /// What happens to the processes it leaves behind when it ends by itself.
    pub leftovers: Leftovers,
    /// Where its output goes.
    pub output: Output,
    /// The kernel's oom_score_adj, -1000 (never killed) to 1000.
    pub oom_score_adjust: i32,
    /// Its share of the processors while others want to run as well, 1 to 10000: `cpu.weight` of
    /// its control group (Documentation/admin-guide/cgroup-v2.rst).
    pub cpu_weight: u32,
    /// It belongs to the engine or waits for it: left out in safe mode.
    pub skip_in_safe_mode: bool,
}

impl Service {
    /// The kernel's own share of a group that nobody has given another.
    pub const CPU_WEIGHT: u32 = 100;
}

/// When a service counts as ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ready {
    /// As soon as it runs.
    Started,
    /// When it has ended with status 0: work to be done once.
    Exit,
    /// When its unix socket answers 200 to a GET of the path. Asked by the agent, not by PID 1.
    Http {
        /// Unix socket.
        socket: String,
        /// Path of the request.
        path: String,
    },
}

/// What to do when a service ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Leave it.
    Never,
    /// Start it again unless it ended with status 0.
    OnFailure(BackOff),
    /// Start it again.
    Always(BackOff),
}

/// How long to wait before a restart: doubled each time, forgotten after a long run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackOff {
    /// First pause.
    pub first_ms: u32,
    /// Longest pause.
    pub longest_ms: u32,
}

/// What happens to the processes of a service that ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftovers {
    /// They stay: an engine finds its containers again.
    Keep,
    /// They are killed.
    Kill,
}

/// Where the output of a service goes. All of it goes to the log ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// To the console as `iota NAME: [time] line`.
    Console,
    /// Nowhere else.
    Log,
    /// To the console as it is: the service writes whole lines that begin with `iota `.
    Verbatim,
}

/// A container that the agent runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Name of the container.
    pub name: String,
    /// Image archive in the root.
    pub image: String,
    /// Command; empty means the image's own.
    pub arguments: Vec<String>,
    /// `KEY=VALUE` added to the image's own.
    pub environment: Vec<String>,
    /// Network as the engine names it: `none`, `bridge`, `host`.
    pub network: String,
    /// Ports of the host that lead into the container.
    pub publish: Vec<Publish>,
    /// Containers above that have been started before this one is.
    pub after: Vec<String>,
    /// What the engine does when it ends.
    pub again: Again,
    /// Started when somebody wants it, not with the system.
    pub on_demand: bool,
}

/// What becomes of a container that ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Again {
    /// It is started again, and a system without it is not well.
    #[default]
    Always,
    /// It is started again unless it ended with status 0.
    OnFailure,
    /// It has done its work, once for each start of the system.
    Never,
}

/// A TCP port of the host that leads into a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Port of the host.
    pub host: u16,
    /// Port in the container.
    pub container: u16,
}

/// Why a description is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Line of the text, from 1; 0 when the fault is not in one line.
    pub line: usize,
    /// What is wrong, with the offending word.
    pub problem: String,
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => out.write_str(&self.problem),
            line => write!(out, "line {line}: {}", self.problem),
        }
    }
}

impl core::error::Error for Error {}

fn fault(problem: impl Into<String>) -> Error {
    Error { line: 0, problem: problem.into() }
}

impl System {
    /// The text of this description, or why it is not a valid one.
    pub fn encode(&self) -> Result<String, Error> {
        self.check()?;
        Ok(self.write())
    }

    /// Reads a text that [`System::encode`] wrote.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let system = read::read(text)?;
        system.check()?;
        let canonical = system.write();
        let mut ours = canonical.split('\n');
        for (index, line) in text.split('\n').enumerate() {
            if ours.next() != Some(line) {
                let problem = format!("`{line}` is out of order, repeated or spelt differently");
                return Err(Error { line: index.saturating_add(1), problem });
            }
        }
        match ours.next() {
            None => Ok(system),
            Some(_) => Err(fault("the last line has no end")),
        }
    }

    /// The service with this name.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }
}
