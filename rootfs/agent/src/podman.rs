//! `iota podman`: the engine's socket, while the engine itself need not run.
//!
//! ```text
//!            somebody connects               nobody was connected for a while
//! Listening ───────────────────► Answering ──────────────────────────────────► Listening
//!     │                              │  Podman answers on the same socket
//!     └──────────── SIGTERM ─────────┴──► every container is stopped, then the end
//! ```
//!
//! The socket is open all the time, so that a connection that comes while Podman ends waits for the
//! next Podman and is not refused. It is handed over as systemd would do it (sd_listen_fds(3)): as
//! descriptor 3, in a process that `LISTEN_PID` names. Only that process knows its number in time:
//! `iota podman answer` is what it runs first.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::process::{Pid, Signal, kill_process};

use crate::engine::rescue::Seen;
use crate::{files, sys};

/// How long Podman stays after the last connection has ended: a person who types the next command
/// shall not wait for its start again.
const IDLE_S: &str = "10";

/// How long a container has from its stop signal to SIGKILL; all of them at the same time.
const STOP_S: &str = "10";

/// Before the next start of a Podman that failed.
const PAUSE: Duration = Duration::from_secs(2);

/// The first descriptor that is handed over (sd_listen_fds(3)).
const FIRST_FD: i32 = 3;

/// What this piece works with.
#[derive(Clone, Debug)]
pub struct Places {
    /// The engine's socket.
    pub socket: PathBuf,
    /// Podman.
    pub program: PathBuf,
    /// Where Podman keeps what passes through; what a cut left there is removed.
    pub temporary: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            socket: "/run/docker.sock".into(),
            program: "/usr/bin/podman".into(),
            temporary: "/var/lib/containers/tmp".into(),
        }
    }
}

/// Puts a store aside that Podman cannot open; says in a line what came of it.
pub type Rescue<'a> = &'a dyn Fn() -> Option<String>;

/// What `iota podman` does: holds the socket, or in a process of its own answers on it.
pub fn run(answers: bool, places: &Places, rescue: Rescue<'_>) -> Result<(), String> {
    if answers {
        return Err(answer(places));
    }
    let own = std::env::current_exe().map_err(|error| format!("own program: {error}"))?;
    serve(places, &own, rescue, &|line| println!("{line}"))
}

/// Holds the socket until SIGTERM; `own` is this program.
fn serve(
    places: &Places,
    own: &Path,
    rescue: Rescue<'_>,
    say: &dyn Fn(&str),
) -> Result<(), String> {
    let signals = sys::signals(&[Signal::TERM, Signal::CHILD])
        .map_err(|error| format!("cannot watch for signals: {error}"))?;
    clean(&places.temporary)
        .map_err(|error| format!("cannot make {}: {error}", places.temporary.display()))?;
    let listener = listen(&places.socket)
        .map_err(|error| format!("cannot listen on {}: {error}", places.socket.display()))?;
    let mut holder = Holder::new(listener.into(), signals);
    loop {
        let happened = holder.wait().map_err(|error| format!("cannot wait: {error}"))?;
        if happened.told_to_end {
            return holder.stop(places);
        }
        holder.look_after(say);
        if holder.failures.are_hopeless() {
            rescue().iter().for_each(|line| say(line));
            holder.failures = Failures::default();
        }
        if happened.connection && holder.podman.is_none() {
            let mut command = Command::new(own);
            command.args(["podman", "answer"]);
            if let Err(error) = holder.start(command) {
                say(&format!("cannot start: {error}"));
                holder.pause = Some(Instant::now() + PAUSE);
            }
        }
    }
}

