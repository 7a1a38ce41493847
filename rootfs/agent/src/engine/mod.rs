//! What the agent asks of a container engine, whatever its API.
//!
//! `api` in the system description picks the implementation. Docker and Podman speak the same API
//! but for what `podman` (the module) says; `containerd` is driven by its own client and lacks
//! what needs that API.

use std::io::Read;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use ondisk::system::Container;

use crate::client::{self, Result};
use crate::time::Moment;

mod containerd;
mod docker;
mod exec;
mod podman;
mod project;
pub mod rescue;

pub use containerd::Containerd;
pub use docker::Docker;
pub use exec::{Attached, Exec};

/// A container engine. Every call is one request; nothing is kept between calls.
pub trait Engine: Send + Sync {
    /// Ok when the engine answers.
    fn ping(&self) -> Result<()>;

    /// The engine's version, as text for people.
    fn version(&self) -> Result<String>;

    /// Whether the engine has the image with this id.
    fn has_image(&self, id: &str) -> Result<bool>;

    /// Gives the engine an image archive of `length` bytes.
    fn load_image(&self, archive: &mut dyn Read, length: u64) -> Result<()>;

    /// Removes an image; an image that is in use or gone stays as it is.
    fn remove_image(&self, id: &str) -> Result<()>;

    /// Removes an image with all its names; one that is gone is fine.
    fn drop_image(&self, id: &str) -> Result<()>;

    /// An archive of an image, as the engine makes it of what it holds.
    fn export_image(&self, id: &str) -> Result<Box<dyn Read>>;

    /// Names of the containers made of an image, running or not.
    fn users_of(&self, id: &str) -> Result<Vec<String>>;

    /// The container with this name, if there is one.
    fn find(&self, name: &str) -> Result<Option<Found>>;

    /// Makes a container, not yet started.
    fn create(&self, declared: &Container, image: &str) -> Result<()>;

    /// Starts a container; one that runs already goes on.
    fn start(&self, name: &str) -> Result<()>;

    /// Stops a container as it says itself, with its signal and its grace; one that does not run
    /// is fine.
    fn stop(&self, name: &str) -> Result<()>;

    /// Whether it said no because it holds a port of the host for a container that does not run:
    /// after a reset it may keep one of an endpoint of the past until it is restarted.
    fn holds_lost_port(&self, refusal: &client::Error) -> Result<bool>;

    /// Stops and removes a container, but not its named volumes.
    fn remove(&self, name: &str) -> Result<()>;

    /// The container's output after a moment (or all of it), then what comes, until it stops.
    /// The bytes are those that [`crate::stream::Output`] takes.
    fn output(&self, name: &str, after: Option<Moment>) -> Result<Box<dyn Read>>;

    /// The declaration from which `create` would make a container now; see [`Found::declaration`].
    fn declaration(&self, declared: &Container, image: &str) -> String;

    /// The id of the image with this name, if the engine has it.
    fn image_id(&self, name: &str) -> Result<Option<String>>;

    /// Fetches an image from its registry.
    fn pull(&self, name: &str) -> Result<()>;

    /// Makes the container that people log in to, not yet started.
    fn create_console(&self, name: &str, image: &str) -> Result<()>;

    /// What [`Engine::create_console`] would make it from; see [`Found::declaration`].
    fn console_declaration(&self, image: &str) -> String;

    /// The program that does what [`Engine::execute`] is for on our own standard input and output,
    /// and ends as the one in the container does; `None` if the engine is asked itself.
    fn client(&self, _exec: &Exec<'_>) -> Option<Command> {
        None
    }

    /// Whether Compose can use it: apps, and images that come after the system.
    fn runs_apps(&self) -> bool {
        true
    }

    /// Starts a program in a running container.
    fn execute(&self, exec: &Exec<'_>) -> Result<Attached>;

    /// Its terminal has this many rows and columns now.
    fn resize(&self, exec: &str, size: (u16, u16)) -> Result<()>;

    /// With what it ended.
    fn exit_code(&self, exec: &str) -> Result<i64>;

    /// The containers of a Compose project, running or not.
    fn members(&self, project: &str) -> Result<Vec<Member>>;

    /// The container of a service of a Compose project, seen from the host.
    fn inside(&self, project: &str, service: &str) -> Result<Option<Inside>>;

    /// Gives an image one more name.
    fn name_image(&self, id: &str, name: &str) -> Result<()>;

    /// The id of every image, and its layers, the lowest first.
    fn stacks(&self) -> Result<Vec<(String, Vec<String>)>>;

    /// Whether nothing of it runs but while it is asked: it keeps no time and starts nothing by
    /// itself.
    fn runs_on_demand(&self) -> bool;

    /// At the start of the device: containers that are to run always run again. An engine that runs
    /// all the time has done that by itself.
    fn resume(&self) -> Result<()>;

    /// All containers, running or not.
    fn list(&self) -> Result<Vec<Listed>>;
}

/// A container as the engine knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// From what `create` made it; `None` when somebody else did.
    pub declaration: Option<String>,
    /// Id of its image.
    pub image: String,
    /// What it does now.
    pub state: State,
    /// When it was last started.
    pub started: Option<Moment>,
    /// With what its program ended, when it does not run.
    pub exit_code: i64,
}

/// What a container does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its program runs (or is paused).
    Running,
    /// The engine is about to start it again.
    Restarting,
    /// It was made and never started.
    Created,
    /// Its program has ended.
    Ended,
}

/// A container of a Compose project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its service.
    pub service: String,
    /// One word: `running`, `exited`…
    pub state: String,
    /// What its health check says, if it has one: `starting`, `healthy`, `unhealthy`.
    pub health: Option<String>,
    /// With what its program ended, when it does not run.
    pub exit_code: i64,
    /// How often the engine has started it again.
    pub restarts: u64,
    /// Whether the engine starts it again even when it ends well.
    pub restarts_always: bool,
}

/// Where a container is for the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inside {
    /// Its id.
    pub id: String,
    /// Its first process, if it runs.
    pub process: Option<i32>,
    /// Its addresses in its networks, those of IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// With what its program ended, when it does not run.
    pub exit_code: i64,
}

/// A line of the list of containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its image, as the engine shows it.
    pub image: String,
    /// One word: `running`, `exited`…
    pub state: String,
    /// The engine's words: `Up 3 minutes`.
    pub status: String,
}

/// The engine with this API behind a socket; `None` for an API that nobody implements.
pub fn open(api: &str, socket: &Path) -> Option<Box<dyn Engine>> {
    match api {
        "docker" => Some(Box::new(Docker::new(socket))),
        "podman" => Some(Box::new(Docker::podman(socket))),
        "containerd" => Some(Box::new(Containerd::new(socket))),
        _ => None,
    }
}
