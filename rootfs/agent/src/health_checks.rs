//! Health checks of containers whose engine does not run by itself.
//!
//! Podman leaves it to systemd's timers to run them. Here a thread looks, without asking anybody,
//! which containers run: each has a directory with the number of its process. The engine is asked
//! once for each container that is new, and then as often as a check is due; a device without a
//! check never wakes it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::client::Error;
use crate::engine::Docker;

/// Pause between two looks at the directory.
const PACE: Duration = Duration::from_secs(1);

/// Where a container's state lies while the device runs.
const STATE: &str = "/run/containers/storage/overlay-containers";

/// Attends to all containers of this device from now on, beside whatever else is done.
pub fn start(socket: &Path) {
    let engine = Docker::podman(socket);
    thread::spawn(move || run(&engine));
}

fn run(engine: &Docker) -> ! {
    let attended = Mutex::new(BTreeSet::new());
    let lock = || attended.lock().unwrap_or_else(PoisonError::into_inner);
    thread::scope(|scope| {
        loop {
            for id in ids(Path::new(STATE)) {
                let container = Container { id, state: STATE.into() };
                if !container.runs() || !lock().insert(container.id.clone()) {
                    continue;
                }
                let lock = &lock;
                scope.spawn(move || {
                    container.attend(engine);
                    lock().remove(&container.id);
                });
            }
            thread::sleep(PACE);
        }
    })
}

fn ids(state: &Path) -> Vec<String> {
    let entries = fs::read_dir(state).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// A container, by the directory of its state.
struct Container {
    id: String,
    state: PathBuf,
}

impl Container {
    fn directory(&self) -> PathBuf {
        self.state.join(&self.id).join("userdata")
    }

    /// Whether its first process is there.
    fn runs(&self) -> bool {
        let pid = fs::read_to_string(self.directory().join("pidfile")).unwrap_or_default();
        let pid: Option<u32> = pid.trim().parse().ok();
        pid.is_some_and(|pid| Path::new("/proc").join(pid.to_string()).exists())
    }

    /// Until it is removed; one that has no check costs a look now and then.
    fn attend(&self, engine: &Docker) {
        let interval = self.interval(engine);
        while self.directory().exists() {
            if interval.is_some() && self.runs() {
                // A check that failed is in the container's state; an engine that does not answer
                // is told by whoever waits for it.
                let _ = engine.check_health(&self.id);
            }
            thread::sleep(interval.unwrap_or(PACE));
        }
    }

    /// How often its check runs; `None` if it has none, or is gone.
    fn interval(&self, engine: &Docker) -> Option<Duration> {
        loop {
            match engine.check_interval(&self.id) {
                Ok(interval) => return interval,
                Err(Error::Refused(404, _)) => return None,
                Err(_) if self.directory().exists() => thread::sleep(PACE),
                Err(_) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_runs_if_the_process_of_its_file_is_there() {
        let state = tempfile::tempdir().unwrap();
        let container = Container { id: "a1".to_owned(), state: state.path().to_owned() };
        assert!(!container.runs());
        fs::create_dir_all(container.directory()).unwrap();
        let pidfile = container.directory().join("pidfile");
        for (text, expected) in [(std::process::id().to_string(), true), ("x".to_owned(), false)] {
            fs::write(&pidfile, text).unwrap();
            assert_eq!(container.runs(), expected);
        }
        assert_eq!(ids(state.path()), ["a1"]);
    }
}
