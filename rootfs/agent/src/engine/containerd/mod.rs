//! containerd alone, driven by its own client `ctr` (docs/decisions/containerd.md).
//!
//! ```text
//! image      iota.local/sha256:ID        every image is known by its id, and by nothing else
//! container  NAME                        label `iota.declaration`: what it was made from
//! restarts   containerd's own monitor    label `containerd.io/restart.status`: only while it runs
//! output     OUTPUT/NAME.log             written by `iota containerd log` (crate::container_log)
//! ```
//!
//! What needs Docker's API is refused: apps, and images from anywhere but the root.
//!
//! Reading order: this file → `ctr` (one call) → `read` (what it says) → `make` (what it is told).

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use ondisk::system::Container;

use self::ctr::{Ctr, LONG, SHORT, is_absent};
use self::make::{IMAGES, RESTART_POLICY, RESTART_STATUS};
use self::read::{Info, Task};
use super::podman::Followed;
use super::{Attached, Engine, Exec, Found, Inside, Listed, Member};
use crate::client::{Error, Result};
use crate::container_log;
use crate::time::Moment;

mod ctr;
mod make;
mod read;

/// Where containerd keeps the state of what runs, a directory for each container.
const BUNDLES: &str = "/run/containerd/io.containerd.runtime.v2.task/iota";
/// The host's name servers as containers get them; the network's hook makes the file.
const NAME_SERVERS: &str = "/run/resolv.conf";
/// Where what people keep in the console lies: a rescue of the store leaves volumes alone.
const CONSOLE_HOME: &str = "/var/lib/containerd/volumes/iota-console-home";

/// Between two looks at something that takes a moment.
const PACE: Duration = Duration::from_millis(200);
/// For so long containerd's monitor has taken a task away and not made the next one.
const GAP: Duration = Duration::from_millis(600);
/// A task that was killed is gone by then.
const KILLED: Duration = Duration::from_secs(10);

/// containerd behind its socket.
#[derive(Clone, Debug)]
pub struct Containerd {
    ctr: Ctr,
}

impl Containerd {
    /// Names the socket; nothing is opened yet.
    pub fn new(socket: &Path) -> Self {
        Self { ctr: Ctr::new(socket) }
    }

    fn run<S: AsRef<str>>(&self, arguments: &[S]) -> Result<String> {
        self.ctr.run(SHORT, arguments)
    }

    /// A container as it was made, if there is one of this name.
    fn info(&self, name: &str) -> Result<Option<Info>> {
        match self.run(&["containers", "info", name]) {
            Err(error) if is_absent(&error) => Ok(None),
            said => Info::parse(&said?).map(Some),
        }
    }

    fn tasks(&self) -> Result<Vec<Task>> {
        read::tasks(&self.run(&["tasks", "list"])?)
    }

    fn task(&self, name: &str) -> Result<Option<Task>> {
        Ok(self.tasks()?.into_iter().find(|task| task.container == name))
    }

    /// A task of a container that is to run; while the next one is made there is none.
    fn task_of(&self, name: &str, info: &Info) -> Result<Option<Task>> {
        let began = Instant::now();
        loop {
            let task = self.task(name)?;
            if task.is_some() || !info.is_kept() || began.elapsed() > GAP {
                return Ok(task);
            }
            thread::sleep(PACE);
        }
    }

    /// With what a task ended; only whoever keeps it knows.
    fn task_exit_code(&self, name: &str) -> Result<i64> {
        read::exit_code(&self.run(&["shim", "--id", name, "state"])?)
    }

    /// From now on containerd starts it again, or leaves it.
    fn keep(&self, name: &str, is_kept: bool) -> Result<()> {
        let label = format!("{RESTART_STATUS}={}", if is_kept { "running" } else { "" });
        self.run(&["containers", "label", name, &label]).map(drop)
    }

    fn make(&self, name: &str, arguments: &[String]) -> Result<()> {
        container_log::begin(name)?;
        self.run(arguments).map(drop)
    }

    /// Stops every container: its signal, and SIGKILL when the time is up. Gives the names of those
    /// that needed that. None is started again before somebody asks for it.
    pub fn stop_all(&self, limit: Duration) -> Result<Vec<String>> {
        let running: Vec<Task> = self.tasks()?.into_iter().filter(Task::is_alive).collect();
        for Task { container, .. } in &running {
            // Without this, containerd would start it again meanwhile.
            self.keep(container, false)?;
        }
        self.signal(&running, "SIGTERM")?;
        let left = self.wait_for_end(limit)?;
        self.signal(&left, "SIGKILL")?;
        self.wait_for_end(KILLED)?;
        Ok(left.into_iter().map(|task| task.container).collect())
    }

