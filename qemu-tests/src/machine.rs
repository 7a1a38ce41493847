//! A virtual machine under test: success is a line, silence is failure.
//!
//! As many machines run at a time as there are processors, two at most: an emulated machine keeps
//! one processor busy, and more of them would make each other's time-outs expire. The log of each
//! lies in `target/qemu-tests/logs` and stays there when the test fails. Panics are this module's
//! errors: each says what was waited for, and what the guest said last.

use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use builder::host::qemu::{self, Event, Options};
use serde_json::Value;

use crate::console::{Console, Line};
use crate::{scratch, tools};

/// An update on a busy machine that emulates.
const EXECUTE_LIMIT: Duration = Duration::from_secs(600);

/// Machines that run.
static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

/// The right to run a machine.
struct Turn;

impl Turn {
    fn wait() -> Self {
        let most = thread::available_parallelism().map_or(1, usize::from).min(2);
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = ENDED.wait_while(running, |running| *running >= most);
        *waited.unwrap_or_else(PoisonError::into_inner) += 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ENDED.notify_one();
    }
}

/// Lines after which there is nothing to wait for.
const HOPELESS: [&str; 3] =
    // The last is PID 1's, behind its clock.
    ["Kernel panic - not syncing", "Synchronous Exception", "] cannot start: "];

/// A machine and what it has said.
pub struct Machine {
    name: String,
    machine: qemu::Machine,
    events: Receiver<Event>,
    /// Everything on its serial console.
    pub console: Console,
    end: Option<End>,
    /// A restart is no end of this machine.
    restarts: bool,
    restarted: bool,
    expects_trouble: bool,
    _turn: Turn,
}

/// How a machine ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The guest switched it off.
    PoweredOff,
    /// The guest wanted to start again.
    Restarted,
    /// Something else.
    Stopped,
}

impl Machine {
    /// Boots; `name` is that of the log file.
    pub fn boot(name: &str, options: &Options) -> Self {
        let turn = Turn::wait();
        let (machine, events) = tools::with(|tools| qemu::Machine::start(options, tools));
        eprintln!("+ {}", machine.command_line());
        Self {
            name: name.to_owned(),
            machine,
            events,
            console: Console::default(),
            end: None,
            restarts: options.restarts,
            restarted: false,
            expects_trouble: false,
            _turn: turn,
        }
    }

    /// For tests of faults: lines that else end a wait at once are waited past.
    #[must_use]
    pub fn expecting_trouble(mut self) -> Self {
        self.expects_trouble = true;
        self
    }

    /// Runs a command of the device, its own `iota`, and returns its exit status and all that it
    /// printed.
    pub fn execute(&mut self, arguments: &[&str], input: impl Read + Send) -> (u8, String) {
        let answer = self.machine.execute(arguments, input, EXECUTE_LIMIT);
        let answer = answer.unwrap_or_else(|error| self.fail(&error.chain()));
        let errors = String::from_utf8_lossy(&answer.errors).into_owned();
        eprintln!("    $ iota {}: status {}", arguments.join(" "), answer.status);
        (answer.status, format!("{}{errors}", answer.text()))
    }

