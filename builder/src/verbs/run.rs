//! `iota run`: boots a disk image in QEMU on this terminal and says at every stage what happens.
//!
//! The guest's console is copied to standard output as it is; our own lines go to standard error.
//! On a terminal keys go to the guest; Ctrl-] presses the power button, once more pulls the plug.
//! Elsewhere Ctrl-C does the same.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use crate::emulation::Emulation;
use crate::error::{Context, Error, Result};
use crate::host::qemu::{self, Event, Forward, Machine};
use crate::host::signals;
use crate::host::tools::Tools;

pub mod stages;
mod terminal;

use stages::{Mark, Stage, Timeline, recognise};
use terminal::{END_KEY, RawMode};

/// What `iota run` is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The image to boot.
    pub disk: PathBuf,
    /// The machine to boot it on.
    pub emulation: Emulation,
    /// Keep in the image what the guest writes.
    pub persist: bool,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Ports that lead into the guest.
    pub forwards: Vec<Forward>,
    /// Print a table of the boot's stages at the end.
    pub timings: bool,
    /// Switch off cleanly as soon as this stage is reached.
    pub until: Option<Stage>,
    /// Pull the plug after this long.
    pub limit: Option<Duration>,
    /// `iota` commands of the guest to run once it is ready, one after the other; then it is
    /// switched off. Their output goes to standard output, the console to standard error.
    pub commands: Vec<String>,
}

impl Options {
    /// Boots `disk` until the user ends it.
    pub fn new(disk: impl Into<PathBuf>) -> Self {
        Self {
            disk: disk.into(),
            emulation: Emulation::Virt,
            persist: false,
            memory_mib: 1024,
            forwards: Vec::new(),
            timings: false,
            until: None,
            limit: None,
            commands: Vec::new(),
        }
    }
}

/// Boots an image and stays until the machine has ended.
///
/// The exit code is 0 when the guest switched itself off, having reached what was asked for; 1 when
/// it was ended from outside or did not get there. With commands it is that of the first one that
/// failed.
pub fn run(options: &Options, tools: &Tools<'_>) -> Result<ExitCode> {
    if !options.commands.is_empty() && !options.emulation.takes_commands() {
        return Err(Error::new("--exec: QEMU's machine for this board has no command port")
            .hint("run it on another board: the system is the same"));
    }
    let machine_options = qemu::Options {
        emulation: options.emulation.clone(),
        persist: options.persist,
        memory_mib: options.memory_mib,
        forwards: options.forwards.clone(),
        restarts: options.until.is_none() && options.commands.is_empty(),
        ..qemu::Options::new(&options.disk)
    };
    let (sender, events) = mpsc::channel();
    let interrupts = signals::interrupts();
    let (machine, machine_events) = Machine::start(&machine_options, tools)?;
    forward(machine_events, sender.clone(), Input::Machine);
    forward(interrupts, sender.clone(), |()| Input::Interrupt);
    let raw_mode = RawMode::enter();
    let keys = raw_mode.is_some();
    if keys {
        terminal::read_keys(sender.clone(), Input::Keys);
    }
    let mut session = Session::new(options, machine, keys, sender);
    session.greet();
    let ended = session.attend(&events);
    drop(raw_mode);
    ended?;
    session.farewell()
}

/// Everything that the session reacts to.
enum Input {
    Machine(Event),
    Keys(Vec<u8>),
    Interrupt,
    Answer(Result<qemu::Answer>),
}

fn forward<T: Send + 'static>(
    from: Receiver<T>,
    to: Sender<Input>,
    wrap: impl Fn(T) -> Input + Send + 'static,
) {
    std::thread::spawn(move || from.into_iter().try_for_each(|event| to.send(wrap(event))));
}

/// How far the user, or we, have gone to end the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    NotAsked,
    PowerButton,
    Killed,
}

/// After this long without a reaction to the power button, the user is told what else there is.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long to wait for a sign that the power button was heard before it is pressed again: nobody
/// listens while the firmware runs, nor until the guest has loaded the driver.
const PRESS_AGAIN: Duration = Duration::from_secs(3);

/// What PID 1 says when it has heard the power button.
const HEARD: &str = "shutting down";

