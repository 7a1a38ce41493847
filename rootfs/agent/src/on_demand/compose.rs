//! Starts and stops the containers that Compose has made, by the engine's API: Compose itself would
//! be a program of 60 MB for each connection that comes first.

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::held::{Containers, Running};
use crate::engine::{Engine, Inside};

/// The containers of Compose projects.
pub struct Projects {
    /// Keeps them.
    pub engine: Box<dyn Engine>,
}

impl Projects {
    fn find(&self, app: &str, service: &str) -> Result<Inside, String> {
        let found = self.engine.inside(app, service).map_err(|error| error.to_string())?;
        found.ok_or_else(|| "its container is not there".to_owned())
    }
}

impl Containers for Projects {
    fn start(&self, app: &str, service: &str) -> Result<Running, String> {
        let id = self.find(app, service)?.id;
        self.engine.start(&id).map_err(|error| error.to_string())?;
        let inside = self.find(app, service)?;
        let Some(process) = inside.process.and_then(Pid::from_raw) else {
            return Err(format!("it ended with status {}", inside.exit_code));
        };
        // One that ends meanwhile has no process to be opened: it is told as such.
        let process = pidfd_open(process, PidfdFlags::empty())
            .map_err(|error| format!("it ended at once: {error}"))?;
        let address = inside.addresses.first().copied();
        let address = address.ok_or("it has no address in any network")?;
        Ok(Running { address, process })
    }

    fn stop(&self, app: &str, service: &str) -> Result<(), String> {
        let found = self.engine.inside(app, service).map_err(|error| error.to_string())?;
        found.map_or(Ok(()), |it| self.engine.stop(&it.id).map_err(|error| error.to_string()))
    }
}