    /// What the device says about itself.
    pub fn status(&mut self) -> Value {
        let (_, text) = self.execute(&["status", "--json"], io::empty());
        let line = text.lines().next().unwrap_or_default();
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Restarts the device by its own command and waits for the loader.
    pub fn restart(&mut self, limit: Duration) {
        let (code, said) = self.execute(&["reboot"], io::empty());
        assert_eq!(code, 0, "{said}");
        self.expect("iota init: [", limit);
        self.expect("restart", limit);
        self.expect("iota loader: version", limit);
    }

    /// Types on the console.
    pub fn types(&mut self, text: &str) {
        let typed = self.machine.type_in(text.as_bytes());
        typed.unwrap_or_else(|error| self.fail(&error.chain()));
    }

    /// The virtual machine itself.
    pub fn qemu(&self) -> &qemu::Machine {
        &self.machine
    }

    /// Waits for a line that holds `text`.
    pub fn expect(&mut self, text: &str, limit: Duration) -> Line {
        self.expect_line(&format!("`{text}`"), limit, |line| line.contains(text))
    }

    /// Waits for a line that holds `text`, wherever it stands: for what goes on beside the rest.
    pub fn expect_somewhere(&mut self, text: &str, limit: Duration) {
        self.expect_one_of(&[text], limit);
    }

    /// As [`Self::expect_somewhere`], with the first of several texts; returns which.
    pub fn expect_one_of<'a>(&mut self, texts: &[&'a str], limit: Duration) -> &'a str {
        let deadline = Instant::now() + limit;
        loop {
            let log = self.console.lines();
            let came = |text: &&&str| log.iter().any(|line| line.text.contains(**text));
            if let Some(text) = texts.iter().find(came) {
                return text;
            }
            if self.end.is_some() || !self.receive(deadline) {
                self.fail(&format!("`{}` did not come at all", texts.join("` or `")));
            }
        }
    }

    /// Waits for a line for which `matches` is true; `what` names it in the failure.
    pub fn expect_line(
        &mut self,
        what: &str,
        limit: Duration,
        matches: impl Fn(&str) -> bool,
    ) -> Line {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(line) = self.console.take(&matches) {
                eprintln!("{:7.2} s  {}", line.at.as_secs_f64(), line.text);
                return line;
            }
            let hope = !self.is_hopeless() && self.end.is_none();
            if !hope || !self.receive(deadline) {
                let why = if hope { format!("not within {limit:?}") } else { "no more".to_owned() };
                self.fail(&format!("{what} did not come: {why}"));
            }
        }
    }

    /// Waits until the machine has ended, whatever it says until then.
    pub fn wait_for_end(&mut self, limit: Duration) -> End {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(end) = self.end {
                return end;
            }
            if !self.receive(deadline) {
                self.fail(&format!("the machine did not end within {limit:?}"));
            }
        }
    }

    /// Presses the power button until somebody listens, and waits for a clean end.
    pub fn power_off(&mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        loop {
            if let Err(error) = self.machine.press_power_button() {
                self.fail(&error.chain());
            }
            let again = deadline.min(Instant::now() + Duration::from_secs(3));
            let heard = loop {
                if self.console.take(|line| line.contains("shutting down")).is_some() {
                    break true;
                }
                if self.end.is_some() || !self.receive(again) {
                    break false;
                }
            };
            if heard {
                break;
            }
            if self.end.is_some() || Instant::now() >= deadline {
                self.fail("the guest did not hear the power button");
            }
        }
        self.expect("power off", limit);
        assert_eq!(self.wait_for_end(limit), End::PoweredOff, "{}", self.console.tail(20));
    }

    fn is_hopeless(&self) -> bool {
        let hopeless = |line: &Line| HOPELESS.iter().any(|word| line.text.contains(word));
        !self.expects_trouble && self.console.lines().iter().any(hopeless)
    }

    /// Takes in one event; false when there was none in time.
    fn receive(&mut self, deadline: Instant) -> bool {
        let patience = deadline.saturating_duration_since(Instant::now());
        match self.events.recv_timeout(patience) {
            Ok(Event::Console(when, bytes)) => {
                let at = when.saturating_duration_since(self.machine.started());
                self.console.add(at, &bytes);
            }
            Ok(Event::Restarted) => self.restarted = !self.restarts,
            Ok(Event::PoweredOff(true)) if !self.restarted => self.end = Some(End::PoweredOff),
            Ok(Event::PoweredOff(_)) => {}
            Ok(Event::Ended) | Err(RecvTimeoutError::Disconnected) => {
                let end = if self.restarted { End::Restarted } else { End::Stopped };
                self.end.get_or_insert(end);
            }
            Err(RecvTimeoutError::Timeout) => return false,
        }
        true
    }

    fn fail(&self, message: &str) -> ! {
        panic!("{message}\n{}\nlog: {}", self.console.tail(40), self.log_path().display());
    }

    fn log_path(&self) -> PathBuf {
        scratch().join("logs").join(format!("{}.log", self.name))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let path = self.log_path();
        if !thread::panicking() {
            let _ = fs::remove_file(path);
            return;
        }
        let log = format!("+ {}\n{}", self.machine.command_line(), self.console.log());
        let written =
            fs::create_dir_all(scratch().join("logs")).and_then(|()| fs::write(&path, log));
        if let Err(error) = written {
            eprintln!("cannot keep {}: {error}", path.display());
        }
    }
}