/// In the new process: becomes Podman, with the socket that is its standard input.
///
/// Comes back only if that failed.
fn answer(places: &Places) -> String {
    let failed = |error: Errno| format!("cannot hand the socket over: {error}");
    let socket = match fcntl_dupfd_cloexec(io::stdin(), FIRST_FD) {
        Ok(socket) => socket,
        Err(error) => return failed(error),
    };
    if socket.as_raw_fd() != FIRST_FD {
        return format!("descriptor {FIRST_FD} is taken");
    }
    if let Err(error) = fcntl_setfd(&socket, FdFlags::empty()) {
        return failed(error);
    }
    let mut command = Command::new(&places.program);
    command.args(["system", "service", "--time", IDLE_S]);
    command.env("LISTEN_PID", std::process::id().to_string()).env("LISTEN_FDS", "1");
    let error = command.exec();
    drop(socket);
    format!("{}: {error}", places.program.display())
}

struct Holder {
    listener: OwnedFd,
    signals: OwnedFd,
    podman: Option<Child>,
    /// Nothing is started before.
    pause: Option<Instant>,
    failures: Failures,
}

/// Podmans that ended by themselves with an error, before any has ended without one.
#[derive(Default)]
struct Failures {
    seen: Seen,
    since: Option<Instant>,
    /// One has served: its store can be opened.
    has_served: bool,
}

impl Failures {
    fn note(&mut self, process: u32, status: ExitStatus) {
        self.has_served |= status.success();
        // One that was killed, by whoever wanted memory, says nothing of its store.
        if status.code().is_some() && !self.has_served {
            self.since.get_or_insert_with(Instant::now);
            self.seen.note("podman", i32::try_from(process).ok());
        }
    }

    fn are_hopeless(&self) -> bool {
        let waited = self.since.map(|since| since.elapsed()).filter(|_| !self.has_served);
        waited.is_some_and(|waited| self.seen.is_hopeless(waited))
    }
}

/// What ended a wait.
struct Happened {
    connection: bool,
    told_to_end: bool,
}

impl Holder {
    fn new(listener: OwnedFd, signals: OwnedFd) -> Self {
        let failures = Failures::default();
        Self { listener, signals, podman: None, pause: None, failures }
    }

    /// Waits for a signal, for a connection if nobody answers yet, or for the end of the pause.
    fn wait(&mut self) -> io::Result<Happened> {
        let now = Instant::now();
        let left = self.pause.map(|until| until.saturating_duration_since(now));
        let mut sources = vec![PollFd::new(&self.signals, PollFlags::IN)];
        if self.podman.is_none() && left.is_none() {
            sources.push(PollFd::new(&self.listener, PollFlags::IN));
        }
        let limit = left.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        });
        match poll(&mut sources, limit.as_ref()) {
            Err(Errno::INTR) | Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let ready =
            |index: usize| sources.get(index).is_some_and(|source| !source.revents().is_empty());
        let connection = ready(1);
        if left.is_some_and(|left| left <= now.elapsed()) {
            self.pause = None;
        }
        let signals = sys::take_signals(&self.signals);
        Ok(Happened { connection, told_to_end: signals.contains(&Signal::TERM) })
    }

    /// Takes note of Podman's end.
    fn look_after(&mut self, say: &dyn Fn(&str)) {
        let Some(podman) = &mut self.podman else { return };
        let ended: Option<ExitStatus> = match podman.try_wait() {
            Ok(ended) => ended,
            Err(error) => return say(&format!("cannot ask for podman's end: {error}")),
        };
        let Some(status) = ended else { return };
        self.failures.note(podman.id(), status);
        self.podman = None;
        if !status.success() {
            say(&format!("podman ended: {status}"));
            self.pause = Some(Instant::now() + PAUSE);
        }
    }

    fn start(&mut self, mut command: Command) -> io::Result<()> {
        command.stdin(self.listener.as_fd().try_clone_to_owned()?);
        self.podman = Some(command.spawn()?);
        Ok(())
    }

    /// Containers first, as long as their keepers know that it is no failure; then who answers.
    fn stop(mut self, places: &Places) -> Result<(), String> {
        let mut command = Command::new(&places.program);
        command.args(["stop", "--all", "--time", STOP_S]);
        let stopped = command.status();
        if let Some(podman) = &mut self.podman {
            let id = i32::try_from(podman.id()).ok().and_then(Pid::from_raw);
            if let Some(id) = id {
                // One that has just ended is what is wanted.
                let _ = kill_process(id, Signal::TERM);
            }
            let _ = podman.wait();
        }
        match stopped {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("containers were not stopped: podman ended: {status}")),
            Err(error) => Err(format!("{}: {error}", places.program.display())),
        }
    }
}

