//! Lines for the console: whole, one writer at a time, with the names that people look for.
//!
//! PID 1 passes them on as they are, so they carry their own prefix:
//!
//! ```text
//! iota agent: [  12.345] engine docker ready      the agent itself; seconds since the kernel began
//! iota app hello: a line of its output            the container `hello`
//! ```

use std::io::Write;
use std::sync::{Mutex, PoisonError};

use rustix::time::{ClockId, clock_gettime};

/// Where lines go.
pub struct Console {
    writer: Mutex<Box<dyn Write + Send>>,
}

impl Console {
    /// Writes to `writer`. A console that fails is no reason to stop: lines are lost then.
    pub fn new(writer: impl Write + Send + 'static) -> Self {
        Self { writer: Mutex::new(Box::new(writer)) }
    }

    /// A line of the agent itself.
    pub fn say(&self, text: &str) {
        let now = clock_gettime(ClockId::Monotonic);
        let milliseconds = now.tv_nsec / 1_000_000;
        self.line(&format!("iota agent: [{:>4}.{milliseconds:03}] {text}\n", now.tv_sec));
    }

    /// A line of a container's output, free of control characters.
    pub fn app(&self, name: &str, line: &str) {
        self.line(&format!("iota app {name}: {line}\n"));
    }

    fn line(&self, line: &str) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        // One call a line, so that lines of other processes do not come between.
        let _ = writer.write_all(line.as_bytes()).and_then(|()| writer.flush());
    }
}
