//! What PID 1 and its services say: on the console, and in a ring for later readers.
//!
//! ```text
//! iota init: [   1.234] root mounted
//! iota docker: [   3.456] a line that dockerd wrote
//! ```
//! Each line is one write, so that it is whole between lines of the kernel. The console never
//! blocks: a serial line may be slow or stuck, and PID 1 has services to watch. What it cannot take
//! waits in a bounded queue, and what the queue cannot take is counted and named.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use ondisk::system::Output;
use rustix::fs::OFlags;
use rustix::time::{ClockId, clock_gettime};

use crate::ring::Ring;

/// Bytes of log kept in memory.
const RING_BYTES: usize = 256 * 1024;
/// Bytes that may wait for the console.
const QUEUE_BYTES: usize = 64 * 1024;

static LOG: Mutex<Log> = Mutex::new(Log::new());

struct Log {
    console: Option<&'static File>,
    queue: VecDeque<u8>,
    lost_lines: u64,
    ring: Option<Ring>,
}

/// Milliseconds since the kernel started.
pub(crate) fn now_ms() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1000) + u64::try_from(time.tv_nsec / 1_000_000).unwrap_or(0)
}

/// Opens the console; without one everything still goes to the ring.
pub(crate) fn open_console() {
    let mut options = OpenOptions::new();
    // No controlling terminal: a hang-up of the serial line must not reach PID 1.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    options.write(true).custom_flags(i32::try_from(flags.bits()).unwrap_or(0));
    let Ok(console) = options.open("/dev/console") else { return };
    // Lives as long as PID 1; a reference lets the main loop poll it without holding the lock.
    lock().console = Some(Box::leak(Box::new(console)));
}

/// Begins to keep lines in memory.
pub(crate) fn keep_lines() {
    lock().ring = Some(Ring::new(RING_BYTES));
}

/// A line of PID 1 for console and ring.
pub(crate) fn say(text: &str) {
    lock().line(&stamped("init", text), Output::Console);
}

/// A line of PID 1 for the ring alone.
pub(crate) fn note(text: &str) {
    lock().line(&stamped("init", text), Output::Log);
}

/// A line that a service wrote.
pub(crate) fn service(name: &str, text: &str, output: Output) {
    match output {
        Output::Verbatim => lock().line(text, Output::Console),
        Output::Console | Output::Log => lock().line(&stamped(name, text), output),
    }
}

/// All lines that are kept.
pub(crate) fn kept() -> Vec<u8> {
    lock().ring.as_ref().map(Ring::snapshot).unwrap_or_default()
}

/// The console, if lines wait for it.
pub(crate) fn waiting_console() -> Option<BorrowedFd<'static>> {
    let log = lock();
    if log.queue.is_empty() { None } else { log.console.map(AsFd::as_fd) }
}

/// Writes waiting lines as far as the console takes them.
pub(crate) fn flush() {
    lock().flush();
}

/// Gives a slow console a moment for the last lines of this program.
pub(crate) fn drain() {
    for _ in 0..100 {
        flush();
        if waiting_console().is_none() {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn lock() -> MutexGuard<'static, Log> {
    // A thread that died in the middle of a line left nothing worse than that line.
    LOG.lock().unwrap_or_else(PoisonError::into_inner)
}

fn stamped(name: &str, text: &str) -> String {
    let now = now_ms();
    format!("iota {name}: [{:4}.{:03}] {text}", now / 1000, now % 1000)
}

impl Log {
    const fn new() -> Self {
        Self { console: None, queue: VecDeque::new(), lost_lines: 0, ring: None }
    }

    fn line(&mut self, line: &str, output: Output) {
        if let Some(ring) = &mut self.ring {
            ring.push(line);
        }
        if output == Output::Log {
            return;
        }
        if self.queue.len() + line.len() > QUEUE_BYTES {
            self.lost_lines = self.lost_lines.saturating_add(1);
            return;
        }
        self.report_loss();
        self.enqueue(line);
        self.flush();
    }

    fn report_loss(&mut self) {
        if self.lost_lines > 0 {
            let text = format!("the console was too slow for {} lines", self.lost_lines);
            self.lost_lines = 0;
            self.enqueue(&stamped("init", &text));
        }
    }

    fn enqueue(&mut self, line: &str) {
        self.queue.extend(line.as_bytes());
        self.queue.push_back(b'\n');
    }

    fn flush(&mut self) {
        let Some(mut console) = self.console else { return self.queue.clear() };
        while !self.queue.is_empty() {
            match console.write(self.queue.make_contiguous()) {
                Ok(0) => return,
                Ok(count) => drop(self.queue.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // A console that is gone shall not fill the queue for ever.
                Err(_) => return self.queue.clear(),
            }
        }
    }
}