    fn signal(&self, tasks: &[Task], signal: &str) -> Result<()> {
        for Task { container, .. } in tasks {
            match self.run(&["tasks", "kill", "--signal", signal, container]) {
                Err(error) if !is_absent(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Those that still run when the time is up.
    fn wait_for_end(&self, limit: Duration) -> Result<Vec<Task>> {
        let began = Instant::now();
        loop {
            let left: Vec<Task> = self.tasks()?.into_iter().filter(Task::is_alive).collect();
            if left.is_empty() || began.elapsed() >= limit {
                return Ok(left);
            }
            thread::sleep(PACE);
        }
    }

    /// Gives every image that has come its id for a name, in place of the one it came with.
    fn name_by_id(&self) -> Result<()> {
        for image in read::images(&self.run(&["images", "list"])?)? {
            if image.name.starts_with(IMAGES) {
                continue;
            }
            let id = read::config_of(&self.run(&["content", "get", &image.digest])?)?;
            let name = format!("{IMAGES}{id}");
            self.run(&["images", "tag", "--force", "--local", &image.name, &name])?;
            gone(self.run(&["images", "remove", &image.name]))?;
        }
        Ok(())
    }
}

impl Engine for Containerd {
    fn ping(&self) -> Result<()> {
        self.version().map(drop)
    }

    fn version(&self) -> Result<String> {
        read::version(&self.run(&["version"])?)
    }

    fn has_image(&self, id: &str) -> Result<bool> {
        let wanted = format!("{IMAGES}{id}");
        let images = read::images(&self.run(&["images", "list"])?)?;
        Ok(images.iter().any(|image| image.name == wanted))
    }

    fn load_image(&self, archive: &mut dyn Read, _length: u64) -> Result<()> {
        self.ctr.feed(LONG, &["images", "import", "--local", "-"], archive)?;
        // Last, when it is unpacked: an image that is cut off in between is loaded again.
        self.name_by_id()
    }

    fn remove_image(&self, id: &str) -> Result<()> {
        match self.users_of(id)?.is_empty() {
            true => self.drop_image(id),
            false => Ok(()),
        }
    }

    fn drop_image(&self, id: &str) -> Result<()> {
        gone(self.run(&["images", "remove", &format!("{IMAGES}{id}")]))
    }

    fn export_image(&self, _id: &str) -> Result<Box<dyn Read>> {
        Err(lacks("gives no images away"))
    }

    fn users_of(&self, id: &str) -> Result<Vec<String>> {
        let containers = read::containers(&self.run(&["containers", "list"])?)?;
        let users = containers.into_iter().filter(|container| container.image == id);
        Ok(users.map(|container| container.name).collect())
    }

    fn find(&self, name: &str) -> Result<Option<Found>> {
        let Some(info) = self.info(name)? else { return Ok(None) };
        let task = self.task_of(name, &info)?;
        let exit_code = match &task {
            Some(task) if !task.is_alive() => self.task_exit_code(name)?,
            _ => 0,
        };
        let state = info.state(task.as_ref(), exit_code);
        let (declaration, image) = (info.declaration, info.image);
        Ok(Some(Found { declaration, image, state, started: started(name), exit_code }))
    }

    fn create(&self, declared: &Container, image: &str) -> Result<()> {
        let config = self.run(&["content", "get", image])?;
        let command = read::command(&config, declared)?;
        let declaration = self.declaration(declared, image);
        self.make(&declared.name, &make::container(declared, image, &command, &declaration))
    }

    fn start(&self, name: &str) -> Result<()> {
        let info = self.info(name)?.ok_or_else(|| lacks(&format!("has no container {name}")))?;
        let task = self.task(name)?;
        if !task.as_ref().is_some_and(Task::is_alive) {
            if task.is_some() {
                gone(self.run(&["tasks", "delete", name]))?;
            }
            fs::OpenOptions::new().create(true).append(true).open(NAME_SERVERS)?;
            let uri = make::LOG_URI;
            match self.run(&["tasks", "start", "--detach", "--log-uri", uri, name]) {
                // The monitor was faster.
                Err(Error::Refused(_, said)) if said.contains("already exists") => {}
                started => drop(started?),
            }
        }
        if info.labels.contains_key(RESTART_POLICY) { self.keep(name, true) } else { Ok(()) }
    }

    /// Only apps have containers that are stopped and started again.
    fn stop(&self, _name: &str) -> Result<()> {
        Err(lacks("runs no apps"))
    }

    fn holds_lost_port(&self, _refusal: &Error) -> Result<bool> {
        Ok(false)
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.keep(name, false)?;
        let began = Instant::now();
        loop {
            gone(self.run(&["tasks", "delete", "--force", name]))?;
            match self.run(&["containers", "delete", name]) {
                // The monitor has just started it once more.
                Err(Error::Refused(..)) if began.elapsed() < KILLED => thread::sleep(PACE),
                deleted => return gone(deleted).and_then(|()| Ok(container_log::forget(name)?)),
            }
        }
    }

    fn output(&self, name: &str, after: Option<Moment>) -> Result<Box<dyn Read>> {
        let writer = container_log::writer(name).map(|id| PathBuf::from(format!("/proc/{id}")));
        Ok(Box::new(Followed::open(container_log::path(name), writer, after)?))
    }

    fn declaration(&self, declared: &Container, image: &str) -> String {
        make::declaration(declared, image)
    }

    /// Images have no names but their ids.
    fn image_id(&self, _name: &str) -> Result<Option<String>> {
        Ok(None)
    }

    fn pull(&self, _name: &str) -> Result<()> {
        Err(lacks("runs images that this system carries, and no others"))
    }

    fn create_console(&self, name: &str, image: &str) -> Result<()> {
        fs::create_dir_all(CONSOLE_HOME)?;
        self.make(name, &make::console(name, image, &self.console_declaration(image)))
    }

    fn console_declaration(&self, image: &str) -> String {
        make::console_declaration(image)
    }

    fn execute(&self, _exec: &Exec<'_>) -> Result<Attached> {
        Err(lacks("has its client start programs in a container"))
    }

    fn client(&self, exec: &Exec<'_>) -> Option<Command> {
        let id = format!("{}-{}", std::process::id(), Moment::now());
        Some(self.ctr.command(None, &make::exec(exec, &id)))
    }

    fn resize(&self, _exec: &str, _size: (u16, u16)) -> Result<()> {
        Err(lacks("leaves terminals to its client"))
    }

    fn exit_code(&self, _exec: &str) -> Result<i64> {
        Err(lacks("tells its client alone how a program ended"))
    }

    fn runs_apps(&self) -> bool {
        false
    }

    fn members(&self, _project: &str) -> Result<Vec<Member>> {
        Err(lacks("runs no apps"))
    }

    fn inside(&self, _project: &str, _service: &str) -> Result<Option<Inside>> {
        Err(lacks("runs no apps"))
    }

    fn name_image(&self, _id: &str, _name: &str) -> Result<()> {
        Err(lacks("knows images by their ids alone"))
    }

    fn stacks(&self) -> Result<Vec<(String, Vec<String>)>> {
        Err(lacks("tells no layers of images"))
    }

    fn runs_on_demand(&self) -> bool {
        false
    }

    fn resume(&self) -> Result<()> {
        Ok(())
    }

    fn list(&self) -> Result<Vec<Listed>> {
        let tasks = self.tasks()?;
        let containers = read::containers(&self.run(&["containers", "list"])?)?;
        let listed = |it: read::Named| {
            let task = tasks.iter().find(|task| task.container == it.name);
            let exit_code = match task {
                Some(task) if !task.is_alive() => Some(self.task_exit_code(&it.name)?),
                _ => None,
            };
            let (state, status) = read::words(task, exit_code, started(&it.name), Moment::now());
            Ok(Listed { name: it.name, image: it.image, state, status })
        };
        containers.into_iter().map(listed).collect()
    }
}

/// When the program of a container was last started, if it has a task.
fn started(name: &str) -> Option<Moment> {
    let file = Path::new(BUNDLES).join(name).join("init.pid");
    Some(Moment::of(fs::metadata(file).ok()?.modified().ok()?))
}

/// Whatever is gone already is what was wanted.
fn gone(result: Result<String>) -> Result<()> {
    match result {
        Err(error) if is_absent(&error) => Ok(()),
        result => result.map(drop),
    }
}

/// What this engine has not, or does not do.
fn lacks(what: &str) -> Error {
    Error::Unsupported(format!("the engine containerd {what}"))
}