/// A directory with nothing in it.
fn clean(directory: &Path) -> io::Result<()> {
    files::remove_tree(directory)?;
    DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// A socket at this path for root alone, in place of one that another life of this program left.
fn listen(socket: &Path) -> io::Result<UnixListener> {
    files::remove(socket)?;
    let listener = UnixListener::bind(socket)?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn holder(directory: &Path) -> Holder {
        let listener = listen(&directory.join("sock")).unwrap();
        // No signal is blocked in a test's thread: a pipe that never says anything stands for them.
        let (signals, keep) = io::pipe().unwrap();
        std::mem::forget(keep);
        Holder::new(listener.into(), signals.into())
    }

    fn shell(line: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", line]);
        command
    }

    fn wait_for_end(holder: &mut Holder) -> Vec<String> {
        let said = std::cell::RefCell::new(Vec::new());
        while holder.podman.is_some() {
            holder.look_after(&|line| said.borrow_mut().push(line.to_owned()));
            std::thread::sleep(Duration::from_millis(5));
        }
        said.into_inner()
    }

    #[test]
    fn a_connection_that_nobody_took_waits_for_the_next_engine() {
        let directory = tempfile::tempdir().unwrap();
        let mut holder = holder(directory.path());
        let _client = UnixStream::connect(directory.path().join("sock")).unwrap();
        holder.start(shell("exit 0")).unwrap();
        assert_eq!(wait_for_end(&mut holder), Vec::<String>::new());
        let ready = |holder: &Holder| {
            let mut sources = [PollFd::new(&holder.listener, PollFlags::IN)];
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            poll(&mut sources, Some(&now)).unwrap()
        };
        assert_eq!(ready(&holder), 1, "the connection is gone");
    }

    #[test]
    fn an_engine_that_fails_is_not_started_again_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let mut holder = holder(directory.path());
        holder.start(shell("exit 3")).unwrap();
        assert_eq!(wait_for_end(&mut holder), ["podman ended: exit status: 3"]);
        assert!(holder.pause.is_some());
    }

    #[test]
    fn only_podmans_that_fail_from_the_start_speak_against_its_store() {
        let status = |line: &str| shell(line).status().unwrap();
        let (bad, good, killed) = (status("exit 125"), status("exit 0"), status("kill -9 $$"));
        let after = |ends: &[ExitStatus]| {
            let mut failures = Failures::default();
            ends.iter().zip(1..).for_each(|(end, process)| failures.note(process, *end));
            // As long ago as a slow card would take.
            let long_ago = failures.since.and_then(|at| at.checked_sub(Duration::from_secs(600)));
            failures.since = failures.since.and(long_ago);
            failures.are_hopeless()
        };
        assert!(after(&[bad; 5]));
        assert!(!after(&[bad; 4]));
        assert!(!after(&[killed; 9]));
        assert!(!after(&[good, bad, bad, bad, bad, bad, bad]));
        assert!(!after(&[bad, bad, bad, bad, bad, good]));
    }

    #[test]
    fn what_a_cut_left_behind_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let temporary = directory.path().join("tmp");
        fs::create_dir_all(temporary.join("a")).unwrap();
        fs::write(temporary.join("a/half"), "x").unwrap();
        clean(&temporary).unwrap();
        assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
        clean(&directory.path().join("new/tmp")).unwrap();
    }

    #[test]
    fn a_socket_of_a_former_life_is_no_obstacle() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sock");
        drop(listen(&path).unwrap());
        assert!(path.exists());
        listen(&path).unwrap();
    }
}