struct Session<'a> {
    options: &'a Options,
    machine: Machine,
    timeline: Timeline,
    /// The last line of the console, as far as it has come.
    line: Vec<u8>,
    ending: Ending,
    asked_at: Option<Instant>,
    /// When the power button was pressed last, until the guest says that it was heard.
    pressed_at: Option<Instant>,
    powered_off: bool,
    restarts: u32,
    on_terminal: bool,
    /// Commands still to be run; the next one is last.
    commands: Vec<String>,
    /// Exit status of the first command that failed.
    failed: Option<u8>,
    /// Where the answers of commands come back to.
    inputs: Sender<Input>,
}

/// How long a command may take: an update on a slow machine.
const LONGEST_COMMAND: Duration = Duration::from_secs(3600);

/// A console line that never ends is no line.
const LONGEST_LINE: usize = 4096;

impl<'a> Session<'a> {
    fn new(
        options: &'a Options,
        machine: Machine,
        on_terminal: bool,
        inputs: Sender<Input>,
    ) -> Self {
        Self {
            commands: options.commands.iter().rev().cloned().collect(),
            failed: None,
            inputs,
            options,
            machine,
            timeline: Timeline::default(),
            line: Vec::new(),
            ending: Ending::NotAsked,
            asked_at: None,
            pressed_at: None,
            powered_off: false,
            restarts: 0,
            on_terminal,
        }
    }

    fn greet(&self) {
        let disk = self.options.disk.display();
        let fate =
            if self.options.persist { "writes stay in it" } else { "writes are thrown away" };
        self.say(&format!("booting {disk} in QEMU; {fate}"));
        for Forward { host, guest } in &self.options.forwards {
            self.say(&format!("http://127.0.0.1:{host} leads to port {guest} of the guest"));
        }
        let key = self.key();
        self.say(&match self.machine.has_power_button() {
            true => format!("{key} shuts the guest down, {key} twice pulls the plug"),
            false => format!("{key} pulls the plug: this machine has no power button"),
        });
    }

