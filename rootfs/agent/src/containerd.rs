//! `iota containerd`: stops all containers at the end, which containerd leaves to itself.
//!
//! PID 1 starts it after containerd and so stops it before. While the device runs it only waits:
//! containerd's own monitor starts containers again that have ended.

use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::Signal;

use crate::engine::Containerd;
use crate::sys;

/// containerd's socket.
const SOCKET: &str = "/run/containerd/containerd.sock";

/// How long a container has from its stop signal to SIGKILL; all of them at the same time.
const STOP: Duration = Duration::from_secs(10);

/// What `iota containerd` does.
pub fn run() -> Result<(), String> {
    let failed = |error: std::io::Error| format!("cannot wait for signals: {error}");
    let signals = sys::signals(&[Signal::TERM]).map_err(failed)?;
    while sys::take_signals(&signals).is_empty() {
        match poll(&mut [PollFd::new(&signals, PollFlags::IN)], None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(failed(error.into())),
        }
    }
    let killed = Containerd::new(Path::new(SOCKET))
        .stop_all(STOP)
        .map_err(|error| format!("containers were not stopped: {error}"))?;
    for name in killed {
        println!("container {name} does not stop: SIGKILL");
    }
    Ok(())
}