    fn key(&self) -> &'static str {
        if self.on_terminal { "Ctrl-]" } else { "Ctrl-C" }
    }

    /// Reacts to everything until the machine has ended.
    fn attend(&mut self, events: &Receiver<Input>) -> Result<()> {
        loop {
            match events.recv_timeout(Duration::from_millis(500)) {
                Ok(Input::Machine(Event::Ended)) => return self.machine.wait().map(|_| ()),
                Ok(input) => self.react(input)?,
                Err(RecvTimeoutError::Timeout) => self.look_at_the_clock()?,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::new("QEMU went away without a word"));
                }
            }
        }
    }

    fn react(&mut self, input: Input) -> Result<()> {
        match input {
            Input::Machine(Event::Console(when, bytes)) => self.show(when, &bytes)?,
            Input::Machine(Event::Restarted) => {
                self.restarts += 1;
                self.say("the guest restarts");
            }
            Input::Machine(Event::PoweredOff(by_guest)) => self.powered_off = by_guest,
            Input::Machine(Event::Ended) => {}
            Input::Interrupt => self.end()?,
            Input::Keys(bytes) => self.type_in(&bytes)?,
            Input::Answer(answer) => self.take_answer(answer?)?,
        }
        Ok(())
    }

    /// Starts the next command; when none is left, the guest is switched off.
    fn next_command(&mut self) -> Result<()> {
        let Some(command) = self.commands.pop() else { return self.end() };
        self.say(&format!("iota {command}"));
        let (socket, inputs) = (self.machine.commands_socket(), self.inputs.clone());
        std::thread::spawn(move || {
            let words: Vec<&str> = command.split_ascii_whitespace().collect();
            let answer = qemu::execute(&socket, &words, io::empty(), LONGEST_COMMAND);
            // A session that is over needs no answer.
            let _ = inputs.send(Input::Answer(answer));
        });
        Ok(())
    }

    fn take_answer(&mut self, answer: qemu::Answer) -> Result<()> {
        let printed = io::stdout().write_all(&answer.output).and_then(|()| io::stdout().flush());
        printed.context(|| "cannot print what the command said".to_owned())?;
        let _ = io::stderr().write_all(&answer.errors);
        if answer.status != 0 {
            self.failed.get_or_insert(answer.status);
        }
        if self.ending == Ending::NotAsked { self.next_command() } else { Ok(()) }
    }

    fn type_in(&mut self, bytes: &[u8]) -> Result<()> {
        for part in bytes.split_inclusive(|byte| *byte == END_KEY) {
            let (text, ends) = match part.split_last() {
                Some((&END_KEY, text)) => (text, true),
                _ => (part, false),
            };
            if !text.is_empty() {
                self.machine.type_in(text)?;
            }
            if ends {
                self.end()?;
            }
        }
        Ok(())
    }

    /// Copies console bytes and looks for what they say, line by line.
    fn show(&mut self, when: Instant, bytes: &[u8]) -> Result<()> {
        self.mark(when, Stage::Firmware, None)?;
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            // Whoever reads our output may be gone; the guest is worth finishing all the same.
            let _ = self.show_console(part);
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") || self.line.len() > LONGEST_LINE {
                let line = std::mem::take(&mut self.line);
                let line = String::from_utf8_lossy(&line);
                if let Some(sign) = recognise(&line) {
                    self.mark(when, sign.stage, sign.guest_seconds)?;
                }
                if line.contains(HEARD) {
                    self.pressed_at = None;
                }
            }
        }
        Ok(())
    }

    /// Standard output belongs to commands, if there are any.
    fn show_console(&self, bytes: &[u8]) -> io::Result<()> {
        if self.options.commands.is_empty() {
            io::stdout().write_all(bytes).and_then(|()| io::stdout().flush())
        } else {
            io::stderr().write_all(bytes)
        }
    }

    fn mark(&mut self, when: Instant, stage: Stage, guest_seconds: Option<f64>) -> Result<()> {
        if self.timeline.has(stage) {
            return Ok(());
        }
        let host = when.saturating_duration_since(self.machine.started());
        let bytes_read = self.machine.bytes_read().unwrap_or(0);
        self.timeline.add(Mark { stage, host, guest_seconds, bytes_read });
        self.say(&format!("{:.1} s: {}", host.as_secs_f64(), stage.meaning()));
        if self.ending != Ending::NotAsked {
            return Ok(());
        }
        if stage == Stage::Ready && !self.options.commands.is_empty() {
            self.next_command()?;
        } else if self.options.until == Some(stage) {
            self.end()?;
        }
        Ok(())
    }

    /// First the power button, then the plug.
    fn end(&mut self) -> Result<()> {
        match self.ending {
            Ending::NotAsked if self.machine.has_power_button() => {
                self.say("power button pressed: the guest shuts down");
                self.ending = Ending::PowerButton;
                self.asked_at = Some(Instant::now());
                self.press_power_button();
            }
            Ending::NotAsked | Ending::PowerButton | Ending::Killed => {
                self.say("plug pulled");
                self.ending = Ending::Killed;
                self.machine.kill();
            }
        }
        Ok(())
    }

    fn press_power_button(&mut self) {
        self.pressed_at = Some(Instant::now());
        // A machine that has just ended by itself needs no button.
        let _ = self.machine.press_power_button();
    }

    fn look_at_the_clock(&mut self) -> Result<()> {
        if self.pressed_at.is_some_and(|pressed| pressed.elapsed() > PRESS_AGAIN) {
            self.press_power_button();
        }
        let limit = self.options.limit;
        if limit.is_some_and(|limit| self.machine.started().elapsed() > limit) {
            self.say("time is up");
            self.ending = Ending::PowerButton;
            return self.end();
        }
        if self.asked_at.is_some_and(|asked| asked.elapsed() > PATIENCE) {
            self.asked_at = None;
            let (key, patience) = (self.key(), PATIENCE.as_secs());
            self.say(&format!("still running after {patience} s; {key} pulls the plug"));
        }
        Ok(())
    }

    fn farewell(&self) -> Result<ExitCode> {
        if self.options.timings {
            eprint!("{}", self.timeline.table());
        }
        let reached = self.options.until.is_none_or(|stage| self.timeline.has(stage));
        if !self.powered_off && self.ending == Ending::NotAsked && self.restarts == 0 {
            return Err(Error::new("QEMU ended by itself"));
        }
        if !reached {
            self.say("the guest ended before it got there");
        }
        if let Some(status) = self.failed {
            return Ok(ExitCode::from(status));
        }
        // Where there is no power button, pulling the plug is the way that there is.
        let ended_well = self.powered_off || !self.machine.has_power_button();
        let fine = reached && self.commands.is_empty() && ended_well;
        Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// A line of our own, told apart from the guest's.
    fn say(&self, text: &str) {
        // The cursor may stand anywhere in a line of the guest.
        let start = if self.line.is_empty() { "" } else { "\r\n" };
        let line = if self.on_terminal {
            format!("{start}\r\x1b[0;2m── {text}\x1b[0m\r\n")
        } else {
            format!("-- {text}\n")
        };
        let _ = io::stderr().write_all(line.as_bytes());
    }
}
